"""Students: potentials that are fitted to many cheap labels from a teacher."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import jax
import numpy as np

from jaxff import gdml, units
from jaxff.dataset import Dataset, Split
from jaxff.errors import InputError
from jaxff.gdml.solvers import typical_seconds
from jaxff.learn import LeastSquares, Student, aligned, errors
from jaxff.learn.students import check_charge
from jaxff.learn.time_limit import Deadline, OutOfTime
from jaxff.molecule import Molecule
from jaxff.potential import Potential
from jaxff.reference.exploration import explore, turned
from jaxff.reference.label import label_frames
from jaxff.reference.settings import SETTING_UP, Labelling, Progress, Sampling
from jaxff.reference.student_training import FIRST, Source, Trained, Training
from jaxff.settings import Settings, count, flag, number
from jaxff.store import Store, claim

UNKNOWNS = 45_000  # unknowns of the student's kernel, which limit the default number of frames
FRAMES = 2000  # default number of frames for small molecules
# The units and the order of computed labels need no check.
UNCHECKED = LeastSquares(check_labels=False)
TEMPERATURES = 300.0, 1000.0  # K, limits of the estimated temperature
# Shares of the time for labels, for the training of the kernel, and for the dynamics.
LABELS, KERNEL, DYNAMICS = 0.3, 0.2, 0.3
FEWEST = 50  # frames of a student, however short the time
HELD_BACK = 200  # most frames of a data set that test the student
FEWEST_GIVEN = 20  # frames of a data set that is a teacher


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
        budget: time for labels and training, s (None: no limit). The time of a first small training
            determines the number of frames; if the training does not end in time, its result is
            used.
        uncertainty: whether to compute the standard errors of the student.
        check_labels: whether to check units and signs of a teacher that is a data set.
        sampling: further settings of the dynamics.

    Raises:
        InputError: a number is out of range.
    """

    frames: int | None = count(None, least=2)
    temperature: float | None = number(None, "K", above=0.0)
    learn_metric: bool = flag(True)
    turned: float = number(0.0, least=0.0, most=1.0)
    budget: float | None = number(None, "s", above=0.0)
    uncertainty: bool = flag(False)
    check_labels: bool = flag(True)
    sampling: Sampling = field(default_factory=lambda: Sampling(spacing=100.0, replicas=50))


def student_of(
    teacher: Labelling | Dataset,
    frames: Dataset,
    start: Potential,
    folder: str | Path,
    settings: Distilling = Distilling(),
    *,
    below: Sequence[tuple[Labelling | Dataset, Student]] = (),
    progress: Progress | None = None,
) -> Student:
    """Train a student: a potential that reproduces the labels of a teacher.

    Dynamics of a force field sample frames, starting from the given frames. The teacher labels
    all frames. The student is the sum of the force field, fitted to these labels, and a kernel
    trained on the residual. With cheaper teachers, `jaxff.learn.teach` chooses the student. A
    teacher that is a potential is returned as the student. Repeat the call to continue after an
    interruption.

    Args:
        teacher: the calculator and its settings; or frames with labels of the teacher.
        frames: M frames; their labels are not used.
        start: a force field that was fitted to the frames.
        folder: folder for unfinished work, which is not removed.
        settings: number of frames and settings of the dynamics.
        below: cheaper teachers with their students.
        progress: called with the name of a phase and the fraction done.

    Returns:
        the student, its training frames and its errors.

    Raises:
        InputError: a teacher for another molecule or charge, a teacher that fails at more than
            half of the frames, a data set with too few frames or wrong units, dynamics that fail,
            or a folder of a call with other arguments.
    """
    gdml.require_float64()
    report = progress or (lambda phase, fraction: None)
    molecule, folder = replace(frames.molecule, charge=frames.charge), Path(folder)
    start = start.matched(molecule)
    wanted = {
        "force field": jax.tree.leaves(start.params),
        "cheaper": [jax.tree.leaves(student.potential.params) for _, student in below],
        # The time that is left differs when a call is repeated.
        **asdict(replace(settings, budget=None, uncertainty=False)),
    }
    deadline = Deadline(settings.budget)
    fragments = not settings.uncertainty  # kernels on fragments have no standard errors
    training = Training(start, folder, settings.learn_metric, fragments, deadline, report)

    def cheaper(data: Dataset) -> list[Student]:
        """Students of the cheaper teachers, with their labels of training frames."""
        return [
            student._replace(labels=_labels(one, data, folder / f"cheaper-{k}.npz", report))
            for k, (one, student) in enumerate(below)
        ]

    if isinstance(teacher, Dataset):
        parts = _parts(teacher, frames, start, settings)
        claim(folder, {"teacher": teacher.fingerprint(), **wanted}, "student")
        checked = LeastSquares(check_labels=settings.check_labels)
        source = Source(len(parts.train), lambda n: parts.train[:n], checked)
        found = training.run(source, cheaper if below else None)
        return _described(found, title(teacher), parts.valid, below, settings)
    method = teacher.method
    if method.is_potential:
        potential = method.potential()
        if potential.molecule is not None:
            check_charge(potential.molecule.charge, frames)
        return Student(potential.matched(molecule), name=title(teacher))
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
    sampling = replace(settings.sampling, temperature=temperature)
    store = Store(folder / "sampled.npz", request, "sampling")
    drawn = store.load()
    if drawn is None:
        drawn = _sampled(training, molecule, known.positions, count, settings.turned, sampling)
        store.save(drawn)
    geometries = [molecule.with_positions(R) for R in drawn["positions"]]
    failures: dict[int, int] = {}  # number of failed frames by the first frame of a part

    def part(first: int, last: int, name: str) -> Dataset:
        labels = label_frames(
            geometries[first:last], folder / name, how, molecule=molecule, progress=progress
        )
        failures[first] = len(labels.failed)
        if len(labels.dataset) < (last - first) / 2:
            raise InputError(
                f"the teacher {method.name} failed at {len(labels.failed)} of {last - first} "
                "frames: correct the options of the teacher, or lower the temperature of the "
                "dynamics"
            )
        return labels.dataset

    def labelled(count: int) -> Dataset:
        if settings.budget is None or len(geometries) <= FIRST:
            return part(0, len(geometries), "frames.npz")
        few = part(0, FIRST, "first-frames.npz")
        return few if count <= FIRST else few.joined(part(FIRST, count, "frames.npz"))

    source = Source(len(geometries), labelled, UNCHECKED)
    found = training.run(source, cheaper if below else None)
    student = _described(found, title(teacher), known, below, settings)
    complete = known if not given.failed else None
    return student._replace(
        labels=complete,
        failed=len(given.failed) + sum(failures.values()),
        temperature=temperature,
    )


