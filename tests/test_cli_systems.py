"""Dynamics and minimisation of systems in a box from the command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from openmm import app

from jaxff import Molecule, System, md
from jaxff.cli import main
from jaxff.commands.systems import long_step

DATA = Path(__file__).parent / "data" / "systems"
CUTOFF = ["--cutoff", "6"]


@pytest.fixture
def box(tmp_path):
    """A folder with the small octahedron of ethanol in TIP3P water."""
    for suffix in ("prmtop", "rst7"):
        shutil.copy(DATA / f"eth_tip3p.{suffix}", tmp_path / f"box.{suffix}")
    return tmp_path


def results(path):
    return json.loads(path.read_text())


def test_a_system_is_minimised_and_simulated_and_continued(box, capsys):
    topology, out = str(box / "box.prmtop"), box / "run"
    common = [topology, *CUTOFF, "--constraints", "h-bonds"]
    minimize = ["minimize", *common, "--tolerance", "5", "-o", str(box / "min")]
    assert main([*minimize, "--json", str(box / "min.json")]) == 0
    found = results(box / "min.json")
    assert found["energy"] < found["energy_before"]
    assert found["max_force"] <= 5.0
    minimum = box / "min" / "minimum.rst7"
    system = System.read(topology, minimum, constraints="h-bonds")
    inpcrd = app.AmberInpcrdFile(str(minimum))
    np.testing.assert_allclose(
        inpcrd.getPositions(asNumpy=True)._value * 10.0, system.positions, atol=1e-6
    )
    pairs, lengths = system.constraints.pairs()
    i, j = pairs.T
    distances = np.linalg.norm(system.positions[i] - system.positions[j], axis=1)
    np.testing.assert_allclose(distances, lengths, atol=1e-6)

    dynamics = ["md", common[0], str(minimum), *common[1:], "--ensemble", "npt", "--dt", "2"]
    dynamics += ["--record-every", "10", "--wrap", "--friction", "5", "-o", str(out)]
    assert main([*dynamics, "--steps", "40"]) == 0
    assert "no page of the liquid" in capsys.readouterr().out  # five frames are too few
    assert main([*dynamics, "--steps", "300", "--json", str(box / "md.json")]) == 0
    said = capsys.readouterr().out
    assert "continuing from" in said
    assert "warning: --dt" not in said
    found = results(box / "md.json")
    assert found["system"]["steps"] == 300
    assert 0.5 < found["system"]["density"]["mean"] < 1.3
    assert found["system"]["volume"]["error"] > 0.0
    # Without the first tenth, the averages are those of the frames since the continuation.
    frames = md.read_trajectory(out / "trajectory.extxyz")
    assert len(frames["times"]) == 31
    volumes = np.linalg.det(frames["boxes"])[5:]
    assert found["system"]["volume"]["mean"] == pytest.approx(volumes[2:].mean(), rel=1e-6)
    again = System.read(topology, found["system"]["coordinates"][0])
    np.testing.assert_allclose(again.box, frames["boxes"][-1], atol=1e-4)
    page = (out / "report.html").read_text()
    assert "<td>pressure</td>" in page
    assert (out / "liquid.html").is_file()
    # Molecules are whole, and their centres are in the box.
    molecules = md.field.Molecules.of(again)
    for R, frame in zip(frames["positions"], frames["boxes"], strict=True):
        centres = np.asarray(molecules.centres(R), float) @ np.linalg.inv(frame)
        assert (centres > -1e-6).all()
        assert (centres < 1.0 + 1e-6).all()


def test_minimised_replicas_continue_from_the_same_start(box, capsys):
    command = ["md", str(box / "box.prmtop"), *CUTOFF, "--minimize", "--replicas", "2"]
    command += ["--record-every", "5", "--format", "dcd", "-o", str(box / "run")]
    assert main([*command, "--steps", "5"]) == 0
    assert "minimised in" in capsys.readouterr().out
    assert main([*command, "--steps", "10", "--json", str(box / "md.json")]) == 0
    assert "minimised in" not in capsys.readouterr().out
    found = results(box / "md.json")["system"]
    assert [Path(path).name for path in found["coordinates"]] == ["last-0.rst7", "last-1.rst7"]
    first, second = (System.read(box / "box.prmtop", path) for path in found["coordinates"])
    assert np.abs(first.positions - second.positions).max() > 1e-3


def test_time_steps_too_long_for_bonds_are_reported():
    def system(**options):
        return System.read(DATA / "eth_tip3p.prmtop", **options)

    warning = long_step(system(), 2.0)
    assert "--dt 2 is long for the bond of the atoms" in warning
    assert "--constraints h-bonds" in warning
    assert "give --constraints h-bonds, or --dt 1.3" in warning
    assert not long_step(system(), 1.0)
    assert not long_step(system(constraints="h-bonds"), 2.0)
    assert "(H1)" in long_step(system(rigid_water=False), 2.0)
    assert not long_step(md.repartition(system(), 3.0), 2.0)


def changed(box, change):
    """Change the lines of the coordinates."""
    path = box / "box.rst7"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


FAULTS = {
    "small box": (lambda box: [], [], "the cutoff 9 Å exceeds half of the smallest width"),
    "no coordinates": (
        lambda box: (box / "box.rst7").unlink(),
        CUTOFF,
        "box.prmtop: a system needs coordinates; give a file with the suffix .rst7",
    ),
    "truncated": (
        lambda box: changed(box, lambda text: text[:40]),
        CUTOFF,
        "box.rst7 is truncated: write it again",
    ),
    "other atoms": (
        lambda box: changed(box, lambda text: [text[0], "  192", *text[2:-2], text[-1]]),
        CUTOFF,
        "box.rst7 has 192 atoms, but",
    ),
    "method": (
        lambda box: [],
        [*CUTOFF, "--method", "fire"],
        "--method fire does not apply to sys",
    ),
    "conformers": (lambda box: [], [*CUTOFF, "--conformers", "3"], "--conformers does not apply"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_systems_are_one_sentence(fault, box, capsys):
    make, options, message = FAULTS[fault]
    make(box)
    assert main(["minimize", str(box / "box.prmtop"), *options, "-o", str(box / "out")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_atoms_in_another_order_are_reported(box, capsys):
    system = System.read(box / "box.prmtop")
    order = np.arange(len(system))
    order[[0, 8]] = order[[8, 0]]
    system.replace(positions=system.positions[order]).write(box / "box.rst7")
    assert main(["md", str(box / "box.prmtop"), *CUTOFF, "-o", str(box / "out")]) == 1
    assert "the same order of atoms" in capsys.readouterr().err


def test_hydrogens_far_from_rigid_water_are_reported(box, capsys):
    system = System.read(box / "box.prmtop")
    oxygen, hydrogen, _ = system.waters[0]
    order = np.arange(len(system))
    order[[oxygen, hydrogen]] = order[[hydrogen, oxygen]]
    system.replace(positions=system.positions[order]).write(box / "box.rst7")
    assert main(["md", str(box / "box.prmtop"), *CUTOFF, "-o", str(box / "out")]) == 1
    assert "deviates by" in capsys.readouterr().err


def test_clashing_atoms_need_a_minimisation(box, capsys):
    system = System.read(box / "box.prmtop")
    first, second = system.waters[0], system.waters[1]
    R = system.positions.copy()
    R[second] += R[first[0]] - R[second[0]] + [1.2, 0.0, 0.0]
    system.replace(positions=R).write(box / "box.rst7")
    assert main(["md", str(box / "box.prmtop"), *CUTOFF, "-o", str(box / "out")]) == 1
    error = capsys.readouterr().err
    assert "is only" in error
    assert "--minimize" in error


def test_options_of_systems_need_a_box(tmp_path, capsys):
    from jaxff import gaff, write_force_field

    write_force_field(tmp_path / "water.prmtop", gaff(Molecule.from_smiles("O")))
    shutil.copy(tmp_path / "water.inpcrd", tmp_path / "water.rst7")
    command = ["md", str(tmp_path / "water.prmtop"), "-o", str(tmp_path / "out")]
    assert main([*command, "--cutoff", "6"]) == 1
    assert "--cutoff needs a system in a box" in capsys.readouterr().err
    assert main([*command, "--ensemble", "npt"]) == 1
    assert "npt changes a box, but" in capsys.readouterr().err
    assert main(["md", "water.npz", "-o", str(tmp_path / "out")]) == 1
    assert "give START after it" in capsys.readouterr().err
    # The coordinates with the same name are the start of a molecule, too.
    assert main([*command, "--steps", "5"]) == 0


def test_start_may_follow_options():
    from jaxff.cli import parser

    arguments = parser().parse_args(["md", "m.npz", "--steps", "5", "start.xyz", "-o", "out"])
    assert arguments.start == "start.xyz"
    with pytest.raises(SystemExit):
        parser().parse_args(["md", "m.npz", "a.xyz", "--steps", "5", "b.xyz", "-o", "out"])
