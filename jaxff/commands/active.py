"""Active learning of a kernel for a molecule."""

from __future__ import annotations

import shlex
import sys

from jaxff.commands.shared import (
    calculator_options,
    load_molecule,
    load_potential,
    sampler,
    writable_folder,
)


def run(arguments, console) -> dict:
    from jaxff import mm, plot_sampling
    from jaxff.reference import active_learning

    out = writable_folder(arguments.output)
    molecule = load_molecule(arguments.start, arguments.charge, arguments.seed)
    if arguments.baseline == "none":
        baseline = None
    elif arguments.baseline == "gaff":
        console("parametrize", 0.0)
        baseline = mm.gaff(molecule, charges=arguments.charges)
    else:
        baseline = load_potential(arguments.baseline)
    first = load_potential(arguments.sample_with) if arguments.sample_with else baseline
    if first is None:
        first = mm.gaff(molecule, charges=arguments.charges)
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
