"""Fig. 8: the scheme of the data sets and models of Table I, as a drawing."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from jaxff.paper.claims import TABLE_I
from jaxff.paper.experiment import Setting
from jaxff.paper.result import Result, Table, picture
from jaxff.report import style

# Centre, width (of a drawing of 10 × 4.6) and text of each box, with the index of its colour.
BOXES = {
    "gaff": ((1.2, 3.6), 2.0, "dynamics by GAFF\n500 K", 1),
    "dft": ((1.2, 1.0), 2.0, "dynamics by the\nreference, 500 K", 0),
    "gaff frames": ((4.0, 3.6), 2.2, "GAFF data set:\nframes with labels\nof the reference", 1),
    "dft frames": ((4.0, 1.0), 2.2, "reference data set:\nframes with labels\nof the reference", 0),
    "gaff model": ((7.0, 3.6), 2.0, "sGDML trained on\nthe GAFF data set", 1),
    "dft model": ((7.0, 1.0), 2.0, "sGDML trained on\nthe reference data set", 0),
}
FLOWS = (
    ("gaff", "gaff frames", "label"),
    ("dft", "dft frames", "label"),
    ("gaff frames", "gaff model", "train"),
    ("dft frames", "dft model", "train"),
)
HEIGHT = 1.0
# Start, end, line of Table I and position of its text.
TESTS = (
    ((8.1, 3.6), (9.0, 3.6), "GAFF → GAFF", (9.1, 3.6), "GAFF data set"),
    ((7.6, 3.05), (9.0, 2.3), "GAFF → DFT", (9.1, 2.3), "reference data set"),
    ((8.1, 1.0), (9.0, 1.0), "DFT → DFT", (9.1, 1.0), "reference data set"),
)


def run(setting: Setting) -> Result:
    """Return the drawing of Fig. 8 as a result, without statements to test."""
    caption = (
        "Data sets and models of Table I. Frames of both samplings have labels of the reference. "
        "Each kernel is trained on one sampling and tested on other frames."
    )
    rows = [
        [f"{train} → {test}", train, test, sum(key[1:] == (train, test) for key in TABLE_I)]
        for train, test in dict.fromkeys(key[1:] for key in TABLE_I)
    ]
    columns = ["row of Table I", "training frames by", "validation frames by", "molecules"]
    return Result(
        "Fig. 8: data sets and models of the cross comparison",
        "a drawing, without data",
        tables=[Table("Rows of Table I", columns, rows)],
        pictures=[picture(setting.place("fig8"), "scheme.png", scheme(), caption)],
    )


def scheme() -> Figure:
    """Draw samplings, data sets, models and tests, from left to right."""
    figure, ax = style.single(9.6, 3.9)
    ax.set_xlim(0.0, 11.2)
    ax.set_ylim(0.2, 4.5)
    ax.axis("off")
    for centre, width, text, k in BOXES.values():
        corner = (centre[0] - width / 2, centre[1] - HEIGHT / 2)
        ax.add_patch(
            FancyBboxPatch(
                corner, width, HEIGHT, boxstyle="round,pad=0.05", facecolor="white",
                edgecolor=style.colour(k), linewidth=1.6,
            )
        )  # fmt: skip
        ax.text(*centre, text, ha="center", va="center", fontsize=9)
    for first, second, text in FLOWS:
        (x, y), width = BOXES[first][:2]
        end, other = BOXES[second][:2]
        start, stop = (x + width / 2 + 0.05, y), (end[0] - other / 2 - 0.05, end[1])
        _arrow(ax, start, stop)
        ax.text((start[0] + stop[0]) / 2, y + 0.12, text, ha="center", fontsize=8)
    for start, stop, name, place, data in TESTS:
        _arrow(ax, start, stop)
        ax.text(*place, f"{name}\n(test on the\n{data})", ha="left", va="center", fontsize=8)
    return figure


def _arrow(ax, start: tuple[float, float], stop: tuple[float, float]) -> None:
    ax.add_patch(FancyArrowPatch(start, stop, arrowstyle="-|>", mutation_scale=12, color="#444444"))
