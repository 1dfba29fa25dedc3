"""Trajectories as DCD files, a binary format of CHARMM, NAMD and OpenMM.

A file contains positions in float32, little-endian.  It begins with three Fortran records
(counters, titles, number of atoms).  Each frame of a periodic system begins with a record of the
unit cell (lengths a, b, c and angles α, β, γ in degrees, in the order a γ b β α c).  Three records
follow: all x, all y and all z.
"""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from jaxff import units
from jaxff.cell import box_of, lengths_and_angles
from jaxff.errors import InputError
from jaxff.md.frames import (
    FORMAT,
    GrowingFile,
    checked_frames,
    existing,
    is_periodic,
    missing_frames,
    title,
    wrong_trajectory,
)
from jaxff.molecule import Molecule

_COUNTERS = struct.Struct("<i4s9if10ii")
_TITLES = struct.Struct("<2i80s80si")
_ATOMS = struct.Struct("<3i")
_CELL = struct.Struct("<i6di")
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
        periodic: whether frames have a unit cell.
    """

    frames: int = 0
    first: int = 0
    every: int = 1
    dt: float = 0.0
    periodic: bool = False

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
        return Counters(frames + len(steps), first, every, dt, self.periodic)

    def record(self) -> bytes:
        """Return the first record of the file."""
        last = self.first + max(self.frames - 1, 0) * self.every
        return _COUNTERS.pack(
            84, b"CORD", self.frames, self.first, self.every, last if last <= LARGEST else 0,
            *(0,) * 5, self.dt, int(self.periodic), *(0,) * 8, CHARMM_VERSION, 84,
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
        self.path, self._counters = (
            self._file.path,
            Counters(**(mark or {"periodic": is_periodic(molecule)})),
        )
        try:
            if mark is None:
                self._file.append(self._counters.record() + _description(molecule))
            else:
                # The count must never exceed the number of frames: a cut writes it first.
                self._file.overwrite_start(self._counters.record())
                size = frame_size(molecule.n_atoms, self._counters.periodic)
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
        if there.periodic != is_periodic(molecule):
            raise wrong_trajectory(path, "only one of them is in a periodic box")
        with path.open("rb") as file:
            file.seek(_COUNTERS.size)
            if file.read(HEADER_SIZE - _COUNTERS.size) != _description(molecule):
                raise wrong_trajectory(path, "the title of the file differs")
        mark = asdict(there) if mark is None else mark
        if there.frames < mark["frames"]:
            raise missing_frames(path, f"{mark['frames']} frames")
        return cls(path, molecule, mark)

    def append(self, frames) -> None:
        arrays = checked_frames(frames, self._molecule)
        if not len(arrays["positions"]):
            return
        counters = self._counters.grown(arrays["steps"], arrays["times"], self.path)
        self._file.append(_records(arrays["positions"], arrays.get("boxes")))
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
            f"{path}: the frames have {n_atoms} atoms, but {title(molecule)} has "
            f"{molecule.n_atoms}: give the molecule of the trajectory"
        )
    size = frame_size(n_atoms, counters.periodic)
    raw = np.fromfile(path, np.uint8, counters.frames * size, offset=HEADER_SIZE)
    raw = raw.reshape(counters.frames, size)
    cells = {"boxes": _boxes(raw[:, : _CELL.size], path)} if counters.periodic else {}
    records = np.ascontiguousarray(raw[:, len(cells) * _CELL.size :])
    records = records.view("<f4").reshape(counters.frames, 3, n_atoms + 2)
    if (records.view("<i4")[:, :, [0, -1]] != 4 * n_atoms).any():
        raise InputError(f"{path}: a frame is damaged; make the trajectory again")
    steps = counters.first + counters.every * np.arange(counters.frames)
    return {
        "positions": np.ascontiguousarray(records[:, :, 1:-1].transpose(0, 2, 1)),
        "times": steps * (counters.dt * units.TIME),
        "steps": steps,
        **cells,
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
    periodic = middle[7] != 0
    if path.stat().st_size < HEADER_SIZE + frames * frame_size(n_atoms, periodic):
        raise InputError(
            f"{path}: the header states {frames} frames, but the file ends earlier; copy or make "
            "the trajectory again"
        )
    return Counters(frames, first, every, middle[6], periodic), n_atoms


def frame_size(n_atoms: int, periodic: bool = False) -> int:
    """Size of a frame in the file, with a unit cell if it is periodic, bytes."""
    return 3 * 4 * (n_atoms + 2) + periodic * _CELL.size


def _description(molecule: Molecule) -> bytes:
    """The records of titles and number of atoms."""
    first = f"{FORMAT}; positions in Angstrom, time step in AKMA units".ljust(80).encode()
    second = "".join(molecule.symbols).ljust(80)[:80].encode()
    return _TITLES.pack(164, 2, first, second, 164) + _ATOMS.pack(4, molecule.n_atoms, 4)


def _boxes(raw: np.ndarray, path) -> np.ndarray:
    """Boxes (F, 3, 3) Å of unit cells (F, 56) in bytes."""
    boxes = []
    for cell in raw:
        head, a, gamma, b, beta, alpha, c, tail = _CELL.unpack(cell.tobytes())
        if (head, tail) != (48, 48):
            raise InputError(f"{path}: a unit cell is damaged; make the trajectory again")
        boxes.append(box_of((a, b, c, alpha, beta, gamma), f"{path}: the unit cell"))
    return np.array(boxes).reshape(-1, 3, 3)


def _records(positions: np.ndarray, boxes: np.ndarray | None) -> np.ndarray:
    """DCD records of frames, (F, bytes), with record lengths.

    Args:
        positions: (F, N, 3) Å.
        boxes: (F, 3, 3) Å, or None.
    """
    n_frames, n_atoms, _ = positions.shape
    records = np.empty((n_frames, 3, n_atoms + 2), "<f4")
    records[:, :, 1:-1] = positions.transpose(0, 2, 1)
    records.view("<i4")[:, :, [0, -1]] = 4 * n_atoms
    parts = [records.reshape(n_frames, -1).view(np.uint8)]
    if boxes is not None:
        cells = b""
        for lengths, (alpha, beta, gamma) in map(lengths_and_angles, boxes):
            a, b, c = lengths
            cells += _CELL.pack(48, a, gamma, b, beta, alpha, c, 48)
        parts.insert(0, np.frombuffer(cells, np.uint8).reshape(n_frames, _CELL.size))
    return np.concatenate(parts, axis=1)
