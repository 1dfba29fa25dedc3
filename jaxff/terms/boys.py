"""The functions of Boys, which give the smooth part of the Ewald sum of two charges.

F_k(t) = ∫₀¹ x^{2k} exp(−t x²) dx, so that F_0(t) = ½ √(π/t) erf(√t), and dF_k/dt = −F_{k+1}.  The
energy erf(αr)/r of two charges is 2α/√π F_0(α²r²).  It is a smooth function of r², also at r = 0.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial.chebyshev import cheb2poly
from scipy.fft import dct
from scipy.special import gamma, gammainc

Array = jax.Array

Polynomials = tuple[tuple[float, ...], tuple[float, ...]]

_SERIES = 20  # terms of the power series, exact in float64 for t ≤ 1
_NODES = 80  # of the interpolation, many more than needed


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def boys(order: int, t: Array) -> Array:
    """F_k(t), elementwise, for k = `order` and t ≥ 0."""
    small = t < 1.0
    low, high = jnp.where(small, t, 0.0), jnp.where(small, 1.0, t)
    series = jnp.zeros_like(low)
    for n in reversed(range(_SERIES)):
        series = series * low + (-1.0) ** n / (math.factorial(n) * (2 * order + 2 * n + 1))
    root = jnp.sqrt(high)
    value = 0.5 * math.sqrt(math.pi) * jax.lax.erf(root) / root
    for k in range(order):
        value = ((2 * k + 1) * value - jnp.exp(-high)) / (2.0 * high)
    return jnp.where(small, series, value)


@boys.defjvp
def _boys_jvp(order, primals, tangents):
    (t,), (dt,) = primals, tangents
    return boys(order, t), -boys(order + 1, t) * dt


def boys_numpy(order: int, t: np.ndarray) -> np.ndarray:
    """F_k(t), elementwise, for k = `order` and a NumPy array t ≥ 0 in float64."""
    a, low, high = order + 0.5, np.minimum(t, 1.0), np.maximum(t, 1.0)
    series = sum((-low) ** n / (math.factorial(n) * 2.0 * (a + n)) for n in range(_SERIES))
    return np.where(t < 1.0, series, gamma(a) * gammainc(a, high) / (2.0 * high**a))


@lru_cache(maxsize=64)
def smooth_coulomb(alpha: float, cutoff: float, digits: int) -> Polynomials:
    """Polynomials for erf(αr)/r and its derivative with respect to r², 1/Å and 1/Å³.

    They are Chebyshev interpolants, converted to powers of u = 2 r²/cutoff² − 1.  Few powers are
    needed, because erf(αr)/r is an entire function of r².

    Args:
        alpha: α, 1/Å.
        cutoff: largest r, Å.
        digits: number of correct digits, relative to the value at r = 0.

    Returns:
        Coefficients of the powers of u, ascending, of the two functions.
    """

    def coefficients(order: int, factor: float) -> tuple[float, ...]:
        u = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
        values = factor * boys_numpy(order, 0.5 * (u + 1.0) * (alpha * cutoff) ** 2)
        series = np.asarray(dct(values, type=2)) / _NODES
        series[0] *= 0.5
        kept = np.flatnonzero(np.abs(series) > 10.0**-digits * np.abs(values).max())
        return tuple(cheb2poly(series[: int(kept.max()) + 1]).tolist())

    scale = 2.0 * alpha / math.sqrt(math.pi)
    return coefficients(0, scale), coefficients(1, -scale * alpha**2)
