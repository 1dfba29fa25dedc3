"""Proposals of the paper for later work, and methods of jaxff for them, with measured numbers."""

from __future__ import annotations

from typing import NamedTuple


class Addition(NamedTuple):
    """A proposal of the paper, and the method that jaxff offers.

    Attributes:
        quote: exact words of the paper.
        offered: method of jaxff.
        numbers: measured numbers, in words.
        page: file of the repository that contains the numbers.
        values: the numbers as they appear on this page; empty without numbers.
    """

    quote: str
    offered: str
    numbers: str
    page: str
    values: tuple[str, ...]


ADDITIONS = (
    Addition(
        "restricting the molecular descriptor in sGDML to a set of atoms",
        "local corrections: a kernel on some atoms, with a switch that is zero far from the "
        "training frames (jaxff.gdml.train_correction)",
        "aspirin with the ester oxygen within 3.0 Å of the acid's carbon: force RMSE on eight "
        "atoms 23.7 by GAFF, 10.1 kcal/mol/Å corrected; above 4.6 Å unchanged",
        "benchmarks/README.md", ("23.7", "10.1", "20.8"),
    ),
    Addition(
        "The more flexible functional forms allow MM-FF models to capture a wider range of "
        "phenomena",
        "class-II: GAFF with anharmonic terms and couplings of neighbouring coordinates "
        "(--form class2)",
        "ethanol, 110 frames of MD17: force RMSE 1.60 kcal/mol/Å; GAFF-NN 1.50 (5.00 in the "
        "paper), refitted GAFF 6.47",
        "benchmarks/README.md", ("1.60", "1.50 (5.00)", "6.47 (6.53)"),
    ),
    Addition(
        "further improve data efficiency and generalization behavior of ML-FFs",
        "kernels on the residual of a fitted force field (gdml.train with a baseline)",
        "ethanol, 110 frames of MD17: force RMSE 1.06 kcal/mol/Å by class-II + sGDML, 1.65 by "
        "sGDML alone; aspirin 1.59 and 2.45",
        "benchmarks/README.md", ("1.06 (0.19)", "1.65 (0.31)", "1.59 (0.62)", "2.45 (0.95)"),
    ),
    Addition(
        "Missing regions could then be sampled iteratively",
        "active learning from the frames of a force field (jaxff active)",
        "ethanol, GFN2-xTB: force RMSE 1.8 kcal/mol/Å with 120 labelled frames, 1.6 with 120 "
        "random frames of the reference's dynamics",
        "benchmarks/README.md", ("1.8", "1.6"),
    ),
    Addition(
        "ML methods might be used to generate additional data for parametrizing a MM-FF at a "
        "higher level of theory",
        "teachers: many labels of a cheap method first, then few labels of an expensive method "
        "(jaxff fit --teacher)",
        "50 frames of rMD17 and the teacher GFN2-xTB: force MAE 19.5 meV/Å for ethanol, 40.1 for "
        "aspirin",
        "benchmarks/README.md", ("19.5", "40.1"),
    ),
)  # fmt: skip
