"""Recovered permutations: right group, right direction, bonds kept."""

from dataclasses import replace

import numpy as np
import pytest

from jaxff import Dataset, Molecule
from jaxff.errors import InputError
from jaxff.gdml import check_symmetries, describe_symmetries, find_symmetries
from jaxff.gdml.symmetry import _distances, _tree_matches, close, generators, preserves_bonds


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
    matches = _tree_matches(_distances(np.stack([R, shaken]), None), frames.numbers)
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
        ([[1, 0, 2, 3, 4, 5, 6, 7, 8]], "does not preserve"),
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


def test_generators_in_words(frames, group):
    assert describe_symmetries(group, frames.molecule) == [
        "methyl rotation of C1: H4 H5 H6",
        "exchange of H4 and H5 on C1; exchange of H7 and H8 on C2",
    ]
    assert describe_symmetries(group[:1], frames.molecule) == []
    ion = Molecule.from_smiles("N[NH3+]")
    ammonium = close(np.array([[0, 1, 2, 3, 5, 6, 4]]))
    assert describe_symmetries(ammonium, ion) == ["rotation of N2: H5 H6 H7"]
    benzene = Molecule.from_smiles("c1ccccc1")
    turn = np.array([1, 2, 3, 4, 5, 0, 7, 8, 9, 10, 11, 6])
    flip = np.array([0, 5, 4, 3, 2, 1, 6, 11, 10, 9, 8, 7])
    words = describe_symmetries(close(np.stack([turn, flip])), benzene)
    assert words[0].startswith("cycle C1 C2 C3 C4 C5 C6; cycle H7")
    assert len(words) == 2
    assert words[1] == "exchange of C2 with C6, C3 with C5, H8 with H12, H9 with H11"


@pytest.mark.parametrize("smiles", ["CC(C)O", "Cc1ccccc1"])
def test_generators_generate_the_group(smiles):
    molecule = Molecule.from_smiles(smiles)
    hydrogens = [
        [n for n in molecule.graph.neighbors(c) if molecule.symbols[n] == "H"]
        for c in range(molecule.n_atoms)
    ]
    turns = []
    for own in filter(lambda h: len(h) == 3, hydrogens):
        turn = np.arange(molecule.n_atoms)
        turn[own] = np.roll(own, 1)
        turns.append(turn)
    whole = close(np.array(turns))
    assert as_set(close(generators(whole))) == as_set(whole)
    assert len(generators(whole)) == len(turns)


def test_whole_frames_and_frames_wrapped_into_a_cell_have_the_same_symmetries(frames, group):
    lattice = np.array([[9.0, 1.0, 0.0], [0.0, 8.5, 0.5], [0.0, 0.0, 9.5]])
    shifts = np.random.default_rng(0).integers(-1, 2, size=frames.positions.shape)
    wrapped = replace(frames, positions=frames.positions + shifts @ lattice.T, lattice=lattice)
    assert np.array_equal(wrapped.molecule.bonds, frames.molecule.bonds)
    found = find_symmetries(wrapped.positions, wrapped.molecule, lattice=lattice)
    assert as_set(found) == as_set(group)


@pytest.mark.parametrize(("name", "order"), [("ethanol", 6), ("aspirin", 6)])
def test_groups_of_md17_are_the_reference_packages(shared, name, order):
    data = Dataset.load(shared / "data" / "md17" / f"{name}.npz")
    for seed in (1, 2):
        assert len(find_symmetries(data.positions, data.molecule, seed=seed)) == order


def test_of_very_many_symmetries_a_group_is_used():
    """Neopentane: 4! · 3!^4 permutations, of which the rotations of its methyl groups are 3^4."""
    from jaxff.molecule import Molecule

    molecule = Molecule.from_smiles("CC(C)(C)C")
    rng = np.random.default_rng(0)
    carbons = [a for a in range(5) if molecule.graph.degree[a] == 4 and a != 1]
    hydrogens = {c: [b for b in molecule.graph.neighbors(c) if b > 4] for c in carbons}
    frames = []
    for _ in range(300):
        p = np.arange(17)
        images = rng.permutation(carbons)
        for c, image in zip(carbons, images, strict=True):
            p[c] = image
            p[hydrogens[c]] = np.roll(hydrogens[int(image)], rng.integers(3))
        frames.append(molecule.positions[p] + 0.02 * rng.normal(size=(17, 3)))
    with pytest.warns(UserWarning, match="more than 100 symmetries"):
        group = find_symmetries(np.array(frames), molecule)
    assert 3 <= len(group) <= 100
    assert preserves_bonds(group, molecule).all()
    assert len(close(group, len(group))) == len(group)
    words = describe_symmetries(group, molecule)
    assert sum("methyl rotation" in line for line in words) == 4
