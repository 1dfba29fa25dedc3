"""Trajectories as extended xyz, a text format that most programs read."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

import numpy as np

from jaxff.errors import InputError
from jaxff.md.frames import (
    FORMAT,
    GrowingFile,
    charge,
    checked_frames,
    existing,
    is_periodic,
    missing_frames,
    title,
    wrong_trajectory,
)
from jaxff.molecule import Molecule

COLUMNS = "species:S:1:pos:R:3:velocities:R:3:force:R:3"
_SERIES = re.compile(
    r" time=(\S+)(?: step=(\S+))? potential_energy=(\S+) kinetic_energy=(\S+) temperature=(\S+)$"
)
_LATTICE = re.compile(r' Lattice="([^"]*)"')


class ExtxyzWriter:
    """Writer of extended xyz files; see `jaxff.md.trajectory.Writer`.

    The column of the forces is named ``force``, because ASE reads ``forces`` in eV/Å.

    Args:
        path: the file.
        molecule: the atoms.
        mark: end of the file after which to continue (None: a new file).
    """

    def __init__(self, path, molecule: Molecule, mark: dict | None = None):
        self._molecule, self._header = molecule, _header(molecule)
        numbers = " %.10f" * 6 + " %.8f" * 3
        self._rows = [symbol + numbers for symbol in molecule.symbols]
        self._file = GrowingFile(path, fresh=mark is None)
        self.path, self._frames = self._file.path, 0
        if mark is not None:
            self._file.cut(mark["bytes"])
            self._frames = mark["frames"]

    @classmethod
    def resume(cls, path, molecule: Molecule, mark: dict | None) -> ExtxyzWriter:
        size = existing(path).stat().st_size
        if size if mark is None else mark["frames"]:
            _check(path, molecule)
        mark = _end(path, molecule) if mark is None else mark
        if size < mark["bytes"]:
            raise missing_frames(path, f"{mark['bytes']} bytes")
        return cls(path, molecule, mark)

    def append(self, frames) -> None:
        arrays = checked_frames(frames, self._molecule)
        positions, velocities, forces, *series = arrays.values()
        potential, kinetic, temperature, time, step = (x.tolist() for x in series[:5])
        cells = (
            [_lattice(box) for box in arrays["boxes"]] if "boxes" in arrays else [""] * len(time)
        )
        table = np.concatenate([positions, velocities, forces], axis=2)
        for f, rows in enumerate(table.tolist()):
            lines = [
                str(len(rows)),
                f"{self._header}{cells[f]} time={time[f]:.10g} step={step[f]:d} "
                f"potential_energy={potential[f]:.10f} kinetic_energy={kinetic[f]:.10f} "
                f"temperature={temperature[f]:.6f}",
                *(form % tuple(row) for form, row in zip(self._rows, rows, strict=True)),
            ]
            # One write for each frame, so that a frame is in the file completely or not at all.
            self._file.append(("\n".join(lines) + "\n").encode())
            self._frames += 1

    def mark(self) -> dict:
        return {"frames": self._frames, "bytes": self._file.size}

    def close(self) -> None:
        self._file.close()


def read_extxyz(path, molecule: Molecule | None) -> dict[str, np.ndarray]:
    """Read all quantities of the frames, see `jaxff.md.trajectory`.

    Args:
        path: the file.
        molecule: molecule that the file must belong to, or None.

    Raises:
        InputError: the file is missing or damaged, or belongs to another molecule.
    """
    *lines, rest = existing(path).read_text(encoding="utf-8", errors="replace").split("\n")
    if not lines:
        raise InputError(f"{path}: the file has no frames; give one with at least one frame")
    if molecule is not None:
        _check(path, molecule)
    try:
        n_lines = int(lines[0]) + 2
        matches = [_SERIES.search(comment) for comment in lines[1::n_lines]]
        series = [match.groups() for match in matches if match is not None]
        words = [row.split()[1:] for i, row in enumerate(lines) if i % n_lines > 1]
        table = np.array(words, float).reshape(-1, n_lines - 2, 9)
        if rest or FORMAT not in lines[1] or len(table) != len(series):
            raise ValueError
    except (ValueError, IndexError) as error:
        raise InputError(
            f"{path}: jaxff did not write this trajectory, or a frame is incomplete; make the "
            "trajectory again"
        ) from error
    time, step, potential, kinetic, temperature = zip(*series, strict=True)
    arrays = {
        "positions": table[:, :, :3],
        "velocities": table[:, :, 3:6],
        "forces": table[:, :, 6:],
        "potential_energies": np.array(potential, float),
        "kinetic_energies": np.array(kinetic, float),
        "temperatures": np.array(temperature, float),
        "times": np.array(time, float),
    }
    if None not in step:
        arrays["steps"] = np.array(step, int)
    cells = [match[1].split() for match in map(_LATTICE.search, lines[1::n_lines]) if match]
    if cells:
        if list(map(len, cells)) != [9] * len(table):
            raise InputError(f"{path}: a frame has no box; make the trajectory again")
        arrays["boxes"] = np.array(cells, float).reshape(-1, 3, 3)
    return arrays


def _header(molecule: Molecule) -> str:
    from ase.io.extxyz import key_val_dict_to_str

    facts = {"units": "kcal/mol Ang fs K", "format": FORMAT, "charge": charge(molecule)}
    periodic = "T T T" if is_periodic(molecule) else "F F F"
    if name := " ".join(molecule.name.splitlines()):
        facts["name"] = name
    return f'Properties={COLUMNS} pbc="{periodic}" {key_val_dict_to_str(facts)}'


def _lattice(box: np.ndarray) -> str:
    """Lattice vectors of a box (3, 3) Å in the comment of a frame."""
    return f' Lattice="{" ".join(f"{x:.10f}" for x in box.ravel().tolist())}"'


def _check(path, molecule: Molecule) -> None:
    """Raise `InputError` if the format or the atoms of the first frame are wrong."""
    with Path(path).open("rb") as file:
        first = [line.decode(errors="replace") for line in islice(file, molecule.n_atoms + 2)]
    if [line.split(maxsplit=1)[:1] for line in first[2:]] != [[s] for s in molecule.symbols]:
        raise wrong_trajectory(
            path, f"the atoms are not those of {title(molecule)} in the same order"
        )
    if first[0].strip() != str(molecule.n_atoms) or not first[1].startswith(
        f"{_header(molecule)} {'Lattice=' if is_periodic(molecule) else 'time='}"
    ):
        raise wrong_trajectory(path, "the charge, name or format differs")


def _end(path, molecule: Molecule) -> dict:
    """Return the mark after the last complete frame: numbers of frames and bytes."""
    frames = size = 0
    with Path(path).open("rb") as file:
        while frame := b"".join(islice(file, molecule.n_atoms + 2)):
            if frame.count(b"\n") < molecule.n_atoms + 2:
                break
            frames, size = frames + 1, size + len(frame)
    return {"frames": frames, "bytes": size}
