"""Trajectories that JAX can differentiate by parameters, start and ensemble.

Three methods give the same gradient of T steps, with different memory and cost:

- "checkpoint": reverse mode that stores only the state at the start of each segment of steps.  The
  steps of a segment are computed again for the gradient.  With segments of √T steps the memory
  grows as √T (Griewank and Walther, ACM Trans. Math. Softw. 26, 19 (2000)).
- "reversible": reverse mode that stores the recorded frames only, and integrates backwards between
  them (see `jaxff.md.differentiable.reversible`).  The memory does not depend on T.
- "forward": a plain loop for forward mode (`jax.jvp`, `jax.jacfwd`) with few parameters.  The
  memory does not depend on T.  Reverse mode and second derivatives store every step.

Gradients through chaotic motion are exact but not useful, see `value_and_gradient`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxff.errors import InputError
from jaxff.md.differentiable import reversible
from jaxff.md.differentiable.steps import (
    Around,
    Inputs,
    Plan,
    Setup,
    forces,
    loop,
    pulled_forces,
)
from jaxff.md.ensembles import ENSEMBLES, NVE, Ensemble
from jaxff.md.integrators import scaled_masses
from jaxff.md.rigid import Rigid, dynamic_masses
from jaxff.md.settings import Start
from jaxff.potential import Array, Params, Potential, Program

SKIN = 3.0  # Å; the neighbour list of the start remains valid while atoms move by half of it


class Trajectory(NamedTuple):
    """F frames, the first of which is the start; replicas add a leading axis R.

    Attributes:
        positions: (F, N, 3) Å.
        velocities: (F, N, 3) Å/fs.
    """

    positions: Array
    velocities: Array


def rollout(
    potential: Potential,
    start: Start,
    ensemble: Ensemble = NVE(),
    plan: Plan = Plan(),
    *,
    masses=None,
) -> Trajectory:
    """Compute a trajectory as a pure function that JAX can differentiate.

    The trajectory is that of `simulate` with the same start and ensemble.  It has derivatives by
    parameters, positions, velocities, masses, and numbers of the ensemble.

    Args:
        potential: a potential of N atoms; numbers have the type of its parameters.
        start: positions (N, 3) Å, or (R, N, 3) Å of R independent replicas (None: the geometry of
            the potential); velocities in the same shape, Å/fs; and the seed of the noise.
        ensemble: `NVE` or `Langevin`.
        plan: number of steps, recorded frames and method.
        masses: (N,) amu, or a `System`, which adds its box, constraints and virtual sites (None:
            the masses of the potential's molecule).  In a box, frames are NaN after atoms have
            moved so far (about 1.5 Å) that the neighbour list of the start may lack pairs.

    Raises:
        InputError: an array is missing or has a wrong shape, a number is out of range, or JAX
            cannot differentiate the ensemble or, by the method "reversible", constraints.
    """
    return rollout_and_miss(potential, start, ensemble, plan, masses, 0.0)


def rollout_and_miss(
    potential: Potential, start: Start, ensemble: Ensemble, plan: Plan, masses, miss
) -> Trajectory:
    """Compute the trajectory of `rollout`, with an argument `miss` that must be zero.

    With the method "reversible", the derivative by `miss` is the largest error of the backward
    motion at a frame, Å.  A backward pass can return this number only as a derivative.
    """
    if not ensemble.reversible:
        names = ", ".join(name for name, kind in ENSEMBLES.items() if kind.reversible)
        raise InputError(
            f"the ensemble {ensemble.name!r} cannot be differentiated: use one of {names}"
        )
    dtype = potential.dtype
    R, v, m = checked_arrays(potential, start, masses, dtype)
    around = _around(potential, R, masses, plan)
    if around.rigid is not None:
        R, v = _constrained(around.rigid, R, v, m)
    replicas = len(R) if R.ndim == 3 else None
    bath = ensemble.bath(plan.steps, dtype, replicas)
    seed, dt = jnp.asarray(start.seed), jnp.asarray(ensemble.dt, dtype)
    m = scaled_masses(m, dt)[:, None]
    if replicas is None:
        key = jax.random.key(seed)
    else:
        key = jax.vmap(jax.random.key)(seed + jnp.arange(replicas))
        m = jnp.broadcast_to(m, (replicas, *m.shape))
    setup = Setup(potential.program, type(ensemble), plan)
    # Compiled separately, once for all plans.
    forward = plan.method == "forward"
    first = _first_forces(potential.program, forward, potential.params, R, around)
    inputs = Inputs(R, m * v * dt, first, m, bath, key)
    R, p = _run(setup, potential.params, inputs, jnp.asarray(miss, dtype), around)
    if replicas is not None:
        R, p, m = jnp.moveaxis(R, 0, 1), jnp.moveaxis(p, 0, 1), m[:, None]
    return Trajectory(R, p / m / dt)


def _around(potential: Potential, R: Array, system: Any, plan: Plan) -> Around:
    """Box, neighbour list and constraints of a system at its start R ([R,] N, 3) Å.

    Raises:
        InputError: the method cannot differentiate constraints, or the positions are traced or
            those of replicas, but the potential needs a neighbour list.
    """
    rigid, box = Rigid.of(system), getattr(system, "box", None)
    if rigid is not None and plan.method == "reversible":
        raise InputError(
            'the method "reversible" cannot integrate constraints and virtual sites backwards: use '
            'the method "checkpoint" or "forward"'
        )
    if box is None:
        return Around(rigid=rigid)
    box, neighbor = jnp.asarray(box, R.dtype), None
    if potential.program.needs_list:
        # The pairs of all replicas and of traced positions are those near the system's positions.
        where = system.positions if R.ndim == 3 or isinstance(R, Tracer) else R
        neighbor = potential.neighbors(where, box, skin=SKIN)
    return Around(box, neighbor, rigid)


def _constrained(rigid: Rigid, R: Array, v: Array, masses: Array) -> tuple[Array, Array]:
    """Positions and velocities ([R,] N, 3) of virtual sites and along constraints corrected."""
    m = masses[:, None]

    def one(R, v):
        R = rigid.placed(R)
        return R, rigid.projected(R, m * v, m) / m

    return jax.vmap(one)(R, v) if R.ndim == 3 else one(R, v)


@partial(jax.jit, static_argnums=(0, 1))
def _first_forces(program: Program, forward: bool, params: Params, R, around: Around):
    def one(R):
        return (forces if forward else pulled_forces)(program, params, R, around)

    return jax.vmap(one)(R) if R.ndim == 3 else one(R)


@partial(jax.jit, static_argnums=0)
def _run(setup: Setup, params: Params, inputs: Inputs, miss, around: Around):
    """Positions and momenta (F, ..., N, 3) of F frames, compiled."""
    ready = setup.program.jit_ready(params)
    if setup.plan.method == "reversible":
        return reversible.run(setup, ready, inputs, miss, around)
    return loop(setup, ready, inputs, around, setup.plan.method == "checkpoint")


def checked_arrays(potential: Potential, start: Start, masses, dtype):
    """Checked positions Å and velocities Å/fs, ([R,] N, 3), and masses (N,) amu.

    `masses` may be a system; see `rollout`.

    Raises:
        InputError: arrays are missing, or their shapes differ.
    """
    positions, molecule = start.positions, potential.molecule
    if hasattr(masses, "positions"):  # a system
        molecule, masses = masses, dynamic_masses(masses)
    if molecule is not None:
        masses = molecule.masses if masses is None else masses
        positions = molecule.positions if positions is None else positions
    if masses is None:
        raise InputError("the potential has no molecule: give masses (N,) in amu")
    if positions is None or start.velocities is None:
        raise InputError("positions or velocities are missing: give both in Start")
    R, v, m = (jnp.asarray(x, dtype) for x in (positions, start.velocities, masses))
    n = len(m)
    if start.replicas is not None:
        R, v = (jnp.tile(x, (start.replicas, 1, 1)) if x.ndim == 2 else x for x in (R, v))
    if m.ndim != 1 or R.ndim not in (2, 3) or R.shape[-2:] != (n, 3):
        raise InputError(f"positions must have shape ({n}, 3) or (R, {n}, 3) in Å, got {R.shape}")
    if potential.n_atoms not in (None, n) or potential.program.n_atoms_min > n:
        wanted = potential.n_atoms or potential.program.n_atoms_min
        raise InputError(f"masses must have shape ({wanted},) for this potential, got ({n},)")
    if v.shape != R.shape:
        raise InputError(f"velocities must have shape {R.shape} in Å/fs, got {v.shape}")
    return R, v, m
