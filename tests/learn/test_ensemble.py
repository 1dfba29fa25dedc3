"""Fits to ensembles: closed forms by least squares and by gradient, steps that frames can tell."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ensembles import KT, Exact, rotor, rotor_frames, well, well_frames

import jaxff
from jaxff import Dataset, InputError, Molecule, fit
from jaxff.learn import EnsembleAverage, Gradient, LeastSquares, RelativeEntropy, TorsionScan
from jaxff.learn.ensemble import LEAST
from jaxff.learn.joint import Joint
from jaxff.learn.problem import Problem
from jaxff.md import Langevin, Start
from jaxff.md.differentiable import Sampling, UntrustedWarning, reweight


def square(R):
    return jnp.sum(R**2, axis=(1, 2))


def mean_square(sampling, k, tolerance=0.005, **options):
    """A target that a well of constant `k` meets."""
    return EnsembleAverage(sampling, square, 3.0 * KT / k, tolerance, **options)


def constant(found):
    return float(found.potential.params["well"]["k"])


METHODS = {
    "least-squares": LeastSquares(prior=0.0),
    "gradient": Gradient(optimizer=optax.adam(0.2), epochs=100),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_target_beyond_one_reweighting_is_reached_by_drawing_anew(method):
    # The share of frames of k = 1 that count for k is exp(−KL): 0.38 for 4, 0.10 for 12.
    sampling, k = Exact(well_frames, 10_000), {"least-squares": 12.0, "gradient": 4.0}[method]
    found = fit(well(1.0), targets=mean_square(sampling, k), method=METHODS[method])
    shares, draws = found.history["effective_share"], found.history["draws"]
    assert draws[-1] >= (3 if k == 12.0 else 2)
    assert np.all(np.diff(draws) >= 0)
    # k̂ has the relative error of ⟨r²⟩, √(2/3F).
    error = k * np.sqrt(2.0 / 3.0 / sampling.count)
    assert constant(found) == pytest.approx(k, abs=5.0 * error + 0.01 * k * (method == "gradient"))
    if method == "least-squares":
        assert found.converged
        assert (shares >= LEAST).all()
        assert found.changes[0].error == pytest.approx(error, rel=0.3)


def equations(problem, vector):
    A, b, _ = problem.statistics(np.asarray(vector), 0.1)
    return A, b


def targets_of_two_kinds(sampling):
    data = well_frames(well(1.5), np.random.default_rng(5), 400)
    return [
        EnsembleAverage(sampling, lambda R: R[:, 0] ** 2, [0.3, 0.5, 0.4], [0.05, 0.2, 0.1]),
        RelativeEntropy(sampling, data, weight=1.7),
    ]


@pytest.mark.parametrize("kind", [0, 1])
def test_slopes_of_the_objective_are_those_of_finite_differences(kind):
    target = targets_of_two_kinds(Exact(well_frames, 800))[kind]
    problem = Problem(Joint.of([well(1.0)]), [None], None, [[target]])
    problem.ensembles.refresh(problem.start)
    x, step = np.array([0.2]), 1e-5
    A, b = equations(problem, x)
    ahead, behind = (problem.objective(x + s, 0.1) for s in (step, -step))
    np.testing.assert_allclose(2.0 * b, (ahead - behind) / (2 * step), rtol=1e-6)
    # The same by the path of the optimisers.
    slope = jax.jit(jax.grad(problem.ensembles.value))(jnp.asarray(x), problem.ensembles.samples)
    np.testing.assert_allclose(slope, 2.0 * b, rtol=1e-9)
    if kind == 1:  # the energy is linear in k: the curvature is exact
        ahead, behind = (equations(problem, x + s)[1] for s in (step, -step))
        np.testing.assert_allclose(A[0], (ahead - behind) / (2 * step), rtol=1e-6)


def test_relative_entropy_is_that_between_gaussians():
    rng = np.random.default_rng(7)
    data = well_frames(well(2.0), rng, 3000)
    target = RelativeEntropy(Exact(well_frames, 200_000), data)
    problem = Problem(Joint.of([well(1.0)]), [None], None, [[target]])
    problem.ensembles.refresh(problem.start)
    squares = np.mean(np.sum(data**2, axis=(1, 2)))
    for move in (0.1, -0.1, 0.3):
        k = 1.0 + move
        exact = 0.5 * (k - 1.0) * squares / KT - 1.5 * np.log(k)
        assert problem.objective(np.array([move]), 0.1) == pytest.approx(exact, abs=3e-3)


@pytest.mark.parametrize("method", METHODS)
def test_relative_entropy_finds_the_maximum_likelihood(method):
    sampling, k = Exact(well_frames, 20_000), 5.0
    data = well_frames(well(k), np.random.default_rng(11), 500)
    best = 3.0 * KT / np.mean(np.sum(data**2, axis=(1, 2)))
    found = fit(well(1.0), targets=RelativeEntropy(sampling, data), method=METHODS[method])
    of_frames = best * np.sqrt(2.0 / 3.0 / sampling.count)
    assert constant(found) == pytest.approx(
        best, abs=5.0 * of_frames + 0.02 * (method != "least-squares")
    )
    assert constant(found) == pytest.approx(k, abs=4.0 * k * np.sqrt(2.0 / 3.0 / len(data)))
    if method == "least-squares":
        # Its standard error is that of maximum likelihood.
        likelihood = k * np.sqrt(2.0 / 3.0 * (1.0 / len(data) + 1.0 / sampling.count))
        assert found.changes[0].error == pytest.approx(likelihood, rel=0.25)
        assert (np.diff(found.history["loss"]) < 1e-3).all()


def test_relative_entropy_finds_a_torsion():
    true = np.array([0.9, 0.7])
    data = rotor_frames(rotor(*true), np.random.default_rng(2), 4000)
    target = RelativeEntropy(Exact(rotor_frames, 10_000), data)
    found = fit(rotor(0.0, 0.0), targets=[target], trainable=["torsion.k"])
    assert found.converged
    for change, value in zip(found.changes, true, strict=True):
        assert change.error < 0.05
        assert abs(change.fitted - value) < 4.0 * change.error


def test_targets_share_the_frames_of_one_sampling():
    first, second = Exact(well_frames, 200), Exact(well_frames, 300)
    targets = [*targets_of_two_kinds(first), mean_square(second, 1.0)]
    problem = Problem(Joint.of([well(1.0)]), [None], None, [targets])
    assert [len(e.targets) for e in problem.ensembles.ensembles] == [2, 1]
    assert [e.sampling for e in problem.ensembles.ensembles] == [first, second]


def test_steps_are_cut_where_the_frames_cannot_tell():
    problem = Problem(
        Joint.of([well(1.0)]), [None], None, [[mean_square(Exact(well_frames), 30.0)]]
    )
    problem.ensembles.refresh(problem.start)
    assert np.isfinite(problem.objective(np.array([0.3]), 0.1))
    assert problem.objective(np.array([29.0]), 0.1) == np.inf
    assert problem.ensembles.refresh(np.array([29.0]))
    assert np.isfinite(problem.objective(np.array([29.0]), 0.1))


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_goes_on_with_the_same_frames(method, tmp_path):
    sampling = Exact(well_frames, 500)
    data = well_frames(well(9.0), np.random.default_rng(0), 100)
    targets = [mean_square(sampling, 6.0, 0.1), RelativeEntropy(sampling, data)]
    length = {"least-squares": {"steps": 6}, "gradient": {"epochs": 6}}[method]
    options = {"targets": targets, "method": replace(METHODS[method], **length)}
    whole = fit(well(1.0), **options)
    path = tmp_path / "fit.ckpt"

    # The number of epochs belongs to the request; a step that fails stands for an interruption.
    class Stop(Exception):
        pass

    seen = []

    def stop(phase, fraction):
        seen.append(fraction)
        if len(seen) == 4:
            raise Stop

    with pytest.raises(Stop):
        fit(well(1.0), checkpoint=path, progress=stop, **options)
    resumed = fit(well(1.0), checkpoint=path, **options)
    assert constant(resumed) == constant(whole)
    for key, values in whole.history.items():
        np.testing.assert_array_equal(resumed.history[key], values)
    options["targets"] = [mean_square(Exact(well_frames, 500, seed=1), 6.5, 0.1), targets[1]]
    with pytest.raises(InputError, match=r"belongs to another fit with other settings \(targets\)"):
        fit(well(1.0), checkpoint=path, **options)


@pytest.mark.slow
def test_molecules_are_fitted_together_by_the_parameters_that_matter():
    def bond(R):
        return jnp.linalg.norm(R[:, 0] - R[:, 1], axis=-1)

    def sampling(potential, seed=0):
        return Sampling(
            potential.molecule,
            Langevin(friction=10.0),
            steps=2000,
            equilibration=1000,
            start=Start(replicas=16, seed=seed),
        )

    starts = [jaxff.gaff(Molecule.from_smiles(s), charges="gasteiger") for s in ("O", "CO")]
    lengths, tolerance = (1.0, 1.4), 0.002  # of O-H in water and C-O in methanol
    targets = [
        [EnsembleAverage(sampling(potential), bond, length, tolerance)]
        for potential, length in zip(starts, lengths, strict=True)
    ]
    found = fit(starts, targets=targets, trainable=["bond.*"])
    assert found.converged
    assert found.history["draws"][-1] >= 4
    for potential, length in zip(found.potentials, lengths, strict=True):
        check = reweight(potential, sampling(potential, 500).draw(potential)).average(bond)
        assert abs(check.mean - length) < 4.0 * np.hypot(check.error, tolerance)
    # Lengths move, not the force constants, on which averages hardly depend.
    moved = {c.label: abs(c.fitted - c.start) for c in found.changes if c.name == "bond.k"}
    assert max(moved.values()) < 10.0


def test_targets_alone_are_enough():
    R = np.random.default_rng(0).normal(size=(8, 1, 3))
    target = TorsionScan(R, np.asarray(square(R)))  # energies of k = 2
    found = fit(well(1.5), targets=target, method=METHODS["least-squares"])
    assert constant(found) == pytest.approx(2.0, rel=1e-6)
    with pytest.raises(InputError, match="at least 2 frames"):
        fit(well(1.5), Dataset([1], np.zeros((1, 1, 3)), np.zeros((1, 1, 3))), targets=target)


def test_averages_without_statistics_are_not_believed():
    few = mean_square(Exact(well_frames, 200), 1.0, tolerance=1e-4)
    with pytest.warns(UntrustedWarning, match="statistical error"):
        fit(well(1.1), targets=few)


def test_frames_that_drift_are_not_believed():
    def frames(potential, rng, count):  # the first half is hotter
        R = well_frames(potential, rng, count).reshape(50, 2, -1, 1, 3)
        return (R * np.sqrt([[1.5], [0.5]])[:, None, None]).reshape(-1, 1, 3)

    drifting = mean_square(Exact(frames, 10_000, blocks=50), 1.0, tolerance=0.1)
    with pytest.warns(UntrustedWarning, match="equilibrate longer"):
        fit(well(1.0), targets=drifting)


@pytest.mark.parametrize("method", METHODS)
def test_ensembles_stand_beside_forces(method):
    R = np.random.default_rng(1).normal(size=(40, 1, 3))
    data, k = Dataset([1], R, -2.0 * R), 3.0
    # Forces say 2, the ensemble says 3: the heavier decides.
    for weight, constant_ in ((1e-6, 2.0), (1e4, k)):
        target = mean_square(Exact(well_frames), k, 0.05, weight=weight)
        epochs = {"epochs": 60} if method == "gradient" else {}
        settings = replace(METHODS[method], check_labels=False, **epochs)
        found = fit(well(1.5), data, targets=target, method=settings)
        assert constant(found) == pytest.approx(constant_, rel=0.06)


def test_targets_that_cannot_be_meant_are_refused():
    sampling = Exact(well_frames, 100)
    data = np.zeros((5, 2, 3))
    for bad, message in (
        (lambda: mean_square(None, 1.0), "must be a Sampling"),
        (lambda: mean_square(sampling, 1.0, tolerance=0.0), "must be one positive number"),
        (lambda: mean_square(sampling, 1.0, weight=-1.0), "of at least 0"),
        (lambda: EnsembleAverage(sampling, square, [np.nan], 1.0), "must be finite"),
        (lambda: fit(well(1.0), targets=EnsembleAverage(sampling, square, [1, 2], 1)), "has shape"),
        (lambda: fit(well(1.0), targets=RelativeEntropy(sampling, data)), "positions of 2 atoms"),
        (lambda: fit(well(1.0)), "nothing to fit to"),
        (
            lambda: fit(
                rotor(1, 1), targets=mean_square(sampling, 1), trainable=["torsion.k:two*"]
            ),
            "no parameter matches",
        ),
    ):
        with pytest.raises(InputError, match=message):
            bad()
