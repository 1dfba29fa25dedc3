"""The main job on packaged data."""

from __future__ import annotations

from jaxff.commands.shared import writable_folder


def run(arguments, console) -> dict:
    out = writable_folder(arguments.output or f"jaxff-demo-{arguments.molecule}")
    from jaxff.demo import demo as run_demo

    return run_demo(arguments.molecule, out, arguments.seed, console)
