"""Chains of levels: each teacher helps to learn the labels of the next, more expensive one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.learn import Student, Taught, Teaching, teach
from jaxff.learn.students import named
from jaxff.learn.time_limit import Deadline
from jaxff.potential import Potential
from jaxff.reference.settings import Labelling, Progress
from jaxff.reference.teacher import Distilling, student_of, title
from jaxff.settings import Settings, choice

# Share of the time that is left for all students; the rest is for the last comparison of models.
STUDENTS = 0.7
ON_FAILURE = ("stop", "continue")


class Lesson(NamedTuple):
    """A model of expensive labels that was learnt with the help of several teachers.

    Attributes:
        taught: the model, and the models that it was compared with.
        students: the students of the teachers that could be used, from cheap to expensive.
        refused: why each of the other teachers could not be used, by name.
    """

    taught: Taught
    students: tuple[Student, ...]
    refused: dict[str, str]

    @property
    def skipped(self) -> tuple[str, ...]:
        """What was left out because the time was over."""
        each = [f"{text} (teacher {s.name})" for s in self.students for text in s.skipped]
        return (*each, *self.taught.skipped)


@dataclass(frozen=True, kw_only=True)
class Chain(Settings):
    """Settings of `teach_levels`.

    Attributes:
        on_failure: action if a teacher cannot be used: "stop", or "continue" without the teacher.
        teaching: settings of the comparisons of models; `budget` is the time for the whole call.

    Raises:
        InputError: a value is not allowed.
    """

    on_failure: str = choice(ON_FAILURE[0], ON_FAILURE)
    teaching: Teaching = field(default_factory=Teaching)


def teach_levels(
    frames: Dataset,
    teachers: Sequence[tuple[Labelling | Dataset, Distilling]],
    fitted: Potential,
    folder: str | Path,
    settings: Chain = Chain(),
    *,
    progress: Progress | None = None,
) -> Lesson:
    """Learn the labels of few frames with the help of a chain of teachers.

    The first teacher is the cheapest one. Its student is the baseline of a kernel that learns the
    labels of the next teacher, and so on up to the labels of `frames`. At each level, the errors on
    left-out frames decide whether a cheaper teacher is used, see `jaxff.learn.teach`.

    Args:
        frames: M frames with the most expensive labels.
        teachers: each teacher, a calculator or a data set, with the settings for its student.
        fitted: a force field that was fitted to the frames.
        folder: folder for unfinished work, which is not removed. Repeat the call to continue.
        settings: see `Chain`.
        progress: function called with the name of a phase and its finished fraction.

    Returns:
        The model with the smallest errors, and the students of all teachers.

    Raises:
        InputError: a teacher cannot be used and `on_failure` is "stop", or an error of
            `jaxff.learn.teach`.
    """
    report = progress or (lambda phase, fraction: None)
    teaching = settings.teaching
    deadline = Deadline(teaching.budget)
    for_students = Deadline(deadline.share(STUDENTS))
    used: list[tuple[Labelling | Dataset, Student]] = []
    refused: dict[str, str] = {}
    for k, (teacher, how) in enumerate(teachers):
        # Each teacher that is left has the same share of the time.
        seconds = for_students.share(1.0 / (len(teachers) - k))
        how = replace(how, budget=seconds, uncertainty=teaching.uncertainty)
        place = Path(folder) / f"teacher-{k + 1}"
        try:
            student = student_of(teacher, frames, fitted, place, how, below=used, progress=progress)
        except InputError as error:
            if settings.on_failure == "stop":
                raise InputError(
                    f"the teacher {title(teacher)} cannot be used: {error}; to continue without "
                    "this teacher, add --on-teacher-failure continue (on_failure='continue')"
                ) from error
            refused[title(teacher)] = str(error)
            report(f"the teacher {title(teacher)} is not used: {error}", 1.0)
            continue
        students = named([*(known for _, known in used), student])
        used.append((teacher, students[-1]))
    students = tuple(student for _, student in used)
    taught = teach(
        frames,
        students,
        fitted=fitted,
        settings=replace(teaching, budget=deadline.left),
        progress=progress,
    )
    return Lesson(taught, students, refused)
