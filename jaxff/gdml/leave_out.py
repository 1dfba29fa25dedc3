"""Errors of a kernel at frames that are left out of its training, in closed form.

C = K + λ is the covariance matrix of the labels y, with W components for each of M frames.  A model
that is trained without frame m has the error (C⁻¹)ₘₘ⁻¹ (C⁻¹ y)ₘ at frame m.  (C⁻¹)ₘₘ is the W × W
block of frame m.  One inverse therefore replaces M trainings.
Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 5.4.2, with
blocks of frames in place of single labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.linalg

from jaxff.gdml.operator import KernelOperator

MOST_UNKNOWNS = 3000  # about the largest number of rows of C; more frames are not used


class LeftOut(NamedTuple):
    """Errors at left-out frames, and the arrays from which the errors are computed.

    Attributes:
        errors: (M, W) label minus prediction, (C⁻¹)ₘₘ⁻¹ (C⁻¹ y)ₘ.
        blocks: (M, W, W) diagonal blocks (C⁻¹)ₘₘ.
        inverse: (MW, MW) C⁻¹.
        alphas: (MW,) C⁻¹ y.
    """

    errors: np.ndarray
    blocks: np.ndarray
    inverse: np.ndarray
    alphas: np.ndarray


def left_out(covariance: np.ndarray, labels: np.ndarray) -> LeftOut | None:
    """Errors at each frame of a model trained on all other frames; None if C is singular.

    Args:
        covariance: (MW, MW) covariance C of the labels.
        labels: (M, W) labels y.
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
    blocks = inverse.reshape(count, width, count, width)[frames, :, frames]
    errors = _errors(blocks, alphas)
    return LeftOut(errors, blocks, inverse, alphas) if np.isfinite(errors).all() else None


def _errors(blocks: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    return np.linalg.solve(blocks, alphas.reshape(*blocks.shape[:2], 1))[..., 0]


def leave_out_errors(
    op: KernelOperator,
    forces: np.ndarray,
    slopes: np.ndarray | None = None,
    priors: Sequence[float] = (1.0,),
) -> list[np.ndarray]:
    """Errors of the forces at frames that are left out, label minus prediction.

    Net forces and torques of the labels, which no kernel predicts, are part of the errors.  With
    `slopes`, the parameters of a baseline are estimated together with the kernel, as in
    `jaxff.gdml.adapt`.  The estimation adds S Sᵀ/w to C, where S contains the slopes and w is the
    strength of the prior times yᵀC⁻¹y/(MW).  C⁻¹ is computed once, and the Woodbury identity gives
    the inverse for each prior.

    Args:
        op: the operator K + λ of M frames, without energies.
        forces: (M, N, 3) labels, kcal/mol/Å.
        slopes: (M, 3N, P) derivatives of the baseline's forces by its parameters (None: the
            parameters are fixed, and `priors` are not used), see `Adaptation.slopes`.
        priors: strengths of the prior on the parameters, see `Adaptation.fitted`.

    Returns:
        Errors (M, N, 3), kcal/mol/Å, for each prior, or once without `slopes`.  They are infinite
        if C is singular.
    """
    flat = np.reshape(forces, (len(forces), -1))
    scale = float(np.std(flat)) or 1.0
    y = np.asarray(op.observed(flat / scale))
    every = jnp.arange(op.n_frames)
    covariance = np.array(op.block(every, every)).reshape(op.size, op.size)
    covariance[np.diag_indices_from(covariance)] += float(op.lam)
    found = left_out(covariance, y)
    if found is None:
        return [np.full(np.shape(forces), np.inf)] * (1 if slopes is None else len(priors))
    errors = [found.errors]
    if slopes is not None:
        amplitude = float(y.ravel() @ found.alphas) / y.size or 1.0
        S = np.einsum("mcw,mcp->mwp", op.bases, slopes / scale).reshape(y.size, -1)
        U = found.inverse @ S
        errors = []
        for prior in priors:
            V = np.linalg.solve(prior * amplitude * np.eye(S.shape[1]) + S.T @ U, U.T)
            at_frames = U.reshape(*y.shape, -1), V.reshape(-1, *y.shape)
            blocks = found.blocks - np.einsum("mwp,pmv->mwv", *at_frames, optimize=True)
            errors.append(_errors(blocks, found.alphas - U @ (V @ y.ravel())))
    # Net forces and torques remain in `flat`.
    wrong = (np.asarray(op.cartesian(jnp.asarray(error - y))) for error in errors)
    return [np.reshape(flat + scale * change, np.shape(forces)) for change in wrong]
