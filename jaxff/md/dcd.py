"""Trajectories as DCD files, a binary format of CHARMM, NAMD and OpenMM.

A file contains positions in float32, little-endian, without a unit cell.  It begins with three
Fortran records (counters, titles, number of atoms).  Each frame has three records: all x, all y and
all z.
"""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from jaxff import units
from jaxff.errors import InputError
from jaxff.md.frames import (
    FORMAT,
    GrowingFile,
    checked_frames,
    existing,
    missing_frames,
    wrong_trajectory,
)
from jaxff.molecule import Molecule

_COUNTERS = struct.Struct("<i4s9if10ii")
_TITLES = struct.Struct("<2i80s80si")
_ATOMS = struct.Struct("<3i")
HEADER_SIZE = _COUNTERS.size + _TITLES.size + _ATOMS.size
CHARMM_VERSION = 24  # readers then expect the unit-cell flag and a float32 time step
LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Counters:
    """Counters in the header of a DCD file.

    Attributes:
        frames: number of frames.
        first: step of the first frame.
        every: steps between frames; 1 for fewer than two frames.
        dt: time step in AKMA units (48.888 fs); 0 before the first step.
    """

    frames: int = 0
    first: int = 0
    every: int = 1
    dt: float = 0.0

    def grown(self, steps: np.ndarray, times: np.ndarray, path) -> Counters:
        """Return the counters after adding frames at `steps` (F,) and `times` (F,) fs.

        Args:
            steps: (F,) integers.
            times: (F,) fs.
            path: the file, for messages.

        Raises:
            InputError: the frames are not evenly spaced, or a step is too large.
        """
        frames, first, every, dt = self.frames, self.first, self.every, self.dt
        for index, step, time in zip(
            range(frames, 2), steps.tolist(), times.tolist(), strict=False
        ):
            first, every = (step, 1) if index == 0 else (first, step - first)
            dt = float(np.float32(time / step / units.TIME)) if step else dt
        expected = first + every * np.arange(frames, frames + len(steps))
        if every < 1 or not np.array_equal(expected, steps):
            raise InputError(
                f"{path}: a DCD file needs frames at evenly spaced steps; write an .h5 or .extxyz "
                "file"
            )
        if max(first, every) > LARGEST:
            raise InputError(
                f"{path}: step {first} is too large for a DCD file; write an .h5 or .extxyz file"
            )
        return Counters(frames + len(steps), first, every, dt)

    def record(self) -> bytes:
        """Return the first record of the file."""
        last = self.first + max(self.frames - 1, 0) * self.every
        return _COUNTERS.pack(
            84, b"CORD", self.frames, self.first, self.every, last if last <= LARGEST else 0,
            *(0,) * 5, self.dt, *(0,) * 9, CHARMM_VERSION, 84,
        )  # fmt: skip


class DCDWriter:
    """Writer of DCD files; see `jaxff.md.trajectory.Writer`.

    Args:
        path: the file.
        molecule: the atoms.
        mark: end of the file after which to continue (None: a new file).
    """

    def __init__(self, path, molecule: Molecule, mark: dict | None = None):
        self._molecule = molecule
        self._file = GrowingFile(path, fresh=mark is None)
        self.path, self._counters = self._file.path, Counters(**(mark or {}))
        try:
            if mark is None:
                self._file.append(self._counters.record() + _description(molecule))
            else:
                # The count must never exceed the number of frames: a cut writes it first.
                self._file.overwrite_start(self._counters.record())
                size = frame_size(molecule.n_atoms)
                self._file.cut(HEADER_SIZE + self._counters.frames * size)
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def resume(cls, path, molecule: Molecule, mark: dict | None) -> DCDWriter:
        path = existing(path)
        there, n_atoms = read_header(path)
        if n_atoms != molecule.n_atoms:
            raise wrong_trajectory(path, f"the file has {n_atoms} atoms, not {molecule.n_atoms}")
        with path.open("rb") as file:
            file.seek(_COUNTERS.size)
            if file.read(HEADER_SIZE - _COUNTERS.size) != _description(molecule):
                raise wrong_trajectory(path, "the title of the file differs")
        mark = asdict(there) if mark is None else mark
        if there.frames < mark["frames"]:
            raise missing_frames(path, f"{mark['frames']} frames")
        return cls(path, molecule, mark)

    def append(self, frames) -> None:
        arrays = checked_frames(frames, self._molecule.n_atoms)
        if not len(arrays["positions"]):
            return
        counters = self._counters.grown(arrays["steps"], arrays["times"], self.path)
        self._file.append(_records(arrays["positions"]))
        # The count is written after the frames, and so never exceeds their number.
        self._file.overwrite_start(counters.record())
        self._counters = counters

    def mark(self) -> dict:
        return asdict(self._counters)

    def close(self) -> None:
        self._file.close()


