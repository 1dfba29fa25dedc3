"""The periodic box and the neighbour list of an evaluation of a potential."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.neighbors import NeighborList

Array = jax.Array


@partial(jax.tree_util.register_dataclass, data_fields=["box", "neighbor"], meta_fields=["row"])
@dataclass(frozen=True)
class Space:
    """Box and neighbour list; a JAX pytree.

    Attributes:
        box: (3, 3) Å, lattice vectors as rows, or None.
        neighbor: (2, P) atom indices of each pair, each pair once, or None.  Pairs with an index
            from the number of atoms upwards are padding.
        row: number of consecutive pairs that have the same first atom; it divides P.
    """

    box: Array | None = None
    neighbor: Array | None = None
    row: int = 1

    @classmethod
    def of(cls, box, neighbor) -> Space:
        """Check a box and a neighbour list and make a `Space`.

        Args:
            box: (3, 3) Å, lattice vectors as rows, or None.
            neighbor: a `NeighborList`, (2, P) atom indices, a jax-md neighbour list in the format
                `OrderedSparse`, or None.  Negative indices, and indices from the number of atoms
                upwards, are padding.

        Raises:
            InputError: an argument has a wrong shape or type.
        """
        if box is not None:
            box = jnp.asarray(box)
            if box.shape != (3, 3):
                raise InputError(
                    f"box has shape {box.shape}; give the lattice vectors as the rows of a (3, 3) "
                    "array in Å"
                )
        if isinstance(neighbor, NeighborList):
            return cls(box, neighbor.pairs, neighbor.row)
        if neighbor is not None:
            neighbor = jnp.asarray(getattr(neighbor, "idx", neighbor))
            if jnp.issubdtype(neighbor.dtype, jnp.integer):
                neighbor = neighbor.astype(jnp.int32)
            pairs = neighbor.ndim == 2 and neighbor.shape[0] == 2
            if not pairs or not jnp.issubdtype(neighbor.dtype, jnp.integer):
                raise InputError(
                    f"neighbor has shape {neighbor.shape} and type {neighbor.dtype}; give a (2, P) "
                    "array of atom indices that contains each pair once"
                )
            # In JAX a negative index selects an element from the end.
            neighbor = jnp.where(neighbor < 0, jnp.iinfo(neighbor.dtype).max, neighbor)
        return cls(box, neighbor)

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the arguments that are not None."""
        return tuple(name for name in ("box", "neighbor") if getattr(self, name) is not None)

    def on(self, atoms: np.ndarray, n_atoms: int) -> Space:
        """The space of a term that acts on some atoms of a system.

        Args:
            atoms: (n,) indices of the term's atoms in the system.
            n_atoms: number of atoms of the system.
        """
        if self.neighbor is None:
            return self
        count = len(atoms)
        place = jnp.full(n_atoms + 1, count, self.neighbor.dtype)
        place = place.at[jnp.asarray(atoms)].set(jnp.arange(count, dtype=self.neighbor.dtype))
        pairs = place[jnp.minimum(self.neighbor, n_atoms)]
        # The first atoms of a row remain equal.
        second = jnp.where((pairs < count).all(axis=0), pairs[1], count)
        return Space(self.box, jnp.stack([pairs[0], second]), self.row)


def arrays(box, neighbor) -> tuple:
    """Box and neighbour list as JAX arrays; None remains None."""
    if not isinstance(neighbor, NeighborList):
        neighbor = getattr(neighbor, "idx", neighbor)  # of a jax-md neighbour list
        neighbor = None if neighbor is None else jnp.asarray(neighbor)
    return None if box is None else jnp.asarray(box), neighbor
