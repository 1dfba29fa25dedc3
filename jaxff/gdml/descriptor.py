"""The sGDML descriptor: inverse interatomic distances, and how atom permutations act on it.

Pairs k = (i, j), i > j, stand in the order of ``np.tril_indices(N, -1)``; there are
D = N(N−1)/2 of them.  Source: Chmiela et al., Sci. Adv. 3, e1603015 (2017).
"""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


@lru_cache
def incidence(n_atoms: int) -> np.ndarray:
    """(D, N) matrix that takes positions to pair differences r_i − r_j."""
    i, j = np.tril_indices(n_atoms, -1)
    matrix = np.zeros((len(i), n_atoms), np.int8)
    pair = np.arange(len(i))
    matrix[pair, i], matrix[pair, j] = 1, -1
    return matrix


def _differences(R: Array) -> Array:
    # A matrix product, because its transpose is one, too: gathers would turn into scatters.
    matrix = jnp.asarray(incidence(R.shape[0]), R.dtype)
    return jnp.matmul(matrix, R, precision="highest")


def descriptor(R: Array) -> Array:
    """Inverse distances (D,) 1/Å of positions R (N, 3) Å."""
    difference = _differences(R)
    return 1.0 / jnp.sqrt(jnp.sum(difference**2, axis=-1))


def jacobian(R: Array) -> Array:
    """∂x_k/∂r, (D, N, 3) 1/Å², of the descriptor at R (N, 3) Å."""
    difference = _differences(R)
    slope = difference * jnp.sum(difference**2, axis=-1, keepdims=True) ** -1.5
    return -jnp.asarray(incidence(R.shape[0]), R.dtype)[:, :, None] * slope[:, None, :]


def pair_permutations(permutations: np.ndarray) -> np.ndarray:
    """(P, D) permutations of pairs, k(i, j) → k(p[i], p[j]), of atom permutations (P, N)."""
    permutations = np.asarray(permutations, int)
    n_atoms = permutations.shape[1]
    i, j = np.tril_indices(n_atoms, -1)
    pair = np.zeros((n_atoms, n_atoms), int)
    pair[i, j] = pair[j, i] = np.arange(len(i))
    return pair[permutations[:, i], permutations[:, j]]
