"""Solvers of the kernel system: they agree, keep their state, and report failures."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxff import gdml
from jaxff.errors import InputError
from jaxff.gdml import dense, solvers
from jaxff.gdml.conjugate import NotConverged
from jaxff.gdml.dense import Dense, dense_bytes, factor_dtype
from jaxff.gdml.iterative import Iterative
from jaxff.gdml.nystrom import nystrom
from jaxff.gdml.operator import KernelOperator
from jaxff.gdml.solvers import affordable_columns, automatic, free_memory, make_solver

SHARDED = Path(__file__).with_name("sharded.py")


@pytest.fixture(scope="module")
def op(frames, group):
    return KernelOperator.of(frames.positions, group, 12.0, 1e-7)


@pytest.fixture(scope="module")
def y(op, frames):
    return op.observed(frames.forces / frames.forces.std())


@pytest.fixture(scope="module")
def matrix(op):
    index = np.arange(op.n_frames)
    return np.asarray(op.block(index, index)).reshape(op.size, -1) + 1e-7 * np.eye(op.size)


def test_solutions_equal_numpys(op, y, matrix, monkeypatch):
    monkeypatch.setattr(dense, "_TILE", 150)  # four tiles
    expected = np.linalg.solve(matrix, np.ravel(y)).reshape(y.shape)
    scale = np.abs(expected).max()
    factor = Dense(op)
    assert len(factor.tiles) == 4
    np.testing.assert_allclose(factor.solve(y), expected, rtol=0, atol=1e-7 * scale)
    both = jnp.stack([y, 2.0 * y], axis=-1)
    np.testing.assert_allclose(factor(both)[..., 1], 2.0 * expected, rtol=0, atol=1e-5 * scale)
    assert factor.log_determinant() == pytest.approx(np.linalg.slogdet(matrix)[1], rel=1e-6)
    iterative = Iterative(op, 120, tolerance=1e-10).solve(y)
    np.testing.assert_allclose(iterative, expected, rtol=0, atol=1e-6 * scale)


def test_a_single_precision_factor_serves_large_lambda(frames, group, y):
    op = KernelOperator.of(frames.positions, group, 12.0, 1e-4)
    assert factor_dtype(op) == jnp.float32
    single, double = Dense(op, jnp.float32).solve(y), Dense(op).solve(y)
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-9 * float(jnp.abs(double).max()))
    small = KernelOperator.of(frames.positions, group, 12.0, 1e-10)
    assert factor_dtype(small) == jnp.float64


def test_the_preconditioner_approaches_the_inverse(op, y, matrix):
    few, many = nystrom(op, 40), nystrom(op, op.size)
    exact = np.linalg.solve(matrix, np.ravel(y))
    error = [np.linalg.norm(np.ravel(p(y)) - exact) / np.linalg.norm(exact) for p in (few, many)]
    assert error[1] < 0.5 * error[0]


def test_giving_up_keeps_the_state_and_the_same_call_continues(op, y, tmp_path):
    path = tmp_path / "state.npz"
    straight = Iterative(op, 60, tolerance=1e-8).solve(y)
    with pytest.raises(NotConverged, match=r"5 iterations .* is 1.0e-08: .*state\.npz"):
        Iterative(op, 60, tolerance=1e-8, max_iterations=5, checkpoint=path).solve(y)
    resumed = Iterative(op, 60, tolerance=1e-8, checkpoint=path)
    assert len(resumed.restored(resumed.store(y)).residuals) == 5
    np.testing.assert_array_equal(resumed.solve(y), straight)
    assert resumed.restored(resumed.store(2.0 * y)) is None  # the state of other labels


def test_an_interruption_at_any_iteration_resumes_to_the_same_solution(op, y, tmp_path):
    straight = Iterative(op, 60, tolerance=1e-6).solve(y)
    rng = np.random.default_rng(0)
    path, calls = tmp_path / "state.npz", []

    def interrupted(phase, fraction):
        calls.append(phase)
        if phase.startswith("iteration") and rng.random() < 0.2:
            raise KeyboardInterrupt

    for _ in range(100):
        solver = Iterative(
            op, 60, tolerance=1e-6, checkpoint=path, interval=0.0, progress=interrupted
        )
        try:
            found = solver.solve(y)
            break
        except KeyboardInterrupt:
            continue
    assert len({c for c in calls if c.startswith("iteration")}) > 3
    np.testing.assert_array_equal(found, straight)


def test_a_system_too_large_for_the_memory_is_refused_with_the_figures(op, frames, monkeypatch):
    monkeypatch.setattr(solvers.memory, "held", lambda: 10**9 - solvers.COMPILED)
    full, much, little = (free_memory(limit) for limit in (1.0, 2.0, 1.0 + 1.5e-3))
    run = gdml.Run(memory=1.0)
    with pytest.raises(InputError, match=r"504 unknowns needs 0\.0 GB, but 0\.0 GB are free"):
        make_solver(op, gdml.Solver("dense"), run, "ethanol")
    with pytest.raises(InputError, match="smallest preconditioner"):
        make_solver(op, gdml.Solver("iterative"), run, "ethanol")
    with pytest.raises(InputError, match="smallest preconditioner"):
        make_solver(op, gdml.Solver("auto"), run, "ethanol")
    assert automatic(op, much) == "dense"
    assert automatic(op, full) == "iterative"
    assert affordable_columns(op, much, "ethanol") == solvers.FEWEST_COLUMNS
    assert affordable_columns(op, little, "ethanol") < solvers.FEWEST_COLUMNS
    monkeypatch.setattr(solvers, "TYPICAL_ITERATIONS", 1)
    assert automatic(op, much) == "iterative"
    with pytest.raises(InputError, match="one of auto, dense, iterative"):
        gdml.Solver("lu")


def test_the_memory_of_the_factor_is_that_of_half_the_matrix(op, monkeypatch):
    monkeypatch.setattr(dense, "_TILE", 50)
    tiles = Dense(op).tiles
    held = sum(tile.nbytes for row in tiles for tile in row)
    assert 8 * op.size**2 / 2 < held < dense_bytes(op) < 8 * op.size**2


def test_iterative_training_predicts_as_dense_training(frames, group):
    options = {"sigma": 12.0, "kernel": gdml.Kernel(lam=1e-8, symmetries=group)}
    dense = gdml.train(frames, solver=gdml.Solver("dense"), **options)
    iterative = gdml.train(frames, solver=gdml.Solver("iterative", tolerance=1e-10), **options)
    for a, b in zip(
        dense.predict(frames.positions), iterative.predict(frames.positions), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="use the dense solver"):
        gdml.train(
            frames,
            sigma=12.0,
            kernel=gdml.Kernel(1e-8, group, energies="constrain"),
            solver=gdml.Solver("iterative"),
        )


@pytest.mark.parametrize("processes", [1, 2])
def test_frames_spread_over_devices_change_nothing(processes):
    """Eight forced devices in one process, and one device in each of two processes."""
    with socket.socket() as free:  # the system chooses a port that no process uses
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    runs = [
        subprocess.Popen(
            [sys.executable, SHARDED, str(processes), str(k), port],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(processes)
    ]
    for run in runs:
        out, err = run.communicate(timeout=300)
        assert run.returncode == 0, err[-2000:]
        found = json.loads(out.strip().splitlines()[-1])
        assert found["devices"] == (8 if processes == 1 else 2)
        assert found["product"] < 1e-12
        assert found["forces"] < 1e-6
