"""Potentials as a `PythonForce` of OpenMM, which calls jaxff for energy and forces."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.formats import load
from jaxff.formats.openmm import NM
from jaxff.potential import Placed, Potential, Program
from jaxff.saved import save
from jaxff.units import KJ_MOL

if TYPE_CHECKING:
    import openmm


class Forces:
    """The function of a `PythonForce`: energy and forces of a potential in the units of OpenMM.

    Args:
        potential: the potential of the particles of the force.
        file: name of a file with this potential, which replaces it in serialised Systems, or None.
    """

    def __init__(self, potential: Potential, file: str | None = None):
        program = potential.program
        self.potential, self.file = potential, file
        self.reads_box = "box" in program.reads(potential.params)
        self.periodic = self.reads_box or len(program.regions) > 0
        self._regions = () if self.reads_box else program.regions
        # Programs without periodic terms accept no box, which their regions need.
        self._alone = potential
        if self._regions:
            self._alone = Potential(Program(program.placed, program.sites), potential.params)
        self._together = jax.jit(self._joined)

    def __call__(self, state) -> tuple[float, np.ndarray]:
        """Return the energy, kJ/mol, and the forces (n, 3) kJ/mol/nm of an OpenMM State."""
        R = state.getPositions(asNumpy=True)._value * NM
        box = None
        if self.periodic:
            box = state.getPeriodicBoxVectors(asNumpy=True)._value * NM
        if self._regions:
            R = self._together(R, box)
        energy, forces = jax.device_get(
            self._alone.energy_and_forces(R, box if self.reads_box else None)
        )
        return float(energy) / KJ_MOL, np.asarray(forces, float) * (NM / KJ_MOL)

    def _joined(self, R, box):
        for region in self._regions:
            R = region.together(R, box)
        return R

    def __reduce__(self):
        leaves = jax.tree.leaves(self.potential.params)
        double = any(leaf.dtype == jnp.float64 for leaf in leaves)
        source: str | bytes | None = self.file
        if source is None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.npz"
                save(path, self.potential)
                source = path.read_bytes()
        return _restored, (source, double)


@dataclass(frozen=True)
class Fault:
    """The function of a `PythonForce` whose terms cannot be read.

    OpenMM ends the process if an error is raised while it reads a System, so that the error is
    raised by the first evaluation.

    Attributes:
        message: what is wrong.
    """

    message: str

    def __call__(self, state):
        raise InputError(self.message)


def _restored(source: str | bytes, double: bool) -> Forces | Fault:
    """Restore the function of a `PythonForce` from a serialised System.

    Args:
        source: the name of a model file, or its contents.
        double: whether the potential is in float64.
    """
    if double and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        return Fault(
            "the System contains a potential in float64: call "
            "jax.config.update('jax_enable_x64', True) before reading it"
        )
    try:
        if isinstance(source, str):
            return Forces(load(source), source)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.npz"
            path.write_bytes(source)
            return Forces(load(path))
    except Exception as error:
        return Fault(str(error))


def python_force(
    mm, potential: Potential, count: int, model: str | Path | None = None
) -> openmm.PythonForce:
    """A `PythonForce` of a potential, on the particles on which the potential acts.

    Args:
        mm: the module openmm.
        potential: the potential.
        count: number of particles of the system.
        model: see `jaxff.openmm.create_system`.

    Raises:
        InputError: OpenMM is too old, or the model file cannot be written.
    """
    if not hasattr(getattr(mm, "PythonForce", None), "setParticles"):
        raise InputError(
            f"the terms {', '.join(potential.program.names)} need OpenMM 8.6 or later; "
            "pip install --upgrade openmm"
        )
    potential = potential.with_training(())
    program = potential.program
    atoms = np.arange(count)
    if not program.reads(potential.params) and all(p.atoms is not None for p in program.placed):
        used = [p.atoms for p in program.placed if p.atoms is not None]
        atoms = np.unique(np.concatenate(used + [r.rows.ravel() for r in program.regions]))
        place = np.full(count, -1, np.int32)
        place[atoms] = np.arange(len(atoms))
        placed = [
            Placed(p.name, p.term, place[index])
            for p, index in zip(program.placed, used, strict=True)
        ]
        regions = [region.on(place) for region in program.regions]
        potential = Potential(Program(placed, None, regions), potential.params)
    if model is not None:
        save(model, potential)
    forces = Forces(potential, None if model is None else Path(model).name)
    force = mm.PythonForce(forces)
    force.setName("jaxff")
    force.setUsesPeriodicBoundaryConditions(forces.periodic)
    if len(atoms) < count:
        force.setParticles(atoms.tolist())
    return force


def molecules(mm, bonds: np.ndarray) -> openmm.HarmonicBondForce:
    """Bonds without energy, from which OpenMM finds the molecules.

    A barostat moves whole molecules, but OpenMM does not know the bonds in a `PythonForce`.

    Args:
        mm: the module openmm.
        bonds: (B, 2) indices of particles.
    """
    force = mm.HarmonicBondForce()
    for i, j in np.asarray(bonds).tolist():
        force.addBond(i, j, 0.1, 0.0)
    force.setName("molecules")
    return force
