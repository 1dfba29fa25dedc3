"""Experiments whose dynamics and labels are replaced by prepared ones write complete results."""

import numpy as np
import pytest

from jaxff.analysis import Estimate
from jaxff.dataset import packaged_dataset
from jaxff.paper import basins, refinement, residence, spectra
from jaxff.paper.claims import CLAIMS
from jaxff.paper.comparison import write_page
from jaxff.paper.experiment import Setting
from jaxff.paper.spectra import Densities
from jaxff.paper.verdicts import AGREES


@pytest.fixture
def setting(tmp_path):
    return Setting(tmp_path, small=True)


def check(setting, name, result):
    assert {f.claim for f in result.findings} == {
        k for k, c in CLAIMS.items() if c.experiment == name
    }
    for table in result.tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
    for picture in result.pictures:
        assert (setting.folder / name / picture.file).read_bytes().startswith(b"\x89PNG")
    result.numbers["seconds"] = 60.0
    result.write(setting.place(name) / "result.json")
    write_page(setting)
    page = (setting.folder / "index.html").read_text()
    assert result.title in page
    assert "Proposals of the paper, and methods of jaxff" in page


def bands(centres):
    x, rng = np.arange(0.0, 4000.0, 10.0), np.random.default_rng(0)
    parts = sum(np.exp(-0.5 * ((x - c - rng.normal(size=(8, 1))) / 40.0) ** 2) for c in centres)
    return Densities(x, parts / parts.sum(axis=1, keepdims=True) / 10.0)


def test_spectra_with_a_red_shift_of_the_kernel_alone_agree_with_the_paper(setting, monkeypatch):
    def densities(setting, make, name, temperature):
        hot = temperature > 200.0
        if name == "GAFF":
            return bands([300.0 - 20.0 * hot, 1000.0, 3300.0])
        return bands([300.0 - 20.0 * hot, 1010.0, 3100.0 - 30.0 * hot])

    monkeypatch.setattr(spectra, "densities", densities)
    result = spectra.run(setting)
    assert result.verdict == AGREES
    check(setting, "fig6", result)


def test_a_correction_that_gives_the_shares_of_the_reference_agrees(setting, monkeypatch):
    data = packaged_dataset("aspirin")
    place = basins.basin_of(data.molecule, data.positions)
    rng = np.random.default_rng(0)

    def frames(shares):
        """Replicas with these shares of the basins, up to a small scatter."""
        parts = []
        for _ in range(8):
            counts = np.round(60.0 * np.array(shares) + rng.normal(size=4)).astype(int)
            which = [np.flatnonzero(place == k)[:1].repeat(n) for k, n in enumerate(counts)]
            parts.append(data.positions[np.concatenate(which)][:50])
        return np.array(parts)

    def sampled(setting, molecule, title, make, ps=None):
        return frames([0.2, 0.1, 0.6, 0.1] if title == residence.GAFF else [0.5, 0.1, 0.3, 0.1])

    exact = basins.counted(data.molecule, frames([0.5, 0.1, 0.3, 0.1]))
    monkeypatch.setattr(residence, "sampled", sampled)
    monkeypatch.setattr(residence, "reweighted", lambda setting: (exact, 300.0))
    monkeypatch.setattr(basins, "global_basin", lambda setting: 0)
    result = residence.run(setting)
    assert result.verdict == AGREES
    check(setting, "fig9", result)


def test_refinement_is_compared_with_as_many_frames_of_gaff(setting, monkeypatch):
    data = packaged_dataset("ethanol")[:80]
    errors = {refinement.FIRST: 0.9, refinement.REFINED: 0.4, refinement.MORE: 0.6}
    monkeypatch.setattr(
        refinement, "labelled_samplings", lambda setting, molecule: {"DFT": data, "GAFF": data}
    )
    monkeypatch.setattr(refinement, "refine", lambda *arguments: errors)
    monkeypatch.setattr(refinement, "evaluate", lambda value, test: {"force_mae": value})
    monkeypatch.setattr(refinement, "averaged", lambda v: Estimate(float(np.mean(v)), 0.01))
    result = refinement.run(setting)
    assert result.verdict == AGREES
    check(setting, "refinement", result)
