"""OpenMM Systems with periodic boxes, constraints and virtual sites, and their PDB files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from ase.data import chemical_symbols

from jaxff.cell import box_of
from jaxff.errors import InputError
from jaxff.formats import amber
from jaxff.formats.force_fields import optional_module
from jaxff.formats.openmm import NM, SystemXml
from jaxff.formats.pdb import Pdb, read_pdb, write_pdb
from jaxff.formats.restart import positions_of
from jaxff.gaff.tables import Tables
from jaxff.molecule import elements_of_masses
from jaxff.npz import atomic_path
from jaxff.particles import Constraints, Particles
from jaxff.sites import VirtualSites

BOX_TOLERANCE = 0.01  # Å: a PDB file has three decimals


def read_system(path: Path, coordinates: Path) -> tuple[Particles, Tables]:
    """Read an OpenMM System with the positions and names of a PDB file.

    If the boxes of both files differ by more than their rounding errors, the box of the PDB file is
    used.

    Raises:
        InputError: a file is damaged, the files do not belong together, or jaxff does not compute
            an interaction.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; check the path")
    pdb = read_pdb(coordinates)
    try:
        xml = SystemXml(Path(path).read_text(), boxed=True)
        return particles_of(xml, pdb, path, coordinates)
    except InputError as error:
        known = str(path) in str(error) or str(coordinates) in str(error)
        raise error if known else InputError(f"{path}: {error}") from error
    except (ElementTree.ParseError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not an OpenMM System ({error}); write the file again with XmlSerializer"
        ) from error


def particles_of(xml: SystemXml, pdb: Pdb, path, coordinates) -> tuple[Particles, Tables]:
    """The particles and the force field of a System.

    Args:
        xml: the System.
        pdb: positions, names and elements.
        path, coordinates: the files, for messages.

    Raises:
        InputError: the files do not belong together, or jaxff does not compute an interaction.
    """
    sites, masses = _sites(xml), np.array([float(p.attrib["mass"]) for p in xml.particles])
    real = np.ones(len(masses), bool)
    real[sites.atoms] = False
    in_pdb = np.arange(len(masses)) if len(pdb.positions) == len(masses) else np.flatnonzero(real)
    numbers = np.where(real, 1, 0)
    positions = positions_of(pdb.positions, numbers, sites, coordinates, path)
    numbers = _numbers(pdb.numbers, masses, real, in_pdb, coordinates)
    names, residues = np.full(len(masses), "EP", object), np.full(len(masses), -1)
    names[in_pdb] = np.array(pdb.atom_names, object)
    residues[in_pdb] = pdb.residues
    missing = sites.atoms[residues[sites.atoms] < 0]
    residues[missing] = residues[sites.parents[residues[sites.atoms] < 0, 0]]
    tables, (pairs, lengths) = xml.tables(numbers), xml.constraints()
    links = np.concatenate([tables.bonds.atoms, pairs, in_pdb[pdb.bonds]])
    links = links[real[links].all(axis=1)]
    bonds = links[~(numbers[links] == 1).all(axis=1)]  # rigid water has a constraint H–H
    particles = Particles(
        numbers=numbers,
        positions=positions,
        box=_box(xml, pdb),
        masses=np.where(real, masses, 0.0),
        atom_names=tuple(names),
        residues=residues,
        residue_names=pdb.residue_names,
        bonds=bonds,
        sites=sites,
        constraints=constraints_of(pairs, lengths, numbers),
        name=Path(path).stem,
    )
    return particles, tables


def _numbers(
    given: np.ndarray, masses: np.ndarray, real: np.ndarray, in_pdb: np.ndarray, coordinates
) -> np.ndarray:
    """Atomic numbers (N,): those of the PDB file, or else of the elements with these masses.

    Args:
        given: numbers of the particles in the PDB file; −1 if unknown.
        masses: (N,) amu.
        real: (N,) whether each particle is an atom.
        in_pdb: indices of the particles in the PDB file.
        coordinates: the PDB file, for messages.

    Raises:
        InputError: an element is unknown, or a mass belongs to another element.
    """
    numbers, by_mass = np.zeros(len(masses), int), elements_of_masses(masses)[0]
    numbers[in_pdb] = given
    unknown = numbers < 0
    numbers[unknown] = by_mass[unknown]
    wrong = real != (numbers > 0)
    # Masses of hydrogens and of the atoms bonded to them may be repartitioned, but no other masses.
    light, heavy = numbers == 1, numbers > 10
    wrong |= (light & (masses > 5.0)) | (heavy & (np.abs(by_mass - numbers) > 3))
    wrong |= real & ~light & (masses < 5.0) & (numbers > 4)
    if wrong.any():
        atom = int(np.argmax(wrong))
        raise InputError(
            f"{coordinates}: atom {atom} is {chemical_symbols[numbers[atom]]}, but the System has "
            f"the mass {masses[atom]:g} amu there; give the PDB file with the same order of atoms"
        )
    return np.where(real, numbers, 0)


def _box(xml: SystemXml, pdb: Pdb) -> np.ndarray | None:
    if not xml.periodic:
        return pdb.box
    rows = [xml.root.find(f"PeriodicBoxVectors/{name}") for name in "ABC"]
    vectors = [[float(row.attrib[x]) for x in "xyz"] for row in rows if row is not None]
    box = box_of(NM * np.array(vectors), "PeriodicBoxVectors")
    close = pdb.box is None or np.abs(pdb.box - box).max() < BOX_TOLERANCE
    return box if close else pdb.box


