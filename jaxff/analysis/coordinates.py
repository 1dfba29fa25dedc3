"""Differentiable distances, angles and torsions of frames."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpy.typing import ArrayLike

from jaxff import geometry
from jaxff.errors import InputError

Array = jax.Array

_angle = jax.jit(jnp.vectorize(geometry.angle, signature="(c),(c),(c)->()"))
_dihedral = jax.jit(jnp.vectorize(geometry.dihedral, signature="(c),(c),(c),(c)->()"))


def distances(positions: ArrayLike, pairs: ArrayLike, box: ArrayLike | None = None) -> Array:
    """Compute distances (..., P) Å between pairs of atoms, or nearest images in a box.

    Args:
        positions: (..., N, 3) Å.
        pairs: (P, 2) atom indices.
        box: lattice vectors as rows, (3, 3) Å, or (..., 3, 3) Å for each frame; edges of an
            orthorhombic box, (3,) Å, or of a cubic box, () Å; None in vacuum.  Images are nearest
            up to half of the smallest width of the box, and in orthorhombic boxes always.

    Raises:
        InputError: indices that are not pairs of different atoms, or a box with a wrong shape.
    """
    positions = floating(positions)
    lattice = None if box is None else checked_lattice(box, positions)
    return pair_distances(positions, checked_indices(positions, pairs, 2), lattice)


def angles(positions: ArrayLike, triples: ArrayLike) -> Array:
    """Compute angles (..., A) rad in [0, π] at the middle atoms of triples.

    Args:
        positions: (..., N, 3) Å.
        triples: (A, 3) atom indices.

    Raises:
        InputError: indices that are not triples of different atoms.
    """
    return _angle(*_gathered(positions, triples, 3))


def torsion_angles(positions: ArrayLike, torsions: ArrayLike) -> Array:
    """Compute torsion angles (..., T) rad in [−π, π] with the IUPAC sign; cis is 0.

    Args:
        positions: (..., N, 3) Å.
        torsions: (T, 4) atom indices.

    Raises:
        InputError: indices that are not quadruples of different atoms.
    """
    return _dihedral(*_gathered(positions, torsions, 4))


def atom_pairs(
    numbers: ArrayLike, first: int | None = None, second: int | None = None
) -> np.ndarray:
    """Return all pairs of atoms, or all pairs of two elements, as indices (P, 2).

    Args:
        numbers: (N,) atomic numbers.
        first, second: atomic numbers of the two elements; None for any element.

    Raises:
        InputError: there is no such pair.
    """
    numbers = np.asarray(numbers)
    i, j = np.triu_indices(len(numbers), 1)
    a, b = (
        np.ones(len(numbers), bool) if element is None else numbers == element
        for element in (first, second)
    )
    chosen = (a[i] & b[j]) | (b[i] & a[j])
    if not chosen.any():
        raise InputError(
            f"no pair of elements {first} and {second} among {len(numbers)} atoms: give atomic "
            "numbers of elements of the molecule, or None for any element"
        )
    return np.stack([i[chosen], j[chosen]], axis=1)


def checked_lattice(box: ArrayLike, positions: Array) -> Any:
    """Return the lattice vectors (3, 3) or (..., 3, 3) Å of a box in the type of the positions.

    The result is a NumPy array if JAX does not trace the box.

    Args:
        box: see `distances`.
        positions: (..., N, 3) Å.

    Raises:
        InputError: the box has a wrong shape or no volume.
    """
    shape, frames = np.shape(box), positions.shape[:-2]
    if shape not in ((), (3,), (3, 3), (*frames, 3, 3)):
        raise InputError(
            f"the box must be one edge, three edges, lattice vectors (3, 3), or those of each "
            f"frame, {(*frames, 3, 3)}, in Å (got shape {shape})"
        )
    edges, xp = len(shape) < 2, np if is_known(box) else jnp
    lattice = xp.asarray(box, positions.dtype)
    if edges:
        lattice = xp.broadcast_to(lattice, (3,))[:, None] * xp.eye(3, dtype=positions.dtype)
    if is_known(box):
        small = np.min(box) <= 0 if edges else np.abs(np.linalg.det(np.asarray(box))) < 1e-6
        if np.any(small):
            raise InputError(f"the box must have positive edges or a volume (got {box})")
    return lattice


def nearest_images(vectors: Array, lattice: Array) -> Array:
    """Replace vectors (..., P, 3) Å by those to the nearest images.

    The images are nearest up to half of the smallest width of the box.

    Args:
        vectors: (..., P, 3) Å.
        lattice: (3, 3) or (..., 3, 3) Å, lattice vectors as rows.
    """
    x = [vectors[..., k] for k in range(3)]
    back, box = jnp.linalg.inv(lattice)[..., None], lattice[..., None]  # (..., 3, 3, 1)
    turns = [jnp.round(sum(x[a] * back[..., a, k, :] for a in range(3))) for k in range(3)]
    return jnp.stack(
        [x[k] - sum(turns[a] * box[..., a, k, :] for a in range(3)) for k in range(3)], axis=-1
    )


def is_known(*values) -> bool:
    """Whether JAX traces none of the values, so that the values can be checked."""
    return not any(isinstance(value, Tracer) for value in values)


def floating(values: ArrayLike) -> Array:
    """Convert values to a JAX array; integers become the default floating-point type."""
    values = jnp.asarray(values)
    if jnp.issubdtype(values.dtype, jnp.floating):
        return values
    return values.astype(jnp.result_type(float))


@jax.jit
def pair_distances(positions: Array, pairs: np.ndarray, lattice: Array | None = None) -> Array:
    """Compute `distances` without checks of the arguments (compiled)."""
    d = positions[..., pairs[:, 1], :] - positions[..., pairs[:, 0], :]
    if lattice is not None:
        d = nearest_images(d, lattice)
    return geometry.length(jnp.moveaxis(d, -1, 0))


def _gathered(positions, atoms, n: int) -> list[Array]:
    """Return n arrays (..., M, 3) Å: positions of the first, second, ... atoms of tuples (M, n)."""
    positions = floating(positions)
    atoms = checked_indices(positions, atoms, n)
    return [positions[..., atoms[:, k], :] for k in range(n)]


def checked_indices(positions: Array, atoms: ArrayLike, n: int) -> np.ndarray:
    """Return indices (M, n) of atoms as an array; raise InputError if invalid."""
    atoms = np.asarray(atoms)
    if positions.ndim < 2 or positions.shape[-1] != 3:
        raise InputError(f"positions must have shape (..., N, 3) (got {positions.shape})")
    if atoms.shape[1:] != (n,) or not np.issubdtype(atoms.dtype, np.integer):
        raise InputError(
            f"atom indices must be integers of shape (M, {n}) (got shape {atoms.shape} and type "
            f"{atoms.dtype})"
        )
    # JAX would clamp an index out of range without a warning.
    if atoms.size and not (atoms.min() >= 0 and atoms.max() < positions.shape[-2]):
        raise InputError(
            f"atom indices must be 0 to {positions.shape[-2] - 1} (got {atoms.min()} to "
            f"{atoms.max()})"
        )
    repeated = (np.diff(np.sort(atoms, axis=1), axis=1) == 0).any(axis=1)
    if repeated.any():
        raise InputError(
            f"{atoms[repeated][0].tolist()} contains an atom twice: give different atoms"
        )
    return atoms
