"""Molecules: reading every format, perceiving bonds, and matching by graph isomorphism."""

import time

import ase
import ase.io
import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from jaxff import InputError, Molecule
from jaxff.dataset import Dataset
from jaxff.molecule import perceive_bonds
from jaxff.reference.frames import read_frames

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"


@pytest.fixture(scope="module")
def aspirin():
    return Molecule.from_smiles(ASPIRIN)


def test_from_smiles_has_rdkit_atoms_and_bonds(aspirin):
    reference = Chem.AddHs(Chem.MolFromSmiles(ASPIRIN))
    assert aspirin.formula == "C9H8O4"
    assert aspirin.numbers.tolist() == [a.GetAtomicNum() for a in reference.GetAtoms()]
    assert len(aspirin.bonds) == reference.GetNumBonds()
    assert aspirin.masses.sum() == pytest.approx(180.159, abs=2e-3)


def test_charge_follows_the_smiles():
    assert Molecule.from_smiles("C[NH3+]").charge == 1
    assert Molecule.from_smiles("CC(=O)[O-]").charge == -1


@pytest.mark.parametrize("smiles", [ASPIRIN, "CS(=O)(=O)N", "C#CCBr", "CC(=O)NC", "OP(=O)(O)O"])
def test_perceived_bonds_are_those_of_the_graph(smiles):
    molecule = Molecule.from_smiles(smiles)
    assert np.array_equal(perceive_bonds(molecule.numbers, molecule.positions), molecule.bonds)


def test_one_stretched_frame_does_not_break_a_perceived_bond(aspirin):
    frames = np.repeat(aspirin.positions[None], 5, axis=0)
    frames[0] *= 2.0
    assert np.array_equal(perceive_bonds(aspirin.numbers, frames), aspirin.bonds)


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False))
def test_match_restores_any_order(random):
    molecule = Molecule.from_smiles("CC(=O)NCc1ccccc1O")
    order = list(range(molecule.n_atoms))
    random.shuffle(order)
    shuffled = molecule.reorder(order)
    back = shuffled.reorder(molecule.match(shuffled))
    assert np.array_equal(back.numbers, molecule.numbers)
    assert np.array_equal(back.bonds, molecule.bonds)


def test_match_keeps_equal_orders_and_ignores_geometry(aspirin):
    assert np.array_equal(aspirin.match(aspirin), np.arange(21))
    moved = aspirin.with_positions(aspirin.positions[::-1])
    assert np.array_equal(aspirin.match(moved), np.arange(21))


def test_reorder_carries_bond_orders(aspirin):
    order = np.random.default_rng(0).permutation(21)
    other = aspirin.reorder(order)
    for (i, j), bond_order in zip(other.bonds, other.bond_orders, strict=True):
        pair = sorted((order[i], order[j]))
        row = np.flatnonzero((aspirin.bonds == pair).all(axis=1)).item()
        assert aspirin.bond_orders[row] == bond_order


def test_match_names_what_differs():
    ethanol, ether = Molecule.from_smiles("CCO"), Molecule.from_smiles("COC")
    with pytest.raises(InputError, match="CCO is C2H6O, CO is CH4O"):
        ethanol.match(Molecule.from_smiles("CO"))
    with pytest.raises(InputError, match="both C2H6O but bonded differently"):
        ethanol.match(ether)


