"""Stacks: potentials of different molecules that are evaluated together.

Molecules of similar size are padded to one shape with ghost atoms, which have interactions among
each other only, with parameters of zero.  One compiled program then serves all molecules of a
shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.interaction import Interactions, energies_and_gradients, merged, side_by_side
from jaxff.joined import Joined
from jaxff.padding import (
    GHOSTS,
    can_be_padded,
    ghost_positions,
    is_text,
    padded,
    size_class,
    table_columns,
    with_equal_names,
    with_ghost_rows,
    with_ghosts,
)
from jaxff.potential import Params, Potential, Program
from jaxff.term import Term, array_fields

FRAMES = (64, 8, 1)  # frames of each molecule in one call, so that few programs are compiled


@dataclass(frozen=True, eq=False)
class StackGroup:
    """Potentials of one shape, evaluated by one program.

    Attributes:
        members: (K,) their places in the stack.
        program: a program whose arrays have a leading axis K.
        counts: (K,) their numbers of atoms.
        n_atoms: number of atoms with ghosts.
    """

    members: tuple[int, ...]
    program: Program
    counts: tuple[int, ...]
    n_atoms: int

    params_axis = 0  # the parameters differ between the members

    def ready(self, params: Params) -> dict[str, Any]:
        """Index arrays and parameters of the members, as `energy` needs them."""
        ready = jax.vmap(lambda program, params: program.ready(params))
        return {"program": self.program, "params": ready(self.program, params)}

    def energy(self, member: dict[str, Any], R) -> Any:
        """Energy () kcal/mol of one member at R (n_atoms, 3) Å; see `ready`."""
        return member["program"].energy(member["params"], R)

    def replicas_at_once(self, params) -> int:
        """The number of members: all are evaluated together."""
        return len(self.members)

    def prepared(self, params: Params) -> Any:
        """All that `energy_and_forces` needs and that does not depend on positions.

        These are the interactions of all members, or what `ready` returns where a term is not a
        sum of interactions.
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
            prepared: see `prepared`.
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
        """`energy_and_forces`, compiled."""
        return jax.jit(self.energy_and_forces)

    @cached_property
    def ghosts(self) -> np.ndarray:
        """Positions (K, n_atoms, 3) Å of the ghosts; zeros for the atoms of the members."""
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
            frames: (M, N, 3) Å of each member; the last frame is repeated where M is too small.
            start: number of the first frame.
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


