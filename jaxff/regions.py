"""Regions: molecules of a box that are treated as one cluster, as if in vacuum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxff import geometry
from jaxff.errors import InputError

Array = jax.Array


@partial(jax.tree_util.register_dataclass, data_fields=["rows"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Region:
    """Several molecules that are kept together in a periodic box; a JAX pytree.

    Attributes:
        rows: (n, 3) for each atom of the region its index, the first atom of its molecule, and the
            first atom of the largest molecule of the region.
    """

    rows: np.ndarray

    @classmethod
    def of(cls, atoms: np.ndarray, links: np.ndarray) -> Region | None:
        """The region of some atoms; None if they belong to one molecule.

        Args:
            atoms: (n,) indices.
            links: (L, 2) pairs of these atoms that belong to the same molecule.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        atoms = np.unique(atoms)
        i, j = np.searchsorted(atoms, links.reshape(-1, 2)).T
        graph = coo_array((np.ones(len(i), bool), (i, j)), shape=(len(atoms),) * 2)
        count, labels = connected_components(graph, directed=False)
        if count < 2:
            return None
        _, first, sizes = np.unique(labels, return_index=True, return_counts=True)
        # The largest molecule; of several, the one with the first atom.
        reference = atoms[min(first[sizes == sizes.max()])]
        rows = [atoms, atoms[first[labels]], np.full(len(atoms), reference)]
        return cls(np.stack(rows, axis=1).astype(np.int32))

    def together(self, R: Array, box: Array) -> Array:
        """Positions (N, 3) Å with the molecules of the region as one cluster.

        Each molecule is moved to the image whose centre is nearest to the centre of the largest
        molecule.  This is exact up to half of the smallest width of the box.

        Args:
            R: (N, 3) Å, positions of whole molecules.
            box: (3, 3) Å, lattice vectors as rows.
        """
        atoms, molecules, reference = jnp.asarray(self.rows).T
        still = jax.lax.stop_gradient(R)
        sums = jnp.zeros_like(R).at[molecules].add(still[atoms])
        counts = jnp.zeros(len(R), R.dtype).at[molecules].add(1.0)
        centres = sums / jnp.maximum(counts, 1.0)[:, None]
        away = centres[molecules] - centres[reference]
        box = box.astype(R.dtype)
        turns = jnp.round(away @ geometry.inverse(jax.lax.stop_gradient(box)))
        return R.at[atoms].add(-turns @ box)

    def on(self, atoms: np.ndarray) -> Region:
        """The region of a system in which atom i has the index ``atoms[i]``."""
        return Region(np.asarray(atoms, np.int32)[self.rows])


def joined(first: Sequence[Region], second: Sequence[Region]) -> tuple[Region, ...]:
    """The regions of two potentials of the same system.

    Raises:
        InputError: two different regions have common atoms.
    """
    out = list(first)
    for region in second:
        if any(np.array_equal(region.rows, known.rows) for known in first):
            continue
        common = [np.intersect1d(region.rows[:, 0], known.rows[:, 0]) for known in first]
        if any(map(len, common)):
            atom = next(atoms[0] for atoms in common if len(atoms))
            raise InputError(
                f"cannot add potentials of two different regions with a common atom ({atom}): call "
                "without(atoms) once, for the sum of the potentials"
            )
        out.append(region)
    return tuple(out)
