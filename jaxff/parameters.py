"""The parameters of a potential that training may move, and how it moves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.potential import Column, Params, Potential, Program

Moves = dict[tuple[str, str], jax.Array]


@dataclass(frozen=True, eq=False)
class FreeParameters:
    """The free parameters of a potential, and moves of them away from where they stand.

    A move is counted in the column's `scale`, so that moves of all columns are of one size.

    Attributes:
        start: the potential they belong to.
        columns: {(term, column): Column} of those that are free.
        beside: programs of other molecules that read the same parameters.
        rows: {(term, column): (n,) booleans}, which rows are free where not all of them are.
    """

    start: Potential
    columns: dict[tuple[str, str], Column]
    beside: tuple[Program, ...] = ()
    rows: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        potential: Potential,
        patterns: Sequence[str] | None = None,
        beside: Sequence[Program] = (),
    ) -> FreeParameters:
        """Those whose dotted names match a pattern such as "bond.*"; None: what terms declare.

        A pattern with a colon, such as "torsion.k:c3-c3-oh-ho*", frees the rows of that name alone.
        Columns that terms do not declare trainable, such as 1-4 factors, are free only where a
        pattern names the column itself, such as "nonbonded.lj14"; rows that mean nothing, such as
        those of torsions about a straight angle, only where a pattern names rows.

        Raises:
            InputError: there are none.
        """
        patterns = [patterns] if isinstance(patterns, str) else patterns
        columns, rows = {}, {}
        parts = [pattern.partition(":") for pattern in patterns or ["*"]]
        for term, own in potential.columns.items():
            for key, column in own.items():
                found = [p for p in parts if fnmatchcase(f"{term}.{key}", p[0])]
                named = any(p[0].rpartition(".")[2] == key for p in found)
                if found and (column.trainable or named):
                    columns[term, key] = column
                    if all(colon for _, colon, _ in found):
                        names = _row_names(potential.program, term, key)
                        rows[term, key] = np.array(
                            [any(fnmatchcase(name, p[2]) for p in found) for name in names], bool
                        )
        at_rest = _angles_at_rest(potential)
        for placed in potential.program.placed:
            for key in (key for term, key in columns if term == placed.name):
                undefined = placed.term.undefined_rows(key, at_rest)
                if undefined.any() and (placed.name, key) not in rows:
                    rows[placed.name, key] = ~undefined
        columns = {key: c for key, c in columns.items() if key not in rows or rows[key].any()}
        if not sum(potential.params[term][key].size for term, key in columns):
            known = ", ".join(f"{t}.{c}" for t, own in potential.columns.items() for c in own)
            wanted = "is trainable" if patterns is None else f"matches {list(patterns)}"
            raise InputError(f"no parameter {wanted}; this potential has {known}")
        return cls(
            potential, columns, tuple(beside), {k: v for k, v in rows.items() if k in columns}
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Their dotted names."""
        return tuple(f"{term}.{key}" for term, key in self.columns)

    def no_moves(self) -> Moves:
        return {key: jnp.zeros_like(self.start.params[key[0]][key[1]]) for key in self.columns}

    def params(self, moves: Moves) -> Params:
        """The potential's parameters after `moves`."""
        params = {term: dict(own) for term, own in self.start.params.items()}
        for (term, key), column in self.columns.items():
            params[term][key] = params[term][key] + column.scale * moves[term, key]
        for (term, key), free in self.rows.items():
            start = self.start.params[term][key]
            free = free.reshape(-1, *(1,) * (start.ndim - 1))
            params[term][key] = jnp.where(free, params[term][key], start)
        return params

    def moved(self, moves: Moves) -> Potential:
        """The potential after `moves`."""
        return self.start.replace(self.params(moves))

    def confined(self, moves: Moves) -> Moves:
        """Moves cut back to each column's bounds and to what each term conserves."""
        params = self.params(moves)
        clipped = {
            (term, key): jnp.clip(params[term][key], column.lower, column.upper)
            for (term, key), column in self.columns.items()
        }
        return self.conserving(self._moves(clipped))

    def conserving(self, moves: Moves) -> Moves:
        """Moves cut back to what each term conserves, such as the net charge."""
        params, start = self.params(moves), self.start.params
        for program in (self.start.program, *self.beside):
            for placed in program.placed:
                name = placed.name
                params[name] = placed.term.constrain(params[name], start[name])
        return self._moves({(term, key): params[term][key] for term, key in self.columns})

    def limits(self) -> tuple[Moves, Moves]:
        """The lowest and the highest moves that the columns allow."""
        start, low, high = self.start.params, {}, {}
        for (term, key), column in self.columns.items():
            low[term, key] = (column.lower - start[term][key]) / column.scale
            high[term, key] = (column.upper - start[term][key]) / column.scale
        return low, high

    def _moves(self, values: Moves) -> Moves:
        start = self.start.params
        return {
            (term, key): (values[term, key] - start[term][key]) / column.scale
            for (term, key), column in self.columns.items()
        }


def _angles_at_rest(potential: Potential) -> dict[str, float]:
    """Radians by the names of the rows, of all terms with a column of angles."""
    found: dict[str, float] = {}
    for placed in potential.program.placed:
        if "angle" in placed.term.columns:
            names = _row_names(potential.program, placed.name, "angle")
            values = np.asarray(potential.params[placed.name]["angle"]).tolist()
            found |= dict(zip(names, values, strict=False))
    return found


def _row_names(program: Program, term: str, column: str) -> tuple[str, ...]:
    """Names of the rows of a column; none if they have none."""
    own = next(p.term for p in program.placed if p.name == term)
    for table, (label, columns) in own.tables.items():
        if label and column in columns:
            return own.row_names(table)
    return ()
