"""Whether the numbers of a data set can be in Å and kcal/mol."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.data import covalent_radii

from jaxff import units

if TYPE_CHECKING:
    from jaxff.dataset import Dataset


THERMAL = 0.115  # Å; of bonds at 500 K it was up to 0.095 in 48 molecules


def implausible_units(data: Dataset) -> str | None:
    """Why the lengths or forces of `data` cannot be in Å and kcal/mol, or None.

    Lengths are judged by each atom's nearest neighbour against covalent radii; forces by the
    force constants of bonds to hydrogen (of all bonds, within wider limits, where there are none):
    minus the slope of the force along a bond against its length.
    """
    sample = data[:: max(1, len(data) // 500)]
    ratio = _nearest_neighbour_ratio(sample)
    for unit, low, high in (("nm", 0.05, 0.2), ("Bohr", 1.65, 2.2)):
        if ratio is not None and low < ratio < high:
            return (
                f"interatomic distances look like {unit}, not Å (nearest neighbours at "
                f'{ratio:.2f} times covalent radii): pass length_unit="{unit}"'
            )
    constant, hydrogen = _bond_force_constant(sample)
    if constant is None:
        return None
    low, high = (250.0, 1750.0) if hydrogen else (60.0, 7000.0)
    if low < constant < high:
        return None
    if constant < 0:
        return (
            "forces point away from the equilibrium bond lengths: "
            "these are gradients, not forces; change their sign"
        )
    guesses = {
        unit: abs(np.log(constant * units.energy_factor(unit) / 800.0))
        for unit in ("eV", "kJ/mol", "Hartree")
    }
    guess = min(guesses, key=guesses.get)
    return (
        f"forces look like {guess}/Å, not kcal/mol/Å (bond force constants near {constant:.3g}, "
        f'expected about 800): pass energy_unit="{guess}", or energy_unit="kcal/mol" '
        "to take them as they are"
    )


def unit_mistakes(power: int) -> dict[str, float]:
    """How many times too large a mistake of units makes numbers in kcal/mol/Å^power.

    "A taken for B" says that numbers in A were given as if they were in B.
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


def _nearest_neighbour_ratio(data: Dataset) -> float | None:
    if data.n_atoms < 2 or len(data) == 0:
        return None
    i, j = np.triu_indices(data.n_atoms, 1)
    distance = np.median(np.linalg.norm(data.positions[:, i] - data.positions[:, j], axis=-1), 0)
    ratio = np.full((data.n_atoms, data.n_atoms), np.inf)
    radii = covalent_radii[data.numbers]
    ratio[i, j] = ratio[j, i] = distance / (radii[i] + radii[j])
    return float(np.median(ratio.min(axis=1)))


def _bond_force_constant(data: Dataset) -> tuple[float | None, bool]:
    """Median force constant over bonds, kcal/mol/Å² (None: the frames do not tell)."""
    bonds = data.molecule.bonds
    with_hydrogen = (data.numbers[bonds] == 1).any(axis=1)
    hydrogen = bool(with_hydrogen.any())
    constants = bond_force_constants(data, data.forces)[with_hydrogen if hydrogen else slice(None)]
    constants = constants[np.isfinite(constants)]
    return (float(np.median(constants)) if len(constants) else None), hydrogen


def bond_force_constants(data: Dataset, forces: np.ndarray) -> np.ndarray:
    """(B,) kcal/mol/Å², minus the slope of the force along each bond against its length.

    NaN where the frames do not tell: fewer than 10, lengths beyond what heat does to a bond (where
    it is no spring), or force and length that hardly correlate.

    Args:
        data: gives positions, masses and bonds.
        forces: (M, N, 3) kcal/mol/Å at its positions.
    """
    constants = np.full(len(data.molecule.bonds), np.nan)
    if len(data) < 10:
        return constants
    for k, (i, j) in enumerate(data.molecule.bonds):
        bond = data.positions[:, i] - data.positions[:, j]
        length = np.linalg.norm(bond, axis=1)
        m_i, m_j = data.molecule.masses[[i, j]]
        relative = (m_j * forces[:, i] - m_i * forces[:, j]) / (m_i + m_j)
        force = np.einsum("ma,ma->m", relative, bond) / length
        if not 1e-3 < length.std() < THERMAL or force.std() == 0:
            continue
        if abs(np.corrcoef(length, force)[0, 1]) > 0.7:
            constants[k] = -np.polyfit(length, force, 1)[0]
    return constants
