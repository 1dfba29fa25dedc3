"""Pages of the documentation site that are made from other files when the site is built.

These pages are the tutorials (from notebooks), the reference (from docstrings and the parsers of
the command line), and the copies of files of the repository.
"""

import argparse
import ast
import importlib
import inspect
import json
import re
from pathlib import Path

import latex2mathml.converter
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "jaxff",
    "jaxff.analysis",
    "jaxff.ase",
    "jaxff.formats",
    "jaxff.gaff",
    "jaxff.gdml",
    "jaxff.learn",
    "jaxff.md",
    "jaxff.md.differentiable",
    "jaxff.openmm",
    "jaxff.reference",
    "jaxff.solvent",
    "jaxff.units",
)
COPIES = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "benchmarks.md": "benchmarks/README.md",
}
# Links of guides and copied files, written for the repository, and their targets on the site.
LINKS = (
    (r"\]\((?:\.\./)?notebooks/(\w+)\.ipynb\)", r"](tutorials/\1.md)"),
    (r"\]\((?:\.\./)?benchmarks/README\.md", r"](benchmarks.md"),
    (r"\]\((?:\.\./)?docs/", r"]("),
    (r"\]\((?:\.\./)?CHANGELOG\.md", r"](changelog.md"),
    (r"\]\((?:\.\./)?CONTRIBUTING\.md", r"](contributing.md"),
)


def on_files(files, config):
    """Add the generated pages to the pages of the site."""
    pages = {uri: (ROOT / source).read_text("utf-8") for uri, source in COPIES.items()}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        pages[f"tutorials/{path.stem}.md"] = tutorial(path)
    for package in PACKAGES:
        pages[f"reference/{package.removeprefix('jaxff.')}.md"] = reference(package)
    pages["reference/cli.md"] = command_line()
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Change links to those of the site, and convert formulas to MathML."""
    folder = "../" if "/" in page.file.src_uri else ""
    for old, new in LINKS:
        markdown = re.sub(old, new.replace("](", f"]({folder}"), markdown)
    markdown = re.sub(
        r"```math\n(.*?)```", lambda m: f'<div class="formula">{mathml(m[1], "block")}</div>',
        markdown, flags=re.S,
    )  # fmt: skip
    return re.sub(r"\$`(.+?)`\$", lambda m: mathml(m[1], "inline"), markdown)


def on_post_page(output, page, config):
    """Raise an error if a page loads anything from another host."""
    if found := re.search(r"<(script|img|iframe|link)\b[^>]*(src|href)=\"?https?:[^>]*>", output):
        raise PluginError(f"{page.file.src_uri} loads {found[0]}; add the file to docs/assets")
    return output


def mathml(latex: str, display: str) -> str:
    """Convert a formula to MathML, which browsers show without scripts."""
    return latex2mathml.converter.convert(" ".join(latex.split()), display=display)


def tutorial(path: Path) -> str:
    """The cells of a notebook as Markdown, and how to run the notebook."""
    cells = []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        cells.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    cells.append(f"To run this page, open `notebooks/{path.name}` of the repository in Jupyter.")
    return "\n\n".join(cells)


def public_names(package: str) -> list[str]:
    """Public names of a package: `__all__`, or the names that the module defines."""
    module = importlib.import_module(package)
    if hasattr(module, "__all__"):
        return list(module.__all__)
    names = []
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def home(package: str, name: str) -> str:
    """The full name of a public object in the module that defines it."""
    value = getattr(importlib.import_module(package), name)
    if inspect.isclass(value) or inspect.isfunction(value):
        return f"{value.__module__}.{value.__qualname__}"
    return f"{package}.{name}"


def reference(package: str) -> str:
    """The page of a package: its docstring and every public name."""
    module = importlib.import_module(package)
    lines = [f"# {package}", "", inspect.getdoc(module) or "", ""]
    # Names of jaxff are described on the page of the first subpackage that also has them.
    others = reversed(PACKAGES[1:]) if package == "jaxff" else ()
    elsewhere = {home(p, n): p for p in others for n in public_names(p)}
    for name in public_names(package):
        value = getattr(module, name)
        full = home(package, name)
        if inspect.ismodule(value) or f"{package}.{name}" in PACKAGES:
            link = f"{name}.md"
            lines += [f"- [`jaxff.{name}`]({link}): {(value.__doc__ or '').splitlines()[0]}", ""]
        elif full in elsewhere:
            lines += [f"- [`jaxff.{name}`][{full}]: see `{elsewhere[full]}`", ""]
        else:
            lines += [f"::: {full}", ""]
    return "\n".join(lines)


def command_line() -> str:
    """The page of the command line, from the parsers."""
    from jaxff.cli import parser

    lines = ["# Command line", "", "Every command has `--help`, `--seed` and `--json`.", ""]
    action = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    for name, command in action.choices.items():
        lines += [f"## jaxff {name}", "", "```text", command.format_help().rstrip(), "```", ""]
    return "\n".join(lines)
