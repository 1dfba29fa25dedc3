"""Many geometries downhill at once, with internal coordinates held; on any energy surface.

A surface is a `Potential`, an ASE calculator, or a function of positions (M, N, 3) Å that returns
energies (M,) kcal/mol and forces (M, N, 3) kcal/mol/Å.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxff import units
from jaxff.analysis.internal import Coordinates, misses, settle, tangent
from jaxff.errors import InputError
from jaxff.md.start import dtype_of
from jaxff.molecule import Molecule
from jaxff.potential import Potential

Array = jax.Array
Surface = Potential | Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

MEMORY = 12  # pairs of steps and gradient changes that stand for the curvature
STIFFNESS = 500.0  # kcal/mol/Å², of the first step
LONGEST = 0.2  # Å, of an atom in one step
PATIENCE = 25  # steps in a row that do not lead downhill, before giving up
HELD = 1e-8  # Å or rad, within which coordinates are held in float64


@dataclass(frozen=True)
class Relaxed:
    """Where M geometries ended.

    Attributes:
        positions: (M, N, 3) Å.
        energies: (M,) kcal/mol, infinite where a start's energy is not finite.
        max_forces: (M,) kcal/mol/Å, the largest force on an atom along what is not held.
        steps: (M,) integers.
        converged: (M,) bool.
    """

    positions: np.ndarray
    energies: np.ndarray
    max_forces: np.ndarray
    steps: np.ndarray
    converged: np.ndarray


def as_surface(surface: Any, molecule: Molecule) -> Surface:
    """A potential in the atom order of `molecule`, or the energies and forces of a calculator.

    Args:
        surface: a `Potential`, an ASE calculator, or a function as above.
        molecule: elements and atom order.

    Raises:
        InputError: the potential is of another molecule, or `surface` is none of these.
    """
    from ase.calculators.calculator import BaseCalculator

    if isinstance(surface, Potential):
        return surface.matched(molecule)
    if isinstance(surface, BaseCalculator):
        return _Calculated(surface, molecule)
    if callable(surface):
        return surface
    raise InputError(f"{surface!r} is no energy surface: give a Potential or an ASE calculator")


def evaluate(surface: Surface, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energies (M,) kcal/mol and forces (M, N, 3) kcal/mol/Å at positions (M, N, 3) Å."""
    energy_and_forces = surface.predict if isinstance(surface, Potential) else surface
    return energy_and_forces(positions)