def _two(row) -> tuple[list[int], list[float], float]:
    i, j = int(row["p1"]), int(row["p2"])
    return [i, j, i], [float(row["w1"]), float(row["w2"]), 0.0], 0.0


def _three(row) -> tuple[list[int], list[float], float]:
    parents = [int(row[f"p{k}"]) for k in (1, 2, 3)]
    return parents, [float(row[f"w{k}"]) for k in (1, 2, 3)], 0.0


def _out_of_plane(row) -> tuple[list[int], list[float], float]:
    parents = [int(row[f"p{k}"]) for k in (1, 2, 3)]
    second, third = float(row["w12"]), float(row["w13"])
    return parents, [1.0 - second - third, second, third], float(row["wc"]) / NM


_KINDS: dict[str, Callable] = {
    "TwoParticleAverageSite": _two,
    "ThreeParticleAverageSite": _three,
    "OutOfPlaneSite": _out_of_plane,
}


def _sites(xml: SystemXml) -> VirtualSites:
    atoms, found = [], []
    for index, particle in enumerate(xml.particles):
        for site in particle:
            if site.tag not in _KINDS:
                raise InputError(
                    f"particle {index} is a {site.tag}, but jaxff supports {', '.join(_KINDS)}; "
                    "use another water model"
                )
            atoms.append(index)
            found.append(_KINDS[site.tag](site.attrib))
    if not atoms:
        return VirtualSites.none()
    parents, weights, cross = zip(*found, strict=True)
    parents = np.array(parents, np.int32)
    if (
        (parents < 0).any()
        or (parents >= len(xml.particles)).any()
        or np.isin(parents, atoms).any()
    ):
        raise InputError(
            "the atoms of a virtual site must be particles with mass; correct the site"
        )
    return VirtualSites(np.array(atoms, np.int32), parents, np.array(weights), np.array(cross))


def constraints_of(pairs: np.ndarray, lengths: np.ndarray, numbers: np.ndarray) -> Constraints:
    """Rigid water molecules and other constrained bonds among constrained pairs.

    Args:
        pairs: (C, 2) atoms of all constraints.
        lengths: (C,) Å.
        numbers: (N,) atomic numbers.
    """
    elements = np.sort(numbers[pairs], axis=1)
    between = {
        tuple(sorted(pair)): (length, k)
        for k, (pair, length) in enumerate(zip(pairs.tolist(), lengths.tolist(), strict=True))
    }
    oxygen_of = {}
    for k in np.flatnonzero((elements == [1, 8]).all(axis=1)).tolist():
        i, j = pairs[k].tolist()
        oxygen_of.update({i: j} if numbers[i] == 1 else {j: i})
    waters, sizes, used = [], [], set()
    for k in np.flatnonzero((elements == [1, 1]).all(axis=1)).tolist():
        h1, h2 = sorted(pairs[k].tolist())
        oxygen = oxygen_of.get(h1)
        if oxygen is not None and oxygen_of.get(h2) == oxygen:
            (r, first), (_, second) = (between[tuple(sorted((oxygen, h)))] for h in (h1, h2))
            waters.append([oxygen, h1, h2])
            sizes.append([r, lengths[k]])
            used |= {k, first, second}
    others = np.array([k not in used for k in range(len(pairs))], bool)
    return Constraints(
        np.array(waters, np.int32).reshape(-1, 3),
        np.array(sizes).reshape(-1, 2),
        pairs[others].astype(np.int32),
        lengths[others],
    )


def write_system(path: Path, particles: Particles, tables: Tables) -> list[Path]:
    """Write an OpenMM System x.xml, with PME if there is a box, and x.pdb; return both paths.

    The cutoff is 9 Å, or half of the smallest width of the box; OpenMM can change it.

    Raises:
        InputError: OpenMM is not installed, or the files cannot express the force field.
    """
    app = optional_module("openmm.app", "OpenMM", "openmm")
    import openmm

    with tempfile.TemporaryDirectory() as folder:
        files = amber.write_system(Path(folder) / "x.prmtop", particles, tables)
        topology = app.AmberPrmtopFile(str(files[0]))
        settings = {"nonbondedMethod": app.NoCutoff}
        if particles.box is not None:
            cutoff = min(0.9, 0.49 * float(np.diag(particles.box).min()) / NM)
            settings = {"nonbondedMethod": app.PME, "nonbondedCutoff": cutoff}
        system = topology.createSystem(**settings, rigidWater=False, removeCMMotion=False)
    for (i, j), length in zip(*particles.constraints.pairs(), strict=True):
        system.addConstraint(int(i), int(j), length / NM)
    if particles.box is not None:
        system.setDefaultPeriodicBoxVectors(*(particles.box / NM).tolist())
    for index, mass in enumerate(particles.masses.tolist()):
        system.setParticleMass(index, mass)
    pdb = path.with_suffix(".pdb")
    write_coordinates(pdb, particles)
    with atomic_path(path) as temporary:
        Path(temporary).write_text(openmm.XmlSerializer.serialize(system))
    return [path, pdb]


def write_coordinates(path: Path, particles: Particles) -> None:
    """Write the positions, names and box of a system to a PDB file.

    Raises:
        InputError: a coordinate is too large, or the file cannot be written.
    """
    write_pdb(path, particles)
