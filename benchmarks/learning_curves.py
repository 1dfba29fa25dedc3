"""Errors of fitted force fields, kernels and hybrids by the number of training frames.

    python benchmarks/learning_curves.py DATA.npz -o FOLDER [-n 50,110,300,1000] [--seeds 0,1,2]

Each result is a line of FOLDER/NAME.jsonl; results that exist are not computed again. Test errors
are those of 2,000 other frames, and kernels choose their width with 300 further frames.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np

import jaxff
from jaxff import gdml
from jaxff.report import plot

VALID, TEST = 300, 2000
FORMS = {
    "GAFF": "gaff",
    "GAFF-Morse": "morse",
    "GAFF-NN": "nn",
    "class-II": "class2",
}
KERNEL, PLUS, METRIC = "sGDML", " + sGDML", " (learnt metric)"


def run(model: str, split, fitted: dict) -> dict:
    """Train one model and return its test errors, seconds, and whether it converged."""
    started, converged = time.perf_counter(), True
    base = model.removesuffix(METRIC).removesuffix(PLUS)
    if base in FORMS and base not in fitted:
        start = jaxff.gaff(split.train.molecule, form=FORMS[base])
        fitted[base] = jaxff.fit(start, split.train)
    if model in FORMS:
        potential, converged = fitted[base].potential, fitted[base].converged
    else:
        baseline = fitted[base].potential if base in fitted else None
        kernel = gdml.Kernel(learn_metric=model.endswith(METRIC))
        potential = gdml.train(split.train, split.valid, baseline=baseline, kernel=kernel)
    seconds = time.perf_counter() - started
    return {
        "model": model,
        **jaxff.evaluate(potential, split.test),
        "seconds": round(seconds, 1),
        "converged": bool(converged),
    }


def table(rows: list[dict]) -> str:
    """Means over seeds: force RMSE (energy RMSE; number of seeds), by model and frames."""
    sizes = sorted({row["n"] for row in rows})
    lines = ["| frames | " + " | ".join(map(str, sizes)) + " |", "|---" * (len(sizes) + 1) + "|"]
    for model in dict.fromkeys(row["model"] for row in rows):
        cells = []
        for n in sizes:
            own = [row for row in rows if (row["model"], row["n"]) == (model, n)]
            force, energy = (
                np.mean([row[key] for row in own]) if own else np.nan
                for key in ("force_rmse", "energy_rmse")
            )
            cells.append(f"{force:.2f} ({energy:.2f}; {len(own)})" if own else "-")
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("-o", "--output", required=True, type=Path)
    parser.add_argument("-n", default="50,110,300,1000")
    parser.add_argument("--seeds", default="0,1,2")
    kernels = [kind + metric for metric in ("", METRIC) for kind in (KERNEL, "class-II" + PLUS)]
    parser.add_argument("--models", default=",".join(["class-II", *kernels]))
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    name = Path(arguments.data).stem
    known = arguments.output / f"{name}.jsonl"
    rows = [json.loads(line) for line in known.read_text().splitlines()] if known.exists() else []
    done = {(row["model"], row["n"], row["seed"]) for row in rows}
    data = jaxff.Dataset.load(arguments.data)
    for seed in map(int, arguments.seeds.split(",")):
        for n in map(int, arguments.n.split(",")):
            split, fitted = data.split(n, VALID, TEST, seed=seed), {}
            for model in arguments.models.split(","):
                if (model, n, seed) in done:
                    continue
                rows.append({"n": n, "seed": seed, **run(model, split, fitted)})
                with known.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(rows[-1], flush=True)
    print(table(rows))
    figure = plot.learning_curves(rows, f"{name}, {data.theory}")
    figure.savefig(arguments.output / f"{name}.png", dpi=130)


if __name__ == "__main__":
    main()
