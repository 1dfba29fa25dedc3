"""Readers of molecule files: the fields of a `Molecule` by file suffix.

For a new format, add a function and a line in `READERS`.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from jaxff.errors import InputError

# Types of bonds in mol2 files.
BOND_ORDERS = {"1": 1.0, "2": 2.0, "3": 3.0, "ar": 1.5, "am": 1.0}
Fields = dict[str, Any]  # bonds are absent if the file contains none
UNREADABLE = "RDKit cannot read the file; check its format, elements, bonds and charges"


def fields_of_rdkit(mol: Any, name: str) -> Fields:
    """The fields of a `Molecule` from an RDKit molecule.

    Args:
        mol: RDKit molecule with hydrogens and a conformer.
        name: name of the molecule.

    Raises:
        InputError: an atom is an isotope.
    """
    from rdkit import Chem

    labelled = [a.GetIdx() for a in mol.GetAtoms() if a.GetIsotope()]
    if labelled:
        raise InputError(
            f"{name}: atom {labelled[0]} is an isotope, but jaxff uses standard atomic weights; "
            "remove the isotope label"
        )
    bonds = list(mol.GetBonds())
    return {
        "numbers": np.array([a.GetAtomicNum() for a in mol.GetAtoms()]),
        "positions": mol.GetConformer().GetPositions(),
        "bonds": np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in bonds]),
        "charge": Chem.GetFormalCharge(mol),
        "bond_orders": np.array([b.GetBondTypeAsDouble() for b in bonds]),
        "name": name,
    }


def fields_of_ase(atoms: Any, charge: int | None = None) -> Fields:
    """The fields of a `Molecule`, without bonds, from an `ase.Atoms`.

    Args:
        atoms: the `ase.Atoms`.
        charge: net charge, e; None: see `charge_of_ase`.

    Raises:
        InputError: the atoms are periodic.
    """
    check_not_periodic(atoms)
    return {
        "numbers": atoms.numbers,
        "positions": atoms.positions,
        "charge": charge_of_ase(atoms) if charge is None else int(charge),
        "name": str(atoms.info.get("name", "")),
    }


def check_not_periodic(atoms: Any, remedy: str = "set atoms.pbc = False") -> None:
    """Raise `InputError`, whose message ends with `remedy`, if an `ase.Atoms` is periodic."""
    if np.any(atoms.pbc):
        raise InputError(f"periodic structures are not supported: {remedy}")


def charge_of_ase(atoms: Any) -> int:
    """Net charge, e, of an `ase.Atoms`.

    It is ``atoms.info["charge"]``, or the sum of the initial charges if this entry is missing.
    """
    charge = atoms.info.get("charge", round(float(atoms.get_initial_charges().sum())))
    return int(charge or 0)


def read_xyz_frames(path: Path, index: int | slice) -> Any:
    """Read one or several frames of an xyz or extxyz file.

    Args:
        path: the file.
        index: index of a frame, or a slice.

    Returns:
        An `ase.Atoms` for an index, or a list of them for a slice.

    Raises:
        InputError: the file ends within a frame.
    """
    import ase.io

    count_xyz_frames(path, index + 1 if isinstance(index, int) else None)
    return ase.io.read(path, index=index, format="extxyz")


def count_xyz_frames(path: Path, most: int | None = None) -> int:
    """Number of frames in an xyz or extxyz file, or `most` if the file has more.

    Raises:
        InputError: the file ends within a frame, or a line has too few columns.
    """
    frames = 0
    with path.open("rb") as file:
        for line in file:
            if frames == most:
                break
            try:
                count = int(line)
            except ValueError:
                break  # the end, or a line for which ASE raises an error
            left = os.fstat(file.fileno()).st_size
            start = list(islice(file, 2 if count else 1))  # the comment and the first atom
            rest = count + 1 - len(start)
            if not 0 <= count <= left or sum(1 for _ in islice(file, rest)) < rest:
                # ASE would search for the missing lines without limit.
                raise InputError(f"frame {frames} {_too_short(count)}")
            columns = _declared_columns(start[0])
            if count and (found := len(start[1].split())) < columns:
                # ASE would make an array of this size.
                raise InputError(
                    f"frame {frames} declares {columns} columns, but its first atom has {found}: "
                    "correct the Properties of the frame"
                )
            frames += 1
    return frames


def _declared_columns(comment: bytes) -> int:
    """Number of columns in the Properties of an extxyz frame; 0 if they are missing or invalid."""
    found = re.search(rb'Properties="?([^\s"]+)', comment)
    counts = found[1].split(b":")[2::3] if found else []
    return sum(map(int, counts)) if all(n.isdigit() for n in counts) else 0


def _too_short(count: int, what: str = "atoms") -> str:
    return (
        f"declares {count} {what}, but the file ends earlier: correct the number, or complete the "
        "file"
    )


def mol2_rows(path: str | Path) -> dict[str, list[list[str]]]:
    """Read the sections ATOM, BOND and MOLECULE of the first molecule in a mol2 file.

    Returns:
        {section: words of each line}.

    Raises:
        InputError: a line is incomplete, a bond has an unknown type, or an atom is missing.
    """
    section, rows = "", {"ATOM": [], "BOND": [], "MOLECULE": []}
    for line in Path(path).read_text(encoding="utf-8-sig").splitlines():
        if line.startswith("@<TRIPOS>"):
            section = line[9:].strip().upper()
            if section == "MOLECULE" and rows["ATOM"]:
                break
        elif line.strip() and not line.startswith("#") and section in rows:
            rows[section].append(line.split())
    for kind, least in (("ATOM", 6), ("BOND", 4)):
        for row in rows[kind]:
            if len(row) < least:
                raise InputError(
                    f"the line {' '.join(row)!r} of section {kind} has {len(row)} words, but needs "
                    f"at least {least}: complete the line"
                )
    names = {row[0] for row in rows["ATOM"]}
    for row in rows["BOND"]:
        for atom in row[1:3]:
            if atom not in names:
                raise InputError(
                    f"bond {row[0]} contains atom {atom}, which is not in the section ATOM: "
                    "correct the bond"
                )
        if row[3] not in BOND_ORDERS:
            known = ", ".join(BOND_ORDERS)
            raise InputError(f"bond {row[0]} has the type {row[3]!r}; use one of {known}")
    return rows


def _read_sdf(path: Path) -> Fields:
    from rdkit import Chem, rdBase

    _check_v3000_counts(path)
    with rdBase.BlockLogs():
        supplier = Chem.SDMolSupplier(str(path), sanitize=False, removeHs=False)
        mol = None if supplier.atEnd() else next(supplier)
        if mol is not None:
            if groups := _correct_nitro_groups(mol):
                warnings.warn(
                    f"{path}: in {groups} nitro groups both oxygens have the charge -1 and "
                    "nitrogen has 0; they are read as neutral [N+](=O)[O-].  Correct the file if "
                    "this is wrong",
                    stacklevel=3,
                )
            if Chem.SanitizeMol(mol, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE:
                mol = None
    if mol is None:
        raise InputError(UNREADABLE)
    if any(a.GetTotalNumHs() for a in mol.GetAtoms()):
        raise InputError("hydrogens are missing: add hydrogens with positions to the file")
    title = mol.GetProp("_Name").strip() if mol.HasProp("_Name") else ""
    return fields_of_rdkit(mol, title or path.stem)


def _check_v3000_counts(path: Path) -> None:
    """Check that a V3000 file has at least as many lines as atoms and bonds.

    RDKit allocates memory for these numbers before it reads the lines.

    Raises:
        InputError: the file has fewer lines.
    """
    with path.open("rb") as file:
        for line in file:
            if line.startswith(b"$$$$"):
                break
            words = line.split()
            if words[:3] == [b"M", b"V30", b"COUNTS"]:
                count = max((int(word) for word in words[3:5] if word.isdigit()), default=0)
                if count > sum(1 for _ in file):
                    raise InputError(f"the molecule {_too_short(count, 'atoms or bonds')}")
                break


def _correct_nitro_groups(mol: Any) -> int:
    """Change nitro groups [O-]N[O-] to [N+](=O)[O-]; return their number."""
    from rdkit import Chem

    matches = mol.GetSubstructMatches(Chem.MolFromSmarts("[O-;D1]~[#7;D3;+0]~[O-;D1]"))
    for first, nitrogen, last in matches:
        mol.GetAtomWithIdx(nitrogen).SetFormalCharge(1)
        mol.GetAtomWithIdx(nitrogen).SetNumExplicitHs(0)  # from a valence in the file
        mol.GetAtomWithIdx(first).SetFormalCharge(0)
        mol.GetBondBetweenAtoms(nitrogen, first).SetBondType(Chem.BondType.DOUBLE)
        mol.GetBondBetweenAtoms(nitrogen, last).SetBondType(Chem.BondType.SINGLE)
    return len(matches)


def _read_pdb(path: Path) -> Fields:
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        mol = Chem.MolFromPDBFile(str(path), removeHs=False, proximityBonding=False)
    if mol is None:
        raise InputError(UNREADABLE)
    fields = fields_of_rdkit(mol, path.stem)
    del fields["bond_orders"]  # CONECT records contain no bond orders
    if not len(fields["bonds"]):
        del fields["bonds"]
    return fields


def _read_xyz(path: Path) -> Fields:
    atoms = read_xyz_frames(path, 0)
    check_not_periodic(atoms, 'write pbc="F F F" in the comment line of the file')
    return fields_of_ase(atoms)


def _read_mol2(path: Path) -> Fields:
    # RDKit reads Corina atom types only, but the mol2 files of force fields contain GAFF types.
    rows = mol2_rows(path)
    if not rows["ATOM"]:
        raise InputError("there are no atoms: the file needs a section @<TRIPOS>ATOM")
    place = {row[0]: i for i, row in enumerate(rows["ATOM"])}
    charges = [float(row[8]) for row in rows["ATOM"] if len(row) > 8]
    return {
        "numbers": np.array([_mol2_element(row) for row in rows["ATOM"]]),
        "positions": np.array([[float(x) for x in row[2:5]] for row in rows["ATOM"]]),
        "bonds": np.array([(place[row[1]], place[row[2]]) for row in rows["BOND"]]),
        "charge": round(sum(charges)),
        "bond_orders": np.array([BOND_ORDERS[row[3]] for row in rows["BOND"]]),
        "name": " ".join(rows["MOLECULE"][0]) if rows["MOLECULE"] else "",
    }


def _mol2_element(row: list[str]) -> int:
    """Atomic number for a SYBYL type (C.ar), or a GAFF or AMBER type (ca, CT).

    Args:
        row: words of the line of the atom.

    Raises:
        InputError: the element of the type is unknown.
    """
    kind = row[5]
    stem = kind.split(".")[0]
    if ("." in kind or stem.capitalize() == stem) and stem.capitalize() in atomic_numbers:
        return atomic_numbers[stem.capitalize()]
    if kind.lower() in ("cl", "br"):
        return atomic_numbers[kind.capitalize()]
    if kind[0].upper() in atomic_numbers:  # the first letter of a GAFF type: na is N
        return atomic_numbers[kind[0].upper()]
    raise InputError(f"atom {row[0]} has the type {kind!r} of no known element: correct the type")


READERS: dict[str, Callable[[Path], Fields]] = {
    ".sdf": _read_sdf,
    ".mol": _read_sdf,
    ".mol2": _read_mol2,
    ".pdb": _read_pdb,
    ".xyz": _read_xyz,
    ".extxyz": _read_xyz,
}
