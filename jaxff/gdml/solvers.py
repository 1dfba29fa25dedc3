"""Solvers of kernel systems (K + λ) a = y: a Cholesky factor, or preconditioned iterations.

Both end in conjugate gradients on the exact operator; they differ in the preconditioner.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.gdml import cholesky
from jaxff.gdml.nystrom import Nystrom, draw_size, nystrom
from jaxff.gdml.operator import KernelOperator
from jaxff.npz import NpzReader, write_npz

Array = jax.Array
Progress = Callable[[str, float], None]

DENSE_TOLERANCE = 1e-11  # relative residual that refinement of a factorised solution aims at
_DENSE_ENOUGH = 1e-6  # and what it must reach
SINGLE_SHIFT = 2e-5  # of the largest diagonal entry: stands above rounding in a float32 factor
_PATIENCE = 500  # iterations without a smaller residual: rounding is reached
_TILE = 2048  # largest side of a tile: products of such tiles run at full speed
_BLOCK_FRAMES = 16  # frames per side of an assembled block: fits caches


class NotConverged(InputError):
    """A solver stopped above its tolerance."""


class Dense:
    """The Cholesky factor of K + λ, applied and refined.

    Args:
        op: the operator.
        dtype: of the factor; float32 takes half the time and memory, see `factor_dtype`.
        progress: called with a phase and the fraction of it that is done.

    Raises:
        cholesky.NotPositiveDefinite: K + λ is not, in this precision.
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
        """The factor's own solution of (K + λ) a = r, for r (M, W) or (M, W, k)."""
        flat = r.reshape(self.op.size, -1).astype(self.dtype)
        flat = jnp.pad(flat, ((0, self._fill), (0, 0)))
        solution = cholesky.solve(self.tiles, flat)[: self.op.size]
        return solution.astype(r.dtype).reshape(r.shape)

    def solve(self, y: Array) -> Array:
        """a with (K + λ) a = y, (M, W), refined on the exact operator.

        Raises:
            NotConverged: refinement does not reach a residual of 1e-6.
        """
        state = iterate(self.op, y, self, tolerance=DENSE_TOLERANCE, max_iterations=50, patience=5)
        if not state.residual <= _DENSE_ENOUGH:
            raise NotConverged(
                f"the factorised kernel system is solved to a relative residual of only "
                f"{state.residual:.1e}: raise lam or remove nearly identical frames"
            )
        return state.best

    def __str__(self) -> str:
        precision = "" if self.dtype == self.op.dtype else f", factor in {self.dtype}"
        return f"dense, {self.op.size} unknowns{precision}"

    def log_determinant(self) -> float:
        """log |K + λ| by the factor."""
        return cholesky.log_determinant(self.tiles)


