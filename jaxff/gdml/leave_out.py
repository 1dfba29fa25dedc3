"""Errors of a kernel on frames that are left out of its training, in closed form.

With C = K + λ, the error of the model without frame m at frame m is (C⁻¹)ₘₘ⁻¹ (C⁻¹ y)ₘ, where m
numbers all components of the frame. One inverse therefore replaces M trainings.
Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 5.4.2.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.linalg

from jaxff.gdml.operator import KernelOperator

MOST_UNKNOWNS = 3200  # unknowns of a system that is inverted; more frames are not used


class LeftOut(NamedTuple):
    """Errors at left-out frames, and the parts of the inverse that give them.

    Attributes:
        errors: (M, W) label minus prediction, (C⁻¹)ₘₘ⁻¹ (C⁻¹ y)ₘ.
        blocks: (M, W, W) (C⁻¹)ₘₘ.
        inverse: (MW, MW) C⁻¹.
        alphas: (MW,) C⁻¹ y.
    """

    errors: np.ndarray
    blocks: np.ndarray
    inverse: np.ndarray
    alphas: np.ndarray


def left_out(covariance: np.ndarray, labels: np.ndarray) -> LeftOut | None:
    """Errors at each frame of the model of all other frames; None if C is singular.

    Args:
        covariance: (MW, MW) C, the covariance of the labels.
        labels: (M, W) y.
    """
    count, width = labels.shape
    factorise, invert = scipy.linalg.get_lapack_funcs(("potrf", "potri"), (covariance,))
    factor, fault = factorise(covariance, lower=1)
    if fault:
        return None
    lower = np.tril(invert(factor, lower=1)[0])
    inverse = lower + np.tril(lower, -1).T
    alphas = inverse @ labels.ravel()
    frames = np.arange(count)
    own = inverse.reshape(count, width, count, width)[frames, :, frames]
    errors = np.linalg.solve(own, alphas.reshape(count, width, 1))[..., 0]
    return LeftOut(errors, own, inverse, alphas) if np.isfinite(errors).all() else None


def leave_out_errors(
    op: KernelOperator,
    forces: np.ndarray,
    slopes: np.ndarray | None = None,
    prior: float = 1.0,
) -> np.ndarray:
    """Errors of the forces at frames that are left out, label minus prediction.

    Net forces and torques of the labels, which no kernel predicts, are part of the errors.

    Args:
        op: K + λ of M frames, without energies.
        forces: (M, N, 3) labels, kcal/mol/Å.
        slopes: (M, 3N, P) derivatives of a baseline's forces with respect to moves of its
            parameters, which are then estimated together with the kernel; see `jaxff.gdml.adapt`.
        prior: strength of the prior on these moves, see `jaxff.gdml.adapt.Adaptation.fitted`.

    Returns:
        (M, N, 3) kcal/mol/Å; infinite if K + λ is singular.
    """
    flat = np.reshape(forces, (len(forces), -1))
    scale = float(np.std(flat)) or 1.0
    y = np.asarray(op.observed(flat / scale))
    every = jnp.arange(op.n_frames)
    covariance = np.array(op.block(every, every)).reshape(op.size, op.size)
    covariance[np.diag_indices_from(covariance)] += float(op.lam)
    if slopes is not None:
        found = left_out(covariance, y)
        if found is None:
            return np.full(np.shape(forces), np.inf)
        amplitude = float(y.ravel() @ found.alphas) / y.size or 1.0
        reduced = np.einsum("mcw,mcp->mwp", op.bases, slopes / scale).reshape(y.size, -1)
        covariance += reduced @ reduced.T / (prior * amplitude)
    found = left_out(covariance, y)
    if found is None:
        return np.full(np.shape(forces), np.inf)
    wrong = op.cartesian(jnp.asarray(found.errors - y))  # net forces and torques remain in `flat`
    return np.reshape(flat + scale * np.asarray(wrong), np.shape(forces))
