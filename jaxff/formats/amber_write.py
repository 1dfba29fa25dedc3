"""Writing of inpcrd, mol2 and frcmod files of AMBER."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxff.errors import InputError
from jaxff.gaff.bonded import Table
from jaxff.gaff.table import DEGREE
from jaxff.gaff.topology import SCEE, SCNB, Topology
from jaxff.molecule import Molecule
from jaxff.npz import atomic_path

RESIDUE = "MOL"
# First line of mol2 files, so that they are not read without the frcmod file.
PARAMETERS_ELSEWHERE = "# parameters in the frcmod file of the same name (jaxff)"


def write_inpcrd(path, molecule: Molecule) -> None:
    """Write the positions of a molecule to an AMBER inpcrd file.

    Raises:
        InputError: a coordinate is too large, or the file cannot be written.
    """
    _check_positions(path, molecule)
    numbers = "".join(
        f"{x:12.7f}" + ("\n" if k % 6 == 5 else "")
        for k, x in enumerate(molecule.positions.ravel())
    )
    write_text(path, f"{title_of(molecule)}\n{molecule.n_atoms:5d}\n{numbers.rstrip()}\n")


def write_mol2(path, topology: Topology, orders: np.ndarray | None = None) -> None:
    """Write a mol2 file with GAFF types and charges; see also `write_frcmod`.

    Args:
        path: the file.
        topology: types, charges and geometry.
        orders: (B,) bond orders of ``topology.molecule.bonds`` (None: those of the molecule).

    Raises:
        InputError: a coordinate is too large, or the file cannot be written.
    """
    molecule = topology.molecule
    _check_positions(path, molecule)
    orders = molecule.bond_orders if orders is None else orders
    kinds = {1.0: "1", 2.0: "2", 3.0: "3", 1.5: "ar"}
    rows = [
        PARAMETERS_ELSEWHERE,
        "@<TRIPOS>MOLECULE",
        title_of(molecule),
        f"{molecule.n_atoms:5d} {len(molecule.bonds):5d}     1     0     0",
        "SMALL",
        "USER_CHARGES",
        "",
        "@<TRIPOS>ATOM",
    ]
    for a, (name, R) in enumerate(zip(atom_names(molecule), molecule.positions, strict=True)):
        x, y, z = R
        rows.append(
            f"{a + 1:7d} {name:<8s}{x:10.4f}{y:10.4f}{z:10.4f} {topology.atom_types[a]:<5s}"
            f"{1:6d} {RESIDUE:<6s}{topology.charges[a]:14.8f}"
        )
    rows.append("@<TRIPOS>BOND")
    for b, (i, j) in enumerate(molecule.bonds):
        kind = "1" if orders is None else kinds[float(orders[b])]
        rows.append(f"{b + 1:6d} {i + 1:5d} {j + 1:5d} {kind}")
    rows += ["@<TRIPOS>SUBSTRUCTURE", f"     1 {RESIDUE}         1 TEMP              0 ****  ****"]
    write_text(path, "\n".join(rows) + "\n")


def write_frcmod(path, topology: Topology) -> None:
    """Write all parameters of a topology to an AMBER frcmod file.

    Raises:
        InputError: the format cannot express the parameters, for example different parameters for
            equal types; or the file cannot be written.
    """
    t, who = topology, title_of(topology.molecule)
    _check_frcmod(t, path)
    masses: dict[str, float] = dict(zip(t.atom_types, t.molecule.masses, strict=True))
    rows = [f"GAFF parameters of {who}, written by jaxff", "MASS"]
    rows += [f"{kind:<2s} {mass:12.6f}" for kind, mass in sorted(masses.items())]
    for title, table, columns in (
        ("BOND", t.bonds, (("k", 1.0), ("length", 1.0))),
        ("ANGLE", t.angles, (("k", 1.0), ("angle", 1.0 / DEGREE))),
    ):
        rows += ["", title]
        for label, row in _by_types(table, t, path).items():
            numbers = [table.values[c][row[0]] * factor for c, factor in columns]
            rows.append(f"{label}  {numbers[0]:14.8f} {numbers[1]:14.8f}")
    for title, table, divisor in (("DIHE", t.torsions, "   1"), ("IMPROPER", t.impropers, "")):
        rows += ["", title]
        for label, members in _by_types(table, t, path, ordered=title == "IMPROPER").items():
            for k, row in enumerate(members):
                v = {c: table.values[c][row] for c in ("k", "phase", "periodicity")}
                n = float(v["periodicity"]) * (1.0 if k == len(members) - 1 else -1.0)
                phase = v["phase"] / DEGREE
                rows.append(f"{label}{divisor} {v['k']:14.8f} {phase:14.8f} {n:5.1f}")
    rows += ["", "NONBON"]
    if len(t.lj_overrides.atoms):
        raise InputError(
            f"{path}: a frcmod file cannot express separate Lennard-Jones terms of pairs of types; "
            "write a prmtop file"
        )
    of_type: dict[str, int] = {}
    for kind, row in zip(t.atom_types, t.lj.rows, strict=True):
        if of_type.setdefault(kind, row) != row:
            raise InputError(f"{path}: atoms of type {kind} differ in σ or ε; write a prmtop file")
    for kind, row in sorted(of_type.items()):
        radius = 0.5 * 2.0 ** (1.0 / 6.0) * t.lj.values["sigma"][row]
        epsilon = t.lj.values["epsilon"][row]
        rows.append(f"  {kind:<2s} {radius if epsilon > 0 else 0.0:14.8f} {epsilon:14.8f}")
    write_text(path, "\n".join(rows) + "\n\n\n")


def atom_names(molecule: Molecule) -> list[str]:
    """Names (N,) such as C1 and H12: element and number, at most four characters."""
    counts: dict[str, int] = {}
    names = []
    for symbol in molecule.symbols:
        counts[symbol] = counts.get(symbol, 0) + 1
        names.append(f"{symbol}{counts[symbol]}"[:4])
    return names


def _by_types(table: Table, topology: Topology, path, ordered: bool = False) -> dict:
    """Rows of the table for the entries of a frcmod file, {types: rows}.

    A dihedral has one row for each Fourier term.

    Args:
        table: bonds, angles, torsions or impropers.
        topology: atom types.
        path: the file, for messages.
        ordered: True for impropers, where the order of atoms matters.

    Raises:
        InputError: interactions of equal types have different parameters.
    """
    by_atoms: dict[tuple[int, ...], list[int]] = {}
    for atoms, row in zip(table.atoms.tolist(), table.rows.tolist(), strict=True):
        by_atoms.setdefault(tuple(atoms), []).append(row)
    # Impropers of the same types may differ in the order of atoms.  LEaP applies the order in the
    # file to the improper with the lowest centre, and the alphabetical order to later impropers.
    chains = sorted(by_atoms.items(), key=lambda item: item[0][2]) if ordered else by_atoms.items()
    types: dict[tuple, tuple[str, list[int], set]] = {}
    for atoms, rows in chains:
        names = [topology.atom_types[a] for a in atoms]
        names = names if ordered else min(names, names[::-1])
        key = (names[2], *sorted([names[0], names[1], names[3]])) if ordered else tuple(names)
        label = "-".join(f"{name:<2s}" for name in names)
        values = {tuple(float(column[row]) for column in table.values.values()) for row in rows}
        if types.setdefault(key, (label, rows, values))[2] != values:
            raise InputError(
                f"{path}: interactions {'-'.join(names)} have different parameters, which a "
                "frcmod file cannot express; write a prmtop file"
            )
    return {label: rows for label, rows, _ in types.values()}


def _check_frcmod(t: Topology, path) -> None:
    """Check that mol2 and frcmod files can express a topology.

    Raises:
        InputError: 1-4 factors are not the default of AMBER, or parameters are missing.
    """
    scales = t.pairs14.values
    for column, usual in (("lj14", 1.0 / SCNB), ("coulomb14", 1.0 / SCEE)):
        if not np.allclose(scales[column], usual, rtol=1e-4):
            raise InputError(
                f"{path}: {column} must be {usual:.4g} in a frcmod file; write a prmtop file"
            )
    n_atoms = t.molecule.n_atoms
    whole = len(t.bonds.atoms) == len(t.molecule.bonds) and (n_atoms < 3 or len(t.angles.atoms))
    if not whole or (len(t.pairs14.atoms) and not len(t.torsions.atoms)):
        raise InputError(
            f"{path}: bonds, angles or torsions have no parameters, but programs use parameters of "
            "GAFF for such interactions; write a prmtop file"
        )


def _check_positions(path, molecule: Molecule) -> None:
    if np.abs(molecule.positions).max(initial=0.0) >= 999.0:
        raise InputError(
            f"{path}: coordinates of 999 Å or more do not fit into the columns of the file; move "
            "the molecule to the origin"
        )


def title_of(molecule: Molecule) -> str:
    """Name of the molecule in ASCII, at most 80 characters; the formula if it has no name."""
    name = "".join(c if c.isascii() and c.isprintable() else "?" for c in molecule.name)
    return name[:80] or molecule.formula


def write_text(path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        Path(temporary).write_text(text)
