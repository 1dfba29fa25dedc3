"""Errors of a potential on data."""

from __future__ import annotations

from jaxff.commands.shared import load_dataset, load_potential


def run(arguments, console) -> dict:
    from jaxff.learn import evaluate

    potential = load_potential(arguments.model)
    data = load_dataset(arguments)
    console("evaluate", 0.0)
    score = evaluate(potential, data)
    console.close()
    console.say(f"{arguments.model} on {len(data)} frames of {data.name} ({data.theory})")
    console.table(["metric", "error"], [[key, value] for key, value in score.items()])
    return {"test": score}
