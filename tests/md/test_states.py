"""Simulations that go on from the state of another."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from simulating import simulate
from springs import springs
from wells import Well

from jaxff import InputError, Molecule
from jaxff.potential import Potential


@pytest.fixture(scope="module")
def water():
    return Molecule.from_smiles("O")


@pytest.fixture(scope="module")
def potential(water):
    return springs(water)


def test_states_and_molecules_that_do_not_fit_are_refused(water, potential):
    run = simulate(potential, water, steps=10)
    with pytest.raises(InputError, match=r"dt 0\.5, not 0\.4"):
        simulate(potential, water, steps=10, dt=0.4, state=run.state)
    with pytest.raises(InputError, match="ensemble langevin, not nve"):
        simulate(potential, water, steps=10, ensemble="nve", state=run.state)
    with pytest.raises(InputError, match="cannot be matched"):
        simulate(potential, Molecule.from_smiles("S"), steps=10)
    sulphide = Molecule.from_smiles("S")
    with pytest.raises(InputError, match="has other atoms"):
        simulate(springs(sulphide), sulphide, steps=10, state=run.state)
    order = np.array([1, 0, 2])
    with pytest.raises(InputError, match="another atom order"):
        simulate(potential, water.reorder(order), steps=10, state=run.state)


def test_a_state_goes_on_with_the_forces_of_another_potential(water, potential):
    common = {"ensemble": "nve", "steps": 20, "every": 1}
    state = simulate(potential, water, **common).state
    params, (placed,) = potential.params["springs"], potential.program.placed
    stiffer = potential.replace({"springs": {**params, "k": 1.5 * params["k"]}})
    # The same numbers, between other atoms.
    turned = replace(placed.term, pairs=placed.term.pairs[[1, 2, 0]])
    turned = Potential([replace(placed, term=turned)], potential.params, water)
    for other in (stiffer, turned):
        found = simulate(other, water, state=state, **common)
        anew = simulate(
            other, water, positions=state.positions, velocities=state.velocities, **common
        )
        np.testing.assert_allclose(found.positions, anew.positions[1:], atol=1e-12)
        np.testing.assert_allclose(found.velocities, anew.velocities[1:], atol=1e-13)


def test_a_state_goes_on_only_where_the_molecule_is_as_free(water, potential):
    state = simulate(potential, water, ensemble="csvr", steps=20).state
    zero = np.array(0.0)
    held = potential + Potential.of(
        "well", Well(3), {"k": np.array(5.0), "a": zero, "c": zero}, water
    )
    with pytest.raises(InputError, match="invariance to translation"):
        simulate(held, water, ensemble="csvr", steps=20, state=state)


@pytest.mark.parametrize("there", [jnp.float32, jnp.float64])
def test_a_state_of_another_precision_is_refused(water, potential, there):
    here = {jnp.float32: jnp.float64, jnp.float64: jnp.float32}[there]
    state = simulate(potential.astype(there), water, steps=20).state
    with pytest.raises(
        InputError, match=r"precision float\d\d, not float\d\d; to change the precision"
    ):
        simulate(potential.astype(here), water, steps=20, state=state)
    found = simulate(
        potential.astype(here), water, steps=20, positions=state.positions,
        velocities=state.velocities,
    )  # fmt: skip
    assert found.state.dynamics.position.dtype == here
