"""Dynamics of systems with particle mesh, rigid water and virtual sites."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxff
from jaxff import md
from jaxff.md.rigid import Rigid


@pytest.mark.parametrize("water", ["tip4pew"])
def test_water_with_virtual_sites_at_constant_pressure(water, tmp_path):
    system = jaxff.liquid({water: 40}, density=0.95)
    potential = system.potential(cutoff=5.0)
    ensemble = md.NPT(temperature=300.0, dt=0.5, friction=50.0, barostat_every=5)
    run = md.simulate(
        potential, system, ensemble, steps=200, stop=md.Stop(max_temperature=np.inf),
        output=md.Output(tmp_path / "a.h5", every=10, wrap=True),
    )  # fmt: skip
    assert run.degrees_of_freedom == 40 * 6
    rigid, last = Rigid.of(system), run.positions[-1]
    assert np.abs(rigid.deviations(last)).max() < 1e-9
    np.testing.assert_allclose(rigid.placed(jnp.asarray(last)), last, atol=1e-10)
    assert len(np.unique(np.linalg.det(run.boxes))) > 4
    # The sites have no kinetic energy, and the forces on them act on the atoms.
    sites = system.sites.atoms
    assert not run.velocities[-1][sites].any()
    assert not run.forces[-1][sites].any()
    assert 150.0 < run.temperatures[-4:].mean() < 450.0
    frames = md.read_trajectory(tmp_path / "a.h5", system)
    np.testing.assert_array_equal(frames["boxes"], run.boxes)
