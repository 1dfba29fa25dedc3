"""GROMACS topologies (top and gro), converted from and to AMBER files by ParmEd."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxff.errors import InputError
from jaxff.formats import amber
from jaxff.formats.force_fields import optional_module
from jaxff.gaff.topology import Topology
from jaxff.npz import atomic_path, usable
from jaxff.potential import Potential


@contextmanager
def _silent() -> Iterator[None]:
    """Discard what ParmEd prints; its exceptions say the same."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def read(path: Path, companions: list[Path], coulomb_constant: float | None) -> Potential:
    """Read a GROMACS topology; a gro file gives the positions."""
    parmed = optional_module("parmed", "ParmEd", "formats")
    coordinates = str(companions[0]) if companions else None
    try:
        with _silent():
            warnings.simplefilter("error")  # ParmEd only warns of files that end too early
            warnings.simplefilter("ignore", ResourceWarning)  # it leaves some files open
            structure = parmed.load_file(str(path), xyz=coordinates)
        with tempfile.TemporaryDirectory() as folder:
            prmtop = Path(folder) / f"{path.stem}.prmtop"
            structure.box = None
            structure.save(str(prmtop), overwrite=True)
            topology = amber.read_topology(prmtop)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:
        raise InputError(f"{path}: ParmEd cannot convert it ({error})") from error
    if coordinates is not None:
        molecule = topology.molecule.with_positions(structure.coordinates)
        topology = replace(topology, molecule=molecule)
    return topology.potential(coulomb_constant)


class Gro(NamedTuple):
    """A gro file: title, positions (N, 3) Å, and the numbers of its box in nm."""

    title: str
    positions: np.ndarray
    box: list[float]


def read_gro(path: str | Path) -> Gro:
    """Read a GROMACS coordinate file.

    Raises:
        InputError: the file is missing, truncated or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    try:
        count = int(lines[1])
        rows = [[float(x) for x in _coordinates(row)] for row in lines[2 : 2 + count]]
        box = [float(x) for x in lines[2 + count].split()]
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: not a gro file, or a truncated one") from error
    positions = 10.0 * np.array(rows)
    if positions.shape != (count, 3) or not usable(positions).all():
        raise InputError(f"{path}: not a gro file, or a truncated one")
    return Gro(lines[0].strip(), positions, box)


def _coordinates(row: str) -> list[str]:
    """The coordinates of a line of a gro file, whose columns have any equal number of decimals."""
    first = row.index(".", 20)
    width = row.index(".", first + 1) - first
    return [row[20 + k * width : 20 + (k + 1) * width] for k in range(3)]


def write(path: Path, topology: Topology, potential: Potential) -> list[Path]:
    """Write x.top and x.gro."""
    parmed = optional_module("parmed", "ParmEd", "formats")
    gro = path.with_suffix(".gro")
    with tempfile.TemporaryDirectory() as folder:
        files = amber.write(Path(folder) / "x.prmtop", topology, potential)
        with atomic_path(path) as top, atomic_path(gro) as coordinates:
            try:
                with _silent():
                    structure = parmed.load_file(*map(str, files))
                    parmed.gromacs.GromacsTopologyFile.from_structure(structure).write(str(top))
                    parmed.gromacs.GromacsGroFile.write(structure, str(coordinates), precision=6)
            except Exception as error:
                raise InputError(f"{path}: ParmEd cannot write it ({error})") from error
    return [path, gro]
