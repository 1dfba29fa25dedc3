"""The blocked factorisation against SciPy's."""

import numpy as np
import pytest
import scipy.linalg

from jaxff.gdml import cholesky


def positive_matrix(n, seed=0):
    G = np.random.default_rng(seed).normal(size=(n, n))
    return G @ G.T + n * np.eye(n)


@pytest.mark.parametrize(("n", "block"), [(1, 4), (7, 16), (64, 16), (150, 32), (500, 128)])
def test_factor_and_solution_equal_scipy(n, block):
    A = positive_matrix(n)
    L = A.copy()
    L[np.triu_indices(n, 1)] = np.nan  # only the lower triangle may be read
    for start in range(0, n, block):  # but for blocks on the diagonal, which are symmetric
        part = slice(start, start + block)
        L[part, part] = A[part, part]
    done = []
    cholesky.factorise(L, block, done.append)
    expected = scipy.linalg.cholesky(A, lower=True)
    np.testing.assert_allclose(np.tril(np.nan_to_num(L)), expected, rtol=0, atol=1e-12 * n)
    assert done[-1] == pytest.approx(1.0)
    assert done == sorted(done)
    for b in (np.arange(1.0, n + 1), np.random.default_rng(1).normal(size=(n, 3))):
        x = cholesky.solve(np.nan_to_num(L), b, block)
        np.testing.assert_allclose(x, np.linalg.solve(A, b), rtol=1e-10, atol=1e-12)


def test_panels_longer_than_the_row_chunk(monkeypatch):
    monkeypatch.setattr(cholesky, "_ROWS", 23)
    A = positive_matrix(120)
    L = A.copy()
    cholesky.factorise(L, 16)
    np.testing.assert_allclose(np.tril(L), scipy.linalg.cholesky(A, lower=True), atol=1e-10)


@pytest.mark.parametrize("at", [0, 40, 119])
def test_indefinite_matrices_are_reported(at):
    A = positive_matrix(120)
    A[at, at] = -1.0
    with pytest.raises(cholesky.NotPositiveDefinite, match=f"order {at // 32 * 32 + 1} to"):
        cholesky.factorise(A, 32)
