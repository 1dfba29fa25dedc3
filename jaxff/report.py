"""A report: one HTML file with its pictures inside, which opens without a network."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, field
from pathlib import Path

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
"""


@dataclass
class Report:
    """A page put together from top to bottom, then written.

    Args:
        title: heading of the page.
    """

    title: str
    parts: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """A paragraph of plain text."""
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def code(self, text: str) -> None:
        self.parts.append(f"<pre><code>{html.escape(text)}</code></pre>")

    def table(self, columns: list[str], rows: list[list]) -> None:
        """A table; floats are shown with three decimals."""
        head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row) + "</tr>"
            for row in rows
        )
        self.parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def picture(self, path, caption: str) -> None:
        """A PNG file, embedded, with a caption that also serves those who cannot see it."""
        data = base64.b64encode(Path(path).read_bytes()).decode()
        text = html.escape(caption)
        self.parts.append(
            f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
            f"<figcaption>{text}</figcaption></figure>"
        )

    def write(self, path) -> None:
        """Write the page, whole or not at all."""
        page = (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style></head><body>"
            f"<h1>{html.escape(self.title)}</h1>{''.join(self.parts)}</body></html>\n"
        )
        with atomic_path(path) as temporary:
            temporary.write_text(page, encoding="utf-8")


def _cell(value) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
