"""Frames from one potential, labels from another: selections, cross-validation, active learning."""

import json

import numpy as np
import pytest
from springs import labelled, springs

from jaxff import Dataset, InputError, Molecule, evaluate, gaff, gdml, load, save
from jaxff.cli import main
from jaxff.reference import (
    Labelling,
    Loop,
    Sampling,
    Selection,
    active_learning,
    cross_validate,
    select,
    two_step,
)
from jaxff.reference.exploration import explore

TOY = "toy_calculators:Springs"


@pytest.fixture(scope="module")
def water():
    return Molecule.from_smiles("O")


@pytest.fixture(scope="module")
def truth(water):
    return springs(water)


@pytest.fixture(scope="module")
def data(water, truth):
    R = water.positions + np.random.default_rng(0).normal(0.0, 0.06, (400, 3, 3))
    return labelled(truth, R)


@pytest.fixture(scope="module")
def unsure(data):
    model = gdml.train(data[:20], sigma=10.0)
    return gdml.uncertainty(model, data[:20], data[20:40])


def inverse_distances(R):
    i, j = np.triu_indices(R.shape[1], 1)
    return 1.0 / np.linalg.norm(R[:, i] - R[:, j], axis=-1)


# -- selection ---------------------------------------------------------------------------------


def test_farthest_frames_are_those_of_brute_force(data):
    points = inverse_distances(data.positions)
    chosen = [int(np.argmax(np.linalg.norm(points - points.mean(axis=0), axis=1)))]
    while len(chosen) < 12:
        gaps = [min(np.linalg.norm(points[i] - points[j]) for j in chosen) for i in range(400)]
        chosen.append(int(np.argmax(gaps)))
    np.testing.assert_array_equal(select(data, 12, "farthest"), sorted(chosen))
    known = data.positions[:5]
    gaps = np.linalg.norm(points[:, None] - points[None, :5], axis=-1).min(axis=1)
    assert select(data, 1, "farthest", known=known) == np.argmax(gaps)
    copies = data.positions[[0, 0, 0, 1]]
    np.testing.assert_array_equal(select(copies, 4, "farthest"), range(4))


def test_exchanged_equivalent_atoms_are_not_far(data):
    """A stretched bond, the same with exchanged hydrogens, and another geometry that is near."""
    known = data.positions[:1].copy()
    known[0, 1] += 0.3 * (known[0, 1] - known[0, 0])
    drawn = np.concatenate([known[:, [0, 2, 1]], known + np.array([[0.0], [0.05], [0.0]])])
    group = np.array([[0, 1, 2], [0, 2, 1]])
    assert select(drawn, 1, "farthest", known=known) == 0
    assert select(drawn, 1, "farthest", known=known, permutations=group) == 1


def test_energies_of_a_selection_are_distributed_as_all(data, truth):
    chosen = select(data, 100, "energy", seed=1)
    edges = np.quantile(data.energies, [0, 0.25, 0.5, 0.75, 1.0])
    counts = np.histogram(data.energies[chosen], edges)[0]
    np.testing.assert_allclose(counts, 25, atol=5)
    np.testing.assert_array_equal(
        select(data.positions, 100, "energy", model=truth, seed=1), chosen
    )


def test_uncertain_frames_are_chosen_apart(data, unsure):
    left = data[40:]
    errors = np.sqrt(np.mean(unsure.predict(left.positions)[1] ** 2, axis=(1, 2)))
    chosen = select(left, 10, "uncertainty", model=unsure)
    assert set(chosen) <= set(np.argsort(errors)[-40:])
    assert (
        select(left, 1, "uncertainty", model=unsure, known=data.positions[:20])
        in (np.argsort(errors)[-4:])
    )
    assert len(set(chosen)) == 10


def test_random_frames_follow_the_seed(data):
    assert len(set(select(data, 50, seed=1))) == 50
    np.testing.assert_array_equal(select(data, 50, seed=1), select(data.positions, 50, seed=1))
    assert not np.array_equal(select(data, 50, seed=1), select(data, 50, seed=2))


def test_selections_that_cannot_be_made_are_refused(data):
    for arguments, message in (
        ((data, 5, "best"), "use one of random, energy, farthest, uncertainty"),
        ((data, 401), "n must be 1 to 400, the number of frames .got 401"),
        ((data.positions, 5, "energy"), "needs energies: give a Dataset"),
        ((data, 5, "uncertainty"), "needs a model: give model="),
        ((data.positions[0], 5), r"must have shape \(M, N, 3\)"),
    ):
        with pytest.raises(InputError, match=message):
            select(*arguments)


