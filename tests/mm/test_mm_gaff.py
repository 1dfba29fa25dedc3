"""GAFF of the molecules that the package carries."""

import numpy as np
import pytest

import jaxff.mm
from jaxff.errors import InputError
from jaxff.mm.gaff import CARRIED, carried
from jaxff.molecule import Molecule

SMILES = {
    "ethanol": "CCO",
    "keto_malondialdehyde": "O=CCC=O",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
}


@pytest.fixture(scope="module", params=CARRIED)
def molecule(request):
    return Molecule.from_smiles(SMILES[request.param])


def test_energy_does_not_depend_on_the_order_of_atoms(molecule):
    rng = np.random.default_rng(3)
    potential = jaxff.mm.gaff(molecule)
    assert potential.molecule is molecule
    terms = potential.terms(molecule.positions)
    assert sum(terms.values()) < 200.0  # a sane geometry: atoms have been matched rightly
    for _ in range(2):
        order = rng.permutation(molecule.n_atoms)
        shuffled = molecule.reorder(order)
        other = jaxff.mm.gaff(shuffled)
        assert other.molecule is shuffled
        for name, energy in other.terms(shuffled.positions).items():
            assert np.isclose(energy, terms[name], rtol=1e-10, atol=1e-10), name


def test_smiles_written_in_another_order_match():
    one, other = (
        Molecule.from_smiles("CC(=O)Oc1ccccc1C(=O)O"),
        Molecule.from_smiles("OC(=O)c1ccccc1OC(C)=O"),
    )
    order = one.match(other)
    assert not np.array_equal(order, np.arange(21))
    energy = jaxff.mm.gaff(other)(other.positions)
    assert np.isclose(jaxff.mm.gaff(one)(other.positions[order]), energy, atol=1e-9)


def test_carried_topologies_are_neutral_and_typed():
    types = carried("aspirin").atom_types
    assert types[:7] == ("c3", "c", "o", "os", "ca", "ca", "ca")
    for name in CARRIED:
        assert abs(carried(name).charges.sum()) < 0.005  # sqm's residue


def test_coulomb_constant_is_passed_on():
    molecule = Molecule.from_smiles("CCO")
    one, two = (jaxff.mm.gaff(molecule, coulomb_constant=c) for c in (300.0, 330.0))
    a, b = one.terms(molecule.positions), two.terms(molecule.positions)
    assert np.isclose(b["coulomb"], 1.1 * a["coulomb"], rtol=1e-12)


def test_other_molecules_are_refused_with_a_way_out():
    for smiles, formula in (("CC#N", "C2H3N"), ("COC", "C2H6O"), ("OC=CC=O", "C3H4O2")):
        with pytest.raises(InputError, match=rf"{formula}\).*aspirin.*jaxff.read_amber"):
            jaxff.mm.gaff(Molecule.from_smiles(smiles))
    ethanol = Molecule.from_smiles("CCO")
    cation = Molecule(ethanol.numbers, ethanol.positions, ethanol.bonds, charge=1)
    with pytest.raises(InputError, match="of charge 1"):
        jaxff.mm.gaff(cation)
