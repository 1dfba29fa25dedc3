"""Least squares by the Levenberg-Marquardt method.

In fits to ensembles, a step is shortened if the effective number of frames would become too small.
New frames are then drawn before the next step.
Source: K. Levenberg, Q. Appl. Math. 2, 164 (1944); D. W. Marquardt, J. SIAM 11, 431 (1963).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxff.dataset import Dataset
from jaxff.learn.checkpoint import resumed
from jaxff.learn.problem import Problem
from jaxff.learn.settings import LeastSquares
from jaxff.learn.state import Solution, State
from jaxff.store import Store

FIRST_DAMPING, SMALLEST_DAMPING, LARGEST_DAMPING = 1e-3, 1e-9, 1e12
ZERO_OBJECTIVE = 1e-12  # (kcal/mol/Å)², an objective that counts as zero
HALVINGS = 12  # largest number of halvings of one step
SMALL_STEPS = 2  # consecutive steps below the tolerance after which the method has converged


@dataclass(kw_only=True)
class Iterate(State):
    """State of the method between two steps.

    Attributes:
        damping: damping parameter of the Levenberg-Marquardt method.
        small_steps: number of consecutive steps with a change of the objective below the tolerance.
    """

    damping: float = FIRST_DAMPING
    small_steps: int = 0


def minimise(
    problem: Problem,
    settings: LeastSquares,
    valid: Sequence[Dataset] | None,
    store: Store,
    progress: Callable[[str, float], None],
) -> Solution:
    """Minimise the objective of a problem; large problems start with fewer frames.

    Args:
        problem: molecules, frames and free parameters.
        settings: see `LeastSquares`.
        valid: validation frames of each molecule, for the history, or None.
        store: store of the state.
        progress: function called after each step with the name of a phase and its finished
            fraction.

    Raises:
        InputError: the state in the store belongs to another fit.
    """
    state = resumed(store, Iterate(vector=np.asarray(problem.start)))

    def after_step() -> None:
        if valid:
            state.valid.append(problem.force_rmse(state.vector, valid))
        store.save(vars(state))
        progress(state.phase, len(state.losses) / (len(state.losses) + 8.0))

    few = problem.thinned()
    if few is not None and not state.losses:
        first = Iterate(vector=state.vector)
        report = partial(progress, "fit, fewer frames first", 0.0)
        descend(Objective(few, settings), settings, first, report)
        state.vector, state.damping = first.vector, first.damping
    objective = Objective(problem, settings)
    loss = descend(objective, settings, state, after_step)
    variances = np.diag(objective.covariance(state.vector, loss))
    errors = np.sqrt(np.maximum(variances, 0.0))
    return Solution(state.vector, state, state.small_steps >= SMALL_STEPS, errors)


class Objective:
    """The objective of a problem plus the prior, as a function of moves (P,).

    A move is the change of a free parameter divided by the scale of this parameter. The prior is
    settings.prior · |moves|² divided by the number of frames.

    Args:
        problem: molecules, frames and free parameters.
        settings: see `LeastSquares`.
    """

    def __init__(self, problem: Problem, settings: LeastSquares):
        free, unravel = problem.free, problem.unravel
        self.problem, self.energy_weight = problem, settings.energy_weight
        self.weak = settings.prior / problem.n_frames
        self._confine = jax.jit(lambda vector: ravel_pytree(free.confined(unravel(vector)))[0])
        # Conserved quantities such as the net charge are linear in the moves, so one matrix
        # projects every step on the moves that conserve them.
        conserving = jax.jacfwd(lambda vector: ravel_pytree(free.conserving(unravel(vector)))[0])
        self.conserve = np.asarray(jax.jit(conserving)(problem.start))
        self.low, self.high = (np.asarray(ravel_pytree(limit)[0]) for limit in free.limits())

    def __call__(self, vector: np.ndarray) -> float:
        """Return the objective, (kcal/mol/Å)²; ∞ if an effective share is too small."""
        value = self.problem.objective(vector, self.energy_weight)
        return value + self.weak * float(vector @ vector)

    def confined(self, vector: np.ndarray) -> np.ndarray:
        """Change moves (P,) so that they are within bounds and conserve the net charge."""
        return np.asarray(self._confine(jnp.asarray(vector)))

    def equations(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return JᵀJ (P, P) and Jᵀr (P,) at moves (P,), for steps that conserve the net charge.

        J contains the derivatives of the residuals r by the moves.
        """
        A, b = self.problem.normal_equations(vector, self.energy_weight)
        A[np.diag_indices_from(A)] += self.weak
        return self.conserve.T @ A @ self.conserve, self.conserve.T @ (b + self.weak * vector)

    def step(self, A: np.ndarray, b: np.ndarray, vector: np.ndarray) -> np.ndarray:
        """Return the step s (P,) that minimises s·A s/2 − b·s within bounds.

        The method is an active set: components that reach a bound are fixed.

        Args:
            A: (P, P) positive matrix.
            b: (P,).
            vector: (P,) present moves; the new moves are vector − s.
        """
        low, high = vector - self.high, vector - self.low
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

    def covariance(self, vector: np.ndarray, loss: float) -> np.ndarray:
        """Return the sandwich estimate of the covariance (P, P) of the moves.

        Frames count as independent; the errors of one frame may be correlated. In directions that
        the data do not determine, the prior determines the covariance.
        Source: H. White, Econometrica 48, 817 (1980).

        Args:
            vector: (P,) best moves.
            loss: objective at the best moves, (kcal/mol/Å)².
        """
        problem = self.problem
        A, _, C = problem.statistics(vector, self.energy_weight)
        A[np.diag_indices_from(A)] += self.weak
        # The objective is a mean over n components, so the prior has the variance loss/(n weak).
        # Without forces there is no estimate of the error; then it is one column scale.
        forces = any(len(data) for data in problem.data)
        variance = max(loss, 0.0) / problem.n_forces if forces else self.weak
        C[np.diag_indices_from(C)] += self.weak * variance
        A, C = (self.conserve.T @ M @ self.conserve for M in (A, C))
        inverse = np.linalg.pinv(A, hermitian=True)
        return inverse @ C @ inverse


