"""Particles in wells of closed form, fixed in space."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from jaxff import Molecule
from jaxff.potential import Column, Potential, Term


@dataclass(frozen=True, eq=False)
class Well(Term):
    """Every atom in a well, kcal/mol: harmonic, k/2 r², or with a > 0 double along x and coupled,
    a (x² − 1)² + (k + c x²) y²/2 + (k + c y²) z²/2."""

    n_atoms: int

    kind = "test well"
    columns: ClassVar = {
        "k": Column("kcal/mol/Å²"),
        "a": Column("kcal/mol"),
        "c": Column("kcal/mol/Å⁴"),
    }

    def energies(self, params, R, space):
        x2, y2, z2 = (R**2).T
        k, a, c = (params[key] for key in ("k", "a", "c"))
        along = jnp.where(a > 0, a * (x2 - 1.0) ** 2, 0.5 * k * x2)
        return {"well": jnp.sum(along + 0.5 * (k + c * x2) * y2 + 0.5 * (k + c * y2) * z2)}


def well(n_atoms=1, k=20.0, a=0.0, c=0.0):
    """The potential and its atoms: oxygen in a harmonic well, or with `a` in a double one."""
    positions = np.zeros((n_atoms, 3))
    positions[:, 0] = 1.0 if a else 0.0
    molecule = Molecule(
        numbers=np.full(n_atoms, 8), positions=positions, bonds=np.zeros((0, 2), int)
    )
    params = {"k": np.array(k), "a": np.array(a), "c": np.array(c)}
    return Potential.of("well", Well(n_atoms), params, molecule), molecule
