"""Students: potentials that are fitted to many cheap labels from a teacher."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxff import gdml, units
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.frames import some
from jaxff.gdml.solvers import typical_seconds
from jaxff.learn import LeastSquares, aligned, errors, fit
from jaxff.learn.teaching import check_charge
from jaxff.potential import Potential
from jaxff.reference.exploration import explore, turned
from jaxff.reference.label import label_frames
from jaxff.reference.settings import SETTING_UP, Labelling, Progress, Sampling
from jaxff.saved import load, save
from jaxff.settings import Settings, count, flag, number
from jaxff.store import Store, claim

UNKNOWNS = 45_000  # unknowns of the student's kernel, which limit the default number of frames
FRAMES = 2000  # default number of frames for small molecules
FITTED = 500  # frames for the fit of the force field; more frames do not change the fit
SIGMA = 20.0  # 1/Å, width of the kernel, to which learnt metrics are scaled
# The units and the order of computed labels need no check.
UNCHECKED = LeastSquares(check_labels=False)
TEMPERATURES = 300.0, 1000.0  # K, limits of the estimated temperature
# Shares of the time for labels, for the search for a metric, and for the training of the kernel.
LABELS, METRIC, KERNEL = 0.3, 0.25, 0.2
FEWEST = 50  # frames of a student, however short the time
HELD_BACK = 200  # most frames of a data set that test the student


@dataclass(frozen=True, kw_only=True)
class Distilling(Settings):
    """Settings for the training of a student.

    Attributes:
        frames: number of frames that the teacher labels; None for 2000, or fewer for molecules of
            more than ten atoms, so that the kernel has at most 45,000 unknowns.
        temperature: temperature of the dynamics, K; None for an estimate from the energies of the
            teacher at the given frames (see `estimated_temperature`).
        learn_metric: whether the student's kernel has a learnt metric.
        turned: share of the frames in which a part of the molecule is rotated about a bond.
        seconds: time for labels and training, from which the default number of frames follows and
            after which the search for a metric ends (None: no limit).
        sampling: further settings of the dynamics.

    Raises:
        InputError: a number is out of range.
    """

    frames: int | None = count(None, least=2)
    temperature: float | None = number(None, "K", above=0.0)
    learn_metric: bool = flag(True)
    turned: float = number(0.0, least=0.0, most=1.0)
    seconds: float | None = number(None, "s", above=0.0)
    sampling: Sampling = field(default_factory=lambda: Sampling(spacing=100.0, replicas=50))


class Student(NamedTuple):
    """A potential that was fitted to the labels of a teacher.

    Attributes:
        potential: the student, or the teacher if the teacher is a potential.
        labels: the given frames with labels of the teacher; None if these labels are unknown.
        dataset: the training frames of the student, with labels of the teacher; None if there
            was no training.
        failed: number of omitted frames, at which the teacher failed.
        temperature: temperature of the dynamics that sampled the frames, K; None if no frames
            were sampled.
        errors: errors of the student against `valid`; empty if `valid` is None.
        valid: frames with labels of the teacher on which the student was not trained: the given
            frames, or frames of a teacher that is a data set; None if there are none.
    """

    potential: Potential
    labels: Dataset | None
    dataset: Dataset | None
    failed: int
    temperature: float | None
    errors: dict[str, float]
    valid: Dataset | None = None


def student_of(
    teacher: Labelling | Dataset,
    frames: Dataset,
    start: Potential,
    folder: str | Path,
    settings: Distilling = Distilling(),
    *,
    progress: Progress | None = None,
) -> Student:
    """Train a student: a potential that reproduces the labels of a teacher.

    Dynamics of a force field sample frames, starting from the given frames. The teacher labels
    all frames. The student is the sum of the force field, fitted to these labels, and a kernel
    trained on the residual. A teacher that is a potential is returned as the student. Repeat the
    call to continue after an interruption.

    Args:
        teacher: the calculator and its settings; or frames with labels of the teacher.
        frames: M frames; their labels are not used.
        start: a force field that was fitted to the frames.
        folder: folder for unfinished work, which is not removed.
        settings: number of frames and settings of the dynamics.
        progress: called with the name of a phase and the fraction done.

    Returns:
        the student, its training frames and its errors.

    Raises:
        InputError: a teacher for another molecule or charge, a teacher that fails at more than
            half of the frames, dynamics that fail, or a folder of a call with other arguments.
    """
    gdml.require_float64()
    report = progress or (lambda phase, fraction: None)
    molecule, folder = replace(frames.molecule, charge=frames.charge), Path(folder)
    start = start.matched(molecule)
    # The time that is left differs when a call is repeated.
    wanted = {
        "force field": jax.tree.leaves(start.params),
        **asdict(replace(settings, seconds=None)),
    }
    if isinstance(teacher, Dataset):
        check_charge(teacher.charge, frames)
        data = aligned(teacher, Potential(start.program, start.params, molecule))
        claim(folder, {"teacher": data.fingerprint(), **wanted}, "student")
        distinct = len(data.distinct())
        held_back = min(HELD_BACK, distinct // 10)
        count = min(_count(frames, settings, 0.0), distinct - held_back)
        parts = data.split(count, held_back, stratify=True)
        potential = _fitted(start, parts.train, folder, settings, report)
        scores = errors(parts.valid, *potential.predict(parts.valid.positions))
        return Student(potential, None, parts.train, 0, None, scores, parts.valid)
    method = teacher.method
    if method.is_potential:
        potential = method.potential()
        if potential.molecule is not None:
            check_charge(potential.molecule.charge, frames)
        return Student(potential.matched(molecule), None, None, 0, None, {})
    report(SETTING_UP, 0.0)
    method.make(molecule.charge, molecule)  # raises errors before any work
    request = {
        "teacher": method.settings(molecule),
        "given": frames.positions,
        **wanted,
    }
    claim(folder, request, "student")
    how = replace(teacher, skip_failed=True, name=frames.name)
    began = time.perf_counter()
    given = label_frames(frames, folder / "labels.npz", how, molecule=molecule, progress=progress)
    known = given.dataset
    count = _count(frames, settings, (time.perf_counter() - began) / len(frames))
    temperature = settings.temperature or estimated_temperature(known)
    store = Store(folder / "sampled.npz", request, "sampling")
    state = store.load()
    if state is None:
        sampling = replace(settings.sampling, temperature=temperature)
        sampling = replace(sampling, replicas=min(sampling.replicas, count))
        drawn, fault = explore(start, molecule, known.positions, (count, count), sampling, progress)
        others = turned(start, molecule, drawn[:count], round(settings.turned * count))
        positions = np.concatenate([drawn[: count - len(others)], others])
        state = {"positions": positions, "fault": fault}
        store.save(state)
    geometries = [molecule.with_positions(R) for R in state["positions"]]
    labelled = label_frames(
        geometries, folder / "frames.npz", how, molecule=molecule, progress=progress
    )
    data = labelled.dataset
    failed = len(given.failed) + len(labelled.failed)
    if len(data) < len(geometries) / 2:
        raise InputError(
            f"the teacher {method.name} failed at {len(labelled.failed)} of {len(geometries)} "
            "frames: "
            "correct the options of the teacher, or lower the temperature of the dynamics"
        )
    potential = _fitted(start, data, folder, settings, report)
    scores = errors(known, *potential.predict(known.positions))
    complete = known if not given.failed else None
    return Student(potential, complete, data, failed, temperature, scores, known)


def _count(frames: Dataset, settings: Distilling, seconds: float) -> int:
    """Number of frames for the student, if one label takes `seconds`."""
    n_atoms, time_limit = frames.n_atoms, settings.seconds
    count = settings.frames or min(FRAMES, UNKNOWNS // max(3 * n_atoms - 6, 1))
    if time_limit is None or settings.frames is not None:
        return count
    group = gdml.find_symmetries(frames.positions, frames.molecule, lattice=frames.lattice)

    def fits(count: int) -> bool:
        training = typical_seconds(count, n_atoms, len(group))
        return count * seconds <= LABELS * time_limit and training <= KERNEL * time_limit

    while count > FEWEST and not fits(count):
        count = max(int(0.9 * count), FEWEST)
    return count


def estimated_temperature(data: Dataset) -> float:
    """Estimate the temperature, K, of frames from the variance of their energies.

    For 3N − 6 harmonic modes, the variance of the potential energy is (3N − 6)/2 (kT)², where N
    is the number of atoms and k is Boltzmann's constant.  The result is between 300 and 1000 K.
    """
    lowest, highest = TEMPERATURES
    modes = max(3 * data.n_atoms - 6, 1)
    spread = 0.0 if data.energies is None else float(np.std(data.energies))
    return float(np.clip(spread * np.sqrt(2.0 / modes) / units.BOLTZMANN, lowest, highest))


def _fitted(
    start: Potential, data: Dataset, folder: Path, settings: Distilling, report: Progress
) -> Potential:
    """Fit the force field to the labels of the teacher, and train a kernel on the residual."""
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
        run=gdml.Run(
            checkpoint=folder / "kernel",
            progress=report,
            check_labels=False,
            metric_seconds=settings.seconds and METRIC * settings.seconds,
        ),
    )
    save(path, student)
    return student
