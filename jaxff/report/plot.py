"""Plots of errors, fits and simulations as matplotlib figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from jaxff.report import style


def force_parity(reference: np.ndarray, predicted: Mapping[str, np.ndarray], theory: str) -> Figure:
    """Plot predicted against reference force components, with one panel for each model.

    Args:
        reference: (M, N, 3) kcal/mol/Å.
        predicted: forces (M, N, 3) kcal/mol/Å by name of the model.
        theory: level of theory of the reference.
    """
    limit = 1.05 * max(np.abs(reference).max(), *(np.abs(p).max() for p in predicted.values()))
    columns = 2 if len(predicted) < 5 else 3
    figure, axes = style.grid(
        len(predicted), columns, (4.2, 4.0), (0.0, 0.3), sharex=True, sharey=True
    )
    for ax, (name, forces) in zip(axes, predicted.items(), strict=True):
        bins = ax.hexbin(
            reference.ravel(), forces.ravel(), gridsize=70, extent=(-limit, limit, -limit, limit),
            bins="log", mincnt=1, cmap="viridis", linewidths=0.1,
        )  # fmt: skip
        ax.axline((0, 0), slope=1, color="#444444", linewidth=0.8)
        error = forces - reference
        ax.set_title(name)
        text = f"MAE {np.abs(error).mean():.2f}\nRMSE {np.sqrt((error**2).mean()):.2f}"
        ax.text(0.04, 0.96, text, transform=ax.transAxes, va="top")
        ax.set_aspect("equal")
    figure.supxlabel(f"reference force component ({theory}), kcal/mol/Å")
    figure.supylabel("predicted force component, kcal/mol/Å")
    figure.colorbar(bins, ax=figure.axes, label="force components per cell", shrink=0.7)
    return figure


def torsion_distributions(
    angles: Mapping[str, np.ndarray], labels: list[str], bins: int = 60
) -> Figure:
    """Plot probability densities of torsion angles, with one panel for each torsion.

    Args:
        angles: angles (M, T) rad by name of the sampling.
        labels: (T,) names of the torsions.
        bins: number of bins of the histograms.
    """
    figure, axes = style.grid(len(labels), 2, (5.0, 3.2), sharex=True)
    edges = np.linspace(-180, 180, bins + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    for t, (ax, label) in enumerate(zip(axes, labels, strict=True)):
        for i, (name, values) in enumerate(angles.items()):
            density, _ = np.histogram(np.degrees(values[:, t]), edges, density=True)
            line = {"color": style.colour(i), "linestyle": style.LINES[i % 4], "linewidth": 1.5}
            ax.step(middle, density, where="mid", label=name, **line)
        ax.set_title(label)
        ax.set_xlim(-180, 180)
        ax.set_ylim(bottom=0)
        style.degree_ticks(ax.xaxis)
    axes[0].legend(fontsize="small")
    figure.supxlabel("torsion angle, degrees")
    figure.supylabel("probability density, 1/degree")
    return figure


def energy_and_temperature(
    times: np.ndarray,
    potential: np.ndarray,
    kinetic: np.ndarray,
    temperatures: np.ndarray,
    target: float | None,
) -> Figure:
    """Plot energies and instantaneous temperatures of a simulation against time.

    Args:
        times: (F,) fs.
        potential, kinetic: (F,) kcal/mol.
        temperatures: (F,) K.
        target: temperature of the thermostat, K; None without a thermostat.
    """
    figure = style.canvas(8.0, 5.2)
    top, bottom = figure.subplots(2, 1, sharex=True)
    ps, potential = np.asarray(times) / 1000.0, potential - potential[0]
    energies = {"potential": potential, "kinetic": kinetic, "total": potential + kinetic}
    for i, (name, values) in enumerate(energies.items()):
        top.plot(ps, values, label=name, color=style.COLOURS[i], linewidth=0.8)
    top.set_ylabel("energy, kcal/mol\n(potential relative to the start)")
    bottom.plot(ps, temperatures, color="#999999", linewidth=0.5, label="instantaneous")
    mean = np.cumsum(temperatures) / np.arange(1, len(temperatures) + 1)
    bottom.plot(ps, mean, color=style.COLOURS[0], linewidth=1.5, label="running mean")
    if target is not None:
        bottom.axhline(target, color=style.COLOURS[1], linestyle="--", label=f"target {target:g} K")
    bottom.set_ylabel("temperature, K")
    bottom.set_xlabel("time, ps")
    for ax in (top, bottom):
        ax.legend(fontsize="small", loc="upper right", ncols=3)
    return figure


def widths(trials: Sequence) -> Figure:
    """Plot validation errors of `gdml.Trial`s against σ, one curve for each λ and frame number."""
    figure, ax = style.single(6.0, 4.0)
    lines: dict[tuple, list] = {}
    for trial in trials:
        lines.setdefault((trial.n_train, trial.lam, trial.prior), []).append(trial)
    for i, ((count, lam, prior), line) in enumerate(sorted(lines.items(), key=str)):
        line = sorted(line, key=lambda trial: trial.sigma)
        label = f"{count} frames, λ = {lam:g}" + ("" if prior is None else f", prior {prior:g}")
        x, y = [t.sigma for t in line], [t.valid_rmse for t in line]
        ax.plot(x, y, "o-", color=style.colour(i), label=label)
    ax.set_xscale("log")
    ticks = sorted({trial.sigma for trial in trials})
    ax.set_xticks(ticks, [f"{sigma:g}" for sigma in ticks])
    ax.minorticks_off()
    ax.set_xlabel("kernel width σ, 1/Å")
    ax.set_ylabel("validation force RMSE, kcal/mol/Å")
    if lines:
        ax.legend(fontsize="small")
    return figure


def learning_curves(rows: Sequence[Mapping], title: str = "") -> Figure:
    """Plot test errors against the number of training frames: mean and range over seeds.

    Args:
        rows: one dict for each training with the keys "model", "n" (number of frames),
            "force_rmse" (kcal/mol/Å) and "energy_rmse" (kcal/mol).
        title: title of the figure.
    """
    figure = style.canvas(9.0, 4.2)
    panels = {"force_rmse": "force RMSE, kcal/mol/Å", "energy_rmse": "energy RMSE, kcal/mol"}
    models = list(dict.fromkeys(row["model"] for row in rows))
    ticks: list[int] = []
    for n in sorted({row["n"] for row in rows}):
        if not ticks or n > 1.3 * ticks[-1]:  # labels at smaller distances would touch
            ticks.append(n)
    axes = figure.subplots(1, 2)
    for ax, (key, label) in zip(axes, panels.items(), strict=True):
        for k, model in enumerate(models):
            points = [(row["n"], row[key]) for row in rows if row["model"] == model and key in row]
            sizes = sorted({n for n, _ in points})
            values = [[value for n, value in points if n == size] for size in sizes]
            mean, marker = [np.mean(v) for v in values], style.MARKERS[k % len(style.MARKERS)]
            ax.plot(sizes, mean, marker=marker, color=style.colour(k), label=model)
            low, high = list(map(min, values)), list(map(max, values))
            ax.fill_between(sizes, low, high, color=style.colour(k), alpha=0.2)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(ticks, list(map(str, ticks)))
        ax.minorticks_off()
        low, high = ax.get_ylim()
        round_values = np.outer(10.0 ** np.arange(-3, 3), [1, 1.5, 2, 3, 5, 7]).ravel()
        shown = round_values[(round_values >= low) & (round_values <= high)]
        ax.set_yticks(shown, [f"{value:g}" for value in shown])
        ax.set_xlabel("training frames")
        ax.set_ylabel(label)
        ax.grid(alpha=0.3)
    lines, labels = axes[-1].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=min(len(labels), 4))
    figure.suptitle(title)
    return figure


def fit_history(history: Mapping[str, np.ndarray]) -> Figure:
    """Plot the root of the objective and the validation error at each of S steps of a fit.

    Args:
        history: "loss" (S,) and, optionally, "valid_force_rmse" (S,) kcal/mol/Å.
    """
    figure, ax = style.single(5.0, 3.6)
    names = {
        "loss": "training: root of the objective",
        "valid_force_rmse": "validation: force RMSE",
    }
    for k, (key, values) in enumerate(history.items()):
        values = np.sqrt(values) if key == "loss" else values
        ax.plot(
            np.arange(1, len(values) + 1), values, ".-", color=style.COLOURS[k], label=names[key]
        )
    style.logarithmic(ax)
    ax.set_xlabel("step or epoch")
    ax.set_ylabel("kcal/mol/Å")
    ax.legend()
    return figure
