"""The data sets in the package are what their README says."""

import json
from importlib.resources import files

import numpy as np
import pytest

from jaxff import Dataset, Molecule, units
from jaxff.domain import Domain
from jaxff.molecule import perceive_bonds
from jaxff.reference import calculator

DATA = files("jaxff") / "data"
SETS = {
    "ethanol": ("CCO", 2500),
    "keto_malondialdehyde": ("O=CCC=O", 2500),
    "enol_malondialdehyde": (r"O=C/C=C\O", 600),
    "aspirin": ("CC(=O)Oc1ccccc1C(=O)O", 2000),
    "ethanol_pbe": ("CCO", 600),
    "keto_malondialdehyde_pbe": ("O=CCC=O", 600),
    "keto_malondialdehyde_pbe_torsions": ("O=CCC=O", 5),
}


@pytest.fixture(scope="module", params=SETS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def data(name):
    return Dataset.load(DATA / f"{name}.npz")


def test_every_frame_is_the_molecule(name, data):
    smiles, frames = SETS[name]
    molecule = Molecule.from_smiles(smiles)
    assert len(data) == len(np.unique(data.positions, axis=0)) == frames
    assert data.name == name.removesuffix("_torsions").removesuffix("_pbe")
    np.testing.assert_array_equal(data.numbers, molecule.numbers)
    graphs = (perceive_bonds(data.numbers, frame) for frame in data.positions)
    assert all(np.array_equal(bonds, molecule.bonds) for bonds in graphs)


# One of the sets at one level is enough for every day: a frame takes half a minute.
SLOW = dict.fromkeys(
    ("keto_malondialdehyde_pbe", "keto_malondialdehyde_pbe_torsions"), pytest.mark.slow
)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=SLOW.get(n, ())) for n in SETS], indirect=True
)
def test_labels_are_those_of_the_theory(name, data):
    if "_pbe" in name:
        pytest.importorskip("pyscf")
        pytest.importorskip("pyscf.dispersion")
        own, count, theory = calculator("pbe-d3bj"), 1, "PBE-D3BJ/DEF2-SVP"
    else:
        pytest.importorskip("tblite")
        own, count, theory = calculator("gfn2-xtb", accuracy=0.01), 2, "GFN2-xTB"
    assert data.theory.startswith(theory)
    for frame in np.random.default_rng(0).choice(len(data), count, replace=False):
        atoms = data.molecule.with_positions(data.positions[frame]).to_ase()
        atoms.calc = own
        assert atoms.get_potential_energy() * units.EV == pytest.approx(
            data.energies[frame], abs=1e-4
        )
        np.testing.assert_allclose(
            atoms.get_forces() * units.EV, data.forces[frame], rtol=0, atol=5e-3
        )


def test_no_net_force_and_no_net_torque(name, data):
    assert np.abs(data.forces.sum(axis=1)).max() < 1e-9
    torque = np.cross(data.positions - data.positions.mean(axis=1, keepdims=True), data.forces)
    # A functional's integration grid does not turn with the molecule.
    assert np.abs(torque.sum(axis=1)).max() < (0.2 if "_pbe" in name else 0.01)


def test_the_files_say_how_they_were_made(name):
    with np.load(DATA / f"{name}.npz") as file:
        assert str(file["command"]).startswith("jaxff label")
        assert str(file["command"]) in (DATA / "README.md").read_text()
        if "_pbe" not in name:
            assert json.loads(str(file["dynamics"]))["temperature_K"] == 500.0
            assert len(file["replica"]) == len(file["time_fs"]) == SETS[name][1]


def test_frames_of_higher_level_are_one_replica_of_the_lower(name, data):
    if name.endswith("_pbe"):
        whole = Dataset.load(DATA / f"{name.removesuffix('_pbe')}.npz")
        np.testing.assert_array_equal(data.positions, whole.positions[:2400:4])


def test_torsion_frames_are_far_from_the_frames_of_dynamics(name, data):
    if name.endswith("_torsions"):
        sampled = Dataset.load(DATA / f"{name.removesuffix('_torsions')}.npz")
        domain = Domain.of(sampled.molecule, sampled.positions)
        assert domain.distances(data.positions).min() > 0.57  # in units of the limit
        assert not domain.trained_on(data.positions).any()


def test_the_package_stays_small():
    assert sum((DATA / f"{name}.npz").stat().st_size for name in SETS) < 8e6
