"""Partial charges: exact totals, equal where atoms are, RESP against a general minimiser."""

import shutil

import numpy as np
import pytest
from scipy.optimize import minimize

import jaxff
from jaxff.errors import InputError
from jaxff.gaff.charges import find_charges
from jaxff.gaff.lewis import lewis_structure
from jaxff.gaff.resp import (
    ESP,
    RESTRAINTS,
    TIGHTNESS,
    fit_charges,
    potential_at,
    restrained_fit,
    surface_points,
)
from jaxff.molecule import Molecule, equivalent_atoms


@pytest.mark.parametrize("smiles", ["CC(=O)[O-]", "C[NH3+]", "Nc1ncnc2[nH]cnc12", "CC(C)CO"])
def test_gasteiger_charges_sum_exactly_and_are_equal_for_equal_atoms(smiles):
    molecule = Molecule.from_smiles(smiles)
    found = find_charges(lewis_structure(molecule), "gasteiger")
    assert abs(found.values.sum() - molecule.charge) < 1e-10
    classes = equivalent_atoms(molecule)
    for c in np.unique(classes):
        assert np.ptp(found.values[classes == c]) < 1e-12
    assert "crude" in found.method


def test_charges_as_array_or_mol2(tmp_path):
    molecule = Molecule.from_smiles("CO")
    given = np.array([0.12, -0.6, 0.03, 0.03, 0.03, 0.3901])
    found = jaxff.parametrize(molecule, given)
    np.testing.assert_allclose(found.charges, given, atol=1e-4)
    assert abs(found.charges.sum()) < 1e-10
    jaxff.write_force_field(tmp_path / "m.mol2", found.potential())
    shuffled = molecule.reorder([3, 1, 0, 5, 2, 4])
    again = jaxff.parametrize(shuffled, tmp_path / "m.mol2")
    np.testing.assert_allclose(again.charges, found.charges[[3, 1, 0, 5, 2, 4]], atol=1e-7)


@pytest.mark.parametrize(
    ("charges", "message"),
    [
        (np.zeros(5), "must be 6 finite numbers"),
        (np.full(6, 0.1), r"sum to \+0.6000, but the net charge is \+0"),
        ("mulliken", r"charges .--charges. must be resp, gasteiger, am1bcc"),
        (["a"] * 6, "must be numbers"),
        ("nowhere.mol2", "no such file"),
    ],
)
def test_charges_that_cannot_be_are_named(charges, message):
    with pytest.raises(InputError, match=message):
        jaxff.parametrize(Molecule.from_smiles("CO"), charges)


def test_am1bcc_without_antechamber_names_the_remedy(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="need the program antechamber"):
        jaxff.parametrize(Molecule.from_smiles("CO"), "am1bcc", cache=False)


# -- RESP -----------------------------------------------------------------------------------


def random_esp(molecule, seed):
    """A = Σ 1/rr and b = Σ V/r of random charges' potential with noise."""
    rng = np.random.default_rng(seed)
    points = surface_points(molecule.symbols, molecule.positions) / 0.529177210903
    inverse = 1.0 / np.linalg.norm(points[:, None] - molecule.positions / 0.529177210903, axis=-1)
    values = inverse @ rng.normal(scale=0.3, size=molecule.n_atoms)
    return inverse, values + 1e-3 * rng.normal(size=len(points))


def test_the_restrained_fit_is_the_minimum_of_its_objective():
    molecule = Molecule.from_smiles("CC(=O)NC")
    inverse, values = random_esp(molecule, 1)
    heavy = molecule.numbers > 1
    everywhere, start = np.ones(molecule.n_atoms, bool), np.zeros(molecule.n_atoms)
    found = restrained_fit(
        inverse.T @ inverse, inverse.T @ values, 0.0, np.arange(molecule.n_atoms), heavy,
        RESTRAINTS[0], everywhere, start,
    )  # fmt: skip
    assert abs(found.sum()) < 1e-10

    def objective(q):
        restraint = np.sqrt(q[heavy] ** 2 + TIGHTNESS**2) - TIGHTNESS
        return 1e3 * (np.sum((inverse @ q - values) ** 2) + 2.0 * RESTRAINTS[0] * restraint.sum())

    total = {"type": "eq", "fun": np.sum}
    best = minimize(objective, start, constraints=total, options={"maxiter": 500, "ftol": 1e-14})
    np.testing.assert_allclose(found, best.x, atol=1e-4)


