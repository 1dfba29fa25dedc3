"""Constraints of internal coordinates during a minimisation.

An internal coordinate is a tuple of atoms: two for a distance (Å), three for the angle at the
middle atom (rad), four for a torsion (rad).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxff import geometry

Array = jax.Array
Coordinates = tuple[tuple[int, ...], ...]

LONGEST = 0.3  # Å or rad: the largest change of a coordinate in one correction
ROUNDS = 6  # corrections after each step of a minimisation


def measure(coordinates: Coordinates, R: Array) -> Array:
    """Values (K,), Å or rad, of K coordinates at positions R (N, 3) Å."""
    functions = {2: geometry.distance, 3: geometry.angle, 4: geometry.dihedral}
    values = [functions[len(atoms)](*(R[i] for i in atoms)) for atoms in coordinates]
    return jnp.stack(values) if values else jnp.zeros(0, R.dtype)


def deviations(coordinates: Coordinates, R: Array, values: Array) -> Array:
    """Coordinates at R (N, 3) Å minus `values`, (K,) Å or rad; torsions within ±π."""
    off = measure(coordinates, R) - values
    is_torsion = np.array([len(atoms) == 4 for atoms in coordinates], bool)
    return jnp.where(is_torsion, jnp.arctan2(jnp.sin(off), jnp.cos(off)), off)


def project(coordinates: Coordinates, R: Array, vectors: Array) -> Array:
    """Part of `vectors` (N, 3) that does not change the coordinates at R (N, 3) Å."""
    if not coordinates:
        return vectors
    gradients = _gradients(coordinates, R)
    return vectors - _displacement(gradients, gradients @ vectors.ravel()).reshape(R.shape)


def correct(coordinates: Coordinates, R: Array, values: Array, rounds: int = ROUNDS) -> Array:
    """Positions (N, 3) Å near R (N, 3) Å with coordinates `values`, (K,) Å or rad.

    Newton steps along the gradients of the coordinates are taken, as in SHAKE.
    Source: Ryckaert, Ciccotti and Berendsen, J. Comput. Phys. 23, 327 (1977).
    """
    if not coordinates:
        return R

    def step(_, R):
        off = jnp.clip(deviations(coordinates, R, values), -LONGEST, LONGEST)
        return R - _displacement(_gradients(coordinates, R), off).reshape(R.shape)

    return jax.lax.fori_loop(0, rounds, step, R)


class Fixed(NamedTuple):
    """Internal coordinates with constant values; see `jaxff.md.lbfgs.Held`.

    Attributes:
        coordinates: K tuples of atoms.
        values: (K,) Å or rad.
    """

    coordinates: Coordinates
    values: Array

    def project(self, R: Array, vectors: Array) -> Array:
        """See `Held.project`."""
        return project(self.coordinates, R, vectors)

    def moved(self, R: Array, moves: Array) -> Array:
        """See `Held.moved`."""
        return correct(self.coordinates, R + moves, self.values)


def _gradients(coordinates: Coordinates, R: Array) -> Array:
    """Gradients (K, 3N) of the coordinates at R (N, 3) Å."""
    jacobian = jax.jacrev(lambda R: measure(coordinates, R))(R)
    return jacobian.reshape(len(coordinates), -1)


def _displacement(gradients: Array, off: Array) -> Array:
    """The shortest displacement (3N,) that changes the coordinates by `off` (K,)."""
    gram = gradients @ gradients.T
    # A torsion of collinear atoms has no gradient: the floor leaves it unchanged.
    floor = 1e-12 * jnp.eye(len(gram), dtype=gram.dtype)
    return gradients.T @ jnp.linalg.solve(gram + floor, off)
