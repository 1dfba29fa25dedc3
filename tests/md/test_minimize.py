"""Minima against ASE's and SciPy's from the same starts."""

import json
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from ase.optimize import BFGS
from springs import springs

import jaxff
from jaxff import InputError, Molecule, md
from jaxff.ase import Calculator
from jaxff.cli import main
from jaxff.potential import Column, Potential, Term


@pytest.fixture(scope="module")
def ethanol():
    return Molecule.from_smiles("CCO")


@pytest.fixture(scope="module")
def gaff(ethanol):
    return jaxff.gaff(ethanol)


@pytest.mark.parametrize("method", ["lbfgs", "fire"])
def test_minima_are_those_of_ase_and_scipy(ethanol, gaff, method):
    rng = np.random.default_rng(0)
    starts = ethanol.positions + 0.1 * rng.normal(size=(4, 9, 3))
    found = md.minimize(gaff, ethanol, positions=starts, descent=md.Descent(method, tolerance=1e-5))
    assert found.converged.all()
    assert found.positions.shape == (4, 9, 3)
    for start, positions, energy in zip(starts, found.positions, found.energy, strict=True):
        forces = gaff.forces(positions)
        assert np.linalg.norm(forces, axis=1).max() <= 1e-5
        atoms = ethanol.to_ase()
        atoms.positions = start
        atoms.calc = Calculator(gaff)
        BFGS(atoms, logfile=None).run(fmax=1e-5)
        assert energy == pytest.approx(float(gaff(atoms.positions)), abs=1e-6)
        other = scipy.optimize.minimize(
            lambda x: float(gaff(x.reshape(9, 3))), start.ravel(), method="BFGS",
            jac=lambda x: -np.ravel(gaff.forces(x.reshape(9, 3))),
        )  # fmt: skip
        assert energy == pytest.approx(other.fun, abs=1e-6)


def test_potentials_and_calculators_have_the_same_minimum(ethanol, gaff):
    expected = md.minimize(gaff, ethanol, descent=md.Descent(tolerance=1e-5))
    found = md.minimize(Calculator(gaff), ethanol, descent=md.Descent(tolerance=1e-5))
    assert found.converged
    assert found.energy == pytest.approx(expected.energy, abs=1e-8)
    with pytest.raises(InputError, match="fire needs a potential and no constrained"):
        md.minimize(Calculator(gaff), ethanol, descent=md.Descent("fire"))
    with pytest.raises(InputError, match="not an energy surface"):
        md.minimize("gaff", ethanol)


def test_one_geometry_has_no_leading_axis(ethanol, gaff):
    found = md.minimize(gaff, ethanol)
    assert found.positions.shape == (9, 3)
    assert found.energy.shape == found.converged.shape == ()
    assert found.energy <= float(gaff(ethanol.positions))


def test_what_has_not_converged_says_so(ethanol, gaff):
    found = md.minimize(gaff, ethanol, descent=md.Descent(max_steps=2))
    assert not found.converged
    assert found.steps == 2
    assert found.max_force > 1e-4


def test_single_precision_reaches_what_it_can(ethanol, gaff):
    found = md.minimize(gaff.astype("float32"), ethanol, descent=md.Descent(tolerance=0.02))
    assert found.converged
    assert found.positions.dtype == np.float32


def test_noise_of_the_energy_does_not_stop_a_minimisation(ethanol, gaff):
    """Energies of kernels and of quantum methods have errors above those of float64."""

    class Rounded(Calculator):
        def calculate(self, *arguments, **options):
            super().calculate(*arguments, **options)
            self.results["energy"] = round(self.results["energy"], 7)  # eV

    descent = md.Descent(tolerance=1e-4, max_steps=200)
    found = md.minimize(Rounded(gaff), ethanol, descent=descent)
    assert found.converged
    exact = md.minimize(gaff, ethanol, descent=descent)
    assert float(gaff(found.positions)) == pytest.approx(float(exact.energy), abs=1e-6)


def test_bad_input_is_named(ethanol, gaff):
    with pytest.raises(InputError, match="must be one of lbfgs"):
        md.Descent("newton")
    with pytest.raises(InputError, match="positions must have shape"):
        md.minimize(gaff, ethanol, positions=np.zeros((2, 8, 3)))
    with pytest.raises(InputError, match="bonded atoms 0 and 1 are at the same position"):
        md.minimize(gaff, ethanol, positions=np.zeros((9, 3)))
    with pytest.raises(InputError, match=r"tolerance is 0\.0 kcal/mol/Å, but must be a finite"):
        md.Descent(tolerance=0.0)
    water = Molecule.from_smiles("O")
    with pytest.raises(InputError, match="not finite at the starting geometry, where atoms 0 and"):
        md.minimize(springs(water, limit=0.5), water)


