"""Compiled programs of potentials, which are run by a process that cannot import jaxff."""

import subprocess
import sys

import numpy as np
import pytest

import jaxff
from jaxff import InputError, Molecule
from jaxff.cli import main
from jaxff.stablehlo import export

pytest.importorskip("flatbuffers")

READ = """
import sys
sys.modules["jaxff"] = None  # an import of jaxff fails
from load_stablehlo import load
import numpy as np
run, header = load("model.stablehlo")
energy, forces = run(np.load("R.npy"))
np.savez("result.npz", energy=energy, forces=forces)
print(header["atoms"], header["numbers"], header["units"]["forces"], header["platforms"])
"""


def test_a_program_gives_the_same_numbers_without_jaxff(tmp_path):
    ethanol = Molecule.from_smiles("CCO")
    potential = jaxff.gaff(ethanol, charges="gasteiger", form="class2")
    jaxff.save(tmp_path / "model.npz", potential)
    assert (
        main(["export", str(tmp_path / "model.npz"), "--to", "stablehlo", "-o", str(tmp_path)]) == 0
    )
    R = ethanol.positions + np.random.default_rng(0).normal(0.0, 0.05, (9, 3))
    np.save(tmp_path / "R.npy", R)
    shown = subprocess.run(
        [sys.executable, "-c", READ], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert shown == "9 [6, 6, 8, 1, 1, 1, 1, 1, 1] kcal/mol/Å ['cpu', 'cuda']\n"
    found = np.load(tmp_path / "result.npz")
    energy, forces = potential.energy_and_forces(R)
    assert found["energy"] == pytest.approx(float(energy), abs=1e-9)
    np.testing.assert_allclose(found["forces"], forces, atol=1e-9)


def test_a_potential_without_a_fixed_number_of_atoms_is_refused(tmp_path):
    water = jaxff.gaff(Molecule.from_smiles("O")).on([0, 1, 2])
    with pytest.raises(InputError, match="has no fixed number of atoms"):
        export(tmp_path / "x.stablehlo", water)
    assert not list(tmp_path.iterdir())
