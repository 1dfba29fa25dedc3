"""Dynamics with constrained distances: conserved energy, canonical kinetic energy, degrees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boxes import fluid, waters

from jaxff import md, units
from jaxff.md.rigid import Rigid


@pytest.fixture(scope="module")
def cluster():
    """Water at rest in a box, where a few hundred steps have removed the bad contacts."""
    system = waters(8, spacing=3.4)
    potential = fluid(system, cutoff=3.4 * 0.99, listed=False)
    warm = md.Langevin(temperature=300.0, friction=20.0, dt=1.0)
    run = md.simulate(potential, system, warm, steps=2000, output=md.Output(every=500))
    system.positions = run.positions[-1]
    return system, potential


def test_nve_conserves_energy_to_the_square_of_the_time_step(cluster):
    system, potential = cluster
    errors = []
    for dt in (2.0, 1.0):
        run = md.simulate(
            potential, system, md.NVE(temperature=300.0, dt=dt), steps=int(800 / dt),
            start=md.Start(seed=3), output=md.Output(every=1),
        )  # fmt: skip
        total = run.potential_energies + run.kinetic_energies
        errors.append(np.std(total))
        assert np.abs(Rigid.of(system).deviations(run.positions[-1])).max() < 1e-9
    assert run.degrees_of_freedom == 8 * 6 - 3
    assert 3.0 < errors[0] / errors[1] < 5.5


@pytest.mark.parametrize("kind", ["langevin", "csvr", "nose-hoover"])
def test_kinetic_energy_with_constraints_is_canonical(cluster, kind):
    system, potential = cluster
    settings = {"friction": 10.0} if kind == "langevin" else {"relaxation": 50.0}
    ensemble = md.ENSEMBLES[kind](temperature=300.0, dt=2.0, **settings)
    run = md.simulate(
        potential, system, ensemble, steps=3000, start=md.Start(replicas=8, seed=2),
        output=md.Output(every=20, keep=False),
    )  # fmt: skip
    freedom = 48 if kind == "langevin" else 45
    assert set(run.degrees_of_freedom.tolist()) == {freedom}
    kinetic = run.kinetic_energies[:, 50:] / (units.BOLTZMANN * 300.0) / (freedom / 2)
    mean, error = kinetic.mean(), kinetic.mean(axis=1).std(ddof=1) / np.sqrt(8)
    assert error < 0.02
    assert abs(mean - 1.0) < 4 * error + 0.005
    spread = kinetic.var(axis=1) * (freedom / 2)
    assert abs(spread.mean() - 1.0) < 4 * spread.std(ddof=1) / np.sqrt(8)


def test_a_constrained_system_without_a_box_runs():
    alone = waters(2)
    alone.box = None
    potential = fluid(alone, cutoff=30.0, listed=False)
    run = md.simulate(
        potential, alone, md.NVE(temperature=100.0, dt=1.0), steps=500, output=md.Output(every=1)
    )
    total = run.potential_energies + run.kinetic_energies
    assert total.std() < 0.01
    assert run.degrees_of_freedom == 2 * 6 - 3
    assert run.boxes is None


def test_gradients_of_constrained_steps_equal_finite_differences(cluster):
    from jaxff.md import ensembles
    from jaxff.md.integrators import Core, Scheme, scaled_masses

    system, potential = cluster
    rigid, box = Rigid.of(system), jnp.asarray(system.box)
    masses = jnp.asarray(scaled_masses(system.masses, 1.0))[:, None]
    R = jnp.asarray(system.positions)
    rng = np.random.default_rng(0)
    momenta = rigid.projected(R, jnp.sqrt(masses) * 0.3 * rng.normal(size=R.shape), masses)
    ensemble = md.Langevin(temperature=300.0, friction=5.0, dt=1.0)
    bath, scheme = ensemble.bath(1, R.dtype), Scheme(ensembles.Langevin)
    weights = rng.normal(size=R.shape)

    @jax.jit
    def after(charge):
        params = {"fluid": {**potential.params["fluid"], "charge": charge}}

        def force_fn(R):
            return -jax.grad(potential.energy_fn, argnums=1)(params, R, box)

        core = Core(R, momenta, force_fn(R), masses)
        state = ensemble.initial_state(core, jax.random.key(1), bath, scheme)
        state, _ = jax.lax.scan(
            lambda s, t: (ensemble.step(force_fn, s, bath, t, scheme, rigid), None),
            state, jnp.arange(4),
        )  # fmt: skip
        return jnp.sum(weights * state.position) + jnp.sum(weights * state.momentum)

    charge = jnp.asarray(potential.params["fluid"]["charge"])
    change = rng.normal(size=charge.shape)
    slope = jnp.vdot(jax.grad(after)(charge), change)
    h = 1e-6
    expected = (after(charge + h * change) - after(charge - h * change)) / (2 * h)
    np.testing.assert_allclose(slope, expected, rtol=1e-6)
