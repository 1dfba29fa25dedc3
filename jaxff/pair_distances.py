"""Distances of pairs of atoms, for comparisons of frames.

The D = N(N−1)/2 pairs of N atoms have the order of the lower triangle of a matrix.
"""

from __future__ import annotations

import numpy as np

from jaxff.molecule import Molecule, equivalent_atoms

AT_ONCE = 2048  # frames compared at once


def inverse_distances(positions: np.ndarray, lattice: np.ndarray | None) -> np.ndarray:
    """Inverse distances (M, D) 1/Å of all pairs of atoms at positions (M, N, 3) Å."""
    pairs = np.stack(np.tril_indices(np.shape(positions)[1], -1), axis=1)
    with np.errstate(divide="ignore"):
        return 1.0 / pair_lengths(pairs, positions, lattice)


def pair_lengths(
    pairs: np.ndarray, positions: np.ndarray, lattice: np.ndarray | None = None
) -> np.ndarray:
    """Distances (M, P) Å of pairs of atoms (P, 2) at positions (M, N, 3) Å.

    With a lattice, they are distances of the nearest images.
    """
    i, j = np.asarray(pairs, int).reshape(-1, 2).T
    positions = np.asarray(positions, float)
    with np.errstate(over="ignore", invalid="ignore"):
        differences = positions[:, i] - positions[:, j]
        return np.linalg.norm(nearest_images(differences, lattice), axis=-1)


def nearest_images(differences: np.ndarray, lattice: np.ndarray | None) -> np.ndarray:
    """Differences (..., 3) Å of positions, replaced by those of the nearest images.

    The lattice vectors (3, 3) Å are columns; None leaves the differences as they are.
    """
    if lattice is None:
        return differences
    return differences - np.round(differences @ np.linalg.inv(lattice).T) @ lattice.T


def signatures(x: np.ndarray) -> np.ndarray:
    """Sums (M, 2) of inverse distances x (M, D) 1/Å and of their cubes."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.stack([x.sum(axis=1), (x**3).sum(axis=1)], axis=1)


def pair_classes(molecule: Molecule, permutations: np.ndarray | None) -> np.ndarray:
    """Class (D,) of each pair of atoms; see `Domain.of` for the arguments."""
    n = molecule.n_atoms
    i, j = np.tril_indices(n, -1)
    if permutations is None:
        colours = equivalent_atoms(molecule)
        bonded = np.zeros((n, n), int)
        a, b = np.asarray(molecule.bonds, int).reshape(-1, 2).T
        bonded[a, b] = bonded[b, a] = 1
        low, high = np.minimum(colours[i], colours[j]), np.maximum(colours[i], colours[j])
        keys = np.stack([low, high, bonded[i, j]], axis=1)
        return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    number = np.zeros((n, n), int)
    number[i, j] = number[j, i] = np.arange(len(i))
    return np.min([number[p[i], p[j]] for p in np.asarray(permutations)], axis=0)


def sorted_by_class(x: np.ndarray, orbits: np.ndarray) -> np.ndarray:
    """Values (M, D), sorted within each class of columns, one class after another.

    Args:
        x: (M, D) values.
        orbits: (D,) class of each column.
    """
    place = np.argsort(orbits, kind="stable")
    x, sorted_orbits = x[:, place], orbits[place]
    edges = np.flatnonzero(np.diff(sorted_orbits)) + 1
    out = x.copy()
    for start, stop in zip([0, *edges], [*edges, x.shape[1]], strict=True):
        if stop - start > 1:
            out[:, start:stop] = np.sort(x[:, start:stop], axis=1)
    return out


def with_squares(reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The reference (K, D) in float64, and the sums (K,) of the squares of its rows."""
    reference = reference.astype(float)
    return reference, (reference**2).sum(axis=1)


def nearest_distances(
    x: np.ndarray, reference: np.ndarray, squares: np.ndarray, *, skip_itself: bool = False
) -> np.ndarray:
    """Distances (M,) of points x (M, D) from the nearest row of `reference` (K, D).

    `squares` (K,) are the squared norms of these rows; `skip_itself` skips rows equal to x.
    """
    out = np.full(len(x), np.inf)
    for start in range(0, len(x), AT_ONCE):
        part = x[start : start + AT_ONCE]
        with np.errstate(invalid="ignore", over="ignore"):
            d = (part**2).sum(axis=1)[:, None] + squares - 2.0 * part @ reference.T
        if skip_itself:
            d[d < 1e-6 * squares.mean()] = np.inf
        if d.shape[1]:
            out[start : start + AT_ONCE] = np.sqrt(np.maximum(d.min(axis=1), 0.0))
    return out
