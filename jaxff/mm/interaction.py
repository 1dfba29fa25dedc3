"""Shared by all terms: from the energy of one interaction to the sum over all of them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def over(energy: Callable, R: Array, atoms: np.ndarray, *parameters: Array):
    """``energy(*points, *parameters)`` of every interaction.

    Args:
        energy: energy of one interaction from k points (3,) Å and its parameters.
        R: (N, 3) Å.
        atoms: (n, k) atom indices.
        parameters: arrays (n, ...), one row an interaction.

    Returns:
        what `energy` returns, with a leading axis n.
    """
    # One gather for all points: its transpose is then one scatter, the slowest step of the forces.
    points = R.at[atoms.T.ravel()].get(mode="promise_in_bounds")
    return jax.vmap(energy)(*jnp.split(points, atoms.shape[1]), *parameters)
