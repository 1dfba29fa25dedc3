"""Errors and fitting on data made by a known potential."""

import numpy as np
import optax
import pytest

from jaxff import Dataset, InputError, Molecule, evaluate, fit, gaff
from jaxff.dataset import packaged_dataset
from jaxff.learn import Gradient


@pytest.fixture
def water():
    return Molecule.from_smiles("O")


@pytest.fixture
def truth(springs, water):
    """H-O-H in the chain order of the springs."""
    return springs(3, k=900.0, length=0.96, molecule=water.reorder([1, 0, 2]))


@pytest.fixture
def data(truth):
    rng = np.random.default_rng(0)
    R = truth.molecule.positions + 0.08 * rng.normal(size=(60, 3, 3))
    energies, forces = truth.predict(R)
    return Dataset(truth.molecule.numbers, R, forces, energies, name="water")


def test_errors_are_those_of_the_definition(truth, data):
    shifted = Dataset(data.numbers, data.positions, data.forces + 1.0, data.energies - 300.0)
    score = evaluate(truth, shifted)
    assert score["energy_mae"] == pytest.approx(0.0, abs=1e-10)
    assert score["force_mae"] == pytest.approx(1.0)
    assert score["force_rmse"] == pytest.approx(1.0)


def test_atom_order_never_matters(truth, data, springs):
    other = data.reorder([1, 0, 2])
    assert evaluate(truth, other)["force_rmse"] == pytest.approx(0.0, abs=1e-10)
    start = springs(3, k=700.0, length=1.1, molecule=truth.molecule)
    same = [fit(start, part, method=Gradient(epochs=2)).history["loss"] for part in (data, other)]
    np.testing.assert_allclose(*same, rtol=1e-9)


def test_fit_recovers_the_parameters_that_made_the_data(truth, data, springs):
    start = springs(3, k=600.0, length=1.15, molecule=truth.molecule)
    split = data.split(40, 10, None, seed=1)
    method = Gradient(epochs=300, batch=10, patience=300)
    result = fit(start, split.train, valid=split.valid, method=method)
    assert result.trained == ("spring.k", "spring.length")
    assert evaluate(result.potential, split.test)["force_rmse"] < 0.05
    np.testing.assert_allclose(result.potential.params["spring"]["k"], 900.0, rtol=2e-3)
    np.testing.assert_allclose(result.potential.params["spring"]["length"], 0.96, atol=1e-4)
    assert result.history["valid_force_rmse"].min() == pytest.approx(
        evaluate(result.potential, split.valid)["force_rmse"]
    )


def test_patterns_choose_what_moves(truth, data, springs):
    start = springs(3, k=600.0, length=1.15, molecule=truth.molecule)
    result = fit(
        start, data, trainable=["*.k"], method=Gradient(epochs=3, optimizer=optax.sgd(1e-4))
    )
    assert np.array_equal(result.potential.params["spring"]["length"], [1.15, 1.15])
    assert not np.array_equal(result.potential.params["spring"]["k"], [600.0, 600.0])
    with pytest.raises(InputError, match=r"no parameter matches .*: spring.k, spring.length"):
        fit(start, data, trainable=["torsion.*"])


def test_the_net_charge_is_kept():
    data = packaged_dataset("ethanol")[:40]
    start = gaff(data.molecule)
    fitted = fit(start, data, method=Gradient(epochs=3)).potential
    rows = start.program.placed[-1].term.charge_rows
    charge = [np.asarray(p.params["nonbonded"]["charge"]) for p in (start, fitted)]
    assert np.abs(charge[1] - charge[0]).max() > 1e-4
    assert charge[1][rows].sum() == pytest.approx(charge[0][rows].sum(), abs=1e-12)


def test_bounds_hold(data, springs, truth):
    start = springs(3, k=5.0, length=0.96, molecule=truth.molecule)
    idle = Dataset(data.numbers, data.positions, 0.0 * data.forces)
    result = fit(start, idle, method=Gradient(epochs=30))
    assert (np.asarray(result.potential.params["spring"]["k"]) >= 0).all()


def test_bad_input_is_one_sentence(truth, data, springs):
    with pytest.raises(InputError, match="at least 2 frames"):
        fit(truth, data[:1])
    with pytest.raises(InputError, match="no frames to evaluate"):
        evaluate(truth, data[:0])
    with pytest.raises(InputError, match="O is H2O, water is H2S"):
        evaluate(truth, Dataset([1, 16, 1], data.positions, data.forces, name="water"))
    with pytest.raises(InputError, match="the potential has 2"):
        evaluate(springs(2), data)
    method = Gradient(optimizer=optax.sgd(1e12))
    with pytest.raises(InputError, match="loss is not finite in epoch"):
        fit(springs(3, molecule=truth.molecule), data, method=method)
