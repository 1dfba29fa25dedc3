"""Stacks: potentials of different molecules that are evaluated together.

Molecules of similar size are padded with ghost atoms to the same number of atoms.  All parameters
of ghost atoms are zero.  One compiled program then evaluates all molecules of one shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from itertools import pairwise
from operator import is_
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.groups import StackGroup, grouped
from jaxff.interaction import Interactions
from jaxff.joined import Joined
from jaxff.padding import table_columns, with_ghost_rows
from jaxff.potential import Params, Potential
from jaxff.program import Leaves

FRAMES = (64, 8, 1)  # frames of each molecule in one call, so that few programs are compiled


class Stack(Sequence):
    """Potentials of different molecules that are evaluated together; see `stack`.

    A stack is a sequence of K potentials.  `jaxff.fit` accepts a stack instead of a list of
    potentials, and `jaxff.md.simulate_stack` simulates all molecules together.  A stack has no box:
    periodic models use their stored lattice.

    Attributes:
        potentials: (K,) potentials.
        groups: groups of potentials with arrays of equal shapes.

    Raises:
        InputError: an element of `potentials` is not a potential of a whole molecule, or needs a
            box.
    """

    def __init__(self, potentials: Sequence[Potential], groups: Sequence[StackGroup] | None = None):
        if isinstance(potentials, Potential) or not isinstance(potentials, Iterable):
            raise InputError(f"stack needs a list of potentials (got {potentials!r})")
        self.potentials = tuple(potentials)
        if not self.potentials:
            raise InputError("stack needs at least one potential (got an empty list)")
        for k, potential in enumerate(self.potentials):
            if not isinstance(potential, Potential):
                raise InputError(f"stack needs potentials, but element {k} is {potential!r}")
            if potential.n_atoms is None:
                raise InputError(
                    f"potential {k} ({potential!r}) acts on some atoms of a larger system: stack "
                    "needs potentials of whole molecules"
                )
        self.groups = tuple(grouped(self.potentials) if groups is None else groups)
        for group in self.groups if groups is None else ():
            _check_without_box(self.potentials[group.members[0]], group.members[0])
        # The first atom of each molecule in a list of all atoms, and their number.
        self._starts = np.cumsum([0, *(potential.n_atoms or 0 for potential in self.potentials)])

    def __len__(self) -> int:
        return len(self.potentials)

    def __getitem__(self, place):
        return self.potentials[place]

    def __repr__(self) -> str:
        return f"Stack({len(self)} potentials in {len(self.groups)} shapes)"

    def replace(self, params: Sequence[Params]) -> Stack:
        """The stack with new parameters; nothing is compiled again.

        Args:
            params: K dicts {term: {column: array}} with the names and shapes of this stack.

        Raises:
            InputError: the number of potentials, a name or a shape is wrong.
        """
        if len(params) != len(self):
            raise InputError(
                f"params must contain parameters of {len(self)} potentials (got {len(params)})"
            )
        pairs = zip(self.potentials, params, strict=True)
        return Stack([potential.replace(values) for potential, values in pairs], self.groups)

    @property
    def params(self) -> tuple[Params, ...]:
        """Parameters of each group, with a leading axis of members and rows for ghosts."""
        return self._known.params

    @property
    def _known(self) -> _Prepared:
        """Data for evaluations, computed again after the parameters change."""
        groups = [group for potential in self.potentials for group in potential.params.values()]
        values = [value for group in groups for value in group.values()]
        known = vars(self).get("_last")
        # Flattening trees takes a fifth of the time of an evaluation; most columns are arrays.
        leaves = values if known is not None and known.flat else jax.tree.leaves(values)
        if known is None or not known.leaves.are(leaves):
            leaves = jax.tree.leaves(values)
            flat = len(leaves) == len(values) and all(map(is_, leaves, values))
            known = self._last = _Prepared(self, leaves, flat)
        return known

    def __reduce__(self):
        return Stack, (self.potentials, self.groups)  # compiled functions cannot be pickled

    def energy_and_forces(self, positions: Sequence) -> tuple[np.ndarray, list[np.ndarray]]:
        """Energies (K,) kcal/mol and K arrays of forces (N, 3) kcal/mol/Å.

        Args:
            positions: K arrays (N, 3) Å, one frame of each molecule; N may differ.

        Raises:
            InputError: the number of arrays or the shape of an array is wrong.
        """
        known = self._known
        frames = self._checked(positions, 2, known.dtypes)
        R = np.concatenate(frames)
        if known.joined is None:
            energies, F = np.zeros(len(self), R.dtype), np.zeros_like(R)
        else:
            energies, F = map(np.array, known.joined.energies_and_forces(R))
        forces = [F[begin:end] for begin, end in pairwise(self._starts)]
        for group, prepared in zip(self.groups, known.of_groups, strict=True):
            if isinstance(prepared, list):  # its interactions are joined
                continue
            filled = group.filled([frames[k][None] for k in group.members], 0, 1)
            results = jax.device_get(group.jit_energy_and_forces(prepared, filled))
            for k, n, E, F in zip(group.members, group.counts, *results, strict=True):
                energies[k], forces[k][:] = E[0], F[0, :n]
        return energies, forces

    def __call__(self, positions: Sequence) -> np.ndarray:
        """Energies (K,) kcal/mol; see `energy_and_forces` for the argument."""
        return self.energy_and_forces(positions)[0]

    def forces(self, positions: Sequence) -> list[np.ndarray]:
        """K arrays of forces (N, 3) kcal/mol/Å; see `energy_and_forces` for the argument."""
        return self.energy_and_forces(positions)[1]

    def predict(self, positions: Sequence) -> list[tuple[np.ndarray, np.ndarray]]:
        """Energies (M,) kcal/mol and forces (M, N, 3) kcal/mol/Å of each molecule.

        Args:
            positions: K arrays (M, N, 3) Å; M and N may differ between molecules.

        Raises:
            InputError: the number of arrays or the shape of an array is wrong.
        """
        known = self._known
        frames = self._checked(positions, 3, known.dtypes)
        energies: list[list] = [[] for _ in frames]
        forces: list[list] = [[] for _ in frames]
        for group, prepared in zip(self.groups, known.of_groups, strict=True):
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

    def _checked(self, positions: Sequence, ndim: int, dtypes: list[np.dtype]) -> list[np.ndarray]:
        """The positions as arrays with at least the precision of `dtypes`.

        Args:
            positions: K arrays (N, 3) or (M, N, 3) Å.
            ndim: number of axes that each array must have.
            dtypes: (K,) types of the potentials.

        Raises:
            InputError: the number of arrays or the shape of an array is wrong.
        """
        if len(positions) != len(self):
            raise InputError(
                f"positions must contain arrays of {len(self)} molecules (got {len(positions)})"
            )
        frames = []
        for k, (R, dtype) in enumerate(zip(positions, dtypes, strict=True)):
            R, n_atoms = np.asarray(R), self.potentials[k].n_atoms
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
    """A stack, which evaluates potentials of different molecules together.

    Potentials with the same kinds of terms are padded to one of a few numbers of atoms.  One
    program is compiled for each number.  Some terms, such as kernels and networks, cannot be
    padded.  Potentials with such terms share a program if all their arrays have equal shapes.

    Args:
        potentials: potentials of whole molecules, in any order.

    Raises:
        InputError: the list is empty, or a potential acts on some atoms of a larger system or
            needs a box.
    """
    return Stack(potentials)


class _Prepared:
    """Data for the evaluation of a stack, valid until its parameters change.

    Args:
        stack: the stack.
        leaves: the arrays of all parameters.
        flat: True if each column is an array, False if a column is a tree of arrays.
    """

    def __init__(self, stack: Stack, leaves: list[Any], flat: bool):
        self.flat = flat
        self.potentials, self.groups, self.starts = stack.potentials, stack.groups, stack._starts
        self.leaves = Leaves(leaves)
        self.dtypes = [np.dtype(potential.dtype) for potential in self.potentials]

    @cached_property
    def of_groups(self) -> tuple[Any, ...]:
        """The result of `StackGroup.prepared` for each group."""
        return _prepared(self.groups, self.params)

    @cached_property
    def params(self) -> tuple[Params, ...]:
        """Parameters of each group, with a leading axis of members and rows for ghosts."""
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

    @cached_property
    def joined(self) -> Joined | None:
        """Interactions of the groups whose energies are sums of interactions, or None."""
        parts = []
        for group, prepared in zip(self.groups, jax.device_get(self.of_groups), strict=True):
            for one in prepared if isinstance(prepared, list) else ():
                place, atom = np.divmod(one.atoms, group.n_atoms)
                real = (atom < np.array(group.counts)[place]).all(axis=0)
                place = place[0, real]
                owners = np.array(group.members)[place]
                parameters = tuple(p[real] for p in one.parameters)
                scale = None if one.scale is None else one.scale[place]
                atoms = self.starts[owners] + atom[:, real]
                parts.append((Interactions(one.energy, atoms, parameters, scale), owners))
        return Joined.of(parts, len(self.potentials)) if parts else None


@partial(jax.jit, static_argnames="groups")
def _prepared(groups: tuple[StackGroup, ...], params: tuple[Params, ...]) -> tuple[Any, ...]:
    pairs = zip(groups, params, strict=True)
    return tuple(group.prepared(values) for group, values in pairs)


def _check_without_box(potential: Potential, k: int) -> None:
    """Raise `InputError` if `potential` k of a stack needs a box."""
    program, params = potential.program, potential.params
    if "box" in program.reads(params):
        R = jax.ShapeDtypeStruct((potential.n_atoms, 3), potential.dtype)
        try:
            jax.eval_shape(program.energy, params, R)
        except Exception as error:
            raise InputError(
                f"potential {k} ({potential!r}) needs a box, but stacks have no box ({error}): "
                "evaluate this potential alone"
            ) from error


def _rows(column) -> int:
    return len(jax.tree.leaves(column)[0])
