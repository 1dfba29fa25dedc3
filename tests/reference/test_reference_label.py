"""Labelling: right numbers, nothing twice, nothing lost, nothing that is not finite."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from toy_calculators import Springs

from jaxff import Dataset, InputError, Molecule, units
from jaxff.cli import parser
from jaxff.reference import Labelling, Sampling, calculator, label_frames, label_md
from jaxff.reference.calculators import KNOWN
from jaxff.reference.frames import starting_geometries

TOY = "toy_calculators:Springs"
ALONE = Labelling(TOY, workers=1)
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def water():
    return Molecule.from_smiles("O")


@pytest.fixture(scope="module")
def frames(water):
    noise = np.random.default_rng(0).normal(0.0, 0.05, (30, 3, 3))
    return [water.with_positions(water.positions + step).to_ase() for step in noise]


def arrays(path):
    with np.load(path) as file:
        return {key: file[key] for key in file.files}


# -- calculators -----------------------------------------------------------------------------


def test_each_stage_is_announced_before_it_begins(water, tmp_path):
    sampling = Sampling(spacing=1.0, equilibration=0.0, replicas=1)
    for call, stage in (
        (lambda **how: label_frames([water], tmp_path / "a.npz", ALONE, **how), "labelling"),
        (
            lambda **how: label_md([water], tmp_path / "b.npz", 2, ALONE, sampling, **how),
            "sampling",
        ),
    ):
        stages = []
        call(progress=lambda *stage, stages=stages: stages.append(stage))
        assert stages[:2] == [("setting up the calculator", 0.0), (stage, 0.0)]
        assert stages[-1] == (stage, 1.0)


def test_known_calculators_are_ase_s():
    from ase.calculators.emt import EMT

    atoms = Molecule.from_smiles("O").to_ase()
    atoms.calc = EMT()
    expected = atoms.get_potential_energy()
    atoms.calc = calculator("emt")
    assert atoms.get_potential_energy() == expected
    assert calculator("lj", sigma=2.0).parameters.sigma == 2.0


def test_the_charge_reaches_a_calculator_that_knows_one():
    assert calculator("toy_calculators:Charged", charge=-1).charge == -1
    with pytest.raises(InputError, match="has no option for the charge"):
        calculator(TOY, charge=1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gfn3", {}, "unknown calculator 'gfn3': use one of gfn2-xtb"),
        ("no_such_package:Thing", {}, "cannot be imported"),
        ("toy_calculators:Nothing", {}, "has no 'Nothing'"),
        (TOY, {"colour": "red"}, "does not accept the options"),
    ],
)
def test_unknown_calculators_are_named(name, options, message):
    with pytest.raises(InputError, match=message):
        calculator(name, **options)


def test_a_missing_extra_names_its_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tblite.ase", None)
    with pytest.raises(InputError, match=r'pip install "jaxff\[xtb\]"'):
        calculator("gfn2-xtb")


# -- labels of given frames --------------------------------------------------------------------


def test_labels_are_the_calculator_s_in_kcal_mol(frames, tmp_path):
    out = tmp_path / "water.npz"
    result = label_frames(frames, out, Labelling(TOY, command="jaxff label x"))
    data = Dataset.load(out, check=False)
    assert len(data) == len(frames)
    for frame, atoms in enumerate(frames):
        atoms.calc = Springs()
        np.testing.assert_array_equal(data.positions[frame], atoms.positions)
        assert data.energies[frame] == pytest.approx(
            atoms.get_potential_energy() * units.EV, rel=1e-13
        )
        np.testing.assert_allclose(data.forces[frame], atoms.get_forces() * units.EV, rtol=1e-12)
    assert data.name == "water"
    assert data.theory == f"{TOY} (toy_calculators)"
    kept = arrays(out)
    assert str(kept["command"]) == "jaxff label x"
    assert str(kept["calculator"]) == TOY
    assert "jaxff" in str(kept["versions"])
    assert result.failed == result.rebonded == ()
    assert result.net_force < 1e-9
    assert list(tmp_path.iterdir()) == [out]  # no part folder is left


def test_every_form_of_frames_gives_the_same_labels(frames, tmp_path):
    source = tmp_path / "frames.xyz"
    ase.io.write(source, frames[:3], format="extxyz")
    named = replace(ALONE, name="w")
    label_frames(source, tmp_path / "a.npz", named)
    molecules = [Molecule.from_ase(a) for a in ase.io.read(source, ":")]
    label_frames(molecules, tmp_path / "b.npz", named)
    first, second = arrays(tmp_path / "a.npz"), arrays(tmp_path / "b.npz")
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_gfn2_labels_are_tblite_s(tmp_path):
    interface = pytest.importorskip("tblite.interface")
    molecule = Molecule.from_smiles("CCO")
    out = tmp_path / "ethanol.npz"
    label_frames([molecule], out, Labelling("gfn2-xtb", {"accuracy": 1e-3}, workers=1))
    data = Dataset.load(out)
    direct = interface.Calculator(
        "GFN2-xTB", molecule.numbers, molecule.positions / units.BOHR, 0.0, 0
    )
    direct.set("verbosity", 0)
    direct.set("accuracy", 1e-3)
    result = direct.singlepoint()
    # ASE's own constants, which the calculator's edge goes through, are those of CODATA 2014.
    assert data.energies[0] == pytest.approx(result["energy"] * units.HARTREE, rel=3e-8)
    np.testing.assert_allclose(
        data.forces[0], -result["gradient"] * units.HARTREE / units.BOHR, atol=1e-4
    )
    assert data.theory.startswith("GFN2-xTB (tblite ")


def test_a_failed_frame_is_named_and_the_others_are_kept(frames, tmp_path):
    moved = [a.copy() for a in frames]
    moved[17].positions += [9.0, 0.0, 0.0]
    out, log = tmp_path / "out.npz", tmp_path / "log"
    how = Labelling(TOY, {"fail_above": 8.0, "log": str(log)}, workers=1)
    with pytest.raises(InputError, match=r"frame 17: .*no convergence"):
        label_frames(moved, out, how)
    assert not out.exists()
    result = label_frames(moved, out, replace(how, skip_failed=True))
    assert result.failed == (17,)
    assert arrays(out)["failed_frames"].tolist() == [17]
    assert len(Dataset.load(out, check=False)) == 29
    assert len(log.read_bytes()) == 31  # frame 17 twice, every other once


def test_nan_is_never_written(frames, tmp_path):
    options = {"fail_above": -100.0, "quietly": True}
    with pytest.raises(InputError, match=r"frame 0: .*not finite"):
        label_frames(frames[:2], tmp_path / "out.npz", replace(ALONE, options=options))
    assert not (tmp_path / "out.npz").exists()


def test_unfinished_runs_are_continued_only_as_they_were(frames, tmp_path):
    out = tmp_path / "out.npz"
    moved = [a.copy() for a in frames[:4]]
    moved[3].positions += 9.0
    how = replace(ALONE, options={"fail_above": 8.0})
    with pytest.raises(InputError, match="frame 3"):
        label_frames(moved, out, how)
    message = r"other settings \(options\.fail_above 8\.0 → 20\.0\).*delete .*out\.npz\.part"
    with pytest.raises(InputError, match=message):
        label_frames(moved, out, replace(how, options={"fail_above": 20.0}))
    with pytest.raises(InputError, match=r"other settings \(geometries\)"):
        label_frames(frames[:4], out, how)


def test_a_run_that_has_done_nothing_is_in_nobody_s_way(frames, tmp_path):
    out = tmp_path / "out.npz"
    with pytest.raises(InputError, match="frame 0"):
        label_frames(frames, out, replace(ALONE, options={"fail_above": -100.0}))
    assert len(label_frames(frames, out, ALONE).dataset) == len(frames)


def test_what_is_finished_is_neither_lost_nor_computed_again(frames, tmp_path):
    out = tmp_path / "out.npz"
    moved = [a.copy() for a in frames[:4]]
    moved[1].positions += 9.0
    how = replace(ALONE, options={"fail_above": 8.0}, skip_failed=True)
    first = label_frames(moved, out, how)
    written = out.read_bytes()
    again = label_frames(moved, out, how)
    assert out.read_bytes() == written
    assert again.failed == first.failed == (1,)
    np.testing.assert_array_equal(again.dataset.forces, first.dataset.forces)
    with pytest.raises(InputError, match="exists already"):
        label_frames(frames[:4], out, how)
    with pytest.raises(InputError, match="exists already"):
        label_frames(out, out, ALONE)
    assert out.read_bytes() == written
    assert len(label_frames(frames[:4], out, replace(ALONE, overwrite=True)).dataset) == 4
    (tmp_path / "text.npz").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        label_frames(frames, tmp_path / "text.npz", ALONE)


@pytest.mark.parametrize(("name", "option"), [("gfn2-xtb", "multiplicity"), ("hf", "spin")])
def test_an_odd_number_of_electrons_is_asked_about(name, option, tmp_path):
    pytest.importorskip({"gfn2-xtb": "tblite", "hf": "pyscf"}[name])
    methyl = Molecule.from_smiles("C")
    methyl = Molecule(methyl.numbers[:4], methyl.positions[:4], methyl.bonds[:3])
    with pytest.raises(InputError, match=f"odd number of electrons.*option {option}"):
        label_frames(methyl, tmp_path / "out.npz", Labelling(name))
    calculator(name, molecule=methyl, charge=1)
    calculator(name, molecule=methyl, **{option: 2 if option == "multiplicity" else 1})


def test_atoms_at_one_place_are_refused_whatever_the_calculator_says(frames, tmp_path):
    touching = [a.copy() for a in frames[:3]]
    touching[1].positions[2] = touching[1].positions[0] + 0.01
    with pytest.raises(InputError, match=r"frame 1: .*atoms 0 and 2 are 0\.017 Å apart"):
        label_frames(touching, tmp_path / "out.npz", ALONE)
    left = label_frames(touching, tmp_path / "out.npz", replace(ALONE, skip_failed=True))
    assert left.failed == (1,)
    assert len(left.dataset) == 2


def test_frames_that_cannot_be_labelled_are_named(frames, tmp_path, water):
    out = tmp_path / "out.npz"
    with pytest.raises(InputError, match="frame 1 has different atoms"):
        label_frames([frames[0], Molecule.from_smiles("S")], out, ALONE)
    with pytest.raises(InputError, match="no such file"):
        label_frames(tmp_path / "none.xyz", out, ALONE)
    with pytest.raises(InputError, match="no frames"):
        label_frames([], out, ALONE)
    with pytest.raises(InputError, match="cannot write"):
        label_frames(frames, tmp_path / "none" / "out.npz", ALONE)


# -- sampling ------------------------------------------------------------------------------------


def test_sampling_has_the_temperature_and_labels_its_frames(water, tmp_path):
    out = tmp_path / "md.npz"
    sampling = Sampling(
        temperature=300.0, friction=100.0, dt=0.5, spacing=5.0, equilibration=100.0, replicas=2
    )
    label_md(water, out, 1501, Labelling(TOY, workers=2), sampling)
    data, kept = Dataset.load(out, check=False), arrays(out)
    assert len(data) == 1501
    assert kept["replica"].tolist() == [0, 1] * 750 + [0]
    np.testing.assert_allclose(kept["time_fs"][[0, 1, 2, -1]], [5.0, 5.0, 10.0, 751 * 5.0])
    # Equipartition over three springs; their energies here are nearly harmonic.
    assert data.energies.mean() == pytest.approx(1.5 * units.BOLTZMANN * 300.0, rel=0.1)
    atoms = water.to_ase()
    for frame in (0, 700, 1500):
        atoms.positions, atoms.calc = data.positions[frame], Springs()
        np.testing.assert_allclose(
            data.forces[frame], atoms.get_forces() * units.EV, rtol=1e-9, atol=1e-9
        )
    settings = json.loads(str(kept["dynamics"]))
    assert settings["temperature_K"] == 300.0
    assert settings["equilibration_fs"] == 100.0
    assert not np.array_equal(data.positions[0], data.positions[1])


def test_reactions_stop_the_sampling_or_are_kept_or_dropped(water, tmp_path):
    """At 20,000 K springs of 1.2 Å are at times longer than 1.5 covalent radii, 1.46 Å."""
    out, log = tmp_path / "md.npz", tmp_path / "log"
    sampling = Sampling(temperature=2e4, spacing=5.0, equilibration=0.0, replicas=1)
    how = Labelling(TOY, {"log": str(log)}, workers=1)
    with pytest.raises(
        InputError, match=r"replica 0, \d+ fs .* \(broken: O0-H.* bonds .* of O\. .*--reactions"
    ):
        label_md(water, out, 60, how, sampling)
    assert not out.exists()
    for reactions, words in (
        ("keep", "frames with changed bonds are kept"),
        ("drop", "omitted from the file"),
    ):
        with pytest.warns(UserWarning, match=words):
            result = label_md(
                water, out, 60, replace(how, reactions=reactions, overwrite=True), sampling
            )
        count, text = result.rebonded, str(arrays(out)["reactions"])
        if reactions == "keep":
            # Nothing was computed twice: the calculator is called once for the start of each task.
            assert 600 <= log.stat().st_size <= 603
            assert len(result.dataset) == 60
            assert 5 < len(count) < 55
            kept = result.dataset[np.delete(np.arange(60), count)]
            assert text == f"{len(count)} of 60 frames with other bonds than O"
        else:
            assert text.endswith("of 60 frames with other bonds than O, omitted")
            assert count == ()
            np.testing.assert_array_equal(result.dataset.positions, kept.positions)
            assert arrays(out)["replica"].shape == (len(kept),)
    again = label_md(water, out, 60, replace(how, reactions="drop"), sampling)
    assert (len(again.dataset), again.dataset.notes["reactions"]) == (len(kept), text)
    with pytest.raises(InputError, match="reactions is 'ignore', but must be one of stop"):
        Labelling(TOY, reactions="ignore")


def test_labels_have_the_charge_of_the_molecule(tmp_path):
    hydroxide = Molecule.from_smiles("[OH-]")
    label_frames([hydroxide], tmp_path / "out.npz", Labelling("gfn2-xtb", workers=1))
    data = Dataset.load(tmp_path / "out.npz")
    assert (data.charge, data.molecule.charge) == (-1, -1)


def test_sampling_says_where_the_calculator_failed(water, tmp_path):
    options = {"fail_above": -100.0, "quietly": True}
    with pytest.raises(InputError, match=r"replica 0: .*between 0 and 10 fs"):
        label_md(
            water, tmp_path / "md.npz", 4, replace(ALONE, options=options),
            Sampling(spacing=10.0, replicas=1),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spacing": 10.2}, r"spacing \(10\.2 fs\) must be a multiple"),
        ({"temperature": 0.0}, "temperature is 0.0 K, but must be a finite number above 0"),
        ({"friction": np.inf}, "friction is inf 1/ps, but must be a finite number"),
        ({"dt": np.nan}, "dt is nan fs, but must be a finite number"),
        ({"replicas": 0}, "replicas is 0, but must be a whole number of at least 1"),
        (
            {"equilibration": -1.0},
            "equilibration is -1.0 fs, but must be a finite number",
        ),
    ],
)
def test_a_sampling_refuses_values_out_of_range(settings, message):
    with pytest.raises(InputError, match=message):
        Sampling(**settings)
    with pytest.raises(InputError, match="workers is 0, but must be a whole number of at least 1"):
        Labelling(workers=0)


def test_the_equilibration_is_rounded_up_to_whole_frames():
    sampling = Sampling(spacing=np.float32(10.0), equilibration=25, dt=0.5)
    assert (sampling.frame_steps, sampling.waiting_frames) == (20, 3)
    assert isinstance(sampling.spacing, float)
    assert Sampling(spacing=0.3, dt=0.1, equilibration=0.9).waiting_frames == 3


def test_the_documentation_and_the_help_list_every_calculator(capsys):
    text = (HERE.parents[1] / "docs" / "labelling.md").read_text()
    with pytest.raises(SystemExit):
        parser().parse_args(["label", "--help"])
    help_text = " ".join(capsys.readouterr().out.split())
    for name in KNOWN:
        assert f"`{name}`" in text
        assert name in help_text


def test_conformers_differ():
    starts = starting_geometries("CCO", 2)
    assert not np.allclose(starts[0].positions, starts[1].positions)
    assert starting_geometries(str(HERE / "toy_calculators.py"), 2).endswith(".py")


# -- killed and continued ------------------------------------------------------------------------

SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from jaxff.molecule import Molecule
from jaxff.reference import Labelling, Sampling, label_frames, label_md
if __name__ == "__main__":
    water = Molecule.from_smiles("O")
    how = Labelling("toy_calculators:Springs", {options!r}, workers=2, name="w")
    if {kind!r} == "frames":
        starts = [water.with_positions(water.positions * (1 + 1e-4 * i)) for i in range(300)]
        label_frames(starts, sys.argv[1], how)
    else:
        sampling = Sampling(replicas=3, spacing=5, equilibration=50)
        label_md(water, sys.argv[1], 200, how, sampling)
"""


