"""Reference energies and forces of geometries."""

from __future__ import annotations

import shlex
import sys

from jaxff.commands.shared import calculator_options, load_molecule, load_potential, sampler
from jaxff.errors import InputError
from jaxff.npz import writable_file


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
    given = arguments.molecule
    common = {
        "calculator": arguments.calculator,
        "options": calculator_options(arguments.options),
        "charge": arguments.charge,
        "molecule": None if given is None else load_molecule(given, arguments.charge, 0),
        "workers": arguments.workers,
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
    by, n = arguments.select, arguments.frames
    wanted = n if by == "random" else 10 * n
    frames = sampler(arguments, potential).sample(molecule, wanted, progress=console)
    chosen = select(frames, n, by, model=potential.matched(molecule), seed=arguments.seed)
    return [molecule.with_positions(frame) for frame in frames[chosen]]
