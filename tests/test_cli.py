"""The command line: exit codes, one-sentence errors, and what the commands leave."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace

import ase
import ase.io
import jsonschema
import numpy as np
import pytest

from jaxff import Dataset, Molecule, System, load
from jaxff.cli import main, parser
from jaxff.commands.folders import remove_empty_folders, writable_folder
from jaxff.commands.results import schema
from jaxff.commands.shared import shares
from jaxff.dataset import packaged_dataset
from jaxff.formats import read_potential
from jaxff.store import claim
from jaxff.units import EV

COMMANDS = ("demo", "parametrize", "fit", "train", "evaluate", "scan", "md", "spectrum", "label")
COMMANDS += ("active", "holes", "info", "export", "solvate")


@pytest.fixture(scope="module")
def ethanol(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "ethanol.npz"
    packaged_dataset("ethanol")[::10].save(path)
    return path


@pytest.fixture(scope="module")
def model(ethanol, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.npz"
    report = path.with_suffix(".json")
    arguments = ["train", str(ethanol), "-n", "20", "--valid", "10", "--test", "30"]
    arguments += ["--sigma", "10,20", "-o", str(path), "--json", str(report)]
    assert main(arguments) == 0
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert f"example:\n  jaxff {command}" in out
    example = out.partition("example:\n")[2].split()[1:]
    parser().parse_args(example)


def test_help_states_the_defaults_that_options_have(capsys):
    """Each option with a value other than none states it."""
    commands = next(a for a in parser()._actions if a.dest == "command").choices
    for name, command in commands.items():
        for action in command._actions:
            if action.option_strings and action.nargs != 0 and action.default is not None:
                shown = command._get_formatter()._expand_help(action)
                assert "default" in shown, (name, action.option_strings)
    assert "(default 5, or fewer" in " ".join(commands["md"].format_help().split())


@pytest.mark.parametrize(
    "arguments", [[], ["nothing"], ["train"], ["md", "a", "b", "-o", "c", "--dt", "-1"]]
)
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage:" in capsys.readouterr().err


def fails(capsys, *arguments) -> str:
    """The one line that a failing command leaves on standard error."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_train_writes_a_model_and_its_errors(model):
    results = json.loads(model.with_suffix(".json").read_text())
    assert set(results["test"]) == {"energy_mae", "energy_rmse", "force_mae", "force_rmse"}
    # λ = 1e-10 and net torques in the labels keep 20 frames from being met exactly.
    assert results["train"]["force_rmse"] < 0.1 * results["test"]["force_rmse"]
    assert results["sigma"] in (10.0, 20.0)
    assert results["run"]["seconds"]["total"] > 0
    assert results["run"]["versions"]["jax"]
    assert load(model).molecule.formula == "C2H6O"


def test_a_killed_training_goes_on_by_the_same_command(ethanol, tmp_path):
    """Killed at random moments, during writes too, it ends with the model of an unbroken run."""
    out, whole = tmp_path / "m.npz", tmp_path / "whole.npz"
    options = ["-n", "30", "--valid", "20", "--test", "20", "--sigma", "10"]
    options += ["--lam", ",".join(f"1e-{k}" for k in range(1, 13))]
    assert main(["train", str(ethanol), *options, "-o", str(whole)]) == 0
    command = [sys.executable, "-m", "jaxff.cli", "train", str(ethanol), *options, "-o", str(out)]
    finished = []
    for _ in range(2):
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = len(finished) + 1
        while run.poll() is None and len(finished) < wanted:
            finished = list((tmp_path / "m.npz.partial").glob("30-*.json"))
            time.sleep(0.01)
        run.kill()
        run.wait()
    assert not out.exists()
    assert 2 <= len(finished) < 12
    report = tmp_path / "r.json"
    assert main(["train", str(ethanol), *options, "-o", str(out), "--json", str(report)]) == 0
    assert not (tmp_path / "m.npz.partial").exists()
    a, b = (load(path).params["gdml"] for path in (out, whole))
    assert all(np.array_equal(a[key], b[key]) for key in a)
    assert len(json.loads(report.read_text())["trials"]) == 12


