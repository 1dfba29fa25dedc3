"""Training of students on the labels of a teacher, in a limited time if necessary."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxff import gdml
from jaxff.dataset import Dataset
from jaxff.gdml.frames import some
from jaxff.gdml.solvers import typical_seconds
from jaxff.learn import LeastSquares, Level, Student, Taught, Teaching, fit, teach
from jaxff.learn.time_limit import Deadline, OutOfTime
from jaxff.potential import Potential
from jaxff.reference.settings import Progress
from jaxff.saved import load, save

FITTED = 500  # frames for the fit of the force field; more frames do not change the fit
SIGMA = 20.0  # 1/Å, width of the kernel, to which learnt metrics are scaled
FIRST = 200  # frames of the first training, whose time determines the number of frames
# Shares of the time that is left when a step begins: for the fit of the force field, for the search
# for a metric, and for the training on all frames as it is expected from the first training.
FIT, METRIC, EXPECTED = 0.3, 0.25, 0.7


class Source(NamedTuple):
    """Frames of a teacher, whose labels are computed when they are requested.

    Attributes:
        most: largest number of frames.
        labelled: function of a number of frames that returns at most so many labelled frames;
            more frames begin with the same frames.
        method: settings of the fit of the force field.
    """

    most: int
    labelled: Callable[[int], Dataset]
    method: LeastSquares


class Trained(NamedTuple):
    """A student, and how it was trained; see `jaxff.learn.Student` for `taught` and `skipped`.

    Attributes:
        potential: the student.
        data: its training frames.
    """

    potential: Potential
    data: Dataset
    taught: Taught | None = None
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Training:
    """The training of a student: a force field, fitted to the labels, and a kernel.

    With students of cheaper teachers, `jaxff.learn.teach` chooses the model.

    Attributes:
        start: initial force field.
        folder: folder for unfinished work.
        learn_metric: whether the kernel has a learnt metric.
        fragments: whether kernels on fragments may be used.
        deadline: the end of the training.
        report: function called with the name of a phase and its finished fraction.
    """

    start: Potential
    folder: Path
    learn_metric: bool
    fragments: bool
    deadline: Deadline
    report: Progress

    def run(
        self, source: Source, below: Callable[[Dataset], Sequence[Student]] | None = None
    ) -> Trained:
        """Train the student.

        Args:
            source: the frames with labels of the teacher.
            below: function of labelled frames that returns the students of cheaper teachers, with
                their labels of these frames; None if there are no cheaper teachers.
        """
        path, notes = self.folder / "student.npz", self.folder / "student.json"
        if path.is_file():
            known, potential = json.loads(notes.read_text()), load(path)
            taught = None
            if known["levels"]:
                levels = tuple(Level(*values) for values in known["levels"])
                taught = Taught(potential, levels, levels[known["chosen"]])
            data = source.labelled(known["frames"])
            return Trained(potential, data, taught, tuple(known["skipped"]))
        if below is not None:
            found = self._with_cheaper(source, below)
        elif self.deadline.until is None or source.most <= FIRST:
            data = source.labelled(source.most)
            force_field, skipped = self._force_field(data, FITTED, source.method)
            kernel = gdml.Kernel(learn_metric=self.learn_metric)
            model = self._trained(data, force_field, kernel, self.report)
            found = Trained(model, data, None, skipped)
        else:
            found = self._in_time(source)
        save(path, found.potential)
        levels = found.taught.levels if found.taught else ()
        chosen = levels.index(found.taught.chosen) if found.taught else None
        content = {
            "frames": len(found.data),
            "levels": levels,
            "chosen": chosen,
            "skipped": found.skipped,
        }
        notes.write_text(json.dumps(content))
        return found

    def _with_cheaper(
        self, source: Source, below: Callable[[Dataset], Sequence[Student]]
    ) -> Trained:
        """Train the student with the help of the students of cheaper teachers."""
        data = source.labelled(source.most)
        count = FITTED if self.deadline.until is None else FIRST
        force_field, skipped = self._force_field(data, count, source.method)
        settings = Teaching(
            learn_metric=self.learn_metric, fragments=self.fragments, budget=self.deadline.left
        )
        taught = teach(
            data, below(data), fitted=force_field, settings=settings, progress=self.report
        )
        return Trained(taught.potential, data, taught, (*skipped, *taught.skipped))

    def _in_time(self, source: Source) -> Trained:
        """Train the student on as many frames as the time allows.

        The first training on few frames compiles the programs; the second takes the time from which
        the time of a training on more frames follows.
        """
        began = time.perf_counter()
        few = source.labelled(FIRST)
        each = (time.perf_counter() - began) / FIRST
        force_field, skipped = self._force_field(few, FIRST, source.method)
        group = gdml.find_symmetries(few.positions, few.molecule, lattice=few.lattice)
        descriptor = gdml.inverse_distances
        if self.learn_metric:
            seconds = self.deadline.share(METRIC) or np.inf
            labels = gdml.residual(few, force_field)
            descriptor = gdml.learn_metric(labels, group, seconds=seconds, progress=self.report)
        kernel = gdml.Kernel(descriptor=descriptor, symmetries=group)
        first, spent = force_field, []
        for _ in range(2):
            began = time.perf_counter()
            run = gdml.Run(progress=self.report, check_labels=False)
            first = gdml.train(
                few,
                sigma=SIGMA,
                baseline=force_field,
                kernel=kernel,
                solver=gdml.Solver("iterative"),
                run=run,
            )
            spent.append(time.perf_counter() - began)

        def typical(count: int) -> float:
            return typical_seconds(count, few.n_atoms, len(group))

        compiling, slowness = max(spent[0] - spent[1], 0.0), spent[1] / typical(len(few))
        left = EXPECTED * (self.deadline.left or 0.0)

        def expected(count: int) -> float:
            return compiling + slowness * typical(count) + each * (count - FIRST)

        count = source.most
        while count > FIRST and expected(count) > left:
            count = max(int(0.95 * count), FIRST)
        self.report(
            f"a training on {len(few)} frames took {spent[1]:.1f} s, so that the student is "
            f"trained on {count} of {source.most} frames (expected: {expected(count):.0f} s)",
            1.0,
        )
        if count < source.most:
            skipped += (f"a training of the student on more than {count} frames",)
        if count == FIRST:
            return Trained(first, few, None, skipped)
        try:
            data = source.labelled(count)
            report = self.deadline.stopping(self.report)
            return Trained(self._trained(data, force_field, kernel, report), data, None, skipped)
        except OutOfTime:
            text = f"a training of the student on {count} instead of {len(few)} frames"
            return Trained(first, few, None, (*skipped, text))

    def _force_field(
        self, data: Dataset, count: int, method: LeastSquares
    ) -> tuple[Potential, tuple[str, ...]]:
        """Fit the force field to some of the frames; return it, and what was left out."""
        part = some(data, min(len(data), count), 0)
        report = Deadline(self.deadline.share(FIT)).stopping(self.report)
        try:
            fitted = fit(
                self.start,
                part,
                method=method,
                checkpoint=self.folder / "fit.npz",
                progress=report,
            )
        except OutOfTime:
            return self.start, ("a fit of the force field to the labels of the teacher",)
        return fitted.potential, ()

    def _trained(
        self, data: Dataset, force_field: Potential, kernel: gdml.Kernel, report: Progress
    ) -> Potential:
        """Train a kernel on the residual of the force field."""
        run = gdml.Run(
            checkpoint=self.folder / "kernel",
            progress=report,
            check_labels=False,
            metric_seconds=self.deadline.share(METRIC),
        )
        return gdml.train(data, sigma=SIGMA, baseline=force_field, kernel=kernel, run=run)
