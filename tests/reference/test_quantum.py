"""PySCF's calculator: forces are derivatives of the energy, and what does not converge is said."""

import numpy as np
import pytest

from jaxff import InputError, Molecule
from jaxff.reference import calculator
from jaxff.reference.calculators import Method


@pytest.fixture(scope="module")
def water():
    atoms = Molecule.from_smiles("O").to_ase()
    atoms.positions += np.random.default_rng(1).normal(0.0, 0.05, (3, 3))
    return atoms


@pytest.mark.parametrize("name", ["pbe-d3bj", "hf"])
def test_forces_are_the_derivative_of_the_energy(water, name):
    water.calc = calculator(name)
    forces = water.get_forces()
    step, moved = 1e-3, []
    for sign in (1, -1):
        other = water.copy()
        other.positions[0, 1] += sign * step
        other.calc = calculator(name)
        moved.append(other.get_potential_energy())
    assert forces[0, 1] == pytest.approx(-(moved[0] - moved[1]) / (2 * step), abs=2e-4)
    assert np.abs(forces.sum(axis=0)).max() < 1e-6


def test_dispersion_is_that_of_the_dispersion_library(water):
    from dftd3.interface import DispersionModel, RationalDampingParam

    energies = [_energy(water, dispersion=dispersion) for dispersion in (None, "d3bj")]
    model = DispersionModel(water.numbers, water.positions / 0.529177210903)
    expected = model.get_dispersion(RationalDampingParam(method="pbe"), grad=False)["energy"]
    assert energies[1] - energies[0] == pytest.approx(expected * 27.211386, abs=1e-6)


def _energy(atoms, **options):
    atoms = atoms.copy()
    atoms.calc = calculator("pbe-d3bj", **options)
    return atoms.get_potential_energy()


def test_the_theory_in_words_follows_the_options():
    assert Method("pbe-d3bj").theory.startswith("PBE-D3BJ/DEF2-SVP (pyscf ")
    assert Method("gfn2-xtb").theory.startswith("GFN2-xTB (tblite ")
    assert Method("gfn2-xtb", {"method": "IPEA1-xTB"}).theory.startswith("IPEA1-xTB (tblite ")
    assert Method("hf", {"basis": "sto-3g"}).theory.startswith("HF/STO-3G (")


def test_what_cannot_be_is_said(water):
    with pytest.raises(InputError, match="no option 'functional'"):
        calculator("pbe-d3bj", functional="b3lyp")
    far = water.copy()
    far.positions *= 30.0
    far.calc = calculator("hf")
    with pytest.raises(ValueError, match="did not converge"):
        far.get_potential_energy()
