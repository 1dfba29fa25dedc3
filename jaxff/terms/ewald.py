"""Reciprocal-space part of Ewald sums: smooth particle mesh Ewald, and the plain sum.

Essmann, Perera, Berkowitz, Darden, Lee and Pedersen, J. Chem. Phys. 103, 8577 (1995).  Charges
here include the square root of the Coulomb constant.
"""

from __future__ import annotations

import math
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from jaxff import geometry

Array = jax.Array


def settings_of(box, cutoff: float, tolerance: float) -> tuple[float, tuple[int, int, int]]:
    """Splitting parameter α, 1/Å, and grid of PME for a tolerance, by the rule of OpenMM.

    Args:
        box: (3, 3) Å, lattice vectors as rows.
        cutoff: Å.
        tolerance: relative error of the forces.
    """
    alpha = math.sqrt(-math.log(2.0 * tolerance)) / cutoff
    # The diagonal of the box after its rotation to the reduced orientation.
    edges = np.abs(np.diag(np.linalg.qr(np.asarray(box, float).T)[1]))
    points = np.ceil(2.0 * alpha * edges / (3.0 * tolerance**0.2) - 1e-9)
    first, second, third = (_smooth_number(max(int(n), 6)) for n in points)
    return alpha, (first, second, third)


def _smooth_number(least: int) -> int:
    """The smallest number from `least` upwards without prime factors above 5."""
    rest = least
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    return least if rest == 1 else _smooth_number(least + 1)


def mesh_energy(
    R: Array, charges: Array, box: Array, alpha: float, grid: tuple[int, int, int], order: int
) -> Array:
    """Reciprocal energy () kcal/mol by smooth particle mesh Ewald, eq. 4.7.

    Args:
        R: (N, 3) Å.
        charges: (N,) √(kcal/mol Å).
        box: (3, 3) Å, lattice vectors as rows.
        alpha: α, 1/Å.
        grid: numbers of grid points along the lattice vectors.
        order: order of the B-splines.
    """
    reciprocal = geometry.inverse(box)  # its columns are the reciprocal vectors
    scaled = (R @ reciprocal) * jnp.asarray(grid, R.dtype)
    below = jnp.floor(jax.lax.stop_gradient(scaled))
    weights = _splines(scaled - below, order)
    start = below.astype(jnp.int32) % jnp.asarray(grid, jnp.int32)
    along = (charges[:, None] * weights[:, 0])[:, :, None, None] * weights[:, 1][:, None, :, None]
    spread = along * weights[:, 2][:, None, None, :]
    # Windows that cross the end of the grid lie in a margin, which is then added to the start.
    margin = order - 1
    mesh = jax.lax.scatter_add(
        jnp.zeros([n + margin for n in grid], R.dtype),
        start,
        spread,
        jax.lax.ScatterDimensionNumbers((1, 2, 3), (), (0, 1, 2)),
        mode="promise_in_bounds",
    )
    for axis, n in enumerate(grid):
        mesh = jnp.moveaxis(mesh, axis, 0)
        while len(mesh) > n:  # more than once if the grid is smaller than the margin
            rest = mesh[n:]
            width = min(len(rest), n)
            mesh = jnp.concatenate([mesh[:n].at[:width].add(rest[:width]), rest[width:]])
        mesh = jnp.moveaxis(mesh, 0, axis)
    waves = jnp.fft.rfftn(mesh)
    influence = _influence(reciprocal, box, alpha, grid, order)
    return 0.5 * (influence * (waves.real**2 + waves.imag**2)).sum()


def _splines(x: Array, order: int) -> Array:
    """Weights (N, 3, order) of the grid points from order − 1 points below up to the point below.

    They are the cardinal B-splines M(x + order − 1), ..., M(x), eq. 4.1.

    Args:
        x: (N, 3) distances from the grid point below, in units of the spacing.
        order: order of the B-splines.
    """
    values = [x, 1.0 - x]
    for n in range(3, order + 1):
        padded = [0.0, *values, 0.0]
        values = [((x + k) * padded[k + 1] + (n - k - x) * padded[k]) / (n - 1.0) for k in range(n)]
    return jnp.stack(values[::-1], axis=-1)


