"""Potentials as portable compiled programs (StableHLO), which run without jaxff.

A file is a zip archive of ``header.json`` and ``program``.  `LOADER` is a program that reads it and
needs only JAX and flatbuffers.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp

from jaxff.errors import InputError
from jaxff.formats.force_fields import optional_module
from jaxff.npz import atomic_path
from jaxff.potential import Potential

FORMAT = "jaxff stablehlo 1"
PLATFORMS = ("cpu", "cuda")
UNITS = {
    "R": "Å",
    "box": "Å, lattice vectors as rows",
    "energy": "kcal/mol",
    "forces": "kcal/mol/Å",
}
LOADER = '''"""Load energy and forces from a file of `jaxff export --to stablehlo`."""

import json
import zipfile

import jax
import jax.export


def load(path):
    """Return a function of positions R (N, 3) in Å, and the header of the file as a dict.

    The function returns the energy in kcal/mol and the forces (N, 3) in kcal/mol/Å.  If
    header["box"] is true, its second argument is the box (3, 3) in Å.
    """
    with zipfile.ZipFile(path) as archive:
        header = json.loads(archive.read("header.json"))
        program = archive.read("program")
    if header["dtype"] == "float64":
        jax.config.update("jax_enable_x64", True)
    return jax.jit(jax.export.deserialize(bytearray(program)).call), header
'''


def export(path: str | Path, potential: Potential) -> Path:
    """Write the compiled energy and forces of a potential, for CPUs and CUDA GPUs.

    Args:
        path: the file.
        potential: a potential of all its atoms, without a neighbour list.

    Returns:
        The path.

    Raises:
        InputError: flatbuffers is not installed, the potential needs a neighbour list or has no
            fixed number of atoms, or the file cannot be written.
    """
    optional_module("flatbuffers", "flatbuffers", "stablehlo")  # JAX writes with it
    program, count = potential.program, potential.n_atoms
    if program.needs_list or count is None:
        what = "needs a neighbour list" if program.needs_list else "has no fixed number of atoms"
        raise InputError(
            f"{path}: not written, because the potential {what}; export a potential of all atoms "
            "of a molecule without a cutoff"
        )
    params, dtype = potential.params, potential.dtype
    boxed = "box" in program.reads(params)
    shapes = [jax.ShapeDtypeStruct((count, 3), dtype)]
    if boxed:
        shapes.append(jax.ShapeDtypeStruct((3, 3), dtype))

    def energy_and_forces(R, box=None):
        return program.energy_and_forces(params, R, box)

    exported = jax.export.export(jax.jit(energy_and_forces), platforms=PLATFORMS)(*shapes)
    molecule = potential.molecule
    header = {
        "format": FORMAT,
        "atoms": count,
        "numbers": None if molecule is None else molecule.numbers.tolist(),
        "dtype": jnp.dtype(dtype).name,
        "box": boxed,
        "units": UNITS,
        "platforms": list(PLATFORMS),
        "jax": jax.__version__,
    }
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr("header.json", json.dumps(header, indent=1, ensure_ascii=False))
        archive.writestr("program", bytes(exported.serialize()))
    return Path(path)
