"""Means and standard errors of correlated series, against AR(1) series and direct formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import chi2

from jaxff.analysis import autocorrelation_time, average, mean_and_error
from jaxff.errors import InputError


def ar1(phi, n, columns, seed):
    """x(t + 1) = φ x(t) + noise: unit variance, correlation φ^t, 1 + 2Σρ = (1 + φ)/(1 − φ)."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, columns)) * np.sqrt(1 - phi**2)
    noise[0] /= np.sqrt(1 - phi**2)
    return lfilter([1.0], [1.0, -phi], noise, axis=0)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_errors_and_times_of_ar1_series(phi):
    n, columns = 20_011, 64
    x = ar1(phi, n, columns, seed=1)
    time = (1 + phi) / (1 - phi)
    # The exact standard error of the mean, in the limit of long series.
    exact = np.sqrt(time / n)
    times = autocorrelation_time(x)
    np.testing.assert_allclose(np.mean(times), time, rtol=0.06)
    for n_blocks in (None, 100):
        mean, error = map(np.asarray, mean_and_error(x, n_blocks))
        np.testing.assert_allclose(mean, x.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(np.sqrt(np.mean(error**2)), exact, rtol=0.08)
        # The means are off by as much as the errors say.
        assert 0.7 < np.sqrt(np.mean((mean / error) ** 2)) < 1.35


def test_slow_correlation_under_fast_oscillation_is_found():
    """The autocorrelation time alone gives a sixth of the error here."""
    n, columns = 16_384, 48
    phase = 2 * np.pi * np.random.default_rng(2).uniform(size=columns)
    x = ar1(0.99, n, columns, seed=3) + 3 * np.cos(0.7 * np.arange(n)[:, None] + phase)
    error = np.asarray(mean_and_error(x).error)
    np.testing.assert_allclose(np.sqrt(np.mean(error**2)), np.sqrt(199 / n), rtol=0.25)


def test_blocks_of_one_are_independent_samples():
    x = np.random.default_rng(4).normal(size=(7, 3))
    mean, error = mean_and_error(x, n_blocks=7)
    np.testing.assert_allclose(mean, x.mean(axis=0))
    np.testing.assert_allclose(error, x.std(axis=0, ddof=1) / np.sqrt(7))


def test_the_error_of_a_weighted_mean_is_that_of_repeated_sampling():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(1000, 200))
    # Weights that shift the mean by 0.5.
    w = np.exp(0.5 * x)
    w /= w.sum(axis=0)
    estimate = jax.vmap(lambda x, w: mean_and_error(x, None, w), in_axes=1)
    mean, error = map(np.asarray, jax.jit(estimate)(x, w))
    np.testing.assert_allclose(mean, (w * x).sum(axis=0))
    np.testing.assert_allclose(np.mean(mean), 0.5, atol=0.02)
    np.testing.assert_allclose(np.sqrt(np.mean(error**2)), np.std(mean), rtol=0.15)
    blocks = jax.jit(jax.vmap(lambda x, w: mean_and_error(x, 50, w).error, in_axes=1))(x, w)
    np.testing.assert_allclose(np.sqrt(np.mean(np.asarray(blocks) ** 2)), np.std(mean), rtol=0.15)


def test_the_blocked_error_is_that_of_a_plain_implementation():
    """Jonsson's algorithm with the statistics of each level written out in NumPy."""
    n = 1000
    x = ar1(0.8, n, 1, seed=6)[:, 0] + 3 * np.cos(0.7 * np.arange(n))
    levels, y = [], x
    while (n := len(y)) > 1:
        c = y - x.mean()
        s, g = c @ c / n, c[1:] @ c[:-1] / n
        levels.append((s / (n - 1), ((n - 1) * s / n**2 + g) ** 2 * n / s**2))
        y = y[: n // 2 * 2].reshape(-1, 2).mean(axis=1)
    left = np.cumsum([test for _, test in levels[::-1]])[::-1]
    level = np.argmax(left < chi2.ppf(0.95, np.arange(len(levels), 0, -1)))
    assert 0 < level < len(levels) - 1
    np.testing.assert_allclose(mean_and_error(x).error, np.sqrt(levels[level][0]), rtol=1e-10)


def test_a_constant_series_has_no_error_and_finite_gradients():
    x = np.full((16, 2), 3.0)
    mean, error = mean_and_error(x)
    assert mean.tolist() == [3, 3]
    assert error.tolist() == [0, 0]
    assert autocorrelation_time(x).tolist() == [1, 1]
    for f in (lambda x: mean_and_error(x).error.sum(), lambda x: autocorrelation_time(x).sum()):
        assert np.isfinite(jax.jit(jax.grad(f))(x)).all()


def test_averages_follow_the_type_of_the_series_and_their_weights_carry_gradients():
    x = np.random.default_rng(7).normal(size=(40, 3)).astype(np.float32)
    w = np.full(40, 1 / 40)
    assert average(x, w).dtype == np.float32
    assert mean_and_error(x, 4, w).error.dtype == np.float32
    assert mean_and_error(x).error.dtype == np.float32
    assert autocorrelation_time(x).dtype == np.float32
    np.testing.assert_allclose(average(x), x.mean(axis=0), atol=1e-6)
    slope = jax.jit(jax.grad(lambda w: average(x.astype(float), w).sum()))(w)
    np.testing.assert_allclose(slope, x.sum(axis=1), rtol=1e-6)


def test_the_error_has_the_gradient_of_finite_differences():
    x = ar1(0.6, 64, 1, seed=8)[:, 0]
    direction = np.random.default_rng(9).normal(size=64)
    for f in (
        lambda x: mean_and_error(x).error,
        lambda x: mean_and_error(x, 7).error,
        autocorrelation_time,
    ):
        h, f = 1e-6, jax.jit(f)
        expected = (f(x + h * direction) - f(x - h * direction)) / (2 * h)
        slope = jnp.dot(jax.jit(jax.grad(f))(x), direction)
        np.testing.assert_allclose(slope, expected, rtol=1e-5)


def test_what_cannot_be_averaged_is_refused():
    x = np.zeros(10)
    with pytest.raises(InputError, match="at least 2 frames"):
        mean_and_error(x[:1])
    with pytest.raises(InputError, match="n_blocks must be 2 to 10"):
        mean_and_error(x, 11)
    with pytest.raises(InputError, match=r"weights must sum to 1 \(got 10"):
        average(x, np.ones(10))
    with pytest.raises(InputError, match=r"must have shape \(10,\)"):
        average(x, np.full(5, 0.2))
