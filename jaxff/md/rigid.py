"""Distance constraints in dynamics: rigid water, small clusters of atoms, and virtual sites.

Constraints of internal coordinates in a minimisation are in `jaxff.md.constraints`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError

Array = jax.Array

# Newton steps of each correction.  The error is squared in each step.
NEWTON_STEPS = 5
# Linear systems of more equations are solved by LAPACK.
UNROLLED = 6
# Å; a constrained distance of a starting geometry may deviate by this much.
DEVIATION = 0.3
# Corrections of a starting geometry.
ROUNDS = 10
# amu; it makes the velocities of virtual sites, which are not used, finite.
SITE_MASS = 1e-3


@partial(jax.tree_util.register_dataclass, data_fields=["pairs", "lengths"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Clusters:
    """G clusters of atoms, each with K constrained distances; a JAX pytree.

    Attributes:
        pairs: (G, K, 2) atom indices.
        lengths: (G, K) Å.
    """

    pairs: Any
    lengths: Any

    def correction(self, R: Array, moves: Array, masses: Array) -> Array:
        """See `Rigid.correction`."""
        old, weights = self._bonds(R), self._weights(masses)
        new, goal = old + self._bonds(moves), jnp.asarray(self.lengths, R.dtype) ** 2

        def newton(_, factors):
            now = new + jnp.einsum("gkl,gl,glx->gkx", weights, factors, old)
            slopes = 2.0 * weights * jnp.einsum("gkx,glx->gkl", now, old)
            return factors - solve(slopes, jnp.sum(now**2, axis=-1) - goal)

        factors = jax.lax.fori_loop(0, NEWTON_STEPS, newton, jnp.zeros_like(goal))
        return self._spread(R, factors[..., None] * old) / masses

    def projection(self, R: Array, momenta: Array, masses: Array) -> Array:
        """See `Rigid.projected`; the change of the momenta is returned."""
        bonds = self._bonds(R)
        matrix = self._weights(masses) * jnp.einsum("gkx,glx->gkl", bonds, bonds)
        speeds = jnp.sum(bonds * self._bonds(momenta / masses), axis=-1)
        return -self._spread(R, solve(matrix, speeds)[..., None] * bonds)

    def _bonds(self, vectors: Array) -> Array:
        """Differences (G, K, 3) of vectors (N, 3) between the two atoms of each pair."""
        return vectors[self.pairs[..., 0]] - vectors[self.pairs[..., 1]]

    def _weights(self, masses: Array) -> Array:
        """Response (G, K, K) of the vector of pair k to unit impulses along pair l."""
        i, j, inverse = self.pairs[..., 0], self.pairs[..., 1], 1.0 / masses[:, 0]
        one, two = inverse[i][..., None], inverse[j][..., None]

        def same(a, b):
            return a[..., :, None] == b[..., None, :]

        first = same(i, i).astype(one.dtype) - same(i, j)
        return one * first + two * (same(j, j).astype(one.dtype) - same(j, i))

    def _spread(self, like: Array, impulses: Array) -> Array:
        """Impulses (N, 3) on atoms, opposite for the two atoms of each pair."""
        both = jnp.stack([impulses, -impulses], axis=2)
        return jnp.zeros_like(like).at[self.pairs].add(both)


@partial(jax.tree_util.register_dataclass, data_fields=["atoms", "lengths"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Waters:
    """W rigid molecules of three atoms, two of which are equal; a JAX pytree.

    Attributes:
        atoms: (W, 3) atom indices, oxygen first.
        lengths: (W, 2) Å, distances O–H and H–H.
    """

    atoms: Any
    lengths: Any

    def correction(self, R: Array, moves: Array, masses: Array) -> Array:
        """See `Rigid.correction`; closed form.

        Source: Miyamoto and Kollman, J. Comput. Chem. 13, 952 (1992), with the notation of the
        paper: 0 before the step, 1 after the unconstrained step, 3 after the step.
        """
        before, lengths = R[self.atoms], jnp.asarray(self.lengths, R.dtype)
        m = masses[self.atoms]
        shares = m / m.sum(axis=1, keepdims=True)
        # Vectors are relative to the oxygen atom before the step, so that few digits are lost.
        B0, C0 = before[:, 1] - before[:, 0], before[:, 2] - before[:, 0]
        after = moves[self.atoms] + jnp.stack([jnp.zeros_like(B0), B0, C0], axis=1)
        after = after - (shares * after).sum(axis=1, keepdims=True)
        A1, B1, C1 = after[:, 0], after[:, 1], after[:, 2]

        z = _unit(jnp.cross(B0, C0))
        x = _unit(jnp.cross(A1, z))
        y = jnp.cross(z, x)
        (xb0, yb0), (xc0, yc0), za1 = (
            (_dot(x, B0), _dot(y, B0)),
            (_dot(x, C0), _dot(y, C0)),
            _dot(z, A1),
        )
        (xb1, yb1, zb1), (xc1, yc1, zc1) = ((_dot(x, v), _dot(y, v), _dot(z, v)) for v in (B1, C1))

        rc = 0.5 * lengths[:, 1]
        height = jnp.sqrt(lengths[:, 0] ** 2 - rc**2)
        ra = 2.0 * height * shares[:, 1, 0]
        rb = height - ra
        sin_phi = za1 / ra
        cos_phi = _cosine(sin_phi)
        sin_psi = (zb1 - zc1) / (2.0 * rc * cos_phi)
        cos_psi = _cosine(sin_psi)
        ya2, xb2 = ra * cos_phi, -rc * cos_psi
        yb2 = -rb * cos_phi - rc * sin_psi * sin_phi
        yc2 = -rb * cos_phi + rc * sin_psi * sin_phi

        alpha = xb2 * (xb0 - xc0) + yb0 * yb2 + yc0 * yc2
        beta = xb2 * (yc0 - yb0) + xb0 * yb2 + xc0 * yc2
        gamma = xb0 * yb1 - xb1 * yb0 + xc0 * yc1 - xc1 * yc0
        square = alpha**2 + beta**2
        sin = (alpha * gamma - beta * jnp.sqrt(square - gamma**2)) / square
        cos = _cosine(sin)

        def point(px, py, pz):
            return px[:, None] * x + py[:, None] * y + pz[:, None] * z

        A3 = point(-ya2 * sin, ya2 * cos, za1)
        B3 = point(xb2 * cos - yb2 * sin, xb2 * sin + yb2 * cos, zb1)
        C3 = point(-xb2 * cos - yc2 * sin, -xb2 * sin + yc2 * cos, zc1)
        change = jnp.stack([A3, B3, C3], axis=1) - after
        return jnp.zeros_like(R).at[self.atoms].add(change)

    @property
    def clusters(self) -> Clusters:
        """The distances O–H, O–H and H–H of each molecule."""
        ends = np.array([[0, 1], [0, 2], [1, 2]])
        return Clusters(self.atoms[:, ends], self.lengths[:, np.array([0, 0, 1])])


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["waters", "clusters", "sites"],
    meta_fields=[],
)
@dataclass(frozen=True, eq=False)
class Rigid:
    """The constraints and virtual sites of a system; a JAX pytree.

    Attributes:
        waters: rigid water.
        clusters: the other constrained distances, one item for each number of distances.
        sites: virtual sites, or None.
    """

    waters: Waters
    clusters: tuple[Clusters, ...]
    sites: Any = None

    @classmethod
    def of(cls, system: Any) -> Rigid | None:
        """The constraints and virtual sites of a system; None if there are none.

        Args:
            system: a molecule or a `System`.

        Raises:
            InputError: the two hydrogen atoms of a rigid water have different masses.
        """
        constraints, sites = (getattr(system, name, None) for name in ("constraints", "sites"))
        sites = sites if sites is not None and len(sites) else None
        if constraints is None or not (len(constraints.waters) or len(constraints.bonds)):
            none = Waters(np.zeros((0, 3), np.int32), np.zeros((0, 2)))
            return None if sites is None else cls(none, (), sites)
        waters = np.asarray(constraints.waters, np.int32).reshape(-1, 3)
        hydrogens = np.asarray(system.masses)[waters[:, 1:]]
        unequal = np.abs(hydrogens[:, 0] - hydrogens[:, 1]) > 1e-6
        if unequal.any():
            raise InputError(
                f"the hydrogen atoms {waters[int(np.argmax(unequal)), 1:].tolist()} of a rigid "
                "water have different masses; give them equal masses"
            )
        lengths = np.asarray(constraints.water_lengths, float).reshape(-1, 2)
        clusters = clusters_of(constraints.bonds, constraints.lengths)
        return cls(Waters(waters, lengths), clusters, sites)

    @property
    def count(self) -> int:
        """Number of constrained distances."""
        return 3 * len(self.waters.atoms) + sum(c.lengths.size for c in self.clusters)

    @property
    def _parts(self) -> tuple[Waters | Clusters, ...]:
        return (*([self.waters] if len(self.waters.atoms) else []), *self.clusters)

    @property
    def _distances(self) -> tuple[Clusters, ...]:
        return tuple(p.clusters if isinstance(p, Waters) else p for p in self._parts)

    def lengths(self) -> list[Any]:
        """Atoms and lengths of all constraints, and the virtual sites, as a list of arrays."""
        parts = [[np.asarray(p.pairs), np.asarray(p.lengths)] for p in self._distances]
        return [*parts, jax.tree.map(np.asarray, jax.tree.leaves(self.sites))]

    def correction(self, R: Array, moves: Array, masses: Array) -> Array:
        """Displacements (N, 3) Å that restore the distances after a step.

        They are along the gradients of the distances at R, weighted by inverse masses.

        Args:
            R: (N, 3) Å, positions before the step, with the constrained distances.
            moves: (N, 3) Å, displacements of the step without constraints.
            masses: (N, 1) in any unit.
        """
        parts = [part.correction(R, moves, masses) for part in self._parts]
        return sum(parts[1:], parts[0]) if parts else jnp.zeros_like(R)

    def projected(self, R: Array, momenta: Array, masses: Array) -> Array:
        """Momenta (N, 3) at which no constrained distance changes, and of sites zero.

        Args:
            R: (N, 3) Å, with the constrained distances.
            momenta: (N, 3) in any unit.
            masses: (N, 1) in any unit.
        """
        for part in self._distances:  # they have no atoms in common
            momenta = momenta + part.projection(R, momenta, masses)
        return momenta if self.sites is None else momenta.at[self.sites.atoms].set(0.0)

    def velocities(self, R, velocities, masses) -> np.ndarray:
        """Velocities (N, 3) at which no constrained distance changes, and of sites zero.

        Args:
            R: (N, 3) Å, with the constrained distances.
            velocities: (N, 3) in any unit.
            masses: (N,) in any unit, not zero.
        """
        m = jnp.asarray(masses)[:, None]
        momenta = jax.jit(Rigid.projected)(self, jnp.asarray(R), m * velocities, m)
        return np.asarray(momenta / m, float)

    def placed(self, R: Array) -> Array:
        """Positions R (N, 3) Å with the virtual sites at the places that the atoms define."""
        return R if self.sites is None else self.sites.place(R)

    def deviations(self, R) -> np.ndarray:
        """Constrained distances at R (N, 3) Å minus their lengths, Å, in one row."""
        R, off = np.asarray(R, float), [np.zeros(0)]
        for part in self._distances:
            i, j = np.moveaxis(np.asarray(part.pairs), -1, 0)
            distances = np.linalg.norm(R[i] - R[j], axis=-1)
            off.append((distances - np.asarray(part.lengths)).ravel())
        return np.concatenate(off)

    def start(self, R: Array, masses: Array) -> Array:
        """A starting geometry (N, 3) Å with the constrained distances, from R (N, 3) Å.

        Args:
            R: (N, 3) Å, with distances nearly as constrained.
            masses: (N, 1) in any unit.

        Raises:
            InputError: a distance deviates by more than 0.3 Å.
        """
        off = np.abs(self.deviations(R))
        if off.max(initial=0.0) > DEVIATION:
            pairs = np.concatenate([np.reshape(part.pairs, (-1, 2)) for part in self._distances])
            worst = int(np.argmax(off))
            raise InputError(
                f"the distance of the atoms {' and '.join(map(str, pairs[worst]))} deviates by "
                f"{off[worst]:.2f} Å from its constraint: correct the geometry"
            )

        return self.placed(jax.jit(Rigid.closest)(self, R, masses))

    def starts(self, positions: np.ndarray, masses: np.ndarray) -> np.ndarray:
        """Starting geometries (..., N, 3) Å, in the precision of JAX; see `start`.

        Args:
            positions: (..., N, 3) Å.
            masses: (N,) in any unit.
        """
        m = jnp.asarray(masses)[:, None]
        flat = positions.reshape(-1, *positions.shape[-2:])
        each = [np.asarray(self.start(jnp.asarray(R), m), float) for R in flat]
        return np.stack(each).reshape(positions.shape)

    def closest(self, R: Array, masses: Array) -> Array:
        """Positions (N, 3) Å near R (N, 3) Å with the constrained distances."""

        def correct(_, R):
            return R + self.correction(R, jnp.zeros_like(R), masses)

        return jax.lax.fori_loop(0, ROUNDS, correct, R)


def dynamic_masses(system: Any) -> np.ndarray:
    """Masses (N,) amu of the atoms of a molecule or system; virtual sites have SITE_MASS."""
    masses = np.asarray(system.masses, float)
    return np.where(masses > 0.0, masses, SITE_MASS)


def clusters_of(bonds, lengths) -> tuple[Clusters, ...]:
    """The clusters of constrained distances that have atoms in common.

    Args:
        bonds: (C, 2) atom indices.
        lengths: (C,) Å.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    bonds, lengths = np.asarray(bonds, np.int32).reshape(-1, 2), np.asarray(lengths, float)
    if not len(bonds):
        return ()
    n = int(bonds.max()) + 1
    graph = coo_array((np.ones(len(bonds)), tuple(bonds.T)), (n, n))
    label = connected_components(graph, directed=False)[1][bonds[:, 0]]
    order = np.argsort(label, kind="stable")
    _, sizes = np.unique(label, return_counts=True)
    parts = np.split(order, np.cumsum(sizes)[:-1])
    rows = {int(k): np.stack([p for p in parts if len(p) == k]) for k in np.unique(sizes)}
    return tuple(Clusters(bonds[rows[k]], lengths[rows[k]]) for k in sorted(rows))


