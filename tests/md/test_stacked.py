"""Molecules of different sizes in one simulation move as they do alone."""

import numpy as np
import pytest

import jaxff
from jaxff import InputError, Molecule, md


@pytest.fixture(scope="module")
def molecules():
    return [Molecule.from_smiles(smiles, seed=2) for smiles in ("CO", "CCO", "O=CO")]


@pytest.fixture(scope="module")
def stack(molecules):
    return jaxff.stack([jaxff.gaff(m, charges="gasteiger") for m in molecules])


def test_constant_energy_runs_equal_those_of_single_molecules(stack, molecules):
    settings = dict(steps=60, output=md.Output(every=20))
    nve = md.NVE(temperature=300.0, dt=0.5)
    runs = md.simulate_stack(stack, molecules, nve, start=md.Start(seed=5), **settings)
    for k in (2,):
        start = md.Start(seed=5 + k)
        alone = md.simulate(stack[k], molecules[k], nve, start=start, **settings)
        np.testing.assert_allclose(runs[k].positions, alone.positions, atol=1e-8)
        np.testing.assert_allclose(runs[k].velocities, alone.velocities, atol=1e-8)
        np.testing.assert_allclose(runs[k].potential_energies, alone.potential_energies, atol=1e-7)
        np.testing.assert_allclose(runs[k].temperatures, alone.temperatures, atol=1e-5)
        np.testing.assert_allclose(runs[k].times, alone.times)
        again = md.simulate(
            stack[k], molecules[k], nve, steps=60, start=runs[k].state, output=md.Output(every=20)
        )
        assert again.state.step == 120


def test_langevin_heats_all_molecules_alike(stack, molecules):
    ensemble = md.Langevin(temperature=300.0, friction=20.0, dt=0.5)
    output = md.Output(every=20)
    runs = md.simulate_stack(stack, molecules, ensemble, steps=10_000, output=output)
    for run, molecule in zip(runs, molecules, strict=True):
        assert run.degrees_of_freedom == 3 * molecule.n_atoms
        mean = run.temperatures[200:].mean()
        assert abs(mean - 300.0) < 40.0


def test_bad_input_is_one_sentence(stack, molecules):
    with pytest.raises(InputError, match="2 molecules for a stack of 3 potentials"):
        md.simulate_stack(stack, molecules[:2])
    with pytest.raises(InputError, match=r"molecule 0 .* different atoms or atom orders"):
        md.simulate_stack(stack, molecules[::-1])
    with pytest.raises(InputError, match="use Langevin or NVE"):
        md.simulate_stack(stack, molecules, md.CSVR())
    with pytest.raises(InputError, match=r"multiple of output\.every"):
        md.simulate_stack(stack, molecules, steps=12)