# -- two steps ---------------------------------------------------------------------------------


def test_frames_are_of_one_potential_and_labels_of_another(water, truth, tmp_path):
    sampling = Sampling(temperature=300.0, spacing=10.0, equilibration=100.0, seed=3)
    selection = Selection(25, "energy")
    double = Labelling(2.0 * truth)
    made = two_step(truth, water, tmp_path / "a.npz", selection, double, sampling)
    energies, forces = double.calculator.predict(made.positions)
    np.testing.assert_allclose(made.energies, energies)
    np.testing.assert_allclose(made.forces, forces)
    kept = Dataset.load(tmp_path / "a.npz", check=False)
    np.testing.assert_array_equal(kept.positions, made.positions)
    with pytest.raises(InputError, match="exists already"):
        two_step(truth, water, tmp_path / "a.npz", selection, Labelling(truth), sampling)
    toy = Labelling(TOY, workers=1)
    again = two_step(truth, water, tmp_path / "b.npz", selection, toy, sampling)
    np.testing.assert_array_equal(again.positions, made.positions)
    assert again.theory.startswith(TOY)
    # Of a canonical ensemble of three springs in 3N - 6 = 3 dimensions: 3/2 kT each on average.
    many = sampling.frames(truth, water, 4000)
    assert len(many) == 4000
    kT = 0.0019872 * 300.0
    assert truth.predict(many)[0].mean() == pytest.approx(1.5 * kT, rel=0.15)


# -- cross-validation --------------------------------------------------------------------------


def test_samplings_of_one_distribution_give_equal_errors(data, truth, water):
    R = water.positions + np.random.default_rng(9).normal(0.0, 0.15, (200, 3, 3))
    energies, forces = truth.predict(R)
    wide = Dataset(data.numbers, R, forces, energies)
    found = cross_validate(
        {"first": data[:200], "second": data[200:], "wide": wide},
        40, n_valid=0, n_test=150, seeds=(0, 1, 2, 3),
        train=lambda train, valid, seed: gdml.train(train, sigma=10.0),
    )  # fmt: skip
    assert found.names == ("first", "second", "wide")
    for metric in ("force_mae", "energy_mae", "force_rmse"):
        mean, error = found.errors[metric]
        same, bars = mean[:2, :2].ravel(), error[:2, :2].ravel()
        assert (np.abs(same - same.mean()) < 4 * bars.max()).all()
        assert mean[0, 2] > 3.0 * mean[0, 0]  # trained on the narrow one, tested on the wide
        assert mean[2, 2] < mean[0, 2]
    split = data[:200].split(40, 0, 150, seed=0)
    one = cross_validate(
        {"first": data[:200]}, 40, n_valid=0, n_test=150, seeds=[0],
        train=lambda train, valid, seed: gdml.train(train, sigma=10.0),
    )  # fmt: skip
    expected = evaluate(gdml.train(split.train, sigma=10.0), split.test)
    assert one.errors["force_mae"].mean[0, 0] == pytest.approx(expected["force_mae"])
    assert np.isnan(one.errors["force_mae"].error[0, 0])
    with pytest.raises(InputError, match="sampling 'b' has different atoms"):
        cross_validate({"a": data, "b": data.reorder([1, 0, 2])}, 10)


# -- active learning ---------------------------------------------------------------------------


def loop(water, truth, out, **changed):
    sampling = Sampling(temperature=600.0, spacing=10.0, equilibration=50.0, seed=1)
    settings = {
        "target": 1e-9, "n_round": 6, "n_initial": 10, "max_frames": 22, "n_candidates": 60,
        "training": {"sigma": 10.0},
    } | changed  # fmt: skip
    labelling = Labelling(settings.pop("labels", 1.2 * truth))
    return active_learning(truth, water, out, Loop(**settings), labelling, sampling)


