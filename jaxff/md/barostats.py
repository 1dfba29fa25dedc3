"""Barostats, which scale the box and the centres of mass of the molecules.

Molecules are moved, but not deformed, so that constrained distances do not change.  The pressure
follows from the derivative of the energy with respect to the same scaling.  Momenta do not change:
the M centres of mass contribute their mean kinetic energy to the pressure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

# Random keys of a barostat differ from those of a thermostat.
_STREAM = 0x5CA1E
# Largest mean change of the logarithm of the volume in one step of stochastic cell rescaling, which
# only starting geometries with a very wrong density reach.
LARGEST = 0.05
# Monte Carlo: first and largest size of the moves, attempts between changes of the size, factor of
# a change, and the acceptance rates between which the size does not change.
FIRST_SIZE, LARGEST_SIZE = 0.01, 0.3
ATTEMPTS, FACTOR, ACCEPTANCE = 20, 1.1, (0.25, 0.75)


class Coupling(NamedTuple):
    """Choices of a barostat that determine the compiled code.

    Attributes:
        kind: name in `STEPS`.
        axes: number of Cartesian axes of each independent scaling: (3,) or, for x and y together
            and z alone, (2, 1).
        every: number of steps between changes of the box.
    """

    kind: str
    axes: tuple[int, ...]
    every: int


class Pressure(NamedTuple):
    """Settings of a barostat; with replicas each field has a leading axis.

    Attributes:
        pressure: () kcal/mol/Å³.
        gain: () Å³ mol/kcal, compressibility times the fraction of the relaxation time between two
            changes of the box.
    """

    pressure: Any
    gain: Any


class Cell(NamedTuple):
    """The box, and the state of a Monte Carlo barostat; replicas add a leading axis.

    Attributes:
        box: (3, 3) Å, lattice vectors as rows.
        size: () largest change of the logarithm of the volume in a Monte Carlo move.
        counts: (2,) attempted and accepted moves since the last change of the size.
    """

    box: Any
    size: Any
    counts: Any

    @classmethod
    def of(cls, box, replicas: int | None, dtype) -> Cell:
        """The cell at the start, from a box (3, 3) or (R, 3, 3) Å."""
        lead = () if replicas is None else (replicas,)
        return cls(
            jnp.broadcast_to(jnp.asarray(box, dtype), (*lead, 3, 3)),
            jnp.full(lead, FIRST_SIZE, dtype),
            jnp.zeros((*lead, 2), jnp.int32),
        )


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

    def scaled(self, R: Array, box: Array, strains: Array, axes: tuple[int, ...]):
        """Positions (N, 3) Å and box (3, 3) Å after a scaling.

        Args:
            R: (N, 3) Å.
            box: (3, 3) Å.
            strains: (K,) logarithms of the scaled lengths, areas or volumes.
            axes: number of Cartesian axes of each strain, in total 3.
        """
        each = [jnp.full(n, strains[k] / n) for k, n in enumerate(axes)]
        strain = jnp.concatenate(each).astype(R.dtype)
        # expm1 keeps the digits of small changes.
        moves = (self.centres(R) * jnp.expm1(strain))[self.index]
        return R + moves, box * jnp.exp(strain)


Energy = Callable[[Array, Array], Array]
Stale = Callable[[Array, Array], Array]


def volume(box: Array) -> Array:
    """Volume () Å³ of a box (3, 3) Å."""
    return jnp.abs(jnp.linalg.det(box))


def slopes(energy: Energy, molecules: Molecules, R: Array, box: Array, axes: tuple[int, ...]):
    """Derivatives (K,) kcal/mol of the energy with respect to strains of molecular centres.

    Args:
        energy: function of positions (N, 3) Å and box (3, 3) Å.
        molecules: the molecules.
        R: (N, 3) Å.
        box: (3, 3) Å.
        axes: see `Molecules.scaled`.
    """
    zero = jnp.zeros(len(axes), R.dtype)
    return jax.grad(lambda strains: energy(*molecules.scaled(R, box, strains, axes)))(zero)


def energy_and_pressure(
    energy: Energy, molecules: Molecules, state, box: Array
) -> tuple[Array, Array]:
    """Energy () kcal/mol and instantaneous pressure () kcal/mol/Å³.

    The pressure comes from the motion of molecules and the forces on them.  Both results share one
    evaluation, which halves the time of the compilation.

    Args:
        energy: function of positions (N, 3) Å and box (3, 3) Å.
        molecules: the molecules.
        state: the present state of jax-md.
        box: (3, 3) Å.
    """
    momenta, masses = (
        jax.ops.segment_sum(x, molecules.index, molecules.count)
        for x in (state.momentum, state.mass)
    )
    kinetic = 0.5 * jnp.sum(momenta**2 / masses)
    value, slope = jax.value_and_grad(
        lambda strain: energy(*molecules.scaled(state.position, box, strain, (3,)))
    )(jnp.zeros(1, box.dtype))
    return value, (2.0 / 3.0 * kinetic - slope[0]) / volume(box)


def rescaled(energy: Energy, stale: Stale, state, cell: Cell, bath, t, scheme, molecules):
    """Return state and cell after a step of stochastic cell rescaling, and whether to reject it.

    Source: Bernetti and Bussi, J. Chem. Phys. 153, 114107 (2020), eq. 7, and for several strains
    the semi-isotropic equations of section II.

    Args:
        energy: function of positions (N, 3) Å and box (3, 3) Å.
        stale: function of positions and box: whether the neighbour list may lack pairs.
        state: the present state of jax-md.
        cell: the present box.
        bath: settings of thermostat and barostat.
        t: () integer, number of earlier steps.
        scheme: choices that determine the compiled code.
        molecules: the molecules.
    """
    axes, (pressure, gain), kT = scheme.coupling.axes, bath.barostat, bath.kT_after(t)
    R, V = state.position, volume(cell.box)
    parts = jnp.asarray(axes, R.dtype) / 3.0
    inside = (molecules.count * kT - slopes(energy, molecules, R, cell.box, axes)) / V
    noise = jax.random.normal(_key(state, t), parts.shape, R.dtype)
    drift = jnp.clip(parts * gain * (inside - pressure), -LARGEST, LARGEST)
    strains = drift + jnp.sqrt(2.0 * parts * kT * gain / V) * noise
    R, box = molecules.scaled(R, cell.box, strains, axes)
    force = -jax.grad(energy)(R, box)
    return state.set(position=R, force=force), cell._replace(box=box), stale(R, box)


def monte_carlo(energy: Energy, stale: Stale, state, cell: Cell, bath, t, scheme, molecules):
    """Return state and cell after a Monte Carlo move of the volume; see `rescaled`.

    Logarithms of volumes, areas or lengths change by uniform random numbers, whose size is adapted
    to the acceptance rate.
    Source: Åqvist et al., Chem. Phys. Lett. 384, 288 (2004).
    """
    axes, kT = scheme.coupling.axes, bath.kT_after(t)
    R, box = state.position, cell.box
    which, size, chance = jax.random.split(_key(state, t), 3)
    chosen = jax.random.randint(which, (), 0, len(axes))
    change = cell.size * jax.random.uniform(size, (), R.dtype, -1.0, 1.0)
    strains = jnp.where(jnp.arange(len(axes)) == chosen, change, 0.0)
    trial = molecules.scaled(R, box, strains, axes)
    new, slope = jax.value_and_grad(energy)(*trial)
    work = new - energy(R, box) + bath.barostat.pressure * (volume(trial[1]) - volume(box))
    log_ratio = (molecules.count + 1) * change - work / kT
    accept = jnp.asarray(jnp.log(jax.random.uniform(chance, (), R.dtype)) < log_ratio)
    moved = state.set(position=trial[0], force=-slope)
    state = jax.tree.map(lambda a, b: a if a is b else jnp.where(accept, a, b), moved, state)
    counts = cell.counts + jnp.asarray([1, accept], jnp.int32)
    done, rate = counts[0] >= ATTEMPTS, counts[1] / counts[0]
    factor = jnp.where(
        rate < ACCEPTANCE[0], 1 / FACTOR, jnp.where(rate > ACCEPTANCE[1], FACTOR, 1.0)
    )
    cell = Cell(
        jnp.where(accept, trial[1], box),
        jnp.minimum(cell.size * jnp.asarray(jnp.where(done, factor, 1.0), R.dtype), LARGEST_SIZE),
        jnp.where(done, 0, counts),
    )
    return state, cell, stale(*trial)


STEPS: dict[str, Callable] = {"rescaling": rescaled, "monte-carlo": monte_carlo}


def _key(state, t):
    return jax.random.fold_in(jax.random.fold_in(state.rng, _STREAM), t)
