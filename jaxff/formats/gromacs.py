"""GROMACS topologies (top and gro), converted from and to AMBER files by ParmEd."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

from jaxff.errors import InputError
from jaxff.formats import amber
from jaxff.formats.force_fields import optional_module
from jaxff.gaff.topology import Topology
from jaxff.npz import atomic_path
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
