"""Minimisation in periodic boxes, with rigid water, constrained bonds and virtual sites."""

import jax.numpy as jnp
import numpy as np
import pytest
from boxes import argon, fluid, waters

from jaxff import InputError, md
from jaxff.md.rigid import Rigid


def test_minima_with_rigid_water_are_stationary():
    system = waters(8, spacing=3.4)
    potential = fluid(system, cutoff=3.36, listed=False)
    end = md.minimize(potential, system, descent=md.Descent(tolerance=1e-3, max_steps=3000))
    assert end.converged
    rigid, R = Rigid.of(system), end.positions
    assert np.abs(rigid.deviations(R)).max() < 1e-9
    # No displacement that keeps the distances lowers the energy to first order.
    rng, box = np.random.default_rng(0), system.box
    ones = jnp.ones((len(R), 1))
    for _ in range(3):
        v = np.asarray(rigid.projected(jnp.asarray(R), rng.normal(size=R.shape), ones))
        v = v / np.linalg.norm(v)
        slopes = []
        for h in (1e-4, -1e-4):
            moved = R + h * v
            moved = moved + np.asarray(rigid.correction(jnp.asarray(R), h * v, ones))
            slopes.append(float(potential(moved, box=box)))
        assert abs(slopes[0] - slopes[1]) / 2e-4 < 1e-2
    free = np.asarray(potential.forces(R, box=box))
    assert np.abs(free).max() > 1.0  # the forces along constrained distances remain


def test_neighbour_lists_change_no_minimum():
    system = argon(27, spacing=3.9)
    rng = np.random.default_rng(1)
    system.positions = system.positions + 0.4 * rng.normal(size=system.positions.shape)
    ends = [
        md.minimize(
            fluid(system, cutoff=5.0, listed=listed), system, descent=md.Descent(tolerance=1e-7)
        )
        for listed in (True, False)
    ]
    assert ends[0].converged
    np.testing.assert_allclose(ends[0].positions, ends[1].positions, atol=1e-5)
    assert ends[0].energy == pytest.approx(float(ends[1].energy), abs=1e-8)


def test_systems_need_a_potential_and_lbfgs():
    system = argon(27, spacing=3.9)
    with pytest.raises(InputError, match="minimised by a Potential only"):
        md.minimize(lambda R: R, system)
    with pytest.raises(InputError, match="fire needs a molecule without a box"):
        md.minimize(fluid(system, cutoff=5.0), system, descent=md.Descent("fire"))


def test_distances_far_from_their_constraints_are_named():
    system = waters(8, spacing=3.4)
    system.positions = system.positions.copy()
    system.positions[1] += 0.5
    with pytest.raises(InputError, match=r"the distance of the atoms [01] and [12] deviates by"):
        md.minimize(fluid(system, cutoff=3.3), system)


def test_dynamics_refuse_clashing_atoms():
    system = argon(27, spacing=3.9)
    system.positions = system.positions.copy()
    system.positions[5] = system.positions[4] + [1.5, 0.0, 0.0]
    potential = fluid(system, cutoff=5.0)
    with pytest.raises(
        InputError, match=r"force on atom [45] \(Ar\) is .* and atom [45] \(Ar\) is only 1.50 Å"
    ):
        md.simulate(potential, system, md.NVE(dt=4.0), steps=5)
    end = md.minimize(potential, system, descent=md.Descent(tolerance=1.0))
    assert end.converged
    system.positions = end.positions
    md.simulate(potential, system, md.NVE(temperature=50.0, dt=4.0), steps=5)
