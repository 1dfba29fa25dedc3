"""Harmonic angles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxff import geometry
from jaxff.interaction import Interactions
from jaxff.potential import Column, Term


def harmonic_angle(b1, b2, k, angle):
    """k (θ − angle)² () kcal/mol of bond vectors (3,) Å that meet at θ; k kcal/mol/rad² (no ½)."""
    return k * geometry.squared_deviation(-b1, b2, angle)


@dataclass(frozen=True, eq=False)
class HarmonicAngle(Term):
    """Harmonic angles: `atoms` (A, 3), the vertex second, `rows` (A,), `labels` of the rows.

    AMBER's form, Cornell et al., J. Am. Chem. Soc. 117, 5179 (1995), eq. 1.
    """

    kind: ClassVar[str] = "harmonic_angle"
    columns: ClassVar[dict[str, Column]] = {
        "k": Column("kcal/mol/rad²", scale=5.0, lower=0.0),
        # AMBER prints 180° as 3.141594
        "angle": Column("rad", scale=0.02, lower=0.0, upper=3.1416),
    }

    tables: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {"rows": ("labels", ("k", "angle"))}
    indices: ClassVar[dict[str, tuple[str, ...]]] = {"atoms": ("atoms",) * 3}

    n_atoms: int
    atoms: np.ndarray
    rows: np.ndarray
    labels: tuple[str, ...]

    def interactions(self, params):
        own = (params["k"][self.rows], params["angle"][self.rows])
        return Interactions(harmonic_angle, self.atoms.T, own)

    def energies(self, params, R, **context):
        return {"angle": self.interactions(params).each(R).sum()}
