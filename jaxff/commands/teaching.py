"""Option --teacher of `jaxff fit`: fits to few frames with the help of cheap labels."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxff.commands.options import calculator_options, positive, trust_option, workers_option
from jaxff.commands.shared import METRICS, load_dataset, load_form, split_frames, writable_folder
from jaxff.errors import InputError
from jaxff.formats.registry import MODEL_SUFFIX, suffix_of
from jaxff.npz import writable_file
from jaxff.reference.calculators import CHOICES
from jaxff.reference.settings import Labelling

if TYPE_CHECKING:
    from jaxff.console import Console
    from jaxff.dataset import Dataset, Split
    from jaxff.learn import Method, Taught
    from jaxff.reference.teacher import Student


def teacher_options(sub) -> None:
    """Add the options of the teacher to the parser of `jaxff fit`."""
    group = sub.add_argument_group("fits to few frames with cheap labels (need --plus sgdml)")
    group.add_argument(
        "--teacher", metavar="NAME|MODEL.npz|DATA.npz",
        help="source of cheap labels for a first model, which the data set then corrects: "
        f"{CHOICES}, or a data set with such labels",
    )  # fmt: skip
    group.add_argument(
        "--teacher-frames", type=positive(int), metavar="N",
        help="frames that the teacher labels (default 2000; fewer for more than 10 atoms)",
    )  # fmt: skip
    group.add_argument(
        "--teacher-temperature", type=positive(float), metavar="T",
        help="temperature of the dynamics that sample frames for the teacher, K (default: "
        "estimated from the energies of the data)",
    )  # fmt: skip
    group.add_argument(
        "--teacher-options", default="{}", metavar="JSON", help="options of the teacher"
    )
    workers_option(group)
    trust_option(group)


def run_with_teacher(arguments: argparse.Namespace, console: Console, method: Method) -> dict:
    """Run `jaxff fit --teacher`; `method` contains the settings for the force field."""
    from jaxff.learn import Teaching, evaluate, fit, teach
    from jaxff.reference import Distilling, student_of
    from jaxff.saved import save

    _check(arguments)
    output = Path(arguments.output)
    teacher_file = output.with_name(f"{output.stem}-teacher{output.suffix}")
    for path in (output, teacher_file):
        writable_file(path)
    data = load_dataset(arguments, arguments.data[0])
    split = _split(data, arguments, console)
    charge = arguments.charge[0] if arguments.charge else None
    console("parametrize", 0.0)
    start = load_form(arguments, data, charge).matched(data.molecule)
    unfinished = writable_folder(f"{output}.partial")
    teacher = _teacher(arguments, console)
    fitted = fit(
        start,
        split.train,
        method=method,
        trainable=arguments.trainable,
        checkpoint=unfinished / "fit.npz",
        progress=console,
    ).potential
    student = student_of(
        teacher,
        split.train,
        fitted,
        unfinished / "teacher",
        Distilling(frames=arguments.teacher_frames, temperature=arguments.teacher_temperature),
        progress=console,
    )
    _say_student(student, console)
    taught = teach(
        split.train,
        student.potential,
        fitted=fitted,
        labels=student.labels,
        settings=Teaching(seed=arguments.seed, fragments=arguments.fragments),
        progress=console,
    )
    save(output, taught.potential)
    console.close()
    _say_levels(taught, console)
    parts = {"train": split.train, "valid": split.valid, "test": split.test}
    scores = {key: evaluate(taught.potential, part) for key, part in parts.items() if len(part)}
    if len(split.test):
        rows = {"teacher": evaluate(student.potential, split.test), "result": scores["test"]}
        console.table(
            [f"{data.name} test errors", *METRICS],
            [[name, *(row.get(m, "-") for m in METRICS)] for name, row in rows.items()],
        )
    written = [str(output)]
    if student.temperature is not None:  # the frames were sampled in this run
        student.dataset.save(teacher_file)
        written.append(str(teacher_file))
    shutil.rmtree(unfinished, ignore_errors=True)
    console.say(f"wrote {', '.join(written)}")
    return {
        **scores,
        "coverage": None,
        "model": str(output),
        "teacher": {
            "frames": 0 if student.dataset is None else len(student.dataset),
            "failed": student.failed,
            "temperature": student.temperature,
            "student": student.errors or None,
            "levels": [level._asdict() for level in taught.levels],
            "chosen": taught.chosen.name,
            "helps": taught.chosen.teacher,
        },
    }


def _check(arguments: argparse.Namespace) -> None:
    if arguments.plus is None:
        raise InputError("--teacher needs a model with a kernel: add --plus sgdml")
    if len(arguments.data) != 1:
        raise InputError(
            f"--teacher needs one data set (got {len(arguments.data)}): repeat the command for "
            "each data set"
        )
    if arguments.uncertainty:
        raise InputError(
            "--uncertainty cannot be used with --teacher: omit --uncertainty, and use the printed "
            "errors on left-out frames"
        )


def _split(data: Dataset, arguments: argparse.Namespace, console: Console) -> Split:
    """Split the data set.

    Without -n, --valid and --test, a small data set is used only for training.
    """
    valid = arguments.valid or 0
    n_train = arguments.n_train
    if n_train is None:
        left = len(data.distinct()) - valid - (arguments.test or 0)
        n_train = max(min(arguments.usual_n_train, left), 1)
    sizes = {**vars(arguments), "valid": valid, "n_train": n_train}
    return split_frames(data, argparse.Namespace(**sizes), console)


def _teacher(arguments: argparse.Namespace, console: Console) -> Labelling | Dataset:
    """Return the teacher: settings of a calculator or potential, or a data set with labels."""
    from jaxff.dataset import Dataset
    from jaxff.formats.potentials import is_model

    name = arguments.teacher
    is_npz = suffix_of(name) == MODEL_SUFFIX
    if suffix_of(name) in (".extxyz", ".xyz") or (is_npz and not is_model(name)):
        data = Dataset.load(name)
        console.say(f"teacher: {len(data)} frames of {name} ({data.theory})")
        return data
    return Labelling(
        name,
        calculator_options(arguments.teacher_options, "--teacher-options"),
        arguments.workers,
        command=shlex.join(["jaxff", *sys.argv[1:]]),
        trust=tuple(arguments.trust),
    )


def _say_student(student: Student, console: Console) -> None:
    console.close()
    if student.dataset is None:
        return
    words: list[Any] = [f"teacher: {len(student.dataset)} frames"]
    if student.temperature is not None:
        words.append(f"at {student.temperature:.0f} K")
    if student.failed:
        words.append(f"({student.failed} failed and are omitted)")
    if student.errors:
        mae = student.errors["force_mae"]
        words.append(
            "; a model trained on these frames reproduces the teacher with a force MAE of "
            f"{mae:.3f} kcal/mol/Å"
        )
    console.say(" ".join(words).replace(" ;", ";"))


def _say_levels(taught: Taught, console: Console) -> None:
    console.table(
        ["model", "force MAE of left-out frames", "RMSE", "sigma"],
        [
            [level.name, level.force_mae, level.force_rmse, f"{level.sigma:.3g}"]
            for level in taught.levels
        ],
    )
    console.say(f"{taught.verdict}; chosen: {taught.chosen.name}")
