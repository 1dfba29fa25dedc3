"""Files of other programs: what is written has the same energies in OpenMM, term by term."""

import gc
from pathlib import Path

import mm_oracle
import numpy as np
import pytest

import jaxff
from jaxff import read_force_field, write_force_field
from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.reference.calculators import Method

DATA = Path(__file__).parents[1] / "data" / "mm"
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


def test_a_mol2_file_is_never_read_without_the_parameters_that_were_written_with_it(tmp_path):
    molecule = Molecule.from_smiles("CCO")
    potential = jaxff.gaff(molecule, charges="gasteiger")
    bond = potential.params["bond"]
    potential = potential.replace({**potential.params, "bond": {**bond, "k": 1.5 * bond["k"]}})
    file, frcmod = write_force_field(tmp_path / "r.mol2", potential)
    R = molecule.positions + 0.05 * np.random.default_rng(0).normal(size=(9, 3))
    energy = pytest.approx(float(potential(R)), abs=1e-3)
    assert float(read_force_field(file)(R)) == energy
    method = Method(str(file))
    assert float(method.potential()(R)) == energy
    version = method.version
    moved = frcmod.rename(tmp_path / "moved.frcmod")
    assert method.version != version
    with pytest.raises(InputError, match=r"r\.mol2: the parameters .* r\.frcmod is not .*--frcmod"):
        read_force_field(file)
    assert float(read_force_field(file, moved)(R)) == energy
    assert float(Method(str(file), companions=(str(moved),)).potential()(R)) == energy


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


def test_unreadable_files_are_named(tmp_path, capfd):
    with pytest.raises(InputError, match="no such file"):
        read_force_field(tmp_path / "x.prmtop")
    (tmp_path / "x.xml").write_text("<System>")
    with pytest.raises(InputError, match="not an OpenMM System"):
        read_force_field(tmp_path / "x.xml")
    (tmp_path / "x.top").write_text("[ moleculetype ]\nnothing")
    with pytest.raises(InputError, match="ParmEd cannot convert"):
        read_force_field(tmp_path / "x.top")
    amber = "%VERSION  VERSION_STAMP\n%FLAG TITLE\n%FORMAT(20a4)\nx\n"
    (tmp_path / "x.top").write_text(amber)
    with pytest.raises(InputError, match="ParmEd cannot convert"):
        read_force_field(tmp_path / "x.top")
    gc.collect()  # files that ParmEd does not close would be reported here
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_a_molecule_is_drawn_with_its_types(kind, tmp_path):
    found = jaxff.parametrize(Molecule.from_smiles("CC(=O)Nc1ccc(O)cc1"), "gasteiger")
    jaxff.gaff.depict(found, tmp_path / f"m.{kind}")
    assert (tmp_path / f"m.{kind}").stat().st_size > 5000
    with pytest.raises(InputError, match=r"must be \.svg or \.png"):
        jaxff.gaff.depict(found, tmp_path / "m.gif")


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


# -- what an attempt to break it has found -------------------------------------------------------


@pytest.mark.parametrize("form", ["mol2", "prmtop", "xml"])
@pytest.mark.parametrize("smiles", ["Cc1ccc(C)cc1", "NC(N)=O", "c1ccc2c(c1)CCC2"])
def test_impropers_survive_in_their_order(smiles, form, tmp_path):
    """LEaP's first improper of a kind has another order of atoms than the others."""
    molecule = Molecule.from_smiles(smiles)
    potential = jaxff.gaff(molecule, charges="gasteiger")
    again = read_force_field(*write_force_field(tmp_path / f"x.{form}", potential))
    twice = read_force_field(*write_force_field(tmp_path / "y.mol2", again))
    R = molecule.positions + 0.05 * np.random.default_rng(0).normal(size=(molecule.n_atoms, 3))
    for term, energy in potential.terms(R).items():
        for other in (again, twice) if form != "xml" else (again,):
            assert float(other.terms(R)[term]) == pytest.approx(float(energy), abs=2e-6), term


def changed(potential, term, **columns):
    own = potential.params
    return potential.replace({**own, term: {**own[term], **columns}})


