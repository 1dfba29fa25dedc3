"""Periodic boxes: lattice vectors as the rows of a (3, 3) array, in Å."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxff.errors import InputError
from jaxff.npz import usable

OCTAHEDRON = float(np.degrees(np.arccos(-1.0 / 3.0)))  # angles of a truncated octahedron


def box_of(box: Any, who: str = "the box") -> np.ndarray:
    """The reduced box (3, 3) Å of lattice vectors, or of lengths and angles.

    Args:
        box: (3,) lengths Å of a rectangular box; (6,) lengths Å and angles α, β, γ in degrees; or
            (3, 3) Å, lattice vectors as rows, the first along x and the second in the xy plane.
        who: the origin of the box, for messages.

    Returns:
        Lattice vectors as rows, in the reduced form of `reduced`.

    Raises:
        InputError: the box has another shape or orientation, is not finite, or has no volume.
    """
    box = np.array(box, float)
    if box.shape not in ((3,), (6,), (3, 3)) or not usable(box).all():
        raise InputError(
            f"{who}: a box must be 3 lengths, 3 lengths and 3 angles, or 3 lattice vectors, all "
            f"finite (got {box.tolist()})"
        )
    if box.shape == (3,):
        box = np.diag(box)
    elif box.shape == (6,):
        box = _of_lengths_and_angles(box[:3], np.radians(box[3:]), who)
    size = np.abs(box).max()
    if np.abs(np.triu(box, 1)).max() > 1e-6 * size:
        raise InputError(
            f"{who}: the first lattice vector must be along x and the second in the xy plane (got "
            f"{box.tolist()}); rotate the system"
        )
    box = np.tril(box)
    if (np.diag(box) <= 1e-6 * max(size, 1.0)).any():
        raise InputError(
            f"{who}: the box {box.tolist()} has no volume; correct its lengths and angles"
        )
    return reduced(box)


def _of_lengths_and_angles(lengths: np.ndarray, angles: np.ndarray, who: str) -> np.ndarray:
    cos_a, cos_b, cos_c = np.where(np.abs(angles - np.pi / 2) < 1e-9, 0.0, np.cos(angles))
    sin_c = np.sin(angles[2])
    if sin_c > 1e-6:
        y = (cos_a - cos_b * cos_c) / sin_c
        height2 = 1.0 - cos_b**2 - y**2
        if height2 > 1e-9:
            rows = [[1.0, 0.0, 0.0], [cos_c, sin_c, 0.0], [cos_b, y, np.sqrt(height2)]]
            return lengths[:, None] * np.array(rows)
    raise InputError(
        f"{who}: no box has the angles {np.degrees(angles).round(4).tolist()}°; correct the angles"
    )


def reduced(box: np.ndarray) -> np.ndarray:
    """The reduced form (3, 3) Å of a lower triangular box; it spans the same lattice.

    In the reduced form, |b_x| ≤ a_x/2, |c_x| ≤ a_x/2 and |c_y| ≤ b_y/2, as GROMACS and OpenMM
    require.

    Args:
        box: (3, 3) Å, lattice vectors as rows.
    """
    a, b, c = np.array(box, float)
    c = c - b * _whole(c[1] / b[1])
    c = c - a * _whole(c[0] / a[0])
    b = b - a * _whole(b[0] / a[0])
    # OpenMM refuses vectors that exceed a half by a rounding error.
    b[0], c[0] = np.clip([b[0], c[0]], -0.5 * a[0], 0.5 * a[0])
    c[1] = np.clip(c[1], -0.5 * b[1], 0.5 * b[1])
    return np.array([a, b, c])


def _whole(ratio: float) -> float:
    # A ratio of ½, as in a truncated octahedron, must not depend on rounding errors.
    return 0.0 if abs(ratio) <= 0.5 + 1e-6 else float(np.round(ratio))


def lengths_and_angles(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths (3,) Å and angles α, β, γ (3,) degrees of a box (3, 3) Å."""
    lengths = np.linalg.norm(box, axis=1)
    pairs = ((1, 2), (0, 2), (0, 1))
    cosines = np.array([box[i] @ box[j] / (lengths[i] * lengths[j]) for i, j in pairs])
    return lengths, np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))


def volume(box: np.ndarray) -> float:
    """Volume () Å³ of a box (3, 3) Å."""
    return float(abs(np.linalg.det(box)))


def widths(box) -> np.ndarray:
    """Distances (..., 3) Å between opposite faces of boxes (..., 3, 3) Å."""
    return 1.0 / np.linalg.norm(np.linalg.inv(np.asarray(box, float)), axis=-2)


def truncated_octahedron(width: float) -> np.ndarray:
    """The reduced box (3, 3) Å of a truncated octahedron.

    Args:
        width: () Å, distance between a point and its nearest periodic images.
    """
    return box_of([width] * 3 + [OCTAHEDRON] * 3)


def amber_box(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths (3,) Å and angles (3,) degrees of a box (3, 3) Å, as AMBER writes them.

    A truncated octahedron has the angles `OCTAHEDRON`, unlike its reduced form.
    """
    lengths, angles = lengths_and_angles(box)
    if np.abs(truncated_octahedron(box[0, 0]) - box).max() < 1e-5 * box[0, 0]:
        angles = np.full(3, OCTAHEDRON)
    return lengths, angles


def nearest(vectors: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Vectors (..., 3) Å to nearly nearest images; exact if shorter than half of every width.

    Args:
        vectors: (..., 3) Å.
        box: (3, 3) Å, reduced.
    """
    vectors = np.array(vectors, float)
    for axis in (2, 1, 0):
        vectors -= np.round(vectors[..., axis : axis + 1] / box[axis, axis]) * box[axis]
    return vectors


def whole_molecules(
    positions: np.ndarray, box: np.ndarray, bonds: np.ndarray, molecules: np.ndarray
) -> np.ndarray:
    """Positions (N, 3) Å in which no molecule is divided by a face of the box.

    Args:
        positions: (N, 3) Å.
        box: (3, 3) Å, reduced.
        bonds: (B, 2) atom indices, also between virtual sites and their atoms.
        molecules: (N,) index of the molecule of each atom.
    """
    vectors = positions[bonds[:, 1]] - positions[bonds[:, 0]]
    broken = np.abs(nearest(vectors, box) - vectors).max(axis=1, initial=0.0) > 1e-6
    divided = np.isin(molecules, molecules[bonds[broken, 0]])
    if not divided.any():
        return positions
    neighbours: dict[int, list[int]] = {}
    for i, j in bonds[divided[bonds[:, 0]]].tolist():
        neighbours.setdefault(i, []).append(j)
        neighbours.setdefault(j, []).append(i)
    positions, done = positions.copy(), ~divided
    for first in np.flatnonzero(divided).tolist():
        if done[first]:
            continue
        done[first], stack = True, [first]
        while stack:
            atom = stack.pop()
            for other in neighbours.get(atom, ()):
                if not done[other]:
                    step = nearest(positions[other] - positions[atom], box)
                    positions[other], done[other] = positions[atom] + step, True
                    stack.append(other)
    return positions
