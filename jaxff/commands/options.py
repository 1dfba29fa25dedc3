"""Options of several commands, and conversions of their values."""

from __future__ import annotations

import argparse
import difflib
import json
import shlex
import sys
from collections.abc import Callable
from typing import Any

from jaxff.errors import InputError
from jaxff.formats.registry import COORDINATES, FORCE_FIELD_SUFFIXES, MODEL_SUFFIX, needs_companions
from jaxff.md.settings import ON_EXTRAPOLATION
from jaxff.molecule_files import READERS
from jaxff.reference.calculators import CHOICES
from jaxff.reference.settings import Labelling, Sampling

LABELLING = Labelling()


class Parser(argparse.ArgumentParser):
    """A parser of one command, which names the option that an unknown one resembles."""

    def parse_known_args(self, args=None, namespace=None):
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(self._unknown(unknown[0].partition("=")[0]))
        return found, unknown

    def _unknown(self, word: str) -> str:
        if not word.startswith("-"):
            return (
                f"unexpected argument {word!r}: check the order of the arguments; several values "
                "of one option are separated by commas only, as 10,20"
            )
        similar = difflib.get_close_matches(word, self._option_string_actions, 1)
        return f"unknown option {word}" + (f"; did you mean {similar[0]}?" if similar else "")


class HelpWithDefaults(argparse.RawDescriptionHelpFormatter):
    """Help that states the default of each option that has one.

    The default is not repeated if the text of the option already contains the word "default".
    """

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        if not action.option_strings or action.nargs == 0 or "default" in text:
            return text
        if action.default is None or action.default == argparse.SUPPRESS:
            return text
        return f"{text} (default {action.default})".strip()


START = (
    f"geometry ({', '.join(READERS)}), a SMILES string, a model file ({MODEL_SUFFIX}, for its "
    f"molecule), or coordinates of the atoms of MODEL ({', '.join(COORDINATES)})"
)
MODEL = f"a model file ({MODEL_SUFFIX}) or a force field ({', '.join(FORCE_FIELD_SUFFIXES)})"


def data_options(sub, **several) -> None:
    """Add the argument for a data set, and the options for its units and names."""
    sub.add_argument(
        "data", metavar="DATA.npz", help="sGDML, MD17 or rMD17 npz, or extxyz", **several
    )
    unit_options(sub)
    sub.add_argument(
        "--energy-key", metavar="NAME", help="name of the energies in extxyz, such as REF_energy"
    )
    sub.add_argument(
        "--forces-key", metavar="NAME", help="name of the forces in extxyz, such as REF_forces"
    )


def unit_options(sub) -> None:
    """Add the options for the units of data, and for the check of units and labels."""
    sub.add_argument(
        "--length-unit", metavar="UNIT",
        help="unit of length (default: the unit that the file states, or Å)",
    )  # fmt: skip
    sub.add_argument(
        "--energy-unit", metavar="UNIT",
        help="unit of energy (default: the unit that the file states, or kcal/mol for npz and eV "
        "for extxyz); forces are in this unit per unit of length",
    )  # fmt: skip
    sub.add_argument(
        "--no-check", dest="check_labels", action="store_false",
        help="accept units and labels that look wrong",
    )  # fmt: skip


def trust_option(sub) -> None:
    """Add the option for the modules that may run code when a model is loaded."""
    sub.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module whose functions may be called to build the networks of a model file; may "
        "be repeated",
    )


def frcmod_option(sub) -> None:
    """Add the option for files with the parameters of a mol2 file; see `frcmod_of`."""
    sub.add_argument(
        "--frcmod", action="append", default=[], metavar="FILE",
        help="parameters of a force field that is a mol2 file; may be repeated (default: the "
        "frcmod file of the same name, if it exists)",
    )  # fmt: skip


def frcmod_of(path: str, arguments: argparse.Namespace) -> tuple[str, ...]:
    """The files of --frcmod for a potential of a command: all for a mol2 file, otherwise none.

    Raises:
        InputError: there are such files, and none of the potentials of the command is a mol2 file.
    """
    options = ("model", "minus", "calculator", "baseline", "sample_with")
    given = [getattr(arguments, name, None) for name in options]
    readers = [file for file in given if file and needs_companions(file)]
    if arguments.frcmod and not readers:
        raise InputError(
            f"--frcmod {arguments.frcmod[0]}: leave it out, as no force field of this command is a "
            "mol2 file"
        )
    return tuple(arguments.frcmod) if path in readers else ()


def model_option(sub) -> None:
    """Add the argument for the file of a potential, and the options to read it."""
    sub.add_argument("model", metavar="MODEL.npz", help=MODEL)
    trust_option(sub)
    frcmod_option(sub)


def extrapolation_option(sub) -> None:
    """Add the option for frames outside the training data of the model."""
    sub.add_argument(
        "--on-extrapolation", choices=ON_EXTRAPOLATION, default=ON_EXTRAPOLATION[0],
        help="frames outside the training data of the model: count them and warn, stop, or do not "
        f"compare them (default {ON_EXTRAPOLATION[0]})",
    )  # fmt: skip


