"""Mol2 files with GAFF types and charges, and their frcmod files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxff.errors import InputError
from jaxff.formats.amber_write import PARAMETERS_ELSEWHERE, write_frcmod, write_mol2
from jaxff.gaff.assign import assign, topology
from jaxff.gaff.table import gaff_table, with_frcmod
from jaxff.gaff.topology import Topology
from jaxff.molecule import Molecule
from jaxff.molecule_files import mol2_rows
from jaxff.potential import Potential


def read(path: Path, companions: list[Path], coulomb_constant: float | None) -> Potential:
    """Read a mol2 file with GAFF types and charges.

    Args:
        path: the mol2 file.
        companions: frcmod files; their parameters replace those of gaff.dat.
        coulomb_constant: () kcal/mol Å/e², or None; see `read_force_field`.

    Raises:
        InputError: a file cannot be read, or bonds, charges, types or parameters are missing.
    """
    table = gaff_table()
    if not companions and PARAMETERS_ELSEWHERE in path.read_text(errors="replace"):
        raise InputError(
            f"{path}: the parameters are in a frcmod file, but {path.with_suffix('.frcmod').name} "
            "is not in the same folder: give the frcmod file (--frcmod), or delete the line "
            f"{PARAMETERS_ELSEWHERE!r} to use the parameters of gaff.dat"
        )
    for file in companions:
        try:
            text = file.read_text()
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: not a text file; give a frcmod file") from error
        table = with_frcmod(table, text, file.name)
    molecule = Molecule.read(path)
    if molecule.n_atoms > 1 and not len(molecule.bonds):
        raise InputError(f"{path}: no bonds; write the file again with a section @<TRIPOS>BOND")
    rows = mol2_rows(path)["ATOM"]
    types = tuple(row[5] for row in rows)
    if unknown := sorted(set(types) - set(table.lj)):
        raise InputError(
            f"{path}: neither GAFF nor a frcmod file defines the types {', '.join(unknown)}: give "
            "a frcmod file that defines these types"
        )
    if any(len(row) < 9 for row in rows):
        raise InputError(f"{path}: no charges; write the file again with a charge for each atom")
    charges = np.array([float(row[8]) for row in rows])  # their sum is not corrected
    try:
        assigned = assign(molecule, types, table, strict=True)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return topology(molecule, types, charges, assigned).potential(coulomb_constant)


def write(path: Path, topology: Topology, potential: Potential) -> list[Path]:
    """Write x.mol2 and x.frcmod, and return their paths.

    Args:
        path: x.mol2 or x.frcmod.
        topology: the force field.
        potential: the potential; bond orders are those of its `origin`, if it has any.

    Raises:
        InputError: the files cannot express the force field, or cannot be written.
    """
    files = [path.with_suffix(".mol2"), path.with_suffix(".frcmod")]
    lewis = getattr(potential.origin, "lewis", None)
    write_frcmod(files[1], topology)  # first, because it may raise
    write_mol2(files[0], topology, None if lewis is None else lewis.orders)
    return files
