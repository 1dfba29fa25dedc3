"""Option --teacher of `jaxff fit`: fits to few frames with the help of cheap labels."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxff.commands.folders import writable_folder
from jaxff.commands.options import (
    calculator_options,
    counts,
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
    from jaxff.learn import Level, Method, Student, Taught
    from jaxff.learn.time_limit import Deadline
    from jaxff.potential import Potential
    from jaxff.reference import Distilling, Lesson

SAFE = 0.95  # share of the time that is left; the rest is for the test
FIT = 0.2  # largest share of the time of --budget for the fit of the force field


def teacher_options(sub) -> None:
    """Add the options of the teacher to the parser of `jaxff fit`."""
    group = sub.add_argument_group("fits to few frames with cheap labels (need --plus sgdml)")
    group.add_argument(
        "--teacher", metavar="NAME|MODEL.npz|DATA.npz", action="append",
        help="source of cheap labels for a first model, which the data set then corrects: "
        f"{CHOICES}, or a data set with such labels; repeat the option for a chain of teachers, "
        "the cheapest first",
    )  # fmt: skip
    group.add_argument(
        "--teacher-frames", type=counts, metavar="N,N,...",
        help="frames that the teacher labels, one number for all teachers or one for each "
        "(default 2000; fewer for more than 10 atoms)",
    )  # fmt: skip
    group.add_argument(
        "--teacher-temperature", type=positive(float), metavar="T",
        help="temperature of the dynamics that sample frames for the teacher, K (default: "
        "estimated from the energies of the data)",
    )  # fmt: skip
    group.add_argument(
        "--teacher-options", action="append", metavar="JSON",
        help="options of the teacher; with several teachers, repeat the option for each",
    )  # fmt: skip
    workers_option(group)
    group.add_argument(
        "--on-teacher-failure", choices=("stop", "continue"), default="stop",
        help="action if the teacher cannot be used, for example because it fails at most frames or "
        "is for another molecule: stop (default), or continue without this teacher",
    )  # fmt: skip
    group.add_argument(
        "--budget", type=duration, metavar="TIME",
        help="time for the whole command, such as 10min; a short time means fewer frames of the "
        "teacher, a smaller first model and fewer comparisons (default: no limit)",
    )  # fmt: skip
    trust_option(group)


def run_with_teacher(arguments: argparse.Namespace, console: Console, method: Method) -> dict:
    """Run `jaxff fit --teacher`; `method` contains the settings for the force field."""
    from jaxff.learn import evaluate
    from jaxff.learn.time_limit import Deadline
    from jaxff.saved import save

    deadline = Deadline(arguments.budget)
    _check(arguments)
    output = Path(arguments.output)
    writable_file(output)
    data = load_dataset(arguments, arguments.data[0])
    split = _split(data, arguments, console)
    charge = arguments.charge[0] if arguments.charge else None
    console("parametrize", 0.0)
    start = load_form(arguments, data, charge).matched(data.molecule)
    unfinished = writable_folder(f"{output}.partial")
    teachers = _teachers(arguments, console)
    fitted = _fitted(arguments, start, split.train, method, unfinished, deadline, console)
    lesson = _lesson(arguments, teachers, split.train, fitted, unfinished, deadline, console)
    taught = lesson.taught
    save(output, taught.potential)
    console.close()
    for student in lesson.students:
        _say_student(student, console)
    _say_levels(taught, console)
    if lesson.skipped:
        console.say(
            f"left out because the time of --budget was over: {'; '.join(lesson.skipped)}. These "
            "steps could lower the errors: raise --budget"
        )
    parts = {"train": split.train, "valid": split.valid, "test": split.test}
    scores = {key: evaluate(taught.potential, part) for key, part in parts.items() if len(part)}
    coverage = None
    if taught.uncertainty is not None and len(split.test):
        coverage = taught.uncertainty.coverage(taught.potential, split.test)
        say_coverage(console, coverage)
    if len(split.test):
        rows = {s.name: evaluate(s.potential, split.test) for s in lesson.students}
        rows["result"] = scores["test"]
        console.table(
            [f"{data.name} test errors", *METRICS],
            [[name, *(row.get(m, "-") for m in METRICS)] for name, row in rows.items()],
        )
    written = [str(output), *_saved(lesson.students, output)]
    shutil.rmtree(unfinished, ignore_errors=True)
    console.say(f"wrote {', '.join(written)}")
    return {
        **scores,
        "coverage": coverage,
        "model": str(output),
        "teacher": {
            "teachers": [_described(student) for student in lesson.students],
            "refused": lesson.refused,
            "levels": [level._asdict() for level in taught.levels],
            "chosen": taught.chosen.name,
            "helps": taught.chosen.teacher is not None,
            "skipped": list(lesson.skipped),
        },
    }


def _described(student: Student) -> dict:
    """Return the results of one teacher for the JSON file."""
    levels: tuple[Level, ...] = student.taught.levels if student.taught else ()
    return {
        "name": student.name,
        "frames": 0 if student.dataset is None else len(student.dataset),
        "failed": student.failed,
        "temperature": student.temperature,
        "student": student.errors or None,
        "levels": [level._asdict() for level in levels],
        "chosen": student.taught.chosen.name if student.taught else None,
    }


def _saved(students: Sequence[Student], output: Path) -> list[str]:
    """Write the frames that the teachers labelled; return the names of the files."""
    written = []
    for student in students:
        if student.temperature is None:  # the frames were not sampled in this run
            continue
        assert student.dataset is not None
        number = f"-{len(written) + 1}" if written else ""
        written.append(str(output.with_name(f"{output.stem}-teacher{number}{output.suffix}")))
        student.dataset.save(written[-1])
    return written


def _fitted(
    arguments: argparse.Namespace,
    start: Potential,
    frames: Dataset,
    method: Method,
    unfinished: Path,
    deadline: Deadline,
    console: Console,
) -> Potential:
    """Fit the force field to the frames; return the initial one if the time is over."""
    from jaxff.learn import fit
    from jaxff.learn.time_limit import Deadline, OutOfTime

    try:
        return fit(
            start,
            frames,
            method=method,
            trainable=arguments.trainable,
            checkpoint=unfinished / "fit.npz",
            progress=Deadline(deadline.share(FIT)).stopping(console),
        ).potential
    except OutOfTime:
        console.close("stopped")
        console.say(
            f"the fit of the force field took {FIT:.0%} of --budget and was stopped; the initial "
            "force field is used"
        )
        return start


def _lesson(
    arguments: argparse.Namespace,
    teachers: Sequence[tuple[Labelling | Dataset, Distilling]],
    frames: Dataset,
    fitted: Potential,
    unfinished: Path,
    deadline: Deadline,
    console: Console,
) -> Lesson:
    """Learn the labels with the help of all teachers."""
    from jaxff.learn import Teaching
    from jaxff.reference import Chain, teach_levels

    left = deadline.left
    teaching = Teaching(
        seed=arguments.seed,
        uncertainty=arguments.uncertainty,
        budget=None if left is None else SAFE * left,
    )
    chain = Chain(on_failure=arguments.on_teacher_failure, teaching=teaching)
    lesson = teach_levels(frames, teachers, fitted, unfinished, chain, progress=console)
    unknown = [student.name for student in lesson.students if student.uncertainty is None]
    if arguments.uncertainty and unknown:
        console.close()
        console.say(
            f"the standard errors do not include those of {', '.join(unknown)}, which are unknown"
        )
    return lesson


def _check(arguments: argparse.Namespace) -> None:
    if arguments.plus is None:
        raise InputError("--teacher needs a model with a kernel: add --plus sgdml")
    if len(arguments.data) != 1:
        raise InputError(
            f"--teacher needs one data set (got {len(arguments.data)}): repeat the command for "
            "each data set"
        )
    for name in ("teacher_frames", "teacher_options"):
        given = getattr(arguments, name) or [None]
        if len(given) not in (1, len(arguments.teacher)):
            raise InputError(
                f"--{name.replace('_', '-')} has {len(given)} values for "
                f"{len(arguments.teacher)} teachers: give one value, or one for each --teacher"
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


def _teachers(
    arguments: argparse.Namespace, console: Console
) -> list[tuple[Labelling | Dataset, Distilling]]:
    """Return the teachers, the cheapest first, with the settings for their students."""
    from jaxff.reference import Distilling

    count = len(arguments.teacher)
    frames = (arguments.teacher_frames or [None]) * count
    options = (arguments.teacher_options or ["{}"]) * count
    return [
        (
            _teacher(name, options[k], arguments, console),
            Distilling(
                frames=frames[k],
                temperature=arguments.teacher_temperature,
                check_labels=arguments.check_labels,
            ),
        )
        for k, name in enumerate(arguments.teacher)
    ]


def _teacher(
    name: str, options: str, arguments: argparse.Namespace, console: Console
) -> Labelling | Dataset:
    """Return a teacher: settings of a calculator or potential, or a data set with labels."""
    from jaxff.dataset import Dataset
    from jaxff.formats.potentials import is_model

    is_npz = suffix_of(name) == MODEL_SUFFIX
    if suffix_of(name) in (".extxyz", ".xyz") or (is_npz and not is_model(name)):
        data = Dataset.load(name)
        console.say(f"teacher: {len(data)} frames of {name} ({data.theory})")
        return data
    return Labelling(
        name,
        calculator_options(options, "--teacher-options"),
        arguments.workers,
        command=shlex.join(["jaxff", *sys.argv[1:]]),
        trust=tuple(arguments.trust),
    )


def _say_student(student: Student, console: Console) -> None:
    if student.taught is not None:
        console.say(f"models of the labels of {student.name}:")
        _say_levels(student.taught, console)
    if student.dataset is None:
        return
    words: list[Any] = [f"teacher {student.name}: {len(student.dataset)} frames"]
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
