"""A baseline re-estimated together with the kernel that corrects it.

Least squares on forces makes a baseline's own error small, but not what is left over easy to
learn.  With the kernel as the covariance of what is left over, generalised least squares
weighs errors by how hard they are to learn: universal kriging with the baseline as the mean
(Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, section 2.7).
"""

from __future__ import annotations

import warnings
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

# Strengths of the prior to choose among, from parameters that hardly leave their start to ones
# that leave to the kernel whatever it learns better.
PRIORS = (10.0, 1.0, 0.1)
MAX_STEPS = 30
LARGEST_MOVE = 4.0  # of a parameter in one step, in units of its column's scale
CONVERGED = 3e-2


def adapted(
    baseline: Potential, system: KernelSystem, frames: Dataset, prior: float = PRIORS[0]
) -> Potential:
    """The baseline whose trainable parameters minimise rᵀ(−K + λ)⁻¹r + prior, r the force residual.

    Gauss-Newton steps within the columns' bounds; the prior pulls towards `baseline`.

    Args:
        baseline: the start, in the atom order of `frames`.
        system: the kernel equations of `frames`.
        frames: training frames with the reference forces.
        prior: inverse variance of the parameters' moves, in units of their columns' scales, over
            the variance of the whitened residual.
    """
    free = FreeParameters.of(baseline)
    moves, unravel = ravel_pytree(free.no_moves())
    R, target = jnp.asarray(frames.positions), frames.forces.ravel()

    def forces(moves, R):
        return baseline.program.energy_and_forces(free.params(unravel(moves)), R)[1].ravel()

    @jax.jit
    def linearised(moves):
        both = jax.lax.map(
            lambda R: (forces(moves, R), jax.jacfwd(forces)(moves, R)), R, batch_size=16
        )
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), both)

    for _ in range(MAX_STEPS):
        values, slopes = map(np.asarray, linearised(moves))
        left = target - values
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
            f"the baseline's parameters still move by {change:.2g} of their scales after "
            f"{MAX_STEPS} steps; the sum is valid, but another baseline may serve better",
            stacklevel=3,
        )
    return free.moved(unravel(moves))
