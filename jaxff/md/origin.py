"""Positions relative to an origin near the molecule, for accuracy in float32.

Near 1,000 Å, neighbouring float32 numbers differ by 6e-5 Å, which would change bond lengths and
energies.  The origin therefore follows a free molecule.  It is stored as integers in units of GRID,
which are exact.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError

# Å; a power of two, so that moves of the origin are nearly always exact.
GRID = 8.0


def nearest(positions) -> np.ndarray:
    """Origin (..., 3), in units of GRID, near the mean of positions (..., N, 3) Å.

    Raises:
        InputError: the positions are too far from zero.
    """
    origin = np.round(np.mean(positions, axis=-2) / GRID)
    if np.abs(origin).max(initial=0.0) > 2**30:
        raise InputError(
            f"positions are more than {GRID * 2**30:.0e} Å from zero: move the molecule near zero"
        )
    return origin.astype(np.int32)


def relative(positions, origin) -> np.ndarray:
    """Positions (..., N, 3) Å relative to an origin (..., 3) in units of GRID."""
    return positions - GRID * np.asarray(origin, float)[..., None, :]


def absolute(positions, origin) -> np.ndarray:
    """Absolute positions (..., N, 3) Å in float64, from relative ones.

    The origin (..., 3) is in units of GRID.
    """
    return np.asarray(positions, float) + GRID * np.asarray(origin, float)[..., None, :]


def moved(state, origin):
    """Return state and origin (3,); move the origin if the molecule is GRID away."""
    hop = jnp.trunc(jnp.mean(state.position, axis=0) / GRID)
    return state.set(position=state.position - GRID * hop), origin + hop.astype(origin.dtype)
