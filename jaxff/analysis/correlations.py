"""Time correlations: mean-square displacement, velocity autocorrelation, spectra.

Leading axes are replicas, and each replica gives one result.  Use `mean_and_error` with the number
of replicas as `n_blocks` for the mean over replicas and the standard error.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxff import units
from jaxff.analysis.averages import lagged_products, squared
from jaxff.analysis.coordinates import floating, is_known
from jaxff.errors import InputError

Array = jax.Array

# Coefficients of cos(2πkt/L), whose signs alternate.
WINDOWS = {"none": (1.0,), "hann": (0.5, 0.5), "blackman": (0.42, 0.5, 0.08)}


def mean_square_displacement(
    positions: ArrayLike, masses: ArrayLike | None = None, n_lags: int | None = None
) -> Array:
    """Compute ⟨|r(t + lag) − r(t)|²⟩, (..., n_lags) Å², averaged over atoms and times t.

    Source: Calandrini et al., Collection SFN 12, 201 (2011).  The rounding error is proportional
    to the squared displacement during the whole trajectory.  If the displacement at the first lags
    is much smaller, use float64.

    Args:
        positions: (..., F, N, 3) Å, not wrapped into a box.
        masses: (N,) amu, to remove the motion of the centre of mass; None to keep this motion.
        n_lags: number of lags (0, 1, 2, ... frames), static; None for all F.

    Raises:
        InputError: arrays of other shapes, or n_lags out of range.
    """
    r, n_lags = _frames(positions, n_lags, "positions")
    return _displacement(r, None if masses is None else _masses(masses, r), n_lags)


def velocity_autocorrelation(
    velocities: ArrayLike,
    masses: ArrayLike | None = None,
    n_lags: int | None = None,
    normalized: bool = False,
) -> Array:
    """Compute ⟨v(t) · v(t + lag)⟩, (..., n_lags) Å²/fs², averaged over atoms and times t.

    Args:
        velocities: (..., F, N, 3) Å/fs.
        masses: (N,) amu, weights of the atoms; None for equal weights.
        n_lags: number of lags (0, 1, 2, ... frames), static; None for all F.
        normalized: whether to divide by the value at lag 0.

    Raises:
        InputError: arrays of other shapes, or n_lags out of range.
    """
    v, n_lags = _frames(velocities, n_lags, "velocities")
    masses = _masses(np.ones(v.shape[-2]) if masses is None else masses, v)
    correlation = _correlation(v, masses, n_lags)
    return correlation / correlation[..., :1] if normalized else correlation


def vdos(
    velocities: ArrayLike,
    masses: ArrayLike,
    dt: ArrayLike,
    window: str = "hann",
    segment: int | None = None,
    temperature: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Compute the vibrational density of states from velocities.

    The density is the mass-weighted power spectrum, averaged over atoms and over segments that
    overlap by half (Welch, IEEE Trans. Audio Electroacoust. 15, 70 (1967)).

    Args:
        velocities: (..., F, N, 3) Å/fs.
        masses: (N,) amu.
        dt: time between frames, () fs.
        window: "hann", "blackman" or "none" (segments without overlap).
        segment: number of frames in each segment, static; None for all F.
        temperature: () K; None to normalise the integral of the density to one.  Otherwise the
            integral is twice the mean kinetic energy divided by kT: the number of degrees of
            freedom.

    Returns:
        frequencies (K,) cm⁻¹ and density (..., K) 1/cm⁻¹.

    Raises:
        InputError: arrays of other shapes, an unknown window, or a segment out of range.
    """
    v, _ = _frames(velocities, None, "velocities")
    n, masses = v.shape[-3], _masses(masses, v)
    length = n if segment is None else segment
    if window not in WINDOWS:
        raise InputError(f"unknown window {window!r}: use one of {', '.join(WINDOWS)}")
    if not 2 <= length <= n:
        raise InputError(f"segment must be 2 to {n} for {n} frames (got {length})")
    return _vdos(v, masses, jnp.asarray(dt, v.dtype), temperature, window, length)


