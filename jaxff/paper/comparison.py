"""The paper, experiment by experiment: run, kept, and set beside what the paper reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from jaxff import __version__
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.paper import EXPERIMENTS
from jaxff.paper.experiment import Result, Setting, identified
from jaxff.report.page import Report
from jaxff.store import claim

PAPER = (
    "H. E. Sauceda, M. Gastegger, S. Chmiela, K.-R. Müller, A. Tkatchenko, Molecular force fields "
    "with gradient-domain machine learning (GDML): Comparison and synergies with classical force "
    "fields, J. Chem. Phys. 153, 124109 (2020)"
)


def reproduce(
    name: str,
    folder,
    *,
    data: Mapping[str, Dataset] | list[Dataset] = (),
    small: bool = False,
    seed: int = 0,
    progress: Callable[[str, float], None] = lambda _, __: None,
) -> dict[str, Result]:
    """Run one experiment of the paper, or all; write results, pictures and a page.

    What is finished stands in the folder: the same call after an interruption goes on from there.

    Args:
        name: of `EXPERIMENTS`, or "all".
        folder: for everything: FOLDER/NAME/result.json and pictures, models, FOLDER/index.html.
        data: data sets that replace the packaged ones of the same molecules.
        small: sizes that show that all works, in minutes, rather than results.
        seed: of every random choice.
        progress: called with what goes on and the fraction done.

    Returns:
        {experiment: `Result`} of those asked for.

    Raises:
        InputError: an unknown name, data of another molecule, or a folder with results of other
            settings.
    """
    if name != "all" and name not in EXPERIMENTS:
        raise InputError(f"unknown experiment {name!r}: use all, {', '.join(EXPERIMENTS)}")
    folder = Path(folder)
    sets = data.values() if isinstance(data, Mapping) else data
    given = {identified(one): one for one in sets}
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
            started = time.perf_counter()
            result = getattr(import_module(f"jaxff.paper.{module}"), function)(setting)
            result.numbers["seconds"] = time.perf_counter() - started
            result.write(path)
        results[each] = Result.read(path)
    write_page(setting)
    return results


def write_page(setting: Setting) -> None:
    """FOLDER/index.html: every result that the folder holds, beside what the paper reports."""
    found = {
        name: Result.read(path)
        for name in EXPERIMENTS
        if (path := setting.folder / name / "result.json").is_file()
    }
    report = Report("Sauceda et al. (2020), run again")
    report.text(f"What is compared with: {PAPER}.")
    if setting.small:
        report.text(
            "This is the small setting: it shows that everything runs. Its numbers and verdicts "
            "mean little."
        )
    report.text(
        "Levels of theory differ from the paper's unless its data sets were given, so that numbers "
        "compare by their pattern. Each verdict says what it rests on."
    )
    report.table(
        ["experiment", "verdict", "minutes"],
        [[r.title, r.verdict, r.numbers["seconds"] / 60.0] for r in found.values()],
    )
    for name, result in found.items():
        report.heading(result.title)
        report.text(f"Level of theory: {result.level}.")
        report.text(f"The paper: {result.reported}")
        report.text(f"Here: {result.found}.")
        report.text(f"Verdict: {result.verdict}. {result.why}")
        for table in result.tables:
            report.text(f"{table.caption}:")
            report.table(list(table.columns), [list(row) for row in table.rows])
        for picture in result.pictures:
            report.picture(setting.folder / name / picture.file, picture.caption)
        for structures in result.structures:
            shown = {
                title: Molecule.read(setting.folder / name / file)
                for title, file in structures.files.items()
            }
            report.molecules(shown, f"{structures.caption} Drag, or use the arrow keys, to turn.")
    report.write(setting.folder / "index.html")
