"""Harmonic bonds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxff import geometry
from jaxff.interaction import Interactions
from jaxff.potential import Column, Term


def harmonic_bond(d, k, length):
    """Energy k (r − length)², () kcal/mol, of a bond with the length r.

    Args:
        d: (3,) Å, bond vector.
        k: () kcal/mol/Å², force constant without the factor ½.
        length: () Å, equilibrium length.
    """
    return k * (geometry.length(d) - length) ** 2


@dataclass(frozen=True, eq=False)
class HarmonicBond(Term):
    """Harmonic bonds of the form used by AMBER; see `harmonic_bond`.

    Attributes:
        atoms: (B, 2) atom indices.
        rows: (B,) rows of the table of bond types.
        labels: names of the rows.

    Source: Cornell et al., J. Am. Chem. Soc. 117, 5179 (1995), eq. 1.
    """

    kind: ClassVar[str] = "harmonic_bond"
    energy_name: ClassVar[str] = "bond"
    columns: ClassVar[dict[str, Column]] = {
        "k": Column("kcal/mol/Å²", scale=30.0, lower=0.0),
        "length": Column("Å", scale=0.01, lower=0.5, upper=5.0),
    }

    tables: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {"rows": ("labels", ("k", "length"))}
    indices: ClassVar[dict[str, tuple[str, ...]]] = {"atoms": ("atoms",) * 2}

    dimensions: ClassVar[dict[str, str]] = {"atoms": "B 2", "rows": "B"}

    n_atoms: int
    atoms: np.ndarray
    rows: np.ndarray
    labels: tuple[str, ...]

    def interactions(self, params):
        values = (params["k"][self.rows], params["length"][self.rows])
        return Interactions(harmonic_bond, self.atoms.T, values)
