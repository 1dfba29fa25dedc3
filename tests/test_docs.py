"""The Python blocks of these guide pages run as they are written."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"```python\n(.*?)```\n(<!-- not run: .+ -->)?", re.S)


PAGES = ("new_term.md", "batches.md", "boxes.md", "implicit_solvent.md", "engines.md")


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = [code for code, not_run in BLOCK.findall((DOCS / page).read_text()) if not not_run]
    assert blocks
    scope: dict = {"__name__": "__main__"}
    exec("\n".join(blocks), scope)
    if page == "new_term.md":
        fitted = scope["fitted"].params["restraint"]
        assert fitted["k"] == pytest.approx([5.0], abs=0.2)
        assert fitted["length"] == pytest.approx([3.5], abs=0.02)


def test_the_example_of_a_term_is_short():
    first = BLOCK.findall((DOCS / "new_term.md").read_text())[0][0]
    begin = first.index("@dataclass")
    lines = [
        line for line in first[begin : first.index("def restraint")].splitlines() if line.strip()
    ]
    assert len(lines) < 20
