"""Labels that active learning needs until a kernel of GAFF's frames describes the reference's.

    python benchmarks/active_learning.py FOLDER [--molecules keto_malondialdehyde,aspirin]
        [--seeds 0,1,2] [--by random,uncertainty,farthest] [--initial 200] [--max-frames 1000]

The first frames are sampled by dynamics of GAFF and labelled by GFN2-xTB.  In each round, dynamics
of the kernel sample candidates, of which some are selected and labelled.  After each round the
force errors are computed on test frames of two samplings: the packaged frames, sampled by
GFN2-xTB, and further frames of GAFF.  Their ratio (the ratio of Table I of the paper) falls to one
if the kernel describes both samplings equally well.  The table lists the number of labels at which
the ratio is first at most 1.05, and its share of the number for random selection.

FOLDER contains the runs and a line of JSON for each round.  Repeat the command to continue after an
interruption.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from jaxff.console import plain_table

TARGET = 1.05
TEMPERATURE = 500.0  # K
N_TEST = 500  # test frames of each sampling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--molecules", default="keto_malondialdehyde,aspirin")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--by", default="random,uncertainty,farthest")
    parser.add_argument("--initial", type=int, default=200, help="frames of GAFF's sampling")
    parser.add_argument("--round", type=int, default=50, help="labels of each round")
    parser.add_argument("--candidates", type=int, default=500, help="frames to select from")
    parser.add_argument("--max-frames", type=int, default=1000)
    parser.add_argument("--n-test", type=int, default=N_TEST)
    arguments = parser.parse_args()
    import jax

    jax.config.update("jax_enable_x64", True)
    rows = []
    for molecule in arguments.molecules.split(","):
        for seed in arguments.seeds.split(","):
            needed = {}
            for by in arguments.by.split(","):
                rounds = run(arguments, molecule, int(seed), by)
                reached = [one["labels"] for one in rounds if one["ratio"] <= TARGET]
                needed[by] = reached[0] if reached else None
                last = rounds[-1]
                share = None
                if needed[by] and needed.get("random"):
                    share = round(needed[by] / needed["random"], 2)
                last = [round(last[key], 3) for key in ("reference_mae", "gaff_mae", "largest")]
                rows.append([molecule, seed, by, needed[by] or "-", share or "-", *last])
                print(rows[-1], flush=True)
    columns = ["molecule", "seed", "selection", f"labels to ratio {TARGET}", "of random"]
    columns += ["last MAE, reference", "last MAE, GAFF", "largest error"]
    print(plain_table(columns, rows))


def run(arguments: argparse.Namespace, molecule: str, seed: int, by: str) -> list[dict]:
    """Run active learning, and return the errors after each round."""
    from jaxff import gaff
    from jaxff.dataset import packaged_dataset
    from jaxff.reference import Labelling, Loop, Sampling, active_learning, label_frames

    place = arguments.folder / molecule / str(seed)
    place.mkdir(parents=True, exist_ok=True)
    data = packaged_dataset(molecule)
    force_field = gaff(data.molecule, charges="gasteiger")
    sampling = Sampling(TEMPERATURE, seed=seed)
    labelling = Labelling("gfn2-xtb")
    path = place / "gaff-test.npz"
    other = Sampling(TEMPERATURE, seed=seed + 10_000)
    positions = None
    if not path.is_file():
        positions = other.frames(force_field, data.molecule, arguments.n_test)
        label_frames([data.molecule.with_positions(R) for R in positions], path, labelling)
    tests = {
        "gaff": type(data).load(path, check=False),
        "reference": data[np.random.default_rng(seed).permutation(len(data))[: arguments.n_test]],
    }
    log = place / f"{by}.jsonl"
    rounds = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    while True:
        count = rounds[-1]["labels"] + arguments.round if rounds else arguments.initial
        if count > arguments.max_frames:
            return rounds
        loop = Loop(
            1e-6,
            n_round=arguments.round,
            n_initial=arguments.initial,
            max_frames=count,
            n_candidates=arguments.candidates,
            by=by,
        )
        found = active_learning(force_field, data.molecule, place / by, loop, labelling, sampling)
        rounds.append({"labels": len(found.dataset), **errors(found.potential, tests)})
        with log.open("a") as file:
            file.write(json.dumps(rounds[-1]) + "\n")
        print(molecule, seed, by, json.dumps(rounds[-1]), flush=True)


def errors(potential, tests: dict) -> dict[str, float]:
    """Force MAE on each sampling, their ratio, and the largest error of the reference's."""
    from jaxff import evaluate

    mae = {name: evaluate(potential, data)["force_mae"] for name, data in tests.items()}
    data = tests["reference"]
    largest = np.abs(potential.predict(data.positions)[1] - data.forces).max()
    return {
        "reference_mae": mae["reference"],
        "gaff_mae": mae["gaff"],
        "ratio": mae["reference"] / mae["gaff"],
        "largest": float(largest),
    }


if __name__ == "__main__":
    main()
