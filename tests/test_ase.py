"""The ASE calculator: units, any atom order, and ASE's own workflows."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase import units as ase_units
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed, PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.filters import FrechetCellFilter
from ase.md.nptberendsen import NPTBerendsen
from ase.optimize import BFGS
from ase.vibrations import Vibrations
from springs import springs

import jaxff
from jaxff import InputError, Molecule, Potential, System, gdml
from jaxff.ase import Calculator
from jaxff.terms.periodic import periodic

GDML = Path(__file__).parent / "gdml" / "data"
SYSTEMS = Path(__file__).parent / "data" / "systems"


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


def argon():
    """32 atoms of solid argon and their Lennard-Jones potential in a box."""
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True).repeat(2)
    n = len(atoms)
    none = np.zeros((0, 2), np.int32)
    fields = dict(
        n_atoms=n, lj_rows=np.zeros(n, np.int32), charge_rows=np.zeros(n, np.int32),
        exclusions=none, pairs14=none, rows14=np.zeros(0, np.int32), overrides=none,
        lj_labels=("Ar",),
    )  # fmt: skip
    params = dict(
        sigma=np.array([3.4]), epsilon=np.array([0.238]), charge=np.zeros(1), lj14=np.zeros(0),
        coulomb14=np.zeros(0), coulomb_constant=np.array(332.06), c12=np.zeros(0), c6=np.zeros(0),
    )  # fmt: skip
    term = periodic(fields, params, atoms.cell.array, cutoff=5.2, switch=4.2)
    atoms.calc = Calculator(Potential.of("box", term, params))
    return atoms


def test_stress_of_a_system_is_the_slope_by_strain():
    system = System.read(SYSTEMS / "eth_opc.prmtop", SYSTEMS / "eth_opc.rst7")
    moved = system.positions + np.random.default_rng(0).normal(0.0, 0.03, system.positions.shape)
    atoms = Atoms(system.numbers, moved, cell=system.box, pbc=True)
    atoms.calc = Calculator(system.potential(cutoff=6.5, switch=5.0))
    strain = np.array([[1.01, 0.02, -0.03], [0.01, 1.0, 0.02], [0.0, 0.03, 0.99]])
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    forces = atoms.get_forces()
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=1e-2)
    assert not forces[system.sites.atoms].any()
    numerical = calculate_numerical_stress(atoms, eps=1e-5)
    np.testing.assert_allclose(atoms.get_stress(), numerical, atol=1e-7)


def test_stress_of_a_periodic_kernel_is_the_slope_by_strain():
    kernel = gdml.load(GDML / "ethanol_periodic_model.npz")
    with np.load(GDML / "predictions.npz") as file:
        R, energy = file["R_wrapped"][0], file["ethanol_periodic_model_E"][0]
    cell = np.asarray(kernel.params["gdml"]["lattice"]).T
    order = np.random.default_rng(0).permutation(9)
    atoms = Atoms(kernel.molecule.numbers[order], R[order], cell=cell, pbc=True)
    atoms.calc = Calculator(kernel)
    assert atoms.get_potential_energy() == pytest.approx(float(energy) / jaxff.units.EV)
    numerical = calculate_numerical_stress(atoms, eps=1e-5)
    np.testing.assert_allclose(atoms.get_stress(), numerical, atol=1e-8)


def test_cells_are_optimised_and_coupled_to_a_barostat():
    atoms = argon()
    atoms.rattle(0.05, seed=1)
    scale = np.sqrt(20.0 * ase_units.kB * atoms.get_masses()[:, None])
    atoms.set_momenta(np.random.default_rng(0).normal(size=(len(atoms), 3)) * scale)
    before = atoms.get_volume()
    NPTBerendsen(
        atoms, 1.0 * ase_units.fs, temperature_K=20.0, taut=100.0 * ase_units.fs,
        taup=100.0 * ase_units.fs, pressure_au=5000.0 * ase_units.bar,
        compressibility_au=5e-5 / ase_units.bar,
    ).run(5)  # fmt: skip
    assert 0.98 * before < atoms.get_volume() < before
    with BFGS(FrechetCellFilter(atoms), logfile=None) as optimiser:
        assert optimiser.run(fmax=2e-3, steps=200)
    np.testing.assert_allclose(atoms.get_stress(), 0.0, atol=1e-4)
    lengths, angles = np.split(atoms.cell.cellpar(), 2)
    np.testing.assert_allclose(angles, 90.0, atol=0.1)
    np.testing.assert_allclose(lengths, lengths.mean(), rtol=1e-3)


def test_cells_that_a_potential_cannot_use_are_refused(atoms):
    atoms.cell, atoms.pbc = 10.0 * np.eye(3), True
    with pytest.raises(InputError, match="periodic structures are not supported"):
        atoms.get_potential_energy()
    solid = argon()
    solid.pbc = (True, True, False)
    with pytest.raises(InputError, match="periodic along three independent cell vectors"):
        solid.get_potential_energy()
    solid.pbc = False
    with pytest.raises(InputError, match="needs the box"):
        solid.get_potential_energy()
    kernel = Calculator(gdml.load(GDML / "ethanol_periodic_model.npz"))
    alone = Atoms(kernel.potential.molecule.numbers, kernel.potential.molecule.positions)
    with pytest.raises(PropertyNotImplementedError, match="needs periodic atoms"):
        kernel.get_property("stress", alone)
