"""Errors of sGDML and of its hybrid with GAFF by the number of training frames.

    python benchmarks/accuracy.py DATA.npz --prmtop X.prmtop [-n 100,200,500,1000] [--seeds 0]

For each number of frames the script fits GAFF, trains sGDML, and trains the kernel on the residual
of GAFF, whose parameters are re-estimated with the kernel. Widths are chosen with 500 other
frames, and errors are those of all remaining frames: energies in kcal/mol, forces in kcal/mol/Å
per component.
"""

from __future__ import annotations

import argparse
import time

import jax

jax.config.update("jax_enable_x64", True)

from jaxff import evaluate, fit, gaff, gdml, read_amber  # noqa: E402
from jaxff.console import plain_table  # noqa: E402
from jaxff.dataset import Dataset  # noqa: E402

METRICS = ("energy_mae", "energy_rmse", "force_mae", "force_rmse")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--prmtop", help="GAFF topology (default: the packaged one)")
    parser.add_argument("-n", default="100,200,500,1000", help="numbers of training frames")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--only", choices=("sgdml", "hybrid"), help="omit the other")
    arguments = parser.parse_args()

    data = Dataset.load(arguments.data)
    start = read_amber(arguments.prmtop) if arguments.prmtop else gaff(data.molecule)
    rows = []
    for count in map(int, arguments.n.split(",")):
        for seed in map(int, arguments.seeds.split(",")):
            split = data.split(count, 500, seed=seed, stratify=True)

            def note(name, potential, began, n=count, seed=seed, test=split.test):
                score = evaluate(potential, test)
                kernel = potential.params.get("gdml")
                sigma = "-" if kernel is None else f"{float(kernel['sigma']):g}"
                seconds = round(time.perf_counter() - began)
                rows.append([name, n, seed, sigma, *(score[m] for m in METRICS), seconds])
                print(rows[-1], flush=True)

            began, run = time.perf_counter(), gdml.Run(seed=seed)
            if arguments.only != "hybrid":
                note("sGDML", gdml.train(split.train, split.valid, run=run), began)
            if arguments.only != "sgdml":
                began = time.perf_counter()
                refit = fit(start, split.train, valid=split.valid).potential
                note("GAFF refitted", refit, began)
                kernel = gdml.Kernel(adapt_baseline=True)
                hybrid = gdml.train(
                    split.train, split.valid, baseline=refit, kernel=kernel, run=run
                )
                note("hybrid", hybrid, began)
    print(plain_table(["model", "frames", "seed", "sigma", *METRICS, "s"], rows))


if __name__ == "__main__":
    main()
