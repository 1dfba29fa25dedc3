"""AMBER coordinates with a box: inpcrd, ASCII and NetCDF restart files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxff.cell import amber_box, box_of
from jaxff.errors import InputError
from jaxff.formats.prmtop import text_of
from jaxff.npz import atomic_path, usable
from jaxff.sites import VirtualSites


class Coordinates(NamedTuple):
    """Contents of a coordinate file.

    Attributes:
        positions: (N, 3) Å.
        box: (3, 3) Å, lattice vectors as rows, or None.
    """

    positions: np.ndarray
    box: np.ndarray | None


def read_restart(path) -> Coordinates:
    """Read positions and box of an AMBER inpcrd file, or of an ASCII or NetCDF restart file.

    If a NetCDF file contains several frames, the last is read.

    Raises:
        InputError: the file is missing, truncated, damaged or of another format.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{path}: no such file; check the path")
    with file.open("rb") as start:
        magic = start.read(4)
    if magic[:3] == b"CDF":
        coordinates = _read_netcdf(path)
    elif magic[1:4] == b"HDF":
        raise InputError(f"{path} is a NetCDF 4 file: convert it to NetCDF 3 with cpptraj")
    else:
        coordinates = _read_ascii(path)
    if not usable(coordinates.positions).all():
        raise InputError(f"{path}: a coordinate is not finite; write the file again")
    return coordinates


def positions_of(
    positions: np.ndarray, numbers: np.ndarray, sites: VirtualSites, coordinates, topology
) -> np.ndarray:
    """Positions (N, 3) Å of all particles, with virtual sites computed from their atoms.

    Args:
        positions: (N, 3) Å, or those of the atoms without virtual sites.
        numbers: (N,) atomic numbers; 0 for virtual sites.
        sites: the virtual sites.
        coordinates, topology: the files, for messages.

    Raises:
        InputError: the number of positions is wrong.
    """
    real = numbers > 0
    if len(positions) not in (len(numbers), real.sum()):
        extra = f" ({real.sum()} without virtual sites)" if len(sites) else ""
        raise InputError(
            f"{coordinates} has {len(positions)} atoms, but {topology} has {len(numbers)}{extra}: "
            "give the coordinates of the same system"
        )
    out = np.zeros((len(numbers), 3))
    out[real] = positions[real] if len(positions) == len(numbers) else positions
    return sites.placed(out)


def _read_ascii(path) -> Coordinates:
    what = "an ASCII AMBER coordinate file (inpcrd, rst7)"
    lines = text_of(path, f"{what} or a NetCDF restart file").splitlines()
    try:
        n = int(lines[1].split()[0])
        fields = [
            float(row[i : i + 12]) for row in lines[2:] for i in range(0, len(row.rstrip()), 12)
        ]
    except (IndexError, ValueError) as error:
        raise InputError(f"{path} is not {what} ({error}): convert it with cpptraj") from error
    if len(fields) < 3 * n or n < 1:
        raise InputError(f"{path} is truncated: write it again with {3 * n} finite coordinates")
    rest = len(fields) - 3 * n
    if rest not in (0, 3, 6, 3 * n, 3 * n + 3, 3 * n + 6):
        raise InputError(
            f"{path} is truncated: {rest} numbers follow the {n} positions, but velocities and a "
            f"box are {3 * n} and 6 numbers; write the file again"
        )
    positions = np.array(fields[: 3 * n]).reshape(-1, 3)
    # 3 N numbers are velocities, even if N is so small that they could be a box.
    size = 0 if rest == 3 * n else rest % (3 * n) if rest > 6 else rest
    box = fields[-size:] if size else []
    return Coordinates(positions, box_of(box, str(path)) if any(box[:3]) else None)


def _read_netcdf(path) -> Coordinates:
    from scipy.io import netcdf_file

    try:
        with netcdf_file(path, "r", mmap=False) as file:
            values = {key: np.array(v[:], float) for key, v in file.variables.items() if v.shape}
    except Exception as error:  # a damaged file may cause any error
        raise InputError(f"{path}: the NetCDF file is damaged or truncated; copy it again") from (
            error
        )
    if "coordinates" not in values:
        raise InputError(f"{path}: the NetCDF file contains no coordinates; give a restart file")
    positions = values["coordinates"]
    box = None
    if {"cell_lengths", "cell_angles"} <= set(values) and values["cell_lengths"].any():
        box = np.concatenate([values["cell_lengths"], values["cell_angles"]], axis=-1)
    if positions.ndim == 3 and len(positions):
        positions, box = positions[-1], None if box is None else box[-1]
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise InputError(f"{path}: the NetCDF file contains no frame; give a restart file")
    return Coordinates(positions, None if box is None else box_of(box, str(path)))


def write_restart(path, positions: np.ndarray, box: np.ndarray | None, title: str) -> None:
    """Write positions (N, 3) Å and a box (3, 3) Å, or None, to an ASCII rst7 file.

    Raises:
        InputError: a coordinate is too large, or the file cannot be written.
    """
    if np.abs(positions).max(initial=0.0) >= 999.0:
        raise InputError(
            f"{path}: coordinates of 999 Å or more do not fit into the columns of the file; move "
            "the molecules to the origin"
        )
    numbers = positions.ravel().tolist()
    rows = [numbers[k : k + 6] for k in range(0, len(numbers), 6)]
    if box is not None:
        rows.append(np.concatenate(amber_box(box)).tolist())
    lines = [title, f"{len(positions):6d}"]
    lines += ["".join(f"{x:12.7f}" for x in row) for row in rows]
    with atomic_path(path) as temporary:
        Path(temporary).write_text("\n".join(lines) + "\n")
