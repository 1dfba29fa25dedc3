"""Models that learn expensive labels from few frames with the help of cheap ones.

A *teacher* computes cheap labels, and the *student* is a potential that was fitted to many cheap
labels.  A kernel learns the difference to the expensive labels from few frames. The errors on
left-out frames decide whether and how the student is used, so that no validation frames are needed.
Source: Ramakrishnan, Dral, Rupp and von Lilienfeld, J. Chem. Theory Comput. 11, 2087 (2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from jaxff import gdml
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.adapt import PRIORS, Adaptation
from jaxff.gdml.descriptor import Descriptor
from jaxff.gdml.fragment_operator import FragmentOperator
from jaxff.gdml.fragment_system import UNKNOWNS
from jaxff.gdml.fragments import BONDS
from jaxff.gdml.frames import some
from jaxff.gdml.leave_out import MOST_UNKNOWNS, leave_out_errors
from jaxff.gdml.search import search_width
from jaxff.potential import Potential
from jaxff.settings import Settings, flag, number, random_seed

FEWEST = 8  # least number of frames
Progress = Callable[[str, float], None]
_error = attrgetter("force_rmse")  # of a `Level`


class Level(NamedTuple):
    """A model that `teach` tried, and its errors on left-out frames.

    Attributes:
        name: description of the model.
        force_mae, force_rmse: errors of the forces of left-out frames, kcal/mol/Å.
        sigma: width of the kernel, 1/Å.
        lam: regularisation λ of the kernel.
        prior: strength of the prior on re-estimated parameters; None if the parameters are fixed.
        teacher: whether the model uses the teacher.
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
        potential: the best model, trained on all frames.
        levels: all models that were tried.
        chosen: the entry of `levels` for the best model.
    """

    potential: Potential
    levels: tuple[Level, ...]
    chosen: Level

    @property
    def verdict(self) -> str:
        """One sentence on whether the teacher lowers the errors."""
        rivals = [level for level in self.levels if level.teacher != self.chosen.teacher]
        if not rivals:
            return f"the best model without a teacher is: {self.chosen.name}"
        other = min(rivals, key=_error)
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
        lam: regularisation λ of the kernels.
        seed: seed of every random choice.

    Raises:
        InputError: a value is not allowed.
    """

    learn_metric: bool = flag(True)
    fragments: bool = flag(False)
    adapt: bool = flag(True)
    lam: float = number(1e-10, above=0.0)
    seed: int = random_seed()


