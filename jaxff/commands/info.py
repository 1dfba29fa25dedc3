"""What is installed, or what a file holds."""

from __future__ import annotations

HELP = "Versions, devices and precision, or what a file holds."
EXAMPLE = "jaxff info --check"


def options(sub) -> None:
    sub.add_argument("file", nargs="?", help="a model, data set or topology to describe")
    sub.add_argument(
        "--check",
        action="store_true",
        help="compare compiled, eager and NumPy energies of a small molecule",
    )


def run(arguments, console) -> dict:
    from jaxff.info import canary, describe

    facts = describe(arguments.file)
    width = max(map(len, facts))
    for key, value in facts.items():
        console.say(f"{key:<{width}}  {value}")
    if arguments.check:
        facts |= {"check": canary()}
        console.say(f"check passed: {facts['check']}")
    return facts
