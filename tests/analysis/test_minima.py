"""Minima from many starts against ASE's from the same starts, and what is the same minimum."""

import dataclasses

import ase.io
import networkx
import numpy as np
import pytest
from ase.optimize import BFGS
from networkx.algorithms.isomorphism import GraphMatcher
from rdkit import Chem
from scipy.spatial.transform import Rotation

import jaxff
from jaxff import InputError, Molecule, md
from jaxff.analysis import automorphisms, conformers, minima, ordering
from jaxff.ase import Calculator
from jaxff.cli import main


@pytest.fixture(scope="module")
def ethanol():
    return Molecule.from_smiles("CCO")


@pytest.fixture(scope="module")
def gaff(ethanol):
    return jaxff.gaff(ethanol, charges="gasteiger")


@pytest.fixture(scope="module")
def starts(ethanol):
    return conformers(ethanol, 12, seed=3)


def test_each_start_ends_where_that_of_ase_does(ethanol, gaff, starts):
    found = minima(gaff, ethanol, starts, descent=md.Descent(tolerance=1e-4))
    assert len(found) == 2  # trans and gauche
    assert (np.diff(found.energies) > 0).all()
    assert not found.failed.any()
    assert found.counts.sum() == len(starts)
    assert all(f[0] > 0 for f in found.frequencies)
    for start, k in list(zip(starts, found.minimum_index, strict=True))[:3]:
        atoms = ethanol.with_positions(start).to_ase()
        atoms.calc = Calculator(gaff)
        BFGS(atoms, logfile=None).run(fmax=1e-5)
        assert float(gaff(atoms.positions)) == pytest.approx(found.energies[k], abs=1e-6)


def test_mirror_images_and_names_of_atoms_make_no_difference(ethanol, gaff, starts):
    rng = np.random.default_rng(0)
    group = automorphisms(ethanol)
    assert len(group) == 12  # 3! of the methyl group's hydrogens times 2
    shuffled = np.array([R[group[rng.integers(12)]] for R in starts])
    turned = np.concatenate([starts, shuffled, starts * [1, 1, -1]])
    one = minima(gaff, ethanol, turned)
    assert len(one) == 2
    assert one.counts.sum() == 36
    np.testing.assert_array_equal(one.minimum_index, np.tile(one.minimum_index[:12], 3))
    handed = minima(gaff, ethanol, turned, mirror=False)
    np.testing.assert_allclose(handed.relative, one.relative[[0, 1, 1]], atol=1e-5)


def relabelled(molecule, rng) -> np.ndarray:
    """An order of the atoms that keeps elements and bonds, by networkx of a shuffled copy."""
    shuffle = rng.permutation(molecule.n_atoms)
    graph = molecule.graph
    copy = networkx.relabel_nodes(graph, dict(enumerate(shuffle.tolist())))
    other = networkx.Graph()
    other.add_nodes_from(sorted(copy.nodes(data=True)))
    other.add_edges_from(rng.permutation(list(copy.edges)).tolist())
    matcher = GraphMatcher(graph, other, node_match=lambda a, b: a["element"] == b["element"])
    assert matcher.is_isomorphic()
    back = np.argsort(shuffle)
    return np.array([back[matcher.mapping[i]] for i in range(molecule.n_atoms)])


@pytest.mark.parametrize(("smiles", "kinds"), [("CC(C)(C)C", 1), ("CCCCCCCCCCC", 4)])
def test_molecules_of_many_methyl_groups_have_their_minima_told_apart(smiles, kinds):
    rng = np.random.default_rng(0)
    molecule = Molecule.from_smiles(smiles)
    with pytest.raises(InputError, match="more than 20000 permutations"):
        automorphisms(molecule)
    R = conformers(molecule, kinds, seed=1)
    orders = [relabelled(molecule, rng) for _ in range(4 * kinds)]
    graph = molecule.graph
    assert all(graph.has_edge(order[a], order[b]) for order in orders for a, b in graph.edges)
    turns = Rotation.random(4 * kinds, rng=rng).as_matrix() * rng.choice([-1, 1], (4 * kinds, 1, 1))
    copies = [
        R[k % kinds][order] @ turn.T + 0.01 * rng.normal(size=R[0].shape) + rng.normal(size=3)
        for k, (order, turn) in enumerate(zip(orders, turns, strict=True))
    ]

    def flat(R):  # geometries stay as they are, and have one energy
        return np.zeros(len(R)), np.zeros(np.shape(R))

    found = minima(flat, molecule, [*R, *copies])
    assert len(found) == kinds
    np.testing.assert_array_equal(found.minimum_index, np.tile(np.arange(kinds), 5))
    again = ordering(found, {"flat": flat})
    assert again.nearest.tolist() == [list(range(kinds))]
    assert again.rmsd.max() < 1e-6


