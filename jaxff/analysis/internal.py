"""Internal coordinates of a molecule, and geometries with given values of the coordinates.

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
    """Return `coordinates` as tuples of atoms; raise InputError if a coordinate is invalid."""
    try:
        checked = tuple(tuple(int(atom) for atom in atoms) for atoms in coordinates)
    except TypeError as error:
        raise InputError(
            "coordinates must be a list of tuples of atoms, such as [(0, 1, 2, 8)] for one torsion"
        ) from error
    for atoms in checked:
        if len(atoms) not in KINDS or len(set(atoms)) != len(atoms):
            raise InputError(
                f"{atoms} is not an internal coordinate: give 2 (distance), 3 (angle) or 4 "
                "(torsion) different atoms"
            )
        if min(atoms) < 0 or max(atoms) >= molecule.n_atoms:
            raise InputError(f"atoms of {atoms} must be 0 to {molecule.n_atoms - 1}")
    return checked


def label(molecule: Molecule, atoms: Sequence[int]) -> str:
    """Return the name of a coordinate, such as "torsion C1-C2-O3-H9" (atoms counted from 1)."""
    return f"{KINDS[len(atoms)]} {torsion_label(molecule, atoms)}"


def place(
    molecule: Molecule, coordinates: Coordinates, positions: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """Set internal coordinates by rigid rotation or translation of the smaller side of a bond.

    Args:
        molecule: molecule with the bonds.
        coordinates: K tuples of atoms.
        positions: (M, N, 3) Å.
        values: values of the coordinates, (M, K) Å or rad.

    Returns:
        the new positions (M, N, 3) Å.

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
            f"rigid motion cannot set {names} to these values: choose independent coordinates, "
            "angles between 0 and 180 degrees, or a relaxed scan"
        )
    return R


def is_movable(molecule: Molecule, coordinates: Coordinates) -> bool:
    """Whether `place` can set each of the coordinates."""
    try:
        for atoms in coordinates:
            moving_side(molecule, atoms)
    except InputError:
        return False
    return True


def moving_side(molecule: Molecule, atoms: Sequence[int]) -> tuple[np.ndarray, int]:
    """Find the atoms on the smaller side of a bond, which move to change a coordinate.

    Returns:
        indices (S,) of the atoms; and +1 for the side of the last atom of the coordinate, or −1
        for the side of the first atom.

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
            f"rigid motion cannot set {label(molecule, atoms)} (atoms {', '.join(map(str, atoms))} "
            "from 0), because the bond is in a ring or missing: choose bonded atoms outside rings, "
            "or a relaxed scan"
        )
    return min(sides, key=lambda side: (len(side[0]), -side[1]))


def _moved(R: np.ndarray, atoms, side: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Return positions (M, S, 3) Å of the side of a bond, moved by `amount` (M,) Å or rad."""
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
            "a coordinate has no axis of rotation, because atoms coincide or are in line: choose "
            "other atoms"
        )
    return vectors / length


def _deviations(coordinates: Coordinates, R: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the deviations (M, K) of geometries R (M, N, 3) Å from `values` (M, K)."""
    batched = jax.vmap(lambda R, v: deviations(coordinates, R, v))
    return np.asarray(batched(jnp.asarray(R), jnp.asarray(values)))