def test_active_learning_goes_on_to_its_budget_and_its_target(water, truth, tmp_path):
    short = loop(water, truth, tmp_path / "a", max_frames=16)
    assert not short.reached
    assert [turn.n_frames for turn in short.rounds] == [10]
    whole = loop(water, truth, tmp_path / "b", max_frames=20)
    assert [turn.n_frames for turn in whole.rounds] == [10, 16]
    assert len(whole.dataset) == 20  # the last turn takes what is left of the budget
    resumed = loop(water, truth, tmp_path / "a", max_frames=20)
    np.testing.assert_array_equal(resumed.dataset.positions, whole.dataset.positions)
    assert resumed.rounds == whole.rounds
    target = 0.95 * min(turn.force_rmse for turn in whole.rounds)
    enough = loop(water, truth, tmp_path / "b", target=target, max_frames=80)
    assert enough.reached
    assert enough.rounds[-1].force_rmse <= target < enough.rounds[-2].force_rmse
    assert enough.rounds[:2] == whole.rounds
    kept = load(tmp_path / "a" / "model.npz")
    R = whole.dataset.positions
    np.testing.assert_allclose(kept.predict(R)[1], resumed.potential.predict(R)[1], atol=1e-10)
    with pytest.raises(
        InputError, match=r"data.npz belongs to another .* settings \(n_round 6 → 5\)"
    ):
        loop(water, truth, tmp_path / "a", n_round=5)
    with pytest.raises(InputError, match=r"other settings \(labels\.potential\)"):
        loop(water, truth, tmp_path / "a", labels=truth)


def test_dynamics_that_stop_give_what_was_sound(water, truth, data):
    """Springs that are no number where one is stretched by a tenth: at 600 K soon reached."""
    model = springs(water, 1.62)
    sampling = Sampling(temperature=600.0, spacing=2.0, replicas=2, equilibration=0.0)
    starts = data[np.argsort(data.energies)[:20]]
    frames, fault = explore(model, water, starts.positions, (8, 2000), sampling)
    assert "not finite" in fault
    assert 8 <= len(frames) < 2000
    assert np.isfinite(truth.predict(frames)[0]).all()
    # Starts are labelled already.
    assert not any((frames == start).all(axis=(1, 2)).any() for start in starts.positions)
    with pytest.raises(InputError, match="failed 5 times before 1999 frames were"):
        explore(model, water, starts.positions, (1999, 2000), sampling)


def test_a_folder_of_another_kind_is_left_alone(water, truth, data, tmp_path):
    data.save(tmp_path / "data.npz")
    before = (tmp_path / "data.npz").read_bytes()
    with pytest.raises(InputError, match="give another output folder"):
        loop(water, truth, tmp_path)
    assert (tmp_path / "data.npz").read_bytes() == before
    with pytest.raises(InputError, match="max_frames"):
        loop(water, truth, tmp_path / "b", max_frames=5)
    assert not (tmp_path / "b").exists()


def test_the_command_line_does_both(water, truth, tmp_path, capsys):
    model, single = tmp_path / "gaff.npz", tmp_path / "single.npz"
    save(model, gaff(water, charges="gasteiger"))
    assert main(["label", str(model), "--calculator", str(model), "-o", str(single)]) == 0
    assert len(Dataset.load(single, check=False)) == 1
    dynamics = ["--temperature", "300", "--spacing", "10", "--replicas", "2"]
    arguments = ["label", model, "--sample-with", model, "--frames", "12", "--select", "farthest"]
    arguments += ["--equilibration", "50", "--calculator", model, "-o", tmp_path / "data.npz"]
    assert main([str(a) for a in [*arguments, *dynamics]]) == 0
    assert len(Dataset.load(tmp_path / "data.npz", check=False)) == 12
    arguments = ["active", model, "--sample-with", model, "--baseline", "none", "--target", "50"]
    arguments += ["--calculator", model, "--initial", "10", "-n", "4", "--max-frames", "14"]
    arguments += ["--candidates", "20", "-o", tmp_path / "out", "--json", tmp_path / "out.json"]
    assert main([str(a) for a in [*arguments, *dynamics]]) == 0
    told = json.loads((tmp_path / "out.json").read_text())
    assert told["frames"] == 14
    assert [turn["n_frames"] for turn in told["rounds"]] == [10]
    assert told["reached"] == (told["rounds"][0]["force_rmse"] <= 50.0)
    assert told["rounds"][0]["extrapolation"]["frames"] == 20
    assert (tmp_path / "out" / "errors.png").stat().st_size > 5_000
    missed = [*arguments, *dynamics, "--target", "1e-9"]
    assert main([str(a) for a in missed]) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1] == "jaxff active: the target is not reached, see above"
    assert "not reached: raise --max-frames or --target" in printed.out
    assert not json.loads((tmp_path / "out.json").read_text())["reached"]