def test_training_options_reach_the_model(ethanol, tmp_path, capsys):
    out, report = tmp_path / "m.npz", tmp_path / "r.json"
    picture = tmp_path / "w.png"
    arguments = ["train", str(ethanol), "-n", "20", "--valid", "30", "--test", "30"]
    arguments += ["--uncertainty", "--solver", "iterative", "--tolerance", "1e-6"]
    arguments += ["--sigma", "10,20", "--lam", "1e-10,1e-8", "--plot", str(picture)]
    assert main([*arguments, "-o", str(out), "--json", str(report)]) == 0
    results = json.loads(report.read_text())
    assert len(results["trials"]) == 4
    assert results["trials"][0]["solver"].startswith("iterative")
    assert set(results["coverage"]) == {"energy_1", "energy_2", "force_1", "force_2"}
    assert picture.stat().st_size > 10_000
    assert main(["info", str(out)]) == 0
    told = capsys.readouterr().out
    assert "methyl rotation" in told
    assert "20 frames of ethanol" in told


def test_evaluate_agrees_with_training(model, ethanol, tmp_path):
    report = tmp_path / "e.json"
    assert main(["evaluate", str(model), str(ethanol), "--json", str(report)]) == 0
    score = json.loads(report.read_text())["test"]
    assert 0 < score["force_mae"] < score["force_rmse"]


def test_baseline_makes_a_hybrid(ethanol, tmp_path):
    from jaxff import gaff, save

    save(tmp_path / "gaff.npz", gaff(packaged_dataset("ethanol").molecule))
    hybrid = tmp_path / "hybrid.npz"
    arguments = ["train", str(ethanol), "-n", "20", "--valid", "0", "--test", "20"]
    arguments += ["--sigma", "20", "--baseline", str(tmp_path / "gaff.npz"), "-o", str(hybrid)]
    assert main(arguments) == 0
    assert "gdml" in load(hybrid).params
    assert "torsion" in load(hybrid).params