def spectral_centroid(
    frequencies: ArrayLike, spectrum: ArrayLike, low: float, high: float
) -> Array:
    """Compute the mean frequency (...) cm⁻¹ of a spectrum: a differentiable peak position.

    Args:
        frequencies: (K,) cm⁻¹.
        spectrum: (..., K) non-negative values, such as those of `vdos`.
        low, high: bounds of the frequencies (inclusive), cm⁻¹.

    Raises:
        InputError: no frequency is within the bounds.
    """
    spectrum = floating(spectrum)
    frequencies = jnp.asarray(frequencies, spectrum.dtype)
    inside = (frequencies >= low) & (frequencies <= high)
    if is_known(inside) and not inside.any():
        raise InputError(
            f"the spectrum has no frequency between {low:g} and {high:g} cm⁻¹: give wider bounds"
        )
    within = jnp.where(inside, spectrum, 0.0)
    return jnp.sum(within * frequencies, axis=-1) / jnp.sum(within, axis=-1)


@partial(jax.jit, static_argnames="n_lags")
def _displacement(r, masses, n_lags):
    n, n_atoms = r.shape[-3:-1]
    if masses is not None:
        share = masses / masses.sum()
        r = r - jnp.sum(share[:, None] * r, axis=-2, keepdims=True)
    r = r - r.mean(axis=-3, keepdims=True)
    squares = jnp.sum(r**2, axis=(-2, -1))
    products = jnp.sum(lagged_products(_columns(r), n_lags), axis=-2)
    # Sums of |r|² over the times that have a later partner, and an earlier one.
    start, end = jnp.cumsum(squares, axis=-1), jnp.cumsum(squares[..., ::-1], axis=-1)
    lags = np.arange(n_lags)
    total = (start + end)[..., n - 1 - lags] - 2.0 * products
    return (total / jnp.asarray((n - lags) * n_atoms, r.dtype)).at[..., 0].set(0.0)


@partial(jax.jit, static_argnames="n_lags")
def _correlation(v, masses, n_lags):
    x = _columns(v * jnp.sqrt(masses / masses.sum())[:, None])
    counts = jnp.asarray(v.shape[-3] - np.arange(n_lags), v.dtype)
    return lagged_products(x, n_lags).sum(axis=-2) / counts


@partial(jax.jit, static_argnames=("window", "length"))
def _vdos(v, masses, dt, temperature, window, length):
    n = v.shape[-3]
    hop = length if window == "none" else length // 2
    count = -(-(n - length) // hop) + 1
    # Starts are spread evenly, so that every frame is used.
    starts = np.round(np.linspace(0, n - length, count)).astype(int)
    taper = jnp.asarray(_taper(window, length), v.dtype)
    x = _columns(v * jnp.sqrt(masses)[:, None])

    def power(start):
        piece = jax.lax.dynamic_slice_in_dim(x, start, length, axis=-1)
        return jnp.sum(squared(jnp.fft.rfft(taper * piece)), axis=-2)

    spectrum = jnp.mean(jax.lax.map(power, jnp.asarray(starts)), axis=0)
    # The power at the negative frequency is added; zero and half the sampling rate have none.
    is_single = np.isin(np.arange(length // 2 + 1), (0, length / 2))
    spectrum = jnp.where(is_single, 1.0, 2.0) * spectrum
    spacing = units.WAVENUMBER_PER_FS / (length * dt)
    density = spectrum / (spectrum.sum(axis=-1, keepdims=True) * spacing)
    if temperature is not None:
        twice_kinetic = units.TIME**2 * jnp.mean(jnp.sum(x**2, axis=-2), axis=-1)
        kT = units.BOLTZMANN * jnp.asarray(temperature, v.dtype)
        density = density * (twice_kinetic / kT)[..., None]
    return spacing * jnp.arange(length // 2 + 1, dtype=v.dtype), density


def _frames(values, n_lags, name):
    values = floating(values)
    if values.ndim < 3 or values.shape[-1] != 3:
        raise InputError(f"{name} must have shape (..., F, N, 3) (got {values.shape})")
    n = values.shape[-3]
    n_lags = n if n_lags is None else n_lags
    if not 1 <= n_lags <= n:
        raise InputError(f"n_lags must be 1 to {n} for {n} frames (got {n_lags})")
    return values, n_lags


def _masses(masses, values):
    if np.shape(masses) != values.shape[-2:-1]:
        raise InputError(
            f"masses must have shape ({values.shape[-2]},), one for each atom (got "
            f"{np.shape(masses)})"
        )
    return jnp.asarray(masses, values.dtype)


def _columns(values):
    """Rearrange values (..., F, N, 3) to (..., 3N, F)."""
    return jnp.swapaxes(values.reshape(*values.shape[:-2], -1), -1, -2)


def _taper(name, length):
    phase = 2.0 * np.pi * np.arange(length) / length
    return sum((-1.0) ** k * a * np.cos(k * phase) for k, a in enumerate(WINDOWS[name]))
