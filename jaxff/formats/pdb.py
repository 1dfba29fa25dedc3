"""PDB files of systems: atoms with residues, and the box."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase.data import atomic_numbers

from jaxff.cell import box_of, lengths_and_angles
from jaxff.errors import InputError
from jaxff.npz import atomic_path, usable
from jaxff.particles import Particles

_SITES = {"EP", "M", "MW", "LP"}  # elements or names of virtual sites


class Pdb(NamedTuple):
    """Contents of a PDB file.

    Attributes:
        numbers: (N,) atomic numbers; 0 for virtual sites; −1 if the file has no element.
        positions: (N, 3) Å.
        box: (3, 3) Å, lattice vectors as rows, or None.
        atom_names: (N,) names.
        residues: (N,) index of the residue of each atom.
        residue_names: names of the residues.
        bonds: (B, 2) atom indices of CONECT records.
    """

    numbers: np.ndarray
    positions: np.ndarray
    box: np.ndarray | None
    atom_names: tuple[str, ...]
    residues: np.ndarray
    residue_names: tuple[str, ...]
    bonds: np.ndarray


def read_pdb(path) -> Pdb:
    """Read the first model of a PDB file.

    Raises:
        InputError: the file is missing, contains no atoms, or a line is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    numbers, positions, names, residues, residue_names = [], [], [], [], []
    box, last, serials, connected = None, None, {}, []
    for row, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines()):
        record = line[:6].strip()
        try:
            if record == "CRYST1" and box is None:
                box = _box([float(line[i:j]) for i, j in _CRYSTAL], path)
            elif record in ("ATOM", "HETATM"):
                positions.append([float(line[i : i + 8]) for i in (30, 38, 46)])
                residue = (line[17:21].strip(), line[21:27])
                if residue != last:
                    residue_names.append(residue[0])
                last = residue
                serials[line[6:11]] = len(names)
                names.append(line[12:16].strip())
                residues.append(len(residue_names) - 1)
                numbers.append(_element(line[76:78].strip(), names[-1]))
            elif record == "CONECT":
                ends = [line[i : i + 5] for i in range(6, len(line.rstrip()), 5)]
                connected += [(ends[0], end) for end in ends[1:]]
        except ValueError as error:
            raise InputError(
                f"{path}: line {row + 1} is damaged ({error}); write the file again"
            ) from error
        if record == "TER":
            last = None
        if record in ("ENDMDL", "END") and names:
            break
    if not names:
        raise InputError(f"{path}: there are no ATOM records; give a PDB file")
    R = np.array(positions)
    if not usable(R).all():
        raise InputError(f"{path}: a position is not finite; write the file again")
    pairs = [(serials[i], serials[j]) for i, j in connected if i in serials and j in serials]
    bonds = np.unique(np.sort(np.array(pairs, int).reshape(-1, 2), axis=1), axis=0)
    return Pdb(
        np.array(numbers), R, box, tuple(names), np.array(residues), tuple(residue_names), bonds
    )


_CRYSTAL = ((6, 15), (15, 24), (24, 33), (33, 40), (40, 47), (47, 54))


def _box(values: list[float], path) -> np.ndarray | None:
    # Programs write a box of 1 Å³, or of zeros, if there is none.
    return None if max(values[:3]) <= 1.0 else box_of(values, str(path))


def _element(symbol: str, name: str) -> int:
    if symbol in _SITES or (not symbol and name in _SITES):
        return 0
    return atomic_numbers.get(symbol.capitalize(), -1) if symbol else -1


def write_pdb(path, particles: Particles) -> None:
    """Write a system to a PDB file, with CONECT records for all bonds except those of water.

    Raises:
        InputError: a coordinate is too large, or the file cannot be written.
    """
    R = particles.positions
    if np.abs(R).max() >= 999.0:
        raise InputError(
            f"{path}: coordinates of 999 Å or more do not fit into the columns of the file; move "
            "the molecules to the origin"
        )
    lines = ["REMARK   1 WRITTEN BY JAXFF"]
    if particles.box is not None:
        lengths, angles = lengths_and_angles(particles.box)
        numbers = "".join(f"{x:9.3f}" for x in lengths) + "".join(f"{x:7.2f}" for x in angles)
        lines.append(f"CRYST1{numbers} P 1           1")
    symbols = particles.symbols
    for i, (name, residue) in enumerate(
        zip(particles.atom_names, particles.residues.tolist(), strict=True)
    ):
        element = "EP" if particles.numbers[i] == 0 else symbols[i]
        # Names of elements with one letter begin in the second column.
        label = f" {name:<3s}" if len(element) == 1 and len(name) < 4 else f"{name:<4s}"
        x, y, z = R[i]
        lines.append(
            f"HETATM{(i + 1) % 100000:5d} {label[:4]} {particles.residue_names[residue][:4]:<4s}A"
            f"{(residue + 1) % 10000:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          "
            f"{element:>2s}"
        )
    if len(particles) < 100000:
        water = particles.in_water
        for i, j in particles.bonds[~water[particles.bonds[:, 0]]].tolist():
            lines.append(f"CONECT{i + 1:5d}{j + 1:5d}")
    with atomic_path(path) as temporary:
        Path(temporary).write_text("\n".join([*lines, "END"]) + "\n")
