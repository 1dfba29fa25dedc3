"""One table of parameters for several molecules, and shared compiled functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxff.errors import InputError
from jaxff.padding import GHOSTS, can_be_padded, padded, size_class, with_ghost_rows
from jaxff.potential import Params, Placed, Potential, Program, Term
from jaxff.term import array_fields


@dataclass(frozen=True, eq=False)
class Joint:
    """Several potentials with common tables of parameters.

    A row of a table belongs to a type, such as a bond type. Rows with the same name are shared.

    Attributes:
        first: the first potential, with the common parameters.
        programs: the programs of all potentials, which use the common tables.
        rows: for each potential, {(term, column): (n,) row numbers}: the rows of the common table
            that correspond to the rows of the potential.
        members: the original potentials.
    """

    first: Potential
    programs: tuple[Program, ...]
    rows: tuple[dict[tuple[str, str], np.ndarray], ...]
    members: tuple[Potential, ...]

    @classmethod
    def of(cls, potentials: Sequence[Potential]) -> Joint:
        """Join potentials whose terms have the same names and kinds.

        Raises:
            InputError: the terms differ or cannot be shared, or rows of the same name have
                different values.
        """
        potentials = tuple(potentials)
        if len(potentials) == 1:
            return cls(potentials[0], (potentials[0].program,), ({},), potentials)
        _check(potentials)
        placed: list[list[Placed]] = [[] for _ in potentials]
        rows: tuple[dict, ...] = tuple({} for _ in potentials)
        params: Params = {}
        for alike in zip(*(p.program.placed for p in potentials), strict=True):
            name = alike[0].name
            terms = [p.term for p in alike]
            terms = [term.alike(terms) for term in terms]
            terms, params[name], places = _shared(terms, [p.params[name] for p in potentials], name)
            for k, term in enumerate(terms):
                placed[k].append(Placed(name, term))
                rows[k].update({(name, column): at for column, at in places[k].items()})
        pairs = zip(potentials, placed, strict=True)
        programs = tuple(potential.program.with_placed(terms) for potential, terms in pairs)
        first = Potential(programs[0], params, potentials[0].molecule)
        return cls(first, programs, rows, potentials)

    def potentials(self, params: Params) -> tuple[Potential, ...]:
        """Return the original potentials with the values `params` of the common parameters."""
        if len(self.members) == 1:
            return (self.members[0].replace(params),)
        out = []
        for member, rows in zip(self.members, self.rows, strict=True):
            selected = {
                term: {
                    key: _rows_of(value, rows[term, key]) if (term, key) in rows else value
                    for key, value in params[term].items()
                }
                for term in member.params
            }
            out.append(member.replace(selected))
        return tuple(out)


def _check(potentials: Sequence[Potential]) -> None:
    wanted = [(p.name, p.term.kind) for p in potentials[0].program.placed]
    for potential in potentials:
        present = [(p.name, p.term.kind) for p in potential.program.placed]
        if present != wanted:
            raise InputError(
                f"potentials with different terms, {[n for n, _ in wanted]} and "
                f"{[n for n, _ in present]}, have no common table: make all by the same call, such "
                "as gaff(mol)"
            )
        for placed, first in zip(
            potential.program.placed, potentials[0].program.placed, strict=True
        ):
            params, reason = potential.params[placed.name], ""
            if placed.atoms is not None:
                reason = "it acts on some atoms of a larger system"
            elif "scale" in params:
                reason = "it is scaled"
            elif not placed.term.tables:
                if not _equal(params, potentials[0].params[first.name]):
                    reason = "its parameters differ between the molecules"
            elif extra := _extra_arrays(placed.term):
                reason = f"its fields {', '.join(extra)} belong to one molecule"
            if reason:
                raise InputError(
                    f"the term {placed.name!r} ({placed.term.kind}) of {potential!r} cannot be "
                    f"shared by several molecules, because {reason}; fit the molecules one by one"
                )


def _extra_arrays(term: Term) -> list[str]:
    """Names of the fields with arrays that are neither row numbers of tables nor indices."""
    known = {**term.tables, **term.indices}
    return [f for f in array_fields(term) if getattr(term, f).size and f not in known]


def _equal(a, b) -> bool:
    """Whether two trees of arrays have the same structure and values."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=False)
    same = jax.tree.structure(a) == jax.tree.structure(b)
    return same and all(np.array_equal(x, y) for x, y in leaves)