@pytest.mark.parametrize("suffix", ["sdf", "mol", "pdb", "xyz", "extxyz", "mol2"])
def test_read_every_format(tmp_path, suffix):
    source = Chem.AddHs(Chem.MolFromSmiles("CC#N"))
    molecule = Molecule.from_smiles("CC#N")
    path = tmp_path / f"acetonitrile.{suffix}"
    if suffix in ("xyz", "extxyz"):
        ase.io.write(path, molecule.to_ase(), format=suffix)
    elif suffix == "mol2":
        atoms = "\n".join(
            f"{i + 1} X{i} {x:.6f} {y:.6f} {z:.6f} {t} 1 MOL 0.0"
            for i, ((x, y, z), t) in enumerate(
                zip(molecule.positions, ["c3", "c1", "n1", "hc", "hc", "hc"], strict=True)
            )
        )
        kinds = {1.0: "1", 3.0: "3"}
        bonds = "\n".join(
            f"{k + 1} {i + 1} {j + 1} {kinds[o]}"
            for k, ((i, j), o) in enumerate(zip(molecule.bonds, molecule.bond_orders, strict=True))
        )
        path.write_text(
            f"@<TRIPOS>MOLECULE\nacetonitrile\n6 5\nSMALL\nbcc\n@<TRIPOS>ATOM\n{atoms}\n"
            f"@<TRIPOS>BOND\n{bonds}\n"
        )
    else:
        conformer = Chem.Conformer(source.GetNumAtoms())
        for i, xyz in enumerate(molecule.positions):
            conformer.SetAtomPosition(i, xyz.tolist())
        source.AddConformer(conformer)
        write = Chem.MolToPDBFile if suffix == "pdb" else Chem.MolToMolFile
        write(source, str(path))
    read = Molecule.read(path)
    assert read.formula == "C2H3N"
    assert np.array_equal(read.numbers, molecule.numbers)
    assert np.array_equal(read.bonds, molecule.bonds)
    np.testing.assert_allclose(read.positions, molecule.positions, atol=2e-3)
    if suffix in ("sdf", "mol", "mol2"):
        assert read.bond_orders.tolist() == molecule.bond_orders.tolist()


def test_gaff_and_sybyl_types_name_their_elements(tmp_path):
    rows = ["C.ar C", "cl Cl", "br Br", "na N", "nb N", "Cl Cl", "oh O", "CT C", "s6 S", "p5 P"]
    atoms = "\n".join(f"{i + 1} A {3 * i} 0 0 {r.split()[0]} 1 M 0" for i, r in enumerate(rows))
    path = tmp_path / "types.mol2"
    path.write_text(f"@<TRIPOS>MOLECULE\nx\n@<TRIPOS>ATOM\n{atoms}\n")
    assert Molecule.read(path).symbols == [r.split()[1] for r in rows]


def test_bad_input_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="not a SMILES string"):
        Molecule.from_smiles("C1CC")
    with pytest.raises(InputError, match="unknown molecule format"):
        Molecule.read("x.cif")
    with pytest.raises(InputError, match="no such file"):
        Molecule.read("absent.xyz")
    empty = tmp_path / "empty.xyz"
    empty.write_text("")
    with pytest.raises(InputError, match=r"empty\.xyz: cannot be read as xyz"):
        Molecule.read(empty)
    with pytest.raises(InputError, match="position of atom 1 is not finite"):
        Molecule([1, 1], [[0, 0, 0], [0, 0, np.nan]], [])
    with pytest.raises(InputError, match="position of atom 0 is not finite or too large"):
        Molecule([1], [[0, 0, 1e300]], [])
    with pytest.raises(InputError, match="from 1 to 118"):
        Molecule([0], [[0, 0, 0]], [])
    with pytest.raises(InputError, match="periodic"):
        Molecule.from_ase(ase.Atoms("H", pbc=True))
    crystal = tmp_path / "crystal.extxyz"
    ase.Atoms("H", cell=[9.0, 9.0, 9.0], pbc=True).write(crystal)
    with pytest.raises(InputError, match='write pbc="F F F" in the comment line of the file'):
        Molecule.read(crystal)
    no_hydrogens = tmp_path / "bare.sdf"
    Chem.MolToMolFile(Chem.MolFromSmiles("CCO"), str(no_hydrogens))
    with pytest.raises(InputError, match="hydrogens are missing"):
        Molecule.read(no_hydrogens)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 1 9 1", "bond 1 contains atom 9, which is not in the section ATOM"),
        ("1 1 2 x", "bond 1 has the type 'x'"),
        ("1 1 2", "the line '1 1 2' of section BOND has 3 words"),
    ],
)
def test_faults_of_mol2_files_are_named(tmp_path, line, message):
    path = tmp_path / "x.mol2"
    atoms = ("1 H 0 0 0 hc 1 MOL 0.0", "2 H 0 0 0.7 hc 1 MOL 0.0")
    path.write_text("\n".join(["@<TRIPOS>ATOM", *atoms, "@<TRIPOS>BOND", line, ""]))
    with pytest.raises(InputError, match=message):
        Molecule.read(path)


