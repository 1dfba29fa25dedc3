"""Command that runs the demonstration on a packaged data set."""

from __future__ import annotations

from jaxff.commands.folders import writable_folder

HELP = "Compare GAFF, refitted GAFF, sGDML and a hybrid on a packaged data set."
EXAMPLE = "jaxff demo aspirin -o aspirin-demo"


def options(sub) -> None:
    sub.add_argument("molecule", nargs="?", default="ethanol", choices=("ethanol", "aspirin"))
    sub.add_argument(
        "-o", "--output", metavar="DIR", help="output folder (default: jaxff-demo-MOLECULE)"
    )


def run(arguments, console) -> dict:
    out = writable_folder(arguments.output or f"jaxff-demo-{arguments.molecule}")
    from jaxff.demo import demo as run_demo

    return run_demo(arguments.molecule, out, arguments.seed, console)
