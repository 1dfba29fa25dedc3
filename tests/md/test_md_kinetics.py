"""Velocities and temperature against ASE and closed forms."""

import numpy as np
import pytest
from ase import units as ase_units

from jaxff import Molecule
from jaxff.md import kinetics


@pytest.fixture(scope="module")
def water():
    return Molecule.from_smiles("O")


def test_kinetic_energy_is_ase_s(water):
    velocities = np.random.default_rng(0).normal(size=(3, 3)) * 0.01
    atoms = water.to_ase()
    atoms.set_velocities(velocities / ase_units.fs)
    expected = atoms.get_kinetic_energy() / (ase_units.kcal / ase_units.mol)
    energy = kinetics.kinetic_energy(water.masses, velocities)
    assert energy == pytest.approx(expected, rel=1e-7)
    assert kinetics.temperature(energy, 9) == pytest.approx(atoms.get_temperature(), rel=1e-5)


def test_maxwell_boltzmann_has_the_temperature_for_each_element():
    masses = np.repeat([1.008, 15.999], 50_000)
    velocities = kinetics.maxwell_boltzmann(masses, 350.0, np.random.default_rng(1))
    for mass in (1.008, 15.999):
        part = masses == mass
        energy = kinetics.kinetic_energy(masses[part], velocities[part])
        assert kinetics.temperature(energy, 3 * part.sum()) == pytest.approx(350.0, rel=0.01)


def test_removed_momenta_are_gone_and_counted(water):
    masses, positions = water.masses, water.positions
    velocities = kinetics.maxwell_boltzmann(masses, 300.0, np.random.default_rng(2))
    assert kinetics.conserved_degrees(masses, positions, velocities) == 0
    still = kinetics.without_translation(masses, velocities)
    assert kinetics.conserved_degrees(masses, positions, still) == 3
    rigid = kinetics.without_rotation(masses, positions, still)
    assert kinetics.conserved_degrees(masses, positions, rigid) == 6
    atoms = water.to_ase()
    atoms.set_velocities(rigid)
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(atoms.get_angular_momentum(), 0.0, atol=1e-12)


def test_a_linear_molecule_stops_turning_and_counts_as_one_that_bends():
    masses = np.array([15.999, 12.011, 15.999])
    positions = np.array([[0.0, 0.0, -1.16], [0.0, 0.0, 0.0], [0.0, 0.0, 1.16]])
    velocities = kinetics.maxwell_boltzmann(masses, 300.0, np.random.default_rng(2))
    velocities = kinetics.without_translation(masses, velocities)
    rigid = kinetics.without_rotation(masses, positions, velocities)
    assert np.isfinite(rigid).all()
    angular = np.cross(positions, masses[:, None] * rigid).sum(axis=0)
    np.testing.assert_allclose(angular, 0.0, atol=1e-12)
    assert kinetics.conserved_degrees(masses, positions, rigid) == 6


def test_a_pair_has_two_rotations():
    masses = np.array([35.45, 1.008])
    positions = np.array([[0.0, 0.0, 0.0], [0.3, 0.4, 1.1]])
    velocities = kinetics.maxwell_boltzmann(masses, 300.0, np.random.default_rng(2))
    rigid = kinetics.without_rotation(masses, positions, velocities)
    assert kinetics.conserved_degrees(masses, positions, rigid) == 5
    along = rigid @ (positions[1] - positions[0])
    assert np.abs(along).min() > 1e-6  # it still vibrates
