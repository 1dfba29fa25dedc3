"""Selection of frames to label."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxff.dataset import Dataset, stratified
from jaxff.errors import InputError
from jaxff.gdml.standard_errors import Uncertainty
from jaxff.potential import Potential

WAYS = ("random", "energy", "farthest", "uncertainty")
# Number of the most uncertain frames, for each frame to select, from which the farthest are taken.
SPREAD = 4


def select(
    frames: Dataset | np.ndarray,
    n: int,
    by: str = "random",
    *,
    model: Potential | Uncertainty | np.ndarray | None = None,
    known: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Select frames that are worth labelling.

    - "random": at random.
    - "energy": so that the energies are distributed as those of all frames, in bins by Freedman
      and Diaconis.
    - "farthest": one frame after the other, each with the largest distance in inverse interatomic
      distances to all frames selected before (Eldar et al., IEEE Trans. Image Process. 6, 1305
      (1997)). Without `known` frames, the first is the farthest from the mean.
    - "uncertainty": of the 4 n frames with the largest standard errors of their forces, those that
      are farthest apart, because similar frames have similar errors.

    Args:
        frames: a `Dataset`, or positions (M, N, 3) Å.
        n: number of frames to select.
        by: one of the above.
        model: for "energy", the `Potential` that gives the energies if a data set has none; for
            "uncertainty", the `Uncertainty` of a kernel model (`jaxff.gdml.uncertainty`), or
            standard errors (M,) kcal/mol/Å.
        known: positions (K, N, 3) Å of frames that are already labelled, from which selected
            frames must be far as well.
        seed: seed of random choices.

    Returns:
        Indices (n,) of the frames, in ascending order.

    Raises:
        InputError: an unknown `by`, fewer than `n` frames, or a missing model.
    """
    positions = np.asarray(getattr(frames, "positions", frames), float)
    if by not in WAYS:
        raise InputError(f"frames cannot be selected by {by!r}: use one of {', '.join(WAYS)}")
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise InputError(f"positions have shape {positions.shape}, expected (M, N, 3)")
    if not 1 <= n <= len(positions):
        raise InputError(f"{n} frames are requested, but there are {len(positions)}")
    if by == "random":
        chosen = np.random.default_rng(seed).permutation(len(positions))[:n]
    elif by == "energy":
        energies = _energies(frames, positions, model)
        chosen = stratified(energies, n, np.random.default_rng(seed))
    elif by == "farthest":
        chosen = farthest(_descriptors(positions), n, _known(known))
    else:
        errors = model if isinstance(model, np.ndarray) else force_uncertainty(model, positions)
        uncertain = np.argsort(-errors, kind="stable")[: SPREAD * n]
        chosen = uncertain[farthest(_descriptors(positions[uncertain]), n, _known(known))]
    return np.sort(chosen)


def farthest(points: np.ndarray, n: int, known: np.ndarray | None = None) -> np.ndarray:
    """Indices (n,) of points (M, D), each far from known (K, D) and earlier points."""
    if known is None:
        nearest = np.full(len(points), np.inf)
        first = np.linalg.norm(points - points.mean(axis=0), axis=1)
    else:
        nearest = first = np.array([np.linalg.norm(known - x, axis=1).min() for x in points])
    chosen = [int(np.argmax(first))]
    while len(chosen) < n:
        last = np.linalg.norm(points - points[chosen[-1]], axis=1)
        nearest = np.minimum(nearest, last)
        nearest[chosen] = -1.0  # below the distance of copies, which is zero
        chosen.append(int(np.argmax(nearest)))
    return np.array(chosen)


def force_uncertainty(model: Any, positions: np.ndarray) -> np.ndarray:
    """RMS standard errors (M,) kcal/mol/Å of forces at positions (M, N, 3) Å.

    Raises:
        InputError: `model` is not an `Uncertainty`.
    """
    if not isinstance(model, Uncertainty):
        raise InputError(
            "selection by uncertainty needs model=jaxff.gdml.uncertainty(potential, train, valid)"
        )
    return np.sqrt(np.mean(model.predict(positions)[1] ** 2, axis=(1, 2)))


def _energies(frames: Any, positions: np.ndarray, model: Any) -> np.ndarray:
    if isinstance(frames, Dataset) and frames.energies is not None:
        return frames.energies
    if not isinstance(model, Potential):
        raise InputError("selection by energy needs frames with energies, or model=a Potential")
    return model.predict(positions)[0]


def _known(positions: np.ndarray | None) -> np.ndarray | None:
    return None if positions is None else _descriptors(positions)


def _descriptors(positions: np.ndarray) -> np.ndarray:
    """Inverse distances (M, D) 1/Å of positions (M, N, 3) Å."""
    i, j = np.tril_indices(positions.shape[1], -1)
    return 1.0 / np.linalg.norm(positions[:, i] - positions[:, j], axis=-1)
