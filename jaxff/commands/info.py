"""Command that describes the installation or a file."""

from __future__ import annotations

from jaxff.commands.options import trust_option

HELP = "Show versions, devices and precision, or describe a file."
EXAMPLE = "jaxff info --check"


def options(sub) -> None:
    sub.add_argument("file", nargs="?", help="a model, force field, data set or molecule")
    trust_option(sub)
    sub.add_argument(
        "--check",
        action="store_true",
        help="compare compiled, eager and NumPy energies of a small molecule",
    )


def run(arguments, console) -> dict:
    from jaxff.info import canary, describe

    facts = describe(arguments.file, arguments.trust)
    width = max(map(len, facts))
    for key, value in facts.items():
        console.say(f"{key:<{width}}  {value}")
    if arguments.check:
        facts |= {"check": canary()}
        console.say(f"check passed: {facts['check']}")
    return facts
