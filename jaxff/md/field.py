"""Energies and derivatives of a system in a box.

Each function is traced once, although initial forces, steps, barostats and recorded frames all call
it: the compilation of an energy with a particle mesh takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.md.lists import outdated
from jaxff.potential import Params, Potential, Program

Array = jax.Array


@partial(jax.tree_util.register_dataclass, data_fields=["index", "shares"], meta_fields=["count"])
@dataclass(frozen=True, eq=False)
class Molecules:
    """The molecules of a system; a JAX pytree.

    Attributes:
        index: (N,) index of the molecule of each atom.
        shares: (N,) mass of each atom divided by that of its molecule.
        count: number M of molecules.
    """

    index: Any
    shares: Any
    count: int

    @classmethod
    def of(cls, system: Any) -> Molecules:
        """The molecules of a system."""
        index, masses = np.asarray(system.molecules), np.asarray(system.masses, float)
        index = np.unique(index, return_inverse=True)[1].astype(np.int32)
        return cls(index, masses / np.bincount(index, masses)[index], int(index.max()) + 1)

    def centres(self, R: Array) -> Array:
        """Centres of mass (M, 3) Å at positions R (N, 3) Å."""
        shares = jnp.asarray(self.shares, R.dtype)[:, None]
        return jax.ops.segment_sum(shares * R, self.index, self.count)

    def scaled(self, R: Array, box: Array, strain: Array) -> tuple[Array, Array]:
        """Positions (N, 3) Å and box (3, 3) Å after a scaling of the molecular centres.

        Args:
            R: (N, 3) Å.
            box: (3, 3) Å.
            strain: (3,) logarithms of the scaled Cartesian lengths.
        """
        # expm1 keeps the digits of small changes.
        moves = (self.centres(R) * jnp.expm1(strain))[self.index]
        return R + moves, box * jnp.exp(strain)


@partial(
    jax.tree_util.register_dataclass, data_fields=["params", "neighbor"], meta_fields=["program"]
)
@dataclass(frozen=True, eq=False)
class Field:
    """The energy of a system as a function of positions and box; a JAX pytree.

    Attributes:
        program: energy function.
        params: parameters of the energy, including derived ones.
        neighbor: neighbour list, or None.
    """

    program: Program
    params: Params
    neighbor: Any

    @classmethod
    def of(cls, potential: Potential, neighbor: Any) -> Field:
        """The field of a potential, with its derived parameters."""
        return cls(potential.program, potential.program.jit_ready(potential.params), neighbor)

    def energy(self, R: Array, box: Array) -> Array:
        """Energy () kcal/mol at positions (N, 3) Å in a box (3, 3) Å, which may be unused."""
        used = "box" in self.program.reads(self.params)
        return self.program.energy(self.params, R, box if used else None, self.neighbor)

    def forces(self, R: Array, box: Array) -> Array:
        """Forces (N, 3) kcal/mol/Å; arguments as in `energy`."""
        return _forces(self, R, box)

    def energy_and_forces(self, R: Array, box: Array) -> tuple[Array, Array]:
        """Energy () kcal/mol and forces (N, 3) kcal/mol/Å; arguments as in `energy`."""
        return _energy_and_forces(self, R, box)

    def energy_and_slopes(self, molecules: Molecules, R: Array, box: Array) -> tuple[Array, Array]:
        """Energy () kcal/mol and its derivatives (3,) kcal/mol by strains of molecular centres.

        Args:
            molecules: the molecules.
            R: (N, 3) Å.
            box: (3, 3) Å; see `Molecules.scaled`.
        """
        return _energy_and_slopes(self, molecules, R, box)

    def stale(self, R: Array, box: Array) -> Array:
        """Whether () the neighbour list may lack pairs; arguments as in `energy`."""
        return outdated(self.neighbor, R, box)


@jax.jit
def _energy_and_forces(field: Field, R, box):
    energy, gradient = jax.value_and_grad(field.energy)(R, box)
    return energy, -gradient


@jax.jit
def _forces(field: Field, R, box):
    return _energy_and_forces(field, R, box)[1]


@jax.jit
def _energy_and_slopes(field: Field, molecules: Molecules, R, box):
    def energy(strain):
        return field.energy(*molecules.scaled(R, box, strain))

    return jax.value_and_grad(energy)(jnp.zeros(3, R.dtype))
