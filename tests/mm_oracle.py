"""The oracle of the molecular mechanics tests: OpenMM's energies and forces term by term."""

import copy

import numpy as np
import openmm
from openmm import app, unit

KJ = 4.184  # kJ in a kcal


def coulomb_constant():
    """OpenMM's Coulomb constant, kcal/mol Å/e², from two unit charges 1 Å apart."""
    system, force = openmm.System(), openmm.NonbondedForce()
    for _ in range(2):
        system.addParticle(1.0)
        force.addParticle(1.0, 1.0, 0.0)
    system.addForce(force)
    return _evaluate(system, np.array([[[0.0, 0, 0], [1, 0, 0]]]))[0][0]


def total(prmtop, frames):
    """Energies (M,) kcal/mol and forces (M, N, 3) kcal/mol/Å of frames (M, N, 3) Å."""
    return _evaluate(_system(prmtop), frames)


def terms(prmtop, frames):
    """{term: (energies (M,) kcal/mol, forces (M, N, 3) kcal/mol/Å)} of frames (M, N, 3) Å."""
    whole = _system(prmtop)
    out = {}
    for name, force in _split(whole):
        system = openmm.System()
        for i in range(whole.getNumParticles()):
            system.addParticle(whole.getParticleMass(i))
        system.addForce(force)
        out[name] = _evaluate(system, frames)
    return out


def _system(prmtop):
    file = app.AmberPrmtopFile(str(prmtop))
    return file.createSystem(nonbondedMethod=app.NoCutoff, constraints=None, removeCMMotion=False)


def _evaluate(system, frames):
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    energies, forces = [], []
    for frame in np.asarray(frames):
        context.setPositions(frame / 10.0)
        state = context.getState(getEnergy=True, getForces=True)
        energies.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) / KJ)
        force = state.getForces(asNumpy=True)
        forces.append(force.value_in_unit(unit.kilojoule_per_mole / unit.nanometer) / KJ / 10.0)
    return np.array(energies), np.array(forces)


def _split(system):
    bonded = set()
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            pairs = [force.getBondParameters(i)[:2] for i in range(force.getNumBonds())]
            bonded = {frozenset(pair) for pair in pairs}
            yield "bond", copy.deepcopy(force)
        elif isinstance(force, openmm.HarmonicAngleForce):
            yield "angle", copy.deepcopy(force)
    for force in system.getForces():
        if isinstance(force, openmm.PeriodicTorsionForce):
            parts = {"torsion": openmm.PeriodicTorsionForce()}
            parts["improper"] = openmm.PeriodicTorsionForce()
            for i in range(force.getNumTorsions()):
                torsion = force.getTorsionParameters(i)
                chain = all(frozenset(torsion[j : j + 2]) in bonded for j in range(3))
                parts["torsion" if chain else "improper"].addTorsion(*torsion)
            yield from parts.items()
        elif isinstance(force, openmm.NonbondedForce):
            for name in ("lj", "lj14", "coulomb", "coulomb14"):
                yield name, _nonbonded(force, name)


def _nonbonded(force, name):
    part = copy.deepcopy(force)
    on14, charged = name.endswith("14"), name.startswith("coulomb")
    for i in range(part.getNumParticles()):
        charge, sigma, epsilon = part.getParticleParameters(i)
        on = (charge, sigma, 0.0) if charged else (0.0, sigma, epsilon)
        part.setParticleParameters(i, *((0.0, sigma, 0.0) if on14 else on))
    for i in range(part.getNumExceptions()):
        a, b, product, sigma, epsilon = part.getExceptionParameters(i)
        on = (product, sigma, 0.0) if charged else (0.0, sigma, epsilon)
        part.setExceptionParameters(i, a, b, *(on if on14 else (0.0, sigma, 0.0)))
    return part
