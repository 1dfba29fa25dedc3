"""Settings of kernel models and of their training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from jaxff.errors import InputError
from jaxff.gdml.descriptor import Descriptor, descriptor_name, inverse_distances
from jaxff.settings import Settings, checked_number, choice, count, flag, number, random_seed

Progress = Callable[[str, float], None]

ENERGIES = ("offset", "constrain", None)


@dataclass(frozen=True)
class Trial:
    """Settings and validation error of one model that was trained.

    Attributes:
        sigma: length scale, 1/Å.
        lam: regularisation λ.
        prior: strength of the prior on the baseline's parameters, or None.
        n_train: number of training frames.
        solver: description of the solver.
        valid_rmse: force RMSE on the validation frames, kcal/mol/Å.
    """

    sigma: float
    lam: float
    prior: float | None
    n_train: int
    solver: str
    valid_rmse: float


@dataclass(frozen=True, eq=False)
class Kernel(Settings):
    """Settings of a kernel model.

    Args:
        lam: regularisation λ, relative to the variance of the forces.  Of several values the one
            with the smallest validation error is used.
        symmetries: "auto" (find the permutations in the frames), a group of permutations (P, N),
            or None (no symmetry).
        descriptor: function of the positions that the kernel compares, see
            `jaxff.gdml.descriptor`.
        learn_metric: use the descriptor that `gdml.learn_metric` learns from the training frames.
        energies: "offset" (energies determine the energy zero), "constrain" (energies are fitted
            together with the forces) or None (energies are not used).
        atoms: (K,) indices of the atoms that the kernel acts on (None: all).  Forces that depend on
            other atoms act as noise, which needs a larger `lam`.
        adapt_baseline: re-estimate the trainable parameters of the baseline together with the
            kernel, see `jaxff.gdml.adapt`.  A number is the strength of the prior; for True the
            validation frames determine the strength.
        fragments: largest number of bonds from the central atom of a fragment to its other heavy
            atoms, usually 2. Kernels on fragments are added, which need fewer frames (None: no
            fragments); see `jaxff.gdml.fragments`.

    Raises:
        InputError: a value is invalid, or two settings exclude each other.
    """

    lam: float | Sequence[float] = number(1e-10, above=0.0, several=True)
    symmetries: str | np.ndarray | None = "auto"
    descriptor: Descriptor = inverse_distances
    learn_metric: bool = flag(False)
    energies: str | None = choice("offset", ENERGIES)
    atoms: Sequence[int] | None = None
    adapt_baseline: bool | float = False
    fragments: int | None = count(None)

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.adapt_baseline, bool):
            prior = checked_number("adapt_baseline", self.adapt_baseline, above=0.0)
            object.__setattr__(self, "adapt_baseline", prior)
        check_symmetry_option(self.symmetries)
        if not callable(self.descriptor):
            raise InputError(
                f"descriptor={self.descriptor!r} must be a function (R, lattice) -> (D,)"
            )
        if self.learn_metric and self.descriptor is not inverse_distances:
            raise InputError(
                "learn_metric=True replaces the descriptor: leave out descriptor=, or use "
                "learn_metric=False"
            )
        if self.adapt_baseline and self.atoms is not None:
            raise InputError(
                f"adapt_baseline={self.adapt_baseline!r} needs a kernel on all atoms: leave out "
                "atoms=, or use adapt_baseline=False"
            )
        if self.fragments is None:
            return
        plain = self.descriptor is inverse_distances and not self.learn_metric
        if not plain or self.atoms is not None or self.energies == "constrain":
            raise InputError(
                f"fragments={self.fragments} cannot be combined with descriptor=, learn_metric=, "
                'atoms= or energies="constrain": leave these out, or use fragments=None'
            )

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["descriptor"] = descriptor_name(self.descriptor)
        return f"Kernel({', '.join(f'{key}={value!r}' for key, value in values.items())})"


@dataclass(frozen=True, eq=False)
class LocalKernel(Settings):
    """Settings of a local correction.

    Args:
        lam: regularisation λ, or several values to choose from.
        symmetries: "auto" (find the permutations in the frames of the whole molecule), a group of
            permutations (P, K) of the K corrected atoms, or None (no symmetry).
        reach: width of the switch, in units of the distance between neighbouring training frames;
            larger than one, see `jaxff.gdml.correction.Reach`.

    Raises:
        InputError: a value is invalid.
    """

    lam: float | Sequence[float] = number((1e-4, 1e-3, 1e-2), above=0.0, several=True)
    symmetries: str | np.ndarray | None = "auto"
    reach: float = number(2.0, above=1.0)

    def __post_init__(self):
        super().__post_init__()
        check_symmetry_option(self.symmetries)


@dataclass(frozen=True, eq=False)
class Run(Settings):
    """Settings of one run of a training.

    Args:
        seed: seed of every random choice.
        memory: limit of the memory of the whole process, GB (None: 80 % of the machine's memory).
        checkpoint: folder for finished models and the state of the solver.  After an interruption
            the same call continues the training.  The folder remains after the training; remove it
            when the model has been saved.
        progress: function called with the name of a phase and its finished fraction.
        on_trial: function called with each `Trial`.
        check_labels: before the training, compare the labels with the predictions of the
            baseline, if there is one; see `jaxff.sanity`.
        metric_seconds: time after which the search for a learnt metric ends (None: no limit).

    Raises:
        InputError: `memory` or `metric_seconds` is not positive.
    """

    seed: int = random_seed()
    memory: float | None = number(None, "GB", above=0.0)
    checkpoint: str | Path | None = None
    progress: Progress | None = None
    on_trial: Callable[[Trial], None] | None = None
    check_labels: bool = flag(True)
    metric_seconds: float | None = number(None, "s", above=0.0)

    def report(self, phase: str, fraction: float) -> None:
        """Call `progress`, if there is one."""
        if self.progress is not None:
            self.progress(phase, fraction)


# -- checks ------------------------------------------------------------------------------------


def ascending(values: float | Sequence[float], name: str) -> list[float]:
    """One or several positive numbers as an ascending list without duplicates.

    Raises:
        InputError: a value is not a positive finite number.
    """
    numbers = checked_number(name, values, above=0.0, several=True)
    return sorted(set(np.atleast_1d(numbers).tolist()))


def check_symmetry_option(symmetries: str | np.ndarray | None) -> None:
    """Raise InputError if `symmetries` is a string other than "auto"."""
    if isinstance(symmetries, str) and symmetries != "auto":
        raise InputError(f'symmetries={symmetries!r}: use "auto", None or permutations (P, N)')
