"""Metrics that are learnt by the leave-one-out error of the forces."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxff import Molecule, gdml, load, save
from jaxff.contents import describe
from jaxff.errors import InputError
from jaxff.gdml.descriptor import pair_permutations
from jaxff.gdml.metric import SIGMA, LeaveOneOut, pair_classes
from jaxff.gdml.training import force_rmse


@pytest.fixture(scope="module")
def error(frames, group):
    classes = pair_classes(frames.molecule, pair_permutations(group))
    return LeaveOneOut.of(frames[:5], group, classes, 1e-8)


@pytest.fixture(scope="module")
def moves(error):
    return 0.3 * np.random.default_rng(5).normal(size=int(error.classes.max()) + 2)


def test_the_error_is_that_of_models_without_the_frame(error, moves, frames, group, tmp_path):
    weights, power = error.weights(moves)
    scaled = partial(gdml.scaled_distances, weights=tuple(weights.tolist()), power=power)
    kernel = gdml.Kernel(lam=1e-8, symmetries=group, descriptor=scaled)
    squares = []
    for left_out in range(5):
        others = frames[np.delete(np.arange(5), left_out)]
        model = gdml.train(others, sigma=SIGMA, kernel=kernel)
        squares.append(force_rmse(model, frames[[left_out]]) ** 2)
    save(tmp_path / "model.npz", model)
    (facts,) = describe(tmp_path / "model.npz")[1]["terms"].values()
    assert facts["descriptor"].startswith("scaled_distances (36 weights from ")
    assert f"power={power:.4g}" in facts["descriptor"]
    # Frames that a model has not seen have no net force or torque either, which errors leave out.
    assert error.rmse(moves) == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-5)


def test_the_slope_is_the_derivative_of_the_error(error, moves):
    value, slope = error(moves)
    assert np.exp(value) == pytest.approx(error.rmse(moves) * np.sqrt(5 * 27), rel=1e-9)
    direction, step = np.random.default_rng(6).normal(size=len(moves)), 1e-4
    difference = error(moves + step * direction)[0] - error(moves - step * direction)[0]
    assert slope @ direction == pytest.approx(difference / (2 * step), rel=1e-4)


def test_a_kernel_matrix_in_parts_is_the_whole_one(error, moves, monkeypatch):
    value, slope = error(moves)
    jax.clear_caches()
    monkeypatch.setattr("jaxff.gdml.metric._BYTES", 1e5)
    in_parts = error(moves)
    jax.clear_caches()
    assert in_parts[0] == pytest.approx(value, rel=1e-9)
    np.testing.assert_allclose(in_parts[1], slope, rtol=1e-6, atol=1e-9)


def test_classes_follow_elements_bonds_and_permutations():
    acid = Molecule.from_smiles("OC=CC=O")  # 3-hydroxyacrolein; permutations may swap its oxygens
    n_atoms = acid.n_atoms
    i, j = np.tril_indices(n_atoms, -1)
    same = pair_permutations(np.arange(n_atoms)[None])
    classes = pair_classes(acid, same)
    bonded = {tuple(sorted(b)) for b in acid.bonds.tolist()}
    for k in np.unique(classes):
        inside = [(a, b) for a, b, c in zip(i, j, classes, strict=True) if c == k]
        assert len({tuple(sorted(acid.numbers[[a, b]])) for a, b in inside}) == 1
        assert len({(b, a) in bonded for a, b in inside}) == 1
    swapped = np.arange(n_atoms)
    oxygens = np.flatnonzero(acid.numbers == 8)
    swapped[oxygens] = oxygens[::-1]
    images = pair_permutations(np.stack([np.arange(n_atoms), swapped]))
    merged = pair_classes(acid, images)
    assert merged.max() < classes.max()
    np.testing.assert_array_equal(merged, merged[images[1]])


def test_a_learnt_metric_is_more_accurate_and_saved(tmp_path, frames, group):
    options = {"sigma": SIGMA, "run": gdml.Run(checkpoint=tmp_path / "state")}
    kernel = gdml.Kernel(symmetries=group, learn_metric=True)
    model = gdml.train(frames[:12], kernel=kernel, **options)
    plain = min(
        force_rmse(gdml.train(frames[:12], sigma=s, kernel=gdml.Kernel(symmetries=group)), test)
        for s, test in ((s, frames[12:]) for s in (10.0, 30.0))
    )
    assert force_rmse(model, frames[12:]) < 0.9 * plain
    save(tmp_path / "m.npz", model)
    wanted = model.predict(frames.positions[12:])[1]
    np.testing.assert_array_equal(
        load(tmp_path / "m.npz").predict(frames.positions[12:])[1], wanted
    )
    # An atom order or an equivalent geometry changes nothing.
    turned = frames.positions[12:][:, group[4]]
    np.testing.assert_allclose(model.predict(turned)[1], wanted[:, group[4]], atol=1e-7)

    def refuse(*arguments, **settings):
        raise AssertionError("the metric was learnt again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxff.gdml.training.learn_metric", refuse)
        again = gdml.train(frames[:12], kernel=kernel, **options)
    np.testing.assert_array_equal(again.predict(frames.positions[12:])[1], wanted)


def test_a_metric_that_does_not_help_is_not_used(frames, group, monkeypatch):
    monkeypatch.setattr("jaxff.gdml.metric.WORTH", 0.0)
    said = []
    descriptor = gdml.learn_metric(
        frames[:8], group, lam=1e-8, progress=lambda phase, _: said.append(phase)
    )
    assert descriptor is gdml.inverse_distances
    assert said[-1].endswith("the metric is not used")


def test_frames_that_cannot_be_learnt_are_refused_before_the_search(frames, group, monkeypatch):
    monkeypatch.setattr("jaxff.gdml.metric._best", None)
    for few in (frames[[0, 1, 0]], frames[[0]], frames.reorder([0])):
        with pytest.raises(InputError, match=r"same geometry|at least two frames of two atoms"):
            gdml.learn_metric(few, group[:1, : few.n_atoms])
    with pytest.raises(InputError, match=r"lam is 0\.0, but must be one or several finite"):
        gdml.learn_metric(frames, group, lam=0.0)


def test_a_checkpoint_of_another_regularisation_does_not_give_its_metric(
    tmp_path, frames, group, monkeypatch
):
    learnt = []

    def learn(frames, permutations, *, lam, **settings):
        learnt.append(lam)
        return gdml.inverse_distances

    monkeypatch.setattr("jaxff.gdml.training.learn_metric", learn)
    for lam in (1e-8, 1e-8, 1e-7):
        kernel = gdml.Kernel(lam=lam, symmetries=group, learn_metric=True)
        run = gdml.Run(checkpoint=tmp_path / "state")
        gdml.train(frames[:4], sigma=SIGMA, kernel=kernel, run=run)
    assert learnt == [1e-8, 1e-7]


def test_settings_that_exclude_each_other_are_refused(frames):
    with pytest.raises(InputError, match="leave out descriptor="):
        gdml.Kernel(learn_metric=True, descriptor=gdml.light_hydrogens(frames.numbers))


def test_powers_of_distances():
    R = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)))
    scaled = gdml.scaled_distances(R, weights=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0), power=2.0)
    x = gdml.inverse_distances(R)
    np.testing.assert_allclose(scaled, np.arange(1, 7) * x**2)
