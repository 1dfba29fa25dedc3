"""Steps of the minimiser L-BFGS with constraints.

Source: Liu and Nocedal, Math. Program. 45, 503 (1989).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

Array = jax.Array

MEMORY = 12  # pairs of steps and gradient changes that approximate the curvature
STIFFNESS = 500.0  # kcal/mol/Å², assumed for the first step
LONGEST = 0.2  # Å: the largest displacement of an atom in one step
NOISE = 1e-5  # kcal/mol: smaller increases of the energy may be errors of the surface
PATIENCE = 25  # rejected steps in a row after which a minimisation stops


class Held(Protocol):
    """Constraints of a minimisation, which restrict geometries to a surface."""

    def project(self, R: Array, vectors: Array) -> Array:
        """Part of `vectors` (N, 3) that is tangential to the surface at R (N, 3) Å."""
        ...

    def moved(self, R: Array, moves: Array) -> Array:
        """A geometry (N, 3) Å on the surface, near R + moves, from R (N, 3) Å on the surface."""
        ...


class State(NamedTuple):
    """State of a minimisation."""

    R: Array  # (N, 3) Å, the last accepted geometry
    energy: Array  # () kcal/mol
    gradient: Array  # (N, 3) kcal/mol/Å, without constraint directions
    count: Array  # () number of evaluations
    trial: Array  # (N, 3) Å, the geometry to evaluate next
    direction: Array  # (N, 3) Å
    length: Array  # () fraction of the direction that the trial takes
    steps: Array  # (MEMORY, N, 3) Å, accepted steps
    changes: Array  # (MEMORY, N, 3) kcal/mol/Å, of the gradient in these steps
    scale: Array  # () Å²mol/kcal, the inverse stiffness
    rejected: Array  # () rejected steps in a row


def begin(R: Array) -> State:
    """The state at a starting geometry (N, 3) Å that fulfils the constraints."""
    zero, memory = jnp.zeros_like(R), jnp.zeros((MEMORY, *R.shape), R.dtype)
    one = jnp.ones((), R.dtype)
    return State(
        R, jnp.inf * one, zero, jnp.zeros((), int), R, zero, one, memory, memory,
        one / STIFFNESS, jnp.zeros((), int),
    )  # fmt: skip


def advance(held: Held, state: State, energy: Array, forces: Array) -> State:
    """Return the next state.

    Args:
        held: the constraints.
        state: the present state.
        energy: () kcal/mol, of the trial geometry.
        forces: (N, 3) kcal/mol/Å, of the trial geometry.
    """
    slope = held.project(state.trial, -forces)
    expected = state.length * jnp.sum(state.gradient * state.direction)
    rounding = 8 * jnp.finfo(energy.dtype).eps * jnp.abs(energy)
    finite = jnp.isfinite(energy) & jnp.isfinite(slope).all()
    step, change = state.trial - state.R, slope - state.gradient
    # The slope along the step shows whether the energy decreases within its noise (Hager and
    # Zhang, SIAM J. Optim. 16, 170 (2005), "approximate Wolfe conditions").
    lower = (energy <= state.energy + NOISE) & (jnp.sum(step * slope) <= -0.8 * expected)
    accepted = finite & (lower | (energy <= state.energy + 1e-4 * expected + rounding))
    moved = (state.count == 0) | (step != 0).any()

    product, square = jnp.sum(step * change), jnp.sum(change**2)
    useful = accepted & (product > jnp.finfo(energy.dtype).eps * square)
    steps = jnp.where(useful, jnp.concatenate([state.steps[1:], step[None]]), state.steps)
    changes = jnp.where(useful, jnp.concatenate([state.changes[1:], change[None]]), state.changes)
    scale = jnp.where(useful, product / jnp.where(useful, square, 1.0), state.scale)
    rejected = jnp.where(accepted & moved, 0, state.rejected + 1)
    # The stored steps may cause the rejections: after six of them only the gradient is used.
    steps, changes = (jnp.where(rejected == 6, 0.0, x) for x in (steps, changes))

    above = energy - state.energy - expected
    factor = jnp.where(finite & (above > 0), -expected / jnp.where(above > 0, 2 * above, 1.0), 0.1)
    length = jnp.where(accepted, 1.0, state.length * jnp.clip(factor, 0.1, 0.5))
    R = jnp.where(accepted, state.trial, state.R)
    gradient = jnp.where(accepted, slope, state.gradient)
    downhill = held.project(R, -_newton(gradient, steps, changes, scale))
    downhill = jnp.where(jnp.sum(downhill * gradient) < 0, downhill, -scale * gradient)
    downhill = downhill * jnp.minimum(1.0, LONGEST / jnp.maximum(largest(downhill), 1e-30))
    return State(
        R, jnp.where(accepted, energy, state.energy), gradient, state.count + 1,
        held.moved(R, length * downhill), downhill, length, steps, changes,
        scale, rejected,
    )  # fmt: skip


def is_active(limits, state: State) -> Array:
    """Whether () to continue; `limits` are the tolerance, kcal/mol/Å, and the number of steps."""
    tolerance, max_steps = limits
    unfinished = (largest(state.gradient) > tolerance) & jnp.isfinite(state.energy)
    allowed = (state.count < max_steps) & (state.rejected < PATIENCE)
    return (state.count == 0) | (allowed & unfinished)


def _newton(gradient: Array, steps: Array, changes: Array, scale: Array) -> Array:
    """Approximate inverse Hessian times the gradient, (N, 3) Å, by L-BFGS."""
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


def largest(vectors: Array) -> Array:
    """Length () of the longest of the vectors (N, 3)."""
    return jnp.sqrt(jnp.max(jnp.sum(vectors**2, axis=-1)))
