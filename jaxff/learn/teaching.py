"""Models that learn expensive labels from few frames with the help of cheap ones.

A *teacher* computes cheap labels, and the *student* is a potential that was fitted to many cheap
labels.  A kernel learns the difference to the expensive labels from few frames. The errors on
left-out frames decide whether and how the student is used, so that no validation frames are needed.
Source: Ramakrishnan, Dral, Rupp and von Lilienfeld, J. Chem. Theory Comput. 11, 2087 (2015).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.standard_errors import Uncertainty, kernels_of
from jaxff.gdml.system import require_float64
from jaxff.learn.trials import FEWEST, Level, Model, Progress, Trial, by_error, ways
from jaxff.potential import Potential
from jaxff.settings import Settings, flag, number, random_seed


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
        """One sentence on whether the teacher lowers the errors."""
        rivals = [level for level in self.levels if level.teacher != self.chosen.teacher]
        if not rivals:
            return f"the best model without a teacher is: {self.chosen.name}"
        other = min(rivals, key=by_error)
        both = f"{self.chosen.force_mae:.3f} against {other.force_mae:.3f} kcal/mol/Å"
        if self.chosen.teacher:
            return f"the teacher lowers the errors on left-out frames (force MAE {both} without it)"
        return (
            "the teacher does not lower the errors on left-out frames (force MAE "
            f"{both} with the teacher), so it is not used"
        )


@dataclass(frozen=True, kw_only=True)
class Teaching(Settings):
    """Settings of `teach`.

    Attributes:
        learn_metric: whether to try a learnt metric for the best model, see `gdml.learn_metric`.
        fragments: whether to try kernels on fragments for the best model, see `gdml.Kernel`.
        adapt: whether to try to re-estimate the parameters of the student.
        uncertainty: whether to compute standard errors.  Kernels on fragments, which have none, are
            then not tried.
        seconds: time after which no further models are tried (None: no limit).
        lam: regularisation λ of the kernels.
        seed: seed of every random choice.

    Raises:
        InputError: a value is not allowed.
    """

    learn_metric: bool = flag(True)
    fragments: bool = flag(True)
    adapt: bool = flag(True)
    uncertainty: bool = flag(False)
    seconds: float | None = number(None, "s", above=0.0)
    lam: float = number(1e-10, above=0.0)
    seed: int = random_seed()


def teach(
    frames: Dataset,
    student: Potential | None = None,
    *,
    fitted: Potential | None = None,
    labels: Dataset | None = None,
    errors: Uncertainty | None = None,
    settings: Teaching = Teaching(),
    progress: Progress | None = None,
) -> Taught:
    """Learn the labels of few frames with the best of several models.

    The models are sums of a baseline and a kernel:

    - a kernel without a baseline
    - the fitted force field and a kernel
    - the student and a kernel for the remaining errors
    - the student and a kernel for the difference between expensive and cheap labels

    Parameters of the baseline may be re-estimated together with the kernel, with a prior around the
    present values (universal kriging). The best models with and without the student are also tried
    with kernels on fragments, and the best model with a learnt metric.

    Args:
        frames: M frames with expensive labels.
        student: a potential that was fitted to labels of the teacher, or a teacher that is a
            potential.
        fitted: a force field that was fitted to the frames, or None.
        labels: the teacher's labels of the same frames, in the same order, or None.
        errors: standard errors of the student, which are added to those of the kernel, or None.
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
    until = np.inf if settings.seconds is None else time.perf_counter() + settings.seconds
    report = progress or (lambda phase, fraction: None)
    if student is not None:
        student = _checked(student, frames)
        if settings.uncertainty:
            kernels_of(student)  # kernels on fragments have no standard errors
    if labels is not None:
        labels = _same_frames(labels, frames)
    report("comparing models", 0.0)
    trial = Trial(frames, settings.lam, settings.adapt, settings.seed, report)
    models: list[Model] = []
    skipped: list[str] = []
    tried = list(ways(frames, fitted, student, labels))
    for k, way in enumerate(tried):
        report("comparing models", k / len(tried))
        models += trial.models(way)
    best = min(models, key=_error)
    if settings.fragments and trial.has_fragments and not settings.uncertainty:
        if time.perf_counter() < until:
            rivals = [model for model in models if model.level.teacher != best.level.teacher]
            models += trial.with_fragments([best, *sorted(rivals, key=_error)[:1]])
        else:
            skipped.append("kernels on fragments")
    if settings.learn_metric:
        left = until - time.perf_counter()
        if left > 0.0:
            models += trial.with_metric(best, left)
        else:
            skipped.append("a learnt metric")
    chosen = min(models, key=_error)
    potential = trial.trained(chosen)
    unsure = None
    if settings.uncertainty:
        unsure = trial.uncertainty(chosen, potential, errors if chosen.level.teacher else None)
    levels = tuple(model.level for model in models)
    return Taught(potential, levels, chosen.level, unsure, tuple(skipped))


def _error(model: Model) -> float:
    return by_error(model.level)


def _checked(student: Potential, frames: Dataset) -> Potential:
    """Return the student in the atom order of the frames.

    Raises:
        InputError: the charges or the molecules differ.
    """
    if student.molecule is not None:
        check_charge(student.molecule.charge, frames)
    return student.matched(frames.molecule)


def check_charge(charge: int, frames: Dataset) -> None:
    """Raise `InputError` if the charge of a teacher, e, differs from that of the frames."""
    if charge != frames.charge:
        raise InputError(
            f"the teacher is for charge {charge:+d}, but {frames.label} has charge "
            f"{frames.charge:+d}: use a teacher for the same charge, or correct the charge"
        )


def _same_frames(labels: Dataset, frames: Dataset) -> Dataset:
    """Check the teacher's labels, and return them.

    Raises:
        InputError: the labels have another charge, or belong to other frames.
    """
    check_charge(labels.charge, frames)
    same = np.array_equal(labels.numbers, frames.numbers) and len(labels) == len(frames)
    if not same or not np.allclose(labels.positions, frames.positions, atol=1e-6):
        raise InputError(
            f"{frames.label}: the teacher's labels belong to other frames or another atom order; "
            "label these frames"
        )
    return labels
