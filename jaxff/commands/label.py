"""Reference energies and forces of geometries."""

from __future__ import annotations

import shlex
import sys

from jaxff.commands.options import method_options, positive, sampling_options
from jaxff.commands.shared import calculator_options, load_molecule, load_potential, sampler
from jaxff.errors import InputError
from jaxff.npz import writable_file

HELP = "Energies and forces from a calculator or potential, for frames or along its own dynamics."
EXAMPLE = (
    "jaxff label CCO --calculator gfn2-xtb --md --temperature 500 --frames 2000 -o ethanol.npz"
)


def options(sub) -> None:
    sub.add_argument("start", metavar="FRAMES", help="xyz, extxyz or npz file, or a SMILES string")
    sub.add_argument(
        "--calculator",
        default="gfn2-xtb",
        metavar="NAME",
        help="gfn2-xtb, gfn1-xtb, pbe-d3bj, hf, mmff94, uff, ghemical, mmff94-rdkit, uff-rdkit, "
        "emt, lj, the file of a potential, or an import path package.module:Class",
    )
    method_options(sub)
    sub.add_argument(
        "--molecule", metavar="SMILES|FILE", help="its bonds decide a force field's topology"
    )
    sub.add_argument("--workers", type=positive(int), default=2, help="processes (default 2)")
    sub.add_argument(
        "--scheduler", metavar="ADDRESS|local", help="label on a Dask cluster instead of processes"
    )
    sub.add_argument(
        "--skip-failed", action="store_true", help="leave frames out whose calculation fails"
    )
    sub.add_argument("--overwrite", action="store_true", help="replace another run's output")
    dynamics = sub.add_argument_group("dynamics, to sample the frames first")
    dynamics.add_argument("--md", action="store_true", help="Langevin dynamics from FRAMES")
    dynamics.add_argument(
        "--sample-with", metavar="MODEL.npz", help="the same, but with the forces of this potential"
    )
    dynamics.add_argument(
        "--select", choices=("random", "energy", "farthest"),
        help="how, of ten times the frames of --sample-with, those to label are chosen; or all of "
        "as many (random, the default)",
    )  # fmt: skip
    dynamics.add_argument("--frames", type=positive(int), default=2000, help="in all (2000)")
    sampling_options(dynamics, spacing=10.0, replicas=2)
    sub.add_argument("-o", "--output", required=True, metavar="DATA.npz")


def run(arguments, console) -> dict:
    from jaxff.reference import label_frames, label_md
    from jaxff.reference.sample import starting_geometries

    writable_file(arguments.output)
    if arguments.md and arguments.scheduler is not None:
        raise InputError(
            "--md runs in processes of this machine: sample first, then label the frames "
            "with --scheduler"
        )
    if arguments.md and arguments.sample_with is not None:
        raise InputError("give either --md, dynamics of the calculator, or --sample-with, not both")
    if arguments.select is not None and arguments.sample_with is None:
        raise InputError("--select chooses among the frames of --sample-with, which is not given")
    given = arguments.molecule
    common = {
        "calculator": arguments.calculator,
        "options": calculator_options(arguments.options),
        "charge": arguments.charge,
        "molecule": None if given is None else load_molecule(given, arguments.charge, 0),
        "workers": arguments.workers,
        "overwrite": arguments.overwrite,
        "command": shlex.join(["jaxff", *sys.argv[1:]]),
        "progress": lambda _, fraction: console("label", fraction),
    }
    if arguments.sample_with is not None:
        frames = sampled(arguments, console)
    else:
        frames = starting_geometries(arguments.start, arguments.replicas if arguments.md else 1)
    if arguments.md:
        result = label_md(
            frames,
            arguments.output,
            temperature=arguments.temperature,
            dt=arguments.dt,
            friction=arguments.friction,
            spacing=arguments.spacing,
            equilibration=arguments.equilibration,
            n_frames=arguments.frames,
            replicas=arguments.replicas,
            seed=arguments.seed,
            **common,
        )
    else:
        result = label_frames(
            frames,
            arguments.output,
            skip_failed=arguments.skip_failed,
            scheduler=arguments.scheduler,
            **common,
        )
    console.close()
    data = result.dataset
    console.say(f"{len(data)} frames at {data.theory} written to {arguments.output}")
    if (topology := data.notes.get("topology")) is not None:
        console.say(f"topology of all frames: {topology}")
    for what, found in (("failed", result.failed), ("bonded unlike the others", result.rebonded)):
        if found:
            console.say(f"{len(found)} frames {what}: {', '.join(map(str, found[:20]))}")
    return {
        "data": str(arguments.output),
        "frames": len(data),
        "theory": data.theory,
        "topology": topology,
        "failed": result.failed,
        "rebonded": result.rebonded,
        "net_force": result.net_force,
        "net_torque": result.net_torque,
    }


def sampled(arguments, console) -> list:
    """Frames of the dynamics of another potential, of which some are selected."""
    from jaxff.reference import select

    potential = load_potential(arguments.sample_with)
    molecule = load_molecule(arguments.start, arguments.charge, arguments.seed)
    by, n = arguments.select or "random", arguments.frames
    wanted = n if by == "random" else 10 * n
    frames = sampler(arguments, potential).sample(molecule, wanted, progress=console)
    chosen = select(frames, n, by, model=potential.matched(molecule), seed=arguments.seed)
    return [molecule.with_positions(frame) for frame in frames[chosen]]
