"""Compiled blocks of a simulation in a periodic box.

A block ends at a recorded frame, or earlier if a neighbour list needs to be built again.  Both
happen outside compiled code.  A step whose forces or trial volumes may lack pairs is rejected and
repeated with a new list.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.cell import widths
from jaxff.errors import InputError
from jaxff.md.barostats import STEPS, Cell, energy_and_pressure
from jaxff.md.field import Field, Molecules
from jaxff.md.integrate import Frame
from jaxff.md.integrators import CORRECT_EVERY, Bath, Scheme, corrected
from jaxff.md.lists import outdated, renewed
from jaxff.md.rigid import Rigid


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
    scheme: Scheme, field: Field, medium: Medium, moving: Moving, bath: Bath,
    span: tuple[int, int, int],
):  # fmt: skip
    """Run steps, and build the neighbour list again when necessary.

    Args:
        scheme: choices that determine the compiled code.
        field: the energy of the system, with a neighbour list for the present state.
        medium: properties of the system.
        moving: the present state.
        bath: settings of thermostat and barostat.
        span: number of earlier steps, number of frames, and steps between frames.  With 0 steps the
            present state is recorded, and the steps are compiled.

    Returns:
        The last `moving`, the neighbour list, the number of times that it was built, and a `Frame`
        with the recorded frames.
    """
    t, count, every = span
    if every == 0:
        _run(scheme, field, medium, moving, bath, t, t)
    recorded, rebuilds, failures = [], 0, 0
    for frame in range(count):
        stop = span[0] + (frame + 1) * every
        while t < stop:
            before = t
            t, moving, renew, tried = _run(scheme, field, medium, moving, bath, t, stop)
            t = int(t)
            if renew:
                failures = failures + 1 if t == before else 0
                assert field.neighbor is not None
                _check_widths(field.neighbor, tried[1], t, failures)
                if failures > 1:
                    raise InputError(
                        f"at step {t} the atoms move farther in one step than neighbour lists "
                        "allow: use a smaller time step, a minimised geometry, or smaller changes "
                        "of the box"
                    )
                field = replace(field, neighbor=renewed(field.neighbor, *tried))
                rebuilds += 1
        recorded.append(_observed(field, medium, moving))
    frames = jax.tree.map(lambda *x: np.stack(x), *recorded)
    return moving, field.neighbor, rebuilds, frames


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


@jax.jit
def _observed(field: Field, medium: Medium, moving: Moving) -> Frame:
    """Return the recorded part of a state."""

    def one(moving, neighbor):
        state, box = moving.dynamics, moving.cell.box
        assert medium.molecules is not None
        energy, pressure = energy_and_pressure(
            replace(field, neighbor=neighbor), medium.molecules, state, box
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

    return (jax.vmap(one) if moving.dynamics.position.ndim == 3 else one)(moving, field.neighbor)


@partial(jax.jit, static_argnames="scheme")
def _run(scheme: Scheme, field: Field, medium: Medium, moving: Moving, bath: Bath, t, stop):
    """Run steps until a step number, or until the neighbour list needs to be built again.

    Args:
        t: () integer, number of earlier steps.
        stop: () integer, number of steps at the end.
        scheme, field, medium, moving, bath: see `advance`.

    Returns:
        Number of earlier steps, the last `moving`, whether to build a new list, and the positions
        and box for it.
    """

    def one_step(moving, t):
        def alone(moving, neighbor, bath):
            return _step(scheme, replace(field, neighbor=neighbor), medium, moving, bath, t)

        if moving.dynamics.position.ndim == 2:
            return alone(moving, field.neighbor, bath)
        new, stale = jax.vmap(alone)(moving, field.neighbor, bath)
        return new, stale.any()

    def watch(R, box):
        if R.ndim == 2:
            return field.stale(R, box)
        return jax.vmap(outdated)(field.neighbor, R, box).any()

    def step(carry):
        t, old, _, _ = carry
        new, stale = one_step(old, t)
        kept = jax.tree.map(lambda a, b: jnp.where(stale, a, b), old, new)
        R, box = new.dynamics.position, new.cell.box
        renew = stale
        if field.neighbor is not None:
            # The next step moves the atoms about as far: a new list now avoids a rejected step.
            renew |= watch(2.0 * R - old.dynamics.position, box)
        return t + jnp.where(stale, 0, 1), kept, renew, (R, box)

    tried = moving.dynamics.position, moving.cell.box
    return jax.lax.while_loop(
        lambda c: (c[0] < stop) & ~c[2], step, (t, moving, jnp.zeros((), bool), tried)
    )


def _step(scheme: Scheme, field: Field, medium: Medium, moving: Moving, bath: Bath, t):
    """Return `moving` after a step, and whether to reject the step; arguments as in `_run`."""
    state, cell = moving
    late = jnp.zeros((), bool)

    def force_fn(R):
        return field.forces(R, cell.box)

    state = scheme.ensemble.step(force_fn, state, bath, t, scheme, medium.rigid)
    late |= field.stale(state.position, cell.box)
    if scheme.corrects:
        due = (t + 1) % CORRECT_EVERY == 0
        state = jax.lax.cond(
            due, lambda s: corrected(scheme, medium.rigid, s, None)[0], lambda s: s, state
        )
    if scheme.coupling is not None:
        change = STEPS[scheme.coupling.kind]

        def coupled(state, cell):
            assert medium.molecules is not None
            return change(field, medium.molecules, state, cell, bath, t, scheme)

        state, cell, more = jax.lax.cond(
            (t + 1) % scheme.coupling.every == 0,
            coupled,
            lambda state, cell: (state, cell, jnp.zeros((), bool)),
            state,
            cell,
        )
        late |= more
    return Moving(state, cell), late
