"""Trajectories that can be differentiated: with respect to parameters, start, and what drives them.

Three ways to the same gradient of T steps, which differ in what they keep and can do:

- "checkpoint": reverse mode that keeps the state at each recorded frame and at each segment between
  two of them, and computes a segment again when its gradient is due (Griewank and Walther, ACM
  Trans. Math. Softw. 26, 19 (2000)).  With segments of √T steps memory grows as √T.
- "reversible": reverse mode that keeps the frames alone and runs the motion backwards between them:
  velocity Verlet is its own inverse, and BAOAB has one where the noise is known, which is made
  again from its key.  Memory is independent of T.  The adjoint steps are those of Greener, Chem.
  Sci. 15, 4897 (2024).
- "forward": a plain loop, for `jax.jvp` and `jax.jacfwd` with few parameters; memory is independent
  of T.  In reverse mode, and for derivatives of derivatives, it keeps the work of every step.

A gradient through chaotic motion is exact and useless; `value_and_gradient` tells.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from jaxff import units
from jaxff.errors import InputError
from jaxff.md import ensembles
from jaxff.md.ensembles import Bath, Ensemble
from jaxff.md.start import dtype_of
from jaxff.potential import Array, Params, Potential, Program

METHODS = ("checkpoint", "reversible", "forward")
ENSEMBLES = ("nve", "langevin")
# The backward motion may miss a frame by so much, Å; a gradient from further away becomes NaN.
MISS = 1e-3


class Trajectory(NamedTuple):
    """F frames, the start first; of replicas each field has a leading axis R.

    Attributes:
        positions: (F, N, 3) Å.
        velocities: (F, N, 3) Å/fs.
    """

    positions: Array
    velocities: Array


class Plan(NamedTuple):
    """What decides which code is compiled: `frames` times `record_every` steps."""

    program: Program
    ensemble: Ensemble
    frames: int
    record_every: int
    segment: int

    @property
    def steps(self) -> int:
        return self.frames * self.record_every


def rollout(
    potential: Potential,
    positions,
    velocities,
    *,
    steps: int,
    record_every: int = 10,
    ensemble: str = "nve",
    dt=0.5,
    temperature=300.0,
    friction=1.0,
    seed=0,
    masses=None,
    method: str = "checkpoint",
    segment: int | None = None,
) -> Trajectory:
    """The trajectory from a start; a pure function for JAX to differentiate.

    It is that of `simulate` with the same start, step and seed.  Derivatives are with respect to
    the potential's parameters, positions, velocities, dt, temperature, friction and masses.

    Args:
        potential: of N atoms; it computes in the dtype of its parameters.
        positions: (N, 3) Å, or (R, N, 3) of R replicas, each on its own.
        velocities: likewise, Å/fs.
        steps: static, a multiple of `record_every`.
        record_every: steps between frames, static.
        ensemble: "nve", velocity Verlet, or "langevin", BAOAB; static.
        dt: () time step, fs.
        temperature: () or (R,) K, Langevin's.
        friction: () 1/ps, Langevin's.
        seed: () integer, of the noise; replica r has that of seed + r.
        masses: (N,) amu; those of the potential's molecule if None.
        method: "checkpoint", "reversible" or "forward", see the module; static.  All run alike and
            differ in their derivatives; only "forward" has those of forward mode (`jax.jvp`).
        segment: of "checkpoint", steps that a gradient keeps at once, static; it divides
            `record_every`.  None: its divisor nearest to its square root.

    Raises:
        InputError: arrays of other shapes, numbers out of range, unknown names.
    """
    return trajectory_and_miss(
        potential, positions, velocities, 0.0, steps=steps, record_every=record_every,
        ensemble=ensemble, dt=dt, temperature=temperature, friction=friction, seed=seed,
        masses=masses, method=method, segment=segment,
    )  # fmt: skip


def trajectory_and_miss(
    potential,
    positions,
    velocities,
    miss,
    *,
    steps,
    record_every=10,
    ensemble="nve",
    dt=0.5,
    temperature=300.0,
    friction=1.0,
    seed=0,
    masses=None,
    method="checkpoint",
    segment=None,
) -> Trajectory:
    """`rollout` with an argument `miss`, () zero, that has no effect.

    Its "gradient" with "reversible" is by how much, Å, the backward motion missed a frame: the
    one way out of a backward pass.
    """
    plan = Plan(
        potential.program,
        Ensemble(ensemble),
        *_counts(steps, record_every, segment, ensemble, method),
    )
    dtype = dtype_of(potential)
    R, v, m = _arrays(potential, positions, velocities, masses, dtype)
    _check_numbers(dt=dt, temperature=temperature, friction=friction)
    batch = R.shape[:-2]
    per_run = (temperature, 0.0, jnp.asarray(friction) * dt / 1000.0)
    kT, heating, rate = (jnp.broadcast_to(jnp.asarray(x, dtype), batch) for x in per_run)
    bath = Bath(units.BOLTZMANN * kT, heating, rate)
    seed = jnp.asarray(seed)
    key = jax.vmap(jax.random.key)(seed + jnp.arange(len(R))) if batch else jax.random.key(seed)
    dt = jnp.asarray(dt, dtype)
    m = jnp.broadcast_to(ensembles.scaled_masses(m, dt)[:, None], (*batch, len(m), 1))
    # Compiled on its own, once for all plans.
    forces = _first_forces(plan.program, method, potential.params, R)
    start = Start(R, m * v * dt, forces, m, bath, key)
    R, p = _run(plan, method, potential.params, start, jnp.asarray(miss, dtype))
    if batch:
        R, p, m = jnp.moveaxis(R, 0, 1), jnp.moveaxis(p, 0, 1), m[:, None]
    return Trajectory(R, p / m / dt)


class Start(NamedTuple):
    """Where a run starts and what drives it; of replicas each field has a leading axis.

    Attributes:
        positions: (N, 3) Å.
        momenta: (N, 3) in units of the scaled masses.
        forces: (N, 3) kcal/mol/Å there.
        masses: (N, 1) scaled.
        bath: see `ensembles.Bath`.
        key: of the noise.
    """

    positions: Array
    momenta: Array
    forces: Array
    masses: Array
    bath: Bath
    key: Array


@partial(jax.jit, static_argnums=(0, 1))
def _first_forces(program: Program, method: str, params: Params, R):
    forces = partial(_forces if method == "forward" else _pulled_forces, program, params)
    return jax.vmap(forces)(R) if R.ndim == 3 else forces(R)


@partial(jax.jit, static_argnums=(0, 1))
def _run(plan: Plan, method: str, params: Params, start: Start, miss):
    """Positions and momenta (F, ..., N, 3) of the frames."""
    ready = plan.program.jit_ready(params)
    if method == "reversible":
        return _reversible(plan, ready, start, miss)
    return _loop(plan, ready, start, method == "checkpoint")


def _loop(plan: Plan, params: Params, start: Start, checkpoint: bool):
    """Frame after frame; with `checkpoint` a gradient keeps the starts of segments alone."""
    forces = partial(_pulled_forces if checkpoint else _forces, plan.program, params)
    each = _each(start)

    def one_step(core, t):
        step = partial(_step, plan.ensemble, forces, t)
        return each(step)(core, start), None

    def one_segment(core, first):
        return jax.lax.scan(one_step, core, first + jnp.arange(plan.segment))[0], None

    if checkpoint:
        one_segment = jax.checkpoint(one_segment, prevent_cse=False)

    def one_frame(core, first):
        firsts = first + jnp.arange(0, plan.record_every, plan.segment)
        core, _ = jax.lax.scan(one_segment, core, firsts)
        return core, core[:2]

    core = start[:3]
    firsts = jnp.arange(0, plan.steps, plan.record_every)
    _, frames = jax.lax.scan(one_frame, core, firsts)
    return jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), core[:2], frames)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _reversible(plan: Plan, params: Params, start: Start, miss):
    return _loop(plan, params, start, checkpoint=False)


def _forwards(plan: Plan, params, start, miss):
    moving, fixed, params = _parted(params)
    start = _values(start)
    frames = _loop(plan, params, start, checkpoint=False)
    return frames, (moving, fixed, start, frames)


def _backwards(plan: Plan, kept, cotangents):
    """Cotangents of parameters, start and `miss`, by one way back through the steps.

    The half kicks that end a step and begin the next share one evaluation of the forces and one
    product with their derivatives.  Where a frame was recorded the motion goes on from there.
    """
    moving, fixed, start, (recorded_R, recorded_p) = kept
    bar_frames, each = [_dense(bar) for bar in cotangents], _each(start)

    def energy(params, R):
        return jnp.sum(each(partial(plan.program.energy, params))(R))

    def one_step(i, carry):
        """From just after step k back to just after step k − 1.

        `kicked` are the momenta after the kick at k, and `bar` are cotangents.
        """
        R, kicked, bar_R, bar_kicked, bars, miss = carry
        k = plan.steps - i
        frame, recorded = k // plan.record_every, k % plan.record_every == 0
        there, p = recorded_R[frame], recorded_p[frame]
        miss = jnp.where(recorded & (i > 0), jnp.maximum(miss, jnp.abs(R - there).max()), miss)
        R = jnp.where(recorded, there, R)
        bar_R = bar_R + jnp.where(recorded, bar_frames[0][frame], 0.0)
        bar_p = bar_kicked + jnp.where(recorded, bar_frames[1][frame], 0.0)

        bar_F = 0.5 * (bar_kicked + jnp.where(k > 0, bar_p, 0.0))
        F, bar_moving, more = _pull(energy, moving, fixed, R, bar_F)
        bar_R = bar_R + more
        flowed = jnp.where(recorded, p - 0.5 * F, kicked - F)

        def flow(R, kicked, masses, bath):
            moved = start._replace(masses=masses, bath=bath)
            return each(partial(_flow, plan.ensemble, k - 1))(R, kicked, moved)

        before = each(partial(_unflow, plan.ensemble, k - 1))(R, flowed, start)
        _, pull = jax.vjp(flow, *before, start.masses, start.bath)
        bar = pull(tuple(jnp.where(k > 0, x, 0.0) for x in (bar_R, bar_p)))
        bars = jax.tree.map(jnp.add, bars, (bar_moving, *bar[2:]))
        last = (R, flowed, bar_R, bar_p)
        here = (jnp.where(k > 0, x, y) for x, y in zip((*before, *bar[:2]), last, strict=True))
        return (*here, bars, miss)

    zeros = jax.tree.map(jnp.zeros_like, (moving, start.masses, start.bath))
    nothing = jnp.zeros_like(start.positions)
    carry = (nothing, nothing, nothing, nothing, zeros, jnp.zeros((), nothing.dtype))
    *_, bar_R, bar_p, bars, miss = jax.lax.fori_loop(0, plan.steps + 1, one_step, carry)
    bad = jnp.where(miss <= MISS, 0.0, jnp.nan).astype(miss.dtype)
    bar_R, bar_p, bars = jax.tree.map(lambda x: x + bad.astype(x.dtype), (bar_R, bar_p, bars))
    bar_moving, bar_masses, bar_bath = bars
    # The first forces follow from positions and parameters, where they are counted.
    start_bar = Start(bar_R, bar_p, None, bar_masses, bar_bath, None)
    return bar_moving, start_bar, miss


_reversible.defvjp(_forwards, _backwards, symbolic_zeros=True)


def _forces(program: Program, params: Params, R):
    return -jax.grad(program.energy, argnums=1)(params, R)


# The same for reverse mode, which keeps nothing but R and costs less than that of `_forces`.
_pulled_forces = jax.custom_vjp(_forces, nondiff_argnums=(0,))


def _forces_forwards(program: Program, params, R):
    moving, fixed, params = _parted(params)
    return _forces(program, params, R.value), (moving, fixed, R.value)


def _forces_backwards(program: Program, kept, bar):
    moving, fixed, R = kept
    return _pull(program.energy, moving, fixed, R, _dense(bar))[1:]


_pulled_forces.defvjp(_forces_forwards, _forces_backwards, symbolic_zeros=True)


def _pull(energy, moving, fixed, R, bar):
    """Forces at R, and cotangents of `moving` parameters and R for a cotangent of the forces.

    Second derivatives are symmetric: the cotangents are minus the change, along `bar`, of the
    energy's gradient.
    """

    def slopes(R):
        def joined(moving, R):
            params = jax.tree.map(lambda m, f: f if m is None else m, moving, fixed, is_leaf=_none)
            return energy(params, R)

        return jax.grad(joined, argnums=(0, 1))(moving, R)

    (_, slope), changes = jax.jvp(slopes, (R,), (bar,))
    return -slope, *jax.tree.map(jnp.negative, changes)


def _parted(params):
    """Parameters whose gradient is asked for, the others, with None in their places, and all."""
    moving = jax.tree.map(lambda x: x.value if x.perturbed else None, params, is_leaf=_primal)
    fixed = jax.tree.map(lambda x: None if x.perturbed else x.value, params, is_leaf=_primal)
    return moving, fixed, _values(params)


def _values(tree):
    return jax.tree.map(lambda x: x.value, tree, is_leaf=_primal)


def _step(ensemble: Ensemble, forces, t, core, start: Start):
    """Positions, momenta and forces (N, 3) after step t."""
    state = ensembles.step(ensemble, forces, _state(ensemble, start, *core), start.bath, t)
    return state.position, state.momentum, state.force


def _flow(ensemble: Ensemble, t, R, p, start: Start):
    """Positions and momenta (N, 3) after step t of an ensemble without its kicks."""
    still = jnp.zeros_like(R)
    return _step(ensemble, lambda R: still, t, (R, p, still), start)[:2]


def _unflow(ensemble: Ensemble, t, R, p, start: Start):
    """The positions and momenta of which `_flow` makes (R, p).

    It scales the momenta, adds noise, and moves positions by half a step with the old and half a
    step with the new momenta.
    """
    still = jnp.zeros_like(R)
    _, noise = _flow(ensemble, t, still, still, start)
    scale = jnp.exp(start.bath.rate) if ensemble.name == "langevin" else 1.0
    before = (p - noise) * scale
    return R - 0.5 * (before + p) / start.masses, before


def _state(ensemble: Ensemble, start: Start, R, p, F):
    masses = start.masses[:, 0]
    state = ensembles.initial_state(
        ensemble, R, jnp.zeros_like(R), F, masses, start.key, start.bath
    )
    return state.set(momentum=p)


def _each(start: Start):
    """What makes a function of one molecule's arrays one of all replicas'."""
    return jax.vmap if start.positions.ndim == 3 else lambda function: function


def _primal(x) -> bool:
    return hasattr(x, "perturbed")


def _none(x) -> bool:
    return x is None


def _dense(x):
    return jnp.zeros(x.aval.shape, x.aval.dtype) if isinstance(x, SymbolicZero) else x


def _counts(steps, record_every, segment, ensemble, method) -> tuple[int, int, int]:
    """Frames, steps between them, and steps of a segment."""
    if ensemble not in ENSEMBLES:
        raise InputError(
            f"{ensemble!r} cannot be differentiated: use one of {', '.join(ENSEMBLES)}"
        )
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: use one of {', '.join(METHODS)}")
    for value, name in ((steps, "steps"), (record_every, "record_every"), (segment, "segment")):
        if value is not None and (value != int(value) or value < 1):
            raise InputError(f"{name} is {value}, it must be a positive integer")
    if segment is None:
        segment = divisor_near(record_every, math.sqrt(record_every))
    for large, small, large_name, small_name in (
        (steps, record_every, "steps", "record_every"),
        (record_every, segment, "record_every", "segment"),
    ):
        if large % small:
            raise InputError(f"{large_name} ({large}) must be a multiple of {small_name} ({small})")
    return int(steps // record_every), int(record_every), int(segment)


def divisor_near(number: int, wanted: float) -> int:
    """The divisor of a number whose ratio with another is nearest to one."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return min(divisors, key=lambda d: abs(math.log(d / wanted)))