def _frames_per_tile(op: KernelOperator) -> int:
    return -(-op.n_frames // max(1, -(-op.size // _TILE)))


def _assembled(op: KernelOperator, frames: int, dtype, shift: float, report: Progress):
    """The tiles of the lower triangle of K + λ, `frames` frames a side."""
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
    """Tile (i, j) of K + λ + shift; beyond the last frame, of the unit matrix."""
    side, width = min(_BLOCK_FRAMES, frames), op.width
    # The last block of a tile overlaps its neighbour rather than have a shape of its own.
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
    diagonal = jnp.where(row < op.size, op.lam + shift, 1.0).astype(dtype)
    return out + jnp.where(row[:, None] == column, diagonal, 0.0)


def factor_dtype(op: KernelOperator):
    """float32 where λ is so large that a factor in it makes refinement converge fast."""
    single = float(op.lam) > SINGLE_SHIFT * float(op.diagonal().max())
    return jnp.dtype(jnp.float32) if single else op.dtype


def dense_bytes(op: KernelOperator) -> int:
    """Memory that `Dense` takes: the tiles of the triangle and some to work on."""
    frames = _frames_per_tile(op)
    count, side = -(-op.n_frames // frames), frames * op.width
    return op.dtype.itemsize * (count * (count + 1) // 2 + 6) * side**2


def iterative_bytes(op: KernelOperator, columns: int) -> int:
    """Memory that `Iterative` takes: the preconditioner, and some to work on."""
    return op.dtype.itemsize * (
        op.size * (columns + 4 * draw_size(columns) + 20) + 3 * columns**2 + op.size * op.width
    )


# -- conjugate gradients --------------------------------------------------------------------


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("x", "r", "p", "rz"),
    meta_fields=(),
)
@dataclass(frozen=True, eq=False)
class _Vectors:
    x: Array
    r: Array
    p: Array
    rz: Array


@dataclass
class State:
    """Where conjugate gradients stand: vectors, iterations done and relative residuals."""

    vectors: _Vectors
    best: Array
    residuals: list[float] = field(default_factory=list)

    @property
    def residual(self) -> float:
        return min(self.residuals, default=float("inf"))


def iterate(
    op: KernelOperator,
    y: Array,
    preconditioner: Callable[[Array], Array],
    *,
    tolerance: float,
    max_iterations: int,
    patience: int | None = None,
    state: State | None = None,
    after: Callable[[State], None] | None = None,
) -> State:
    """Preconditioned conjugate gradients from `state` (None: from zero).

    Stops at |y − (K + λ) a| ≤ tolerance |y|, after `max_iterations`, or when `patience`
    iterations have not brought a smaller residual.

    Args:
        op: the operator.
        y: (M, W).
        preconditioner: r -> about (K + λ)⁻¹ r.
        after: called after each iteration.
    """
    norm = float(jnp.linalg.norm(y))
    if norm == 0.0:
        zero = jnp.zeros_like(y)
        return State(_Vectors(zero, y, zero, jnp.zeros((), y.dtype)), zero, [0.0])
    if state is None:
        z = preconditioner(y)
        state = State(_Vectors(jnp.zeros_like(y), y, z, jnp.vdot(y, z)), jnp.zeros_like(y))
    since, last = 0, len(state.residuals) + max_iterations
    while state.residual > tolerance and len(state.residuals) < last:
        v = state.vectors
        q = op @ v.p
        x, r = _step(v, q)
        residual = float(jnp.linalg.norm(r)) / norm
        if residual <= tolerance:
            # What rounding has hidden from the recurrence shows in the residual itself.
            r = y - op @ x
            residual = float(jnp.linalg.norm(r)) / norm
        if not np.isfinite(residual):
            break
        z = preconditioner(r)
        rz = jnp.vdot(r, z)
        direction = z + (rz / v.rz) * v.p
        since = 0 if residual < state.residual else since + 1
        best = x if residual < state.residual else state.best
        state = State(_Vectors(x, r, direction, rz), best, [*state.residuals, residual])
        if after is not None:
            after(state)
        if patience is not None and since >= patience:
            break
    return state


@jax.jit
def _step(v: _Vectors, q: Array) -> tuple[Array, Array]:
    length = v.rz / jnp.vdot(v.p, q)
    return v.x + length * v.p, v.r - length * q


class Iterative:
    """Conjugate gradients with a Nyström preconditioner.

    Args:
        op: the operator.
        columns: of the preconditioner.
        tolerance: relative residual to reach.
        max_iterations: after which `solve` gives up; as many again when it is continued.
        seed: of the preconditioner's pivots.
        checkpoint: file that keeps the state (every `interval` seconds, and when it gives up); a
            state found there that belongs to the same system and labels is continued.
        progress: called with a phase and the fraction of it that is done.
    """

    def __init__(
        self,
        op: KernelOperator,
        columns: int,
        *,
        tolerance: float = 1e-4,
        max_iterations: int = 5000,
        seed: int = 0,
        checkpoint: Path | None = None,
        interval: float = 60.0,
        progress: Progress | None = None,
    ):
        self.report = progress or (lambda phase, fraction: None)
        self.op, self.tolerance, self.max_iterations = op, tolerance, max_iterations
        self.checkpoint, self.interval = checkpoint, interval
        self.report("preconditioner", 0.0)
        self.preconditioner: Nystrom = nystrom(
            op, columns, seed, lambda done: self.report("preconditioner", done)
        )

    def solve(self, y: Array) -> Array:
        """a with (K + λ) a = y, (M, W), to the tolerance.

        Raises:
            NotConverged: `max_iterations` did not suffice; the state is in the checkpoint.
        """
        state = self._restored(y)
        first = time.perf_counter()
        saved = first
        begun = len(state.residuals) if state else 0
        start = state.residuals[0] if state else None
        self.report("conjugate gradients", 0.0)

        def after(state: State) -> None:
            nonlocal saved, start
            start = state.residuals[0] if start is None else start
            now = time.perf_counter()
            rate = (len(state.residuals) - begun) / (now - first)
            distance = np.log(max(start, 1.0) / self.tolerance)
            done = np.log(max(start, 1.0) / state.residual) / distance
            self.report("conjugate gradients", float(np.clip(done, 0.0, 1.0)))
            if self.checkpoint is not None and now - saved > self.interval:
                self._save(state, y)
                saved = now
                self.report(
                    f"iteration {len(state.residuals)}, residual {state.residual:.1e}, "
                    f"{rate:.1f} iterations/s",
                    1.0,
                )

        state = iterate(
            self.op,
            y,
            self.preconditioner,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            patience=_PATIENCE,
            state=state,
            after=after,
        )
        if state.residual > self.tolerance:
            kept = "not kept (no checkpoint was given)"
            if self.checkpoint is not None:
                self._save(state, y)
                kept = f"kept in {self.checkpoint}: the same call goes on from there"
            raise NotConverged(
                f"{len(state.residuals)} iterations brought the relative residual to "
                f"{state.residual:.2e}, {self.tolerance:.1e} was asked for; the state is {kept}; "
                "raise max_memory (a larger preconditioner), lam or the tolerance"
            )
        return state.best

    def __str__(self) -> str:
        columns = self.preconditioner.factor.shape[1]
        return f"iterative, {self.op.size} unknowns, {columns} columns"

    def _restored(self, y: Array) -> State | None:
        path = self.checkpoint
        if path is None or not path.is_file():
            return None
        file = NpzReader(path, "checkpoint")
        if file.text("system") != self._system(y):
            return None
        x, r, p, best = (self.op.spread(file.need(key)) for key in ("x", "r", "p", "best"))
        vectors = _Vectors(x, r, p, jnp.asarray(file.need("rz")))
        return State(vectors, best, file.need("residuals").tolist())

    def _save(self, state: State, y: Array) -> None:
        v = state.vectors
        arrays = {"x": v.x, "r": v.r, "p": v.p, "best": state.best}
        arrays = {key: self.op.gathered(value) for key, value in arrays.items()}
        arrays |= {"rz": np.asarray(v.rz), "residuals": np.array(state.residuals)}
        arrays["system"] = self._system(y)
        if jax.process_index() == 0:
            write_npz(self.checkpoint, arrays)

    def _system(self, y: Array) -> str:
        """What a state belongs to: the labels, the kernel and the preconditioner."""
        digest = hashlib.md5(usedforsecurity=False)
        op = self.op
        columns = self.preconditioner.factor.shape[1]
        for part in (op.gathered(y), op.gathered(op.descriptors)):
            digest.update(part.tobytes())
        for part in (op.entries, op.sigma, op.lam, columns):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()
