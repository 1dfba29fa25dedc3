"""Active learning of a kernel for a molecule."""

from __future__ import annotations

import shlex
import sys

from jaxff.commands.options import method_options, positive, sampling_options
from jaxff.commands.shared import (
    calculator_options,
    load_molecule,
    load_potential,
    sampler,
    writable_folder,
)

HELP = "Active learning: sample with the model, label where it is unsure, train, and again."
MORE = "Interrupted, the same command goes on; a lower --target or more --max-frames go further."
EXAMPLE = "jaxff active CCO --calculator gfn2-xtb --target 0.5 -n 20 -o ethanol"


def options(sub) -> None:
    sub.add_argument("start", metavar="MOLECULE|START", help="SMILES, or file with a geometry")
    sub.add_argument(
        "--calculator", default="gfn2-xtb", metavar="NAME", help="that labels, as in jaxff label"
    )
    method_options(sub)
    sub.add_argument("--workers", type=positive(int), default=2, help="processes (default 2)")
    sub.add_argument(
        "--target", type=positive(float), default=1.0, metavar="E",
        help="force RMSE on newly labelled frames to stop at, kcal/mol/Å (default 1)",
    )  # fmt: skip
    sub.add_argument(
        "-n", dest="n_round", type=positive(int), default=20, metavar="N",
        help="frames labelled in a turn (default 20)",
    )  # fmt: skip
    sub.add_argument("--initial", type=positive(int), default=50, metavar="N", help="before (50)")
    sub.add_argument(
        "--max-frames", type=positive(int), default=500, metavar="N", help="in all (default 500)"
    )
    sub.add_argument(
        "--candidates", type=positive(int), default=400, metavar="N", help="of each turn (400)"
    )
    sub.add_argument(
        "--baseline", default="gaff", metavar="MODEL.npz|gaff|none",
        help="whose residual the kernel learns (default gaff)",
    )  # fmt: skip
    sub.add_argument("--charges", default="gasteiger", help="of gaff, as in jaxff parametrize")
    sub.add_argument(
        "--sample-with", metavar="MODEL.npz", help="for the first frames (default: the baseline)"
    )
    sampling_options(sub, spacing=100.0, replicas=4)
    sub.add_argument("-o", "--output", required=True, metavar="DIR")


def run(arguments, console) -> dict:
    from jaxff.gaff import gaff
    from jaxff.reference import active_learning
    from jaxff.report import plot_sampling

    out = writable_folder(arguments.output)
    molecule = load_molecule(arguments.start, arguments.charge, arguments.seed)
    if arguments.baseline == "none":
        baseline = None
    elif arguments.baseline == "gaff":
        console("parametrize", 0.0)
        baseline = gaff(molecule, charges=arguments.charges)
    else:
        baseline = load_potential(arguments.baseline)
    first = load_potential(arguments.sample_with) if arguments.sample_with else baseline
    if first is None:
        first = gaff(molecule, charges=arguments.charges)
    found = active_learning(
        sampler(arguments, first),
        arguments.calculator,
        molecule,
        out,
        target=arguments.target,
        n_round=arguments.n_round,
        n_initial=arguments.initial,
        max_frames=arguments.max_frames,
        n_candidates=arguments.candidates,
        baseline=baseline,
        options=calculator_options(arguments.options),
        workers=arguments.workers,
        command=shlex.join(["jaxff", *sys.argv[1:]]),
        progress=console,
    )
    console.close()
    rounds = [turn._asdict() for turn in found.rounds]
    console.table(
        ["labelled frames", "force_rmse", "force_mae", "expected", "dynamics"],
        [[*list(turn)[:4], "stopped" if turn.fault else "sound"] for turn in found.rounds],
    )
    if rounds:
        figure = plot_sampling.growth(
            [turn.n_frames for turn in found.rounds],
            [turn.force_rmse for turn in found.rounds],
            arguments.target,
        )
        figure.savefig(out / "errors.png", dpi=130)
    state = "reached" if found.reached else "not reached within --max-frames"
    console.say(f"target of {arguments.target:g} kcal/mol/Å on new frames {state}")
    console.say(f"wrote {out / 'model.npz'} and {out / 'data.npz'}, {len(found.dataset)} frames")
    return {
        "reached": found.reached,
        "frames": len(found.dataset),
        "theory": found.dataset.theory,
        "rounds": rounds,
        "model": str(out / "model.npz"),
        "data": str(out / "data.npz"),
    }
