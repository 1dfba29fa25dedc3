"""The dense solver: a Cholesky factor, refined by conjugate gradients."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from jaxff.gdml import cholesky
from jaxff.gdml.conjugate import NotConverged, iterate
from jaxff.gdml.operator import KernelOperator
from jaxff.gdml.settings import Progress

Array = jax.Array

TOLERANCE = 1e-11  # relative residual that the refinement aims at
SUFFICIENT = 1e-6  # relative residual that the refinement must reach
# Shift of the diagonal, in units of its largest entry, that exceeds the rounding errors of a
# float32 factor.
SINGLE_SHIFT = 2e-5
_TILE = 2048  # largest side of a tile; products of such tiles run at full speed
_BLOCK_FRAMES = 16  # frames per side of an assembled block, which then fits into the caches


class Dense:
    """Solver of (K + λ) a = y by a Cholesky factor of K + λ.

    Args:
        op: the operator K + λ: kernel matrix plus regularisation.
        dtype: dtype of the factor (None: that of `op`).  float32 needs half the time and memory,
            see `factor_dtype`.
        progress: function called with the name of a phase and its finished fraction.

    Raises:
        cholesky.NotPositiveDefinite: K + λ is not positive definite in this precision.
    """

    def __init__(self, op: KernelOperator, dtype=None, progress: Progress | None = None):
        report = progress or (lambda phase, fraction: None)
        self.op, self.dtype = op, jnp.dtype(dtype or op.dtype)
        shift = 0.0
        if self.dtype != op.dtype:
            shift = SINGLE_SHIFT * float(op.diagonal().max())
        frames = _frames_per_tile(op)
        self.tiles = _assembled(op, frames, self.dtype, shift, report)
        self._fill = len(self.tiles) * frames * op.width - op.size
        report("factorising", 0.0)
        cholesky.factorise(self.tiles, lambda done: report("factorising", done))

    def __call__(self, r: Array) -> Array:
        """Approximate product (K + λ)⁻¹ r for r (M, W) or (M, W, k), by the factor alone."""
        flat = r.reshape(self.op.size, -1).astype(self.dtype)
        flat = jnp.pad(flat, ((0, self._fill), (0, 0)))
        solution = cholesky.solve(self.tiles, flat)[: self.op.size]
        return solution.astype(r.dtype).reshape(r.shape)

    def solve(self, y: Array) -> Array:
        """Solution a (M, W) of (K + λ) a = y for y (M, W), refined by conjugate gradients.

        Raises:
            NotConverged: the relative residual remains above 1e-6.
        """
        state = iterate(self.op, y, self, tolerance=TOLERANCE, max_iterations=50, patience=5)
        if not state.residual <= SUFFICIENT:
            raise NotConverged(
                f"the relative residual of the dense solver is {state.residual:.1e}, but must be "
                f"below {SUFFICIENT:g}: raise lam or remove nearly identical frames"
            )
        return state.best

    def __str__(self) -> str:
        precision = "" if self.dtype == self.op.dtype else f", factor in {self.dtype}"
        return f"dense, {self.op.size} unknowns{precision}"

    def log_determinant(self) -> float:
        """Natural logarithm of the determinant of K + λ."""
        return cholesky.log_determinant(self.tiles)


def factor_dtype(op: KernelOperator) -> jnp.dtype:
    """Dtype of the factor: float32 if λ exceeds the rounding errors of float32, else `op.dtype`."""
    single = float(op.lam) > SINGLE_SHIFT * float(op.diagonal().max())
    return jnp.dtype(jnp.float32) if single else op.dtype


def dense_bytes(op: KernelOperator) -> int:
    """Memory that `Dense` needs, bytes: the tiles and some work arrays."""
    frames = _frames_per_tile(op)
    count, side = -(-op.n_frames // frames), frames * op.width
    return op.dtype.itemsize * (count * (count + 1) // 2 + 6) * side**2


def _frames_per_tile(op: KernelOperator) -> int:
    return -(-op.n_frames // max(1, -(-op.size // _TILE)))


def _assembled(op: KernelOperator, frames: int, dtype, shift: float, report: Progress):
    """Tiles of the lower triangle of K + λ + shift; `frames` frames form a side."""
    count = -(-op.n_frames // frames)
    total = count * (count + 1) // 2
    report("assembling", 0.0)
    tiles: cholesky.Tiles = []
    for i in range(count):
        row = []
        for j in range(i + 1):
            row.append(jax.block_until_ready(_tile(op, i, j, shift, frames, dtype)))
            report("assembling", (i * (i + 1) // 2 + j + 1) / total)
        tiles.append(row)
    return tiles


@partial(jax.jit, static_argnums=(4, 5))
def _tile(op, i, j, shift, frames, dtype):
    """Tile (i, j) of K + λ + shift; rows beyond the last frame are those of the unit matrix."""
    side, width = min(_BLOCK_FRAMES, frames), op.width
    # The last block of a tile overlaps the block before it, so that all have the same shape.
    starts = jnp.asarray([min(s, frames - side) for s in range(0, frames, side)])

    def strip(r):
        def put(out, c):
            index = (tile * frames + s + jnp.arange(side) for tile, s in ((i, r), (j, c)))
            part = op.block(*(jnp.minimum(f, op.n_frames - 1) for f in index))
            part = part.reshape(side * width, -1).astype(dtype)
            return jax.lax.dynamic_update_slice(out, part, (0, c * width)), None

        return jax.lax.scan(put, jnp.zeros((side * width, frames * width), dtype), starts)[0]

    def put(out, r):
        return jax.lax.dynamic_update_slice(out, strip(r), (r * width, 0)), None

    out = jax.lax.scan(put, jnp.zeros((frames * width, frames * width), dtype), starts)[0]
    row, column = (tile * frames * width + jnp.arange(frames * width) for tile in (i, j))
    out = jnp.where((row < op.size)[:, None] & (column < op.size), out, 0.0)
    diagonal = jnp.asarray(jnp.where(row < op.size, op.lam + shift, 1.0)).astype(dtype)
    return out + jnp.where(row[:, None] == column, diagonal, 0.0)
