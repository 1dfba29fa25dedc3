"""Models of expensive labels on few frames, with the help of a model of cheaper labels.

The cheap labels are those of a *teacher*; a potential that was fitted to many of them is the
*student*. The expensive labels differ little from both, and a kernel learns this difference from
few frames. The errors on left-out frames decide which of the ways to use the student is best, and
whether it helps at all, so that no frames are needed for validation.
Source: Ramakrishnan, Dral, Rupp and von Lilienfeld, J. Chem. Theory Comput. 11, 2087 (2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from jaxff import gdml
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.adapt import PRIORS, Adaptation
from jaxff.gdml.descriptor import Descriptor, inverse_distances
from jaxff.gdml.frames import some
from jaxff.gdml.leave_out import MOST_UNKNOWNS, leave_out_errors
from jaxff.gdml.search import search_width
from jaxff.potential import Potential

FEWEST = 8  # frames from which a level is learnt
Progress = Callable[[str, float], None]


class Level(NamedTuple):
    """One way to learn the labels, and its errors on left-out frames.

    Attributes:
        name: the way in words.
        force_mae, force_rmse: errors of the forces of left-out frames, kcal/mol/Å.
        sigma: width of the kernel, 1/Å.
        lam: regularisation λ of the kernel.
        prior: strength of the prior on parameters that are re-estimated, or None.
        teacher: whether it uses the teacher.
    """

    name: str
    force_mae: float
    force_rmse: float
    sigma: float
    lam: float
    prior: float | None
    teacher: bool


@dataclass(frozen=True)
class Taught:
    """The result of `teach`.

    Attributes:
        potential: the potential, trained in the best way.
        levels: all ways that were tried.
        chosen: the best of them.
    """

    potential: Potential
    levels: tuple[Level, ...]
    chosen: Level

    @property
    def verdict(self) -> str:
        """What the choice says about the teacher, in one sentence."""
        rivals = [level for level in self.levels if level.teacher != self.chosen.teacher]
        if not rivals:
            return f"without a teacher the best way is {self.chosen.name}"
        other = min(rivals, key=_error)
        both = f"{self.chosen.force_mae:.3f} against {other.force_mae:.3f} kcal/mol/Å"
        if self.chosen.teacher:
            return f"the teacher lowers the errors on left-out frames (force MAE {both} without it)"
        return (
            "the teacher does not lower the errors on left-out frames (force MAE "
            f"{both} with it), so it is not used"
        )


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """Settings of `teach`.

    Attributes:
        learn_metric: whether the best way also tries a learnt metric, see `gdml.learn_metric`.
        adapt: whether to try to re-estimate the parameters of the student's force field.
        lam: regularisation λ of the kernels.
        seed: seed of every random choice.

    Raises:
        InputError: `lam` is not a positive number.
    """

    learn_metric: bool = True
    adapt: bool = True
    lam: float = 1e-10
    seed: int = 0

    def __post_init__(self):
        if not 0.0 < self.lam < np.inf:
            raise InputError(f"lam={self.lam!r}: λ must be a positive number")


def teach(
    frames: Dataset,
    student: Potential | None = None,
    *,
    fitted: Potential | None = None,
    labels: Dataset | None = None,
    settings: Teaching = Teaching(),
    progress: Progress | None = None,
) -> Taught:
    """Learn the labels of few frames in the best of several ways.

    The ways are a kernel alone; a force field that is fitted to the frames, and a kernel; the
    student, and a kernel on the rest; and with the teacher's labels of the same frames, the
    student, and a kernel on the difference to these labels. For the best way with a force field the
    parameters are also re-estimated together with the kernel, with the present ones as the prior
    (universal kriging), and for the best of all a metric is learnt.

    Args:
        frames: M frames with expensive labels.
        student: a potential of the teacher's labels, or the teacher itself if it is a potential.
        fitted: a force field that was fitted to the frames; None: there is no such way.
        labels: the teacher's labels of the same frames, in the same order.
        settings: which ways are tried.
        progress: called with a phase and the fraction done.

    Raises:
        InputError: too few frames; potentials or labels of another molecule or of another charge;
            or float64 not enabled.
    """
    gdml.require_float64()
    if len(frames) < FEWEST:
        raise InputError(
            f"{frames.label}: {len(frames)} frames, but at least {FEWEST} are needed to choose on "
            "left-out frames"
        )
    report = progress or (lambda phase, fraction: None)
    if student is not None:
        student = _checked(student, frames)
    if labels is not None:
        labels = _same_frames(labels, frames)
    report("comparing the ways", 0.0)
    trial = _Trial(frames, settings)
    levels: list[tuple[Level, _Way]] = []
    ways = list(_ways(frames, fitted, student, labels))
    for k, way in enumerate(ways):
        report("comparing the ways", k / len(ways))
        levels += [(level, way) for level in trial.levels(way)]
    level, way = min(levels, key=lambda pair: _error(pair[0]))
    descriptor = inverse_distances
    if settings.learn_metric:
        better, metric = trial.with_metric(way, level, report)
        levels.append((better, way))
        if _error(better) < _error(level):
            level, descriptor = better, metric
    potential = trial.trained(way, level, descriptor, report)
    return Taught(potential, tuple(one for one, _ in levels), level)


def _error(level: Level) -> float:
    return level.force_rmse


def _checked(student: Potential, frames: Dataset) -> Potential:
    """The student in the atom order of the frames."""
    molecule = student.molecule
    if molecule is not None and molecule.charge != frames.charge:
        raise InputError(
            f"the teacher has charge {molecule.charge:+d}, but {frames.label} has "
            f"{frames.charge:+d}: correct one of them"
        )
    return student.matched(frames.molecule)


def _same_frames(labels: Dataset, frames: Dataset) -> Dataset:
    """The teacher's labels, after their comparison with the frames."""
    if labels.charge != frames.charge:
        raise InputError(
            f"the teacher's labels are for charge {labels.charge:+d}, but {frames.label} has "
            f"{frames.charge:+d}: label it with its charge"
        )
    same = np.array_equal(labels.numbers, frames.numbers) and len(labels) == len(frames)
    if not same or not np.allclose(labels.positions, frames.positions, atol=1e-6):
        raise InputError(
            f"{frames.label}: the teacher's labels are not of the same frames in the same order"
        )
    return labels


