"""Active learning: sample with the model, label uncertain frames, and train again."""

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
    SETTING_UP,
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
        n_frames: number of labelled frames for training and validation of the model.
        force_rmse: RMSE of the forces on the newly labelled frames, kcal/mol/Å.
        force_mae: mean absolute error of the forces on the newly labelled frames, kcal/mol/Å.
        expected: predicted standard error of the forces on the new frames, kcal/mol/Å.
        fault: reason why the dynamics of the model ended early; "" if the dynamics completed.
        extrapolation: summary of the frames of the dynamics outside the training data; None in
            files of earlier versions.
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
        reached: whether the force RMSE of the last round is at most the target.
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
    """Train a kernel by labelling frames where the kernel is uncertain.

    The first frames are sampled by dynamics of `potential`. Each round then trains a kernel, and
    samples by dynamics of the kernel. `select` chooses the frames that are labelled, by default
    those with the largest predicted errors, and the force errors on these frames are measured.
    These errors are larger than on random frames.

    If dynamics fail, the frames before the failure are used. With too few frames, dynamics are
    repeated from other frames, up to five times.

    All labels are written to ``out/data.npz`` after each round. After an interruption, repeat the
    call to continue; the final model is the same as without the interruption. To continue a
    finished run, lower the target or raise `max_frames`.

    Args:
        potential: potential that samples the first frames.
        molecule: elements, charge and starting geometry.
        out: folder for data.npz and model.npz, created if necessary.
        loop: numbers of frames to label, and the target.
        labelling: the calculator that labels. Frames that fail are omitted, and existing files are
            overwritten.
        sampling: settings of the dynamics.
        baseline: potential that the kernel corrects; a baseline keeps early models stable.
        progress: called with the name of a phase and the fraction done.

    Returns:
        the model, all labelled frames, and the errors of each round.

    Raises:
        InputError: unusable settings, a data.npz of a run with other arguments, float64 not
            enabled, or dynamics that fail before giving enough frames.
    """
    gdml.require_float64()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if baseline is not None:  # few frames may give other bonds than the molecule of the baseline
        baseline = baseline.matched(molecule)
        baseline = Potential(baseline.program, baseline.params, trained=baseline.trained)
    if progress is not None:
        progress(SETTING_UP, 0.0)
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
        "by": loop.by,
        "training": {key: str(value) for key, value in sorted(loop.training.items())},
    }
    history = _History(out / "data.npz", described(request), labelling.command)
    data, rounds = history.read()
    if data is None:
        frames = sampling.frames(potential, molecule, 10 * loop.n_initial, progress=progress)
        group = gdml.find_symmetries(frames, molecule)
        frames = frames[select(frames, loop.n_initial, "farthest", permutations=group)]
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
        kernels = [p.term for p in model.program.placed if isinstance(p.term, gdml.KernelTerm)]
        chosen = select(
            frames, n, loop.by, model=predicted, known=data.positions,
            permutations=kernels[-1].permutations, seed=seed,
        )  # fmt: skip
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
                f"{len(new)} new frames, {done.expected:.3f} expected",
                1.0,
            )


@dataclass(frozen=True)
class _History:
    """The data set on disk, with the request and the rounds of active learning."""

    path: Path
    request: dict
    command: str

    def read(self) -> tuple[Dataset | None, list[Round]]:
        """Read the labelled frames and the rounds; None and [] if there is no file."""
        if not self.path.exists():
            return None, []
        try:
            header = json.loads(NpzReader(self.path, "data set").text("active"))
            known, rounds = header["request"], [Round(*values) for values in header["rounds"]]
            if header["format"] != FORMAT:
                raise KeyError("format")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.path} was not written by active learning ({FORMAT}): give another output "
                "folder, or remove this file"
            ) from error
        check_request(self.path, known, self.request, "active-learning run")
        # The units are known, and few frames do not allow a check of the values.
        return Dataset.load(self.path, check=False), rounds

    def write(self, data: Dataset, rounds: list[Round]) -> None:
        """Write the labelled frames and the rounds atomically."""
        header = {"format": FORMAT, "request": self.request, "rounds": rounds}
        notes = {**data.notes, "command": self.command, "active": json.dumps(header)}
        replace(data, notes=notes).save(self.path)
        self.path.with_name("new.npz").unlink(missing_ok=True)


def _compared(model: Potential, frames: np.ndarray) -> dict[str, Any] | None:
    """Summarise how many frames (M, N, 3) Å are outside the training data of a model."""
    found = outside(model.trained, frames, model.predict(frames)[0])
    return None if found is None else found.summary()


def _split(data: Dataset, seed: int) -> Split:
    n_valid = int(np.clip(len(data) // VALID_SHARE, MIN_VALID, MAX_VALID))
    return data.split(len(data) - n_valid, n_valid, 0, seed=seed, stratify=True)
