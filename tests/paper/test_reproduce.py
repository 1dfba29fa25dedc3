"""The paper's experiments run, are kept, and go on where they were stopped."""

import json
import re

import numpy as np
import pytest

from jaxff import InputError, Molecule
from jaxff.cli import main
from jaxff.dataset import packaged_dataset
from jaxff.paper import EXPERIMENTS, reproduce
from jaxff.paper.claims import CLAIMS
from jaxff.paper.comparison import by_molecule
from jaxff.paper.experiment import SURFACE, Setting, identified
from jaxff.paper.verdicts import VERDICTS

QUICK = ("fig2", "fig8")  # all of them: jaxff reproduce all --small


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("paper")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in EXPERIMENTS]
)
def test_each_experiment_ends_in_numbers_and_a_verdict(folder, name):
    result = reproduce(name, folder, small=True)[name]
    assert result.verdict in VERDICTS
    # Every statement of the paper on this figure or table is tested, or it is said why not.
    claims = {key for key, claim in CLAIMS.items() if claim.experiment == name}
    assert {finding.claim for finding in result.findings} == claims
    assert all(f.reason for f in result.findings if f.obtained == "not tested")
    assert re.search(r"\d", result.obtained) or not claims
    assert result.tables
    for table in result.tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
    for picture in result.pictures:
        assert (folder / name / picture.file).read_bytes().startswith(b"\x89PNG")
    page = (folder / "index.html").read_text()
    assert all(CLAIMS[finding.claim].quote in page for finding in result.findings)
    assert result.title in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    # A second call computes nothing.
    before = (folder / name / "result.json").stat().st_mtime_ns
    assert reproduce(name, folder, small=True)[name].numbers == result.numbers
    assert (folder / name / "result.json").stat().st_mtime_ns == before


def test_the_command_has_the_results_of_its_schema(folder, tmp_path):
    """The fixture `documented_results` validates them; the experiment is not run again."""
    report = tmp_path / "r.json"
    arguments = ["reproduce", "fig2", "--small", "-o", str(folder), "--json", str(report)]
    assert main(arguments) == 0
    found = json.loads(report.read_text())
    assert found["run"]["command"] == "reproduce"
    one = found["results"]["fig2"]
    assert one["verdict"] in VERDICTS
    assert all(claim in CLAIMS for claim, *_ in one["findings"])


def test_a_folder_keeps_to_its_settings(folder):
    assert json.loads((folder / "request.json").read_text())["request"]["small"] is True
    with pytest.raises(InputError, match=r"other settings \(seed 0 → 1\)"):
        reproduce("table2", folder, small=True, seed=1)
    with pytest.raises(InputError, match="unknown experiment 'fig10'"):
        reproduce("fig10", folder)


def test_data_for_surfaces_do_not_replace_other_data(tmp_path):
    data, few = packaged_dataset("ethanol"), packaged_dataset("ethanol")[:60]
    given = by_molecule([data]) | by_molecule([few], SURFACE)
    setting = Setting(tmp_path, given=given)
    assert setting.dataset("ethanol") is data
    assert setting.dataset(setting.surface_set("ethanol")) is few
    assert setting.size(400, 40, 1000) == 1000
    assert Setting(tmp_path).size(400, 40, 1000) == 400
    assert Setting(tmp_path).surface_set("ethanol") == "ethanol-pbe"
    with pytest.raises(InputError, match="second data set of ethanol"):
        by_molecule([data, few])


def test_experiments_share_their_potentials(tmp_path):
    """Each potential is compiled once for all of them."""
    setting = Setting(tmp_path, small=True)
    assert setting.gaff("ethanol") is setting.gaff("ethanol")
    assert setting.gaff("ethanol") is not setting.gaff("ethanol", "morse")
    kept = setting.kept("model", lambda: setting.gaff("ethanol"))
    assert setting.kept("model", lambda: pytest.fail("made again")) is kept


def test_data_are_known_by_their_molecule():
    data = packaged_dataset("ethanol")[:50]
    assert identified(data.reorder(np.random.default_rng(0).permutation(9))) == "ethanol"
    ether = Molecule.from_smiles("COC")
    with pytest.raises(InputError, match="not a molecule of the paper"):
        identified(type(data)(ether.numbers, ether.positions[None], np.zeros((1, 9, 3))))
