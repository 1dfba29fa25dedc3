"""Molecule: atoms, bonds and a geometry, matched to others by graph isomorphism."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase.data import atomic_masses_iupac2016, chemical_symbols, covalent_radii

from jaxff.errors import InputError
from jaxff.molecule_files import READERS, fields_of_ase, fields_of_rdkit
from jaxff.npz import usable

if TYPE_CHECKING:
    import networkx
    from ase import Atoms

# Two atoms are bonded if they are closer than this factor times the sum of their covalent radii.
# The limit is above all bonds of thermal frames, and below hydrogen bonds and 1-3 distances.
BOND_TOLERANCE = 1.3


@dataclass(frozen=True, eq=False)
class Molecule:
    """A molecule (or any finite set of atoms) with one geometry.

    Attributes:
        numbers: (N,) atomic numbers.
        positions: (N, 3) Å.
        bonds: (B, 2) atom indices, each row ascending, rows sorted.
        charge: net charge, e.
        bond_orders: (B,) 1, 2, 3 or 1.5 (aromatic), or None if the source has none.
        name: label for messages and files.
    """

    numbers: np.ndarray
    positions: np.ndarray
    bonds: np.ndarray
    charge: int = 0
    bond_orders: np.ndarray | None = None
    name: str = ""

    FORMATS: ClassVar[dict[str, Callable[[Path], dict[str, Any]]]] = READERS

    def __post_init__(self):
        numbers = np.asarray(self.numbers, int)
        positions = np.array(self.positions, float)
        who = self.name or "molecule"
        if numbers.ndim != 1 or len(numbers) == 0:
            raise InputError(f"{who}: no atoms")
        if (numbers < 1).any() or (numbers >= len(chemical_symbols)).any():
            bad = int(np.argmax((numbers < 1) | (numbers >= len(chemical_symbols))))
            raise InputError(
                f"{who}: atom {bad} has the atomic number {numbers[bad]}, which is not an element"
            )
        if positions.shape != (len(numbers), 3):
            raise InputError(
                f"{who}: positions have shape {positions.shape}, expected ({len(numbers)}, 3)"
            )
        if not usable(positions).all():
            atom = int(np.argmax(~usable(positions).all(axis=1)))
            raise InputError(f"{who}: the position of atom {atom} is not finite or too large")
        bonds = np.sort(np.asarray(self.bonds, int).reshape(-1, 2), axis=1)
        if len(bonds) and (bonds.min() < 0 or bonds.max() >= len(numbers)):
            raise InputError(f"{who}: a bond names an atom outside 0..{len(numbers) - 1}")
        order = np.lexsort((bonds[:, 1], bonds[:, 0]))
        object.__setattr__(self, "numbers", numbers)
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "bonds", bonds[order])
        if self.bond_orders is not None:
            orders = np.asarray(self.bond_orders, float)[order]
            object.__setattr__(self, "bond_orders", orders)

    # -- properties ---------------------------------------------------------------------

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.numbers)

    @property
    def masses(self) -> np.ndarray:
        """(N,) amu: IUPAC 2016 standard atomic weights (ASE's table)."""
        return atomic_masses_iupac2016[self.numbers]

    @property
    def symbols(self) -> list[str]:
        """(N,) chemical symbols."""
        return [chemical_symbols[z] for z in self.numbers]

    @cached_property
    def formula(self) -> str:
        """Hill formula, such as C2H6O."""
        return formula(self.numbers)

    @property
    def label(self) -> str:
        """Name for messages; the formula if the molecule has no name."""
        return self.name or self.formula

    def __repr__(self) -> str:
        label = f" {self.name!r}" if self.name else ""
        return f"Molecule({self.formula}{label}, {self.n_atoms} atoms, {len(self.bonds)} bonds)"

    # -- making -------------------------------------------------------------------------

    @classmethod
    def from_smiles(cls, smiles: str, seed: int = 7, *, geometry: bool = True) -> Molecule:
        """Make the molecule of a SMILES string, with a geometry from ETKDGv3 and MMFF94.

        Hydrogens follow the heavy atoms, which are in SMILES order.

        Args:
            smiles: the string.
            seed: random seed of the conformer.
            geometry: whether a geometry is computed; otherwise all positions are zero.

        Raises:
            InputError: RDKit cannot read the SMILES, or cannot compute a geometry.
        """
        from rdkit import Chem, rdBase
        from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

        with rdBase.BlockLogs():
            rdBase.DisableLog("rdApp.*")
            bare = Chem.MolFromSmiles(smiles)
        if bare is None or bare.GetNumAtoms() == 0:
            raise InputError(f"{smiles!r} is not a SMILES string that RDKit can read")
        mol = Chem.AddHs(bare)
        if not geometry:
            mol.AddConformer(Chem.Conformer(mol.GetNumAtoms()))
            return cls(**fields_of_rdkit(mol, smiles))
        parameters = rdDistGeom.ETKDGv3()
        parameters.randomSeed = seed
        with rdBase.BlockLogs():
            if rdDistGeom.EmbedMolecule(mol, parameters) != 0:
                parameters.useRandomCoords = True  # large or strained molecules
                if rdDistGeom.EmbedMolecule(mol, parameters) != 0:
                    raise InputError(f"RDKit finds no geometry for {smiles!r}; read it from a file")
            if not rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
                raise InputError(
                    f"MMFF94 has no parameters for {smiles!r}; read the geometry from a file"
                )
            status = rdForceFieldHelpers.MMFFOptimizeMolecule(mol, maxIters=5000)
        if status != 0:
            raise InputError(
                f"MMFF94 did not converge for {smiles!r}; read the geometry from a file"
            )
        return cls(**fields_of_rdkit(mol, smiles))

    @classmethod
    def from_ase(cls, atoms: Any, charge: int | None = None) -> Molecule:
        """The molecule of an `ase.Atoms`; bonds are perceived from the geometry.

        Args:
            atoms: the atoms.
            charge: e; by default ``atoms.info["charge"]``, or else the sum of the initial charges.
        """
        return cls._with_bonds(fields_of_ase(atoms, charge))

    @classmethod
    def read(cls, path: str | Path) -> Molecule:
        """The (first) molecule of an sdf, mol, mol2, pdb, xyz or extxyz file.

        Bonds are those of the file if it contains any (sdf, mol, mol2, pdb with CONECT records);
        otherwise they are perceived from the geometry.

        Raises:
            InputError: the format is unknown, or the file cannot be read.
        """
        path = Path(path)
        reader = cls.FORMATS.get(path.suffix.lower())
        if reader is None:
            raise InputError(
                f"{path}: unknown molecule format {path.suffix!r}; use {', '.join(cls.FORMATS)}"
            )
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        try:
            molecule = cls._with_bonds(reader(path))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except Exception as error:
            why = "" if isinstance(error, LookupError) else str(error)
            why = why or "it is empty, truncated or damaged"
            raise InputError(f"{path}: cannot be read as {path.suffix[1:]} ({why})") from error
        return molecule if molecule.name else replace(molecule, name=path.stem)

    @classmethod
    def _with_bonds(cls, fields: dict[str, Any]) -> Molecule:
        if "bonds" not in fields:
            fields["bonds"] = perceive_bonds(fields["numbers"], fields["positions"])
        return cls(**fields)

    # -- changing and writing -------------------------------------------------------------

    def with_positions(self, positions: Any) -> Molecule:
        """The same molecule at `positions`, (N, 3) Å."""
        return replace(self, positions=positions)

    def reorder(self, order: Sequence[int] | np.ndarray) -> Molecule:
        """The same molecule with atom ``order[i]`` at place i; `order` is (N,)."""
        order = np.asarray(order, int)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return replace(
            self,
            numbers=self.numbers[order],
            positions=self.positions[order],
            bonds=place[self.bonds],
        )

    def to_ase(self) -> Atoms:
        """An `ase.Atoms` with this geometry; charge and name are in ``info``."""
        from ase import Atoms

        info = {"charge": self.charge} | ({"name": self.name} if self.name else {})
        return Atoms(numbers=self.numbers, positions=self.positions, info=info)

    # -- matching -------------------------------------------------------------------------

    def match(self, other: Molecule) -> np.ndarray:
        """The atom of `other` that corresponds to each atom, by graph isomorphism.

        Elements and connectivity must agree; geometry and bond orders are ignored.  Two molecules
        that agree atom by atom give 0..N-1.

        Returns:
            (N,) indices: ``other.reorder(self.match(other))`` has the atom order of self.

        Raises:
            InputError: there is no such mapping; the message describes the difference.
        """
        same_elements = np.array_equal(self.numbers, other.numbers)
        if same_elements and np.array_equal(self.bonds, other.bonds):
            return np.arange(self.n_atoms)
        names = [m.name or which for m, which in ((self, "the first"), (other, "the second"))]
        if self.formula != other.formula:
            raise InputError(
                f"atoms cannot be matched: {names[0]} is {self.formula}, "
                f"{names[1]} is {other.formula}; give molecules with the same atoms"
            )
        from networkx.algorithms.isomorphism import GraphMatcher

        matcher = GraphMatcher(
            self.graph, other.graph, node_match=lambda a, b: a["element"] == b["element"]
        )
        mapping = next(matcher.isomorphisms_iter(), None)
        if mapping is None:
            raise InputError(
                f"atoms cannot be matched: {names[0]} and {names[1]} are both {self.formula} but "
                f"bonded differently ({_bond_counts(self)} against {_bond_counts(other)})"
            )
        return np.array([mapping[i] for i in range(self.n_atoms)])

    @cached_property
    def neighbours(self) -> list[list[int]]:
        """The atoms bonded to each atom."""
        neighbours: list[list[int]] = [[] for _ in range(self.n_atoms)]
        for i, j in self.bonds.tolist():
            neighbours[i].append(j)
            neighbours[j].append(i)
        return neighbours

    @cached_property
    def graph(self) -> networkx.Graph:
        """The bond graph, with the node attribute ``element``."""
        import networkx

        graph = networkx.Graph()
        graph.add_nodes_from((i, {"element": int(z)}) for i, z in enumerate(self.numbers))
        graph.add_edges_from(map(tuple, self.bonds.tolist()))
        return graph


def formula(numbers) -> str:
    """Hill formula of atomic numbers (N,): C, H, then all other elements by symbol."""
    symbols = [chemical_symbols[z] for z in np.asarray(numbers)]
    counts = {s: symbols.count(s) for s in sorted(set(symbols))}
    first = [s for s in ("C", "H") if s in counts] if "C" in counts else []
    ordered = first + [s for s in counts if s not in first]
    return "".join(s + (str(counts[s]) if counts[s] > 1 else "") for s in ordered)


def equivalent_atoms(molecule: Molecule) -> np.ndarray:
    """Classes (N,) of atoms with the same element and environment in the bond graph.

    Colour refinement: Weisfeiler and Leman, Nauchno-Tekh. Inf. 2 (9), 12 (1968).
    """
    colours, count = molecule.numbers, 0
    while len(np.unique(colours)) > count:
        count = len(np.unique(colours))
        seen = [
            (int(colour), *sorted(colours[around].tolist()))
            for colour, around in zip(colours, molecule.neighbours, strict=True)
        ]
        names = {key: c for c, key in enumerate(sorted(set(seen)))}
        colours = np.array([names[key] for key in seen])
    return colours


def perceive_bonds(numbers, positions, lattice=None) -> np.ndarray:
    """Bonds (B, 2) of atoms closer than 1.3 times the sum of their covalent radii.

    Args:
        numbers: (N,) atomic numbers.
        positions: (N, 3) Å, or (M, N, 3) frames, whose median distances are used, so that
            a bond stretched in one frame remains a bond.
        lattice: (3, 3) Å, lattice vectors as columns; distances are then between nearest images.
    """
    numbers, frames = np.asarray(numbers), np.asarray(positions, float)
    frames = frames.reshape(-1, len(numbers), 3)
    i, j = np.triu_indices(len(numbers), 1)
    difference = frames[:, i] - frames[:, j]
    if lattice is not None:
        difference -= np.round(difference @ np.linalg.inv(lattice).T) @ np.asarray(lattice).T
    distance = np.median(np.linalg.norm(difference, axis=-1), axis=0)
    limit = BOND_TOLERANCE * (covalent_radii[numbers[i]] + covalent_radii[numbers[j]])
    near = distance < limit
    return np.stack([i[near], j[near]], axis=1)


def _bond_counts(molecule: Molecule) -> str:
    pairs = ["-".join(sorted(molecule.symbols[a] for a in bond)) for bond in molecule.bonds]
    return ", ".join(f"{pairs.count(p)} {p}" for p in sorted(set(pairs))) or "no bonds"
