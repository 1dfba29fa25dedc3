"""The ASE calculator: units, any atom order, and ASE's own workflows."""

import numpy as np
import pytest
from ase import units as ase_units
from ase.calculators.calculator import CalculationFailed
from ase.calculators.fd import calculate_numerical_forces
from ase.optimize import BFGS
from ase.vibrations import Vibrations
from springs import springs

import jaxff
from jaxff import InputError, Molecule
from jaxff.ase import Calculator


@pytest.fixture(scope="module")
def ethanol():
    return Molecule.from_smiles("CCO")


@pytest.fixture
def atoms(ethanol):
    atoms = ethanol.to_ase()
    atoms.positions += np.random.default_rng(3).normal(0.0, 0.05, atoms.positions.shape)
    atoms.calc = Calculator(springs(ethanol))
    return atoms


def test_energy_and_forces_are_the_potential_s_in_ev(ethanol, atoms):
    kcal = ase_units.kcal / ase_units.mol
    energy, forces = springs(ethanol).energy_and_forces(atoms.positions)
    assert atoms.get_potential_energy() == pytest.approx(float(energy) * kcal, rel=1e-7)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    np.testing.assert_allclose(atoms.get_forces(), np.asarray(forces) * kcal, rtol=1e-7)


def test_forces_are_the_slope_of_the_energy(atoms):
    np.testing.assert_allclose(
        atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), atol=1e-6
    )


def test_any_atom_order(atoms):
    order = np.random.default_rng(1).permutation(len(atoms))
    shuffled = atoms[order]
    shuffled.calc = Calculator(atoms.calc.potential)
    # The hydrogens of a group are alike to the graph, not to springs of unlike lengths.
    other = shuffled.calc.potential.molecule.match(Molecule.from_ase(shuffled))
    plain = atoms.calc.potential.energy_and_forces(shuffled.positions[other])
    assert shuffled.get_potential_energy() == pytest.approx(float(plain[0]) / jaxff.units.EV)
    np.testing.assert_allclose(
        shuffled.get_forces()[other], np.asarray(plain[1]) / jaxff.units.EV, atol=1e-12
    )


def test_a_stretched_bond_is_taken_in_order(ethanol):
    atoms = ethanol.to_ase()
    atoms.positions[8] += [3.0, 0.0, 0.0]
    atoms.calc = Calculator(springs(ethanol))
    expected = float(springs(ethanol)(atoms.positions)) / jaxff.units.EV
    assert atoms.get_potential_energy() == pytest.approx(expected)


def test_relaxation_finds_the_minimum(atoms):
    BFGS(atoms, logfile=None).run(fmax=1e-3, steps=200)
    assert atoms.get_potential_energy() == pytest.approx(0.0, abs=1e-5)


def test_vibrations_of_a_diatomic_are_those_of_its_spring(tmp_path):
    molecule = Molecule([1, 17], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.3]], [[0, 1]])
    atoms = molecule.to_ase()
    atoms.calc = Calculator(springs(molecule))
    vibrations = Vibrations(atoms, name=str(tmp_path / "vib"), delta=1e-3)
    vibrations.run()
    k = 2 * 300.0 * 4184.0 / 6.02214076e23 * 1e20  # J/m², E = 300 (r - r0)² kcal/mol
    reduced = np.prod(molecule.masses) / molecule.masses.sum() * 1.66053906660e-27
    wavenumber = np.sqrt(k / reduced) / (2 * np.pi * 2.99792458e10)
    assert vibrations.get_frequencies()[-1].real == pytest.approx(wavenumber, rel=1e-5)


def test_float32_potentials_work(ethanol, atoms):
    single = atoms.copy()
    single.calc = Calculator(springs(ethanol).astype(np.float32))
    assert single.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), rel=1e-5)


def test_what_cannot_be_computed_is_said(ethanol, atoms):
    periodic = atoms.copy()
    periodic.calc = Calculator(springs(ethanol))
    periodic.pbc = True
    with pytest.raises(InputError, match=r"periodic .*: set atoms\.pbc = False$"):
        periodic.get_potential_energy()
    other = Molecule.from_smiles("CC=O").to_ase()
    other.calc = Calculator(springs(ethanol))
    with pytest.raises(InputError, match="C2H6O"):
        other.get_potential_energy()
    atoms.calc = Calculator(springs(ethanol, limit=2.0))
    with pytest.raises(CalculationFailed, match="not finite"):
        atoms.get_forces()