def masses_of(potential: Potential, masses):
    """Masses (N,) amu as given, or those of the potential's molecule."""
    if masses is None and potential.molecule is None:
        raise InputError("the potential knows no molecule: give masses (N,) in amu")
    return potential.molecule.masses if masses is None else masses


def _arrays(potential: Potential, positions, velocities, masses, dtype):
    """Positions, velocities and masses of one shape and type, checked."""
    masses = masses_of(potential, masses)
    R, v, m = (jnp.asarray(x, dtype) for x in (positions, velocities, masses))
    n = len(m)
    if m.ndim != 1 or R.ndim not in (2, 3) or R.shape[-2:] != (n, 3):
        raise InputError(f"positions have shape {R.shape}, expected ({n}, 3) or (R, {n}, 3) in Å")
    if potential.n_atoms not in (None, n) or potential.program.n_atoms_min > n:
        wanted = potential.n_atoms or potential.program.n_atoms_min
        raise InputError(f"there are {n} masses, the potential needs {wanted}")
    if v.shape != R.shape:
        raise InputError(f"velocities have shape {v.shape}, expected {R.shape}, in Å/fs")
    return R, v, m


def _check_numbers(**numbers) -> None:
    """Numbers that are known already; others are being traced."""
    for name, value in numbers.items():
        if isinstance(value, jax.core.Tracer):
            continue
        value, least = np.asarray(value), 0.0 if name != "dt" else np.finfo(float).tiny
        if not (np.isfinite(value).all() and (value >= least).all()):
            need = "positive" if name == "dt" else "finite and not negative"
            raise InputError(f"{name} is {value}, it must be {need}")
