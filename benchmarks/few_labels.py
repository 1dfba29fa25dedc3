"""Errors of models from few labels with the help of a teacher, against published ones.

    python benchmarks/few_labels.py DATA [-o FOLDER] [--molecules ethanol,aspirin] [--seeds 0,1,2]
    python benchmarks/few_labels.py DATA --ccsd-t [-o FOLDER]
    python benchmarks/few_labels.py DATA --kernels

DATA is a folder with ``rmd17/MOLECULE_train.npz`` and ``rmd17/MOLECULE_test.npz``, and with
``ccsd_t/ethanol.npz`` for --ccsd-t.  For each molecule and seed, the script draws 50 training
frames, runs ``jaxff fit FRAMES.npz --form class2 --plus sgdml --teacher gfn2-xtb`` without other
options, and computes the errors of all frames of the test file.  Each result is written to FOLDER.
Repeat the command to continue after an interruption, also within a fit.

With --ccsd-t the training frames are 50 CCSD(T) frames of ethanol, and the teachers are GFN2-xTB
and the PBE frames of rMD17.  sGDML with 500 CCSD(T) frames is trained for comparison.

With --kernels the script compares kernels alone, without a force field and a teacher: plain, with a
learnt metric, and with fragments.  Forces are in meV/Å per component, energies in meV.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from jaxff.cli import main as jaxff
from jaxff.console import plain_table

MEV = 43.364  # meV in one kcal/mol
METRICS = ("force_mae", "force_rmse", "energy_mae")
# Force MAE of MACE trained on 50 frames of rMD17, meV/Å: Batatia et al., NeurIPS 35 (2022).
PUBLISHED = {"ethanol": 32.6, "aspirin": 43.9}
SGDML_FRAMES = 500  # training frames of sGDML in the comparison at CCSD(T)
CCSD_T_TEST = 400  # test frames at CCSD(T)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("few_labels"), help="folder")
    parser.add_argument("--molecules", default="ethanol,aspirin")
    parser.add_argument("-n", type=int, default=50, help="number of frames with expensive labels")
    parser.add_argument("--seeds", default="0,1,2", help="one draw of frames for each")
    parser.add_argument("--teacher", default="gfn2-xtb")
    parser.add_argument("--teacher-frames", help="see `jaxff fit`")
    parser.add_argument("--budget", help="see `jaxff fit`")
    parser.add_argument("--ccsd-t", action="store_true", help="CCSD(T) ethanol, two teachers")
    parser.add_argument("--kernels", action="store_true", help="compare kernels alone")
    arguments = parser.parse_args()
    import jax

    jax.config.update("jax_enable_x64", True)
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    if arguments.ccsd_t:
        coupled_cluster(arguments, seeds)
        return
    rows = []
    for molecule in arguments.molecules.split(","):
        files = [arguments.data / "rmd17" / f"{molecule}_{part}.npz" for part in ("train", "test")]
        if arguments.kernels:
            compare_kernels(arguments, molecule, files, seeds)
        else:
            draws = [one(arguments, molecule, files, seed) for seed in seeds]
            rows.append(summary(molecule, draws, PUBLISHED.get(molecule)))
    if rows:
        columns = ["molecule", "draws", "force MAE", "spread", "MACE", "ratio", "s", "slowest"]
        print(plain_table(columns, rows))
        ratios = [row[5] for row in rows if row[5] != "-"]
        if ratios:
            print(f"geometric mean of the ratios: {np.exp(np.mean(np.log(ratios))):.3f}")


def summary(molecule: str, draws: list[dict], published: float | None) -> list:
    """Mean and spread of the force MAE, the published error, the ratio, and the seconds."""
    errors = np.array([draw["force_mae"] for draw in draws])
    spread = errors.std(ddof=1) if len(draws) > 1 else 0.0
    ratio = "-" if published is None else round(errors.mean() / published, 3)
    seconds = [draw["seconds"] for draw in draws]
    return [
        molecule,
        len(draws),
        round(errors.mean(), 2),
        round(spread, 2),
        published or "-",
        ratio,
        round(float(np.mean(seconds))),
        max(seconds),
    ]


def kept(path: Path, compute: Callable[[], dict]) -> dict:
    """Read a result from a file, or compute it and write the file."""
    if not path.is_file():
        result = compute()
        part = path.with_suffix(".part")
        part.write_text(json.dumps(result, indent=1))
        part.replace(path)
    result = json.loads(path.read_text())
    print(json.dumps(result), flush=True)
    return result


def one(arguments: argparse.Namespace, molecule: str, files: list[Path], seed: int) -> dict:
    """The errors of one draw, the model that was chosen, and the seconds."""
    from jaxff import Dataset

    def draw() -> Dataset:
        return Dataset.load(files[0]).split(arguments.n, 0, seed=seed, stratify=True).train

    name = f"{molecule}-{arguments.n}-{seed}"
    teachers = ["--teacher", arguments.teacher]
    return kept(
        arguments.output / f"{name}.json",
        lambda: fitted(arguments, name, draw(), teachers, Dataset.load(files[1])),
    )


def fitted(arguments: argparse.Namespace, name: str, frames, teachers: list[str], test) -> dict:
    """Run `jaxff fit` on drawn frames; repeat the call to continue after an interruption."""
    from jaxff import evaluate, load

    folder = arguments.output / name
    folder.mkdir(parents=True, exist_ok=True)
    data, model, report = folder / "frames.npz", folder / "model.npz", folder / "report.json"
    spent = folder / "seconds"  # of interrupted runs
    if not data.is_file():
        frames.save(data)
    command = ["fit", str(data), "--form", "class2", "--plus", "sgdml", *teachers]
    command += ["-o", str(model), "--json", str(report)]
    if arguments.teacher_frames:
        command += ["--teacher-frames", arguments.teacher_frames]
    if arguments.budget:
        command += ["--budget", arguments.budget]
    if not report.is_file():  # which is written at the end
        earlier = float(spent.read_text()) if spent.is_file() else 0.0
        began = time.perf_counter()
        try:
            code = jaxff(command)
        finally:
            spent.write_text(str(earlier + time.perf_counter() - began))
        if code != 0:
            raise SystemExit(f"the command failed: jaxff {' '.join(command)}")
    score = evaluate(load(model), test)
    found = json.loads(report.read_text())["teacher"]
    errors = {key: round(MEV * score[key], 2) for key in METRICS}
    return {
        "name": name,
        **errors,
        "chosen": found["chosen"],
        "seconds": round(float(spent.read_text())),
    }


def coupled_cluster(arguments: argparse.Namespace, seeds: list[int]) -> None:
    """Compare 50 CCSD(T) frames and two teachers with sGDML and 500 CCSD(T) frames."""
    from jaxff import Dataset, evaluate, gdml

    every = Dataset.load(arguments.data / "ccsd_t" / "ethanol.npz")
    every = every[every.distinct()]
    pbe = str(arguments.data / "rmd17" / "ethanol_train.npz")
    teachers = ["--teacher", arguments.teacher, "--teacher", pbe]
    rows = []
    for seed in seeds:
        split = every.split(SGDML_FRAMES, 50, CCSD_T_TEST, seed=seed, stratify=True)
        few = split.train[np.random.default_rng(seed).permutation(SGDML_FRAMES)[: arguments.n]]

        def sgdml(split=split) -> dict:
            began = time.perf_counter()
            score = evaluate(gdml.train(split.train, split.valid), split.test)
            errors = {key: round(MEV * score[key], 2) for key in METRICS}
            return {**errors, "seconds": round(time.perf_counter() - began)}

        name = f"ccsd_t-{arguments.n}-{seed}"
        ours = kept(
            arguments.output / f"{name}.json",
            lambda few=few, split=split, name=name: fitted(
                arguments, name, few, teachers, split.test
            ),
        )
        theirs = kept(arguments.output / f"ccsd_t-sgdml-{seed}.json", sgdml)
        ratio = round(ours["force_mae"] / theirs["force_mae"], 3)
        rows.append([seed, ours["force_mae"], theirs["force_mae"], ratio, ours["seconds"]])
    title = f"sGDML, {SGDML_FRAMES} frames"
    print(plain_table(["seed", f"{arguments.n} frames", title, "ratio", "s"], rows))
    print(f"mean ratio {np.mean([row[3] for row in rows]):.3f}")


def compare_kernels(
    arguments: argparse.Namespace, molecule: str, files: list[Path], seeds: list[int]
) -> None:
    """Print the errors of each kind of kernel."""
    rows = []
    for seed in seeds:
        for row in kernels(arguments, files, seed):
            rows.append([seed, *row])
            print(rows[-1], flush=True)
    names = ["seed", "kernel", "left-out force MAE", "force MAE", "force RMSE", "energy MAE", "s"]
    print(f"{molecule}\n{plain_table(names, rows)}")


def kernels(arguments: argparse.Namespace, files: list[Path], seed: int) -> Iterator[list]:
    """Errors of each kind of kernel, on left-out and on test frames, and the seconds."""
    from jaxff import Dataset, evaluate
    from jaxff.learn import Teaching, teach

    train, test = map(Dataset.load, files)
    frames = train.split(arguments.n, 0, seed=seed, stratify=True).train
    for kind in ({}, {"learn_metric": True}, {"fragments": True}):
        began = time.perf_counter()
        settings = Teaching(**{"learn_metric": False, "fragments": False, "seed": seed, **kind})
        taught = teach(frames, settings=settings)
        seconds = round(time.perf_counter() - began)
        score = evaluate(taught.potential, test)
        errors = [score[key] for key in METRICS]
        errors = [round(MEV * error, 2) for error in (taught.chosen.force_mae, *errors)]
        yield [taught.chosen.name, *errors, seconds]


if __name__ == "__main__":
    main()