def teach(
    frames: Dataset,
    student: Potential | None = None,
    *,
    fitted: Potential | None = None,
    labels: Dataset | None = None,
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
    present values (universal kriging). The best model may get a learnt metric or fragments.

    Args:
        frames: M frames with expensive labels.
        student: a potential that was fitted to labels of the teacher, or a teacher that is a
            potential.
        fitted: a force field that was fitted to the frames, or None.
        labels: the teacher's labels of the same frames, in the same order, or None.
        settings: see `Teaching`.
        progress: function called with the name of a phase and its finished fraction.

    Returns:
        The best model, and the errors of all models on left-out frames.

    Raises:
        InputError: fewer than eight frames, potentials or labels with a different molecule or
            charge than `frames`, or float64 not enabled.
    """
    gdml.require_float64()
    if len(frames) < FEWEST:
        raise InputError(
            f"{frames.label}: {len(frames)} frames, but at least {FEWEST} are needed; give more"
        )
    report = progress or (lambda phase, fraction: None)
    if student is not None:
        student = _checked(student, frames)
    if labels is not None:
        labels = _same_frames(labels, frames)
    report("comparing models", 0.0)
    trial = _Trial(frames, settings)
    levels: list[tuple[Level, _Way]] = []
    ways = list(_ways(frames, fitted, student, labels))
    for k, way in enumerate(ways):
        report("comparing models", k / len(ways))
        levels += [(level, way) for level in trial.levels(way)]
    level, way = min(levels, key=lambda pair: _error(pair[0]))
    choices: list[tuple[Level, dict[str, Any]]] = [(level, {})]
    if settings.fragments and trial.has_fragments:
        choices.append((trial.with_fragments(way, level), {"fragments": BONDS}))
    if settings.learn_metric:
        better, metric = trial.with_metric(way, level, report)
        choices.append((better, {"descriptor": metric}))
    chosen, options = min(choices, key=lambda pair: _error(pair[0]))
    potential = trial.trained(way, chosen, options, report)
    return Taught(potential, tuple(one for one, _ in [*levels, *choices[1:]]), chosen)


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


@dataclass(frozen=True, eq=False)
class _Way:
    """A baseline and the labels that its sum with a kernel learns.

    Attributes:
        name: description of the model.
        baseline: the baseline; None for a kernel alone.
        frames: the frames with the labels for `gdml.train`.
        teacher: whether the baseline is the student.
        fitted: whether the baseline was fitted to the same frames.  Its errors on left-out frames
            are then meaningful only with re-estimated parameters.
        wrong: (M, N, 3) expensive force labels minus those of `frames`, kcal/mol/Å. They are added
            to the errors.  None: zero.
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
        """Derivatives (M, 3N, P) of the baseline's forces by its P parameters, kcal/mol/Å.

        None if the baseline has no trainable parameter; see `Adaptation.slopes`.
        """
        if self.baseline is None:
            return None
        try:
            return Adaptation(self.baseline).slopes(self.frames.positions)
        except InputError:  # no parameter is trainable
            return None


def _ways(
    frames: Dataset, fitted: Potential | None, student: Potential | None, labels: Dataset | None
) -> Iterator[_Way]:
    yield _Way("kernel alone", None, frames)
    if fitted is not None:
        fitted = fitted.matched(frames.molecule)
        yield _Way("fitted force field + kernel", fitted, frames, fitted=True)
    if student is None:
        return
    yield _Way("student + kernel on the residual", student, frames, teacher=True)
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
    """Errors of models on left-out frames, and the training of the best model.

    Args:
        frames: the frames with expensive labels.
        settings: see `Teaching`.
    """

    def __init__(self, frames: Dataset, settings: Teaching):
        self.settings = settings
        self.permutations = gdml.find_symmetries(
            frames.positions, frames.molecule, lattice=frames.lattice, seed=settings.seed
        )
        width = max(3 * frames.n_atoms - 6, 1)
        count = min(len(frames), max(MOST_UNKNOWNS // width, FEWEST))
        self.chosen = np.asarray(some(replace(frames, index=None), count, settings.seed).index)
        R = frames.positions[self.chosen]
        self.kinds = gdml.fragment_types(frames.molecule)
        small = any(kind.instances.shape[1] < frames.n_atoms for kind in self.kinds)
        self.has_fragments = small and len(frames) * width <= UNKNOWNS
        self.op = gdml.KernelOperator.of(
            R, self.permutations, 1.0, settings.lam, lattice=frames.lattice
        )

    def levels(self, way: _Way) -> Iterator[Level]:
        """Yield the `Level` of each sum of a baseline and a kernel, with the best width.

        The first model has fixed parameters, the second (if possible) re-estimated parameters.
        """
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
        """Return a `Level` for each prior; without priors, one with fixed parameters."""
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
        """Return the `Level` of the model with a learnt metric, and the descriptor."""
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
        return self._with_operator(way, level, op, "learnt metric"), descriptor

    def with_fragments(self, way: _Way, level: Level) -> Level:
        """Return the `Level` of the model with kernels on fragments."""
        R, lattice = way.frames.positions[self.chosen], way.frames.lattice
        op = FragmentOperator.with_fragments(self.op, R, self.kinds, lattice)
        return self._with_operator(way, level, op, "fragments")

    def _with_operator(self, way: _Way, level: Level, op: gdml.KernelOperator, name: str) -> Level:
        """Return the `Level` with the best width for the operator `op`."""
        prior = (None, None) if level.prior is None else (way.slopes, [level.prior])

        def at(sigma: float) -> Level:
            return self._levels(way, replace(op, sigma=sigma), *prior)[0]

        sigma = search_width(lambda sigma: _error(at(sigma)))
        return at(sigma)._replace(name=f"{level.name}, {name}")

    def trained(
        self, way: _Way, level: Level, options: dict[str, Any], report: Progress
    ) -> Potential:
        """Return the potential of a `Level`; `options` are arguments of `Kernel`."""
        kernel = gdml.Kernel(
            lam=level.lam,
            symmetries=self.permutations,
            adapt_baseline=level.prior or False,
            **options,
        )
        run = gdml.Run(seed=self.settings.seed, progress=report, check_labels=False)
        return gdml.train(
            way.frames, sigma=level.sigma, baseline=way.baseline, kernel=kernel, run=run
        )
