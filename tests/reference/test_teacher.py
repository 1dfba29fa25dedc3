"""Students of a teacher: sampled, labelled and fitted, also after an interruption."""

import json
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from springs import Springs, labelled, springs

from jaxff import Dataset, InputError, Molecule, evaluate, load, save, units
from jaxff.analysis import rotatable_torsions
from jaxff.cli import main
from jaxff.commands.results import schema
from jaxff.learn import Teaching
from jaxff.potential import Potential
from jaxff.reference import (
    Chain,
    Distilling,
    Labelling,
    Sampling,
    label_frames,
    student_of,
    teach_levels,
)
from jaxff.reference.exploration import turned
from jaxff.reference.teacher import _count
from jaxff.turns import torsions

TOY = "toy_calculators:Water"
SETTINGS = Distilling(
    frames=40,
    temperature=300.0,
    learn_metric=False,
    sampling=Sampling(spacing=5.0, equilibration=10.0, replicas=10),
)


@pytest.fixture(scope="module")
def water():
    return Molecule.from_smiles("O")


@pytest.fixture(scope="module")
def frames(water, tmp_path_factory):
    """Frames of water, whose springs are stiffer than those of the teacher by a fifth."""
    R = water.positions + np.random.default_rng(0).normal(0.0, 0.03, (60, 3, 3))
    path = tmp_path_factory.mktemp("data") / "water.npz"
    data = label_frames([water.with_positions(r) for r in R], path, Labelling(TOY)).dataset
    data = replace(data, forces=1.2 * data.forces, energies=1.2 * data.energies, notes={})
    data.save(path)
    return Dataset.load(path, check=False), path


def test_a_student_reproduces_its_teacher_and_continues(frames, water, tmp_path):
    log, few, start = tmp_path / "calls", frames[0][:10], springs(water)
    teacher = Labelling(TOY, {"log": str(log)}, workers=1)

    def stop(phase, fraction):
        if phase == "fit" and log.exists() and log.stat().st_size >= 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        student_of(teacher, few, start, tmp_path / "s", SETTINGS, progress=stop)
    student = student_of(teacher, few, start, tmp_path / "s", SETTINGS)
    assert log.stat().st_size == 50  # the data, then 40 frames; none of them twice
    assert (len(student.dataset), student.failed, student.temperature) == (40, 0, 300.0)
    np.testing.assert_array_equal(student.labels.positions, few.positions)
    assert student.errors["force_mae"] < 0.05 * np.abs(few.forces).mean()
    again = student_of(teacher, few, start, tmp_path / "s", SETTINGS)
    assert evaluate(again.potential, few) == evaluate(student.potential, few)
    with pytest.raises(InputError, match=r"frames 40 → 41"):
        student_of(teacher, few, start, tmp_path / "s", replace(SETTINGS, frames=41))


def test_failed_frames_are_counted_and_left_out(frames, water, tmp_path):
    few = frames[0][:12]
    limit = float(np.sort(few.positions[:, 0, 0])[-2])
    teacher = Labelling(TOY, {"fail_above": limit}, workers=1)
    student = student_of(teacher, few, springs(water), tmp_path / "s", SETTINGS)
    assert student.failed >= 1
    assert student.labels is None  # they are not complete
    assert len(student.dataset) == 40 - (student.failed - 1)
    every = Labelling(TOY, {"fail_above": -1e3}, workers=1)
    with pytest.raises(InputError, match="all calculations failed"):
        student_of(every, few, springs(water), tmp_path / "t", SETTINGS)


