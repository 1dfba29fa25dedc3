"""Results of experiments: findings, tables, pictures and structures."""

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
    """A table with a caption."""

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
        level: level of theory and training data of the models.
        findings: the tests of the paper's statements.
        notes: sentences on the methods and limits of the results.
        numbers: results for programs, as JSON values and arrays.
        tables: tables in the order of the page.
        pictures: pictures in the order of the page.
        structures: structures in the order of the page.
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
        """The combined verdict on all statements; one of `VERDICTS`."""
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
        """The number of statements with each verdict, in words."""
        given = [finding.verdict for finding in self.findings]
        counts = [f"{given.count(v)} × {v}" for v in VERDICTS if v in given]
        return f"{len(given)} statements: {', '.join(counts)}" if given else "no statement"

    def write(self, path: Path) -> None:
        """Write the result to a JSON file."""
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1, default=_plain) + "\n")

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read a result from a file that `write` wrote."""
        fields = json.loads(path.read_text())
        for name, kind in KINDS.items():
            fields[name] = [kind(*values) for values in fields[name]]
        return cls(**fields)


def picture(folder: Path, name: str, figure: Any, caption: str) -> Picture:
    """Save a matplotlib figure in a folder, and return the `Picture` for the result."""
    figure.savefig(folder / name, dpi=120)
    return Picture(name, caption)


def _plain(value: Any) -> Any:
    """Convert a NumPy value to JSON values."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(
        f"a result cannot contain a {type(value).__name__}: use numbers, text, "
        "arrays, sequences and mappings"
    )
