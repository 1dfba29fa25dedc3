"""The oracle of systems: OpenMM's energies and forces term by term, on the Reference platform."""

import copy

import numpy as np
import openmm
from mm_oracle import KJ, _split
from openmm import unit


def openmm_terms(system, positions, box=None, platform="Reference"):
    """{term: (energy kcal/mol, forces (N, 3) kcal/mol/Å)} of an OpenMM System without its
    constraints, at positions (N, 3) Å in a box (3, 3) Å."""
    return {
        name: evaluate(system, force, positions, box, platform) for name, force in _split(system)
    }


def evaluate(system, force, positions, box=None, platform="Reference"):
    """Energy and forces of one force; virtual sites are computed by OpenMM."""
    part = openmm.System()
    for i in range(system.getNumParticles()):
        part.addParticle(system.getParticleMass(i))
        if system.isVirtualSite(i):
            part.setVirtualSite(i, _copy(system.getVirtualSite(i)))
    part.addForce(copy.deepcopy(force))
    if box is not None:
        part.setDefaultPeriodicBoxVectors(*(np.asarray(box) / 10.0).tolist())
    chosen = openmm.Platform.getPlatformByName(platform)
    context = openmm.Context(part, openmm.VerletIntegrator(0.001), chosen)
    context.setPositions(np.asarray(positions) / 10.0)
    context.computeVirtualSites()
    state = context.getState(getEnergy=True, getForces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) / KJ
    forces = state.getForces(asNumpy=True)
    return energy, forces.value_in_unit(unit.kilojoule_per_mole / unit.nanometer) / KJ / 10.0


def _copy(site):
    parents = [site.getParticle(k) for k in range(site.getNumParticles())]
    if isinstance(site, openmm.OutOfPlaneSite):
        return type(site)(*parents, site.getWeight12(), site.getWeight13(), site.getWeightCross())
    return type(site)(*parents, *(site.getWeight(k) for k in range(len(parents))))


def with_openmm_constant(potential):
    """The potential with OpenMM's Coulomb constant."""
    from mm_oracle import coulomb_constant

    params = {name: dict(columns) for name, columns in potential.params.items()}
    for columns in params.values():
        if "coulomb_constant" in columns:
            columns["coulomb_constant"] = columns["coulomb_constant"] * 0 + coulomb_constant()
    return potential.replace(params)
