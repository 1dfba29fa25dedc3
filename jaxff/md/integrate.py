"""Simulations in compiled chunks, of one molecule or of many replicas at once."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxff.md import ensembles
from jaxff.md.ensembles import TIDY_EVERY, Bath, Ensemble
from jaxff.potential import Params, Program

# A chunk's frames take at most about this much memory, bytes, and are at most so many.
CHUNK_BYTES = 3e7
CHUNK_FRAMES = 256


class Frame(NamedTuple):
    """What is recorded of a state; of replicas each field has a leading axis, and of the frames of
    a chunk one more before it.

    Attributes:
        positions: (N, 3) Å, from the origin.
        displacements: (N, 3) Å per step, the velocities.
        forces: (N, 3) kcal/mol/Å.
        potential, kinetic: () kcal/mol.
        origin: (3,) integers, see `jaxff.md.origin`.
    """

    positions: jax.Array
    displacements: jax.Array
    forces: jax.Array
    potential: jax.Array
    kinetic: jax.Array
    origin: jax.Array


def chunk_frames(state) -> int:
    """How many frames a chunk has room for."""
    return int(min(max(CHUNK_BYTES // (3 * state.position.nbytes), 1), CHUNK_FRAMES))


@partial(jax.jit, static_argnames=("program", "ensemble"))
def run_chunk(
    program: Program,
    ensemble: Ensemble,
    params: Params,
    state,
    origin,
    bath: Bath,
    t,
    n_frames,
    record_every,
):
    """Run `n_frames` × `record_every` steps.

    Args:
        program, ensemble: static: they decide what is compiled.
        params: the potential's parameters.
        state: jax-md's state; with positions (R, N, 3), those of R replicas, and so is `bath`.
        origin: (3,) or (R, 3) integers, where its positions count from.
        bath: see `Bath`.
        t: () integer, steps done before.
        n_frames: () at most `chunk_frames(state)`.
        record_every: () steps; 0 records the state as it is.

    Returns:
        State and origin at the end; room for `chunk_frames(state)` frames, of which the first
        `n_frames` are filled.
    """

    def force_fn(R):
        return -jax.grad(program.energy, argnums=1)(params, R)

    def observe(state, origin) -> Frame:
        return Frame(
            state.position,
            state.velocity,
            state.force,
            program.energy(params, state.position),
            0.5 * jnp.sum(state.momentum * state.velocity),
            origin,
        )

    advance, tidy = partial(ensembles.step, ensemble, force_fn), partial(ensembles.tidied, ensemble)
    if state.position.ndim == 3:
        observe, tidy = jax.vmap(observe), jax.vmap(tidy)
        advance = jax.vmap(advance, in_axes=(0, 0, None))

    def steps(first, last, state):
        return jax.lax.fori_loop(first, last, lambda t, state: advance(state, bath, t), state)

    def to_next_tidying(last, now):
        t, state, origin = now
        stop = t + jnp.minimum(last - t, TIDY_EVERY - t % TIDY_EVERY)
        state = steps(t, stop, state)
        due = stop % TIDY_EVERY == 0
        return stop, *jax.lax.cond(due, tidy, lambda *same: same, state, origin)

    def one_frame(f, carry):
        (state, origin), frames = carry
        first = t + f * record_every
        last = first + record_every
        if ensemble.tidy:
            _, state, origin = jax.lax.while_loop(
                lambda now: now[0] < last, partial(to_next_tidying, last), (first, state, origin)
            )
        else:
            state = steps(first, last, state)
        seen = observe(state, origin)
        frames = jax.tree.map(lambda all, one: all.at[f].set(one), frames, seen)
        return (state, origin), frames

    room = jax.tree.map(
        lambda x: jnp.zeros((chunk_frames(state), *x.shape), x.dtype),
        jax.eval_shape(observe, state, origin),
    )
    return jax.lax.fori_loop(0, n_frames, one_frame, ((state, origin), room))
