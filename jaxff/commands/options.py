"""Options shared by several commands, and functions that convert their values."""

from __future__ import annotations

import argparse
import difflib
import json
import re
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
    """Argument parser that suggests a similar option if an option is unknown."""

    def parse_known_args(self, args=None, namespace=None):
        found, unknown = super().parse_known_args(args, namespace)
        if len(unknown) == 1 and getattr(found, "start", "") is None and unknown[0][:1] != "-":
            # argparse decides that an optional START is missing when it meets an option.
            found.start = unknown.pop()
        if unknown:
            self.error(self._unknown(unknown[0].partition("=")[0]))
        return found, unknown

    def _unknown(self, word: str) -> str:
        if not word.startswith("-"):
            return (
                f"unexpected argument {word!r}: check the order of the arguments, and separate "
                "several values of one option by commas without spaces, such as 10,20"
            )
        similar = difflib.get_close_matches(word, self._option_string_actions, 1)
        remedy = f"did you mean {similar[0]}?" if similar else f"see {self.prog} --help"
        return f"unknown option {word}; {remedy}"


class HelpWithDefaults(argparse.RawDescriptionHelpFormatter):
    """Help formatter that appends the default to texts without the word "default"."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        if not action.option_strings or action.nargs == 0 or "default" in text:
            return text
        if action.default is None or action.default == argparse.SUPPRESS:
            return text
        return f"{text} (default {action.default})".strip()


START = (
    f"molecule file ({', '.join(READERS)}), SMILES string, or model file ({MODEL_SUFFIX}) that "
    "contains a molecule"
)
START_OF_MODEL = f"{START}, or coordinates of the atoms of MODEL ({', '.join(COORDINATES)})"
MODEL = f"a model file ({MODEL_SUFFIX}) or a force field ({', '.join(FORCE_FIELD_SUFFIXES)})"


def data_options(sub, **several) -> None:
    """Add the argument for a data set, and the options for its units and names.

    The keywords `several` are passed to `add_argument` for the data set.
    """
    sub.add_argument(
        "data", metavar="DATA.npz", help="data set: sGDML, MD17 or rMD17 npz, or extxyz", **several
    )
    unit_options(sub)
    for name, key in (("energy", "energies"), ("forces", "forces")):
        sub.add_argument(
            f"--{name}-key", metavar="NAME", help=f"name of the {key} in extxyz, such as REF_{name}"
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
        help="do not check the units and labels",
    )  # fmt: skip


def trust_option(sub) -> None:
    """Add the option for the modules that model files may call."""
    sub.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="module whose functions may be called to build the networks of a model file; may be "
        "repeated (default: none)",
    )


def frcmod_option(sub) -> None:
    """Add the option for the frcmod files of a mol2 file."""
    sub.add_argument(
        "--frcmod", action="append", default=[], metavar="FILE",
        help="frcmod file with the parameters for a mol2 file; may be repeated (default: the "
        "frcmod file with the same name as the mol2 file, if it exists)",
    )  # fmt: skip


def frcmod_of(path: str, arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the files of --frcmod if a potential is a mol2 file, otherwise no files.

    Args:
        path: file of the potential.
        arguments: parsed options of a command with `frcmod_option`.

    Raises:
        InputError: --frcmod is given, but no potential of the command is a mol2 file.
    """
    options = ("model", "minus", "calculator", "baseline", "sample_with")
    given = [getattr(arguments, name, None) for name in options]
    readers = [file for file in given if file and needs_companions(file)]
    if arguments.frcmod and not readers:
        raise InputError(
            f"--frcmod {arguments.frcmod[0]}: no force field of this command is a mol2 file; omit "
            "--frcmod"
        )
    return tuple(arguments.frcmod) if path in readers else ()


def model_option(sub) -> None:
    """Add the argument for the file of a potential, and the options for reading this file."""
    sub.add_argument("model", metavar="MODEL.npz", help=MODEL)
    trust_option(sub)
    frcmod_option(sub)


def extrapolation_option(sub) -> None:
    """Add the option for frames outside the training data of the model."""
    sub.add_argument(
        "--on-extrapolation", choices=ON_EXTRAPOLATION, default=ON_EXTRAPOLATION[0],
        help="action for geometries outside the training data of the model: warn, stop, or ignore "
        f"(default {ON_EXTRAPOLATION[0]})",
    )  # fmt: skip


def method_options(sub) -> None:
    """Add the options of a calculator or potential, and the charge of the molecule."""
    trust_option(sub)
    frcmod_option(sub)
    sub.add_argument(
        "--options", default="{}", metavar="JSON",
        help='options of the calculator, such as {"accuracy": 0.1}',
    )  # fmt: skip
    sub.add_argument(
        "--charge",
        type=int,
        metavar="Q",
        help="net charge, e (default: the charge in the geometry)",
    )


def surface_options(sub, nargs: str | None = None) -> None:
    """Add the arguments for a potential or calculator, and for a starting geometry.

    The geometry is optional with the `nargs` "?", for systems in a box.
    """
    sub.add_argument("model", metavar="MODEL.npz", help=f"{MODEL}, or the name of a calculator")
    sub.add_argument("start", nargs=nargs, metavar="START", help=START_OF_MODEL)
    method_options(sub)
    extrapolation_option(sub)


