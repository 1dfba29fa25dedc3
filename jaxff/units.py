"""Unit conversions; jaxff uses kcal/mol, Å, amu, e, K, fs and rad.

Physical constants are those of CODATA 2018 (https://physics.nist.gov/cuu/Constants).
"""

import math

from jaxff.errors import InputError

AVOGADRO = 6.02214076e23  # 1/mol, exact
BOLTZMANN_SI = 1.380649e-23  # J/K, exact
ELEMENTARY_CHARGE = 1.602176634e-19  # C, exact
VACUUM_PERMITTIVITY = 8.8541878128e-12  # F/m
HARTREE_SI = 4.3597447222071e-18  # J
BOHR = 0.529177210903  # Å
CALORIE = 4.184  # J, thermochemical, exact

KCAL_MOL_SI = 1000.0 * CALORIE / AVOGADRO  # J per kcal/mol

BOLTZMANN = BOLTZMANN_SI / KCAL_MOL_SI  # kcal/mol/K
EV = ELEMENTARY_CHARGE / KCAL_MOL_SI  # kcal/mol in one eV
HARTREE = HARTREE_SI / KCAL_MOL_SI  # kcal/mol in one hartree
KJ_MOL = 1.0 / CALORIE  # kcal/mol in one kJ/mol

BAR = 1e5 * 1e-30 / KCAL_MOL_SI  # kcal/mol/Å³ in one bar

DIFFUSION = 1e4  # 10⁻⁹ m²/s in one Å²/fs

# e²/(4π ε0) in kcal/mol Å/e²
COULOMB = ELEMENTARY_CHARGE**2 / (4.0 * math.pi * VACUUM_PERMITTIVITY) / KCAL_MOL_SI * 1e10
# AMBER's value, from its charge unit (e × 18.2223), which AMBER topologies and GAFF use.
AMBER_CHARGE = 18.2223
AMBER_COULOMB = AMBER_CHARGE**2

# fs in the unit of time for which amu Å²/time² is kcal/mol, the time unit of jax-md
TIME = math.sqrt(1.66053906660e-27 * 1e-20 / KCAL_MOL_SI) * 1e15

# cm⁻¹ of an oscillation with a period of one fs
WAVENUMBER_PER_FS = 1e15 / 2.99792458e10

_ENERGY = {
    "kcal/mol": 1.0,
    "kcal": 1.0,
    "kj/mol": KJ_MOL,
    "ev": EV,
    "mev": EV / 1000.0,
    "hartree": HARTREE,
    "ha": HARTREE,
    "eh": HARTREE,
    "ry": HARTREE / 2.0,
    "rydberg": HARTREE / 2.0,
}
_LENGTH = {
    "å": 1.0,
    "ang": 1.0,
    "angstrom": 1.0,
    "angstroms": 1.0,
    "a": 1.0,
    "nm": 10.0,
    "bohr": BOHR,
    "a0": BOHR,
}


def energy_factor(unit: str) -> float:
    """Factor from an energy unit, such as "eV" or "kJ/mol", to kcal/mol.

    Raises:
        InputError: the unit is unknown.
    """
    return _factor(unit, _ENERGY, "energy", ("kcal/mol", "kJ/mol", "eV", "meV", "Hartree", "Ry"))


def length_factor(unit: str) -> float:
    """Factor from a length unit, such as "Bohr" or "nm", to Å.

    Raises:
        InputError: the unit is unknown.
    """
    return _factor(unit, _LENGTH, "length", ("Ang", "nm", "Bohr"))


def _factor(unit, table, quantity, known):
    # U+212B (the Ångström sign) casefolds to å.  Some writers pad strings with NULs.
    key = str(unit).strip().strip("\0").strip().casefold()
    if key not in table:
        raise InputError(f"unknown {quantity} unit {str(unit)!r}: use one of {', '.join(known)}")
    return table[key]