def _influence(reciprocal, box, alpha, grid, order):
    """Energies of the squared structure factors of the mesh, with the weights of half spectra."""
    volume = jnp.abs(geometry.determinant(box))
    numbers = [np.fft.fftfreq(n, 1.0 / n) for n in grid[:2]] + [np.arange(grid[2] // 2 + 1.0)]
    m = [jnp.asarray(x, reciprocal.dtype) for x in numbers]
    shapes = (-1, 1, 1), (1, -1, 1), (1, 1, -1)
    waves = [
        sum(m[a].reshape(shapes[a]) * reciprocal[k, a] for a in range(3)) for k in range(3)
    ]  # m in Å⁻¹, by component
    square = sum(w * w for w in waves)
    moduli = [_moduli(n, order) for n in grid]
    moduli[2] = moduli[2][: grid[2] // 2 + 1]
    twice = np.full(len(moduli[2]), 2.0)  # the other half of the spectrum is conjugate
    twice[0] = 1.0
    if grid[2] % 2 == 0:
        twice[-1] = 1.0
    factors = moduli[0][:, None, None] * moduli[1][None, :, None] * (twice * moduli[2])
    factors[0, 0, 0] = 0.0
    nonzero = jnp.where(factors > 0.0, square, 1.0)
    damped = jnp.exp(-((math.pi / alpha) ** 2) * nonzero) / nonzero
    return jnp.asarray(factors, damped.dtype) * damped / (math.pi * volume)


@lru_cache(maxsize=64)
def _moduli(n: int, order: int) -> np.ndarray:
    """Squared moduli (n,) of the Euler exponential splines, eq. 4.4."""
    values = np.array([1.0, 0.0])  # M(1), M(2), ... of order 2
    for p in range(3, order + 1):
        k = np.arange(1, p)
        low, high = np.append(values, 0.0)[: p - 1], np.append(0.0, values)[: p - 1]
        values = (k * low + (p - k) * high) / (p - 1)
    k = np.arange(order - 1)
    sums = np.exp(2j * np.pi * np.outer(np.arange(n), k) / n) @ values[: order - 1]
    squares = np.abs(sums) ** 2
    # For odd orders the sum vanishes at n/2; the mean of the neighbours is used there.
    small = np.flatnonzero(squares < 1e-7)
    squares[small] = 0.5 * (squares[small - 1] + squares[(small + 1) % n])
    return 1.0 / squares


def plain_energy(R: Array, charges: Array, box: Array, alpha: float, waves: np.ndarray) -> Array:
    """Reciprocal energy () kcal/mol by the plain Ewald sum.

    Args:
        R: (N, 3) Å.
        charges: (N,) √(kcal/mol Å).
        box: (3, 3) Å, lattice vectors as rows.
        alpha: α, 1/Å.
        waves: (K, 3) integers; one of each pair of opposite wave vectors, without zero.
    """
    m = waves @ geometry.inverse(box).T
    square, phase = (m * m).sum(axis=1), 2.0 * math.pi * (m @ R.T)
    parts = (jnp.cos(phase) @ charges) ** 2 + (jnp.sin(phase) @ charges) ** 2
    damped = jnp.exp(-((math.pi / alpha) ** 2) * square) / square
    return (damped * parts).sum() / (math.pi * jnp.abs(geometry.determinant(box)))


def constant_energy(charges: Array, box: Array, alpha: float) -> Array:
    """Energy () kcal/mol of the charges with themselves and with a neutralising background.

    The arguments are those of `plain_energy`.
    """
    own = alpha / math.sqrt(math.pi) * (charges * charges).sum()
    volume = jnp.abs(geometry.determinant(box))
    return -own - 0.5 * math.pi * charges.sum() ** 2 / (volume * alpha**2)
