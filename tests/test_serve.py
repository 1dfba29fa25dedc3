"""The client of the i-PI protocol, with the server of ASE."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.calculators.socketio import SocketIOCalculator
from ase.md.verlet import VelocityVerlet

import jaxff
from jaxff import Molecule
from jaxff.ase import Calculator
from jaxff.cli import main

ETHANOL = Molecule.from_smiles("CCO")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "ethanol.npz"
    jaxff.save(path, jaxff.gaff(ETHANOL, charges="gasteiger"))
    return path


def test_ase_gets_the_same_dynamics_through_a_socket(model, capsys):
    name = f"jaxff-test-{os.getpid()}"
    codes = []
    serving = threading.Thread(
        target=lambda: codes.append(main(["serve", str(model), "--unix", name]))
    )
    serving.start()  # it waits for the server
    ends = []
    for socket in (True, False):
        atoms = ETHANOL.to_ase()
        rng = np.random.default_rng(0)
        atoms.set_momenta(rng.normal(0.0, 0.3, (9, 3)))
        calculator = (
            SocketIOCalculator(unixsocket=name) if socket else Calculator(jaxff.load(model))
        )
        atoms.calc = calculator
        VelocityVerlet(atoms, 0.5 * units.fs).run(10)
        ends.append((atoms.positions, atoms.get_potential_energy()))
        if socket:
            calculator.close()
    serving.join(60.0)
    assert codes == [0]
    assert "ended the connection after 11 evaluations" in capsys.readouterr().out
    np.testing.assert_allclose(ends[0][0], ends[1][0], atol=1e-12)
    assert ends[0][1] == pytest.approx(ends[1][1], abs=1e-12)


def test_a_missing_server_is_named(model, capsys):
    assert main(["serve", str(model), "--unix", "nobody-is-here", "--wait", "0.1"]) == 1
    assert "no server at the UNIX socket nobody-is-here" in capsys.readouterr().err


PATH_INTEGRAL = """
<simulation verbosity='quiet'>
  <output prefix='simulation'>
    <properties stride='1'>[step, potential{electronvolt}]</properties>
  </output>
  <total_steps>4</total_steps>
  <prng><seed>1</seed></prng>
  <ffsocket mode='unix' name='driver' pbc='False'><address>ADDRESS</address></ffsocket>
  <system>
    <initialize nbeads='8'>
      <file mode='xyz'>start.xyz</file>
      <velocities mode='thermal' units='kelvin'>300</velocities>
    </initialize>
    <forces><force forcefield='driver'/></forces>
    <motion mode='dynamics'>
      <dynamics mode='nvt'>
        <timestep units='femtosecond'>0.25</timestep>
        <thermostat mode='pile_g'><tau units='femtosecond'>25</tau></thermostat>
      </dynamics>
    </motion>
    <ensemble><temperature units='kelvin'>300</temperature></ensemble>
  </system>
</simulation>
"""


def test_i_pi_runs_a_path_integral(model, tmp_path):
    pytest.importorskip("ipi")
    address = f"jaxff-ipi-{os.getpid()}"
    (tmp_path / "input.xml").write_text(PATH_INTEGRAL.replace("ADDRESS", address))
    atoms = ETHANOL.to_ase()
    lines = [f"{s} {x:.10f} {y:.10f} {z:.10f}" for s, (x, y, z) in zip(
        atoms.get_chemical_symbols(), atoms.positions, strict=True)]  # fmt: skip
    comment = "# CELL(abcABC): 50 50 50 90 90 90 cell{angstrom} positions{angstrom}"
    (tmp_path / "start.xyz").write_text("\n".join(["9", comment, *lines, ""]))
    with subprocess.Popen(
        [Path(sys.executable).with_name("i-pi"), "input.xml"], cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as server:  # fmt: skip
        code = main(["serve", str(model), "--unix", address, "--wait", "20"])
        shown = server.communicate(timeout=120)[0]
    assert code == 0, shown
    energies = np.loadtxt(tmp_path / "simulation.out")
    assert energies.shape == (5, 2)
    # The beads start at the same geometry.
    start = float(jaxff.load(model)(ETHANOL.positions)) / jaxff.units.EV
    assert energies[0, 1] == pytest.approx(start, abs=1e-6)
