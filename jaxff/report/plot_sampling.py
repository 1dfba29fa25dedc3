"""Pictures of spectra, of distributions with errors, and of data sets that grow.

Each function returns a matplotlib Figure, drawn without a display.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from jaxff.analysis.averages import Estimate
from jaxff.analysis.sampling import Residence
from jaxff.analysis.spectra import Spectrum
from jaxff.report.plot import COLOURS

STYLES = ("-", "--", "-.", ":")


def spectra(found: Mapping[str, Spectrum], highest: float = 4000.0) -> Figure:
    """Spectra below one another on one scale, with bands of two standard errors.

    Dotted lines continue the peaks of the first through the others.

    Args:
        found: {label: spectrum}.
        highest: cm⁻¹, the end of the axis.
    """
    figure = Figure(figsize=(9.0, 1.0 + 1.7 * len(found)), layout="constrained")
    panels = figure.subplots(len(found), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    first = next(iter(found.values()))
    for i, (ax, (label, one)) in enumerate(zip(panels, found.items(), strict=True)):
        x, y, band = one.wavenumbers, one.density, 2.0 * np.nan_to_num(one.error)
        colour = COLOURS[i % len(COLOURS)]
        ax.fill_between(x, np.maximum(y - band, 0.0), y + band, color=colour, alpha=0.3, lw=0)
        ax.plot(x, y, color=colour, linewidth=1.0)
        for peak in first.peaks:
            ax.axvline(peak.wavenumber, color="#666666", linestyle=":", linewidth=0.6)
        # White, because the dotted lines would cross the words.
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        ax.text(0.5, 0.93, label, transform=ax.transAxes, va="top", ha="center", bbox=box)
    panels[0].set_xlim(0.0, min(highest, max(one.wavenumbers[-1] for one in found.values())))
    panels[0].set_ylim(bottom=0.0)
    figure.supxlabel("wavenumber, cm⁻¹")
    figure.supylabel("density of states, 1/cm⁻¹")
    return figure


def density_curves(
    edges: np.ndarray, found: Mapping[str, Estimate], label: str, unit: str
) -> Figure:
    """Densities of one coordinate with bands of two standard errors, a line a sampling.

    Torsion distributions and pair distributions of several samplings on one axis.

    Args:
        edges: (bins + 1,) of the coordinate, in `unit`.
        found: {sampling: (bins,) mean and error, 1/unit}.
        label: of the coordinate.
        unit: of the coordinate, such as "degrees" or "Å".
    """
    figure = Figure(figsize=(6.0, 3.8), layout="constrained")
    ax = figure.subplots()
    middle = 0.5 * (np.asarray(edges)[1:] + np.asarray(edges)[:-1])
    for i, (name, (mean, error)) in enumerate(found.items()):
        mean, band = np.asarray(mean), 2.0 * np.asarray(error)
        colour = COLOURS[i % len(COLOURS)]
        ax.fill_between(middle, np.maximum(mean - band, 0.0), mean + band, color=colour, alpha=0.25,
                        lw=0)  # fmt: skip
        ax.plot(middle, mean, color=colour, linestyle=STYLES[i % 4], label=name)
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(bottom=0.0)
    if unit == "degrees":
        ax.set_xticks(np.arange(np.ceil(edges[0] / 60) * 60, edges[-1] + 1, 60))
    ax.set_xlabel(f"{label}, {unit}")
    ax.set_ylabel(f"probability density, 1/{unit.removesuffix('s')}")
    ax.legend(fontsize="small")
    return figure


def density_maps(
    edges: Sequence[np.ndarray], found: Mapping[str, np.ndarray], labels: Sequence[str]
) -> Figure:
    """Densities over two torsions, a panel a sampling, on one logarithmic scale.

    Args:
        edges: two of (bins + 1,) degrees.
        found: {sampling: (A, B) 1/degree²}; the first torsion goes along the rows.
        labels: of the two torsions.
    """
    from matplotlib.colors import LogNorm

    figure = Figure(figsize=(4.3 * len(found) + 0.8, 4.2), layout="constrained")
    panels = figure.subplots(1, len(found), sharex=True, sharey=True, squeeze=False)[0]
    top = max(float(np.max(values)) for values in found.values())
    scale = LogNorm(1e-4 * top, top)
    for ax, (name, values) in zip(panels, found.items(), strict=True):
        # What is below the scale, zero included, has its lowest colour.
        shown = np.maximum(np.asarray(values).T, scale.vmin)
        image = ax.pcolormesh(*edges, shown, norm=scale, cmap="viridis", rasterized=True)
        ax.set_title(name)
        ax.set_aspect("equal")
        ax.set_xlabel(f"{labels[0]}, degrees")
        for axis, own in ((ax.xaxis, edges[0]), (ax.yaxis, edges[1])):
            axis.set_ticks(np.arange(np.ceil(own[0] / 60) * 60, own[-1] + 1, 60))
    panels[0].set_ylabel(f"{labels[1]}, degrees")
    figure.colorbar(image, ax=panels, label="probability density, 1/degree²", extend="min")
    return figure


def residences(found: Mapping[str, Residence]) -> Figure:
    """Shares of time near each minimum and elsewhere, a bar a potential, with two standard errors.

    Args:
        found: {potential: residence near the same minima}.
    """
    figure = Figure(figsize=(7.0, 3.8), layout="constrained")
    ax = figure.subplots()
    wide = 0.8 / len(found)
    for i, (name, one) in enumerate(found.items()):
        share, error = (np.append(a, b) for a, b in zip(one.shares, one.elsewhere, strict=True))
        place = np.arange(len(share)) + (i - 0.5 * (len(found) - 1)) * wide
        ax.bar(
            place, 100.0 * share, wide, yerr=200.0 * error, color=COLOURS[i % len(COLOURS)],
            capsize=3.0, label=name, edgecolor="white", hatch=("", "//", "..", "xx")[i % 4],
        )  # fmt: skip
    labels = [*(f"minimum {k + 1}" for k in range(len(share) - 1)), "elsewhere"]
    ax.set_xticks(range(len(share)), labels)
    ax.set_ylim(bottom=0.0)
    ax.set_ylabel("share of the time, %")
    ax.legend(fontsize="small")
    return figure


def growth(frames: Sequence[int], errors: Sequence[float], target: float) -> Figure:
    """Force errors on newly labelled frames against the number of frames trained on.

    Args:
        frames: labelled before each round.
        errors: kcal/mol/Å, RMSE of each round.
        target: kcal/mol/Å.
    """
    figure = Figure(figsize=(5.0, 3.6), layout="constrained")
    ax = figure.subplots()
    ax.plot(frames, errors, "o-", color=COLOURS[0], label="on the frames chosen next")
    ax.axhline(target, color=COLOURS[1], linestyle="--", label=f"target {target:g}")
    ax.set_yscale("log")
    for axis in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
        axis("{x:g}")
    ax.set_xlabel("labelled frames")
    ax.set_ylabel("force RMSE, kcal/mol/Å")
    ax.grid(alpha=0.3, which="both")
    ax.legend(fontsize="small")
    return figure
