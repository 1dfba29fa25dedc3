"""Active learning: sample with the model, label uncertain frames, train again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxff import gdml
from jaxff.dataset import Dataset, Split
from jaxff.domain import outside
from jaxff.errors import InputError
from jaxff.learn import errors
from jaxff.molecule import Molecule
from jaxff.npz import NpzReader
from jaxff.potential import Potential
from jaxff.reference.calculators import Method
from jaxff.reference.exploration import explore
from jaxff.reference.generation import label
from jaxff.reference.selection import force_uncertainty, select
from jaxff.reference.settings import (
    MIN_VALID,
    Labelling,
    Loop,
    Progress,
    Sampling,
)
from jaxff.saved import save
from jaxff.store import check_request, described

FORMAT = "jaxff active learning 2"
# One frame in five, within these limits, is a validation frame, to choose the width of the kernel.
VALID_SHARE, MAX_VALID = 5, 100


class Round(NamedTuple):
    """One round of active learning.

    Attributes:
        n_frames: number of labelled frames on which the model is trained and validated.
        force_rmse: error of its forces on the frames that are labelled next, kcal/mol/Å.
        force_mae: the same as a mean absolute error, kcal/mol/Å.
        expected: standard error of these forces that the model predicts, kcal/mol/Å.
        fault: why the dynamics of the model ended early; "" if they did not.
        extrapolation: the frames of these dynamics that lie outside the training data of the model;
            None in files of earlier versions.
    """

    n_frames: int
    force_rmse: float
    force_mae: float
    expected: float
    fault: str
    extrapolation: dict[str, Any] | None = None


@dataclass(frozen=True)
class ActiveLearning:
    """The result of active learning.

    Attributes:
        potential: the model, trained on all frames of `dataset`.
        dataset: all labelled frames.
        rounds: the rounds in order, including those of interrupted runs.
        reached: whether the last error is within the target; otherwise the budget was used up.
    """

    potential: Potential
    dataset: Dataset
    rounds: tuple[Round, ...]
    reached: bool


def active_learning(
    potential: Potential,
    molecule: Molecule,
    out: str | Path,
    loop: Loop,
    labelling: Labelling = Labelling(),
    sampling: Sampling = Sampling(),
    *,
    baseline: Potential | None = None,
    progress: Progress | None = None,
) -> ActiveLearning:
    """Label frames where a model is uncertain, until its forces are accurate.

    The first frames are those of the dynamics of `potential` that are farthest apart. Each round
    then trains a kernel, runs its dynamics from labelled frames, labels the frames of which it is
    most uncertain (`select` by "uncertainty"), and takes the error of its forces on them. These
    frames are harder than the average, so the error is larger than on frames drawn at random.

    Dynamics that fail contribute the frames before the failure. If these are too few, dynamics
    start again from other frames, up to five times.

    All labels are kept in ``out/data.npz``, which is written after each round. After an
    interruption the same call continues from there and ends with the same model. A lower target
    or more `max_frames` continue a finished run.

    Args:
        potential: potential whose dynamics give the first frames.
        molecule: elements, charge and starting geometry.
        out: folder for data.npz and model.npz, created if it does not exist.
        loop: how many frames are labelled, and when the loop ends.
        labelling: the calculator that labels them. Frames that fail are left out, and files are
            overwritten.
        sampling: the dynamics.
        baseline: potential whose residual the kernel learns, which keeps early models stable.
        progress: called with a phase and the fraction done.

    Raises:
        InputError: settings that cannot be used, a data.npz of another run, float64 not enabled,
            or dynamics that fail before they give enough frames.
    """
    gdml.require_float64()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if baseline is not None:  # its molecule would be compared with bonds perceived from few frames
        baseline = baseline.matched(molecule)
        baseline = Potential(baseline.program, baseline.params, trained=baseline.trained)
    labelling.method.make(molecule.charge, molecule)  # raises errors before any dynamics
    labelling = replace(labelling, skip_failed=True, overwrite=True)
    request = {
        "geometry": molecule.positions,
        "labels": labelling.method.settings(molecule),
        "potential": Method(potential).settings(molecule),
        "sampling": asdict(sampling),
        "baseline": baseline and Method(baseline).settings(molecule),
        "n_round": loop.n_round,
        "n_initial": loop.n_initial,
        "n_candidates": loop.n_candidates,
        "training": {key: str(value) for key, value in sorted(loop.training.items())},
    }
    history = _History(out / "data.npz", described(request), labelling.command)
    data, rounds = history.read()
    if data is None:
        frames = sampling.frames(potential, molecule, 10 * loop.n_initial, progress=progress)
        frames = frames[select(frames, loop.n_initial, "farthest")]
        data = label(frames, molecule, out / "new.npz", labelling, progress)
        history.write(data, rounds)
    while True:
        split = _split(data, sampling.seed)
        model = gdml.train(
            split.train,
            split.valid,
            baseline=baseline,
            run=gdml.Run(seed=sampling.seed, progress=progress, check_labels=False),
            **loop.training,
        )
        model = Potential(model.program, model.params, molecule, trained=model.trained)
        save(out / "model.npz", model)
        reached = bool(rounds) and rounds[-1].force_rmse <= loop.target
        n = min(loop.n_round, loop.max_frames - len(data))
        if reached or n < 1:
            return ActiveLearning(model, data, tuple(rounds), reached)
        seed = sampling.seed + 1000 * (len(rounds) + 1)
        now = replace(sampling, equilibration=0.0, seed=seed)
        count = n, loop.n_candidates
        frames, fault = explore(model, molecule, data.positions, count, now, progress)
        uncertainty = gdml.uncertainty(model, split.train, split.valid, seed=sampling.seed)
        predicted = force_uncertainty(uncertainty, frames)
        chosen = select(frames, n, "uncertainty", model=predicted, known=data.positions)
        expected = np.sqrt(np.mean(predicted[chosen] ** 2))
        new = label(frames[chosen], molecule, out / "new.npz", labelling, progress)
        score = errors(new, *model.predict(new.positions))
        done = Round(
            len(data), score["force_rmse"], score["force_mae"], float(expected), fault,
            _compared(model, frames),
        )  # fmt: skip
        rounds, data = [*rounds, done], data.joined(new)
        history.write(data, rounds)
        if progress is not None:
            progress(
                f"{done.n_frames} frames: force RMSE {done.force_rmse:.3f} kcal/mol/Å on "
                f"{len(new)} new ones, {done.expected:.3f} expected",
                1.0,
            )


@dataclass(frozen=True)
class _History:
    """The data set on disk with the request and the rounds that led to it."""

    path: Path
    request: dict
    command: str

    def read(self) -> tuple[Dataset | None, list[Round]]:
        """The labelled frames and the rounds; None and [] at the start."""
        if not self.path.exists():
            return None, []
        try:
            header = json.loads(NpzReader(self.path, "data set").text("active"))
            known, rounds = header["request"], [Round(*values) for values in header["rounds"]]
            if header["format"] != FORMAT:
                raise KeyError("format")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.path} was not written by active learning ({FORMAT}): name another folder, "
                "or remove it"
            ) from error
        check_request(self.path, known, self.request, "active-learning run")
        # The units are known. Whether the values are plausible cannot be judged by few frames.
        return Dataset.load(self.path, check=False), rounds

    def write(self, data: Dataset, rounds: list[Round]) -> None:
        """Write the labelled frames with the rounds, completely or not at all."""
        header = {"format": FORMAT, "request": self.request, "rounds": rounds}
        notes = {**data.notes, "command": self.command, "active": json.dumps(header)}
        replace(data, notes=notes).save(self.path)
        self.path.with_name("new.npz").unlink(missing_ok=True)


def _compared(model: Potential, frames: np.ndarray) -> dict[str, Any] | None:
    """How many frames (M, N, 3) Å lie outside the training data of a model, as JSON values."""
    found = outside(model.trained, frames, model.predict(frames)[0])
    return None if found is None else found.summary()


def _split(data: Dataset, seed: int) -> Split:
    n_valid = int(np.clip(len(data) // VALID_SHARE, MIN_VALID, MAX_VALID))
    return data.split(len(data) - n_valid, n_valid, 0, seed=seed, stratify=True)
