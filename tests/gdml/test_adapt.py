"""A baseline adapted together with its kernel: recovery, bounds, and a better sum."""

import sys

import numpy as np
import pytest

from jaxff import Dataset, Molecule, evaluate, gaff, gdml
from jaxff.dataset import packaged_dataset
from jaxff.gdml.adapt import Adaptation
from jaxff.gdml.system import KernelSystem
from jaxff.gdml.training import force_rmse


@pytest.fixture
def water():
    return Molecule.from_smiles("O").reorder([1, 0, 2])


@pytest.fixture
def frames(springs, water):
    """Frames of H-O-H, labelled with springs of 900 kcal/mol/Å² at 0.96 Å."""
    truth = springs(3, k=900.0, length=0.96, molecule=water)
    R = water.positions + 0.05 * np.random.default_rng(0).normal(size=(30, 3, 3))
    energies, forces = truth.predict(R)
    return Dataset(water.numbers, R, forces, energies, name="water")


def test_parameters_that_made_the_data_are_recovered(springs, water, frames):
    system = KernelSystem(frames, np.arange(3)[None], 5.0, lam=1e-8)
    start = springs(3, k=600.0, length=1.1, molecule=water)
    found = Adaptation(start).fitted(system, frames, prior=1e-6)
    np.testing.assert_allclose(found.params["spring"]["k"], 900.0, rtol=1e-3)
    np.testing.assert_allclose(found.params["spring"]["length"], 0.96, atol=1e-4)


def test_adapting_beside_an_iterative_solver_uses_some_of_the_frames(
    springs, water, frames, monkeypatch
):
    monkeypatch.setattr(sys.modules["jaxff.gdml.training"], "ADAPT_UNKNOWNS", 30)  # ten frames
    start = springs(3, k=600.0, length=1.1, molecule=water)
    report = []
    found = gdml.train(
        frames[:20],
        frames[20:],
        sigma=5.0,
        baseline=start,
        kernel=gdml.Kernel(lam=1e-8, adapt_baseline=True, symmetries=None),
        solver=gdml.Solver("iterative", tolerance=1e-8),
        run=gdml.Run(progress=lambda phase, fraction: report.append(phase)),
    )
    assert {"factorising", "conjugate gradients"} <= set(report)
    assert 600.0 < float(found.params["spring"]["k"][0]) < 1200.0
    fixed = gdml.train(
        frames[:20], sigma=5.0, baseline=start, kernel=gdml.Kernel(lam=1e-8, symmetries=None)
    )
    assert force_rmse(found, frames[20:]) < 0.5 * force_rmse(fixed, frames[20:])


def test_bounds_hold(springs, water, frames):
    upside_down = Dataset(frames.numbers, frames.positions, -frames.forces)
    system = KernelSystem(upside_down, np.arange(3)[None], 5.0, lam=1e-8)
    start = springs(3, k=20.0, length=0.96, molecule=water)
    found = Adaptation(start).fitted(system, upside_down, prior=1e-6)
    assert (np.asarray(found.params["spring"]["k"]) >= 0.0).all()


def test_the_hybrid_of_adapted_gaff_beats_the_kernel_from_the_same_frames():
    split = packaged_dataset("ethanol").split(30, 20, 200, seed=1)
    plain = gdml.train(split.train, sigma=10.0)
    baseline = gaff(split.train.molecule)
    hybrid = gdml.train(
        split.train,
        split.valid,
        sigma=10.0,
        baseline=baseline,
        kernel=gdml.Kernel(adapt_baseline=True),
    )
    score = [evaluate(p, split.test)["force_mae"] for p in (plain, hybrid)]
    assert score[1] < 0.9 * score[0]
    charge = [
        float(np.sum(np.asarray(p.params["nonbonded"]["charge"])[rows]))
        for p, rows in ((q, q.program.placed[4].term.charge_rows) for q in (baseline, hybrid))
    ]
    assert charge[1] == pytest.approx(charge[0], abs=1e-9)
