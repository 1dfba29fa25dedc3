"""Targets of a fit: Hessians, torsion scans and dipoles.

A target contains reference values of one molecule in the atom order of the potential. The objective
of the fit, (kcal/mol/Å)², includes the weight of the target times the mean squared error of its
values.
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
from jaxff.settings import checked_number
from jaxff.terms.pairs import AtomPairs

Array = jax.Array

NEAR = 0.15  # largest relative deviation of a ratio from the factor of a unit
CUSP = 50.0  # ratio of the Hessians of potential and reference above which a unit is not the cause
ALIKE = 0.8  # least correlation of reference and potential for which their ratio is meaningful


class WeightedTarget:
    """Base class of targets with a weight; subclasses are frozen dataclasses (``eq=False``)."""

    weight: float

    @property
    def _name(self) -> str:
        return f"the {type(self).__name__} target"

    def _store(self, **arrays) -> None:
        """Check the weight, and set all attributes.

        Raises:
            InputError: the weight is negative or not finite.
        """
        weight = checked_number(f"{self._name}: weight", self.weight, least=0.0)
        for key, values in {"weight": weight, **arrays}.items():
            object.__setattr__(self, key, values)


class Target(WeightedTarget):
    """Base class of reference values that a fit compares with those of a potential.

    Attributes:
        positions: (N, 3) or (M, N, 3) Å.
        weight: weight of the mean squared error.
    """

    positions: np.ndarray

    def residuals(self, program: Program, params: Params) -> Array:
        """Return scaled errors (n,) kcal/mol/Å, as a pure JAX function of `params`.

        The sum of their squares is the contribution of the target to the objective.
        """
        raise NotImplementedError

    def check(self, potential: Potential) -> None:
        """Check that the target can be compared with a potential.

        Raises:
            InputError: the numbers of atoms differ, the values of the potential do not exist or are
                not finite, or the reference probably has a wrong unit.
        """
        n, least = potential.n_atoms, potential.program.n_atoms_min
        count = self.positions.shape[-2]
        if count < least or n not in (None, count):
            wanted = f"{n}" if n is not None else f"at least {least}"
            raise InputError(
                f"{self._name} has positions of {count} atoms, but the potential has {wanted}; "
                "give positions of its molecule"
            )
        self._check_values(potential)

    def _check_values(self, potential: Potential) -> None:
        raise NotImplementedError

    def _check_unit(self, reference, predicted, mistakes: dict[str, float]) -> None:
        reference, predicted = np.ravel(reference), np.ravel(np.asarray(predicted, float))
        if not np.isfinite(predicted).all():
            raise InputError(
                f"{self._name}: the values of the potential are not finite; correct the positions "
                "or the initial parameters"
            )
        sizes = np.linalg.norm(reference), np.linalg.norm(predicted)
        if min(sizes) == 0.0 or reference @ predicted < ALIKE * sizes[0] * sizes[1]:
            return
        ratio = sizes[0] / sizes[1]
        for mistake, factor in mistakes.items():
            if abs(ratio / factor - 1.0) < NEAR:
                raise InputError(
                    f"{self._name}: the values are {ratio:.3g} times those of the potential, "
                    f"probably because of a wrong unit ({mistake}); convert them"
                )


@dataclass(frozen=True, eq=False)
class Hessian(Target):
    """Target for the Hessian at one geometry: mean squared error of its elements.

    Attributes:
        positions: (N, 3) Å.
        hessian: (N, 3, N, 3) kcal/mol/Å², symmetrised; (3N, 3N) is accepted.
        weight: Å². With 0.001, errors of 50 kcal/mol/Å² contribute 2.5 (kcal/mol/Å)².

    Raises:
        InputError: wrong shapes, values that are not finite, an asymmetric Hessian, or a Hessian in
            hartree/Bohr².
    """

    positions: np.ndarray
    hessian: np.ndarray
    weight: float = 0.001

    def __post_init__(self):
        positions, hessian = checked_hessian(self.positions, self.hessian)
        self._store(positions=positions, hessian=hessian)

    def residuals(self, program: Program, params: Params) -> Array:
        predicted = _hessian(program, params, jnp.asarray(self.positions))
        return math.sqrt(self.weight / self.hessian.size) * (predicted - self.hessian).ravel()

    def _check_values(self, potential: Potential) -> None:
        predicted = np.asarray(
            _hessian(potential.program, potential.params, jnp.asarray(self.positions))
        )
        excess = np.abs(predicted).max() / max(np.abs(self.hessian).max(), 1e-300)
        if excess > CUSP:
            raise InputError(
                f"{self._name}: the Hessian of the potential is {excess:.3g} times the reference. "
                "If atoms collide, correct the positions. If a straight angle has another "
                "equilibrium value than 180°, call seminario with equilibrium=True first"
            )
        self._check_unit(self.hessian, predicted, unit_mistakes(2))


@dataclass(frozen=True, eq=False)
class TorsionScan(Target):
    """Target for the relative energies of a scan: mean squared error without the mean error.

    Attributes:
        positions: (M, N, 3) Å of at least two geometries.
        energies: (M,) kcal/mol, relative to any zero.
        weight: 1/Å². With 1.0, errors of 1 kcal/mol contribute 1 (kcal/mol/Å)².

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
            raise InputError(f"{self._name}: {len(positions)} geometry; give at least 2")
        self._store(positions=positions, energies=energies)

    def residuals(self, program: Program, params: Params) -> Array:
        predicted = jax.vmap(program.energy, (None, 0))(params, jnp.asarray(self.positions))
        # The mean is subtracted in NumPy: float32 cannot resolve differences of total energies.
        wrong = predicted - predicted.mean() - (self.energies - self.energies.mean())
        return math.sqrt(self.weight / len(self.energies)) * wrong

    def _check_values(self, potential: Potential) -> None:
        predicted, _ = potential.predict(self.positions)
        # Initial barriers may be wrong by small factors, so only large factors indicate a unit.
        mistakes = {k: ratio for k, ratio in unit_mistakes(0).items() if not 0.1 < ratio < 10.0}
        self._check_unit(
            self.energies - self.energies.mean(), predicted - predicted.mean(), mistakes
        )


