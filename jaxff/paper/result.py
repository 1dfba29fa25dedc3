"""The form of a result of an experiment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxff.npz import atomic_path
from jaxff.paper.claims import CLAIMS
from jaxff.paper.verdicts import VERDICTS, Finding, combined


class Table(NamedTuple):
    """Rows under columns, with a caption."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence]


class Picture(NamedTuple):
    """A PNG file in the folder of the result, with a caption."""

    file: str
    caption: str


class Structures(NamedTuple):
    """Geometries in xyz files, by title, for the molecule viewer of the page."""

    files: Mapping[str, str]
    caption: str


KINDS = {"findings": Finding, "tables": Table, "pictures": Picture, "structures": Structures}


@dataclass
class Result:
    """The result of an experiment, compared with the paper.

    Attributes:
        title: title of the figure or table.
        level: level of theory, and the data on which the models were trained.
        findings: the tests of the paper's statements.
        notes: what the results rest on, and their limits, in sentences.
        numbers: results for programs, as JSON values and arrays.
        tables: in the order in which they are shown.
        pictures: in the order in which they are shown.
        structures: in the order in which they are shown.
    """

    title: str
    level: str
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    structures: list[Structures] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """The verdicts on all statements combined; one of `VERDICTS`."""
        return combined(finding.verdict for finding in self.findings)

    @property
    def reported(self) -> str:
        """The statements of the paper."""
        return "; ".join(f"“{CLAIMS[finding.claim].quote}”" for finding in self.findings)

    @property
    def obtained(self) -> str:
        """The numbers that test each statement."""
        return "; ".join(finding.obtained for finding in self.findings)

    @property
    def reason(self) -> str:
        """How many statements have each verdict."""
        given = [finding.verdict for finding in self.findings]
        counts = [f"{given.count(v)} × {v}" for v in VERDICTS if v in given]
        return f"{len(given)} statements: {', '.join(counts)}" if given else "no statement"

    def write(self, path: Path) -> None:
        """Write a JSON file."""
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1, default=_plain) + "\n")

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read a file that `write` has written."""
        fields = json.loads(path.read_text())
        for name, kind in KINDS.items():
            fields[name] = [kind(*values) for values in fields[name]]
        return cls(**fields)


def picture(folder: Path, name: str, figure: Any, caption: str) -> Picture:
    """Save a matplotlib figure in the folder of the result."""
    figure.savefig(folder / name, dpi=120)
    return Picture(name, caption)


def _plain(value: Any) -> Any:
    """A NumPy value as JSON values."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written to a result")
