"""Data in two steps: frames from one potential, labels from another.

Source: Sauceda, Gastegger, Chmiela, Müller and Tkatchenko, J. Chem. Phys. 153, 124109 (2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxff import gdml
from jaxff.analysis.averages import Estimate
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.standard_errors import Uncertainty
from jaxff.learn import evaluate
from jaxff.molecule import Molecule
from jaxff.potential import Potential
from jaxff.reference.label import label_frames
from jaxff.reference.selection import select
from jaxff.reference.settings import Labelling, Progress, Sampling

CANDIDATES = 10  # frames of the dynamics for each frame that is selected


@dataclass(frozen=True, eq=False)
class Selection:
    """Which frames of a sampling are labelled.

    Attributes:
        n: number of frames to label.
        by: how they are selected; see `select`.
        candidates: number of frames to select from; None: `n` for "random", otherwise 10 `n`.
        model: model of the selection, see `select`; None: for "energy", the potential that
            samples.
    """

    n: int
    by: str = "random"
    candidates: int | None = None
    model: Potential | Uncertainty | None = None

    def sample(
        self,
        potential: Potential,
        molecule: Molecule,
        sampling: Sampling,
        *,
        starts: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Positions (n, N, 3) Å of selected frames of the dynamics; see `two_step`."""
        count = self.candidates or (self.n if self.by == "random" else CANDIDATES * self.n)
        frames = sampling.frames(potential, molecule, count, starts=starts, progress=progress)
        model = self.model
        if model is None and self.by == "energy":
            model = potential.matched(molecule)
        return frames[select(frames, self.n, self.by, model=model, seed=sampling.seed)]


def two_step(
    potential: Potential,
    molecule: Molecule,
    out: str | Path,
    selection: Selection,
    labelling: Labelling = Labelling(),
    sampling: Sampling = Sampling(),
    *,
    starts: np.ndarray | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Sample frames with one potential, and label them by a better method.

    Args:
        potential: potential whose dynamics give the frames.
        molecule: elements, charge and starting geometry.
        out: the npz file to write.
        selection: how many frames are labelled, and which.
        labelling: the calculator that labels them.
        sampling: the dynamics.
        starts: starting geometries of the replicas (R, N, 3) Å; None: that of `molecule`. They
            matter for molecules with equivalent atoms, which dynamics rarely exchange.
        progress: called with a phase and the fraction done.

    Raises:
        InputError: as for `select` and `label_frames`.
        SimulationError: the dynamics failed.
    """
    frames = selection.sample(potential, molecule, sampling, starts=starts, progress=progress)
    return label(frames, molecule, out, labelling, progress)


def label(
    positions: np.ndarray,
    molecule: Molecule,
    out: str | Path,
    labelling: Labelling,
    progress: Progress | None = None,
) -> Dataset:
    """Label positions (M, N, 3) Å of a molecule; see `label_frames`."""
    frames = [molecule.with_positions(r) for r in positions]
    labelling = replace(labelling, name=labelling.name or molecule.name or None)
    return label_frames(frames, out, labelling, molecule=molecule, progress=progress).dataset


class CrossValidation(NamedTuple):
    """Errors of models that were trained on one sampling and tested on another.

    Attributes:
        names: (S,) names of the samplings.
        errors: for each metric an `Estimate` (S, S), trained on the sampling of the row and
            tested on that of the column: mean over the seeds, and its standard error (NaN for a
            single seed).
    """

    names: tuple[str, ...]
    errors: dict[str, Estimate]


def cross_validate(
    samplings: Mapping[str, Dataset],
    n_train: int,
    *,
    n_valid: int = 100,
    n_test: int = 1000,
    seeds: Sequence[int] = (0, 1, 2),
    train: Callable[[Dataset, Dataset, int], Potential] | None = None,
    progress: Progress | None = None,
) -> CrossValidation:
    """Train on each sampling and test on every sampling, as in Table I of the paper.

    For each seed, all models are tested on the same frames of a sampling. A model that was trained
    on this sampling has not seen these frames.

    Args:
        samplings: data sets of one molecule in one atom order, at one level of theory.
        n_train: number of training frames, drawn at random.
        n_valid: number of validation frames.
        n_test: number of test frames.
        seeds: seeds of the random draws; one model is trained for each seed and sampling.
        train: function of training frames, validation frames and a seed that returns a potential;
            None: `gdml.train`.
        progress: called with a phase and the fraction done.

    Raises:
        InputError: no samplings or seeds, different molecules, or too few frames.
    """
    names = tuple(samplings)
    if not names or not len(seeds):
        raise InputError("cross-validation needs at least one sampling and one seed")
    first = samplings[names[0]]
    for name, data in samplings.items():
        if not np.array_equal(data.numbers, first.numbers):
            raise InputError(
                f"sampling {name!r} has different atoms from {names[0]}, or another atom order; "
                "give data of one molecule"
            )
    train = _kernel if train is None else train
    tables: dict[str, list] = {}
    for k, seed in enumerate(seeds):
        splits = {
            name: data.split(n_train, n_valid, n_test, seed=seed)
            for name, data in samplings.items()
        }
        for i, name in enumerate(names):
            if progress is not None:
                progress("cross-validation", (k + i / len(names)) / len(seeds))
            potential = train(splits[name].train, splits[name].valid, seed)
            for other in names:
                for key, value in evaluate(potential, splits[other].test).items():
                    tables.setdefault(key, []).append(value)
    shape = (len(seeds), len(names), len(names))
    errors = {}
    for key, values in tables.items():
        if len(values) < np.prod(shape):  # a sampling without energies
            continue
        table = np.reshape(values, shape)
        spread = np.full(shape[1:], np.nan)
        if len(seeds) > 1:
            spread = table.std(axis=0, ddof=1) / np.sqrt(len(seeds))
        errors[key] = Estimate(table.mean(axis=0), spread)
    return CrossValidation(names, errors)


def _kernel(train: Dataset, valid: Dataset, seed: int) -> Potential:
    return gdml.train(train, valid, run=gdml.Run(seed=seed))
