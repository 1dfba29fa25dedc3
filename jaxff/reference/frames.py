"""Geometries to label, read from files or converted from objects."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import covalent_radii

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.molecule_files import read_xyz_frames

if TYPE_CHECKING:
    from ase import Atoms

    Frames = str | Path | Dataset | Molecule | Atoms | Sequence[Molecule | Atoms]

COINCIDENT = 0.1  # Å
# A bond is broken above BROKEN times the sum of covalent radii, and formed below FORMED times this
# sum.  In dynamics at 500 K, some bonds and 1-3 contacts reached 1.3.
BROKEN, FORMED = 1.5, 1.15


def read_frames(frames: Frames) -> tuple[Molecule, np.ndarray]:
    """Return the molecule of the first frame, and the positions (M, N, 3) Å of all frames.

    Without a `Molecule`, bonds are perceived from the first frame, or from all frames of a
    `Dataset`.

    Args:
        frames: path of a data set (xyz, extxyz, npz) or of a structure file; a `Dataset`; or one
            or several `ase.Atoms` or `Molecule`.

    Raises:
        InputError: a file cannot be read, there are no frames, or frames differ in their atoms,
            atom order or charge.
    """
    given: Any = _read_file(Path(frames)) if isinstance(frames, str | Path) else frames
    if isinstance(given, Dataset):
        return given.molecule, given.positions
    if isinstance(given, Molecule) or hasattr(given, "get_positions"):
        given = [given]
    molecules = [f if isinstance(f, Molecule) else Molecule.from_ase(f) for f in given]
    if not molecules:
        raise InputError("there are no frames to label: give at least one frame")
    first = molecules[0]
    for i, molecule in enumerate(molecules):
        if not np.array_equal(molecule.numbers, first.numbers):
            raise InputError(
                f"frame {i} has different atoms from frame 0, or another atom order; "
                "give frames of one molecule"
            )
        if molecule.charge != first.charge:
            raise InputError(
                f"frame {i} has charge {molecule.charge}, but frame 0 has {first.charge}: "
                "give frames of one charge"
            )
    return first, np.array([m.positions for m in molecules])


def _read_file(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file; correct the path")
    if path.suffix.lower() == ".npz":
        return Dataset.load(path)
    if path.suffix.lower() not in (".xyz", ".extxyz"):
        return [Molecule.read(path)]
    try:
        return read_xyz_frames(path, slice(None))
    except Exception as error:
        raise InputError(f"{path} cannot be read as extxyz ({error}): correct the file") from error


def common_molecule(first: Molecule, given: Molecule | None, charge: int | None) -> Molecule:
    """Return the molecule with the bonds and charge of all frames, in the order of their atoms.

    Args:
        first: molecule of the first frame.
        given: molecule with the bonds, in any atom order; None for `first`.
        charge: net charge, e; None for the charge of the molecule.

    Raises:
        InputError: `given` is not the molecule of the first frame.
    """
    molecule = first
    if given is not None:
        try:
            molecule = given.reorder(first.match(given))
        except InputError:
            # The perceived bonds of a stretched frame differ; then the atom orders must agree.
            if not np.array_equal(given.numbers, first.numbers):
                raise
            molecule = given
    return molecule if charge is None else replace(molecule, charge=int(charge))


def coinciding_atoms(positions: np.ndarray) -> dict[int, str]:
    """Describe two coinciding atoms of frames (M, N, 3) Å, by number of the frame.

    Frames without coinciding atoms are omitted.  Some calculators return finite energies although
    atoms coincide.
    """
    faults = {}
    first, second = np.triu_indices(positions.shape[1], 1)
    for m, R in enumerate(positions):
        distances = np.linalg.norm(R[first] - R[second], axis=1)
        if len(distances) and distances.min() < COINCIDENT:
            k = int(distances.argmin())
            faults[m] = f"atoms {first[k]} and {second[k]} are {distances[k]:.2g} Å apart"
    return faults


def changed_bonds(molecule: Molecule, R: np.ndarray) -> str:
    """Describe the bonds of `molecule` that are broken or formed at R (N, 3) Å; "" if none.

    The limits of the distances allow for vibrations.
    """
    first, second = np.triu_indices(molecule.n_atoms, 1)
    radii, symbols = covalent_radii[molecule.numbers], molecule.symbols
    ratio = np.linalg.norm(R[first] - R[second], axis=1) / (radii[first] + radii[second])
    bonds = set(map(tuple, molecule.bonds.tolist()))
    bonded = np.array([pair in bonds for pair in zip(first.tolist(), second.tolist(), strict=True)])
    parts = []
    for verb, pairs in (
        ("broken", bonded & (ratio > BROKEN)),
        ("formed", ~bonded & (ratio < FORMED)),
    ):
        where = np.flatnonzero(pairs)
        named = [
            f"{symbols[i]}{i}-{symbols[j]}{j}"
            for i, j in zip(first[where], second[where], strict=True)
        ]
        if named:
            parts.append(f"{verb}: {', '.join(named[:4])}{', ...' if len(named) > 4 else ''}")
    return "; ".join(parts)


def starting_geometries(start: str, replicas: int = 1, seed: int = 7) -> str | list[Molecule]:
    """Return the path `start` if it is a file, otherwise conformers of a SMILES string.

    Args:
        start: path of a structure or data file, or a SMILES string.
        replicas: number of conformers, embedded by RDKit with the seeds `seed`, `seed` + 1, ...
        seed: seed of the first conformer.
    """
    if os.path.exists(start) or Path(start).suffix.lower() in (".npz", *Molecule.FORMATS):
        return start
    return [Molecule.from_smiles(start, seed=seed + i) for i in range(replicas)]
