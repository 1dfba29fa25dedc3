"""What stops a simulation: numbers that are not finite, explosions, broken bonds."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
from scipy.special import gammainccinv

from jaxff import units
from jaxff.md import kinetics
from jaxff.md.ensembles import Ensemble
from jaxff.md.integrate import Frame
from jaxff.md.settings import Stop
from jaxff.molecule import Molecule
from jaxff.potential import Potential

# A kinetic energy this many times above one that chance brings once in 10¹² frames is none of it.
EXPLOSION = 10.0
# What velocity Verlet's energy may be off by, of the kinetic energy; steps near its limit, at which
# a vibration explodes, reach a third.
ERROR = 0.5


@dataclass(frozen=True)
class Fault:
    """What is wrong in a frame.

    Attributes:
        frame: its index.
        replica: index, None if there is one molecule alone.
        atoms: indices of the atoms where it shows, none if only the energy tells.
        what: in words, such as "atom 3 (H) is not finite".
    """

    frame: int
    replica: int | None
    atoms: tuple[int, ...]
    what: str


@dataclass(frozen=True)
class Guard:
    """The limits of a simulation.

    Attributes:
        molecule: elements and bonds.
        freedom: degrees of freedom, an integer or (R,).
        hottest: K; the temperature that counts as an explosion.
        drift: kcal/mol; the change of the total energy that does, or a share ERROR of the kinetic
            energy if that is more.
        energy: () or (R,) kcal/mol, the total energy at the start.
        lengths: (B,) Å; the bonds' lengths beyond which they count as broken; None: any.
    """

    molecule: Molecule
    freedom: np.ndarray
    hottest: float = np.inf
    drift: float = np.inf
    energy: np.ndarray | float = 0.0
    lengths: np.ndarray | None = None

    @classmethod
    def of(cls, molecule: Molecule, start: Frame, freedom, ensemble: Ensemble, stop: Stop) -> Guard:
        """The limits of a simulation.

        Args:
            molecule: elements and bonds.
            start: the first frame.
            freedom: degrees of freedom, an integer or (R,).
            ensemble: its highest temperature counts, and whether it conserves the total energy.
            stop: limits that the user sets.
        """
        limits: dict = {}
        if stop.stretch is not None and len(molecule.bonds):
            lengths = bond_lengths(molecule, start.positions).reshape(-1, len(molecule.bonds))
            limits["lengths"] = stop.stretch * lengths.max(axis=0)
        least = max(int(np.min(freedom)), 1)
        highest = max(
            float(np.max(ensemble.temperature)), float(np.max(ensemble.last_temperature)), 300.0,
            float(np.max(kinetics.temperature(start.kinetic, freedom))),
        )  # fmt: skip
        rare = EXPLOSION * 2.0 * gammainccinv(least / 2.0, 1e-12) / least * highest
        if stop.max_temperature is not None:
            limits["hottest"] = stop.max_temperature
        elif ensemble.conserves_energy:
            limits["drift"] = 0.5 * np.max(freedom) * units.BOLTZMANN * rare
            limits["energy"] = start.potential + start.kinetic
        else:
            limits["hottest"] = rare
        return cls(molecule, freedom, **limits)

    def fault(self, frames: Frame) -> Fault | None:
        """The first thing wrong in frames, whose leading axis is theirs; None if all is well."""
        alone = frames.positions.ndim == 3
        if alone:
            frames = Frame(*(x[:, None] for x in frames))
        with np.errstate(invalid="ignore", over="ignore"):
            # What is not finite compares as sound in the others.
            bad = self._not_finite(frames) | self._broken(frames) | self._exploded(frames)
        if not bad.any():
            return None
        frame, replica = map(int, np.argwhere(bad)[0])
        one = Frame(*(x[frame, replica] for x in frames))
        own = (np.broadcast_to(x, bad.shape)[0, replica] for x in (self.freedom, self.energy))
        return Fault(frame, None if alone else replica, *self._describe(one, *own))

    def _not_finite(self, frames):
        parts = [np.isfinite(x).reshape(*x.shape[:2], -1).all(axis=2) for x in frames]
        return ~np.all(parts, axis=0)

    def _broken(self, frames):
        if self.lengths is None:
            return np.zeros(frames.kinetic.shape, bool)
        return (bond_lengths(self.molecule, frames.positions) > self.lengths).any(axis=-1)

    def _exploded(self, frames):
        hot = kinetics.temperature(frames.kinetic, self.freedom) > self.hottest
        return hot | (self._change(frames) > np.maximum(self.drift, ERROR * frames.kinetic))

    def _change(self, frames):
        return np.abs(frames.potential + frames.kinetic - self.energy)

    def _describe(self, frame: Frame, freedom, energy) -> tuple[tuple[int, ...], str]:
        symbols = self.molecule.symbols

        def named(atom):
            return f"atom {atom} ({symbols[atom]})"

        vectors = np.hstack([frame.forces, frame.displacements, frame.positions])
        fine = np.isfinite(vectors).all(axis=1)
        if not fine.all():
            atom = int(np.argmin(fine))
            return (atom,), f"{named(atom)} is not finite"
        if not np.isfinite([frame.potential, frame.kinetic]).all():
            return (), "the energy is not finite"
        if self.lengths is not None:
            lengths = bond_lengths(self.molecule, frame.positions)
            worst = int(np.argmax(lengths / self.lengths))
            if lengths[worst] > self.lengths[worst]:
                i, j = map(int, self.molecule.bonds[worst])
                return (i, j), (
                    f"the bond of {named(i)} and {named(j)} is {lengths[worst]:.2f} Å long, past "
                    f"its limit of {self.lengths[worst]:.2f} Å"
                )
        heat = float(kinetics.temperature(frame.kinetic, freedom))
        speeds = np.square(frame.displacements).sum(axis=1) * self.molecule.masses
        atom = int(np.argmax(speeds))
        words = f"the temperature is {heat:.3g} K, {named(atom)} the hottest"
        if heat <= self.hottest:
            change = float(frame.potential + frame.kinetic - energy)
            words = f"the total energy has changed by {change:.3g} kcal/mol: {words}"
        return (atom,), words


def bond_lengths(molecule: Molecule, positions) -> np.ndarray:
    """Lengths (..., B) Å of the bonds at positions (..., N, 3) Å."""
    i, j = np.asarray(molecule.bonds).T
    return np.linalg.norm(positions[..., i, :] - positions[..., j, :], axis=-1)


def strongest_term(potential: Potential, positions, atoms) -> str | None:
    """The term with a force that is not finite, or else the strongest, on the atoms.

    Args:
        potential: whose terms are compared.
        positions: (N, 3) Å.
        atoms: indices; none: all atoms.
    """
    if not np.isfinite(positions).all():
        return None
    slopes = jax.jit(jax.jacrev(potential.program.terms, argnums=1))(potential.params, positions)
    which = list(atoms) or slice(None)
    strength = {name: np.abs(np.asarray(slope)[which]).max() for name, slope in slopes.items()}
    return max(strength, key=lambda name: np.nan_to_num(strength[name], nan=np.inf), default=None)