@pytest.mark.parametrize("bonds", [(1, 1), (1, 2), (2, 2)])
def test_nitro_groups_with_mistaken_charges_are_neutral(tmp_path, bonds):
    """Some writers give -1 to both oxygens and nothing to nitrogen."""
    right = Chem.AddHs(Chem.MolFromSmiles("C[N+](=O)[O-]"))
    rdDistGeom.EmbedMolecule(right, randomSeed=1)
    wrong = Chem.RWMol(right)
    for atom, charge in ((1, 0), (2, -1), (3, -1)):
        wrong.GetAtomWithIdx(atom).SetFormalCharge(charge)
    for oxygen, order in zip((2, 3), bonds, strict=True):
        kind = Chem.BondType.DOUBLE if order == 2 else Chem.BondType.SINGLE
        wrong.GetBondBetweenAtoms(1, oxygen).SetBondType(kind)
    path = tmp_path / "x.sdf"
    path.write_text(Chem.MolToMolBlock(wrong, kekulize=False) + "$$$$\n")
    with pytest.warns(UserWarning, match="in 1 nitro groups both oxygens have the charge -1"):
        found = Molecule.read(path)
    assert found.charge == 0
    assert sorted(found.bond_orders.tolist()) == [1.0] * 5 + [2.0]


@pytest.mark.parametrize("count", [99_999_999, 10**30, 4, -1])
def test_xyz_files_with_too_few_lines_are_refused_quickly(tmp_path, count):
    """ASE would search for 99,999,999 lines in a file of four."""
    path, atoms = tmp_path / "x.xyz", "\nH 0 0 0\nH 0 0 0.7\n"
    for read in (Molecule.read, Dataset.load, read_frames):
        frame = 0 if read == Molecule.read else 1
        path.write_text(f"2\n{atoms}" * frame + f"{count}\n{atoms}")
        message = f"frame {frame} declares {count} atoms, but the file ends"
        started = time.process_time()
        with pytest.raises(InputError, match=message):
            read(path)
        assert time.process_time() - started < 5.0


def test_extxyz_files_with_too_few_columns_are_refused_quickly(tmp_path):
    """ASE would make an array with 99,999,999 columns."""
    path = tmp_path / "x.extxyz"
    for columns in ("species:S:99999999:pos:R:3", '"species:S:1:pos:R:3:forces:R:3"'):
        path.write_text(f"2\nProperties={columns}\nH 0 0 0\nH 0 0 0.7\n")
        for read in (Molecule.read, Dataset.load, read_frames):
            with pytest.raises(InputError, match=r"frame 0 declares \d+ columns, but .* has 4"):
                read(path)


@pytest.mark.parametrize("counts", ["99999999 1 0 0 0", "2 99999999 0 0 0"])
def test_v3000_files_with_too_few_lines_are_refused_quickly(tmp_path, counts):
    """RDKit would make 99,999,999 atoms before it reads their lines."""
    mol = Chem.AddHs(Chem.MolFromSmiles("O"))
    rdDistGeom.EmbedMolecule(mol, randomSeed=1)
    text, path = Chem.MolToV3KMolBlock(mol), tmp_path / "x.mol"
    path.write_text(text)
    assert Molecule.read(path).formula == "H2O"
    path.write_text(text.replace("COUNTS 3 2 0 0 0", f"COUNTS {counts}"))
    started = time.process_time()
    with pytest.raises(InputError, match="declares 99999999 atoms or bonds, but the file ends"):
        Molecule.read(path)
    assert time.process_time() - started < 2.0


def test_graph_is_the_bond_graph(aspirin):
    assert networkx.number_connected_components(aspirin.graph) == 1
    assert len(networkx.cycle_basis(aspirin.graph)) == 1


def test_equivalent_atoms_are_matched_by_their_distances():
    """The two oxygens of a carboxylate are equivalent in the bond graph, but not in a geometry."""
    acid = Molecule.from_smiles("OCC(=O)[O-]")
    rng = np.random.default_rng(4)
    geometry = acid.with_positions(acid.positions + rng.normal(0.0, 0.05, acid.positions.shape))
    for _ in range(4):
        order = rng.permutation(acid.n_atoms)
        found = geometry.match(geometry.reorder(order))
        np.testing.assert_array_equal(order[found], np.arange(acid.n_atoms))


def test_huge_coordinates_are_named_without_a_warning_of_overflow(tmp_path):
    (tmp_path / "far.xyz").write_text("2\n\nO 0 0 0\nH 1e300 0 0\n")
    with pytest.raises(InputError, match="position of atom 1 is not finite or too large"):
        Molecule.read(tmp_path / "far.xyz")
