"""Checks of Hessians from other programs."""

from __future__ import annotations

import numpy as np

from jaxff.errors import InputError

# Largest asymmetry, relative to the largest element; finite differences of forces give far less.
ASYMMETRY = 0.02
# Largest share of the norm of the Hessian on rigid motions.  It is 1e-5 for a correct Hessian, and
# 0.05 if two atoms are exchanged.
RIGID = 0.01


def checked_hessian(positions, hessian) -> tuple[np.ndarray, np.ndarray]:
    """Check positions and a Hessian, and symmetrise the Hessian.

    Args:
        positions: (N, 3) Å.
        hessian: (N, 3, N, 3) or (3N, 3N) kcal/mol/Å².

    Returns:
        Positions (N, 3) Å and symmetric Hessian (N, 3, N, 3) kcal/mol/Å².

    Raises:
        InputError: a shape is wrong, a value is not finite, or the Hessian is not symmetric or
            probably in hartree/Bohr².
    """
    R, H = np.asarray(positions, float), np.asarray(hessian, float)
    if R.ndim != 2 or R.shape[1] != 3 or len(R) < 2:
        raise InputError(f"positions have shape {R.shape}, expected (N, 3) in Å with N ≥ 2")
    n = len(R)
    if H.shape not in ((n, 3, n, 3), (3 * n, 3 * n)):
        raise InputError(
            f"the Hessian has shape {H.shape}, expected ({n}, 3, {n}, 3) or ({3 * n}, {3 * n}) in "
            f"kcal/mol/Å² for {n} atoms"
        )
    if not (np.isfinite(R).all() and np.isfinite(H).all()):
        raise InputError(
            "a value of the positions or of the Hessian is not finite: calculate both again"
        )
    H = H.reshape(3 * n, 3 * n)
    largest, skew = np.abs(H).max(), np.abs(H - H.T).max()
    if skew > ASYMMETRY * largest:
        raise InputError(
            f"the Hessian is not symmetric: H − Hᵀ is up to {skew:.3g} kcal/mol/Å², H up to "
            f"{largest:.3g}.  It may be incomplete, mass-weighted or not converged; calculate the "
            "full Hessian without mass-weighting"
        )
    if 0.0 < largest < 5.0:
        raise InputError(
            f"the largest element of the Hessian is {largest:.3g} kcal/mol/Å², but several hundred "
            "are expected: multiply the Hessian by 2240.9 if it is in hartree/Bohr²"
        )
    return R, (0.5 * (H + H.T)).reshape(n, 3, n, 3)


def check_rigid_motion(positions: np.ndarray, hessian: np.ndarray) -> None:
    """Check that translations and rotations of the molecule cause no forces.

    At stationary points, these motions cause no forces.  The check fails if the Hessian and the
    positions differ in orientation or atom order, or if the geometry is not a stationary point.

    Args:
        positions: (N, 3) Å.
        hessian: (N, 3, N, 3) kcal/mol/Å².

    Raises:
        InputError: rigid motions cause forces.
    """
    n = len(positions)
    arms = positions - positions.mean(axis=0)
    moves = [np.broadcast_to(axis, (n, 3)) for axis in np.eye(3)]
    turns = [np.cross(axis, arms) for axis in np.eye(3)]
    rigid = np.reshape(moves + turns, (6, 3 * n))
    _, size, basis = np.linalg.svd(rigid, full_matrices=False)
    basis = basis[size > 1e-3 * size[0]]  # a linear molecule has only two rotations
    H = hessian.reshape(3 * n, 3 * n)
    part = np.linalg.norm(H @ basis.T) / max(np.linalg.norm(H), 1e-300)
    if part > RIGID:
        raise InputError(
            f"rigid motions of the molecule cause forces ({100 * part:.2g} % of the norm of the "
            "Hessian): give the positions of an energy minimum in the orientation and atom order "
            "of the Hessian"
        )
