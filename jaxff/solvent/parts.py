"""The molecules of a box as systems of one molecule, and their joining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase.data import atomic_masses_iupac2016, atomic_numbers

from jaxff.errors import InputError
from jaxff.formats.amber_write import atom_names
from jaxff.gaff import Parametrization, parametrize
from jaxff.gaff.bonded import Table
from jaxff.gaff.tables import INTERACTIONS, Tables, joined
from jaxff.molecule import Molecule
from jaxff.sites import VirtualSites
from jaxff.solvent.models import CHARGES, WaterModel
from jaxff.system import System

# AMBER's force constant of rigid water, kcal/mol/Å².  It has no effect on rigid molecules, whose
# distance H–H is also a bond, as in AMBER.
WATER_K = 553.0
WATER, SOLUTE = "HOH", "MOL"  # names of residues


class Copies(NamedTuple):
    """Copies of a system of one or several molecules.

    Attributes:
        system: the system of one copy.
        positions: (M, n, 3) Å, positions of M copies.
    """

    system: System
    positions: np.ndarray


def of_molecule(molecule: Molecule | Parametrization | System, residue: str = SOLUTE) -> System:
    """The system of one molecule without a box; a `Molecule` gets GAFF parameters.

    Args:
        molecule: the molecule, its parameters, or a system, which only loses its box.
        residue: name of the residue of a molecule.

    Raises:
        InputError: GAFF has no parameters for the molecule, or the system has overrides.
    """
    if isinstance(molecule, System):
        if len(molecule.tables.lj_overrides.atoms):
            raise InputError(
                f"{molecule.name or 'system'}: systems with separate Lennard-Jones terms of pairs "
                "of types cannot be solvated; solvate with the program that made the file"
            )
        return molecule.replace(box=None)
    if not isinstance(molecule, Molecule | Parametrization):
        raise InputError(
            f"a molecule must be a Molecule, a Parametrization or a System (got {molecule!r}); "
            "make a Molecule by Molecule.from_smiles or Molecule.read"
        )
    assigned = molecule if isinstance(molecule, Parametrization) else parametrize(molecule)
    mol = assigned.molecule
    return System(
        numbers=mol.numbers,
        positions=mol.positions,
        box=None,
        masses=mol.masses,
        atom_names=tuple(atom_names(mol)),
        residues=np.zeros(mol.n_atoms, int),
        residue_names=(residue,),
        bonds=mol.bonds,
        name=mol.name,
        tables=Tables(**assigned.topology.values()),
    )


def of_water(model: WaterModel) -> System:
    """The system of one molecule of a water model, with oxygen at the origin."""
    half, height = model.half_width, model.height
    positions = [[0.0, 0.0, 0.0], [half, 0.0, height], [-half, 0.0, height]]
    numbers, names, types, sites = [8, 1, 1], ["O", "H1", "H2"], ["OW", "HW", "HW"], None
    charges = [-2.0 * model.charge, model.charge, model.charge]
    if model.site:
        weight = model.site / height
        sites = VirtualSites(
            np.array([3], np.int32),
            np.array([[0, 1, 2]], np.int32),
            np.array([[1.0 - weight, 0.5 * weight, 0.5 * weight]]),
            np.zeros(1),
        )
        numbers, names, types = [*numbers, 0], [*names, "M"], [*types, "EP"]
        charges = [0.0, model.charge, model.charge, -2.0 * model.charge]
        positions.append([0.0, 0.0, model.site])
    n = len(numbers)
    bonds = Table.of(
        [[0, 1], [0, 2], [1, 2]],
        ["HW-OW", "HW-OW", "HW-HW"],
        {"k": np.full(3, WATER_K), "length": np.array([model.length] * 2 + [2.0 * half])},
    )
    tables = _tables(
        types, charges, [model.sigma] + [1.0] * (n - 1), [model.epsilon] + [0.0] * (n - 1)
    )
    values = tables.values() | {
        "bonds": bonds,
        "exclusions": np.stack(np.triu_indices(n, 1), axis=1).astype(np.int32),
    }
    return System(
        numbers=np.array(numbers),
        positions=np.array(positions),
        box=None,
        masses=np.where(np.array(numbers) > 0, atomic_masses_iupac2016[numbers], 0.0),
        atom_names=tuple(names),
        residues=np.zeros(n, int),
        residue_names=(WATER,),
        bonds=np.array([[0, 1], [0, 2]]),
        sites=sites or VirtualSites.none(),
        name=model.name,
        tables=Tables(**values),
    )


def of_ion(element: str, model: WaterModel) -> System:
    """The system of one ion, with its parameters for a water model.

    Raises:
        InputError: there are no parameters for the ion.
    """
    if element not in model.ions:
        raise InputError(
            f"there are no parameters for the ion {element!r}; use {', '.join(model.ions)}"
        )
    radius, epsilon = model.ions[element]
    charge = CHARGES[element]
    name = f"{element}{'+' if charge > 0 else '-'}"
    number = atomic_numbers[element]
    return System(
        numbers=np.array([number]),
        positions=np.zeros((1, 3)),
        box=None,
        masses=atomic_masses_iupac2016[[number]],
        atom_names=(name,),
        residues=np.zeros(1, int),
        residue_names=(name,),
        bonds=np.zeros((0, 2), int),
        name=name,
        tables=_tables([name], [charge], [2.0 ** (5 / 6) * radius], [epsilon]),
    )


def _tables(types, charges, sigma, epsilon) -> Tables:
    """Tables of atoms without bonded interactions and exclusions."""
    n = len(types)
    values = {"sigma": np.array(sigma, float), "epsilon": np.array(epsilon, float)}
    return Tables(
        atom_types=tuple(types),
        charges=np.array(charges, float),
        lj=Table.of(np.arange(n)[:, None], types, values),
        lj_overrides=Table.empty(2),
        exclusions=np.zeros((0, 2), np.int32),
        **{name: Table.empty(*shape) for name, shape in INTERACTIONS.items()},
    )


def join(parts: Sequence[Copies], box: np.ndarray, name: str) -> System:
    """The system of all copies in a box, in the order of `parts`, with rigid water.

    Args:
        parts: the copies.
        box: (3, 3) Å, lattice vectors as rows.
        name: label of the system.
    """
    parts = [part for part in parts if len(part.positions)]
    sizes = [len(part.system) for part in parts]
    counts = [len(part.positions) for part in parts]
    atoms = np.cumsum([0, *np.multiply(sizes, counts)])
    residues = [len(part.system.residue_names) for part in parts]
    first = np.cumsum([0, *np.multiply(residues, counts)])

    def tiled(values, k: int) -> np.ndarray:
        return np.tile(np.asarray(values), counts[k])

    def indices(values: np.ndarray, k: int) -> np.ndarray:
        steps = atoms[k] + sizes[k] * np.arange(counts[k])
        return (values + steps[:, None, None]).reshape(-1, values.shape[1])

    def numbered(system: System, k: int) -> np.ndarray:
        copy = np.repeat(np.arange(counts[k]), sizes[k])
        return first[k] + residues[k] * copy + tiled(system.residues, k)

    systems = list(enumerate(part.system for part in parts))
    sites = VirtualSites(
        np.concatenate([indices(s.sites.atoms[:, None], k)[:, 0] for k, s in systems]),
        np.concatenate([indices(s.sites.parents, k) for k, s in systems]),
        np.concatenate([np.tile(s.sites.weights, (counts[k], 1)) for k, s in systems]),
        np.concatenate([tiled(s.sites.cross, k) for k, s in systems]),
    )
    positions = np.concatenate([part.positions.reshape(-1, 3) for part in parts])
    system = System(
        numbers=np.concatenate([tiled(s.numbers, k) for k, s in systems]),
        positions=sites.placed(positions),
        box=box,
        masses=np.concatenate([tiled(s.masses, k) for k, s in systems]),
        atom_names=tuple(n for k, s in systems for n in s.atom_names * counts[k]),
        residues=np.concatenate([numbered(s, k) for k, s in systems]),
        residue_names=tuple(n for k, s in systems for n in s.residue_names * counts[k]),
        bonds=np.concatenate([indices(s.bonds, k) for k, s in systems]),
        sites=sites,
        name=name,
        tables=joined([(s.tables, counts[k]) for k, s in systems]),
    )
    return system.constrained("none")
