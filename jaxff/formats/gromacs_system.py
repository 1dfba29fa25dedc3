"""GROMACS topologies of systems: read by OpenMM, and written by jaxff."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import numpy as np

from jaxff.cell import box_of
from jaxff.errors import InputError
from jaxff.formats.force_fields import optional_module
from jaxff.formats.gromacs import read_gro
from jaxff.formats.openmm import SystemXml
from jaxff.formats.openmm_system import particles_of
from jaxff.formats.pdb import Pdb
from jaxff.gaff.tables import INTERACTIONS, Tables
from jaxff.gaff.topology import SCEE, SCNB
from jaxff.npz import atomic_path
from jaxff.particles import Particles
from jaxff.units import KJ_MOL

NM = 10.0  # Å
WATER_NAMES = ("OW", "HW1", "HW2", "MW")


def read_system(path: Path, coordinates: Path) -> tuple[Particles, Tables]:
    """Read a GROMACS topology (top) with the positions and the box of a gro file.

    Water with settles is rigid.  Included files must be in the folder of the topology or in the
    GROMACS installation.

    Raises:
        InputError: OpenMM is not installed or cannot read the topology, the files do not belong
            together, or jaxff does not compute an interaction.
    """
    app = optional_module("openmm.app", "OpenMM", "formats")
    import openmm

    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    gro = read_gro(coordinates)
    _check_sites(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # OpenMM leaves the files open
            top = app.GromacsTopFile(str(path))
            system = top.createSystem(rigidWater=True, removeCMMotion=False)
        text = openmm.XmlSerializer.serialize(system)
    except Exception as error:
        raise InputError(
            f"{path}: OpenMM cannot read the topology ({error}); correct the file, or give an "
            "AMBER topology"
        ) from error
    atoms = list(top.topology.atoms())
    names = tuple(atom.name for atom in atoms)
    if len(gro.names) == len(names):
        # OpenMM changes OW to O, for example.
        differ = [a[:1] != b[:1] for a, b in zip(gro.names, names, strict=True)]
        if any(differ):
            atom = differ.index(True)
            raise InputError(
                f"{coordinates}: atom {atom} is {gro.names[atom]}, but in {path} it is "
                f"{names[atom]}; give the coordinates with the same order of atoms"
            )
        names = gro.names
    sites = [system.isVirtualSite(i) for i in range(len(atoms))]
    numbers = [
        0 if site else -1 if atom.element is None else atom.element.atomic_number
        for atom, site in zip(atoms, sites, strict=True)
    ]
    named = Pdb(
        np.array(numbers),
        gro.positions,
        _box(gro.box, coordinates),
        names,
        np.array([atom.residue.index for atom in atoms]),
        tuple(residue.name for residue in top.topology.residues()),
        np.zeros((0, 2), int),
    )
    if len(gro.positions) != len(atoms):
        raise InputError(
            f"{coordinates} has {len(gro.positions)} atoms, but {path} has {len(atoms)}: give the "
            "coordinates of the same system"
        )
    try:
        return particles_of(SystemXml(text, boxed=True), named, path, coordinates)
    except InputError as error:
        known = str(path) in str(error) or str(coordinates) in str(error)
        raise error if known else InputError(f"{path}: {error}") from error


def _check_sites(path: Path) -> None:
    """Check the atoms of virtual sites; for wrong ones OpenMM ends the process.

    Raises:
        InputError: the file is not text, or an atom of a virtual site does not exist.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file; give a GROMACS topology") from error
    section, count = "", 0
    for number, line in enumerate(lines):
        words = line.partition(";")[0].split()
        if line.lstrip().startswith("["):
            section = line.strip(" []\t")
            count = 0 if section == "moleculetype" else count
        elif words and not words[0].startswith("#") and section == "atoms":
            count += 1
        elif words and section.startswith("virtual_sites"):
            atoms = words[: 1 + int(section[-1])] if section[-1].isdigit() else []
            if not all(a.isdecimal() and 1 <= int(a) <= count for a in atoms):
                raise InputError(
                    f"{path}: line {number + 1}: the atoms of a virtual site must be from 1 to "
                    f"{count}; correct the line"
                )


def _box(values: list[float], path) -> np.ndarray | None:
    """The box (3, 3) Å of the last line of a gro file; None if it is zero."""
    if not any(values):
        return None
    if len(values) not in (3, 9):
        raise InputError(f"{path}: the box must have 3 or 9 numbers; write the file again")
    xx, yy, zz, xy, xz, yx, yz, zx, zy = [*values, *[0.0] * (9 - len(values))]
    return box_of(NM * np.array([[xx, xy, xz], [yx, yy, yz], [zx, zy, zz]]), str(path))


