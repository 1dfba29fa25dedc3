"""A low-rank preconditioner for kernel systems that are too large to factorise.

K + λ, the kernel matrix plus regularisation, is approximated by D + F Fᵀ.  F (n, m) is a partial
Cholesky factor.  Its pivots are drawn at random with probabilities proportional to the diagonal of
K − F Fᵀ.  D contains the diagonal blocks of K + λ − F Fᵀ, one for each frame ("FITC").
Source: Chen, Epperly, Tropp and Webber, Comm. Pure Appl. Math. 78, 995 (2025); Snelson and
Ghahramani, NIPS 18 (2006).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.gdml.kernel import blocks
from jaxff.gdml.operator import KernelOperator

Array = jax.Array

# Share of the mean remaining diagonal that is added to D, whose smallest eigenvalues are rounding
# errors.
_FLOOR = 0.25
_DEPENDENT = 1e-10  # eigenvalues smaller than this share of the largest of a draw are dropped


@partial(jax.tree_util.register_dataclass, data_fields=("whitener", "factor"), meta_fields=())
@dataclass(frozen=True, eq=False)
class Nystrom:
    """The preconditioner (D + F Fᵀ)⁻¹ = Bᵀ (1 − C Cᵀ) B with Bᵀ B = D⁻¹.

    Attributes:
        whitener: (M, W, W) diagonal blocks of B, one for each frame.
        factor: (n, m) C.
    """

    whitener: Array
    factor: Array

    def __call__(self, r: Array) -> Array:
        """Approximate product (K + λ)⁻¹ r for r (M, W) or (M, W, k)."""
        return _apply(self, r)


@jax.jit
def _apply(self: Nystrom, r: Array) -> Array:
    v = jnp.einsum("mwv,mv...->mw...", self.whitener, r)
    flat = v.reshape(len(self.factor), *v.shape[2:])
    # The smaller array is transposed, as a transposed factor would be copied.
    v = v - (self.factor @ (flat.T @ self.factor).T).reshape(r.shape)
    return jnp.einsum("mwv,mw...->mv...", self.whitener, v)


def nystrom(
    op: KernelOperator,
    columns: int,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Nystrom:
    """Compute the preconditioner from about `columns` columns of K.

    Args:
        op: the operator K + λ: kernel matrix plus regularisation.
        columns: number m of columns of F, an array (n, m).
        seed: seed of the choice of pivots.
        progress: function called with the finished fraction.
    """
    F, _, left = _factor(op, columns, seed, progress)
    floor = _FLOOR * max(left.mean(), 0.0) + float(op.lam)
    F, whitener = _whitened(op, F, floor)
    factor = _reduced(F, op.width)
    if progress is not None:
        progress(1.0)
    return Nystrom(whitener, factor)


def pivots(op: KernelOperator, count: int, seed: int = 0) -> np.ndarray:
    """Choose unknowns that determine the others well, by a partial Cholesky factor.

    Args:
        op: the operator K + λ: kernel matrix plus regularisation.
        count: number of unknowns.
        seed: seed of the choice.

    Returns:
        indices (n,) of at most `count` of the unknowns, in ascending order.
    """
    return np.unique(np.concatenate(_factor(op, count, seed, None)[1]))


def _factor(
    op: KernelOperator,
    columns: int,
    seed: int,
    progress: Callable[[float], None] | None,
) -> tuple[Array, list[np.ndarray], np.ndarray]:
    """Return F (n, m), the pivots of each draw, and the diagonal (n,) of K − F Fᵀ."""
    n, draw = op.size, draw_size(columns)
    rng = np.random.default_rng(seed)
    left = op.gathered(op.diagonal() - op.lam).ravel()
    F = _empty(op, columns)
    count, drawn = 0, []
    while count < columns and (total := np.maximum(left, 0.0)).sum() > 0.0:
        chosen = np.unique(rng.choice(n, min(draw, columns - count), p=total / total.sum()))
        F, kept, new = _extended(op, F, jnp.asarray(np.resize(chosen, draw)), len(chosen), count)
        count += int(kept)
        drawn.append(chosen)
        left = left - op.gathered(new)
        if int(kept) == 0:
            break
        if progress is not None:
            progress(0.7 * count / columns)
    return F, drawn, left


def draw_size(columns: int) -> int:
    """Number of pivots in one draw: a tenth of `columns`, from 1 to 512."""
    return max(1, min(-(-columns // 10), 512))


@partial(jax.jit, static_argnums=1)
def _empty(op, columns):
    # The sum with an array of the operator places the zeros on the same devices.
    return (
        jnp.zeros((op.size, columns), op.dtype)
        + 0.0 * jnp.repeat(op.descriptors[:, 0], op.width)[:, None]
    )


@partial(jax.jit, donate_argnums=1)
def _extended(op: KernelOperator, F: Array, pivots: Array, real: int, count: int):
    """Add columns for the first `real` of `pivots` to F, starting at column `count`.

    Returns:
        F, the number of columns added, and the sums (n,) of their squares.
    """
    width = op.width
    frames, coordinates = pivots // width, pivots % width
    column = matrix_columns(op, frames, coordinates) - F @ F[pivots].T
    valid = jnp.arange(len(pivots)) < real
    core = jnp.where(valid[:, None] & valid, column[pivots], 0.0)
    values, vectors = jnp.linalg.eigh(0.5 * (core + core.T))
    keep = values > _DEPENDENT * values[-1]
    # The kept directions come first, so that the columns of F are filled without gaps.
    order = jnp.argsort(~keep, stable=True)
    values, vectors, keep = values[order], vectors[:, order], keep[order]
    root = jnp.sqrt(jnp.asarray(jnp.where(keep, values, 1.0)))
    new = column @ jnp.asarray(jnp.where(keep, vectors / root, 0.0))
    room = F.shape[1]
    place = jnp.where(keep, count + jnp.arange(len(keep)), room)
    return F.at[:, place].set(new, mode="drop"), keep.sum(), jnp.sum(new * new, axis=1)


def matrix_columns(op: KernelOperator, frames: Array, coordinates: Array) -> Array:
    """Columns (n, k) of K, given by their frames (k,) and reduced coordinates (k,)."""
    slopes = jnp.take_along_axis(op.jacobians[frames], coordinates[:, None, None], axis=2)
    picked = (op.descriptors[frames], slopes)

    def one(frame):
        x, A = frame
        return blocks((x[None], A[None]), picked, op.entries, op.sigma, False)[0, :, :, 0]

    return jax.lax.map(one, (op.descriptors, op.jacobians)).reshape(op.size, -1)


# The next two functions overwrite F row by row, because a second array of this size would double
# the memory.


@partial(jax.jit, donate_argnums=1)
def _whitened(op, F, floor):
    """The product B F, and B with Bᵀ B = D⁻¹, where `floor` is added to the diagonal of D."""
    width = op.width

    def one(i, carry):
        F, whitener = carry
        frame = op.descriptors[i][None], op.jacobians[i][None]
        diagonal_block = blocks(frame, frame, op.entries, op.sigma, False)[0, :, 0]
        rows = jax.lax.dynamic_slice_in_dim(F, i * width, width)
        unit = jnp.eye(width, dtype=F.dtype)
        L = jnp.linalg.cholesky(diagonal_block - rows @ rows.T + floor * unit)
        B = jax.scipy.linalg.solve_triangular(L, unit, lower=True)
        F = jax.lax.dynamic_update_slice_in_dim(F, B @ rows, i * width, axis=0)
        return F, whitener.at[i].set(B)

    empty = jnp.zeros((op.n_frames, width, width), F.dtype)
    return jax.lax.fori_loop(0, op.n_frames, one, (F, empty))


@partial(jax.jit, donate_argnums=0, static_argnums=1)
def _reduced(F, width):
    """The factor C with (1 + F Fᵀ)⁻¹ = 1 − C Cᵀ."""
    L = jnp.linalg.cholesky(F.T @ F + jnp.eye(F.shape[1], dtype=F.dtype))
    inverse = jax.scipy.linalg.solve_triangular(L, jnp.eye(len(L), dtype=F.dtype), lower=True).T
    at_once = width * max(1, 2048 // width)
    if len(F) <= at_once:
        return F @ inverse

    def some(i, F):
        # The last rows overlap the rows before them, which are finished and not changed again.
        start = jnp.minimum(i * at_once, len(F) - at_once)
        rows = jax.lax.dynamic_slice_in_dim(F, start, at_once)
        fresh = (start + jnp.arange(at_once) >= i * at_once)[:, None]
        rows = jnp.where(fresh, rows @ inverse, rows)
        return jax.lax.dynamic_update_slice_in_dim(F, rows, start, axis=0)

    return jax.lax.fori_loop(0, -(-len(F) // at_once), some, F)
