"""Force fields in and out of the field's common files.

Written here: prmtop and inpcrd, mol2 and frcmod.  By ParmEd and OpenMM, which are extras: GROMACS
top and gro, and OpenMM's System XML.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np

from jaxff.errors import InputError
from jaxff.formats.amber import read_amber, read_topology
from jaxff.formats.write import atom_names, write_frcmod, write_inpcrd, write_mol2, write_prmtop
from jaxff.gaff.assign import assign, topology
from jaxff.gaff.table import ParameterTable, gaff_table, with_frcmod
from jaxff.gaff.topology import Table, Topology, centre_third
from jaxff.molecule import Molecule, mol2_rows, perceive_bonds
from jaxff.npz import atomic_path
from jaxff.potential import Potential
from jaxff.units import AMBER_COULOMB


def read_force_field(path, *more, coulomb_constant: float | None = None) -> Potential:
    """The potential of a force-field file of another program, in the gas phase.

    Args:
        path: ``x.prmtop`` (or parm7), ``x.mol2`` with GAFF types and charges, a GROMACS ``x.top``
            (by ParmEd), or an OpenMM System ``x.xml`` (by OpenMM).
        *more: what goes with it: ``x.inpcrd`` (rst7), ``x.frcmod`` files, ``x.gro``; a pdb or any
            other geometry for an OpenMM System.
        coulomb_constant: kcal/mol Å/e²; AMBER's own (18.2223²) by default.

    Raises:
        InputError: an unknown, damaged or incomplete file, or one that describes what jaxff does
            not compute.
    """
    kind = _kind(path)
    readers: dict[str, Callable] = {
        ".prmtop": _from_prmtop,
        ".parm7": _from_prmtop,
        ".mol2": _from_mol2,
        ".top": _from_top,
        ".xml": _from_xml,
    }
    if kind not in readers:
        raise InputError(f"{path}: unknown force field {kind!r}; use {', '.join(readers)}")
    for file in (path, *more):
        if not Path(file).is_file():
            raise InputError(f"{file}: no such file")
    return readers[kind](Path(path), [Path(m) for m in more], coulomb_constant)


def write_force_field(path, potential: Potential) -> list[Path]:
    """Write a potential, with its present parameters, for another program.

    Args:
        path: ``x.prmtop`` (with x.inpcrd), ``x.mol2`` (with x.frcmod), ``x.top`` (GROMACS, with
            x.gro; needs ParmEd) or ``x.xml`` (OpenMM System; needs OpenMM).
        potential: made of AMBER's terms; for OpenMM also with Morse bonds.

    Returns:
        The files written.

    Raises:
        InputError: an unknown format, or a term that it cannot express, named.
    """
    path = Path(path)
    writers: dict[str, Callable] = {
        ".prmtop": _to_prmtop,
        ".parm7": _to_prmtop,
        ".mol2": _to_mol2,
        ".frcmod": _to_mol2,
        ".top": _to_top,
        ".xml": _to_xml,
    }
    if (kind := _kind(path)) not in writers:
        raise InputError(f"{path}: unknown force field {kind!r}; use {', '.join(writers)}")
    beside = ("morse_bond",) if kind == ".xml" else ()
    own = Topology.of(potential, str(path), beside)
    constant = next(
        float(group["coulomb_constant"])
        for group in potential.params.values()
        if "coulomb_constant" in group
    )
    if not np.isclose(constant, AMBER_COULOMB, rtol=1e-6):
        raise InputError(
            f"{path}: the potential has the Coulomb constant {constant:.6g}, other programs use "
            f"their own; make it with the default ({AMBER_COULOMB:.6g})"
        )
    if (own.lj.values["epsilon"] < 0.0).any():
        raise InputError(f"{path}: ε is negative; the potential is no Lennard-Jones potential")
    return writers[kind](path, own, potential)


def _kind(path) -> str:
    return Path(path).suffix.lower()


def _extra(module: str, package: str, extra: str):
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(f"this format needs {package}: pip install 'jaxff[{extra}]'") from error


# -- out -----------------------------------------------------------------------------------


def _to_prmtop(path: Path, own: Topology, potential: Potential) -> list[Path]:
    write_prmtop(path, own)
    write_inpcrd(path.with_suffix(".inpcrd"), own.molecule)
    return [path, path.with_suffix(".inpcrd")]


def _to_mol2(path: Path, own: Topology, potential: Potential) -> list[Path]:
    lewis = getattr(potential.origin, "lewis", None)
    orders = None if lewis is None else lewis.orders
    write_frcmod(path.with_suffix(".frcmod"), own)  # it may refuse: before anything is written
    write_mol2(path.with_suffix(".mol2"), own, orders)
    return [path.with_suffix(".mol2"), path.with_suffix(".frcmod")]


def _to_top(path: Path, own: Topology, potential: Potential) -> list[Path]:
    parmed = _extra("parmed", "ParmEd", "formats")
    gro = path.with_suffix(".gro")
    with tempfile.TemporaryDirectory() as folder:
        files = _to_prmtop(Path(folder) / "x.prmtop", own, potential)
        with atomic_path(path) as top, atomic_path(gro) as coordinates:
            try:
                structure = parmed.load_file(*map(str, files))
                parmed.gromacs.GromacsTopologyFile.from_structure(structure).write(str(top))
                parmed.gromacs.GromacsGroFile.write(structure, str(coordinates), precision=6)
            except Exception as error:
                raise InputError(f"{path}: ParmEd cannot write it ({error})") from error
    return [path, gro]


def _to_xml(path: Path, own: Topology, potential: Potential) -> list[Path]:
    app = _extra("openmm.app", "OpenMM", "openmm")
    import openmm

    with tempfile.TemporaryDirectory() as folder:
        files = _to_prmtop(Path(folder) / "x.prmtop", own, potential)
        system = app.AmberPrmtopFile(str(files[0])).createSystem(
            nonbondedMethod=app.NoCutoff, removeCMMotion=False
        )
    for placed in potential.program.placed:
        if placed.term.kind == "morse_bond":
            if placed.atoms is not None or "scale" in potential.params[placed.name]:
                raise InputError(f"{path}: the term {placed.name!r} is scaled or on some atoms")
            system.addForce(_morse(openmm, placed.term, potential.params[placed.name]))
    with atomic_path(path) as temporary:
        Path(temporary).write_text(openmm.XmlSerializer.serialize(system))
    return [path]


def _morse(openmm, term, params):
    """Morse bonds as a CustomBondForce, in OpenMM's kJ/mol and nm."""
    force = openmm.CustomBondForce("depth*(1-exp(-width*(r-length)))^2")
    for name in ("depth", "width", "length"):
        force.addPerBondParameter(name)
    own = {key: np.asarray(value, float)[term.rows] for key, value in params.items()}
    for k, (i, j) in enumerate(term.atoms.tolist()):
        values = own["depth"][k] / _KJ, own["width"][k] * _NM, own["length"][k] / _NM
        force.addBond(i, j, values)
    return force


