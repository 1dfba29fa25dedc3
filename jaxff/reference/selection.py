"""Which frames to label: at random, evenly over energies, far apart, or where a model is unsure."""

from __future__ import annotations

import numpy as np

from jaxff.dataset import Dataset, stratified
from jaxff.errors import InputError
from jaxff.gdml.uncertainty import Uncertainty
from jaxff.potential import Potential

WAYS = ("random", "energy", "farthest", "uncertainty")
# Of so many times the frames wanted, the most uncertain, those are taken that are farthest apart.
SPREAD = 4


def select(
    frames, n: int, by: str = "random", *, model=None, known=None, seed: int = 0
) -> np.ndarray:
    """Indices (n,) of frames worth labelling, going up.

    - "random": any.
    - "energy": with the distribution of energies of all, by the bins of Freedman and Diaconis.
    - "farthest": each the one whose inverse distances are farthest from those of all frames taken
      before (Eldar et al., IEEE Trans. Image Process. 6, 1305 (1997)), the first, without `known`
      ones, the farthest from the mean.
    - "uncertainty": of the 4 n with the largest standard error of their forces those that are
      farthest apart, because neighbours are uncertain alike.

    Args:
        frames: a `Dataset`, or positions (M, N, 3) Å.
        n: how many.
        by: see above.
        model: a `Potential` whose energies count where a data set has none; or the `Uncertainty`
            of a kernel model (`jaxff.gdml.uncertainty`), or the standard errors (M,) themselves.
        known: (K, N, 3) Å, frames that are labelled already; what is farthest is so from them, too.
        seed: of what is random.

    Raises:
        InputError: an unknown way, fewer frames than wanted, or a model that is missing.
    """
    positions = np.asarray(getattr(frames, "positions", frames), float)
    if by not in WAYS:
        raise InputError(f"frames cannot be selected by {by!r}: use one of {', '.join(WAYS)}")
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise InputError(f"positions have shape {positions.shape}: (M, N, 3) is needed")
    if not 1 <= n <= len(positions):
        raise InputError(f"{n} frames are wanted of {len(positions)}")
    if by == "random":
        chosen = np.random.default_rng(seed).permutation(len(positions))[:n]
    elif by == "energy":
        energies = _energies(frames, positions, model)
        chosen = stratified(energies, n, np.random.default_rng(seed))
    elif by == "farthest":
        chosen = farthest(_descriptors(positions), n, _descriptors(known))
    else:
        errors = force_uncertainty(model, positions) if np.ndim(model) != 1 else np.asarray(model)
        doubtful = np.argsort(-errors, kind="stable")[: SPREAD * n]
        chosen = doubtful[farthest(_descriptors(positions[doubtful]), n, _descriptors(known))]
    return np.sort(chosen)


def farthest(points: np.ndarray, n: int, known: np.ndarray | None = None) -> np.ndarray:
    """Indices (n,) of points (M, D), each farthest from the known ones (K, D) and those before."""
    if known is None:
        nearest = np.full(len(points), np.inf)
        first = np.linalg.norm(points - points.mean(axis=0), axis=1)
    else:
        nearest = first = np.array([np.linalg.norm(known - x, axis=1).min() for x in points])
    chosen = [int(np.argmax(first))]
    while len(chosen) < n:
        last = np.linalg.norm(points - points[chosen[-1]], axis=1)
        nearest = np.minimum(nearest, last)
        nearest[chosen] = -1.0  # copies of a frame have distance zero, and can come last
        chosen.append(int(np.argmax(nearest)))
    return np.array(chosen)


def force_uncertainty(model: Uncertainty, positions: np.ndarray) -> np.ndarray:
    """Root-mean-square standard error (M,) kcal/mol/Å of the forces at positions (M, N, 3) Å."""
    if not isinstance(model, Uncertainty):
        raise InputError(
            "selection by uncertainty needs model=jaxff.gdml.uncertainty(potential, train, valid)"
        )
    return np.sqrt(np.mean(model.predict(positions)[1] ** 2, axis=(1, 2)))


def _energies(frames, positions, model) -> np.ndarray:
    if isinstance(frames, Dataset) and frames.energies is not None:
        return frames.energies
    if not isinstance(model, Potential):
        raise InputError("selection by energy needs frames with energies, or model=a Potential")
    return model.predict(positions)[0]


def _descriptors(positions) -> np.ndarray | None:
    """Inverse distances (M, D) 1/Å of positions (M, N, 3) Å."""
    if positions is None:
        return None
    i, j = np.tril_indices(positions.shape[1], -1)
    return 1.0 / np.linalg.norm(positions[:, i] - positions[:, j], axis=-1)
