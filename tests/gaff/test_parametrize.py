"""GAFF's parameters: against LEaP's topologies, and what is said of estimates."""

import gaff_fixtures
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

import jaxff
from jaxff.errors import InputError
from jaxff.gaff import parametrize
from jaxff.gaff.analogy import angle_constant, similar_angle, similar_bond, similar_torsion
from jaxff.gaff.table import gaff_table, with_frcmod
from jaxff.molecule import Molecule
from jaxff.units import AMBER_COULOMB

ELEMENTS = {"cl": "Cl", "br": "Br"}
# Where LEaP's impropers are not taken over: parmchk2 finds the wildcard X-X-c-o or not by the
# order of atoms ("constant"), and gives impropers to the pyramidal np and nq, too ("centre").
UNLIKE = {"constant", "centre"}


@pytest.mark.parametrize(
    "part", [slice(0, None, 24), pytest.param(slice(None), marks=pytest.mark.slow)]
)
def test_energies_by_term_are_leaps(part):
    """With antechamber's types, to 1e-4 kcal/mol wherever gaff.dat has the parameters."""
    compared = dict.fromkeys(("bond", "angle", "torsion", "improper", "lj", "lj14"), 0)
    estimated = 0
    rows = list(gaff_fixtures.read("leap_energies.jsonl"))[part]
    for molecule, row in rows:
        n = molecule.n_atoms
        found = parametrize(
            molecule, np.full(n, molecule.charge / n), atom_types=row["types"].split()
        )
        terms = found.potential().terms(molecule.positions)
        guessed = {a.kind for a in found.estimates}
        estimated += bool(guessed - {"improper"})
        if 3 in map(len, nx.minimum_cycle_basis(molecule.graph)):
            # There an improper is a chain of bonds: the fixture counts it as a torsion.
            guessed |= {"torsion", "improper"}
        if row["impropers"] in UNLIKE:
            guessed.add("improper")
        for name, energy in row["energies"].items():
            if name in guessed:
                continue
            assert float(terms[name]) == pytest.approx(energy, abs=1e-4), (row["smiles"], name)
            compared[name] += 1
    assert compared["lj"] == compared["lj14"] == len(rows)
    assert min(compared["bond"], compared["angle"]) > 0.8 * len(rows)
    assert min(compared["torsion"], compared["improper"]) > 0.5 * len(rows)
    assert estimated


def test_every_molecule_is_complete():
    for molecule, row in gaff_fixtures.read("antechamber_types.jsonl"):
        if row["smiles"] == "[OH-]":
            continue
        n = molecule.n_atoms
        try:
            found = parametrize(molecule, "gasteiger")
        except InputError as error:  # Gasteiger knows no P with a triple bond, ...
            assert "Gasteiger" in str(error)  # noqa: PT017
            found = parametrize(molecule, np.full(n, molecule.charge / n))
        assert abs(found.charges.sum() - molecule.charge) < 1e-10
        kinds = [a.kind for a in found.assigned]
        assert kinds.count("bond") == len(molecule.bonds)
        assert all(np.isfinite(np.array(a.values, float)).all() for a in found.assigned)


def test_atom_order_and_place_do_not_change_the_energy():
    molecule = Molecule.from_smiles("CC(=O)Nc1ccc(S(=O)(=O)c2ncc[nH]2)cc1")
    rng = np.random.default_rng(2)
    wanted = jaxff.gaff(molecule, charges="gasteiger").terms(molecule.positions)
    for _ in range(3):
        shuffled = molecule.reorder(rng.permutation(molecule.n_atoms))
        terms = jaxff.gaff(shuffled, charges="gasteiger").terms(shuffled.positions)
        for name, energy in terms.items():
            # LEaP orders like atoms of an improper by their numbers; so is it done here.
            within = 1e-2 if name == "improper" else 1e-7
            assert float(energy) == pytest.approx(float(wanted[name]), abs=within), name