@dataclass(frozen=True, eq=False)
class _Way:
    """A way to learn the labels.

    Attributes:
        name: the way in words.
        baseline: what the kernel is added to; None for a kernel alone.
        frames: the frames with the labels for `gdml.train`.
        teacher: whether the baseline is the student.
        fitted: whether the parameters of the baseline were fitted to these very frames, so that
            only their re-estimate shows the error on left-out frames.
        wrong: (M, N, 3) difference between the expensive labels and those of `frames`, by which
            the errors are larger, kcal/mol/Å.
    """

    name: str
    baseline: Potential | None
    frames: Dataset
    teacher: bool = False
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
        """(M, 3N, P) derivatives of the baseline's forces; None if it has no free parameters."""
        if self.baseline is None:
            return None
        try:
            return Adaptation(self.baseline).slopes(self.frames.positions)
        except InputError:  # no parameter is trainable
            return None


def _ways(
    frames: Dataset,
    fitted: Potential | None,
    student: Potential | None,
    labels: Dataset | None,
) -> Iterator[_Way]:
    yield _Way("kernel alone", None, frames)
    if fitted is not None:
        fitted = fitted.matched(frames.molecule)
        yield _Way("fitted force field + kernel", fitted, frames, fitted=True)
    if student is None:
        return
    yield _Way("student + kernel on the rest", student, frames, teacher=True)
    if labels is not None:
        energies, forces = student.predict(frames.positions)
        wrong = labels.forces - forces
        known = frames.energies is not None and labels.energies is not None
        shifted = replace(
            frames,
            forces=frames.forces - wrong,
            energies=frames.energies - (labels.energies - energies) if known else None,
        )
        name = "student + kernel on the difference to the teacher"
        yield _Way(name, student, shifted, teacher=True, wrong=wrong)


