"""What the trajectory formats share: the arrays of frames, and files that only grow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from jaxff.errors import InputError

FORMAT = "jaxff trajectory 1"

# What a frame holds, and the shape of one frame's entry (N stands for the atoms).
QUANTITIES = {
    "positions": ("N", 3),
    "velocities": ("N", 3),
    "forces": ("N", 3),
    "potential_energies": (),
    "kinetic_energies": (),
    "temperatures": (),
    "times": (),
    "steps": (),
}


def checked_frames(frames: Mapping, n_atoms: int) -> dict[str, np.ndarray]:
    """The arrays of `frames` in the order of `QUANTITIES`, all there, finite and of one length.

    Raises:
        InputError: an array is missing, misshapen or not finite.
    """
    missing = [key for key in QUANTITIES if key not in frames]
    if missing:
        raise InputError(f"frames of a trajectory need {', '.join(missing)} too")
    arrays = {key: np.asarray(frames[key]) for key in QUANTITIES}
    n_frames = len(arrays["positions"])
    for key, array in arrays.items():
        shape = (n_frames, *(n_atoms if n == "N" else n for n in QUANTITIES[key]))
        if array.shape != shape:
            raise InputError(f"{key} of the frames have shape {array.shape}, expected {shape}")
        if not (finite := np.isfinite(array)).all():
            frame = int(np.argmin(finite.reshape(n_frames, -1).all(axis=1)))
            raise InputError(f"{key} of frame {frame} are not finite: nothing was written")
    return arrays


@contextmanager
def writing(path):
    """Failures of the file system within become an InputError that names the file."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # h5py raises the one or the other
        reason = str(getattr(error, "strerror", None) or error)
        system = re.search("error message = '(.+?)'", reason)  # amid HDF5's own
        raise InputError(f"cannot write {path}: {system[1] if system else reason}") from error


class GrowingFile:
    """A binary file that is appended to, and whose first bytes may be written over.

    Every `append` is one system call as far as the system allows, and nothing is buffered: what
    was appended survives the death of the process.

    Args:
        path: the file.
        fresh: begin an empty one in its place.

    Attributes:
        size: bytes so far.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path, *, fresh: bool):
        self.path = Path(path)
        with writing(self.path):
            self._file = self.path.open("wb" if fresh else "r+b", buffering=0)
            self.size = self.path.stat().st_size

    def cut(self, size: int) -> None:
        """Keep the first `size` bytes."""
        with writing(self.path):
            self._file.truncate(size)
        self.size = size

    def append(self, data) -> None:
        self._write(self.size, data)
        self.size += memoryview(data).nbytes

    def overwrite_start(self, data: bytes) -> None:
        self._write(0, data)

    def close(self) -> None:
        self._file.close()

    def _write(self, offset: int, data) -> None:
        rest = memoryview(data).cast("B")
        with writing(self.path):
            self._file.seek(offset)
            while rest:
                rest = rest[self._file.write(rest) :]


def existing(path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return path


def shorter(path, mark: str) -> InputError:
    return InputError(
        f"{path}: it ends before the place to continue from ({mark}), so frames are missing; "
        "take the file that belongs to the restart, or start anew"
    )


def stranger(path, why: str) -> InputError:
    return InputError(f"{path}: not a trajectory that jaxff wrote of this molecule ({why})")
