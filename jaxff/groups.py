"""Groups of potentials with arrays of equal shapes, evaluated by one program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.interaction import energies_and_gradients, merged, side_by_side
from jaxff.padding import (
    GHOSTS,
    can_be_padded,
    ghost_positions,
    padded,
    size_class,
    table_columns,
    with_equal_names,
    with_ghosts,
)
from jaxff.potential import Params, Potential, Program
from jaxff.term import Term, array_fields, name_fields


@dataclass(frozen=True, eq=False)
class StackGroup:
    """Potentials with arrays of equal shapes, evaluated by one program.

    Attributes:
        members: (K,) indices of the potentials in the stack.
        program: the program; its arrays have a leading axis K.
        counts: (K,) numbers of atoms of the potentials.
        n_atoms: number of atoms including ghosts.
    """

    members: tuple[int, ...]
    program: Program
    counts: tuple[int, ...]
    n_atoms: int

    params_axis = 0  # the parameters differ between the members

    def ready(self, params: Params) -> dict[str, Any]:
        """Index arrays and parameters of all members, for `energy`.

        Args:
            params: {term: {column: array}} with a leading axis K.

        Returns:
            A tree of arrays with a leading axis K; `energy` needs the entry of one member.
        """
        ready = jax.vmap(lambda program, params: program.ready(params))
        return {"program": self.program, "params": ready(self.program, params)}

    def energy(self, member: dict[str, Any], R) -> Any:
        """Energy () kcal/mol of one member.

        Args:
            member: the entry of the member in the result of `ready`.
            R: (n_atoms, 3) Å.
        """
        return member["program"].energy(member["params"], R)

    def replicas_at_once(self, params) -> int:
        """The number of members, because all are evaluated together."""
        return len(self.members)

    def prepared(self, params: Params) -> Any:
        """The data for `energy_and_forces` that do not depend on positions.

        Args:
            params: {term: {column: array}} with a leading axis K.

        Returns:
            A list of the interactions of all members.  If a term is not a sum of interactions, the
            result of `ready`.
        """

        def sums(program: Program, params: Params):
            parts = [placed.interactions(params) for placed in program.placed]
            known = [replace(one, matrices=None) for one in parts if one is not None]
            return merged(known) if len(known) == len(parts) else None

        interactions = jax.vmap(sums)(self.program, params)
        return (
            self.ready(params) if interactions is None else side_by_side(interactions, self.n_atoms)
        )

    def energy_and_forces(self, prepared: Any, R):
        """Energies (K, M) kcal/mol and forces (K, M, n_atoms, 3) kcal/mol/Å.

        Args:
            prepared: the result of the method `prepared`.
            R: (K, M, n_atoms, 3) Å.
        """
        if isinstance(prepared, list):
            dtypes = (p.dtype for one in prepared for p in one.parameters)
            R = R.astype(jnp.result_type(R, *dtypes))
            energy, gradient = energies_and_gradients(prepared, R)
            return energy, -gradient
        of_frames = jax.vmap(Program.energy_and_forces, in_axes=(None, None, 0))
        return jax.vmap(of_frames)(prepared["program"], prepared["params"], R)

    @cached_property
    def jit_energy_and_forces(self) -> Callable:
        """The method `energy_and_forces`, compiled."""
        return jax.jit(self.energy_and_forces)

    @cached_property
    def ghosts(self) -> np.ndarray:
        """Positions (K, n_atoms, 3) Å of the ghosts, with zeros for the other atoms."""
        pads = [ghost_positions(self.n_atoms - count) for count in self.counts]
        nothing = np.zeros((1, self.n_atoms, 3))
        return np.concatenate(
            [
                with_ghosts(nothing[:, :n], self.n_atoms, g)
                for n, g in zip(self.counts, pads, strict=True)
            ]
        )

    def filled(self, frames: Sequence[np.ndarray], start: int, count: int) -> np.ndarray:
        """Positions (K, count, n_atoms, 3) Å of frames of each member, with ghosts.

        Args:
            frames: K arrays (M, N, 3) Å; the last frame is repeated if M < start + count.
            start: index of the first frame.
            count: number of frames.
        """
        out = np.repeat(self.ghosts[:, None], count, axis=1)
        for k, (R, n) in enumerate(zip(frames, self.counts, strict=True)):
            if len(R) >= start + count:
                out[k, :, :n] = R[start : start + count]
            elif len(R):
                out[k, :, :n] = R[np.minimum(np.arange(start, start + count), len(R) - 1)]
            else:
                out[k, :, :n] = 3.0 * ghost_positions(n)
        return out.astype(np.result_type(*frames), copy=False)

    def __getstate__(self):
        # Compiled functions cannot be pickled.
        return {f.name: getattr(self, f.name) for f in fields(self)}


def grouped(potentials: Sequence[Potential]) -> Iterator[StackGroup]:
    """Yield groups of potentials with equal shapes; potentials may be in any order.

    Raises:
        InputError: a potential has virtual sites.
    """
    if any(potential.program.sites is not None for potential in potentials):
        raise InputError(
            "potentials with virtual sites cannot be stacked; evaluate them one after another"
        )
    by_shape: dict[Any, list[int]] = {}
    for k, potential in enumerate(potentials):
        by_shape.setdefault(_shape_of(potential), []).append(k)
    for shape, members in by_shape.items():
        programs = [potentials[k].program for k in members]
        counts = tuple(program.n_atoms or 0 for program in programs)
        n_atoms = max(counts)
        if shape[0]:  # can be padded
            n_atoms = size_class(n_atoms) + GHOSTS
            programs = padded(programs, n_atoms)
        else:
            columns = (
                with_equal_names([p.placed[i].term for p in programs])
                for i in range(len(programs[0].placed))
            )
            programs = [
                Program(
                    [replace(p, term=term) for p, term in zip(program.placed, terms, strict=True)]
                )
                for program, terms in zip(programs, zip(*columns, strict=True), strict=True)
            ]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *programs)
        yield StackGroup(tuple(members), stacked, counts, n_atoms)


def _shape_of(potential: Potential) -> tuple:
    """A hashable key; potentials with equal keys form one group."""
    program, params = potential.program, potential.params
    if can_be_padded(program):
        tables = set(table_columns(program))
        kinds = tuple((p.name, type(p.term), _others(p.term)) for p in program.placed)
        columns = tuple(
            (name, key, str(jax.tree.structure(value)), _shapes(value, int((name, key) in tables)))
            for name, columns in params.items()
            for key, value in columns.items()
        )
        return True, size_class(program.n_atoms or 0), kinds, columns
    kinds = tuple(
        (p.name, type(p.term), p.term.n_atoms, p.term.adaptable, _others(p.term), _shapes(p))
        for p in program.placed
    )
    return False, kinds, str(jax.tree.structure(params)), _shapes(params)


def _others(term: Term) -> tuple:
    """Pairs (name, value) of static fields, except names and fields set by padding."""
    left_out = {"n_atoms", *term.adaptable, *array_fields(term), *name_fields(term)}
    return tuple((f.name, getattr(term, f.name)) for f in fields(term) if f.name not in left_out)


def _shapes(tree, first: int = 0) -> tuple:
    """(shape, dtype) of each array of a tree; the axes before `first` are omitted."""
    return tuple((np.shape(leaf)[first:], str(leaf.dtype)) for leaf in jax.tree.leaves(tree))
