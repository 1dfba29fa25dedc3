"""Terms with the atoms on which they act in a larger system."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.interaction import Interactions
from jaxff.space import Space
from jaxff.term import Array, Params, Term


@partial(jax.tree_util.register_dataclass, data_fields=["term", "atoms"], meta_fields=["name"])
@dataclass(frozen=True, eq=False)
class Placed:
    """A term with a name and the atoms on which it acts; a JAX pytree.

    Attributes:
        name: unique name in the potential; a second "bond" has the name "bond#2".
        term: the term.
        atoms: (n,) indices of the atoms in the system; None: all atoms, in their order.
    """

    name: str
    term: Term
    atoms: np.ndarray | None = None

    def energy(self, params: Params, R: Array, space: Space) -> Array:
        """Energy () kcal/mol of the term; for the arguments see `energies`."""
        R, space = self._part(R, space)
        ready = self.ready(params)
        energy = self.term.energy(ready, R, space)
        return ready["scale"] * energy if "scale" in ready else energy

    def energies(self, params: Params, R: Array, space: Space) -> dict[str, Array]:
        """Energies of the term, {name: () kcal/mol}.

        Args:
            params: {term name: {column: tree of arrays}}.
            R: (N, 3) Å, positions of the system.
            space: box and neighbour list of the system.
        """
        R, space = self._part(R, space)
        ready = self.ready(params)
        energies = self.term.energies(ready, R, space)
        if "scale" in ready:
            energies = {key: ready["scale"] * energy for key, energy in energies.items()}
        # The energies of a renamed term, such as "gdml#2", get the same suffix.
        suffix = self.name.partition("#")[2]
        return {f"{key}#{suffix}": e for key, e in energies.items()} if suffix else energies

    def _part(self, R: Array, space: Space) -> tuple[Array, Space]:
        """Positions and space of the atoms of the term; for the arguments see `energies`."""
        if self.atoms is None:
            return R, space
        if self.list_cutoff is None:
            return R[self.atoms], replace(space, neighbor=None)
        return R[self.atoms], space.on(self.atoms, len(R))

    @property
    def list_cutoff(self) -> float | None:
        """Distance, Å, of the pairs that the term takes from a neighbour list, or None.

        A network without a cutoff needs no list if it acts on some atoms of a larger system.
        """
        cutoff = self.term.list_cutoff()
        return None if self.atoms is not None and cutoff == math.inf else cutoff

    def interactions(self, params: Params) -> Interactions | None:
        """The interactions of the term; None if the term is not a sum of interactions.

        Args:
            params: {term name: {column: tree of arrays}}.
        """
        ready = self.ready(params)
        interactions = self.term.interactions(ready)
        if interactions is None:
            return None
        if self.atoms is not None:
            interactions = replace(
                interactions, atoms=jnp.asarray(self.atoms)[interactions.atoms], matrices=None
            )
        return replace(interactions, scale=ready.get("scale"))

    def without(self, atoms: np.ndarray) -> Placed | None:
        """The term without the energy of some atoms among each other; None if nothing remains.

        Args:
            atoms: (n,) indices in the system.

        Raises:
            InputError: an interaction has atoms inside and outside, or the energy of the term is
                not a sum over groups of atoms.
        """
        size = self.term.n_atoms
        index = np.arange(size) if self.atoms is None else np.asarray(self.atoms)
        inside = np.isin(index, atoms)
        groups = self.term.atom_groups()
        if not inside.any():
            return self
        if groups is None:
            if inside.all():
                return None
            raise InputError(
                f"without(atoms) contains some of the atoms of the term {self.name!r}, whose "
                "energy is not a sum over groups of atoms; give all of its atoms or none of them"
            )
        for group in groups:
            within = inside[group]
            cut = within.any(axis=1) & ~within.all(axis=1)
            if cut.any():
                row, parts = group[cut][0], within[cut][0]
                i, j = index[row[parts][0]], index[row[~parts][0]]
                raise InputError(
                    f"without(atoms) contains atom {i} but not atom {j} of the same molecule: give "
                    "all atoms and virtual sites of each molecule, because bonds across the "
                    "boundary need link atoms, which jaxff does not support"
                )
        return replace(self, term=self.term.without(inside))

    def ready(self, params: Params) -> Params:
        """Parameters of the term and arrays derived from them, {column: tree of arrays}.

        Derived arrays that are already in `params` are not computed again.
        """
        params = params[self.name]
        return {**self.term.derived(params), **params}


def free_name(name: str, taken) -> str:
    """The first name, such as "bond" or "bond#2", that is not in `taken`."""
    stem = name.partition("#")[0]
    candidate, count = stem, 1
    while candidate in taken:
        count += 1
        candidate = f"{stem}#{count}"
    return candidate


def placement(atoms: Sequence[int] | np.ndarray, count: int) -> np.ndarray:
    """Check the indices (count,) of the atoms of a potential in a larger system.

    Raises:
        InputError: the number of indices is wrong, or an index is negative or repeated.
    """
    index = np.asarray(atoms)
    if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
        raise InputError(f"on(atoms) needs a list of atom indices (got {atoms!r})")
    if len(index) != count:
        raise InputError(f"on(atoms) needs {count} indices, one for each atom (got {len(index)})")
    distinct = len(set(index.tolist())) == len(index)
    if not distinct or (index < 0).any() or (index > np.iinfo(np.int32).max).any():
        raise InputError(f"on(atoms) needs distinct indices from 0 (got {index.tolist()})")
    return index.astype(np.int32)
