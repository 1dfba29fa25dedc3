"""Weighted averages over frames, and standard errors of correlated series."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxff.analysis.coordinates import floating, is_known
from jaxff.errors import InputError
from jaxff.geometry import safe_sqrt

Array = jax.Array

# Jonsson's test passes where the remaining correlation is not significant at this level.
CONFIDENCE = 0.95
# The sum of the autocorrelation function ends where the lag exceeds this many times its value.
WINDOW = 5.0
# Number of starts of the equilibrated part that are compared.
STARTS = 6


class Estimate(NamedTuple):
    """A mean (...) and the standard error of the mean (...), in the unit of the series."""

    mean: Any
    error: Any


def average(per_frame: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Average values (F, ...) over F frames, with weights (F,) that sum to one.

    Returns:
        the mean (...), in the unit of the values.

    Raises:
        InputError: the weights have a wrong shape, or the sum of the weights is not one.
    """
    per_frame = floating(per_frame)
    if weights is None:
        return per_frame.mean(axis=0)
    weights = checked_weights(weights, per_frame.shape[0], per_frame.dtype)
    return jnp.tensordot(weights, per_frame, axes=1, precision="highest")


def mean_and_error(
    series: ArrayLike, n_blocks: int | None = None, weights: ArrayLike | None = None
) -> Estimate:
    """Compute the mean of a correlated series and the standard error of the mean.

    Without `n_blocks`, the error of each component is the larger of two estimates:

    - Blocking: neighbouring values are averaged in pairs (Flyvbjerg and Petersen, J. Chem. Phys.
      91, 461 (1989)) until the averages pass a test of independence (Jonsson, Phys. Rev. E 98,
      043304 (2018)).  The test stops the averaging slightly too early.
    - Autocorrelation time, which underestimates slow correlations combined with fast oscillations.

    Both estimates are too small if the series is shorter than fifty autocorrelation times.

    With `n_blocks`, the error is computed from independent blocks of equal length.
    If the series contains several replicas, one after another, use the number of replicas.  With
    weights, the error is that of a ratio of means, to first order.

    Args:
        series: (F, ...) values of frames in the order of time.
        n_blocks: number of blocks, static, between 2 and F.
        weights: (F,) weights of the frames that sum to one.

    Returns:
        the mean (...) and its error (...).

    Raises:
        InputError: fewer than two frames, a number of blocks out of range, or invalid weights.
    """
    series = _checked_series(series, "a standard error")
    n = len(series)
    if n_blocks is not None and not 2 <= n_blocks <= n:
        raise InputError(f"n_blocks must be 2 to {n} for {n} frames (got {n_blocks})")
    if weights is not None:
        weights = checked_weights(weights, n, series.dtype)
    return _mean_and_error(series, n_blocks, weights)


def estimate(
    function: Callable[..., Array],
    *series: ArrayLike,
    weights: ArrayLike | None = None,
    n_blocks: int | None = None,
) -> Estimate:
    """Compute a function of averages and its standard error.

    The error is that of the function, linearised at the averages, so that correlations between the
    series are included.

    Args:
        function: differentiable function of the averages of the series.
        series: (F, ...) values of frames in the order of time.
        weights: (F,) weights of the frames that sum to one.
        n_blocks: number of blocks or replicas, see `mean_and_error`; None for automatic blocking.

    Raises:
        InputError: as for `mean_and_error`.
    """
    values = [_checked_series(x, "a standard error") for x in series]
    means = [average(x, weights) for x in values]
    value, slope = jax.linearize(function, *means)
    changes = jax.vmap(slope)(*(x - mean for x, mean in zip(values, means, strict=True)))
    return Estimate(value, mean_and_error(changes, n_blocks, weights).error)


