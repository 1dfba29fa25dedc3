"""Time correlations and spectra, against closed forms, brute force, SciPy and MDAnalysis."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from jaxff import units
from jaxff.analysis import (
    mean_and_error,
    mean_square_displacement,
    spectral_centroid,
    vdos,
    velocity_autocorrelation,
)
from jaxff.errors import InputError

MASSES = np.array([12.0, 1.0, 16.0])
DTYPES = pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-11), (np.float32, 2e-5)])


def random(seed=0, shape=(2, 41, 3, 3)):
    return np.random.default_rng(seed).normal(size=shape)


def as_numpy(arrays):
    return [np.asarray(array) for array in arrays]


def by_pairs_of_times(f, x, n_lags):
    """Mean of f(x(t), x(t + lag)) over times t, for each lag."""
    n = len(x)
    return np.array([np.mean([f(x[t], x[t + k]) for t in range(n - k)]) for k in range(n_lags)])


@DTYPES
def test_displacements_and_correlations_are_those_of_brute_force(dtype, tolerance):
    x = random().astype(dtype)
    centred = x - np.average(x, axis=2, weights=MASSES)[:, :, None]

    def msd(a, b):
        return np.mean(np.sum((b - a) ** 2, axis=-1))

    def vacf(a, b):
        return np.mean(np.sum(a * b, axis=-1))

    def by_mass(a, b):
        return np.average(np.sum(a * b, axis=-1), weights=MASSES)

    for ours, f, values, n_lags in (
        (mean_square_displacement(x), msd, x, 41),
        (mean_square_displacement(x, MASSES, 7), msd, centred, 7),
        (velocity_autocorrelation(x), vacf, x, 41),
        (velocity_autocorrelation(x, MASSES, 9), by_mass, x, 9),
    ):
        assert ours.dtype == dtype
        assert ours.shape == (2, n_lags)
        for row, replica in zip(np.asarray(ours), values.astype(float), strict=True):
            np.testing.assert_allclose(row, by_pairs_of_times(f, replica, n_lags), atol=tolerance)
    whole = np.asarray(velocity_autocorrelation(x[0], MASSES))
    ratio = velocity_autocorrelation(x[0], MASSES, normalized=True)
    np.testing.assert_allclose(ratio, whole / whole[0], atol=tolerance)


def test_displacements_are_those_of_mdanalysis():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mda = pytest.importorskip("MDAnalysis")
        module = pytest.importorskip("MDAnalysis.analysis.msd")
        R = random(1, (30, 4, 3)).cumsum(axis=0).astype(np.float32)
        universe = mda.Universe.empty(4, trajectory=True)
        universe.load_new(R)
        expected = module.EinsteinMSD(universe, fft=False).run().results.timeseries
    np.testing.assert_allclose(mean_square_displacement(R.astype(float)), expected, atol=1e-5)


def test_straight_motion_is_ballistic_and_far_from_the_origin_alike():
    v, t = np.array([[0.3, -0.1, 0.2]]), np.arange(200.0)
    msd = mean_square_displacement(1e3 + v * t[:, None, None])
    np.testing.assert_allclose(msd, np.sum(v**2) * t**2, atol=1e-8)


def test_brownian_motion_spreads_linearly():
    steps = random(2, (400, 500, 1, 3))
    # Over 400 walks, for each lag: 3 Å² a step.
    mean, error = as_numpy(
        mean_and_error(mean_square_displacement(steps.cumsum(axis=1), None, 100), 400)
    )
    expected = 3.0 * np.arange(100)
    np.testing.assert_array_less(np.abs(mean - expected)[1:], 4.5 * error[1:])
    np.testing.assert_allclose(mean[1:], expected[1:], rtol=0.1)


def oscillators(wavenumbers, n, dt, temperature=300.0, seed=3, replicas=1):
    """Velocities (replicas, F, N, 3) of free harmonic oscillators, one atom each, canonical."""
    rng = np.random.default_rng(seed)
    m = MASSES[: len(wavenumbers), None]
    scale = np.sqrt(units.BOLTZMANN * temperature / m) / units.TIME
    amplitudes = scale * rng.normal(size=(2, replicas, 1, len(wavenumbers), 3))
    omega = 2 * np.pi * np.asarray(wavenumbers)[:, None] / units.WAVENUMBER_PER_FS
    t = dt * np.arange(n)[:, None, None]
    return amplitudes[0] * np.cos(omega * t) + amplitudes[1] * np.sin(omega * t)


@pytest.mark.parametrize("window", ["hann", "blackman", "none"])
@pytest.mark.parametrize(("n", "segment"), [(600, 200), (600, 199), (601, None)])
def test_spectra_are_those_of_welch(window, n, segment):
    v, dt = random(4, (n, 3, 3)), 0.5
    frequencies, ours = as_numpy(vdos(v, MASSES, dt, window, segment))
    length = segment or n
    boxcar = "boxcar" if window == "none" else window
    overlap = 0 if window == "none" else length - length // 2
    if (n - length) % (length - overlap):
        # Segments are spread to leave no frame out, SciPy's are not.
        count = -(-(n - length) // (length - overlap)) + 1
        starts = np.round(np.linspace(0, n - length, count)).astype(int)
        pieces = [v[s : s + length] for s in starts]
    else:
        pieces = [v]
    options = {"fs": 1 / dt, "window": boxcar, "nperseg": length, "noverlap": overlap}
    welch = [signal.welch(p, **options, detrend=False, axis=0) for p in pieces]
    power = np.mean([np.einsum("fnc,n->f", w, MASSES) for _, w in welch], axis=0)
    np.testing.assert_allclose(frequencies, welch[0][0] * units.WAVENUMBER_PER_FS, rtol=1e-12)
    spacing = frequencies[1]
    np.testing.assert_allclose(ours, power / power.sum() / spacing, rtol=1e-9)
    np.testing.assert_allclose(np.sum(ours) * spacing, 1.0, rtol=1e-12)


def test_the_spectrum_without_window_obeys_parseval():
    v, temperature = random(5, (2, 300, 3, 3)) * 1e-3, 350.0
    frequencies, ours = as_numpy(vdos(v, MASSES, 0.7, "none", 100, temperature))
    kT_si = 1.380649e-23 * temperature
    twice_kinetic = np.einsum("n,rfnc->r", MASSES, v**2) / 300 * 1.66053906660e-27 * 1e10
    np.testing.assert_allclose(np.sum(ours, axis=1) * frequencies[1], twice_kinetic / kT_si, 1e-8)


def test_the_spectrum_integrates_to_the_degrees_of_freedom():
    v = oscillators([500.0, 1500.0, 3000.0], 100, 1.0, replicas=2000)
    frequencies, spectra = as_numpy(vdos(v, MASSES, 1.0, temperature=300.0))
    mean, error = mean_and_error(spectra.sum(axis=1) * frequencies[1], n_blocks=2000)
    assert error < 0.1
    assert abs(mean - 9) < 4 * error


@DTYPES
def test_an_oscillator_has_its_peak_at_its_frequency(dtype, tolerance):
    n, dt = 4096, 0.5
    spacing = units.WAVENUMBER_PER_FS / (n * dt)
    v = oscillators([800.3, 1700.7], n, dt)[0].astype(dtype)
    frequencies, spectrum = as_numpy(vdos(v, MASSES[:2], dt))
    assert spectrum.dtype == frequencies.dtype == dtype
    for peak, low, high in ((800.3, 400, 1200), (1700.7, 1200, 2200)):
        inside = (frequencies >= low) & (frequencies <= high)
        highest = frequencies[np.argmax(np.where(inside, spectrum, 0))]
        assert abs(highest - peak) <= 0.5 * spacing
        centroid = spectral_centroid(frequencies, spectrum, low, high)
        np.testing.assert_allclose(centroid, peak, atol=0.02 * spacing)


def test_the_centroid_moves_with_the_frequency():
    """Its gradient through an oscillation of 1000 cm⁻¹ is 1."""
    t = jnp.arange(2048.0)[:, None, None]

    def peak(wavenumber):
        omega = 2 * jnp.pi * wavenumber / units.WAVENUMBER_PER_FS
        v = jnp.cos(omega * t + jnp.array([0.2, 1.0, 2.9]))
        return spectral_centroid(*vdos(v, jnp.ones(1), 1.0), 600.0, 1400.0)

    value, slope = jax.jit(jax.value_and_grad(peak))(1000.0)
    np.testing.assert_allclose(value, 1000.0, atol=0.1)
    np.testing.assert_allclose(slope, 1.0, atol=0.02)


def test_gradients_are_those_of_finite_differences():
    x, direction = random(6, (25, 3, 3)), random(7, (25, 3, 3))
    target = random(8, (25,))
    h = 1e-6
    for f in (
        lambda x: jnp.dot(target[:20], mean_square_displacement(x, MASSES, 20)),
        lambda x: jnp.dot(target, velocity_autocorrelation(x, MASSES, normalized=True)),
        lambda x: jnp.dot(target[:6], vdos(x, MASSES, 0.5, segment=10, temperature=1.0)[1]),
    ):
        expected = (f(x + h * direction) - f(x - h * direction)) / (2 * h)
        slope = jnp.sum(jax.jit(jax.grad(f))(x) * direction)
        np.testing.assert_allclose(slope, expected, rtol=1e-6)
    # At rest, where the power spectrum is zero, too.
    assert np.isfinite(
        jax.grad(lambda x: mean_square_displacement(x, MASSES, 20).sum())(0 * x)
    ).all()


def test_what_has_no_correlation_is_refused():
    x = random(9, (20, 3, 3))
    for message, call in (
        ("positions must have shape", lambda: mean_square_displacement(x[0])),
        ("masses must have shape", lambda: velocity_autocorrelation(x, MASSES[:2])),
        ("n_lags must be 1 to 20", lambda: velocity_autocorrelation(x, n_lags=21)),
        ("unknown window 'hamming'", lambda: vdos(x, MASSES, 1.0, "hamming")),
        ("segment must be 2 to 20", lambda: vdos(x, MASSES, 1.0, segment=21)),
        ("no frequency between", lambda: spectral_centroid([1.0, 2.0], [1.0, 1.0], 3, 4)),
    ):
        with pytest.raises(InputError, match=message):
            call()
