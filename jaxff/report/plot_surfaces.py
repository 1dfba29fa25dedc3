"""Plots of scans and minima; each function returns a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxff.analysis import Scan, difference
from jaxff.analysis.stationary_points import Ordering
from jaxff.report import style

CEILING = 40.0  # kcal/mol: the default end of the scale, unless all energies are lower


def energy_curves(scans: Mapping[str, Scan], highest: float | None = None) -> Figure:
    """Energies along one coordinate; for two potentials, also their difference.

    Args:
        scans: {name: scan of one coordinate}, all with the same values.
        highest: end of the axis, kcal/mol; None for the highest energy, at most 40.
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
) -> Figure:
    """Contours over two coordinates; for two potentials, also their difference.

    A cross marks the lowest point of each panel, and dots mark points that have not converged.  The
    difference is grey where either energy is off the scale.

    Args:
        scans: {name: scan of two coordinates}, all with the same values.
        highest: end of the scale, kcal/mol; None for the highest energy, at most 40.
        doubtful: {name: points (g1, g2) that are hatched}.
    """
    names, surfaces = list(scans), list(scans.values())
    figure, panels = _panels(len(scans) + (len(scans) == 2))
    top = max(np.nanmax(scan.relative) for scan in surfaces)
    ceiling = _ceiling(top, highest)
    for ax, (name, scan) in zip(panels, scans.items(), strict=False):
        filled = _map(ax, scan, scan.relative, 0.0, ceiling, "viridis")
        if doubtful is not None and name in doubtful and doubtful[name].any():
            (x, y), z = _around(scan, doubtful[name].astype(float))
            ax.contourf(x, y, z.T, [0.5, 1.5], colors="none", hatches=["///"])
        _marks(ax, scan)
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
        filled = _map(panels[-1], surfaces[0], values, -limit, limit, "RdBu_r")
        panels[-1].set_title(_range(names, values), fontsize="medium")
        figure.colorbar(filled, ax=panels[-1], label="difference, kcal/mol", ticks=MaxNLocator(6))
    return figure


def difference_maps(
    name: str, reference: Scan, others: Mapping[str, Scan], highest: float = 10.0
) -> Figure:
    """Differences of scans of two coordinates from a reference, one panel each.

    Energies are relative to the lowest of each scan.  Lines are contours of the reference, every
    2 kcal/mol.

    Args:
        name, reference: the scan to subtract, and its name.
        others: {name: scan of the same coordinates and values}.
        highest: end of the scale, kcal/mol.
    """
    figure, panels = _panels(len(others))
    values = {key: difference(other, reference) for key, other in others.items()}
    limit = min(max(max(np.nanmax(np.abs(v)) for v in values.values()), 1e-6), highest)
    for ax, (key, off) in zip(panels, values.items(), strict=True):
        filled = _map(ax, reference, off, -limit, limit, "RdBu_r")
        (x, y), z = _around(reference, reference.relative)
        lines = ax.contour(x, y, z.T, np.arange(2.0, 41.0, 2.0), colors="black", linewidths=0.5)
        ax.clabel(lines, fontsize=7)
        ax.set_title(_range((key, name), off), fontsize="medium")
    figure.colorbar(filled, ax=list(panels), label="difference, kcal/mol", ticks=MaxNLocator(6))
    return figure


def minima_levels(order: Ordering) -> Figure:
    """Energies of the same minima relaxed by several potentials.

    Each potential has a column.  A hollow marker shows a minimum that has relaxed to another one.
    """
    figure, ax = style.single(1.6 + 1.3 * len(order.names), 4.2)
    columns = np.arange(len(order.names))
    for k in range(order.relaxed.shape[1]):
        marker = style.MARKERS[k % len(style.MARKERS)]
        stays = order.nearest[:, k] == k
        ax.plot(columns, order.relaxed[:, k], ":", color=style.colour(k), linewidth=1.2)
        # Hollow markers are larger, because they coincide with the level of the other minimum.
        for shown, fill, size in ((stays, style.colour(k), 9), (~stays, "none", 15)):
            ax.plot(
                columns[shown], order.relaxed[shown, k], marker, color=style.colour(k),
                markersize=size, markerfacecolor=fill, markeredgewidth=1.6,
            )  # fmt: skip
        ax.plot([], [], marker + ":", color=style.colour(k), markersize=9, label=f"minimum {k + 1}")
    if (order.nearest != np.arange(order.nearest.shape[1])).any():
        ax.plot([], [], "o", color="#444444", markersize=9, markerfacecolor="white",
                label="relaxed to another")  # fmt: skip
    ax.set_xticks(columns, [name.replace(" (", "\n(") for name in order.names])
    ax.set_xlim(-0.5, len(columns) - 0.5)
    ax.set_ylabel("relaxed energy, kcal/mol")
    ax.legend(fontsize="small")
    return figure


