"""Settings of a simulation in addition to the ensemble: start, output and limits.

This module does not import JAX, so that the command line starts quickly.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxff.errors import InputError


def is_traced(value) -> bool:
    """Whether a value is a JAX tracer, so that its range cannot be checked."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.core.Tracer)


def checked_number(name: str, value, unit: str, *, positive: bool, several: bool = False) -> Any:
    """Check a number, and return it as a float, or several numbers as a tuple.

    JAX tracers are returned unchanged.

    Args:
        name: name of the setting, for the message.
        value: the number, or a sequence of numbers if `several`.
        unit: unit of the setting, for the message.
        positive: whether zero is not allowed.
        several: whether a sequence of numbers is allowed.

    Raises:
        InputError: a number is negative or not finite, or zero if `positive`.
    """
    if is_traced(value):
        return value
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError):
        array = np.array(np.nan)  # not a number
    fine = np.isfinite(array) & ((array > 0) if positive else (array >= 0))
    if array.size == 0 or not fine.all() or (array.size > 1 and array.ndim > several):
        need = "one number" if array.size != 1 and not several else "a number"
        need = f"{need} above 0" if positive else f"{need} that is not negative"
        raise InputError(f"{name} is {value} {unit}, but must be {need}")
    return float(array.item()) if array.size == 1 else tuple(array.tolist())


def is_number(value) -> bool:
    """Whether a value, or each value of an array, is a real number."""
    return np.asarray(value).dtype.kind in "biuf"


def checked_count(name: str, value) -> int:
    """Return a positive whole number as an int; raise `InputError` for other values."""
    if not (np.ndim(value) == 0 and is_number(value) and value >= 1 and value % 1 == 0):
        raise InputError(f"{name} is {value!r}, but must be a positive whole number")
    return int(value)


def checked_steps(steps, every: int) -> int:
    """Return `steps` as an int; raise `InputError` unless `every` divides it."""
    steps = checked_count("steps", steps)
    if steps % every:
        raise InputError(
            f"steps ({steps}) must be a multiple of output.every ({every}), so that the last state "
            "is recorded"
        )
    return steps


@dataclass(frozen=True, eq=False)
class Start:
    """Start of a simulation.

    Attributes:
        positions: (N, 3) Å, or (R, N, 3) Å of R replicas (None: the geometry of the molecule).
        velocities: (N, 3) or (R, N, 3) Å/fs (None: random, at the temperature of the ensemble).
        replicas: number R of independent replicas.  None: the length of the leading axis if
            `positions` or `velocities` have three axes, otherwise one molecule without this axis.
        seed: whole number from 0 to 2⁶³ − 1 for velocities and noise.  Replica r equals a single
            simulation with the seed ``seed + r``.

    Raises:
        InputError: `replicas` or `seed` is out of range.
    """

    positions: Any = None
    velocities: Any = None
    replicas: int | None = None
    seed: int = 0

    def __post_init__(self):
        replicas, seed = self.replicas, self.seed
        if replicas is None:
            given = [x for x in (self.positions, self.velocities) if np.ndim(x) == 3]
            replicas = len(given[0]) if given else None
        else:
            replicas = checked_count("replicas", replicas)
        if not is_traced(seed):
            if not (is_number(seed) and 0 <= seed < 2**63 and seed % 1 == 0):
                raise InputError(f"seed is {seed!r}, but must be a whole number from 0 to 2⁶³ − 1")
            seed = int(seed)
        object.__setattr__(self, "replicas", replicas)
        object.__setattr__(self, "seed", seed)


@dataclass(frozen=True)
class Output:
    """Recorded frames and files of a simulation.

    Attributes:
        path: trajectory file (None: no file).  An existing file is replaced.  The suffix determines
            the format: .extxyz, .h5 (H5MD) or .dcd.  With replicas, run.h5 becomes run-0.h5,
            run-1.h5 and so on.
        every: number of steps between recorded frames.
        restart: restart file (None: no file), written every few seconds.  If the file exists, the
            simulation continues from its state until `steps` steps are done in total.  The result
            is bitwise the same on the same hardware.
        overwrite: whether to start a new simulation even if `restart` exists.
        keep: whether the returned `Run` contains positions, velocities and forces.  If not, these
            arrays have no frames, which saves memory in long simulations.

    Raises:
        InputError: `every` is not a positive whole number, or `path` equals `restart`.
    """

    path: str | Path | None = None
    every: int = 5
    restart: str | Path | None = None
    overwrite: bool = False
    keep: bool = True

    def __post_init__(self):
        object.__setattr__(self, "every", checked_count("every", self.every))
        for name in ("path", "restart"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(value))
        files = [Path(x).resolve() for x in (self.path, self.restart) if x is not None]
        if len(set(files)) < len(files):
            raise InputError(
                f"{self.path}: the trajectory and the restart file must have different names"
            )


ON_EXTRAPOLATION = ("warn", "stop", "ignore")


@dataclass(frozen=True)
class Stop:
    """Limits that stop a simulation, in addition to numbers that are not finite.

    Attributes:
        stretch: largest allowed length of a bond, in units of its initial length (with replicas,
            the largest initial length of this bond).  None: no limit.
        max_temperature: highest allowed temperature, K; infinity means no limit.  None: a value
            that thermal fluctuations do not reach, or at constant energy a limit on the change of
            the total energy.
        on_extrapolation: "warn" counts the frames outside the training data of the potential (see
            `jaxff.domain`).  "stop" also stops the simulation a few fs after the first such frame.
            "ignore" does not compare frames.

    Raises:
        InputError: a limit is out of range, or `on_extrapolation` is unknown.
    """

    stretch: float | None = 3.0
    max_temperature: float | None = None
    on_extrapolation: str = "warn"

    def __post_init__(self):
        if self.on_extrapolation not in ON_EXTRAPOLATION:
            known = " or ".join(ON_EXTRAPOLATION)
            raise InputError(f"on_extrapolation is {self.on_extrapolation!r}, but must be {known}")
        stretch, hottest = self.stretch, self.max_temperature
        if stretch is not None and not (is_number(stretch) and stretch > 1.0):
            raise InputError(f"stretch is {stretch!r}, but must be above 1")
        if hottest is not None and not (is_number(hottest) and hottest > 0):
            raise InputError(f"max_temperature is {hottest!r} K, but must be above 0")
