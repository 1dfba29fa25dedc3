"""Internal coordinates of a molecule, set by rigid motion of one side of a bond.

An internal coordinate is a tuple of atoms: two for their distance (Å), three for the angle at the
middle atom (rad), four for a torsion (rad).
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import networkx
import numpy as np

from jaxff.analysis.torsions import torsion_label
from jaxff.errors import InputError
from jaxff.md.constraints import Coordinates, deviations
from jaxff.molecule import Molecule

KINDS = {2: "distance", 3: "angle", 4: "torsion"}


def checked_coordinates(molecule: Molecule, coordinates: Sequence[Sequence[int]]) -> Coordinates:
    """Return `coordinates` as tuples of atoms; raise InputError if invalid."""
    try:
        checked = tuple(tuple(int(atom) for atom in atoms) for atoms in coordinates)
    except TypeError as error:
        raise InputError(
            "coordinates must be a list of tuples of atoms, such as [(0, 1, 2, 8)] for one torsion"
        ) from error
    for atoms in checked:
        if len(atoms) not in KINDS or len(set(atoms)) != len(atoms):
            raise InputError(
                f"{atoms} is no internal coordinate: give 2 (distance), 3 (angle) or 4 (torsion) "
                "different atoms"
            )
        if min(atoms) < 0 or max(atoms) >= molecule.n_atoms:
            raise InputError(f"{atoms} names an atom outside 0..{molecule.n_atoms - 1}")
    return checked


def label(molecule: Molecule, atoms: Sequence[int]) -> str:
    """The name of a coordinate, such as "torsion C1-C2-O3-H9" (atoms counted from 1)."""
    return f"{KINDS[len(atoms)]} {torsion_label(molecule, atoms)}"


def place(
    molecule: Molecule, coordinates: Coordinates, positions: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """Set internal coordinates by rigid motion of one side of a bond.

    The side with fewer atoms is rotated or translated.

    Args:
        molecule: provides the bonds.
        coordinates: K tuples of atoms.
        positions: (M, N, 3) Å.
        values: (M, K) Å or rad.

    Returns:
        (M, N, 3) Å.

    Raises:
        InputError: a bond is in a ring or does not exist, or the coordinates depend on each other.
    """
    R = np.array(positions, float)
    for k, atoms in enumerate(coordinates):
        side, sign = moving_side(molecule, atoms)
        off = -_deviations((atoms,), R, values[:, k : k + 1])[:, 0]
        R[:, side] = _moved(R, atoms, side, sign * off)
    off = np.abs(_deviations(coordinates, R, values))
    if off.size and off.max() > 1e-4:
        names = " and ".join(label(molecule, atoms) for atoms in coordinates)
        raise InputError(
            f"{names} cannot have these values by rigid motion: they depend on each other, or "
            "an angle is outside 0 to 180 degrees"
        )
    return R


def is_movable(molecule: Molecule, coordinates: Coordinates) -> bool:
    """Whether a rigid motion of one side of a bond changes each of the coordinates."""
    try:
        for atoms in coordinates:
            moving_side(molecule, atoms)
    except InputError:
        return False
    return True


def moving_side(molecule: Molecule, atoms: Sequence[int]) -> tuple[np.ndarray, int]:
    """Atoms of the smaller side of a coordinate's bond, and the sign of their motion.

    Returns:
        (S,) indices; +1 if the side of the last atom moves, −1 if that of the first does.

    Raises:
        InputError: the bond does not exist or is in a ring.
    """
    atoms = tuple(atoms)
    half = 2 if len(atoms) == 4 else 1
    sides = []
    for moving, fixed, sign in (
        (atoms[-half:], atoms[:-half], 1),
        (atoms[:half], atoms[half:], -1),
    ):
        graph = molecule.graph.copy()
        bond = (moving[0], fixed[-1]) if sign > 0 else (moving[-1], fixed[0])
        if graph.has_edge(*bond):
            graph.remove_edge(*bond)
        elif len(atoms) > 2:  # a distance between two molecules needs no bond
            continue
        side = networkx.node_connected_component(graph, moving[0])
        if side >= set(moving) and not side & set(fixed):
            sides.append((np.array(sorted(side)), sign))
    if not sides:
        raise InputError(
            f"{label(molecule, atoms)} (atoms {', '.join(map(str, atoms))} from 0) cannot be set "
            "by rigid motion: its bond is in a ring, or its atoms are not bonded in this order"
        )
    return min(sides, key=lambda side: (len(side[0]), -side[1]))


def _moved(R: np.ndarray, atoms, side: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Positions (M, S, 3) Å of a side moved by `amount` (M,) Å or rad."""
    points = [R[:, a] for a in atoms]
    if len(atoms) == 2:
        return R[:, side] + (amount[:, None] * _unit(points[1] - points[0]))[:, None]
    if len(atoms) == 3:
        axis = np.cross(points[0] - points[1], points[2] - points[1])
    else:
        axis = points[2] - points[1]
    axis, origin = _unit(axis)[:, None], points[1][:, None]
    arm = R[:, side] - origin
    cos, sin = np.cos(amount)[:, None, None], np.sin(amount)[:, None, None]
    along = (arm * axis).sum(axis=-1, keepdims=True) * axis
    return origin + cos * arm + sin * np.cross(axis, arm) + (1.0 - cos) * along


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not (length > 1e-6).all():
        raise InputError(
            "the axis of a coordinate is undefined, because its atoms coincide or are in line: "
            "choose other atoms"
        )
    return vectors / length


def _deviations(coordinates: Coordinates, R: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`deviations` (M, K) of geometries R (M, N, 3) Å from `values` (M, K)."""
    batched = jax.vmap(lambda R, v: deviations(coordinates, R, v))
    return np.asarray(batched(jnp.asarray(R), jnp.asarray(values)))