def test_a_chain_of_teachers(frames, water, tmp_path):
    """Springs that are 20 % too soft, then springs that are 10 % too soft.

    The force field lacks the spring between the hydrogens.
    """
    data, _ = frames
    few, test = data[:10], data[40:]
    R = water.positions + np.random.default_rng(5).normal(0.0, 0.03, (150, 3, 3))
    soft = replace(labelled(near(water), R), name="soft")
    middle = replace(data[10:32], forces=1.1 / 1.2 * data[10:32].forces, name="middle")
    middle = replace(middle, energies=1.1 / 1.2 * middle.energies)
    start = bonds_only(water)
    teachers = [(soft, SETTINGS), (middle, SETTINGS)]
    settings = Chain(teaching=Teaching(learn_metric=False, fragments=False, uncertainty=True))
    lesson = teach_levels(few, teachers, start, tmp_path / "c", settings)
    first, second = lesson.students
    assert (first.name, second.name, first.taught) == ("soft", "middle", None)
    assert {level.teacher for level in second.taught.levels} == {None, "soft"}
    assert lesson.taught.chosen.teacher == "middle"
    assert {level.teacher for level in lesson.taught.levels} == {None, "soft", "middle"}
    # The variances of all levels are added.
    helped = second.taught.chosen.teacher == "soft"
    assert second.uncertainty.others is (first.uncertainty if helped else None)
    assert lesson.taught.uncertainty.others is second.uncertainty
    alone = min(level.force_mae for level in lesson.taught.levels if level.teacher is None)
    error = evaluate(lesson.taught.potential, test)["force_mae"]
    assert error < alone
    again = teach_levels(few, teachers, start, tmp_path / "c", settings)
    assert again.taught.levels == lesson.taught.levels
    assert again.students[1].taught.levels == second.taught.levels


def test_teachers_of_other_molecules_and_charges_are_refused(frames, water, tmp_path):
    few, start = frames[0][:10], springs(water)
    for teacher in (replace(frames[0], charge=1), Labelling(springs(replace(water, charge=1)))):
        with pytest.raises(InputError, match=r"teacher is for charge \+1, but water has charge"):
            student_of(teacher, few, start, tmp_path / "s", SETTINGS)
    with pytest.raises(InputError, match="has no option for the charge"):
        student_of(Labelling(TOY), replace(few, charge=1), start, tmp_path / "s", SETTINGS)
    ammonia = Labelling(springs(Molecule.from_smiles("N")))
    with pytest.raises(InputError, match="atoms cannot be matched"):
        student_of(ammonia, few, start, tmp_path / "s", SETTINGS)
    with pytest.raises(InputError, match="frames is 1, but must be a whole number of at least 2"):
        Distilling(frames=1)


def command(path, folder, teacher):
    """The arguments of `jaxff fit` with a teacher."""
    files = ["-o", str(folder / "m.npz"), "--json", str(folder / "r.json")]
    numbers = ["-n", "12", "--test", "30", "--workers", "1"]
    return ["fit", str(path), "--no-check", "--plus", "sgdml", *numbers, *files, *teacher]


def test_the_command_learns_from_a_model(frames, water, tmp_path, capsys):
    data, path = frames
    model = tmp_path / "springs.npz"
    save(model, near(water))
    assert main(command(path, tmp_path, ["--teacher", str(model)])) == 0
    found = json.loads((tmp_path / "r.json").read_text())
    jsonschema.validate(found, schema("fit"))
    assert found["teacher"]["teachers"][0]["frames"] == 0
    assert found["teacher"]["helps"]
    assert "the teacher springs lowers the errors" in capsys.readouterr().out
    errors = evaluate(load(tmp_path / "m.npz"), data.split(12, 0, 30, seed=0, stratify=True).test)
    assert found["test"] == pytest.approx(errors, rel=1e-6)


@pytest.mark.slow
def test_the_command_learns_from_a_calculator(frames, tmp_path, capsys):
    teacher = ["--teacher", TOY, "--teacher-frames", "40"]
    assert main(command(frames[1], tmp_path, teacher)) == 0
    found = json.loads((tmp_path / "r.json").read_text())
    jsonschema.validate(found, schema("fit"))
    assert found["teacher"]["teachers"][0]["frames"] == 40
    assert not (tmp_path / "m.npz.partial").exists()
    assert "40 frames at" in capsys.readouterr().out
    assert len(Dataset.load(tmp_path / "m-teacher.npz", check=False)) == 40


def near(water):
    """The springs of the calculator as a potential."""
    potential = springs(water)
    params = potential.params["springs"]
    k = np.full(3, 0.5 * 30.0 * units.EV)
    length = np.array([0.97, 0.97, 1.53])
    return potential.replace({"springs": {**params, "k": k, "length": length}})


