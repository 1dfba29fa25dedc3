"""Initial and fitted values of the parameters of a fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxff.learn.joint import Joint
from jaxff.learn.problem import Problem
from jaxff.potential import Potential


class Change(NamedTuple):
    """Initial and fitted value of one number of a parameter.

    Attributes:
        name: name of the parameter, such as "bond.k".
        label: the atom types, or the atoms, that use the value.
        start: initial value.
        fitted: fitted value.
        error: standard error of the fitted value from least squares, or None.
        unit: unit of these three numbers.
    """

    name: str
    label: str
    start: float
    fitted: float
    error: float | None
    unit: str


def changes(problem: Problem, fitted: Potential, errors: np.ndarray | None) -> Iterator[Change]:
    """Yield the changes of all free values.

    Args:
        problem: the problem with the initial parameters.
        fitted: a potential with the fitted parameters.
        errors: (P,) standard errors, each divided by the scale of the parameter, or None.
    """
    free, place = problem.free, 0
    before, after = (free.values(potential.params) for potential in (free.start, fitted))
    for name in sorted(free.columns):  # the order of the moves
        known = free.columns[name]
        start, end = np.asarray(before[name]), np.asarray(after[name])
        labels = _labels(problem.joint, name[0], name[1], start.shape)
        rows = free.rows.get(name, np.ones(len(start) if start.ndim else 1, bool))
        loose = np.repeat(rows, start.size // max(len(rows), 1))
        for k, (a, b) in enumerate(zip(start.ravel(), end.ravel(), strict=True)):
            if not loose[k]:
                continue
            error = None if errors is None else float(errors[place + k]) * known.scale
            yield Change(".".join(name), labels[k], float(a), float(b), error, known.unit)
        place += start.size


def _labels(joint: Joint, term: str, column: str, shape: tuple[int, ...]) -> list[str]:
    """Return a name for each value of a column: the atom types, or atoms, that use the value."""
    rows = list(map(str, range(shape[0]))) if shape else [""]
    for program in joint.programs:
        kind = next(p.term for p in program.placed if p.name == term)
        for field, (label, columns) in kind.tables.items():
            if column not in columns:
                continue
            if label:
                rows = list(kind.row_names(field))
            elif getattr(kind, field).shape == (kind.n_atoms,):
                for row in np.unique(getattr(kind, field)):
                    atoms = np.flatnonzero(getattr(kind, field) == row)
                    rows[row] = f"atoms {','.join(map(str, atoms))}"
    each = int(np.prod(shape[1:], dtype=int))
    return [name if each == 1 else f"{name} [{k}]" for name in rows for k in range(each)]
