"""Blocked Cholesky factorisation in place, for matrices too large for LAPACK's own.

LAPACK's factorisation in OpenBLAS crashes, or reports a false failure, for n above about
22,800 on two threads.  Here only blocks are factorised by LAPACK; all else is matrix products,
which run at full speed on every core.  All of it is NumPy's: SciPy brings a second pool of
threads, and two pools that wait for each other halve the speed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_ROWS = 4096  # rows of a panel treated at once: bounds the temporary arrays


class NotPositiveDefinite(ArithmeticError):
    """A leading minor is not positive."""


def factorise(
    A: np.ndarray, block: int = 256, progress: Callable[[float], None] | None = None
) -> None:
    """Overwrite the lower triangle of A (n, n), C order, by L with A = L Lᵀ.

    Only the lower triangle is read; blocks on the diagonal lose their upper part, the rest of
    the upper triangle is left alone.

    Args:
        A: (n, n) float64, C order.
        block: width of the panels.
        progress: called with the fraction done.

    Raises:
        NotPositiveDefinite: A is not positive definite (A is then spoilt).
    """
    n = len(A)
    for start in range(0, n, block):
        stop = min(start + block, n)
        panel = A[:, start:stop]
        if start:
            done = A[start:stop, :start].T
            for row in range(start, n, _ROWS):
                rows = slice(row, min(row + _ROWS, n))
                panel[rows] -= A[rows, :start] @ done
        try:
            corner = np.linalg.cholesky(panel[start:stop])
        except np.linalg.LinAlgError as error:
            raise NotPositiveDefinite(
                f"a leading minor of order {start + 1} to {stop} is not positive"
            ) from error
        panel[start:stop] = corner
        for row in range(stop, n, _ROWS):
            rows = slice(row, min(row + _ROWS, n))
            panel[rows] = np.linalg.solve(corner, panel[rows].T).T
        if progress is not None:
            progress(1.0 - (1.0 - stop / n) ** 2 * (1.0 + 2.0 * stop / n))


def solve(L: np.ndarray, b: np.ndarray, block: int = 256) -> np.ndarray:
    """The solution of L Lᵀ x = b for L (n, n) from `factorise` and b (n,) or (n, k)."""
    x = np.array(b, float)
    starts = range(0, len(L), block)
    for start in starts:
        part = slice(start, start + block)
        x[part] = np.linalg.solve(L[part, part], x[part] - L[part, :start] @ x[:start])
    for start in reversed(starts):
        part = slice(start, start + block)
        rest = x[part] - L[start + block :, part].T @ x[start + block :]
        x[part] = np.linalg.solve(L[part, part].T, rest)
    return x
