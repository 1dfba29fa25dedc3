"""One table of parameters for several molecules, and one compiled function for many of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.potential import Params, Placed, Potential, Program, Term

# Sizes (atoms) to which molecules are filled up, so that few functions are compiled.
SIZES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
GHOSTS = 4  # atoms added to a molecule that is filled up: as many as an interaction has


@dataclass(frozen=True, eq=False)
class Joint:
    """Potentials that read one set of parameters, shared by the names of rows.

    Attributes:
        first: the first potential, with the common parameters.
        programs: of all potentials, their rows counted in the common tables.
        rows: {(term, column): (n,) rows of the common table} that each potential had of its own.
        members: the potentials themselves.
    """

    first: Potential
    programs: tuple[Program, ...]
    rows: tuple[dict[tuple[str, str], np.ndarray], ...]
    members: tuple[Potential, ...]

    @classmethod
    def of(cls, potentials: Sequence[Potential]) -> Joint:
        """Join potentials with terms of the same names and kinds; one alone stays as it is.

        Raises:
            InputError: other terms, terms that cannot be shared, or rows of one name that start
                from different values.
        """
        potentials = tuple(potentials)
        if len(potentials) == 1:
            return cls(potentials[0], (potentials[0].program,), ({},), potentials)
        _check(potentials)
        placed: list[list[Placed]] = [[] for _ in potentials]
        rows: tuple[dict, ...] = tuple({} for _ in potentials)
        params: Params = {}
        for own in zip(*(p.program.placed for p in potentials), strict=True):
            name = own[0].name
            terms = [p.term for p in own]
            terms = [term.alike(terms) for term in terms]
            terms, params[name], places = _shared(terms, [p.params[name] for p in potentials], name)
            for k, term in enumerate(terms):
                placed[k].append(Placed(name, term))
                rows[k].update({(name, column): at for column, at in places[k].items()})
        programs = tuple(map(Program, placed))
        first = Potential(programs[0], params, potentials[0].molecule)
        return cls(first, programs, rows, potentials)

    def potentials(self, params: Params) -> tuple[Potential, ...]:
        """The potentials with their own rows of common parameters."""
        if len(self.members) == 1:
            return (self.members[0].replace(params),)
        out = []
        for member, rows in zip(self.members, self.rows, strict=True):
            own = {
                term: {
                    key: params[term][key][rows[term, key]] if (term, key) in rows else value
                    for key, value in params[term].items()
                }
                for term in member.params
            }
            out.append(member.replace(own))
        return tuple(out)


def _check(potentials: Sequence[Potential]) -> None:
    wanted = [(p.name, p.term.kind) for p in potentials[0].program.placed]
    for potential in potentials:
        found = [(p.name, p.term.kind) for p in potential.program.placed]
        if found != wanted:
            raise InputError(
                f"potentials with terms {[n for n, _ in wanted]} and {[n for n, _ in found]} have "
                "no common table: make them by the same call, such as gaff(mol)"
            )
        for placed in potential.program.placed:
            term, params = placed.term, potential.params[placed.name]
            other = [
                f.name
                for f in fields(term)
                if isinstance(value := getattr(term, f.name), np.ndarray)
                and value.size
                and f.name not in {**term.tables, **term.indices}
            ]
            if not term.tables or placed.atoms is not None or "scale" in params or other:
                raise InputError(
                    f"the term {placed.name!r} ({term.kind}) of {potential!r} cannot be shared by "
                    "several molecules"
                    + (f": it has {', '.join(other)} of its own" if other else "")
                )


def _shared(terms: list[Term], params: list[dict], name: str):
    """Terms with rows of common tables, these tables, and which of them each has (by column)."""
    kind = terms[0]
    common: dict[str, Any] = {}
    places: list[dict[str, np.ndarray]] = [{} for _ in terms]
    for field, (label, columns) in kind.tables.items():
        number: dict[tuple, int] = {}
        seen: dict[str, list[set]] = {}
        labels, values = [], {column: [] for column in columns}
        for k, (term, own) in enumerate(zip(terms, params, strict=True)):
            arrays = [np.asarray(own[column]) for column in columns]
            count = len(arrays[0])
            names = term.row_names(field) if label else [str(row) for row in range(count)]
            at = np.zeros(count, np.int32)
            for row in range(count):
                # Means over interactions may differ in their last digits.
                start = tuple(array[row].astype(np.float32).tobytes() for array in arrays)
                key = (names[row], start) if label else (k, row)
                if label:
                    seen.setdefault(names[row], [set() for _ in terms])[k].add(start)
                if key not in number:
                    number[key] = len(number)
                    labels.append(getattr(term, label)[row] if label else "")
                    for column, array in zip(columns, arrays, strict=True):
                        values[column].append(array[row])
                at[row] = number[key]
            places[k].update(dict.fromkeys(columns, at))
        _agree(seen, name)
        for column, own in values.items():
            sample = np.asarray(params[0][column])
            common[column] = np.array(own, sample.dtype).reshape(len(own), *sample.shape[1:])
        for k, term in enumerate(terms):
            own = getattr(term, field)
            at = np.append(places[k][columns[0]], -1).astype(np.int32)  # -1 stays -1
            new = {field: at[own]} | ({label: tuple(labels)} if label else {})
            terms[k] = replace(term, **new)
    for column in params[0].keys() - common.keys():
        first = np.asarray(params[0][column])
        if any(not np.array_equal(first, own.get(column)) for own in params):
            raise InputError(f"{name}.{column} differs between the potentials; make it the same")
        common[column] = first
    return terms, common, places


def _agree(seen: dict[str, list[set]], name: str) -> None:
    for label, starts in seen.items():
        there = [own for own in starts if own]
        if not set.intersection(*there):
            raise InputError(
                f"the potentials start from different values for {name} {label}: make them with "
                "one force field, or fit them one by one"
            )


@dataclass(frozen=True, eq=False)
class Group:
    """Molecules whose index arrays have one shape, so that one compiled function serves all.

    Attributes:
        members: their numbers.
        program: the program of the first; with `arrays` it is that of any.
        arrays: for each its index arrays by term, or None where there is only one molecule.
        n_atoms: with ghosts.
    """

    members: tuple[int, ...]
    program: Program
    arrays: tuple[dict[str, dict[str, np.ndarray]] | None, ...]
    n_atoms: int

    def program_of(self, arrays) -> Program:
        """The program with these index arrays, which may be traced."""
        if arrays is None:
            return self.program
        placed = self.program.placed
        return Program(
            [Placed(p.name, _with(p.term, arrays[p.name], self.n_atoms)) for p in placed]
        )

    def params(self, params: Params) -> Params:
        """Tables with a further row of zeros, for interactions of ghosts."""
        if self.arrays[0] is None:
            return params
        out = {name: dict(own) for name, own in params.items()}
        for placed in self.program.placed:
            for _, columns in placed.term.tables.values():
                for column in columns:
                    table = out[placed.name][column]
                    zeros = jnp.zeros((1, *table.shape[1:]), table.dtype)
                    out[placed.name][column] = jnp.concatenate([table, zeros])
        return out

    def fill(self, values: np.ndarray, ghost: np.ndarray | float) -> np.ndarray:
        """(M, N, 3) with atoms added up to `n_atoms`, their rows those of `ghost`."""
        count = self.n_atoms - values.shape[1]
        if not count:
            return values
        more = np.broadcast_to(np.asarray(ghost, values.dtype), (len(values), count, 3))
        return np.concatenate([values, more], axis=1)


def ghost_positions(count: int) -> np.ndarray:
    """(count, 3) Å on a helix: no three in line, no two at one place."""
    t = 1.3 * np.arange(count)[:, None]
    return 1.5 * np.concatenate([np.cos(t), np.sin(t), 0.6 * t], axis=1)


def groups(programs: Sequence[Program]) -> Iterator[Group]:
    """Molecules by size, filled up by ghosts; a single molecule stays as it is."""
    if len(programs) == 1:
        yield Group((0,), programs[0], (None,), programs[0].n_atoms or programs[0].n_atoms_min)
        return
    by_size: dict[int, list[int]] = {}
    for k, program in enumerate(programs):
        n = program.n_atoms
        by_size.setdefault(next((s for s in SIZES if s >= n), n), []).append(k)
    for _, members in sorted(by_size.items()):
        own = [programs[k] for k in members]
        n_atoms = max(p.n_atoms for p in own) + GHOSTS
        arrays: list[dict] = [{} for _ in own]
        for places in zip(*(p.placed for p in own), strict=True):
            filled = _filled([p.term for p in places], n_atoms)
            for k, one in enumerate(filled):
                arrays[k][places[0].name] = one
        yield Group(tuple(members), own[0], tuple(arrays), n_atoms)


def _filled(terms: list[Term], n_atoms: int) -> list[dict[str, np.ndarray]]:
    """The index arrays of each term, filled up to common sizes by interactions of ghosts."""
    kind = terms[0]
    size = {
        field: max(len(getattr(term, field)) for term in terms) + GHOSTS
        for field in (*kind.tables, *kind.indices)
    }
    out = []
    for term in terms:
        own = {}
        for field in (*kind.tables, *kind.indices):
            array = np.asarray(getattr(term, field), np.int32)
            ghost = [
                n_atoms - GHOSTS + place if what == "atoms" else size[what] - 1
                for place, what in enumerate(kind.indices.get(field, ()))
            ] or -1  # the last row, which `Group.params` adds
            more = np.broadcast_to(ghost, (size[field] - len(array), *array.shape[1:]))
            own[field] = np.concatenate([array, more]).astype(np.int32)
        out.append(own)
    return out


def _with(term: Term, arrays: dict[str, Any], n_atoms: int) -> Term:
    """The term with other index arrays, traced ones too, and a name for the rows of ghosts."""
    new = copy.copy(term)
    for computed in vars(term).keys() - {f.name for f in fields(term)}:
        del vars(new)[computed]  # what was derived from the old arrays
    labels = {label for label, _ in term.tables.values() if label}
    vars(new).update(arrays, n_atoms=n_atoms, **{at: (*getattr(term, at), "") for at in labels})
    return new
