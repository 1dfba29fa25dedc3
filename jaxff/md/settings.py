"""Settings of a simulation in addition to the ensemble: start, output and limits.

This module does not import JAX, so that the command line starts quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxff.errors import InputError
from jaxff.settings import (
    Settings,
    checked_count,
    choice,
    count,
    flag,
    number,
    random_seed,
)


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
class Start(Settings):
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
    replicas: int | None = count(None)
    seed: int = random_seed()

    def __post_init__(self):
        if self.replicas is None:
            given = [x for x in (self.positions, self.velocities) if np.ndim(x) == 3]
            object.__setattr__(self, "replicas", len(given[0]) if given else None)
        super().__post_init__()


@dataclass(frozen=True)
class Output(Settings):
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
        wrap: whether files contain each molecule of a periodic box, as a whole, in the image whose
            centre of mass is in the box.  If not, molecules are never moved to another image.

    Raises:
        InputError: `every` is not a positive whole number, or `path` equals `restart`.
    """

    path: str | Path | None = None
    every: int = count(5)
    restart: str | Path | None = None
    overwrite: bool = flag(False)
    keep: bool = flag(True)
    wrap: bool = flag(False)

    def __post_init__(self):
        super().__post_init__()
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
class Stop(Settings):
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

    stretch: float | None = number(3.0, above=1.0, infinite=True, optional=True)
    max_temperature: float | None = number(None, "K", above=0.0, infinite=True)
    on_extrapolation: str = choice("warn", ON_EXTRAPOLATION)
