"""Pictures and reports: what they hold, and that they need no network."""

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from pyright import node

from jaxff import Molecule
from jaxff.console import Console, plain_table
from jaxff.report import plot
from jaxff.report.page import Report


class Collector(HTMLParser):
    def __init__(self):
        super().__init__()
        self.sources, self.text, self.molecules, self.scripts = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.molecules += [json.loads(value) for key, value in attrs if key == "data-molecule"]
        self.sources += [value for key, value in attrs if key in ("src", "href")]

    def handle_data(self, data):
        (self.scripts if self.lasttag == "script" else self.text).append(data)


@pytest.fixture
def forces():
    return np.random.default_rng(0).normal(size=(20, 3, 3))


def test_parity_panels_share_one_scale_and_state_their_errors(forces):
    figure = plot.force_parity(forces, {"a": forces + 0.5, "b": forces, "c": 2 * forces}, "toy")
    panels = figure.axes[:3]
    assert len({axis.get_xlim() for axis in panels}) == 1
    assert "MAE 0.50" in panels[0].texts[0].get_text()
    assert "kcal/mol/Å" in figure.get_supxlabel()


def test_torsion_densities_are_normalised():
    angles = np.random.default_rng(1).uniform(-np.pi, np.pi, (500, 2))
    figure = plot.torsion_distributions({"one": angles, "two": angles[:50]}, ["x", "y"])
    line = figure.axes[0].lines[0]
    assert line.get_ydata().sum() * 6.0 == pytest.approx(1.0)  # bins of 6 degrees


def test_energy_and_temperature_has_units():
    t = np.arange(50.0)
    figure = plot.energy_and_temperature(t, np.cos(t), np.sin(t) ** 2, 300 + t, 300.0)
    assert "kcal/mol" in figure.axes[0].get_ylabel()
    assert figure.axes[1].get_xlabel() == "time, ps"


def test_report_embeds_its_pictures_and_escapes_text(tmp_path, forces):
    plot.force_parity(forces, {"a": forces}, "toy").savefig(tmp_path / "a.png")
    report = Report("Ethanol <&>")
    report.heading("Errors")
    report.table(["model", "mae"], [["<b>", 0.12345]])
    report.picture(tmp_path / "a.png", "a picture")
    report.write(tmp_path / "report.html")
    page = Collector()
    page.feed((tmp_path / "report.html").read_text())
    assert all(source.startswith("data:") for source in page.sources)
    assert len(page.sources) == 1
    text = " ".join(page.text)
    assert "Ethanol <&>" in text
    assert "<b>" in text
    assert "0.123" in text


def test_plain_lines_where_there_is_no_terminal(capsys):
    console = Console(interval=0.0)
    for i in range(3):
        console("train", i / 2)
    console("a message", 1.0)
    console("test", 0.5)
    console.close()
    out = capsys.readouterr().out
    assert "train: 50%" in out
    assert "test: done in" in out
    assert "  a message\n" in out
    assert "\x1b" not in out
    assert set(console.seconds) == {"train", "test"}


def test_a_plain_line_announces_a_phase_that_takes_time(capsys):
    console = Console(moment=0.01)
    console("compiling", 0.0)
    time.sleep(0.2)
    assert capsys.readouterr().out == "  compiling ...\n"
    console.close()
    console.moment = 100.0
    console("quick", 0.0)
    console.close()
    out = capsys.readouterr().out
    assert "compiling: done in" in out
    assert "quick ..." not in out


def test_table_aligns_columns():
    lines = plain_table(["model", "mae"], [["a", 1.23456], ["longer", 10.0]]).splitlines()
    assert lines[2].endswith("1.235")
    assert len({len(line) for line in lines}) == 1


@pytest.fixture
def turned(tmp_path):
    """A page with a molecule twice, the second time turned and moved; and the molecule."""
    molecule = Molecule.from_smiles("C[C@H](N)C(=O)O")
    axes = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    moved = molecule.positions @ (axes * np.linalg.det(axes)) + 5.0
    report = Report("Alanine")
    report.molecules({"a <b>": molecule, "again": molecule.with_positions(moved)}, "twice")
    report.write(tmp_path / "page.html")
    return molecule, tmp_path / "page.html"


