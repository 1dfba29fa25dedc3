"""Trajectories that JAX can differentiate, by parameters, start and ensemble.

Three methods give the same gradient of T steps and differ in memory and cost:

- "checkpoint": reverse mode that keeps the state at each recorded frame and at the start of each
  segment between two frames, and computes a segment again when its gradient is needed (Griewank and
  Walther, ACM Trans. Math. Softw. 26, 19 (2000)).  With segments of √T steps memory grows as √T.
- "reversible": reverse mode that keeps the recorded frames only and integrates backwards between
  them, see `jaxff.md.differentiable.reversible`.  Memory is independent of T.
- "forward": a plain loop, for `jax.jvp` and `jax.jacfwd` with few parameters; memory is independent
  of T.  In reverse mode, and for derivatives of derivatives, it keeps the work of every step.

A gradient through chaotic motion is exact but useless; `value_and_gradient` detects it.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxff.errors import InputError
from jaxff.md.differentiable import reversible
from jaxff.md.differentiable.steps import Inputs, Plan, Setup, forces, loop, pulled_forces
from jaxff.md.ensembles import ENSEMBLES, NVE, Ensemble
from jaxff.md.integrators import scaled_masses
from jaxff.md.settings import Start
from jaxff.potential import Array, Params, Potential, Program


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

    It is the trajectory of `simulate` with the same start and ensemble.  It has derivatives by the
    potential's parameters, positions, velocities, masses and the numbers of the ensemble.

    Args:
        potential: of N atoms; it computes in the type of its parameters.
        start: positions (N, 3) Å, or (R, N, 3) of R independent replicas (None: the geometry of
            the potential's molecule), velocities in the same shape, Å/fs, and the seed of the
            noise, an integer; replica r has the noise of seed + r.
        ensemble: `NVE` or `Langevin`.
        plan: number of steps, frames and method.
        masses: (N,) amu; None: those of the potential's molecule.

    Raises:
        InputError: arrays of other shapes, numbers out of range, or another ensemble.
    """
    return rollout_and_miss(potential, start, ensemble, plan, masses, 0.0)


def rollout_and_miss(
    potential: Potential, start: Start, ensemble: Ensemble, plan: Plan, masses, miss
) -> Trajectory:
    """`rollout` with a further argument `miss`, the number zero, which changes nothing.

    With the method "reversible" its "gradient" is the distance, Å, by which the backward motion
    missed a frame: a backward pass has no other way to return it.
    """
    if not ensemble.reversible:
        names = ", ".join(name for name, kind in ENSEMBLES.items() if kind.reversible)
        raise InputError(f"{ensemble.name!r} cannot be differentiated: use one of {names}")
    dtype = potential.dtype
    R, v, m = checked_arrays(potential, start, masses, dtype)
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
    first = _first_forces(potential.program, plan.method == "forward", potential.params, R)
    inputs = Inputs(R, m * v * dt, first, m, bath, key)
    R, p = _run(setup, potential.params, inputs, jnp.asarray(miss, dtype))
    if replicas is not None:
        R, p, m = jnp.moveaxis(R, 0, 1), jnp.moveaxis(p, 0, 1), m[:, None]
    return Trajectory(R, p / m / dt)


@partial(jax.jit, static_argnums=(0, 1))
def _first_forces(program: Program, forward: bool, params: Params, R):
    one = partial(forces if forward else pulled_forces, program, params)
    return jax.vmap(one)(R) if R.ndim == 3 else one(R)


@partial(jax.jit, static_argnums=0)
def _run(setup: Setup, params: Params, inputs: Inputs, miss):
    """Positions and momenta (F, ..., N, 3) of the frames."""
    ready = setup.program.jit_ready(params)
    if setup.plan.method == "reversible":
        return reversible.run(setup, ready, inputs, miss)
    return loop(setup, ready, inputs, setup.plan.method == "checkpoint")


def checked_arrays(potential: Potential, start: Start, masses, dtype):
    """Checked positions Å, velocities Å/fs, ([R,] N, 3) each, and masses (N,) amu.

    Raises:
        InputError: arrays are missing, or their shapes differ.
    """
    positions, molecule = start.positions, potential.molecule
    if molecule is not None:
        masses = molecule.masses if masses is None else masses
        positions = molecule.positions if positions is None else positions
    if masses is None:
        raise InputError("the potential has no molecule: give masses (N,) in amu")
    if positions is None or start.velocities is None:
        raise InputError("rollout needs positions and velocities: give both in Start")
    R, v, m = (jnp.asarray(x, dtype) for x in (positions, start.velocities, masses))
    n = len(m)
    if start.replicas is not None:
        R, v = (jnp.tile(x, (start.replicas, 1, 1)) if x.ndim == 2 else x for x in (R, v))
    if m.ndim != 1 or R.ndim not in (2, 3) or R.shape[-2:] != (n, 3):
        raise InputError(f"positions have shape {R.shape}, expected ({n}, 3) or (R, {n}, 3) in Å")
    if potential.n_atoms not in (None, n) or potential.program.n_atoms_min > n:
        wanted = potential.n_atoms or potential.program.n_atoms_min
        raise InputError(f"there are {n} masses, but the potential needs {wanted}")
    if v.shape != R.shape:
        raise InputError(f"velocities have shape {v.shape}, expected {R.shape}, in Å/fs")
    return R, v, m
