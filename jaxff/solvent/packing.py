"""Placement of rigid molecules in a box without overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxff import cell
from jaxff.errors import InputError

# Smallest distances, Å, between atoms of different molecules in packed boxes.
HEAVY, LIGHT = 2.6, 1.9
MARGIN = 0.1  # Å by which the minimisation tries to exceed these distances
STEPS = 400


def close_pairs(
    first: np.ndarray, second: np.ndarray, box: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of points that are closer than a cutoff, with all their periodic images.

    Args:
        first, second: (N, 3) and (M, 3) Å.
        box: (3, 3) Å, lattice vectors as rows.
        cutoff: () Å, less than half of the smallest width of the box.

    Returns:
        Indices (P,) of the first points, indices (P,) of the second, and the vectors (P, 3) Å from
        the first to the second.
    """
    from scipy.spatial import KDTree

    inverse = np.linalg.inv(box)
    a, b = (x @ inverse for x in (first, second))
    a, b = a - np.floor(a), b - np.floor(b)
    margin = cutoff / cell.widths(box)
    images, origin = [b], [np.arange(len(b))]
    for axis in range(3):
        points, places = images[-1], origin[-1]
        low, high = points[:, axis] < margin[axis], points[:, axis] > 1.0 - margin[axis]
        step = np.eye(3)[axis]
        images.append(np.concatenate([points, points[low] + step, points[high] - step]))
        origin.append(np.concatenate([places, places[low], places[high]]))
    points, places = images[-1] @ box, origin[-1]
    start = a @ box
    near = KDTree(start).sparse_distance_matrix(KDTree(points), cutoff, output_type="ndarray")
    i, j = near["i"], near["j"]
    return i, places[j], points[j] - start[i]


def rotations(count: int, random: np.random.Generator) -> Any:
    """`count` uniformly distributed random rotations, a `scipy.spatial.transform.Rotation`."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_quat(random.normal(size=(count, 4)))


def packed(
    molecules: Sequence[tuple[np.ndarray, np.ndarray, int]],
    box: np.ndarray,
    random: np.random.Generator,
) -> list[np.ndarray]:
    """Place rigid molecules at random, and move and rotate them until no atoms overlap.

    The sum of squared overlaps is minimised over the positions and orientations of the molecules.

    Args:
        molecules: (positions (n, 3) Å, whether each atom is heavy (n,), number of copies) of each
            kind of molecule.
        box: (3, 3) Å, lattice vectors as rows.
        random: source of random numbers.

    Returns:
        Positions (M, n, 3) Å of the copies of each kind.  Heavy atoms of different molecules are at
        least `HEAVY` apart, and all other pairs of atoms at least `LIGHT`.

    Raises:
        InputError: the molecules do not fit into the box.
    """
    from scipy.optimize import minimize
    from scipy.spatial.transform import Rotation

    counts = [count for *_, count in molecules]
    centred = [R - R.mean(axis=0) for R, _, _ in molecules]
    total = sum(counts)
    owner = np.concatenate(
        [
            np.repeat(np.arange(c), len(R)) + s
            for R, c, s in zip(centred, counts, np.cumsum([0, *counts[:-1]]), strict=True)
        ]
    )
    turns = rotations(total, random).as_matrix()
    local = np.concatenate([np.tile(R, (c, 1)) for R, c in zip(centred, counts, strict=True)])
    local = np.einsum("nij,nj->ni", turns[owner], local)
    heavy = np.concatenate([np.tile(h, c) for (_, h, c) in molecules])
    centres = _grid(total, box, random) @ box
    atoms = np.flatnonzero(heavy), np.arange(len(heavy))

    def overlap(x: np.ndarray) -> tuple[float, np.ndarray]:
        shift, vectors = x.reshape(2, total, 3)
        turned = Rotation.from_rotvec(vectors[owner]).apply(local)
        R = (centres + shift)[owner] + turned
        energy, slope = 0.0, np.zeros_like(R)
        for group, limit in zip(atoms, (HEAVY, LIGHT), strict=True):
            i, j, d = close_pairs(R[group], R[group], box, limit + MARGIN)
            i, j = group[i], group[j]
            apart = owner[i] != owner[j]
            i, j, d = i[apart], j[apart], d[apart]
            r = np.maximum(np.linalg.norm(d, axis=1), 1e-6)
            excess = limit + MARGIN - r
            energy += 0.25 * float(excess @ excess)  # each pair occurs twice
            np.add.at(slope, i, (excess / r)[:, None] * d)
        by_shift, by_turn = np.zeros((total, 3)), np.zeros((total, 3))
        np.add.at(by_shift, owner, slope)
        np.add.at(by_turn, owner, np.cross(turned, slope))
        return energy, np.concatenate([by_shift.ravel(), _of_vectors(vectors, by_turn).ravel()])

    x = np.zeros(6 * total)
    for _ in range(4):
        x = minimize(overlap, x, jac=True, method="L-BFGS-B", options={"maxiter": STEPS}).x
        shift, vectors = x.reshape(2, total, 3)
        R = (centres + shift)[owner] + Rotation.from_rotvec(vectors[owner]).apply(local)
        clash = _clashes(R, owner, heavy, box)
        if not len(clash):
            break
        # Molecules that remain in contact get a new random orientation.
        vectors[clash] = rotations(len(clash), random).as_rotvec()
        x = np.concatenate([shift.ravel(), vectors.ravel()])
    else:
        raise InputError(
            f"{total} molecules do not fit into a box of {cell.volume(box):.0f} Å³ without "
            "overlaps; give a lower density"
        )
    sizes = np.cumsum([len(c) * n for c, n in zip(centred, counts, strict=True)])[:-1]
    return [
        part.reshape(n, len(c), 3)
        for part, c, n in zip(np.split(R, sizes), centred, counts, strict=True)
    ]


def _clashes(R: np.ndarray, owner: np.ndarray, heavy: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Indices of the molecules with atoms closer than `HEAVY` or `LIGHT`."""
    found = []
    for group, limit in ((np.flatnonzero(heavy), HEAVY), (np.arange(len(R)), LIGHT)):
        i, j, _ = close_pairs(R[group], R[group], box, limit)
        i, j = owner[group[i]], owner[group[j]]
        found.append(i[i != j])
    return np.unique(np.concatenate(found))


def _grid(count: int, box: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Fractional coordinates (count, 3) of random points of a grid in the box."""
    spacing = (cell.volume(box) / count) ** (1.0 / 3.0)
    shape = np.maximum(np.ceil(cell.widths(box) / spacing).astype(int), 1)
    points = np.stack(np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij"), axis=-1)
    return random.permutation(points.reshape(-1, 3))[:count]


def _of_vectors(vectors: np.ndarray, torque: np.ndarray) -> np.ndarray:
    """Derivatives by rotation vectors (M, 3) of a function with derivatives `torque` by rotations.

    The right-hand side is Jᵀ τ with the left Jacobian J of the exponential map.
    """
    angle = np.linalg.norm(vectors, axis=1)[:, None]
    small = angle < 1e-4
    a = np.where(small, 1.0, angle)
    first = np.where(small, 0.5, (1.0 - np.cos(a)) / a**2)
    second = np.where(small, 1.0 / 6.0, (a - np.sin(a)) / a**3)
    crossed = np.cross(vectors, torque)
    return torque - first * crossed + second * np.cross(vectors, crossed)