class Stack(Sequence):
    """Potentials of different molecules that are evaluated together; see `stack`.

    It is a sequence of its potentials: ``stack[k]`` is one of them, and `jaxff.fit` accepts it in
    place of a list of potentials.  `jaxff.md.simulate_stack` runs its molecules together.

    Attributes:
        potentials: (K,) potentials.
        groups: those of one shape each.
    """

    def __init__(self, potentials: Sequence[Potential], groups: Sequence[StackGroup] | None = None):
        self.potentials = tuple(potentials)
        if not self.potentials:
            raise InputError("stack needs at least one potential")
        for potential in self.potentials:
            if potential.n_atoms is None:
                raise InputError(
                    f"{potential!r} acts on some atoms of a larger system; stack needs potentials "
                    "of whole molecules"
                )
        self.groups = tuple(_grouped(self.potentials) if groups is None else groups)
        self._expected = [(p.n_atoms, np.dtype(p.dtype)) for p in self.potentials]
        self._starts = np.cumsum([0, *(n for n, _ in self._expected)])

    def __len__(self) -> int:
        return len(self.potentials)

    def __getitem__(self, place):
        return self.potentials[place]

    def __repr__(self) -> str:
        return f"Stack({len(self)} potentials in {len(self.groups)} shapes)"

    def replace(self, params: Sequence[Params]) -> Stack:
        """The stack with other parameters, {term: {column: array}} of each potential.

        Names and shapes must be those of the present parameters; nothing is compiled again.
        """
        pairs = zip(self.potentials, params, strict=True)
        return Stack([potential.replace(values) for potential, values in pairs], self.groups)

    @cached_property
    def _prepared(self) -> tuple[Any, ...]:
        """The interactions of each group with its parameters; see `StackGroup.prepared`."""

        def prepared(params):
            pairs = zip(self.groups, params, strict=True)
            return tuple(group.prepared(values) for group, values in pairs)

        return jax.jit(prepared)(self.params)

    @cached_property
    def params(self) -> tuple[Params, ...]:
        """The parameters of each group, with a leading axis K and rows for ghosts."""
        out = []
        for group in self.groups:
            members = [self.potentials[k] for k in group.members]
            params = [member.params for member in members]
            if group.n_atoms > max(group.counts):
                program = members[0].program
                rows = {
                    key: max(_rows(member[key[0]][key[1]]) for member in params) + 1
                    for key in table_columns(program)
                }
                params = [with_ghost_rows(program, member, rows) for member in params]
            out.append(jax.tree.map(lambda *leaves: jnp.stack(leaves), *params))
        return tuple(out)

    def energy_and_forces(self, positions: Sequence) -> tuple[np.ndarray, list[np.ndarray]]:
        """Energies (K,) kcal/mol and forces (N, 3) kcal/mol/Å of one frame of each.

        Args:
            positions: (N, 3) Å of each molecule.
        """
        frames = self._checked(positions, 2)
        R = np.concatenate(frames)
        if self._joined is None:
            energies, F = np.zeros(len(self), R.dtype), np.zeros_like(R)
        else:
            energies, F = map(np.array, self._joined.energies_and_forces(R))
        forces = [F[begin:end] for begin, end in pairwise(self._starts)]
        for group, prepared in zip(self.groups, self._prepared, strict=True):
            if isinstance(prepared, list):  # its interactions are joined
                continue
            filled = group.filled([frames[k][None] for k in group.members], 0, 1)
            results = jax.device_get(group.jit_energy_and_forces(prepared, filled))
            for k, n, E, F in zip(group.members, group.counts, *results, strict=True):
                energies[k], forces[k][:] = E[0], F[0, :n]
        return energies, forces

    @cached_property
    def _joined(self) -> Joined | None:
        """The interactions of all groups whose terms are sums of interactions."""
        starts, parts = self._starts, []
        for group, prepared in zip(self.groups, jax.device_get(self._prepared), strict=True):
            for one in prepared if isinstance(prepared, list) else ():
                place, atom = np.divmod(one.atoms, group.n_atoms)
                real = (atom < np.array(group.counts)[place]).all(axis=0)
                place = place[0, real]
                owners = np.array(group.members)[place]
                parameters = tuple(p[real] for p in one.parameters)
                scale = None if one.scale is None else one.scale[place]
                atoms = starts[owners] + atom[:, real]
                parts.append((Interactions(one.energy, atoms, parameters, scale), owners))
        return Joined.of(parts, len(self)) if parts else None

    def __call__(self, positions: Sequence) -> np.ndarray:
        """Energies, (K,) kcal/mol, of one frame (N, 3) Å of each molecule."""
        return self.energy_and_forces(positions)[0]

    def forces(self, positions: Sequence) -> list[np.ndarray]:
        """Forces, (N, 3) kcal/mol/Å each, of one frame (N, 3) Å of each molecule."""
        return self.energy_and_forces(positions)[1]

    def predict(self, positions: Sequence) -> list[tuple[np.ndarray, np.ndarray]]:
        """Energies (M,) kcal/mol and forces (M, N, 3) kcal/mol/Å of each molecule.

        Args:
            positions: (M, N, 3) Å of each molecule; M may differ.

        Raises:
            InputError: another number of molecules, or frames of another shape.
        """
        frames = self._checked(positions, 3)
        energies: list[list] = [[] for _ in frames]
        forces: list[list] = [[] for _ in frames]
        for group, prepared in zip(self.groups, self._prepared, strict=True):
            parts = [frames[k] for k in group.members]
            most, start = max(map(len, parts)), 0
            while start < most:
                count = next(n for n in FRAMES if n <= most - start)
                R = group.filled(parts, start, count)
                E, F = map(np.asarray, group.jit_energy_and_forces(prepared, R))
                for place, (k, n) in enumerate(zip(group.members, group.counts, strict=True)):
                    keep = max(min(len(frames[k]) - start, count), 0)
                    energies[k].append(E[place, :keep])
                    forces[k].append(F[place, :keep, :n])
                start += count
        return [
            (np.concatenate(E), np.concatenate(F)) if len(R) else (np.zeros(0), np.zeros(R.shape))
            for E, F, R in zip(energies, forces, frames, strict=True)
        ]

    def _checked(self, positions: Sequence, ndim: int) -> list[np.ndarray]:
        """Positions with `ndim` axes, in the types of the potentials or wider ones."""
        if len(positions) != len(self):
            raise InputError(f"got positions of {len(positions)} molecules for {len(self)}")
        frames = []
        for k, (R, (n_atoms, dtype)) in enumerate(zip(positions, self._expected, strict=True)):
            R = np.asarray(R)
            if R.ndim != ndim or R.shape[-2:] != (n_atoms, 3):
                raise InputError(
                    f"positions of molecule {k} have shape {R.shape}, expected "
                    f"{'frames of ' if ndim > 2 else ''}({n_atoms}, 3) in Å"
                )
            if R.dtype != dtype:
                R = R.astype(np.promote_types(R.dtype, dtype))
            frames.append(R)
        return frames


def stack(potentials: Sequence[Potential]) -> Stack:
    """Make one object that evaluates potentials of different molecules together.

    Potentials with the same kinds of terms are padded to a few shapes (`SIZES`), each compiled
    once. Potentials with terms that cannot be padded, such as kernels and networks, share a program
    where their shapes are equal.

    Args:
        potentials: of whole molecules, in any order.

    Raises:
        InputError: there is none, or one acts on some atoms of a larger system.
    """
    return Stack(potentials)


def _rows(column) -> int:
    return len(jax.tree.leaves(column)[0])


def _grouped(potentials: Sequence[Potential]) -> Iterator[StackGroup]:
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
    """Potentials with equal values can be put into one group."""
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
    """The static fields that are neither names nor changed by padding."""
    changed = ("n_atoms", *term.adaptable)
    return tuple(
        (f.name, getattr(term, f.name))
        for f in fields(term)
        if f.name not in (*array_fields(term), *changed) and not is_text(getattr(term, f.name))
    )


def _shapes(tree, first: int = 0) -> tuple:
    """Shapes, from axis `first` on, and types of the arrays of a tree."""
    return tuple((np.shape(leaf)[first:], str(leaf.dtype)) for leaf in jax.tree.leaves(tree))