def descend(
    objective: Objective, settings: LeastSquares, state: Iterate, after: Callable[[], None]
) -> float:
    """Take steps until convergence.

    Args:
        objective: the function to minimise.
        settings: the limit of the steps, including earlier ones, and the tolerance.
        state: the initial state, which is changed in place.
        after: function called after each step.

    Returns:
        The last value of the objective, (kcal/mol/Å)².
    """
    ensembles = objective.problem.ensembles
    ensembles.restore(state.samples)
    ensembles.refresh(state.vector)
    loss = objective(state.vector)
    for _ in range(len(state.losses), settings.steps):
        if ensembles.refresh(state.vector):  # new frames change the objective
            loss, state.small_steps = objective(state.vector), 0
        if state.small_steps >= SMALL_STEPS:
            break
        A, b = objective.equations(state.vector)
        trial, new = _improved(objective, A, b, state, loss)
        if trial is None:
            # No step lowers the objective: converged, unless the equations predict a gain.
            step = objective.step(A, b, state.vector)
            gain = 2.0 * step @ b - step @ A @ step
            limit = 10.0 * settings.tolerance * max(abs(loss), ZERO_OBJECTIVE)
            state.small_steps = SMALL_STEPS if gain <= limit else 0
            break
        # A relative entropy has an arbitrary zero, so the objective may be negative.
        change = (loss - new) / max(abs(loss), ZERO_OBJECTIVE)
        state.vector, loss = trial, new
        state.damping = max(state.damping / 8.0, SMALLEST_DAMPING)
        state.small_steps = state.small_steps + 1 if change < settings.tolerance else 0
        state.losses.append(loss)
        if ensembles:
            ensembles.log(state)
        after()
    return loss


def _improved(
    objective: Objective, A: np.ndarray, b: np.ndarray, state: Iterate, loss: float
) -> tuple[np.ndarray | None, float]:
    """Increase the damping until a step lowers the objective.

    Args:
        objective: the function to minimise.
        A: (P, P) JᵀJ at the moves of `state`.
        b: (P,) Jᵀr at the moves of `state`.
        state: the present state; its damping is changed in place.
        loss: objective at the moves of `state`.

    Returns:
        The new moves (P,) and their objective; None and `loss` if no step lowers the objective.
    """
    diagonal = np.maximum(np.diag(A), 1e-12 * max(np.diag(A).max(), 1e-300))
    while state.damping < LARGEST_DAMPING:
        step = objective.step(A + state.damping * np.diag(diagonal), b, state.vector)
        new = np.inf
        for _ in range(HALVINGS):
            trial = objective.confined(state.vector - objective.conserve @ step)
            new = objective(trial)
            if new != np.inf:
                break
            # Too few frames would count. More damping would also change the direction of the
            # step, towards parameters that affect the ensemble much and the targets little.
            step = 0.5 * step
        if np.isfinite(new) and new < loss:
            return trial, new
        state.damping *= 6.0
    return None, loss


def _solved(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return x (P,) with A x = b; if A is singular, the shortest least-squares solution."""
    try:
        return np.linalg.solve(A, b)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(A, b, rcond=1e-12)[0]
