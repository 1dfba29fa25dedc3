"""Molecules far from the origin in float32: the origin of their coordinates goes with them."""

import jax.numpy as jnp
import numpy as np
import pytest
from simulating import simulate
from springs import springs
from wells import well

from jaxff import InputError, Molecule, md
from jaxff.md import origin


@pytest.fixture(scope="module")
def water():
    return Molecule.from_smiles("O")


@pytest.fixture(scope="module")
def single(water):
    return springs(water).astype(jnp.float32)


@pytest.fixture(scope="module")
def near(water):
    """The geometry (3, 3) Å with few binary digits: it is exact at the shifts as well."""
    return np.round((water.positions + 2.0) * 2.0**16) / 2.0**16


def total(run):
    return run.potential_energies + run.kinetic_energies


@pytest.mark.parametrize("ensemble", ["nve", "langevin", "nose-hoover", "csvr"])
@pytest.mark.parametrize("shift", [[8e3, -8e3, 0.0], [8e6, 0.0, -8e6]])
def test_a_start_far_away_gives_the_trajectory_of_one_here(water, single, near, ensemble, shift):
    common = {"ensemble": ensemble, "steps": 1500, "every": 30, "relaxation": 20.0}
    here = simulate(single, water, positions=near, **common)
    far = simulate(single, water, positions=near + shift, **common)
    # To the last bit, but for overall motion taken off in float64, which far away rounds others.
    few, bit = (None, 0.0) if ensemble in ("nve", "langevin") else (20, 1e-5)
    np.testing.assert_allclose(far.positions[:few], here.positions[:few] + shift, rtol=0, atol=bit)
    np.testing.assert_allclose(far.forces[:few], here.forces[:few], rtol=0, atol=1e3 * bit)
    energies = far.potential_energies, here.potential_energies
    np.testing.assert_allclose(*(e[:few] for e in energies), rtol=0, atol=1e2 * bit)
    assert far.degrees_of_freedom == here.degrees_of_freedom
    np.testing.assert_array_equal(far.state.positions, far.positions[-1])
    np.testing.assert_allclose(far.state.velocities, far.velocities[-1], rtol=1e-6)


def test_replicas_have_an_origin_each(water, single, near):
    starts = near + np.array([[[0.0, 0.0, 0.0]], [[8e4, 0.0, 0.0]]])
    runs = simulate(single, water, positions=starts, ensemble="nve", steps=200, replicas=2)
    alone = simulate(single, water, positions=starts[1], ensemble="nve", steps=200, seed=1)
    np.testing.assert_allclose(runs.positions[1], alone.positions, rtol=0, atol=1e-4)
    assert runs.positions[0].max() < 10.0
    assert runs.state.origin.tolist() == [[0, 0, 0], [10000, 0, 0]]


@pytest.mark.parametrize("every", [1000, 7])
def test_a_molecule_that_flies_away_keeps_its_energy(water, single, near, every):
    rest = simulate(single, water, ensemble="nve", steps=14_000, every=7, seed=3)
    wind = np.array([0.4, -0.3, 0.0])  # Å/fs, which float32 has no room for in the kinetic energy
    flying = simulate(
        single, water, ensemble="nve", steps=14_000, every=every,
        positions=rest.positions[0], velocities=rest.velocities[0] + wind,
    )  # fmt: skip
    centre = np.average(flying.positions, axis=1, weights=water.masses)
    expected = centre[0] + flying.times[:, None] * wind
    assert np.abs(expected[-1]).max() > 2000.0
    np.testing.assert_allclose(centre, expected, atol=0.02)
    i, j = np.triu_indices(3, 1)
    lengths = np.linalg.norm(flying.positions[:, i] - flying.positions[:, j], axis=-1)
    double = simulate(
        springs(water), water, ensemble="nve", steps=14_000, every=every,
        positions=rest.positions[0], velocities=rest.velocities[0],
    )  # fmt: skip
    true = np.linalg.norm(double.positions[:, i] - double.positions[:, j], axis=-1)
    few = 1 + 1400 // every
    np.testing.assert_allclose(lengths[:few], true[:few], atol=2e-3)
    assert np.ptp(flying.potential_energies) < 1.5 * np.ptp(double.potential_energies)
    # At 2000 Å coordinates are 1e-4 Å apart: the energy of these springs would jump by more.
    inner = flying.potential_energies + md.kinetics.kinetic_energy(
        water.masses, flying.velocities - wind
    )
    assert np.std(inner) < 3 * np.std(total(double)) + 1e-3


@pytest.mark.parametrize("ensemble", ["nve", "langevin"])
def test_it_continues_bit_for_bit(water, single, near, ensemble, tmp_path):
    common = {
        "ensemble": ensemble, "every": 7, "positions": near + 1e4, "friction": 1.0,
        "velocities": np.random.default_rng(0).normal(0.03, 0.01, (3, 3)),
    }  # fmt: skip
    whole = simulate(single, water, steps=2800, **common)
    assert (np.asarray(whole.state.origin) != 1250).any()
    first = simulate(single, water, steps=1309, **common)
    rest = simulate(
        single, water, ensemble=ensemble, steps=1491, every=7, friction=1.0,
        state=first.state,
    )  # fmt: skip
    joined = np.concatenate([first.positions, rest.positions])
    np.testing.assert_array_equal(joined, whole.positions)
    files = {"path": tmp_path / "run.h5", "restart": tmp_path / "restart.npz"}
    for steps in (7, 994, 1015, 2093, 2800):
        simulate(single, water, steps=steps, **common, **files)
    found = md.read_trajectory(files["path"])
    np.testing.assert_array_equal(found["positions"], whole.positions)
    np.testing.assert_array_equal(found["velocities"], whole.velocities)


def test_what_is_held_in_place_and_double_precision_count_from_zero(water, near):
    held, atoms = well(n_atoms=2)
    run = simulate(held.astype(jnp.float32), atoms, positions=np.full((2, 3), 9.0), steps=10)
    assert not np.asarray(run.state.origin).any()
    double = simulate(springs(water), water, positions=near + 1e4, steps=1000)
    assert not np.asarray(double.state.origin).any()
    np.testing.assert_array_equal(double.state.positions, double.positions[-1])


def test_origins_are_exact_and_near():
    rng = np.random.default_rng(0)
    positions = rng.normal(0.0, 1e5, (4, 1, 3)) + rng.normal(size=(4, 5, 3))
    found = origin.nearest(positions)
    relative = origin.relative(positions, found)
    assert np.abs(relative.mean(axis=1)).max() < origin.GRID
    np.testing.assert_allclose(origin.absolute(relative, found), positions, atol=1e-10)
    assert not origin.nearest(np.full((3, 3), -3.9)).any()
    with pytest.raises(InputError, match="Å from zero"):
        origin.nearest(np.full((3, 3), 1e12))
