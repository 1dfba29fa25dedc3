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


class Inverse(NamedTuple):
    """The inverse of the covariance matrix C of M frames; it depends on the frames and σ alone.

    Attributes:
        op: the operator K + λ of the frames, without energies.
        matrix: (MW, MW) C⁻¹; None if C is singular.
        blocks: (M, W, W) diagonal blocks (C⁻¹)ₘₘ; None if C is singular.
    """

    op: KernelOperator
    matrix: np.ndarray | None
    blocks: np.ndarray | None

    @classmethod
    def of(cls, op: KernelOperator) -> Inverse:
        """Compute the inverse for an operator without energies."""
        every = jnp.arange(op.n_frames)
        covariance = np.array(op.block(every, every)).reshape(op.size, op.size)
        covariance[np.diag_indices_from(covariance)] += float(op.lam)
        return cls(op, *(_inverted(covariance, op.width) or (None, None)))


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
    known = _inverted(covariance, labels.shape[1])
    return None if known is None else _left_out(*known, labels)


def _inverted(covariance: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray] | None:
    """C⁻¹ (MW, MW) and its diagonal blocks (M, W, W) for W = `width`; None if C is singular."""
    count = len(covariance) // width
    factorise, invert = scipy.linalg.get_lapack_funcs(("potrf", "potri"), (covariance,))
    factor, fault = factorise(covariance, lower=1)
    if fault:
        return None
    lower = np.tril(invert(factor, lower=1)[0])
    inverse = lower + np.tril(lower, -1).T
    frames = np.arange(count)
    return inverse, inverse.reshape(count, width, count, width)[frames, :, frames]


def _left_out(inverse: np.ndarray, blocks: np.ndarray, labels: np.ndarray) -> LeftOut | None:
    alphas = inverse @ labels.ravel()
    errors = _errors(blocks, alphas)
    return LeftOut(errors, blocks, inverse, alphas) if np.isfinite(errors).all() else None


def _errors(blocks: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    return np.linalg.solve(blocks, alphas.reshape(*blocks.shape[:2], 1))[..., 0]


def leave_out_errors(
    known: Inverse,
    forces: np.ndarray,
    slopes: np.ndarray | None = None,
    priors: Sequence[float] = (1.0,),
) -> list[np.ndarray]:
    """Errors of the forces at frames that are left out, label minus prediction.

    Net forces and torques of the labels, which no kernel predicts, are part of the errors.  With
    `slopes`, the parameters of a baseline are estimated together with the kernel, as in
    `jaxff.gdml.adapt`.  The estimation adds S Sᵀ/w to C, where S contains the slopes and w is the
    strength of the prior times yᵀC⁻¹y/(MW).  The Woodbury identity
    gives the inverse for each prior.

    Args:
        known: the inverse for M frames, which many labels may share.
        forces: (M, N, 3) labels, kcal/mol/Å.
        slopes: (M, 3N, P) derivatives of the baseline's forces by its parameters (None: the
            parameters are fixed, and `priors` are not used), see `Adaptation.slopes`.
        priors: strengths of the prior on the parameters, see `Adaptation.fitted`.

    Returns:
        Errors (M, N, 3), kcal/mol/Å, for each prior, or once without `slopes`.  They are infinite
        if C is singular.
    """
    op = known.op
    flat = np.reshape(forces, (len(forces), -1))
    scale = float(np.std(flat)) or 1.0
    y = np.asarray(op.observed(flat / scale))
    found = None
    if known.matrix is not None and known.blocks is not None:
        found = _left_out(known.matrix, known.blocks, y)
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
