"""Command that trains a kernel by active learning."""

from __future__ import annotations

import argparse

from jaxff.commands.folders import writable_folder
from jaxff.commands.options import (
    START,
    labelling,
    labelling_options,
    positive,
    sampling,
    sampling_options,
)
from jaxff.commands.shared import load_potential, load_start, say_unknown
from jaxff.reference.settings import CRITERIA, Loop, Sampling

HELP = "Train a kernel by active learning: sample, label uncertain frames, train, and repeat."
MORE = (
    "Repeat the command to continue after an interruption. To continue a finished run, lower "
    "--target or raise --max-frames."
)
EXAMPLE = "jaxff active CCO --calculator gfn2-xtb --target 0.5 -n 20 -o ethanol"
LOOP = Loop(target=1.0)


def options(sub) -> None:
    sub.add_argument("start", metavar="START", help=START)
    labelling_options(sub)
    sub.add_argument(
        "--target", type=positive(float), default=LOOP.target, metavar="E",
        help="stop when the force RMSE on newly labelled frames is below this value, kcal/mol/Å",
    )  # fmt: skip
    for flags, name, text in (
        (("-n",), "n_round", "number of frames to label in each round"),
        (("--initial",), "n_initial", "number of frames to label before the first round"),
        (("--max-frames",), "max_frames", "largest number of labelled frames"),
        (("--candidates",), "n_candidates", "number of frames from which each round selects"),
    ):
        value = getattr(LOOP, name)
        sub.add_argument(
            *flags, dest=name, type=positive(int), default=value, metavar="N",
            help=text,
        )  # fmt: skip
    sub.add_argument(
        "--select", dest="by", choices=CRITERIA, default=LOOP.by,
        help="selection of the frames to label in each round: those with the largest predicted "
        "errors (uncertainty, default), those farthest from labelled frames, or random frames",
    )  # fmt: skip
    sub.add_argument(
        "--baseline", default="gaff", metavar="MODEL.npz|gaff|none",
        help="potential that the kernel corrects (default gaff)",
    )  # fmt: skip
    sub.add_argument(
        "--charges", default="gasteiger", help="charges for GAFF; see `jaxff parametrize --charges`"
    )
    sub.add_argument(
        "--sample-with", metavar="MODEL.npz",
        help="potential that samples the first frames (default: --baseline, or GAFF)",
    )  # fmt: skip
    sampling_options(sub, Sampling())
    sub.add_argument("-o", "--output", required=True, metavar="DIR", help="output folder")


def run(arguments: argparse.Namespace, console) -> dict:
    from jaxff.gaff import gaff
    from jaxff.md.extrapolation import outside_text
    from jaxff.reference import active_learning
    from jaxff.report import plot_sampling

    out = writable_folder(arguments.output)
    molecule = load_start(arguments.start, None, arguments.seed, arguments.trust, arguments.charge)
    if arguments.baseline == "none":
        baseline = None
    elif arguments.baseline == "gaff":
        console("parametrize", 0.0)
        baseline = gaff(molecule, charges=arguments.charges)
    else:
        baseline = load_potential(arguments.baseline, arguments)
    first = baseline
    if arguments.sample_with:
        first = load_potential(arguments.sample_with, arguments)
    say_unknown(console, arguments.baseline, baseline)
    if arguments.sample_with:
        say_unknown(console, arguments.sample_with, first)
    if first is None:
        console("parametrize", 0.0)
        first = gaff(molecule, charges=arguments.charges)
    loop = Loop(
        arguments.target,
        arguments.n_round,
        arguments.n_initial,
        arguments.max_frames,
        arguments.n_candidates,
        arguments.by,
    )
    result = active_learning(
        first, molecule, out, loop, labelling(arguments), sampling(arguments), baseline=baseline,
        progress=console,
    )  # fmt: skip
    console.close()
    rounds = result.rounds
    console.table(
        ["labelled frames", "force_rmse", "force_mae", "expected", "dynamics", "outside"],
        [[*one[:4], "failed" if one.fault else "complete", _outside(one)] for one in rounds],
    )
    if rounds:
        figure = plot_sampling.growth(
            [one.n_frames for one in rounds],
            [one.force_rmse for one in rounds],
            arguments.target,
        )
        figure.savefig(out / "errors.png", dpi=130)
        found = rounds[-1].extrapolation
        model, what = "the model of the last round", "frames of the last dynamics"
        if found is not None and (text := outside_text(model, found, what)):
            console.say(text)
    state = "reached"
    if not result.reached:
        state = "not reached: raise --max-frames or --target, and repeat the command"
    console.say(f"force RMSE of {arguments.target:g} kcal/mol/Å on new frames {state}")
    console.say(f"wrote {out / 'model.npz'} and {out / 'data.npz'} ({len(result.dataset)} frames)")
    return {
        "reached": result.reached,
        "frames": len(result.dataset),
        "theory": result.dataset.theory,
        "rounds": [one._asdict() for one in rounds],
        "model": str(out / "model.npz"),
        "data": str(out / "data.npz"),
    }


def _outside(one) -> str:
    """Return the percentage of the frames of a round outside the training data, as text."""
    found = one.extrapolation
    return "unknown" if found is None else f"{100.0 * found['share']:.3g} %"
