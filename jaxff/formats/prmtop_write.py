"""Writing of AMBER topologies (prmtop)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from jaxff.cell import OCTAHEDRON, amber_box
from jaxff.errors import InputError
from jaxff.formats.amber_write import RESIDUE, atom_names, title_of, write_text
from jaxff.gaff.bonded import Table
from jaxff.gaff.born_radii import intrinsic_radii, screening_factors
from jaxff.gaff.tables import Tables
from jaxff.gaff.topology import KEEP, SCEE, SCNB, Topology
from jaxff.molecule import neighbours_of
from jaxff.particles import Particles
from jaxff.units import AMBER_CHARGE

OTHER_RADIUS = 1.5  # Å, intrinsic radius of ions and virtual sites


def write_prmtop(path, topology: Topology) -> None:
    """Write the AMBER topology of a molecule in the format of https://ambermd.org/prmtop.pdf.

    Raises:
        InputError: a 1-4 pair has no torsion, or the file cannot be written.
    """
    molecule = topology.molecule
    particles = Particles(
        numbers=molecule.numbers,
        positions=molecule.positions,
        box=None,
        masses=molecule.masses,
        atom_names=tuple(atom_names(molecule)),
        residues=np.zeros(molecule.n_atoms, int),
        residue_names=(RESIDUE,),
        bonds=molecule.bonds,
        name=molecule.label,
    )
    write_text(path, _prmtop(topology, particles, title_of(molecule)))


def write_system_prmtop(path, tables: Tables, particles: Particles) -> None:
    """Write the AMBER topology of a system, with its box and extra points.

    Water molecules get the bonds H–H and O–EP that AMBER needs for rigid water and extra points.
    Their force constant is zero, so that the energy does not change.

    Raises:
        InputError: a 1-4 pair has no torsion, a virtual site is not that of a water model with four
            points, or the file cannot be written.
    """
    water = np.unique(particles.residues[particles.waters[:, 0]])
    names = np.array(particles.residue_names, object)
    names[water] = "WAT"  # AMBER and OpenMM recognise water by this name
    atoms = np.array(particles.atom_names, object)
    atoms[particles.sites.atoms] = "EPW"
    particles = replace(particles, residue_names=tuple(names), atom_names=tuple(atoms))
    tables = replace(tables, bonds=_with_water_bonds(path, tables, particles))
    title = particles.name.encode("ascii", "replace").decode()[:80] or "jaxff"
    write_text(path, _prmtop(tables, particles, title))


def _with_water_bonds(path, tables: Tables, particles: Particles) -> Table:
    waters, fixed = particles.waters, particles.constraints
    rest = tables.bonds.values["length"][tables.bonds.rows].tolist()
    bonds = tables.bonds
    present = dict(zip(map(tuple, np.sort(bonds.atoms, axis=1).tolist()), rest, strict=True))
    lengths = dict(zip(map(tuple, waters.tolist()), tables.water_lengths(waters), strict=True))
    lengths |= dict(zip(map(tuple, fixed.waters.tolist()), fixed.water_lengths, strict=True))
    added: dict[tuple[int, int], float] = {}
    for (oxygen, first, second), (r, h) in lengths.items():
        sides = {(oxygen, first): r, (oxygen, second): r, (first, second): h}
        added |= {
            pair: float(d)
            for pair, d in sides.items()
            if tuple(sorted(pair)) not in present and np.isfinite(d)
        }
    sites, known = particles.sites, set(map(tuple, waters.tolist()))
    for k, (site, parents) in enumerate(zip(sites.atoms.tolist(), sites.parents, strict=True)):
        oxygen, first, second = parents.tolist()
        weights = sites.weights[k]
        if sites.cross[k] or abs(weights[1] - weights[2]) > 1e-9 or tuple(parents) not in known:
            raise InputError(
                f"{path}: the virtual site {site} is not that of a water model with four points, "
                "which AMBER files need; write an OpenMM System (xml)"
            )
        r, h = (
            present[pair] if (pair := tuple(sorted(side))) in present else added[side]
            for side in ((oxygen, first), (first, second))
        )
        added[(oxygen, site)] = 2.0 * weights[1] * np.sqrt(r**2 - 0.25 * h**2)
    count = len(added)
    return Table.of(
        np.concatenate([bonds.atoms, np.array(list(added), int).reshape(-1, 2)]),
        [*(bonds.labels[row] for row in bonds.rows), *["water"] * count],
        {
            "k": np.concatenate([bonds.values["k"][bonds.rows], np.zeros(count)]),
            "length": np.concatenate(
                [bonds.values["length"][bonds.rows], np.array(list(added.values()))]
            ),
        },
    )


def _prmtop(t: Tables, particles: Particles, title: str) -> str:
    n, residues = len(particles), particles.residues
    starts = np.flatnonzero(np.diff(residues, prepend=-1))
    hydrogen = particles.numbers == 1
    bonds, angles = _split(t.bonds, hydrogen), _split(t.angles, hydrogen)
    dihedrals, (k, periodicity, phase, scee, scnb) = _dihedrals(t, title)
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
    pointers[[6, 7, 10, 11]] = len(with_h), len(without_h), len(listed), len(starts)
    pointers[[12, 13, 14]] = len(bonds[1]), len(angles[1]), len(without_h)
    pointers[[15, 16, 17, 18]] = len(t.bonds.labels), len(t.angles.labels), len(k), n_kinds
    pointers[[28, 30]] = np.diff(starts, append=n).max(), len(particles.sites)
    box, pointers[27] = _box_sections(particles)
    symbols = particles.symbols
    around = neighbours_of(particles.bonds, n)
    radii = intrinsic_radii(symbols, around, "hct", other=OTHER_RADIUS)
    sections = [
        ("TITLE", "20a4", [title]),
        ("POINTERS", "10I8", pointers),
        ("ATOM_NAME", "20a4", [name[:4] for name in particles.atom_names]),
        ("CHARGE", "5E16.8", t.charges * AMBER_CHARGE),
        ("ATOMIC_NUMBER", "10I8", particles.numbers),
        ("MASS", "5E16.8", particles.masses),
        ("ATOM_TYPE_INDEX", "10I8", index.ravel() + 1),
        ("NUMBER_EXCLUDED_ATOMS", "10I8", [max(len(row), 1) for row in excluded]),
        ("NONBONDED_PARM_INDEX", "10I8", matrix.ravel()),
        ("RESIDUE_LABEL", "20a4", [name[:4] for name in particles.residue_names]),
        ("RESIDUE_POINTER", "10I8", starts + 1),
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
        ("AMBER_ATOM_TYPE", "20a4", [name[:4] for name in t.atom_types]),
        ("TREE_CHAIN_CLASSIFICATION", "20a4", ["BLA"] * n),
        ("JOIN_ARRAY", "10I8", np.zeros(n, int)),
        ("IROTAT", "10I8", np.zeros(n, int)),
        *box,
        ("RADIUS_SET", "1a80", ["modified Bondi radii (mbondi)"]),
        ("RADII", "5E16.8", radii),
        ("SCREEN", "5E16.8", screening_factors(symbols, "hct")),
        ("IPOL", "1I8", [0]),
    ]
    lines = ["%VERSION  VERSION_STAMP = V0001.000  DATE = 01/01/00  00:00:00"]
    for name, form, values in sections:
        lines += [f"%FLAG {name}", f"%FORMAT({form})", *_formatted(form, list(values))]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _box_sections(particles: Particles) -> tuple[list[tuple], int]:
    """Sections that describe the box and the molecules, and the value of IFBOX."""
    if particles.box is None:
        return [], 0
    lengths, angles = amber_box(particles.box)
    counts = np.bincount(particles.molecules)
    molecules = particles.molecules[np.argsort(particles.molecules, kind="stable")]
    if not np.array_equal(molecules, particles.molecules):
        raise InputError(
            f"{particles.name}: the atoms of each molecule must be contiguous in AMBER files; "
            "reorder the atoms"
        )
    first = int(particles.waters[0, 0]) if len(particles.waters) else len(particles)
    solvent = [
        particles.residues[first] if first < len(particles) else len(particles.residue_names),
        len(counts),
        particles.molecules[first] + 1 if first < len(particles) else len(counts) + 1,
    ]
    kind = 1 if np.allclose(angles, 90.0) else 2 if np.allclose(angles, OCTAHEDRON) else 3
    return [
        ("SOLVENT_POINTERS", "3I8", solvent),
        ("ATOMS_PER_MOLECULE", "10I8", counts),
        ("BOX_DIMENSIONS", "5E16.8", [angles[1], *lengths]),
    ], kind


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


def _dihedrals(t: Tables, who: str):
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
            f"{who}: a prmtop file cannot express the 1-4 pair {next(iter(left))} "
            f"without a torsion; {KEEP}"
        )
    return entries, (np.array(list(rows), float).reshape(-1, 5).T)


def _lennard_jones(t: Tables, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """c12 kcal/mol Å¹² and c6 kcal/mol Å⁶, (P,), of pairs in the prmtop order.

    Args:
        t: the tables.
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
