"""Lennard-Jones and Coulomb interactions of pairs, with scaled 1-4 pairs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxff import geometry
from jaxff.interaction import Interactions
from jaxff.potential import Column, Term

MATRIX_ATOMS = 256  # up to this number of atoms, parameters of pairs are also stored as matrices


def lennard_jones_coulomb(d, c12, c6, qq):
    """Energies c12/r¹² − c6/r⁶ and qq/r, () kcal/mol each; see `pair_energy`."""
    inverse2 = 1.0 / geometry.square(d)
    inverse6 = inverse2 * inverse2 * inverse2
    return (c12 * inverse6 - c6) * inverse6, qq * jnp.sqrt(inverse2)


def pair_energy(d, c12, c6, qq):
    """Energy c12/r¹² − c6/r⁶ + qq/r, () kcal/mol, of a pair at the distance r.

    Args:
        d: (3,) Å, vector of length r between the atoms.
        c12: () kcal/mol Å¹².
        c6: () kcal/mol Å⁶.
        qq: () kcal/mol Å, product of the charges and the Coulomb constant.
    """
    return _pair_energy(geometry.square(d), c12, c6, qq)


@jax.custom_jvp
def _pair_energy(square, c12, c6, qq):
    inverse2 = 1.0 / square
    inverse6 = inverse2 * inverse2 * inverse2
    return (c12 * inverse6 - c6) * inverse6 + qq * jnp.sqrt(inverse2)


@_pair_energy.defjvp
def _pair_energy_jvp(primals, tangents):
    # Automatic differentiation of each power would add a loop.  XLA evaluates an expression that
    # ends in a division once, and not again for each axis of the vector.
    square, c12, c6, qq = primals
    by_square, by_c12, by_c6, by_qq = tangents
    inverse2 = 1.0 / square
    inverse6, inverse = inverse2 * inverse2 * inverse2, jnp.sqrt(inverse2)
    slope = ((3.0 * c6 - 6.0 * c12 * inverse6) * inverse6 - 0.5 * qq * inverse) / square
    tangent = slope * by_square + (by_c12 * inverse6 - by_c6) * inverse6 + by_qq * inverse
    return _pair_energy(*primals), tangent


def with_net_charge(charge_rows, params, start):
    """Parameters with the smallest changes of the charges that restore the net charge of `start`.

    Args:
        charge_rows: (N,) row of the column "charge" of each atom.
        params, start: {column: array}.
    """
    count = jnp.bincount(charge_rows, length=len(params["charge"]))
    excess = count @ (params["charge"] - start["charge"])
    return {**params, "charge": params["charge"] - count * (excess / (count @ count))}


@dataclass(frozen=True, eq=False)
class AtomPairs(Term):
    """Base class of terms with Lennard-Jones and Coulomb energies of pairs of atoms.

    σ and ε of two types are combined by the rules of Lorentz and Berthelot, except for the pairs of
    types in `overrides`.

    Attributes:
        lj_rows: (N,) rows of sigma and epsilon.
        charge_rows: (N,) rows of charge.
        exclusions: (E, 2) pairs of atoms without the full interaction, including 1-4 pairs.
        pairs14: (P, 2) 1-4 pairs of atoms, with scaled interactions.
        rows14: (P,) rows of the scale factors lj14 and coulomb14.
        overrides: (V, 2) pairs of types (rows of sigma and epsilon) with separate c12 and c6 (V,).
        lj_labels: names of the rows of sigma and epsilon.
        computed: fields that are computed from the others if they are None.
    """

    computed: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[dict[str, Column]] = {
        "sigma": Column("Å", scale=0.05, lower=0.1, upper=10.0),
        # At zero the gradient of √ε is undefined, so that training could not change ε.
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
        "pairs14": ("atoms",) * 2,
        "exclusions": ("atoms",) * 2,
    }
    dimensions: ClassVar[dict[str, str]] = {
        "lj_rows": "N",
        "charge_rows": "N",
        "pairs14": "P 2",
        "rows14": "P",
        "overrides": "V 2",
        "c12": "V",
        "c6": "V",
        "coulomb_constant": "",
    }

    n_atoms: int
    lj_rows: np.ndarray
    charge_rows: np.ndarray
    exclusions: np.ndarray
    pairs14: np.ndarray
    rows14: np.ndarray
    overrides: np.ndarray
    lj_labels: tuple[str, ...]

    def fault(self, params):
        types = np.asarray(self.overrides)
        if (
            types.dtype.kind not in "iu"
            or (types < 0).any()
            or (types >= len(self.lj_labels)).any()
        ):
            return "overrides contains a row that is out of range"
        excluded = {tuple(sorted(pair)) for pair in np.asarray(self.exclusions).tolist()}
        if not all(tuple(sorted(pair)) in excluded for pair in np.asarray(self.pairs14).tolist()):
            return "exclusions must contain all pairs of pairs14"
        return None

    def atom_groups(self):
        return [np.asarray(self.exclusions).reshape(-1, 2)]

    def without(self, inside):
        """The term without the interactions of some atoms with each other; see `Term.without`.

        The pairs of these atoms become excluded pairs, also in Ewald sums.  A dispersion tail is
        unchanged, because it is the energy of atoms, or of their images, beyond the cutoff.
        """
        first, second = np.triu_indices(int(inside.sum()), 1)
        atoms, old = np.flatnonzero(inside), np.asarray(self.exclusions).reshape(-1, 2)
        pairs = np.stack([atoms[first], atoms[second]], axis=1).astype(old.dtype)
        kept = ~inside[np.asarray(self.pairs14).reshape(-1, 2)].all(axis=1)
        return replace(
            self,
            exclusions=np.concatenate([old[~inside[old].all(axis=1)], pairs]),
            pairs14=np.asarray(self.pairs14)[kept],
            rows14=np.asarray(self.rows14)[kept],
            **dict.fromkeys(self.computed),
        )

    def coefficients(self, params):
        """Coefficients c12 kcal/mol Å¹² and c6 kcal/mol Å⁶ of pairs of types, (T, T)."""
        sigma, epsilon = params["sigma"], params["epsilon"]
        sigma6 = self.mixed_sigma(sigma) ** 6
        c6 = 4.0 * geometry.safe_sqrt(epsilon[:, None] * epsilon) * sigma6
        c12 = c6 * sigma6
        if len(self.overrides):
            i, j = self.overrides.T
            c12 = c12.at[i, j].set(params["c12"]).at[j, i].set(params["c12"])
            c6 = c6.at[i, j].set(params["c6"]).at[j, i].set(params["c6"])
        return c12, c6

    def mixed_sigma(self, sigma):
        """σ (T, T) Å of pairs of types with σ (T,) Å."""
        return 0.5 * (sigma[:, None] + sigma)

    def constrain(self, params, start):
        """Restore the net charge of `start` by the smallest changes of the charges.

        See `Term.constrain` for the arguments.
        """
        return with_net_charge(self.charge_rows, params, start)


@dataclass(frozen=True, eq=False)
class Nonbonded(AtomPairs):
    """Lennard-Jones and Coulomb energies of all pairs except the excluded ones.

    Both energies are one term because they need the same distances.

    Attributes:
        pairs: (Q, 2) pairs of atoms with the full interaction, ascending in each row; computed from
            `exclusions` if None.
    """

    kind: ClassVar[str] = "nonbonded"
    computed: ClassVar[tuple[str, ...]] = ("pairs",)
    indices: ClassVar[dict[str, tuple[str, ...]]] = {
        "pairs": ("atoms",) * 2,
        **AtomPairs.indices,
    }

    pairs: np.ndarray | None = field(default=None, metadata={"saved": False})

    def __post_init__(self):
        if self.pairs is None:
            wanted = np.triu(np.ones((self.n_atoms, self.n_atoms), bool), 1)
            low, high = np.sort(self.exclusions, axis=1).T
            wanted[low, high] = False
            pairs = np.stack(np.nonzero(wanted), axis=1).astype(np.int32)
            object.__setattr__(self, "pairs", pairs)

    def derived(self, params):
        """Coefficients c12, c6 and qq of all pairs, followed by those of 1-4 pairs.

        The coefficients of 1-4 pairs include the scale factors.  For small molecules, the
        coefficients are also returned as matrices (N, N).
        """
        i, j = self._all_pairs.T
        lj_rows = jnp.asarray(self.lj_rows)
        c12, c6 = (x[lj_rows[i], lj_rows[j]] for x in self.coefficients(params))
        charge = params["charge"][self.charge_rows]
        qq = params["coulomb_constant"] * charge[i] * charge[j]
        n = len(i) - len(self.pairs14)
        lj14, coulomb14 = params["lj14"][self.rows14], params["coulomb14"][self.rows14]
        pairs = {
            "pair_c12": c12.at[n:].multiply(lj14),
            "pair_c6": c6.at[n:].multiply(lj14),
            "pair_qq": qq.at[n:].multiply(coulomb14),
        }
        if self.n_atoms > MATRIX_ATOMS:
            return pairs
        empty = jnp.zeros((self.n_atoms, self.n_atoms), qq.dtype)
        return pairs | {
            key.replace("pair", "matrix"): empty.at[i, j].add(v).at[j, i].add(v)
            for key, v in pairs.items()
        }

    def interactions(self, params):
        def coefficients(kind):
            return tuple(params[f"{kind}_{key}"] for key in ("c12", "c6", "qq"))

        matrices = coefficients("matrix") if self.n_atoms <= MATRIX_ATOMS else None
        pairs = self._all_pairs.T
        return Interactions(pair_energy, pairs, coefficients("pair"), matrices=matrices)

    def energies(self, params, R, space):
        apart = replace(self.interactions(params), energy=lennard_jones_coulomb)
        lj, coulomb = apart.each(R)
        n = len(lj) - len(self.pairs14)
        return {
            "lj": lj[:n].sum(),
            "lj14": lj[n:].sum(),
            "coulomb": coulomb[:n].sum(),
            "coulomb14": coulomb[n:].sum(),
        }

    @property
    def _all_pairs(self):
        assert self.pairs is not None  # `__post_init__` computes them
        return jnp.concatenate([self.pairs, self.pairs14.astype(np.int32)])
