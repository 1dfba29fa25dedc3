"""Frames of a simulation that lie outside the training data of the potential."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from jaxff.domain import Trained, outside
from jaxff.errors import InputError
from jaxff.md.integrate import Frame
from jaxff.md.settings import Stop
from jaxff.potential import Potential

# Largest time between the frames that are compared if the simulation shall stop, fs.
SPACING = 5.0


def check_can_stop(potential: Potential, on_extrapolation: str) -> None:
    """Raise `InputError` if "stop" is requested, but the training data are unknown."""
    if on_extrapolation == "stop" and potential.training_is_unknown:
        raise InputError(
            "the model contains no description of the training frames, so a simulation cannot "
            "detect frames outside the training data: train the model again, "
            'or use on_extrapolation="warn" (--on-extrapolation warn)'
        )


@dataclass(frozen=True)
class Extrapolation:
    """Statistics of the frames outside the training data.

    Attributes:
        frames: number of frames that were compared, of all replicas.
        outside: number of frames outside the training data.
        step: step of the first frame outside the training data; None if there is none.
        replica: replica of this frame; None without an axis of replicas.
        reason: why this frame is outside the training data; "" if there is none.
        energy_below: largest difference by which an energy was below all training energies,
            kcal/mol.
    """

    frames: int = 0
    outside: int = 0
    step: int | None = None
    replica: int | None = None
    reason: str = ""
    energy_below: float = 0.0

    @property
    def share(self) -> float:
        """Share of the compared frames that are outside the training data."""
        return self.outside / max(self.frames, 1)

    def summary(self) -> dict[str, Any]:
        """The attributes and the share as JSON values."""
        return {**asdict(self), "share": self.share}

    def text(self, model: str) -> str:
        """Return a warning for a model name; "" if no frame is outside the training data."""
        replica = "" if self.replica is None else f"replica {self.replica}, "
        return outside_text(model, self.summary(), "frames", f"{replica}step {self.step}")


def outside_text(model: str, numbers: Mapping[str, Any], what: str, first: str = "") -> str:
    """Return a warning of geometries outside the training data; "" without any.

    Args:
        model: name of the model.
        numbers: result of `Extrapolation.summary` or `jaxff.domain.Outside.summary`.
        what: word for the geometries, such as "frames".
        first: description of the first such geometry (default: its number).
    """
    if not numbers["outside"]:
        return ""
    first = first or f"number {numbers['first']}"
    return (
        f"warning: {numbers['outside']} of {numbers['frames']} {what} "
        f"({100.0 * numbers['share']:.3g} %) are outside the training data of {model}, where "
        f"energies and forces may be wrong; the first is {first}: {numbers['reason']}; label such "
        "frames and train again"
    )


@dataclass
class Watch:
    """Comparison of simulated frames with the training data of the potential.

    Attributes:
        trained: training data of the potential, in the atom order of the frames.
        stop: settings, of which `on_extrapolation` is used.
        found: statistics of the frames so far.
    """

    trained: tuple[Trained, ...]
    stop: Stop
    found: Extrapolation = Extrapolation()

    @property
    def active(self) -> bool:
        """Whether frames are compared."""
        return bool(self.trained) and self.stop.on_extrapolation != "ignore"

    @property
    def stops(self) -> bool:
        """Whether the simulation stops at the first frame outside the training data."""
        return self.active and self.stop.on_extrapolation == "stop"

    def interval(self, every: int, dt) -> int:
        """Number of steps between compared frames, a divisor of `every`.

        Args:
            every: number of steps between recorded frames.
            dt: time step, fs.
        """
        most = max(int(SPACING / dt), 1)
        if not self.stops or every <= most:
            return every
        return next(n for n in range(most, 0, -1) if every % n == 0)

    def continued(self, earlier: Mapping[str, Any] | None) -> None:
        """Continue the statistics `earlier` of a simulation, unless `stops` is True."""
        if earlier is not None and not self.stops:
            self.found = Extrapolation(**earlier)

    def compare(self, frames: Frame, steps: np.ndarray) -> int | None:
        """Compare F frames with the training data.

        Args:
            frames: the frames.
            steps: (F,) step of each frame.

        Returns:
            Index of the first frame outside the training data, or None.
        """
        if not self.active:
            return None
        R = np.asarray(frames.positions, float)
        alone = R.ndim == 3
        energies = np.asarray(frames.potential, float).reshape(-1)
        new = outside(self.trained, R.reshape(-1, *R.shape[-2:]), energies)
        if new is None:
            return None
        flags, known = new.frames.reshape(len(R), -1), self.found
        self.found = replace(
            known,
            frames=known.frames + flags.size,
            outside=known.outside + int(flags.sum()),
            energy_below=max(known.energy_below, float(new.energies.max(initial=0.0))),
        )
        if not flags.any():
            return None
        frame, replica = map(int, np.argwhere(flags)[0])
        if known.step is None:
            where = {"step": int(steps[frame]), "replica": None if alone else replica}
            self.found = replace(self.found, reason=new.reason, **where)
        return frame

    def result(self) -> Extrapolation | None:
        """Statistics of the frames, or None if no frames were compared."""
        return self.found if self.active else None
