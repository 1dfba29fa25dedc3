"""Search for the kernel width with the smallest validation error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

START, NARROWEST, WIDEST = 20.0, 2.0, 320.0
RATIO = 2.0  # ratio between widths while the minimum is bracketed
FINE = 1.15  # ratio of widths below which the errors are almost equal
DOWN = 1.4  # ratio between the widths that are tried on all frames


def search_width(error: Callable[[float], float]) -> float:
    """The σ between 2 and 320/Å with the smallest `error`, accurate to about 15 %.

    Starting from 20/Å, the minimum is bracketed by factors of two.  Two steps of parabolic
    interpolation in log σ follow.  The search needs about six models.

    Args:
        error: function of σ, 1/Å, that returns the validation error of a model.
    """
    tried: dict[float, float] = {}

    def at(sigma: float) -> float:
        if sigma not in tried:
            tried[sigma] = error(sigma)
        return tried[sigma]

    middle = START
    while True:
        below, above = max(middle / RATIO, NARROWEST), min(middle * RATIO, WIDEST)
        if middle > NARROWEST and at(below) < at(middle):
            middle = below
        elif middle < WIDEST and at(above) < at(middle):
            middle = above
        else:
            break
    for _ in range(2):
        known = sorted(tried)
        place = known.index(min(tried, key=tried.__getitem__))
        if not 0 < place < len(known) - 1:
            break
        x = np.log(known[place - 1 : place + 2])
        y = np.array([tried[s] for s in known[place - 1 : place + 2]])
        if not np.isfinite(y).all():
            break
        a, b, _ = np.polyfit(x, y, 2)
        if not a > 0.0:
            break
        guess = float(f"{np.exp(np.clip(-b / (2.0 * a), x[0], x[2])):.3g}")
        if min(abs(np.log(guess / s)) for s in known) < np.log(FINE):
            break
        at(guess)
    return min(tried, key=tried.__getitem__)


def widths_below(sigma: float) -> list[float]:
    """Widths to try on all frames, 1/Å, in descending order from `sigma`.

    `sigma` is the best width for a part of the frames.  More frames need a smaller width.
    """
    count = max(1, int(np.log(sigma / NARROWEST) / np.log(DOWN)))
    return [sigma, *(float(f"{sigma / DOWN**k:.3g}") for k in range(1, count + 1))]
