"""Trajectory files, which grow during a simulation and can be continued.

The suffix of the file determines the format:

- ``.extxyz``, ``.xyz``: text with all quantities (`jaxff.md.extxyz`)
- ``.h5``, ``.h5md``: binary with all quantities, H5MD (`jaxff.md.h5md`)
- ``.dcd``: binary, positions only, in float32 (`jaxff.md.dcd`)

Frames are a mapping of arrays: ``positions`` (F, N, 3) Å, ``velocities`` (F, N, 3) Å/fs, ``forces``
(F, N, 3) kcal/mol/Å, ``potential_energies`` and ``kinetic_energies`` (F,) kcal/mol,
``temperatures`` (F,) K, ``times`` (F,) fs and ``steps`` (F,).  Frames of a system in a periodic box
also have ``boxes`` (F, 3, 3) Å, lattice vectors as rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from jaxff.errors import InputError
from jaxff.md.dcd import DCDWriter, read_dcd
from jaxff.md.extxyz import ExtxyzWriter, read_extxyz
from jaxff.md.frames import QUANTITIES
from jaxff.md.h5md import H5MDWriter, read_h5md
from jaxff.molecule import Molecule

FARTHEST = 1e7  # Å, largest coordinate in a file that is not damaged


class Writer(Protocol):
    """A trajectory file to which frames can be added.

    Attributes:
        path: the file.
    """

    path: Path

    def append(self, frames: Mapping[str, np.ndarray]) -> None:
        """Add frames, see `jaxff.md.trajectory`; raise `InputError` if this fails."""
        ...

    def mark(self) -> dict:
        """Return the end of the file, up to which all frames are written, as JSON values."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class Format(NamedTuple):
    """A format of trajectory files: a writer class and a reader function."""

    writer: type
    read: Callable[..., dict[str, np.ndarray]]


_EXTXYZ = Format(ExtxyzWriter, read_extxyz)
_H5MD = Format(H5MDWriter, read_h5md)
FORMATS = {
    ".extxyz": _EXTXYZ,
    ".xyz": _EXTXYZ,
    ".h5": _H5MD,
    ".h5md": _H5MD,
    ".dcd": Format(DCDWriter, read_dcd),
}


def open_trajectory(path, molecule: Molecule, *, extend: bool = False) -> Writer:
    """Create a trajectory file in the format of its suffix.

    Args:
        path: the file; an existing file is replaced.
        molecule: elements, charge and bonds.
        extend: whether to add frames to the existing file after its last complete frame.

    Raises:
        InputError: the suffix is unknown, or the file cannot be written or extended.
    """
    writer = format_of(path).writer
    return writer.resume(path, molecule, None) if extend else writer(path, molecule)


def resume_trajectory(path, molecule: Molecule, mark: dict) -> Writer:
    """Continue a trajectory file after a mark, and delete later frames.

    Args:
        path: the file.
        molecule: elements, charge and bonds.
        mark: result of `Writer.mark`.

    Raises:
        InputError: the file is missing, ends before the mark, or belongs to another molecule.
    """
    return format_of(path).writer.resume(path, molecule, mark)


def read_trajectory(path, topology: Molecule | None = None) -> dict[str, np.ndarray]:
    """Read the frames of a trajectory file that jaxff wrote.

    Args:
        path: the file.
        topology: molecule that the file must belong to (None: any molecule).

    Returns:
        {name: array} of the quantities in the format; see `jaxff.md.trajectory`.

    Raises:
        InputError: the suffix is unknown, or the file is damaged or belongs to another program or
            molecule.
    """
    frames = format_of(path).read(path, topology)
    _check_read(path, frames)
    return frames


def _check_read(path, frames: Mapping[str, np.ndarray]) -> None:
    """Raise `InputError` if a shape is wrong, or a value is not finite or too large."""
    shape = np.shape(frames["positions"])
    for key, array in frames.items():
        rest = tuple(shape[1] if n == "N" else n for n in QUANTITIES[key])
        if len(shape) != 3 or array.shape != (shape[0], *rest) or array.dtype.kind not in "fiu":
            raise InputError(
                f"{path}: the file is damaged, because {key} have shape {array.shape} for "
                f"positions of shape {shape}; copy or make it again"
            )
        if not np.isfinite(array).all():
            raise InputError(
                f"{path}: the file is damaged, because {key} are not finite; copy or make it again"
            )
    if not (np.abs(frames["positions"]) <= FARTHEST).all():
        raise InputError(
            f"{path}: the file is damaged, because a coordinate is larger than {FARTHEST:g} Å; "
            "copy or make it again"
        )


def format_of(path) -> Format:
    """Return the format of a trajectory; raise `InputError` for unknown suffixes."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path}: unknown trajectory format {suffix!r}; use {', '.join(FORMATS)}")
    return FORMATS[suffix]
