"""The factorisation in tiles against SciPy's."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jaxff.gdml import cholesky


def positive_matrix(n, seed=0):
    G = np.random.default_rng(seed).normal(size=(n, n))
    return G @ G.T + n * np.eye(n)


def tiles_of(A, side):
    count = len(A) // side
    return [
        [jnp.asarray(A[side * i : side * (i + 1), side * j : side * (j + 1)]) for j in range(i + 1)]
        for i in range(count)
    ]


@pytest.mark.parametrize(("n", "side"), [(1, 1), (64, 16), (150, 50), (600, 300), (700, 700)])
def test_factor_and_solution_equal_scipy(n, side, monkeypatch):
    monkeypatch.setattr(cholesky, "_BLOCK", 40)  # tiles are halved down to this
    A = positive_matrix(n)
    tiles, done = tiles_of(A, side), []
    cholesky.factorise(tiles, done.append)
    L = scipy.linalg.cholesky(A, lower=True)
    for i, row in enumerate(tiles):
        for j, tile in enumerate(row):
            expected = L[side * i : side * (i + 1), side * j : side * (j + 1)]
            np.testing.assert_allclose(tile, expected, rtol=0, atol=1e-12 * n)
    assert done[-1] == pytest.approx(1.0)
    assert done == sorted(done)
    for b in (np.arange(1.0, n + 1), np.random.default_rng(1).normal(size=(n, 3))):
        x = cholesky.solve(tiles, jnp.asarray(b))
        np.testing.assert_allclose(x, np.linalg.solve(A, b), rtol=1e-10, atol=1e-12)
    assert cholesky.log_determinant(tiles) == pytest.approx(np.linalg.slogdet(A)[1], rel=1e-12)


def test_float32_solutions_have_single_precision():
    A = positive_matrix(120)
    tiles = tiles_of(A.astype(np.float32), 40)
    cholesky.factorise(tiles)
    x = cholesky.solve(tiles, jnp.ones(120, jnp.float32))
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, np.linalg.solve(A, np.ones(120)), rtol=1e-3)


@pytest.mark.parametrize(("at", "tile"), [(0, 1), (40, 2), (119, 4)])
def test_indefinite_matrices_are_reported(at, tile):
    A = positive_matrix(120)
    A[at, at] = -1.0
    with pytest.raises(cholesky.NotPositiveDefinite, match=f"tile {tile} of 4"):
        cholesky.factorise(tiles_of(A, 30))
