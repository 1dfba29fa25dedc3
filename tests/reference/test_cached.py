"""Scans and minima on calculators go on where they were stopped, to the same end."""

import shutil

import ase.io
import numpy as np
import pytest
import toy_calculators
from ase.calculators.calculator import all_changes
from ase.calculators.lj import LennardJones

from jaxff import InputError, Molecule
from jaxff.cli import main
from jaxff.reference import CachedCalculator, calculator
from jaxff.reference.cached import resumable
from jaxff.reference.calculators import Method

NAME = "toy_calculators:Stops"


class Stops(toy_calculators.Springs):
    """Springs that end the run at a given calculation, counted over all runs."""

    calls, last = 0, np.inf

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        Stops.calls += 1
        if Stops.calls > Stops.last:
            raise KeyboardInterrupt
        super().calculate(atoms, properties, system_changes)


@pytest.fixture
def count(monkeypatch):
    """Runs a command of at most so many calculations; gives its exit status and their number."""
    monkeypatch.setattr(toy_calculators, "Stops", Stops, raising=False)

    def run(arguments, last=np.inf):
        Stops.calls, Stops.last = 0, last
        return main(list(map(str, arguments))), min(Stops.calls, last)

    return run


@pytest.mark.parametrize("task", ["scan", "minimize"])
def test_a_stopped_run_goes_on(task, count, tmp_path, capsys):
    start, out, whole = tmp_path / "water.xyz", tmp_path / "out", tmp_path / "whole"
    ase.io.write(start, Molecule.from_smiles("O").to_ase())
    command = [task, NAME, start, "--tolerance", "1e-4"]
    if task == "scan":
        command += ["--angle", "1,0,2", "--range", "90", "110", "--points", "4", "--relax"]
    code, all_calls = count([*command, "-o", whole])
    assert code == 0
    assert all_calls > 5
    assert count([*command, "-o", out], last=all_calls // 2)[0] == 1
    kept = next(out.glob("*.part")) / "calculations.jsonl"
    assert len(kept.read_text().splitlines()) == all_calls // 2
    with kept.open("a") as file:
        file.write('{"geometry": "half a li')
    other = [*command, "--options", '{"delay": 0.001}', "-o", out]
    assert count(other)[0] == 1
    assert "another unfinished run with other settings (options.delay" in capsys.readouterr().err
    assert count([*command, "-o", out]) == (0, all_calls - all_calls // 2)
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in whole.iterdir())
    if task == "scan":
        with np.load(out / "scan.npz") as a, np.load(whole / "scan.npz") as b:
            np.testing.assert_array_equal(a["energies"], b["energies"])
    else:
        assert (out / "minimum.xyz").read_text() == (whole / "minimum.xyz").read_text()


@pytest.mark.parametrize("task", ["scan", "minimize"])
def test_a_run_that_fails_leaves_what_an_earlier_one_wrote(task, count, tmp_path, capsys):
    start, out = tmp_path / "water.xyz", tmp_path / "out"
    ase.io.write(start, Molecule.from_smiles("O").to_ase())
    command = [task, NAME, start, "-o", out]
    if task == "scan":
        command += ["--angle", "1,0,2", "--range", "90", "110", "--points", "3"]
    assert count(command)[0] == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    assert count(command, last=1)[0] == 1
    assert count([*command, "--options", '{"fail_above": -100.0}'])[0] == 1
    assert "unfinished run" in capsys.readouterr().err
    shutil.rmtree(next(out.glob("*.part")))
    assert count([*command, "--options", '{"fail_above": -100.0}'])[0] == 1
    assert (
        "no calculation has succeeded (CalculationFailed: no convergence)"
        in capsys.readouterr().err
    )
    assert not list(out.glob("*.part"))  # nothing was computed that could be continued
    assert {name: (out / name).read_bytes() for name in before} == before


def test_results_are_the_calculators_own(tmp_path):
    water = Molecule.from_smiles("O")
    log = tmp_path / "log"
    made = calculator("toy_calculators:Springs", log=str(log))
    for _ in range(2):
        for shift in (0.0, 0.1):
            atoms = water.with_positions(water.positions * (1.0 + shift)).to_ase()
            atoms.calc = CachedCalculator(made, tmp_path / "done.jsonl")
            energy, forces = atoms.get_potential_energy(), atoms.get_forces()
            atoms.calc = toy_calculators.Springs()
            assert energy == atoms.get_potential_energy()
            np.testing.assert_array_equal(forces, atoms.get_forces())
    assert len(log.read_bytes()) == 2


def test_what_a_crash_broke_is_passed_over_and_foreign_files_are_left_alone(tmp_path):
    path, calls = tmp_path / "done.jsonl", tmp_path / "log"
    made = calculator("toy_calculators:Springs", log=str(calls))
    atoms = Molecule.from_smiles("O").to_ase()
    for tail in (b'{"geometry": "ab', b"\0" * 300 + b"\n", b""):
        atoms.calc = CachedCalculator(made, path)
        atoms.positions[0, 0] += 0.01
        atoms.get_forces()
        with path.open("ab") as file:
            file.write(tail)
    for _ in range(3):
        atoms.calc = CachedCalculator(made, path)
        atoms.get_forces()
        atoms.positions[0, 0] -= 0.01
    assert len(calls.read_bytes()) == 3
    other = tmp_path / "start.xyz"
    other.write_text("C 0 0 0\nH 1 0 0")
    with pytest.raises(InputError, match="is not a file of calculations"):
        CachedCalculator(made, other)
    assert other.read_text() == "C 0 0 0\nH 1 0 0"


def test_a_file_knows_its_calculator_and_parameters(tmp_path):
    atoms, path = Molecule.from_smiles("O").to_ase(), tmp_path / "done.jsonl"
    atoms.calc = CachedCalculator(LennardJones(sigma=2.0), path)
    atoms.get_forces()
    for other in (LennardJones(sigma=2.1), toy_calculators.Springs()):
        with pytest.raises(InputError, match="results of another calculator or of other"):
            CachedCalculator(other, path)
    assert CachedCalculator(LennardJones(sigma=2.0), path).unused == 1


def test_a_smaller_scan_keeps_the_results_of_an_interrupted_larger_one(tmp_path):
    """They are deleted when the larger scan is done."""
    water, out = Molecule.from_smiles("O"), tmp_path / "scan.npz"
    method = Method("lj")
    made = method.make(molecule=water)

    def run(points, stop=False):
        with resumable(method, made, water, out) as surface:
            for k in range(points):
                atoms = water.with_positions(water.positions * (1.0 + 0.01 * k)).to_ase()
                atoms.calc = surface
                atoms.get_forces()
            if stop:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(4, stop=True)
    with pytest.warns(UserWarning, match="did not use 2 of the stored results"):
        run(2)
    assert len((tmp_path / "scan.npz.part/calculations.jsonl").read_bytes().splitlines()) == 4
    run(4)
    assert not (tmp_path / "scan.npz.part").exists()


def test_failures_are_not_kept(tmp_path):
    atoms = Molecule.from_smiles("O").to_ase()
    for limit, fails in ((-100.0, True), (100.0, False)):
        made = calculator("toy_calculators:Springs", fail_above=limit)
        atoms.calc = CachedCalculator(made, tmp_path / "done.jsonl")
        if fails:
            with pytest.raises(Exception, match="no convergence"):
                atoms.get_forces()
        else:
            assert np.isfinite(atoms.get_forces()).all()
