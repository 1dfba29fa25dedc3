"""Command that describes the installation or a file."""

from __future__ import annotations

from typing import Any

from jaxff.commands.options import frcmod_option, trust_option

HELP = "Show versions, devices and precision, or describe a file."
MORE = "FILE can be any file that jaxff reads or writes, except pictures and tables."
EXAMPLE = "jaxff info --check"


def options(sub) -> None:
    sub.add_argument(
        "file", nargs="?", metavar="FILE",
        help="model, force field, data set, trajectory, geometry or restart file to describe",
    )  # fmt: skip
    trust_option(sub)
    frcmod_option(sub)
    sub.add_argument(
        "--check",
        action="store_true",
        help="test the installation: compare compiled, eager and NumPy energies of a molecule",
    )


def run(arguments, console) -> dict:
    from jaxff.info import canary, installation

    kind, facts, results = "installation", None, {}
    if arguments.file is None:
        facts = installation()
    else:
        from jaxff.contents import describe

        kind, facts = describe(arguments.file, arguments.trust, arguments.frcmod)
        console.say(f"{arguments.file}: {kind}")
    lines = list(_lines(facts))
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        console.say(f"{name:<{width}}  {text}".rstrip())
    if arguments.check:
        results["check"] = canary()
        console.say(f"check passed: {results['check']}")
    return {"kind": kind, "file": arguments.file, "facts": facts, **results}


def _lines(facts: dict[str, Any], before: str = ""):
    """Yield the name and text of each fact; names in nested dicts follow the outer name."""
    for key, value in facts.items():
        name = f"{before}{key}".replace("_", " ")
        if key == "parameters" and isinstance(value, dict):
            yield name, ", ".join(f"{k} {tuple(v['shape'])} {v['unit']}" for k, v in value.items())
        elif isinstance(value, dict):
            yield from _lines(value, "" if key in ("terms", "notes") else f"{key} ")
        else:
            yield name, _shown(key, value)


def _shown(key: str, value: Any) -> str:
    from jaxff.contents import UNITS

    if isinstance(value, list):
        return " ".join(map(str, value))
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f"{text} {UNITS[key]}" if key in UNITS else text
