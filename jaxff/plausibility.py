"""Checks that values are plausible for positions in Å and forces in kcal/mol/Å."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase.data import covalent_radii

from jaxff import units
from jaxff.molecule import Molecule

# Largest standard deviation of a bond length, Å, for which the force is linear in the length.  At
# 500 K the standard deviation was at most 0.095 in 48 molecules.
THERMAL = 0.115
# Limits of the distance to the nearest neighbour in units of covalent radii, by unit of length.
LENGTHS = {"nm": (0.5, 2.0), "Bohr": (0.873, 1.165), "Ang": (0.8, 1.25)}
ENERGIES = ("kcal/mol", "eV", "kJ/mol", "Hartree")
REMEDY = "or accept the values with check=False (--no-check)"
FRAMES = 500  # about as many frames are examined


class Units(NamedTuple):
    """The units in which a file was read.

    Attributes:
        length, energy: names of the units; see `jaxff.units`.
        assumed: the reason for these units if neither the file nor the user states them.
    """

    length: str = "Ang"
    energy: str = "kcal/mol"
    assumed: str = ""

    def __str__(self) -> str:
        return f"{self.energy} and {self.length}" + (f" ({self.assumed})" if self.assumed else "")


def implausible_units(
    molecule: Molecule, positions: np.ndarray, forces: np.ndarray, read_as: Units
) -> str | None:
    """Describe why the units of a file are implausible; None if they are plausible.

    The distance of each atom to its nearest neighbour is compared with covalent radii.  The force
    constants of bonds to hydrogen are compared with their usual values.  Without hydrogen, the
    force constants of all bonds are compared, with wider limits.

    Args:
        molecule: masses and bonds.
        positions: (M, N, 3) Å, converted from the units of the file.
        forces: (M, N, 3) kcal/mol/Å, converted from the units of the file.
        read_as: the units in which the file was read.
    """
    sample = slice(None, None, max(1, len(positions) // FRAMES))
    positions, forces = positions[sample], forces[sample]
    ratio = _nearest_neighbour_ratio(molecule, positions)
    length = units.length_factor(read_as.length)
    for unit, (low, high) in LENGTHS.items():
        factor = units.length_factor(unit) / length
        if factor != 1.0 and ratio is not None and low < ratio * factor < high:
            return (
                f"positions seem to be in {unit}, not {read_as.length} (nearest neighbours are at "
                f'{ratio:.2f} times the sum of covalent radii): pass length_unit="{unit}" '
                f"(--length-unit {unit}), {REMEDY}"
            )
    with_hydrogen = (molecule.numbers[molecule.bonds] == 1).any(axis=1)
    hydrogen = bool(with_hydrogen.any())
    constants = bond_force_constants(molecule, positions, forces)
    constants = constants[with_hydrogen] if hydrogen else constants
    constants = constants[np.isfinite(constants)]
    if not len(constants):
        return None
    constant = float(np.median(constants))
    low, high = (250.0, 1750.0) if hydrogen else (60.0, 7000.0)
    if low < constant < high:
        return None
    if constant < 0:
        return (
            f"force constants of bonds are negative (near {constant:.3g} kcal/mol/Å²), so the "
            f"forces are probably gradients: change their sign, {REMEDY}"
        )
    energy = units.energy_factor(read_as.energy)
    reason = f"(bond force constants near {constant:.3g} kcal/mol/Å², expected about 800)"
    factors = {unit: units.energy_factor(unit) / energy for unit in ENERGIES}
    guess = min(factors, key=lambda unit: abs(np.log(constant * factors[unit] / 800.0)))
    if not low < constant * factors[guess] < high:
        return f"forces in {read_as.energy}/Å are implausible {reason}: correct them, {REMEDY}"
    assumed = f", {read_as.assumed}" if read_as.assumed else ""
    advice = f'pass energy_unit="{guess}" (--energy-unit {guess})'
    if guess == "Hartree" and length == 1.0:
        advice += ", after multiplying forces by 1.8897 if they are in Hartree/Bohr"
    return (
        f"forces seem to be in {guess}/Å, not {read_as.energy}/Å{assumed} {reason}: {advice}, "
        f"{REMEDY}"
    )


def unit_mistakes(power: int) -> dict[str, float]:
    """Factors by which a wrong unit multiplies numbers in kcal/mol/Å^power.

    Args:
        power: 0 for energies, 1 for forces, 2 for force constants.

    Returns:
        {"A taken for B": factor}, for numbers in the unit A that are read in the unit B.
    """
    exponent = ("", "", "²")[power]
    per = {unit: f"/{unit}{exponent}" if power else "" for unit in ("Å", "Bohr")}
    right, bohr = f"kcal/mol{per['Å']}", units.length_factor("Bohr") ** power
    wrong = {f"{unit}{per['Å']}": units.energy_factor(unit) for unit in ("eV", "kJ/mol", "Hartree")}
    if power:
        wrong[f"kcal/mol{per['Bohr']}"] = 1.0 / bohr
        wrong[f"Hartree{per['Bohr']}"] = units.energy_factor("Hartree") / bohr
    return {f"{unit} taken for {right}": 1.0 / factor for unit, factor in wrong.items()} | {
        f"{right} taken for {unit}": factor for unit, factor in wrong.items()
    }


def bond_force_constants(
    molecule: Molecule, positions: np.ndarray, forces: np.ndarray
) -> np.ndarray:
    """Force constants (B,) kcal/mol/Å² of the bonds, estimated from frames.

    A force constant is the negative slope of the force along the bond against the bond length.  It
    is NaN in three cases: there are fewer than 10 frames, the bond length varies too much for a
    linear force, or force and length hardly correlate.

    Args:
        molecule: masses and bonds.
        positions: (M, N, 3) Å.
        forces: (M, N, 3) kcal/mol/Å.
    """
    constants = np.full(len(molecule.bonds), np.nan)
    if len(positions) < 10:
        return constants
    for k, (i, j) in enumerate(molecule.bonds):
        bond = positions[:, i] - positions[:, j]
        length = np.linalg.norm(bond, axis=1)
        if not length.all():  # the atoms coincide
            continue
        m_i, m_j = molecule.masses[[i, j]]
        relative = (m_j * forces[:, i] - m_i * forces[:, j]) / (m_i + m_j)
        force = np.einsum("ma,ma->m", relative, bond) / length
        if not 1e-3 < length.std() < THERMAL or force.std() == 0:
            continue
        if abs(np.corrcoef(length, force)[0, 1]) > 0.7:
            constants[k] = -np.polyfit(length, force, 1)[0]
    return constants


def _nearest_neighbour_ratio(molecule: Molecule, positions: np.ndarray) -> float | None:
    """Median over atoms of the nearest distance, in units of the covalent radii.

    Each distance is divided by the sum of the covalent radii of both atoms.  The result is None
    without frames, or for a single atom.
    """
    n = molecule.n_atoms
    if n < 2 or len(positions) == 0:
        return None
    i, j = np.triu_indices(n, 1)
    distance = np.median(np.linalg.norm(positions[:, i] - positions[:, j], axis=-1), 0)
    ratio = np.full((n, n), np.inf)
    radii = covalent_radii[molecule.numbers]
    ratio[i, j] = ratio[j, i] = distance / (radii[i] + radii[j])
    return float(np.median(ratio.min(axis=1)))
