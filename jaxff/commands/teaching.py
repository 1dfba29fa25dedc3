"""Option --teacher of `jaxff fit`: fits to few frames with the help of cheap labels."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxff.commands.folders import writable_folder
from jaxff.commands.options import (
    calculator_options,
    duration,
    positive,
    trust_option,
    workers_option,
)
from jaxff.commands.shared import METRICS, load_dataset, load_form, say_coverage, split_frames
from jaxff.errors import InputError
from jaxff.formats.registry import MODEL_SUFFIX, suffix_of
from jaxff.npz import writable_file
from jaxff.reference.calculators import CHOICES
from jaxff.reference.settings import Labelling

if TYPE_CHECKING:
    from jaxff.console import Console
    from jaxff.dataset import Dataset, Split
    from jaxff.gdml import Uncertainty
    from jaxff.learn import Method, Taught
    from jaxff.potential import Potential
    from jaxff.reference.teacher import Student

STUDENT, TEACHING = 0.6, 0.8  # shares of the time left: for the student, and then for the models


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
    group.add_argument(
        "--on-teacher-failure", choices=("stop", "continue"), default="stop",
        help="action if the teacher cannot be used, for example because it fails at most frames or "
        "is for another molecule: stop (default), or continue without a teacher",
    )  # fmt: skip
    group.add_argument(
        "--budget", type=duration, metavar="TIME",
        help="time for the whole command, such as 10min; a short time means fewer frames of the "
        "teacher and fewer models (default: no limit)",
    )  # fmt: skip
    trust_option(group)


def run_with_teacher(arguments: argparse.Namespace, console: Console, method: Method) -> dict:
    """Run `jaxff fit --teacher`; `method` contains the settings for the force field."""
    from jaxff.learn import Teaching, evaluate, fit, teach
    from jaxff.saved import save

    began = time.perf_counter()
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
    student, errors = _student(arguments, teacher, split.train, fitted, unfinished, began, console)
    taught = teach(
        split.train,
        None if student is None else student.potential,
        fitted=fitted,
        labels=None if student is None else student.labels,
        errors=errors,
        settings=Teaching(
            seed=arguments.seed,
            uncertainty=arguments.uncertainty,
            seconds=_left(arguments, began, TEACHING),
        ),
        progress=console,
    )
    save(output, taught.potential)
    console.close()
    _say_levels(taught, console)
    parts = {"train": split.train, "valid": split.valid, "test": split.test}
    scores = {key: evaluate(taught.potential, part) for key, part in parts.items() if len(part)}
    coverage = None
    if taught.uncertainty is not None and len(split.test):
        coverage = taught.uncertainty.coverage(taught.potential, split.test)
        say_coverage(console, coverage)
    if len(split.test):
        rows = {"result": scores["test"]}
        if student is not None:
            rows = {"teacher": evaluate(student.potential, split.test), **rows}
        console.table(
            [f"{data.name} test errors", *METRICS],
            [[name, *(row.get(m, "-") for m in METRICS)] for name, row in rows.items()],
        )
    written = [str(output)]
    if (
        student is not None and student.temperature is not None
    ):  # the frames were sampled in this run
        assert student.dataset is not None
        student.dataset.save(teacher_file)
        written.append(str(teacher_file))
    shutil.rmtree(unfinished, ignore_errors=True)
    console.say(f"wrote {', '.join(written)}")
    return {
        **scores,
        "coverage": coverage,
        "model": str(output),
        "teacher": {
            "frames": 0 if student is None or student.dataset is None else len(student.dataset),
            "failed": 0 if student is None else student.failed,
            "temperature": None if student is None else student.temperature,
            "student": None if student is None else student.errors or None,
            "levels": [level._asdict() for level in taught.levels],
            "chosen": taught.chosen.name,
            "helps": taught.chosen.teacher,
            "skipped": list(taught.skipped),
        },
    }


def _left(arguments: argparse.Namespace, began: float, share: float) -> float | None:
    """Return a share of the time that is left of --budget, s; None without a budget."""
    if arguments.budget is None:
        return None
    return max(share * (arguments.budget - (time.perf_counter() - began)), 1.0)


def _student(
    arguments: argparse.Namespace,
    teacher: Labelling | Dataset,
    frames: Dataset,
    fitted: Potential,
    unfinished: Path,
    began: float,
    console: Console,
) -> tuple[Student | None, Uncertainty | None]:
    """Return the student, and its standard errors if they are requested and available.

    The student is None if the teacher cannot be used and the fit shall continue.
    """
    from jaxff import gdml
    from jaxff.reference import Distilling, student_of

    settings = Distilling(
        frames=arguments.teacher_frames,
        temperature=arguments.teacher_temperature,
        seconds=_left(arguments, began, STUDENT),
    )
    try:
        student = student_of(
            teacher, frames, fitted, unfinished / "teacher", settings, progress=console
        )
    except InputError as error:
        if arguments.on_teacher_failure == "stop":
            raise InputError(
                f"{error}; to continue without the teacher, add --on-teacher-failure continue"
            ) from error
        console.close()
        console.say(f"the teacher is not used: {error}")
        return None, None
    _say_student(student, console)
    if not arguments.uncertainty:
        return student, None
    if student.dataset is None or student.valid is None:
        console.say("the standard errors do not include those of the teacher, which are unknown")
        return student, None
    console("uncertainty", 0.0)
    return student, gdml.uncertainty(student.potential, student.dataset, student.valid)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.plus is None:
        raise InputError("--teacher needs a model with a kernel: add --plus sgdml")
    if len(arguments.data) != 1:
        raise InputError(
            f"--teacher needs one data set (got {len(arguments.data)}): repeat the command for "
            "each data set"
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
    if taught.skipped:
        console.say(
            f"{' and '.join(taught.skipped)} could lower the errors, but the time of --budget was "
            "over: raise --budget"
        )
