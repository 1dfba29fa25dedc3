"""Compiled chunks of a simulation of one molecule or of many replicas."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxff.groups import StackGroup
from jaxff.md.integrators import CORRECT_EVERY, Bath, Scheme, corrected
from jaxff.md.rigid import Rigid
from jaxff.potential import Params, Program

# Largest memory of the frames of a chunk, bytes, and largest number of frames.
CHUNK_BYTES = 3e7
CHUNK_FRAMES = 256


class Frame(NamedTuple):
    """The recorded part of a state.

    With R replicas each field has a leading axis R.  For F frames an axis F precedes all others.

    Attributes:
        positions: (N, 3) Å, relative to the origin.
        displacements: (N, 3) Å per step, the velocities.
        forces: (N, 3) kcal/mol/Å.
        potential, kinetic: () energies, kcal/mol.
        origin: (3,) integers, see `jaxff.md.origin`.
        box: (3, 3) Å, lattice vectors as rows, or None.
        pressure: () kcal/mol/Å³, see `jaxff.md.barostats`; None without a box.
    """

    positions: Any
    displacements: Any
    forces: Any
    potential: Any
    kinetic: Any
    origin: Any
    box: Any = None
    pressure: Any = None


def part(frames: Frame, index) -> Frame:
    """The arrays of some frames, selected along the first axis by an index."""
    return jax.tree.map(lambda x: x[index], frames)


def chunk_frames(state) -> int:
    """Largest number of frames in a chunk of the simulation of a state."""
    return int(min(max(CHUNK_BYTES // (3 * state.position.nbytes), 1), CHUNK_FRAMES))


@partial(jax.jit, static_argnames=("program", "scheme"))
def run_chunk(
    program: Program | StackGroup,
    scheme: Scheme,
    params: Params,
    moving,
    bath: Bath,
    span,
    rigid: Rigid | None = None,
):
    """Run the steps of some frames.

    Args:
        program: energy function (static): a `Program`, or a group of a `Stack`.  Parameters of a
            group have a leading axis of molecules.
        scheme: choices that determine the compiled code (static).
        params: parameters of the energy.
        moving: the state of jax-md, with positions (N, 3) or (R, N, 3) of R replicas, and their
            origin, (3,) or (R, 3) integers, see `jaxff.md.origin`.
        bath: settings of the thermostat; with replicas each field has a leading axis.
        span: number of earlier steps, number of frames, at most `chunk_frames(state)`, and steps
            between frames, each () integer.  With 0 steps the initial state is recorded.
        rigid: constraints and virtual sites, or None.

    Returns:
        The last `moving`, and a `Frame` with room for `chunk_frames(state)` frames, of which the
        first ones are filled.
    """
    (state, origin), (t, n_frames, every) = moving, span

    def observe(params, state, origin) -> Frame:
        return Frame(
            state.position,
            state.velocity,
            state.force,
            program.energy(params, state.position),
            0.5 * jnp.sum(state.momentum * state.velocity),
            origin,
        )

    def advance_one(params, state, bath, t):
        def force_fn(R):
            return -jax.grad(program.energy, argnums=1)(params, R)

        return scheme.ensemble.step(force_fn, state, bath, t, scheme, rigid)

    advance, correct = advance_one, partial(corrected, scheme, rigid)
    if state.position.ndim == 3:
        axis = program.params_axis
        observe, correct = jax.vmap(observe, in_axes=(axis, 0, 0)), jax.vmap(correct)
        advance = jax.vmap(advance_one, in_axes=(axis, 0, 0, None))
        at_once = program.replicas_at_once(params)
        if at_once < len(state.position):  # a bounded number of replicas at a time

            def advance_in_parts(params, state, bath, t):
                def replica(state_and_bath):
                    state, bath = state_and_bath
                    return advance_one(params, state, bath, t)

                return jax.lax.map(replica, (state, bath), batch_size=at_once)

            advance = advance_in_parts

    def steps(first, last, state):
        def step(t, state):
            return advance(params, state, bath, t)

        return jax.lax.fori_loop(first, last, step, state)

    def to_next_correction(last, now):
        t, state, origin = now
        stop = t + jnp.minimum(last - t, CORRECT_EVERY - t % CORRECT_EVERY)
        state = steps(t, stop, state)
        due = stop % CORRECT_EVERY == 0
        return stop, *jax.lax.cond(due, correct, lambda *same: same, state, origin)

    def one_frame(f, carry):
        (state, origin), frames = carry
        first = t + f * every
        last = first + every
        if scheme.corrects:
            _, state, origin = jax.lax.while_loop(
                lambda now: now[0] < last, partial(to_next_correction, last), (first, state, origin)
            )
        else:
            state = steps(first, last, state)
        frame = observe(params, state, origin)
        frames = jax.tree.map(lambda all, one: all.at[f].set(one), frames, frame)
        return (state, origin), frames

    room = jax.tree.map(
        lambda x: jnp.zeros((chunk_frames(state), *x.shape), x.dtype),
        jax.eval_shape(observe, params, state, origin),
    )
    return jax.lax.fori_loop(0, n_frames, one_frame, ((state, origin), room))