@pytest.mark.parametrize("method", ["lbfgs", "fire"])
def test_bad_starts_of_a_batch_are_named(ethanol, gaff, method):
    starts = np.tile(ethanol.positions, (5, 1, 1))
    starts[3, 3] = starts[3, 8]  # two atoms in one place
    with pytest.raises(
        InputError, match=r"geometries 3 \(of 5, from 0\), where atoms 3 and 8 are 0 Å"
    ):
        md.minimize(gaff, ethanol, positions=starts, descent=md.Descent(method))
    starts[1, 0, 0] = np.nan
    with pytest.raises(InputError, match=r"geometries 1, 3 \(of 5, from 0\), where coordinates"):
        md.minimize(gaff, ethanol, positions=starts, descent=md.Descent(method))


@dataclass(frozen=True, eq=False)
class Cliff(Term):
    """A bowl, k/2 r², where y > -1, and a slope in x elsewhere that beyond x = 0 is no number."""

    n_atoms: int

    kind = "test cliff"
    columns: ClassVar = {"k": Column("kcal/mol/Å²")}

    def energies(self, params, R, space):
        x, y, _ = R.T
        inside = y > -1
        bowl, slope = (
            0.5 * params["k"] * jnp.sum(R**2, axis=1),
            x + 0.0 * jnp.sqrt(jnp.where(inside, 1.0, x)),
        )
        return {"cliff": jnp.sum(jnp.where(inside, bowl, slope))}


@pytest.mark.parametrize("method", ["lbfgs", "fire"])
def test_a_start_that_fails_on_the_way_leaves_the_others_intact(method):
    molecule = Molecule(np.array([18]), np.zeros((1, 3)), np.zeros((0, 2), int))
    cliff = Potential.of("cliff", Cliff(1), {"k": np.array(20.0)}, molecule)
    starts = np.array([[[1.0, 1.0, 0.0]], [[1.0, -2.0, 0.0]], [[2.0, 0.5, 1.0]]])
    found = md.minimize(cliff, molecule, positions=starts, descent=md.Descent(method))
    assert found.converged.tolist() == [True, False, True]
    assert np.isfinite(found.positions).all()
    assert np.isfinite([found.energy, found.max_force]).all()
    alone = md.minimize(cliff, molecule, positions=starts[[0, 2]], descent=md.Descent(method))
    np.testing.assert_allclose(found.positions[[0, 2]], alone.positions, atol=1e-12)


def test_the_command_writes_the_minimum(ethanol, gaff, tmp_path, capsys):
    import ase.io

    model, start, out = tmp_path / "m.npz", tmp_path / "m.xyz", tmp_path / "out"
    jaxff.save(model, gaff)
    ase.io.write(start, ethanol.to_ase())
    assert main(["minimize", str(model), str(start), "-o", str(out)]) == 0
    assert "kcal/mol in" in capsys.readouterr().out
    atoms = ase.io.read(out / "minimum.xyz")
    assert np.linalg.norm(gaff.forces(atoms.positions), axis=1).max() < 1e-3
    assert main(["minimize", str(model), str(start), "-o", str(out), "--max-steps", "1"]) == 1
    assert "is still" in capsys.readouterr().err


def test_the_command_takes_a_calculator(tmp_path, capsys):
    import ase.io
    from rdkit import Chem
    from rdkit.Chem import AllChem

    mol = Chem.AddHs(Chem.MolFromSmiles("CCCO"))
    AllChem.EmbedMolecule(mol, randomSeed=5)
    start, out, report = tmp_path / "m.xyz", tmp_path / "out", tmp_path / "out.json"
    ase.io.write(start, ase.Atoms([a.GetSymbol() for a in mol.GetAtoms()],
                                  mol.GetConformer().GetPositions()))  # fmt: skip
    arguments = ["minimize", "mmff94-rdkit", str(start), "-o", str(out)]
    assert main([*arguments, "--tolerance", "1e-3", "--json", str(report)]) == 0
    field = AllChem.MMFFGetMoleculeForceField(mol, AllChem.MMFFGetMoleculeProperties(mol))
    while field.Minimize(maxIts=1000, forceTol=1e-7, energyTol=1e-10):
        pass
    assert json.loads(report.read_text())["energy"] == pytest.approx(field.CalcEnergy(), abs=1e-4)
    assert main([*arguments, "--method", "fire"]) == 1
    assert "--method fire does not apply" in capsys.readouterr().err
