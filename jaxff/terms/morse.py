"""Morse bonds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from jaxff import geometry
from jaxff.interaction import Interactions
from jaxff.potential import Column, Term


def morse_bond(d, depth, width, length):
    """Energy depth (1 − exp(−width (r − length)))², () kcal/mol, at the length r.

    Args:
        d: (3,) Å, bond vector.
        depth: () kcal/mol, dissociation energy.
        width: () 1/Å, inverse width of the potential well.
        length: () Å, equilibrium length.
    """
    # expm1 is accurate near the minimum.
    return depth * jnp.expm1(-width * (geometry.length(d) - length)) ** 2


@dataclass(frozen=True, eq=False)
class MorseBond(Term):
    """Morse bonds; see `morse_bond`.

    Attributes:
        atoms: (B, 2) atom indices.
        rows: (B,) rows of the table of bond types.
        labels: names of the rows.

    Source: P. M. Morse, Phys. Rev. 34, 57 (1929).
    """

    kind: ClassVar[str] = "morse_bond"
    energy_name: ClassVar[str] = "bond"
    columns: ClassVar[dict[str, Column]] = {
        "depth": Column("kcal/mol", scale=20.0, lower=10.0, upper=1000.0),
        "width": Column("1/Å", scale=0.2, lower=0.3, upper=6.0),
        "length": Column("Å", scale=0.01, lower=0.5, upper=5.0),
    }

    tables: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {"rows": ("labels", tuple(columns))}
    indices: ClassVar[dict[str, tuple[str, ...]]] = {"atoms": ("atoms",) * 2}

    dimensions: ClassVar[dict[str, str]] = {"atoms": "B 2", "rows": "B"}

    n_atoms: int
    atoms: np.ndarray
    rows: np.ndarray
    labels: tuple[str, ...]

    def interactions(self, params):
        values = tuple(params[column][self.rows] for column in self.columns)
        return Interactions(morse_bond, self.atoms.T, values)
