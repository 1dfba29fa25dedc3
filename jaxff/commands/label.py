"""Reference energies and forces of geometries."""

from __future__ import annotations

import argparse
from dataclasses import replace

from jaxff.commands.options import (
    labelling,
    labelling_options,
    positive,
    sampling,
    sampling_options,
)
from jaxff.commands.shared import load_molecule, load_potential, say_unknown
from jaxff.errors import InputError
from jaxff.npz import writable_file
from jaxff.reference.settings import REACTIONS, Labelling, Sampling

HELP = "Label frames with the energies and forces of a calculator or potential."
MORE = "The frames can be sampled first, by dynamics of the calculator or of another potential."
EXAMPLE = (
    "jaxff label CCO --calculator gfn2-xtb --md --temperature 500 --frames 2000 -o ethanol.npz"
)


def options(sub) -> None:
    sub.add_argument("start", metavar="FRAMES", help="xyz, extxyz or npz file, or a SMILES string")
    labelling_options(sub)
    sub.add_argument(
        "--molecule", metavar="SMILES|FILE",
        help="molecule whose bonds are the topology of a force field",
    )  # fmt: skip
    sub.add_argument(
        "--scheduler", metavar="ADDRESS|local", help="label on a Dask cluster instead of processes"
    )
    sub.add_argument(
        "--skip-failed", action="store_true", help="leave out frames whose calculation fails"
    )
    sub.add_argument("--overwrite", action="store_true", help="replace the output of another run")
    dynamics = sub.add_argument_group("dynamics that sample the frames first")
    dynamics.add_argument(
        "--md", action="store_true", help="Langevin dynamics of the calculator from FRAMES"
    )
    dynamics.add_argument(
        "--reactions", choices=REACTIONS, default=Labelling.reactions,
        help="what --md does when bonds change: stop (default; repeat the command with keep or "
        "drop to continue), keep all frames, or drop the frames whose bonds have changed",
    )  # fmt: skip
    dynamics.add_argument(
        "--sample-with", metavar="MODEL.npz", help="sample by Langevin dynamics of this potential"
    )
    dynamics.add_argument(
        "--select", choices=("random", "energy", "farthest"),
        help="how to choose the frames to label among ten times as many frames of --sample-with "
        "(default random: sample only as many frames as are labelled)",
    )  # fmt: skip
    dynamics.add_argument(
        "--frames", type=positive(int), default=2000, help="number of frames to label"
    )
    sampling_options(dynamics, Sampling(spacing=10.0, replicas=2))
    sub.add_argument("-o", "--output", required=True, metavar="DATA.npz")


def run(arguments: argparse.Namespace, console) -> dict:
    from jaxff.reference import label_frames, label_md
    from jaxff.reference.frames import starting_geometries

    writable_file(arguments.output)
    if arguments.md and arguments.scheduler is not None:
        raise InputError(
            "--md runs in processes of this machine: sample first, then label the frames "
            "with --scheduler"
        )
    if arguments.md and arguments.sample_with is not None:
        raise InputError(
            "give either --md (dynamics of the calculator) or --sample-with (of a potential)"
        )
    if arguments.select is not None and arguments.sample_with is None:
        raise InputError(
            "--select selects from the frames of --sample-with: give --sample-with as well"
        )
    given = arguments.molecule
    how = labelling(arguments, overwrite=arguments.overwrite, reactions=arguments.reactions)
    common = {
        "charge": arguments.charge,
        "molecule": None if given is None else load_molecule(given, arguments.charge, 0),
        "progress": lambda _, fraction: console("label", fraction),
    }
    if arguments.md:
        starts = starting_geometries(arguments.start, arguments.replicas)
        dynamics = sampling(arguments)
        result = label_md(starts, arguments.output, arguments.frames, how, dynamics, **common)
    else:
        how = replace(how, scheduler=arguments.scheduler, skip_failed=arguments.skip_failed)
        if arguments.sample_with is None:
            frames = starting_geometries(arguments.start)
        else:
            frames = sampled(arguments, console)
        result = label_frames(frames, arguments.output, how, **common)
    console.close()
    data = result.dataset
    console.say(f"{len(data)} frames at {data.theory} written to {arguments.output}")
    if (reactions := data.notes.get("reactions")) is not None:
        console.say(reactions)
    if (topology := data.notes.get("topology")) is not None:
        console.say(f"topology of all frames: {topology}")
    for what, frames in (("failed", result.failed), ("have other bonds", result.rebonded)):
        if frames:
            console.say(f"{len(frames)} frames {what}: {', '.join(map(str, frames[:20]))}")
    return {
        "data": str(arguments.output),
        "frames": len(data),
        "theory": data.theory,
        "topology": topology,
        "failed": result.failed,
        "rebonded": result.rebonded,
        "reactions": reactions,
        "charge": data.charge,
        "net_force": result.net_force,
        "net_torque": result.net_torque,
    }


def sampled(arguments: argparse.Namespace, console) -> list:
    """Sample with the potential of --sample-with, and select the frames to label."""
    from jaxff.reference import Selection

    potential = load_potential(arguments.sample_with, arguments)
    say_unknown(console, arguments.sample_with, potential)
    molecule = load_molecule(arguments.start, arguments.charge, arguments.seed)
    selection = Selection(arguments.frames, arguments.select or "random")
    frames = selection.sample(potential, molecule, sampling(arguments), progress=console)
    return [molecule.with_positions(frame) for frame in frames]
