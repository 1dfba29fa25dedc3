"""Harmonic angles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxff import geometry
from jaxff.interaction import Interactions
from jaxff.potential import Column, Term


def harmonic_angle(b1, b2, k, angle):
    """Energy k (θ − angle)², () kcal/mol, of an angle θ.

    Args:
        b1, b2: (3,) Å, from the first atom to the vertex, and from the vertex to the last atom.
        k: () kcal/mol/rad², force constant without the factor ½.
        angle: () rad, equilibrium angle.
    """
    return k * geometry.squared_deviation(-b1, b2, angle)


@dataclass(frozen=True, eq=False)
class HarmonicAngle(Term):
    """Harmonic angles of the form used by AMBER; see `harmonic_angle`.

    Attributes:
        atoms: (A, 3) atom indices; the vertex is second.
        rows: (A,) rows of the table of angle types.
        labels: names of the rows.

    Source: Cornell et al., J. Am. Chem. Soc. 117, 5179 (1995), eq. 1.
    """

    kind: ClassVar[str] = "harmonic_angle"
    energy_name: ClassVar[str] = "angle"
    columns: ClassVar[dict[str, Column]] = {
        "k": Column("kcal/mol/rad²", scale=5.0, lower=0.0),
        # AMBER prints 180° as 3.141594
        "angle": Column("rad", scale=0.02, lower=0.0, upper=3.1416),
    }

    tables: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {"rows": ("labels", ("k", "angle"))}
    indices: ClassVar[dict[str, tuple[str, ...]]] = {"atoms": ("atoms",) * 3}

    dimensions: ClassVar[dict[str, str]] = {"atoms": "A 3", "rows": "A"}

    n_atoms: int
    atoms: np.ndarray
    rows: np.ndarray
    labels: tuple[str, ...]

    def interactions(self, params):
        values = (params["k"][self.rows], params["angle"][self.rows])
        return Interactions(harmonic_angle, self.atoms.T, values)
