"""Input of the PyTorch program of fit.py."""

from __future__ import annotations

import numpy as np

from jaxff.parameters import FreeParameters

ENERGY_WEIGHT, LEARNING_RATE = 0.1, 0.05
ROWS, NONBONDED = ("atoms", "rows"), ("pairs", "pairs14", "rows14", "lj_rows", "charge_rows")


def problem(free: FreeParameters, train, order) -> dict:
    """Return index arrays, parameters, scales, frames and their order."""
    terms = {p.name: p.term for p in free.start.program.placed}
    values = {f"value:{t}.{c}": v for t, own in free.start.params.items() for c, v in own.items()}
    scales = {f"scale:{t}.{c}": column.scale for (t, c), column in free.columns.items()}
    # Fourier terms of torsions, then of impropers, each with a quadruple, a row and an n.
    fourier = {"atoms": [], "quadruples": [], "rows": [], "n": []}
    quadruples = rows = 0
    for term in (terms["torsion"], terms["improper"]):
        quadruple, slot = np.nonzero(term.rows >= 0)
        fourier["atoms"].append(term.atoms)
        fourier["quadruples"].append(quadruples + quadruple)
        fourier["rows"].append(rows + term.rows[quadruple, slot])
        fourier["n"].append(np.array(term.periodicities, int)[slot])
        quadruples, rows = quadruples + len(term.atoms), rows + len(term.labels)
    index = {f"fourier.{key}": np.concatenate(parts) for key, parts in fourier.items()}
    index |= {f"{t}.{key}": getattr(terms[t], key) for t in ("bond", "angle") for key in ROWS}
    index |= {key: getattr(terms["nonbonded"], key) for key in NONBONDED} | {"order": order}
    numbers = values | scales | {"R": train.positions, "E": train.energies, "F": train.forces}
    return (
        {key: np.asarray(value, np.int64) for key, value in index.items()}
        | {key: np.asarray(value, float) for key, value in numbers.items()}
        | {"energy_weight": ENERGY_WEIGHT, "learning_rate": LEARNING_RATE}
    )