def running(group: int) -> bool:
    """Whether a process of a process group has not ended."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(its_group) == group and state not in "ZX":
            return True
    return False


@pytest.mark.parametrize("kind", ["frames", "md"])
def test_a_killed_run_continues_to_the_same_file(kind, tmp_path):
    log = tmp_path / "log"
    options = {"delay": 0.01 if kind == "frames" else 0.003, "log": str(log)}
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(here=str(HERE), kind=kind, options=options))
    whole, out = tmp_path / "whole.npz", tmp_path / "out.npz"
    rows = tmp_path / "out.npz.part" / "rows.bin"

    def start(target):
        return subprocess.Popen([sys.executable, script, target], start_new_session=True)

    assert start(whole).wait() == 0
    calls = len(log.read_bytes())
    log.unlink()
    rng = np.random.default_rng(0)
    kills = 0
    for _ in range(2):
        before = rows.stat().st_size if rows.exists() else 0
        process = start(out)
        while process.poll() is None and not (rows.exists() and rows.stat().st_size > before):
            time.sleep(0.01)
        more = int(rng.integers(5)) * 80  # bytes of a row
        while process.poll() is None and rows.stat().st_size <= before + more:
            time.sleep(0.001)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)  # only the parent: its workers must follow
            kills += 1
        process.wait()
        while running(process.pid):
            time.sleep(0.01)
    assert kills
    assert not out.exists()
    assert start(out).wait() == 0
    one, other = arrays(whole), arrays(out)
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])
    if kind == "frames":
        # At most the frame in each worker's hands is computed again after a kill.
        assert calls == 300
        assert len(log.read_bytes()) <= 300 + 2 * kills