def test_mol2_and_frcmod_refuse_what_they_would_change(tmp_path):
    potential = jaxff.gaff(Molecule.from_smiles("CNC(C)=O"), charges="gasteiger")
    own = potential.params["nonbonded"]
    for other, message in (
        (changed(potential, "nonbonded", lj14=0.7 * own["lj14"]), "lj14"),
        (potential.only("bond", "angle", "improper", "nonbonded"), "no parameters"),
        (changed(potential, "nonbonded", epsilon=-own["epsilon"]), "negative"),
        (jaxff.gaff(potential.molecule, 300.0, charges="gasteiger"), "Coulomb constant"),
        (changed(potential, "nonbonded") and potential.replace(potential.params), None),
    ):
        if message is None:
            write_force_field(tmp_path / "x.mol2", other)
            continue
        with pytest.raises(InputError, match=message):
            write_force_field(tmp_path / "x.mol2", other)
    far = jaxff.gaff(
        potential.molecule.with_positions(potential.molecule.positions + 1e4), charges="gasteiger"
    )
    with pytest.raises(InputError, match="999 Å"):
        write_force_field(tmp_path / "far.mol2", far)


def test_a_mol2_file_without_its_frcmod_lacks_parameters(tmp_path):
    found = jaxff.parametrize(Molecule.from_smiles("C1CN1c1ccccc1"), "gasteiger")
    files = write_force_field(tmp_path / "x.mol2", found.potential())
    text = files[1].read_text()
    (tmp_path / "lone.mol2").write_text(files[0].read_text().partition("\n")[2])
    with pytest.raises(InputError, match="torsion"):
        read_force_field(tmp_path / "lone.mol2")
    for bad, message in (
        (text.replace("c3-c3", "c3-c3").replace("\nBOND\n", "\nBOND\nca-ca nan 1.4\n"), "line"),
        (text.replace("\nDIHE\n", "\nDIHE\nX -ca-ca-X  0 1.0 180.0 2.\n"), "line"),
        (text.replace("\nDIHE\n", "\nDIHE\nX -ca-ca-X  1 1.0 180.0 2. SCEE=1.0\n"), "line"),
        ("nothing\n", "no section"),
    ):
        (tmp_path / "bad.frcmod").write_text(bad)
        with pytest.raises(InputError, match=message):
            read_force_field(files[0], tmp_path / "bad.frcmod")
    bare = files[0].read_text().split("@<TRIPOS>BOND")[0]
    (tmp_path / "bare.mol2").write_text(bare)
    with pytest.raises(InputError, match="no bonds"):
        read_force_field(tmp_path / "bare.mol2", files[1])


def test_openmm_systems_with_more_than_the_terms_are_refused(tmp_path):
    import openmm
    from openmm import app

    def system(**options):
        file = app.AmberPrmtopFile(str(DATA / "ethanol.prmtop"))
        return file.createSystem(nonbondedMethod=app.NoCutoff, removeCMMotion=False, **options)

    def nonbonded(made):
        return next(f for f in made.getForces() if isinstance(f, openmm.NonbondedForce))

    heavy = system(hydrogenMass=3.0 * openmm.unit.amu)
    offsets = system()
    nonbonded(offsets).addGlobalParameter("x", 1.0)
    nonbonded(offsets).addParticleParameterOffset("x", 0, 0.1, 0.0, 0.0)
    own = system()
    i, j, _, sigma, epsilon = nonbonded(own).getExceptionParameters(0)
    nonbonded(own).setParticleParameters(i, 0.0, 0.3, 0.1)
    nonbonded(own).setExceptionParameters(0, i, j, 0.2, sigma, epsilon)
    cases = ((heavy, "no element has"), (offsets, "offsets"), (own, "not a multiple"))
    for made, message in cases:
        (tmp_path / "x.xml").write_text(openmm.XmlSerializer.serialize(made))
        with pytest.raises(InputError, match=message):
            read_force_field(tmp_path / "x.xml")


def test_morse_bonds_go_to_openmm_and_nowhere_else(tmp_path):
    import openmm

    molecule = Molecule.from_smiles("CC(=O)NC")
    potential = jaxff.gaff(molecule, charges="gasteiger", form="morse", fourier_terms=0)
    write_force_field(tmp_path / "x.xml", potential)
    R = molecule.positions + 0.1 * np.random.default_rng(0).normal(size=(2, molecule.n_atoms, 3))
    system = openmm.XmlSerializer.deserialize((tmp_path / "x.xml").read_text())
    energies, forces = mm_oracle._evaluate(system, R)
    constant = potential.params["nonbonded"]["coulomb_constant"]
    scale = mm_oracle.coulomb_constant() / float(constant)
    for r, energy, force in zip(R, energies, forces, strict=True):
        terms = {k: float(v) for k, v in potential.terms(r).items()}
        wanted = sum(v * (scale if "coulomb" in k else 1.0) for k, v in terms.items())
        assert energy == pytest.approx(wanted, abs=1e-5)
        assert np.abs(force - potential.forces(r)).max() < 0.05
    with pytest.raises(InputError, match=r"cannot express the term 'bond'.*OpenMM System"):
        write_force_field(tmp_path / "x.prmtop", potential)
