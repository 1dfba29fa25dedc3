"""Options that several commands have, and kinds of values."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable

from jaxff.errors import InputError
from jaxff.reference.calculators import CHOICES
from jaxff.reference.settings import Labelling, Sampling

LABELLING = Labelling()
START = "geometry: xyz, extxyz, sdf, mol2, pdb; inpcrd of a prmtop"


def data_options(sub, **several):
    sub.add_argument(
        "data", metavar="DATA.npz", help="sGDML, MD17 or rMD17 npz, or extxyz", **several
    )
    sub.add_argument("--length-unit", help="override the file's unit of length")
    sub.add_argument("--energy-unit", help="override the file's unit of energy")


def method_options(sub):
    sub.add_argument("--options", default="{}", metavar="JSON", help="a calculator's own options")
    sub.add_argument(
        "--charge", type=int, metavar="Q", help="net charge, e (default: that of the geometry)"
    )


def surface_options(sub):
    sub.add_argument(
        "model", metavar="MODEL.npz", help="a model file, a prmtop, or a calculator's name"
    )
    sub.add_argument("start", metavar="START.xyz", help=START)
    method_options(sub)


def labelling_options(sub):
    """Options that decide how geometries are labelled; see `labelling`."""
    sub.add_argument(
        "--calculator", default=LABELLING.calculator, metavar="NAME",
        help=f"{CHOICES} (default {LABELLING.calculator})",
    )  # fmt: skip
    method_options(sub)
    sub.add_argument(
        "--workers", type=positive(int), default=LABELLING.workers,
        help=f"number of processes (default {LABELLING.workers})",
    )  # fmt: skip


def labelling(arguments: argparse.Namespace, **settings) -> Labelling:
    """The labelling of a command with `labelling_options`, with further settings."""
    return Labelling(
        arguments.calculator,
        calculator_options(arguments.options),
        arguments.workers,
        command=shlex.join(["jaxff", *sys.argv[1:]]),
        **settings,
    )


def sampling_options(sub, default: Sampling):
    """Options of the dynamics from which frames are taken; see `sampling`."""
    for name, kind, text in (
        ("temperature", positive(float), "K"),
        ("dt", positive(float), "time step, fs"),
        ("friction", positive(float), "1/ps"),
        ("spacing", positive(float), "time between frames, fs"),
        ("equilibration", not_negative, "time before the first frame, fs"),
        ("replicas", positive(int), "number of independent runs"),
    ):
        value = getattr(default, name)
        sub.add_argument(f"--{name}", type=kind, default=value, help=f"{text} ({value:g})")


def sampling(arguments: argparse.Namespace) -> Sampling:
    """The dynamics of a command with `sampling_options`."""
    names = ("temperature", "spacing", "equilibration", "replicas", "dt", "friction", "seed")
    return Sampling(**{name: getattr(arguments, name) for name in names})


def calculator_options(text: str) -> dict:
    """The value of the option --options.

    Raises:
        InputError: it is not a JSON object.
    """
    try:
        options = json.loads(text)
    except ValueError as error:
        raise InputError(f"--options is not JSON ({error}): {text}") from error
    if not isinstance(options, dict):
        raise InputError(f'--options must be a JSON object such as {{"accuracy": 0.1}}, not {text}')
    return options


def split_options(sub, n_train: int):
    sub.add_argument(
        "-n",
        dest="n_train",
        type=positive(int),
        default=n_train,
        metavar="N",
        help=f"training frames (default {n_train})",
    )
    sub.add_argument("--valid", type=count, metavar="N", help="validation frames (up to 500)")
    sub.add_argument("--test", type=count, metavar="N", help="test frames (up to 1000)")


def positive(kind: Callable):
    def convert(text: str):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    convert.__name__ = f"positive {kind.__name__}"
    return convert


def not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is negative, or no finite number")
    return value


def charges(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def numbers(text: str) -> list[float]:
    return [positive(float)(part) for part in text.split(",")]


def indices(text: str) -> list[int]:
    return [count(part) for part in text.split(",")]


def atoms(number: int) -> Callable[[str], list[int]]:
    def convert(text: str) -> list[int]:
        found = indices(text)
        if len(set(found)) != number or len(found) != number:
            raise argparse.ArgumentTypeError(f"{text} is not {number} different atoms")
        return found

    return convert


def patterns(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def words(text: str) -> list[str]:
    found = [part.strip().lower() for part in text.split(",") if part.strip()]
    unknown = sorted(set(found) - {"prmtop", "mol2", "top", "xml"})
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown format {', '.join(unknown)}")
    return found
