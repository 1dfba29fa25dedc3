"""Files of other programs: what is written has the same energies in OpenMM, term by term."""

from pathlib import Path

import mm_oracle
import numpy as np
import pytest

import jaxff
from jaxff import read_force_field, write_force_field
from jaxff.errors import InputError
from jaxff.molecule import Molecule

DATA = Path(__file__).parent / "data"
TOPOLOGIES = ["sulfanilamide", "methylphosphate", "butynol", "bromoiodo", "aspirin"]


def frames_of(n_atoms, seed=0):
    return 1.6 * np.random.default_rng(seed).normal(size=(3, n_atoms, 3))


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_prmtop_to_prmtop_keeps_every_terms_energy(name, tmp_path):
    original = DATA / f"{name}.prmtop"
    potential = read_force_field(original)
    write_force_field(tmp_path / "x.prmtop", potential)
    frames = frames_of(potential.n_atoms)
    before, after = (mm_oracle.terms(f, frames) for f in (original, tmp_path / "x.prmtop"))
    for term in before:
        np.testing.assert_allclose(after[term][0], before[term][0], rtol=1e-8, atol=1e-6)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_openmm_system_keeps_the_energy_both_ways(name, tmp_path):
    import openmm

    original = DATA / f"{name}.prmtop"
    potential = read_force_field(original)
    write_force_field(tmp_path / "x.xml", potential)
    frames = frames_of(potential.n_atoms, 1)
    system = openmm.XmlSerializer.deserialize((tmp_path / "x.xml").read_text())
    before, _ = mm_oracle.total(original, frames)
    after, _ = mm_oracle._evaluate(system, frames)
    np.testing.assert_allclose(after, before, rtol=1e-8, atol=1e-6)
    again = read_force_field(tmp_path / "x.xml")
    for R in frames:
        for term, energy in potential.terms(R).items():
            wanted = pytest.approx(float(energy), rel=1e-7, abs=1e-6)
            assert float(again.terms(R)[term]) == wanted, term


@pytest.mark.parametrize("form", ["mol2", "top"])
@pytest.mark.parametrize("smiles", ["CC(=O)Nc1ccc(O)cc1", "C[NH2+]CC(=O)[O-]", "CS(=O)(=O)c1ccoc1"])
def test_other_formats_keep_the_energy(form, smiles, tmp_path):
    molecule = Molecule.from_smiles(smiles)
    potential = jaxff.gaff(molecule, charges="gasteiger")
    files = write_force_field(tmp_path / f"x.{form}", potential)
    again = read_force_field(*files)
    R = molecule.positions + 0.05 * np.random.default_rng(0).normal(size=(molecule.n_atoms, 3))
    for term, energy in potential.terms(R).items():
        # GROMACS files have six digits; impropers of like atoms follow LEaP's order on reading
        within = 0.02 if (form, term) == ("mol2", "improper") else 2e-4
        wanted = pytest.approx(float(energy), rel=2e-5, abs=within)
        assert float(again.terms(R)[term]) == wanted, term
    np.testing.assert_allclose(again.molecule.positions, molecule.positions, atol=1e-3)


def test_refitted_parameters_are_what_is_written(tmp_path):
    molecule = Molecule.from_smiles("CCO")
    potential = jaxff.gaff(molecule)
    params = {
        name: {c: v * 1.1 if c == "k" else v for c, v in own.items()}
        for name, own in potential.params.items()
    }
    write_force_field(tmp_path / "x.mol2", potential.replace(params))
    write_force_field(tmp_path / "x.prmtop", potential.replace(params))
    R = molecule.positions
    for files in (["x.mol2", "x.frcmod"], ["x.prmtop", "x.inpcrd"]):
        again = read_force_field(*(tmp_path / f for f in files)).terms(R)
        for term, energy in potential.terms(R).items():
            factor = 1.1 if term in ("bond", "angle", "torsion", "improper") else 1.0
            assert float(again[term]) == pytest.approx(factor * float(energy), rel=1e-5, abs=1e-5)


def test_what_a_format_cannot_express_is_named(tmp_path, springs):
    molecule = Molecule.from_smiles("CCO")
    potential = jaxff.gaff(molecule)
    for other, message in (
        (potential + springs(9, molecule=molecule), "cannot express the term"),
        (2.0 * potential, "scaled"),
        (potential.only("bond"), "needs a potential with a molecule and a nonbonded term"),
    ):
        with pytest.raises(InputError, match=message):
            write_force_field(tmp_path / "x.prmtop", other)
    with pytest.raises(InputError, match="unknown force field"):
        write_force_field(tmp_path / "x.charmm", potential)
    assert not list(tmp_path.iterdir())


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_force_field(tmp_path / "x.prmtop")
    (tmp_path / "x.xml").write_text("<System>")
    with pytest.raises(InputError, match="not an OpenMM System"):
        read_force_field(tmp_path / "x.xml")
    (tmp_path / "x.top").write_text("[ moleculetype ]\nnothing")
    with pytest.raises(InputError, match="ParmEd cannot convert"):
        read_force_field(tmp_path / "x.top")


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_a_molecule_is_drawn_with_its_types(kind, tmp_path):
    found = jaxff.parametrize(Molecule.from_smiles("CC(=O)Nc1ccc(O)cc1"), "gasteiger")
    jaxff.mm.depict(found, tmp_path / f"m.{kind}")
    assert (tmp_path / f"m.{kind}").stat().st_size > 5000
    with pytest.raises(InputError, match="svg or a png"):
        jaxff.mm.depict(found, tmp_path / "m.gif")


def test_reference_files_as_mol2_and_frcmod_have_their_topologys_energies(shared):
    """AmberTools' own mol2 and frcmod beside the prmtop that LEaP made of them."""
    folders = sorted(p for p in (shared / "reference" / "gaff").iterdir() if p.is_dir())
    assert len(folders) >= 10
    for folder in folders[::2]:
        files = [folder / f"{folder.name}.{end}" for end in ("mol2", "frcmod")]
        potential = read_force_field(*files)
        R = potential.molecule.positions
        wanted = mm_oracle.terms(folder / f"{folder.name}.prmtop", R[None])
        constant = mm_oracle.coulomb_constant()
        terms = read_force_field(*files, coulomb_constant=constant).terms(R)
        for term, (energy, _) in wanted.items():
            # charges of the mol2 file have six digits and are brought to an exact total here
            within = 0.3 if "coulomb" in term else 1e-4
            assert float(terms[term]) == pytest.approx(energy[0], abs=within), (folder.name, term)


def test_types_of_the_reference_set(shared):
    for path in sorted((shared / "reference" / "gaff").glob("*/*.mol2")):
        molecule = Molecule.read(path)
        rows = [line.split() for line in path.read_text().splitlines()]
        theirs = tuple(row[5] for row in rows if len(row) == 9 and row[7] == "LIG")
        ours = jaxff.parametrize(molecule, "gasteiger").atom_types
        seconds = str.maketrans("d", "c")  # caffeine's cc and cd may be exchanged as a whole
        assert len(theirs) == molecule.n_atoms
        for a, b in zip(ours, theirs, strict=True):
            assert a == b or a.translate(seconds) == b.translate(seconds), path.stem
