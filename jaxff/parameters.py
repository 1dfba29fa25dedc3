"""Free parameters: the parameters of a potential that a fit changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.potential import Column, Params, Potential, Program

Name = tuple[str, ...]  # term, column, and the keys below it, such as ("net", "weights", "bias")
Moves = dict[Name, jax.Array]


class Leaf(NamedTuple):
    """One parameter array.

    Attributes:
        name: term, column, and the keys of the array if the column is a tree.
        column: unit, scale and bounds.
        value: the array.
    """

    name: Name
    column: Column
    value: jax.Array


def parameter_leaves(potential: Potential) -> list[Leaf]:
    """All parameter arrays of a potential, in the order of `jax.tree.leaves`."""
    columns = potential.columns
    flat = jax.tree_util.tree_leaves_with_path(potential.params)
    names = [tuple(map(_key, path)) for path, _ in flat]
    return [
        Leaf(name, _column(columns, name), value)
        for name, (_, value) in zip(names, flat, strict=True)
    ]


def _key(entry) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def _column(columns, name: Name) -> Column:
    """The column of the parameter `name`, from a tree of columns.

    All arrays of a subtree of parameters may share one column.
    """
    for key in name:
        if isinstance(columns, Column):
            break
        columns = columns[key]
    return columns


@dataclass(frozen=True, eq=False)
class FreeParameters:
    """The free parameters of a potential; their changes in a fit are called moves.

    A move is the change of a parameter divided by the `scale` of its column, so that all moves have
    similar sizes.

    Attributes:
        start: the potential with the initial parameters.
        columns: {name: Column} of the free parameters.
        other_programs: programs of other molecules that use the same parameters.
        rows: {name: (n,) booleans} for arrays with free and fixed rows; True for free rows.
    """

    start: Potential
    columns: dict[Name, Column]
    other_programs: tuple[Program, ...] = ()
    rows: dict[Name, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        potential: Potential,
        patterns: Sequence[str] | None = None,
        other_programs: Sequence[Program] = (),
    ) -> FreeParameters:
        """Select the free parameters by patterns for their dotted names.

        A pattern such as "bond.*" or "net.weights.*.kernel" selects all parameters with matching
        names.  A pattern with a colon, such as "torsion.k:c3-c3-oh-ho*", selects rows.

        Some parameters need an explicit pattern.  Columns that are not trainable, such as 1-4
        factors, need a pattern with the name of the column, such as "nonbonded.lj14".  Rows
        without a defined meaning, such as torsions about a straight angle, need a pattern for rows.

        Args:
            potential: the potential.
            patterns: patterns of names, or None for all trainable parameters.
            other_programs: programs of other molecules that use the same parameters.

        Raises:
            InputError: no parameter matches, or the matching arrays are empty.
        """
        patterns = [patterns] if isinstance(patterns, str) else patterns
        parts = [pattern.partition(":") for pattern in (["*"] if patterns is None else patterns)]
        leaves = parameter_leaves(potential)
        columns: dict[Name, Column] = {}
        rows: dict[Name, np.ndarray] = {}
        for name, column, _ in leaves:
            matching = [p for p in parts if fnmatchcase(".".join(name), p[0])]
            named = any(p[0].rpartition(".")[2] == name[-1] for p in matching)
            if matching and (column.trainable or named):
                columns[name] = column
                if all(colon for _, colon, _ in matching):
                    labels = _row_names(potential.program, *name[:2])
                    free = [any(fnmatchcase(label, p[2]) for p in matching) for label in labels]
                    rows[name] = np.array(free, bool)
        angles = _equilibrium_angles(potential)
        terms = {placed.name: placed.term for placed in potential.program.placed}
        for name in columns:
            undefined = terms[name[0]].undefined_rows(name[1], angles)
            if undefined.any() and name not in rows:
                rows[name] = ~undefined
        empty = [
            ".".join(leaf.name) for leaf in leaves if leaf.name in columns and not leaf.value.size
        ]
        columns = {key: c for key, c in columns.items() if key not in rows or rows[key].any()}
        if not sum(leaf.value.size for leaf in leaves if leaf.name in columns):
            if empty:
                raise InputError(
                    f"the arrays {', '.join(empty)} are empty, because this potential has no such "
                    "interactions; select other parameters"
                )
            known = ", ".join(".".join(leaf.name) for leaf in leaves)
            wanted = "is trainable" if patterns is None else f"matches {list(patterns)}"
            raise InputError(f"no parameter {wanted}; use names of this potential: {known}")
        rows = {key: free for key, free in rows.items() if key in columns}
        return cls(potential, columns, tuple(other_programs), rows)

    @property
    def names(self) -> tuple[str, ...]:
        """The dotted names of the free parameters."""
        return tuple(map(".".join, self.columns))

    def values(self, params: Params) -> Moves:
        """The free arrays of `params`, {name: array}."""
        leaves = jax.tree.leaves(params)
        return {name: leaves[place] for name, place in self._places.items()}

    @cached_property
    def _places(self) -> dict[Name, int]:
        """The index of each free array in ``jax.tree.leaves(params)``, {name: index}."""
        places = {leaf.name: i for i, leaf in enumerate(parameter_leaves(self.start))}
        return {name: places[name] for name in self.columns}

    def no_moves(self) -> Moves:
        """Moves (scaled changes) of zero, {name: zeros}."""
        return {name: jnp.zeros_like(v) for name, v in self.values(self.start.params).items()}

    def params(self, moves: Moves) -> Params:
        """All parameters after the scaled changes `moves`; fixed rows do not change."""
        moved = {}
        for name, start in self.values(self.start.params).items():
            moved[name] = start + self.columns[name].scale * moves[name]
            if name in self.rows:
                free = self.rows[name].reshape(-1, *(1,) * (start.ndim - 1))
                moved[name] = jnp.where(free, moved[name], start)
        return self.with_values(moved)

    def with_values(self, values: Moves) -> Params:
        """All parameters, where `values`, {name: array}, replace the free arrays."""
        leaves, structure = jax.tree.flatten(self.start.params)
        for name, place in self._places.items():
            leaves[place] = values[name]
        return jax.tree.unflatten(structure, leaves)

    def moved(self, moves: Moves) -> Potential:
        """The potential after the scaled changes `moves`; the dtypes do not change."""
        moved, start = self.params(moves), self.start.params
        return self.start.replace(
            jax.tree.map(lambda new, old: new.astype(old.dtype), moved, start)
        )

    def confined(self, moves: Moves) -> Moves:
        """The scaled changes `moves`, corrected for bounds and conserved quantities."""
        values = self.values(self.params(moves))
        clipped = {
            name: jnp.clip(values[name], column.lower, column.upper)
            for name, column in self.columns.items()
        }
        return self.conserving(self._moves(clipped))

    def conserving(self, moves: Moves) -> Moves:
        """The scaled changes `moves`, corrected to conserve, for example, the charge."""
        params: dict[str, Any] = dict(self.params(moves))
        start = self.start.params
        for program in (self.start.program, *self.other_programs):
            for placed in program.placed:
                name = placed.name
                params[name] = placed.term.constrain(params[name], start[name])
        return self._moves(self.values(params))

    def limits(self) -> tuple[Moves, Moves]:
        """Lowest and highest moves (scaled changes) within the bounds of the columns."""
        start = self.values(self.start.params)
        low, high = (
            {
                name: (getattr(column, bound) - start[name]) / column.scale
                for name, column in self.columns.items()
            }
            for bound in ("lower", "upper")
        )
        return low, high

    def _moves(self, values: Moves) -> Moves:
        start = self.values(self.start.params)
        return {
            name: (values[name] - start[name]) / column.scale
            for name, column in self.columns.items()
        }


def _equilibrium_angles(potential: Potential) -> dict[str, float]:
    """{row name: equilibrium angle, rad} of all terms with a column `angle`."""
    angles: dict[str, float] = {}
    for placed in potential.program.placed:
        if "angle" in placed.term.columns:
            names = _row_names(potential.program, placed.name, "angle")
            values = np.asarray(potential.params[placed.name]["angle"]).tolist()
            angles |= dict(zip(names, values, strict=False))
    return angles


def _row_names(program: Program, term: str, column: str) -> tuple[str, ...]:
    """Names (n,) of the rows of a column; empty if the rows have no names."""
    placed = next(p.term for p in program.placed if p.name == term)
    for table, (label, columns) in placed.tables.items():
        if label and column in columns:
            return placed.row_names(table)
    return ()
