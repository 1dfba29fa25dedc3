"""Pictures: each function returns a matplotlib Figure, drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

# Okabe & Ito's colours, distinguishable with every common colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")


def force_parity(reference: np.ndarray, predicted: Mapping[str, np.ndarray], theory: str) -> Figure:
    """Predicted against reference force components, one panel a model, on one scale.

    Args:
        reference: (M, N, 3) kcal/mol/Å.
        predicted: {model: (M, N, 3) kcal/mol/Å}.
        theory: level of theory of the reference.
    """
    limit = 1.05 * max(np.abs(reference).max(), *(np.abs(p).max() for p in predicted.values()))
    columns = min(len(predicted), 2 if len(predicted) < 5 else 3)
    rows = -(-len(predicted) // columns)
    figure = Figure(figsize=(4.2 * columns, 4.0 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax, (name, forces) in zip(axes.flat, predicted.items(), strict=False):
        bins = ax.hexbin(
            reference.ravel(),
            forces.ravel(),
            gridsize=70,
            extent=(-limit, limit, -limit, limit),
            bins="log",
            mincnt=1,
            cmap="viridis",
            linewidths=0.1,
        )
        ax.axline((0, 0), slope=1, color="#444444", linewidth=0.8)
        wrong = forces - reference
        ax.set_title(name)
        ax.text(
            0.04,
            0.96,
            f"MAE {np.abs(wrong).mean():.2f}\nRMSE {np.sqrt((wrong**2).mean()):.2f}",
            transform=ax.transAxes,
            va="top",
        )
        ax.set_aspect("equal")
    for ax in axes.flat[len(predicted) :]:
        ax.set_visible(False)
    figure.supxlabel(f"reference force component ({theory}), kcal/mol/Å")
    figure.supylabel("predicted force component, kcal/mol/Å")
    figure.colorbar(bins, ax=axes, label="components in a cell", shrink=0.7)
    return figure


def torsion_distributions(
    angles: Mapping[str, np.ndarray], labels: list[str], bins: int = 60
) -> Figure:
    """Probability densities of torsion angles, one panel a torsion, one line a sampling.

    Args:
        angles: {sampling: (M, T) radians}.
        labels: (T,) names of the torsions.
    """
    columns = min(len(labels), 2)
    rows = -(-len(labels) // columns)
    figure = Figure(figsize=(5.0 * columns, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    edges = np.linspace(-180, 180, bins + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    styles = ("-", "--", "-.", ":")
    for t, (ax, label) in enumerate(zip(axes.flat, labels, strict=False)):
        for i, (name, values) in enumerate(angles.items()):
            density, _ = np.histogram(np.degrees(values[:, t]), edges, density=True)
            line = {"color": COLOURS[i], "linestyle": styles[i % 4], "linewidth": 1.5}
            ax.step(middle, density, where="mid", label=name, **line)
        ax.set_title(label)
        ax.set_xlim(-180, 180)
        ax.set_ylim(bottom=0)
        ax.set_xticks(range(-180, 181, 60))
    for ax in axes.flat[len(labels) :]:
        ax.set_visible(False)
    axes.flat[0].legend(fontsize="small")
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
    """Energies and instantaneous temperature of a run against time.

    Args:
        times: (F,) fs.
        potential, kinetic: (F,) kcal/mol.
        temperatures: (F,) K.
        target: the thermostat's temperature, K, if there is one.
    """
    figure = Figure(figsize=(8.0, 5.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    ps = np.asarray(times) / 1000.0
    shift = potential[0]
    for i, (name, values) in enumerate(
        {
            "potential": potential - shift,
            "kinetic": kinetic,
            "total": potential - shift + kinetic,
        }.items()
    ):
        top.plot(ps, values, label=name, color=COLOURS[i], linewidth=0.8)
    top.set_ylabel("energy, kcal/mol\n(potential from its start)")
    top.legend(fontsize="small", loc="upper right", ncols=3)
    bottom.plot(ps, temperatures, color="#999999", linewidth=0.5, label="instantaneous")
    mean = np.cumsum(temperatures) / np.arange(1, len(temperatures) + 1)
    bottom.plot(ps, mean, color=COLOURS[0], linewidth=1.5, label="running mean")
    if target is not None:
        bottom.axhline(target, color=COLOURS[1], linestyle="--", label=f"target {target:g} K")
    bottom.set_ylabel("temperature, K")
    bottom.set_xlabel("time, ps")
    bottom.legend(fontsize="small", loc="upper right", ncols=3)
    return figure


def widths(trials: Sequence) -> Figure:
    """Validation errors of kernel widths, one line for each number of frames, λ and prior.

    Args:
        trials: `jaxff.gdml.Trial` objects.
    """
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    ax = figure.subplots()
    lines: dict[tuple, list] = {}
    for trial in trials:
        lines.setdefault((trial.n_train, trial.lam, trial.prior), []).append(trial)
    for i, ((count, lam, prior), own) in enumerate(sorted(lines.items(), key=str)):
        own = sorted(own, key=lambda trial: trial.sigma)
        label = f"{count} frames, λ = {lam:g}" + ("" if prior is None else f", prior {prior:g}")
        x, y = [t.sigma for t in own], [t.valid_rmse for t in own]
        ax.plot(x, y, "o-", color=COLOURS[i % len(COLOURS)], label=label)
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
    """Test errors against the number of training frames, a line a model, the mean over seeds.

    Args:
        rows: {"model", "n", "force_rmse", "energy_rmse"} of each training, in kcal/mol/Å and
            kcal/mol.
        title: of the picture.
    """
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    panels = {"force_rmse": "force RMSE, kcal/mol/Å", "energy_rmse": "energy RMSE, kcal/mol"}
    models = list(dict.fromkeys(row["model"] for row in rows))
    markers = "osD^vPX"
    for ax, (key, label) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for k, model in enumerate(models):
            own = [(row["n"], row[key]) for row in rows if row["model"] == model and key in row]
            sizes = sorted({n for n, _ in own})
            values = [[value for n, value in own if n == size] for size in sizes]
            colour = COLOURS[k % len(COLOURS)]
            mean = [np.mean(v) for v in values]
            ax.plot(sizes, mean, marker=markers[k % len(markers)], color=colour, label=model)
            ax.fill_between(
                sizes, list(map(min, values)), list(map(max, values)), color=colour, alpha=0.2
            )
        ax.set_xscale("log")
        ax.set_yscale("log")
        ticks: list[int] = []
        for n in sorted({row["n"] for row in rows}):
            if not ticks or n > 1.3 * ticks[-1]:  # labels of nearer ones would touch
                ticks.append(n)
        ax.set_xticks(ticks, list(map(str, ticks)))
        ax.minorticks_off()
        low, high = ax.get_ylim()
        round_values = np.outer(10.0 ** np.arange(-3, 3), [1, 1.5, 2, 3, 5, 7]).ravel()
        shown = round_values[(round_values >= low) & (round_values <= high)]
        ax.set_yticks(shown, [f"{value:g}" for value in shown])
        ax.set_xlabel("training frames")
        ax.set_ylabel(label)
        ax.grid(alpha=0.3)
    lines, labels = ax.get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=min(len(labels), 4))
    figure.suptitle(title)
    return figure


def fit_history(history: Mapping[str, np.ndarray]) -> Figure:
    """Root of the objective, and the validation error where there is one, by step of a fit."""
    figure = Figure(figsize=(5.0, 3.6), layout="constrained")
    ax = figure.subplots()
    names = {
        "loss": "training: root of the objective",
        "valid_force_rmse": "validation: force RMSE",
    }
    for k, (key, values) in enumerate(history.items()):
        values = np.sqrt(values) if key == "loss" else values
        ax.plot(np.arange(1, len(values) + 1), values, ".-", color=COLOURS[k], label=names[key])
    ax.set_yscale("log")
    for axis in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
        axis("{x:g}")
    ax.set_xlabel("step or epoch")
    ax.set_ylabel("kcal/mol/Å")
    ax.grid(alpha=0.3, which="both")
    ax.legend()
    return figure
