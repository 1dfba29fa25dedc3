"""Barostats, which scale the box and the centres of mass of the molecules.

Molecules are moved, but not deformed, so that constrained distances do not change.  The pressure
follows from the derivative of the energy with respect to the same scaling.  Momenta do not change:
the M centres of mass contribute their mean kinetic energy to the pressure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.md.field import Field, Molecules

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


def volume(box: Array) -> Array:
    """Volume () Å³ of a box (3, 3) Å."""
    return jnp.abs(jnp.linalg.det(box))


def strain_of(strains: Array, axes: tuple[int, ...]) -> Array:
    """Logarithms (3,) of scaled Cartesian lengths.

    Args:
        strains: (K,) logarithms of the scaled lengths, areas or volumes.
        axes: number of Cartesian axes of each strain, in total 3.
    """
    return jnp.concatenate([jnp.full(n, strains[k] / n) for k, n in enumerate(axes)])


def slopes_of(slopes: Array, axes: tuple[int, ...]) -> Array:
    """Derivatives (K,) with respect to strains, from those by Cartesian strains (3,).

    The derivatives have any unit; for the strains see `strain_of`.
    """
    ends = np.cumsum(axes)
    return jnp.stack([slopes[end - n : end].mean() for n, end in zip(axes, ends, strict=True)])


def energy_and_pressure(
    field: Field, molecules: Molecules, state, box: Array
) -> tuple[Array, Array]:
    """Energy () kcal/mol and instantaneous pressure () kcal/mol/Å³.

    The pressure comes from the motion of molecules and the forces on them.

    Args:
        field: the energy of the system.
        molecules: the molecules.
        state: the present state of jax-md.
        box: (3, 3) Å.
    """
    momenta, masses = (
        jax.ops.segment_sum(x, molecules.index, molecules.count)
        for x in (state.momentum, state.mass)
    )
    kinetic = 0.5 * jnp.sum(momenta**2 / masses)
    energy, slopes = field.energy_and_slopes(molecules, state.position, box)
    return energy, (2.0 * kinetic - slopes.sum()) / (3.0 * volume(box))


def rescaled(field: Field, molecules: Molecules, state, cell: Cell, bath, t, scheme):
    """Return state and cell after a step of stochastic cell rescaling, and whether to reject it.

    Source: Bernetti and Bussi, J. Chem. Phys. 153, 114107 (2020), eq. 7, and for several strains
    the semi-isotropic equations of section II.

    Args:
        field: the energy of the system.
        molecules: the molecules.
        state: the present state of jax-md.
        cell: the present box.
        bath: settings of thermostat and barostat.
        t: () integer, number of earlier steps.
        scheme: choices that determine the compiled code.
    """
    axes, (pressure, gain), kT = scheme.coupling.axes, bath.barostat, bath.kT_after(t)
    R, V = state.position, volume(cell.box)
    parts = jnp.asarray(axes, R.dtype) / 3.0
    slopes = slopes_of(field.energy_and_slopes(molecules, R, cell.box)[1], axes)
    inside = (molecules.count * kT - slopes) / V
    noise = jax.random.normal(_key(state, t), parts.shape, R.dtype)
    drift = jnp.clip(parts * gain * (inside - pressure), -LARGEST, LARGEST)
    strains = drift + jnp.sqrt(2.0 * parts * kT * gain / V) * noise
    R, box = molecules.scaled(R, cell.box, strain_of(strains, axes))
    state = state.set(position=R, force=field.forces(R, box))
    return state, cell._replace(box=box), field.stale(R, box)


def monte_carlo(field: Field, molecules: Molecules, state, cell: Cell, bath, t, scheme):
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
    strains = change * (jnp.arange(len(axes)) == chosen)
    trial = molecules.scaled(R, box, strain_of(strains, axes))
    new, forces = field.energy_and_forces(*trial)
    work = new - field.energy(R, box) + bath.barostat.pressure * (volume(trial[1]) - volume(box))
    log_ratio = (molecules.count + 1) * change - work / kT
    accept = jnp.asarray(jnp.log(jax.random.uniform(chance, (), R.dtype)) < log_ratio)
    moved = state.set(position=trial[0], force=forces)
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
    return state, cell, field.stale(*trial)


STEPS: dict[str, Callable] = {"rescaling": rescaled, "monte-carlo": monte_carlo}


def _key(state, t):
    return jax.random.fold_in(jax.random.fold_in(state.rng, _STREAM), t)