def equilibration(series: ArrayLike) -> int:
    """Return the number of frames at the start that are not yet in equilibrium.

    The rest has the largest number of independent frames among starts in the first half of the
    series (Chodera, J. Chem. Theory Comput. 12, 1799 (2016)).

    Args:
        series: (F,) values of frames in the order of time.

    Raises:
        InputError: fewer than two frames.
    """
    x = np.asarray(_checked_series(series, "an equilibration"))
    starts = np.unique(np.linspace(0, len(x) // 2, STARTS).astype(int))
    independent = [(len(x) - s) / float(autocorrelation_time(x[s:])) for s in starts]
    return int(starts[int(np.argmax(independent))])


def autocorrelation_time(series: ArrayLike) -> Array:
    """Compute the autocorrelation time of a series, 1 + 2 Σ ρ(t), in frames.

    ρ(t) is the normalised autocorrelation at lag t.  The sum ends at the first lag that exceeds
    five times the autocorrelation time (Sokal, in Functional Integration, Springer (1997), where
    the time is defined as half of this value).  The series should be at least fifty times longer
    than the autocorrelation time.

    Args:
        series: (F, ...) values of frames in the order of time.

    Returns:
        the autocorrelation time (...), at least 1; 1 for a constant series.

    Raises:
        InputError: fewer than two frames.
    """
    return _correlation_time(_checked_series(series, "a correlation time"))


def lagged_products(x: Array, n_lags: int) -> Array:
    """Compute Σ_t x(t) x(t + lag), (..., n_lags), of x (..., F) by fast Fourier transforms."""
    from scipy.fft import next_fast_len

    length = next_fast_len(x.shape[-1] + n_lags - 1, real=True)  # avoids periodic images
    return jnp.fft.irfft(squared(jnp.fft.rfft(x, length)), length)[..., :n_lags]


def squared(z: Array) -> Array:
    """Compute |z|² of complex numbers, with a finite gradient at zero."""
    return z.real**2 + z.imag**2


def checked_weights(weights: ArrayLike, n: int, dtype: np.dtype) -> Array:
    """Return weights (n,) as `dtype`; raise InputError unless they have this shape and sum to 1."""
    if np.shape(weights) != (n,):
        raise InputError(f"weights of {n} frames must have shape ({n},) (got {np.shape(weights)})")
    if is_known(weights) and not abs(float(np.sum(np.asarray(weights))) - 1.0) < 1e-3:
        total = float(np.sum(np.asarray(weights)))
        raise InputError(
            f"weights must sum to 1 (got {total:.6g}): divide the weights by their sum"
        )
    return jnp.asarray(weights, dtype)


def _checked_series(series, purpose: str) -> Array:
    series = floating(series)
    n = series.shape[0] if series.ndim else 0
    if n < 2:
        raise InputError(f"{purpose} needs at least 2 frames, not {n}")
    return series


@partial(jax.jit, static_argnames="n_blocks")
def _mean_and_error(series, n_blocks, weights):
    n, mean = len(series), average(series, weights)
    deviations = series - mean
    if weights is not None:
        deviations = n * weights.reshape(-1, *(1,) * (series.ndim - 1)) * deviations
    if n_blocks is None:
        correlated = jnp.mean(deviations**2, axis=0) / (n - 1) * _correlated_frames(deviations)
        variance = jnp.maximum(_blocked_variance(deviations), correlated)
    else:
        block = np.arange(n) * n_blocks // n
        sums = jax.ops.segment_sum(deviations, block, n_blocks, indices_are_sorted=True)
        variance = n_blocks / (n_blocks - 1) * jnp.sum(sums**2, axis=0) / n**2
    return Estimate(mean, safe_sqrt(variance))


@jax.jit
def _correlation_time(series):
    return jnp.maximum(_correlated_frames(series - series.mean(axis=0)), 1.0)


def _correlated_frames(deviations):
    """Compute the autocorrelation time (...), in frames, of deviations from the mean (F, ...)."""
    n = len(deviations)
    products = lagged_products(jnp.moveaxis(deviations, 0, -1), n)
    start = products[..., :1]
    varies = start > 0.0
    rho = jnp.where(varies, products / jnp.where(varies, start, 1.0), 0.0)
    times = 1.0 + 2.0 * jnp.cumsum(rho.at[..., 0].set(0.0), axis=-1)
    enough = jnp.arange(n) >= WINDOW * times
    last = jnp.where(enough.any(axis=-1), jnp.argmax(enough, axis=-1), n - 1)
    return jnp.take_along_axis(times, last[..., None], axis=-1)[..., 0]


def _blocked_variance(deviations):
    """Compute the variance (...) of the mean by blocking, from deviations (F, ...).

    At each level, neighbouring blocks of the previous level are averaged.  Let s be the variance
    and g the lag-one autocovariance of the n blocks at a level.  If these blocks are uncorrelated,
    the sum of ((n − 1) s/n² + g)² n/s² over this level and all coarser levels has a χ²
    distribution.  The first level that passes this test gives the variance.
    """
    from scipy.stats import chi2

    squares, products, x = [], [], deviations
    while (n := len(x)) >= 2:
        squares.append(jnp.mean(x**2, axis=0))
        products.append(jnp.sum(x[1:] * x[:-1], axis=0) / n)
        x = x[: n // 2 * 2].reshape(n // 2, 2, *x.shape[1:]).mean(axis=1)
    s, g = jnp.stack(squares), jnp.stack(products)
    column = (-1, *(1,) * (s.ndim - 1))
    n = (len(deviations) // 2 ** np.arange(len(s))).reshape(column)
    varies = s > 0.0
    ratio = jnp.where(varies, g / jnp.where(varies, s, 1.0), 0.0)
    tests = jnp.asarray(n, s.dtype) * (jnp.asarray((n - 1) / n**2, s.dtype) + ratio) ** 2
    left = jnp.cumsum(tests[::-1], axis=0)[::-1]
    limits = chi2.ppf(CONFIDENCE, np.arange(len(s), 0, -1)).reshape(column)
    level = jnp.argmax(left < jnp.asarray(limits, s.dtype), axis=0)
    return jnp.take_along_axis(s / jnp.asarray(n - 1, s.dtype), level[None], axis=0)[0]
