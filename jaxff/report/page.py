"""HTML pages with embedded pictures, which need no network."""

from __future__ import annotations

import base64
import html
import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase.build import minimize_rotation_and_translation
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors

from jaxff.molecule import Molecule
from jaxff.npz import atomic_path

STYLE = """
body{font:16px/1.55 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1b1b1b;background:#fff}
h1{font-size:1.7rem}h2{font-size:1.25rem;margin-top:2.2rem;border-bottom:1px solid #ddd}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .8rem;text-align:right;
border-bottom:1px solid #e3e3e3}td:first-child,th:first-child{text-align:left}
th{border-bottom:2px solid #555}img{max-width:100%;height:auto}figure{margin:1rem 0}
figcaption,footer{color:#555;font-size:.92rem}code{background:#f2f2f2;padding:.1rem .3rem}
pre{background:#f2f2f2;padding:.7rem;overflow-x:auto}
.molecules{display:flex;flex-wrap:wrap;gap:1rem}.molecules div{flex:1 1 14rem;text-align:center}
canvas{width:100%;height:15rem;cursor:grab;touch-action:none;background:#fafafa}
"""


@dataclass
class Report:
    """An HTML page.

    All methods except `write` append to the page.

    Args:
        title: heading of the page.
    """

    title: str
    parts: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """Append the heading of a section."""
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Append a paragraph of plain text."""
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def code(self, text: str) -> None:
        """Append a block of code."""
        self.parts.append(f"<pre><code>{html.escape(text)}</code></pre>")

    def table(self, columns: list[str], rows: list[list]) -> None:
        """Append a table; floats have three decimals."""
        head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row) + "</tr>"
            for row in rows
        )
        self.parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def picture(self, path, caption: str) -> None:
        """Append a PNG file; the caption is also the alternative text."""
        data = base64.b64encode(Path(path).read_bytes()).decode()
        text = html.escape(caption)
        self.parts.append(
            f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
            f"<figcaption>{text}</figcaption></figure>"
        )

    def molecules(self, shown: Mapping[str, Molecule], caption: str) -> None:
        """Append molecules with titles, which the mouse or the arrow keys rotate."""
        drawn = "".join(
            f'<div><canvas tabindex="0" role="img" aria-label="{html.escape(title)}" '
            f'data-molecule="{html.escape(_drawing(molecule))}"></canvas>{html.escape(title)}</div>'
            for title, molecule in zip(shown, _facing(list(shown.values())), strict=True)
        )
        self.parts.append(
            f'<figure><div class="molecules">{drawn}</div>'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def write(self, path) -> None:
        """Write the page atomically to a file."""
        viewer = ""
        if any("<canvas" in part for part in self.parts):
            script = (importlib.resources.files("jaxff.report") / "viewer.js").read_text("utf-8")
            viewer = f"<script>{script}</script>"
        page = (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style></head><body>"
            f"<h1>{html.escape(self.title)}</h1>{''.join(self.parts)}{viewer}</body></html>\n"
        )
        with atomic_path(path) as temporary:
            temporary.write_text(page, encoding="utf-8")


def _facing(molecules: list[Molecule]) -> list[Molecule]:
    """Rotate the first molecule to show the largest area, and superpose the other molecules."""
    first, *others = (molecule.to_ase() for molecule in molecules)
    first.positions -= first.positions.mean(axis=0)
    axes = np.linalg.svd(first.positions)[2]
    axes[2] *= np.linalg.det(axes)  # a rotation without reflection
    first.positions = first.positions @ axes.T
    for other in others:
        if np.array_equal(other.numbers, first.numbers):
            minimize_rotation_and_translation(first, other)
    return [m.with_positions(a.positions) for m, a in zip(molecules, (first, *others), strict=True)]


def _drawing(molecule: Molecule) -> str:
    """Return symbols, positions (Å), colours, radii (Å) and bonds as JSON for viewer.js."""
    atoms = [
        {
            "symbol": chemical_symbols[z],
            "at": [round(float(x), 3) for x in r],
            "colour": "#" + "".join(f"{round(255 * c):02x}" for c in jmol_colors[z]),
            "radius": round(0.45 * float(covalent_radii[z]) + 0.08, 3),
        }
        for z, r in zip(molecule.numbers, molecule.positions, strict=True)
    ]
    bonds = [[int(i), int(j)] for i, j in molecule.bonds]
    return json.dumps({"atoms": atoms, "bonds": bonds})


def _cell(value) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
