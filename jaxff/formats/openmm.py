"""OpenMM Systems (xml): they are read without OpenMM and written by OpenMM."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from ase.data import chemical_symbols

from jaxff.errors import InputError
from jaxff.formats import amber
from jaxff.formats.force_fields import optional_module
from jaxff.gaff.bonded import Table
from jaxff.gaff.tables import Tables
from jaxff.gaff.topology import KEEP, SCEE, SCNB, Topology, centre_third
from jaxff.molecule import Molecule, elements_of_masses, perceive_bonds
from jaxff.npz import atomic_path, usable
from jaxff.potential import Params, Potential
from jaxff.terms.morse import MorseBond
from jaxff.units import KJ_MOL

NM = 10.0  # Å
_FORCES = {
    "HarmonicBondForce",
    "HarmonicAngleForce",
    "PeriodicTorsionForce",
    "NonbondedForce",
    "CMMotionRemover",
}
# Forces whose interactions are summed if a System contains several of them.
_SUMS = {"HarmonicBondForce", "HarmonicAngleForce", "PeriodicTorsionForce"}
# Forces of a thermostat or barostat, which are settings of dynamics in jaxff.
_WITHOUT_ENERGY = {
    "AndersenThermostat",
    "MonteCarloAnisotropicBarostat",
    "MonteCarloBarostat",
    "MonteCarloFlexibleBarostat",
    "MonteCarloMembraneBarostat",
}


def read(path: Path, companions: list[Path], coulomb_constant: float | None) -> Potential:
    """Read an OpenMM System.

    Args:
        path: the xml file.
        companions: a molecule file with elements and positions, or nothing.
        coulomb_constant: () kcal/mol Å/e², or None; see `read_force_field`.

    Raises:
        InputError: a file cannot be read, or jaxff does not compute an interaction.
    """
    geometry = Molecule.read(companions[0]) if companions else None
    try:
        system = SystemXml(path.read_text())
        topology = system.topology(path.stem, geometry)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: not an OpenMM System ({error}); write the file again with XmlSerializer"
        ) from error
    return topology.potential(coulomb_constant)


class SystemXml:
    """The forces of an OpenMM System with the functional form of AMBER.

    Args:
        text: contents of the xml file.
        boxed: whether a periodic box, constraints and virtual sites are accepted.

    Raises:
        InputError: in every method, if the System is damaged or not supported.
    """

    def __init__(self, text: str, boxed: bool = False):
        self.root = ElementTree.fromstring(text)
        forces = self.root.findall("Forces/Force")
        if boxed:
            forces = [force for force in forces if force.attrib["type"] not in _WITHOUT_ENERGY]
        self.forces: dict[str, ElementTree.Element] = {}
        repeated = []
        for force in forces:
            kind = force.attrib["type"]
            known = self.forces.setdefault(kind, force)
            if known is not force and kind in _SUMS:
                known.extend(force)
            elif known is not force:
                repeated.append(kind)
        self.particles = self.root.findall("Particles/Particle")
        unknown = sorted(set(self.forces) - _FORCES)
        constrained = not boxed and self.root.findall("Constraints/*")
        if unknown or repeated or constrained:
            several = [f"more than one {kind}" for kind in sorted(set(repeated))]
            what = ", ".join(unknown + several) or "constraints"
            raise InputError(f"jaxff does not support {what}: create the System without them")
        nonbonded = self.forces.get("NonbondedForce")
        if nonbonded is None or (nonbonded.attrib["method"] != "0" and not boxed):
            raise InputError(
                "the NonbondedForce is missing or has a cutoff: create the System with NoCutoff"
            )
        self.periodic = int(nonbonded.attrib["method"]) > 1
        periodic = any(f.get("usesPeriodic", "0") != "0" for f in forces)
        for wrong, what in (
            (periodic and not boxed, "periodic forces"),
            (nonbonded.findall("*/Offset"), "parameter offsets"),
            (any(len(p) for p in self.particles) and not boxed, "virtual sites"),
        ):
            if wrong:
                raise InputError(f"jaxff does not support {what}: create the System without them")

    def _columns(
        self, force: str, tag: str, width: int, keys: Sequence[str]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Atoms (n, width) of the interactions of a force, and values (n,) of each key.

        Args:
            force: type of the force.
            tag: name of the XML elements.
            width: number of atoms of an interaction.
            keys: names of the values.
        """
        parent = self.forces.get(force)
        rows = [] if parent is None else [row.attrib for row in parent.iter(tag)]
        atoms = np.array([[int(row[f"p{i + 1}"]) for i in range(width)] for row in rows], int)
        atoms = atoms.reshape(len(rows), width)
        values = [np.array([float(row[key]) for row in rows]) for key in keys]
        if (atoms < 0).any() or (atoms >= len(self.particles)).any():
            raise InputError(
                f"{force}: atoms of a {tag} must be from 0 to {len(self.particles) - 1}"
            )
        if not all(usable(column).all() for column in values):
            raise InputError(
                f"{force}: a {tag} has a value that is not finite or too large; correct it"
            )
        return atoms, values

    def numbers(self, geometry: Molecule | None) -> np.ndarray:
        masses = np.array([float(particle.attrib["mass"]) for particle in self.particles])
        if geometry is not None and geometry.n_atoms == len(masses):
            return geometry.numbers
        numbers, atom = elements_of_masses(masses)
        if atom is not None:
            raise InputError(
                f"no element has the mass {masses[atom]:g} of atom {atom}; give a molecule file "
                "with the elements, too"
            )
        if geometry is not None:
            raise InputError(
                f"the System has {len(masses)} atoms, but the molecule {geometry.formula} has "
                f"{geometry.n_atoms}; give the same molecule"
            )
        return numbers

    def topology(self, name: str, geometry: Molecule | None) -> Topology:
        n, numbers = len(self.particles), self.numbers(geometry)
        tables = self.tables(numbers)
        pairs = np.unique(np.sort(tables.bonds.atoms, axis=1), axis=0)
        positions = np.zeros((n, 3)) if geometry is None else geometry.positions
        if geometry is not None and not len(pairs):
            pairs = perceive_bonds(numbers, positions)
        charge = round(float(tables.charges.sum()))
        molecule = Molecule(numbers, positions, pairs, charge=charge, name=name)
        return Topology(molecule=molecule, **tables.values())

    def tables(self, numbers: np.ndarray) -> Tables:
        """The force field of atoms with atomic numbers (N,); 0 for virtual sites."""
        n = len(self.particles)
        _, (charges, sigma, epsilon) = self._columns(
            "NonbondedForce", "Particle", 0, ("q", "sig", "eps")
        )
        if len(charges) != n:
            raise InputError(f"NonbondedForce must have {n} particles (got {len(charges)})")
        sigma, epsilon = sigma * NM, epsilon * KJ_MOL
        _, lj_rows = np.unique(np.stack([numbers, sigma, epsilon]), axis=1, return_inverse=True)
        types = tuple(
            f"{chemical_symbols[z]}{row}" for z, row in zip(numbers, lj_rows.flat, strict=True)
        )

        def table(atoms: np.ndarray, **values: np.ndarray) -> Table:
            names = ["-".join(types[a] for a in row) for row in atoms.tolist()]
            return Table.of(atoms, names, values)

        atoms, (length, k) = self._columns("HarmonicBondForce", "Bond", 2, ("d", "k"))
        bonds = table(atoms, k=k * KJ_MOL / NM**2 / 2.0, length=length * NM)
        pairs = np.unique(np.sort(np.concatenate([atoms, self.constraints()[0]]), axis=1), axis=0)
        atoms, (angle, k) = self._columns("HarmonicAngleForce", "Angle", 3, ("a", "k"))
        angles = table(atoms, k=k * KJ_MOL / 2.0, angle=angle)
        atoms, (k, periodicity, phase) = self._columns(
            "PeriodicTorsionForce", "Torsion", 4, ("k", "periodicity", "phase")
        )
        bonded = set(map(tuple, pairs.tolist()))
        chain = np.array(
            [all(tuple(sorted(p)) in bonded for p in pairwise(row)) for row in atoms.tolist()], bool
        )
        torsions, impropers = (
            table(
                atoms[part],
                k=k[part] * KJ_MOL,
                periodicity=periodicity[part].astype(int),
                phase=phase[part],
            )
            for part in (chain, ~chain)
        )
        pairs14, exclusions = self._exceptions(charges, sigma, epsilon)
        return Tables(
            atom_types=types,
            charges=charges,
            bonds=bonds,
            angles=angles,
            torsions=torsions,
            impropers=replace(impropers, atoms=centre_third(impropers.atoms, pairs)),
            lj=Table.of(np.arange(n)[:, None], types, {"sigma": sigma, "epsilon": epsilon}),
            lj_overrides=Table.empty(2),
            pairs14=pairs14,
            exclusions=exclusions,
        )

    def constraints(self) -> tuple[np.ndarray, np.ndarray]:
        """Constrained pairs of atoms (C, 2) and their distances (C,) Å."""
        rows = [row.attrib for row in self.root.findall("Constraints/Constraint")]
        atoms = np.array([(int(row["p1"]), int(row["p2"])) for row in rows], int).reshape(-1, 2)
        if (atoms < 0).any() or (atoms >= len(self.particles)).any():
            raise InputError(f"atoms of constraints must be from 0 to {len(self.particles) - 1}")
        return atoms, NM * np.array([float(row["d"]) for row in rows])

    def _exceptions(
        self, charges: np.ndarray, sigma: np.ndarray, epsilon: np.ndarray
    ) -> tuple[Table, np.ndarray]:
        """Table of 1-4 pairs with their scale factors, and all excluded pairs (E, 2).

        Args:
            charges, sigma, epsilon: (N,) e, Å, kcal/mol.
        """
        atoms, (coulomb, size, depth) = self._columns(
            "NonbondedForce", "Exception", 2, ("q", "sig", "eps")
        )
        i, j = atoms.T
        depth, own_depth = depth * KJ_MOL, np.sqrt(epsilon[i] * epsilon[j])
        product, mean = charges[i] * charges[j], 0.5 * (sigma[i] + sigma[j])
        multiple = ((coulomb == 0.0) | (product != 0.0)) & ((depth == 0.0) | (own_depth != 0.0))
        other_size = (own_depth > 0.0) & (depth > 0.0) & ~np.isclose(size * NM, mean, rtol=1e-5)
        for wrong, what in (
            (~multiple, "the charge product or ε is not a multiple of the combined value"),
            (other_size, "σ is not the mean σ of both atoms"),
        ):
            if wrong.any():
                a, b = atoms[np.argmax(wrong)]
                raise InputError(
                    f"the exception of atoms {a} and {b} is not supported: {what}; create the "
                    "System with AMBER 1-4 scale factors"
                )
        scaled = (coulomb != 0.0) | (depth != 0.0)
        lj14, coulomb14 = np.full(len(atoms), 1.0 / SCNB), np.full(len(atoms), 1.0 / SCEE)
        np.divide(depth, own_depth, out=lj14, where=own_depth > 0.0)
        np.divide(coulomb, product, out=coulomb14, where=product != 0.0)
        scales = {"lj14": lj14[scaled], "coulomb14": coulomb14[scaled]}
        scales = {key: np.array([round(x, 9) for x in v.tolist()]) for key, v in scales.items()}
        return Table.of(atoms[scaled], ["1-4"] * scaled.sum(), scales), atoms.astype(np.int32)


