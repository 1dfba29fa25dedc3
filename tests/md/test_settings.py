"""Settings of simulations validate themselves, and the command line reads the ensembles."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import ase.io
import jax
import numpy as np
import pytest
from springs import springs

import jaxff
from jaxff import InputError, Molecule, md
from jaxff.cli import main, parser
from jaxff.commands.md import _ensemble
from jaxff.md.differentiable import Plan


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: md.NVE(dt=0.0), "dt is 0.0 fs, but must be a finite number above 0"),
        (lambda: md.NVE(dt=[0.5, 0.5]), r"dt is \[0.5, 0.5\] fs, but must be a finite number"),
        (
            lambda: md.Langevin(-1.0),
            "temperature is -1.0 K, but must be one or several",
        ),
        (lambda: md.Langevin([300.0, np.nan]), "temperature is"),
        (lambda: md.Langevin([]), "temperature is"),
        (lambda: md.Langevin("hot"), "temperature is 'hot' K, but must be"),
        (lambda: md.Langevin(None), "temperature is None K"),
        (lambda: md.Langevin(friction=None), "friction is None"),
        (lambda: md.Langevin([[300.0, 300.0]]), "temperature is"),
        (
            lambda: md.Start(replicas="2"),
            "replicas is '2', but must be a whole number",
        ),
        (lambda: md.Start(seed=None), "seed is None, but must be a whole number"),
        (lambda: md.Output(every=None), "every is None, but must be a whole number of at least 1"),
        (lambda: md.Stop(stretch="x"), "stretch is 'x', but must be a number above 1"),
        (lambda: md.Langevin(final_temperature=np.inf), "final_temperature is inf K"),
        (lambda: md.Langevin(friction=-1.0), "friction is -1.0 1/ps"),
        (lambda: md.CSVR(relaxation=0.0), "relaxation is 0.0 fs"),
        (lambda: md.NoseHoover([300.0, 0.0]), "temperatures above 0 K"),
        (lambda: md.NoseHoover(final_temperature=0.0), "at the start and at the end"),
        (lambda: md.NoseHoover(relaxation=1.0, dt=0.6), r"at least 2 time steps \(1.2 fs\)"),
        (lambda: md.Start(replicas=0), "replicas is 0, but must be a whole number of at least 1"),
        (lambda: md.Start(seed=2**63), "seed is 9223372036854775808"),
        (lambda: md.Output(every=2.5), "every is 2.5"),
        (
            lambda: md.Output("a.h5", restart="./a.h5"),
            "the restart file must have different names",
        ),
        (lambda: md.Stop(stretch=1.0), "stretch is 1.0, but must be a number above 1"),
        (lambda: md.Stop(max_temperature=np.nan), "max_temperature is nan K"),
        (lambda: Plan(steps=15, every=10), r"steps \(15\) must be a multiple of every \(10\)"),
        (lambda: Plan(every=10, segment=3), r"every \(10\) must be a multiple of segment \(3\)"),
        (lambda: Plan(method="adjoint"), "method is 'adjoint', but must be one of"),
    ],
)
def test_settings_out_of_range_are_named_when_they_are_made(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_settings_are_plain_numbers_that_can_be_compared():
    one = md.Langevin(np.array([300.0]), friction=np.float32(2.0), dt=np.int64(1))
    assert one == md.Langevin(300.0, friction=2.0, dt=1.0)
    assert {type(x) for x in (one.temperature, one.friction, one.dt)} == {float}
    assert md.CSVR(np.array([200.0, 300.0])).temperature == (200.0, 300.0)
    assert len({one, md.Langevin(300.0, friction=2.0, dt=1.0)}) == 1
    start = md.Start(np.zeros((4, 3, 3)))
    assert start.replicas == 4
    assert md.Output("run.h5").path.name == "run.h5"


def test_settings_may_be_traced():
    def half(dt, temperature):
        ensemble = md.Langevin(temperature, dt=dt)
        return 0.5 * ensemble.dt * ensemble.temperatures(2)[0].sum()

    assert jax.grad(half)(0.5, 300.0) == pytest.approx(300.0)


def test_only_an_ensemble_is_taken_for_one():
    water = Molecule.from_smiles("O")
    with pytest.raises(InputError, match="ensemble='nve' must be an ensemble such as Langevin"):
        md.simulate(springs(water), water, "nve", steps=10)
    with pytest.raises(InputError, match=r"unknown trajectory format '\.xtc'"):
        md.simulate(springs(water), water, steps=10, output=md.Output("run.xtc"))


def test_replicas_are_those_of_the_positions():
    water = Molecule.from_smiles("O")
    starts = np.stack([water.positions, 1.01 * water.positions])
    run = md.simulate(springs(water), water, md.NVE(), steps=10, start=md.Start(starts))
    np.testing.assert_allclose(run.positions[:, 0], starts)


def test_settings_import_no_jax():
    code = "import sys; from jaxff.md import Langevin, Output; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- the command line ---------------------------------------------------------------------------


def test_the_command_line_has_an_option_for_each_setting_of_each_ensemble():
    for name, kind in md.ENSEMBLES.items():
        command = ["md", "a.npz", "b.xyz", "-o", "c", "--ensemble", name]
        expected = {}
        for item in fields(kind):
            flag = f"--{item.name.replace('_', '-')}"
            if isinstance(item.default, str):
                value = item.metadata["rule"].choices[-1]
            elif isinstance(item.default, bool):
                value = True
            else:
                value = 2 * (item.default or 1.0)
            command += [flag] if value is True else [flag, str(value)]
            expected[item.name] = value
        assert _ensemble(parser().parse_args(command)) == kind(**expected)
    bare = parser().parse_args(["md", "a.npz", "b.xyz", "-o", "c", "--ensemble", "csvr"])
    assert _ensemble(bare) == md.CSVR()
    several = parser().parse_args(["md", "a", "b", "-o", "c", "--temperature", "200,300"])
    assert _ensemble(several) == md.Langevin([200.0, 300.0])


def test_the_guide_lists_each_ensemble():
    guide = (Path(__file__).parents[2] / "docs" / "dynamics.md").read_text()
    for name, kind in md.ENSEMBLES.items():
        assert f"| `{name}` | `{kind.__name__}` |" in guide


def test_the_command_refuses_an_option_that_the_ensemble_does_not_have(tmp_path, capsys):
    water = Molecule.from_smiles("O")
    jaxff.save(tmp_path / "m.npz", jaxff.gaff(water))
    ase.io.write(tmp_path / "m.xyz", water.to_ase())
    command = ["md", str(tmp_path / "m.npz"), str(tmp_path / "m.xyz"), "-o", str(tmp_path / "run")]
    assert main([*command, "--remove-rotation"]) == 1
    error = capsys.readouterr().err
    assert "--remove-rotation does not apply to --ensemble langevin" in error
    assert "--ensemble nve" in error
