"""Learning from few frames with the help of a teacher, which is left out if it does not help."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from springs import labelled, springs

from jaxff import InputError, Molecule, evaluate, gdml, load, save
from jaxff.learn import Student, Teaching, teach, trials

PLAIN = Teaching(learn_metric=False, fragments=False)


def changed(potential, **values):
    """The springs with other values."""
    return potential.replace({"springs": {**potential.params["springs"], **values}})


@pytest.fixture(scope="module")
def water():
    return Molecule.from_smiles("O")


@pytest.fixture(scope="module")
def truth(water):
    return springs(water)


@pytest.fixture(scope="module")
def positions(water):
    return water.positions + np.random.default_rng(1).normal(0.0, 0.08, (60, 3, 3))


@pytest.fixture(scope="module")
def frames(truth, positions):
    return labelled(truth, positions[:10])


def test_a_teacher_that_is_close_helps(truth, frames, positions, tmp_path):
    """The forces of the student are wrong by 3 % of the softest springs."""
    params = truth.params["springs"]
    student = changed(truth, k=1.03 * params["k"])
    taught = teach(frames, student, settings=PLAIN)
    assert taught.chosen.teacher
    assert "the teacher model lowers" in taught.verdict
    alone = next(level for level in taught.levels if not level.teacher)
    assert taught.chosen.force_rmse < alone.force_rmse
    test = labelled(truth, positions[10:])
    errors = evaluate(taught.potential, test)
    assert errors["force_mae"] < 0.2 * evaluate(student, test)["force_mae"]
    save(tmp_path / "m.npz", taught.potential)
    np.testing.assert_array_equal(
        load(tmp_path / "m.npz").predict(test.positions)[1],
        taught.potential.predict(test.positions)[1],
    )


def test_the_best_of_several_teachers_is_used(truth, frames):
    """Two teachers with springs that are wrong by a third and by 3 %, one of them twice."""
    k = truth.params["springs"]["k"]
    poor, good = (changed(truth, k=factor * k) for factor in (1.3, 1.03))
    settings = replace(PLAIN, adapt=False)
    taught = teach(frames, [Student(poor, name="poor"), good, good], settings=settings)
    assert [level.teacher for level in taught.levels] == [None, "poor", "model", "model (2)"]
    assert taught.chosen.teacher == "model"
    alone, poor = (f"{level.force_mae:.3f}" for level in taught.levels[:2])
    assert f"{poor} with poor" in taught.verdict
    assert f"{alone} without it" in taught.verdict
    for wrong in ("gfn2-xtb", [frames]):
        with pytest.raises(InputError, match="must be a Student or a Potential"):
            teach(frames, wrong)


def test_models_of_many_frames_are_compared_after_training_on_most_of_them(
    truth, positions, monkeypatch
):
    """A student that helps few frames, where enough frames need no student."""
    monkeypatch.setattr(trials, "MOST_UNKNOWNS", 24)
    frames = labelled(truth, positions)
    student = changed(truth, k=1.03 * truth.params["springs"]["k"])
    settings = replace(PLAIN, adapt=False)
    taught = teach(frames, student, settings=settings)
    assert [level.frames for level in taught.levels] == [7, 7, 54, 54]
    few, many = taught.levels[:2], taught.levels[2:]
    assert taught.chosen in many
    assert all(more.force_rmse < less.force_rmse for less, more in zip(few, many, strict=True))
    # Without the time for a training on all frames, the model has the frames of the comparison.
    short = teach(frames, student, settings=replace(settings, budget=1e-9))
    assert short.skipped[-1] == "a training on more than 8 of 60 frames"
    assert evaluate(taught.potential, frames)["force_mae"] < 1e-3
    assert evaluate(short.potential, frames)["force_mae"] > 1e-3


def test_a_teacher_that_misleads_is_not_used(truth, frames, positions):
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, 200.0, frames.forces.shape)
    student = changed(truth, k=-4.0 * truth.params["springs"]["k"])
    labels = replace(frames, forces=frames.forces + noise)
    settings = replace(PLAIN, adapt=False)
    taught = teach(frames, Student(student, labels), fitted=truth, settings=settings)
    assert not taught.chosen.teacher
    assert "does not lower" in taught.verdict
    assert "it is not used" in taught.verdict
    assert "gdml" in taught.potential.params


def test_the_difference_counts_the_error_of_the_student(truth, frames):
    """A student that reproduces the labels by chance, and a teacher that differs from both."""
    labels = replace(frames, forces=np.zeros_like(frames.forces))
    taught = teach(frames, Student(truth, labels), settings=replace(PLAIN, adapt=False))
    rest, difference = taught.levels[-2:]
    assert rest.force_rmse < 1e-6
    assert difference.force_rmse > 0.1
    assert taught.chosen == rest


def test_parameters_are_re_estimated(truth, frames, positions):
    """The truth is the student with other parameters, which ten frames determine."""
    student = changed(truth, k=1.3 * truth.params["springs"]["k"])
    taught = teach(frames, student, settings=PLAIN)
    assert taught.chosen.prior is not None
    assert "re-estimated" in taught.chosen.name
    test = labelled(truth, positions[10:])
    fixed = teach(frames, student, settings=replace(PLAIN, adapt=False))
    errors = [evaluate(t.potential, test)["force_mae"] for t in (taught, fixed)]
    assert errors[0] < 0.5 * errors[1]


def test_teachers_of_other_molecules_charges_and_frames_are_refused(truth, frames, water):
    ion = Molecule(water.numbers, water.positions, water.bonds, charge=1)
    charged = truth.replace(truth.params).on(range(3))
    charged = type(truth)(truth.program, truth.params, ion)
    with pytest.raises(InputError, match=r"teacher is for charge \+1, but water has charge \+0"):
        teach(frames, charged)
    with pytest.raises(InputError, match=r"teacher is for charge \+1"):
        teach(frames, Student(truth, replace(frames, charge=1)))
    with pytest.raises(InputError, match="belong to other frames"):
        teach(frames, Student(truth, frames[::-1]))
    with pytest.raises(InputError, match="atoms cannot be matched"):
        teach(frames, springs(Molecule.from_smiles("N")))
    with pytest.raises(InputError, match="7 frames, but at least 8"):
        teach(frames[:7], truth)
    for name in ("lam", "budget"):
        message = rf"{name} is 0\.0( s)?, but must be a finite number above 0"
        with pytest.raises(InputError, match=message):
            Teaching(**{name: 0.0})
    with jax.enable_x64(False), pytest.raises(InputError, match="float64"):
        teach(frames, truth)


def test_fragments_are_used_if_they_lower_the_errors():
    """Springs between near atoms of a chain, which fragments learn from fewer frames."""
    chain = Molecule.from_smiles("OOOO")
    truth = springs(chain)
    params = truth.params["springs"]
    truth = changed(truth, k=params["k"] * (params["length"] < 2.4))
    moves = np.random.default_rng(3).normal(0.0, 0.06, (60, chain.n_atoms, 3))
    data = labelled(truth, chain.positions + moves)
    taught = teach(data[:15], settings=replace(PLAIN, fragments=True))
    assert taught.chosen.name == "kernel alone, fragments"
    assert "fragments" in taught.potential.params
    plain = teach(data[:15], settings=PLAIN)
    assert plain.levels == taught.levels[:-1]
    errors = [evaluate(t.potential, data[15:])["force_mae"] for t in (taught, plain)]
    assert errors[0] < 0.9 * errors[1]


def test_fragments_that_are_the_whole_molecule_are_not_tried(frames):
    assert len(teach(frames, settings=replace(PLAIN, fragments=True)).levels) == 1


@pytest.mark.slow
def test_standard_errors_cover_the_student_and_the_kernel(truth, positions):
    """A student of a softer teacher, whose kernel has standard errors, and labels with noise."""
    softer = changed(truth, k=0.97 * truth.params["springs"]["k"])
    many, frames, test = (labelled(softer, R) for R in np.split(positions, (20, 40)))
    kernel = gdml.Kernel(symmetries=None)
    student = gdml.train(many, sigma=20.0, baseline=truth, kernel=kernel)
    errors = gdml.uncertainty(student, many, frames)
    noise = np.random.default_rng(2).normal(0.0, 0.5, (40, 3, 3))
    labels, test = (
        replace(data, forces=labelled(truth, data.positions).forces + part)
        for data, part in zip((frames, test), np.split(noise, 2), strict=True)
    )
    settings = replace(PLAIN, uncertainty=True, adapt=False, lam=1e-3)
    taught = teach(labels, Student(student, uncertainty=errors), settings=settings)
    assert taught.chosen.teacher
    unsure = taught.uncertainty
    total, alone = (u.predict(test.positions)[1] for u in (unsure, replace(unsure, others=None)))
    np.testing.assert_allclose(total, np.hypot(alone, errors.predict(test.positions)[1]))
    wrong = np.abs(taught.potential.predict(test.positions)[1] - test.forces)
    assert 0.5 < np.mean(wrong < total) < 0.9
    assert 0.8 < np.mean(wrong < 2.0 * total) < 1.0


def test_no_further_models_are_tried_after_the_time(truth, frames):
    taught = teach(frames, truth, settings=Teaching(budget=1e-9, adapt=False))
    assert taught.skipped == ("a learnt metric",)
    assert len(taught.levels) == 2
    assert teach(frames, truth, settings=replace(PLAIN, adapt=False)).skipped == ()
