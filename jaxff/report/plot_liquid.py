"""Plots of simulations of liquids as matplotlib figures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from jaxff.analysis.averages import Estimate
from jaxff.analysis.transport import Diffusion
from jaxff.report import style


def series(times: np.ndarray, values: Mapping[str, np.ndarray], discarded: int = 0) -> Figure:
    """Plot quantities against time, with running means of the frames that are analysed.

    Args:
        times: (F,) fs.
        values: (F,) values by label.
        discarded: number of frames at the start that are not analysed.
    """
    figure = style.canvas(8.0, 1.0 + 1.9 * len(values))
    panels = figure.subplots(len(values), 1, sharex=True, squeeze=False)[:, 0]
    ps = np.asarray(times) / 1000.0
    for k, (ax, (label, x)) in enumerate(zip(panels, values.items(), strict=True)):
        ax.plot(ps, x, color="#999999", linewidth=0.5)
        rest = x[discarded:]
        mean = np.cumsum(rest) / np.arange(1, len(rest) + 1)
        ax.plot(ps[discarded:], mean, color=style.colour(k), linewidth=1.5, label="running mean")
        if discarded:
            ax.axvspan(ps[0], ps[discarded], color="#eeeeee", label="not analysed")
        ax.set_ylabel(label)
    panels[0].legend(fontsize="small", loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    panels[-1].set_xlabel("time, ps")
    return figure


def pair_distributions(edges: np.ndarray, curves: Mapping[str, Estimate]) -> Figure:
    """Plot pair distribution functions with bands of two standard errors.

    Args:
        edges: (bins + 1,) Å.
        curves: g(r), (bins,), by label.
    """
    figure, axes = style.grid(len(curves), 3, (3.6, 2.9), (0.0, 0.2), sharex=True)
    middle = 0.5 * (edges[1:] + edges[:-1])
    for k, (ax, (label, g)) in enumerate(zip(axes, curves.items(), strict=True)):
        style.band(ax, middle, np.asarray(g.mean), np.asarray(g.error), style.colour(k), 0.3)
        ax.plot(middle, g.mean, color=style.colour(k), linewidth=1.2)
        ax.axhline(1.0, color="#888888", linewidth=0.8, linestyle=":")
        ax.set_title(label)
        ax.set_ylim(bottom=0.0)
        ax.set_xlim(0.0, edges[-1])
    figure.supxlabel("distance, Å")
    figure.supylabel("g(r)")
    return figure


def displacements(found: Mapping[str, Diffusion]) -> Figure:
    """Plot mean square displacements, and the fitted lines within their windows.

    Args:
        found: displacements by name of the molecule.
    """
    figure, ax = style.single(6.0, 4.2)
    for k, (name, one) in enumerate(found.items()):
        ps, colour = one.lags / 1000.0, style.colour(k)
        ax.plot(ps, one.displacements, color=colour, linewidth=1.2, label=name)
        if one.window is not None and one.coefficient is not None:
            inside = (one.lags >= one.window[0]) & (one.lags <= one.window[1])
            slope, offset = np.polyfit(ps[inside], one.displacements[inside], 1)
            window = np.array(one.window) / 1000.0
            label = f"fit: {one.coefficient.mean:.3g} ± {one.coefficient.error:.2g} × 10⁻⁹ m²/s"
            ax.plot(window, slope * window + offset, "--", color="black", linewidth=1.5,
                    label=label)  # fmt: skip
            ax.axvspan(*window, color=colour, alpha=0.08)
    ax.set_xlabel("lag, ps")
    ax.set_ylabel("mean square displacement, Å²")
    ax.set_xlim(left=0.0)
    ax.set_ylim(bottom=0.0)
    ax.legend(fontsize="small", loc="upper left")
    return figure


def convergence(times: np.ndarray, values: np.ndarray, final: Estimate, label: str) -> Figure:
    """Plot a quantity computed from the frames up to each time, and its final error.

    Args:
        times: (K,) fs.
        values: (K,) values.
        final: the value of all frames.
        label: name and unit of the quantity.
    """
    figure, ax = style.single(6.0, 3.6)
    ps, mean, error = np.asarray(times) / 1000.0, float(final.mean), float(final.error)
    ax.axhspan(mean - error, mean + error, color=style.COLOURS[0], alpha=0.2,
               label=f"{mean:.3g} ± {error:.2g}")  # fmt: skip
    ax.plot(ps, values, color=style.COLOURS[0])
    ax.set_xlabel("time, ps")
    ax.set_ylabel(label)
    ax.legend(fontsize="small")
    return figure
