"""Internal coordinates of frames, against ASE and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms

from jaxff.analysis import angles, atom_pairs, distances, torsion_angles
from jaxff.errors import InputError

PAIRS = np.array([[0, 1], [4, 2], [3, 0]])
TRIPLES = np.array([[0, 1, 2], [4, 2, 0]])
TORSIONS = np.array([[0, 1, 2, 3], [4, 3, 1, 0]])


def frames(seed=0, shape=(2, 3), box=1.0):
    return box * np.random.default_rng(seed).uniform(-1, 1, (*shape, 5, 3))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 3e-6)])
def test_coordinates_are_those_of_ase(dtype, tolerance):
    positions = frames().astype(dtype)
    ours = [f(positions, atoms) for f, atoms in COORDINATES]
    assert all(values.dtype == dtype for values in ours)
    for index in np.ndindex(2, 3):
        atoms = Atoms("H5", positions[index].astype(float))
        expected = (
            [atoms.get_distance(*p) for p in PAIRS],
            np.radians([atoms.get_angle(*t) for t in TRIPLES]),
            np.angle(np.exp(1j * np.radians([atoms.get_dihedral(*t) for t in TORSIONS]))),
        )
        for values, reference in zip(ours, expected, strict=True):
            np.testing.assert_allclose(values[index], reference, atol=tolerance)


COORDINATES = ((distances, PAIRS), (angles, TRIPLES), (torsion_angles, TORSIONS))


@pytest.mark.parametrize("box", [6.0, np.array([5.0, 6.0, 7.0])])
def test_distances_in_a_box_are_those_of_nearest_images(box):
    positions = frames(1, (4,), box=20.0)
    ours = distances(positions, PAIRS, box)
    for R, row in zip(positions, ours, strict=True):
        atoms = Atoms("H5", R, cell=np.broadcast_to(box, 3), pbc=True)
        np.testing.assert_allclose(
            row, [atoms.get_distance(*p, mic=True) for p in PAIRS], rtol=1e-12
        )


@pytest.mark.parametrize("box", [None, 1.1])
def test_gradients_are_those_of_finite_differences(box):
    positions = frames(2, (3,))
    rng = np.random.default_rng(3)
    for f, atoms in ((lambda R, a: distances(R, a, box), PAIRS), *COORDINATES[1:]):
        cotangent = rng.normal(size=(3, len(atoms)))

        def loss(R, f=f, atoms=atoms, cotangent=cotangent):
            return jnp.sum(cotangent * f(R, atoms))

        direction = rng.normal(size=positions.shape)
        h = 1e-6
        expected = (loss(positions + h * direction) - loss(positions - h * direction)) / (2 * h)
        slope = jnp.sum(jax.jit(jax.grad(loss))(positions) * direction)
        np.testing.assert_allclose(slope, expected, rtol=1e-6)


def test_pairs_of_elements_are_each_listed_once():
    numbers = [8, 1, 1, 6]
    assert atom_pairs(numbers).tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert atom_pairs(numbers, 1, 1).tolist() == [[1, 2]]
    assert atom_pairs(numbers, 1, 8).tolist() == [[0, 1], [0, 2]]
    assert atom_pairs(numbers, 6).tolist() == [[0, 3], [1, 3], [2, 3]]
    with pytest.raises(InputError, match="no pair of elements 8 and 8"):
        atom_pairs(numbers, 8, 8)


def test_a_molecule_without_torsions_has_none():
    assert torsion_angles(frames(), np.zeros((0, 4), int)).shape == (2, 3, 0)


def test_wrong_indices_are_refused():
    with pytest.raises(InputError, match="got 0 to 5"):
        distances(frames(), [[0, 5]])
    with pytest.raises(InputError, match="shape \\(M, 3\\)"):
        angles(frames(), PAIRS)
    with pytest.raises(InputError, match="float64"):
        torsion_angles(frames(), TORSIONS * 1.0)
    with pytest.raises(InputError, match=r"box must be one edge, .*shape \(2, 3\)"):
        distances(frames(), PAIRS, np.ones((2, 3)))
    with pytest.raises(InputError, match="positive edges"):
        distances(frames(), PAIRS, [1.0, 0.0, 1.0])
    with pytest.raises(InputError, match="or a volume"):
        distances(frames(), PAIRS, np.ones((3, 3)))
    with pytest.raises(InputError, match="positions must have shape"):
        distances(np.zeros((3, 2)), PAIRS)
    for function, atoms in (
        (distances, [[0, 1], [2, 2]]),
        (angles, [[0, 1, 0]]),
        (torsion_angles, [[0, 0, 1, 2]]),
    ):
        with pytest.raises(InputError, match=r"\] contains an atom twice"):
            function(frames(), atoms)