def _panels(count: int):
    """A figure with square panels, at most three in a row."""
    return style.grid(count, 3, (4.4, 4.4), (0.6, 0.2), sharex=True, sharey=True)


def _map(ax, scan: Scan, values: np.ndarray, low: float, high: float, colours: str):
    """Filled contours of values on the grid of a scan, with labels."""
    (x, y), z = _around(scan, values)
    above, below = np.nanmax(values) > high, np.nanmin(values) < low
    over = {(1, 1): "both", (1, 0): "max", (0, 1): "min", (0, 0): "neither"}[above, below]
    # Clipping keeps the extreme values on the scale in spite of rounding.
    z = np.clip(z, None if below else low, None if above else high)
    levels = np.linspace(low, high, 21)
    filled = ax.contourf(x, y, z.T, levels, cmap=colours, extend=over)
    if low == 0.0:
        ax.contour(x, y, z.T, levels[::4], colors="white", linewidths=0.4, alpha=0.7)
    _frame(ax.xaxis, ax.set_xlim, scan, 0)
    _frame(ax.yaxis, ax.set_ylim, scan, 1)
    ax.set_xlabel(_axis(scan, 0))
    ax.set_ylabel(_axis(scan, 1))
    ax.label_outer()
    return filled


def shown_difference(scans: Mapping[str, Scan], highest: float | None = None) -> np.ndarray:
    """The first of two scans minus the second, kcal/mol; NaN where off the scale."""
    first, second = scans.values()
    ceiling = _ceiling(max(np.nanmax(scan.relative) for scan in (first, second)), highest)
    on_scale: np.ndarray = (first.relative <= ceiling) & (second.relative <= ceiling)
    return np.where(on_scale | ~on_scale.any(), difference(first, second), np.nan)


def shown_values(scan: Scan, k: int) -> np.ndarray:
    """Values (g,) of coordinate k in degrees or Å."""
    return scan.values[k] if len(scan.coordinates[k]) == 2 else np.degrees(scan.values[k])


def _around(scan: Scan, z: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Sorted values of the coordinates, and z there; periodic ones are continued."""
    axes = []
    for k, periodic in enumerate(scan.periodic):
        x = _wrapped(scan, k)
        order = np.argsort(x)
        if periodic:
            order = np.concatenate([order[-1:], order, order[:1]])
        x, z = x[order], np.take(z, order, axis=k)
        if periodic:
            x[0], x[-1] = x[0] - 360.0, x[-1] + 360.0
        axes.append(x)
    return axes, z


def _wrapped(scan: Scan, k: int) -> np.ndarray:
    """Values (g,) of coordinate k in degrees or Å, within ±180 degrees if periodic."""
    x = shown_values(scan, k)
    return (x + 180.0) % 360.0 - 180.0 if scan.periodic[k] else x


def _marks(ax, scan: Scan) -> None:
    """A cross at the lowest point, and dots at points that have not converged."""
    x, y = _wrapped(scan, 0), _wrapped(scan, 1)
    a, b = np.unravel_index(np.nanargmin(scan.relative), scan.relative.shape)
    ax.plot(
        x[a], y[b], "+", color=style.COLOURS[1], markersize=11, markeredgewidth=2, clip_on=False
    )
    a, b = np.nonzero(~scan.converged)
    ax.plot(x[a], y[b], ".", color="black", markersize=3)


def _frame(axis, set_limits, scan: Scan, k: int) -> None:
    if scan.periodic[k]:
        set_limits(-180, 180)
        style.degree_ticks(axis)


def _axis(scan: Scan, k: int) -> str:
    return f"{scan.names[k]}, {'Å' if len(scan.coordinates[k]) == 2 else 'degrees'}"


def _range(names, values) -> str:
    low, high = np.nanmin(values), np.nanmax(values)
    return f"{names[0]} − {names[1]}: {low:.3g} to {high:.3g} kcal/mol"


def _ceiling(top: float, highest: float | None) -> float:
    return max(min(top, CEILING) if highest is None else highest, 1e-6)