def labelling_options(sub) -> None:
    """Add the options for the calculator that labels geometries; see `labelling`."""
    sub.add_argument(
        "--calculator", default=LABELLING.calculator, metavar="NAME",
        help=CHOICES,
    )  # fmt: skip
    method_options(sub)
    workers_option(sub)


def workers_option(sub) -> None:
    """Add the option for the number of processes that label."""
    text = "number of processes that label"
    sub.add_argument("--workers", type=positive(int), default=LABELLING.workers, help=text)


def labelling(arguments: argparse.Namespace, **settings) -> Labelling:
    """Return the `Labelling` that the options of a command describe, with further `settings`."""
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
    """Add the options of the dynamics that sample frames, with the default values."""
    for name, kind, text in (
        ("temperature", positive(float), "temperature of the dynamics, K"),
        ("dt", positive(float), "time step of the dynamics, fs"),
        ("friction", positive(float), "friction of the Langevin thermostat, 1/ps"),
        ("spacing", positive(float), "time between sampled frames, fs"),
        ("equilibration", not_negative, "time before the first sampled frame, fs"),
        ("replicas", positive(int), "number of independent runs"),
    ):
        sub.add_argument(f"--{name}", type=kind, default=getattr(default, name), help=text)


def sampling(arguments: argparse.Namespace) -> Sampling:
    """Return the `Sampling` that the options of a command describe."""
    names = ("temperature", "spacing", "equilibration", "replicas", "dt", "friction", "seed")
    return Sampling(**{name: getattr(arguments, name) for name in names})


def calculator_options(text: str, flag: str = "--options") -> dict:
    """Convert the value of an option to the options of a calculator.

    Args:
        text: a JSON object.
        flag: name of the option in error messages.

    Raises:
        InputError: the text is not a JSON object.
    """
    try:
        options = json.loads(text)
    except ValueError as error:
        example = '{"accuracy": 0.1}'
        raise InputError(
            f"{flag} {text} is not JSON ({error}): give an object such as {example}"
        ) from error
    if not isinstance(options, dict):
        raise InputError(f'{flag} must be a JSON object such as {{"accuracy": 0.1}} (got {text})')
    return options


def split_options(sub, n_train: int) -> None:
    """Add the options for the numbers of frames; the default for training is `n_train`."""
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
    """Convert text to an int or float, given as `kind`."""
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"must be {what} (got {text!r})") from None


def positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a function that converts text to a positive finite int or float (`kind`)."""

    def convert(text: str):
        value = number(kind, text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be a positive finite number (got {text})")
        return value

    convert.__name__ = f"positive {kind.__name__}"
    return convert


def duration(text: str) -> float:
    """Convert text such as "90s", "10min" or "2h" to seconds."""
    match = re.fullmatch(r"([0-9.]+)\s*(s|min|h)", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"must be a time such as 90s, 10min or 2h (got {text!r})")
    return positive(float)(match[1]) * {"s": 1.0, "min": 60.0, "h": 3600.0}[match[2]]


def not_negative(text: str) -> float:
    """Convert text to a finite number that is at least zero."""
    value = number(float, text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a finite number of at least 0 (got {text})")
    return value


def charges(text: str) -> list[int]:
    """Convert integers separated by commas to a list."""
    return [number(int, part) for part in text.split(",")]


def count(text: str) -> int:
    """Convert text to an integer that is at least zero."""
    value = number(int, text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0 (got {text})")
    return value


def counts(text: str) -> list[int]:
    """Convert positive integers separated by commas to a list."""
    return [positive(int)(part) for part in text.split(",")]


def numbers(text: str) -> list[float]:
    """Convert positive numbers separated by commas to a list."""
    return [positive(float)(part) for part in text.split(",")]


def indices(text: str) -> list[int]:
    """Convert atom indices, counted from 0 and separated by commas, to a list."""
    return [count(part) for part in text.split(",")]


def atoms(number: int) -> Callable[[str], list[int]]:
    """Return a function that converts text to a list of `number` different atom indices."""

    def convert(text: str) -> list[int]:
        atoms = indices(text)
        if len(set(atoms)) != number or len(atoms) != number:
            raise argparse.ArgumentTypeError(f"give {number} different atom indices (got {text})")
        return atoms

    return convert


def patterns(text: str) -> list[str]:
    """Convert words separated by commas to a list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def force_fields(text: str) -> list[str]:
    """Convert suffixes of force-field files separated by commas to a list."""
    names = [name.lower() for name in patterns(text)]
    unknown = [name for name in names if f".{name}" not in FORCE_FIELD_SUFFIXES]
    if unknown:
        known = ", ".join(suffix.removeprefix(".") for suffix in FORCE_FIELD_SUFFIXES)
        raise argparse.ArgumentTypeError(f"unknown format {', '.join(unknown)}: use {known}")
    return names
