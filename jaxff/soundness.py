"""Checks of terms and parameters that come from files."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

from jaxff.npz import usable
from jaxff.term import Column, Params, Term, array_fields

SLACK = 2.0  # values in files may exceed the upper bound of training by this factor


def fault_of(term: Term, params: Params) -> str | None:
    """Describe the first fault of the fields or parameters of a term, or return None.

    Faults are wrong types, shapes, indices and values, and unknown parameters.

    Args:
        term: the term.
        params: parameters of the term, {column: tree of arrays}.
    """
    for check in (_unknown, _wrong_types, _wrong_shapes, _wrong_indices, _wrong_values):
        if fault := check(term, params):
            return fault
    return term.fault(params)


def _unknown(term: Term, params: Params) -> str | None:
    unknown = sorted(params.keys() - term.columns.keys() - {"scale"})
    return f"{unknown[0]} is not a parameter of the term {term.kind}" if unknown else None


def _wrong_types(term: Term, params: Params) -> str | None:
    if type(term.n_atoms) is not int or term.n_atoms < 1:
        return f"n_atoms must be a positive integer (got {term.n_atoms!r})"
    declared = {*term.tables, *term.indices, *term.dimensions} & set(array_fields(term))
    declared |= {*term.tables, *term.indices}
    for key in (*declared, *array_fields(term)):
        array = getattr(term, key)
        kind = array.dtype.kind if isinstance(array, np.ndarray | jax.Array) else "O"
        if kind not in ("iu" if key in declared else "iub"):
            return f"{key} must be an array of integers"
    for label, _ in term.tables.values():
        names = getattr(term, label) if label else ()
        if type(names) is not tuple or not all(isinstance(each, str) for each in names):
            return f"{label} must be a list of names"
    for column, value in params.items():
        for leaf in jax.tree.leaves(value):
            if leaf.dtype.kind != "f" or not usable(leaf).all():
                return f"{column} has values that are not finite floating-point numbers"
    return None


def _wrong_shapes(term: Term, params: Params) -> str | None:
    known = {"N": term.n_atoms}
    arrays: dict[str, Any] = {}
    for key in term.dimensions:
        if key in params:
            arrays[key] = params[key]
        elif (value := getattr(term, key, None)) is not None:
            arrays[key] = value
    if "scale" in params:
        arrays["scale"] = params["scale"]
    for key, value in arrays.items():
        shape = np.shape(value) if hasattr(value, "shape") else (len(value),)
        wanted = term.dimensions.get(key, "").split()
        sizes = [
            size if one == "_" else int(one) if one.isdigit() else known.setdefault(one, size)
            for one, size in zip(wanted, shape, strict=False)
        ]
        if len(wanted) != len(shape) or list(shape) != sizes:
            return f"{key} has the shape {shape}, expected ({', '.join(wanted)})"
    return None


def _wrong_indices(term: Term, params: Params) -> str | None:
    for key, counted in term.indices.items():
        array = np.asarray(getattr(term, key))
        if counted and (array.ndim != 2 or array.shape[1] != len(counted)):
            return f"{key} has the shape {array.shape}, expected (any, {len(counted)})"
        limits = [
            term.n_atoms if what == "atoms" else len(getattr(term, what)) for what in counted
        ] or 2
        if (array < 0).any() or (array >= np.array(limits)).any():
            return f"{key} contains an index that is out of range"
        if set(counted) == {"atoms"} and (np.diff(np.sort(array, axis=1), axis=1) == 0).any():
            return f"{key} contains one atom twice in one row"
    for key, (label, columns) in term.tables.items():
        tables = jax.tree.leaves([params.get(column, []) for column in columns])
        counts = {len(leaf) if np.ndim(leaf) else -1 for leaf in tables}
        counts |= {len(getattr(term, label))} if label else set()
        plain = [c for c in columns if isinstance(term.columns[c], Column)]
        for column in plain:
            if column not in term.dimensions and np.ndim(params.get(column, [])) != 1:
                return f"{column} has the shape {np.shape(params[column])}, expected (any,)"
        if len(counts) != 1:
            return f"{', '.join(columns)} must have one row for each name"
        array, least = np.asarray(getattr(term, key)), -1 if key in term.open_rows else 0
        if array.size and (array.min() < least or array.max() >= counts.pop()):
            return f"{key} contains a row that is out of range"
    return None


def _wrong_values(term: Term, params: Params) -> str | None:
    """Describe a value with the wrong sign or far above its bound, or return None.

    The bounds of a column apply to training, so values of a force field may exceed them.
    """
    for column in term.columns.keys() & params.keys():
        one = term.columns[column]
        if not isinstance(one, Column):  # networks have no bounds
            continue
        lowest = 0.0 if one.lower >= 0.0 else SLACK * one.lower
        highest = SLACK * one.upper if one.upper > 0.0 else math.inf
        for values in map(np.asarray, jax.tree.leaves(params[column])):
            wrong = values[(values < lowest) | (values > highest)]
            if wrong.size:
                return (
                    f"{column} has the value {wrong[0]:g} {one.unit}, but its bounds are "
                    f"{one.lower:g} and {one.upper:g}"
                )
    return None
