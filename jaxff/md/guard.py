"""Checks for non-finite numbers, explosions and broken bonds in a simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from scipy.special import gammainccinv

from jaxff import units
from jaxff.cell import nearest
from jaxff.errors import InputError
from jaxff.md import kinetics
from jaxff.md.ensembles import Ensemble
from jaxff.md.integrate import Frame
from jaxff.md.lists import built
from jaxff.md.settings import Stop
from jaxff.molecule import Molecule
from jaxff.potential import Potential

# A kinetic energy counts as an explosion if it is this many times the kinetic energy that thermal
# fluctuations exceed once in 10¹² frames.
EXPLOSION = 10.0
# Largest error of the total energy of velocity Verlet, in units of the kinetic energy.  Time steps
# just below the limit of stability have errors up to a third.
ERROR = 0.5
# kcal/mol/Å; forces in a liquid are below 300, and dynamics fail with stronger forces at the start.
STRONGEST = 1000.0


@dataclass(frozen=True)
class Fault:
    """A fault in a frame.

    Attributes:
        frame: index of the frame.
        replica: index of the replica; None without an axis of replicas.
        atoms: indices of the atoms with the fault; empty if only an energy is wrong.
        what: description, such as "the energy is not finite".
    """

    frame: int
    replica: int | None
    atoms: tuple[int, ...]
    what: str


@dataclass(frozen=True)
class Guard:
    """Limits of a simulation of one molecule or of R replicas.

    Attributes:
        molecule: elements and B bonds.
        freedom: () or (R,) degrees of freedom.
        max_temperature: highest allowed temperature, K.
        drift: largest allowed change of the total energy, kcal/mol.  Changes below ERROR times the
            kinetic energy are always allowed.
        energy: () or (R,) total energy at the start, kcal/mol.
        lengths: (B,) largest allowed lengths of the bonds, Å (None: no limit).
    """

    molecule: Molecule
    freedom: np.ndarray
    max_temperature: float = np.inf
    drift: float = np.inf
    energy: np.ndarray | float = 0.0
    lengths: np.ndarray | None = None

    @classmethod
    def of(cls, molecule: Molecule, start: Frame, freedom, ensemble: Ensemble, stop: Stop) -> Guard:
        """Determine the limits of a simulation.

        Args:
            molecule: elements and bonds.
            start: the first frame.
            freedom: () or (R,) degrees of freedom.
            ensemble: settings of the ensemble.
            stop: limits set by the user.

        Raises:
            InputError: bonded atoms are at the same position.
        """
        limits: dict = {}
        if stop.stretch is not None and len(molecule.bonds):
            lengths = starting_lengths(molecule, start.positions)
            limits["lengths"] = stop.stretch * lengths.max(axis=0)
        least = max(int(np.min(freedom)), 1)
        highest = max(
            float(np.max(ensemble.temperature)), float(np.max(ensemble.last_temperature)), 300.0,
            float(np.max(kinetics.temperature(start.kinetic, freedom))),
        )  # fmt: skip
        rare = EXPLOSION * 2.0 * gammainccinv(least / 2.0, 1e-12) / least * highest
        if stop.max_temperature is not None:
            limits["max_temperature"] = stop.max_temperature
        elif ensemble.conserves_energy:
            limits["drift"] = 0.5 * np.max(freedom) * units.BOLTZMANN * rare
            limits["energy"] = start.potential + start.kinetic
        else:
            limits["max_temperature"] = rare
        return cls(molecule, freedom, **limits)

    def fault(self, frames: Frame) -> Fault | None:
        """Return the first fault in F frames (a leading axis), or None."""
        alone = frames.positions.ndim == 3
        if alone:
            frames = jax.tree.map(lambda x: x[:, None], frames)
        with np.errstate(invalid="ignore", over="ignore"):
            # Comparisons with NaN are false, so non-finite values pass the other two checks.
            bad = self._not_finite(frames) | self._broken(frames) | self._exploded(frames)
        if not bad.any():
            return None
        frame, replica = map(int, np.argwhere(bad)[0])
        one = jax.tree.map(lambda x: x[frame, replica], frames)
        limits = (np.broadcast_to(x, bad.shape)[0, replica] for x in (self.freedom, self.energy))
        return Fault(frame, None if alone else replica, *self._describe(one, *limits))

    def _not_finite(self, frames):
        parts = [
            np.isfinite(x).reshape(*x.shape[:2], -1).all(axis=2) for x in jax.tree.leaves(frames)
        ]
        return ~np.all(parts, axis=0)

    def _broken(self, frames):
        if self.lengths is None:
            return np.zeros(frames.kinetic.shape, bool)
        return (bond_lengths(self.molecule, frames.positions) > self.lengths).any(axis=-1)

    def _exploded(self, frames):
        hot = kinetics.temperature(frames.kinetic, self.freedom) > self.max_temperature
        change = np.abs(frames.potential + frames.kinetic - self.energy)
        return hot | (change > np.maximum(self.drift, ERROR * frames.kinetic))

    def _describe(self, frame: Frame, freedom, energy) -> tuple[tuple[int, ...], str]:
        symbols = self.molecule.symbols

        def named(atom):
            return f"atom {atom} ({symbols[atom]})"

        vectors = np.hstack([frame.forces, frame.displacements, frame.positions])
        fine = np.isfinite(vectors).all(axis=1)
        if not fine.all():
            atom = int(np.argmin(fine))
            return (atom,), f"the position, velocity or force of {named(atom)} is not finite"
        if not np.isfinite([frame.potential, frame.kinetic]).all():
            return (), "the energy is not finite"
        if self.lengths is not None:
            lengths = bond_lengths(self.molecule, frame.positions)
            worst = int(np.argmax(lengths / self.lengths))
            if lengths[worst] > self.lengths[worst]:
                i, j = map(int, self.molecule.bonds[worst])
                return (i, j), (
                    f"the bond of {named(i)} and {named(j)} is {lengths[worst]:.2f} Å long, above "
                    f"the limit of {self.lengths[worst]:.2f} Å"
                )
        heat = float(kinetics.temperature(frame.kinetic, freedom))
        speeds = np.square(frame.displacements).sum(axis=1) * self.molecule.masses
        atom = int(np.argmax(speeds))
        words = f"the temperature is {heat:.3g} K, and {named(atom)} is the fastest atom"
        if heat <= self.max_temperature:
            change = float(frame.potential + frame.kinetic - energy)
            words = f"the total energy has changed by {change:.3g} kcal/mol: {words}"
        return (atom,), words


def bond_lengths(molecule: Molecule, positions) -> np.ndarray:
    """Lengths (..., B) Å of the bonds at positions (..., N, 3) Å."""
    i, j = np.asarray(molecule.bonds).T
    return np.linalg.norm(positions[..., i, :] - positions[..., j, :], axis=-1)


def starting_lengths(molecule: Molecule, positions) -> np.ndarray:
    """Lengths (M, B) Å of the bonds of starting geometries (..., N, 3) Å.

    Raises:
        InputError: bonded atoms are at the same position.
    """
    lengths = bond_lengths(molecule, positions).reshape(-1, len(molecule.bonds))
    if not lengths.all():
        i, j = molecule.bonds[int(np.argmin(lengths.min(axis=0)))]
        raise InputError(
            f"at the starting geometry the bonded atoms {i} and {j} are at the same position: "
            "correct the geometry"
        )
    return lengths


def check_strain(system: Any, positions: np.ndarray, forces: np.ndarray) -> None:
    """Check that dynamics in a box can start with the forces.

    Args:
        system: a system with N atoms.
        positions: (N, 3) or (R, N, 3) Å.
        forces: kcal/mol/Å, in the shape of `positions`.

    Raises:
        InputError: a force is very strong.
    """
    sizes = np.linalg.norm(forces, axis=-1)
    place = np.unravel_index(int(np.argmax(sizes)), sizes.shape)
    if not sizes[place] >= STRONGEST:  # other checks report forces that are not finite
        return
    atom = int(place[-1])
    names = [f"atom {i} ({symbol})" for i, symbol in enumerate(system.symbols)]
    text = f"the force on {names[atom]} is {sizes[place]:.3g} kcal/mol/Å"
    for r, other in nearest_atoms(system, positions[place[:-1]], atom, bonded=False):
        text += f", and {names[other]} is only {r:.2f} Å away"
    raise InputError(
        f"at the starting geometry {text}: minimise the geometry first (md.minimize, or jaxff md "
        "--minimize)"
    )


def nearest_atoms(
    molecule: Any, R: np.ndarray, atom: int, bonded: bool = True
) -> list[tuple[float, int]]:
    """Distance Å and index of the atom nearest to an atom; empty for a single atom.

    Args:
        molecule: a molecule or a system.
        R: (n, 3) Å, positions of its first n atoms.
        atom: index of the atom.
        bonded: whether the other atom may be bonded to this atom, or be a virtual site.
    """
    vectors, box = R - R[atom], getattr(molecule, "box", None)
    distances = np.linalg.norm(vectors if box is None else nearest(vectors, box), axis=1)
    distances[atom] = np.inf
    if not bonded:
        links = np.asarray(molecule.bonds).reshape(-1, 2)
        distances[links[(links == atom).any(axis=1)].ravel()] = np.inf
        distances[np.asarray(molecule.masses) == 0.0] = np.inf
    other = int(np.argmin(distances))
    return [(float(distances[other]), other)] if np.isfinite(distances[other]) else []


def strongest_term(potential: Potential, positions, atoms, box=None) -> str | None:
    """Return the name of the term with the strongest force on given atoms.

    A force that is not finite counts as the strongest.

    Args:
        potential: the potential.
        positions: (N, 3) Å.
        atoms: indices of atoms; empty for all atoms.
        box: (3, 3) Å, lattice vectors as rows, or None.

    Returns:
        The name, or None if a position is not finite.
    """
    if not np.isfinite(positions).all():
        return None
    used = potential.program.reads(potential.params)
    space = box if "box" in used else None
    neighbor = None if box is None else built(potential, positions, box)
    slopes = jax.jit(jax.jacrev(potential.program.terms, argnums=1))(
        potential.params, positions, space, neighbor
    )
    chosen = list(atoms) or slice(None)
    strength = {name: np.abs(np.asarray(slope)[chosen]).max() for name, slope in slopes.items()}
    return max(strength, key=lambda name: np.nan_to_num(strength[name], nan=np.inf), default=None)
