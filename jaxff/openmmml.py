"""Potentials in OpenMM-ML, which finds this module by its entry point "jaxff".

>>> potential = MLPotential("jaxff", model_path="hybrid.npz")
>>> system = potential.createMixedSystem(topology, mm_system, ligand_atoms)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import openmm
from openmm.app import Topology
from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory

from jaxff.errors import InputError
from jaxff.formats import load
from jaxff.potential import Potential
from jaxff.python_force import molecules, python_force


class Factory(MLPotentialImplFactory):
    """Makes the implementation of the OpenMM-ML potential "jaxff"."""

    def createImpl(self, name: str, *, model_path: str, **args: Any) -> MLPotentialImpl:
        """Read a model.

        Args:
            name: "jaxff".
            model_path: a model or force field that `jaxff.load` reads.
            args: not used.

        Raises:
            InputError: the file cannot be read.
        """
        return _Implementation(load(model_path))


class _Implementation(MLPotentialImpl):
    """A potential of jaxff that OpenMM-ML adds to a System as a `PythonForce`."""

    def __init__(self, potential: Potential):
        self.potential = potential

    def addForces(
        self,
        topology: Topology,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        **args: Any,
    ) -> None:
        """Add the potential to a System.

        Args:
            topology: the topology of the System.
            system: the System, which is changed.
            atoms: particles of the potential, in the order of the model; None: all particles.
            forceGroup: the group of the new forces.
            args: not used.

        Raises:
            InputError: the elements of the atoms are not those of the model.
        """
        count = topology.getNumAtoms()
        index = np.arange(count) if atoms is None else np.asarray(list(atoms), int)
        self._check(topology, index)
        forces: list[openmm.Force] = [python_force(openmm, self.potential.on(index), count)]
        if self.potential.molecule is not None:
            forces.append(molecules(openmm, index[self.potential.molecule.bonds]))
        for force in forces:
            force.setForceGroup(forceGroup)
            system.addForce(force)

    def getMLLongRange(self) -> bool | None:
        """Whether the potential has interactions between periodic images; None: unknown."""
        return None if "box" in self.potential.program.reads(self.potential.params) else False

    def _check(self, topology: Topology, index: np.ndarray) -> None:
        """Compare the elements of the atoms with those of the model."""
        molecule = self.potential.molecule
        if molecule is None:
            return
        elements = [atom.element for atom in topology.atoms()]
        found = [0 if elements[k] is None else elements[k].atomic_number for k in index]
        if not np.array_equal(molecule.numbers, found):
            raise InputError(
                f"the {len(found)} atoms have other elements than the {molecule.n_atoms} atoms of "
                f"the model ({' '.join(molecule.symbols)}); give their indices in this order"
            )
