"""Table II: refitted GAFF, GAFF-Morse, GAFF-NN and, in addition to the paper, class-II."""

from __future__ import annotations

import json
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from jaxff.analysis import Estimate
from jaxff.dataset import Dataset
from jaxff.learn import evaluate, fit
from jaxff.npz import atomic_path
from jaxff.paper.claims import MODELS, RUNS, TABLE_II
from jaxff.paper.experiment import Setting
from jaxff.paper.result import Result, Table, picture
from jaxff.paper.verdicts import Finding, judged, lowest, minus, ratio, shown, untested
from jaxff.report import plot

FORMS = {"gaff": "GAFF", "morse": "GAFF-Morse", "nn": "GAFF-NN", "class2": "class-II"}
FEW = 110  # frames
SIZES = tuple(sorted({n for _, n in TABLE_II}))
METRICS = ("energy_rmse", "force_rmse")
# Errors by molecule, number of frames, model and metric.
Errors = dict[tuple[str, int, str, str], Estimate]


def run(setting: Setting) -> Result:
    """Fit all forms to 110 or more frames of ethanol and aspirin (Table II)."""
    folder, fits, levels = setting.place("table2"), [], []
    forms = setting.size(tuple(FORMS), ("gaff",))
    errors: Errors = {}
    molecules = setting.size(("ethanol", "aspirin"), ("ethanol",))
    for molecule in molecules:
        data = setting.dataset(molecule)
        levels.append(f"{molecule}: {data.theory}")
        for n in setting.size(SIZES, (40,)):
            if n > 3 * len(data.distinct()) // 4:
                continue  # the packaged data have no 11,000 frames
            for form in forms:
                runs = [
                    _fitted(setting, folder, molecule, data, form, n, seed)
                    for seed in range(setting.size(RUNS, 1))
                ]
                fits += [{**row, "model": FORMS[form]} for row in runs]
                for metric in METRICS:
                    errors[molecule, n, FORMS[form], metric] = averaged([r[metric] for r in runs])
        kernel = setting.kernel_error(molecule)
        for metric in METRICS:
            # There is one kernel only, so the deviation between runs is unknown.
            errors[molecule, 0, "sGDML", metric] = Estimate(kernel[metric], 0.0)
    pictures = [
        picture(
            folder, f"{molecule}.png",
            plot.learning_curves([r for r in fits if r["molecule"] == molecule], molecule),
            f"Test errors of the refitted forms of {molecule} by number of training frames.",
        )
        for molecule in molecules
    ]  # fmt: skip
    missed = sum(not row["converged"] for row in fits)
    return Result(
        "Table II: GAFF refitted",
        f"{'; '.join(levels)}; {setting.charge_model} before the fit",
        findings(errors),
        [
            f"Each error is the mean of {setting.size(RUNS, 1)} runs with different training "
            f"frames, with the standard error. {len(fits) - missed} of {len(fits)} fits "
            "converged. sGDML is the kernel of the other experiments, without a standard error. "
            "Numbers are comparable with those of the paper only for the labels of MD17 "
            "(--data). The paper does not contain class-II."
        ],
        {"rows": fits},
        [table(errors, metric, setting.size(SIZES, (40,))) for metric in METRICS],
        pictures,
    )  # fmt: skip


def averaged(values: list[float]) -> Estimate:
    """Return the mean of independent runs and the standard error (NaN for a single run)."""
    n = len(values)
    return Estimate(
        float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else nan
    )


def findings(errors: Errors) -> list[Finding]:
    """Test the paper's statements on all molecules with the necessary fits."""
    values: dict[str, dict[str, Estimate]] = {
        claim: {}
        for claim in ("above-sgdml", "saturated", "morse-better", "forces-more", "nn-best")
    }
    for molecule in dict.fromkeys(m for m, *_ in errors):
        sizes = sorted({n for m, n, *_ in errors if m == molecule and n > 0})
        most = sizes[-1]

        def of(n: int, model: str, metric: str = "force_rmse", m: str = molecule) -> Estimate:
            return errors.get((m, n, model, metric), Estimate(nan, nan))

        variants = [
            model for model in MODELS[1:] if (molecule, most, model, "force_rmse") in errors
        ]
        best = lowest(of(most, model) for model in variants)
        values["above-sgdml"][molecule] = ratio(best, of(0, "sGDML"))
        if sizes[0] == FEW < most:
            values["saturated"][molecule] = ratio(of(most, "GAFF"), of(FEW, "GAFF"))
        if "GAFF-Morse" in variants:
            gain = {k: ratio(of(most, "GAFF-Morse", k), of(most, "GAFF", k)) for k in METRICS}
            values["morse-better"][molecule] = gain["force_rmse"]
            values["forces-more"][molecule] = minus(gain["force_rmse"], gain["energy_rmse"])
        if sizes[0] == FEW and "GAFF-NN" in variants:
            other = lowest(of(FEW, model) for model in variants if model != "GAFF-NN")
            values["nn-best"][molecule] = ratio(of(FEW, "GAFF-NN"), other)
    return [
        judged(claim, of_claim) if of_claim else untested(claim, "the necessary fits are missing")
        for claim, of_claim in values.items()
    ]


def table(errors: Errors, metric: str, sizes: tuple[int, ...]) -> Table:
    """Return a table with the errors of jaxff and of the paper, in the layout of Table II."""
    what, unit = ("energy", "kcal/mol") if metric == "energy_rmse" else ("force", "kcal/mol/Å")
    place, rows = METRICS.index(metric), []
    models = [*MODELS, "class-II"]
    for molecule in dict.fromkeys(m for m, *_ in errors):
        for n in sizes:
            cells = []
            for k, model in enumerate(models):
                error = errors.get((molecule, 0 if model == "sGDML" else n, model, metric))
                paper = TABLE_II.get((molecule, n), ((None,) * 4,) * 2)[place]
                ours = "-" if error is None else shown(error)
                if model == "sGDML" and error is not None:
                    ours = f"{error.mean:.2f}"
                theirs = paper[k] if k < len(MODELS) else None
                cells.append(f"{ours} ({'–' if theirs is None else f'{theirs:.2f}'})")
            rows.append([molecule, n, *cells])
    return Table(
        f"Test RMSE of the {what} ({unit}); RMSE of the paper's Table II in brackets",
        ["molecule", "frames", *models],
        rows,
    )


def _fitted(
    setting: Setting, folder: Path, molecule: str, data: Dataset, form: str, n: int, seed: int
) -> dict[str, Any]:
    """Fit one form and return the test errors, or read these errors from a file."""
    kept = folder / f"{molecule}-{form}-{n}-{seed}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    part = setting.split(data, n, seed)
    progress = setting.titled(f"{FORMS[form]} of {molecule}, {n} frames, run {seed + 1}")
    result = fit(setting.gaff(molecule, form), part.train, progress=progress)
    row = {
        "molecule": molecule,
        "form": form,
        "n": len(part.train),
        "seed": seed,
        "converged": bool(result.converged),
        **evaluate(result.potential, part.test),
    }
    with atomic_path(kept) as temporary:
        temporary.write_text(json.dumps(row) + "\n")
    return row
