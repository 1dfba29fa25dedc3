"""Neighbour lists contain every pair within the cutoff, for all boxes, densities and movements."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxff.errors import InputError
from jaxff.neighbors import ROW, NeighborList, widths

IMAGES = np.array(list(itertools.product(range(-1, 2), repeat=3)))


def brute_force(R, box, cutoff):
    """The set of pairs i < j that are nearer than the cutoff, by 27 images."""
    i, j = np.triu_indices(len(R), 1)
    d = R[j] - R[i]
    if box is not None:
        d -= np.round(d @ np.linalg.inv(box)) @ box
        square = ((d[:, None] + IMAGES @ box) ** 2).sum(axis=2).min(axis=1)
    else:
        square = (d**2).sum(axis=1)
    near = square < cutoff**2
    return set(zip(i[near].tolist(), j[near].tolist(), strict=True))


def listed(pairs, n_atoms):
    """The pairs i < j of a list; each pair is listed once and the rows have one first atom."""
    pairs = np.asarray(pairs)
    rows = pairs[0].reshape(-1, ROW)
    assert (rows == rows[:, :1]).all()
    real = np.sort(pairs[:, (pairs < n_atoms).all(axis=0)], axis=0)
    out = set(map(tuple, real.T.tolist()))
    assert len(out) == real.shape[1]
    assert all(i < j for i, j in out)
    return out


def random_case(rng):
    """A box or None, positions, cutoff and skin."""
    sides = rng.uniform(4.0, 12.0, 3)
    if rng.random() < 0.3:
        sides[rng.integers(3)] *= rng.uniform(4.0, 10.0)
    box = np.diag(sides)
    if rng.random() < 0.5:
        box[1, 0], box[2, 0], box[2, 1] = rng.uniform(-0.5, 0.5, 3) * sides[[0, 0, 1]]
    if rng.random() < 0.2:
        box = box @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    n = int(rng.choice([1, 2, 3, 4, rng.integers(5, 60), rng.integers(60, 300)]))
    R = rng.uniform(-2.0, 3.0, (n, 3))
    if rng.random() < 0.3:
        R = np.round(R)  # on the faces of the box
    cutoff = widths(box).min() * rng.uniform(0.1, 0.5)
    skin = min(float(rng.choice([0.0, 0.3, 1.0, 2.0])), cutoff)
    if rng.random() < 0.15:
        return None, R @ box, cutoff, skin
    return box, R @ box, cutoff, skin


def check_cases(number, seed):
    rng = np.random.default_rng(seed)
    kept = 0
    for _ in range(number):
        box, R, cutoff, skin = random_case(rng)
        found = NeighborList.of(R, box, cutoff=cutoff, skin=skin)
        assert listed(found.pairs, len(R)) >= brute_force(R, box, cutoff + skin)
        # A movement of all atoms together, of each atom, and of the box.
        strain = np.eye(3) + rng.normal(0.0, 0.2 * skin / cutoff, (3, 3)) * rng.integers(0, 2)
        step = rng.normal(0.0, rng.choice([0.1, 0.2, 1.0]) * skin + 1e-12, R.shape)
        moved = (R + step) @ strain + rng.normal(0.0, 5.0, 3)
        new_box = None if box is None else box @ strain
        if box is not None and cutoff > 0.5 * widths(new_box).min():
            assert bool(found.stale(jnp.asarray(moved), jnp.asarray(new_box)))
            continue
        updated = found.update(moved, new_box)
        kept += updated is found
        assert listed(updated.pairs, len(R)) >= brute_force(moved, new_box, cutoff)
    return kept


def test_no_pair_is_lost():
    assert check_cases(60, seed=0) >= 10


@pytest.mark.slow
def test_no_pair_is_lost_in_a_thousand_cases():
    assert check_cases(1000, seed=1) >= 150


def test_a_large_box_is_searched_by_cells():
    rng = np.random.default_rng(2)
    box = np.array([[31.0, 0.0, 0.0], [-6.0, 27.0, 0.0], [4.0, 9.0, 35.0]])
    R = rng.uniform(-1.0, 2.0, (600, 3)) @ box
    found = NeighborList.of(R, box, cutoff=5.0, skin=1.0)
    assert listed(found.pairs, 600) >= brute_force(R, box, 6.0)
    assert len(listed(found.pairs, 600)) <= len(brute_force(R, box, 6.01))


def test_lists_are_stale_after_movements_beyond_the_skin():
    rng = np.random.default_rng(3)
    box = np.diag([15.0, 16.0, 17.0])
    R = rng.uniform(size=(50, 3)) @ box
    found = NeighborList.of(R, box, cutoff=5.0, skin=1.0)
    stale = jax.jit(lambda found, R, box: found.stale(R, box))
    assert not stale(found, R, box)
    assert not stale(found, R + 100.0, box)
    moved = R.copy()
    moved[7, 0] += 0.45
    assert not stale(found, moved, box)
    moved[7, 0] += 0.2
    assert stale(found, moved, box)
    assert not stale(found, R * 0.99, box * 0.99)
    assert not stale(found, R, box * 1.0001)
    assert stale(found, R * 0.8, box * 0.8)
    assert stale(found, np.full_like(R, np.nan), box)
    assert found.update(R, box) is found


def test_full_lists_grow_and_are_counted():
    rng = np.random.default_rng(4)
    box = 40.0 * np.eye(3)
    R = rng.uniform(size=(200, 3)) @ box
    found = NeighborList.of(R, box, cutoff=5.0, skin=1.0)
    denser = found.update(0.3 * R, box)
    assert (int(denser.builds), int(denser.growths)) == (2, 1)
    assert denser.capacity > found.capacity
    assert listed(denser.pairs, 200) >= brute_force(0.3 * R, box, 5.0)
    sparse = denser.update(R, box)
    assert (int(sparse.builds), int(sparse.growths)) == (3, 1)
    assert sparse.capacity == denser.capacity
    assert listed(found.grown(denser.capacity).pairs, 200) == listed(sparse.pairs, 200)


def test_bad_boxes_and_positions_are_refused():
    R = np.zeros((3, 3))
    with pytest.raises(InputError, match=r"cutoff 6 Å exceeds half of the smallest width .* 5 Å"):
        NeighborList.of(R, np.diag([10.0, 20.0, 20.0]), cutoff=6.0)
    with pytest.raises(InputError, match="three independent lattice vectors"):
        NeighborList.of(R, np.ones((3, 3)), cutoff=1.0)
    with pytest.raises(InputError, match="not finite"):
        NeighborList.of(R * np.nan, 10.0 * np.eye(3), cutoff=4.0)
    with pytest.raises(InputError, match="skin from 0 to the cutoff"):
        NeighborList.of(R, 10.0 * np.eye(3), cutoff=1.0, skin=2.0)
    assert NeighborList.of(np.zeros((0, 3)), 10.0 * np.eye(3), cutoff=4.0).capacity > 0
