"""The JSON results of commands: one schema, documented and valid."""

import json
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest

from jaxff import cli, gaff, save, units
from jaxff.commands.results import FORMAT, RESULTS, json_value, schema, write_json
from jaxff.dataset import packaged_dataset
from jaxff.md.extrapolation import Extrapolation
from jaxff.molecule import Molecule

GUIDE = Path(__file__).parents[1] / "docs" / "json.md"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_a_valid_and_documented_schema(command):
    jsonschema.Draft202012Validator.check_schema(schema(command))
    text = GUIDE.read_text()
    section = text.partition(f"\n## {command}\n")[2].partition("\n## ")[0]
    missing = [key for key in RESULTS[command]["properties"] if f"`{key}`" not in section]
    assert not missing


def test_results_are_json_with_numbers_as_numbers(tmp_path):
    values = {
        "a": np.float32(1.5), "b": np.arange(2), "c": float("nan"), "d": [np.bool_(True), None],
        "e": Path("x.npz"), "f": {1: np.float64("inf")},
    }  # fmt: skip
    write_json(tmp_path / "x.json", values)

    def refuse(name):
        raise AssertionError(name)

    found = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    wanted = {"a": 1.5, "b": [0, 1], "c": None, "d": [True, None], "e": "x.npz", "f": {"1": None}}
    assert found == wanted
    with pytest.raises(TypeError, match="set"):
        json_value({"a": {1}})


