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
    """Discard the output of ParmEd, because its exceptions contain the messages."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def read(path: Path, companions: list[Path], coulomb_constant: float | None) -> Potential:
    """Read a GROMACS topology.

    Args:
        path: the topology.
        companions: a gro file with the positions, or nothing.
        coulomb_constant: () kcal/mol Å/e², or None; see `read_force_field`.

    Raises:
        InputError: ParmEd is not installed or cannot convert the file, or jaxff does not compute an
            interaction.
    """
    parmed = optional_module("parmed", "ParmEd", "formats")
    coordinates = str(companions[0]) if companions else None
    try:
        with _silent():
            warnings.simplefilter("error")  # ParmEd only warns if a file ends too early
            warnings.simplefilter("ignore", ResourceWarning)  # ParmEd leaves some files open
            structure = parmed.load_file(str(path), xyz=coordinates)
        with tempfile.TemporaryDirectory() as folder:
            prmtop = Path(folder) / f"{path.stem}.prmtop"
            structure.box = None
            structure.save(str(prmtop), overwrite=True)
            topology = amber.read_topology(prmtop)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:
        raise InputError(
            f"{path}: ParmEd cannot convert the topology ({error}); correct the file, or give an "
            "AMBER topology"
        ) from error
    if coordinates is not None:
        molecule = topology.molecule.with_positions(structure.coordinates)
        topology = replace(topology, molecule=molecule)
    return topology.potential(coulomb_constant)


class Gro(NamedTuple):
    """Contents of a gro file.

    Attributes:
        title: first line of the file.
        positions: (N, 3) Å.
        box: the numbers in the last line, nm.
        names: (N,) names of the atoms.
    """

    title: str
    positions: np.ndarray
    box: list[float]
    names: tuple[str, ...] = ()


def read_gro(path: str | Path) -> Gro:
    """Read a GROMACS coordinate file.

    Raises:
        InputError: the file is missing, truncated or not a gro file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    wrong = f"{path}: not a gro file, or truncated; write the file again"
    try:
        count = int(lines[1])
        rows = [[float(x) for x in _coordinates(row)] for row in lines[2 : 2 + count]]
        box = [float(x) for x in lines[2 + count].split()]
    except (ValueError, IndexError) as error:
        raise InputError(wrong) from error
    positions = 10.0 * np.array(rows)
    if positions.shape != (count, 3) or not usable(positions).all():
        raise InputError(wrong)
    names = tuple(row[10:15].strip() for row in lines[2 : 2 + count])
    return Gro(lines[0].strip(), positions, box, names)


def _coordinates(row: str) -> list[str]:
    """The three coordinates in a line of a gro file, as text."""
    first = row.index(".", 20)
    width = row.index(".", first + 1) - first
    return [row[20 + k * width : 20 + (k + 1) * width] for k in range(3)]


def write(path: Path, topology: Topology, potential: Potential) -> list[Path]:
    """Write x.top and x.gro, and return their paths.

    Args:
        path: x.top.
        topology: the force field.
        potential: the potential; not used for this format.

    Raises:
        InputError: ParmEd is not installed or fails, or the file cannot express the force field.
    """
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
                raise InputError(
                    f"{path}: ParmEd cannot write the topology ({error}); write a prmtop file"
                ) from error
    return [path, gro]
