"""Plots of spectra, distributions and active learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from jaxff.analysis.averages import Estimate
from jaxff.analysis.spectra import Spectrum
from jaxff.report import style


def spectra(spectra: Mapping[str, Spectrum], highest: float = 4000.0) -> Figure:
    """Plot spectra above each other on one scale, with bands of two standard errors.

    Dotted lines mark the peaks of the first spectrum in all spectra.

    Args:
        spectra: the spectra by label.
        highest: highest wavenumber, cm⁻¹.
    """
    figure = style.canvas(9.0, 1.0 + 1.7 * len(spectra))
    panels = figure.subplots(len(spectra), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    first = next(iter(spectra.values()))
    # Dotted lines would cross the labels without a background.
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    for i, (ax, (label, one)) in enumerate(zip(panels, spectra.items(), strict=True)):
        style.band(
            ax, one.wavenumbers, one.density, np.nan_to_num(one.error), style.colour(i), alpha=0.3
        )
        ax.plot(one.wavenumbers, one.density, color=style.colour(i), linewidth=1.0)
        for peak in first.peaks:
            ax.axvline(peak.wavenumber, color="#666666", linestyle=":", linewidth=0.6)
        ax.text(0.5, 0.93, label, transform=ax.transAxes, va="top", ha="center", bbox=box)
    panels[0].set_xlim(0.0, min(highest, max(one.wavenumbers[-1] for one in spectra.values())))
    panels[0].set_ylim(bottom=0.0)
    figure.supxlabel("wavenumber, cm⁻¹")
    figure.supylabel("density of states, 1/cm⁻¹")
    return figure


def spectra_by_model(
    spectra: Mapping[str, Mapping[str, Estimate]], wavenumbers: np.ndarray, highest: float = 4000.0
) -> Figure:
    """Plot spectra with one column for each model and one row for each temperature.

    Args:
        spectra: mean and error (K,) 1/cm⁻¹ by model and temperature; bands are two standard
            errors.
        wavenumbers: (K,) cm⁻¹.
        highest: highest wavenumber, cm⁻¹.
    """
    rows = len(next(iter(spectra.values())))
    figure = style.canvas(10.0, 1.0 + 1.4 * rows)
    panels = figure.subplots(rows, len(spectra), sharex=True, sharey=True, squeeze=False)
    for j, (model, at) in enumerate(spectra.items()):
        for i, (temperature, (mean, error)) in enumerate(at.items()):
            ax = panels[i, j]
            spread = 1e3 * np.nan_to_num(np.asarray(error))
            style.band(ax, wavenumbers, 1e3 * np.asarray(mean), spread, style.colour(j), alpha=0.3)
            ax.plot(wavenumbers, 1e3 * np.asarray(mean), color=style.colour(j), linewidth=0.8)
            ax.text(0.55, 0.9, temperature, transform=ax.transAxes, va="top", ha="center")
            if i == 0:
                ax.set_title(model)
    panels[0, 0].set_xlim(0.0, min(highest, float(wavenumbers[-1])))
    panels[0, 0].set_ylim(bottom=0.0)
    figure.supxlabel("wavenumber, cm⁻¹")
    figure.supylabel("density of states, 10⁻³/cm⁻¹")
    return figure


def density_curves(
    edges: np.ndarray, densities: Mapping[str, Estimate], label: str, unit: str
) -> Figure:
    """Plot densities of a coordinate in several samplings, with bands of two standard errors.

    Args:
        edges: (bins + 1,) edges of the bins, in `unit`.
        densities: mean and error (bins,) 1/unit by name of the sampling.
        label: name of the coordinate.
        unit: unit of the coordinate, such as "degrees" or "Å".
    """
    figure, ax = style.single(6.0, 3.8)
    middle = 0.5 * (np.asarray(edges)[1:] + np.asarray(edges)[:-1])
    for i, (name, (mean, error)) in enumerate(densities.items()):
        style.band(ax, middle, np.asarray(mean), np.asarray(error), style.colour(i), alpha=0.25)
        ax.plot(middle, mean, color=style.colour(i), linestyle=style.LINES[i % 4], label=name)
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(bottom=0.0)
    if unit == "degrees":
        style.degree_ticks(ax.xaxis, edges[0], edges[-1])
    ax.set_xlabel(f"{label}, {unit}")
    ax.set_ylabel(f"probability density, 1/{unit.removesuffix('s')}")
    ax.legend(fontsize="small")
    return figure


def density_maps(
    edges: Sequence[np.ndarray], densities: Mapping[str, np.ndarray], labels: Sequence[str]
) -> Figure:
    """Plot densities of two torsions on one logarithmic scale, with a panel for each sampling.

    Args:
        edges: edges of the bins of each torsion, (A + 1,) and (B + 1,) degrees.
        densities: (A, B) 1/degree² by name of the sampling; the first axis is the first torsion.
        labels: names of the two torsions.
    """
    from matplotlib.colors import LogNorm

    figure = style.canvas(4.3 * len(densities) + 0.8, 4.2)
    panels = figure.subplots(1, len(densities), sharex=True, sharey=True, squeeze=False)[0]
    high = max(float(np.max(values)) for values in densities.values())
    low = 1e-4 * high
    for ax, (name, values) in zip(panels, densities.items(), strict=True):
        # Values below the scale, zero included, have its lowest colour.
        shown = np.maximum(np.asarray(values).T, low)
        norm = LogNorm(low, high)
        image = ax.pcolormesh(*edges, shown, norm=norm, cmap="viridis", rasterized=True)
        ax.set_title(name)
        ax.set_aspect("equal")
        ax.set_xlabel(f"{labels[0]}, degrees")
        for axis, bounds in ((ax.xaxis, edges[0]), (ax.yaxis, edges[1])):
            style.degree_ticks(axis, bounds[0], bounds[-1])
    panels[0].set_ylabel(f"{labels[1]}, degrees")
    figure.colorbar(image, ax=panels, label="probability density, 1/degree²", extend="min")
    return figure


def samplings(
    degrees: np.ndarray,
    torsions: Mapping[str, np.ndarray],
    rotors: Sequence[str],
    edges: np.ndarray,
    distances: Mapping[str, Estimate],
) -> Figure:
    """Plot densities of two torsions and of interatomic distances in two samplings.

    Args:
        degrees: (A + 1,) edges of the bins of both torsions, degrees.
        torsions: (A, A) 1/degree² by name of the sampling; the first axis is the first torsion.
        rotors: names of the two torsions.
        edges: (bins + 1,) edges of the bins of the distances, Å.
        distances: mean and error (bins,) 1/Å by name of the sampling.
    """
    figure = style.canvas(10.5, 3.5)
    panels = figure.subplots(1, len(torsions) + 1, width_ratios=[1.0] * len(torsions) + [1.35])
    high = max(float(np.max(values)) for values in torsions.values())
    for k, (ax, (name, values)) in enumerate(zip(panels[:-1], torsions.items(), strict=True)):
        scaled = 1e4 * np.asarray(values).T
        image = ax.pcolormesh(
            degrees, degrees, scaled, vmin=0.0, vmax=1e4 * high, cmap="viridis", rasterized=True
        )
        ax.set_title(name)
        ax.set_aspect("equal")
        ax.set_xlabel(f"{rotors[0]}, degrees")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_ticks(np.arange(-180, 181, 90))
        if k == 0:
            ax.set_ylabel(f"{rotors[1]}, degrees")
        else:
            ax.set_yticklabels([])
    bar = figure.colorbar(image, ax=panels[:-1], shrink=0.85, pad=0.02)
    bar.set_label("density, 10⁻⁴/degree²")
    ax, middle = panels[-1], 0.5 * (np.asarray(edges)[1:] + np.asarray(edges)[:-1])
    for i, (name, (mean, error)) in enumerate(distances.items()):
        style.band(ax, middle, np.asarray(mean), np.asarray(error), style.colour(i), alpha=0.25)
        ax.plot(
            middle, mean, color=style.colour(i), linestyle=style.LINES[i % 4], linewidth=1.1,
            label=name,
        )  # fmt: skip
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(bottom=0.0)
    ax.set_title("interatomic distances")
    ax.set_xlabel("distance, Å")
    ax.set_ylabel("density, 1/Å")
    ax.legend(fontsize="small")
    return figure


def shares(labels: Sequence[str], shares: Mapping[str, Estimate]) -> Figure:
    """Plot shares of time in several basins as bars, with error bars of two standard errors.

    Args:
        labels: (K,) names of the basins.
        shares: mean and error (K,) by name of the potential.
    """
    figure, ax = style.single(9.0, 4.2)
    width = 0.84 / len(shares)
    for i, (name, (share, error)) in enumerate(shares.items()):
        share, error = np.asarray(share), np.nan_to_num(np.asarray(error))
        place = np.arange(len(share)) + (i - 0.5 * (len(shares) - 1)) * width
        # Shares lie between 0 and 1, and so do the ends of the error bars.
        lines = 100.0 * np.minimum(2.0 * error, [share, 1.0 - share])
        ax.bar(
            place, 100.0 * share, width, yerr=lines, color=style.colour(i), capsize=2.0,
            label=name, edgecolor="white", linewidth=0.5, error_kw={"linewidth": 0.9},
        )  # fmt: skip
    ax.set_xticks(range(len(labels)), [label.replace(", ", ",\n") for label in labels])
    ax.set_ylim(bottom=0.0)
    ax.set_ylabel("share of the time, %")
    ax.legend(fontsize="small")
    return figure


def growth(frames: Sequence[int], errors: Sequence[float], target: float) -> Figure:
    """Plot force errors on newly labelled frames against the number of training frames.

    Args:
        frames: number of labelled frames before each round.
        errors: force RMSE of each round, kcal/mol/Å.
        target: force RMSE at which active learning ends, kcal/mol/Å.
    """
    figure, ax = style.single(5.0, 3.6)
    ax.plot(frames, errors, "o-", color=style.COLOURS[0], label="on newly labelled frames")
    ax.axhline(target, color=style.COLOURS[1], linestyle="--", label=f"target {target:g}")
    style.logarithmic(ax)
    ax.set_xlabel("labelled frames")
    ax.set_ylabel("force RMSE, kcal/mol/Å")
    ax.legend(fontsize="small")
    return figure