def method_options(sub) -> None:
    """Add the options of a calculator or potential, and the charge of the molecule."""
    trust_option(sub)
    frcmod_option(sub)
    sub.add_argument(
        "--options", default="{}", metavar="JSON",
        help='options of a calculator, such as {"accuracy": 0.1}',
    )  # fmt: skip
    sub.add_argument(
        "--charge", type=int, metavar="Q", help="net charge, e (default: that of the geometry)"
    )


def surface_options(sub) -> None:
    """Add the arguments for a potential or calculator, and for a starting geometry."""
    sub.add_argument("model", metavar="MODEL.npz", help=f"{MODEL}, or the name of a calculator")
    sub.add_argument("start", metavar="START", help=START)
    method_options(sub)
    extrapolation_option(sub)


def labelling_options(sub) -> None:
    """Add the options that decide how geometries are labelled; see `labelling`."""
    sub.add_argument(
        "--calculator", default=LABELLING.calculator, metavar="NAME",
        help=CHOICES,
    )  # fmt: skip
    method_options(sub)
    sub.add_argument(
        "--workers", type=positive(int), default=LABELLING.workers,
        help="number of processes",
    )  # fmt: skip


def labelling(arguments: argparse.Namespace, **settings) -> Labelling:
    """Return the `Labelling` of a command with `labelling_options`; add `settings`."""
    return Labelling(
        arguments.calculator,
        calculator_options(arguments.options),
        arguments.workers,
        command=shlex.join(["jaxff", *sys.argv[1:]]),
        trust=tuple(arguments.trust),
        companions=frcmod_of(arguments.calculator, arguments),
        **settings,
    )


def sampling_options(sub, default: Sampling) -> None:
    """Add the options of the dynamics from which frames are taken; see `sampling`."""
    for name, kind, text in (
        ("temperature", positive(float), "K"),
        ("dt", positive(float), "time step, fs"),
        ("friction", positive(float), "1/ps"),
        ("spacing", positive(float), "time between frames, fs"),
        ("equilibration", not_negative, "time before the first frame, fs"),
        ("replicas", positive(int), "number of independent runs"),
    ):
        sub.add_argument(f"--{name}", type=kind, default=getattr(default, name), help=text)


def sampling(arguments: argparse.Namespace) -> Sampling:
    """Return the `Sampling` of a command with `sampling_options`."""
    names = ("temperature", "spacing", "equilibration", "replicas", "dt", "friction", "seed")
    return Sampling(**{name: getattr(arguments, name) for name in names})


def calculator_options(text: str) -> dict:
    """Convert the value of the option --options to a dict.

    Raises:
        InputError: the value is not a JSON object.
    """
    try:
        options = json.loads(text)
    except ValueError as error:
        raise InputError(f"--options is not JSON ({error}): {text}") from error
    if not isinstance(options, dict):
        raise InputError(f'--options must be a JSON object such as {{"accuracy": 0.1}}, not {text}')
    return options


def split_options(sub, n_train: int) -> None:
    """Add the options for the numbers of training, validation and test frames."""
    sub.add_argument(
        "-n",
        dest="n_train",
        type=positive(int),
        metavar="N",
        help=f"number of training frames (default {n_train}, or three fifths of a small data set)",
    )
    for name, kind, most in (("valid", "validation", 500), ("test", "test", 1000)):
        text = f"number of {kind} frames (default: at most {most})"
        sub.add_argument(f"--{name}", type=count, metavar="N", help=text)
    sub.set_defaults(usual_n_train=n_train)


def number(kind: Callable[[str], Any], text: str) -> Any:
    """Convert text to a number of a kind, int or float."""
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None


def positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Make a function that converts text to a positive finite number of a kind."""

    def convert(text: str):
        value = number(kind, text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not a positive finite number")
        return value

    convert.__name__ = f"positive {kind.__name__}"
    return convert


def not_negative(text: str) -> float:
    """Convert text to a finite number that is at least zero."""
    value = number(float, text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number that is at least 0")
    return value


def charges(text: str) -> list[int]:
    """Convert text to a list of integers, which are separated by commas."""
    return [number(int, part) for part in text.split(",")]


def count(text: str) -> int:
    """Convert text to an integer that is at least zero."""
    value = number(int, text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def numbers(text: str) -> list[float]:
    """Convert text to a list of positive numbers, which are separated by commas."""
    return [positive(float)(part) for part in text.split(",")]


def indices(text: str) -> list[int]:
    """Convert text to a list of atom indices, counted from 0 and separated by commas."""
    return [count(part) for part in text.split(",")]


def atoms(number: int) -> Callable[[str], list[int]]:
    """Make a function that converts text to `number` different atom indices."""

    def convert(text: str) -> list[int]:
        atoms = indices(text)
        if len(set(atoms)) != number or len(atoms) != number:
            raise argparse.ArgumentTypeError(f"{text}: give {number} different atoms")
        return atoms

    return convert


def patterns(text: str) -> list[str]:
    """Convert text to a list of words, which are separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def force_fields(text: str) -> list[str]:
    """Convert text to a list of force-field formats, named by their suffixes."""
    names = [name.lower() for name in patterns(text)]
    unknown = [name for name in names if f".{name}" not in FORCE_FIELD_SUFFIXES]
    if unknown:
        known = ", ".join(suffix.removeprefix(".") for suffix in FORCE_FIELD_SUFFIXES)
        raise argparse.ArgumentTypeError(f"unknown format {', '.join(unknown)}: use {known}")
    return names
