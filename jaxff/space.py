"""The periodic box and the neighbour list that a potential is evaluated with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError

Array = jax.Array


@partial(jax.tree_util.register_dataclass, data_fields=["box", "neighbor"], meta_fields=[])
@dataclass(frozen=True)
class Space:
    """The surroundings of the atoms; a JAX pytree.

    Attributes:
        box: (3, 3) Å, lattice vectors as rows, or None.
        neighbor: (2, P) integers, the atoms of each pair, each pair once, or None.  Entries that
            are not below the number of atoms pad the list; none is negative.
    """

    box: Array | None = None
    neighbor: Array | None = None

    @classmethod
    def of(cls, box, neighbor) -> Space:
        """The space of the arguments of an energy function.

        Args:
            box: (3, 3) Å, lattice vectors as rows, or None.
            neighbor: (2, P) integers, or a jax-md neighbour list in the format `OrderedSparse`, or
                None.  Negative entries, and those not below the number of atoms, are padding.

        Raises:
            InputError: an argument has another shape or type.
        """
        if box is not None:
            box = jnp.asarray(box)
            if box.shape != (3, 3):
                raise InputError(
                    f"box has shape {box.shape}; give the lattice vectors as the rows of a (3, 3) "
                    "array in Å"
                )
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
            # A negative index would select an atom from the end.
            neighbor = jnp.where(neighbor < 0, jnp.iinfo(neighbor.dtype).max, neighbor)
        return cls(box, neighbor)

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the arguments that are not None."""
        return tuple(name for name in ("box", "neighbor") if getattr(self, name) is not None)

    def on(self, atoms: np.ndarray, n_atoms: int) -> Space:
        """The space of a term that acts on some of the atoms.

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
        inside = (pairs < count).all(axis=0)
        return Space(self.box, jnp.where(inside, pairs, count))
