"""Pictures and reports: what they hold, and that they need no network."""

import json
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib import image

from jaxff import Molecule
from jaxff.console import Console, plain_table
from jaxff.report import plot
from jaxff.report.page import Report


class Collector(HTMLParser):
    def __init__(self):
        super().__init__()
        self.sources, self.text, self.molecules = [], [], []

    def handle_starttag(self, tag, attrs):
        self.molecules += [json.loads(value) for key, value in attrs if key == "data-molecule"]
        self.sources += [value for key, value in attrs if key in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


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


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_a_browser_draws_the_molecules(turned, tmp_path):
    _, path = turned
    size = "--window-size=800,600"
    subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", size,
         f"--user-data-dir={tmp_path}", f"--screenshot={tmp_path / 'page.png'}", path.as_uri()],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    pixels = image.imread(tmp_path / "page.png")[..., :3]
    red = (pixels[..., 0] > 0.9) & (pixels[..., 1:] < 0.2).all(axis=-1)
    assert red[:, :400].sum() > 100  # the oxygens of each
    assert red[:, 400:].sum() > 100
