"""The Matérn-5/2 kernel of sGDML and its force-force blocks.

With t = √5 d/σ, d = |x − x'|, the kernel is k = (1 + t + t²/3) exp(−t).  The three functions here
are functions of u = t², each the derivative of the one before up to a factor, so that
derivatives stay finite and right at d = 0, where the square root has none.
Source: Chmiela et al., Nat. Commun. 9, 3887 (2018).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

Array = jax.Array


def _root(u: Array) -> Array:
    # u comes from a matrix product: rounding can leave it just below zero.
    return jnp.sqrt(jnp.maximum(u, 0.0))


@jax.custom_jvp
def matern(u: Array) -> Array:
    """k = (1 + t + t²/3) exp(−t) of u = t²."""
    t = _root(u)
    return (1.0 + t + t * t / 3.0) * jnp.exp(-t)


@jax.custom_jvp
def damped(u: Array) -> Array:
    """−6 dk/du = (1 + t) exp(−t) of u = t²."""
    t = _root(u)
    return (1.0 + t) * jnp.exp(-t)


@jax.custom_jvp
def decay(u: Array) -> Array:
    """12 d²k/du² = exp(−t) of u = t²."""
    return jnp.exp(-_root(u))


@matern.defjvp
def _(primals, tangents):
    (u,), (du,) = primals, tangents
    return matern(u), damped(u) * (-du / 6.0)


@damped.defjvp
def _(primals, tangents):
    (u,), (du,) = primals, tangents
    return damped(u), decay(u) * (-du / 2.0)


@decay.defjvp
def _(primals, tangents):
    # The slope diverges at u = 0; in energies it always multiplies something that vanishes faster.
    (u,), (du,) = primals, tangents
    positive = u > 0.0
    t = jnp.sqrt(jnp.where(positive, u, 1.0))
    slope = jnp.where(positive, -0.5 * jnp.exp(-t) / t, 0.0)
    return decay(u), slope * du


def force_weight(sigma: Array) -> Array:
    """5/(3σ²): the factor of `damped` in the force-force kernel and in predictions."""
    return 5.0 / (3.0 * sigma**2)


@jax.jit
def force_blocks(rows: tuple, columns: tuple, pair_permutations: Array, sigma: Array) -> Array:
    """Minus the force-force kernel between two sets of frames, summed over permutations.

    Block (i, j) is Σ_p J_iᵀ [w I − h δδᵀ] J_j^p with δ = x_i − x_j^p,
    w = 5/(3σ²) (1 + t) exp(−t), h = 25/(3σ⁴) exp(−t).

    Args:
        rows: descriptors (A, D) 1/Å and their Jacobians (A, D, 3N) 1/Å².
        columns: the same of the other frames, (B, D) and (B, D, 3N).
        pair_permutations: (P, D) permutations of pairs, applied to the columns.
        sigma: () 1/Å.

    Returns:
        (A, 3N, B, 3N) 1/Å⁴·Å².
    """
    x, J = rows
    x_p = columns[0][:, pair_permutations]  # (B, P, D)
    J_p = columns[1][:, pair_permutations]  # (B, P, D, 3N)
    n_perms, dimension = pair_permutations.shape

    squared = jnp.sum(x * x, -1)[:, None, None] + jnp.sum(x_p * x_p, -1)
    u = (5.0 / sigma**2) * (squared - 2.0 * jnp.einsum("id,jpd->ijp", x, x_p))
    w = force_weight(sigma) * damped(u)
    h = 25.0 / (3.0 * sigma**4) * decay(u)
    # J_iᵀδ and J_j^pᵀδ
    left = jnp.einsum("ida,id->ia", J, x)[:, None, None] - jnp.einsum("ida,jpd->ijpa", J, x_p)
    right = jnp.einsum("id,jpdb->ijpb", x, J_p) - jnp.einsum("jpd,jpdb->jpb", x_p, J_p)
    left = left * h[..., None]

    by_permutation = J_p.transpose(1, 2, 0, 3)  # (P, D, B, 3N)

    def one_row(frame):
        # Adding up the permutations first leaves one matrix product for all columns.
        J, w, left, right = frame
        weighted = sum(w[:, p, None] * by_permutation[p] for p in range(n_perms))
        block = (J.T @ weighted.reshape(dimension, -1)).reshape(-1, *right.shape[::2])
        outer = (left[:, p].T[..., None] * right[:, p] for p in range(n_perms))
        return block - sum(outer)

    return jax.lax.map(one_row, (J, w, left, right))


def block_frames(n_atoms: int, n_perms: int) -> int:
    """Frames per block of `force_blocks` that keep its permuted Jacobians near 2 MB."""
    per_frame = 8 * n_perms * (n_atoms * (n_atoms - 1) // 2) * 3 * n_atoms
    return max(4, min(64, math.ceil(2e6 / per_frame)))
