"""Neighbour lists in simulations: one list, or a stack with one list for each replica."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxff.potential import Params, Program

SKIN = 1.0  # Å


def reads(program: Program, params: Params) -> set[str]:
    """The arguments, "box" and "neighbor", on which the energy of a program depends."""
    return {name for p in program.placed for name in p.term.reads(params[p.name])}


def built(potential: Any, R, box) -> Any:
    """Neighbour list of a potential; None if no term uses one.

    Args:
        potential: the potential.
        R: (N, 3) or (R, N, 3) Å.
        box: (3, 3) or (R, 3, 3) Å.
    """
    if "neighbor" not in reads(potential.program, potential.params):
        return None
    if R.ndim == 2:
        return potential.neighbors(R, box, skin=SKIN)
    each = zip(R, box, strict=True)
    return _stacked([potential.neighbors(*one, skin=SKIN) for one in each])


def renewed(neighbor: Any, R, box, capacity: int = 0) -> Any:
    """The neighbour list at new positions and a new box, with room for at least all pairs.

    Args:
        neighbor: the list, whose capacity is the least one of the new list.
        R: (N, 3) or (R, N, 3) Å.
        box: (3, 3) or (R, 3, 3) Å.
        capacity: number of pairs for which there must be room.
    """

    def one(neighbor, R, box):
        return neighbor.grown(max(capacity, neighbor.capacity)).rebuilt(R, box)

    if R.ndim == 2:
        return one(neighbor, R, box)
    each = [jax.tree.map(lambda x, r=r: x[r], neighbor) for r in range(len(R))]
    return _stacked([one(each[r], R[r], box[r]) for r in range(len(R))])


def outdated(neighbor: Any, R, box):
    """Whether () the list may lack pairs at positions (N, 3) Å in a box (3, 3) Å."""
    return jnp.zeros((), bool) if neighbor is None else neighbor.stale(R, box)


def _stacked(lists: list) -> Any:
    capacity = max(one.capacity for one in lists)
    return jax.tree.map(lambda *x: jnp.stack(x), *[one.grown(capacity) for one in lists])
