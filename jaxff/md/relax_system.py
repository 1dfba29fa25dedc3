"""Minimisation of systems with a periodic box, constrained distances or virtual sites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.md.descent import HELD, Descent, Minimum
from jaxff.md.field import Field
from jaxff.md.lbfgs import State, advance, begin, is_active, largest
from jaxff.md.lists import built, outdated, renewed
from jaxff.md.rigid import Rigid, dynamic_masses
from jaxff.potential import Potential

Array = jax.Array

STEPS = 50  # steps in compiled code, after which the progress is reported


class Distances(NamedTuple):
    """Constrained distances and virtual sites; see `jaxff.md.lbfgs.Held`.

    Steps keep the distances as steps of dynamics with equal masses do.

    Attributes:
        rigid: constraints and virtual sites, or None.
    """

    rigid: Rigid | None

    def project(self, R: Array, vectors: Array) -> Array:
        """See `Held.project`."""
        if self.rigid is None:
            return vectors
        return self.rigid.projected(R, vectors, jnp.ones_like(R[:, :1]))

    def moved(self, R: Array, moves: Array) -> Array:
        """See `Held.moved`."""
        if self.rigid is None:
            return R + moves
        correction = self.rigid.correction(R, moves, jnp.ones_like(R[:, :1]))
        return self.rigid.placed(R + moves + correction)


def relax_system(
    potential: Potential,
    system: Any,
    positions: np.ndarray,
    descent: Descent,
    progress: Callable[[str, float], None] | None = None,
) -> Minimum:
    """Minimise geometries of a system, one after another, at constant box.

    The starting geometries are changed so that they have the constrained distances.  Neighbour
    lists are built again when they may lack pairs.

    Args:
        potential: the potential, in the atom order of the system.
        system: a system, or a molecule.
        positions: (M, N, 3) Å.
        descent: settings.
        progress: function called with a text and the finished fraction.

    Returns:
        `Minimum` with a leading axis M; its largest force is that after projection.

    Raises:
        InputError: the method is FIRE, the box is too small for the potential, or a distance
            deviates much from its constraint.
    """
    if descent.method != "lbfgs":
        raise InputError(
            f"the method {descent.method} needs a molecule without a box and constraints: use lbfgs"
        )
    rigid, dtype = Rigid.of(system), potential.dtype
    if rigid is not None:
        positions = rigid.starts(positions, dynamic_masses(system))
    box = None if system.box is None else jnp.asarray(system.box, dtype)
    ends = [_relax(potential, rigid, jnp.asarray(R, dtype), box, descent, progress)
            for R in positions]  # fmt: skip
    off = [0.0 if rigid is None else np.abs(rigid.deviations(end.R)).max(initial=0.0)
           for end in ends]  # fmt: skip
    energy = np.array([float(end.energy) for end in ends])
    force = np.array([float(largest(end.gradient)) for end in ends])
    return Minimum(
        np.stack([np.asarray(end.R) for end in ends]),
        energy,
        force,
        np.array([int(end.count) for end in ends]),
        np.isfinite(energy)
        & (force <= descent.tolerance)
        & (np.array(off) < HELD[jnp.dtype(dtype)]),
    )


def _relax(potential: Potential, rigid, R: Array, box, descent: Descent, progress) -> State:
    """The last state of the minimisation of one geometry R (N, 3) Å."""
    field = Field.of(potential, None if box is None else built(potential, R, box))
    state, tolerance = jax.jit(begin)(R), jnp.asarray(descent.tolerance, R.dtype)
    first = None
    while bool(is_active((tolerance, descent.max_steps), state)):
        if field.neighbor is not None and bool(outdated(field.neighbor, state.trial, box)):
            field = replace(field, neighbor=renewed(field.neighbor, state.trial, box))
        limits = tolerance, min(descent.max_steps, int(state.count) + STEPS)
        state = _run(field, rigid, box, state, limits)
        if progress is not None:
            force = float(largest(state.gradient))
            first = max(force, 2.0 * descent.tolerance) if first is None else first
            # The force decreases by about the same factor in each step.
            left = np.log(max(force / descent.tolerance, 1.0)) / np.log(first / descent.tolerance)
            progress(f"minimise (largest force {force:.3g} kcal/mol/Å)", max(1.0 - left, 0.0))
    return state


@jax.jit
def _run(field: Field, rigid, box, state: State, limits) -> State:
    """Take steps until the limits, or until the neighbour list may lack pairs."""

    def goes_on(state):
        return is_active(limits, state) & ~field.stale(state.trial, box)

    def step(state):
        return advance(Distances(rigid), state, *field.energy_and_forces(state.trial, box))

    return jax.lax.while_loop(goes_on, step, state)
