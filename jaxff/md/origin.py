"""Positions counted from an origin near the molecule, which keeps the digits of short floats.

In float32 coordinates 1,000 Å from where they count are 6e-5 Å apart: bonds jump, and energy is not
conserved.  A molecule that is free to move is therefore simulated from an origin that goes with it.
The origin is at whole multiples of GRID: integers, exact in compiled code in any precision.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError

# Å; a power of two, so that moving the origin is exact where the digits allow.
GRID = 8.0


def nearest(positions) -> np.ndarray:
    """The origin (..., 3), integers in GRID, nearest to molecules at positions (..., N, 3) Å."""
    found = np.round(np.mean(positions, axis=-2) / GRID)
    if np.abs(found).max(initial=0.0) > 2**30:
        raise InputError(f"positions lie more than {GRID * 2**30:.0e} Å from the origin")
    return found.astype(np.int32)


def relative(positions, origin) -> np.ndarray:
    """Positions (..., N, 3) Å as counted from an origin (..., 3) in GRID."""
    return positions - GRID * np.asarray(origin, float)[..., None, :]


def absolute(positions, origin) -> np.ndarray:
    """Positions (..., N, 3) Å in float64 of such as count from an origin (..., 3) in GRID."""
    return np.asarray(positions, float) + GRID * np.asarray(origin, float)[..., None, :]


def moved(state, origin):
    """jax-md's state and its origin (3,); the origin moves if the molecule is GRID away from it."""
    hop = jnp.trunc(jnp.mean(state.position, axis=0) / GRID)
    return state.set(position=state.position - GRID * hop), origin + hop.astype(origin.dtype)
