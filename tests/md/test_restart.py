"""Simulations that are killed, stopped or failed, and go on as if nothing had happened."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import kill_run
import numpy as np
import pytest
from simulating import simulate
from springs import springs

from jaxff import InputError, Molecule, md
from jaxff.cli import main
from jaxff.md import simulation

MOMENTS = 700  # calls in jaxff from one frame of kill_run.py to the next, with an HDF5 file


@pytest.fixture(scope="module")
def water():
    return Molecule.from_smiles("O")


@pytest.fixture(scope="module")
def potential(water):
    return springs(water)


def check_kills(kills, tmp_path, monkeypatch, suffix, ensemble, replicas=0):
    """Compare a run that is killed at moments drawn at random, from a seed, with a whole one."""
    monkeypatch.setattr(simulation, "CHUNK_SECONDS", np.inf)  # other pieces than those killed
    rng = np.random.default_rng(0)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    kill_run.run(whole, suffix, ensemble, replicas)
    for _ in range(kills):
        frames = rng.integers(1, kill_run.FRAMES // (2 * kills + 2))
        task = map(str, (cut, suffix, ensemble, replicas, frames, rng.integers(1, MOMENTS)))
        killed = subprocess.run(
            [sys.executable, kill_run.__file__, *task], capture_output=True, text=True, check=False
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    kill_run.run(cut, suffix, ensemble, replicas)
    names = sorted(path.name for path in whole.glob(f"*.{suffix}"))
    assert names == sorted(path.name for path in cut.glob(f"*.{suffix}"))
    for name in names:
        if suffix != "h5":
            assert (whole / name).read_bytes() == (cut / name).read_bytes()
        one, other = (md.read_trajectory(folder / name) for folder in (whole, cut))
        assert len(one["positions"]) == kill_run.FRAMES + 1
        for key, values in one.items():
            np.testing.assert_array_equal(values, other[key])


def test_a_killed_run_goes_on_bit_for_bit(tmp_path, monkeypatch):
    check_kills(2, tmp_path, monkeypatch, "h5", "langevin")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["extxyz", "h5", "dcd"])
@pytest.mark.parametrize("ensemble", ["nve", "langevin", "nose-hoover", "csvr"])
def test_a_run_killed_many_times_goes_on_bit_for_bit(tmp_path, monkeypatch, suffix, ensemble):
    check_kills(20, tmp_path, monkeypatch, suffix, ensemble)


@pytest.mark.slow
def test_replicas_killed_many_times_go_on_bit_for_bit(tmp_path, monkeypatch):
    check_kills(20, tmp_path, monkeypatch, "h5", "langevin", 3)


@pytest.mark.parametrize(("ensemble", "replicas"), [("npt-rescaling", 2), ("langevin-rigid", 0)])
def test_a_killed_run_in_a_box_continues_bit_for_bit(tmp_path, monkeypatch, ensemble, replicas):
    check_kills(1, tmp_path, monkeypatch, "h5", ensemble, replicas)


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [0, 3])
@pytest.mark.parametrize("suffix", ["extxyz", "h5", "dcd"])
@pytest.mark.parametrize("ensemble", list(kill_run.IN_BOX))
def test_a_run_in_a_box_killed_many_times_continues_bit_for_bit(
    tmp_path, monkeypatch, suffix, ensemble, replicas
):
    check_kills(20, tmp_path, monkeypatch, suffix, ensemble, replicas)


@pytest.mark.parametrize("suffix", ["extxyz", "h5", "dcd"])
def test_more_steps_continue_a_finished_run(water, potential, tmp_path, suffix):
    common = {"ensemble": "csvr", "every": 7, "seed": 2}
    simulate(potential, water, steps=70, path=tmp_path / f"a.{suffix}", **common)
    files = {"path": tmp_path / f"b.{suffix}", "restart": tmp_path / "b.npz"}
    first = simulate(potential, water, steps=28, **files, **common)
    rest = simulate(potential, water, steps=70, **files, **common)
    assert len(first.times) == 5
    np.testing.assert_allclose(rest.times, np.arange(35, 71, 7) * 0.5)
    one, other = (md.read_trajectory(tmp_path / f"{name}.{suffix}") for name in "ab")
    for key, values in one.items():
        np.testing.assert_array_equal(values, other[key])
    with pytest.raises(InputError, match="already at step 70"):
        simulate(potential, water, steps=70, **files, **common)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 310.0}, r"other settings \(.*\btemperature\b"),
        ({"seed": 9}, r"other settings \(.*\bseed\b"),
        ({"dt": 0.4}, r"other settings \(.*\bdt\b"),
        ({"every": 5}, r"other settings \(.*\bevery\b"),
        ({"ensemble": "nve"}, r"other settings \(.*\bensemble\b"),
        ({"replicas": 2}, r"other settings \(.*\breplicas\b"),
        ({"velocities": np.zeros((3, 3))}, r"other settings \(.*\bvelocities\b"),
    ],
)
def test_a_restart_file_of_another_run_is_refused(water, potential, tmp_path, change, message):
    files = {"path": tmp_path / "run.extxyz", "restart": tmp_path / "restart.npz"}
    simulate(potential, water, steps=20, **files)
    before = files["path"].read_bytes()
    with pytest.raises(InputError, match=message):
        simulate(potential, water, **{"steps": 40, **files, **change})
    assert files["path"].read_bytes() == before


def test_a_restart_file_knows_whether_the_molecule_turned(water, potential, tmp_path):
    common = {"ensemble": "nve", "restart": tmp_path / "restart.npz"}
    simulate(potential, water, steps=20, **common)
    with pytest.raises(InputError, match=r"other settings \(remove_rotation false → true\)"):
        simulate(potential, water, steps=40, remove_rotation=True, **common)


def test_a_trajectory_and_its_restart_file_are_two(water, potential, tmp_path):
    with pytest.raises(InputError, match="the restart file must have different names"):
        simulate(potential, water, steps=20, path=tmp_path / "a.h5", restart=tmp_path / "a.h5")
    assert not list(tmp_path.iterdir())


def test_bonds_stretch_from_the_start_and_not_from_the_restart(water, potential, tmp_path):
    # Every bond 5 % longer than at rest; the run is cut where they are near their shortest.
    common = {
        "ensemble": "nve", "dt": 0.2, "every": 1, "velocities": np.zeros((3, 3)),
        "positions": 1.05 * water.positions, "stretch": 1.02,
    }  # fmt: skip
    whole = simulate(potential, water, steps=400, **common)
    i, j = water.bonds.T
    lengths = np.linalg.norm(whole.positions[:, i] - whole.positions[:, j], axis=-1)
    cut = int(np.argmin(lengths.max(axis=1)[:100]))
    assert lengths.max() > 1.02 * lengths[cut].max()
    files = {"restart": tmp_path / "restart.npz"}
    simulate(potential, water, steps=cut, **common, **files)
    rest = simulate(potential, water, steps=400, **common, **files)
    np.testing.assert_array_equal(rest.positions, whole.positions[cut + 1 :])


def test_another_potential_or_a_damaged_file_is_refused(water, potential, tmp_path):
    restart = tmp_path / "restart.npz"
    simulate(potential, water, steps=20, restart=restart)
    softer = potential.replace(
        {"springs": {k: 0.9 * v for k, v in potential.params["springs"].items()}}
    )
    with pytest.raises(InputError, match=r"other settings \(potential\)"):
        simulate(softer, water, steps=40, restart=restart)
    with pytest.raises(InputError, match=r"other settings \(potential"):
        simulate(potential.astype(jnp.float32), water, steps=40, restart=restart)
    restart.write_bytes(restart.read_bytes()[:200])
    with pytest.raises(InputError, match="not a readable state of a simulation"):
        simulate(potential, water, steps=40, restart=restart)
    np.savez(restart, header=np.array('{"format": "else"}'))
    with pytest.raises(InputError, match="not the state of a simulation"):
        simulate(potential, water, steps=40, restart=restart)


def test_a_run_goes_on_after_an_exception(water, potential, tmp_path):
    def stop(phase, fraction):
        raise KeyboardInterrupt

    files = {"path": tmp_path / "run.extxyz", "restart": tmp_path / "restart.npz"}
    common = {"steps": 4000, "every": 20}
    with pytest.raises(KeyboardInterrupt):
        simulate(potential, water, progress=stop, **files, **common)
    simulate(potential, water, **files, **common)
    whole = simulate(potential, water, **common)
    found = md.read_trajectory(files["path"])
    np.testing.assert_allclose(found["positions"], whole.positions, atol=1e-9)


def test_the_command_continues_and_says_when_it_is_done(water, potential, tmp_path, capsys):
    import ase.io

    import jaxff

    model, geometry = tmp_path / "m.npz", tmp_path / "m.xyz"
    jaxff.save(model, potential)
    ase.io.write(geometry, water.to_ase())
    out = tmp_path / "run"
    command = [
        "md", str(model), str(geometry), "-o", str(out), "--ensemble", "nose-hoover",
        "--replicas", "2", "--temperature", "200,300", "--format", "h5",
    ]  # fmt: skip
    assert main([*command, "--steps", "200"]) == 0
    assert main([*command, "--steps", "400"]) == 0
    assert "continuing from" in capsys.readouterr().out
    assert len(md.read_trajectory(out / "trajectory-1.h5")["times"]) == 81
    assert main([*command, "--steps", "400"]) == 1
    assert "already at step 400" in capsys.readouterr().err
    assert main([*command, "--steps", "400", "--seed", "3"]) == 1
    assert "other settings (seed 0 → 3)" in capsys.readouterr().err
    assert main([*command, "--steps", "200", "--seed", "3", "--overwrite"]) == 0
    assert len(md.read_trajectory(out / "trajectory-0.h5")["times"]) == 41
    assert (out / "energy_temperature.png").is_file()


def test_the_command_stops_where_it_is_told_to(water, tmp_path, capsys):
    import ase.io

    import jaxff

    model, geometry = tmp_path / "m.npz", tmp_path / "m.xyz"
    jaxff.save(model, springs(water))
    ase.io.write(geometry, water.to_ase())
    command = [
        "md", str(model), str(geometry), "--steps", "2000", "-o", str(tmp_path / "run"),
        "--temperature", "500", "--friction", "100",
    ]  # fmt: skip
    assert main([*command, "--max-temperature", "550"]) == 1
    assert "the temperature is" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--max-temperature", "inf"]) == 0


def test_overwriting_loses_nothing_until_the_new_run_begins(water, tmp_path, capsys):
    import ase.io

    import jaxff

    model, geometry, other = tmp_path / "m.npz", tmp_path / "m.xyz", tmp_path / "other.xyz"
    jaxff.save(model, springs(water))
    ase.io.write(geometry, water.to_ase())
    ase.io.write(other, Molecule.from_smiles("S").to_ase())
    out, report = tmp_path / "run", tmp_path / "report.json"
    rest = ["-o", str(out), "--steps", "40", "--json", str(report)]
    assert main(["md", str(model), str(geometry), *rest, "--replicas", "3"]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for bad in (
        [str(tmp_path / "none.npz"), str(geometry)],
        [str(model), str(tmp_path / "none.xyz")],
        [str(model), str(other)],
        [str(model), str(geometry), "--record-every", "7"],
    ):
        assert main(["md", *bad, *rest, "--overwrite"]) == 1
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    # Of what lies there, the report names the files of its own run, and the others go.
    assert main(["md", str(model), str(geometry), *rest, "--overwrite", "--replicas", "2"]) == 0
    assert [Path(x).name for x in json.loads(report.read_text())["trajectory"]] == [
        "trajectory-0.extxyz", "trajectory-1.extxyz"
    ]  # fmt: skip
    assert not (out / "trajectory-2.extxyz").exists()
    h5 = ["--overwrite", "--format", "h5"]
    assert main(["md", str(model), str(geometry), *rest, *h5]) == 0
    assert [path.name for path in out.glob("traj*")] == ["trajectory.h5"]
    (out / "trajectory-mine.extxyz").write_text("precious")
    assert main(["md", str(model), str(geometry), *rest, "--overwrite"]) == 0
    assert not (out / "trajectory.h5").exists()
    assert (out / "trajectory-mine.extxyz").exists()
    assert Path(json.loads(report.read_text())["trajectory"]).name == "trajectory.extxyz"
    more = ["-o", str(out), "--steps", "50", "--json", str(report)]
    assert main(["md", str(model), str(geometry), *more]) == 0
    found = json.loads(report.read_text())
    assert found["frames"] == 2  # the start of a continued run is no frame, but its steps count
    assert found["steps_per_second"] == pytest.approx(found["ns_per_day"] / (0.0864 * 0.5))


@pytest.mark.parametrize("begun", [False, True])
def test_a_killed_overwriting_run_leaves_a_run_that_continues(
    water, tmp_path, capsys, monkeypatch, begun
):
    """Killed while it compiles, the earlier run is whole; killed later, the new run continues."""
    import ase.io

    import jaxff
    from jaxff.md.simulation import Simulation

    model, geometry = tmp_path / "m.npz", tmp_path / "m.xyz"
    jaxff.save(model, springs(water))
    ase.io.write(geometry, water.to_ase())
    out = tmp_path / "run"
    command = ["md", str(model), str(geometry), "--steps", "40", "-o", str(out)]
    assert main(command) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    calls = []
    advance = Simulation.advance

    def killed(self, *arguments):
        calls.append(arguments)
        if len(calls) > begun:
            raise KeyboardInterrupt
        return advance(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Simulation, "advance", killed)
        assert main([*command, "--seed", "1", "--overwrite"]) == 1
    if begun:
        assert main(command) == 1
        assert "other settings (seed 1 → 0)" in capsys.readouterr().err
        assert main([*command, "--seed", "1"]) == 0
        assert "continuing from" in capsys.readouterr().out
        assert len(md.read_trajectory(out / "trajectory.extxyz")["times"]) == 9
    else:
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        assert main(command) == 1
        assert "already at step 40" in capsys.readouterr().err
