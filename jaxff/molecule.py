"""Molecule: atoms, bonds and a geometry; reading and writing; matching by graph isomorphism."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from ase.data import atomic_masses_iupac2016, atomic_numbers, chemical_symbols, covalent_radii

from jaxff.errors import InputError

# Two atoms are bonded when closer than this many times the sum of their covalent radii:
# above any bond of a thermal frame, below hydrogen bonds and 1-3 distances.
BOND_TOLERANCE = 1.3


@dataclass(frozen=True, eq=False)
class Molecule:
    """A molecule (or any finite set of atoms) with one geometry.

    Attributes:
        numbers: (N,) atomic numbers.
        positions: (N, 3) Å.
        bonds: (B, 2) atom indices, each row ascending, rows sorted.
        charge: net charge, e.
        bond_orders: (B,) 1, 2, 3 or 1.5 (aromatic), or None where the source has none.
        name: a label for messages and files.
    """

    numbers: np.ndarray
    positions: np.ndarray
    bonds: np.ndarray
    charge: int = 0
    bond_orders: np.ndarray | None = None
    name: str = ""

    FORMATS: ClassVar[dict[str, Callable[[Path], Molecule]]]

    def __post_init__(self):
        numbers = np.asarray(self.numbers, int)
        positions = np.array(self.positions, float)
        who = self.name or "molecule"
        if numbers.ndim != 1 or len(numbers) == 0:
            raise InputError(f"{who}: no atoms")
        if (numbers < 1).any() or (numbers >= len(chemical_symbols)).any():
            bad = int(np.argmax((numbers < 1) | (numbers >= len(chemical_symbols))))
            raise InputError(f"{who}: atom {bad} has atomic number {numbers[bad]}, not an element")
        if positions.shape != (len(numbers), 3):
            raise InputError(
                f"{who}: positions have shape {positions.shape}, expected ({len(numbers)}, 3)"
            )
        if not np.isfinite(positions).all():
            atom = int(np.argmax(~np.isfinite(positions).all(axis=1)))
            raise InputError(f"{who}: the position of atom {atom} is not finite")
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
        return len(self.numbers)

    @property
    def masses(self) -> np.ndarray:
        """(N,) amu: IUPAC 2016 standard atomic weights (ASE's table)."""
        return atomic_masses_iupac2016[self.numbers]

    @property
    def symbols(self) -> list[str]:
        return [chemical_symbols[z] for z in self.numbers]

    @cached_property
    def formula(self) -> str:
        """Hill formula, such as C2H6O."""
        return formula(self.numbers)

    def __repr__(self) -> str:
        label = f" {self.name!r}" if self.name else ""
        return f"Molecule({self.formula}{label}, {self.n_atoms} atoms, {len(self.bonds)} bonds)"

    # -- making -------------------------------------------------------------------------

    @classmethod
    def from_smiles(cls, smiles: str, seed: int = 7, *, geometry: bool = True) -> Molecule:
        """The molecule of a SMILES string: ETKDGv3 conformer, MMFF94-optimised (RDKit).

        Hydrogens come after the heavy atoms, in SMILES order.

        Args:
            smiles: the string.
            seed: of the conformer.
            geometry: find one; else all positions are zero.

        Raises:
            InputError: the SMILES cannot be read, or no geometry can be made for it.
        """
        from rdkit import Chem, RDLogger, rdBase
        from rdkit.Chem import AllChem

        with rdBase.BlockLogs():
            RDLogger.DisableLog("rdApp.*")
            bare = Chem.MolFromSmiles(smiles)
        if bare is None or bare.GetNumAtoms() == 0:
            raise InputError(f"{smiles!r} is not a SMILES string that RDKit can read")
        mol = Chem.AddHs(bare)
        if not geometry:
            mol.AddConformer(Chem.Conformer(mol.GetNumAtoms()))
            return cls._from_rdkit(mol, smiles)
        parameters = AllChem.ETKDGv3()
        parameters.randomSeed = seed
        with rdBase.BlockLogs():
            if AllChem.EmbedMolecule(mol, parameters) != 0:
                parameters.useRandomCoords = True  # large or strained molecules
                if AllChem.EmbedMolecule(mol, parameters) != 0:
                    raise InputError(
                        f"RDKit finds no geometry for {smiles!r}; read one from a file"
                    )
            if not AllChem.MMFFHasAllMoleculeParams(mol):
                raise InputError(
                    f"MMFF94 has no parameters for {smiles!r}; read a file with a geometry"
                )
            status = AllChem.MMFFOptimizeMolecule(mol, maxIters=5000)
        if status != 0:
            raise InputError(f"MMFF94 did not converge for {smiles!r}; read a file with a geometry")
        return cls._from_rdkit(mol, smiles)

    @classmethod
    def from_ase(cls, atoms, charge: int | None = None) -> Molecule:
        """The molecule of an `ase.Atoms`; bonds perceived from the geometry.

        The charge is `charge`, else ``atoms.info["charge"]``, else the sum of the initial charges.
        """
        if np.any(atoms.pbc):
            raise InputError("periodic structures are not supported: set atoms.pbc = False")
        if charge is None:
            charge = atoms.info.get("charge", round(float(atoms.get_initial_charges().sum())))
        numbers, positions = atoms.numbers, atoms.positions
        name = str(atoms.info.get("name", ""))
        return cls(numbers, positions, perceive_bonds(numbers, positions), int(charge), name=name)

    @classmethod
    def read(cls, path) -> Molecule:
        """The (first) molecule of an sdf, mol, mol2, pdb, xyz or extxyz file.

        Bonds are the file's where it has them (sdf, mol, mol2, pdb with CONECT records), else
        perceived from the geometry.

        Raises:
            InputError: unknown format, or a file that cannot be read.
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
            molecule = reader(path)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except Exception as error:
            why = str(error) or "it is empty or cut off"
            raise InputError(f"{path}: cannot be read as {path.suffix[1:]} ({why})") from error
        return molecule if molecule.name else replace(molecule, name=path.stem)

    @classmethod
    def _from_rdkit(cls, mol, name: str) -> Molecule:
        from rdkit import Chem

        labelled = [a.GetIdx() for a in mol.GetAtoms() if a.GetIsotope()]
        if labelled:
            raise InputError(
                f"{name}: atom {labelled[0]} is an isotope; masses here are those of the natural "
                "elements: leave the label out"
            )
        return cls(
            numbers=[a.GetAtomicNum() for a in mol.GetAtoms()],
            positions=mol.GetConformer().GetPositions(),
            bonds=[(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()],
            charge=Chem.GetFormalCharge(mol),
            bond_orders=[b.GetBondTypeAsDouble() for b in mol.GetBonds()],
            name=name,
        )

    # -- changing and writing -------------------------------------------------------------

    def with_positions(self, positions) -> Molecule:
        """The same molecule at `positions`, (N, 3) Å."""
        return replace(self, positions=positions)

    def reorder(self, order: Sequence[int]) -> Molecule:
        """The same molecule with atom ``order[i]`` in place i; order (N,) is a permutation."""
        order = np.asarray(order, int)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return replace(
            self,
            numbers=self.numbers[order],
            positions=self.positions[order],
            bonds=place[self.bonds],
        )

    def to_ase(self):
        """An `ase.Atoms` with this geometry; charge and name in ``info``."""
        from ase import Atoms

        info = {"charge": self.charge} | ({"name": self.name} if self.name else {})
        return Atoms(numbers=self.numbers, positions=self.positions, info=info)

    # -- matching -------------------------------------------------------------------------

    def match(self, other: Molecule) -> np.ndarray:
        """The atom of `other` that corresponds to each atom here, by graph isomorphism.

        Elements and connectivity must agree; geometry and bond orders do not count.  Of the
        equivalent answers the one is taken that keeps the atoms in order as far as possible, so
        two molecules that agree atom by atom give 0..N-1.

        Returns:
            (N,) indices: ``other.reorder(self.match(other))`` has the atom order of self.

        Raises:
            InputError: no such mapping, with the difference named.
        """
        same_elements = np.array_equal(self.numbers, other.numbers)
        if same_elements and np.array_equal(self.bonds, other.bonds):
            return np.arange(self.n_atoms)
        names = [m.name or which for m, which in ((self, "the first"), (other, "the second"))]
        if self.formula != other.formula:
            raise InputError(
                f"atoms cannot be matched: {names[0]} is {self.formula}, "
                f"{names[1]} is {other.formula}"
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
        found: list[list[int]] = [[] for _ in range(self.n_atoms)]
        for i, j in self.bonds.tolist():
            found[i].append(j)
            found[j].append(i)
        return found

    @cached_property
    def graph(self):
        """The bond graph, a `networkx.Graph` with the node attribute ``element``."""
        import networkx

        graph = networkx.Graph()
        graph.add_nodes_from((i, {"element": int(z)}) for i, z in enumerate(self.numbers))
        graph.add_edges_from(map(tuple, self.bonds.tolist()))
        return graph


def formula(numbers) -> str:
    """Hill formula of atomic numbers (N,): C, H, then the others by symbol."""
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
        positions: (N, 3) Å, or (M, N, 3) frames, of which the median distance counts, so that
            no single stretched bond or close contact decides.
        lattice: (3, 3) Å, lattice vectors as columns: distances are those of nearest images.
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


# -- readers: one function a format --------------------------------------------------------


def _read_sdf(path: Path) -> Molecule:
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        mol = next(iter(Chem.SDMolSupplier(str(path), removeHs=False)), None)
    return _complete(mol, path.stem)


def _read_pdb(path: Path) -> Molecule:
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        mol = Chem.MolFromPDBFile(str(path), removeHs=False, proximityBonding=False)
    if mol is None:
        raise InputError("RDKit cannot read it")
    molecule = Molecule._from_rdkit(mol, path.stem)
    if len(molecule.bonds):
        return replace(molecule, bond_orders=None)  # CONECT records carry no bond orders
    bonds = perceive_bonds(molecule.numbers, molecule.positions)
    return replace(molecule, bonds=bonds, bond_orders=None)


def _complete(mol, name: str) -> Molecule:
    if mol is None:
        raise InputError("RDKit cannot read it")
    if any(a.GetTotalNumHs() for a in mol.GetAtoms()):
        raise InputError("hydrogens are missing: add them, with positions, first")
    title = mol.GetProp("_Name").strip() if mol.HasProp("_Name") else ""
    return Molecule._from_rdkit(mol, title or name)


def _read_xyz(path: Path) -> Molecule:
    import ase.io

    return Molecule.from_ase(ase.io.read(path, index=0, format="extxyz"))


def mol2_rows(path) -> dict[str, list[list[str]]]:
    """The words of each line in sections ATOM, BOND, MOLECULE of a mol2 file's first molecule."""
    section, rows = "", {"ATOM": [], "BOND": [], "MOLECULE": []}
    for line in Path(path).read_text().splitlines():
        if line.startswith("@<TRIPOS>"):
            section = line[9:].strip().upper()
            if section == "MOLECULE" and rows["ATOM"]:
                break
        elif line.strip() and not line.startswith("#") and section in rows:
            rows[section].append(line.split())
    return rows


def _read_mol2(path: Path) -> Molecule:
    # RDKit reads Corina atom types only; mol2 files of force fields carry GAFF's.
    rows = mol2_rows(path)
    if not rows["ATOM"]:
        raise InputError("no atoms in an @<TRIPOS>ATOM section")
    place = {row[0]: i for i, row in enumerate(rows["ATOM"])}
    orders = {"ar": 1.5, "am": 1.0}
    charges = [float(row[8]) for row in rows["ATOM"] if len(row) > 8]
    return Molecule(
        numbers=[_mol2_element(row) for row in rows["ATOM"]],
        positions=[[float(x) for x in row[2:5]] for row in rows["ATOM"]],
        bonds=[(place[row[1]], place[row[2]]) for row in rows["BOND"]],
        charge=round(sum(charges)),
        bond_orders=[orders[t] if (t := row[3]) in orders else float(t) for row in rows["BOND"]],
        name=" ".join(rows["MOLECULE"][0]) if rows["MOLECULE"] else "",
    )


def _mol2_element(row: list[str]) -> int:
    """Atomic number from a mol2 atom row: SYBYL type (C.ar), else GAFF or AMBER type (ca, CT)."""
    kind = row[5]
    stem = kind.split(".")[0]
    if ("." in kind or stem.capitalize() == stem) and stem.capitalize() in atomic_numbers:
        return atomic_numbers[stem.capitalize()]
    if kind.lower() in ("cl", "br"):
        return atomic_numbers[kind.capitalize()]
    if kind[0].upper() in atomic_numbers:  # GAFF: the first letter is the element (na is N)
        return atomic_numbers[kind[0].upper()]
    raise InputError(f"atom {row[0]} has type {kind!r}, which names no element")


Molecule.FORMATS = {
    ".sdf": _read_sdf,
    ".mol": _read_sdf,
    ".mol2": _read_mol2,
    ".pdb": _read_pdb,
    ".xyz": _read_xyz,
    ".extxyz": _read_xyz,
}
