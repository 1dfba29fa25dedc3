"""Models that learn expensive labels from few frames with the help of cheap ones.

A *teacher* computes cheap labels, and its *student* is a potential that was fitted to many cheap
labels.  A kernel learns the difference to the expensive labels from few frames. The errors on
left-out frames decide whether and how the student is used, so that no validation frames are needed.
Source: Ramakrishnan, Dral, Rupp and von Lilienfeld, J. Chem. Theory Comput. 11, 2087 (2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.standard_errors import kernels_of
from jaxff.gdml.system import require_float64
from jaxff.learn.students import Student, Taught, by_error, check_charge, named
from jaxff.learn.time_limit import Deadline
from jaxff.learn.trials import FEWEST, Model, Progress, Trial, ways
from jaxff.potential import Potential
from jaxff.settings import Settings, flag, number, random_seed

COMPARING = 0.8  # share of the time for the comparison of models; the rest is for the training


@dataclass(frozen=True, kw_only=True)
class Teaching(Settings):
    """Settings of `teach`.

    Attributes:
        learn_metric: whether to try a learnt metric for the best model, see `gdml.learn_metric`.
        fragments: whether to try kernels on fragments for the best model, see `gdml.Kernel`.
        adapt: whether to try to re-estimate the parameters of the student.
        uncertainty: whether to compute standard errors.  Kernels on fragments, which have none, are
            then not tried.
        budget: time for the whole call, s (None: no limit).  No further models are tried when most
            of the time is over.  If the training of the best model does not end in time, it is
            trained on fewer frames.
        lam: regularisation λ of the kernels.
        seed: seed of every random choice.

    Raises:
        InputError: a value is not allowed.
    """

    learn_metric: bool = flag(True)
    fragments: bool = flag(True)
    adapt: bool = flag(True)
    uncertainty: bool = flag(False)
    budget: float | None = number(None, "s", above=0.0)
    lam: float = number(1e-10, above=0.0)
    seed: int = random_seed()


def teach(
    frames: Dataset,
    teachers: Student | Potential | Sequence[Student | Potential] | None = None,
    *,
    fitted: Potential | None = None,
    settings: Teaching = Teaching(),
    progress: Progress | None = None,
) -> Taught:
    """Learn the labels of few frames with the best of several models.

    The models are sums of a baseline and a kernel:

    - a kernel without a baseline
    - the student of each teacher and a kernel for the remaining errors
    - the student of each teacher and a kernel for the difference between expensive and cheap labels
    - the fitted force field and a kernel

    Parameters of the baseline may be re-estimated together with the kernel, with a prior around the
    present values (universal kriging). The best models with and without a teacher are also tried
    with kernels on fragments, and the best model with a learnt metric.

    The models are compared by their errors on left-out frames, which have a closed form, with up
    to 3,000 force components. If there are more, the best model without a baseline, with the
    fitted force field and with a student are then trained on 90 % of the frames or more, and
    compared by their errors on the other frames.

    Args:
        frames: M frames with expensive labels.
        teachers: one or several students (see `jaxff.reference.student_of`), or potentials that
            are used as students.
        fitted: a force field that was fitted to the frames, or None.
        settings: see `Teaching`.
        progress: function called with the name of a phase and its finished fraction.

    Returns:
        The best model, and the errors of all models on left-out frames.

    Raises:
        InputError: fewer than eight frames, potentials or labels with a different molecule or
            charge than `frames`, or float64 not enabled.
    """
    require_float64()
    if len(frames) < FEWEST:
        raise InputError(
            f"{frames.label}: {len(frames)} frames, but at least {FEWEST} are needed; give more"
        )
    deadline = Deadline(settings.budget)
    comparing = Deadline(deadline.share(COMPARING))
    report = progress or (lambda phase, fraction: None)
    students = [_checked(student, frames) for student in named(teachers)]
    if settings.uncertainty:
        for student in students:
            kernels_of(student.potential)  # kernels on fragments have no standard errors
    report("comparing models", 0.0)
    trial = Trial(frames, settings.lam, settings.adapt, settings.seed, report)
    models: list[Model] = []
    skipped: list[str] = []
    tried = list(ways(frames, fitted, students))
    for k, way in enumerate(tried):
        report("comparing models", k / len(tried))
        if comparing.over and way.fitted:
            skipped.append(way.name)
        elif comparing.over:
            models.append(next(trial.models(way)))
            skipped += [f"{way.name}, parameters re-estimated"] * (settings.adapt and k > 0)
        else:
            models += trial.models(way)
    best = min(models, key=_error)
    if settings.fragments and trial.has_fragments and not settings.uncertainty:
        if comparing.over:
            skipped.append("kernels on fragments")
        else:
            rivals = [m for m in models if bool(m.level.teacher) != bool(best.level.teacher)]
            models += trial.with_fragments([best, *sorted(rivals, key=_error)[:1]])
    if settings.learn_metric:
        if comparing.over:
            skipped.append("a learnt metric")
        else:
            models += trial.with_metric(best, comparing.left or np.inf)
    chosen = min(models, key=_error)
    if not trial.all_compared:
        if comparing.over:
            skipped.append("a comparison of models of more frames")
        else:
            compared = list(trial.with_more_frames(_finalists(models)))
            models += compared
            chosen = min(compared, key=_error)
    potential, complete = trial.trained(chosen, deadline)
    if not complete:
        skipped.append(f"a training on more than {len(trial.chosen)} of {len(frames)} frames")
    unsure = None
    if settings.uncertainty:
        others = [s.uncertainty for s in students if s.name == chosen.level.teacher]
        unsure = trial.uncertainty(chosen, potential, others[0] if others else None)
    levels = tuple(model.level for model in models)
    return Taught(potential, levels, chosen.level, unsure, tuple(skipped))


def _finalists(models: Sequence[Model]) -> list[Model]:
    """Return the best model without a baseline, with a fitted force field and with a student."""
    kinds = [
        [m for m in models if m.way.baseline is None],
        [m for m in models if m.way.fitted],
        [m for m in models if m.way.teacher],
    ]
    return [min(kind, key=_error) for kind in kinds if kind]


def _error(model: Model) -> float:
    return by_error(model.level)


def _checked(student: Student, frames: Dataset) -> Student:
    """Return the student in the atom order of the frames.

    Raises:
        InputError: the charges or the molecules differ, or the labels belong to other frames.
    """
    potential, labels = student.potential, student.labels
    if potential.molecule is not None:
        check_charge(potential.molecule.charge, frames)
    if labels is not None:
        check_charge(labels.charge, frames)
        same = np.array_equal(labels.numbers, frames.numbers) and len(labels) == len(frames)
        if not same or not np.allclose(labels.positions, frames.positions, atol=1e-6):
            raise InputError(
                f"{frames.label}: the teacher's labels belong to other frames or another atom "
                "order; label these frames"
            )
    return student._replace(potential=potential.matched(frames.molecule))
