"""Levenberg and Marquardt's method for force matching: few, well-informed steps.

Sources: K. Levenberg, Q. Appl. Math. 2, 164 (1944); D. W. Marquardt, J. SIAM 11, 431 (1963).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxff.parameters import FreeParameters

MEMORY = 4e8  # bytes of Jacobians at once
FIRST_DAMPING, SMALLEST, LARGEST = 1e-3, 1e-9, 1e12


@dataclass(frozen=True, eq=False)
class Solution:
    """Moves found, the matrix of the normal equations there, and how it went.

    Attributes:
        moves: of the free parameters.
        curvature: (P, P) Jᵀ J + prior at the solution, in units of moves.
        variance: mean square of the residuals per degree of freedom.
        losses: the objective after each step.
        converged: whether the last steps changed it by less than the tolerance.
    """

    moves: dict
    curvature: np.ndarray
    variance: float
    losses: list[float]
    converged: bool


def levenberg_marquardt(
    free: FreeParameters,
    R,
    E,
    F,
    *,
    energy_weight: float,
    prior: float,
    steps: int = 60,
    tolerance: float = 1e-4,
    after: Callable[[dict], None] = lambda moves: None,
) -> Solution:
    """Moves that minimise mean |ΔF|² + w mean ΔE² + prior · mean moves² (per column scale).

    Args:
        free: the parameters.
        R, E, F: (M, N, 3) Å, (M,) kcal/mol or None, (M, N, 3) kcal/mol/Å.
        energy_weight: w, 1/Å²; energies count from their mean.
        prior: strength that holds the parameters at the start, (kcal/mol/Å)² of a move of one
            scale, shared among the frames.
        steps: at most.
        tolerance: relative change of the objective at which it stops.
        after: called with the moves of each accepted step.
    """
    start, unravel = ravel_pytree(free.no_moves())
    n_frames, n_atoms = R.shape[:2]
    weight = 0.0 if E is None else energy_weight
    E = jnp.zeros(n_frames) if E is None else jnp.asarray(E)
    per_frame = 8 * (3 * n_atoms + 1) * max(len(start), 1) * 3
    batch = int(max(1, min(n_frames, MEMORY // per_frame)))
    scale_f, scale_e = 1.0 / np.sqrt(n_frames * 3 * n_atoms), np.sqrt(weight / n_frames)

    def predicted(vector, r):
        energy, forces = free.start.program.energy_and_forces(free.params(unravel(vector)), r)
        return jnp.append(forces.ravel() * scale_f, energy * scale_e)

    def wanted(energy, forces):
        return jnp.append(forces.ravel() * scale_f, energy * scale_e)

    @jax.jit
    def residuals(vector, R, E, F):
        one = partial(predicted, vector)
        return jax.lax.map(lambda x: one(x[0]) - wanted(x[1], x[2]), (R, E, F), batch_size=64)

    @jax.jit
    def normal(vector, R, E, F):
        """Sums over frames of JᵀJ, Jᵀr, and of the energies' rows and residuals."""

        def one(frame):
            r, e, f = frame
            jacobian = jax.jacfwd(predicted)(vector, r)
            return jacobian, predicted(vector, r) - wanted(e, f)

        J, res = jax.vmap(one)((R, E, F))
        flat = J.reshape(-1, J.shape[-1])
        return flat.T @ flat, flat.T @ res.ravel(), J[:, -1].sum(axis=0), res[:, -1].sum()

    def objective(vector) -> float:
        res = residuals(vector, R, E, F)
        energy = res[:, -1]
        square = jnp.sum(res**2) - len(res) * jnp.mean(energy) ** 2
        return float(square + prior / n_frames * jnp.sum(vector**2))

    def equations(vector):
        A = np.zeros((len(vector), len(vector)))
        b, rows, total = np.zeros(len(vector)), np.zeros(len(vector)), 0.0
        for begin in range(0, n_frames, batch):
            part = slice(begin, begin + batch)
            a_, b_, rows_, total_ = map(np.asarray, normal(vector, R[part], E[part], F[part]))
            A, b, rows, total = A + a_, b + b_, rows + rows_, total + float(total_)
        # The mean of the energies is free: its part drops out.
        A -= np.outer(rows, rows) / n_frames
        b -= rows * total / n_frames
        A[np.diag_indices_from(A)] += prior / n_frames
        return A, b + prior / n_frames * np.asarray(vector)

    def confined(vector):
        return ravel_pytree(free.confined(unravel(vector)))[0]

    # What terms conserve (the net charge) is linear in the moves: steps keep to it from the outset.
    conserve = np.asarray(jax.jacfwd(lambda v: ravel_pytree(free.conserving(unravel(v)))[0])(start))
    low, high = (np.asarray(ravel_pytree(limit)[0]) for limit in _limits(free))
    vector, damping, losses = start, FIRST_DAMPING, []
    loss, calm, A = objective(vector), 0, None
    for _ in range(steps):
        A, b = equations(vector)
        A, b = conserve.T @ A @ conserve, conserve.T @ b
        diagonal = np.maximum(np.diag(A), 1e-12 * max(np.diag(A).max(), 1e-300))
        here, improved = np.asarray(vector), False
        while damping < LARGEST:
            step = _bounded(A + damping * np.diag(diagonal), b, here - high, here - low)
            trial = confined(vector - jnp.asarray(conserve @ step))
            new = objective(trial)
            if np.isfinite(new) and new < loss:
                improved = True
                break
            damping *= 6.0
        if not improved:
            calm = 2
            break
        change = (loss - new) / max(loss, 1e-300)
        vector, loss = trial, new
        damping = max(damping / 8.0, SMALLEST)
        losses.append(loss)
        after(unravel(vector))
        calm = calm + 1 if change < tolerance else 0
        if calm >= 2:
            break
    freedom = max(n_frames * 3 * n_atoms - len(start), 1) / (n_frames * 3 * n_atoms)
    curvature = np.zeros((len(start),) * 2) if A is None else A
    return Solution(unravel(vector), curvature, loss / freedom, losses, calm >= 2)


def _bounded(A: np.ndarray, b: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The step s that minimises s·A s/2 − b·s between low and high, by an active set."""
    step, held = np.zeros(len(b)), np.zeros(len(b), bool)
    for _ in range(20):
        loose = ~held
        right = b[loose] - A[np.ix_(loose, held)] @ step[held]
        step[loose] = np.linalg.solve(A[np.ix_(loose, loose)], right)
        beyond = loose & ((step < low) | (step > high))
        if not beyond.any():
            break
        step = np.clip(step, low, high)
        held |= beyond
    return np.clip(step, low, high)


def _limits(free: FreeParameters) -> tuple[dict, dict]:
    """The lowest and highest moves that the columns allow."""
    low, high = {}, {}
    for (term, key), column in free.columns.items():
        start = free.start.params[term][key]
        low[term, key] = (column.lower - start) / column.scale
        high[term, key] = (column.upper - start) / column.scale
    return low, high
