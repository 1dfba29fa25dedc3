"""Colours, markers and axes that the plots share."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Colours of Okabe and Ito, which remain distinct with every common colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINES = ("-", "--", "-.", ":")
MARKERS = "osD^vPX"


def colour(k: int) -> str:
    """Return the colour of the kth line."""
    return COLOURS[k % len(COLOURS)]


def canvas(width: float, height: float) -> Figure:
    """Return an empty figure with a size in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def single(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure with a size in inches and one pair of axes."""
    figure = canvas(width, height)
    return figure, figure.subplots()


def grid(
    count: int, columns: int, panel: tuple[float, float], margin=(0.0, 0.0), **shared
) -> tuple[Figure, np.ndarray]:
    """Return a figure with panels in rows, and the axes (count,) of the panels.

    Args:
        count: number of panels.
        columns: largest number of panels in a row.
        panel: width and height of a panel, inches.
        margin: width and height added to the figure, inches.
        **shared: arguments `sharex` and `sharey` of matplotlib's `subplots`.
    """
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = canvas(margin[0] + panel[0] * columns, margin[1] + panel[1] * rows)
    axes = figure.subplots(rows, columns, squeeze=False, **shared).ravel()
    for ax in axes[count:]:
        ax.set_visible(False)
    return figure, axes[:count]


def band(ax: Axes, x, mean, error, colour: str, alpha: float) -> None:
    """Shade two standard errors on both sides of a density (K,), but not below zero."""
    low, high = np.maximum(mean - 2.0 * error, 0.0), mean + 2.0 * error
    ax.fill_between(x, low, high, color=colour, alpha=alpha, lw=0)


def logarithmic(ax: Axes) -> None:
    """Make the vertical axis logarithmic, with plain numbers and a grid."""
    ax.set_yscale("log")
    for set_formatter in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
        set_formatter("{x:g}")
    ax.grid(alpha=0.3, which="both")


def degree_ticks(axis, low: float = -180.0, high: float = 180.0) -> None:
    """Set ticks at every 60 degrees between two angles."""
    axis.set_ticks(np.arange(np.ceil(low / 60) * 60, high + 1, 60))