def write(path: Path, topology: Topology, potential: Potential) -> list[Path]:
    """Write an OpenMM System, with Morse bonds as a CustomBondForce.

    Args:
        path: the xml file.
        topology: all terms of the potential except Morse bonds.
        potential: the potential.

    Returns:
        The written file, as a list.

    Raises:
        InputError: OpenMM is not installed, or the file cannot express the potential.
    """
    app = optional_module("openmm.app", "OpenMM", "openmm")
    import openmm

    with tempfile.TemporaryDirectory() as folder:
        files = amber.write(Path(folder) / "x.prmtop", topology, potential)
        system = app.AmberPrmtopFile(str(files[0])).createSystem(
            nonbondedMethod=app.NoCutoff, removeCMMotion=False
        )
    for placed in potential.program.placed:
        if isinstance(placed.term, MorseBond):
            params = potential.params[placed.name]
            if placed.atoms is not None or "scale" in params:
                raise InputError(
                    f"{path}: the file cannot express the term {placed.name!r}, which is scaled or "
                    f"acts on some atoms only; {KEEP}"
                )
            atoms = np.arange(placed.term.n_atoms)
            system.addForce(morse_force(openmm, placed.term, params, atoms))
    with atomic_path(path) as temporary:
        Path(temporary).write_text(openmm.XmlSerializer.serialize(system))
    return [path]


def morse_force(openmm, term: MorseBond, params: Params, atoms: np.ndarray, scale: float = 1.0):
    """A CustomBondForce of Morse bonds, in kJ/mol and nm.

    Args:
        openmm: the module.
        term: the bonds.
        params: parameters of the term.
        atoms: (N,) particle of each atom of the term.
        scale: () factor of the energy.
    """
    force = openmm.CustomBondForce("depth*(1-exp(-width*(r-length)))^2")
    units = {"depth": scale / KJ_MOL, "width": NM, "length": 1.0 / NM}
    for name in units:
        force.addPerBondParameter(name)
    columns = [unit * np.asarray(params[name], float)[term.rows] for name, unit in units.items()]
    for pair, *values in zip(
        atoms[term.atoms].tolist(), *(column.tolist() for column in columns), strict=True
    ):
        force.addBond(*pair, values)
    return force
