"""Energy minimisation: L-BFGS and FIRE, of one geometry or of many at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import combinations

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
        converged: () bool, whether `max_force` is within the tolerance.  One that ran into numbers
            that are not finite has not converged, and is where it was before them.
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
            search) or "fire" (Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006); jax-md's), whose
            steps suit the stiff bonds of molecules and are short where all forces are weak.
        tolerance: largest force on an atom at which it stops, kcal/mol/Å.
        max_steps: after which it stops in any case; see `Minimum.converged`.

    Raises:
        InputError: arguments that cannot be used; an energy or a force that is not finite at a
            start, which is named.
    """
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: use one of {', '.join(METHODS)}")
    if not tolerance > 0 or not max_steps > 0:
        raise InputError("tolerance and max_steps must be positive")
    potential = potential.matched(molecule)
    R = np.asarray(molecule.positions if positions is None else positions, float)
    if R.ndim not in (2, 3) or R.shape[-2:] != (molecule.n_atoms, 3):
        raise InputError(f"positions have shape {R.shape}, expected (B, {molecule.n_atoms}, 3)")
    R, lead = jnp.asarray(R, dtype_of(potential)), R.shape[:-2]
    params = potential.program.jit_ready(potential.params)
    tolerance = jnp.asarray(tolerance, R.dtype)
    start = (potential.program, method, params, R.reshape(-1, *R.shape[-2:]), tolerance)
    _check_starts(start[3], *_minimized(*start, 0)[1:3], named=bool(lead))
    found = _minimized(*start, max_steps)
    positions, energy, force, steps = (np.asarray(x).reshape(lead + x.shape[1:]) for x in found)
    return Minimum(positions, energy, force, steps, force <= tolerance)


def _check_starts(R, energies, forces, named: bool) -> None:
    """InputError that names the geometries R (B, N, 3) Å where something is not finite.

    Args:
        energies, forces: (B,) kcal/mol and kcal/mol/Å, the largest on an atom.
        named: whether there are several to tell apart.
    """
    bad = np.flatnonzero(~(np.isfinite(energies) & np.isfinite(forces)))
    if not len(bad):
        return
    which = ", ".join(map(str, bad[:5])) + ", ..." * (len(bad) > 5)
    where = f"starting geometry {which} (of {len(R)}, from 0)" if named else "the starting geometry"
    first = np.asarray(R[bad[0]], float)
    hint = ": it has coordinates that are not finite"
    if np.isfinite(first).all():
        pairs = [
            (np.linalg.norm(first[i] - first[j]), i, j)
            for i, j in combinations(range(len(first)), 2)
        ]
        hint = "".join(f": atoms {i} and {j} are {r:.3g} Å apart" for r, i, j in sorted(pairs)[:1])
    raise InputError(f"the energy or a force is not finite at {where}{hint}")


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

    init, step, place, gradient = (_lbfgs if method == "lbfgs" else _fire)(energy_fn)

    def going(carry):
        state, count, sound = carry
        return sound & (count < max_steps) & (largest(gradient(state)) > tolerance)

    def onward(carry):
        state, count, _ = carry
        new = step(state)
        sound = jnp.isfinite(gradient(new)).all() & jnp.isfinite(place(new)).all()
        return jax.tree.map(partial(jnp.where, sound), new, state), count + 1, sound

    state, count, _ = jax.lax.while_loop(going, onward, (init(R), 0, True))
    R = place(state)
    energy, slope = jax.value_and_grad(energy_fn)(R)
    return R, energy, largest(slope), count


def _lbfgs(energy_fn):
    """Its start, its step, and position and gradient of a state (both, and optax's state)."""
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

    return init, step, lambda carry: carry[0], lambda carry: carry[1]


def _fire(energy_fn):
    """Its start, its step, and position and gradient of jax-md's state."""
    from jax_md import minimize, space

    _, shift = space.free()
    # Steps in jax-md's unit of time, as for unit masses: a stretch of 1000 kcal/mol/Å² stays
    # within 0.2 of its period.
    init, step = minimize.fire_descent(energy_fn, shift, dt_start=0.005, dt_max=0.03)
    return init, step, lambda state: state.position, lambda state: -state.force
