"""Compiled blocks of a simulation in a periodic box.

A block ends early if a neighbour list needs to be built again, which happens outside compiled code.
A step whose forces or trial volumes may lack pairs is rejected and repeated with a new list.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxff.cell import widths
from jaxff.errors import InputError
from jaxff.md.barostats import STEPS, Cell, Molecules, energy_and_pressure
from jaxff.md.integrate import Frame, chunk_frames
from jaxff.md.integrators import CORRECT_EVERY, Bath, Scheme, corrected
from jaxff.md.lists import outdated, reads, renewed
from jaxff.md.rigid import Rigid
from jaxff.potential import Params, Program


class Medium(NamedTuple):
    """Properties of a system that do not change in a simulation.

    Attributes:
        rigid: constraints and virtual sites, or None.
        molecules: the molecules.
    """

    rigid: Rigid | None
    molecules: Molecules | None

    @classmethod
    def of(cls, system: Any) -> Medium:
        """The properties of a molecule, or of a system."""
        boxed = getattr(system, "box", None) is not None
        return cls(Rigid.of(system), Molecules.of(system) if boxed else None)


class Moving(NamedTuple):
    """The part of a simulation in a box that changes; replicas add a leading axis.

    Attributes:
        dynamics: state of jax-md.
        cell: the box.
    """

    dynamics: Any
    cell: Cell


def advance(
    program: Program, scheme: Scheme, params: Params, medium: Medium, moving: Moving, neighbor,
    bath: Bath, span: tuple[int, int, int],
):  # fmt: skip
    """Run steps, and build the neighbour list again when necessary.

    Args:
        program: energy function.
        scheme: choices that determine the compiled code.
        params: parameters of the energy.
        medium: properties of the system.
        moving: the present state.
        neighbor: neighbour list, or None.
        bath: settings of thermostat and barostat.
        span: number of earlier steps, number of frames, and steps between frames.  With 0 steps the
            present state is recorded, and the block is compiled.

    Returns:
        The last `moving`, the neighbour list, the number of times that it was built, and a `Frame`
        with room for more frames than those recorded.
    """
    first, count, every = span
    room = chunk_frames(moving.dynamics)
    # The compiled function is traced only once.
    shapes = jax.eval_shape(partial(_observed, program), params, medium, moving, neighbor)
    frames = jax.tree.map(lambda x: jnp.zeros((room, *x.shape), x.dtype), shapes)
    if every == 0:
        frame = _observed(program, params, medium, moving, neighbor)
        # No steps: this compiles the block.
        here = first, (first, first, 1)
        _run(program, scheme, params, medium, moving, neighbor, bath, *here, frames)
        return moving, neighbor, 0, jax.tree.map(lambda x: x[None], frame)
    t, last, rebuilds, failures = first, first + count * every, 0, 0
    while t < last:
        before = t
        t, moving, frames, renew, tried = _run(
            program, scheme, params, medium, moving, neighbor, bath, t, (first, last, every), frames
        )
        t = int(t)
        if renew:
            failures = failures + 1 if t == before else 0
            assert neighbor is not None
            _check_widths(neighbor, tried[1], t, failures)
            if failures > 1:
                raise InputError(
                    f"at step {t} the atoms move farther in one step than neighbour lists allow: "
                    "use a smaller time step, a minimised geometry, or smaller changes of the box"
                )
            neighbor = renewed(neighbor, *tried)
            rebuilds += 1
    return moving, neighbor, rebuilds, frames


def _check_widths(neighbor, boxes, t: int, failures: int) -> None:
    """Check that boxes (3, 3) or (R, 3, 3) Å are wide enough for a neighbour list.

    Raises:
        InputError: a box is too narrow for the cutoff, or nearly so if steps were rejected, because
            the trial boxes of a barostat are narrower.
    """
    width = float(widths(boxes).min())
    least = 2.0 * neighbor.cutoff
    if width < least * (1.1 if failures > 1 else 1.0):
        raise InputError(
            f"at step {t} the box is only {width:.2f} Å wide, but the cutoff of "
            f"{neighbor.cutoff:g} Å needs at least {least:g} Å: use a larger box, a smaller "
            "cutoff, or constant volume"
        )


def observe(
    program: Program, params: Params, medium: Medium, moving: Moving, neighbor
) -> Frame:  # fmt: skip
    """Return the recorded part of a state."""

    def one(moving, neighbor):
        state, box = moving.dynamics, moving.cell.box
        assert medium.molecules is not None
        energy, pressure = energy_and_pressure(
            energy_in_box(program, params, neighbor), medium.molecules, state, box
        )
        return Frame(
            state.position,
            state.velocity,
            state.force,
            energy,
            0.5 * jnp.sum(state.momentum * state.velocity),
            jnp.zeros(3, jnp.int32),
            box,
            pressure,
        )

    return (jax.vmap(one) if moving.dynamics.position.ndim == 3 else one)(moving, neighbor)


_observed = jax.jit(observe, static_argnames="program")


def energy_in_box(program: Program, params: Params, neighbor):
    """Energy () kcal/mol as a function of positions (N, 3) Å and box (3, 3) Å."""
    used = reads(program, params)

    def energy(R, box):
        return program.energy(params, R, box if "box" in used else None, neighbor)

    return energy


@partial(jax.jit, static_argnames="program")
def forces_in_box(program: Program, params: Params, R, box, neighbor):
    """Forces with the shape of R, (N, 3) or (R, N, 3) Å, kcal/mol/Å."""

    def one(R, box, neighbor):
        return -jax.grad(energy_in_box(program, params, neighbor))(R, box)

    return (jax.vmap(one) if R.ndim == 3 else one)(R, box, neighbor)


@partial(jax.jit, static_argnames=("program", "scheme"), donate_argnames="frames")
def _run(
    program: Program, scheme: Scheme, params: Params, medium: Medium, moving: Moving, neighbor,
    bath: Bath, t, span, frames,
):  # fmt: skip
    """Run steps until the last one, or until the neighbour list needs to be built again.

    Args:
        t: () integer, number of earlier steps.
        span: first step, last step, and steps between frames, for the places in `frames`.
        frames: `Frame` with the frames so far.
        program, scheme, params, medium, moving, neighbor, bath: see `advance`.

    Returns:
        Number of earlier steps, the last `moving`, the frames, whether to build a new list, and the
        positions and box for it.
    """
    first, last, every = span

    def one_step(moving, neighbor, bath, t):
        def alone(moving, neighbor, bath):
            return _step(program, scheme, params, medium, moving, neighbor, bath, t)

        if moving.dynamics.position.ndim == 2:
            return alone(moving, neighbor, bath)
        new, stale = jax.vmap(alone)(moving, neighbor, bath)
        return new, stale.any()

    def watch(R, box):
        if R.ndim == 2:
            return outdated(neighbor, R, box)
        return jax.vmap(outdated)(neighbor, R, box).any()

    def step(carry):
        t, old, _, _ = carry
        new, stale = one_step(old, neighbor, bath, t)
        kept = jax.tree.map(lambda a, b: jnp.where(stale, a, b), old, new)
        R, box = new.dynamics.position, new.cell.box
        renew = stale
        if neighbor is not None:
            # The next step moves the atoms about as far: a new list now avoids a rejected step.
            renew |= watch(2.0 * R - old.dynamics.position, box)
        return t + jnp.where(stale, 0, 1), kept, renew, (R, box)

    def one_frame(carry):
        t, moving, renew, tried, frames = carry
        f = (t - first) // every
        stop = first + (f + 1) * every
        t, moving, renew, tried = jax.lax.while_loop(
            lambda c: (c[0] < stop) & ~c[2], step, (t, moving, renew, tried)
        )

        def recorded(frames):
            frame = observe(program, params, medium, moving, neighbor)
            return jax.tree.map(lambda all, one: all.at[f].set(one), frames, frame)

        frames = jax.lax.cond(t == stop, recorded, lambda same: same, frames)
        return t, moving, renew, tried, frames

    tried = moving.dynamics.position, moving.cell.box
    t, moving, renew, tried, frames = jax.lax.while_loop(
        lambda c: (c[0] < last) & ~c[2], one_frame, (t, moving, jnp.zeros((), bool), tried, frames)
    )
    return t, moving, frames, renew, tried


def _step(
    program: Program, scheme: Scheme, params: Params, medium: Medium, moving: Moving, neighbor,
    bath: Bath, t,
):  # fmt: skip
    """Return `moving` after a step, and whether to reject the step; arguments as in `_run`."""
    state, cell = moving
    energy, stale = energy_in_box(program, params, neighbor), partial(outdated, neighbor)
    late = jnp.zeros((), bool)

    def force_fn(R):
        return -jax.grad(energy)(R, cell.box)

    state = scheme.ensemble.step(force_fn, state, bath, t, scheme, medium.rigid)
    late |= stale(state.position, cell.box)
    if scheme.corrects:
        due = (t + 1) % CORRECT_EVERY == 0
        state = jax.lax.cond(
            due, lambda s: corrected(scheme, medium.rigid, s, None)[0], lambda s: s, state
        )
    if scheme.coupling is not None:
        change = STEPS[scheme.coupling.kind]

        def coupled(state, cell):
            return change(energy, stale, state, cell, bath, t, scheme, medium.molecules)

        state, cell, more = jax.lax.cond(
            (t + 1) % scheme.coupling.every == 0,
            coupled,
            lambda state, cell: (state, cell, jnp.zeros((), bool)),
            state,
            cell,
        )
        late |= more
    return Moving(state, cell), late