def test_two_stages_equalise_methyls_and_keep_the_rest():
    molecule = Molecule.from_smiles("CC(=O)NC")
    points = surface_points(molecule.symbols, molecule.positions)
    _, values = random_esp(molecule, 2)
    found = fit_charges(molecule, [ESP(molecule.positions, points, values)])
    classes = equivalent_atoms(molecule)
    for c in np.unique(classes):
        assert np.ptp(found[classes == c]) < 1e-9
    assert abs(found.sum()) < 1e-10


def test_resp_charges_of_methanol_are_those_of_the_literature():
    """HF/6-31G* RESP of methanol: Cornell et al., J. Am. Chem. Soc. 115, 9620 (1993), table 3."""
    pytest.importorskip("pyscf")
    molecule = Molecule.from_smiles("CO")
    esp = potential_at(molecule)
    charges = fit_charges(molecule, [esp])
    carbon, oxygen, hydroxyl = charges[0], charges[1], charges[5]
    assert oxygen == pytest.approx(-0.65, abs=0.03)
    assert hydroxyl == pytest.approx(0.42, abs=0.03)
    assert carbon == pytest.approx(0.14, abs=0.06)
    # far away the molecule's dipole decides
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = rng.permutation(6)
    moved = molecule.with_positions(molecule.positions @ (turn * np.sign(np.linalg.det(turn))) + 2)
    again = fit_charges(moved.reorder(order), [potential_at(moved.reorder(order))])
    np.testing.assert_allclose(again, charges[order], atol=1e-6)


def test_resp_is_kept_and_looked_up(tmp_path, monkeypatch):
    pytest.importorskip("pyscf")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    water = Molecule.from_smiles("O")
    first = jaxff.parametrize(water, "resp")
    assert len(list((tmp_path / "jaxff" / "charges").iterdir())) == 1
    monkeypatch.setattr("jaxff.gaff.resp.potential_at", None)
    again = jaxff.parametrize(water, "resp")
    np.testing.assert_allclose(again.charges, first.charges, atol=1e-12)
    assert again.charge_method == first.charge_method


def test_iodine_has_no_resp():
    pytest.importorskip("pyscf")
    with pytest.raises(InputError, match="not defined for I"):
        jaxff.parametrize(Molecule.from_smiles("CI"), "resp", cache=False)


def test_geometries_that_give_no_charges_are_named():
    pytest.importorskip("pyscf")
    flat = Molecule.from_smiles("CO", geometry=False)
    with pytest.raises(InputError, match=r"0.00 Å apart"):
        jaxff.parametrize(flat, "resp", cache=False)
    drawn = flat.with_positions(
        np.array(
            [[0.0, 0, 0], [1.4, 0, 0], [-0.5, 0.9, 0], [-0.5, -0.9, 0], [-1.1, 0, 0], [2, 0.7, 0]]
        )
    )
    with pytest.raises(InputError, match="in one plane"):
        jaxff.parametrize(drawn, "resp", cache=False)


def test_symmetric_molecules_hardly_depend_on_how_they_lie():
    pytest.importorskip("pyscf")
    methane = Molecule.from_smiles("C")
    rng, found = np.random.default_rng(1), []
    for _ in range(3):
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        turned = methane.with_positions(methane.positions @ turn)
        found.append(fit_charges(turned, [potential_at(turned)])[0])
    assert np.ptp(found) < 0.004


@pytest.mark.skipif(shutil.which("antechamber") is None, reason="antechamber is not on PATH")
def test_am1bcc_charges_are_antechambers():
    found = jaxff.parametrize(Molecule.from_smiles("CCO"), "am1bcc", cache=False)
    carried = jaxff.parametrize(Molecule.from_smiles("CCO"))
    np.testing.assert_allclose(found.charges, carried.charges, atol=0.02)
