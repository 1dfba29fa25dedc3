"""Positions relative to an origin near the molecule, which keeps float32 accurate.

Neighbouring float32 numbers near 1,000 Å differ by 6e-5 Å: bond lengths would jump, and the energy
would not be conserved.  Therefore the origin of a molecule that is free to move follows it.  It is
a multiple of GRID, stored as integers, which are exact in compiled code in both precisions.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError

# Å; a power of two, so that moving the origin is exact if the digits suffice.
GRID = 8.0


def nearest(positions) -> np.ndarray:
    """Origin (..., 3), integers in units of GRID, nearest to positions (..., N, 3) Å."""
    origin = np.round(np.mean(positions, axis=-2) / GRID)
    if np.abs(origin).max(initial=0.0) > 2**30:
        raise InputError(
            f"positions lie more than {GRID * 2**30:.0e} Å from the origin: move them near it"
        )
    return origin.astype(np.int32)


def relative(positions, origin) -> np.ndarray:
    """Positions (..., N, 3) Å relative to an origin (..., 3) in units of GRID."""
    return positions - GRID * np.asarray(origin, float)[..., None, :]


def absolute(positions, origin) -> np.ndarray:
    """Positions (..., N, 3) Å in float64 from those relative to an origin (..., 3)."""
    return np.asarray(positions, float) + GRID * np.asarray(origin, float)[..., None, :]


def moved(state, origin):
    """The state and its origin (3,), moved if the molecule is GRID away from it."""
    hop = jnp.trunc(jnp.mean(state.position, axis=0) / GRID)
    return state.set(position=state.position - GRID * hop), origin + hop.astype(origin.dtype)
