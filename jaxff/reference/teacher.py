"""Students: potentials that are fitted to many cheap labels of a teacher."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxff import gdml, units
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.frames import some
from jaxff.learn import LeastSquares, aligned, errors, fit
from jaxff.potential import Potential
from jaxff.reference.exploration import explore
from jaxff.reference.label import label_frames
from jaxff.reference.settings import Labelling, Progress, Sampling
from jaxff.saved import load, save
from jaxff.store import Store, claim

UNKNOWNS = 45_000  # of the student's kernel, which limits the default number of frames
FRAMES = 2000  # default number of frames for small molecules
FITTED = 500  # frames to which the force field is fitted; more do not change it
SIGMA = 20.0  # 1/Å, the width of the kernel; learnt metrics are scaled for it
# Labels that were computed here have no wrong units or order.
UNCHECKED = LeastSquares(check_labels=False)
TEMPERATURES = 300.0, 1000.0  # K, limits of the temperature that is estimated


@dataclass(frozen=True, kw_only=True)
class Distilling:
    """How a student is made.

    Attributes:
        frames: number of frames that the teacher labels; None: 2000, or fewer for molecules of
            more than ten atoms, so that the kernel has 45,000 unknowns.
        temperature: of the dynamics, K; None: estimated from the spread of the teacher's energies
            at the given frames, by equipartition.
        learn_metric: whether the student's kernel has a learnt metric.
        sampling: further settings of the dynamics.

    Raises:
        InputError: a number is not positive.
    """

    frames: int | None = None
    temperature: float | None = None
    learn_metric: bool = True
    sampling: Sampling = field(default_factory=lambda: Sampling(spacing=100.0, replicas=50))

    def __post_init__(self):
        if self.frames is not None and self.frames < 2:
            raise InputError(f"frames={self.frames}: a student needs at least 2 frames")
        if self.temperature is not None and not 0.0 < self.temperature < np.inf:
            raise InputError(f"temperature={self.temperature}: it must be positive")


class Student(NamedTuple):
    """A potential of a teacher's labels.

    Attributes:
        potential: the student, or the teacher itself if it is a potential.
        labels: the teacher's labels of the given frames; None if they are unknown.
        dataset: the frames that the teacher labelled, or None.
        failed: number of frames at which the teacher failed; they are left out.
        temperature: of the dynamics that sampled the frames, K, or None.
        errors: of the student on the given frames, against the teacher's labels; empty if these
            are unknown.
    """

    potential: Potential
    labels: Dataset | None
    dataset: Dataset | None
    failed: int
    temperature: float | None
    errors: dict[str, float]


def student_of(
    teacher: Labelling | Dataset,
    frames: Dataset,
    start: Potential,
    folder: str | Path,
    settings: Distilling = Distilling(),
    *,
    progress: Progress | None = None,
) -> Student:
    """Make the student of a teacher for a molecule.

    The dynamics of a force field, from the given frames, give many more, which the teacher labels.
    The student is this force field, fitted to these labels, and a kernel on the rest. The teacher
    labels the given frames, too. A teacher that is a potential needs no student. After an
    interruption the same call continues from the folder.

    Args:
        teacher: the calculator and how it is run; or frames that it has labelled already.
        frames: M frames; their own labels are not used.
        start: a force field that was fitted to the frames.
        folder: folder for the unfinished work; it remains.
        settings: number of frames and dynamics.
        progress: called with a phase and the fraction done.

    Raises:
        InputError: a teacher of another molecule or of another charge, one that fails at most of
            the frames, dynamics that fail, or a folder of another request.
    """
    gdml.require_float64()
    report = progress or (lambda phase, fraction: None)
    molecule, folder = replace(frames.molecule, charge=frames.charge), Path(folder)
    start = start.matched(molecule)
    leaves = jax.tree.leaves(start.params)
    if isinstance(teacher, Dataset):
        _check_charge(teacher.charge, frames)
        data = aligned(teacher, Potential(start.program, start.params, molecule))
        request = {"teacher": data.fingerprint(), "force field": leaves, **asdict(settings)}
        claim(folder, request, "student")
        return Student(_fitted(start, data, folder, settings, report), None, data, 0, None, {})
    method = teacher.method
    if method.is_potential:
        potential = method.potential()
        if potential.molecule is not None:
            _check_charge(potential.molecule.charge, frames)
        return Student(potential.matched(molecule), None, None, 0, None, {})
    method.make(molecule.charge, molecule)  # raises errors before any work
    request = {
        "teacher": method.settings(molecule),
        "given": frames.positions,
        "force field": leaves,
        **asdict(settings),
    }
    claim(folder, request, "student")
    how = replace(teacher, skip_failed=True, name=frames.name)
    given = label_frames(frames, folder / "labels.npz", how, molecule=molecule, progress=progress)
    known = given.dataset
    width = max(3 * molecule.n_atoms - 6, 1)
    count = settings.frames or min(FRAMES, UNKNOWNS // width)
    temperature = settings.temperature or estimated_temperature(known)
    store = Store(folder / "sampled.npz", request, "sampling")
    state = store.load()
    if state is None:
        sampling = replace(settings.sampling, temperature=temperature)
        sampling = replace(sampling, replicas=min(sampling.replicas, count))
        drawn, fault = explore(start, molecule, known.positions, (count, count), sampling, progress)
        state = {"positions": drawn[:count], "fault": fault}
        store.save(state)
    geometries = [molecule.with_positions(R) for R in state["positions"]]
    labelled = label_frames(
        geometries, folder / "frames.npz", how, molecule=molecule, progress=progress
    )
    data = labelled.dataset
    failed = len(given.failed) + len(labelled.failed)
    if len(data) < count / 2:
        raise InputError(
            f"the teacher {method.name} failed at {len(labelled.failed)} of {count} frames: "
            "correct its options, or lower the temperature of the dynamics"
        )
    potential = _fitted(start, data, folder, settings, report)
    scores = errors(known, *potential.predict(known.positions))
    complete = known if not given.failed else None
    return Student(potential, complete, data, failed, temperature, scores)


def estimated_temperature(data: Dataset) -> float:
    """Temperature, K, at which 3N − 6 harmonic modes have the spread of the energies.

    The variance of their potential energy is (3N − 6)/2 (kT)².
    """
    lowest, highest = TEMPERATURES
    modes = max(3 * data.n_atoms - 6, 1)
    spread = 0.0 if data.energies is None else float(np.std(data.energies))
    return float(np.clip(spread * np.sqrt(2.0 / modes) / units.BOLTZMANN, lowest, highest))


def _check_charge(charge: int, frames: Dataset) -> None:
    if charge != frames.charge:
        raise InputError(
            f"the teacher is for charge {charge:+d}, but {frames.label} has charge "
            f"{frames.charge:+d}: correct one of them"
        )


def _fitted(
    start: Potential, data: Dataset, folder: Path, settings: Distilling, report: Progress
) -> Potential:
    """The force field fitted to the teacher's labels, and a kernel on the rest."""
    path = folder / "student.npz"
    if path.is_file():
        return load(path)
    part = some(data, min(len(data), FITTED), 0)
    force_field = fit(
        start, part, method=UNCHECKED, checkpoint=folder / "fit.npz", progress=report
    ).potential
    student = gdml.train(
        data,
        sigma=SIGMA,
        baseline=force_field,
        kernel=gdml.Kernel(learn_metric=settings.learn_metric),
        run=gdml.Run(checkpoint=folder / "kernel", progress=report, check_labels=False),
    )
    save(path, student)
    return student
