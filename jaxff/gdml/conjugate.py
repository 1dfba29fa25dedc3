"""Preconditioned conjugate gradients for the kernel system (K + λ) a = y."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.gdml.operator import KernelOperator

Array = jax.Array


class NotConverged(InputError):
    """A solver ended with a residual above its tolerance."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("x", "r", "p", "rz"),
    meta_fields=(),
)
@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors of the iteration for (K + λ) x = y.

    Attributes:
        x: (M, W) approximate solution.
        r: (M, W) residual y − (K + λ) x.
        p: (M, W) search direction.
        rz: () rᵀz, where z is the preconditioned residual.
    """

    x: Array
    r: Array
    p: Array
    rz: Array


@dataclass
class State:
    """State of the iteration for (K + λ) x = y.

    Attributes:
        vectors: the vectors of the last iteration.
        best: (M, W) solution with the smallest residual so far.
        residuals: relative residual |y − (K + λ) x| / |y| after each iteration.
    """

    vectors: Vectors
    best: Array
    residuals: list[float] = field(default_factory=list)

    @property
    def residual(self) -> float:
        """The smallest relative residual so far; ∞ before the first iteration."""
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
    """Solve (K + λ) x = y by preconditioned conjugate gradients.

    The iteration ends when |y − (K + λ) x| ≤ tolerance |y|, when a residual is not finite, or at
    one of the two limits.

    Args:
        op: the operator K + λ: kernel matrix plus regularisation.
        y: (M, W) right-hand side.
        preconditioner: function r -> approximation of (K + λ)⁻¹ r, both (M, W).
        tolerance: relative residual to reach.
        max_iterations: limit of the iterations in this call.
        patience: limit of the iterations in a row without a smaller residual (None: no limit).
        state: state to continue from (None: start at x = 0).
        after: function called with the state after each iteration.

    Returns:
        The last state, whose `best` is the solution.
    """
    norm = float(jnp.linalg.norm(y))
    if norm == 0.0:
        zero = jnp.zeros_like(y)
        return State(Vectors(zero, y, zero, jnp.zeros((), y.dtype)), zero, [0.0])
    if state is None:
        z = preconditioner(y)
        state = State(Vectors(jnp.zeros_like(y), y, z, jnp.vdot(y, z)), jnp.zeros_like(y))
    waited, last = 0, len(state.residuals) + max_iterations
    while state.residual > tolerance and len(state.residuals) < last:
        v = state.vectors
        q = op @ v.p
        x, r = _step(v, q)
        residual = float(jnp.linalg.norm(r)) / norm
        if residual <= tolerance:
            # The recurrence for r hides rounding errors, so r is computed from its definition.
            r = y - op @ x
            residual = float(jnp.linalg.norm(r)) / norm
        if not np.isfinite(residual):
            break
        z = preconditioner(r)
        rz = jnp.vdot(r, z)
        direction = z + (rz / v.rz) * v.p
        waited = 0 if residual < state.residual else waited + 1
        best = x if residual < state.residual else state.best
        state = State(Vectors(x, r, direction, rz), best, [*state.residuals, residual])
        if after is not None:
            after(state)
        if patience is not None and waited >= patience:
            break
    return state


@jax.jit
def _step(v: Vectors, q: Array) -> tuple[Array, Array]:
    length = v.rz / jnp.vdot(v.p, q)
    return v.x + length * v.p, v.r - length * q
