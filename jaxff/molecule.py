"""Molecule: atoms, bonds and one geometry, with matching by graph isomorphism."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
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
# The limit exceeds all bond lengths of thermal frames, but not hydrogen bonds and 1-3 distances.
BOND_TOLERANCE = 1.3
MAX_ORDERS = 1000  # matches of two molecules that are compared


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

    Raises:
        InputError: an atomic number, a position or a bond is wrong.
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
            raise InputError(f"{who}: there are no atoms; at least one is needed")
        if (numbers < 1).any() or (numbers >= len(chemical_symbols)).any():
            bad = int(np.argmax((numbers < 1) | (numbers >= len(chemical_symbols))))
            raise InputError(
                f"{who}: atom {bad} has the atomic number {numbers[bad]}; use a number from 1 to "
                f"{len(chemical_symbols) - 1}"
            )
        if positions.shape != (len(numbers), 3):
            raise InputError(
                f"{who}: positions have shape {positions.shape}, expected ({len(numbers)}, 3) in Å"
            )
        if not usable(positions).all():
            atom = int(np.argmax(~usable(positions).all(axis=1)))
            raise InputError(
                f"{who}: the position of atom {atom} is not finite or too large "
                f"({positions[atom].tolist()}); correct it"
            )
        bonds = np.sort(np.asarray(self.bonds, int).reshape(-1, 2), axis=1)
        if len(bonds) and (bonds.min() < 0 or bonds.max() >= len(numbers)):
            raise InputError(
                f"{who}: the atom indices of bonds must be from 0 to {len(numbers) - 1} (got "
                f"{bonds.min()} to {bonds.max()})"
            )
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
        """(N,) amu, IUPAC 2016 standard atomic weights (table of ASE)."""
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
        """Name in messages; the formula if the molecule has no name."""
        return self.name or self.formula

    def __repr__(self) -> str:
        label = f" {self.name!r}" if self.name else ""
        return f"Molecule({self.formula}{label}, {self.n_atoms} atoms, {len(self.bonds)} bonds)"

    # -- making -------------------------------------------------------------------------

    @classmethod
    def from_smiles(cls, smiles: str, seed: int = 7, *, geometry: bool = True) -> Molecule:
        """Make the molecule of a SMILES string, with a geometry from ETKDGv3 and MMFF94.

        The heavy atoms are in SMILES order, and the hydrogens follow.

        Args:
            smiles: the string.
            seed: random seed of the geometry.
            geometry: whether a geometry is computed; if not, all positions are zero.

        Raises:
            InputError: RDKit cannot read the SMILES string, or cannot compute a geometry.
        """
        from rdkit import Chem, rdBase
        from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

        with rdBase.BlockLogs():
            rdBase.DisableLog("rdApp.*")
            bare = Chem.MolFromSmiles(smiles)
        if bare is None or bare.GetNumAtoms() == 0:
            raise InputError(f"{smiles!r} is not a SMILES string that RDKit can read; correct it")
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
                    raise InputError(
                        f"RDKit found no geometry for {smiles!r}; read the molecule from a file"
                    )
            if not rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
                raise InputError(
                    f"MMFF94 has no parameters for {smiles!r}; read the molecule from a file"
                )
            status = rdForceFieldHelpers.MMFFOptimizeMolecule(mol, maxIters=5000)
        if status != 0:
            raise InputError(
                f"MMFF94 did not converge for {smiles!r}; read the molecule from a file"
            )
        return cls(**fields_of_rdkit(mol, smiles))

    @classmethod
    def from_ase(cls, atoms: Any, charge: int | None = None) -> Molecule:
        """The molecule of an `ase.Atoms`, with bonds perceived from the geometry.

        Args:
            atoms: the `ase.Atoms`.
            charge: net charge, e; None: ``atoms.info["charge"]``, or the sum of the initial charges
                if this entry is missing.

        Raises:
            InputError: the atoms are periodic.
        """
        return cls._with_bonds(fields_of_ase(atoms, charge))

    @classmethod
    def read(cls, path: str | Path) -> Molecule:
        """Read the first molecule of an sdf, mol, mol2, pdb, xyz or extxyz file.

        Files in the formats sdf, mol, mol2 and pdb with CONECT records contain bonds.  For other
        files, bonds are perceived from the geometry.

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
            raise InputError(f"{path}: no such file; check the path")
        try:
            molecule = cls._with_bonds(reader(path))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except Exception as error:
            why = "" if isinstance(error, LookupError) else str(error)
            why = why or "the file is empty, truncated or damaged"
            raise InputError(
                f"{path}: cannot be read as {path.suffix[1:]} ({why}); correct the file"
            ) from error
        return molecule if molecule.name else replace(molecule, name=path.stem)

    @classmethod
    def _with_bonds(cls, fields: dict[str, Any]) -> Molecule:
        if "bonds" not in fields:
            fields["bonds"] = perceive_bonds(fields["numbers"], fields["positions"])
        return cls(**fields)

    # -- changing and writing -------------------------------------------------------------

    def with_positions(self, positions: Any) -> Molecule:
        """The molecule with new positions (N, 3) Å."""
        return replace(self, positions=positions)

    def reorder(self, order: Sequence[int] | np.ndarray) -> Molecule:
        """The molecule with atom ``order[i]`` at place i.

        Args:
            order: (N,) permutation of the atom indices.
        """
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
        """The molecule as an `ase.Atoms`; the dict ``info`` contains charge and name."""
        from ase import Atoms

        info = {"charge": self.charge} | ({"name": self.name} if self.name else {})
        return Atoms(numbers=self.numbers, positions=self.positions, info=info)

    # -- matching -------------------------------------------------------------------------

    def match(self, other: Molecule) -> np.ndarray:
        """Match the atoms of `other` to those of this molecule by graph isomorphism.

        Elements and bonds must agree; bond orders are ignored.  If both molecules have the same
        order of atoms, this order is kept.  Otherwise, equivalent atoms are assigned such that the
        interatomic distances in the two geometries are most similar.

        Returns:
            (N,) index in `other` of each atom: ``other.reorder(self.match(other))`` has the atom
            order of this molecule.

        Raises:
            InputError: the molecules have different elements or bonds.
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
        orders = [
            np.array([mapping[i] for i in range(self.n_atoms)])
            for mapping in islice(matcher.isomorphisms_iter(), MAX_ORDERS)
        ]
        if not orders:
            raise InputError(
                f"atoms cannot be matched: {names[0]} and {names[1]} are both {self.formula} but "
                f"bonded differently ({_bond_counts(self)} against {_bond_counts(other)}); give "
                "molecules with the same bonds"
            )
        known = _closeness(self.positions)
        return min(
            orders, key=lambda order: np.abs(_closeness(other.positions[order]) - known).sum()
        )

    @cached_property
    def neighbours(self) -> list[list[int]]:
        """Indices of the atoms that are bonded to each atom, N lists."""
        return neighbours_of(self.bonds, self.n_atoms)

    @cached_property
    def graph(self) -> networkx.Graph:
        """The bond graph; the node attribute ``element`` is the atomic number."""
        import networkx

        graph = networkx.Graph()
        graph.add_nodes_from((i, {"element": int(z)}) for i, z in enumerate(self.numbers))
        graph.add_edges_from(map(tuple, self.bonds.tolist()))
        return graph


def formula(numbers) -> str:
    """Hill formula, such as C2H6O, of atomic numbers (N,)."""
    symbols = [chemical_symbols[z] for z in np.asarray(numbers)]
    counts = {s: symbols.count(s) for s in sorted(set(symbols))}
    first = [s for s in ("C", "H") if s in counts] if "C" in counts else []
    ordered = first + [s for s in counts if s not in first]
    return "".join(s + (str(counts[s]) if counts[s] > 1 else "") for s in ordered)


def elements_of_masses(masses: np.ndarray) -> tuple[np.ndarray, int | None]:
    """Find the elements with the nearest masses.

    Args:
        masses: (N,) amu.

    Returns:
        Atomic numbers (N,), and the index of the first atom whose mass differs by more than 0.1 amu
        from all elements, or None.
    """
    known = atomic_masses_iupac2016[1:]
    numbers = np.argmin(np.abs(masses[:, None] - known), axis=1) + 1
    unlike = np.abs(masses - known[numbers - 1]) > 0.1
    return numbers, int(np.argmax(unlike)) if unlike.any() else None


def neighbours_of(bonds: np.ndarray, n_atoms: int) -> list[list[int]]:
    """Indices of the atoms that are bonded to each atom, N lists, from bonds (B, 2)."""
    neighbours: list[list[int]] = [[] for _ in range(n_atoms)]
    for i, j in bonds.tolist():
        neighbours[i].append(j)
        neighbours[j].append(i)
    return neighbours


def equivalent_atoms(molecule: Molecule) -> np.ndarray:
    """Class (N,) of each atom; equal classes mean equal elements and environments.

    Environments are compared in the bond graph by colour refinement: Weisfeiler and Leman,
    Nauchno-Tekh. Inf. 2 (9), 12 (1968).
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
        positions: (N, 3) Å, or (M, N, 3) Å for M frames.  The median distance over the frames
            decides, so that one frame with a stretched bond has no effect.
        lattice: (3, 3) Å, lattice vectors as columns; distances are those of the nearest images.
    """
    numbers, frames = np.asarray(numbers), np.asarray(positions, float)
    frames = frames.reshape(-1, len(numbers), 3)
    if not usable(frames).all():  # `Molecule` names the atom
        return np.zeros((0, 2), int)
    i, j = np.triu_indices(len(numbers), 1)
    difference = frames[:, i] - frames[:, j]
    if lattice is not None:
        difference -= np.round(difference @ np.linalg.inv(lattice).T) @ np.asarray(lattice).T
    distance = np.median(np.linalg.norm(difference, axis=-1), axis=0)
    limit = BOND_TOLERANCE * (covalent_radii[numbers[i]] + covalent_radii[numbers[j]])
    near = distance < limit
    return np.stack([i[near], j[near]], axis=1)


def _closeness(positions: np.ndarray) -> np.ndarray:
    """Matrix (N, N) of 1/(r + 1 Å) with the distances r at positions (N, 3) Å."""
    return 1.0 / (np.linalg.norm(positions[:, None] - positions, axis=-1) + 1.0)


def _bond_counts(molecule: Molecule) -> str:
    pairs = ["-".join(sorted(molecule.symbols[a] for a in bond)) for bond in molecule.bonds]
    return ", ".join(f"{pairs.count(p)} {p}" for p in sorted(set(pairs))) or "no bonds"
