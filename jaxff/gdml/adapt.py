"""Estimate the parameters of a baseline together with an added kernel.

Ordinary least squares makes the residual of the baseline small, but not easy to learn.  Generalised
least squares uses the kernel as the covariance of the residual, which gives more weight to errors
that are hard to learn.  This is universal kriging with the baseline as the mean.
Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 2.7.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxff.dataset import Dataset
from jaxff.parameters import FreeParameters
from jaxff.potential import Potential

if TYPE_CHECKING:
    from jaxff.gdml.system import KernelSystem

# Strengths of the prior to choose among.  A strong prior keeps the parameters near their initial
# values.
PRIORS = (10.0, 1.0, 0.1)
MAX_STEPS = 30
LARGEST_MOVE = 4.0  # largest change of a parameter in one step, in units of its column's scale
CONVERGED = 3e-2  # largest change of a parameter in the last step, in the same units


@dataclass(frozen=True)
class Adaptation:
    """Fits of the parameters of a baseline together with different kernels.

    A move is the change of one parameter divided by the scale of this parameter.

    Attributes:
        baseline: the initial baseline.

    Raises:
        InputError: the baseline has no trainable parameter (at the first use).
    """

    baseline: Potential

    @cached_property
    def free(self) -> FreeParameters:
        """The P trainable parameters of the baseline."""
        return FreeParameters.of(self.baseline)

    @cached_property
    def forces_and_slopes(self) -> Callable:
        """Compiled function of the parameters' moves (P,) and positions (M, N, 3) Å.

        It returns the forces (M, 3N) kcal/mol/Å and their derivatives (M, 3N, P) by the moves.
        """
        unravel = ravel_pytree(self.free.no_moves())[1]

        def forces(moves, R):
            params = self.free.params(unravel(moves))
            values = self.baseline.program.energy_and_forces(params, R)[1].ravel()
            return values, values

        @jax.jit
        def both(moves, positions):
            slopes = jax.jacfwd(forces, has_aux=True)
            return jax.lax.map(lambda R: slopes(moves, R)[::-1], positions, batch_size=16)

        return both

    def slopes(self, positions: np.ndarray) -> np.ndarray:
        """Derivatives by moves, (M, 3N, P) kcal/mol/Å, of the forces at positions (M, N, 3) Å."""
        start = ravel_pytree(self.free.no_moves())[0]
        return np.asarray(self.forces_and_slopes(start, jnp.asarray(positions))[1])

    def fitted(self, system: KernelSystem, frames: Dataset, prior: float = PRIORS[0]) -> Potential:
        """The baseline with the parameters that minimise rᵀ(K + λ)⁻¹r plus a prior.

        r is the residual of the forces, K the kernel matrix and λ the regularisation.  The prior is
        s v |m|² for the moves m, with the strength s and v = rᵀ(K + λ)⁻¹r / (3NM).  Gauss-Newton
        steps keep the parameters in their bounds.

        Args:
            system: the kernel equations of `frames`, with the dense solver.
            frames: M training frames of N atoms with reference forces, in the atom order of the
                baseline.
            prior: strength s of the prior.

        Raises:
            InputError: the system constrains energies, or its solver is not the dense one.
        """
        free = self.free
        moves, unravel = ravel_pytree(free.no_moves())
        positions, target = jnp.asarray(frames.positions), frames.forces.ravel()
        for _ in range(MAX_STEPS):
            computed = self.forces_and_slopes(moves, positions)
            values, slopes = (np.asarray(x).reshape(-1, *x.shape[2:]) for x in computed)
            left = target - values
            if not left.any():  # the labels are those of the baseline
                break
            solved = system.weigh(np.column_stack([left, slopes]))
            weight = prior * float(left @ solved[:, 0]) / len(left)
            normal = slopes.T @ solved[:, 1:] + weight * np.eye(len(moves))
            step = np.linalg.solve(normal, slopes.T @ solved[:, 0] - weight * np.asarray(moves))
            tried = moves + np.clip(step, -LARGEST_MOVE, LARGEST_MOVE)
            tried = ravel_pytree(free.confined(unravel(tried)))[0]
            change, moves = float(jnp.abs(tried - moves).max()), tried
            if change < CONVERGED:
                break
        else:
            warnings.warn(
                f"after {MAX_STEPS} steps the parameters of the baseline still change by "
                f"{change:.2g} of their scales.  The model is valid; a baseline with fewer "
                "trainable parameters may be more accurate",
                stacklevel=3,
            )
        return free.moved(unravel(moves))
