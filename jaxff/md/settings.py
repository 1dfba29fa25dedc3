"""Settings of a simulation apart from its ensemble: start, output and limits.

This module imports no JAX, so that the command line can read the defaults quickly.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxff.errors import InputError


def is_traced(value) -> bool:
    """Whether JAX traces a value, so that its range cannot be checked."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.core.Tracer)


def checked_number(name: str, value, unit: str, *, positive: bool, several: bool = False) -> Any:
    """A finite number as a float; traced values are returned as they are.

    Args:
        name: name of the setting, for the message.
        value: the number.
        unit: unit of the setting, for the message.
        positive: refuse zero; negative numbers are always refused.
        several: allow a sequence of numbers, returned as a tuple.

    Raises:
        InputError: the number is out of range.
    """
    if is_traced(value):
        return value
    array = np.asarray(value, float)
    fine = np.isfinite(array) & ((array > 0) if positive else (array >= 0))
    if array.size == 0 or not fine.all() or (array.size > 1 and not several):
        need = "one number" if array.size != 1 and not several else "a number"
        need = f"{need} above 0" if positive else f"{need} that is not negative"
        raise InputError(f"{name} is {value} {unit}: it must be {need}")
    return float(array.item()) if array.size == 1 else tuple(array.ravel().tolist())


def checked_count(name: str, value) -> int:
    """Return a positive integer as an int; raise InputError for other values."""
    if not (value >= 1 and value % 1 == 0):
        raise InputError(f"{name} is {value}: it must be a positive integer")
    return int(value)


def checked_steps(steps, every: int) -> int:
    """Return a number of steps as an int; raise InputError unless `every` divides it."""
    steps = checked_count("steps", steps)
    if steps % every:
        raise InputError(
            f"steps ({steps}) must be a multiple of output.every ({every}): the last frame is the "
            "end of the simulation"
        )
    return steps


@dataclass(frozen=True, eq=False)
class Start:
    """Start of a simulation.

    Attributes:
        positions: (N, 3) Å, or (R, N, 3) of R replicas; None: the geometry of the molecule.
        velocities: the same shapes, Å/fs; None: drawn at the temperature of the ensemble.
        replicas: number R of molecules that run at the same time, independent of each other.
            None: the leading axis of positions or velocities with three axes, otherwise one
            molecule without an axis of replicas.
        seed: integer from 0 to 2⁶³ - 1 for the velocities and the noise.  Replica r is the single
            simulation with the seed `seed + r`.

    Raises:
        InputError: the number of replicas or the seed cannot be used.
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
            if not (0 <= seed < 2**63 and seed % 1 == 0):
                raise InputError(f"seed is {seed}: it must be an integer from 0 to 2⁶³ - 1")
            seed = int(seed)
        object.__setattr__(self, "replicas", replicas)
        object.__setattr__(self, "seed", seed)


@dataclass(frozen=True)
class Output:
    """Frames that a simulation records, and the files that it writes.

    Attributes:
        path: trajectory file, replaced at the start and extended during the simulation.  The
            suffix chooses the format: .extxyz, .h5 (H5MD) or .dcd.  With replicas, run.h5 becomes
            run-0.h5, run-1.h5 and so on.  None: no file.
        every: steps between recorded frames.
        restart: restart file, written every few seconds together with the trajectory.  If it
            exists, the simulation continues from it, bit for bit on the same hardware, until
            the requested number of steps is done in total.  None: no file.
        overwrite: start a new simulation even if `restart` exists.  The earlier restart file is
            replaced when the new trajectory has begun; until then the earlier run can be continued.
        keep: whether the returned `Run` contains positions, velocities and forces.  Without them
            these arrays have no frames, and long simulations need little memory.

    Raises:
        InputError: `every` is not a positive integer, or both files are the same.
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
            raise InputError(f"{self.path}: give the trajectory and the restart file two names")


ON_EXTRAPOLATION = ("warn", "stop", "ignore")


@dataclass(frozen=True)
class Stop:
    """Limits that stop a simulation; numbers that are not finite always stop it.

    Attributes:
        stretch: largest allowed length of a bond, in units of its length at the start (of the
            longest one among the replicas).  None: bonds may break.
        max_temperature: K, highest allowed temperature; infinity allows every temperature.  None:
            a temperature that thermal fluctuations cannot reach.  At constant energy, None limits
            the change of the total energy instead.
        on_extrapolation: what happens if a frame is outside the training data of the potential
            (see `jaxff.domain`): "warn" counts such frames, "stop" also stops at the first one,
            which is noticed within a few fs, and "ignore" does not compare the frames.

    Raises:
        InputError: a limit is out of range.
    """

    stretch: float | None = 3.0
    max_temperature: float | None = None
    on_extrapolation: str = "warn"

    def __post_init__(self):
        if self.on_extrapolation not in ON_EXTRAPOLATION:
            known = ", ".join(ON_EXTRAPOLATION)
            raise InputError(f"on_extrapolation is {self.on_extrapolation!r}: use one of {known}")
        if self.stretch is not None and not self.stretch > 1.0:
            raise InputError(f"stretch is {self.stretch}: it must be above 1")
        if self.max_temperature is not None and not self.max_temperature > 0:
            raise InputError(f"max_temperature is {self.max_temperature} K: it must be above 0")
