"""Plots of scans and minima as matplotlib figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from scipy.interpolate import CubicSpline

from jaxff.analysis import Scan, difference
from jaxff.analysis.stationary_points import Ordering
from jaxff.report import style

SOLID: Any = "solid"
DASHED: Any = (0, (1.5, 1.0))  # a line style of matplotlib
FINE = 4  # points drawn for each step of a periodic grid
CENTRES = (0.0, 180.0, 60.0, -60.0, 120.0, -120.0, 90.0, -90.0)  # of panels, degrees
EDGE = 15.0  # degrees, sufficient distance of a marked minimum from the edge of a panel
CEILING = 40.0  # kcal/mol: the default end of the scale, unless all energies are lower


class Marks(NamedTuple):
    """Minima to mark in a map.

    Attributes:
        torsions: (K, 2) degrees, the lowest minimum first.
        doubtful: (K,) whether each minimum is drawn with a dashed line.
    """

    torsions: np.ndarray
    doubtful: np.ndarray


def energy_curves(scans: Mapping[str, Scan], highest: float | None = None) -> Figure:
    """Plot energies along one coordinate and, for two potentials, their difference.

    Args:
        scans: scans by name, all over the same values of one coordinate.
        highest: highest energy in the plot, kcal/mol (None: highest of the scans, at most 40).
    """
    names, surfaces = list(scans), list(scans.values())
    pair = len(surfaces) == 2
    figure = style.canvas(6.4, 6.0 if pair else 4.0)
    panels = figure.subplots(2 if pair else 1, 1, sharex=True, squeeze=False)[:, 0]
    top = max(np.nanmax(scan.relative) for scan in surfaces)
    for k, (name, scan) in enumerate(scans.items()):
        x, y = _around(scan, scan.relative)
        panels[0].plot(x[0], y, style.LINES[k % 4], color=style.colour(k), label=name)
        failed = ~_around(scan, scan.converged)[1].astype(bool)
        if failed.any():
            label = f"{name}: not converged"
            panels[0].plot(x[0][failed], y[failed], "x", color=style.colour(k), label=label)
    panels[0].set_ylim(-0.03 * _ceiling(top, highest), 1.05 * _ceiling(top, highest))
    panels[0].set_ylabel("energy, kcal/mol")
    panels[0].legend(fontsize="small")
    if pair:
        values = shown_difference(scans, highest)
        x, y = _around(surfaces[0], values)
        panels[1].axhline(0.0, color="#888888", linewidth=0.8)
        panels[1].plot(x[0], y, color=style.COLOURS[2])
        panels[1].set_ylabel("difference, kcal/mol")
        panels[1].set_title(_range(names, values), fontsize="medium")
    for ax in panels:
        ax.grid(alpha=0.3)
        _frame(ax.xaxis, ax.set_xlim, surfaces[0], 0)
    panels[-1].set_xlabel(_axis(surfaces[0], 0))
    return figure


def energy_maps(
    scans: Mapping[str, Scan],
    highest: float | None = None,
    doubtful: Mapping[str, np.ndarray] | None = None,
    minima: Mapping[str, Marks] | None = None,
) -> Figure:
    """Plot energies over two coordinates and, for two potentials, their difference.

    A cross marks the lowest minimum of each panel (without minima, the lowest point).  Circles
    mark other minima, and dots mark points that have not converged.  The difference is grey where
    an energy exceeds the scale.  Grids over full turns are interpolated by cubic splines.

    Args:
        scans: scans by name, all over the same values of two coordinates.
        highest: highest energy of the scale, kcal/mol (None: highest of the scans, at most 40).
        doubtful: (g1, g2) whether to hatch each point, by name of the scan.
        minima: minima of torsions by name of the scan, for scans over full turns.
    """
    names, surfaces = list(scans), list(scans.values())
    figure, panels = _panels(len(scans) + (len(scans) == 2))
    top = max(np.nanmax(scan.relative) for scan in surfaces)
    ceiling = _ceiling(top, highest)
    window = _window(surfaces, minima)
    for ax, (name, scan) in zip(panels, scans.items(), strict=False):
        filled = _map(ax, scan, scan.relative, (0.0, ceiling), "viridis", window)
        if doubtful is not None and name in doubtful and doubtful[name].any():
            _hatch(ax, scan, doubtful[name], window)
        _marks(ax, scan, None if minima is None else minima.get(name), window)
        kind = "relaxed" if scan.relaxed else "rigid"
        ax.set_title(f"{name} ({kind}): 0 to {np.nanmax(scan.relative):.3g} kcal/mol",
                     fontsize="medium")  # fmt: skip
    figure.colorbar(
        filled, ax=list(panels[: len(surfaces)]), label="energy, kcal/mol", ticks=MaxNLocator(6)
    )
    if len(surfaces) == 2:
        values = shown_difference(scans, highest)
        limit = max(np.nanmax(np.abs(values)), 1e-6)
        panels[-1].set_facecolor("#cccccc")
        filled = _map(panels[-1], surfaces[0], values, (-limit, limit), "RdBu_r", window)
        if doubtful is not None and names[0] in doubtful and doubtful[names[0]].any():
            _hatch(panels[-1], surfaces[0], doubtful[names[0]], window)
        panels[-1].set_title(_range(names, values), fontsize="medium")
        figure.colorbar(filled, ax=panels[-1], label="difference, kcal/mol", ticks=MaxNLocator(6))
    return figure


def minima_levels(order: Ordering, labels: Sequence[str] | None = None) -> Figure:
    """Plot energy levels of minima that were relaxed with several potentials.

    Each potential has a column with one level for each minimum.  A dashed level shows a minimum
    that relaxed to another minimum.

    Args:
        order: the energies.
        labels: (K,) names of the minima; None for their numbers from 1.
    """
    count = order.relaxed.shape[1]
    labels = [f"minimum {k + 1}" for k in range(count)] if labels is None else labels
    figure, ax = style.single(2.6 + 1.35 * len(order.names), 4.2)
    columns = np.arange(len(order.names))
    width = 0.84 / count
    for k in range(count):
        centre = columns + (k - 0.5 * (count - 1)) * width
        stays = order.nearest[:, k] == k
        for shown, line in ((stays, SOLID), (~stays, DASHED)):
            x, y = centre[shown], order.relaxed[shown, k]
            ax.hlines(y, x - 0.42 * width, x + 0.42 * width, colors=style.colour(k), lw=3,
                      linestyles=line)  # fmt: skip
        for x, y in zip(centre, order.relaxed[:, k], strict=True):
            if np.isfinite(y):
                ax.annotate(f"{y:.1f}", (x, y), (0, 3), textcoords="offset points", ha="center",
                            fontsize=7.5)  # fmt: skip
    handles = [Line2D([], [], color=style.colour(k), lw=3, label=labels[k]) for k in range(count)]
    if (order.nearest != np.arange(count)).any():
        dashed = Line2D([], [], color="#444444", lw=3, ls=DASHED,
                        label="relaxed to another")  # fmt: skip
        handles.append(dashed)
    for edge in columns[1:] - 0.5:
        ax.axvspan(edge - 0.003, edge + 0.003, color="#dddddd")
    ax.set_xticks(columns, [name.replace(" (", "\n(") for name in order.names])
    ax.set_xlim(-0.5, len(columns) - 0.5)
    ax.set_ylim(bottom=-0.04 * np.nanmax(order.relaxed), top=1.1 * np.nanmax(order.relaxed))
    ax.set_ylabel("relaxed energy above the lowest, kcal/mol")
    ax.legend(handles=handles, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _panels(count: int):
    """Return a figure with square panels, at most three in a row."""
    return style.grid(count, 3, (4.4, 4.4), (0.6, 0.2), sharex=True, sharey=True)


def _map(ax, scan: Scan, values, limits: tuple[float, float], colours: str, window):
    """Draw labelled, filled contours of values on the grid of a scan."""
    low, high = limits
    span = high - low  # values far off the scale would make the splines oscillate
    (x, y), z = _around(scan, np.clip(values, low - span, high + span), window)
    above, below = np.nanmax(values) > high, np.nanmin(values) < low
    over = {(1, 1): "both", (1, 0): "max", (0, 1): "min", (0, 0): "neither"}[above, below]
    # Clipping keeps the extreme values on the scale in spite of rounding and splines.
    z = np.clip(z, None if below else low, None if above else high)
    levels = np.linspace(low, high, 21)
    filled = ax.contourf(x, y, z.T, levels, cmap=colours, extend=over)
    if low == 0.0:
        ax.contour(x, y, z.T, levels[4::4], colors="white", linewidths=0.4, alpha=0.7)
    _frame(ax.xaxis, ax.set_xlim, scan, 0, window)
    _frame(ax.yaxis, ax.set_ylim, scan, 1, window)
    ax.set_xlabel(_axis(scan, 0))
    ax.set_ylabel(_axis(scan, 1))
    ax.label_outer()
    return filled


def _hatch(ax, scan: Scan, points: np.ndarray, window) -> None:
    """Hatch some points (g1, g2) of a scan."""
    (x, y), z = _around(scan, points.astype(float), window, smooth=False)
    ax.contourf(x, y, z.T, [0.5, 1.5], colors="none", hatches=["///"])


def shown_difference(scans: Mapping[str, Scan], highest: float | None = None) -> np.ndarray:
    """Return the first of two scans minus the second, kcal/mol; NaN above the scale."""
    first, second = scans.values()
    ceiling = _ceiling(max(np.nanmax(scan.relative) for scan in (first, second)), highest)
    on_scale: np.ndarray = (first.relative <= ceiling) & (second.relative <= ceiling)
    return np.where(on_scale | ~on_scale.any(), difference(first, second), np.nan)


def shown_values(scan: Scan, k: int) -> np.ndarray:
    """Return the values (g,) of coordinate k in degrees or Å."""
    return scan.values[k] if len(scan.coordinates[k]) == 2 else np.degrees(scan.values[k])


def _around(
    scan: Scan, z: np.ndarray, window=(0.0, 0.0), smooth: bool = True
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return sorted values of the coordinates, and z at these values.

    Periodic coordinates are extended to a full turn around the centre of the plot.

    Args:
        scan: the scan.
        z: (g1[, g2]) values on the grid.
        window: centre of the plotted turn of each coordinate, degrees.
        smooth: whether finite values over two full turns are interpolated by cubic splines.
    """
    axes = []
    smooth = smooth and len(scan.periodic) == 2 and all(scan.periodic)
    smooth = smooth and bool(np.isfinite(z).all())
    for k, periodic in enumerate(scan.periodic):
        x = _wrapped(scan, k, window)
        order = np.argsort(x)
        if periodic:
            order = np.concatenate([order[-1:], order, order[:1]])
        x, z = x[order], np.take(z, order, axis=k)
        if periodic:
            x[0], x[-1] = x[0] - 360.0, x[-1] + 360.0
        if smooth:
            spline = CubicSpline(x[1:], np.take(z, range(1, len(x)), axis=k), k, "periodic")
            x = np.linspace(x[0], x[-1], FINE * (len(x) - 1) + 1)
            z = spline(x)
        axes.append(x)
    return axes, z


