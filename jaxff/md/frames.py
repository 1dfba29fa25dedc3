"""Arrays of frames and growing files, which all trajectory formats use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxff.errors import InputError

FORMAT = "jaxff trajectory 1"

# The quantities of a frame, and the shape of each; N is the number of atoms.  Only periodic systems
# have boxes.
QUANTITIES = {
    "positions": ("N", 3),
    "velocities": ("N", 3),
    "forces": ("N", 3),
    "potential_energies": (),
    "kinetic_energies": (),
    "temperatures": (),
    "times": (),
    "steps": (),
    "boxes": (3, 3),
}


def is_periodic(molecule: Any) -> bool:
    """Whether the frames of a molecule or system have boxes."""
    return getattr(molecule, "box", None) is not None


def title(molecule: Any) -> str:
    """Formula of a molecule, or name of a system, for messages."""
    return getattr(molecule, "formula", None) or molecule.name or "the system"


def charge(molecule: Any) -> int | float:
    """Net charge, e; that of a system is a sum of real numbers, which is rounded."""
    value = molecule.charge
    return round(value, 6) + 0.0 if isinstance(value, float) else value


def checked_frames(frames: Mapping, molecule: Any) -> dict[str, np.ndarray]:
    """Return the arrays of F frames in the order of `QUANTITIES`.

    Args:
        frames: arrays by name, see `jaxff.md.trajectory`.
        molecule: the molecule or system with N atoms.

    Raises:
        InputError: an array is missing, has a wrong shape, or is not finite.
    """
    wanted = [key for key in QUANTITIES if key != "boxes" or is_periodic(molecule)]
    missing = [key for key in wanted if key not in frames]
    if missing:
        raise InputError(f"the frames lack the arrays {', '.join(missing)}: add them")
    arrays, n_atoms = {key: np.asarray(frames[key]) for key in wanted}, molecule.n_atoms
    n_frames = len(arrays["positions"])
    for key, array in arrays.items():
        shape = (n_frames, *(n_atoms if n == "N" else n for n in QUANTITIES[key]))
        if array.shape != shape:
            raise InputError(f"{key} of the frames must have shape {shape}, got {array.shape}")
        if not (finite := np.isfinite(array)).all():
            frame = int(np.argmin(finite.reshape(n_frames, -1).all(axis=1)))
            raise InputError(f"{key} of frame {frame} are not finite: remove such frames")
    return arrays


@contextmanager
def writing(path):
    """Convert errors of the file system in a block to an `InputError` with the path."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # h5py raises both
        reason = str(getattr(error, "strerror", None) or error)
        system = re.search("error message = '(.+?)'", reason)  # the part that the system reports
        raise InputError(
            f"cannot write {path} ({system[1] if system else reason}): free some space, or choose "
            "another file"
        ) from error


class GrowingFile:
    """A binary file for appended data; its first bytes may be overwritten.

    The file has no buffer, so that appended data survive if the process is killed.

    Args:
        path: the file.
        fresh: whether to replace the file by an empty one.

    Attributes:
        path: the file.
        size: size of the file, bytes.

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
        """Add bytes, or an array, at the end."""
        self._write(self.size, data)
        self.size += memoryview(data).nbytes

    def overwrite_start(self, data: bytes) -> None:
        """Replace the first bytes."""
        self._write(0, data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, offset: int, data) -> None:
        rest = memoryview(data).cast("B")
        with writing(self.path):
            self._file.seek(offset)
            while rest:
                rest = rest[self._file.write(rest) :]


def existing(path) -> Path:
    """Return the path of a file; raise `InputError` if the file does not exist."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: the file does not exist; check its name")
    return path


def missing_frames(path, mark: str) -> InputError:
    """Return the error for a file that ends before the place described by `mark`."""
    return InputError(
        f"{path}: frames are missing, because the simulation continues after {mark}; use the "
        "file that belongs to the restart file, or start a new simulation"
    )


def wrong_trajectory(path, reason: str) -> InputError:
    """Return the error for a file of another molecule or of another program."""
    return InputError(
        f"{path}: not a trajectory that jaxff wrote for this molecule ({reason}); give another file"
    )
