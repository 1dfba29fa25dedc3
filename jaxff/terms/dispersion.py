"""Energy of Lennard-Jones interactions beyond the cutoff, for a uniform density."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxff import geometry
from jaxff.terms.pair_sum import Form

Array = jax.Array


def tail_energy(c12: Array, c6: Array, types: Array, box: Array, form: Form) -> Array:
    """Energy () kcal/mol that the cutoff and the switching function of `form` remove.

    The energy is 2π N²/V ∫ (1 − S(r)) (⟨c12⟩/r¹⁰ − ⟨c6⟩/r⁴) dr, where S is the switching function,
    which is zero beyond the cutoff.  The means include the pairs of equal atoms, as in OpenMM.

    Args:
        c12, c6: (T, T) kcal/mol Å¹² and kcal/mol Å⁶, of pairs of types.
        types: (N,) rows of c12 and c6.
        box: (3, 3) Å, lattice vectors as rows.
        form: form of the pair energies.
    """
    n_atoms = len(types)
    if not n_atoms:
        return jnp.zeros((), c12.dtype)
    counts = jnp.bincount(types, length=len(c12)).astype(c12.dtype) / n_atoms

    def mean(c):
        return (counts @ c @ counts + counts @ jnp.diag(c) / n_atoms) / (1.0 + 1.0 / n_atoms)

    repulsion, attraction = (_integral(form, power) for power in (10, 4))
    volume = jnp.abs(geometry.determinant(box))
    integral = repulsion * mean(c12) - attraction * mean(c6)
    return 2.0 * math.pi * n_atoms * (n_atoms / volume) * integral


def _integral(form: Form, power: int) -> float:
    """The integral of (1 − S(r)) r^−power from zero to infinity, Å^(1 − power)."""
    beyond = form.cutoff ** (1 - power) / (power - 1)
    if form.switch is None:
        return beyond
    x, weights = np.polynomial.legendre.leggauss(40)
    x = 0.5 * (x + 1.0)
    width = form.cutoff - form.switch
    removed = x**3 * (10.0 + x * (6.0 * x - 15.0))
    return beyond + float(0.5 * width * weights @ (removed * (form.switch + width * x) ** -power))