def test_the_command_is_not_overwritten_by_data(tmp_path):
    data = packaged_dataset("ethanol")[:20]
    data.notes.update(command="an old command", run="old", seed="old")
    data.save(tmp_path / "e.npz")
    report = tmp_path / "r.json"
    assert cli.main(["info", str(tmp_path / "e.npz"), "--seed", "3", "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert (found["run"]["command"], found["run"]["seed"]) == ("info", 3)
    assert found["run"]["format"] == FORMAT
    assert found["kind"] == "data set"
    assert found["facts"]["frames"] == 20
    assert found["facts"]["notes"]["command"] == "an old command"


def test_the_demonstration_has_the_results_of_its_schema(tmp_path, monkeypatch):
    """With one small kernel in place of the five models, and its data in place of dynamics."""
    from jaxff import demo, gdml

    for name, value in (("N_TRAIN", 12), ("N_VALID", 6), ("N_TEST", 10), ("DPI", 30)):
        monkeypatch.setattr(demo, name, value)
    kernel = gdml.Kernel(symmetries=None)
    monkeypatch.setattr(demo, "build", lambda split, *_: dict.fromkeys(
        demo.TITLES, gdml.train(split.train, sigma=20.0, kernel=kernel)
    ))  # fmt: skip
    series = dict.fromkeys(
        ("times", "potential_energies", "kinetic_energies", "temperatures"), np.arange(40.0)
    )
    frames = SimpleNamespace(
        positions=packaged_dataset("ethanol").positions[:40],
        seconds=2.0,
        extrapolation=Extrapolation(40, 1, 7, None, "a bond is too long"),
        **series,
    )
    monkeypatch.setattr(demo.md, "simulate", lambda *_, **__: frames)
    report = tmp_path / "demo.json"
    assert cli.main(["demo", "-o", str(tmp_path), "--json", str(report)]) == 0
    found = json.loads(report.read_text())  # the fixture `documented_results` has validated it
    assert found["run"]["command"] == "demo"
    assert found["models"]["hybrid"]["test"]["force_mae"] > 0
    assert (tmp_path / "report.html").stat().st_size > 10_000
    with pytest.raises(jsonschema.ValidationError, match="mistake"):
        jsonschema.validate({**found, "mistake": 1}, schema("demo"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One file of each kind, of methanol."""
    out = tmp_path_factory.mktemp("files")
    molecule = Molecule.from_smiles("CO")
    save(out / "model.npz", gaff(molecule, charges="gasteiger"))
    model = str(out / "model.npz")
    to = ["amber", "mol2", "gromacs", "openmm"]
    assert cli.main(["export", model, "--to", *to, "-o", str(out)]) == 0
    for form in ("extxyz", "h5", "dcd"):
        arguments = ["md", model, "CO", "--steps", "20", "--format", form, "-o", str(out / form)]
        assert cli.main(arguments) == 0
    scan = ["--distance", "0,1", "--range", "1.3", "1.6", "--points", "3"]
    assert cli.main(["scan", model, "CO", *scan, "-o", str(out / "scan")]) == 0
    data = packaged_dataset("ethanol")[:20]
    data.save(out / "data.npz")
    frames = [molecule.with_positions(molecule.positions).to_ase() for _ in range(3)]
    import ase.io
    from ase.calculators.singlepoint import SinglePointCalculator

    ase.io.write(out / "geometries.xyz", frames, "extxyz")
    for atoms, R, E, F in zip(frames, data.positions, data.energies, data.forces, strict=False):
        del atoms[:]
        atoms.extend(data.molecule.with_positions(R).to_ase())
        atoms.calc = SinglePointCalculator(atoms, energy=E / units.EV, forces=F / units.EV)
    ase.io.write(out / "labelled.extxyz", frames, "extxyz")
    return out


@pytest.mark.parametrize(
    ("name", "kind", "facts"),
    [
        ("model.npz", "model", {"formula": "CH4O", "charge": 0, "atoms": 6}),
        ("model.prmtop", "force field", {"formula": "CH4O"}),
        ("model.inpcrd", "AMBER coordinates", {"atoms": 6}),
        ("model.mol2", "molecule", {"bonds": 5}),
        ("model.frcmod", "parameters for mol2 files", {"bonds": 3, "lj": 4}),
        ("model.top", "force field", {"formula": "CH4O"}),
        ("model.gro", "GROMACS coordinates", {"atoms": 6}),
        ("system.xml", "force field", {"formula": "CH4O"}),
        ("extxyz/trajectory.extxyz", "trajectory", {"frames": 5, "end": 10.0}),
        ("h5/trajectory.h5", "trajectory", {"frames": 5, "atoms": 6}),
        ("dcd/trajectory.dcd", "trajectory", {"frames": 5}),
        ("h5/restart.npz", "state of a simulation", {"step": 20, "ensemble": "langevin"}),
        ("scan/scan.npz", "scan", {"points": [3], "not_converged": 0}),
        ("scan/scan.xyz", "geometries", {"frames": 3}),
        ("data.npz", "data set", {"frames": 20}),
        ("geometries.xyz", "geometries", {"frames": 3, "formula": "CH4O"}),
        ("labelled.extxyz", "data set", {"frames": 3, "formula": "C2H6O"}),
    ],
)
def test_info_describes_the_files_of_all_commands(folder, tmp_path, name, kind, facts, capsys):
    report = tmp_path / "r.json"
    assert cli.main(["info", str(folder / name), "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found["kind"] == kind
    assert {key: found["facts"].get(key) for key in facts} == facts
    if name == "labelled.extxyz":
        assert found["facts"]["units_of_the_file"].startswith("eV and Ang")


@pytest.mark.parametrize(("name", "reads"), [("labelled.extxyz", 1), ("geometries.xyz", 2)])
def test_info_reads_the_frames_of_xyz_files_once(folder, monkeypatch, name, reads):
    """The second time only the first of the frames without labels is read."""
    import ase.io

    from jaxff.contents import describe

    indices, read = [], ase.io.read
    monkeypatch.setattr(ase.io, "read", lambda *a, index, **k: (
        indices.append(index) or read(*a, index=index, **k)
    ))  # fmt: skip
    facts = describe(folder / name)[1]
    assert indices == [slice(None), 0][:reads]
    assert ("has no forces" in facts.get("not_a_data_set", "")) == (name == "geometries.xyz")


def test_info_refuses_what_it_cannot_read(folder, tmp_path, capsys):
    (tmp_path / "x.gro").write_text("title\n9\n")
    assert cli.main(["info", str(tmp_path / "x.gro")]) == 1
    assert "x.gro: not a gro file, or truncated" in capsys.readouterr().err
    (tmp_path / "x.pkl").write_text("")
    assert cli.main(["info", str(tmp_path / "x.pkl")]) == 1
    assert "unknown suffix '.pkl'; use .crd, " in capsys.readouterr().err
