"""Students of teachers, and models that are learnt with their help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.standard_errors import Uncertainty
from jaxff.potential import Potential

by_error = attrgetter("force_rmse")  # of a `Level`


class Level(NamedTuple):
    """A model that `teach` tried, and its errors on left-out frames.

    Attributes:
        name: description of the model.
        force_mae, force_rmse: errors of the forces of left-out frames, kcal/mol/Å.
        sigma: width of the kernel, 1/Å.
        lam: regularisation λ of the kernel.
        prior: strength of the prior on re-estimated parameters; None if the parameters are fixed.
        teacher: name of the teacher; None for a model without a teacher.
        frames: number of training frames of the models that predicted the left-out frames.
    """

    name: str
    force_mae: float
    force_rmse: float
    sigma: float
    lam: float
    prior: float | None
    teacher: str | None
    frames: int


@dataclass(frozen=True)
class Taught:
    """The result of `teach`.

    Attributes:
        potential: the best model, trained on all frames.
        levels: all models that were tried.
        chosen: the entry of `levels` for the best model.
        uncertainty: the standard errors of the potential, by cross-validation; None if they were
            not requested.
        skipped: what was not tried because the time was over.
    """

    potential: Potential
    levels: tuple[Level, ...]
    chosen: Level
    uncertainty: Uncertainty | None = None
    skipped: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """One sentence on whether a teacher lowers the errors."""
        best: dict[str | None, Level] = {}  # the best model of each teacher, and without a teacher
        for level in sorted(self.levels, key=by_error, reverse=True):
            best[level.teacher] = level
        chosen = self.chosen
        rivals = [level for name, level in best.items() if name != chosen.teacher]
        if not rivals:
            return f"the best model without a teacher is: {chosen.name}"
        others = ", ".join(
            f"{level.force_mae:.3f} {f'with {level.teacher}' if level.teacher else 'without it'}"
            for level in sorted(rivals, key=by_error)
        )
        if chosen.teacher:
            return (
                f"the teacher {chosen.teacher} lowers the errors on left-out frames (force MAE "
                f"{chosen.force_mae:.3f} against {others} kcal/mol/Å)"
            )
        several = len(rivals) > 1
        return (
            f"the {'teachers do' if several else 'teacher does'} not lower the errors on left-out "
            f"frames (force MAE {chosen.force_mae:.3f} without a teacher against {others} "
            f"kcal/mol/Å), so {'they are' if several else 'it is'} not used"
        )


class Student(NamedTuple):
    """A potential that was fitted to the labels of a teacher.

    Attributes:
        potential: the student, or the teacher if the teacher is a potential.
        labels: the frames with expensive labels, in the same order, with labels of the teacher;
            None if these labels are unknown.
        dataset: the training frames of the student, with labels of the teacher; None if there
            was no training.
        failed: number of omitted frames, at which the teacher failed.
        temperature: temperature of the dynamics that sampled the frames, K; None if no frames
            were sampled.
        errors: errors of the student against `valid`; empty if `valid` is None.
        valid: frames with labels of the teacher on which the student was not trained: the given
            frames, or frames of a teacher that is a data set; None if there are none.
        name: name of the teacher; "" for a potential without a name.
        taught: how cheaper teachers were used for this student; None if there were none.
        uncertainty: standard errors of the student against the teacher, including those of cheaper
            teachers; None if they are unknown or were not requested.
        skipped: what was left out because the time was over.
    """

    potential: Potential
    labels: Dataset | None = None
    dataset: Dataset | None = None
    failed: int = 0
    temperature: float | None = None
    errors: dict[str, float] = {}  # noqa: RUF012
    valid: Dataset | None = None
    name: str = ""
    taught: Taught | None = None
    uncertainty: Uncertainty | None = None
    skipped: tuple[str, ...] = ()


def named(teachers: Student | Potential | Sequence[Student | Potential] | None) -> list[Student]:
    """Return students with different names, from one or several students or potentials.

    Raises:
        InputError: an object that is neither a student nor a potential.
    """
    if teachers is None:
        return []
    if isinstance(teachers, Student | Potential):
        teachers = [teachers]
    students = []
    for given in teachers:
        if not isinstance(given, Student | Potential):
            raise InputError(
                f"a teacher is a {type(given).__name__}, but must be a Student or a Potential; "
                "jaxff.reference.student_of makes students of calculators and data sets"
            )
        student = Student(given) if isinstance(given, Potential) else given
        name, known = student.name or "model", {student.name for student in students}
        count = 1 + sum(one == name or one.startswith(f"{name} (") for one in known)
        students.append(student._replace(name=name if count == 1 else f"{name} ({count})"))
    return students


def check_charge(charge: int, frames: Dataset) -> None:
    """Raise `InputError` if the charge of a teacher, e, differs from that of the frames."""
    if charge != frames.charge:
        raise InputError(
            f"the teacher is for charge {charge:+d}, but {frames.label} has charge "
            f"{frames.charge:+d}: use a teacher for the same charge, or correct the charge"
        )