def title(teacher: Labelling | Dataset) -> str:
    """Name of a teacher for messages."""
    if isinstance(teacher, Dataset):
        return teacher.label
    method = teacher.method
    is_file = method.is_potential and isinstance(method.calculator, str)
    return Path(method.name).stem if is_file else method.name


def _parts(teacher: Dataset, frames: Dataset, start: Potential, settings: Distilling) -> Split:
    """Split a teacher that is a data set into frames that train and frames that test a student.

    Raises:
        InputError: the data set has too few frames, or another molecule or charge.
    """
    check_charge(teacher.charge, frames)
    data = aligned(teacher, Potential(start.program, start.params, frames.molecule))
    distinct = len(data.distinct())
    if distinct < FEWEST_GIVEN:
        raise InputError(
            f"{teacher.label} has {distinct} different frames, but a teacher needs at least "
            f"{FEWEST_GIVEN}: give more frames, or a calculator"
        )
    held_back = min(HELD_BACK, distinct // 10)
    count = min(_count(frames, settings, 0.0), distinct - held_back)
    return data.split(count, held_back, stratify=True)


def _labels(
    teacher: Labelling | Dataset, data: Dataset, path: Path, progress: Progress
) -> Dataset | None:
    """Labels of a teacher for given frames; None if there are none, or not for all frames."""
    if isinstance(teacher, Dataset) or teacher.method.is_potential:
        return None
    how = replace(teacher, skip_failed=True, name=data.name)
    molecule = replace(data.molecule, charge=data.charge)
    found = label_frames(data, path, how, molecule=molecule, progress=progress)
    return None if found.failed else found.dataset


def _described(
    found: Trained,
    name: str,
    valid: Dataset,
    below: Sequence[tuple[Labelling | Dataset, Student]],
    settings: Distilling,
) -> Student:
    """Return a trained student with its errors, and its standard errors if requested."""
    potential, data, taught, skipped = found
    scores = errors(valid, *potential.predict(valid.positions))
    unsure = None
    if settings.uncertainty:
        helper = None if taught is None else taught.chosen.teacher
        others = next((s.uncertainty for _, s in below if s.name == helper), None)
        if helper is None or others is not None:
            unsure = gdml.uncertainty(potential, data, valid, others=others)
    return Student(
        potential,
        dataset=data,
        errors=scores,
        valid=valid,
        name=name,
        taught=taught,
        uncertainty=unsure,
        skipped=skipped,
    )


def _sampled(
    training: Training,
    molecule: Molecule,
    known: np.ndarray,
    count: int,
    share: float,
    sampling: Sampling,
) -> dict:
    """Sample frames by dynamics of the force field, or fewer frames if the time is over.

    Returns:
        "positions" (M, N, 3) Å, and "fault", the reason of the first failure of the dynamics.
    """
    start, report = training.start, training.report
    stopping = Deadline(training.deadline.share(DYNAMICS)).stopping(report)
    try:
        drawn, fault = explore(start, molecule, known, (count, count), sampling, stopping)
    except OutOfTime:
        count, sampling = min(count, FEWEST), replace(sampling, equilibration=0.0)
        drawn, fault = explore(start, molecule, known, (count, count), sampling, report)
    others = turned(start, molecule, drawn[:count], round(share * count))
    positions = np.concatenate([drawn[: count - len(others)], others])
    return {"positions": positions, "fault": fault}


def _count(frames: Dataset, settings: Distilling, seconds: float) -> int:
    """Number of frames for the student, if one label takes `seconds`."""
    n_atoms, time_limit = frames.n_atoms, settings.budget
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
