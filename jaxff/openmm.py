"""Potentials as OpenMM Systems; terms that OpenMM does not have are computed by jaxff.

OpenMM computes harmonic and Morse bonds, harmonic angles, Fourier torsions, and Lennard-Jones and
Coulomb interactions.  A `PythonForce` computes all other terms, such as kernels and networks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from jaxff.errors import InputError
from jaxff.formats.force_fields import optional_module
from jaxff.formats.openmm import NM, morse_force
from jaxff.molecule import Molecule
from jaxff.particles import Particles
from jaxff.potential import Params, Placed, Potential, Term
from jaxff.python_force import molecules, python_force
from jaxff.sites import VirtualSites
from jaxff.terms.angle import HarmonicAngle
from jaxff.terms.bond import HarmonicBond
from jaxff.terms.morse import MorseBond
from jaxff.terms.pairs import AtomPairs, Nonbonded
from jaxff.terms.periodic import WATER, PeriodicNonbonded
from jaxff.terms.torsion import FourierImproper, FourierTorsion
from jaxff.units import KJ_MOL

if TYPE_CHECKING:
    import openmm

COULOMB = 138.93545764438198 * KJ_MOL * NM  # kcal/mol Å/e², the Coulomb constant of OpenMM


def create_system(
    potential: Potential, particles: Molecule | Particles, model: str | Path | None = None
) -> tuple[openmm.System, Any]:
    """Make an OpenMM System and Topology with the energy of a potential.

    A `System` of jaxff also gives its masses, box, constraints and virtual sites.  Programs that
    read the serialised OpenMM System need jaxff if it contains a `PythonForce`.

    Args:
        potential: the potential of all particles.  In a box, OpenMM must have the periodic
            Lennard-Jones and Coulomb term.
        particles: a molecule, or a `System`.
        model: npz file for the terms that jaxff computes.  The serialised OpenMM System then
            contains the name of this file, which is looked for in the working folder; None: it
            contains the terms.

    Returns:
        The `openmm.System` and the `openmm.app.Topology`.

    Raises:
        InputError: OpenMM is not installed, the particles do not fit to the potential, or OpenMM
            cannot express a periodic term.
    """
    app, mm = (optional_module(name, "OpenMM", "openmm") for name in ("openmm.app", "openmm"))
    if isinstance(particles, Molecule):
        potential = potential.matched(particles)
    count = len(particles.numbers)
    least, wanted = potential.program.n_atoms_min, potential.n_atoms
    if least > count or wanted not in (None, count):
        raise InputError(
            f"the potential acts on {wanted or f'at least {least}'} particles, but there are "
            f"{count}; give the molecule or system of the potential"
        )
    box = getattr(particles, "box", None)
    out = mm.System()
    for mass in particles.masses:
        out.addParticle(float(mass))
    if box is not None:
        out.setDefaultPeriodicBoxVectors(*(box / NM).tolist())
    if isinstance(particles, Particles):
        for (i, j), length in zip(*particles.constraints.pairs(), strict=True):
            out.addConstraint(int(i), int(j), float(length) / NM)
        _add_sites(mm, out, particles.sites)
    rest, pairs = [], 0
    for placed in potential.program.placed:
        term, params = placed.term, potential.params[placed.name]
        if "box" in term.reads(params) and box is None:
            raise InputError(f"the term {placed.name!r} needs a box; give a system with its box")
        if not _has_force(placed, params, pairs):
            rest.append(placed.name)
            continue
        atoms = np.arange(term.n_atoms) if placed.atoms is None else np.asarray(placed.atoms)
        scale = float(params.get("scale", 1.0))
        numbers = {key: np.asarray(value, float) for key, value in params.items()}
        force = _FORCES[type(term)](mm, term, numbers, atoms, scale)
        force.setName(placed.name)
        if isinstance(term, AtomPairs):
            pairs += 1
            # The molecules of a region may be in different images of the box.
            apart = box is not None and len(potential.program.regions) > 0
            force.setExceptionsUsePeriodicBoundaryConditions(apart)
        out.addForce(force)
    if rest:
        out.addForce(python_force(mm, potential.only(*rest), count, model))
        out.addForce(molecules(mm, particles.bonds))
    return out, _topology(app, particles)


def _has_force(placed: Placed, params: Params, pairs: int) -> bool:
    """Whether OpenMM has a force for a term.

    Args:
        placed: the term.
        params: parameters of the term.
        pairs: number of earlier terms with pair interactions; OpenMM supports one.

    Raises:
        InputError: the term is a periodic pair interaction for which OpenMM has no force.
    """
    term = placed.term
    if isinstance(term, AtomPairs):
        wrong = [
            (len(term.overrides), "separate coefficients for pairs of types"),
            ("scale" in params, "a scale factor"),
            (placed.atoms is not None, "only some of the particles"),
            (pairs, "a second term of this kind"),
            (getattr(term, "combination", "lorentz-berthelot") == "geometric", "geometric σ"),
        ]
        faults = [what for bad, what in wrong if bad]
        if faults and isinstance(term, PeriodicNonbonded):
            raise InputError(
                f"OpenMM cannot express the periodic term {placed.name!r}, because it has "
                f"{' and '.join(faults)}; use dynamics of jaxff"
            )
        return not faults
    # OpenMM has no periodicity of zero.
    constant = isinstance(term, FourierTorsion) and 0 in term.periodicities
    return type(term) in _FORCES and not constant


# -- terms with a force of OpenMM ----------------------------------------------------------------


def _bonds(mm, term: HarmonicBond, params, atoms: np.ndarray, scale: float):
    force = mm.HarmonicBondForce()
    k = 2.0 * scale * params["k"][term.rows] * NM**2 / KJ_MOL
    length = params["length"][term.rows] / NM
    for pair, *values in zip(atoms[term.atoms].tolist(), length.tolist(), k.tolist(), strict=True):
        force.addBond(*pair, *values)
    return force


def _angles(mm, term: HarmonicAngle, params, atoms: np.ndarray, scale: float):
    force = mm.HarmonicAngleForce()
    k = 2.0 * scale * params["k"][term.rows] / KJ_MOL
    angle = params["angle"][term.rows]
    for triple, *values in zip(atoms[term.atoms].tolist(), angle.tolist(), k.tolist(), strict=True):
        force.addAngle(*triple, *values)
    return force


def _torsions(mm, term: FourierTorsion, params, atoms: np.ndarray, scale: float):
    force = mm.PeriodicTorsionForce()
    for quadruple, rows in zip(
        atoms[term.atoms].tolist(), np.asarray(term.rows).tolist(), strict=True
    ):
        for row, periodicity in zip(rows, term.periodicities, strict=True):
            if row >= 0:
                k = float(scale * params["k"][row] / KJ_MOL)
                force.addTorsion(*quadruple, periodicity, float(params["phase"][row]), k)
    return force


def _pairs(mm, term: Nonbonded | PeriodicNonbonded, params, atoms: np.ndarray, scale: float):
    force = mm.NonbondedForce()
    types = np.asarray(term.lj_rows)
    sigma, epsilon = params["sigma"][types] / NM, params["epsilon"][types] / KJ_MOL
    # Scaled charges give the Coulomb constant of the potential.
    factor = float(np.sqrt(params["coulomb_constant"] / COULOMB))
    charges = factor * params["charge"][np.asarray(term.charge_rows)]
    coulomb = getattr(term, "electrostatics", "all") != "none"
    rows = zip((coulomb * charges).tolist(), sigma.tolist(), epsilon.tolist(), strict=True)
    for row in rows:
        force.addParticle(*row)
    for i, j in np.unique(np.sort(term.exclusions, axis=1), axis=0).tolist():
        force.addException(i, j, 0.0, 1.0, 0.0)
    for (i, j), row in zip(term.pairs14.tolist(), np.asarray(term.rows14).tolist(), strict=True):
        product = params["coulomb14"][row] * charges[i] * charges[j]
        depth = params["lj14"][row] * np.sqrt(epsilon[i] * epsilon[j])
        size = 0.5 * (sigma[i] + sigma[j])
        force.addException(i, j, float(product), float(size), float(depth), True)
    if isinstance(term, Nonbonded):
        force.setNonbondedMethod(mm.NonbondedForce.NoCutoff)
        return force
    force.setCutoffDistance(term.cutoff / NM)
    force.setUseDispersionCorrection(term.dispersion_correction)
    if term.switch is not None:
        force.setUseSwitchingFunction(True)
        force.setSwitchingDistance(term.switch / NM)
    if term.electrostatics == "pme":
        force.setNonbondedMethod(mm.NonbondedForce.PME)
        force.setPMEParameters(term.alpha * NM, *term.grid)
    else:
        force.setNonbondedMethod(mm.NonbondedForce.CutoffPeriodic)
        force.setReactionFieldDielectric(WATER)
    return force


_FORCES: dict[type[Term], Callable] = {
    HarmonicBond: _bonds,
    HarmonicAngle: _angles,
    FourierTorsion: _torsions,
    FourierImproper: _torsions,
    MorseBond: morse_force,
    Nonbonded: _pairs,
    PeriodicNonbonded: _pairs,
}


# -- particles -----------------------------------------------------------------------------------


def _add_sites(mm, system: openmm.System, sites: VirtualSites) -> None:
    """Declare the virtual sites of a System."""
    rows = zip(sites.atoms.tolist(), sites.parents.tolist(), sites.weights.tolist(), strict=True)
    for (atom, parents, weights), cross in zip(rows, sites.cross.tolist(), strict=True):
        if cross:
            site = mm.OutOfPlaneSite(*parents, weights[1], weights[2], cross * NM)
        elif parents[2] == parents[0]:
            site = mm.TwoParticleAverageSite(*parents[:2], *weights[:2])
        else:
            site = mm.ThreeParticleAverageSite(*parents, *weights)
        system.setVirtualSite(atom, site)


def _topology(app, particles: Molecule | Particles):
    """The names, residues, bonds and box of particles as an `openmm.app.Topology`."""
    topology = app.Topology()
    chain = topology.addChain()
    if isinstance(particles, Molecule):
        residues, names = np.zeros(len(particles.numbers), int), ["MOL"]
        symbols = [chemical_symbols[z] for z in particles.numbers]
        atom_names = [f"{symbol}{k + 1}" for k, symbol in enumerate(symbols)]
        box = None
    else:
        residues, names = particles.residues, list(particles.residue_names)
        atom_names, box = list(particles.atom_names), particles.box
    made = [topology.addResidue(name, chain) for name in names]
    atoms = []
    for z, name, residue in zip(particles.numbers.tolist(), atom_names, residues, strict=True):
        element = app.Element.getByAtomicNumber(z) if z else None
        atoms.append(topology.addAtom(name, element, made[residue]))
    for i, j in np.asarray(particles.bonds).tolist():
        topology.addBond(atoms[i], atoms[j])
    if box is not None:
        topology.setPeriodicBoxVectors((box / NM).tolist())
    return topology