def _rows_of(column, rows: np.ndarray):
    """Select rows of every array of a column."""
    return jax.tree.map(lambda table: table[rows], column)


def _shared(terms: list[Term], params: list[dict], name: str):
    """Merge the tables of terms into common tables.

    Args:
        terms: one term for each molecule.
        params: parameters of each term.
        name: name of the terms, for messages.

    Returns:
        The terms with row numbers of the common tables, the common tables, and the row numbers (n,)
        in the common table for each term and column.

    Raises:
        InputError: rows of the same name, or columns without rows, have different values.
    """
    common: dict[str, Any] = {}
    places: list[dict[str, np.ndarray]] = [{} for _ in terms]
    for field, (label, columns) in terms[0].tables.items():
        number: dict[tuple, int] = {}
        seen: dict[str, list[set]] = {}
        labels: list[str] = []
        first_rows: list[tuple[int, int]] = []  # the molecule and the row of each common row
        for k, (term, columns_of) in enumerate(zip(terms, params, strict=True)):
            arrays = [
                np.asarray(x) for column in columns for x in jax.tree.leaves(columns_of[column])
            ]
            count = len(arrays[0])
            names = term.row_names(field) if label else [str(row) for row in range(count)]
            place = np.zeros(count, np.int32)
            for row in range(count):
                # Means over interactions may differ in their last digits.
                start = tuple(array[row].astype(np.float32).tobytes() for array in arrays)
                key = (names[row], start) if label else (k, row)
                if label:
                    seen.setdefault(names[row], [set() for _ in terms])[k].add(start)
                if key not in number:
                    number[key] = len(number)
                    labels.append(getattr(term, label)[row] if label else "")
                    first_rows.append((k, row))
                place[row] = number[key]
            places[k].update(dict.fromkeys(columns, place))
        _agree(seen, name)
        for column in columns:

            def joined(*tables):
                tables = [np.asarray(table) for table in tables]
                rows = [tables[k][row] for k, row in first_rows]
                return np.array(rows, tables[0].dtype).reshape(len(rows), *tables[0].shape[1:])

            common[column] = jax.tree.map(joined, *(columns_of[column] for columns_of in params))
        for k, term in enumerate(terms):
            place = np.append(places[k][columns[0]], -1).astype(np.int32)  # −1 stays −1
            new = {field: place[getattr(term, field)]} | ({label: tuple(labels)} if label else {})
            terms[k] = replace(term, **new)
    for column in params[0].keys() - common.keys():
        first = params[0][column]
        if any(column not in other or not _equal(first, other[column]) for other in params):
            raise InputError(
                f"{name}.{column} differs between the potentials; give all the same value"
            )
        common[column] = first
    return terms, common, places


def _agree(seen: dict[str, list[set]], name: str) -> None:
    for label, starts in seen.items():
        if not set.intersection(*filter(None, starts)):
            raise InputError(
                f"the potentials have different values for {name} {label}: use the same force "
                "field for all potentials, or fit each one alone"
            )


@dataclass(frozen=True, eq=False)
class Group:
    """Molecules that share a compiled function; ghost atoms pad the arrays to one shape.

    Attributes:
        members: indices of the molecules.
        program: the program of the first molecule.
        padded: the padded programs; None for a single molecule, which is not padded.
        n_atoms: number of atoms, including ghosts.
    """

    members: tuple[int, ...]
    program: Program
    padded: tuple[Program | None, ...]
    n_atoms: int

    def params(self, params: Params) -> Params:
        """Parameters with one more row of zeros in each table, for interactions of ghosts."""
        return params if self.padded[0] is None else with_ghost_rows(self.program, params)


def groups(programs: Sequence[Program]) -> Iterator[Group]:
    """Yield groups of molecules of similar size, padded with ghosts."""
    if len(programs) == 1:
        yield Group((0,), programs[0], (None,), programs[0].n_atoms or programs[0].n_atoms_min)
        return
    by_size: dict[int, list[int]] = {}
    for k, program in enumerate(programs):
        if can_be_padded(program):
            by_size.setdefault(size_class(program.n_atoms or 0), []).append(k)
        else:
            yield Group((k,), program, (None,), program.n_atoms or program.n_atoms_min)
    for _, members in sorted(by_size.items()):
        alike = [programs[k] for k in members]
        n_atoms = max(p.n_atoms or 0 for p in alike) + GHOSTS
        yield Group(tuple(members), alike[0], tuple(padded(alike, n_atoms)), n_atoms)
