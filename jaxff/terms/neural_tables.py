"""Neural terms of a molecule, made from the tables of a GAFF force field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from jaxff.term import Term
from jaxff.terms.class2 import _ends_first, _numbered
from jaxff.terms.neural import WIDTHS, NeuralAngle, NeuralBond, NeuralImproper, NeuralTorsion, start


def neural_terms(types: Sequence[str], bonds, angles, torsions, impropers) -> tuple[dict, dict]:
    """Make neural terms and their parameters; the initial energies are those of GAFF.

    Args:
        types: (N,) atom types.
        bonds: the `Table` of bonds of a topology, with the columns k and length.
        angles: the `Table` of angles of a topology, with the columns k and angle.
        torsions, impropers: a `FourierTorsion` and a `FourierImproper`, each with its parameters.

    Returns:
        {name: term} and {name: {column: tree of arrays}}.
    """
    n = len(types)
    b, a = bonds, angles
    length = dict(
        zip(map(frozenset, b.atoms.tolist()), b.values["length"][b.rows].tolist(), strict=True)
    )
    angle = dict(
        zip(map(_ends_first, a.atoms.tolist()), a.values["angle"][a.rows].tolist(), strict=True)
    )

    def lengths(chain) -> list[float]:
        return [length[frozenset(chain[k : k + 2])] for k in range(len(chain) - 1)]

    terms: dict[str, Term] = {"bond": NeuralBond(n, b.atoms, b.rows, b.labels)}
    params = {
        "bond": {**b.values, "network": start(len(b.labels), 1, WIDTHS["bond"], ("stiffness",))}
    }

    atoms = _oriented(types, a.atoms)
    terms["angle"] = NeuralAngle(n, atoms, a.rows, _palindromic(types, atoms), a.labels)
    params["angle"] = {
        **a.values,
        "lengths": _means([lengths(x) for x in atoms.tolist()], a.rows, len(a.labels), 2),
        "network": start(len(a.labels), 3, WIDTHS["angle"], ("stiffness", "energy")),
    }

    term, values = torsions
    atoms = _oriented(types, term.atoms)
    labels, rows = _numbered(_names(types, atoms))
    chains = atoms.tolist()
    pairs_of_angles = [[angle[_ends_first(x[k : k + 3])] for k in range(2)] for x in chains]
    params["torsion"] = {
        **values,
        "lengths": _means([lengths(x) for x in chains], rows, len(labels), 3),
        "angles": _means(pairs_of_angles, rows, len(labels), 2),
        "network": start(len(labels), 7, WIDTHS["torsion"], ("energy",)),
    }
    terms["torsion"] = NeuralTorsion(
        **_fields(replace(term, atoms=atoms)),
        type_rows=rows,
        palindromic=_palindromic(types, atoms),
        type_labels=labels,
    )

    term, values = impropers
    labels, rows = _numbered(_names(types, term.atoms))
    terms["improper"] = NeuralImproper(**_fields(term), type_rows=rows, type_labels=labels)
    networks = start(len(labels), 2, WIDTHS["improper"], ("energy",))
    params["improper"] = {**values, "network": networks}
    return terms, params


def _fields(term: Term) -> dict[str, Any]:
    return {field.name: getattr(term, field.name) for field in fields(term)}


def _oriented(types: Sequence[str], atoms: np.ndarray) -> np.ndarray:
    """Atoms (n, k), reversed if the reversed types come first in the alphabet."""
    rows = atoms.tolist()
    turned = [
        row[::-1] if [types[a] for a in row[::-1]] < [types[a] for a in row] else row
        for row in rows
    ]
    return np.array(turned, np.int32).reshape(atoms.shape)


def _palindromic(types: Sequence[str], atoms: np.ndarray) -> np.ndarray:
    names = [[types[a] for a in row] for row in atoms.tolist()]
    return np.array([row == row[::-1] for row in names], np.int32)


def _names(types: Sequence[str], atoms: np.ndarray) -> list[str]:
    rows: list[list[int]] = atoms.tolist()
    return ["-".join(types[a] for a in row) for row in rows]


def _means(values, rows: np.ndarray, n_rows: int, width: int) -> np.ndarray:
    """Means (n_rows, width) of values (n, width) over the entries of each row.

    Args:
        values: (n, width).
        rows: (n,) row of each entry.
        n_rows: number of rows.
        width: number of values of each entry.
    """
    out = np.zeros((n_rows, width))
    np.add.at(out, rows, np.array(values, float).reshape(-1, width))
    return out / np.bincount(rows, minlength=n_rows)[:, None]
