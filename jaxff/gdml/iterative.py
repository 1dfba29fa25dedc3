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
    """Solver of (K + λ) a = y by conjugate gradients with a Nyström preconditioner.

    Args:
        op: the operator K + λ: kernel matrix plus regularisation.
        columns: number of columns of the preconditioner.
        tolerance: relative residual to reach.
        max_iterations: limit of the iterations in one call of `solve`.
        seed: seed of the random pivots of the preconditioner.
        checkpoint: file for the state of the iteration, which is written every `interval` seconds
            and when `solve` fails.  `solve` continues from this state if the system and the labels
            are the same, and otherwise replaces the state.
        interval: seconds between two writes.
        progress: function called with the name of a phase and its finished fraction.
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
        """Solution a (M, W) of (K + λ) a = y for y (M, W), to the tolerance.

        Raises:
            NotConverged: the limit of the iterations is reached, or 500 iterations in a row have
                not reduced the residual.
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
            again = ""
            if self.checkpoint is not None:
                self._save(store, state)
                again = f", or run the same call again, which continues from {self.checkpoint}"
            raise NotConverged(
                f"after {len(state.residuals)} iterations the relative residual is "
                f"{state.residual:.2e}, but the tolerance is {self.tolerance:.1e}: raise the "
                f"memory limit (for a better preconditioner), lam or the tolerance{again}"
            )
        return state.best

    def __str__(self) -> str:
        columns = self.preconditioner.factor.shape[1]
        return f"iterative, {self.op.size} unknowns, {columns} columns"

    def store(self, y: Array) -> Store:
        """The file for the state of the iteration for labels y (M, W)."""
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
        """Load the state in `store` onto the devices of the operator; None if there is none."""
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
