"""Every quotation and number of the paper is in its text."""

import re
from pathlib import Path

import pytest

from jaxff.paper import EXPERIMENTS
from jaxff.paper.additions import ADDITIONS
from jaxff.paper.claims import ASPIRIN_C, CLAIMS, KERNEL_MAE, MODELS, TABLE_I, TABLE_II

TITLES = {"keto-malondialdehyde": "keto-MDA"}
EXTRACTIONS = ("paper.txt", "paper_second_extraction.txt")


@pytest.fixture(scope="module")
def texts(shared):
    folder = shared / "paper"
    if not folder.is_dir():
        pytest.skip("the text of the paper (../shared/paper) is absent")
    return [plain((folder / name).read_text()) for name in EXTRACTIONS]


def plain(text):
    """Text in which line breaks, hyphenation and mathematical markup do not matter."""
    text = re.sub(r"-\n\s*", "-", text).replace("$", "").replace("\\text{", "")
    text = text.replace("}", "").replace("−", "-")
    return re.sub(r"[\s-]+", "", text)


@pytest.mark.parametrize("name", CLAIMS)
def test_each_quotation_is_in_the_text(name, texts):
    for part in CLAIMS[name].quote.split("…"):
        assert len(part.split()) >= 3 or len(CLAIMS[name].quote.split("…")) > 1
        assert any(plain(part) in text for text in texts), part


@pytest.mark.parametrize("addition", ADDITIONS, ids=lambda one: one.offered.split(":")[0])
def test_additions_quote_the_paper_and_numbers_that_their_page_has(addition, texts):
    assert any(plain(addition.quote) in text for text in texts)
    page = (Path(__file__).parents[2] / addition.page).read_text()
    for value in addition.values:
        assert value in page
        assert value.split(" (")[0] in addition.numbers or value in ("20.8",)


def test_quotations_of_the_results_are_in_the_text(texts):
    page = (Path(__file__).parents[2] / "docs" / "paper-results.md").read_text()
    quotations = re.findall("“([^”]+)”", page)
    assert quotations
    for part in (part for quotation in quotations for part in quotation.split("…")):
        assert any(plain(part) in text for text in texts), part


def test_each_experiment_but_the_drawing_has_a_claim():
    assert {claim.experiment for claim in CLAIMS.values()} <= set(EXPERIMENTS)


def test_the_first_table_is_that_of_the_text(shared, texts):
    lines = (shared / "paper" / "paper.txt").read_text().splitlines()
    molecule, found = "", {}
    for cells in (line.split("\t") for line in lines if line.count("\t") == 4):
        if cells[1] in ("GAFF", "DFT"):
            molecule = cells[0] or molecule
            found[molecule, cells[1], cells[2]] = float(cells[3]), float(cells[4])
    assert found == {(TITLES.get(m, m), a, b): v for (m, a, b), v in TABLE_I.items()}


def test_the_second_table_is_that_of_the_text(shared, texts):
    lines = (shared / "paper" / "paper.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines if line.count("\t") == 9]
    assert tuple(rows[1][2:6]) == tuple(rows[1][6:]) == MODELS
    molecule, found = "", {}
    for first, n, *cells in rows[2:]:
        molecule = first or molecule
        values = [None if cell == "—" else float(cell) for cell in cells]
        found[molecule.lower(), int(n)] = tuple(values[:4]), tuple(values[4:])
    assert found == TABLE_II


def test_other_numbers_are_in_the_text(texts):
    limits = (f"less than {limit:g}" for limit in KERNEL_MAE)
    for number in (f"{ASPIRIN_C}", *limits, "threeindependenttrainingruns", "(500to1500", "to400K"):
        assert any(plain(number) in text for text in texts), number
