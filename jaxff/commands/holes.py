"""Command that looks for holes in the energy surface of a model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

from jaxff.commands.folders import writable_folder
from jaxff.commands.options import (
    count,
    labelling,
    method_options,
    positive,
    sampling,
    sampling_options,
    unit_options,
    workers_option,
)
from jaxff.commands.shared import load_dataset, load_potential, write_geometries
from jaxff.errors import InputError
from jaxff.reference.calculators import CHOICES
from jaxff.reference.settings import SEARCHING

if TYPE_CHECKING:
    from jaxff.console import Console
    from jaxff.reference.holes import Search

HELP = "Find geometries outside the training data that a model reaches."
MORE = (
    "The search uses dynamics, relaxed scans of rotatable bonds and stretched bonds.\n"
    "With --label, the geometries are labelled and the kernel is trained again, until no energy "
    "is too low.\nRepeat the command to continue an interrupted run with --label."
)
EXAMPLE = "jaxff holes model.npz data.npz --label gfn2-xtb -o mended"


def options(sub) -> None:
    sub.add_argument("model", metavar="MODEL.npz", help="a trained model")
    sub.add_argument(
        "data", metavar="DATA.npz", nargs="?",
        help="the data set on which the model was trained (needed with --label)",
    )  # fmt: skip
    unit_options(sub)
    method_options(sub)
    sub.add_argument(
        "--label", dest="calculator", metavar="NAME",
        help=f"calculator of the level of theory of the data: {CHOICES}",
    )  # fmt: skip
    workers_option(sub)
    for name, kind, value, text in (
        ("rounds", positive(int), 5, "largest number of rounds of labelling and training"),
        ("most", positive(int), 20, "largest number of geometries in each round"),
        ("frames", positive(int), 2000, "number of frames of the dynamics"),
        ("points", count, 12, "number of points of the scan of each rotatable bond; 0: no scans"),
    ):
        sub.add_argument(f"--{name}", type=kind, default=value, metavar="N", help=text)
    sampling_options(sub, SEARCHING)
    sub.add_argument("-o", "--output", required=True, metavar="DIR", help="output folder")


def run(arguments: argparse.Namespace, console: Console) -> dict:
    from jaxff.reference.holes import Search, find_holes

    if arguments.calculator is not None and arguments.data is None:
        raise InputError("--label needs the training data set of the model: give DATA.npz")
    search = Search(
        sampling=sampling(arguments),
        frames=arguments.frames,
        points=arguments.points,
        most=arguments.most,
    )
    out = writable_folder(arguments.output)
    potential = load_potential(arguments.model, arguments)
    if potential.molecule is None:
        raise InputError(f"{arguments.model} contains no molecule: train the model again")
    if arguments.calculator is not None:
        return _mend(arguments, console, potential, search, out)
    known = potential.molecule.positions[None]
    if arguments.data is not None:
        data = load_dataset(arguments, arguments.data)
        potential, known = potential.matched(data.molecule), data.positions
    assert potential.molecule is not None
    holes = find_holes(potential, potential.molecule, known, search, console)
    console.close()
    console.table(
        ["found by", "energy above the lowest training energy", "outside because"],
        [[hole.origin, hole.energy, hole.reason] for hole in holes],
    )
    files = []
    if holes:
        infos = [{"origin": hole.origin, "reason": hole.reason} for hole in holes]
        positions = np.stack([hole.positions for hole in holes])
        write_geometries(out / "holes.xyz", potential.molecule, positions, infos)
        files.append(str(out / "holes.xyz"))
        console.say(
            f"geometries reachable by {arguments.model}, but outside its training data: "
            f"{len(holes)}. Label them with --label, or with `jaxff label`, and train again"
        )
        console.say(f"wrote {files[0]}")
    else:
        console.say(f"no reachable geometry is outside the training data of {arguments.model}")
    rows = [{"energy": h.energy, "origin": h.origin, "reason": h.reason} for h in holes]
    return {"holes": rows, "rounds": [], "closed": None, "model": None, "files": files}


def _mend(arguments: argparse.Namespace, console: Console, potential, search: Search, out) -> dict:
    from jaxff.reference.holes import mend_holes
    from jaxff.saved import save

    data = load_dataset(arguments, arguments.data)
    result = mend_holes(
        potential, data, out / "rounds", labelling(arguments), search, rounds=arguments.rounds,
        progress=console,
    )  # fmt: skip
    model, frames = out / "model.npz", out / "data.npz"
    save(model, result.potential)
    result.dataset.save(frames)
    console.close()
    console.table(
        ["round", "labelled", "holes", "energy too low by", "force RMSE before training"],
        [[k, *values] for k, values in enumerate(result.rounds, 1)],
    )
    console.say(
        "no hole is left among the geometries that the search finds"
        if result.closed
        else f"holes were left after {arguments.rounds} rounds: repeat with more --rounds"
    )
    console.say(f"wrote {model} and {frames} ({len(result.dataset)} training frames)")
    return {
        "holes": [],
        "rounds": [one._asdict() for one in result.rounds],
        "closed": result.closed,
        "model": str(model),
        "files": [str(model), str(frames)],
    }