def test_molecules_are_laid_upon_each_other_and_keep_their_shape(turned):
    molecule, path = turned
    page = Collector()
    page.feed(path.read_text())
    assert not page.sources
    R, again = (np.array([atom["at"] for atom in m["atoms"]]) for m in page.molecules)
    np.testing.assert_allclose(again, R, atol=2e-3)
    span = [np.linalg.norm(x[:, None] - x, axis=-1) for x in (R, molecule.positions)]
    np.testing.assert_allclose(*span, atol=2e-3)
    # The same hand: no mirror image.
    hand = [np.linalg.det(x[[2, 3, 4]] - x[1]) for x in (R, molecule.positions)]
    assert hand[0] == pytest.approx(hand[1], rel=1e-2)
    assert page.molecules[0]["bonds"] == molecule.bonds.tolist()


SIZE = 380, 240  # pixels of each of two canvases in a window 800 pixels wide


def drawn(path, *keys):
    """What the script of a page draws on each canvas, in this order, after keys are pressed."""
    page = Collector()
    page.feed(path.read_text())
    script = "".join(page.scripts)
    molecules = [json.dumps(molecule) for molecule in page.molecules]
    given = {"script": script, "molecules": molecules, "size": SIZE, "keys": keys}
    harness = str(Path(__file__).with_name("canvases.js"))
    done = node.run(
        "node", harness, input=json.dumps(given), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def painted(shapes):
    """Pixels (height, width, 3) of discs and of lines with round ends, later ones on top."""
    x, y = np.meshgrid(*map(np.arange, SIZE))
    at = np.stack([x, y], axis=-1) + 0.5
    pixels = np.ones((*at.shape[:2], 3))
    for shape in shapes:
        start, end = np.array(shape["from"]), np.array(shape["to"])
        length = max(np.sum((end - start) ** 2), 1e-12)
        share = np.clip((at - start) @ (end - start) / length, 0.0, 1.0)
        distance = np.linalg.norm(at - start - share[..., None] * (end - start), axis=-1)
        pixels[distance <= shape["radius"]] = to_rgb(shape["colour"])
    return pixels


def discs(shapes):
    return np.array([[*s["from"], s["radius"]] for s in shapes if s["from"] == s["to"]])


def test_the_script_of_a_page_draws_the_molecules(turned):
    molecule, path = turned
    assert re.search(r'<div class="molecules">(<div><canvas [^>]*></canvas>[^<]*</div>){2}</div>',
                     path.read_text())  # fmt: skip
    for shapes in drawn(path):
        assert len(discs(shapes)) == molecule.n_atoms
        assert len(shapes) == molecule.n_atoms + 4 * len(molecule.bonds)
        x, y, radius = discs(shapes).T
        assert (np.abs(x - SIZE[0] / 2) + radius < SIZE[0] / 2).all()
        assert (np.abs(y - SIZE[1] / 2) + radius < SIZE[1] / 2).all()
        pixels = painted(shapes)
        red = (pixels[..., 0] > 0.9) & (pixels[..., 1:] < 0.2).all(axis=-1)
        assert red.sum() > 100  # the oxygens


def test_the_arrow_keys_turn_a_molecule_and_plus_enlarges_it(turned):
    _, path = turned
    before, turned_on, enlarged = (drawn(path, *keys)[0] for keys in ((), ("ArrowLeft",), ("+",)))
    x = [np.sort(discs(shapes)[:, 0]) for shapes in (before, turned_on)]
    assert np.abs(x[1] - x[0]).max() > 1.0
    middle = np.array([SIZE[0] / 2, SIZE[1] / 2, 0.0])
    np.testing.assert_allclose(discs(enlarged) - middle, 1.1 * (discs(before) - middle))
