"""The iterative solver: conjugate gradients with a Nyström preconditioner."""

from __future__ import annotations

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.gdml.conjugate import NotConverged, State, Vectors, iterate
from jaxff.gdml.nystrom import Nystrom, draw_size, nystrom
from jaxff.gdml.operator import KernelOperator
from jaxff.gdml.settings import Progress
from jaxff.store import Store

Array = jax.Array

PATIENCE = 500  # iterations without a smaller residual, after which rounding errors dominate


class Iterative:
    """Conjugate gradients with a Nyström preconditioner.

    Args:
        op: the operator K + λ.
        columns: number of columns of the preconditioner.
        tolerance: relative residual to reach.
        max_iterations: number of iterations after which `solve` gives up.  A call that continues
            from a checkpoint does as many iterations again.
        seed: seed of the choice of the preconditioner's pivots.
        checkpoint: file for the state, written every `interval` seconds and when `solve` gives
            up.  A state in this file is continued if it belongs to the same system and labels,
            and replaced otherwise.
        interval: seconds between two writes.
        progress: function called with the name of a phase and the finished fraction of it.
    """

    def __init__(
        self,
        op: KernelOperator,
        columns: int,
        *,
        tolerance: float = 1e-4,
        max_iterations: int = 5000,
        seed: int = 0,
        checkpoint: str | Path | None = None,
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
        """The solution a (M, W) of (K + λ) a = y, to the tolerance.

        Raises:
            NotConverged: `max_iterations` were not enough; the checkpoint contains the state.
        """
        store = self.store(y)
        state = self.restored(store)
        started = saved = time.perf_counter()
        earlier = len(state.residuals) if state else 0
        first = state.residuals[0] if state else None
        self.report("conjugate gradients", 0.0)

        def after(state: State) -> None:
            nonlocal saved, first
            first = state.residuals[0] if first is None else first
            now = time.perf_counter()
            rate = (len(state.residuals) - earlier) / (now - started)
            distance = np.log(max(first, 1.0) / self.tolerance)
            done = np.log(max(first, 1.0) / state.residual) / distance
            self.report("conjugate gradients", float(np.clip(done, 0.0, 1.0)))
            if self.checkpoint is not None and now - saved > self.interval:
                self._save(store, state)
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
            patience=PATIENCE,
            state=state,
            after=after,
        )
        if state.residual > self.tolerance:
            where = "was not kept, as there is no checkpoint"
            if self.checkpoint is not None:
                self._save(store, state)
                where = f"is in {self.checkpoint}: the same call continues from there"
            raise NotConverged(
                f"after {len(state.residuals)} iterations the relative residual is "
                f"{state.residual:.2e}, but the tolerance is {self.tolerance:.1e}; the state "
                f"{where}; raise the memory limit, so that the preconditioner is larger, or raise "
                "lam or the tolerance"
            )
        return state.best

    def __str__(self) -> str:
        columns = self.preconditioner.factor.shape[1]
        return f"iterative, {self.op.size} unknowns, {columns} columns"

    def store(self, y: Array) -> Store:
        """The file with the state of this system and the labels y (M, W)."""
        if self.checkpoint is None:
            return Store(None, {})
        op = self.op
        request = {
            "labels": op.gathered(y),
            "descriptors": op.gathered(op.descriptors),
            "entries": np.asarray(op.entries),
            "sigma": float(op.sigma),
            "lam": float(op.lam),
            "columns": self.preconditioner.factor.shape[1],
        }
        return Store(self.checkpoint, request, "kernel solution", replace=True)

    def restored(self, store: Store) -> State | None:
        """The state in `store`, on the operator's devices; None if there is none."""
        known = store.load()
        if known is None:
            return None
        x, r, p, best = (self.op.spread(known[key]) for key in ("x", "r", "p", "best"))
        return State(Vectors(x, r, p, jnp.asarray(known["rz"])), best, known["residuals"])

    def _save(self, store: Store, state: State) -> None:
        v = state.vectors
        arrays = {"x": v.x, "r": v.r, "p": v.p, "best": state.best}
        arrays = {key: self.op.gathered(value) for key, value in arrays.items()}
        if jax.process_index() == 0:
            store.save({**arrays, "rz": np.asarray(v.rz), "residuals": state.residuals})


def iterative_bytes(op: KernelOperator, columns: int) -> int:
    """Memory that `Iterative` needs, bytes: the preconditioner and some work arrays."""
    return op.dtype.itemsize * (
        op.size * (columns + 4 * draw_size(columns) + 20) + 3 * columns**2 + op.size * op.width
    )
