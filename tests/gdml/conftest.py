"""Fixtures of the kernel tests: 24 GFN2-xTB frames of ethanol and models of the sgdml package."""

from pathlib import Path

import numpy as np
import pytest

from jaxff import gdml
from jaxff.dataset import Dataset

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def data():
    return DATA


@pytest.fixture(scope="session")
def frames():
    return Dataset.load(DATA / "ethanol_frames.npz")


@pytest.fixture(scope="session")
def reference():
    with np.load(DATA / "predictions.npz") as file:
        return dict(file)


@pytest.fixture(scope="session")
def group():
    """The six permutations of ethanol: methyl rotations, and swaps with the methylene."""
    methyl = [(3, 4, 5), (4, 5, 3), (5, 3, 4), (4, 3, 5), (3, 5, 4), (5, 4, 3)]
    return np.array(
        [(0, 1, 2, *m, *((6, 7) if k < 3 else (7, 6)), 8) for k, m in enumerate(methyl)]
    )


@pytest.fixture(scope="session")
def model():
    """A model of 16 frames and 6 permutations, trained by the sgdml package."""
    return gdml.load(DATA / "ethanol_model.npz")
