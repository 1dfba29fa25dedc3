"""Command that labels geometries with reference energies and forces."""

from __future__ import annotations

import argparse
from dataclasses import replace

from jaxff.commands.options import (
    START,
    labelling,
    labelling_options,
    positive,
    sampling,
    sampling_options,
)
from jaxff.commands.shared import (
    check_smiles_charge,
    load_molecule,
    load_potential,
    load_start,
    say_unknown,
)
from jaxff.errors import InputError
from jaxff.npz import writable_file
from jaxff.reference.settings import REACTIONS, Labelling, Sampling

HELP = "Label frames with the energies and forces of a calculator or potential."
MORE = "--md or --sample-with samples the frames first by molecular dynamics."
EXAMPLE = (
    "jaxff label CCO --calculator gfn2-xtb --md --temperature 500 --frames 2000 -o ethanol.npz"
)


def options(sub) -> None:
    sub.add_argument("start", metavar="FRAMES", help=f"data set (npz, extxyz), {START}")
    labelling_options(sub)
    sub.add_argument(
        "--molecule", metavar="SMILES|FILE",
        help="molecule whose bonds a force field uses (default: the bonds of the first frame)",
    )  # fmt: skip
    sub.add_argument(
        "--scheduler",
        metavar="ADDRESS|local",
        help="label on a Dask cluster: address of the scheduler, or local for a cluster on this "
        "machine",
    )
    sub.add_argument(
        "--skip-failed", action="store_true", help="omit frames whose calculation fails"
    )
    sub.add_argument("--overwrite", action="store_true", help="replace the output of another run")
    dynamics = sub.add_argument_group("sampling of frames by molecular dynamics")
    dynamics.add_argument(
        "--md", action="store_true", help="sample by Langevin dynamics with the calculator"
    )
    dynamics.add_argument(
        "--reactions", choices=REACTIONS, default=Labelling.reactions,
        help="action if bonds change in --md: stop (default), keep all frames, or drop the frames "
        "with changed bonds; after a stop, repeat the command with keep or drop to continue",
    )  # fmt: skip
    dynamics.add_argument(
        "--sample-with", metavar="MODEL.npz", help="sample by Langevin dynamics with this potential"
    )
    dynamics.add_argument(
        "--select", choices=("random", "energy", "farthest"),
        help="selection of the frames of --sample-with: random (default); energy or farthest "
        "select from ten times as many sampled frames",
    )  # fmt: skip
    dynamics.add_argument(
        "--frames", type=positive(int), default=2000, help="number of frames to label"
    )
    sampling_options(dynamics, Sampling(spacing=10.0, replicas=2))
    sub.add_argument("-o", "--output", required=True, metavar="DATA.npz", help="output file")


def run(arguments: argparse.Namespace, console) -> dict:
    from jaxff.reference import label_frames, label_md

    writable_file(arguments.output)
    if arguments.md and arguments.scheduler is not None:
        raise InputError(
            "--md cannot run on the cluster of --scheduler: omit --scheduler, or sample first and "
            "then label the frames with --scheduler"
        )
    if arguments.md and arguments.sample_with is not None:
        raise InputError(
            "--md and --sample-with exclude each other: give --md to sample with the calculator, "
            "or --sample-with to sample with a potential"
        )
    if arguments.select is not None and arguments.sample_with is None:
        raise InputError("--select needs frames of a potential: add --sample-with MODEL.npz")
    given = arguments.molecule
    how = labelling(arguments, overwrite=arguments.overwrite, reactions=arguments.reactions)
    common = {
        "charge": arguments.charge,
        "molecule": None if given is None else load_molecule(given, arguments.charge, 0),
        "progress": console,
    }
    if arguments.md:
        starts = _frames(arguments, arguments.replicas)
        dynamics = sampling(arguments)
        result = label_md(starts, arguments.output, arguments.frames, how, dynamics, **common)
    else:
        how = replace(how, scheduler=arguments.scheduler, skip_failed=arguments.skip_failed)
        if arguments.sample_with is None:
            frames = _frames(arguments)
        else:
            frames = sampled(arguments, console)
        result = label_frames(frames, arguments.output, how, **common)
    console.close()
    data = result.dataset
    console.say(f"wrote {len(data)} frames at {data.theory} to {arguments.output}")
    if (reactions := data.notes.get("reactions")) is not None:
        console.say(reactions)
    if (topology := data.notes.get("topology")) is not None:
        console.say(f"topology of all frames: {topology}")
    for what, frames in (("failed", result.failed), ("have changed bonds", result.rebonded)):
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


def _frames(arguments: argparse.Namespace, replicas: int = 1):
    """Return the geometries of FRAMES; a SMILES string gives `replicas` conformers."""
    from jaxff.formats.potentials import is_model
    from jaxff.reference.frames import starting_geometries

    if is_model(arguments.start):
        return [load_start(arguments.start, trust=arguments.trust)]
    frames = starting_geometries(arguments.start, replicas)
    if isinstance(frames, list):  # of a SMILES string
        check_smiles_charge(arguments.start, frames[0], arguments.charge)
    return frames


def sampled(arguments: argparse.Namespace, console) -> list:
    """Sample with the potential of --sample-with, and return the frames to label."""
    from jaxff.reference import Selection

    potential = load_potential(arguments.sample_with, arguments)
    say_unknown(console, arguments.sample_with, potential)
    molecule = load_start(arguments.start, None, arguments.seed, arguments.trust, arguments.charge)
    selection = Selection(arguments.frames, arguments.select or "random")
    frames = selection.sample(potential, molecule, sampling(arguments), progress=console)
    return [molecule.with_positions(frame) for frame in frames]
