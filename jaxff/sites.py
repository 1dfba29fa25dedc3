"""Virtual sites: particles without mass whose positions depend on those of atoms."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["atoms", "parents", "weights", "cross"],
    meta_fields=[],
)
@dataclass(frozen=True, eq=False)
class VirtualSites:
    """Virtual sites of a system; a JAX pytree.

    The position of a site is r = Σ wₖ rₖ + c (r₂ − r₁) × (r₃ − r₁), as in OpenMM.  If a site
    depends on two atoms, its third parent is its first parent with the weight zero.

    Attributes:
        atoms: (S,) indices of the sites.
        parents: (S, 3) indices of the atoms 1, 2 and 3 of each site.
        weights: (S, 3) weights w, with the sum 1.
        cross: (S,) 1/Å, factors c of the cross product.
    """

    atoms: np.ndarray
    parents: np.ndarray
    weights: np.ndarray
    cross: np.ndarray

    @classmethod
    def none(cls) -> VirtualSites:
        """No virtual sites."""
        return cls(np.zeros(0, np.int32), np.zeros((0, 3), np.int32), np.zeros((0, 3)), np.zeros(0))

    def __len__(self) -> int:
        return len(self.atoms)

    def place(self, R: Array) -> Array:
        """The positions R (N, 3) Å with the sites at the positions that their parents define.

        Derivatives with respect to the result act on the parents, so that the forces on sites are
        distributed to atoms.
        """
        if not len(self.atoms):
            return R
        return R.at[self.atoms].set(self._points(jnp, R))

    def placed(self, positions: np.ndarray) -> np.ndarray:
        """A copy of the positions (N, 3) Å, a NumPy array, with the sites as in `place`."""
        positions = np.array(positions, float)
        positions[self.atoms] = self._points(np, positions)
        return positions

    def _points(self, xp: Any, R):
        parents = R[self.parents]
        weights, cross = (xp.asarray(x, R.dtype) for x in (self.weights, self.cross))
        first, second, third = (parents[:, k] for k in range(3))
        normals = xp.cross(second - first, third - first)
        return (weights[:, :, None] * parents).sum(axis=1) + cross[:, None] * normals

    def on(self, atoms: np.ndarray) -> VirtualSites:
        """The sites of a system in which particle i has the index ``atoms[i]``."""
        atoms = np.asarray(atoms, np.int32)
        return VirtualSites(atoms[self.atoms], atoms[self.parents], self.weights, self.cross)


def joined(first: VirtualSites | None, second: VirtualSites | None) -> VirtualSites | None:
    """The virtual sites of two potentials of the same system; equal indices are the same site."""
    if first is None or second is None:
        return second if first is None else first
    new = ~np.isin(second.atoms, first.atoms)
    return VirtualSites(
        *(
            np.concatenate([getattr(first, f.name), getattr(second, f.name)[new]])
            for f in fields(VirtualSites)
        )
    )
