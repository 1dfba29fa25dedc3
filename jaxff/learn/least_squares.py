"""Levenberg and Marquardt's method for force matching: few, well-informed steps.

With targets of ensembles a step is no longer than their frames can tell, and the next one starts
from new frames where too few of the old ones count.

Sources: K. Levenberg, Q. Appl. Math. 2, 164 (1944); D. W. Marquardt, J. SIAM 11, 431 (1963).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxff.learn.problem import Problem

FIRST_DAMPING, SMALLEST, LARGEST = 1e-3, 1e-9, 1e12
NOTHING = 1e-12  # (kcal/mol/Å)², an objective below which there is nothing left to explain
HALVINGS = 12  # of one step, at most
CALM = 2  # steps in a row below the tolerance, after which it has come to rest


@dataclass
class State:
    """Where the method is between two steps.

    Attributes:
        vector: (P,) moves.
        damping: Levenberg's.
        calm: steps in a row that changed the objective by less than the tolerance.
        losses: the objective after each step.
        valid: what `after` returned after each step.
        shares: effective share of the ensembles' frames after each step, if there are any.
        draws: of frames up to each step.
        samples: the ensembles' frames, as arrays.
    """

    vector: np.ndarray
    damping: float = FIRST_DAMPING
    calm: int = 0
    losses: list[float] = field(default_factory=list)
    valid: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    draws: list[int] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Solution:
    """Moves found, the matrix of the normal equations there, and how it went.

    Attributes:
        vector: (P,) moves.
        covariance: (P, P) of the moves.
        loss: the objective at the solution.
        converged: whether the last steps changed it by less than the tolerance.
    """

    vector: np.ndarray
    covariance: np.ndarray
    loss: float
    converged: bool


def levenberg_marquardt(
    problem: Problem,
    *,
    energy_weight: float,
    prior: float,
    steps: int,
    tolerance: float,
    state: State,
    after: Callable[[State], None] = lambda state: None,
) -> Solution:
    """Moves that minimise the problem's objective + prior · |moves|² / number of frames.

    Steps keep within the columns' bounds and to what terms conserve.

    Args:
        problem: molecules, frames and free parameters.
        energy_weight: see `Problem.objective`, 1/Å².
        prior: strength that holds the parameters at the start, (kcal/mol/Å)² of a move of one
            scale, shared among the frames.
        steps: at most, those in `state` among them.
        tolerance: relative change of the objective at which it stops.
        state: where to go on; it is changed.
        after: called with the state after each step.
    """
    free, unravel = problem.free, problem.unravel
    weak = prior / problem.n_frames

    def objective(vector) -> float:
        return problem.objective(vector, energy_weight) + weak * float(vector @ vector)

    confine = jax.jit(lambda vector: ravel_pytree(free.confined(unravel(vector)))[0])

    def confined(vector):
        return np.asarray(confine(jnp.asarray(vector)))

    # What terms conserve (the net charge) is linear in the moves: steps keep to it from the outset.
    conserving = jax.jacfwd(lambda vector: ravel_pytree(free.conserving(unravel(vector)))[0])
    conserve = np.asarray(jax.jit(conserving)(problem.start))
    low, high = (np.asarray(ravel_pytree(limit)[0]) for limit in free.limits())

    def equations(vector):
        A, b = problem.normal_equations(vector, energy_weight)
        A[np.diag_indices_from(A)] += weak
        return conserve.T @ A @ conserve, conserve.T @ (b + weak * vector)

    ensembles = problem.ensembles
    ensembles.restore(state.samples)
    ensembles.refresh(state.vector)
    loss = objective(state.vector)
    for _ in range(len(state.losses), steps):
        if ensembles.refresh(state.vector):  # other frames: another objective
            loss, state.calm = objective(state.vector), 0
        if state.calm >= CALM:
            break
        A, b = equations(state.vector)
        trial, new = _improved(A, b, low, high, conserve, state, loss, objective, confined)
        if trial is None:
            # Nothing lower however small the step: at rest, unless a step promised to gain.
            step = _bounded(A, b, state.vector - high, state.vector - low)
            gain = 2.0 * step @ b - step @ A @ step
            state.calm = CALM if gain <= 10.0 * tolerance * max(abs(loss), NOTHING) else 0
            break
        # Relative entropies are known up to a constant: the objective may be negative.
        change = (loss - new) / max(abs(loss), NOTHING)
        state.vector, loss = trial, new
        state.damping = max(state.damping / 8.0, SMALLEST)
        state.calm = state.calm + 1 if change < tolerance else 0
        state.losses.append(loss)
        if ensembles:
            ensembles.log(state)
        after(state)
    return Solution(
        state.vector, _covariance(problem, state.vector, energy_weight, weak, loss, conserve),
        loss, state.calm >= CALM,
    )  # fmt: skip


def _covariance(problem, vector, energy_weight, weak, loss, conserve) -> np.ndarray:
    """(P, P) covariance of the moves: a sandwich estimate with frames as clusters.

    Errors of a frame's components have one cause, so they do not count as many; what data do not
    tell keeps the width of the prior.  H. White, Econometrica 48, 817 (1980).
    """
    A, _, C = problem.statistics(vector, energy_weight)
    A[np.diag_indices_from(A)] += weak
    # The objective is a mean over n components: the prior is one of variance loss/(n weak), or,
    # with no forces that tell an error, one of a column scale.
    told = any(len(own) for own in problem.data)
    C[np.diag_indices_from(C)] += weak * (max(loss, 0.0) / problem.n_forces if told else weak)
    A, C = (conserve.T @ M @ conserve for M in (A, C))
    inverse = np.linalg.pinv(A, hermitian=True)
    return inverse @ C @ inverse


def _improved(A, b, low, high, conserve, state: State, loss, objective, confined):
    """A step that lowers the objective, and its value; the damping grows until there is one."""
    diagonal = np.maximum(np.diag(A), 1e-12 * max(np.diag(A).max(), 1e-300))
    while state.damping < LARGEST:
        damped = A + state.damping * np.diag(diagonal)
        step = _bounded(damped, b, state.vector - high, state.vector - low)
        for _ in range(HALVINGS):
            trial = confined(state.vector - conserve @ step)
            new = objective(trial)
            if new != np.inf:
                break
            # Beyond what frames can tell.  Damping would turn the step as well: towards parameters
            # that change the ensemble much and the targets little.
            step = 0.5 * step
        if np.isfinite(new) and new < loss:
            return trial, new
        state.damping *= 6.0
    return None, loss


def _solved(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x with A x = b; the shortest where conserved charges leave some of it open."""
    try:
        return np.linalg.solve(A, b)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(A, b, rcond=1e-12)[0]


def _bounded(A: np.ndarray, b: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The step s that minimises s·A s/2 − b·s between low and high, by an active set."""
    step, held = np.zeros(len(b)), np.zeros(len(b), bool)
    for _ in range(20):
        loose = ~held
        right = b[loose] - A[np.ix_(loose, held)] @ step[held]
        step[loose] = _solved(A[np.ix_(loose, loose)], right)
        beyond = loose & ((step < low) | (step > high))
        if not beyond.any():
            break
        step = np.clip(step, low, high)
        held |= beyond
    return np.clip(step, low, high)
