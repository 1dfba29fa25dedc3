"""Errors of models from few labels with the help of a teacher, against published ones.

    python benchmarks/few_labels.py TRAIN.npz TEST.npz [-n 50] [--seeds 0,1,2] [--teacher gfn2-xtb]

    python benchmarks/few_labels.py TRAIN.npz TEST.npz --kernels

For each seed the script runs ``jaxff fit TRAIN.npz --form class2 --plus sgdml -n 50 --valid 0
--test 0 --teacher gfn2-xtb``, with no other choice, and takes the errors of all frames of TEST.npz.
With --kernels it compares kernels alone, without a force field and a teacher: plain, with a learnt
metric, and with fragments.  Forces are in meV/Å per component, energies in meV.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxff.cli import main as jaxff
from jaxff.console import plain_table

MEV = 43.364  # meV in one kcal/mol


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("-n", default="50", help="number of frames with expensive labels")
    parser.add_argument("--seeds", default="0,1,2", help="one draw of frames for each")
    parser.add_argument("--teacher", default="gfn2-xtb")
    parser.add_argument("--teacher-frames", help="see `jaxff fit`")
    parser.add_argument("--kernels", action="store_true", help="compare kernels alone")
    arguments = parser.parse_args()
    rows = []
    if arguments.kernels:
        for seed in arguments.seeds.split(","):
            for row in kernels(arguments, int(seed)):
                rows.append([seed, *row])
                print(rows[-1], flush=True)
        names = [
            "seed",
            "kernel",
            "left-out force MAE",
            "force MAE",
            "force RMSE",
            "energy MAE",
            "s",
        ]
        print(plain_table(names, rows))
        return
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds.split(","):
            rows.append([seed, *one(arguments, seed, Path(folder))])
            print(rows[-1], flush=True)
    print(plain_table(["seed", "way", "force MAE", "force RMSE", "energy MAE", "s"], rows))
    print(f"mean force MAE {np.mean([row[2] for row in rows]):.1f} meV/Å")


def one(arguments: argparse.Namespace, seed: str, folder: Path) -> list:
    """The way that was chosen, the test errors, and the seconds of one draw."""
    from jaxff import Dataset, evaluate, load

    began, model, report = time.perf_counter(), folder / f"{seed}.npz", folder / f"{seed}.json"
    command = ["fit", arguments.train, "--form", "class2", "--plus", "sgdml"]
    command += ["-n", arguments.n, "--valid", "0", "--test", "0", "--seed", seed]
    command += ["--teacher", arguments.teacher, "-o", str(model), "--json", str(report)]
    if arguments.teacher_frames:
        command += ["--teacher-frames", arguments.teacher_frames]
    if jaxff(command) != 0:
        raise SystemExit(f"the command failed: jaxff {' '.join(command)}")
    seconds = round(time.perf_counter() - began)
    score = evaluate(load(model), Dataset.load(arguments.test))
    chosen = json.loads(report.read_text())["teacher"]["chosen"]
    errors = [round(MEV * score[key], 2) for key in ("force_mae", "force_rmse", "energy_mae")]
    return [chosen, *errors, seconds]


def kernels(arguments: argparse.Namespace, seed: int) -> Iterator[list]:
    """Errors of each kind of kernel, on left-out and on test frames, and the seconds."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from jaxff import Dataset, evaluate
    from jaxff.learn import Teaching, teach

    train, test = Dataset.load(arguments.train), Dataset.load(arguments.test)
    frames = train.split(int(arguments.n), 0, seed=seed, stratify=True).train
    for kind in ({}, {"learn_metric": True}, {"fragments": True}):
        began = time.perf_counter()
        settings = Teaching(**{"learn_metric": False, "fragments": False, "seed": seed, **kind})
        taught = teach(frames, settings=settings)
        seconds = round(time.perf_counter() - began)
        score = evaluate(taught.potential, test)
        errors = [score[key] for key in ("force_mae", "force_rmse", "energy_mae")]
        errors = [round(MEV * error, 2) for error in (taught.chosen.force_mae, *errors)]
        yield [taught.chosen.name, *errors, seconds]


if __name__ == "__main__":
    main()
