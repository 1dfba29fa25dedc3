"""Lennard-Jones and Coulomb interactions of all pairs, with exclusions and scaled 1-4 pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxff import geometry
from jaxff.interaction import Interactions
from jaxff.potential import Column, Term

MATRIX_ATOMS = 256  # to which the parameters of pairs are kept as matrices, too


def lennard_jones_coulomb(d, c12, c6, qq):
    """c12/r¹² − c6/r⁶ and qq/r, each () kcal/mol, of a vector d (3,) Å."""
    inverse2 = 1.0 / geometry.square(d)
    inverse6 = inverse2 * inverse2 * inverse2
    return (c12 * inverse6 - c6) * inverse6, qq * jnp.sqrt(inverse2)


def pair_energy(d, c12, c6, qq):
    """c12/r¹² − c6/r⁶ + qq/r () kcal/mol of a vector d (3,) Å."""
    return _pair_energy(geometry.square(d), c12, c6, qq)


@jax.custom_jvp
def _pair_energy(square, c12, c6, qq):
    inverse2 = 1.0 / square
    inverse6 = inverse2 * inverse2 * inverse2
    return (c12 * inverse6 - c6) * inverse6 + qq * jnp.sqrt(inverse2)


@_pair_energy.defjvp
def _pair_energy_jvp(primals, tangents):
    # Autodiff of the powers costs a kernel more for each; and what ends in a division XLA computes
    # once, not again for each axis of the vector.
    square, c12, c6, qq = primals
    by_square, by_c12, by_c6, by_qq = tangents
    inverse2 = 1.0 / square
    inverse6, inverse = inverse2 * inverse2 * inverse2, jnp.sqrt(inverse2)
    slope = ((3.0 * c6 - 6.0 * c12 * inverse6) * inverse6 - 0.5 * qq * inverse) / square
    tangent = slope * by_square + (by_c12 * inverse6 - by_c6) * inverse6 + by_qq * inverse
    return _pair_energy(*primals), tangent


@dataclass(frozen=True, eq=False)
class Nonbonded(Term):
    """Lennard-Jones and Coulomb energies of all pairs but the excluded, and of the 1-4 pairs.

    One term, because both need the same distances.  σ and ε are combined by the rules of Lorentz
    and Berthelot, but for the pairs of types in `overrides`, which have their own c12 and c6.

    Attributes:
        lj_rows: (N,) rows of sigma and epsilon; `lj_labels` are their names.
        charge_rows: (N,) rows of charge.
        exclusions: (E, 2) atoms without the normal interaction, 1-4 pairs among them.
        pairs14: (P, 2) atoms with a scaled interaction, by `rows14` (P,) of lj14 and coulomb14.
        overrides: (V, 2) rows of sigma and epsilon in place of which c12 and c6 (V,) stand.
    """

    kind: ClassVar[str] = "nonbonded"
    columns: ClassVar[dict[str, Column]] = {
        "sigma": Column("Å", scale=0.05, lower=0.1, upper=10.0),
        # At zero √ε has no slope: training would never leave it.
        "epsilon": Column("kcal/mol", scale=0.01, lower=1e-4),
        "charge": Column("e", scale=0.03),
        "lj14": Column("1", lower=0.0, trainable=False),
        "coulomb14": Column("1", lower=0.0, trainable=False),
        "coulomb_constant": Column("kcal/mol Å/e²", lower=0.0, trainable=False),
        "c12": Column("kcal/mol Å¹²", scale=1e4, trainable=False),
        "c6": Column("kcal/mol Å⁶", scale=10.0, trainable=False),
    }

    tables: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {
        "lj_rows": ("lj_labels", ("sigma", "epsilon")),
        "charge_rows": ("", ("charge",)),
        "rows14": ("", ("lj14", "coulomb14")),
    }
    indices: ClassVar[dict[str, tuple[str, ...]]] = {
        "pairs": ("atoms",) * 2,
        "pairs14": ("atoms",) * 2,
        "exclusions": ("atoms",) * 2,
    }

    n_atoms: int
    lj_rows: np.ndarray
    charge_rows: np.ndarray
    exclusions: np.ndarray
    pairs14: np.ndarray
    rows14: np.ndarray
    overrides: np.ndarray
    lj_labels: tuple[str, ...]

    @cached_property
    def pairs(self) -> np.ndarray:
        """(P, 2) atoms of the normal interactions, ascending in each row."""
        wanted = np.triu(np.ones((self.n_atoms, self.n_atoms), bool), 1)
        low, high = np.sort(self.exclusions, axis=1).T
        wanted[low, high] = False
        return np.stack(np.nonzero(wanted), axis=1).astype(np.int32)

    @cached_property
    def _where(self) -> np.ndarray:
        """Where types (T, T) find c12 and c6 among [type × type, overrides]."""
        n = len(self.lj_labels)
        where = np.arange(n * n, dtype=np.int32).reshape(n, n)
        first, second = self.overrides.T
        own = n * n + np.arange(len(self.overrides))
        where[first, second] = where[second, first] = own
        return where

    def coefficients(self, params):
        """c12 kcal/mol Å¹² and c6 kcal/mol Å⁶ of the types × types, then of the overrides."""
        sigma, epsilon = params["sigma"], params["epsilon"]
        sigma6 = (0.5 * (sigma[:, None] + sigma)) ** 6
        c6 = 4.0 * geometry.safe_sqrt(epsilon[:, None] * epsilon) * sigma6
        c12, c6 = (c6 * sigma6).ravel(), c6.ravel()
        if len(self.overrides):
            c12, c6 = jnp.append(c12, params["c12"]), jnp.append(c6, params["c6"])
        return c12, c6

    def constrain(self, params, start):
        """Charges nearest to those trained that keep the net charge of `start`."""
        count = np.bincount(self.charge_rows, minlength=len(params["charge"]))
        excess = count @ (params["charge"] - start["charge"])
        return {**params, "charge": params["charge"] - count * (excess / (count @ count))}

    def derived(self, params):
        """c12, c6 and q q of each pair, then those of each 1-4 pair with its factors."""
        # NumPy's functions where the arrays are constants: nothing of this is left when running.
        xp = np if isinstance(self.pairs, np.ndarray) else jnp
        atoms = self._all_pairs
        own = xp.asarray(self._where)[self.lj_rows[atoms[:, 0]], self.lj_rows[atoms[:, 1]]]
        c12, c6 = (x[own] for x in self.coefficients(params))
        charge = params["charge"][self.charge_rows]
        qq = params["coulomb_constant"] * charge[atoms[:, 0]] * charge[atoms[:, 1]]
        n = len(self.pairs)
        lj14, coulomb14 = params["lj14"][self.rows14], params["coulomb14"][self.rows14]
        pairs = {
            "pair_c12": c12.at[n:].multiply(lj14),
            "pair_c6": c6.at[n:].multiply(lj14),
            "pair_qq": qq.at[n:].multiply(coulomb14),
        }
        if self.n_atoms > MATRIX_ATOMS:
            return pairs
        i, j = atoms.T
        empty = jnp.zeros((self.n_atoms, self.n_atoms), qq.dtype)
        return pairs | {
            key.replace("pair", "matrix"): empty.at[i, j].add(v).at[j, i].add(v)
            for key, v in pairs.items()
        }

    def interactions(self, params):
        def own(kind):
            return tuple(params[f"{kind}_{key}"] for key in ("c12", "c6", "qq"))

        matrices = own("matrix") if self.n_atoms <= MATRIX_ATOMS else None
        return Interactions(pair_energy, self._all_pairs.T, own("pair"), matrices=matrices)

    def energies(self, params, R, **context):
        apart = replace(self.interactions(params), energy=lennard_jones_coulomb)
        lj, coulomb = apart.each(R)
        n = len(self.pairs)
        return {
            "lj": lj[:n].sum(),
            "lj14": lj[n:].sum(),
            "coulomb": coulomb[:n].sum(),
            "coulomb14": coulomb[n:].sum(),
        }

    @property
    def _all_pairs(self):
        xp = np if isinstance(self.pairs, np.ndarray) else jnp
        return xp.concatenate([self.pairs, self.pairs14.astype(np.int32)])
