"""Command that repeats the experiments of Sauceda et al. (2020)."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from jaxff.commands.folders import writable_folder
from jaxff.commands.options import unit_options
from jaxff.commands.shared import load_dataset
from jaxff.paper import EXPERIMENTS

HELP = "Repeat the experiments of Sauceda et al. (2020) and compare them with the paper."
MORE = "Repeat the command to continue after an interruption; DIR keeps all results."
EXAMPLE = "jaxff reproduce table2 --data md17_ethanol.npz --data md17_aspirin.npz -o paper"


def options(sub) -> None:
    sub.add_argument("experiment", choices=("all", *EXPERIMENTS))
    sub.add_argument(
        "--data", action="append", metavar="DATA.npz",
        help="data set of ethanol, keto-malondialdehyde or aspirin that replaces the packaged data "
        "set; may be repeated",
    )  # fmt: skip
    sub.add_argument(
        "--surface-data", action="append", metavar="DATA.npz",
        help="data set used only for surfaces and normal modes, such as coupled-cluster frames; "
        "may be repeated",
    )  # fmt: skip
    unit_options(sub)
    sub.add_argument("--small", action="store_true", help="reduce all sizes for a short test run")
    sub.add_argument("-o", "--output", required=True, metavar="DIR", help="output folder")


def run(arguments: argparse.Namespace, console) -> dict:
    from jaxff.paper import reproduce
    from jaxff.paper.claims import CLAIMS

    out = writable_folder(arguments.output)
    data = [load_dataset(arguments, path) for path in arguments.data or ()]
    surface_data = [load_dataset(arguments, path) for path in arguments.surface_data or ()]
    results = reproduce(
        arguments.experiment,
        out,
        data=data,
        surface_data=surface_data,
        small=arguments.small,
        seed=arguments.seed,
        progress=console,
    )
    console.close()
    for result in results.values():
        console.say(f"\n{result.title}: {result.verdict} ({result.reason})")
        for claim, obtained, verdict, reason in result.findings:
            console.say(f"  the paper: “{CLAIMS[claim].quote}”")
            console.say(f"    here: {obtained}{f' ({reason})' if reason else ''}: {verdict}")
    console.say(f"\nwrote {out}/: open index.html")
    return {"results": {n: {**asdict(r), "verdict": r.verdict} for n, r in results.items()}}
