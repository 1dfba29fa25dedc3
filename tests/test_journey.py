"""From a SMILES string to dynamics on the command line, without a file written by hand."""

import json

import ase.io
import numpy as np
import pytest

from jaxff import Dataset, Molecule, gaff, load, read_force_field, save
from jaxff.cli import main
from jaxff.commands.shared import load_start


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `jaxff parametrize` leaves of methanol."""
    path = tmp_path_factory.mktemp("methanol")
    assert run("parametrize", "CO", "--charges", "gasteiger", "--formats", "mol2", "-o", path) == 0
    return path


def test_the_geometry_is_written_beside_the_model(folder):
    molecule = load(folder / "molecule.npz").molecule
    written = Molecule.read(folder / "molecule.xyz")
    np.testing.assert_allclose(written.positions, molecule.positions, atol=1e-7)
    assert written.charge == molecule.charge


@pytest.mark.parametrize("start", ["molecule.npz", "CO"])
@pytest.mark.parametrize("command", ["minimize", "scan", "md"])
def test_a_model_or_a_smiles_string_is_a_start(folder, tmp_path, command, start):
    start = folder / start if start.endswith(".npz") else start
    options = {
        "minimize": [],
        "scan": ["--torsion", "2,0,1,5", "--points", "3"],
        "md": ["--steps", "10"],
    }[command]
    assert run(command, folder / "molecule.npz", start, *options, "-o", tmp_path / "out") == 0
    name = {"minimize": "minimum.xyz", "scan": "scan.xyz", "md": "trajectory.extxyz"}[command]
    frames = ase.io.read(tmp_path / "out" / name, index=":")
    assert frames[0].get_chemical_formula() == "CH4O"


@pytest.mark.parametrize("options", [(), ("--md",)])
def test_labels_of_a_smiles_string_have_its_charge(options, tmp_path, capsys):
    out = tmp_path / "data.npz"
    command = ("label", "C[NH3+]", "--charge", "-1", "--calculator", "lj", *options, "-o", out)
    assert run(*command) == 1
    assert "has the charge +1, but --charge is -1: correct one of them" in capsys.readouterr().err


def test_a_start_without_geometry_is_refused(folder, tmp_path, capsys):
    model = folder / "molecule.npz"
    assert run("export", model, "--to", "amber", "-o", tmp_path) == 0
    prmtop = tmp_path / "molecule.prmtop"
    assert run("minimize", model, prmtop, "-o", tmp_path / "out") == 1
    assert "molecule.prmtop contains no geometry: give coordinates" in capsys.readouterr().err
    assert run("minimize", "emt", tmp_path / "molecule.inpcrd", "-o", tmp_path / "out") == 1
    assert "molecule.inpcrd contains no elements" in capsys.readouterr().err


def test_a_model_is_exported_with_its_energy(folder, tmp_path):
    model, report = folder / "molecule.npz", tmp_path / "report.json"
    formats = ("amber", "mol2", "gromacs", "openmm")
    assert run("export", model, "--to", *formats, "-o", tmp_path, "--json", report) == 0
    potential = load(model)
    R = potential.molecule.positions
    files = json.loads(report.read_text())["files"]
    main_files = [f for f in files if f.endswith((".prmtop", ".mol2", ".top", ".xml"))]
    assert len(main_files) == len(formats)
    for file in main_files:
        assert float(read_force_field(file)(R)) == pytest.approx(float(potential(R)), abs=2e-3)


@pytest.mark.parametrize("name", ["molecule.inpcrd", "molecule.gro"])
def test_coordinates_of_a_topology_are_a_start(folder, tmp_path, name):
    model = folder / "molecule.npz"
    assert run("export", model, "--to", "amber", "gromacs", "-o", tmp_path) == 0
    potential = load(model)
    start = load_start(str(tmp_path / name), potential)
    np.testing.assert_allclose(start.positions, potential.molecule.positions, atol=1e-5)
    assert start.symbols == potential.molecule.symbols


def test_a_term_that_a_format_cannot_express_is_named(tmp_path, capsys):
    model = tmp_path / "morse.npz"
    save(model, gaff(Molecule.from_smiles("CO"), charges="gasteiger", form="morse"))
    assert run("export", model, "--to", "amber", "-o", tmp_path / "out") == 1
    message = capsys.readouterr().err
    assert "cannot express the term 'bond' (morse_bond)" in message
    assert "keep the model as an npz file" in message
    assert "jaxff.save" not in message
    assert not (tmp_path / "out").exists()
    assert run("export", model, "--to", "openmm", "-o", tmp_path / "out") == 0


def test_a_mol2_file_takes_its_parameters_from_the_named_file(folder, tmp_path, capsys):
    mol2 = tmp_path / "m.mol2"
    mol2.write_bytes((folder / "molecule.mol2").read_bytes())
    assert run("minimize", mol2, mol2, "-o", tmp_path / "out") == 1
    assert "--frcmod" in capsys.readouterr().err
    frcmod = folder / "molecule.frcmod"
    assert run("minimize", mol2, mol2, "--frcmod", frcmod, "-o", tmp_path / "out") == 0
    assert f"parameters read from {frcmod}" in capsys.readouterr().out
    (tmp_path / "m.frcmod").write_bytes(frcmod.read_bytes())
    assert run("minimize", mol2, mol2, "-o", tmp_path / "out") == 0
    assert "parameters read from " in capsys.readouterr().out


def test_labels_and_baselines_take_the_parameters_of_a_mol2_file(folder, tmp_path, capsys):
    mol2, start, data = tmp_path / "m.mol2", folder / "molecule.xyz", tmp_path / "data.npz"
    mol2.write_bytes((folder / "molecule.mol2").read_bytes())
    named = ("--frcmod", folder / "molecule.frcmod")
    assert run("label", start, "--calculator", mol2, "-o", data) == 1
    assert "--frcmod" in capsys.readouterr().err
    assert run("label", start, "--calculator", mol2, *named, "-o", data) == 0
    potential = load(folder / "molecule.npz")
    labels = Dataset.load(data, check=False)
    np.testing.assert_allclose(labels.energies, potential.predict(labels.positions)[0], atol=2e-3)
    for command in (
        ("train", data), ("label", start, "--calculator", "emt"),
        ("active", start, "--calculator", "emt", "--baseline", "none"),
        ("minimize", folder / "molecule.npz", start),
        ("scan", "emt", start, "--torsion", "2,0,1,5"),
    ):  # fmt: skip
        assert run(*command, *named, "-o", tmp_path / "out") == 1
        assert "no force field of this command is a mol2 file" in capsys.readouterr().err