def relax(
    surface: Surface,
    positions: np.ndarray,
    coordinates: Coordinates = (),
    values: np.ndarray | None = None,
    *,
    tolerance: float = 1e-3,
    max_steps: int = 1000,
    progress: Callable[[str, float], None] | None = None,
) -> Relaxed:
    """Downhill from many geometries at once, with internal coordinates held at given values.

    L-BFGS (Liu and Nocedal, Math. Program. 45, 503 (1989)) on the forces without their part along
    the gradients of the coordinates, with a shorter step wherever one does not lead downhill, and
    after each step a correction of the coordinates. Of a `Potential` all steps of all geometries
    are one compiled call.

    Args:
        surface: see `as_surface`.
        positions: (M, N, 3) Å.
        coordinates: K tuples of atoms.
        values: (M, K) Å or rad, at which the coordinates are held.
        tolerance: largest force on an atom at which it stops, kcal/mol/Å.
        max_steps: after which it stops in any case.
        progress: called with what goes on and the fraction that has converged (calculators only).
    """
    if not tolerance > 0 or not max_steps > 0:
        raise InputError("tolerance and max_steps must be positive")
    dtype = dtype_of(surface) if isinstance(surface, Potential) else jnp.result_type(float)
    R = jnp.asarray(positions, dtype)
    values = jnp.zeros((len(R), 0)) if values is None else values
    start = (R, jnp.asarray(values, dtype))
    limits = (jnp.asarray(tolerance, dtype), max_steps)
    if isinstance(surface, Potential):
        program, params = surface.program, surface.program.jit_ready(surface.params)
        chunks = -(-len(R) // program.frames_at_once(surface.params))
        # Equal chunks, with the last geometry repeated: what is left over would compile again.
        size = -(-len(R) // chunks)
        place = np.minimum(np.arange(chunks * size), len(R) - 1)
        full = (x[place].reshape(chunks, size, *x.shape[1:]) for x in start)
        state = _compiled(program, coordinates, params, *full, limits)
        state = jax.tree.map(lambda x: x.reshape(chunks * size, *x.shape[2:])[: len(R)], state)
    else:
        state = _stepwise(surface, coordinates, *start, limits, progress)
    off = np.abs(jax.vmap(partial(misses, coordinates))(state.R, start[1]))
    held = (off < (HELD if dtype == jnp.float64 else 1e-4)).all(axis=1)
    force = np.asarray(jax.vmap(_largest)(state.gradient))
    found = np.isfinite(np.asarray(state.energy))
    return Relaxed(
        np.asarray(state.R), np.asarray(state.energy), force, np.asarray(state.count),
        found & held & (force <= tolerance),
    )  # fmt: skip


# -- one geometry ----------------------------------------------------------------------------


class _State(NamedTuple):
    R: Array  # (N, 3) Å, the lowest so far
    energy: Array  # () kcal/mol
    gradient: Array  # (N, 3) kcal/mol/Å, along what is not held
    trial: Array  # (N, 3) Å, to be looked at next
    direction: Array  # (N, 3) Å
    length: Array  # () of the direction
    steps: Array  # (MEMORY, N, 3) Å
    changes: Array  # (MEMORY, N, 3) kcal/mol/Å, of the gradient
    scale: Array  # () Å²mol/kcal, one over the stiffness
    failed: Array  # () steps in a row that did not lead downhill
    count: Array  # () steps in all


def _begin(coordinates: Coordinates, R: Array, values: Array) -> _State:
    zero, memory = jnp.zeros_like(R), jnp.zeros((MEMORY, *R.shape), R.dtype)
    one = jnp.ones((), R.dtype)
    trial = settle(coordinates, R, values, rounds=40)
    return _State(
        trial, jnp.inf * one, zero, trial, zero, one, memory, memory, one / STIFFNESS,
        jnp.zeros((), int), jnp.zeros((), int),
    )  # fmt: skip


def _advance(
    coordinates: Coordinates, values: Array, state: _State, energy: Array, forces: Array
) -> _State:
    """The state after its trial's energy and forces are known, with the next trial."""
    slope = tangent(coordinates, state.trial, -forces)
    expected = state.length * jnp.sum(state.gradient * state.direction)
    rounding = 8 * jnp.finfo(energy.dtype).eps * jnp.abs(energy)
    finite = jnp.isfinite(energy) & jnp.isfinite(slope).all()
    taken = finite & (energy <= state.energy + 1e-4 * expected + rounding)

    step, change = state.trial - state.R, slope - state.gradient
    product, square = jnp.sum(step * change), jnp.sum(change**2)
    useful = taken & (product > jnp.finfo(energy.dtype).eps * square)
    steps = jnp.where(useful, jnp.concatenate([state.steps[1:], step[None]]), state.steps)
    changes = jnp.where(useful, jnp.concatenate([state.changes[1:], change[None]]), state.changes)
    scale = jnp.where(useful, product / jnp.where(useful, square, 1.0), state.scale)
    failed = jnp.where(taken, 0, state.failed + 1)
    # What is remembered may be the reason: after six failures the gradient alone counts.
    steps, changes = (jnp.where(failed == 6, 0.0, x) for x in (steps, changes))

    above = energy - state.energy - expected
    shorter = jnp.where(finite & (above > 0), -expected / jnp.where(above > 0, 2 * above, 1.0), 0.1)
    length = jnp.where(taken, 1.0, state.length * jnp.clip(shorter, 0.1, 0.5))
    R = jnp.where(taken, state.trial, state.R)
    gradient = jnp.where(taken, slope, state.gradient)
    downhill = tangent(coordinates, R, -_newton(gradient, steps, changes, scale))
    downhill = jnp.where(jnp.sum(downhill * gradient) < 0, downhill, -scale * gradient)
    downhill = downhill * jnp.minimum(1.0, LONGEST / jnp.maximum(_largest(downhill), 1e-30))
    return _State(
        R, jnp.where(taken, energy, state.energy), gradient,
        settle(coordinates, R + length * downhill, values), downhill, length, steps, changes,
        scale, failed, state.count + 1,
    )  # fmt: skip


def _going(limits, state: _State) -> Array:
    tolerance, max_steps = limits
    unfinished = (_largest(state.gradient) > tolerance) & jnp.isfinite(state.energy)
    busy = (state.count < max_steps) & (state.failed < PATIENCE)
    return (state.count == 0) | (busy & unfinished)


def _newton(gradient: Array, steps: Array, changes: Array, scale: Array) -> Array:
    """The inverse Hessian of the remembered steps times the gradient: L-BFGS's two loops."""
    products = jnp.sum(steps * changes, axis=(1, 2))
    known = products > 0
    rho = jnp.where(known, 1.0 / jnp.where(known, products, 1.0), 0.0)

    def back(q, pair):
        step, change, rho = pair
        weight = rho * jnp.sum(step * q)
        return q - weight * change, weight

    def forth(r, pair):
        step, change, rho, weight = pair
        return r + (weight - rho * jnp.sum(change * r)) * step, None

    q, weights = jax.lax.scan(back, gradient, (steps, changes, rho), reverse=True)
    return jax.lax.scan(forth, scale * q, (steps, changes, rho, weights))[0]


def _largest(vectors: Array) -> Array:
    return jnp.sqrt(jnp.max(jnp.sum(vectors**2, axis=-1)))


# -- many ------------------------------------------------------------------------------------


@partial(jax.jit, static_argnames=("program", "coordinates"))
def _compiled(program, coordinates: Coordinates, params, R, values, limits) -> _State:
    """The last states of geometries R (chunks, M, N, 3) Å, chunk after chunk."""

    def one(R, values):
        def step(state):
            energy, forces = program.energy_and_forces(params, state.trial)
            return _advance(coordinates, values, state, energy, forces)

        return jax.lax.while_loop(partial(_going, limits), step, _begin(coordinates, R, values))

    return jax.lax.map(lambda start: jax.vmap(one)(*start), (R, values))


def _stepwise(surface, coordinates: Coordinates, R, values, limits, progress) -> _State:
    """The same for a surface that cannot be compiled: all trials of a step, and the next step."""
    advance = jax.jit(jax.vmap(partial(_advance, coordinates)))
    going = jax.jit(jax.vmap(partial(_going, limits)))
    state = jax.jit(jax.vmap(partial(_begin, coordinates)))(R, values)
    while (busy := np.asarray(going(state))).any():
        if progress is not None:
            progress("relax", float(1.0 - busy.mean()))
        energies, forces = np.zeros(len(R)), np.zeros(R.shape)
        energies[busy], forces[busy] = surface(np.asarray(state.trial)[busy])
        after = advance(values, state, jnp.asarray(energies), jnp.asarray(forces))
        state = jax.tree.map(
            lambda a, b: jnp.where(busy.reshape(-1, *[1] * (a.ndim - 1)), b, a), state, after
        )
    return state


class _Calculated:
    """Energies (M,) kcal/mol and forces (M, N, 3) kcal/mol/Å, not a number where it fails.

    Raises:
        InputError: the first geometries fail, all of them.
    """

    def __init__(self, calculator, molecule: Molecule):
        self.calculator, self.molecule = calculator, molecule
        self._works = False
        self._said: set[str] = set()

    def __call__(self, positions) -> tuple[np.ndarray, np.ndarray]:
        atoms, failure = self.molecule.to_ase(), None
        atoms.calc = self.calculator
        energies, forces = np.full(len(positions), np.nan), np.full(np.shape(positions), np.nan)
        for m, R in enumerate(np.asarray(positions)):
            atoms.positions = R
            try:
                # Forces first: for energies alone, some calculators do not compute them.
                forces[m] = atoms.get_forces() * units.EV
                energies[m] = atoms.get_potential_energy() * units.EV
                self._works = True
            except InputError:
                raise
            except Exception as error:  # one geometry's failure must not lose the others
                failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if failure is not None and not self._works:
            raise InputError(f"the calculation fails ({failure})")
        if failure is not None and failure not in self._said:
            self._said.add(failure)
            warnings.warn(f"a calculation failed and is left out ({failure})", stacklevel=2)
        return energies, forces
