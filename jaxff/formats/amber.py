"""AMBER topologies (prmtop) and coordinates (inpcrd)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxff.errors import InputError
from jaxff.formats.amber_write import write_inpcrd
from jaxff.formats.prmtop import Prmtop
from jaxff.formats.prmtop_write import write_prmtop, write_system_prmtop
from jaxff.formats.restart import positions_of, read_restart, write_restart
from jaxff.gaff.tables import Tables
from jaxff.gaff.topology import Topology
from jaxff.molecule import Molecule
from jaxff.particles import Particles
from jaxff.potential import Potential
from jaxff.sites import VirtualSites


def read(path: Path, companions: list[Path], coulomb_constant: float | None) -> Potential:
    """Read a prmtop file; see `read_amber`.  `companions` may contain an inpcrd file."""
    return read_amber(path, coulomb_constant, *companions)


def write(path: Path, topology: Topology, potential: Potential) -> list[Path]:
    """Write a topology to x.prmtop and x.inpcrd, and return both paths.

    Raises:
        InputError: the files cannot express the force field, or cannot be written.
    """
    coordinates = path.with_suffix(".inpcrd")
    write_prmtop(path, topology)
    write_inpcrd(coordinates, topology.molecule)
    return [path, coordinates]


def read_amber(path, coulomb_constant: float | None = None, coordinates=None) -> Potential:
    """Read the potential of an AMBER topology, in the gas phase and without cutoff.

    Args:
        path: a prmtop file in the %FLAG format.
        coulomb_constant: () kcal/mol Å/e² (None: the value of AMBER, 18.2223²).
        coordinates: an inpcrd file with the positions of ``potential.molecule`` (None: zeros).

    Raises:
        InputError: a file is missing or damaged, or contains interactions that jaxff does not
            compute.
    """
    topology = read_topology(path)
    if coordinates is not None:
        positions = read_inpcrd(coordinates)
        if len(positions) != topology.molecule.n_atoms:
            raise InputError(
                f"{coordinates} has {len(positions)} atoms, but {path} has "
                f"{topology.molecule.n_atoms}: give the coordinates of the same system"
            )
        topology = replace(topology, molecule=topology.molecule.with_positions(positions))
    return topology.potential(coulomb_constant)


def read_topology(path) -> Topology:
    """Read the `Topology` of an AMBER prmtop file; errors as in `read_amber`."""
    return topology_of(Prmtop(path))


def topology_of(file: Prmtop) -> Topology:
    """The `Topology` in the sections of a prmtop file; errors as in `read_amber`."""
    tables = file.tables()
    molecule = Molecule(
        numbers=file.numbers(),
        positions=np.zeros((file.n_atoms, 3)),
        bonds=np.unique(np.sort(tables.bonds.atoms, axis=1), axis=0),
        charge=round(float(tables.charges.sum())),
        name=Path(file.path).stem,
    )
    return Topology(molecule=molecule, **tables.values())


def read_inpcrd(path) -> np.ndarray:
    """Read the positions (N, 3) Å of an AMBER coordinate file; see `read_restart`."""
    return read_restart(path).positions


# -- systems ----------------------------------------------------------------------------------


def read_system(path: Path, coordinates: Path) -> tuple[Particles, Tables]:
    """Read a prmtop file with its coordinates (inpcrd, rst7, NetCDF restart).

    Raises:
        InputError: a file is damaged, the files do not belong together, or jaxff does not compute
            an interaction.
    """
    file = Prmtop(path, boxed=True)
    tables, numbers = file.tables(), file.numbers()
    sites = _extra_points(file, tables, numbers)
    found = read_restart(coordinates)
    starts = file.integers("RESIDUE_POINTER", file.pointers["NRES"]) - 1
    if (np.diff(starts, prepend=-1) < 1).any() or starts[0] != 0 or starts[-1] >= file.n_atoms:
        raise file.error("section RESIDUE_POINTER is damaged; write the topology again")
    atoms = tables.bonds.atoms
    real, hydrogens = (numbers[atoms] > 0).all(axis=1), (numbers[atoms] == 1).all(axis=1)
    particles = Particles(
        numbers=numbers,
        positions=positions_of(found.positions, numbers, sites, coordinates, path),
        box=file.box() if found.box is None else found.box,
        masses=np.where(numbers > 0, file.floats("MASS", file.n_atoms), 0.0),
        atom_names=file.strings("ATOM_NAME", file.n_atoms),
        residues=np.searchsorted(starts, np.arange(file.n_atoms), side="right") - 1,
        residue_names=file.strings("RESIDUE_LABEL", len(starts)),
        bonds=atoms[real & ~hydrogens],  # water has a bond of its hydrogens for SETTLE
        sites=sites,
        name=Path(path).stem,
    )
    return particles, replace(tables, bonds=tables.bonds.rows_where(np.asarray(real)))


def write_system(path: Path, particles: Particles, tables: Tables) -> list[Path]:
    """Write a system to x.prmtop and x.rst7, and return both paths.

    Raises:
        InputError: the files cannot express the system, or cannot be written.
    """
    coordinates = path.with_suffix(".rst7")
    write_system_prmtop(path, tables, particles)
    write_coordinates(coordinates, particles)
    return [path, coordinates]


def write_coordinates(path: Path, particles: Particles) -> None:
    """Write the positions and the box of a system to an ASCII restart file.

    Raises:
        InputError: a coordinate is too large, or the file cannot be written.
    """
    write_restart(path, particles.positions, particles.box, particles.name or "jaxff")


def _extra_points(file: Prmtop, tables: Tables, numbers: np.ndarray) -> VirtualSites:
    """The extra points of water models with four and five points.

    The distance of a point from oxygen is that of their bond in the file.  Extra points are on the
    bisector of H-O-H; a pair of points is at ±54.735° from its plane, as in TIP5P.

    Raises:
        InputError: there are extra points outside of water, or their geometry is missing.
    """
    bonds, points = tables.bonds, np.flatnonzero(numbers == 0)
    length = dict(
        zip(
            map(frozenset, bonds.atoms.tolist()),
            bonds.values["length"][bonds.rows].tolist(),
            strict=True,
        )
    )
    around: dict[int, list[int]] = {}
    for i, j in bonds.atoms[np.isin(numbers[bonds.atoms], (0, 1, 8)).all(axis=1)].tolist():
        around.setdefault(i, []).append(j)
        around.setdefault(j, []).append(i)
    parents, weights, cross = [], [], []
    for point in points.tolist():
        oxygen = next((a for a in around.get(point, ()) if numbers[a] == 8), -1)
        hydrogens = sorted(a for a in around.get(oxygen, ()) if numbers[a] == 1)
        together = sorted(a for a in around.get(oxygen, ()) if numbers[a] == 0)
        if len(hydrogens) != 2 or len(together) > 2 or frozenset(hydrogens) not in length:
            raise file.error(
                f"jaxff supports extra points of water with bonds O–H, H–H and O–EP only, but "
                f"atom {point} is another one; write the topology with a water model of AMBER"
            )
        r, half = length[frozenset((oxygen, hydrogens[0]))], 0.5 * length[frozenset(hydrogens)]
        distance, height = length[frozenset((oxygen, point))], np.sqrt(r**2 - half**2)
        tilt = 0.0 if len(together) == 1 else np.radians(54.735)
        weight = np.cos(tilt) * distance / height
        parents.append([oxygen, *hydrogens])
        weights.append([1.0 - weight, 0.5 * weight, 0.5 * weight])
        side = 1.0 if point == together[0] else -1.0
        cross.append(side * np.sin(tilt) * distance / (2.0 * half * height))
    return VirtualSites(
        points.astype(np.int32),
        np.array(parents, np.int32).reshape(-1, 3),
        np.array(weights).reshape(-1, 3),
        np.array(cross),
    )
