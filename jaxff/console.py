"""Progress and messages of the command line, and the time spent in each phase."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np

# Rich is imported when a console is made, so that `jaxff --help` is quick.
if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress


class Console:
    """Display of progress: bars on a terminal, plain lines otherwise.

    A plain line announces each phase that takes more than a moment.

    A console is called as ``console(phase, fraction)``, like every `progress` argument in jaxff.
    Text in parentheses after the name of a phase may change during the phase.

    Args:
        interval: seconds between plain lines of one phase.
        moment: seconds after which a plain line announces a phase.

    Attributes:
        seconds: {phase: duration in s}.
    """

    def __init__(self, interval: float = 10.0, moment: float = 0.5):
        from rich.console import Console as RichConsole
        from rich.progress import TaskID

        self.rich = RichConsole(highlight=False)
        self.interval, self.moment = interval, moment
        self.seconds: dict[str, float] = {}
        self._phase: str | None = None
        self._started = self._printed = 0.0
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._announcement: threading.Timer | None = None

    def __call__(self, phase: str, fraction: float) -> None:
        now, shown = time.perf_counter(), phase
        phase = phase.partition(" (")[0]
        if phase != self._phase:
            self.close()
            if fraction >= 1.0:  # a phase that begins at its end is a message
                self.say(f"  {shown}")
                return
            self._phase, self._started, self._printed = phase, now, now
            if self.rich.is_terminal:
                self._bar = _bar(self.rich)
                self._bar.start()
                self._task = self._bar.add_task(phase, total=1.0)
            else:
                self._announcement = threading.Timer(self.moment, self.say, [f"  {phase} ..."])
                self._announcement.daemon = True
                self._announcement.start()
        if self._bar is not None:
            self._bar.update(self._task, completed=fraction, description=shown)
        elif now - self._printed >= self.interval and fraction < 1.0:
            self._printed = now
            self.say(f"  {shown}: {fraction:.0%} after {now - self._started:.0f} s")

    def close(self, how: str = "done") -> None:
        """End the current phase, if there is one.

        Args:
            how: the result of the phase, "done" or "stopped"; it is not printed on a terminal.
        """
        if self._phase is None:
            return
        if self._announcement is not None:
            self._announcement.cancel()
        spent = time.perf_counter() - self._started
        self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + spent
        if self._bar is not None:
            if how == "done":
                self._bar.update(self._task, completed=1.0)
            self._bar.stop()
            self._bar = None
        else:
            self.say(f"  {self._phase}: {how} in {spent:.1f} s")
        self._phase = None

    def say(self, text: str = "") -> None:
        """Print one line (or a table) of plain text."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, soft_wrap=True)
        else:
            self.rich.print(text, markup=False, soft_wrap=True)

    def table(self, columns: list[str], rows: list[list]) -> None:
        """Print rows under column titles; see `plain_table`."""
        self.say(plain_table(columns, rows))


def _bar(console: RichConsole) -> Progress:
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def plain_table(columns: list[str], rows: list[list]) -> str:
    """A table as text with four digits; the first column is left aligned.

    Args:
        columns: titles of the columns.
        rows: values of each row; None is shown as "-".
    """
    cells = [columns] + [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = []
    for row in cells:
        first, *rest = row
        numbers = (value.rjust(w) for value, w in zip(rest, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *numbers]).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _cell(value) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