def test_all_permutations_are_those_of_networkx():
    for smiles in ("CC(C)C", "FC(F)(F)S(F)(F)(F)(F)F", "O", "[H][H]", "O.O", "[Ar]"):
        molecule = Molecule.from_smiles(smiles, geometry=False)
        matcher = GraphMatcher(molecule.graph, molecule.graph,
                               node_match=lambda a, b: a["element"] == b["element"])  # fmt: skip
        expected = {tuple(m[i] for i in range(molecule.n_atoms))
                    for m in matcher.isomorphisms_iter()}  # fmt: skip
        found = automorphisms(molecule)
        assert set(map(tuple, found.tolist())) == expected
        assert len(found) == len(expected)
        assert found[0].tolist() == list(range(molecule.n_atoms))


def test_a_saddle_is_named_and_not_a_minimum():
    """Planar ammonia stays planar; both pyramids are one minimum."""
    molecule = Molecule.from_smiles("N")
    potential = jaxff.gaff(molecule, charges="gasteiger")
    planar = np.array([[0, 0, 0], [1, 0, 0], [-0.5, 0.75**0.5, 0], [-0.5, -(0.75**0.5), 0]])
    lift = np.array([[0, 0, 0.3], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    found = minima(potential, molecule, [planar, planar + lift, planar - lift], mirror=False)
    assert len(found) == len(found.saddles) == 1
    assert found.counts.tolist() == [2]
    assert found.minimum_index.tolist() == [-1, 0, 0]
    assert (found.saddles.frequencies[0] < 0).sum() == 1
    assert found.saddles.energies[0] > found.energies[0]


def test_conformers_are_of_the_same_stereoisomer_and_reproducible():
    molecule = Molecule.from_smiles("C[C@H](N)C(=O)O")
    found = conformers(molecule, 5, seed=1)
    np.testing.assert_array_equal(found, conformers(molecule, 5, seed=1))
    centre = next(a.GetIdx() for a in Chem.MolFromSmiles("C[C@H](N)C(=O)O").GetAtoms()
                  if a.GetChiralTag())  # fmt: skip
    arms = molecule.neighbours[centre][:3]

    def handedness(R):
        return np.sign(np.linalg.det(R[arms] - R[centre]))

    assert {handedness(R) for R in found} == {handedness(molecule.positions)}


def test_ordering_tells_what_each_potential_makes_of_the_minima(ethanol, gaff, starts):
    found = minima(gaff, ethanol, starts, descent=md.Descent(tolerance=1e-4))
    flat = gaff.only("bond", "angle")
    table = ordering(found, {"itself": gaff, "twice": Calculator(2.0 * gaff), "bonds": flat})
    np.testing.assert_allclose(table.unrelaxed[0], found.relative, atol=1e-9)
    np.testing.assert_allclose(table.relaxed[0], found.relative, atol=1e-6)
    np.testing.assert_allclose(table.unrelaxed[1], 2.0 * found.relative, atol=1e-9)
    assert table.nearest[:2].tolist() == [[0, 1], [0, 1]]
    assert table.rmsd[:2].max() < 1e-3
    np.testing.assert_allclose(table.relaxed[2], 0.0, atol=1e-5)
    assert len(table.rows()) == 6


def test_ordering_of_nothing_is_refused_and_without_convergence_has_no_energies(
    ethanol, gaff, starts
):
    found = minima(gaff, ethanol, starts, descent=md.Descent(tolerance=1e-4))

    def hill(R):
        return np.zeros(len(R)), np.full(np.shape(R), 50.0)

    def nothing(R):
        return np.full(len(R), np.nan), np.full(np.shape(R), np.nan)

    table = ordering(found, {"hill": hill, "nothing": nothing}, md.Descent(max_steps=3))
    assert np.isnan(table.relaxed).all()
    assert table.unrelaxed[0].tolist() == [0.0, 0.0]
    assert np.isnan(table.unrelaxed[1]).all()
    none = dataclasses.replace(found, positions=found.positions[:0], energies=found.energies[:0])
    with pytest.raises(InputError, match="0 minima and 1 potentials"):
        ordering(none, {"gaff": gaff})


def test_what_does_not_converge_says_so(ethanol, gaff, starts):
    with pytest.raises(InputError, match="none of 12 starts converged"):
        minima(gaff, ethanol, starts, descent=md.Descent(max_steps=2))
    with pytest.raises(InputError, match=r"must have shape \(B, 9, 3\)"):
        minima(gaff, ethanol, starts[0])


def test_the_command_finds_minima_and_frequencies(ethanol, gaff, tmp_path, capsys):
    jaxff.save(tmp_path / "gaff.npz", gaff)
    ase.io.write(tmp_path / "start.xyz", ethanol.to_ase(), "extxyz")
    arguments = ["minimize", tmp_path / "gaff.npz", tmp_path / "start.xyz", "--conformers", "12",
                 "--modes", "-o", tmp_path / "out"]  # fmt: skip
    assert main(list(map(str, arguments))) == 0
    assert "cm⁻¹" in capsys.readouterr().out
    frames = ase.io.read(tmp_path / "out" / "minima.xyz", ":")
    assert len(frames) == 2
    for frame in frames:
        assert frame.info["energy_kcal_mol"] == pytest.approx(
            float(gaff(frame.positions)), abs=1e-5
        )
