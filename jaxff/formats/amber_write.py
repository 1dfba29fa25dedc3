"""Writing of prmtop, inpcrd, mol2 and frcmod files of AMBER."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxff.errors import InputError
from jaxff.gaff.bonded import Table
from jaxff.gaff.table import DEGREE
from jaxff.gaff.topology import SCEE, SCNB, Topology
from jaxff.molecule import Molecule
from jaxff.npz import atomic_path
from jaxff.units import AMBER_CHARGE

RESIDUE = "MOL"
# First line of mol2 files, so that they are not read without the frcmod file.
PARAMETERS_ELSEWHERE = "# parameters in the frcmod file of the same name (jaxff)"
# mbondi radii, Å, and screening factors for implicit solvents; jaxff does not use them.
_BORN = {"H": 1.3, "C": 1.7, "N": 1.55, "O": 1.5, "F": 1.5, "P": 1.85, "S": 1.8, "Cl": 1.7}
_SCREEN = {"H": 0.85, "C": 0.72, "N": 0.79, "O": 0.85, "F": 0.88, "P": 0.86, "S": 0.96}


def write_prmtop(path, topology: Topology) -> None:
    """Write an AMBER topology in the format of https://ambermd.org/prmtop.pdf.

    Raises:
        InputError: a 1-4 pair has no torsion, or the file cannot be written.
    """
    _write(path, _prmtop(topology))


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
    _write(path, f"{_title(molecule)}\n{molecule.n_atoms:5d}\n{numbers.rstrip()}\n")


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
        _title(molecule),
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
    _write(path, "\n".join(rows) + "\n")


def write_frcmod(path, topology: Topology) -> None:
    """Write all parameters of a topology to an AMBER frcmod file.

    Raises:
        InputError: the format cannot express the parameters, for example different parameters for
            equal types; or the file cannot be written.
    """
    t, who = topology, _title(topology.molecule)
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
    _write(path, "\n".join(rows) + "\n\n\n")


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


# -- prmtop ---------------------------------------------------------------------------------


def _prmtop(t: Topology) -> str:
    mol, n = t.molecule, t.molecule.n_atoms
    hydrogen = mol.numbers == 1
    bonds, angles = _split(t.bonds, hydrogen), _split(t.angles, hydrogen)
    dihedrals, (k, periodicity, phase, scee, scnb) = _dihedrals(t)
    with_h, without_h = [], []
    for atoms, signs, row in dihedrals:
        entry = [3 * a * s for a, s in zip(atoms, signs, strict=True)] + [row + 1]
        (with_h if hydrogen[list(atoms)].any() else without_h).append(entry)
    excluded: list[list[int]] = [[] for _ in range(n)]
    for i, j in np.sort(t.exclusions, axis=1).tolist():
        excluded[i].append(j + 1)
    kinds, index = np.unique(t.lj.rows, return_inverse=True)
    n_kinds = len(kinds)
    a_coefficients, b_coefficients = _lennard_jones(t, kinds)
    matrix = np.zeros((n_kinds, n_kinds), int)
    lower = np.tril_indices(n_kinds)
    matrix[lower] = np.arange(1, len(lower[0]) + 1)
    matrix = np.maximum(matrix, matrix.T)
    listed = [j for row in excluded for j in (sorted(row) or [0])]
    pointers = np.zeros(31, int)
    pointers[[0, 1]] = n, n_kinds
    pointers[[2, 3, 4, 5]] = len(bonds[0]), len(bonds[1]), len(angles[0]), len(angles[1])
    pointers[[6, 7, 10, 11]] = len(with_h), len(without_h), len(listed), 1
    pointers[[12, 13, 14]] = len(bonds[1]), len(angles[1]), len(without_h)
    pointers[[15, 16, 17, 18]] = len(t.bonds.labels), len(t.angles.labels), len(k), n_kinds
    pointers[28] = n
    symbols = mol.symbols
    sections = [
        ("TITLE", "20a4", [_title(mol)]),
        ("POINTERS", "10I8", pointers),
        ("ATOM_NAME", "20a4", atom_names(mol)),
        ("CHARGE", "5E16.8", t.charges * AMBER_CHARGE),
        ("ATOMIC_NUMBER", "10I8", mol.numbers),
        ("MASS", "5E16.8", mol.masses),
        ("ATOM_TYPE_INDEX", "10I8", index.ravel() + 1),
        ("NUMBER_EXCLUDED_ATOMS", "10I8", [max(len(row), 1) for row in excluded]),
        ("NONBONDED_PARM_INDEX", "10I8", matrix.ravel()),
        ("RESIDUE_LABEL", "20a4", [RESIDUE]),
        ("RESIDUE_POINTER", "10I8", [1]),
        ("BOND_FORCE_CONSTANT", "5E16.8", t.bonds.values["k"]),
        ("BOND_EQUIL_VALUE", "5E16.8", t.bonds.values["length"]),
        ("ANGLE_FORCE_CONSTANT", "5E16.8", t.angles.values["k"]),
        ("ANGLE_EQUIL_VALUE", "5E16.8", t.angles.values["angle"]),
        ("DIHEDRAL_FORCE_CONSTANT", "5E16.8", k),
        ("DIHEDRAL_PERIODICITY", "5E16.8", periodicity),
        ("DIHEDRAL_PHASE", "5E16.8", phase),
        ("SCEE_SCALE_FACTOR", "5E16.8", scee),
        ("SCNB_SCALE_FACTOR", "5E16.8", scnb),
        ("SOLTY", "5E16.8", np.zeros(n_kinds)),
        ("LENNARD_JONES_ACOEF", "5E16.8", a_coefficients),
        ("LENNARD_JONES_BCOEF", "5E16.8", b_coefficients),
        ("BONDS_INC_HYDROGEN", "10I8", np.ravel(bonds[0])),
        ("BONDS_WITHOUT_HYDROGEN", "10I8", np.ravel(bonds[1])),
        ("ANGLES_INC_HYDROGEN", "10I8", np.ravel(angles[0])),
        ("ANGLES_WITHOUT_HYDROGEN", "10I8", np.ravel(angles[1])),
        ("DIHEDRALS_INC_HYDROGEN", "10I8", np.ravel(with_h)),
        ("DIHEDRALS_WITHOUT_HYDROGEN", "10I8", np.ravel(without_h)),
        ("EXCLUDED_ATOMS_LIST", "10I8", listed),
        ("HBOND_ACOEF", "5E16.8", []),
        ("HBOND_BCOEF", "5E16.8", []),
        ("HBCUT", "5E16.8", []),
        ("AMBER_ATOM_TYPE", "20a4", t.atom_types),
        ("TREE_CHAIN_CLASSIFICATION", "20a4", ["BLA"] * n),
        ("JOIN_ARRAY", "10I8", np.zeros(n, int)),
        ("IROTAT", "10I8", np.zeros(n, int)),
        ("RADIUS_SET", "1a80", ["modified Bondi radii (mbondi)"]),
        ("RADII", "5E16.8", [_BORN.get(s, 1.5) for s in symbols]),
        ("SCREEN", "5E16.8", [_SCREEN.get(s, 0.8) for s in symbols]),
        ("IPOL", "1I8", [0]),
    ]
    lines = ["%VERSION  VERSION_STAMP = V0001.000  DATE = 01/01/00  00:00:00"]
    for name, form, values in sections:
        lines += [f"%FLAG {name}", f"%FORMAT({form})", *_formatted(form, list(values))]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _formatted(form: str, values: list) -> Iterable[str]:
    letter = next(c for c in form if c in "aIE")
    per_line, width = int(form.split(letter)[0]), int(form.split(letter)[1].split(".")[0])
    write = {
        "a": lambda v: f"{v:<{width}s}",
        "I": lambda v: f"{int(v):{width}d}",
        "E": lambda v: f"{float(v):{width}.8E}",
    }[letter]
    for start in range(0, max(len(values), 1), per_line):
        yield "".join(write(v) for v in values[start : start + per_line])


def _split(table: Table, hydrogen: np.ndarray) -> tuple[list, list]:
    """Entries of a prmtop file: first those with hydrogen, then those without.

    Args:
        table: bonds or angles.
        hydrogen: (N,) whether each atom is hydrogen.
    """
    with_h: list[list[int]] = []
    without_h: list[list[int]] = []
    for atoms, row in zip(table.atoms.tolist(), table.rows.tolist(), strict=True):
        entry = [*(3 * a for a in atoms), row + 1]
        (with_h if hydrogen[atoms].any() else without_h).append(entry)
    return with_h, without_h


def _dihedrals(t: Topology):
    """Dihedrals as (atoms, signs, row), and the parameters (5, R) of the R rows.

    One torsion defines each 1-4 pair.  A negative sign of the third atom marks all other torsions,
    and a negative sign of the fourth atom marks impropers.

    Raises:
        InputError: a 1-4 pair has no torsion.
    """
    scales = {
        tuple(sorted(pair)): (1.0 / e, 1.0 / v)
        for pair, e, v in zip(
            t.pairs14.atoms.tolist(),
            t.pairs14.values["coulomb14"][t.pairs14.rows],
            t.pairs14.values["lj14"][t.pairs14.rows],
            strict=True,
        )
    }
    default = next(iter(scales.values()), (SCEE, SCNB))
    left = dict(scales)
    rows: dict[tuple, int] = {}
    entries = []
    for table, improper in ((t.torsions, False), (t.impropers, True)):
        for atoms, row in zip(table.atoms.tolist(), table.rows.tolist(), strict=True):
            if 0 in atoms[2:]:  # zero cannot have a sign
                atoms = atoms[::-1]
            pair = tuple(sorted((atoms[0], atoms[3])))
            scale = None if improper else left.pop(pair, None)
            values = tuple(float(table.values[c][row]) for c in ("k", "periodicity", "phase"))
            key = (*values, *(default if scale is None else scale))
            signs = (1, 1, 1 if scale else -1, -1 if improper else 1)
            entries.append((tuple(atoms), signs, rows.setdefault(key, len(rows))))
    if left:
        raise InputError(
            f"{t.molecule.label}: a prmtop file cannot express the 1-4 pair {next(iter(left))} "
            "without a torsion; use the npz format (jaxff.save)"
        )
    return entries, (np.array(list(rows), float).reshape(-1, 5).T)


def _lennard_jones(t: Topology, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """c12 kcal/mol Å¹² and c6 kcal/mol Å⁶, (P,), of pairs in the prmtop order.

    Args:
        t: the topology.
        kinds: rows of `t.lj` that are the types.
    """
    sigma, epsilon = (t.lj.values[c][kinds] for c in ("sigma", "epsilon"))
    sigma6 = (0.5 * (sigma[:, None] + sigma)) ** 6
    c6 = 4.0 * np.sqrt(epsilon[:, None] * epsilon) * sigma6
    c12 = c6 * sigma6
    place = {int(kind): k for k, kind in enumerate(kinds)}
    for pair, row in zip(t.lj_overrides.atoms.tolist(), t.lj_overrides.rows, strict=True):
        i, j = (place[x] for x in pair)
        c12[i, j] = c12[j, i] = t.lj_overrides.values["c12"][row]
        c6[i, j] = c6[j, i] = t.lj_overrides.values["c6"][row]
    lower = np.tril_indices(len(kinds))
    return c12[lower], c6[lower]


def _check_positions(path, molecule: Molecule) -> None:
    if np.abs(molecule.positions).max(initial=0.0) >= 999.0:
        raise InputError(
            f"{path}: coordinates of 999 Å or more do not fit into the columns of the file; move "
            "the molecule to the origin"
        )


def _title(molecule: Molecule) -> str:
    name = "".join(c if c.isascii() and c.isprintable() else "?" for c in molecule.name)
    return name[:80] or molecule.formula


def _write(path, text: str) -> None:
    with atomic_path(path) as temporary:
        Path(temporary).write_text(text)
