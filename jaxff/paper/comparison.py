"""Functions that run the experiments of the paper and write a page with the comparison."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from jaxff import __version__
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.paper import EXPERIMENTS
from jaxff.paper.additions import ADDITIONS
from jaxff.paper.claims import CLAIMS
from jaxff.paper.experiment import SURFACE, Setting, identified
from jaxff.paper.result import Result
from jaxff.paper.verdicts import SIGMAS
from jaxff.report.page import Report
from jaxff.store import claim

PAPER = (
    "H. E. Sauceda, M. Gastegger, S. Chmiela, K.-R. Müller, A. Tkatchenko, Molecular force fields "
    "with gradient-domain machine learning (GDML): Comparison and synergies with classical force "
    "fields, J. Chem. Phys. 153, 124109 (2020)"
)


def reproduce(
    name: str,
    folder: str | Path,
    *,
    data: Sequence[Dataset] = (),
    surface_data: Sequence[Dataset] = (),
    small: bool = False,
    seed: int = 0,
    progress: Callable[[str, float], None] = lambda _, __: None,
) -> dict[str, Result]:
    """Run one or all experiments of the paper, and write results, pictures and a page.

    Repeat the call to continue after an interruption; `folder` keeps finished results.

    Args:
        name: a name in `EXPERIMENTS`, or "all".
        folder: folder for results and pictures (NAME/result.json), models, and the page
            index.html.
        data: data sets that replace the packaged data sets. With given data, the sizes are those
            of the paper.
        surface_data: data sets used only for surfaces and normal modes, such as coupled-cluster
            frames of ethanol.
        small: whether to use small sizes, for a test run without meaningful results.
        seed: random seed.
        progress: called with the name of a phase and the fraction done.

    Returns:
        the `Result` of each requested experiment by name.

    Raises:
        InputError: an unknown name, data of another molecule, two data sets of one molecule, or a
            folder with results of other settings.
    """
    if name != "all" and name not in EXPERIMENTS:
        known = ", ".join(EXPERIMENTS)
        raise InputError(f"unknown experiment {name!r}: choose 'all' or one of {known}")
    folder = Path(folder)
    given = by_molecule(data) | by_molecule(surface_data, SURFACE)
    setting = Setting(folder, small, seed, given, progress)
    request = {
        "version": __version__,
        "small": small,
        "seed": seed,
        "data": {name: data.fingerprint() for name, data in sorted(given.items())},
    }
    claim(folder, request, "set of results")
    names = tuple(EXPERIMENTS) if name == "all" else (name,)
    results = {}
    for each in names:
        path = setting.place(each) / "result.json"
        if not path.is_file():
            module, function = EXPERIMENTS[each]
            started, processor = time.perf_counter(), _processor_time()
            result = getattr(import_module(f"jaxff.paper.{module}"), function)(setting)
            result.notes += setting.warnings
            setting.warnings.clear()
            result.numbers["seconds"] = time.perf_counter() - started
            result.numbers["processor_seconds"] = _processor_time() - processor
            result.write(path)
        results[each] = Result.read(path)
    write_page(setting)
    return results


def _processor_time() -> float:
    """Return the processor time of this process and of finished workers, s."""
    return sum(os.times()[:4])


def by_molecule(data: Sequence[Dataset], ending: str = "") -> dict[str, Dataset]:
    """Return data sets by the names of their molecules.

    Args:
        data: data sets of the paper's molecules.
        ending: appended to the names.

    Raises:
        InputError: a data set is of another molecule, or two are of one molecule.
    """
    named: dict[str, Dataset] = {}
    for one in data:
        name = identified(one)
        if name + ending in named:
            raise InputError(
                f"{one.label} is a second data set of {name}: remove one of the data sets, or "
                "give the data for surfaces with --surface-data (surface_data)"
            )
        named[name + ending] = one
    return named


def write_page(setting: Setting) -> None:
    """Write index.html in the folder, which compares all results with the paper."""
    results = {
        name: Result.read(path)
        for name in EXPERIMENTS
        if (path := setting.folder / name / "result.json").is_file()
    }
    report = Report("The experiments of Sauceda et al. (2020)")
    report.text(f"The results are compared with {PAPER}.")
    if setting.small:
        report.text(
            "This is a test run with small sizes. The numbers and verdicts are not meaningful."
        )
    report.text(
        "Each statement of the paper is quoted and tested by a rule on one number. The verdict is "
        f"“agrees” or “disagrees” if the number is more than {SIGMAS:g} standard errors from the "
        "bounds of the rule. Otherwise, or if the error is unknown, it “says nothing”. Levels of "
        "theory differ from those of the paper unless the paper's data sets were given."
    )
    report.table(
        ["experiment", "verdict", "statements", "minutes"],
        [
            [r.title, r.verdict, r.reason, round(r.numbers["seconds"] / 60.0, 1)]
            for r in results.values()
        ],
    )
    for name, result in results.items():
        _section(report, setting.folder / name, result)
    report.heading("Proposals of the paper, and methods of jaxff")
    report.text(
        "This command does not compute these numbers. They were measured earlier; the named page "
        "states the conditions."
    )
    report.table(
        ["the paper", "jaxff", "measured", "page"],
        [[f"“{one.quote}”", one.offered, one.numbers, one.page] for one in ADDITIONS],
    )
    report.write(setting.folder / "index.html")


def _section(report: Report, folder: Path, result: Result) -> None:
    """Add an experiment to the page: statements, numbers, verdicts, tables and pictures."""
    tested = f": {result.verdict}" if result.findings else ""
    report.heading(result.title + tested)
    rows = [
        [
            f"“{CLAIMS[f.claim].quote}”", CLAIMS[f.claim].rule,
            f"{f.obtained} ({f.reason})" if f.reason else f.obtained, f.verdict,
        ]
        for f in result.findings
    ]  # fmt: skip
    if rows:
        report.table(["the paper", "holds if", "here", "verdict"], rows)
    for table in result.tables:
        report.text(f"{table.caption}.")
        report.table(list(table.columns), [list(row) for row in table.rows])
    for picture in result.pictures:
        report.picture(folder / picture.file, picture.caption)
    for structures in result.structures:
        shown = {title: Molecule.read(folder / file) for title, file in structures.files.items()}
        report.molecules(
            shown, f"{structures.caption} Drag with the mouse or use the arrow keys to rotate."
        )
    report.text(f"Level of theory and data: {result.level}.")
    for note in result.notes:
        report.text(note)
