"""Ranges of torsions in training frames.

A potential may be wrong for values of torsions that no training frame has, such as those of a
twisted amide.  Interatomic distances alone do not always show such values.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from jaxff.molecule import Molecule, equivalent_atoms
from jaxff.pair_distances import nearest_images

BINS = 72  # of 5° each
# A torsion may differ from its training values by GAP times the largest gap between these values,
# but by no less and no more than LIMITS.
GAP = 1.5
LIMITS = np.radians(20.0), np.radians(40.0)
STRAIGHT = np.radians(10.0)  # torsions about angles closer to 180° are not compared


@dataclass(frozen=True, eq=False)
class Turns:
    """The values that each torsion of a molecule may have.

    Attributes:
        atoms: (T, 4) atom indices of all chains of bonded atoms.
        allowed: (T, BINS) whether values in each bin are allowed; bins start at −180°.
    """

    atoms: np.ndarray
    allowed: np.ndarray

    @classmethod
    def of(
        cls, molecule: Molecule, positions: np.ndarray, lattice: np.ndarray | None = None
    ) -> Turns:
        """The values of torsions in training frames and close to them.

        Torsions of equivalent atoms have equal allowed values, so that symmetric rotors may rotate.

        Args:
            molecule: elements and bonds.
            positions: (F, N, 3) Å.
            lattice: (3, 3) Å, lattice vectors as columns, or None.
        """
        atoms, values = chains(molecule), np.empty((len(positions), 0))
        if len(atoms):
            values = torsions(positions, atoms, lattice)
            defined = ~np.isnan(values).any(axis=0)  # no training frame is straight there
            atoms, values = atoms[defined], values[:, defined]
        colours = equivalent_atoms(molecule)[atoms]
        keys = [min(tuple(key), tuple(key[::-1])) for key in colours.tolist()]
        allowed = np.zeros((len(atoms), BINS), bool)
        for key in set(keys):
            same = np.array([other == key for other in keys])
            allowed[same] = _near(values[:, same])
        return cls(atoms, allowed)

    def unusual(self, positions: np.ndarray, lattice: np.ndarray | None = None) -> np.ndarray:
        """Booleans (M, T), True for torsions with values that are not allowed.

        A frame and its mirror image have equal energies.  Therefore the one with fewer values that
        are not allowed is used.

        Args:
            positions: (M, N, 3) Å.
            lattice: (3, 3) Å, lattice vectors as columns, or None.
        """
        if not len(self.atoms):
            return np.zeros((len(positions), 0), bool)
        values = torsions(positions, self.atoms, lattice)
        defined, row = ~np.isnan(values), np.arange(len(self.atoms))
        frames, mirrored = (
            defined & ~self.allowed[row, _bins(np.where(defined, x, 0.0))]
            for x in (values, -values)
        )
        fewer = mirrored.sum(axis=1) < frames.sum(axis=1)
        return np.where(fewer[:, None], mirrored, frames)


def chains(molecule: Molecule) -> np.ndarray:
    """Atoms (T, 4) of all chains of four bonded atoms, each once."""
    around = molecule.neighbours
    found = [
        (i, j, k, last)
        for j, k in np.asarray(molecule.bonds, int).reshape(-1, 2).tolist()
        for i, last in product(around[j], around[k])
        if i != k and last not in (j, i)
    ]
    return np.array(found, int).reshape(-1, 4)


def torsions(
    positions: np.ndarray, atoms: np.ndarray, lattice: np.ndarray | None = None
) -> np.ndarray:
    """Torsions (M, T) rad of chains of atoms; NaN if a bond angle is straight.

    Args:
        positions: (M, N, 3) Å.
        atoms: (T, 4) atom indices.
        lattice: (3, 3) Å, lattice vectors as columns; bonds connect nearest images.
    """
    R = np.asarray(positions, float)
    steps = R[:, atoms[:, 1:]] - R[:, atoms[:, :-1]]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        steps = nearest_images(steps, lattice)
        u, v, w = (steps[:, :, k] for k in range(3))
        first, second = np.cross(u, v), np.cross(v, w)
        size = [np.linalg.norm(x, axis=-1) for x in (u, v, w, first, second)]
        sine = np.minimum(size[3] / (size[0] * size[1]), size[4] / (size[1] * size[2]))
        angle = np.arctan2(size[1] * np.sum(u * second, axis=-1), np.sum(first * second, axis=-1))
        return np.where(sine > np.sin(STRAIGHT), angle, np.nan)


def _near(values: np.ndarray) -> np.ndarray:
    """Whether each bin (BINS,) is close to one of the values, rad."""
    ordered = np.sort(values, axis=None)
    gaps = np.diff(ordered, append=ordered[:1] + 2.0 * np.pi)
    nearest = np.minimum(gaps, np.roll(gaps, 1))
    limit = np.clip(GAP * nearest.max(), *LIMITS)
    centres = (np.arange(BINS) + 0.5) * 2.0 * np.pi / BINS - np.pi
    apart = np.abs((centres[:, None] - ordered + np.pi) % (2.0 * np.pi) - np.pi)
    return (apart <= limit).any(axis=1)


def _bins(values: np.ndarray) -> np.ndarray:
    return np.floor((values + np.pi) / (2.0 * np.pi) * BINS).astype(int) % BINS
