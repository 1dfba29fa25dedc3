"""Potentials as OpenMM Systems; terms that OpenMM does not have are computed by jaxff.

OpenMM computes harmonic and Morse bonds, harmonic angles, Fourier torsions, and Lennard-Jones and
Coulomb interactions.  A `PythonForce` computes all other terms, such as kernels and networks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import chemical_symbols

from jaxff.errors import InputError
from jaxff.formats import load
from jaxff.formats.force_fields import optional_module
from jaxff.molecule import Molecule
from jaxff.particles import Particles
from jaxff.potential import Params, Placed, Potential, Program, Term
from jaxff.saved import save
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

NM = 10.0  # Å
COULOMB = 138.93545764438198 * KJ_MOL * NM  # kcal/mol Å/e², the Coulomb constant of OpenMM
MORSE = "depth*(1-exp(-width*(r-length)))^2"


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
        out.addForce(_python_force(mm, potential.only(*rest), count, model))
        out.addForce(_molecules(mm, particles))
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


def _morse(mm, term: MorseBond, params, atoms: np.ndarray, scale: float):
    force = mm.CustomBondForce(MORSE)
    units = {"depth": scale / KJ_MOL, "width": NM, "length": 1.0 / NM}
    for name in units:
        force.addPerBondParameter(name)
    columns = np.stack([params[name][term.rows] * unit for name, unit in units.items()], axis=1)
    for pair, values in zip(atoms[term.atoms].tolist(), columns.tolist(), strict=True):
        force.addBond(*pair, values)
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
    MorseBond: _morse,
    Nonbonded: _pairs,
    PeriodicNonbonded: _pairs,
}


# -- all other terms -----------------------------------------------------------------------------


class Forces:
    """The function of a `PythonForce`: energy and forces of a potential in the units of OpenMM.

    Args:
        potential: the potential of the particles of the force.
        file: name of a file with this potential, which replaces it in serialised Systems, or None.
    """

    def __init__(self, potential: Potential, file: str | None = None):
        program = potential.program
        self.potential, self.file = potential, file
        reads = {name for p in program.placed for name in p.term.reads(potential.params[p.name])}
        self.reads_box = "box" in reads
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


def _python_force(mm, potential: Potential, count: int, model: str | Path | None):
    """A `PythonForce` of the terms that OpenMM does not have, on their particles.

    Args:
        mm: the module openmm.
        potential: these terms.
        count: number of particles of the system.
        model: see `create_system`.
    """
    if not hasattr(mm, "PythonForce"):
        raise InputError(
            f"the terms {', '.join(potential.program.names)} need OpenMM 8.4 or later; "
            "pip install --upgrade openmm"
        )
    potential = potential.with_training(())
    program = potential.program
    atoms = np.arange(count)
    reads = {name for p in program.placed for name in p.term.reads(potential.params[p.name])}
    if not reads and all(p.atoms is not None for p in program.placed):
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


def _molecules(mm, particles: Molecule | Particles):
    """Bonds without energy, which tell OpenMM which particles are one molecule.

    A barostat moves molecules as a whole, and OpenMM does not see the bonds in a `PythonForce`.
    """
    force = mm.HarmonicBondForce()
    for i, j in np.asarray(particles.bonds).tolist():
        force.addBond(i, j, 0.1, 0.0)
    force.setName("molecules")
    return force


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
    topology, chain = app.Topology(), None
    if isinstance(particles, Molecule):
        residues, names = np.zeros(len(particles.numbers), int), ["MOL"]
        symbols = [chemical_symbols[z] for z in particles.numbers]
        atom_names = [f"{symbol}{k + 1}" for k, symbol in enumerate(symbols)]
        box = None
    else:
        residues, names = particles.residues, list(particles.residue_names)
        atom_names, box = list(particles.atom_names), particles.box
    chain = topology.addChain()
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
