"""Options that several commands have, and kinds of values."""

from __future__ import annotations

import argparse
from collections.abc import Callable

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


def sampling_options(sub, spacing: float, replicas: int):
    for name, default, text in (
        ("temperature", 500.0, "K"),
        ("dt", 0.5, "time step, fs"),
        ("friction", 10.0, "1/ps"),
        ("spacing", spacing, "of frames, fs"),
    ):
        sub.add_argument(
            f"--{name}", type=positive(float), default=default, help=f"{text} ({default:g})"
        )
    sub.add_argument(
        "--equilibration",
        type=not_negative,
        default=1000.0,
        help="before the first frame, fs (1000)",
    )
    sub.add_argument(
        "--replicas", type=positive(int), default=replicas, help=f"runs at once ({replicas})"
    )


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
