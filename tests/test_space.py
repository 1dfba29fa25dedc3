"""Boxes and neighbour lists: used where a term uses them, refused by name elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxff
from jaxff import InputError, gdml
from jaxff.dataset import packaged_dataset
from jaxff.space import Space

BOX = 12.0 * np.eye(3)


@pytest.mark.parametrize("call", ["__call__", "forces", "energy_and_forces", "terms"])
def test_what_no_term_uses_is_refused_by_name(springs, call):
    evaluate = getattr(springs(4), call)
    R = np.random.default_rng(0).normal(size=(4, 3))
    with pytest.raises(InputError, match="box was given, but none of the terms spring uses it"):
        evaluate(R, box=BOX)
    with pytest.raises(InputError, match="neighbor was given, but none of the terms spring"):
        evaluate(R, neighbor=np.zeros((2, 1), int))


def test_the_pure_function_refuses_as_well(springs):
    potential = springs(4)
    with pytest.raises(InputError, match="box was given"):
        jax.jit(potential.energy_fn)(potential.params, jnp.zeros((4, 3)), BOX)
    with pytest.raises(InputError, match="box was given"):
        potential.predict(np.zeros((2, 4, 3)), box=BOX)


def test_shapes_are_checked():
    with pytest.raises(InputError, match=r"box has shape \(3,\)"):
        Space.of(np.ones(3), None)
    with pytest.raises(InputError, match=r"neighbor has shape \(4, 7\)"):
        Space.of(None, np.zeros((4, 7), int))
    with pytest.raises(InputError, match="type float64"):
        Space.of(None, np.zeros((2, 7)))


def test_neighbours_of_a_placed_term_count_in_its_atoms():
    pairs = np.array([[0, 2, 3, 5, 6], [3, 5, 4, 1, 6]])
    mapped = Space.of(None, pairs).on(np.array([5, 3, 2, 1]), 6).neighbor
    assert mapped.tolist() == [[4, 2, 1, 0, 4], [4, 0, 4, 3, 4]]


@pytest.fixture(scope="module")
def crystal():
    """A periodic kernel, trained in a triclinic cell, and its frames."""
    frames = packaged_dataset("ethanol")[:8]
    lattice = np.array([[9.0, 0.0, 0.0], [1.5, 8.0, 0.0], [0.5, -0.7, 10.0]])  # rows
    data = jaxff.Dataset(
        frames.numbers, frames.positions, frames.forces, frames.energies, lattice=lattice.T
    )
    potential = gdml.train(data, sigma=20.0, kernel=gdml.Kernel(symmetries=None))
    return potential, data, lattice


def test_a_periodic_kernel_takes_the_box_in_place_of_its_lattice(crystal):
    potential, data, lattice = crystal
    R = data.positions[0].copy()
    R[3] += lattice[1]  # an image of the atom
    np.testing.assert_allclose(potential(R), potential(data.positions[0]), rtol=1e-9)
    assert potential(R, box=lattice) == potential(R)
    assert abs(potential(R, box=lattice + np.eye(3)) - potential(R)) > 1e-6
    energies, _ = potential.predict(data.positions[:3], box=lattice)
    np.testing.assert_allclose(energies, potential.predict(data.positions[:3])[0], rtol=1e-12)


def test_the_box_can_be_differentiated(crystal):
    potential, data, lattice = crystal
    R = data.positions[0].copy()
    R[3] += lattice[1]
    slope = jax.grad(lambda box: potential(R, box=box))(jnp.asarray(lattice))
    step = 1e-5
    for index in ((1, 0), (1, 1), (1, 2)):
        shift = np.zeros((3, 3))
        shift[index] = step
        numeric = (potential(R, box=lattice + shift) - potential(R, box=lattice - shift)) / 2 / step
        np.testing.assert_allclose(slope[index], numeric, rtol=1e-5, atol=1e-6)


def test_the_box_passes_through_sums_and_placements(crystal, springs):
    potential, data, lattice = crystal
    n = potential.n_atoms
    mixed = springs(n + 2) + potential.on(range(2, n + 2))
    R = np.concatenate([np.full((2, 3), 3.0) + np.eye(2, 3), data.positions[0]])
    expected = springs(n + 2)(R) + potential(data.positions[0], box=lattice)
    np.testing.assert_allclose(mixed(R, box=lattice), expected, rtol=1e-10)
