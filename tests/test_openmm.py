"""OpenMM Systems made from potentials, against the energies of jaxff on the Reference platform."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxff
from jaxff import InputError, Molecule, System, gdml
from jaxff.cli import main
from jaxff.openmm import create_system

openmm = pytest.importorskip("openmm")

GDML = Path(__file__).parent / "gdml" / "data"
SYSTEMS = Path(__file__).parent / "data" / "systems"
ETHANOL = Molecule.from_smiles("CCO")
KJ = 4.184


def gaff(form="gaff"):
    return jaxff.gaff(ETHANOL, charges="gasteiger", form=form)


@pytest.fixture(scope="module")
def kernel():
    """A kernel of ethanol, small enough to be added to a force field."""
    return 1e-3 * gdml.load(GDML / "ethanol_model.npz").matched(ETHANOL)


def context_of(system, platform="Reference", integrator=None):
    integrator = integrator or openmm.VerletIntegrator(0.00025)
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))


def deviations(system, potential, frames, box=None, platform="Reference"):
    """Largest deviations of energies, kcal/mol, and forces, kcal/mol/Å, from those of jaxff."""
    context, out = context_of(system, platform), []
    for R in frames:
        context.setPositions(0.1 * R)
        state = context.getState(energy=True, forces=True)
        energy = state.getPotentialEnergy()._value / KJ
        forces = state.getForces(asNumpy=True)._value / (10.0 * KJ)
        E, F = potential.energy_and_forces(R, box)
        massive = [system.getParticleMass(k)._value > 0 for k in range(len(R))]
        out.append([abs(energy - float(E)), np.abs(forces - np.asarray(F))[massive].max()])
    return np.max(out, axis=0)


def moved(positions, seed=0, count=3):
    rng = np.random.default_rng(seed)
    return positions + rng.normal(0.0, 0.05, (count, *np.shape(positions)))


def restored(system):
    return openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))


def names(system):
    return [force.getName() for force in system.getForces()]


@pytest.mark.parametrize("form", ["gaff", "morse"])
def test_openmm_has_all_forces_of_gaff(form):
    potential = gaff(form)
    system, topology = create_system(potential, ETHANOL)
    assert "jaxff" not in names(system)
    assert (topology.getNumAtoms(), topology.getNumBonds()) == (9, 8)
    assert np.all(deviations(restored(system), potential, moved(ETHANOL.positions)) < 1e-9)


@pytest.mark.parametrize(
    "what", ["class2", "kernel", "hybrid", "gbsa", "scaled", "part", "network"]
)
def test_other_terms_are_computed_by_jaxff(what, kernel):
    hydroxyl = jaxff.network(
        lambda variables, numbers, R: variables * ((R[1] - R[0]) ** 2).sum(), np.array(3.0), [8, 1]
    ).on([2, 8])
    potential = {
        "class2": lambda: gaff("class2"),
        "kernel": lambda: kernel,
        "hybrid": lambda: gaff("morse") + kernel,
        "gbsa": lambda: gaff() + jaxff.gbsa(ETHANOL, charges="gasteiger"),
        "scaled": lambda: 0.3 * gaff(),
        "part": lambda: gaff() + 0.1 * jaxff.gaff(Molecule.from_smiles("O")).on([2, 3, 8]),
        "network": lambda: gaff() + hydroxyl,
    }[what]()
    system, _ = create_system(potential, ETHANOL)
    assert "jaxff" in names(system)
    # A network without a builder cannot be written.
    system = system if what == "network" else restored(system)
    assert np.all(deviations(system, potential, moved(ETHANOL.positions)) < [1e-6, 1e-6])


def test_atoms_are_matched_and_only_the_needed_positions_are_copied(kernel):
    order = np.array([2, 0, 1, 8, 7, 3, 4, 5, 6])
    other = ETHANOL.reorder(order)
    system, _ = create_system(gaff() + kernel, other)
    R = moved(ETHANOL.positions)[:, order]
    assert np.all(deviations(system, (gaff() + kernel).matched(other), R) < 1e-6)
    alone, _ = create_system(
        gaff() + jaxff.gaff(Molecule.from_smiles("O"), form="class2").on([2, 3, 8]), ETHANOL
    )
    force = next(f for f in alone.getForces() if f.getName() == "jaxff")
    assert tuple(force.getParticles()) == (2, 3, 8)


@pytest.fixture(scope="module")
def solvated():
    """Ethanol in TIP4P-Ew water in a rectangular box."""
    return System.read(next(SYSTEMS.glob("*tip4pew*.prmtop")))


def test_a_hybrid_in_a_box_of_water(solvated):
    first = np.flatnonzero(solvated.molecules == solvated.molecules[0])
    potential = solvated.potential(cutoff=0.45 * np.diag(solvated.box).min())
    solute = solvated.molecule(0)
    model = jaxff.gaff(solute, charges="gasteiger", form="class2")
    potential = potential.without(first) + model.on(first)
    system, topology = create_system(potential, solvated)
    assert system.getNumConstraints() == len(solvated.constraints.pairs()[0])
    assert topology.getPeriodicBoxVectors() is not None
    frames = [solvated.sites.placed(R) for R in moved(solvated.positions, count=2)]
    found = deviations(restored(system), potential, frames, solvated.box)
    assert np.all(found < [1e-6, 1e-6])


def test_the_barostat_moves_whole_molecules(solvated):
    """OpenMM finds molecules by the bonds of its forces, and a `PythonForce` has none."""
    first = np.flatnonzero(solvated.molecules == 0)
    solute = solvated.molecule(0)
    potential = solvated.potential(cutoff=0.45 * np.diag(solvated.box).min()).without(first)
    potential += jaxff.gaff(solute, charges="gasteiger", form="class2").on(first)
    system, _ = create_system(potential, solvated)
    context = context_of(system)
    groups = [sorted(group) for group in context.getMolecules()]
    assert first.tolist() in groups


def test_energy_is_conserved(kernel):
    potential = gaff("morse") + kernel
    system, _ = create_system(potential, ETHANOL)
    context = context_of(system, integrator=openmm.VerletIntegrator(0.0001))
    context.setPositions(0.1 * ETHANOL.positions)
    context.setVelocitiesToTemperature(300.0, 1)

    def total():
        state = context.getState(energy=True)
        return (state.getPotentialEnergy() + state.getKineticEnergy())._value / KJ

    energies = []
    for _ in range(20):
        context.getIntegrator().step(20)
        energies.append(total())
    assert np.std(energies) < 0.02


def test_what_openmm_cannot_express_is_refused(solvated):
    potential = solvated.potential(cutoff=0.45 * np.diag(solvated.box).min())
    with pytest.raises(InputError, match="cannot express the periodic term 'nonbonded'"):
        create_system(0.5 * potential, solvated)
    with pytest.raises(InputError, match="acts on 9 particles, but there are 243"):
        create_system(gaff(), solvated)
    with pytest.raises(InputError, match="needs a box"):
        create_system(potential, solvated.replace(box=None))


def test_the_exported_program_runs(tmp_path, kernel):
    model, out = tmp_path / "hybrid.npz", tmp_path / "out"
    jaxff.save(model, gaff() + kernel)
    assert main(["export", str(model), "--to", "openmm", "-o", str(out)]) == 0
    program = out / "run.py"
    assert len(program.read_text().splitlines()) < 40
    program.write_text(program.read_text().replace("10_000", "200"))
    subprocess.run([sys.executable, program], check=True, capture_output=True, timeout=300)
    rows = np.loadtxt(out / "log.csv", delimiter=",", skiprows=1)
    assert rows[-1, 2] < 1000.0  # K
    # Another folder has no model.
    other = tmp_path / "other"
    other.mkdir()
    for name in ("run.py", "system.xml", "topology.pdb"):
        (other / name).write_bytes((out / name).read_bytes())
    done = subprocess.run([sys.executable, other / "run.py"], capture_output=True, text=True)
    assert "hybrid-terms.npz: no such file" in done.stderr


def test_a_model_is_exported_into_a_system(tmp_path, solvated, capsys):
    model, out = tmp_path / "model.npz", tmp_path / "out"
    jaxff.save(model, jaxff.gaff(solvated.molecule(0), charges="gasteiger", form="class2"))
    topology = next(SYSTEMS.glob("*tip4pew*.prmtop"))
    arguments = ["export", str(model), "--to", "openmm", "--system", str(topology)]
    assert main([*arguments, "-o", str(out)]) == 0
    pdb = openmm.app.PDBFile(str(out / "topology.pdb"))
    positions = 10.0 * np.array(pdb.getPositions(asNumpy=True)._value)
    np.testing.assert_allclose(positions, solvated.positions, atol=1e-3)
    jaxff.save(model, jaxff.gaff(Molecule.from_smiles("CCCC"), charges="gasteiger"))
    assert main([*arguments, "-o", str(tmp_path / "no")]) == 1
    assert "0 molecules of the system have the formula C4H10" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