def _wrapped(scan: Scan, k: int, window=(0.0, 0.0)) -> np.ndarray:
    """Return the values (g,) of coordinate k in degrees or Å, in the plotted turn if periodic."""
    x = shown_values(scan, k)
    return _turned(x, window[k]) if scan.periodic[k] else x


def _turned(x, centre: float):
    """Shift angles, degrees, by full turns to within 180° of a centre."""
    return (x - centre + 180.0) % 360.0 - 180.0 + centre


def _window(scans: Sequence[Scan], minima: Mapping[str, Marks] | None = None) -> tuple:
    """Return the centres (K,), degrees, of plotted turns without marked minima at their edges."""
    centres = []
    for k in range(len(scans[0].coordinates)):
        if minima is None:
            places = [np.unravel_index(np.nanargmin(s.relative), s.relative.shape) for s in scans]
            marked = np.array([_wrapped(s, k)[i[k]] for s, i in zip(scans, places, strict=True)])
        else:
            marked = np.concatenate([marks.torsions[:, k] for marks in minima.values()])
        room = [np.min(180.0 - np.abs(_turned(marked, c) - c), initial=EDGE) for c in CENTRES]
        centres.append(CENTRES[int(np.argmax(room))])
    return tuple(centres)


def _marks(ax, scan: Scan, minima: Marks | None, window) -> None:
    """Draw marks at minima, and dots at points that have not converged."""
    x, y = _wrapped(scan, 0, window), _wrapped(scan, 1, window)
    if minima is None or not len(minima.torsions):
        a, b = np.unravel_index(np.nanargmin(scan.relative), scan.relative.shape)
        places, dashed = np.array([[x[a], y[b]]]), np.zeros(1, bool)
    else:
        places = np.stack([_turned(minima.torsions[:, k], window[k]) for k in (0, 1)], axis=1)
        dashed = minima.doubtful
    outline = [withStroke(linewidth=3.0, foreground="white")]
    ax.plot(
        *places[0], "+", color=style.COLOURS[1], markersize=11, markeredgewidth=2, clip_on=False,
        path_effects=outline,
    )  # fmt: skip
    for place, uncertain in zip(places[1:], dashed[1:], strict=True):
        ax.scatter(
            *place, s=60, facecolors="none", edgecolors=style.COLOURS[1], linewidths=1.6,
            linestyles="--" if uncertain else "-", clip_on=False, zorder=3,
            path_effects=[] if uncertain else outline,
        )  # fmt: skip
    a, b = np.nonzero(~scan.converged)
    ax.plot(x[a], y[b], ".", color="black", markersize=3)


def _frame(axis, set_limits, scan: Scan, k: int, window=(0.0, 0.0)) -> None:
    if scan.periodic[k]:
        low, high = window[k] - 180.0, window[k] + 180.0
        set_limits(low, high)
        style.degree_ticks(axis, low, high)


def _axis(scan: Scan, k: int) -> str:
    return f"{scan.names[k]}, {'Å' if len(scan.coordinates[k]) == 2 else 'degrees'}"


def _range(names, values) -> str:
    low, high = np.nanmin(values), np.nanmax(values)
    return f"{names[0]} − {names[1]}: {low:.3g} to {high:.3g} kcal/mol"


def _ceiling(top: float, highest: float | None) -> float:
    return max(min(top, CEILING) if highest is None else highest, 1e-6)
