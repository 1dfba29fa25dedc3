"""Cholesky factorisation of a symmetric matrix in tiles.

Only the tiles of the lower triangle are stored, which halves the memory.

With two threads, the factorisation of OpenBLAS crashes or reports a false failure for matrices with
more than about 22,800 rows.  Here LAPACK factorises small blocks only.  All other steps are matrix
products of tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

Array = jax.Array
Tiles = list[list[Array]]  # row i contains the tiles (i, 0) ... (i, i)

_BLOCK = 256  # side of the blocks that LAPACK factorises


class NotPositiveDefinite(ArithmeticError):
    """The matrix is not positive definite, so that it has no Cholesky factor."""


def factorise(tiles: Tiles, progress: Callable[[float], None] | None = None) -> None:
    """Replace the tiles of a positive definite matrix A = L Lᵀ by the tiles of L.

    Args:
        tiles: square tiles of equal size; row i contains the tiles (i, 0) ... (i, i).
        progress: function called with the finished fraction.

    Raises:
        NotPositiveDefinite: A is not positive definite; the tiles are then partly overwritten.
    """
    count = len(tiles)
    done, total = 0, count * (count + 1) * (count + 2) // 6
    for i, row in enumerate(tiles):
        for j in range(i):
            for k in range(j):
                row[j] = _subtract_product(row[j], row[k], tiles[j][k])
            row[j] = _divide(row[j], tiles[j][j])
            done += j + 1
            if progress is not None:
                progress(done / total)
        for k in range(i):
            row[i] = _subtract_product(row[i], row[k], row[k])
        row[i] = _factorise_tile(row[i])
        if not bool(jnp.isfinite(jnp.diagonal(row[i])).all()):
            raise NotPositiveDefinite(
                f"the matrix is not positive definite (tile {i + 1} of {count}): add a larger "
                "multiple of the unit matrix"
            )
        done += i + 1
        if progress is not None:
            progress(done / total)


def solve(tiles: Tiles, b: Array) -> Array:
    """Solution x of L Lᵀ x = b, in the shape of b.

    Args:
        tiles: the tiles of L, from `factorise`.
        b: (n,) or (n, k) right-hand side.
    """
    x = list(jnp.split(b.reshape(len(b), -1), len(tiles)))
    for i, row in enumerate(tiles):
        for j in range(i):
            x[i] = _subtract(x[i], row[j], x[j])
        x[i] = _divide_left(row[i], x[i])
    for i in reversed(range(len(tiles))):
        x[i] = _divide_left_transposed(tiles[i][i], x[i])
        for j in range(i):
            x[j] = _subtract_transposed(x[j], tiles[i][j], x[i])
    return jnp.concatenate(x).reshape(b.shape)


def log_determinant(tiles: Tiles) -> float:
    """Natural logarithm of the determinant of A = L Lᵀ, from the tiles of L."""
    return 2.0 * sum(float(jnp.sum(jnp.log(jnp.diagonal(row[-1])))) for row in tiles)


def _times(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


@partial(jax.jit, donate_argnums=0)
def _subtract_product(target: Array, a: Array, b: Array) -> Array:
    return target - _times(a, b.T)


@partial(jax.jit, donate_argnums=0)
def _divide(target: Array, L: Array) -> Array:
    return _divided(target, L)


@partial(jax.jit, donate_argnums=0)
def _factorise_tile(A: Array) -> Array:
    return _factorised(A)


# The two functions below split the matrix recursively, so that products of large parts do most of
# the work.


def _divided(target: Array, L: Array) -> Array:
    size = len(L)
    if size <= _BLOCK:
        return jax.scipy.linalg.solve_triangular(L, target.T, lower=True).T
    half = size // 2
    left = _divided(target[:, :half], L[:half, :half])
    rest = target[:, half:] - _times(left, L[half:, :half].T)
    return jnp.concatenate([left, _divided(rest, L[half:, half:])], axis=1)


def _factorised(A: Array) -> Array:
    size = len(A)
    if size <= _BLOCK:
        return jnp.linalg.cholesky(A, symmetrize_input=False)
    half = size // 2
    first = _factorised(A[:half, :half])
    below = _divided(A[half:, :half], first)
    last = _factorised(A[half:, half:] - _times(below, below.T))
    zeros = jnp.zeros((half, size - half), A.dtype)
    return jnp.concatenate(
        [jnp.concatenate([first, zeros], axis=1), jnp.concatenate([below, last], axis=1)]
    )


@partial(jax.jit, donate_argnums=0)
def _subtract(target: Array, a: Array, x: Array) -> Array:
    return target - _times(a, x)


@partial(jax.jit, donate_argnums=0)
def _subtract_transposed(target: Array, a: Array, x: Array) -> Array:
    return target - _times(a.T, x)


@jax.jit
def _divide_left(L: Array, x: Array) -> Array:
    return jax.scipy.linalg.solve_triangular(L, x, lower=True)


@jax.jit
def _divide_left_transposed(L: Array, x: Array) -> Array:
    return jax.scipy.linalg.solve_triangular(L, x, lower=True, trans=1)