@pytest.mark.parametrize("ensemble", ["nve", "langevin"])
def test_md_leaves_a_trajectory_and_a_picture(model, tmp_path, ensemble):
    start = tmp_path / "start.xyz"
    ase.io.write(start, packaged_dataset("ethanol").molecule.to_ase(), format="extxyz")
    out = tmp_path / "run"
    arguments = ["md", str(model), str(start), "--ensemble", ensemble, "--steps", "100"]
    arguments += ["--temperature", "50", "-o", str(out), "--json", str(tmp_path / "md.json")]
    assert main(arguments) == 0
    frames = ase.io.read(out / "trajectory.extxyz", index=":")
    assert len(frames) == 21
    assert (out / "energy_temperature.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "md.json").read_text())["frames"] == 21


def test_amber_files_are_run_as_they_come(tmp_path, capsys):
    from jaxff import gaff, write_force_field

    molecule = packaged_dataset("ethanol").molecule
    potential = gaff(molecule, charges="gasteiger")
    write_force_field(tmp_path / "e.prmtop", potential)
    shutil.copy(tmp_path / "e.inpcrd", tmp_path / "e.rst7")
    arguments = ["minimize", str(tmp_path / "e.prmtop"), str(tmp_path / "e.rst7")]
    arguments += ["-o", str(tmp_path / "out"), "--json", str(tmp_path / "out.json")]
    assert main(arguments) == 0
    # Coordinates of an inpcrd have seven decimals.
    before = json.loads((tmp_path / "out.json").read_text())["energy_before"]
    assert before == pytest.approx(float(potential(molecule.positions)), abs=1e-4)
    write_force_field(tmp_path / "water.prmtop", gaff(Molecule.from_smiles("O")))
    arguments[2] = str(tmp_path / "water.inpcrd")
    assert main(arguments) == 1
    assert "has 3 atoms, but the model has 9" in capsys.readouterr().err


def test_label_records_its_command(tmp_path, monkeypatch):
    start = tmp_path / "water.xyz"
    ase.io.write(start, Molecule.from_smiles("O").to_ase(), format="extxyz")
    out = tmp_path / "water.npz"
    arguments = ["label", str(start), "--calculator", "emt", "--workers", "1", "-o", str(out)]
    monkeypatch.setattr(sys, "argv", ["jaxff", *arguments])
    assert main(arguments) == 0
    data = Dataset.load(out, check=False)
    assert len(data) == 1
    assert data.notes["command"].startswith("jaxff label")
    assert "EMT" in data.theory


def test_info_describes_files_and_passes_its_check(model, ethanol, capsys):
    assert main(["info", str(model)]) == 0
    assert "gdml" in capsys.readouterr().out
    assert main(["info", str(ethanol)]) == 0
    assert "GFN2-xTB" in capsys.readouterr().out
    assert main(["info", "--check"]) == 0
    out = capsys.readouterr().out
    assert "float64" in out
    assert "check passed" in out


def test_faults_are_one_sentence(model, ethanol, tmp_path, capsys):
    missing = fails(capsys, "evaluate", model, tmp_path / "absent.npz")
    assert "absent.npz: no such file" in missing
    cut = tmp_path / "cut.npz"
    cut.write_bytes(ethanol.read_bytes()[:5000])
    assert "truncated" in fails(capsys, "evaluate", model, cut)
    out = tmp_path / "m.npz"
    assert "300 training" in fails(capsys, "train", ethanol, "-n", 300, "-o", out)
    one = fails(capsys, "train", ethanol, "-n", 1, "-o", out)
    assert "1" in one
    assert not out.exists()
    with np.load(ethanol) as raw:
        arrays = dict(raw)
    arrays["F"] = arrays["F"].copy()
    arrays["F"][3, 2, 1] = np.nan
    np.savez(tmp_path / "nan.npz", **arrays)
    message = fails(capsys, "train", tmp_path / "nan.npz", "-n", 20, "-o", out)
    assert "frame 3 has a force that is not finite" in message
    message = fails(capsys, "train", ethanol, "-n", 20, "--baseline", "gaff", "-o", out)
    assert "gaff is not a file: write a GAFF model with `jaxff parametrize" in message
    aspirin = tmp_path / "aspirin.npz"
    packaged_dataset("aspirin")[:5].save(aspirin)
    assert "cannot be matched" in fails(capsys, "evaluate", model, aspirin)
    folder = tmp_path / "no" / "folder.npz"
    assert "does not exist" in fails(capsys, "train", ethanol, "-n", 20, "-o", folder)
    assert fails(capsys, "label", "C1CC", "-o", out).count("SMILES") == 1


def test_an_unwritable_folder_is_noticed_before_any_work(tmp_path, capsys, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    message = fails(capsys, "demo", "-o", blocked / "out")
    assert "cannot write into the output folder" in message

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert "Permission denied" in fails(capsys, "info", "--json", tmp_path / "x.json")


def test_parametrize_writes_files_of_other_programs(tmp_path, capsys):
    report = tmp_path / "r.json"
    arguments = ["parametrize", "Cc1ccc(C)cc1", "--charges", "gasteiger", "-o", str(tmp_path)]
    assert main([*arguments, "--name", "xylene.v2", "--json", str(report)]) == 0
    out = capsys.readouterr().out
    assert "Gasteiger (crude)" in out
    kinds = ("npz", "xyz", "prmtop", "inpcrd", "mol2", "frcmod", "svg", "png", "txt")
    for kind in kinds:
        assert (tmp_path / f"xylene.v2.{kind}").stat().st_size > 100
    found = json.loads(report.read_text())
    assert found["atoms"][1]["type"] == "ca"
    assert found["estimates"] == 0
    molecule = Molecule.read(tmp_path / "xylene.v2.mol2")
    energies = [
        float(p(molecule.positions))
        for p in (load(tmp_path / "xylene.v2.npz"), read_potential(tmp_path / "xylene.v2.prmtop"))
    ]
    assert energies[0] == pytest.approx(energies[1], abs=1e-4)
    assert main([*arguments, "--charge", "1"]) == 1
    assert main([*arguments, "--name", "a/b"]) == 1


def test_solvate_writes_files_that_can_be_read_and_solvated_again(tmp_path, capsys):
    report = tmp_path / "r.json"
    arguments = ["solvate", "CC[NH3+]", "--charges", "gasteiger", "--padding", "4", "--salt", "0.2"]
    options = ["--water", "opc", "--formats", "prmtop,top", "--json", str(report)]
    assert main([*arguments, *options, "-o", str(tmp_path)]) == 0
    assert "Cl- (Cl)" in capsys.readouterr().out
    found = json.loads(report.read_text())
    jsonschema.validate(found, schema("solvate"))
    assert found["molecules"]["Cl- (Cl)"] == found["molecules"].get("Na+ (Na)", 0) + 1
    assert found["net_charge"] == 0
    for suffix in ("prmtop", "rst7", "top", "gro"):
        assert (tmp_path / f"system.{suffix}").is_file()
    system = System.read(tmp_path / "system.prmtop")
    assert len(system) == found["particles"]
    assert main([*arguments[:4], "--formats", "pdb", "-o", str(tmp_path)]) == 1
    assert "use prmtop, top, xml" in capsys.readouterr().err


def test_fit_leaves_a_model_and_says_what_changed(ethanol, tmp_path, capsys):
    model, report = tmp_path / "m.npz", tmp_path / "r.json"
    arguments = ["fit", str(ethanol), "--form", "morse", "-n", "40", "--valid", "0"]
    arguments += ["--test", "60", "-o", str(model), "--json", str(report), "--show", "3"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "more parameters are not shown: raise --show" in out
    found = json.loads(report.read_text())
    assert found["test"]["force_rmse"] < 6.0
    assert {change["name"] for change in found["changes"]} >= {"bond.depth", "torsion.k"}
    assert load(model).program.placed[0].term.kind == "morse_bond"


def test_fit_of_two_molecules_leaves_two_models(ethanol, tmp_path, capsys):
    keto = tmp_path / "keto.npz"
    packaged_dataset("keto_malondialdehyde")[::10].save(keto)
    arguments = ["fit", str(ethanol), str(keto), "-n", "20", "--valid", "5", "--test", "20"]
    arguments += ["-o", str(tmp_path / "m.npz"), "--plot", str(tmp_path / "p.png"), "--show", "1"]
    assert main(arguments) == 0
    assert "keto_malondialdehyde test errors" in capsys.readouterr().out
    models = [load(tmp_path / f"m-{name}.npz") for name in ("ethanol", "keto")]
    tables = [
        dict(zip(m.program.placed[0].term.labels, m.params["bond"]["k"].tolist(), strict=True))
        for m in models
    ]
    shared = tables[0].keys() & tables[1].keys()
    assert shared
    assert all(tables[0][label] == tables[1][label] for label in shared)
    for name in ("p.png", "p-2.png", "p-history.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    assert not (tmp_path / "m.npz.partial").exists()
    assert main([*arguments, "--topology", "CCO"]) == 1
    assert "--topology describes one molecule" in capsys.readouterr().err


EARLY = {
    "md": ("load_potential", "a.npz", "a.xyz"),
    "active": ("load_start", "a.xyz"),
    "holes": ("load_potential", "a.npz"),
    "reproduce": ("load_dataset", "fig2", "--data", "a.npz"),
    "export": ("load_potential", "a.npz", "--to", "amber"),
}


@pytest.mark.parametrize("command", EARLY)
def test_an_early_interrupt_leaves_no_empty_folders(command, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    name, *words = EARLY[command]
    monkeypatch.setattr(f"jaxff.commands.{command}.{name}", interrupt)
    assert main([command, *words, "-o", str(tmp_path / "new" / "deep")]) == 1
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    assert main([command, *words, "-o", str(tmp_path / "mine")]) == 1
    assert (tmp_path / "mine").is_dir()


def test_only_created_folders_without_results_are_removed(tmp_path):
    for name in ("empty", "full"):
        folder = writable_folder(tmp_path / name)
        claim(folder / "begun", {"n": 1}, "work")
    (folder / "begun" / "result.npz").write_bytes(b"1")
    remove_empty_folders()
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert (tmp_path / "full" / "begun" / "result.npz").exists()


def test_an_interrupt_that_would_be_lost_still_counts(monkeypatch, capsys):
    """Raised in a callback of the garbage collector, an exception has nowhere to go."""
    from jaxff.commands import info

    class Callback:
        def __del__(self):
            raise KeyboardInterrupt

    def run(arguments, console):
        console("work", 0.0)
        Callback()
        for _ in range(100):
            time.sleep(0.01)
        return {}

    monkeypatch.setattr(info, "run", run)
    # A shell starts programs in the background with interrupts ignored.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["info"]) == 1
    finally:
        signal.signal(signal.SIGINT, previous)
    shown = capsys.readouterr()
    assert "jaxff info: interrupted" in shown.err
    assert "work: stopped in" in shown.out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], (60, 20, 20)),
        (["--valid", "10"], (67, 10, 23)),
        (["--valid", "10", "--test", "10"], (80, 10, 10)),
        (["-n", "90"], (90, 5, 5)),
        (["--valid", "200"], (1, 200, 0)),
    ],
)
def test_shares_of_few_frames(options, expected):
    arguments = parser().parse_args(["train", "x.npz", "-o", "m.npz", *options])
    assert shares(100, arguments) == expected
    assert shares(5000, arguments)[0] == (90 if "-n" in options else 1000)


def test_negative_charges_are_not_options():
    arguments = parser().parse_args(["fit", "a.npz", "b.npz", "--charge", "-1,0", "-o", "m.npz"])
    assert arguments.charge == [-1, 0]
    assert parser().parse_args(["minimize", "m", "x", "-o", "d", "--charge", "-1"]).charge == -1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("md m.npz x.xyz -o r --stepz 9", "unknown option --stepz; did you mean --steps?"),
        ("md m.npz x.xyz -o r --no-such=9", "jaxff md: error: unknown option --no-such"),
        ("train d.npz -o m.npz --sigma 10 20", "unexpected argument '20': check the order"),
        ("md m.npz x.xyz -o r --temperature 300K", "argument --temperature: must be a number"),
        ("md m.npz x.xyz -o r --steps 1.5", "argument --steps: must be a whole number (got '1.5')"),
        ("fit d.npz -o m.npz --charge +-1", "argument --charge: must be a whole number (got '+-"),
    ],
)  # fmt: skip
def test_mistakes_in_options_are_named(command, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        parser().parse_args(command.split())
    assert message in capsys.readouterr().err


def test_wrong_kinds_of_files_are_named(tmp_path, capsys):
    from jaxff import gaff, save, write_force_field

    molecule = Molecule.from_smiles("C[NH3+]")
    potential = gaff(molecule, charges="gasteiger")
    write_force_field(tmp_path / "m.prmtop", potential)
    save(tmp_path / "m.npz", potential)
    ions = Dataset(molecule.numbers, molecule.positions[None], molecule.positions[None], charge=1)
    ions.save(tmp_path / "d.npz")
    data, model, coordinates = (tmp_path / name for name in ("d.npz", "m.npz", "m.inpcrd"))
    message = fails(capsys, "evaluate", coordinates, data)
    assert (
        "m.inpcrd: neither a model nor a force field; use one of the suffixes .npz, .prm" in message
    )
    assert "contains a model or a state; give a data set" in fails(capsys, "evaluate", model, model)
    assert "d.npz is a file, not a folder" in fails(capsys, "minimize", model, model, "-o", data)
    options = ("--no-check", "--charges", "gasteiger", "-o", tmp_path / "f.npz")
    neutral = tmp_path / "neutral.npz"
    dataclasses.replace(ions, charge=0).save(neutral)
    message = fails(capsys, "fit", neutral, *options)
    assert "net charge +0 (possible: +1); correct the charge (--charge)" in message
    message = fails(capsys, "fit", data, "--charge=-1", *options)
    assert "has the charge +1, but --charge is -1: correct one of them" in message


def test_frames_of_few_electronvolts_are_trained_without_options(ethanol, tmp_path, capsys):
    data = Dataset.load(ethanol)[:60]
    path, out = tmp_path / "mace.extxyz", tmp_path / "m.npz"
    frames = []
    for R, E, F in zip(data.positions, data.energies, data.forces, strict=True):
        frames.append(ase.Atoms(data.numbers, R, info={"mine_e": E / EV, "charge": -1}))
        frames[-1].arrays["mine_f"] = F / EV
    ase.io.write(path, frames, "extxyz")
    command = ["train", path, "--sigma", "20", "-o", out]
    assert "--forces-key" in fails(capsys, *command)
    command += ["--energy-key", "mine_e", "--forces-key", "mine_f"]
    assert "(--energy-unit eV)" in fails(capsys, *command, "--energy-unit", "kcal/mol")
    assert main(list(map(str, command))) == 0
    assert "36 training, 12 validation, 12 test frames (unknown, charge -1 e)" in (
        capsys.readouterr().out
    )
    assert load(out).molecule.charge == -1


@pytest.mark.parametrize("fault", ["forces", "energies", "monster"])
def test_training_checks_labels_as_fits_do(fault, ethanol, tmp_path, capsys):
    data = Dataset.load(ethanol)[:60]
    labels = {"energies": data.energies.copy(), "forces": data.forces.copy()}
    if fault == "monster":
        labels["forces"][:, 3] *= np.where(np.arange(60) % 9 == 4, 900.0, 1.0)[:, None]
    else:  # of other frames
        labels[fault] = np.roll(labels[fault], 7, axis=0)
    path, out = tmp_path / "data.npz", tmp_path / "m.npz"
    replace(data, **labels).save(path)
    command = ["train", path, "-n", "50", "--sigma", "20", "-o", out]
    for given in ([], ["--energy-unit", "kcal/mol"]):
        message = fails(capsys, *command, *given)
        assert "--no-check" in message or "seem to be in" in message
    assert not out.exists()