# -- in ------------------------------------------------------------------------------------


def _from_prmtop(path: Path, more: list[Path], constant) -> Potential:
    return read_amber(path, constant, *_one(more, (".inpcrd", ".rst7", ".crd"), path))


def _from_mol2(path: Path, more: list[Path], constant) -> Potential:
    table: ParameterTable = gaff_table()
    for file in more:
        if _kind(file) != ".frcmod":
            raise InputError(f"{file}: with a mol2 file go frcmod files only")
        try:
            text = file.read_text()
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: not a text file") from error
        table = with_frcmod(table, text, file.name)
    molecule = Molecule.read(path)
    if molecule.n_atoms > 1 and not len(molecule.bonds):
        raise InputError(f"{path}: it has no bonds; write it again with @<TRIPOS>BOND")
    rows = mol2_rows(path)["ATOM"]
    types = tuple(row[5] for row in rows)
    unknown = sorted(set(types) - set(table.lj))
    if unknown:
        raise InputError(
            f"{path}: {', '.join(unknown)} are no GAFF types, nor in a frcmod file given"
        )
    if any(len(row) < 9 for row in rows):
        raise InputError(f"{path}: its atoms carry no charges")
    charges = np.array([float(row[8]) for row in rows])  # as they are, whatever their sum
    try:
        assigned = assign(molecule, types, table, strict=True)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return topology(molecule, types, charges, assigned).potential(constant)


