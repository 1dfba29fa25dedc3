"""Torsions about rotatable bonds, against RDKit and ASE."""

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors

from jaxff import Molecule
from jaxff.analysis import rotatable_torsions, torsion_angles, torsion_label


@pytest.mark.parametrize(
    "smiles", ["CCCC", "CC(=O)Oc1ccccc1C(=O)O", "OCCN", "c1ccccc1-c1ccccc1", "C#CCCC"]
)
def test_heavy_rotors_are_those_of_rdkit(smiles):
    molecule = Molecule.from_smiles(smiles)
    heavy = [t for t in rotatable_torsions(molecule) if (molecule.numbers[t] > 1).all()]
    strict = rdMolDescriptors.NumRotatableBondsOptions.NonStrict
    mol = Chem.MolFromSmiles(smiles)
    assert len(heavy) == rdMolDescriptors.CalcNumRotatableBonds(mol, strict)


def test_ethanol_turns_about_its_hydroxyl_before_its_methyl_group():
    ethanol = Molecule.from_smiles("CCO")
    hydroxyl, methyl = rotatable_torsions(ethanol)
    assert {ethanol.symbols[i] for i in hydroxyl[1:3]} == {"C", "O"}
    assert [ethanol.symbols[i] for i in methyl[1:3]] == ["C", "C"]
    assert torsion_label(ethanol, [0, 1, 2, 8]) == "C1-C2-O3-H9"


def test_rings_and_linear_atoms_do_not_turn():
    assert len(rotatable_torsions(Molecule.from_smiles("C1CCCCC1"))) == 0
    assert len(rotatable_torsions(Molecule.from_smiles("CC#N"))) == 0
    assert len(rotatable_torsions(Molecule.from_smiles("O"))) == 0


def test_angles_are_those_of_ase():
    molecule = Molecule.from_smiles("OCCN")
    torsions = rotatable_torsions(molecule)
    rng = np.random.default_rng(0)
    frames = molecule.positions + 0.2 * rng.normal(size=(4, molecule.n_atoms, 3))
    expected = [
        [molecule.with_positions(R).to_ase().get_dihedral(*t) for t in torsions] for R in frames
    ]
    ours = np.degrees(torsion_angles(frames, torsions)) % 360
    np.testing.assert_allclose(ours, expected, atol=1e-9)