class _Trial:
    """Errors of ways on left-out frames, and the training of the best way.

    Args:
        frames: the frames.
        settings: see `Teaching`.
    """

    def __init__(self, frames: Dataset, settings: Teaching):
        self.settings = settings
        self.molecule = frames.molecule
        self.permutations = gdml.find_symmetries(
            frames.positions, self.molecule, lattice=frames.lattice, seed=settings.seed
        )
        width = max(3 * frames.n_atoms - 6, 1)
        count = min(len(frames), max(MOST_UNKNOWNS // width, FEWEST))
        self.chosen = np.asarray(some(replace(frames, index=None), count, settings.seed).index)
        few = frames[self.chosen]
        self.op = gdml.KernelOperator.of(
            few.positions, self.permutations, 1.0, settings.lam, lattice=frames.lattice
        )

    def levels(self, way: _Way) -> Iterator[Level]:
        """The level of a way with the best width, and the one with re-estimated parameters."""
        slopes = way.slopes if way.fitted or self.settings.adapt else None

        def at(sigma: float, priors: Sequence[float] | None) -> list[Level]:
            return self._levels(way, replace(self.op, sigma=sigma), slopes, priors)

        estimated = way.fitted and slopes is not None
        first = PRIORS[:1] if estimated else None
        sigma = search_width(lambda value: _error(at(value, first)[0]))
        if not estimated:
            yield at(sigma, None)[0]
        if slopes is not None:
            yield min(at(sigma, PRIORS), key=_error)

    def _levels(
        self,
        way: _Way,
        op: gdml.KernelOperator,
        slopes: np.ndarray | None,
        priors: Sequence[float] | None,
    ) -> list[Level]:
        """Levels with each strength of the prior, or one with fixed parameters (`priors` None)."""
        few, residual = self.chosen, way.residual[self.chosen]
        if slopes is None or priors is None:
            tried = [(None, error) for error in leave_out_errors(op, residual)]
        else:
            errors = leave_out_errors(op, residual, slopes[few], priors)
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
                )
            )
        return levels

    def with_metric(self, way: _Way, level: Level, report: Progress) -> tuple[Level, Descriptor]:
        """The best way with a learnt metric, and the metric."""
        few = self.chosen
        residual = replace(way.frames, forces=way.residual, index=None)[few]
        descriptor = gdml.learn_metric(
            residual, self.permutations, lam=self.settings.lam, progress=report
        )
        op = gdml.KernelOperator.of(
            residual.positions,
            self.permutations,
            1.0,
            self.settings.lam,
            descriptor=descriptor,
            lattice=residual.lattice,
        )
        slopes, priors = (None, None) if level.prior is None else (way.slopes, [level.prior])

        def at(sigma: float) -> Level:
            return self._levels(way, replace(op, sigma=sigma), slopes, priors)[0]

        found = at(search_width(lambda sigma: _error(at(sigma))))
        return found._replace(name=f"{level.name}, learnt metric"), descriptor

    def trained(
        self, way: _Way, level: Level, descriptor: Descriptor, report: Progress
    ) -> Potential:
        """The potential of a way, trained on all frames."""
        kernel = gdml.Kernel(
            lam=level.lam,
            symmetries=self.permutations,
            descriptor=descriptor,
            adapt_baseline=level.prior or False,
        )
        run = gdml.Run(seed=self.settings.seed, progress=report, check_labels=False)
        return gdml.train(
            way.frames, sigma=level.sigma, baseline=way.baseline, kernel=kernel, run=run
        )
