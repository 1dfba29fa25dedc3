"""Data in two steps: frames from the dynamics of one potential, labels from another.

Source: Sauceda, Gastegger, Chmiela, Müller and Tkatchenko, J. Chem. Phys. 153, 124109 (2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxff import gdml, md
from jaxff.analysis.averages import Estimate
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.learn import evaluate
from jaxff.molecule import Molecule
from jaxff.potential import Potential
from jaxff.reference.label import label_frames
from jaxff.reference.selection import select

Progress = Callable[[str, float], None]
Labeller = str | Potential


@dataclass(frozen=True)
class Sampler:
    """Langevin dynamics that frames are taken from.

    Attributes:
        potential: that moves the atoms.
        temperature: K.
        spacing: fs between frames, a multiple of dt.
        equilibration: fs before the first frame.
        replicas: independent runs.
        dt: time step, fs.
        friction: 1/ps.
        stretch: a bond so many times as long as at the start stops the dynamics; None: any.
        seed: of velocities and noise.
    """

    potential: Potential
    temperature: float = 500.0
    spacing: float = 100.0
    equilibration: float = 1000.0
    replicas: int = 4
    dt: float = 0.5
    friction: float = 10.0
    stretch: float | None = 1.5
    seed: int = 0

    def sample(
        self, molecule: Molecule, n: int, starts=None, progress: Progress | None = None
    ) -> np.ndarray:
        """Positions (n, N, 3) Å in the order of time, at equal times of replicas.

        Args:
            molecule: elements, bonds and the geometry to start from.
            n: how many.
            starts: (R, N, 3) Å, of the replicas in its place.

        Raises:
            InputError: settings that cannot be used.
            SimulationError: the dynamics did not stay sound.
        """
        steps = round(self.spacing / self.dt)
        if n < 1 or steps < 1 or abs(steps * self.dt - self.spacing) > 1e-9 * self.spacing:
            raise InputError(
                f"{n} frames every {self.spacing:g} fs: the spacing must be a multiple of dt "
                f"({self.dt:g} fs), and frames at least 1"
            )
        waiting = int(np.ceil(self.equilibration / self.spacing - 1e-9))
        each = -(-n // self.replicas)
        run = md.simulate(
            self.potential,
            molecule,
            temperature=self.temperature,
            dt=self.dt,
            friction=self.friction,
            steps=steps * (waiting + each),
            record_every=steps,
            replicas=self.replicas,
            seed=self.seed,
            stretch=self.stretch,
            positions=starts,
            progress=progress,
        )
        return in_time(run)[self.replicas * (waiting + 1) :][:n]


def in_time(run: md.Run) -> np.ndarray:
    """The frames (R F, N, 3) of replicas (R, F, N, 3), in the order of time."""
    return np.swapaxes(run.positions, 0, 1).reshape(-1, *run.positions.shape[2:])


def label(
    positions,
    molecule: Molecule,
    labeller: Labeller,
    out,
    *,
    options: Mapping[str, Any] | None = None,
    workers: int = 2,
    scheduler: str | None = None,
    skip_failed: bool = False,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> Dataset:
    """Label geometries by a potential, or by a calculator as `label_frames` does; write `out`.

    Args:
        positions: (M, N, 3) Å.
        molecule: elements and charge.
        labeller: a `Potential`, or the name of a calculator.
        out: the npz file to write.
        options, workers, scheduler, skip_failed, overwrite, command, progress: see `label_frames`;
            all but `overwrite` and `command` are of calculators.

    Raises:
        InputError: as `label_frames`.
    """
    if isinstance(labeller, str):
        frames = [molecule.with_positions(r) for r in positions]
        return label_frames(
            frames, out, calculator=labeller, options=options, molecule=molecule, workers=workers,
            scheduler=scheduler, skip_failed=skip_failed, overwrite=overwrite, command=command,
            progress=progress, name=molecule.name or None,
        ).dataset  # fmt: skip
    if Path(out).exists() and not overwrite:
        raise InputError(f"{out} is there already: choose another output, or say overwrite")
    energies, forces = labeller.matched(molecule).predict(positions)
    theory = " + ".join(dict.fromkeys(p.term.kind for p in labeller.program.placed))
    data = Dataset(
        molecule.numbers, positions, forces, energies, name=molecule.name, theory=theory,
        notes={"command": command},
    )  # fmt: skip
    data.save(out)
    return data


def two_step(
    sampler: Sampler,
    labeller: Labeller,
    molecule: Molecule,
    n: int,
    out,
    *,
    by: str = "random",
    n_candidates: int | None = None,
    model=None,
    starts=None,
    progress: Progress | None = None,
    **how,
) -> Dataset:
    """A data set of frames from the dynamics of one potential with the labels of another.

    Args:
        sampler: the dynamics.
        labeller: a `Potential`, or the name of a calculator.
        molecule: elements, charge and the geometry to start from.
        n: frames to label.
        out: the npz file to write.
        by, model: see `select`; energies are the sampling potential's where `model` is None.
        n_candidates: frames to select from (None: n if `by` is "random", else 10 n).
        starts: (R, N, 3) Å, of the dynamics' replicas: molecules differ by which of their
            equivalent atoms is where, and dynamics rarely exchange them.
        progress: called with what goes on and the fraction done.
        how: options, workers, scheduler, skip_failed and command of `label`.

    Raises:
        InputError: as `select` and `label`.
        SimulationError: the dynamics did not stay sound.
    """
    n_candidates = n_candidates or (n if by == "random" else 10 * n)
    frames = sampler.sample(molecule, n_candidates, starts, progress)
    if model is None and by == "energy":
        model = sampler.potential.matched(molecule)
    chosen = select(frames, n, by, model=model, seed=sampler.seed)
    return label(frames[chosen], molecule, labeller, out, progress=progress, **how)


class CrossValidation(NamedTuple):
    """Errors of models trained on one sampling and tested on another.

    Attributes:
        names: (S,) of the samplings.
        errors: {metric: Estimate of (S, S)}: trained on the row, tested on the column; mean over
            the seeds and its standard error, NaN of one seed.
    """

    names: tuple[str, ...]
    errors: dict[str, Estimate]


def cross_validate(
    samplings: Mapping[str, Dataset],
    n_train: int,
    *,
    n_valid: int = 100,
    n_test: int = 1000,
    seeds: Sequence[int] = (0, 1, 2),
    train: Callable[[Dataset, Dataset, int], Potential] | None = None,
    progress: Progress | None = None,
) -> CrossValidation:
    """Train on each sampling and test on each: Table I of the paper.

    For one seed all models see the same test frames of a sampling, none of which, in a sampling
    of its own, a model was trained or chosen on.

    Args:
        samplings: data sets of one molecule in one atom order, at one level of theory.
        n_train, n_valid, n_test: frames of each, drawn at random.
        seeds: of the draws, a model a seed and a sampling.
        train: makes a potential of training and validation frames and a seed; None: `gdml.train`.
        progress: called with what goes on and the fraction done.

    Raises:
        InputError: no samplings or seeds, different molecules, or too few frames.
    """
    names = tuple(samplings)
    if not names or not len(seeds):
        raise InputError("cross-validation needs at least one sampling and one seed")
    first = samplings[names[0]]
    for name, data in samplings.items():
        if not np.array_equal(data.numbers, first.numbers):
            raise InputError(
                f"sampling {name!r} has other atoms, or another order, than {names[0]}"
            )
    train = _kernel if train is None else train
    tables: dict[str, list] = {}
    for k, seed in enumerate(seeds):
        splits = {
            name: data.split(n_train, n_valid, n_test, seed=seed)
            for name, data in samplings.items()
        }
        for i, name in enumerate(names):
            if progress is not None:
                progress("cross-validation", (k + i / len(names)) / len(seeds))
            potential = train(splits[name].train, splits[name].valid, seed)
            for other in names:
                for key, value in evaluate(potential, splits[other].test).items():
                    tables.setdefault(key, []).append(value)
    shape = (len(seeds), len(names), len(names))
    errors = {}
    for key, values in tables.items():
        if len(values) < np.prod(shape):  # a sampling without energies
            continue
        table = np.reshape(values, shape)
        spread = np.full(shape[1:], np.nan)
        if len(seeds) > 1:
            spread = table.std(axis=0, ddof=1) / np.sqrt(len(seeds))
        errors[key] = Estimate(table.mean(axis=0), spread)
    return CrossValidation(names, errors)


def joined(first: Dataset, second: Dataset) -> Dataset:
    """The frames of two data sets of one molecule and theory, one after the other."""
    energies = None
    if first.energies is not None and second.energies is not None:
        energies = np.concatenate([first.energies, second.energies])
    return replace(
        first,
        positions=np.concatenate([first.positions, second.positions]),
        forces=np.concatenate([first.forces, second.forces]),
        energies=energies,
        index=None,
    )


def _kernel(train: Dataset, valid: Dataset, seed: int) -> Potential:
    return gdml.train(train, valid=valid, seed=seed)
