"""Models that learn few labels, and their errors on left-out frames in closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from jaxff import gdml
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.adapt import PRIORS, Adaptation
from jaxff.gdml.fragment_operator import FragmentOperator
from jaxff.gdml.fragment_system import UNKNOWNS
from jaxff.gdml.fragments import BONDS
from jaxff.gdml.frames import some
from jaxff.gdml.leave_out import MOST_UNKNOWNS, Inverse, leave_out_errors
from jaxff.gdml.search import search_width
from jaxff.gdml.standard_errors import Uncertainty, cross_validated
from jaxff.learn.students import Level, Student, by_error
from jaxff.learn.time_limit import Deadline, OutOfTime
from jaxff.potential import Potential

FEWEST = 8  # least number of frames
FOLDS = 5  # parts of the frames in the cross-validation of standard errors
HELD_OUT = 200  # most frames that are held out to compare models of many frames
Progress = Callable[[str, float], None]


@dataclass(frozen=True, eq=False)
class Way:
    """A baseline and the labels that its sum with a kernel learns.

    Attributes:
        name: description of the model.
        baseline: the baseline; None for a kernel alone.
        frames: the frames with the labels for `gdml.train`.
        teacher: name of the teacher if the baseline is a student.
        fitted: whether the baseline was fitted to the same frames.  Its errors on left-out frames
            are then meaningful only with re-estimated parameters.
        wrong: (M, N, 3) expensive force labels minus those of `frames`, kcal/mol/Å. They are added
            to the errors.  None: zero.
    """

    name: str
    baseline: Potential | None
    frames: Dataset
    teacher: str | None = None
    fitted: bool = False
    wrong: np.ndarray | None = None

    @cached_property
    def residual(self) -> np.ndarray:
        """(M, N, 3) forces that the kernel learns, kcal/mol/Å."""
        if self.baseline is None:
            return self.frames.forces
        return gdml.residual(self.frames, self.baseline).forces

    @cached_property
    def slopes(self) -> np.ndarray | None:
        """Derivatives (M, 3N, P) of the baseline's forces by its P parameters, kcal/mol/Å.

        None if the baseline has no trainable parameter; see `Adaptation.slopes`.
        """
        if self.baseline is None:
            return None
        try:
            return Adaptation(self.baseline).slopes(self.frames.positions)
        except InputError:  # no parameter is trainable
            return None


def ways(frames: Dataset, fitted: Potential | None, students: Sequence[Student]) -> Iterator[Way]:
    """Yield all sums of a baseline and a kernel; see `jaxff.learn.teach` for the arguments."""
    yield Way("kernel alone", None, frames)
    for student in students:
        yield from _with_student(frames, student)
    if fitted is not None:
        fitted = fitted.matched(frames.molecule)
        yield Way("fitted force field + kernel", fitted, frames, fitted=True)


def _with_student(frames: Dataset, student: Student) -> Iterator[Way]:
    potential, labels = student.potential, student.labels
    title = f"student of {student.name}"
    yield Way(f"{title} + kernel on the residual", potential, frames, teacher=student.name)
    if labels is not None:
        energies, forces = potential.predict(frames.positions)
        wrong = labels.forces - forces
        known = frames.energies is not None and labels.energies is not None
        shifted = replace(
            frames,
            forces=frames.forces - wrong,
            energies=frames.energies - (labels.energies - energies) if known else None,
        )
        name = f"{title} + kernel on the difference to the teacher"
        yield Way(name, potential, shifted, teacher=student.name, wrong=wrong)


class Model(NamedTuple):
    """A model that was tried: its errors, and how it is trained.

    Attributes:
        level: the errors on left-out frames, and the settings that they led to.
        way: the baseline and the labels.
        options: further arguments of `gdml.Kernel`.
    """

    level: Level
    way: Way
    options: dict[str, Any]


class Trial:
    """Errors of models on left-out frames, and the training of the best model.

    Args:
        frames: the frames with expensive labels.
        lam: regularisation λ of the kernels.
        adapt: whether to try to re-estimate the parameters of the student.
        seed: seed of every random choice.
        report: function called with the name of a phase and its finished fraction.
    """

    def __init__(self, frames: Dataset, lam: float, adapt: bool, seed: int, report: Progress):
        self.frames, self.lam, self.adapt, self.seed = frames, lam, adapt, seed
        self.report = report
        self.permutations = gdml.find_symmetries(
            frames.positions, frames.molecule, lattice=frames.lattice, seed=seed
        )
        width = max(3 * frames.n_atoms - 6, 1)
        count = min(len(frames), max(MOST_UNKNOWNS // width, FEWEST))
        self.chosen = np.asarray(some(replace(frames, index=None), count, seed).index)
        self.kinds = gdml.fragment_types(frames.molecule)
        small = any(kind.instances.shape[1] < frames.n_atoms for kind in self.kinds)
        self.has_fragments = small and len(frames) * width <= UNKNOWNS
        self.plain = _Inverses(
            gdml.KernelOperator.of(
                frames.positions[self.chosen], self.permutations, 1.0, lam, lattice=frames.lattice
            )
        )

    def models(self, way: Way) -> Iterator[Model]:
        """Yield the plain models of a way, each with the best width.

        The first model has fixed parameters, the second (if possible) re-estimated parameters.  A
        baseline that was fitted to the same frames has only the second.
        """
        # Slopes are computed after the first model, because their compilation takes long.
        if not way.fitted or way.slopes is None:
            yield Model(self._best(way, self.plain, None), way, {})
        slopes = way.slopes if way.fitted or self.adapt else None
        if slopes is not None:
            yield Model(self._best(way, self.plain, slopes), way, {})

    def with_fragments(self, models: Sequence[Model]) -> Iterator[Model]:
        """Yield models with kernels on fragments added to given models."""
        self.report("comparing fragments", 0.0)
        whole, lattice = self.plain.op, self.frames.lattice
        R = self.frames.positions[self.chosen]
        inverses = _Inverses(FragmentOperator.with_fragments(whole, R, self.kinds, lattice))
        for k, (level, way, _) in enumerate(models):
            self.report("comparing fragments", (k + 0.5) / len(models))
            found = self._best(way, inverses, None if level.prior is None else way.slopes)
            found = found._replace(name=f"{found.name}, fragments")
            yield Model(found, way, {"fragments": BONDS})

    def with_metric(self, model: Model, seconds: float) -> Iterator[Model]:
        """Yield a given model with a learnt metric, unless the metric is of no use.

        The search for the metric ends after `seconds`.
        """
        level, way, _ = model
        residual = replace(way.frames, forces=way.residual, index=None)[self.chosen]
        descriptor = gdml.learn_metric(
            residual, self.permutations, lam=self.lam, seconds=seconds, progress=self.report
        )
        if descriptor is gdml.inverse_distances:
            return
        op = gdml.KernelOperator.of(
            residual.positions,
            self.permutations,
            1.0,
            self.lam,
            descriptor=descriptor,
            lattice=residual.lattice,
        )
        slopes = None if level.prior is None else way.slopes
        found = self._best(way, _Inverses(op), slopes)
        found = found._replace(name=f"{found.name}, learnt metric")
        yield Model(found, way, {"descriptor": descriptor})

    def _best(self, way: Way, inverses: _Inverses, slopes: np.ndarray | None) -> Level:
        """Return the `Level` with the best width, and with the best prior if there are slopes."""
        priors = None if slopes is None else PRIORS

        def at(sigma: float, priors: Sequence[float] | None) -> Level:
            return min(self._levels(way, inverses(sigma), slopes, priors), key=by_error)

        sigma = search_width(lambda value: by_error(at(value, priors and priors[:1])))
        return at(sigma, priors)

    def _levels(
        self,
        way: Way,
        inverse: Inverse,
        slopes: np.ndarray | None,
        priors: Sequence[float] | None,
    ) -> list[Level]:
        """Return a `Level` for each prior; without priors, one with fixed parameters."""
        few, op = self.chosen, inverse.op
        residual = way.residual[few]
        if slopes is None or priors is None:
            tried = [(None, error) for error in leave_out_errors(inverse, residual)]
        else:
            errors = leave_out_errors(inverse, residual, slopes[few], priors)
            tried = list(zip(priors, errors, strict=True))
        levels = []
        for prior, error in tried:
            error = error if way.wrong is None else error + way.wrong[few]
            rmse = float(np.sqrt(np.mean(error**2)))
            levels.append(
                Level(
                    way.name + ("" if prior is None else ", parameters re-estimated"),
                    float(np.abs(error).mean()),
                    rmse if np.isfinite(rmse) else np.inf,
                    float(op.sigma),
                    float(op.lam),
                    prior,
                    way.teacher,
                    len(few) - 1,
                )
            )
        return levels

    @property
    def all_compared(self) -> bool:
        """Whether the models were compared with all frames."""
        return len(self.chosen) == len(self.frames)

    def with_more_frames(self, models: Sequence[Model]) -> Iterator[Model]:
        """Yield given models with errors after training on most of the frames.

        Up to 200 frames, at most a tenth of the frames, are held out and predicted.
        """
        count = len(self.frames)
        order = np.random.default_rng(self.seed).permutation(count)
        held, rest = np.split(order, [max(min(HELD_OUT, count // 10), 1)])
        for model in models:
            potential = self._trained(model, model.way.frames[np.sort(rest)])
            error = potential.predict(self.frames.positions[held])[1] - self.frames.forces[held]
            level = model.level._replace(
                force_mae=float(np.abs(error).mean()),
                force_rmse=float(np.sqrt(np.mean(error**2))),
                frames=len(rest),
            )
            yield model._replace(level=level)

    def trained(self, model: Model, deadline: Deadline) -> tuple[Potential, bool]:
        """Return the potential of a model, and whether it was trained on all frames.

        If the training on all frames does not end in time, the model is trained on the frames with
        which the models were compared.
        """
        if self.all_compared:
            return self._trained(model, model.way.frames), True
        try:
            return self._trained(model, model.way.frames, deadline.stopping(self.report)), True
        except OutOfTime:
            return self._trained(model, model.way.frames[self.chosen]), False

    def _trained(
        self, model: Model, frames: Dataset, progress: Progress | None = None
    ) -> Potential:
        level = model.level
        kernel = gdml.Kernel(
            lam=level.lam,
            symmetries=self.permutations,
            adapt_baseline=level.prior or False,
            **model.options,
        )
        run = gdml.Run(seed=self.seed, progress=progress or self.report, check_labels=False)
        baseline = model.way.baseline
        return gdml.train(frames, sigma=level.sigma, baseline=baseline, kernel=kernel, run=run)

    def uncertainty(
        self, model: Model, potential: Potential, others: Uncertainty | None
    ) -> Uncertainty:
        """Return the standard errors of the potential of a model, by cross-validation."""
        count = len(self.frames)
        order = np.random.default_rng(self.seed).permutation(count)
        parts = []
        for left in np.array_split(order, FOLDS):
            rest = np.setdiff1d(np.arange(count), left)
            parts.append((self._trained(model, model.way.frames[rest]), np.sort(left)))
        return cross_validated(potential, self.frames, parts, others=others)


class _Inverses:
    """The inverses of the covariance matrices of an operator, one for each width.

    They do not depend on the labels, so that all ways share them.
    """

    def __init__(self, op: gdml.KernelOperator):
        self.op = op
        self.known: dict[float, Inverse] = {}

    def __call__(self, sigma: float) -> Inverse:
        if sigma not in self.known:
            self.known[sigma] = Inverse.of(replace(self.op, sigma=sigma))
        return self.known[sigma]
