"""Energy minimisation: L-BFGS and FIRE, of one geometry or of many at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxff.errors import InputError
from jaxff.md.start import dtype_of
from jaxff.molecule import Molecule
from jaxff.potential import Params, Potential, Program

METHODS = ("lbfgs", "fire")


@dataclass(frozen=True)
class Minimum:
    """Where a minimisation ended; of B starts every array has a leading axis B.

    Attributes:
        positions: (N, 3) Å.
        energy: () kcal/mol.
        max_force: () kcal/mol/Å, the largest force on an atom.
        steps: () integer, steps taken.
        converged: () bool, whether `max_force` is within the tolerance.
    """

    positions: np.ndarray
    energy: np.ndarray
    max_force: np.ndarray
    steps: np.ndarray
    converged: np.ndarray


def minimize(
    potential: Potential,
    molecule: Molecule,
    *,
    positions=None,
    method: str = "lbfgs",
    tolerance: float = 1e-4,
    max_steps: int = 2000,
) -> Minimum:
    """The minimum downhill of a geometry, or of each of many.

    Args:
        potential: its atoms are matched to those of `molecule`.
        molecule: elements and starting geometry.
        positions: (N, 3) or (B, N, 3) Å, in place of the molecule's.
        method: "lbfgs" (Liu and Nocedal, Math. Program. 45, 503 (1989); optax's, with a line
            search) or "fire" (Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006); jax-md's).
        tolerance: largest force on an atom at which it stops, kcal/mol/Å.
        max_steps: after which it stops in any case; see `Minimum.converged`.

    Raises:
        InputError: arguments that cannot be used; an energy that is not finite at the start.
    """
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: use one of {', '.join(METHODS)}")
    if not tolerance > 0 or not max_steps > 0:
        raise InputError("tolerance and max_steps must be positive")
    potential = potential.matched(molecule)
    R = np.asarray(molecule.positions if positions is None else positions, float)
    if R.ndim not in (2, 3) or R.shape[-2:] != (molecule.n_atoms, 3):
        raise InputError(f"positions have shape {R.shape}, expected (B, {molecule.n_atoms}, 3)")
    R = jnp.asarray(R, dtype_of(potential))
    params = potential.program.jit_ready(potential.params)
    start = (R.reshape(-1, *R.shape[-2:]), jnp.asarray(tolerance, R.dtype), max_steps)
    found = _minimized(potential.program, method, params, *start)
    lead = R.shape[:-2]
    positions, energy, force, steps = (np.asarray(x).reshape(lead + x.shape[1:]) for x in found)
    if not np.isfinite(energy).all():
        raise InputError("the energy is not finite at a starting geometry, or on the way from it")
    return Minimum(positions, energy, force, steps, force <= tolerance)


@partial(jax.jit, static_argnames=("program", "method"))
def _minimized(program: Program, method: str, params: Params, R, tolerance, max_steps):
    """Positions, energies, largest forces and steps of geometries R (B, N, 3) Å."""
    energy_fn = partial(program.energy, params)
    return jax.vmap(lambda R: descend(energy_fn, R, method, tolerance, max_steps))(R)


def descend(energy_fn, R, method: str, tolerance, max_steps):
    """Downhill from R (N, 3) Å on `energy_fn`, to be called within `jit` and `vmap`.

    Returns:
        positions (N, 3) Å, energy () kcal/mol, largest force on an atom () kcal/mol/Å, steps ().
    """

    def largest(gradient):
        return jnp.sqrt(jnp.max(jnp.sum(gradient**2, axis=-1)))

    init, step, gradient = (_lbfgs if method == "lbfgs" else _fire)(energy_fn)

    def going(carry):
        state, count = carry
        # Not a number compares as at rest: it stops, and the energy tells.
        return (count < max_steps) & (largest(gradient(state)) > tolerance)

    state, count = jax.lax.while_loop(
        going, lambda carry: (step(carry[0]), carry[1] + 1), (init(R), 0)
    )
    R = state[0] if method == "lbfgs" else state.position
    energy, slope = jax.value_and_grad(energy_fn)(R)
    return R, energy, largest(slope), count


def _lbfgs(energy_fn):
    """Its start, its step, and the gradient at a state (positions, gradient, optax's state)."""
    optimizer = optax.lbfgs(memory_size=20)
    value_and_grad = optax.value_and_grad_from_state(energy_fn)

    def init(R):
        return R, jax.grad(energy_fn)(R), optimizer.init(R)

    def step(carry):
        R, _, state = carry
        value, slope = value_and_grad(R, state=state)
        moves, state = optimizer.update(
            slope, state, R, value=value, grad=slope, value_fn=energy_fn
        )
        R = optax.apply_updates(R, moves)
        return R, optax.tree.get(state, "grad"), state

    return init, step, lambda carry: carry[1]


def _fire(energy_fn):
    """Its start, its step, and the gradient at jax-md's state."""
    from jax_md import minimize, space

    _, shift = space.free()
    # Steps in jax-md's unit of time, as for unit masses: a stretch of 1000 kcal/mol/Å² stays
    # within 0.2 of its period.
    init, step = minimize.fire_descent(energy_fn, shift, dt_start=0.005, dt_max=0.03)
    return init, step, lambda state: -state.force
