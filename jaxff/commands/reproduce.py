"""The experiments of the paper."""

from __future__ import annotations

from dataclasses import asdict

from jaxff.commands.shared import load_dataset, writable_folder


def run(arguments, console) -> dict:
    from jaxff.paper import reproduce

    out = writable_folder(arguments.output)
    data = [load_dataset(arguments, path) for path in arguments.data or ()]
    results = reproduce(
        arguments.experiment,
        out,
        data=data,
        small=arguments.small,
        seed=arguments.seed,
        progress=console,
    )
    console.close()
    for result in results.values():
        console.say(f"\n{result.title}\n  paper: {result.reported}\n  here: {result.found}")
        console.say(f"  verdict: {result.verdict}. {result.why}")
    console.say(f"\nwrote {out}/: open index.html")
    return {"results": {name: asdict(result) for name, result in results.items()}}
