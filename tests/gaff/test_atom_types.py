"""GAFF atom types: the rules one by one, and against antechamber on some 700 molecules."""

import gaff_fixtures
import numpy as np
import pytest

from jaxff.errors import InputError
from jaxff.gaff.atom_types import HYDROGEN_EXAMPLES, PAIRS, RULES, atom_types
from jaxff.gaff.lewis import lewis_structure
from jaxff.gaff.table import gaff_table
from jaxff.molecule import Molecule

FIRST = {second: first for first, second in PAIRS.items()}

# Atoms that antechamber types otherwise, and why the rules here are kept.
KNOWN = {
    "O=CC=C[O-]": "the two ends of the enolate are equivalent: either may be the C=O",
    "CC(=O)[CH-]C(C)=O": "the same",
    "O=S=O": "antechamber has ss, a sulfide's type, for SO2",
    "c1c[n-]cn1": "antechamber has n1, a linear nitrogen, for the anion's",
    "c1cc[n-]c1": "the same",
    "C1=CO1": "oxirene: a planar ring with three members",
}


def conjugated_systems(molecule, types):
    """Sets of atoms with paired types that are joined by bonds."""
    left = {a for a, kind in enumerate(types) if FIRST.get(kind, kind) in PAIRS}
    while left:
        found, queue = set(), [left.pop()]
        while queue:
            a = queue.pop()
            found.add(a)
            near = set(molecule.graph.neighbors(a)) & left
            left -= near
            queue += near
        yield sorted(found)


def differences(molecule, ours, theirs) -> tuple[int, int]:
    """Atoms of another type, and atoms of systems that are not flipped as a whole."""
    plain = [[FIRST.get(kind, kind) for kind in types] for types in (ours, theirs)]
    other = sum(a != b for a, b in zip(*plain, strict=True))
    mixed = 0
    for system in conjugated_systems(molecule, theirs):
        same = [ours[a] == theirs[a] for a in system if plain[0][a] == plain[1][a]]
        mixed += min(sum(same), len(same) - sum(same))
    return other, mixed


def test_types_are_antechambers():
    """99 % is what is asked; 99.9 % of the types and 99.8 % of the alternations agree."""
    atoms = other = mixed = 0
    unlike = set()
    for molecule, row in gaff_fixtures.read("antechamber_types.jsonl"):
        try:
            ours = atom_types(lewis_structure(molecule))
        except InputError:
            assert row["smiles"] in ("[OH-]",)
            continue
        kinds, flips = differences(molecule, ours, row["types"].split())
        atoms, other, mixed = atoms + molecule.n_atoms, other + kinds, mixed + flips
        if kinds:
            unlike.add(row["smiles"])
    assert atoms > 10_000
    assert other < 0.002 * atoms
    assert other + mixed < 0.006 * atoms
    nitroso = {s for s in unlike if "N=O" in s or "O=N" in s}  # antechamber: n2 here, ne there
    assert len(unlike - nitroso - set(KNOWN)) <= 2


@pytest.mark.parametrize(
    "rule", [rule for rules in RULES.values() for rule in rules], ids=lambda rule: rule.type
)
def test_each_rule_has_a_molecule(rule):
    assert rule.type in gaff_table().masses
    types = atom_types(lewis_structure(Molecule.from_smiles(rule.example, geometry=False)))
    assert rule.type in {FIRST.get(kind, kind) for kind in types}


@pytest.mark.parametrize(("kind", "smiles"), HYDROGEN_EXAMPLES.items())
def test_each_hydrogen_has_a_molecule(kind, smiles):
    assert kind in atom_types(lewis_structure(Molecule.from_smiles(smiles, geometry=False)))


@pytest.mark.parametrize(
    "forms",
    [
        ("Cc1ccccc1O", "CC1=CC=CC=C1O", "Oc1ccccc1C", "CC1=C(O)C=CC=C1"),
        ("C[N+](=O)[O-]", "CN(=O)=O"),
        ("NC(=[NH2+])C", "CC(N)=[NH2+]"),
        ("CS(C)=O", "C[S+](C)[O-]"),
        ("CC(=O)[O-]", "[O-]C(C)=O"),
        ("Cn1cc[n+](C)c1", "C[n+]1ccn(C)c1"),
        ("O=c1cc[nH]cc1", "O=C1C=CNC=C1"),
        ("CN=[N+]=[N-]", "C[N-][N+]#N"),
    ],
)
def test_the_way_of_drawing_does_not_count(forms):
    seen = set()
    for smiles in forms:
        molecule = Molecule.from_smiles(smiles, geometry=False)
        rng = np.random.default_rng(len(smiles))
        for order in (np.arange(molecule.n_atoms), rng.permutation(molecule.n_atoms)):
            shuffled = molecule.reorder(order)
            types = atom_types(lewis_structure(shuffled))
            seen.add(tuple(sorted(zip(shuffled.numbers.tolist(), types, strict=True))))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("smiles", "charge", "message"),
    [
        ("[CH3]", 0, "no closed-shell structure has the net charge"),
        ("C[O]", 0, "no closed-shell structure"),
        ("CC(=O)O", -1, r"net charge -1 \(possible: .*\+0"),
        ("[Na+].[Cl-]", 0, "no parameters for Na; use molecules of H"),
        ("C[Si](C)(C)C", 0, "no parameters for Si; use molecules of H"),
        ("CO.CO", 0, "2 separate molecules"),
        ("FI(F)F", 0, "3 neighbours"),
        ("Cl", 0, "no type for the hydrogen"),
    ],
)
def test_what_gaff_cannot_type_is_one_sentence(smiles, charge, message):
    molecule = Molecule.from_smiles(smiles, geometry=False)
    molecule = Molecule(molecule.numbers, molecule.positions, molecule.bonds, charge)
    with pytest.raises(InputError, match=message):
        atom_types(lewis_structure(molecule))


def test_rings_without_their_hydrogens_are_not_taken_for_carbon_clusters():
    benzene = Molecule.from_smiles("c1ccccc1")
    heavy = benzene.numbers > 1
    bonds = [b for b in benzene.bonds.tolist() if max(b) < 6]
    bare = Molecule(benzene.numbers[heavy], benzene.positions[heavy], bonds)
    with pytest.raises(InputError, match="add missing hydrogens"):
        atom_types(lewis_structure(bare))


def test_what_is_no_molecule_is_named():
    with pytest.raises(InputError, match=r"molecule must be a jaxff.Molecule .got str"):
        lewis_structure("CCO")
    with pytest.raises(InputError, match="isotope"):
        Molecule.from_smiles("[2H]C")
