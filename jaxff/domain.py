"""Training domains: summaries of training frames, to detect extrapolation.

A trained potential is unreliable far from its training frames: a kernel predicts a constant energy,
and the energy of a fitted force field may have no lower limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from jaxff.molecule import Molecule
from jaxff.pair_distances import (
    inverse_distances,
    nearest_distances,
    pair_classes,
    pair_lengths,
    signatures,
    sorted_by_class,
    with_squares,
)
from jaxff.turns import BINS, Turns, torsions

MAX_FRAMES = 500  # number of training frames with which new frames are compared
MAX_NUMBERS = 500_000  # largest number of inverse distances in these frames
MARGIN = 1.2  # limit, in units of the largest distance to the nearest other training frame
STRETCH = 0.5  # a bond may exceed its range in the training set by this part of the range,
LEAST_STRETCH = 0.05  # or by this length, Å, if it is larger
DEPTH = 1.25  # lowest energy, in units of the estimated depth of the minimum below the mean
LEAST_DEPTH = 1.0  # kcal/mol by which an energy may always be below the lowest training energy
_FLOOR = 0.1  # smallest scale of an entry, in units of the mean scale
_SAME = 1e-6  # relative difference of the signatures of one frame, from rounding in text files


class Trained(NamedTuple):
    """Training frames of a potential, or of one of its terms.

    Attributes:
        domain: the training frames.
        atoms: (n,) index in the potential of each atom of the domain; None: all atoms in order.
        whole: whether the energies of the domain are those of the whole potential.
    """

    domain: Domain
    atoms: tuple[int, ...] | None = None
    whole: bool = True

    def on(self, atoms: np.ndarray) -> Trained:
        """The training frames of the potential placed on `atoms` (n,) of a larger system."""
        own = range(len(atoms)) if self.atoms is None else self.atoms
        return self._replace(atoms=tuple(int(atoms[i]) for i in own))

    def within(self, atoms: np.ndarray, count: int) -> bool:
        """Whether `atoms` (n,) of a potential of `count` atoms contains those of the domain."""
        return bool(np.isin(range(count) if self.atoms is None else self.atoms, atoms).all())


class Outside(NamedTuple):
    """The frames of a set that are outside the training data.

    Attributes:
        frames: (M,) whether each frame is outside.
        energies: (M,) kcal/mol, lowest training energy minus the energy of the frame; 0 if this
            difference is negative or unknown.
        reason: why the first such frame is outside; "" if there is none.
    """

    frames: np.ndarray
    energies: np.ndarray
    reason: str

    def summary(self) -> dict[str, Any]:
        """Counts, the first frame outside and the largest of `energies`, as JSON values."""
        count, total = int(self.frames.sum()), len(self.frames)
        return {
            "frames": total, "outside": count, "share": count / max(total, 1),
            "first": int(self.frames.argmax()) if count else None, "reason": self.reason,
            "energy_below": float(self.energies.max(initial=0.0)),
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Domain:
    """Summary of the training frames of a potential.

    Two frames are compared by their inverse interatomic distances.  The D = N(N−1)/2 pairs of atoms
    belong to classes; the potential cannot distinguish the pairs of one class.  Inverse distances
    are therefore sorted within each class, and divided by their standard deviations.

    Attributes:
        atoms: (N,) symbols of the elements, for messages.
        orbits: (D,) class of each pair of atoms.
        scale: (D,) 1/Å, standard deviations of the sorted inverse distances.
        reference: (M, D) sorted inverse distances of some training frames, in units of `scale`.
        limit: () largest allowed Euclidean distance from the nearest row of `reference`.
        bonds: (B, 2) atoms of each bond.
        lengths: (B, 2) Å, shortest and longest length that each bond may have.
        energies: (2,) kcal/mol, lowest and highest energy of the potential on its training frames;
            NaN if unknown.
        floor: () kcal/mol, lowest allowed energy of the potential.
        signatures: (F, 2) sums that identify each of the F training frames, for any order of the
            atoms and any orientation.
        lattice: (3, 3) Å, lattice vectors as columns; distances are those of the nearest images.
            None: the frames are not periodic.
        chains: (T, 4) atoms of the torsions; None in files of earlier versions.
        allowed: (T, BINS) whether values in each bin are allowed; see `jaxff.turns.Turns`.
    """

    atoms: np.ndarray
    orbits: np.ndarray
    scale: np.ndarray
    reference: np.ndarray
    limit: np.ndarray
    bonds: np.ndarray
    lengths: np.ndarray
    energies: np.ndarray
    floor: np.ndarray
    signatures: np.ndarray
    lattice: np.ndarray | None = None
    chains: np.ndarray | None = None
    allowed: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        molecule: Molecule,
        positions: np.ndarray,
        energies: np.ndarray | None = None,
        permutations: np.ndarray | None = None,
        lattice: np.ndarray | None = None,
    ) -> Domain:
        """The domain of a potential, with limits that follow from the training frames.

        The distance limit follows from the distance of each frame to the nearest other frame.  The
        energy limit follows from the mean and the standard deviation s of the energies.  Harmonic
        vibrations of f degrees of freedom have a mean energy of s √(f/2) above the minimum.

        Args:
            molecule: elements and bonds.
            positions: (F, N, 3) Å, the training frames.
            energies: (F,) kcal/mol, energies of the trained potential; None if unknown.
            permutations: (P, N) permutations under which the potential is symmetric; None: the
                permutations of all equivalent atoms of the bond graph.
            lattice: (3, 3) Å, lattice vectors as columns, or None.
        """
        positions = np.asarray(positions, float)
        orbits = pair_classes(molecule, permutations)
        pairs = inverse_distances(positions, lattice)
        x = sorted_by_class(pairs, orbits)
        spread = x.std(axis=0)
        scale = np.maximum(spread, _FLOOR * spread.sum() / max(spread.size, 1) + 1e-9)
        room = max(MAX_NUMBERS // max(x.shape[1], 1), 20)
        every = -(-len(x) // min(MAX_FRAMES, room))
        reference = (x[::every] / scale).astype(np.float32)
        nearest = nearest_distances(x / scale, *with_squares(reference), skip_itself=True)
        usual = nearest[np.isfinite(nearest)]
        limit = MARGIN * usual.max() if len(usual) and spread.size else np.inf
        lengths = pair_lengths(molecule.bonds, positions, lattice)
        low, high = lengths.min(axis=0), lengths.max(axis=0)
        spare = np.maximum(STRETCH * (high - low), LEAST_STRETCH)
        span, floor = [np.nan, np.nan], -np.inf
        if energies is not None:
            span = [np.min(energies), np.max(energies)]
            depth = np.std(energies) * np.sqrt(max(3 * molecule.n_atoms - 6, 1) / 2.0)
            floor = min(np.mean(energies) - DEPTH * depth, span[0]) - LEAST_DEPTH
        turns = Turns.of(molecule, positions, lattice)
        return cls(
            np.array(molecule.symbols),
            orbits,
            scale,
            reference,
            np.array(limit),
            np.asarray(molecule.bonds, int).reshape(-1, 2),
            np.stack([low - spare, high + spare], axis=1),
            np.array(span, float),
            np.array(floor),
            signatures(pairs),
            None if lattice is None else np.asarray(lattice, float),
            turns.atoms,
            turns.allowed,
        )

    def without_limits(self) -> Domain:
        """The domain with infinite limits, so that no frame is outside.

        It is used for terms that are zero far from their training frames.
        """
        lengths = np.tile([0.0, np.inf], (len(self.bonds), 1))
        limits = {"limit": np.array(np.inf), "lengths": lengths, "floor": np.array(-np.inf)}
        return replace(self, **limits, chains=None, allowed=None)

    @property
    def n_frames(self) -> int:
        """Number of training frames."""
        return len(self.signatures)

    def distances(self, positions: np.ndarray) -> np.ndarray:
        """Distances (M,) from training frames, divided by `limit`; positions (M, N, 3) Å."""
        x = sorted_by_class(inverse_distances(positions, self.lattice), self.orbits)
        return nearest_distances(x / self.scale, *self._compared) / float(self.limit)

    @cached_property
    def _compared(self) -> tuple[np.ndarray, np.ndarray]:
        return with_squares(self.reference)

    def outside(self, positions: np.ndarray, energies: np.ndarray | None = None) -> Outside:
        """The frames outside this domain, and the reason for the first of them.

        Args:
            positions: (M, N, 3) Å.
            energies: (M,) kcal/mol, energies of the trained potential; None if unknown.
        """
        positions = np.asarray(positions, float)
        energies = np.full(len(positions), np.nan) if energies is None else np.asarray(energies)
        low, high = self.lengths.T
        lengths = pair_lengths(self.bonds, positions, self.lattice)
        with np.errstate(invalid="ignore"):
            below = np.nan_to_num(np.maximum(self.energies[0] - energies, 0.0))
            deep = energies < self.floor
            broken = ~((lengths >= low) & (lengths <= high)).all(axis=1)
            distances = self.distances(positions)
            far = ~(distances <= 1.0)
        turned = self._turned(positions)
        frames = deep | broken | far | turned.any(axis=1)
        if not frames.any():
            return Outside(frames, below, "")
        first = int(np.argmax(frames))
        if deep[first]:
            reason = (
                f"the energy is {below[first]:.1f} kcal/mol below the lowest training energy, and "
                "below the minimum estimated from the training energies"
            )
        elif broken[first]:
            excess = np.maximum(lengths[first] - high, low - lengths[first])
            worst = int(np.nanargmax(np.where(np.isnan(excess), np.inf, excess)))
            i, j = map(int, self.bonds[worst])
            side = "shorter" if lengths[first, worst] < low[worst] else "longer"
            reason = (
                f"the bond of atoms {i} ({self.atoms[i]}) and {j} ({self.atoms[j]}) is "
                f"{lengths[first, worst]:.2f} Å long, {excess[worst]:.2g} Å {side} than the "
                f"training frames allow ({low[worst]:.2f} to {high[worst]:.2f} Å)"
            )
        elif turned[first].any():
            chain = np.asarray(self.chains)[[int(np.argmax(turned[first]))]]
            value = np.degrees(torsions(positions[[first]], chain, self.lattice).item())
            words = ", ".join(f"{atom} ({self.atoms[atom]})" for atom in chain[0])
            reason = (
                f"the torsion of atoms {words} is {value:.0f}°, but the training frames contain "
                "no similar value"
            )
        else:
            reason = (
                "the interatomic distances differ from those of the nearest training frame by "
                f"{distances[first]:.2f} times the limit"
            )
        return Outside(frames, below, reason)

    def _turned(self, positions: np.ndarray) -> np.ndarray:
        """Booleans (M, T), True for torsions at `positions` far from training values."""
        if self.chains is None or self.allowed is None:
            return np.zeros((len(positions), 0), bool)
        return Turns(self.chains, self.allowed.astype(bool)).unusual(positions, self.lattice)

    def trained_on(self, positions: np.ndarray) -> np.ndarray:
        """Booleans (M,), True for training frames among the `positions` (M, N, 3) Å."""
        marks = signatures(inverse_distances(positions, self.lattice))
        known = self.signatures[np.argsort(self.signatures[:, 0])]
        start = np.searchsorted(known[:, 0], marks[:, 0] * (1.0 - _SAME))
        stop = np.searchsorted(known[:, 0], marks[:, 0] * (1.0 + _SAME))
        return np.array(
            [
                bool((np.abs(known[a:b, 1] / mark[1] - 1.0) < _SAME).any())
                for a, b, mark in zip(start, stop, marks, strict=True)
            ],
            bool,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The attributes as arrays, {name: array}, for files."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: np.asarray(value) for name, value in values.items() if value is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Domain | None:
        """The domain with the attributes `arrays`; None if one is missing or damaged."""
        names = {item.name for item in fields(cls)}
        given = {name: np.asarray(x) for name, x in arrays.items() if name in names}
        if names - set(given) - {"lattice", "chains", "allowed"}:
            return None
        domain = cls(**given)
        return domain if domain._is_sound() else None

    def _is_sound(self) -> bool:
        n = len(self.atoms) if self.atoms.ndim == 1 else 0
        n_pairs, n_bonds = n * (n - 1) // 2, len(self.bonds)
        turns = None if self.chains is None or self.allowed is None else self.chains.shape[:1]
        if turns is None and self.chains is not self.allowed:
            return False
        shapes = {
            "orbits": (n_pairs,), "scale": (n_pairs,), "bonds": (n_bonds, 2), "limit": (),
            "floor": (),
            "lengths": (n_bonds, 2), "energies": (2,), "signatures": (len(self.signatures), 2),
            "reference": (len(self.reference), n_pairs),
            **({} if self.lattice is None else {"lattice": (3, 3)}),
            **({} if turns is None else {"chains": (*turns, 4), "allowed": (*turns, BINS)}),
        }  # fmt: skip
        if any(
            getattr(self, name).shape != shape or getattr(self, name).dtype.kind not in "fiub"
            for name, shape in shapes.items()
        ):
            return False
        indices = [self.bonds] if self.chains is None else [self.bonds, self.chains]
        whole = all(x.dtype.kind in "iu" for x in (*indices, self.orbits))
        inside = whole and all(((x >= 0) & (x < n)).all() for x in indices)
        periodic = self.lattice is None or abs(np.linalg.det(self.lattice)) > 1e-6
        return bool(inside and periodic and (self.scale > 0).all() and self.limit > 0)


def outside(
    trained: Sequence[Trained], positions: np.ndarray, energies: np.ndarray | None = None
) -> Outside | None:
    """The frames outside the training data of a potential, or of one of its terms.

    Args:
        trained: the training frames of the potential and of its terms.
        positions: (M, N, 3) Å.
        energies: (M,) kcal/mol, energies of the potential; None if unknown.

    Returns:
        The frames outside, or None if the training data are unknown.
    """
    if not trained:
        return None
    positions = np.asarray(positions)
    frames, below = np.zeros(len(positions), bool), np.zeros(len(positions))
    first, reason = len(positions), ""
    for part in trained:
        own = positions if part.atoms is None else positions[:, list(part.atoms)]
        found = part.domain.outside(own, energies if part.whole else None)
        if found.frames.any() and np.argmax(found.frames) < first:
            first, reason = int(np.argmax(found.frames)), found.reason
        frames, below = frames | found.frames, np.maximum(below, found.energies)
    return Outside(frames, below, reason)


def trained_on(trained: Sequence[Trained], positions: np.ndarray) -> np.ndarray:
    """Booleans (M,), True for training frames among the `positions` (M, N, 3) Å."""
    found = np.zeros(len(positions), bool)
    for part in trained:
        own = positions if part.atoms is None else positions[:, list(part.atoms)]
        found |= part.domain.trained_on(own)
    return found
