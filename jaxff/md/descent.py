"""Minimisation of many geometries, optionally with constrained coordinates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.md.constraints import Coordinates, Fixed, correct, deviations
from jaxff.md.lbfgs import State, advance, begin, is_active, largest
from jaxff.md.surface import Surface
from jaxff.potential import Potential, Program
from jaxff.settings import Settings, choice, count, number

Array = jax.Array

METHODS = ("lbfgs", "fire")
# Positions (N, 3) Å, energy () kcal/mol, gradient (N, 3) kcal/mol/Å and number of steps () of a
# minimised geometry.
_End = tuple[Array, Array, Array, Array]

# Å or rad: largest deviation of constrained coordinates at convergence
HELD = {jnp.dtype("float64"): 1e-8, jnp.dtype("float32"): 1e-4}


@dataclass(frozen=True)
class Descent(Settings):
    """Settings of a minimisation.

    Args:
        method: "lbfgs" or "fire".  FIRE is for potentials without constraints only, and converges
            more slowly if all forces are weak.
        tolerance: largest force on an atom at convergence, kcal/mol/Å.
        max_steps: limit of the steps.

    Raises:
        InputError: an unknown method, or a number that is not positive.

    Source: Liu and Nocedal, Math. Program. 45, 503 (1989), "L-BFGS"; Bitzek et al., Phys. Rev.
    Lett. 97, 170201 (2006), "FIRE".
    """

    method: str = choice("lbfgs", METHODS)
    tolerance: float = number(1e-3, "kcal/mol/Å", above=0.0)
    max_steps: int = count(5000)


@dataclass(frozen=True)
class Minimum:
    """Result of a minimisation; for M geometries all arrays have a leading axis M.

    Attributes:
        positions: (N, 3) Å.  If energies or forces become non-finite, this is the last finite
            geometry.
        energy: () kcal/mol; infinite if the energy or a force is not finite at the start.
        max_force: () kcal/mol/Å, the largest force on an atom after projection; see `relax`.
        steps: () integer, number of steps.
        converged: () bool, whether `max_force` is below the tolerance and the constraints hold.
    """

    positions: np.ndarray
    energy: np.ndarray
    max_force: np.ndarray
    steps: np.ndarray
    converged: np.ndarray

    def reshape(self, shape: tuple[int, ...]) -> Minimum:
        """Return the result with the leading axis M replaced by the axes `shape`."""
        arrays = (self.positions, self.energy, self.max_force, self.steps, self.converged)
        return Minimum(*(x.reshape(shape + x.shape[1:]) for x in arrays))


def relax(
    surface: Surface,
    positions: np.ndarray,
    coordinates: Coordinates = (),
    values: np.ndarray | None = None,
    *,
    descent: Descent | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Minimum:
    """Minimise many geometries at once, with constrained internal coordinates.

    L-BFGS uses forces that are projected so that they do not change the constrained coordinates.
    Steps that do not lower the energy are shortened.  After each step the constrained coordinates
    are corrected.

    Args:
        surface: result of `as_surface`.
        positions: (M, N, 3) Å.
        coordinates: K tuples of atoms, see `jaxff.md.constraints`.
        values: (M, K) Å or rad, values of the constrained coordinates (None: no constraints).
        descent: settings (None: `Descent()`).
        progress: for calculators, function called with the name of the task and the fraction of
            geometries that have converged.

    Returns:
        `Minimum` with a leading axis M.

    Raises:
        InputError: FIRE for a calculator or with constrained coordinates.
    """
    descent = descent or Descent()
    is_potential = isinstance(surface, Potential)
    if descent.method != "lbfgs" and (coordinates or not is_potential):
        raise InputError(
            f"the method {descent.method} needs a potential and no constrained coordinates: use "
            "lbfgs"
        )
    dtype = surface.dtype if is_potential else jnp.result_type(float)
    R = jnp.asarray(positions, dtype)
    targets = jnp.asarray(jnp.zeros((len(R), 0)) if values is None else values, dtype)
    limits = (jnp.asarray(descent.tolerance, dtype), descent.max_steps)
    if is_potential:
        program, params = surface.program, surface.program.jit_ready(surface.params)
        chunks = -(-len(R) // program.frames_at_once(surface.params))
        # Equal chunks, filled with the last geometry: a smaller last chunk would compile again.
        size = -(-len(R) // chunks)
        place = np.minimum(np.arange(chunks * size), len(R) - 1)
        full = (x[place].reshape(chunks, size, *x.shape[1:]) for x in (R, targets))
        out = _compiled(program, descent.method, coordinates, params, *full, limits)
        out = jax.tree.map(lambda x: x.reshape(chunks * size, *x.shape[2:])[: len(R)], out)
    else:
        out = _stepwise(surface, coordinates, R, targets, limits, progress)
    off = np.abs(jax.vmap(partial(deviations, coordinates))(out[0], targets))
    held = (off < HELD[jnp.dtype(dtype)]).all(axis=1)
    force = np.asarray(jax.vmap(largest)(out[2]))
    R, energy, _, steps = (np.asarray(x) for x in out)
    converged = np.isfinite(energy) & held & (force <= descent.tolerance)
    return Minimum(R, energy, force, steps, converged)


@partial(jax.jit, static_argnames=("program", "method", "coordinates"))
def _compiled(
    program: Program, method: str, coordinates: Coordinates, params, R, values, limits
) -> _End:
    """Minimise geometries R (chunks, M, N, 3) Å of a potential, chunk after chunk."""

    def lbfgs(R, values):
        def step(state):
            energy, forces = program.energy_and_forces(params, state.trial)
            return advance(Fixed(coordinates, values), state, energy, forces)

        start = _begin(coordinates, R, values)
        return jax.lax.while_loop(partial(is_active, limits), step, start)[:4]

    def fire(R, _):
        return _fire(partial(program.energy, params), limits, R)

    one = lbfgs if method == "lbfgs" else fire
    return jax.lax.map(lambda start: jax.vmap(one)(*start), (R, values))


def _stepwise(surface, coordinates: Coordinates, R, values, limits, progress) -> _End:
    """Minimise on a surface that cannot be compiled, with one call for each step."""
    start, next_step, goes_on = _compiled_parts(coordinates)
    state = start(R, values)
    while (active := np.asarray(goes_on(limits, state))).any():
        if progress is not None:
            progress("relax", float(1.0 - active.mean()))
        energies, forces = np.zeros(len(R)), np.zeros(R.shape)
        energies[active], forces[active] = surface(np.asarray(state.trial)[active])
        after = next_step(values, state, jnp.asarray(energies), jnp.asarray(forces))
        state = jax.tree.map(
            lambda a, b: jnp.where(active.reshape(-1, *[1] * (a.ndim - 1)), b, a), state, after
        )
    return state[:4]


@cache
def _compiled_parts(coordinates: Coordinates) -> tuple[Callable, Callable, Callable]:
    """Functions that begin, advance and end minimisations of many geometries, compiled."""

    def next_step(values, *state_energy_forces):
        return advance(Fixed(coordinates, values), *state_energy_forces)

    return (
        jax.jit(jax.vmap(partial(_begin, coordinates))),
        jax.jit(jax.vmap(next_step)),
        jax.jit(jax.vmap(is_active, in_axes=(None, 0))),
    )


def _begin(coordinates: Coordinates, R: Array, values: Array) -> State:
    return begin(correct(coordinates, R, values, rounds=40))


# -- FIRE --------------------------------------------------------------------------------------


def _fire(energy_fn: Callable[[Array], Array], limits, R: Array) -> _End:
    """Minimise one geometry R (N, 3) Å with jax-md's FIRE."""
    from jax_md import minimize, space

    tolerance, max_steps = limits
    _, shift = space.free()
    # Time steps are in jax-md's unit for unit masses: less than 0.2 of the period of a bond with a
    # force constant of 1000 kcal/mol/Å².
    init, apply = minimize.fire_descent(energy_fn, shift, dt_start=0.005, dt_max=0.03)

    def is_active(carry):
        state, count, finite = carry
        return finite & (count < max_steps) & (largest(state.force) > tolerance)

    def step(carry):
        state, count, _ = carry
        new = apply(state)
        finite = jnp.isfinite(new.force).all() & jnp.isfinite(new.position).all()
        return jax.tree.map(partial(jnp.where, finite), new, state), count + 1, finite

    state, count, _ = jax.lax.while_loop(is_active, step, (init(R), 0, True))
    energy, gradient = jax.value_and_grad(energy_fn)(state.position)
    finite = jnp.isfinite(energy) & jnp.isfinite(gradient).all()
    energy = jnp.asarray(jnp.where(finite, energy, jnp.inf))
    return state.position, energy, gradient, jnp.asarray(count)
