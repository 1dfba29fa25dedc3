"""Histograms, populations and pair distributions, against NumPy, SciPy, ASE and MDAnalysis."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from jaxff.analysis import (
    atom_pairs,
    average,
    density,
    distances,
    distributions,
    occupations,
    pair_density,
    pair_occupations,
    radial_distribution,
    torsion_angles,
)
from jaxff.errors import InputError

TURN = 2 * np.pi
EDGES = np.array([-1.0, -0.4, 0.0, 0.5, 0.6, 1.5])


def normal(seed=0, shape=(200,)):
    return np.random.default_rng(seed).normal(size=shape)


def normalized(seed=1, n=200):
    w = np.random.default_rng(seed).uniform(0.1, 1, n)
    return w / w.sum()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_hard_bins_are_those_of_numpy(dtype):
    x, w = normal().astype(dtype), normalized()
    x[:3] = EDGES[[0, 2, -1]]
    edges = EDGES.astype(dtype)
    for weights in (None, w):
        expected, _ = np.histogram(x, edges, density=True, weights=weights)
        ours = density(x, EDGES, weights=weights)
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, expected, rtol=1e-12 if dtype == np.float64 else 1e-5)
    shares = average(occupations(x, EDGES), w)
    np.testing.assert_allclose(shares, np.histogram(x, edges, weights=w)[0], rtol=2e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-14), (np.float32, 3e-7)])
def test_smooth_bins_are_integrals_of_gaussians(dtype, tolerance):
    x, width = normal().astype(dtype), 0.3
    expected = np.diff(norm.cdf(EDGES, x[:, None].astype(float), width), axis=1)
    ours = np.asarray(occupations(x, EDGES, width))
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, expected, atol=tolerance)
    assert (ours >= 0).all()


def test_smooth_torsion_bins_are_those_of_wrapped_gaussians():
    phi, width = normal(2) * 4, TURN / 8
    edges = np.linspace(-np.pi, np.pi, 13)
    images = TURN * np.arange(-20, 21)[:, None, None]
    expected = np.diff(norm.cdf(edges + images, phi[:, None], width), axis=2).sum(axis=0)
    ours = np.asarray(occupations(phi, edges, width, TURN))
    np.testing.assert_allclose(ours, expected, atol=1e-14)
    np.testing.assert_allclose(ours.sum(axis=1), 1.0, rtol=1e-13)
    np.testing.assert_allclose(occupations(phi + TURN, edges, width, TURN), ours, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("start", [-np.pi, 0.0, 0.3])
def test_every_torsion_lies_in_one_bin(dtype, start):
    rng = np.random.default_rng(3)
    special = np.array([np.pi, -np.pi, 0, -0.0, 1e-9, -1e-9, 3 * np.pi, start, start + TURN])
    phi = np.concatenate([special, rng.uniform(-10, 10, 2000)]).astype(dtype)
    shares = np.asarray(occupations(phi, np.linspace(start, start + TURN, 8), period=TURN))
    np.testing.assert_array_equal(shares.sum(axis=1), 1.0)
    assert shares.dtype == dtype


@pytest.mark.parametrize(("width", "period"), [(0.2, None), (0.2, TURN), (None, TURN)])
def test_a_density_integrates_to_one_and_is_the_mean_of_occupations(width, period):
    x, w = normal(4, (50, 4)), normalized(5, 50)
    edges = np.linspace(-np.pi, np.pi, 31)
    ours = np.asarray(density(x, edges, width, period, w))
    np.testing.assert_allclose(np.sum(ours * np.diff(edges)), 1.0, rtol=1e-12)
    shares = w @ np.asarray(occupations(x, edges, width, period))
    np.testing.assert_allclose(ours, shares / shares.sum() / np.diff(edges), rtol=1e-12)


def test_narrow_kernels_give_the_hard_bins():
    x = normal(6, (80, 3))
    np.testing.assert_allclose(occupations(x, EDGES, 1e-7), occupations(x, EDGES), atol=1e-12)


def test_many_samples_are_binned_as_few_are():
    """More kernel values than are held at once: in a row of samples, and in rows."""
    n, width = 5 * distributions.CHUNK // (4 * len(EDGES)), 0.2
    x, target = normal(7, (n,)), normal(8, (len(EDGES) - 1,))

    def plain(x):
        return jnp.diff(jax.scipy.stats.norm.cdf((EDGES - x[:, None]) / width), axis=1)

    def mean(x):
        return average(occupations(x.reshape(1, -1), EDGES, width))

    rows = (n // 7 * 7, (n // 7, 7))
    for ours, expected, R in (
        (mean, lambda x: plain(x).mean(axis=0), x),
        (
            lambda x: jnp.sin(occupations(x, EDGES, width)),
            lambda x: jnp.sin(plain(x.reshape(-1)).reshape(-1, 7, 5).mean(axis=1)),
            x[: rows[0]].reshape(rows[1]),
        ),
    ):
        np.testing.assert_allclose(ours(R), expected(R), atol=1e-12)
        slopes = (jax.jit(jax.grad(lambda x: jnp.sum(f(x) @ target)))(R) for f in (ours, expected))
        np.testing.assert_allclose(*slopes, atol=1e-12)


@pytest.mark.parametrize("period", [None, TURN])
def test_smooth_densities_have_the_gradients_of_finite_differences(period):
    x, w, rng = normal(10, (30, 2)), normalized(11, 30), np.random.default_rng(12)
    edges = np.linspace(-3.0, 3.0, 9)
    target = rng.normal(size=8)

    def loss(x, w):
        return jnp.sum(target * density(x, edges, 0.3, period, w))

    dx, dw, h = rng.normal(size=x.shape), rng.normal(size=30), 1e-6
    gx, gw = jax.jit(jax.grad(loss, (0, 1)))(x, w)
    expected = (loss(x + h * dx, w) - loss(x - h * dx, w)) / (2 * h)
    np.testing.assert_allclose(jnp.sum(gx * dx), expected, rtol=1e-6)
    expected = (loss(x, w + h * dw) - loss(x, w - h * dw)) / (2 * h)
    np.testing.assert_allclose(jnp.sum(gw * dw), expected, rtol=1e-6)


def test_hard_populations_have_gradients_in_the_weights():
    x, w = normal(13), normalized(14)
    slope = jax.jit(jax.grad(lambda w: average(occupations(x, EDGES), w)[1]))(w)
    np.testing.assert_array_equal(slope, (x >= EDGES[1]) & (x < EDGES[2]))


def test_populations_of_a_rotor_are_its_boltzmann_shares():
    """Frames over a regular grid of φ, weighted by exp(−U/kT): the integrals over the wells."""
    n = 3600
    phi = (np.arange(n) + 0.5) * TURN / n
    frames = np.empty((n, 4, 3))
    frames[:, :3] = [[1, 0, 1], [0, 0, 1], [0, 0, 0]]
    frames[:, 3] = np.stack([np.cos(phi), np.sin(phi), np.zeros(n)], axis=1)  # turns about z
    boltzmann = np.exp(-(1.2 * (1 + np.cos(3 * phi)) + 0.5 * (1 + np.cos(phi))))
    w = boltzmann / boltzmann.sum()
    wells = np.radians([0, 120, 240, 360])
    angles = torsion_angles(frames, [[0, 1, 2, 3]])
    expected = w.reshape(3, -1).sum(axis=1)  # alike for both signs of the angle
    hard = average(occupations(angles, wells, period=TURN), w)
    np.testing.assert_allclose(hard, expected, rtol=1e-12)
    smooth = average(occupations(angles, wells, 0.05, TURN), w)
    np.testing.assert_allclose(smooth, expected, atol=1e-3)
    np.testing.assert_allclose(smooth.sum(), 1.0, rtol=1e-12)


@pytest.mark.parametrize("width", [None, 0.1])
def test_h_of_r_is_the_density_of_the_distances(width):
    R, w = 2 * normal(15, (20, 6, 3)), normalized(16, 20)
    pairs, edges = atom_pairs([6, 1, 1, 8, 1, 6], 6, 1), np.linspace(0.5, 6, 23)
    i, j = pairs.T
    r = np.linalg.norm(R[:, i] - R[:, j], axis=-1)
    ours = np.asarray(pair_density(R, pairs, edges, width, w))
    expected = density(r, edges, width, weights=w)
    np.testing.assert_allclose(ours, expected, rtol=1e-10)
    np.testing.assert_allclose(np.sum(ours * np.diff(edges)), 1.0, rtol=1e-12)
    shares = occupations(distances(R, pairs), edges, width)
    np.testing.assert_allclose(pair_occupations(R, pairs, edges, width), shares, atol=1e-13)


def test_g_of_r_is_that_of_mdanalysis():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mda = pytest.importorskip("MDAnalysis")
        rdf = pytest.importorskip("MDAnalysis.analysis.rdf")
        R = np.random.default_rng(17).uniform(0, 9, (5, 40, 3)).astype(np.float32)
        universe = mda.Universe.empty(40, trajectory=True)
        universe.load_new(R, dimensions=np.array([8, 9, 10, 90, 90, 90.0]))
        first, second = universe.atoms[:15], universe.atoms[15:]
        mixed = rdf.InterRDF(first, second, nbins=20, range=(0.5, 4.0)).run()
        same = rdf.InterRDF(first, first, 20, (0.5, 4.0), exclusion_block=(1, 1)).run()
    edges, box = np.linspace(0.5, 4.0, 21), np.array([8.0, 9.0, 10.0])
    numbers = np.repeat([1, 6], [15, 25])
    ours = radial_distribution(R.astype(float), atom_pairs(numbers, 1, 6), edges, box)
    np.testing.assert_allclose(ours, mixed.results.rdf, rtol=1e-6)
    ours = radial_distribution(R.astype(float), atom_pairs(numbers, 1, 1), edges, box)
    np.testing.assert_allclose(ours, same.results.rdf, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "width"), [(np.float64, None), (np.float32, 0.05)])
def test_g_of_r_of_an_ideal_gas_is_one(dtype, width):
    R = np.random.default_rng(18).uniform(0, 10, (60, 60, 3)).astype(dtype)
    edges = np.linspace(1.5, 5.0, 15)
    g = radial_distribution(R, atom_pairs(np.ones(60)), edges, 10.0, width)
    assert g.dtype == dtype
    # 60 × 1770 pairs; counting noise, 4σ of the smallest bin.
    np.testing.assert_allclose(
        g, 1.0, atol=4 / np.sqrt(60 * 1770 * 4.19 * (1.75**3 - 1.5**3) / 1e3)
    )


def test_g_of_r_has_the_gradient_of_finite_differences():
    rng = np.random.default_rng(19)
    R, w, pairs = rng.uniform(0, 6, (4, 8, 3)), normalized(20, 4), atom_pairs(np.ones(8))
    target, direction = rng.normal(size=6), rng.normal(size=R.shape)

    def loss(R, w):
        return jnp.sum(target * radial_distribution(R, pairs, np.linspace(1, 3, 7), 6.0, 0.2, w))

    h = 1e-6
    slope = jnp.sum(jax.jit(jax.grad(loss))(R, w) * direction)
    expected = (loss(R + h * direction, w) - loss(R - h * direction, w)) / (2 * h)
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


def test_samples_that_are_not_numbers_are_not_lost():
    for width in (None, 0.1):
        assert np.isnan(occupations([0.1, np.nan], EDGES, width)[1]).any()
        assert np.isnan(density([0.1, np.nan], EDGES, width)).any()


def test_all_of_it_works_in_float32_without_x64():
    with jax.enable_x64(False):
        R, w = normal(21, (9, 5, 3)), normalized(22, 9)
        phi = torsion_angles(R, [[0, 1, 2, 3]])
        ours = density(phi, np.linspace(-np.pi, np.pi, 9), 0.2, TURN, w)
        h = pair_density(R, atom_pairs(np.ones(5)), np.linspace(0, 5, 9), 0.2, w)
        assert ours.dtype == h.dtype == np.float32
    expected = density(
        torsion_angles(R, [[0, 1, 2, 3]]), np.linspace(-np.pi, np.pi, 9), 0.2, TURN, w
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_what_cannot_be_binned_is_refused():
    x = normal()
    for message, call in (
        ("do not increase", lambda: occupations(x, [0.0, 0.0, 1.0])),
        ("edges must have shape", lambda: occupations(x, [0.0])),
        ("samples must have shape", lambda: occupations(x[0], EDGES)),
        ("width must be positive", lambda: occupations(x, EDGES, 0.0)),
        ("at most an eighth", lambda: occupations(x, EDGES, 1.0, TURN)),
        ("at most the period", lambda: occupations(x, [0.0, 3.0, 7.0], 0.1, TURN)),
        ("weights of .* frames must have shape", lambda: density(x, EDGES, weights=[1.0])),
        ("half the box", lambda: pair_occupations(np.zeros((1, 2, 3)), [[0, 1]], EDGES + 1, box=4)),
        ("no pairs", lambda: pair_density(np.zeros((1, 2, 3)), np.zeros((0, 2), int), EDGES)),
        ("an atom twice", lambda: pair_occupations(np.zeros((1, 2, 3)), [[0, 0]], EDGES)),
        ("positions must have shape", lambda: pair_density(np.zeros((2, 3)), [[0, 1]], EDGES)),
    ):
        with pytest.raises(InputError, match=message):
            call()
