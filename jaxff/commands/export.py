"""Command that writes a model as files for other programs."""

from __future__ import annotations

from pathlib import Path

from jaxff.commands.folders import writable_folder
from jaxff.commands.options import model_option
from jaxff.commands.shared import load_potential
from jaxff.errors import InputError
from jaxff.formats.registry import FORCE_FIELDS

HELP = "Write a model as force-field files for other programs."
MORE = "The command stops if a format cannot express a term of the model, and names the term."
EXAMPLE = "jaxff export ethanol_gaff.npz --to amber openmm -o ethanol"

FORMATS = {form.module: form for form in FORCE_FIELDS}


def options(sub) -> None:
    model_option(sub)
    names = "; ".join(
        f"{name}: {form.name}, {', '.join(dict.fromkeys(form.suffixes[:1] + form.companions[:1]))}"
        for name, form in FORMATS.items()
    )
    sub.add_argument("--to", nargs="+", required=True, choices=tuple(FORMATS), help=names)
    sub.add_argument("--name", help="file name without suffix (default: the name of MODEL.npz)")
    sub.add_argument("-o", "--output", metavar="DIR", required=True, help="output folder")


def run(arguments, console) -> dict:
    from jaxff.formats import write_force_field

    stem = arguments.name or Path(arguments.model).stem
    if Path(stem).name != stem:
        raise InputError(f"--name {stem} contains a folder: give the folder with -o")
    potential = load_potential(arguments.model, arguments)
    out = writable_folder(arguments.output)
    files = [
        file
        for name in dict.fromkeys(arguments.to)
        for file in write_force_field(out / f"{stem}{FORMATS[name].suffixes[0]}", potential)
    ]
    console.say(f"wrote {', '.join(map(str, files))}")
    return {"files": [str(file) for file in files]}
