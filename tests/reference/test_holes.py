"""The search for holes in energy surfaces, and their repair."""

import json
from dataclasses import replace

import numpy as np
import pytest

import jaxff
from jaxff import gdml
from jaxff.cli import main
from jaxff.dataset import Dataset
from jaxff.domain import outside
from jaxff.errors import InputError
from jaxff.reference import Labelling, Sampling, Search, find_holes, mend_holes

SEARCH = Search(
    sampling=Sampling(600.0, spacing=10.0, equilibration=0.0, replicas=4),
    frames=40, points=6, most=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def truth():
    """A force field whose energy is the reference."""
    return jaxff.gaff(jaxff.Molecule.from_smiles("NC=O"), charges="gasteiger")


@pytest.fixture(scope="module")
def data(truth):
    """Frames near the flat amide, without any twisted one."""
    molecule = truth.molecule
    rng = np.random.default_rng(0)
    R = molecule.positions + rng.normal(scale=0.05, size=(30, molecule.n_atoms, 3))
    E, F = map(np.asarray, truth.predict(R))
    return Dataset(molecule.numbers, R, F, E, name="formamide", theory="GAFF")


@pytest.fixture(scope="module")
def kernel(data):
    """A kernel that does not know that twisting the amide costs energy."""
    return gdml.train(data, sigma=10.0, kernel=gdml.Kernel(symmetries=None))


def test_holes_are_outside_the_training_data_and_reachable(kernel, data):
    holes = find_holes(kernel, data.molecule, data.positions, SEARCH)
    assert 0 < len(holes) <= SEARCH.most
    R = np.stack([hole.positions for hole in holes])
    energies = kernel.predict(R)[0]
    assert outside(kernel.trained, R, energies).frames.all()
    lowest, highest = kernel.trained[0].domain.energies
    assert (energies < highest).all()
    np.testing.assert_allclose([hole.energy for hole in holes], energies - lowest, atol=1e-6)
    assert all(hole.reason and hole.origin for hole in holes)


@pytest.mark.slow  # the test of the command mends in one round
def test_mended_models_have_no_holes_and_continue_after_an_interruption(
    kernel, data, truth, tmp_path
):
    labelling, search = Labelling(truth, workers=1), replace(SEARCH, frames=12)
    with pytest.raises(KeyboardInterrupt):
        mend_holes(kernel, data, tmp_path / "a", labelling, search, progress=interrupted())
    mended = mend_holes(kernel, data, tmp_path / "a", labelling, search, rounds=6)
    whole = mend_holes(kernel, data, tmp_path / "b", labelling, search, rounds=6)
    assert mended.rounds == whole.rounds
    assert mended.closed
    assert mended.rounds[0].wrong > 0
    assert mended.rounds[-1].depth < 2.0
    np.testing.assert_array_equal(mended.dataset.positions[: len(data)], data.positions)
    np.testing.assert_array_equal(mended.dataset.positions, whole.dataset.positions)
    new = mended.dataset[len(data) :]
    np.testing.assert_allclose(truth.predict(new.positions)[1], new.forces, atol=1e-6)
    with pytest.raises(InputError, match="other settings"):
        mend_holes(kernel, data, tmp_path / "a", labelling, replace(search, most=3))


def interrupted():
    """Interrupt the second training."""
    trainings = []

    def progress(phase, fraction):
        if phase == "assembling" and fraction == 0.0:
            trainings.append(phase)
        if len(trainings) == 2:
            raise KeyboardInterrupt

    return progress


def test_models_that_cannot_be_searched_or_mended_are_refused(truth, data, kernel, tmp_path):
    with pytest.raises(InputError, match="no energies of training frames"):
        find_holes(truth, data.molecule, data.positions, SEARCH)
    for frames in (data.positions[:0], data.positions[0], data.positions[:, :2]):
        with pytest.raises(InputError, match=r"known must have shape \(K, 6, 3\) in Å with at"):
            find_holes(kernel, data.molecule, frames, SEARCH)
    with pytest.raises(InputError, match="rounds is 0"):
        mend_holes(kernel, data, tmp_path / "c", Labelling(truth), SEARCH, rounds=0)
    with pytest.raises(InputError, match="one sGDML term"):
        mend_holes(truth, data, tmp_path / "c", Labelling(truth), SEARCH)
    other = replace(data, positions=data.positions + np.random.default_rng(1).normal(
        scale=0.01, size=data.positions.shape))  # fmt: skip
    with pytest.raises(InputError, match="none of the frames"):
        mend_holes(kernel, other, tmp_path / "c", Labelling(truth), SEARCH)


def test_the_command_reports_and_mends(kernel, data, truth, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    jaxff.save("model.npz", kernel)
    jaxff.save("truth.npz", truth)
    data.save("data.npz")
    small = ["--frames", "20", "--points", "0", "--most", "6", "--replicas", "2", "--spacing", "10"]
    assert main(["holes", "model.npz", *small, "-o", "found", "--json", "found.json"]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["holes"]
    assert (tmp_path / "found/holes.xyz").is_file()
    capsys.readouterr()
    more = ["--label", "truth.npz", "--workers", "1", "--rounds", "1", "-o", "mended"]
    assert main(["holes", "model.npz", "data.npz", *small, *more, "--json", "m.json"]) == 0
    mended = json.loads((tmp_path / "m.json").read_text())
    assert mended["rounds"][0]["found"] > 0
    frames = Dataset.load(tmp_path / "mended/data.npz", check=False)
    assert len(frames) == len(data) + mended["rounds"][0]["found"]
    assert main(["holes", "model.npz", "--label", "truth.npz", "-o", "x"]) == 1
    assert "needs the training data set" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
