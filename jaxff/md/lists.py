"""Neighbour lists in simulations: one list, or a stack with one list for each replica."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxff.neighbors import NeighborList
from jaxff.potential import Potential

SKIN = 1.0  # Å


def built(potential: Potential, R, box) -> NeighborList | None:
    """Neighbour list of a potential; None if no term needs one.

    Args:
        potential: the potential.
        R: (N, 3) or (R, N, 3) Å.
        box: (3, 3) or (R, 3, 3) Å.
    """
    if not potential.program.needs_list:
        return None
    if R.ndim == 2:
        return potential.neighbors(R, box, skin=SKIN)
    each = zip(R, box, strict=True)
    return _stacked([potential.neighbors(*one, skin=SKIN) for one in each])


def renewed(neighbor: NeighborList, R, box, capacity: int = 0) -> NeighborList:
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


def outdated(neighbor: NeighborList | None, R, box):
    """Whether () the list may lack pairs at positions (N, 3) Å in a box (3, 3) Å."""
    return jnp.zeros((), bool) if neighbor is None else neighbor.stale(R, box)


def _stacked(lists: list[NeighborList]) -> NeighborList:
    capacity = max(one.capacity for one in lists)
    return jax.tree.map(lambda *x: jnp.stack(x), *[one.grown(capacity) for one in lists])
