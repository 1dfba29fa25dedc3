"""Gradients through trajectories in boxes, with constraints and neighbour lists."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boxes import argon, fluid, waters

from jaxff import InputError, md
from jaxff.md import NVE, Langevin, Start
from jaxff.md.differentiable import Plan, rollout
from jaxff.md.rigid import Rigid


@pytest.fixture(scope="module")
def water():
    """Rigid waters, two of which have only two constrained bonds, with a list of neighbours."""
    system = waters(8, spacing=3.6)
    fixed, cut = system.constraints, 6
    bonds = fixed.waters[cut:]
    system.constraints = SimpleNamespace(
        waters=fixed.waters[:cut], water_lengths=fixed.water_lengths[:cut],
        bonds=np.concatenate([bonds[:, [0, 1]], bonds[:, [0, 2]]]),
        lengths=np.repeat(fixed.water_lengths[0, 0], 2 * len(bonds)),
    )  # fmt: skip
    return system, fluid(system, cutoff=3.5)


def start_of(system, seed=0):
    """Positions and velocities at about 300 K, along no constraint."""
    v = np.random.default_rng(seed).normal(size=system.positions.shape) * 0.0016
    v *= np.sqrt(16.0 / np.asarray(system.masses))[:, None]
    rigid, R = Rigid.of(system), jnp.asarray(system.positions)
    if rigid is not None:
        v = rigid.velocities(R, v, system.masses)
    return Start(np.asarray(R), v)


ENSEMBLES = [NVE(dt=1.0), Langevin(temperature=300.0, friction=5.0, dt=1.0)]


@pytest.mark.parametrize("ensemble", ENSEMBLES, ids=["nve", "langevin"])
def test_it_is_the_trajectory_of_simulate_in_a_box(water, ensemble):
    system, potential = water
    start = start_of(system)
    run = md.simulate(potential, system, ensemble, steps=12, start=start, output=md.Output(every=4))
    frames = rollout(potential, start, ensemble, Plan(12, every=4), masses=system)
    np.testing.assert_allclose(frames.positions, run.positions, atol=1e-8)
    np.testing.assert_allclose(frames.velocities, run.velocities, atol=1e-9)
    assert np.abs(Rigid.of(system).deviations(frames.positions[-1])).max() < 1e-8


@pytest.mark.parametrize("ensemble", ENSEMBLES, ids=["nve", "langevin"])
def test_gradients_with_constraints_are_those_of_finite_differences(water, ensemble):
    system, potential = water
    start, rng = start_of(system), np.random.default_rng(1)
    weights = rng.normal(size=(2, *system.positions.shape))

    def loss(potential, v, method):
        plan = Plan(12, every=4, method=method)
        frames = rollout(potential, replace(start, velocities=v), ensemble, plan, masses=system)
        R, w = frames.positions[-1], 1e3 * frames.velocities[-1]
        return (weights[0] * R).sum() + (weights[1] * w).sum()

    slope, by_v = jax.grad(loss, argnums=(0, 1))(potential, start.velocities, "checkpoint")
    for column, h in (("charge", 1e-4), ("sigma", 1e-4), ("epsilon", 1e-4)):
        old = potential.params["fluid"][column]
        direction = rng.normal(size=old.shape) * (old != 0)

        def moved(step, column=column, old=old, direction=direction):
            columns = {**potential.params["fluid"], column: old + step * direction}
            return loss(potential.replace({"fluid": columns}), start.velocities, "checkpoint")

        expected = (moved(h) - moved(-h)) / (2.0 * h)
        found = (slope.params["fluid"][column] * direction).sum()
        assert found == pytest.approx(float(expected), rel=1e-5, abs=1e-6), column
    move = rng.normal(size=start.velocities.shape)
    h = 1e-6
    ends = [loss(potential, start.velocities + s * h * move, "checkpoint") for s in (1.0, -1.0)]
    assert (by_v * move).sum() == pytest.approx(float(ends[0] - ends[1]) / (2 * h), rel=1e-5)
    forward = jax.jvp(lambda v: loss(potential, v, "forward"), (start.velocities,), (move,))[1]
    assert (by_v * move).sum() == pytest.approx(float(forward), rel=1e-9)


def test_the_reversible_method_works_in_a_box_without_constraints():
    system = argon(27, spacing=3.8)
    potential = fluid(system, cutoff=5.6)
    start = start_of(system)
    for ensemble in ENSEMBLES:

        def loss(potential, method, ensemble=ensemble):
            plan = Plan(20, every=5, method=method)
            frames = rollout(potential, start, ensemble, plan, masses=system)
            return (frames.positions[-1] ** 2).sum()

        gradients = [
            jax.grad(loss)(potential, method).params["fluid"]
            for method in ("reversible", "checkpoint")
        ]
        for column in ("sigma", "epsilon"):
            np.testing.assert_allclose(
                gradients[0][column], gradients[1][column], rtol=1e-6, atol=1e-8
            )


def test_replicas_in_a_box_have_the_trajectories_of_single_runs(water):
    system, potential = water
    one, two = start_of(system, 0), start_of(system, 1)
    both = Start(one.positions, np.stack([one.velocities, two.velocities]))
    both = replace(both, positions=np.stack([one.positions, two.positions]))
    plan = Plan(8, every=4)
    frames = rollout(potential, both, NVE(dt=1.0), plan, masses=system)
    for r, start in enumerate((one, two)):
        alone = rollout(potential, start, NVE(dt=1.0), plan, masses=system)
        np.testing.assert_allclose(frames.positions[r], alone.positions, atol=1e-9)


def test_frames_are_nan_after_the_list_is_stale():
    system = argon(27, spacing=3.8)
    potential = fluid(system, cutoff=5.6)
    start = start_of(system)
    fast = replace(start, velocities=50.0 * start.velocities)
    frames = rollout(potential, fast, NVE(dt=1.0), Plan(40, every=4), masses=system)
    bad = np.isnan(frames.positions).all(axis=(1, 2))
    assert not bad[0]
    assert bad[-1]
    first = int(np.argmax(bad))
    assert np.isfinite(frames.positions[:first]).all()
    assert bad[first:].all()


def test_constraints_cannot_be_integrated_backwards(water):
    system, potential = water
    plan = Plan(4, every=4, method="reversible")
    with pytest.raises(InputError, match="cannot integrate constraints"):
        rollout(potential, start_of(system), NVE(), plan, masses=system)
