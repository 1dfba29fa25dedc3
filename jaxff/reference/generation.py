"""Generation of data sets in two steps: frames from one potential, labels from another.

Source: Sauceda, Gastegger, Chmiela, Müller and Tkatchenko, J. Chem. Phys. 153, 124109 (2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxff import gdml
from jaxff.analysis.averages import Estimate
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.standard_errors import Uncertainty
from jaxff.learn import evaluate
from jaxff.molecule import Molecule
from jaxff.potential import Potential
from jaxff.reference.label import label_frames
from jaxff.reference.selection import select
from jaxff.reference.settings import Labelling, Progress, Sampling
from jaxff.settings import Settings, count

CANDIDATES = 10  # sampled frames for each selected frame


@dataclass(frozen=True, eq=False)
class Selection(Settings):
    """Settings for the selection of the frames to label.

    Attributes:
        n: number of frames to label.
        by: criterion of the selection; see `select`.
        candidates: number of sampled frames; None for `n` ("random") or 10 `n` (other criteria).
        model: model for the selection, see `select`. None with "energy": the sampling potential.
    """

    n: int = count()
    by: str = "random"
    candidates: int | None = count(None)
    model: Potential | Uncertainty | None = None

    def sample(
        self,
        potential: Potential,
        molecule: Molecule,
        sampling: Sampling,
        *,
        starts: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Sample frames by dynamics and return the selected positions (n, N, 3) Å.

        The arguments are those of `two_step`.
        """
        count = self.candidates or (self.n if self.by == "random" else CANDIDATES * self.n)
        frames = sampling.frames(potential, molecule, count, starts=starts, progress=progress)
        model = self.model
        if model is None and self.by == "energy":
            model = potential.matched(molecule)
        return frames[select(frames, self.n, self.by, model=model, seed=sampling.seed)]


def two_step(
    potential: Potential,
    molecule: Molecule,
    out: str | Path,
    selection: Selection,
    labelling: Labelling = Labelling(),
    sampling: Sampling = Sampling(),
    *,
    starts: np.ndarray | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Sample frames with one potential, and label selected frames with a better method.

    Args:
        potential: potential for the sampling.
        molecule: elements, charge and starting geometry.
        out: the npz file to write.
        selection: number of frames to label, and criterion of their selection.
        labelling: the calculator that labels.
        sampling: settings of the dynamics.
        starts: starting geometries of the replicas (R, N, 3) Å; None for the geometry of
            `molecule`. Give several geometries for molecules with equivalent atoms, which dynamics
            rarely exchange.
        progress: called with the name of a phase and the fraction done.

    Returns:
        the labelled frames.

    Raises:
        InputError: as for `select` and `label_frames`.
        SimulationError: the dynamics failed.
    """
    frames = selection.sample(potential, molecule, sampling, starts=starts, progress=progress)
    return label(frames, molecule, out, labelling, progress)


def label(
    positions: np.ndarray,
    molecule: Molecule,
    out: str | Path,
    labelling: Labelling,
    progress: Progress | None = None,
) -> Dataset:
    """Label positions (M, N, 3) Å of a molecule; see `label_frames`."""
    frames = [molecule.with_positions(r) for r in positions]
    labelling = replace(labelling, name=labelling.name or molecule.name or None)
    return label_frames(frames, out, labelling, molecule=molecule, progress=progress).dataset


class CrossValidation(NamedTuple):
    """Errors of models that were trained on one sampling and tested on another.

    Attributes:
        names: (S,) names of the samplings.
        errors: for each metric an `Estimate` (S, S): mean over the seeds and standard error (NaN
            for a single seed). Rows are training samplings, columns are test samplings.
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
    """Train on each sampling and test on all samplings.

    For each seed, the test frames of a sampling are the same for all models. No model was trained
    on these test frames. Source: Sauceda et al., Table I.

    Args:
        samplings: data sets by name, of one molecule in one atom order and one level of theory.
        n_train: number of training frames, drawn at random.
        n_valid: number of validation frames.
        n_test: number of test frames.
        seeds: random seeds; one model is trained for each seed and sampling.
        train: function of training frames, validation frames and a seed that returns a potential;
            None for `gdml.train`.
        progress: called with the name of a phase and the fraction done.

    Returns:
        the errors for each pair of a training sampling and a test sampling.

    Raises:
        InputError: no samplings or seeds, different molecules, or too few frames.
    """
    names = tuple(samplings)
    if not names or not len(seeds):
        raise InputError(
            f"{len(names)} samplings and {len(seeds)} seeds: cross-validation needs at least one "
            "of each"
        )
    first = samplings[names[0]]
    for name, data in samplings.items():
        if not np.array_equal(data.numbers, first.numbers):
            raise InputError(
                f"sampling {name!r} has different atoms from {names[0]}, or another atom order; "
                "give data of one molecule"
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


def _kernel(train: Dataset, valid: Dataset, seed: int) -> Potential:
    return gdml.train(train, valid, run=gdml.Run(seed=seed))
