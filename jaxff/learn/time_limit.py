"""Time limits of long calculations."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[str, float], None]


class OutOfTime(Exception):
    """A calculation was interrupted because its time was over."""


class Deadline:
    """The end of a time interval that begins now.

    Args:
        seconds: length of the interval, s (None: no limit).
    """

    def __init__(self, seconds: float | None):
        self.until = None if seconds is None else time.perf_counter() + seconds

    @property
    def left(self) -> float | None:
        """Time that is left, s, at least a millisecond; None without a limit."""
        return None if self.until is None else max(self.until - time.perf_counter(), 1e-3)

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return self.until is not None and time.perf_counter() >= self.until

    def share(self, part: float) -> float | None:
        """Return a part (between 0 and 1) of the time that is left, s; None without a limit."""
        return None if self.left is None else part * self.left

    def stopping(self, report: Progress) -> Progress:
        """Return a progress function that raises `OutOfTime` when the time is over."""

        def checked(phase: str, fraction: float) -> None:
            report(phase, fraction)
            if self.over:
                raise OutOfTime

        return checked
