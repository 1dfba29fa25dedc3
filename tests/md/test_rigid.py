"""Constrained distances and velocities, against their definitions and against OpenMM."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boxes import Box, waters

from jaxff import InputError, md, units
from jaxff.md.integrators import Core, plain_state, scaled_masses, velocity_verlet
from jaxff.md.rigid import Rigid, clusters_of

METHYL = np.array([[0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63], [-0.63, 0.63, -0.63]])


def methyls(count):
    """`count` groups C–H₃ and as many O–H, each a constrained cluster."""
    bonds, lengths, positions, masses = [], [], [], []
    for k in range(count):
        first = 6 * k
        bonds += [[first, first + i] for i in (1, 2, 3)] + [[first + 4, first + 5]]
        lengths += [1.09] * 3 + [0.96]
        positions += [*(METHYL + 5.0 * k), [5.0 * k, 3.0, 0.0], [5.0 * k + 0.96, 3.0, 0.0]]
        masses += [12.011, *[1.008] * 3, 15.999, 1.008]
    constraints = SimpleNamespace(
        waters=np.zeros((0, 3), int), water_lengths=np.zeros((0, 2)), bonds=np.array(bonds),
        lengths=np.array(lengths),
    )  # fmt: skip
    bonds = np.array(bonds)
    return Box(
        numbers=np.rint(masses).astype(int) // 2 + (np.array(masses) < 2),
        positions=np.array(positions), masses=np.array(masses), constraints=constraints,
        molecules=np.repeat(np.arange(2 * count), np.tile([4, 2], count)), bonds=bonds,
    )  # fmt: skip


def ring():
    """Four atoms whose six distances but one are constrained."""
    positions = np.array([[0, 0, 0], [1.1, 0, 0], [1.2, 1.0, 0.2], [0.1, 1.1, -0.1]])
    bonds = np.array([[0, 1], [1, 2], [2, 3], [0, 3], [0, 2]])
    lengths = np.linalg.norm(positions[bonds[:, 0]] - positions[bonds[:, 1]], axis=1)
    constraints = SimpleNamespace(
        waters=np.zeros((0, 3), int), water_lengths=np.zeros((0, 2)), bonds=bonds, lengths=lengths
    )
    return SimpleNamespace(
        constraints=constraints, positions=positions, masses=np.array([12.0, 1.0, 14.0, 16.0])
    )


SYSTEMS = {"water": lambda: waters(20), "methyl": lambda: methyls(7), "ring": ring}


@pytest.fixture(params=SYSTEMS)
def system(request):
    return SYSTEMS[request.param]()


def started(system, dtype=float, seed=0, step=0.1):
    """Constraints, masses, positions with the constrained distances, and random moves."""
    rigid, masses = Rigid.of(system), jnp.asarray(system.masses, dtype)[:, None]
    R = rigid.start(jnp.asarray(system.positions, dtype), masses)
    moves = (
        np.random.default_rng(seed).normal(size=R.shape) * step / np.sqrt(system.masses)[:, None]
    )
    return rigid, masses, R, jnp.asarray(moves, dtype)


def test_distances_are_restored_to_1e_8(system):
    rigid, masses, R, moves = started(system)
    assert np.abs(rigid.deviations(R)).max() < 1e-10
    moved = R + moves
    assert np.abs(rigid.deviations(moved)).max() > 0.05
    new = moved + jax.jit(rigid.correction)(R, moves, masses)
    assert np.abs(rigid.deviations(new)).max() < 1e-8
    # Impulses of constraints change neither the momentum nor the angular momentum.
    change = masses * (new - moved)
    np.testing.assert_allclose(change.sum(axis=0), 0.0, atol=1e-10)
    np.testing.assert_allclose(jnp.cross(R, change).sum(axis=0), 0.0, atol=1e-9)


def test_corrections_are_along_the_gradients_of_the_distances(system):
    rigid, masses, R, moves = started(system)
    impulses = np.asarray(masses * rigid.correction(R, moves, masses))
    gradients = np.array(distance_gradients(rigid, R))
    solution = np.linalg.lstsq(gradients.T, impulses.ravel(), rcond=None)[0]
    np.testing.assert_allclose(gradients.T @ solution, impulses.ravel(), atol=1e-9)


def distance_gradients(rigid, R):
    def squares(R):
        parts = rigid._distances
        return jnp.concatenate([jnp.sum(part._bonds(R) ** 2, axis=-1).ravel() for part in parts])

    return jax.jacrev(squares)(R).reshape(rigid.count, -1)


def test_projected_velocities_are_tangent_and_nearest(system):
    rigid, masses, R, momenta = started(system)
    projected = np.asarray(jax.jit(rigid.projected)(R, momenta, masses))
    gradients = np.asarray(distance_gradients(rigid, R))
    speeds = gradients @ (projected / np.asarray(masses)).ravel()
    assert (
        np.abs(speeds).max() < 1e-12 * np.abs(gradients @ np.asarray(momenta).ravel()).max() * 100
    )
    # The change is a combination of the gradients, as of the nearest point in the mass metric.
    change = (projected - np.asarray(momenta)).ravel()
    solution = np.linalg.lstsq(gradients.T, change, rcond=None)[0]
    np.testing.assert_allclose(gradients.T @ solution, change, atol=1e-12)


def test_single_precision_keeps_six_digits(system):
    rigid, masses, R, moves = started(system, np.float32)
    new = R + moves + rigid.correction(R, moves, masses)
    assert np.abs(rigid.deviations(new)).max() < 1e-5


def test_derivatives_equal_finite_differences(system):
    rigid, masses, R, moves = started(system)
    rng = np.random.default_rng(5)
    weights = rng.normal(size=R.shape)
    dR, dmoves = (0.1 * rng.normal(size=R.shape) for _ in range(2))

    @jax.jit
    def value(s):
        # The start depends on s, and so do all distances before the step.
        old = rigid.closest(R + s * dR, masses)
        m = moves + s * dmoves
        new = old + m + rigid.correction(old, m, masses)
        momenta = rigid.projected(new, masses * m, masses)
        return jnp.sum(weights * new) + jnp.sum(weights * momenta)

    h = 1e-5
    slope = (value(h) - value(-h)) / (2 * h)
    np.testing.assert_allclose(jax.jit(jax.grad(value))(0.0), slope, rtol=1e-6)


def test_far_geometries_and_unequal_hydrogens_are_refused():
    system = waters(2)
    rigid = Rigid.of(system)
    R = np.array(system.positions)
    R[1] += 1.0
    with pytest.raises(InputError, match=r"atoms 1 and 2 deviates by 0.44 Å from its constraint"):
        rigid.start(jnp.asarray(R), jnp.asarray(system.masses)[:, None])
    system.masses = np.array([16.0, 1.0, 2.0, 16.0, 1.0, 1.0])
    with pytest.raises(InputError, match="different masses"):
        Rigid.of(system)


def test_clusters_are_grouped_by_their_number_of_distances():
    bonds = [[0, 1], [5, 6], [0, 2], [9, 8], [0, 3], [6, 7]]
    one, two, three = clusters_of(bonds, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    np.testing.assert_array_equal(one.pairs, [[[9, 8]]])
    np.testing.assert_array_equal(two.pairs, [[[5, 6], [6, 7]]])
    np.testing.assert_array_equal(three.lengths, [[1.0, 3.0, 5.0]])


@pytest.mark.parametrize("name", ["water", "methyl"])
def test_constrained_steps_equal_those_of_openmm(name):
    openmm = pytest.importorskip("openmm")
    system = SYSTEMS[name]()
    rigid, _, R, _ = started(system)
    rng = np.random.default_rng(4)
    force, dt, steps = 20.0 * rng.normal(size=R.shape), 2.0, 25  # a constant force on each atom
    scaled = jnp.asarray(scaled_masses(system.masses, dt))[:, None]
    momenta = rigid.projected(R, jnp.sqrt(scaled) * 0.8 * rng.normal(size=R.shape), scaled)
    state = plain_state(Core(R, momenta, jnp.asarray(force), scaled))
    step = jax.jit(lambda state: velocity_verlet(lambda R: jnp.asarray(force), state, rigid))
    start = state
    for _ in range(steps):
        state = step(state)

    model = openmm.System()
    for mass in system.masses:
        model.addParticle(mass)
    for part in rigid._distances:
        for pair, length in zip(part.pairs.reshape(-1, 2), part.lengths.ravel(), strict=True):
            model.addConstraint(*map(int, pair), length / 10)
    field = openmm.CustomExternalForce("-(fx*x+fy*y+fz*z)")
    for axis in "xyz":
        field.addPerParticleParameter(f"f{axis}")
    for atom, f in enumerate(force / units.KJ_MOL * 10):
        field.addParticle(atom, f)
    model.addForce(field)
    integrator = openmm.VerletIntegrator(dt / 1000)
    integrator.setConstraintTolerance(1e-12)
    context = openmm.Context(model, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(np.asarray(R) / 10)
    # OpenMM's velocities are half a step behind its positions.
    behind = np.asarray(start.velocity - 0.5 * force / scaled) / dt
    context.setVelocities(behind * 100)
    integrator.step(steps)
    found = context.getState(getPositions=True).getPositions(asNumpy=True)._value * 10
    assert np.abs(found - np.asarray(R)).max() > 1.0
    np.testing.assert_allclose(state.position, found, atol=1e-8)


def test_hydrogen_masses_are_taken_from_bonded_atoms():
    system = methyls(2)
    heavy = md.repartition(system, 3.0)
    np.testing.assert_allclose(heavy.masses.sum(), system.masses.sum())
    np.testing.assert_allclose(heavy.masses[:6], [12.011 - 3 * 1.992, 3, 3, 3, 15.999 - 1.992, 3])
    np.testing.assert_array_equal(md.repartition(waters(2)).masses, waters(2).masses)
    with pytest.raises(InputError, match="atom 0 would have only"):
        md.repartition(system, 4.0)
    with pytest.raises(InputError, match=r"already has 1\.008 amu"):
        md.repartition(system, 0.5)
