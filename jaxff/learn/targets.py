"""What a fit can aim at beside energies and forces: Hessians, torsion scans, dipoles.

Each target holds reference values of one molecule, its atoms in the potential's order, and adds
``sum(residuals²)``, in (kcal/mol/Å)², to the objective: its weight times the mean square error
of its own entries, however many they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.hessian import checked_hessian
from jaxff.plausibility import unit_mistakes
from jaxff.potential import Params, Potential, Program

Array = jax.Array

NEAR = 0.15  # of the ratio, within which a reference is taken for one in another unit
CUSP = 50.0  # ratio of the potential's Hessian to the reference that no unit explains
ALIKE = 0.8  # correlation with the potential's own values, from which their ratio means something


class Target:
    """Reference values that a fit compares with a potential's.

    Subclasses are frozen dataclasses (``eq=False``) with `positions` and `weight`, both checked.
    """

    positions: np.ndarray
    weight: float

    def residuals(self, program: Program, params: Params) -> Array:
        """Scaled errors (n,) kcal/mol/Å, a pure JAX function of `params`."""
        raise NotImplementedError

    def check(self, potential: Potential) -> None:
        """Whether the target can be meant for `potential`.

        Raises:
            InputError: another number of atoms, a potential that lacks what is compared, values
                that are not finite, or a reference that looks like one in another unit.
        """
        n, least = potential.n_atoms, potential.program.n_atoms_min
        own = self.positions.shape[-2]
        if own < least or n not in (None, own):
            wanted = f"{n}" if n is not None else f"at least {least}"
            raise InputError(f"{self._name} has {own} atoms, the potential {wanted}")
        self._check_values(potential)

    @property
    def _name(self) -> str:
        return f"the {type(self).__name__} target"

    def _check_values(self, potential: Potential) -> None:
        raise NotImplementedError

    def _check_unit(self, reference, predicted, mistakes: dict[str, float]) -> None:
        reference, predicted = np.ravel(reference), np.ravel(np.asarray(predicted, float))
        if not np.isfinite(predicted).all():
            raise InputError(f"{self._name}: the potential's own values there are not finite")
        sizes = np.linalg.norm(reference), np.linalg.norm(predicted)
        if min(sizes) == 0.0 or reference @ predicted < ALIKE * sizes[0] * sizes[1]:
            return
        ratio = sizes[0] / sizes[1]
        for what, factor in mistakes.items():
            if abs(ratio / factor - 1.0) < NEAR:
                raise InputError(
                    f"{self._name}: values are {ratio:.3g} times those of the potential: "
                    f"{what}? give the right unit"
                )

    def _store(self, **arrays) -> None:
        weight = float(self.weight)
        if not (math.isfinite(weight) and weight >= 0.0):
            raise InputError(f"{self._name}: weight={self.weight!r}: give a number from 0 upwards")
        for key, values in {"weight": weight, **arrays}.items():
            object.__setattr__(self, key, values)


@dataclass(frozen=True, eq=False)
class Hessian(Target):
    """The Hessian at one geometry, usually a minimum: mean square difference of its elements.

    Attributes:
        positions: (N, 3) Å.
        hessian: (N, 3, N, 3) or (3N, 3N) kcal/mol/Å²; kept as the former, symmetrised.
        weight: Å².  With 0.001 an error of 50 kcal/mol/Å² counts as 2.5 (kcal/mol/Å)²; GAFF's is
            20 to 45 for small molecules.

    Raises:
        InputError: wrong shapes, values that are not finite, an asymmetric Hessian, or one in
            hartree/Bohr².
    """

    positions: np.ndarray
    hessian: np.ndarray
    weight: float = 0.001

    def __post_init__(self):
        positions, hessian = checked_hessian(self.positions, self.hessian)
        self._store(positions=positions, hessian=hessian)

    def residuals(self, program: Program, params: Params) -> Array:
        own = _hessian(program, params, jnp.asarray(self.positions))
        return math.sqrt(self.weight / self.hessian.size) * (own - self.hessian).ravel()

    def _check_values(self, potential: Potential) -> None:
        own = np.asarray(_hessian(potential.program, potential.params, jnp.asarray(self.positions)))
        excess = np.abs(own).max() / max(np.abs(self.hessian).max(), 1e-300)
        if excess > CUSP:
            raise InputError(
                f"{self._name}: the potential's Hessian is {excess:.3g} times the reference: atoms "
                "collide there, or a straight angle is not at rest at 180° (seminario with "
                "equilibrium=True sets it)"
            )
        self._check_unit(self.hessian, own, unit_mistakes(2))


@dataclass(frozen=True, eq=False)
class TorsionScan(Target):
    """Energies of the geometries of a scan, those of both sides from their own mean.

    Attributes:
        positions: (M, N, 3) Å, M from 2.
        energies: (M,) kcal/mol, from any zero.
        weight: 1/Å².  With 1.0 an error of 1 kcal/mol counts as 1 (kcal/mol/Å)².

    Raises:
        InputError: wrong shapes, fewer than 2 geometries, or values that are not finite.
    """

    positions: np.ndarray
    energies: np.ndarray
    weight: float = 1.0

    def __post_init__(self):
        positions = checked_frames(self._name, self.positions)
        energies = checked_values(
            self._name, "energies", self.energies, (len(positions),), "kcal/mol"
        )
        if len(positions) < 2:
            raise InputError(f"{self._name}: one geometry has no relative energy; give 2 or more")
        self._store(positions=positions, energies=energies)

    def residuals(self, program: Program, params: Params) -> Array:
        own = jax.vmap(program.energy, (None, 0))(params, jnp.asarray(self.positions))
        # The mean goes before jnp: float32 has no digits left beside a total energy.
        wrong = own - own.mean() - (self.energies - self.energies.mean())
        return math.sqrt(self.weight / len(self.energies)) * wrong

    def _check_values(self, potential: Potential) -> None:
        own, _ = potential.predict(self.positions)
        # Barriers of a start may be off by any small factor: only gross units show.
        mistakes = {k: ratio for k, ratio in unit_mistakes(0).items() if not 0.1 < ratio < 10.0}
        self._check_unit(self.energies - self.energies.mean(), own - own.mean(), mistakes)


@dataclass(frozen=True, eq=False)
class Dipole(Target):
    """Dipole moments of the potential's point charges, Σ q r: mean square error of components.

    A neutral molecule's does not depend on the origin; that of an ion is counted from the origin
    of the coordinates, (0, 0, 0), and so must the reference be.

    Attributes:
        positions: (M, N, 3) Å.
        dipoles: (M, 3) e·Å in the same axes, from negative to positive (1 debye is 0.20819 e·Å).
        weight: (kcal/mol/Å)²/(e·Å)².  With 400 an error of 0.05 e·Å (0.24 debye) in each component
            counts as 1 (kcal/mol/Å)².

    Raises:
        InputError: wrong shapes, or values that are not finite.
    """

    positions: np.ndarray
    dipoles: np.ndarray
    weight: float = 400.0

    def __post_init__(self):
        positions = checked_frames(self._name, self.positions)
        dipoles = checked_values(self._name, "dipoles", self.dipoles, (len(positions), 3), "e·Å")
        self._store(positions=positions, dipoles=dipoles)

    def residuals(self, program: Program, params: Params) -> Array:
        charges = point_charges(program, params, self.positions.shape[1])
        own = jnp.einsum("mna,n->ma", jnp.asarray(self.positions), charges)
        return math.sqrt(self.weight / self.dipoles.size) * (own - self.dipoles).ravel()

    def _check_values(self, potential: Potential) -> None:
        charged = [p for p in potential.program.placed if p.term.kind == "nonbonded"]
        if not charged:
            raise InputError(
                f"{self._name} needs point charges, and {potential!r} has no nonbonded term"
            )
        n = self.positions.shape[1]
        atoms = np.concatenate([np.arange(n) if p.atoms is None else p.atoms for p in charged])
        if len(set(atoms.tolist())) < len(atoms) or any(
            "scale" in potential.params[p.name] for p in charged
        ):
            raise InputError(
                f"{self._name}: atoms have charges of several nonbonded terms or of a scaled one, "
                "so that their dipole has no meaning"
            )
        charges = np.asarray(point_charges(potential.program, potential.params, n), float)
        own = np.einsum("mna,n->ma", self.positions, charges)
        self._check_unit(self.dipoles, own, {"debye taken for e·Å": 1.0 / 0.20819})


@partial(jax.jit, static_argnums=0)
def _hessian(program: Program, params: Params, R: Array) -> Array:
    return jax.hessian(program.energy, argnums=1)(params, R)


def point_charges(program: Program, params: Params, n_atoms: int) -> Array:
    """Charges (n_atoms,) e of the nonbonded terms of a potential."""
    charges = jnp.zeros(n_atoms)
    for placed in program.placed:
        if placed.term.kind == "nonbonded":
            own = params[placed.name]["charge"][placed.term.charge_rows]
            where = slice(None) if placed.atoms is None else np.asarray(placed.atoms)
            charges = charges.at[where].add(own)
    return charges


def checked_frames(who: str, positions) -> np.ndarray:
    R = np.asarray(positions, float)
    if R.ndim != 3 or R.shape[2] != 3 or 0 in R.shape:
        raise InputError(f"{who}: positions have shape {R.shape}, expected (M, N, 3) in Å")
    if not np.isfinite(R).all():
        raise InputError(f"{who}: positions are not finite")
    return R


def checked_values(who: str, what: str, values, shape: tuple[int, ...], unit: str) -> np.ndarray:
    values = np.asarray(values, float)
    if values.shape != shape:
        raise InputError(f"{who}: {what} have shape {values.shape}, expected {shape} in {unit}")
    if not np.isfinite(values).all():
        raise InputError(f"{who}: {what} are not finite")
    return values
