"""Integrators of jax-md, run in compiled chunks.

Time is counted in steps here: with masses m (TIME/dt)² the step is 1, which jax-md's velocity
Verlet, that casts the step to float32, holds exactly; and time step, temperature, friction and
lengths are arguments of the compiled chunk, so that changing them never compiles again.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxff import units
from jaxff.errors import InputError
from jaxff.potential import Params, Program

ENSEMBLES = ("langevin", "nve")
FRAMES_PER_CHUNK = 256


class Frame(NamedTuple):
    """What is recorded of a state; in a chunk each field has one more axis, of frames.

    Attributes:
        positions: (N, 3) Å.
        displacements: (N, 3) Å per step, the velocities.
        forces: (N, 3) kcal/mol/Å.
        potential, kinetic: () kcal/mol.
    """

    positions: jax.Array
    displacements: jax.Array
    forces: jax.Array
    potential: jax.Array
    kinetic: jax.Array

    @property
    def finite(self):
        """() bool: nothing in it is NaN or infinite."""
        return jnp.stack([jnp.isfinite(x).all() for x in self]).all()


def check_ensemble(ensemble: str) -> None:
    if ensemble not in ENSEMBLES:
        raise InputError(f"unknown ensemble {ensemble!r}: use one of {', '.join(ENSEMBLES)}")


def scaled_masses(masses, dt: float):
    """Masses in kcal/mol (step/Å)² of masses in amu, for a time step dt in fs."""
    return masses * (units.TIME / dt) ** 2


def initial_state(ensemble: str, positions, displacements, forces, masses, key):
    """jax-md's state of the ensemble.

    Args:
        positions, displacements, forces: (N, 3) as in `Frame`.
        masses: (N,) scaled.
        key: JAX random key.
    """
    from jax_md import simulate

    masses = masses[:, None]
    momenta = masses * displacements
    if ensemble == "nve":
        return simulate.NVEState(positions, momenta, forces, masses)
    return simulate.NVTLangevinState(positions, momenta, forces, masses, key)


def _integrator(ensemble: str, energy_fn, kT, friction):
    from jax_md import simulate, space

    _, shift = space.free()
    if ensemble == "nve":
        return simulate.nve(energy_fn, shift, dt=1.0)
    return simulate.nvt_langevin(energy_fn, shift, dt=1.0, kT=kT, gamma=friction)


@partial(jax.jit, static_argnames=("program", "ensemble"))
def run_chunk(
    program: Program,
    ensemble: str,
    params: Params,
    state,
    kT,
    friction,
    n_frames,
    record_every,
):
    """Run up to `n_frames` × `record_every` steps, stopping after the first frame not finite.

    Args:
        program, ensemble: static: they decide what is compiled.
        params: the potential's parameters.
        state: jax-md's state.
        kT: () kcal/mol.
        friction: () 1/step.
        n_frames: () at most FRAMES_PER_CHUNK.
        record_every: () steps; 0 records the state as it is.

    Returns:
        The state at the end; FRAMES_PER_CHUNK frames, of which the first `count` are recorded;
        `count`; whether the last of them is finite.
    """
    energy_fn = partial(program.energy, params)
    _, step = _integrator(ensemble, energy_fn, kT, friction)

    def observe(state) -> Frame:
        return Frame(
            state.position,
            state.velocity,
            state.force,
            energy_fn(state.position),
            0.5 * jnp.sum(state.momentum * state.velocity),
        )

    def advance(carry):
        state, frames, count, _ = carry
        state = jax.lax.fori_loop(0, record_every, lambda _, s: step(s), state)
        frame = observe(state)
        frames = jax.tree.map(lambda all, one: all.at[count].set(one), frames, frame)
        return state, frames, count + 1, frame.finite

    room = jax.tree.map(
        lambda x: jnp.zeros((FRAMES_PER_CHUNK, *x.shape), x.dtype), jax.eval_shape(observe, state)
    )
    return jax.lax.while_loop(
        lambda carry: (carry[2] < n_frames) & carry[3],
        advance,
        (state, room, jnp.zeros((), int), jnp.array(True)),
    )
