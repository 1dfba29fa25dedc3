"""Descriptors that the kernel compares, and permutations of their entries.

A descriptor is a function ``(R (N, 3) Å, lattice (3, 3) Å or None) -> (D,)``.  A permutation of
equivalent atoms must permute the D entries.  The default is the descriptor of sGDML: the inverse
distances of the pairs (i, j), i > j, in the order of ``np.tril_indices(N, -1)``.
Source: Chmiela et al., Sci. Adv. 3, e1603015 (2017).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError

Array = jax.Array
Descriptor = Callable[[Array, Any], Array]  # of positions and lattice


@lru_cache
def incidence(n_atoms: int) -> np.ndarray:
    """Matrix (D, N) that maps positions (N, 3) to the differences r_i − r_j of all D pairs."""
    i, j = np.tril_indices(n_atoms, -1)
    matrix = np.zeros((len(i), n_atoms), np.int8)
    pair = np.arange(len(i))
    matrix[pair, i], matrix[pair, j] = 1, -1
    return matrix


def inverse_distances(R: Array, lattice: np.ndarray | Array | None = None) -> Array:
    """Inverse distances (D,), 1/Å, of all pairs of atoms (of nearest images in a lattice).

    Args:
        R: (N, 3) Å.
        lattice: (3, 3) Å, lattice vectors as columns, or None.
    """
    # The transpose of a matrix product is a matrix product, that of a gather is a slow scatter.
    matrix = jnp.asarray(incidence(R.shape[0]), R.dtype)
    difference = jnp.matmul(matrix, R, precision="highest")
    if lattice is not None:
        fractional = jnp.linalg.solve(lattice, difference.T)
        difference = difference - (lattice @ jnp.round(fractional)).T
    return 1.0 / jnp.sqrt(jnp.sum(difference**2, axis=-1))


def weighted_inverse_distances(
    R: Array, lattice: np.ndarray | Array | None = None, *, weights: tuple[float, ...]
) -> Array:
    """Weighted inverse distances w_i w_j / r_ij (D,), 1/Å, of all pairs of atoms.

    Args:
        R: (N, 3) Å.
        lattice: (3, 3) Å, lattice vectors as columns, or None.
        weights: (N,) weights w of the atoms.
    """
    i, j = np.tril_indices(len(weights), -1)
    pairs = np.asarray(weights)[i] * np.asarray(weights)[j]
    return inverse_distances(R, lattice) * jnp.asarray(pairs, R.dtype)


def scaled_distances(
    R: Array,
    lattice: np.ndarray | Array | None = None,
    *,
    weights: tuple[float, ...],
    power: float,
) -> Array:
    """Weighted powers w_k r_k^(−p) (D,), 1/Å, of the distances r_k of all pairs of atoms.

    Args:
        R: (N, 3) Å.
        lattice: (3, 3) Å, lattice vectors as columns, or None.
        weights: (D,) weights w of the pairs, Å^(p − 1); see `jaxff.gdml.metric`.
        power: exponent p.
    """
    return jnp.asarray(weights, R.dtype) * inverse_distances(R, lattice) ** power


def light_hydrogens(numbers: np.ndarray, weight: float = 0.85) -> Descriptor:
    """Descriptor for `Kernel(descriptor=...)` in which hydrogens have a smaller weight.

    Distances to hydrogens vary most and affect the energy least.  The best weight increases with
    the number of frames: for aspirin about 0.6 with 150 frames and 0.85 with 1,000.

    Args:
        numbers: (N,) atomic numbers.
        weight: weight of a hydrogen; other atoms have weight one.
    """
    weights = tuple(np.where(np.asarray(numbers) == 1, float(weight), 1.0).tolist())
    return partial(weighted_inverse_distances, weights=weights)


def squared_distances(x: Array, y: Array) -> Array:
    """(A, B) squared distances |x_a − y_b|² of descriptors x (A, D) and y (B, D)."""
    product = jnp.matmul(x, y.T, precision="highest")
    return jnp.sum(x * x, -1)[:, None] + jnp.sum(y * y, -1) - 2.0 * product


def descriptor_name(descriptor: Descriptor) -> str:
    """Name of a descriptor with its keyword arguments; it is the same in every process."""
    if isinstance(descriptor, partial):
        given = ", ".join(f"{key}={value!r}" for key, value in descriptor.keywords.items())
        return f"{descriptor_name(descriptor.func)}({given})"
    return getattr(descriptor, "__qualname__", type(descriptor).__qualname__)


def pair_permutations(permutations: np.ndarray) -> np.ndarray:
    """Permutations (P, D) of atom pairs that follow from permutations of the atoms.

    Args:
        permutations: (P, N) permutations p.  Entry k(i, j) of the result is k(p[i], p[j]), where k
            is the index of a pair.
    """
    permutations = np.asarray(permutations, int)
    n_atoms = permutations.shape[1]
    i, j = np.tril_indices(n_atoms, -1)
    pair = np.zeros((n_atoms, n_atoms), int)
    pair[i, j] = pair[j, i] = np.arange(len(i))
    return pair[permutations[:, i], permutations[:, j]]


def entry_permutations(
    descriptor: Descriptor,
    permutations: np.ndarray,
    positions: np.ndarray | Array | None = None,
    lattice: np.ndarray | Array | None = None,
) -> np.ndarray:
    """Permutations (P, D) of descriptor entries that follow from permutations of the atoms.

    For a permutation p of the atoms, the result has a row q.  Entry k of the descriptor of R[p] is
    entry q[k] of the descriptor of R.  For inverse distances q has a closed form.  Other
    descriptors are evaluated at some geometries.

    Args:
        descriptor: the descriptor.
        permutations: (P, N) permutations of the atoms.
        positions: (M, N, 3) Å, of which up to 8 frames are used (None: random positions).  Any two
            entries of the descriptor must differ in at least one frame.
        lattice: (3, 3) Å, lattice vectors as columns, or None.

    Raises:
        InputError: the value of the descriptor is not a finite vector, or a permutation of atoms
            does not permute its entries.
    """
    permutations = np.asarray(permutations, int)
    if descriptor is inverse_distances:
        return pair_permutations(permutations)
    name = descriptor_name(descriptor)
    n_atoms, rng = permutations.shape[1], np.random.default_rng(0)
    if positions is None:
        positions = rng.normal(size=(1, n_atoms, 3))
    R = np.asarray(positions, float)[:: max(1, len(positions) // 8)][:8]

    def values(R) -> np.ndarray:  # (frames, D)
        with jax.ensure_compile_time_eval():
            return np.array([np.asarray(descriptor(jnp.asarray(r), lattice)) for r in R])

    original = values(R)
    if original.ndim != 2 or not np.isfinite(original).all():
        what = f"has shape {original.shape[1:]}" if original.ndim != 2 else "is not finite"
        raise InputError(f"descriptor {name}: the value {what}; return a finite vector (D,)")
    mixed = rng.normal(size=len(R))  # distinguishes entries that are equal in some of the frames
    order, out = np.argsort(mixed @ original, kind="stable"), []
    for p in permutations:
        image = original if np.array_equal(p, np.arange(n_atoms)) else values(R[:, p])
        sorted_image = np.argsort(mixed @ image, kind="stable")
        if not np.allclose(original[:, order], image[:, sorted_image], rtol=1e-5, atol=1e-9):
            raise InputError(
                f"descriptor {name}: the permutation {p.tolist()} of the atoms does not permute "
                "the entries; train with Kernel(symmetries=None) or change the descriptor"
            )
        place = np.empty(len(order), int)
        place[sorted_image] = order
        out.append(place)
    return np.array(out)