@dataclass(frozen=True, eq=False)
class Dipole(Target):
    """Target for dipole moments Σ q r of point charges: mean squared error of the components.

    Attributes:
        positions: (M, N, 3) Å.
        dipoles: (M, 3) e·Å, from negative to positive charge (1 debye is 0.20819 e·Å); for ions,
            relative to the origin of `positions`.
        weight: (kcal/mol/Å)²/(e·Å)². With 400, errors of 0.05 e·Å (0.24 debye) contribute
            1 (kcal/mol/Å)².

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
        predicted = jnp.einsum("mna,n->ma", jnp.asarray(self.positions), charges)
        return math.sqrt(self.weight / self.dipoles.size) * (predicted - self.dipoles).ravel()

    def _check_values(self, potential: Potential) -> None:
        charged = [p for p in potential.program.placed if isinstance(p.term, AtomPairs)]
        if not charged:
            raise InputError(
                f"{self._name} needs point charges, but {potential!r} has no nonbonded term; leave "
                "out this target"
            )
        n = self.positions.shape[1]
        atoms = np.concatenate([np.arange(n) if p.atoms is None else p.atoms for p in charged])
        if len(set(atoms.tolist())) < len(atoms) or any(
            "scale" in potential.params[p.name] for p in charged
        ):
            raise InputError(
                f"{self._name}: the dipole moment is not defined, because an atom has charges in "
                "several nonbonded terms, or a nonbonded term is scaled; leave out this target"
            )
        charges = np.asarray(point_charges(potential.program, potential.params, n), float)
        predicted = np.einsum("mna,n->ma", self.positions, charges)
        self._check_unit(self.dipoles, predicted, {"debye taken for e·Å": 1.0 / 0.20819})


@partial(jax.jit, static_argnums=0)
def _hessian(program: Program, params: Params, R: Array) -> Array:
    return jax.hessian(program.energy, argnums=1)(params, R)


def point_charges(program: Program, params: Params, n_atoms: int) -> Array:
    """Return the charges (n_atoms,), e, of the nonbonded terms of a potential."""
    charges = jnp.zeros(n_atoms)
    for placed in program.placed:
        if isinstance(placed.term, AtomPairs):
            values = params[placed.name]["charge"][placed.term.charge_rows]
            where = slice(None) if placed.atoms is None else np.asarray(placed.atoms)
            charges = charges.at[where].add(values)
    return charges


def checked_frames(who: str, positions) -> np.ndarray:
    """Return positions (M, N, 3) Å as an array.

    Raises:
        InputError: another shape, or numbers that are not finite; `who` begins the message.
    """
    shape = np.shape(positions)
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise InputError(f"{who}: positions must have shape (M, N, 3) in Å, got {shape}")
    return checked_values(who, "positions", positions, shape, "Å")


def checked_values(who: str, what: str, values, shape: tuple[int, ...], unit: str) -> np.ndarray:
    """Return `values` as an array.

    Raises:
        InputError: another shape, or numbers that are not finite; `who` and `what` begin the
            message.
    """
    array = np.asarray(values)
    if array.shape != shape:
        raise InputError(f"{who}: {what} must have shape {shape} in {unit}, got {array.shape}")
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise InputError(f"{who}: {what} must be finite numbers in {unit}")
    return array.astype(float)
