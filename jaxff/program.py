"""Programs: the placed terms of a potential and their compiled functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from operator import is_
from typing import Any
from weakref import WeakValueDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxff.errors import InputError
from jaxff.interaction import total
from jaxff.neighbors import NeighborList
from jaxff.placed import Placed, free_name
from jaxff.regions import Region
from jaxff.regions import joined as joined_regions
from jaxff.sites import VirtualSites, joined
from jaxff.space import Space, arrays
from jaxff.term import Array, Params

# Working memory of a batch, bytes.  On a CPU, a batch of frames fits into the caches.  On an
# accelerator, and for replicas, it is a small part of the memory.
CACHE_BYTES, BATCH_BYTES = 4e6, 5e8
MAX_FRAMES = 256


class Leaves:
    """The arrays of parameters, stored to detect later changes.

    Args:
        arrays: the arrays, in a fixed order.
    """

    def __init__(self, arrays: Sequence[Any]):
        self.arrays = arrays
        # NumPy arrays, which `tree_unflatten` may receive, can change in place.
        self._constant = not any(isinstance(array, np.ndarray) for array in arrays)

    def are(self, arrays: Sequence[Any]) -> bool:
        """Whether `arrays` are the stored arrays and cannot be changed in place."""
        same = len(arrays) == len(self.arrays) and all(map(is_, arrays, self.arrays))
        return self._constant and same


_PROGRAMS: WeakValueDictionary[tuple, Program] = WeakValueDictionary()  # see `Program._twin`


@jax.tree_util.register_pytree_node_class
class Program:
    """The placed terms of a potential and their compiled functions; a JAX pytree.

    The leaves of the pytree are the integer arrays of the terms.  The compiled functions contain
    these arrays as constants.

    Args:
        placed: the placed terms.
        sites: the virtual sites of the system.  Their positions are computed from those of their
            atoms before the terms are evaluated, so that forces act on atoms only.
        regions: groups of molecules that are moved together in a box before the terms are
            evaluated.
    """

    params_axis = None  # replicas share the parameters; see `jaxff.groups.StackGroup`

    def __init__(
        self,
        placed: Sequence[Placed],
        sites: VirtualSites | None = None,
        regions: Sequence[Region] = (),
    ):
        self.placed, self.sites, self.regions = tuple(placed), sites, tuple(regions)

    def with_placed(self, placed: Sequence[Placed]) -> Program:
        """A program with other terms and the same virtual sites and regions."""
        return Program(placed, self.sites, self.regions)

    def on(self, index: np.ndarray) -> Program:
        """The program of a system in which atom i has the index ``index[i]``."""
        placed = [
            Placed(p.name, p.term, index if p.atoms is None else index[p.atoms])
            for p in self.placed
        ]
        sites = None if self.sites is None else self.sites.on(index)
        return Program(placed, sites, [region.on(index) for region in self.regions])

    def plus(self, other: Program) -> tuple[Program, dict[str, str]]:
        """The sum of two programs, and the new names {new: old} of the terms of `other`.

        Raises:
            InputError: the numbers of atoms differ.
        """
        n, m = self.n_atoms, other.n_atoms
        if n is not None and m is not None and n != m:
            raise InputError(
                f"cannot add potentials of {n} and {m} atoms; place the smaller one by .on(atoms)"
            )
        total, least = n or m, max(self.n_atoms_min, other.n_atoms_min)
        if total is not None and least > total:
            raise InputError(
                f"cannot add a potential of {total} atoms to one that acts on atom {least - 1}; "
                f"use indices below {total} in .on(atoms)"
            )
        placed, names = list(self.placed), {}
        for part in other.placed:
            name = free_name(part.name, {*self.names, *names})
            names[name] = part.name
            placed.append(replace(part, name=name))
        regions = joined_regions(self.regions, other.regions)
        return Program(placed, joined(self.sites, other.sites), regions), names

    def without(self, atoms: np.ndarray) -> Program:
        """The program without the energy of some atoms among each other; see `Placed.without`.

        Args:
            atoms: (n,) indices.
        """
        placed = [part for p in self.placed if (part := p.without(atoms)) is not None]
        if not placed:
            raise InputError(
                "without(atoms) would remove all terms; a potential needs at least one term"
            )
        links = [np.zeros((0, 2), np.int32)]
        for p in self.placed:
            index = np.arange(p.term.n_atoms) if p.atoms is None else np.asarray(p.atoms)
            for group in p.term.atom_groups() or ():
                group = index[group][np.isin(index[group], atoms).all(axis=1)]
                links += [group[:, k : k + 2] for k in range(group.shape[1] - 1)]
        region = Region.of(atoms, np.concatenate(links))
        new = () if region is None else (region,)
        return Program(placed, self.sites, (*self.regions, *new))

    @property
    def physical(self) -> bool:
        """Whether the energies of all terms are meaningful before training."""
        return all(placed.term.physical for placed in self.placed)

    def terms(self, params: Params, R: Array, box=None, neighbor=None) -> dict[str, Array]:
        """Energies of the terms, {name: () kcal/mol}; arguments as in `energy`."""
        params = jax.tree.map(jnp.asarray, params)
        space = self.space(params, box, neighbor)
        R = self._located(R, space.box)
        out: dict[str, Array] = {}
        for placed in self.placed:
            out.update(placed.energies(params, R, space))
        return out

    def energy(self, params: Params, R: Array, box=None, neighbor=None) -> Array:
        """Energy () kcal/mol.

        Args:
            params: {term name: {column: tree of arrays}}.
            R: (N, 3) Å.
            box: (3, 3) Å, lattice vectors as rows, or None.
            neighbor: (2, P) atoms of neighbouring pairs, or None; see `jaxff.space.Space`.

        Raises:
            InputError: `box` or `neighbor` is given, but no term uses it.
        """
        params = jax.tree.map(jnp.asarray, params)  # terms index with traced arrays
        space = self.space(params, box, neighbor)
        R = self._located(R, space.box)
        energy, parts = jnp.zeros((), R.dtype), []
        for placed in self.placed:
            interactions = placed.interactions(params)
            if interactions is None:
                energy += placed.energy(params, R, space)
            else:
                parts.append(interactions)
        return energy + total(parts, R) if parts else energy

    def _located(self, R: Array, box: Array | None = None) -> Array:
        """The positions (N, 3) Å with virtual sites at the positions that their atoms define.

        In a box (3, 3) Å, the molecules of each region are moved together.
        """
        R = jnp.asarray(R)
        R = R if self.sites is None else self.sites.place(R)
        if box is not None:
            for region in self.regions:
                R = region.together(R, box)
        return R

    def energy_and_forces(
        self, params: Params, R: Array, box=None, neighbor=None
    ) -> tuple[Array, Array]:
        """Energy () kcal/mol and forces (N, 3) kcal/mol/Å; arguments as in `energy`."""
        function = jax.value_and_grad(self.energy, argnums=1)
        energy, gradient = function(params, R, box, neighbor)
        return energy, -gradient

    def space(self, params: Params, box, neighbor) -> Space:
        """Check the box and the neighbour list and return them as a `Space`.

        The arguments and errors are those of `energy`.
        """
        space = Space.of(box, neighbor)
        for name in space.given:
            if name not in self.reads(params):
                raise InputError(
                    f"{name} was given, but none of the terms {', '.join(self.names)} uses it: "
                    f"call without {name}"
                )
        return space

    def reads(self, params: Params) -> set[str]:
        """The arguments, "box" and "neighbor", on which the energy depends."""
        return {name for p in self.placed for name in p.term.reads(params[p.name])}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the placed terms."""
        return tuple(placed.name for placed in self.placed)

    @cached_property
    def jit_energy(self):
        """The method `energy`, compiled."""
        return jax.jit(self.energy)

    @cached_property
    def jit_energy_and_forces(self):
        """The method `energy_and_forces`, compiled."""
        return jax.jit(self.energy_and_forces)

    @cached_property
    def jit_terms(self):
        """The method `terms`, compiled."""
        return jax.jit(self.terms)

    @cached_property
    def _twin(self) -> Program:
        """The first program with the same terms that still exists, often this program.

        Programs with the same terms, such as kernels of several widths, share compiled functions.
        """
        leaves, structure = jax.tree.flatten(self)
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            return self
        arrays = map(np.asarray, leaves)
        key = structure, *((a.shape, a.dtype.str, a.tobytes()) for a in arrays)
        try:
            return _PROGRAMS.setdefault(key, self)
        except (TypeError, ValueError):  # an option of a term cannot be compared
            return self

    @cached_property
    def jit_batches(self) -> Callable:
        """Compiled function of parameters, R (chunks, frames, N, 3) Å and box.

        It returns energies (chunks, frames) kcal/mol and forces with the shape of R, kcal/mol/Å.
        The chunks are evaluated one after another.
        """
        if self._twin is not self:
            return self._twin.jit_batches
        batch = jax.vmap(self.energy_and_forces, in_axes=(None, 0, None))
        return jax.jit(lambda params, R, box: jax.lax.map(lambda R: batch(params, R, box), R))

    @cached_property
    def jit_ready(self) -> Callable[[Params], Params]:
        """The method `ready`, compiled."""
        if self._twin is not self:
            return self._twin.jit_ready
        return jax.jit(self.ready)

    def ready(self, params: Params) -> Params:
        """All parameters and the arrays derived from them; see `Placed.ready`."""
        return {p.name: p.ready(params) for p in self.placed}

    def trace(self, params: Params) -> None:
        """Trace the energy without computing it, so that errors of the terms are raised.

        Raises:
            InputError: the energy is not a scalar.
        """
        n_atoms, dtype = self.n_atoms or self.n_atoms_min, jnp.result_type(float)
        reads = self.reads(params)
        box = jax.ShapeDtypeStruct((3, 3), dtype) if "box" in reads else None
        R = jax.ShapeDtypeStruct((n_atoms, 3), dtype)
        pairs = jax.ShapeDtypeStruct((2, 1), jnp.int32) if self.needs_list else None
        energy = jax.eval_shape(self.energy, params, R, box, pairs)
        if energy.shape != ():
            raise InputError(
                f"the energy of the terms {', '.join(self.names)} must be a scalar () (got shape "
                f"{energy.shape})"
            )

    @property
    def needs_list(self) -> bool:
        """Whether one of the terms needs a neighbour list."""
        return any(p.term.needs_list for p in self.placed)

    @property
    def _list_cutoffs(self) -> list[float]:
        """Cutoffs, Å, of the terms that use a neighbour list; see `Placed.list_cutoff`."""
        return [cutoff for p in self.placed if (cutoff := p.list_cutoff) is not None]

    def neighbors(self, R, box=None, skin: float = 1.0) -> NeighborList:
        """The neighbour list of a geometry with all pairs that the terms need.

        Args:
            R: (N, 3) Å.
            box: (3, 3) Å, lattice vectors as rows, or None.
            skin: Å; the list remains valid until atoms have moved by about half of it.

        Raises:
            InputError: no term uses a list, a term needs all pairs, or the box is too small.
        """
        cutoffs = self._list_cutoffs
        if not cutoffs or max(cutoffs) == float("inf"):
            what = "no term uses" if not cutoffs else "a network without a cutoff cannot use"
            raise InputError(f"{what} a neighbour list (terms: {', '.join(self.names)})")
        return NeighborList.of(self._located(R), box, cutoff=max(cutoffs), skin=skin)

    @property
    def no_neighbors(self) -> NeighborList | None:
        """A list with placeholders instead of arrays; None if no term needs a list."""
        if not self.needs_list:
            return None
        return NeighborList(0, 0, 0, 0, 0, max(self._list_cutoffs), 0.0)  # type: ignore[arg-type]

    def found(self, R, box, neighbor) -> tuple:
        """The arrays `box` and `neighbor` of a call; a missing list is made if a term needs it.

        The last list is kept and used again while it is valid.  Transformed and compiled code gets
        no list.  The arguments are those of `energy`.

        Raises:
            InputError: the box has a wrong shape, or the list has a smaller cutoff than a term, is
                of other atoms, or is stale, which only compiled code does not check.
        """
        box = Space.of(box, None).box
        traced = any(isinstance(x, Tracer) for x in (R, box))
        if isinstance(neighbor, NeighborList):
            cutoff = max(filter(np.isfinite, self._list_cutoffs), default=0.0)
            neighbor.check(self._located(R), box, cutoff)
        if neighbor is None and box is not None and self.needs_list and not traced:
            last, R = vars(self).get("_last"), self._located(R)
            neighbor = self.neighbors(R, box) if last is None else last.update(R, box)
            self._last = neighbor
        return arrays(box, neighbor)

    def checked(self, R, dtype) -> Array:
        """Check positions (N, 3) Å and convert them to `dtype`, if it is wider.

        Raises:
            InputError: the shape is wrong.
        """
        R = jnp.asarray(R)
        R = R.astype(jnp.promote_types(R.dtype, dtype))
        if R.ndim != 2 or R.shape[1] != 3:
            raise InputError(
                f"positions have shape {R.shape}, expected (N, 3) in Å; "
                "for a batch use jax.vmap(potential)(R)"
            )
        n, least = self.n_atoms, self.n_atoms_min
        if R.shape[0] < least or (n is not None and R.shape[0] != n):
            wanted = f"{n}" if n is not None else f"at least {least}"
            raise InputError(f"positions have {R.shape[0]} atoms; this potential needs {wanted}")
        return R

    def frame_bytes(self, params: Params) -> int:
        """Working memory of one frame of a batch, in bytes."""
        return sum(p.term.frame_bytes(params[p.name]) for p in self.placed)

    def frames_at_once(self, params: Params) -> int:
        """Number of frames in a batch, such that its working memory fits into the caches."""
        budget = CACHE_BYTES if jax.default_backend() == "cpu" else BATCH_BYTES
        return int(min(max(budget // max(self.frame_bytes(params), 1), 1), MAX_FRAMES))

    def replicas_at_once(self, params: Params) -> int:
        """Number of replicas in a batch, such that its working memory is at most 0.5 GB."""
        return int(max(BATCH_BYTES // max(self.frame_bytes(params), 1), 1))

    @property
    def n_atoms(self) -> int | None:
        """Number of atoms; None if every term acts on some atoms of a larger system."""
        return next((p.term.n_atoms for p in self.placed if p.atoms is None), None)

    @property
    def n_atoms_min(self) -> int:
        """The smallest number of atoms of a system that contains the atoms of all terms."""
        return max(
            p.term.n_atoms if p.atoms is None else max(p.atoms.tolist(), default=-1) + 1
            for p in self.placed
        )

    def __getstate__(self):
        # Compiled functions cannot be pickled.
        return {"placed": self.placed, "sites": self.sites, "regions": self.regions}

    def tree_flatten(self):
        return (self.placed, self.sites, self.regions), None

    @classmethod
    def tree_unflatten(cls, aux, children):
        return cls(*children)
