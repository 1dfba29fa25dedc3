"""Active learning: sample with the model, label where it is unsure, train again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxff import gdml
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.learn import errors
from jaxff.md import SimulationError
from jaxff.molecule import Molecule
from jaxff.npz import NpzReader, digest
from jaxff.potential import Potential
from jaxff.reference.calculators import Method
from jaxff.reference.generation import Labeller, Progress, Sampler, in_time, joined, label
from jaxff.reference.selection import force_uncertainty, select
from jaxff.saved import save

FORMAT = "jaxff active learning 1"
VALID_SHARE, MIN_VALID, MAX_VALID = 5, 4, 100  # one frame in five chooses the kernel's width
ATTEMPTS = 5  # of the dynamics, where they stop before there are enough frames
TRAINING = {"sigma": (10.0, 20.0, 40.0, 80.0)}


class Round(NamedTuple):
    """One turn of the loop.

    Attributes:
        n_frames: labelled frames before it, training and validation ones.
        force_rmse, force_mae: kcal/mol/Å, of the model made of them, on the frames labelled next.
        expected: kcal/mol/Å, the standard error of their forces that the model gave.
        fault: what stopped the model's dynamics early, "" if nothing did.
    """

    n_frames: int
    force_rmse: float
    force_mae: float
    expected: float
    fault: str


@dataclass(frozen=True)
class ActiveLearning:
    """What active learning made.

    Attributes:
        potential: trained on all of `dataset`.
        dataset: all labelled frames.
        rounds: the turns, in order, those of an interrupted run included.
        reached: whether the last error is within the target; else the budget was spent.
    """

    potential: Potential
    dataset: Dataset
    rounds: tuple[Round, ...]
    reached: bool


def active_learning(
    sampler: Sampler,
    labeller: Labeller,
    molecule: Molecule,
    out,
    *,
    target: float,
    n_round: int = 20,
    n_initial: int = 50,
    max_frames: int = 500,
    n_candidates: int = 400,
    baseline: Potential | None = None,
    options: Mapping[str, Any] | None = None,
    workers: int = 2,
    scheduler: str | None = None,
    training: Mapping[str, Any] = TRAINING,
    command: str = "",
    progress: Progress | None = None,
) -> ActiveLearning:
    """Label few frames, where they tell most, until the model's forces are good enough.

    The first frames are those farthest apart in the dynamics of the sampler's potential.  Then, in
    turns: a kernel is trained, its dynamics run from labelled frames, those of which it is least
    sure are labelled (`select` by "uncertainty"), and its error on them is taken.  They are the
    worst of what it met, so an error on them is above that on frames drawn at random.

    Dynamics that explode give the frames before that; they start again, elsewhere, up to five
    times while there are too few.  All labels stand in ``out/data.npz``, written after each turn:
    the same call goes on from there after an interruption and ends with the same model; a lower
    `target` or more `max_frames` carry a finished run on.

    Args:
        sampler: the dynamics; its potential samples the first frames only.
        labeller: a `Potential`, or the name of a calculator.
        molecule: elements, charge and the geometry to start from.
        out: folder for data.npz and model.npz, made if need be.
        target: force RMSE on the frames labelled last, kcal/mol/Å, at which to stop.
        n_round: frames labelled in a turn.
        n_initial: frames labelled before the first.
        max_frames: the budget of labels.
        n_candidates: frames of the model's dynamics in a turn, to select from.
        baseline: whose residual the kernel learns, which keeps early models from exploding.
        options, workers, scheduler, command: of a calculator, see `label_frames`; frames that
            fail are left out.
        training: arguments of `gdml.train`.
        progress: called with what goes on and the fraction done.

    Raises:
        InputError: settings that cannot be used, a data.npz of another run, float64 not enabled,
            or dynamics that explode before they give frames enough.
    """
    _check(target, n_round, n_initial, max_frames, n_candidates)
    gdml.system.require_float64()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if baseline is not None:  # bonds perceived from a few hot frames must not speak for its own
        baseline = baseline.matched(molecule)
        baseline = Potential(baseline.program, baseline.params)
    if isinstance(labeller, str):  # complain before any dynamics
        Method(labeller, dict(options or {})).make(molecule.charge, molecule)
    how = {
        "options": options, "workers": workers, "scheduler": scheduler, "progress": progress,
        "skip_failed": True, "overwrite": True,
    }  # fmt: skip
    settings = {
        "molecule": digest(molecule.numbers, molecule.positions, molecule.charge),
        "labels": _identity(labeller, molecule, options),
        "sampler": {**vars(sampler), "potential": _identity(sampler.potential, molecule)},
        "baseline": None if baseline is None else _identity(baseline, molecule),
        "n_round": n_round,
        "n_initial": n_initial,
        "n_candidates": n_candidates,
        "training": {key: str(value) for key, value in sorted(training.items())},
    }
    state = _State(out / "data.npz", settings, command)
    data, rounds = state.read()
    if data is None:
        frames = sampler.sample(molecule, 10 * n_initial, progress=progress)
        frames = frames[select(frames, n_initial, "farthest")]
        data = label(frames, molecule, labeller, out / "new.npz", **how)
        state.write(data, rounds)
    while True:
        split = _parts(data, sampler.seed)
        potential = gdml.train(
            split.train, valid=split.valid, baseline=baseline, seed=sampler.seed,
            progress=progress, **training,
        )  # fmt: skip
        potential = Potential(potential.program, potential.params, molecule)
        save(out / "model.npz", potential)
        reached = bool(rounds) and rounds[-1].force_rmse <= target
        n = min(n_round, max_frames - len(data))
        if reached or n < 1:
            return ActiveLearning(potential, data, tuple(rounds), reached)
        now = replace(sampler, potential=potential, seed=sampler.seed + 1000 * (len(rounds) + 1))
        frames, fault = _explored(now, molecule, data, n, n_candidates, progress)
        unsure = gdml.uncertainty(potential, split.train, split.valid, seed=sampler.seed)
        doubts = force_uncertainty(unsure, frames)
        chosen = select(frames, n, "uncertainty", model=doubts, known=data.positions)
        expected = np.sqrt(np.mean(doubts[chosen] ** 2))
        new = label(frames[chosen], molecule, labeller, out / "new.npz", **how)
        score = errors(new, *potential.predict(new.positions))
        turn = Round(len(data), score["force_rmse"], score["force_mae"], float(expected), fault)
        rounds, data = [*rounds, turn], joined(data, new)
        state.write(data, rounds)
        if progress is not None:
            progress(
                f"{turn.n_frames} frames: force RMSE {turn.force_rmse:.3f} kcal/mol/Å on "
                f"{len(new)} new ones, {turn.expected:.3f} expected",
                1.0,
            )


@dataclass(frozen=True)
class _State:
    """The data set on disk with what led to it."""

    path: Path
    settings: dict
    command: str

    def read(self) -> tuple[Dataset | None, list[Round]]:
        if not self.path.exists():
            return None, []
        try:
            header = json.loads(NpzReader(self.path, "data set").text("active"))
            known, rounds = header["settings"], [Round(*turn) for turn in header["rounds"]]
            if header["format"] != FORMAT:
                raise KeyError("format")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.path} is not of a {FORMAT}; name another folder, or remove it"
            ) from error
        wanted = json.loads(json.dumps(self.settings))
        changed = sorted(k for k in {*known, *wanted} if known.get(k) != wanted.get(k))
        if changed:
            raise InputError(
                f"{self.path} was made with another {', '.join(changed)}: continue with the "
                "settings it was begun with, or name another folder"
            )
        # Units are known; whether they can be right need not be asked of few frames.
        return Dataset.load(self.path, energy_unit="kcal/mol"), rounds

    def write(self, data: Dataset, rounds: list[Round]) -> None:
        header = {"format": FORMAT, "settings": self.settings, "rounds": rounds}
        notes = {**data.notes, "command": self.command, "active": json.dumps(header)}
        replace(data, notes=notes).save(self.path)
        self.path.with_name("new.npz").unlink(missing_ok=True)


def _explored(sampler, molecule, data, n, n_candidates, progress) -> tuple[np.ndarray, str]:
    """Frames of the model's dynamics from labelled ones, and what stopped these, if anything."""
    found, fault = [], ""
    rng = np.random.default_rng(sampler.seed)
    for attempt in range(ATTEMPTS):
        starts = data.positions[rng.integers(len(data), size=sampler.replicas)]
        one = replace(sampler, equilibration=0.0, seed=sampler.seed + 100 * attempt)
        try:
            found.append(one.sample(molecule, n_candidates, starts, progress))
        except SimulationError as error:
            fault = fault or str(error)
            # The starts have labels; all else is sound.
            found.append(in_time(error.run)[sampler.replicas :])
        if sum(map(len, found)) >= n:
            return np.concatenate(found), fault
    raise InputError(
        f"the dynamics of a model of {len(data)} frames stopped {ATTEMPTS} times before giving {n} "
        f"frames ({fault}): label more initial frames, give a baseline, or lower the temperature"
    )


def _parts(data: Dataset, seed: int):
    n_valid = int(np.clip(len(data) // VALID_SHARE, MIN_VALID, MAX_VALID))
    return data.split(len(data) - n_valid, n_valid, 0, seed=seed, stratify=True)


def _identity(labeller: Labeller, molecule: Molecule, options=None):
    """What tells one potential or calculator from another."""
    if isinstance(labeller, str):
        method = Method(labeller, dict(options or {}))
        return [method.name, dict(method.all_options), method.version]
    return digest(labeller.params, *labeller.matched(molecule).predict(molecule.positions[None]))


def _check(target, n_round, n_initial, max_frames, n_candidates) -> None:
    if not target > 0:
        raise InputError(f"target is {target} kcal/mol/Å, it must be positive")
    if n_initial < 2 * MIN_VALID or n_round < 1:
        raise InputError(
            f"n_initial is {n_initial} and n_round {n_round}: at least {2 * MIN_VALID} and 1"
        )
    if max_frames < n_initial or n_candidates < n_round:
        raise InputError(
            f"max_frames ({max_frames}) must be at least n_initial ({n_initial}), and n_candidates "
            f"({n_candidates}) at least n_round ({n_round})"
        )
