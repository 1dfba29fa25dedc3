"""Reweighting: closed forms, quadrature, finite differences, and when it is not to be believed."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ensembles import (
    KT,
    Exact,
    T,
    double_well,
    inverse_transform,
    rotor,
    rotor_frames,
    well,
    well_frames,
)  # fmt: skip

import jaxff
from jaxff import InputError
from jaxff.analysis import occupations, torsion_angles
from jaxff.dataset import packaged_dataset
from jaxff.learn import EnsembleAverage
from jaxff.md import NVE, Langevin, Start
from jaxff.md.differentiable import (
    Frames,
    Sampling,
    UntrustedWarning,
    average,
    effective_frames,
    free_energy_difference,
    reweight,
    weights,
)


def square(R):
    return jnp.sum(R**2, axis=(1, 2))


def moments(k):
    """⟨r²⟩ of a well of constant k, its slope by k, and F times the variance of its average
    over frames of k = 1, E_1[w² (r² − ⟨r²⟩)²], an integral over the well of constant 2k − 1."""
    mean, s = 3.0 * KT / k, KT / (2.0 * k - 1.0)
    scale = k**3 / (2.0 * k - 1.0) ** 1.5
    return mean, -mean / k, scale * (15.0 * s**2 - 6.0 * s * mean + mean**2)


@pytest.mark.parametrize("k", [1.0, 1.2, 0.85])
def test_harmonic_averages_and_their_gradients_are_those_in_closed_form(k):
    frames = Exact(well_frames, 40_000, seed=int(100 * k)).draw(well(1.0))
    found, slope = jax.value_and_grad(average)(well(k), frames, square)
    told = reweight(well(k), frames)
    estimate = told.average(square)
    mean, gradient, variance = moments(k)
    error = np.sqrt(variance / len(frames))
    assert estimate.mean == pytest.approx(float(found), rel=1e-12)
    assert estimate.error == pytest.approx(error, rel=0.25)
    assert abs(found - mean) < 4.0 * error
    # The slope −⟨(r² − ⟨r²⟩)²⟩/(2 kT) has the error of a variance.
    assert slope.params["well"]["k"] == pytest.approx(gradient, rel=0.06)
    delta = free_energy_difference(well(k), frames)
    assert delta == pytest.approx(1.5 * KT * np.log(k), abs=4.0 * abs(k - 1.0) * error)
    of_energy = jax.grad(free_energy_difference)(well(k), frames).params["well"]["k"]
    assert of_energy == pytest.approx(0.5 * float(found), rel=1e-10)


def test_the_effective_share_is_that_of_the_information_between_gaussians():
    frames = Exact(well_frames, 100_000).draw(well(1.0))
    for k in (1.0, 1.5, 2.5):
        ratio = 1.0 / k  # of the variances
        information = 1.5 * (ratio - 1.0 - np.log(ratio))
        share = effective_frames(weights(well(k), frames)) / len(frames)
        assert share == pytest.approx(np.exp(-information), rel=0.02)
    assert effective_frames(jnp.array([0.0, 1.0, 0.0])) == 1.0


def test_populations_of_a_double_well_are_those_of_quadrature():
    a, b = 2.0, 3.0
    grid = np.linspace(-3.0, 3.0, 20_001)

    def shape(c):
        return lambda x: a * x**4 - b * x**2 + c * x

    u = np.random.default_rng(3).random(50_000)
    x = inverse_transform(shape(0.0), grid, u)
    positions = np.zeros((len(x), 1, 3))
    positions[:, 0, 0] = x
    start = double_well(a, b, 0.0)
    frames = Frames.of(start, positions, T)
    shares = occupations(x, np.array([-3.0, 0.0, 3.0]))

    def populations(c):
        density = np.exp(-shape(c)(grid) / KT)
        return np.array([density[grid < 0].sum(), density[grid > 0].sum()]) / density.sum()

    jacobian = jax.jit(jax.jacrev(average))
    for c in (-0.2, 0.0, 0.3):
        changed = start.replace(double_well(a, b, c).params)
        told = reweight(changed, frames)
        found = told.average(shares)
        assert told.trusted
        np.testing.assert_allclose(found.mean, populations(c), atol=4.0 * found.error.max())
        assert found.error.max() < 0.01
        slope = jacobian(changed, frames, shares).params["double"]["c"]
        exact = (populations(c + 1e-4) - populations(c - 1e-4)) / 2e-4
        np.testing.assert_allclose(slope, exact, rtol=0.05)


def test_gradients_are_those_of_finite_differences():
    frames = Exact(well_frames, 500).draw(well(2.0))
    start = double_well(0.3, -1.0, 0.1)

    @jax.jit
    def energy(x):  # an observable that reads the parameters, too
        potential = start.replace({"double": dict(zip("abc", x, strict=True))})
        return average(potential, frames, jax.vmap(potential)(frames.positions))

    x, step = jnp.array([0.5, -0.8, 0.2]), 1e-5
    by_steps = [(energy(x + step * e) - energy(x - step * e)) / (2 * step) for e in jnp.eye(3)]
    np.testing.assert_allclose(jax.grad(energy)(x), by_steps, rtol=1e-7)
    np.testing.assert_allclose(jax.jacfwd(energy)(x), by_steps, rtol=1e-7)


def test_the_error_is_the_scatter_of_repetitions():
    means, errors, start, changed = [], [], well(1.0), well(1.3)
    for seed in range(60):
        frames = Exact(well_frames, 1000, seed=seed).draw(start)
        found = reweight(changed, frames).average(square)
        means.append(found.mean), errors.append(found.error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.3)


def test_float32_weights_are_those_of_float64():
    frames = Exact(rotor_frames, 300).draw(rotor(0.5, 0.3))
    exact = weights(rotor(0.7, 0.1), frames)
    found = weights(rotor(0.7, 0.1).astype(jnp.float32), frames)
    np.testing.assert_allclose(found, exact, rtol=1e-4)


def test_it_says_when_frames_cannot_tell():
    frames = Exact(well_frames, 1000).draw(well(1.0))
    assert reweight(well(1.2), frames).trusted
    far = reweight(well(20.0), frames)
    assert not far.trusted
    assert far.share < 0.1
    assert "draw new frames" in far.reason
    with pytest.warns(UntrustedWarning, match="effective number of the 1000 frames"):
        far.average(square)
    broken = reweight(well(np.nan), frames)
    assert not broken.trusted
    assert "frame 0 is not finite" in broken.reason
    # A single block has no error to tell.
    # An average has a gradient with the same caveat.
    near = reweight(well(1.2), frames)
    slope = jax.grad(average)(near.potential, frames, square).params["well"]["k"]
    assert near.gradient(square)["well"]["k"] == pytest.approx(float(slope))
    with pytest.warns(UntrustedWarning, match="the gradient is not reliable"):
        far.gradient(square)
    one = Frames.of(well(1.0), frames.positions, T, blocks=1)
    assert np.isnan(reweight(well(1.0), one).average(square).error)


def test_frames_that_cannot_be_used_are_refused():
    R = np.zeros((4, 1, 3))
    for bad, message in (
        (lambda: Frames.of(well(1.0), R[:0], T), "at least one frame"),
        (lambda: Frames.of(well(1.0), R, 0.0), "must be positive"),
        (lambda: Frames.of(well(1.0), R, T, blocks=5), "must be from 1 to 4"),
        (lambda: Frames.of(well(1.0), np.zeros((4, 2, 3)), T), "2 atoms"),
        (lambda: Frames.of(well(1.0), R + np.nan, T), "frame 0 is not finite"),
        (
            lambda: average(well(1.0), Frames.of(well(1.0), R, T), np.zeros(3)),
            r"must have shape \(4, ...\)",
        ),
        (lambda: Sampling(None, steps=15, every=10), "a multiple of every"),
        (lambda: Sampling(None, Langevin(0.0)), "one constant temperature above 0 K"),
        (lambda: Sampling(None, NVE()), "one constant temperature above 0 K"),
        (lambda: Sampling(None, Langevin([300.0, 400.0])), "one constant temperature"),
        (lambda: Sampling(None, start=Start()), "must have replicas"),
    ):
        with pytest.raises(InputError, match=message):
            bad()
    assert Frames.of(well(1.0), np.zeros((4, 30, 1, 3)), T).blocks == 12  # whole parts of replicas
    assert Frames.of(well(1.0), np.zeros((20, 3, 1, 3)), T).blocks == 20


def test_frames_of_another_molecule_are_refused():
    water, sulfide, methanol = (
        jaxff.gaff(jaxff.Molecule.from_smiles(smiles), charges="gasteiger")
        for smiles in ("O", "S", "CO")
    )
    frames = Frames.of(water, water.molecule.positions[None], T)
    for use in (reweight, weights, free_energy_difference, lambda *a: average(*a, square)):
        with pytest.raises(InputError, match="positions have 3 atoms; this potential needs 6"):
            use(methanol, frames)
        with pytest.raises(InputError, match=r"\[8, 1, 1\] of the frames differ from .*\[16, 1"):
            use(sulfide, frames)


# -- a real molecule --------------------------------------------------------------------------


ROTOR = [[0, 1, 2, 8]]  # C-C-O-H of the packaged ethanol


def anti(R):
    phi = torsion_angles(R, ROTOR)[:, 0]
    return occupations(phi, np.radians([120.0, 240.0]), period=2 * np.pi)[:, 0]


@pytest.fixture(scope="module")
def ethanol():
    return jaxff.gaff(packaged_dataset("ethanol").molecule, charges="gasteiger")


def sampling(ethanol, seed):
    return Sampling(
        ethanol.molecule, Langevin(500.0, friction=10.0), steps=4000, equilibration=2000, every=40,
        start=Start(replicas=16, seed=seed),
    )  # fmt: skip


def test_a_torsion_is_fitted_to_the_populations_of_the_rotor(ethanol):
    target, tolerance = 0.85, 0.03
    own = sampling(ethanol, 0)
    frames = own.draw(ethanol)
    start = reweight(ethanol, frames).average(anti)
    assert abs(start.mean - target) > 5.0 * start.error
    found = jaxff.fit(
        ethanol,
        targets=EnsembleAverage(own, anti, target, tolerance),
        trainable=["torsion.k:c3-c3-oh-ho*"],
    )
    assert found.converged
    assert found.history["draws"][-1] >= 2
    assert {c.label for c in found.changes} == {"c3-c3-oh-ho n=1", "c3-c3-oh-ho n=3"}
    changed = np.asarray(found.potential.params["torsion"]["k"] != ethanol.params["torsion"]["k"])
    np.testing.assert_array_equal(changed, [True, True, False, False, False, False])
    # Dynamics of its own, from other starts and noise.
    fresh = sampling(ethanol, 1000).draw(found.potential)
    check = reweight(found.potential, fresh).average(anti)
    assert abs(check.mean - target) < 4.0 * np.hypot(check.error, tolerance)
    # The first frames could not have told so.
    far = reweight(found.potential, frames)
    assert far.share < 0.75

    # Half way they could: as dynamics there say.
    half = jax.tree.map(lambda a, b: 0.5 * (a + b), ethanol, found.potential)
    told = reweight(half, frames)
    assert told.trusted
    direct = reweight(half, sampling(ethanol, 2000).draw(half)).average(anti)
    estimate = told.average(anti)
    assert abs(estimate.mean - direct.mean) < 4.0 * np.hypot(estimate.error, direct.error)


def test_hybrids_are_reweighted_like_any_potential(ethanol):
    rng = np.random.default_rng(0)
    model = Path(__file__).parents[1] / "gdml" / "data"
    kernel = jaxff.gdml.load(next(iter(sorted(model.glob("*ethanol*.npz")))))
    R = ethanol.molecule.positions + 0.02 * rng.normal(size=(20, 9, 3))
    hybrid = ethanol + 0.5 * kernel
    frames = Frames.of(hybrid, R, T)
    values = anti(R) + square(R)

    @jax.jit
    def mean(scale, k):
        params = {name: dict(own) for name, own in hybrid.params.items()}
        params["gdml"]["scale"], params["torsion"]["k"] = scale, k
        return average(hybrid.replace(params), frames, values)

    scale, k = jnp.asarray(0.52), hybrid.params["torsion"]["k"]
    slope = jax.grad(mean, argnums=(0, 1))(scale, k)
    step = 1e-5
    ahead, behind = (mean(scale + s, k) for s in (step, -step))
    assert slope[0] == pytest.approx(float(ahead - behind) / (2 * step), rel=1e-5)
    direction = rng.normal(size=k.shape)
    ahead, behind = (mean(scale, k + s * direction) for s in (step, -step))
    assert slope[1] @ direction == pytest.approx(float(ahead - behind) / (2 * step), rel=1e-5)
