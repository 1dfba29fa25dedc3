"""Selection of frames to label."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxff.dataset import Dataset, stratified
from jaxff.errors import InputError
from jaxff.gdml.descriptor import pair_permutations
from jaxff.gdml.standard_errors import Uncertainty
from jaxff.potential import Potential

WAYS = ("random", "energy", "farthest", "uncertainty")
# Number of the most uncertain frames for each selected frame.
SPREAD = 4


def select(
    frames: Dataset | np.ndarray,
    n: int,
    by: str = "random",
    *,
    model: Potential | Uncertainty | np.ndarray | None = None,
    known: np.ndarray | None = None,
    permutations: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Select frames to label.

    - "random": random frames.
    - "energy": frames with the same distribution of energies as all frames, in bins by Freedman
      and Diaconis.
    - "farthest": farthest point sampling (Eldar et al., IEEE Trans. Image Process. 6, 1305
      (1997)) with inverse interatomic distances. Without `known` frames, the first frame is the
      farthest from the mean.
    - "uncertainty": farthest point sampling of the 4 n frames with the largest standard errors of
      the forces, because similar frames have similar errors.

    Args:
        frames: a `Dataset`, or positions (M, N, 3) Å.
        n: number of frames to select.
        by: criterion, one of the above.
        model: for "energy", the `Potential` that gives the energies of frames without energies;
            for "uncertainty", the `Uncertainty` of a kernel model (`jaxff.gdml.uncertainty`), or
            standard errors (M,) kcal/mol/Å.
        known: positions (K, N, 3) Å of labelled frames; selected frames are also far from the
            labelled frames.
        permutations: (P, N) permutations of equivalent atoms, which do not change the distance of
            two frames (None: all atoms differ), see `jaxff.gdml.find_symmetries`.
        seed: random seed.

    Returns:
        indices (n,) of the frames, in ascending order.

    Raises:
        InputError: an unknown `by`, fewer than `n` frames, or a missing model.
    """
    positions = np.asarray(getattr(frames, "positions", frames), float)
    if by not in WAYS:
        raise InputError(f"unknown criterion by={by!r}: use one of {', '.join(WAYS)}")
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise InputError(f"positions must have shape (M, N, 3) (got {positions.shape})")
    if not 1 <= n <= len(positions):
        raise InputError(f"n must be 1 to {len(positions)}, the number of frames (got {n})")
    entries = None if permutations is None else pair_permutations(permutations)
    if by == "random":
        chosen = np.random.default_rng(seed).permutation(len(positions))[:n]
    elif by == "energy":
        energies = _energies(frames, positions, model)
        chosen = stratified(energies, n, np.random.default_rng(seed))
    elif by == "farthest":
        chosen = farthest(_descriptors(positions), n, _known(known), entries)
    else:
        errors = model if isinstance(model, np.ndarray) else force_uncertainty(model, positions)
        uncertain = np.argsort(-errors, kind="stable")[: SPREAD * n]
        points = _descriptors(positions[uncertain])
        chosen = uncertain[farthest(points, n, _known(known), entries)]
    return np.sort(chosen)


def farthest(
    points: np.ndarray,
    n: int,
    known: np.ndarray | None = None,
    entries: np.ndarray | None = None,
) -> np.ndarray:
    """Select n of M points (M, D), far from known points (K, D) and from each other.

    Args:
        points: (M, D) descriptors.
        n: number of points to select.
        known: (K, D) descriptors, or None.
        entries: (P, D) permutations of the descriptors, which do not change distances (None: none).

    Returns:
        indices (n,) in the order of selection.
    """
    entries = np.arange(points.shape[1])[None] if entries is None else entries

    def to(others: np.ndarray) -> np.ndarray:
        """Distances (M,) to the nearest image of other points (K, D)."""
        images = others[:, entries].reshape(-1, points.shape[1])
        return np.array([np.linalg.norm(images - x, axis=1).min() for x in points])

    if known is None:
        nearest = np.full(len(points), np.inf)
        first = np.linalg.norm(points - points.mean(axis=0), axis=1)
    else:
        nearest = first = to(known)
    chosen = [int(np.argmax(first))]
    while len(chosen) < n:
        nearest = np.minimum(nearest, to(points[chosen[-1:]]))
        nearest[chosen] = -1.0  # smaller than the distance of identical frames, which is zero
        chosen.append(int(np.argmax(nearest)))
    return np.array(chosen)


def force_uncertainty(model: Any, positions: np.ndarray) -> np.ndarray:
    """Return the RMS standard errors (M,) kcal/mol/Å of forces at positions (M, N, 3) Å.

    Raises:
        InputError: `model` is not an `Uncertainty`.
    """
    if not isinstance(model, Uncertainty):
        raise InputError(
            'by="uncertainty" needs a model: give model=jaxff.gdml.uncertainty(potential, train, '
            "valid)"
        )
    return np.sqrt(np.mean(model.predict(positions)[1] ** 2, axis=(1, 2)))


def _energies(frames: Any, positions: np.ndarray, model: Any) -> np.ndarray:
    if isinstance(frames, Dataset) and frames.energies is not None:
        return frames.energies
    if not isinstance(model, Potential):
        raise InputError(
            'by="energy" needs energies: give a Dataset with energies, or a Potential as model'
        )
    return model.predict(positions)[0]


def _known(positions: np.ndarray | None) -> np.ndarray | None:
    return None if positions is None else _descriptors(positions)


def _descriptors(positions: np.ndarray) -> np.ndarray:
    """Return the inverse distances (M, D) 1/Å of all pairs at positions (M, N, 3) Å."""
    i, j = np.tril_indices(positions.shape[1], -1)
    return 1.0 / np.linalg.norm(positions[:, i] - positions[:, j], axis=-1)