def test_a_potential_remembers_what_was_assigned():
    molecule = Molecule.from_smiles("C1CN1c1ccccc1")
    potential = jaxff.gaff(molecule, charges="gasteiger")
    found = potential.replace(potential.params).astype(jnp.float32).origin
    assert found.atom_types[2] == "nm"
    text = found.summary()
    assert "Gasteiger (crude)" in text
    assert "gaff.dat" in text
    worst = found.estimates[0]
    assert worst.penalty > 0
    assert worst.analogy
    assert worst.name in text
    assert found.to_dict()["atoms"][2]["type"] == "nm"
    assert (potential + potential.only("bond")).origin is None


def test_the_angle_rule_gives_the_files_own_constants():
    """Wang et al. (2004), eq. 5, with θ^(−1/2): to 0.2 % for 9 of 10 angles of the file."""
    table, wrong = gaff_table(), []
    for types, entry in table.angles.items():
        bonds = [table.bond(types[:2]), table.bond(types[1:])]
        symbols = tuple(ELEMENTS.get(t, t[0].upper()) for t in types)
        if None in bonds or symbols[1] not in "CNOPS" or "SOURCE" not in entry.remark:
            continue
        k = angle_constant(symbols, tuple(b.values[1] for b in bonds), entry.values[1])
        wrong.append(abs(k / entry.values[0] - 1.0))
    assert len(wrong) > 4000
    assert np.quantile(wrong, 0.9) < 2e-3


def test_analogies_name_their_source_and_count_their_distance():
    table = gaff_table()
    known = similar_bond(table, ("c3", "hc"))
    assert known.penalty == 0.0
    assert known.values == table.bond(("hc", "c3")).values
    exocyclic = similar_torsion(table, ("ca", "ca", "cc", "cd"))
    assert exocyclic.reason == "like X-c2-ca-X"
    assert 0.0 < exocyclic.penalty < 5.0
    back = similar_torsion(table, ("cd", "cc", "ca", "ca"))
    assert back == exocyclic
    halogens = similar_angle(table, ("i", "c3", "f"), (2.1, 1.35), ("I", "C", "F"))
    assert halogens.penalty > 0.0
    assert 1.7 < halogens.values[1] < 2.1


def test_a_frcmod_file_stands_above_the_table():
    text = "mine\nMASS\n\nBOND\nc3-hc  100.0  1.20\n\nDIHE\nhc-c3-c3-hc 1 0.5 180.0 -2.\n"
    text += "hc-c3-c3-hc 1 0.25 0.0 3.\n\nNONBON\n  hc 1.0 0.02\n\n"
    table = with_frcmod(gaff_table(), text, "my.frcmod")
    assert table.bond(("hc", "c3")).values == (100.0, 1.2)
    assert table.bond(("hc", "c3")).source == "my.frcmod 5"
    terms = table.torsion(("hc", "c3", "c3", "hc")).values
    assert [(k, n) for k, n, _ in terms] == [(0.5, 2), (0.25, 3)]
    assert gaff_table().bond(("hc", "c3")).values != (100.0, 1.2)
    with pytest.raises(InputError, match=r"my.frcmod line 4 cannot be read"):
        with_frcmod(gaff_table(), "mine\nMASS\nBOND\nc3-hc  a  1.20\n", "my.frcmod")
    with pytest.raises(InputError, match=r"my.frcmod line 4 cannot be read"):
        with_frcmod(gaff_table(), "mine\nMASS\nBOND\nc3-hc  300.0  1e300\n", "my.frcmod")


def test_coulomb_constant_is_passed_on():
    molecule = Molecule.from_smiles("CCO")
    one, two = (jaxff.gaff(molecule, coulomb_constant=c) for c in (AMBER_COULOMB, 300.0))
    a, b = (float(p.terms(molecule.positions)["coulomb"]) for p in (one, two))
    assert b == pytest.approx(a * 300.0 / AMBER_COULOMB)


def test_estimated_angles_at_linear_atoms_are_straight():
    found = parametrize(Molecule.from_smiles("N#CCl", geometry=False), "gasteiger")
    (angle,) = [a for a in found.assigned if a.kind == "angle"]
    assert angle.values[1] == pytest.approx(np.pi, abs=0.1)
    with pytest.raises(InputError, match="has the type ss"):
        parametrize(Molecule.from_smiles("O"), "gasteiger", atom_types=("ss", "hs", "hs"))
