"""Free energies and heat capacities, against closed forms of harmonic and free systems."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxff import units
from jaxff.analysis import (
    density,
    free_energy,
    free_energy_and_error,
    heat_capacity,
    mean_and_error,
    occupations,
)
from jaxff.errors import InputError

T = 320.0
KT = 0.0019872042586 * T  # kcal/mol


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_harmonic_samples_have_a_harmonic_free_energy(dtype):
    k, n = 4.0, 50_000
    x = (np.sqrt(KT / k) * np.random.default_rng(0).normal(size=n)).astype(dtype)
    edges = np.linspace(-0.8, 0.8, 17)
    centres = 0.5 * (edges[1:] + edges[:-1])
    mean, error = map(
        np.asarray, free_energy_and_error(occupations(x, edges), edges, T, n_blocks=50)
    )
    assert mean.dtype == error.dtype == dtype
    expected = 0.5 * k * centres**2
    # Without the noise of the lowest bin, which shifts all.
    offset = np.mean((mean - expected)[6:10])
    np.testing.assert_array_less(np.abs(mean - offset - expected), 4 * error + 0.02)
    assert error.max() < 0.1


def test_error_bars_are_the_scatter_of_repeated_sampling():
    x = np.random.default_rng(1).normal(size=(300, 1000))
    edges = np.linspace(-1.5, 1.5, 7)

    def profile(x):
        return free_energy_and_error(occupations(x, edges), edges, T, n_blocks=20)

    mean, error = map(np.asarray, jax.jit(jax.vmap(profile))(x))
    shares = [np.histogram(row, edges)[0] / len(row) for row in x]
    scatter = np.std(-KT * np.log(shares), axis=0)
    np.testing.assert_allclose(np.sqrt(np.mean(error**2, axis=0)), scatter, rtol=0.15)
    assert np.min(mean) == 0.0


@pytest.mark.parametrize(
    ("jacobian", "top", "inverse"),
    [
        ("none", 3.0, lambda u: 3.0 * u),
        ("distance", 3.0, lambda u: 3.0 * u ** (1 / 3)),
        ("angle", np.pi, lambda u: np.arccos(1 - 2 * u)),
    ],
)
def test_coordinates_without_forces_are_flat(jacobian, top, inverse):
    """A regular grid of quantiles of each Jacobian, in wide bins."""
    x = inverse((np.arange(100_000) + 0.5) / 100_000)
    edges = np.linspace(0.0, top, 11)
    ours = free_energy(density(x, edges), edges, T, jacobian)
    np.testing.assert_allclose(ours, 0.0, atol=0.01)
    bent = free_energy(density(x, edges), edges, T)
    assert (np.max(bent) > 0.3) == (jacobian != "none")


def test_bins_that_were_not_visited_are_infinite_without_harm_to_gradients():
    edges = np.arange(5.0)
    x = np.array([0.5, 0.7, 2.5])

    @jax.jit
    def profile(w):
        return free_energy(density(x, edges, weights=w), edges, T)

    w = np.full(3, 1 / 3)
    np.testing.assert_allclose(profile(w), [0, np.inf, KT * np.log(2), np.inf], rtol=1e-6)
    slope = jax.jit(jax.grad(lambda w: profile(w)[2]))(w)
    # F = kT ln((w0 + w1)/w2)
    np.testing.assert_allclose(slope, KT * np.array([1.5, 1.5, -3]), rtol=1e-6)
    estimate = free_energy_and_error(occupations(x, edges), edges, T, n_blocks=3)
    assert np.isinf(estimate.error[1])


def test_free_energies_of_smooth_densities_have_the_gradients_of_finite_differences():
    rng = np.random.default_rng(2)
    x, edges, target = 2 + 0.3 * rng.normal(size=40), np.linspace(1.4, 2.6, 7), rng.normal(size=6)
    w = rng.dirichlet(np.full(40, 5.0))
    dx, dw, h = rng.normal(size=40), rng.normal(size=40), 1e-6

    def loss(x, w):
        p = density(x, edges, 0.1, weights=w)
        return jnp.dot(target, free_energy(p, edges, T, "distance"))

    gx, gw = jax.jit(jax.grad(loss, (0, 1)))(x, w)
    expected = (loss(x + h * dx, w) - loss(x - h * dx, w)) / (2 * h)
    np.testing.assert_allclose(jnp.dot(gx, dx), expected, rtol=1e-6)
    expected = (loss(x, w + h * dw) - loss(x, w - h * dw)) / (2 * h)
    np.testing.assert_allclose(jnp.dot(gw, dw), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_harmonic_ensemble_has_half_k_a_degree_of_freedom(dtype):
    """N quadratic degrees: U is gamma distributed of shape N/2 and scale kT."""
    degrees, n = 21, 400_000
    energies = KT * np.random.default_rng(3).gamma(degrees / 2, size=n).astype(dtype)
    # The statistical error of a variance, with the kurtosis of the distribution.
    error = np.sqrt((2 + 12 / degrees) / n)
    half = 0.5 * units.BOLTZMANN * degrees
    ours = heat_capacity(energies - dtype(1000.0), T)
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, half, rtol=4 * error)
    np.testing.assert_allclose(heat_capacity(energies, T, 18), half * 39 / 21, rtol=4 * error)


def test_a_reweighted_heat_capacity_is_that_of_the_other_temperature():
    degrees, n, other = 6, 400_000, 350.0
    energies = KT * np.random.default_rng(4).gamma(degrees / 2, size=n)
    w = np.exp(-energies * (1 / (units.BOLTZMANN * other) - 1 / KT))
    ours = heat_capacity(energies, other, weights=w / w.sum())
    np.testing.assert_allclose(ours, 0.5 * units.BOLTZMANN * degrees, rtol=0.02)


def test_the_heat_capacity_has_gradients_in_energies_and_weights():
    rng = np.random.default_rng(5)
    u, w = rng.normal(size=30), rng.dirichlet(np.full(30, 5.0))
    gu, gw = jax.jit(jax.grad(lambda u, w: heat_capacity(u, T, 9, w), (0, 1)))(u, w)
    deviation, scale = u - w @ u, KT * T
    np.testing.assert_allclose(gu, 2 * w * deviation / scale, rtol=1e-6)
    h, direction = 1e-6, rng.normal(size=30)
    direction -= direction.mean()
    up, down = (heat_capacity(u, T, 9, w + s * h * direction) for s in (1, -1))
    np.testing.assert_allclose(jnp.dot(gw, direction), (up - down) / (2 * h), rtol=1e-5)


def test_replicas_are_blocks():
    u = np.random.default_rng(6).normal(size=(8, 100))
    mean, error = mean_and_error(jax.vmap(lambda u: heat_capacity(u, T))(u), n_blocks=8)
    values = u.var(axis=1) / (KT * T)
    np.testing.assert_allclose(mean, values.mean(), rtol=1e-6)
    np.testing.assert_allclose(error, values.std(ddof=1) / np.sqrt(8), rtol=1e-6)


def test_what_has_no_free_energy_is_refused():
    with pytest.raises(InputError, match="unknown Jacobian 'r2'"):
        free_energy(np.ones(3), np.arange(4.0), T, "r2")
    with pytest.raises(InputError, match="edges of 3 bins must have shape"):
        free_energy(np.ones(3), np.arange(3.0), T)
    with pytest.raises(InputError, match="with F > 1"):
        heat_capacity([1.0], T)
