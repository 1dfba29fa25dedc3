"""Command that prints the errors of a model on a data set."""

from __future__ import annotations

from jaxff.commands.options import data_options, model_option
from jaxff.commands.shared import (
    METRICS,
    load_dataset,
    load_potential,
    say_extrapolation,
    say_unknown,
)

HELP = "Compute the errors of a model on a data set."
EXAMPLE = "jaxff evaluate model.npz ethanol.npz"


def options(sub) -> None:
    model_option(sub)
    data_options(sub)


def run(arguments, console) -> dict:
    import numpy as np

    from jaxff.domain import outside, trained_on
    from jaxff.learn import aligned, errors

    potential = load_potential(arguments.model, arguments)
    data = load_dataset(arguments)
    console("evaluate", 0.0)
    ordered = aligned(data, potential)
    energies, forces = potential.predict(ordered.positions)
    known = trained_on(potential.trained, ordered.positions)
    parts = {"test": ~known}
    if known.any():
        parts = {"all": np.full(len(data), True), "train": known, "test": ~known}
    scores = {
        key: errors(ordered[part], energies[part], forces[part])
        for key, part in parts.items()
        if part.any()
    }
    console.close()
    console.say(f"errors of {arguments.model} on {len(data)} frames of {data.name} ({data.theory})")
    if known.any():
        console.say(
            f"the model was trained on {known.sum()} of these frames (column train): use the "
            "errors on the other frames (column test)"
        )
    rows = [[m, *(score.get(m) for score in scores.values())] for m in METRICS]
    console.table(["metric", *(scores if known.any() else ["error"])], rows)
    say_unknown(console, arguments.model, potential)
    if potential.molecule is not None and potential.molecule.charge != data.charge:
        console.say(
            f"warning: {data.name} has charge {data.charge:+d} e, but {arguments.model} was made "
            f"for {potential.molecule.charge:+d} e: the labels may be of another ion"
        )
    found = outside(potential.trained, ordered.positions, energies)
    return {
        **scores,
        "trained_on": int(known.sum()) if potential.trained else None,
        "extrapolation": say_extrapolation(console, arguments.model, found, "frames"),
    }
