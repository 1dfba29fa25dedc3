"""The OpenMM-ML potential "jaxff", against the energies of jaxff and of OpenMM."""

import numpy as np
import pytest

import jaxff
from jaxff import InputError, Molecule
from jaxff.openmm import create_system

openmm = pytest.importorskip("openmm")
MLPotential = pytest.importorskip("openmmml").MLPotential

ETHANOL = Molecule.from_smiles("CCO")
KJ = 4.184


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of ethanol, and the OpenMM-ML potential of its file."""
    path = tmp_path_factory.mktemp("model") / "ethanol.npz"
    potential = jaxff.gaff(ETHANOL, charges="gasteiger", form="class2")
    jaxff.save(path, potential)
    return potential, MLPotential("jaxff", model_path=str(path))


def energy_and_forces(system, R, **parameters):
    """Energy, kcal/mol, forces, kcal/mol/Å, and the molecules that OpenMM finds."""
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.0005), platform)
    for name, value in parameters.items():
        context.setParameter(name, value)
    context.setPositions(0.1 * R)
    state = context.getState(energy=True, forces=True)
    groups = [sorted(group) for group in context.getMolecules()]
    forces = state.getForces(asNumpy=True)._value / (10.0 * KJ)
    return state.getPotentialEnergy()._value / KJ, forces, groups


def test_a_system_of_the_model(model):
    potential, ml = model
    R = ETHANOL.positions + np.random.default_rng(0).normal(0.0, 0.05, (9, 3))
    system = ml.createSystem(create_system(potential, ETHANOL)[1])
    energy, forces, groups = energy_and_forces(system, R)
    E, F = potential.energy_and_forces(R)
    assert energy == pytest.approx(float(E), abs=1e-8)
    np.testing.assert_allclose(forces, F, atol=1e-8)
    assert groups == [list(range(9))]


def test_a_mixed_system(model):
    """Ethanol in water: the model replaces the force field within ethanol."""
    potential, ml = model
    system = jaxff.solvate(ETHANOL, padding=6.0)
    order = ETHANOL.match(system.molecule(0))
    atoms = np.flatnonzero(system.molecules == 0)[order]
    mm = system.potential(cutoff=0.45 * np.diag(system.box).min())
    made, topology = create_system(mm, system)
    mixed = mm.without(atoms) + potential.on(atoms)
    R, box = system.positions, system.box
    interpolated = ml.createMixedSystem(topology, made, atoms.tolist(), interpolate=True)
    for scale, expected in ((1.0, mixed), (0.0, mm)):
        energy, forces, _ = energy_and_forces(interpolated, R, lambda_interpolate=scale)
        E, F = expected.energy_and_forces(R, box)
        assert energy == pytest.approx(float(E), abs=1e-5)
        np.testing.assert_allclose(forces, F, atol=1e-5)
    plain = ml.createMixedSystem(topology, made, atoms.tolist())
    energy, _, groups = energy_and_forces(plain, R)
    assert energy == pytest.approx(float(mixed(R, box)), abs=1e-5)
    assert sorted(atoms.tolist()) in groups  # the barostat moves ethanol as a whole


def test_other_elements_are_refused(model):
    topology = create_system(model[0], ETHANOL)[1]
    reverse = [*range(8, -1, -1)]
    with pytest.raises(InputError, match=r"the model \(C C O H H H H H H\)"):
        model[1].createMixedSystem(topology, openmm.System(), reverse)
