"""Blocks of code in guides parse, links lead to files and headings, and quoted messages exist."""

import ast
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
# Words of usage lines, such as [--json FILE] and ethanol|aspirin; these lines are not commands.
USAGE = re.compile(r"(^|\s)\[|\w\||\bDIR\b|\bFILE\b")


def _blocks(language):
    return [
        pytest.param(code, id=f"{page.name}-{number}")
        for page in PAGES
        for number, (kind, code) in enumerate(FENCE.findall(page.read_text("utf-8")))
        if kind == language
    ]


@pytest.fixture(scope="module")
def parser():
    from jaxff.cli import parser

    return parser()


@pytest.mark.parametrize("code", _blocks("python"))
def test_python_blocks_parse(code):
    ast.parse(code)


@pytest.mark.parametrize("code", _blocks("sh"))
def test_commands_have_valid_options(code, parser):
    for line in code.replace("\\\n", " ").splitlines():
        if USAGE.search(line.partition("#")[0]):
            continue
        for command in line.split("&&"):
            words = shlex.split(command, comments=True)
            if words[:1] == ["jaxff"]:
                parser.parse_args(words[1:])


def _anchors(page):
    text = FENCE.sub("", page.read_text("utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    text = FENCE.sub("", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = page if not path else (page.parent / path).resolve()
        assert file.exists(), target
        if anchor:
            assert anchor in _anchors(file), target


def _messages():
    """All strings of the package, with {} in place of expressions."""
    for path in (ROOT / "jaxff").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(getattr(part, "value", "") if isinstance(part, ast.Constant) else "{}"
                              for part in node.values)  # fmt: skip
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_quoted_messages_exist():
    messages = "\n".join(_messages())
    text = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    titles = "\n".join(line for line in text.splitlines() if line.startswith("### "))
    for message in re.findall(r"\"(.+?)\"", titles):
        numberless = re.sub(r"\b\d+\b", "{}", message)
        assert message in messages or numberless in messages, message
