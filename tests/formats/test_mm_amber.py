"""Reading AMBER files: every convention against OpenMM, every refusal by its message."""

import re
from dataclasses import replace
from pathlib import Path

import jax
import mm_oracle
import numpy as np
import pytest

import jaxff
from jaxff.errors import InputError
from jaxff.formats.amber import read_topology
from jaxff.molecule import Molecule
from jaxff.units import AMBER_COULOMB

DATA = Path(__file__).parents[1] / "data" / "mm"
BUTYNOL = (DATA / "butynol.prmtop").read_text()
ETHANOL = (DATA / "ethanol.prmtop").read_text()


def section(text, name):
    """(start, end) of the data of a section."""
    start = re.search(rf"^%FLAG {name} *\n%FORMAT.*\n", text, re.MULTILINE).end()
    end = text.find("%FLAG", start)
    return start, end if end > 0 else len(text)


def values(text, name):
    start, end = section(text, name)
    return [float(x) for x in text[start:end].split()]


def with_values(text, name, numbers):
    """The topology with other numbers in a section of floating-point numbers."""
    start, end = section(text, name)
    lines = ["".join(f"{x:16.8E}" for x in numbers[i : i + 5]) for i in range(0, len(numbers), 5)]
    return text[:start] + "\n".join(lines) + "\n" + text[end:]


def with_pointer(text, place, value):
    start, end = section(text, "POINTERS")
    numbers = [int(x) for x in text[start:end].split()]
    numbers[place] = value
    lines = ["".join(f"{x:8d}" for x in numbers[i : i + 10]) for i in range(0, len(numbers), 10)]
    return text[:start] + "\n".join(lines) + "\n" + text[end:]


def without(text, name):
    start, end = section(text, name)
    return text[: text.rindex("%FLAG", 0, start)] + text[end:]


def added(text, name, form="5E16.8", data="  1.00000000E+00"):
    return f"{text.rstrip()}\n%FLAG {name}\n%FORMAT({form})\n{data}\n"


@pytest.fixture
def write(tmp_path):
    def write(text, name="x.prmtop"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="module")
def frames():
    positions = jaxff.formats.read_inpcrd(DATA / "butynol.inpcrd")
    noise = np.random.default_rng(5).normal(size=(3, *positions.shape))
    return positions + 0.05 * noise


def check_total(path, frames):
    potential = jaxff.formats.read_amber(path, mm_oracle.coulomb_constant())
    energies, forces = mm_oracle.total(path, frames)
    ours = [potential.energy_and_forces(R) for R in frames]
    assert np.allclose([e for e, _ in ours], energies, rtol=0, atol=1e-6)
    assert np.allclose([f for _, f in ours], forces, rtol=0, atol=1e-5)
    return potential


