"""Basins of aspirin, defined by torsions, and shares of the time spent in each basin."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import nan

import numpy as np

from jaxff.analysis import Estimate, torsion_angles
from jaxff.molecule import Molecule
from jaxff.npz import NpzReader
from jaxff.paper.experiment import Setting
from jaxff.paper.minima import MOLECULE, acid_hydrogen, all_minima, atoms_of

BASINS = (
    "ester facing, C=O near",
    "ester facing, OH near",
    "ester away, C=O near",
    "ester away, OH near",
    "OH turned",
)
RULE = (
    "Basins are defined by torsions. The ester faces the acid if the torsion about the C-O bond "
    "between ester and ring is between -90° and 90°; this torsion runs from the ring carbon of "
    "the acid to the carbonyl carbon of the ester. The torsion about the bond between acid and "
    "ring decides whether the C=O or the OH of the acid is near the ester. In the last basin, "
    "the hydrogen of the acid points away from the C=O of the acid."
)
SAMPLES = 1000  # of a bootstrap


def torsions(molecule: Molecule) -> np.ndarray:
    """Return the torsions (3, 4) of the ester, the acid, and the hydroxyl group of the acid."""
    atoms = atoms_of(molecule).tolist()  # in the order of the SMILES
    ester, acid = (atoms[k] for k in (9, 4, 3, 1)), (atoms[k] for k in (4, 9, 10, 11))
    hydroxyl = (*(atoms[k] for k in (11, 10, 12)), acid_hydrogen(molecule))
    return np.array([[*ester], [*acid], [*hydroxyl]], int)


def basin_of(molecule: Molecule, positions: np.ndarray) -> np.ndarray:
    """Return the index (F,) in `BASINS` of the basin of each frame (F, N, 3) Å."""
    away, hydroxyl, turned = (np.cos(torsion_angles(positions, torsions(molecule))) < 0.0).T
    return np.where(turned, len(BASINS) - 1, 2 * away + hydroxyl)


def counted(
    molecule: Molecule, parts: Iterable[np.ndarray], weights: Iterable[np.ndarray] | None = None
) -> np.ndarray:
    """Count the frames in each of K basins, for R parts of a sampling.

    Args:
        molecule: aspirin.
        parts: frames (F, N, 3) Å of each part, such as a replica or a block of time.
        weights: weights (F,) of the frames of each part; None for equal weights.

    Returns:
        numbers of frames (R, K).
    """
    parts = list(parts)
    given = [None] * len(parts) if weights is None else weights
    which = np.split(
        basin_of(molecule, np.concatenate(parts)), np.cumsum([len(R) for R in parts])[:-1]
    )
    return np.array([
        np.bincount(k, w, minlength=len(BASINS)) for k, w in zip(which, given, strict=True)
    ])  # fmt: skip


def facing(shares: np.ndarray) -> np.ndarray:
    """Compute the share (...) of frames with the ester facing the acid.

    `shares` (..., K) are the shares of the K basins. Frames with a turned hydroxyl group are
    omitted.
    """
    return shares[..., :2].sum(axis=-1) / shares[..., :4].sum(axis=-1)


def estimated(measure: Callable[..., np.ndarray], *tables: np.ndarray, seed: int = 0) -> Estimate:
    """Compute a measure of the shares of basins in samplings, with its standard error.

    The error comes from a bootstrap over the rows of each table. The error is unknown (NaN) if the
    rows do not vary.

    Args:
        measure: function of the shares (..., K) in each sampling that returns (...).
        tables: numbers of frames (R, K) in each part of each sampling.
        seed: seed of the bootstrap.
    """
    rng = np.random.default_rng(seed)

    def shares(sums: np.ndarray) -> np.ndarray:
        return sums / sums.sum(axis=-1, keepdims=True)

    def drawn(table: np.ndarray) -> np.ndarray:
        return shares(table[rng.integers(len(table), size=(SAMPLES, len(table)))].sum(axis=1))

    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(measure(*(shares(table.sum(axis=0)) for table in tables)))
        error = float(np.std(measure(*map(drawn, tables)), ddof=1))
    return Estimate(value, error if error > 1e-12 else nan)


def global_basin(setting: Setting) -> int:
    """Return the index of the basin with the reference's global minimum of aspirin."""
    path = setting.place("fig5") / "minima.npz"
    if not path.is_file():
        all_minima(setting)  # writes the file
    lowest = NpzReader(path, "minima").need("positions")[:1]
    return int(basin_of(setting.dataset(MOLECULE).molecule, lowest)[0])
