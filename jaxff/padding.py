"""Padding of molecules to common sizes with ghosts, which affect no real atom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.potential import Params, Placed, Program
from jaxff.term import Term, array_fields, name_fields

# Numbers of atoms to which molecules are padded, so that few programs are compiled.
SIZES = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
GHOSTS = 4  # minimum number of ghost atoms, and the largest number of atoms of an interaction


def size_class(n_atoms: int) -> int:
    """The smallest of `SIZES` that is at least `n_atoms`; `n_atoms` if there is none."""
    return next((size for size in SIZES if size >= n_atoms), n_atoms)


def ghost_positions(count: int) -> np.ndarray:
    """Positions (count, 3) Å of ghosts on a helix; no three are collinear."""
    t = 1.3 * np.arange(count)[:, None]
    return 1.5 * np.concatenate([np.cos(t), np.sin(t), 0.6 * t], axis=1)


def with_ghosts(values: np.ndarray, n_atoms: int, ghost: np.ndarray | float = 0.0) -> np.ndarray:
    """Append rows for ghosts to an array.

    Args:
        values: (..., N, 3).
        n_atoms: number of rows of the result.
        ghost: (n_atoms − N, 3) rows, or a number for all of them.

    Returns:
        An array (..., n_atoms, 3).
    """
    count = n_atoms - values.shape[-2]
    shape = (*values.shape[:-2], count, 3)
    more = np.broadcast_to(np.asarray(ghost, values.dtype), shape)
    return np.concatenate([values, more], axis=-2)


def can_be_padded(program: Program) -> bool:
    """Whether ghosts can be added, which requires that each term declares its arrays.

    Every array field of every term must be in `Term.tables` or `Term.indices`.
    """
    return all(
        placed.atoms is None
        and all(
            name in placed.term.tables or name in placed.term.indices
            for name in array_fields(placed.term)
            if getattr(placed.term, name).size
        )
        and placed.term.tables
        for placed in program.placed
    )


def padded(programs: Sequence[Program], n_atoms: int) -> list[Program]:
    """Pad programs with ghosts, so that their arrays have equal shapes.

    Args:
        programs: programs of molecules, with the same terms.
        n_atoms: number of atoms including ghosts.  It exceeds the number of atoms of the largest
            molecule by at least `GHOSTS`.

    Returns:
        The padded programs.  The interactions of ghosts use an additional last row of every table;
        see `with_ghost_rows`.
    """
    columns = [
        _padded_terms([program.placed[i].term for program in programs], n_atoms)
        for i in range(len(programs[0].placed))
    ]
    names = programs[0].names
    return [
        Program([Placed(name, term) for name, term in zip(names, terms, strict=True)])
        for terms in zip(*columns, strict=True)
    ]


def _padded_terms(terms: list[Term], n_atoms: int) -> list[Term]:
    terms = [term.alike(terms) for term in terms]
    kind = terms[0]
    names = [name for name in (*kind.tables, *kind.indices) if name in array_fields(kind)]
    size = {name: max(len(getattr(term, name)) for term in terms) + GHOSTS for name in names}
    out = []
    for term in terms:
        arrays: dict[str, Any] = {}
        for name in names:
            array = np.asarray(getattr(term, name), np.int32)
            ghost = [
                n_atoms - GHOSTS + place if counted == "atoms" else size[counted] - 1
                for place, counted in enumerate(kind.indices.get(name, ()))
            ] or -1  # the last row of a table
            more = np.broadcast_to(ghost, (size[name] - len(array), *array.shape[1:]))
            arrays[name] = np.concatenate([array, more]).astype(np.int32)
        out.append(replace(term, n_atoms=n_atoms, **arrays))
    return with_equal_names(out)


def with_equal_names(terms: list[Term]) -> list[Term]:
    """The terms, with the values of the first term in their fields `name_fields`."""
    first = terms[0]
    names = {name: getattr(first, name) for name in name_fields(first)}
    return [replace(term, **names) for term in terms]


def with_ghost_rows(program: Program, params: Params, rows: dict | None = None) -> Params:
    """Parameters with rows of zeros for ghosts at the end of every table.

    Args:
        program: the program; its terms declare the tables.
        params: {term: {column: tree of arrays}}.
        rows: {(term, column): total number of rows}; None: one additional row in each table.
    """
    out = {name: dict(columns) for name, columns in params.items()}
    for name, column in table_columns(program):

        def longer(table, key=(name, column)):
            count = len(table) + 1 if rows is None else rows[key]
            zeros = jnp.zeros((count - len(table), *table.shape[1:]), table.dtype)
            return jnp.concatenate([table, zeros])

        out[name][column] = jax.tree.map(longer, out[name][column])
    return out


def table_columns(program: Program) -> Iterator[tuple[str, str]]:
    """Yield (term name, column) of all parameters that are tables."""
    for placed in program.placed:
        for _, columns in placed.term.tables.values():
            for column in columns:
                yield placed.name, column