def solve(matrix: Array, right: Array) -> Array:
    """Solutions (G, K) of G small linear systems whose diagonals dominate.

    Args:
        matrix: (G, K, K).
        right: (G, K).
    """
    size = right.shape[-1]
    if size > UNROLLED:
        return jnp.linalg.solve(matrix, right[..., None])[..., 0]
    rows = [[matrix[..., k, l] for l in range(size)] + [right[..., k]] for k in range(size)]
    for k in range(size):
        for row in rows[k + 1 :]:
            factor = row[k] / rows[k][k]
            row[k + 1 :] = [
                a - factor * b for a, b in zip(row[k + 1 :], rows[k][k + 1 :], strict=True)
            ]
    found: list[Array] = []
    for k in reversed(range(size)):
        rest = rows[k][size]
        for factor, value in zip(rows[k][k + 1 : size], found, strict=True):
            rest = rest - factor * value
        found.insert(0, rest / rows[k][k])
    return jnp.stack(found, axis=-1)


def _dot(a: Array, b: Array) -> Array:
    return jnp.sum(a * b, axis=-1)


def _unit(a: Array) -> Array:
    return a / jnp.sqrt(_dot(a, a))[:, None]


def _cosine(sine: Array) -> Array:
    return jnp.sqrt(1.0 - sine**2)