def bonds_only(water):
    """Springs along the bonds."""
    params = {key: value[:2] for key, value in near(water).params["springs"].items()}
    return Potential.of("springs", Springs(3, np.array([[0, 1], [0, 2]])), params, water)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "add --plus sgdml"),
        (["--plus", "sgdml", "--budget", "10"], "must be a time such as 90s, 10min or 2h"),
    ],
)
def test_options_that_exclude_each_other(frames, options, message, tmp_path, capsys):
    out = str(tmp_path / "m.npz")
    try:
        code = main(["fit", str(frames[1]), "--teacher", TOY, *options, "-o", out])
    except SystemExit as stop:
        code = stop.code
    assert code in (1, 2)
    assert message in capsys.readouterr().err


def test_a_budget_needs_a_teacher(frames, tmp_path, capsys):
    out = str(tmp_path / "m.npz")
    assert main(["fit", str(frames[1]), "--budget", "10min", "-o", out]) == 1
    assert "--budget limits fits with --teacher" in capsys.readouterr().err


def test_a_budget_limits_the_frames_of_the_teacher(frames):
    few = frames[0][:10]
    for seconds, label, count in ((None, 9.0, 2000), (1000.0, 1.0, 300), (1.0, 1.0, 50)):
        found = _count(few, Distilling(budget=seconds), label)
        assert 0.9 * count <= found <= count
    assert _count(few, Distilling(frames=70, budget=1.0), 1.0) == 70


def test_a_data_set_is_a_teacher_that_tests_its_student(frames, water, tmp_path):
    teacher, few = frames[0][20:], frames[0][:10]
    student = student_of(teacher, few, near(water), tmp_path / "s", SETTINGS)
    assert (len(student.dataset), len(student.valid)) == (36, 4)
    assert 0.0 < student.errors["force_mae"] < 0.1 * np.abs(few.forces).mean()


def test_data_sets_that_cannot_be_teachers(frames, water, tmp_path):
    data, few = frames[0][20:], frames[0][:10]
    gradients = replace(data, forces=-data.forces)
    for teacher, message in (
        (data[:19], "water has 19 different frames, but a teacher needs at least 20"),
        (gradients, "gradients"),
        (replace(data, forces=data.forces / units.EV), "eV/Å taken for kcal/mol/Å"),
    ):
        with pytest.raises(InputError, match=message):
            student_of(teacher, few, near(water), tmp_path / "s", SETTINGS)
    permuted = data.reorder([1, 0, 2])  # another order of atoms is matched
    student = student_of(permuted, few, near(water), tmp_path / "p", SETTINGS)
    np.testing.assert_array_equal(student.dataset.numbers, few.numbers)


@pytest.mark.parametrize("answer", ["stop", "continue"])
def test_a_teacher_that_cannot_be_used(frames, tmp_path, capsys, answer):
    """A model of ammonia for water."""
    model = tmp_path / "ammonia.npz"
    save(model, springs(Molecule.from_smiles("N")))
    arguments = ["--teacher", str(model), "--on-teacher-failure", answer]
    code = main(command(frames[1], tmp_path, arguments))
    printed = "".join(capsys.readouterr())
    assert "atoms cannot be matched" in printed
    if answer == "stop":
        assert code == 1
        assert "add --on-teacher-failure continue" in printed
        return
    assert code == 0
    assert "the teacher ammonia is not used" in printed
    found = json.loads((tmp_path / "r.json").read_text())
    assert "atoms cannot be matched" in found["teacher"]["refused"]["ammonia"]
    jsonschema.validate(found, schema("fit"))
    assert not found["teacher"]["helps"]


def test_rotated_frames_cover_torsions(water):
    peroxide = Molecule.from_smiles("OO")
    truth = springs(peroxide)
    soft = truth.replace({"springs": {**truth.params["springs"], "k": np.full(6, 3.0)}})
    moves = np.random.default_rng(0).normal(0.0, 0.1, (20, 4, 3))
    frames = peroxide.positions + moves
    out = turned(soft, peroxide, frames, 30)
    assert 0 < len(out) <= 30
    assert soft.predict(out)[0].max() <= soft.predict(frames)[0].max()
    angles = np.cos(torsions(out, rotatable_torsions(peroxide), None))
    assert np.ptp(angles) > np.ptp(np.cos(torsions(frames, rotatable_torsions(peroxide), None)))
    assert len(turned(springs(water), water, water.positions[None], 5)) == 0