def read_dcd(path, molecule: Molecule | None) -> dict[str, np.ndarray]:
    """Read positions (F, N, 3) Å, times (F,) fs and steps (F,) from a DCD file.

    Args:
        path: the file.
        molecule: molecule that the file must belong to, or None.

    Raises:
        InputError: the file is missing or damaged, or its number of atoms is wrong.
    """
    path = existing(path)
    counters, n_atoms = read_header(path)
    if molecule is not None and molecule.n_atoms != n_atoms:
        raise InputError(
            f"{path}: the frames have {n_atoms} atoms, but {molecule.formula} has "
            f"{molecule.n_atoms}: give the molecule of the trajectory"
        )
    shape = (counters.frames, 3, n_atoms + 2)
    records = np.fromfile(path, "<f4", np.prod(shape), offset=HEADER_SIZE).reshape(shape)
    if (records.view("<i4")[:, :, [0, -1]] != 4 * n_atoms).any():
        raise InputError(f"{path}: a frame is damaged; make the trajectory again")
    steps = counters.first + counters.every * np.arange(counters.frames)
    return {
        "positions": np.ascontiguousarray(records[:, :, 1:-1].transpose(0, 2, 1)),
        "times": steps * (counters.dt * units.TIME),
        "steps": steps,
    }


def read_header(path: Path) -> tuple[Counters, int]:
    """Read the counters and the number of atoms from the header of a file.

    Raises:
        InputError: the file is incomplete, or jaxff did not write it.
    """
    with path.open("rb") as file:
        raw = file.read(HEADER_SIZE)
    try:
        head, magic, frames, first, every, *middle, end = _COUNTERS.unpack_from(raw)
        title, _, text, *_ = _TITLES.unpack_from(raw, _COUNTERS.size)
        n_atoms = _ATOMS.unpack_from(raw, HEADER_SIZE - _ATOMS.size)[1]
    except struct.error as error:
        raise InputError(f"{path}: the header is incomplete; make the trajectory again") from error
    sound = (head, magic, end, title) == (84, b"CORD", 84, 164) and text.startswith(FORMAT.encode())
    if not sound:
        raise InputError(f"{path}: not a DCD file that jaxff wrote; give such a file")
    if path.stat().st_size < HEADER_SIZE + frames * frame_size(n_atoms):
        raise InputError(
            f"{path}: the header states {frames} frames, but the file ends earlier; copy or make "
            "the trajectory again"
        )
    return Counters(frames, first, every, middle[6]), n_atoms


def frame_size(n_atoms: int) -> int:
    """Size of a frame in the file, bytes."""
    return 3 * 4 * (n_atoms + 2)


def _description(molecule: Molecule) -> bytes:
    """The records of titles and number of atoms."""
    first = f"{FORMAT}; positions in Angstrom, time step in AKMA units".ljust(80).encode()
    second = "".join(molecule.symbols).ljust(80)[:80].encode()
    return _TITLES.pack(164, 2, first, second, 164) + _ATOMS.pack(4, molecule.n_atoms, 4)


def _records(positions: np.ndarray) -> np.ndarray:
    """DCD records (F, 3, N + 2), with record lengths, of positions (F, N, 3) Å."""
    n_frames, n_atoms, _ = positions.shape
    records = np.empty((n_frames, 3, n_atoms + 2), "<f4")
    records[:, :, 1:-1] = positions.transpose(0, 2, 1)
    records.view("<i4")[:, :, [0, -1]] = 4 * n_atoms
    return records