def test_lennard_jones_matrix_that_breaks_the_combination_rules(write, frames):
    """NBFIX: every pair of unlike types has its own A and B."""
    a, b = values(BUTYNOL, "LENNARD_JONES_ACOEF"), values(BUTYNOL, "LENNARD_JONES_BCOEF")
    diagonal = {i * (i + 3) // 2 for i in range(len(a))}
    for i in set(range(len(a))) - diagonal:
        a[i], b[i] = 1.7 * a[i], 0.8 * b[i]
    text = with_values(BUTYNOL, "LENNARD_JONES_ACOEF", a)
    path = write(with_values(text, "LENNARD_JONES_BCOEF", b))
    potential = check_total(path, frames)
    assert len(potential.params["nonbonded"]["c12"]) > 0
    plain = jaxff.formats.read_amber(write(BUTYNOL, "plain.prmtop"), mm_oracle.coulomb_constant())
    assert "c12" not in plain.params["nonbonded"]
    assert abs(plain(frames[0]) - potential(frames[0])) > 1e-3


def test_repulsion_without_attraction(write):
    """A type with A > 0 and B = 0 has no σ and ε: c12/r¹² is closed form."""
    a, b = values(BUTYNOL, "LENNARD_JONES_ACOEF"), values(BUTYNOL, "LENNARD_JONES_BCOEF")
    a, b = [0.0] * len(a), [0.0] * len(b)
    a[0] = 1e5
    text = with_values(BUTYNOL, "LENNARD_JONES_ACOEF", a)
    topology = read_topology(write(with_values(text, "LENNARD_JONES_BCOEF", b)))
    R = jaxff.formats.read_inpcrd(DATA / "butynol.inpcrd")
    start, end = section(BUTYNOL, "ATOM_TYPE_INDEX")
    first = np.flatnonzero(np.array(BUTYNOL[start:end].split(), int) == 1)
    excluded = {tuple(sorted(pair)) for pair in topology.exclusions.tolist()}
    paired = {tuple(sorted(pair)) for pair in topology.pairs14.atoms.tolist()}
    expected = {"lj": 0.0, "lj14": 0.0}
    for n, i in enumerate(first):
        for j in first[n + 1 :]:
            repulsion = 1e5 / np.linalg.norm(R[i] - R[j]) ** 12
            expected["lj"] += 0.0 if (i, j) in excluded else repulsion
            expected["lj14"] += repulsion / 2.0 if (i, j) in paired else 0.0
    energies = topology.potential().terms(R)
    assert np.isclose(energies["lj"], expected["lj"], rtol=1e-9)
    assert np.isclose(energies["lj14"], expected["lj14"], rtol=1e-9)


def test_1_4_scale_factors_by_torsion(write, frames):
    n = len(values(BUTYNOL, "SCEE_SCALE_FACTOR"))
    text = with_values(BUTYNOL, "SCEE_SCALE_FACTOR", [1.0 + 0.25 * i for i in range(n)])
    text = with_values(text, "SCNB_SCALE_FACTOR", [1.5 + 0.5 * i for i in range(n)])
    potential = check_total(write(text), frames)
    assert len(potential.params["nonbonded"]["lj14"]) == n


def test_1_4_scale_factors_default_to_ambers(write, frames):
    text = without(without(BUTYNOL, "SCEE_SCALE_FACTOR"), "SCNB_SCALE_FACTOR")
    potential = check_total(write(text), frames)
    assert np.allclose(potential.params["nonbonded"]["coulomb14"], 1 / 1.2)
    assert np.allclose(potential.params["nonbonded"]["lj14"], 1 / 2.0)


def test_rows_without_force_keep_their_1_4_pairs(write, frames):
    k = values(BUTYNOL, "DIHEDRAL_FORCE_CONSTANT")
    path = write(with_values(BUTYNOL, "DIHEDRAL_FORCE_CONSTANT", [0.0] * len(k)))
    potential = check_total(path, frames)
    assert potential.terms(frames[0])["torsion"] == 0.0
    assert potential.terms(frames[0])["coulomb14"] != 0.0


def test_torsion_phases_of_any_size_and_terms_that_share_a_periodicity(write, frames):
    n = len(values(BUTYNOL, "DIHEDRAL_PHASE"))
    text = with_values(BUTYNOL, "DIHEDRAL_PHASE", [0.4 + 0.7 * i for i in range(n)])
    text = with_values(text, "DIHEDRAL_PERIODICITY", [3.0] * n)
    check_total(write(with_values(text, "DIHEDRAL_FORCE_CONSTANT", [1.3] * n)), frames)


def test_fixed_width_fields_need_no_blanks(write):
    charges = [-1234567.89012345 * (1 + i) for i in range(11)]
    fields = [f"{x:.12f}"[:16] for x in charges]
    start, end = section(BUTYNOL, "CHARGE")
    lines = ["".join(fields[i : i + 5]) for i in (0, 5, 10)]
    assert len(lines[0]) == 80
    assert " " not in lines[0]
    topology = read_topology(write(BUTYNOL[:start] + "\n".join(lines) + "\n" + BUTYNOL[end:]))
    assert np.allclose(topology.charges * 18.2223, [float(x) for x in fields], rtol=1e-14)


def test_elements_come_from_masses_where_numbers_are_absent(write):
    topology = read_topology(write(without(BUTYNOL, "ATOMIC_NUMBER")))
    assert topology.molecule.formula == "C4H6O"
    masses = values(BUTYNOL, "MASS")
    masses[2] = 17.0
    text = with_values(without(BUTYNOL, "ATOMIC_NUMBER"), "MASS", masses)
    with pytest.raises(
        InputError, match=r"ATOMIC_NUMBER is missing, and no element has the mass 17.0 of atom 2"
    ):
        read_topology(write(text))


def test_coulomb_constant_is_ambers_by_default():
    potential = jaxff.formats.read_amber(DATA / "butynol.prmtop")
    assert potential.params["nonbonded"]["coulomb_constant"] == AMBER_COULOMB
    assert np.isclose(AMBER_COULOMB, 332.0522, atol=1e-4)


def test_molecule_of_a_topology():
    path = DATA / "methylphosphate.prmtop"
    molecule = jaxff.formats.read_amber(path).molecule
    assert (molecule.formula, molecule.charge, molecule.name) == ("CH3O4P", -2, "methylphosphate")
    assert len(molecule.bonds) == 8
    assert not molecule.positions.any()
    crd = DATA / "butynol.inpcrd"
    placed = jaxff.formats.read_amber(DATA / "butynol.prmtop", coordinates=crd).molecule
    assert np.allclose(placed.positions[0], [2.262, 0.094, 0.312])
    assert np.allclose(placed.positions[-1], [-1.872, -1.0, -1.225])
    with pytest.raises(InputError, match=r"has 11 atoms, .* has 9: give the coordinates"):
        jaxff.formats.read_amber(path, coordinates=crd)


def test_reordering_atoms_reorders_the_energy():
    topology = read_topology(DATA / "sulfanilamide.prmtop")
    rng = np.random.default_rng(2)
    order = rng.permutation(topology.molecule.n_atoms)
    R = 2.0 * rng.normal(size=(len(order), 3))
    before, after = topology.potential(), topology.reorder(order).potential()
    assert np.array_equal(after.molecule.numbers, topology.molecule.numbers[order])
    terms = before.terms(R)
    for name, energy in after.terms(R[order]).items():
        assert np.isclose(energy, terms[name], rtol=1e-12), name


def test_equivalent_atoms_share_a_charge():
    topology = read_topology(DATA / "sulfanilamide.prmtop")
    potential = topology.potential()
    term = {p.name: p.term for p in potential.program.placed}["nonbonded"]
    charges = np.asarray(potential.params["nonbonded"]["charge"])
    assert np.array_equal(charges[term.charge_rows], topology.charges)
    oxygens = np.flatnonzero(topology.molecule.numbers == 8)
    assert len(set(term.charge_rows[oxygens])) == 1
    # 19 atoms: S, 2 N, O2, 4 kinds of ring carbon, 2 kinds of ring H, 2 kinds of amine H
    assert len(charges) == 12


def test_two_thousand_atoms(write):
    """222 ethanols in one topology: energies and forces are finite, pairs are all there."""
    path = write(ETHANOL)
    one = read_topology(path)
    n, copies = 9, 222
    many = repeated(one, copies)
    place = np.stack(np.meshgrid(*[6.0 * np.arange(7)] * 3, indexing="ij"), -1).reshape(-1, 3)
    R = one_geometry() + place[:copies, None]
    potential = many.potential()
    energy, forces = potential.energy_and_forces(R.reshape(-1, 3))
    term = {p.name: p.term for p in potential.program.placed}["nonbonded"]
    total = n * copies
    assert len(term.pairs) == total * (total - 1) // 2 - copies * len(one.exclusions)
    assert np.isfinite(energy)
    assert np.allclose(forces.sum(axis=0), 0.0, atol=1e-9)
    alone = one.potential().terms(R[0])
    terms = potential.terms(R.reshape(-1, 3))
    for name in ("bond", "angle", "torsion", "lj14", "coulomb14"):
        assert np.isclose(terms[name], copies * alone[name], rtol=1e-10), name


def one_geometry():
    return Molecule.from_smiles("CCO").positions


def repeated(topology, copies):
    """Copies of a molecule in one topology."""
    n = topology.molecule.n_atoms
    shift = n * np.arange(copies)[:, None, None]

    def repeat(table):
        atoms = (table.atoms + shift).reshape(-1, table.atoms.shape[1])
        return replace(table, atoms=atoms, rows=np.tile(table.rows, copies))

    molecule = topology.molecule
    return replace(
        topology,
        molecule=replace(
            molecule,
            numbers=np.tile(molecule.numbers, copies),
            positions=np.zeros((n * copies, 3)),
            bonds=(molecule.bonds + shift).reshape(-1, 2),
        ),
        atom_types=topology.atom_types * copies,
        charges=np.tile(topology.charges, copies),
        bonds=repeat(topology.bonds),
        angles=repeat(topology.angles),
        torsions=repeat(topology.torsions),
        impropers=repeat(topology.impropers),
        lj=repeat(topology.lj),
        pairs14=repeat(topology.pairs14),
        exclusions=(topology.exclusions + shift).reshape(-1, 2),
    )


def test_hessian_and_float32_survive_reading(write):
    potential = jaxff.formats.read_amber(write(ETHANOL)).astype(np.float32)
    R = one_geometry().astype(np.float32)
    hessian = jax.jit(jax.hessian(potential))(R)
    assert hessian.dtype == np.float32
    assert np.isfinite(hessian).all()


def cut(text, name, keep=1):
    """The file ends after `keep` lines of a section."""
    start, _ = section(text, name)
    return text[:start] + "".join(line + "\n" for line in text[start:].splitlines()[:keep])


def extra_point(text):
    start, end = section(text, "ATOMIC_NUMBER")
    return text[:start] + text[start:end].replace("8", "0", 1) + text[end:]


def misprinted(text):
    start, _ = section(text, "CHARGE")
    return text[:start] + " ***************" + text[start + 16 :]


def polarisable(text):
    start, end = section(text, "IPOL")
    return text[:start] + "       1\n" + text[end:]


def hydrogen_bonds(text):
    text = with_values(with_pointer(text, 19, 1), "HBOND_ACOEF", [7557.0])
    return with_values(text, "HBOND_BCOEF", [2385.0])


REFUSED = {
    "section DIHEDRAL_PHASE is missing": lambda t: without(t, "DIHEDRAL_PHASE"),
    "section POINTERS is missing": lambda t: without(t, "POINTERS"),
    "section AMBER_ATOM_TYPE is missing": lambda t: without(t, "AMBER_ATOM_TYPE"),
    "section POINTERS is truncated": lambda t: cut(t, "POINTERS", 2),
    "section CHARGE is truncated: 5 values, 11 expected": lambda t: with_values(
        t, "CHARGE", values(t, "CHARGE")[:5]
    ),
    "section LENNARD_JONES_BCOEF is truncated": lambda t: with_values(
        t, "LENNARD_JONES_BCOEF", [1.0]
    ),
    "section ANGLES_INC_HYDROGEN is truncated": lambda t: (
        t[: section(t, "ANGLES_INC_HYDROGEN")[0] + 81] + t[section(t, "ANGLES_INC_HYDROGEN")[1] :]
    ),
    r"has the unknown format": lambda t: t.replace("%FORMAT(5E16.8)", "%FORMAT(banana)"),
    "section CHARGE cannot be read": misprinted,
    r"IFBOX = 1: .*a periodic box": lambda t: with_pointer(t, 27, 1),
    r"IFCAP = 1: .*a solvent cap": lambda t: with_pointer(t, 29, 1),
    r"IFPERT = 1: .*perturbation information": lambda t: with_pointer(t, 20, 1),
    r"NUMEXTRA = 1: .*extra points": lambda t: with_pointer(t, 30, 1),
    r"atom \d+: jaxff does not support extra points": extra_point,
    r"CTITLE: .*CHAMBER": lambda t: t.replace("%FLAG TITLE ", "%FLAG CTITLE"),
    r"UREY_BRADLEY_COUNT: .*CHAMBER": lambda t: added(
        t, "CHARMM_UREY_BRADLEY_COUNT", "2I8", "       1"
    ),
    r"does not support CMAP terms": lambda t: added(t, "CMAP_COUNT", "2I8", "       1       1"),
    r"12-6-4 terms": lambda t: added(t, "LENNARD_JONES_CCOEF"),
    r"section POLARIZABILITY: .*polarisabilities": lambda t: added(t, "POLARIZABILITY"),
    r"section IPOL: .*polarisabilities": polarisable,
    r"10-12 hydrogen bond terms": hydrogen_bonds,
    r"SCEE and SCNB scale factors of 1-4 pairs must be positive": lambda t: with_values(
        t, "SCEE_SCALE_FACTOR", [0.0] * len(values(t, "SCEE_SCALE_FACTOR"))
    ),
    r"not an AMBER topology in the %FLAG format": lambda t: t.replace("%FLAG", "*FLAG"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_unusable_topologies_are_refused_in_one_sentence(write, message):
    text = REFUSED[message](BUTYNOL)
    assert text != BUTYNOL
    path = write(text)
    with pytest.raises(InputError, match=message) as caught:
        jaxff.formats.read_amber(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_foreign_files_are_refused(write, tmp_path):
    with pytest.raises(InputError, match=r"nowhere.prmtop: no such file"):
        jaxff.formats.read_amber(tmp_path / "nowhere.prmtop")
    with pytest.raises(InputError, match="not an AMBER topology"):
        jaxff.formats.read_amber(DATA / "butynol.inpcrd")
    binary = tmp_path / "binary.prmtop"
    binary.write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="not a text file"):
        jaxff.formats.read_amber(binary)
    marked = tmp_path / "marked.prmtop"
    marked.write_bytes(b"\xef\xbb\xbf" + (DATA / "butynol.prmtop").read_bytes())
    assert jaxff.formats.read_amber(marked).n_atoms == 11
    with pytest.raises(InputError, match="not an ASCII AMBER coordinate file"):
        jaxff.formats.read_inpcrd(DATA / "butynol.prmtop")
    text = (DATA / "butynol.inpcrd").read_text()
    with pytest.raises(InputError, match="is truncated: write it again with 33 finite coordinates"):
        jaxff.formats.read_inpcrd(write("\n".join(text.splitlines()[:5]), "x.inpcrd"))
    with pytest.raises(InputError, match="not an ASCII AMBER coordinate file"):
        jaxff.formats.read_inpcrd(write(text.replace("   2.2620000", "************"), "y.inpcrd"))
