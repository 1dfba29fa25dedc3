"""Frames of a simulation that lie outside the training data of its potential."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from jaxff.domain import Trained, outside
from jaxff.md.integrate import Frame
from jaxff.md.settings import Stop

# Largest time between the frames that are compared if the simulation shall stop, fs.
SPACING = 5.0


@dataclass(frozen=True)
class Extrapolation:
    """The frames outside the training data.

    Attributes:
        frames: number of frames that were compared, of all replicas.
        outside: number of those that lie outside.
        step: step of the first of these; None if there is none.
        replica: its replica; None for one molecule without an axis of replicas.
        reason: why it lies outside; "" if there is none.
        energy_below: kcal/mol, how far an energy was below all training energies, at most.
    """

    frames: int
    outside: int
    step: int | None
    replica: int | None
    reason: str
    energy_below: float

    @property
    def share(self) -> float:
        """Share of the frames that lie outside."""
        return self.outside / max(self.frames, 1)


@dataclass
class Watch:
    """Compares the frames of a simulation with the training data of its potential.

    Attributes:
        trained: training data of the potential, in the atom order of the frames.
        stop: the setting `on_extrapolation`.
    """

    trained: tuple[Trained, ...]
    stop: Stop
    flags: list[np.ndarray] = field(default_factory=list)
    first: tuple[int, int | None, str] | None = None
    energy_below: float = 0.0

    @property
    def active(self) -> bool:
        """Whether frames are compared."""
        return bool(self.trained) and self.stop.on_extrapolation != "ignore"

    @property
    def stops(self) -> bool:
        """Whether the simulation stops at the first frame outside."""
        return self.active and self.stop.on_extrapolation == "stop"

    def interval(self, every: int, dt) -> int:
        """Steps between frames that are compared, a divisor of `every`."""
        most = max(int(SPACING / dt), 1)
        if not self.stops or every <= most:
            return every
        return next(n for n in range(most, 0, -1) if every % n == 0)

    def compare(self, frames: Frame, steps: np.ndarray) -> int | None:
        """Compare frames at the given steps (F,); return the index of the first one outside."""
        if not self.active:
            return None
        R = np.asarray(frames.positions, float)
        alone = R.ndim == 3
        energies = np.asarray(frames.potential, float).reshape(-1)
        found = outside(self.trained, R.reshape(-1, *R.shape[-2:]), energies)
        if found is None:
            return None
        flags = found.frames.reshape(len(R), -1)
        self.flags.append(flags)
        self.energy_below = max(self.energy_below, float(found.energies.max(initial=0.0)))
        if not flags.any():
            return None
        frame, replica = map(int, np.argwhere(flags)[0])
        if self.first is None:
            self.first = (int(steps[frame]), None if alone else replica, found.reason)
        return frame

    def result(self) -> Extrapolation | None:
        """What was found; None if no frames were compared."""
        if not self.active:
            return None
        step, replica, reason = self.first or (None, None, "")
        count = sum(int(flags.sum()) for flags in self.flags)
        total = sum(flags.size for flags in self.flags)
        return Extrapolation(total, count, step, replica, reason, self.energy_below)
