"""Command that prints the errors of a model on a data set."""

from __future__ import annotations

from jaxff.commands.options import data_options, model_option
from jaxff.commands.shared import load_dataset, load_potential

HELP = "Compute the errors of a model on a data set."
EXAMPLE = "jaxff evaluate model.npz ethanol.npz"


def options(sub) -> None:
    model_option(sub)
    data_options(sub)


def run(arguments, console) -> dict:
    from jaxff.learn import evaluate

    potential = load_potential(arguments.model, arguments.trust, arguments.frcmod)
    data = load_dataset(arguments)
    console("evaluate", 0.0)
    score = evaluate(potential, data)
    console.close()
    console.say(f"{arguments.model} on {len(data)} frames of {data.name} ({data.theory})")
    console.table(["metric", "error"], [[key, value] for key, value in score.items()])
    return {"test": score}