def _from_top(path: Path, more: list[Path], constant) -> Potential:
    parmed = _extra("parmed", "ParmEd", "formats")
    gro = _one(more, (".gro",), path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # ParmEd warns of files that end too early
            structure = parmed.load_file(str(path), xyz=str(gro[0]) if gro else None)
        with tempfile.TemporaryDirectory() as folder:
            prmtop = Path(folder) / f"{path.stem}.prmtop"
            structure.box = None
            structure.save(str(prmtop), overwrite=True)
            own = read_topology(prmtop)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:
        raise InputError(f"{path}: ParmEd cannot convert it ({error})") from error
    if gro:
        own = replace(own, molecule=own.molecule.with_positions(structure.coordinates))
    return own.potential(constant)


def _one(more: list[Path], kinds: tuple[str, ...], path: Path) -> list[Path]:
    wrong = [file for file in more if _kind(file) not in kinds]
    if wrong or len(more) > 1:
        given = ", ".join(map(str, more))
        raise InputError(f"{path}: with it goes one file of {', '.join(kinds)}, not {given}")
    return more


def _from_xml(path: Path, more: list[Path], constant) -> Potential:
    openmm = _extra("openmm", "OpenMM", "openmm")
    try:
        system = openmm.XmlSerializer.deserialize(path.read_text())
        forces = {type(force).__name__: force for force in system.getForces()}
    except Exception as error:
        raise InputError(f"{path}: not an OpenMM System ({error})") from error
    geometry = Molecule.read(more[0]) if len(more) == 1 else None
    if len(more) > 1:
        raise InputError(f"{path}: with it goes one file with a geometry")
    return _openmm_topology(path, system, forces, geometry).potential(constant)


_OPENMM = {
    "HarmonicBondForce", "HarmonicAngleForce", "PeriodicTorsionForce", "NonbondedForce",
    "CMMotionRemover",
}  # fmt: skip
_NM, _KJ = 10.0, 1.0 / 4.184  # Å, kcal/mol


def _openmm_topology(path: Path, system, forces: dict, geometry: Molecule | None) -> Topology:
    from ase.data import atomic_masses_iupac2016

    unknown = sorted(set(forces) - _OPENMM)
    if unknown or len(forces) != system.getNumForces() or system.getNumConstraints():
        what = ", ".join(unknown) or "constraints, or two forces of one kind"
        raise InputError(f"{path}: it has {what}, which jaxff does not compute")
    nonbonded = forces.get("NonbondedForce")
    if nonbonded is None or nonbonded.getNonbondedMethod() != 0:
        raise InputError(f"{path}: a NonbondedForce without cutoff is needed")
    if any(force.usesPeriodicBoundaryConditions() for force in forces.values()):
        raise InputError(f"{path}: it is periodic, which is not supported")
    if nonbonded.getNumParticleParameterOffsets() or nonbonded.getNumExceptionParameterOffsets():
        raise InputError(f"{path}: it has parameter offsets, which are not supported")
    n = system.getNumParticles()
    if any(system.isVirtualSite(a) for a in range(n)):
        raise InputError(f"{path}: it has virtual sites, which are not supported")
    masses = np.array([system.getParticleMass(a)._value for a in range(n)])
    numbers = np.argmin(np.abs(masses[:, None] - atomic_masses_iupac2016[1:]), axis=1) + 1
    if geometry is not None and geometry.n_atoms == n:
        numbers = geometry.numbers
    elif (unlike := np.abs(masses - atomic_masses_iupac2016[numbers]) > 0.1).any():
        atom = int(np.argmax(unlike))
        raise InputError(
            f"{path}: the mass {masses[atom]:g} of atom {atom} is no element's (repartitioned?); "
            "give a file with the geometry and its elements beside it"
        )

    def entries(name: str, count: str, get: str) -> list:
        force = forces.get(name)
        return [] if force is None else [
            getattr(force, get)(k) for k in range(getattr(force, count)())
        ]  # fmt: skip

    def table(rows: list, width: int, columns: dict) -> Table:
        atoms = np.array([row[:width] for row in rows], int).reshape(-1, width)
        names = np.array(["-".join(kinds[a] for a in row[:width]) for row in rows], str)
        values = {
            key: np.array([get(row[width:]) for row in rows], float) for key, get in columns.items()
        }
        return Table.of(atoms, names, values)

    particles = [nonbonded.getParticleParameters(a) for a in range(n)]
    charges = np.array([q._value for q, _, _ in particles])
    sigma = np.array([s._value * _NM for _, s, _ in particles])
    epsilon = np.array([e._value * _KJ for _, _, e in particles])
    _, lj_rows = np.unique(np.stack([numbers, sigma, epsilon]), axis=1, return_inverse=True)
    names = atom_names(Molecule(numbers, np.zeros((n, 3)), np.zeros((0, 2), int)))
    kinds = [f"{names[a].rstrip('0123456789')}{lj_rows.ravel()[a]}" for a in range(n)]
    bonds = table(
        entries("HarmonicBondForce", "getNumBonds", "getBondParameters"), 2,
        {"k": lambda v: v[1]._value * _KJ / _NM**2 / 2.0, "length": lambda v: v[0]._value * _NM},
    )  # fmt: skip
    angles = table(
        entries("HarmonicAngleForce", "getNumAngles", "getAngleParameters"), 3,
        {"k": lambda v: v[1]._value * _KJ / 2.0, "angle": lambda v: v[0]._value},
    )  # fmt: skip
    pairs = np.sort(bonds.atoms, axis=1)
    bonded = set(map(tuple, pairs.tolist()))
    fourier = {
        "k": lambda v: v[2]._value * _KJ,
        "periodicity": lambda v: v[0],
        "phase": lambda v: v[1]._value,
    }
    every = entries("PeriodicTorsionForce", "getNumTorsions", "getTorsionParameters")
    chains = [all(tuple(sorted(pair)) in bonded for pair in pairwise(t[:4])) for t in every]
    parts = []
    for wanted in (True, False):
        part = table([t for t, c in zip(every, chains, strict=True) if c is wanted], 4, fourier)
        part.values["periodicity"] = part.values["periodicity"].astype(int)
        if not wanted:
            part = replace(part, atoms=centre_third(part.atoms, pairs))
        parts.append(part)
    excluded, scaled = [], []
    for k in range(nonbonded.getNumExceptions()):
        i, j, qq, s, e = nonbonded.getExceptionParameters(k)
        excluded.append((i, j))
        product, depth = charges[i] * charges[j], np.sqrt(epsilon[i] * epsilon[j])
        own = qq._value, e._value * _KJ
        if (own[0] and not product) or (own[1] and not depth):
            raise InputError(
                f"{path}: the exception of atoms {i} and {j} is no multiple of their own product"
            )
        if own == (0.0, 0.0):
            continue
        mean = 0.5 * (sigma[i] + sigma[j])
        if depth > 0.0 and own[1] > 0.0 and not np.isclose(s._value * _NM, mean, rtol=1e-5):
            raise InputError(f"{path}: the exception of atoms {i} and {j} has a σ of its own")
        lj14 = own[1] / depth if depth > 0.0 else 0.5
        coulomb14 = own[0] / product if product else 1.0 / 1.2
        scaled.append((i, j, round(lj14, 9), round(coulomb14, 9)))
    molecule = Molecule(
        numbers, np.zeros((n, 3)), np.unique(pairs, axis=0), round(float(charges.sum())),
        name=path.stem,
    )  # fmt: skip
    if geometry is not None:
        if not np.array_equal(geometry.numbers, numbers):
            raise InputError(
                f"{path}: the geometry given is of {geometry.formula} in another order"
            )
        molecule = molecule.with_positions(geometry.positions)
        if not len(pairs):
            molecule = replace(molecule, bonds=perceive_bonds(numbers, geometry.positions))
    return Topology(
        molecule=molecule,
        atom_types=tuple(kinds),
        charges=charges,
        bonds=bonds,
        angles=angles,
        torsions=parts[0],
        impropers=parts[1],
        lj=Table.of(np.arange(n)[:, None], np.array(kinds), {"sigma": sigma, "epsilon": epsilon}),
        lj_overrides=Table.empty(2),
        pairs14=Table.of(
            np.array([row[:2] for row in scaled], int).reshape(-1, 2),
            np.full(len(scaled), "1-4"),
            {
                "lj14": np.array([row[2] for row in scaled], float),
                "coulomb14": np.array([row[3] for row in scaled], float),
            },
        ),
        exclusions=np.array(excluded, np.int32).reshape(-1, 2),
    )