def write_system(path: Path, particles: Particles, tables: Tables) -> list[Path]:
    """Write a system to x.top and x.gro, and return both paths.

    Raises:
        InputError: the files cannot express the system, or cannot be written.
    """
    text = _top(path, particles, tables)
    gro = path.with_suffix(".gro")
    write_coordinates(gro, particles)
    with atomic_path(path) as temporary:
        Path(temporary).write_text(text)
    return [path, gro]


def write_coordinates(path: Path, particles: Particles) -> None:
    """Write the positions and the box of a system to a gro file.

    Raises:
        InputError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        Path(temporary).write_text(_gro(particles))


def _names(particles: Particles) -> tuple[np.ndarray, np.ndarray]:
    """Atom names (N,) and residue names, with those of GROMACS for water."""
    atoms = np.array(particles.atom_names, object)
    residues = np.array(particles.residue_names, object)
    waters, sites = particles.waters, particles.sites
    atoms[waters] = WATER_NAMES[:3]
    atoms[sites.atoms[np.isin(sites.parents[:, 0], waters)]] = WATER_NAMES[3]
    residues[particles.residues[waters[:, 0]]] = "SOL"
    return atoms, residues


def _gro(particles: Particles) -> str:
    atoms, residues = _names(particles)
    lines = [particles.name or "jaxff", f"{len(particles):5d}"]
    for i, (residue, R) in enumerate(
        zip(particles.residues.tolist(), (particles.positions / NM).tolist(), strict=True)
    ):
        lines.append(
            f"{(residue + 1) % 100000:5d}{residues[residue][:5]:<5s}{atoms[i][:5]:>5s}"
            f"{(i + 1) % 100000:5d}{R[0]:13.8f}{R[1]:13.8f}{R[2]:13.8f}"
        )
    box = np.zeros((3, 3)) if particles.box is None else particles.box / NM
    values = np.diag(box).tolist()
    if np.count_nonzero(box) > 3:
        values += [*box[0, 1:], box[1, 0], box[1, 2], *box[2, :2]]
    return "\n".join([*lines, " ".join(f"{x:.8f}" for x in values)]) + "\n"


def _top(path, particles: Particles, tables: Tables) -> str:
    scales = {c: np.unique(tables.pairs14.values[c].round(7)) for c in ("lj14", "coulomb14")}
    if len(tables.lj_overrides.atoms) or any(len(x) > 1 for x in scales.values()):
        raise InputError(
            f"{path}: jaxff writes no separate Lennard-Jones terms of pairs of types, and only one "
            "scale factor of 1-4 pairs, to GROMACS topologies; write a prmtop file"
        )
    lj, coulomb = (
        float(tables.pairs14.values[c][0]) if len(scales[c]) else default
        for c, default in (("lj14", 1.0 / SCNB), ("coulomb14", 1.0 / SCEE))
    )
    types = [f"{label}_{row}" for row, label in enumerate(tables.lj.labels)]
    lines = ["; written by jaxff", "", "[ defaults ]", "; nbfunc comb-rule gen-pairs LJ QQ"]
    lines += [f"1 2 yes {lj:.9f} {coulomb:.9f}", "", "[ atomtypes ]"]
    lines.append("; name at.num mass charge ptype sigma epsilon")
    for row, name in enumerate(types):
        members = np.flatnonzero(tables.lj.rows == row)
        if len(members):
            atom = members[0]
            sigma, epsilon = (tables.lj.values[c][row] for c in ("sigma", "epsilon"))
            lines.append(
                f"{name} {particles.numbers[atom]} {particles.masses[atom]:.6f} 0.0 "
                f"{'A' if particles.numbers[atom] else 'D'} {sigma / NM:.12g} "
                f"{epsilon / KJ_MOL:.12g}"
            )
    molecules = particles.molecules
    if (np.diff(molecules) < 0).any():
        raise InputError(
            f"{path}: the atoms of each molecule must be contiguous in GROMACS files; reorder the "
            "atoms"
        )
    starts = np.flatnonzero(np.diff(molecules, prepend=-1))
    texts: dict[str, str] = {}
    order: list[list] = []
    for text, residue in _molecules(particles, tables, types, starts):
        if text not in texts:
            names = (f"{residue}_{k}" if k > 1 else residue for k in itertools.count(1))
            texts[text] = next(name for name in names if name not in texts.values())
            lines += ["", "[ moleculetype ]", "; name nrexcl", f"{texts[text]} 3", text]
        if order and order[-1][0] == texts[text]:
            order[-1][1] += 1
        else:
            order.append([texts[text], 1])
    lines += ["", "[ system ]", particles.name or "jaxff", "", "[ molecules ]"]
    return "\n".join([*lines, *(f"{name} {count}" for name, count in order)]) + "\n"


# Sections of the tables: name in the file, function, and the factors of the columns.
_SECTIONS = {
    "bonds": ("bonds", 1, (("length", 1.0 / NM), ("k", 2.0 * NM**2 / KJ_MOL))),
    "pairs14": ("pairs", 1, ()),
    "angles": ("angles", 1, (("angle", 180.0 / np.pi), ("k", 2.0 / KJ_MOL))),
    "torsions": ("dihedrals", 9, (("phase", 180.0 / np.pi), ("k", 1.0 / KJ_MOL))),
    "impropers": ("dihedrals", 4, (("phase", 180.0 / np.pi), ("k", 1.0 / KJ_MOL))),
}


def _molecules(particles: Particles, tables: Tables, types: list[str], starts: np.ndarray):
    """Yield the sections and the residue name of each molecule."""
    names, residues = _names(particles)
    of_atom, ends = particles.molecules, [*starts[1:], len(particles)]
    entries: dict[str, list[list[str]]] = {
        key: [[] for _ in starts] for key in (*INTERACTIONS, "exclusions", "sites", "settles")
    }
    for key in INTERACTIONS:
        table = getattr(tables, key)
        section, function, columns = _SECTIONS[key]
        values = [" ".join(f"{table.values[c][row] * f:.12g}" for c, f in columns)
                  for row in range(len(table.labels))]  # fmt: skip
        if section == "dihedrals":
            values = [
                f"{text} {int(n)}"
                for text, n in zip(values, table.values["periodicity"], strict=True)
            ]
        for atoms, row in zip(table.atoms.tolist(), table.rows.tolist(), strict=True):
            first = starts[of_atom[atoms[0]]]
            where = " ".join(str(a - first + 1) for a in atoms)
            text = values[row] if columns else ""
            entries[key][of_atom[atoms[0]]].append(f"{where} {function} {text}".rstrip())
    for i, j in np.sort(tables.exclusions, axis=1).tolist():
        entries["exclusions"][of_atom[i]].append(
            f"{i - starts[of_atom[i]] + 1} {j - starts[of_atom[i]] + 1}"
        )
    sites = particles.sites
    for k, site in enumerate(sites.atoms.tolist()):
        first = starts[of_atom[site]]
        where = " ".join(str(a - first + 1) for a in (site, *sites.parents[k].tolist()))
        _, second, third = sites.weights[k]
        out = f"4 {second:.12g} {third:.12g} {sites.cross[k] * NM:.12g}"
        entries["sites"][of_atom[site]].append(
            f"{where} {out if sites.cross[k] else f'1 {second:.12g} {third:.12g}'}"
        )
    fixed = particles.constraints
    for water, (r, h) in zip(fixed.waters.tolist(), fixed.water_lengths / NM, strict=True):
        entries["settles"][of_atom[water[0]]].append(f"1 1 {r:.12g} {h:.12g}")
    for m, (first, end) in enumerate(zip(starts, ends, strict=True)):
        lines = ["", "[ atoms ]", "; nr type resnr residue atom cgnr charge mass"]
        offset = particles.residues[first] - 1
        for i in range(first, end):
            residue = particles.residues[i]
            lines.append(
                f"{i - first + 1} {types[tables.lj.rows[i]]} {residue - offset} "
                f"{residues[residue]} {names[i]} {i - first + 1} {tables.charges[i]:.12g} "
                f"{particles.masses[i]:.8g}"
            )
        rigid = entries["settles"][m]
        flexible: list[str] = []
        for key in INTERACTIONS:
            if entries[key][m]:
                section = ["", f"[ {_SECTIONS[key][0]} ]", *entries[key][m]]
                (flexible if rigid and key in ("bonds", "angles") else lines).extend(section)
        settles = ["", "[ settles ]", *rigid] if rigid else []
        if flexible:
            settles = ["", "#ifdef FLEXIBLE", *flexible, "", "#else", *settles, "", "#endif"]
        lines += settles
        if entries["sites"][m]:
            lines += ["", "[ virtual_sites3 ]", *entries["sites"][m]]
        if entries["exclusions"][m]:
            lines += ["", "[ exclusions ]", *entries["exclusions"][m]]
        yield "\n".join(lines), str(residues[particles.residues[first]])
