"""The unit system against ASE and OpenMM."""

import ase.units
import pytest

from jaxff import units
from jaxff.errors import InputError


def test_constants_agree_with_ase():
    kcal_mol = ase.units.kcal / ase.units.mol  # eV
    assert pytest.approx(1 / kcal_mol, rel=1e-7) == units.EV
    assert pytest.approx(ase.units.Hartree / kcal_mol, rel=1e-7) == units.HARTREE
    assert pytest.approx(ase.units.Bohr, rel=1e-7) == units.BOHR
    assert pytest.approx(ase.units.kB / kcal_mol, rel=1e-6) == units.BOLTZMANN
    assert units.KJ_MOL == 1 / 4.184


def test_time_unit_makes_amu_A2_per_time2_a_kcal_per_mol():
    assert pytest.approx(48.88821, rel=1e-6) == units.TIME
    in_ase = (ase.units.kcal / ase.units.mol) ** -0.5 / ase.units.fs  # sqrt(amu Å²/kcal/mol)
    assert pytest.approx(in_ase, rel=1e-6) == units.TIME


def test_coulomb_constant_is_that_of_openmm():
    assert pytest.approx(138.93545764438198 * 10 / 4.184, rel=5e-9) == units.COULOMB
    assert pytest.approx(332.0522173, rel=1e-9) == units.AMBER_COULOMB


@pytest.mark.parametrize("unit", ["eV", "EV ", "ev\0", "kcal/mol", "kJ/mol", "Hartree"])
def test_known_energy_units(unit):
    assert units.energy_factor(unit) > 0


def test_unknown_unit_is_named():
    with pytest.raises(InputError, match=r"unknown energy unit 'erg': use one of kcal/mol"):
        units.energy_factor("erg")
    with pytest.raises(InputError, match="unknown length unit"):
        units.length_factor("furlong")
