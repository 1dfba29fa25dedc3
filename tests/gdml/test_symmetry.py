"""Recovered permutations: right group, right direction, bonds kept."""

import numpy as np
import pytest

from jaxff.errors import InputError
from jaxff.gdml import check_symmetries, find_symmetries
from jaxff.gdml.symmetry import _tree_matches, close, preserves_bonds


def as_set(permutations):
    return set(map(tuple, np.asarray(permutations).tolist()))


def test_ethanol_has_six(frames, group):
    found = find_symmetries(frames.positions, frames.molecule)
    assert as_set(found) == as_set(group)
    assert found[0].tolist() == list(range(9))
    again = find_symmetries(frames.positions, frames.molecule)
    assert np.array_equal(found, again)


def test_a_match_sends_each_atom_to_its_counterpart(frames):
    """Two frames that differ by a 3-cycle: the match is that cycle, not its inverse."""
    R = frames.positions[0]
    order = np.array([0, 1, 2, 4, 5, 3, 6, 7, 8])
    shaken = R[order] + 1e-3 * np.random.default_rng(0).normal(size=R.shape)
    matches = _tree_matches(np.stack([R, shaken]), frames.numbers)
    # atom order[a] of the first stands in place a of the second
    assert as_set(matches) == {tuple(range(9)), tuple(np.argsort(order).tolist())}


def test_permutations_that_break_bonds_are_dropped(frames, group):
    everything = np.concatenate([group, [[0, 1, 2, 6, 4, 5, 3, 7, 8], [0, 1, 2, 8, 4, 5, 6, 7, 3]]])
    assert preserves_bonds(everything, frames.molecule).tolist() == [True] * 6 + [False] * 2


def test_closure():
    assert close(np.array([[1, 2, 0]])).tolist() == [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    assert len(close(np.array([[1, 2, 3, 4, 0], [1, 0, 2, 3, 4]]), 120)) == 120
    assert close(np.array([[1, 2, 3, 4, 0], [1, 0, 2, 3, 4]]), 100) is None


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([[0, 1, 2, 4, 5, 3, 6, 7, 8]], "not a group"),
        ([[1, 0, 2, 3, 4, 5, 6, 7, 8]], "does not keep"),
        ([[0, 0, 2, 3, 4, 5, 6, 7, 8]], "permutation of"),
        ([[0.0] * 9], "integers"),
        ([[0, 1, 2]], "shape"),
    ],
)
def test_bad_symmetries_are_refused(bad, message, frames):
    with pytest.raises(InputError, match=message):
        check_symmetries(bad, frames.molecule)


@pytest.mark.parametrize("name", ["ethanol", "aspirin"])
def test_md17_molecules_have_six(name, shared):
    from jaxff.dataset import Dataset

    data = Dataset.load(shared / "data" / "md17" / f"{name}.npz")
    group = find_symmetries(data.positions, data.molecule, max_frames=100)
    assert len(group) == 6
    np.testing.assert_array_equal(check_symmetries(group, data.molecule), group)
