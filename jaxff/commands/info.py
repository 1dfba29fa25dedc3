"""What is installed, or what a file holds."""

from __future__ import annotations


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
