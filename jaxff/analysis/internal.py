"""One molecule at given values of a distance, an angle or a torsion.

An internal coordinate is a tuple of atoms: two for their distance (Å), three for the angle at the
middle one, four for a torsion (rad).
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import networkx
import numpy as np

from jaxff import geometry
from jaxff.analysis.torsions import torsion_label
from jaxff.errors import InputError
from jaxff.molecule import Molecule

Array = jax.Array
Coordinates = tuple[tuple[int, ...], ...]

KINDS = {2: "distance", 3: "angle", 4: "torsion"}
LONGEST = 0.3  # Å or rad, of one step of the correction


def checked_coordinates(molecule: Molecule, coordinates: Sequence[Sequence[int]]) -> Coordinates:
    """`coordinates` as tuples of atoms of `molecule`; InputError if they are not."""
    try:
        found = tuple(tuple(int(atom) for atom in atoms) for atoms in coordinates)
    except TypeError as error:
        raise InputError(
            "coordinates must be a list of tuples of atoms, such as [(0, 1, 2, 8)] for one torsion"
        ) from error
    for atoms in found:
        if len(atoms) not in KINDS or len(set(atoms)) != len(atoms):
            raise InputError(
                f"{atoms} is no internal coordinate: give 2 (distance), 3 (angle) or 4 (torsion) "
                "different atoms"
            )
        if min(atoms) < 0 or max(atoms) >= molecule.n_atoms:
            raise InputError(f"{atoms} names an atom outside 0..{molecule.n_atoms - 1}")
    return found


def label(molecule: Molecule, atoms: Sequence[int]) -> str:
    """The coordinate in words, such as "torsion C1-C2-O3-H9" (atoms counted from 1)."""
    return f"{KINDS[len(atoms)]} {torsion_label(molecule, atoms)}"


def measure(coordinates: Coordinates, R: Array) -> Array:
    """Values (K,) Å or rad of the coordinates at positions R (N, 3) Å."""
    functions = {2: geometry.distance, 3: geometry.angle, 4: geometry.dihedral}
    found = [functions[len(a)](*(R[i] for i in a)) for a in coordinates]
    return jnp.stack(found) if found else jnp.zeros(0, R.dtype)


def misses(coordinates: Coordinates, R: Array, values: Array) -> Array:
    """How far (K,) Å or rad the coordinates at R (N, 3) Å are beyond `values`, the short way."""
    off = measure(coordinates, R) - values
    turns = np.array([len(atoms) == 4 for atoms in coordinates], bool)
    return jnp.where(turns, jnp.arctan2(jnp.sin(off), jnp.cos(off)), off)


def tangent(coordinates: Coordinates, R: Array, vectors: Array) -> Array:
    """The part of `vectors` (N, 3) along which the coordinates at R (N, 3) Å stay as they are."""
    if not coordinates:
        return vectors
    normals = _normals(coordinates, R)
    return vectors - _step(normals, normals @ vectors.ravel()).reshape(R.shape)


def settle(coordinates: Coordinates, R: Array, values: Array, rounds: int = 6) -> Array:
    """Positions (N, 3) Å near R (N, 3) Å at which the coordinates have `values` (K,).

    Newton's steps along the coordinates' gradients, as in SHAKE: J.-P. Ryckaert, G. Ciccotti and
    H. J. C. Berendsen, J. Comput. Phys. 23, 327 (1977).
    """
    if not coordinates:
        return R

    def correct(_, R):
        off = jnp.clip(misses(coordinates, R, values), -LONGEST, LONGEST)
        return R - _step(_normals(coordinates, R), off).reshape(R.shape)

    return jax.lax.fori_loop(0, rounds, correct, R)


def _normals(coordinates: Coordinates, R: Array) -> Array:
    """Gradients (K, 3N) of the coordinates."""
    jacobian = jax.jacrev(lambda R: measure(coordinates, R))(R)
    return jacobian.reshape(len(coordinates), -1)


def _step(normals: Array, off: Array) -> Array:
    """The shortest displacement (3N,) that changes the coordinates by `off` (K,)."""
    gram = normals @ normals.T
    # A torsion of collinear atoms has no gradient: it is left as it is.
    floor = 1e-12 * jnp.eye(len(gram), dtype=gram.dtype)
    return normals.T @ jnp.linalg.solve(gram + floor, off)


# -- by rigid motion of one side of a bond ----------------------------------------------------


def placed(
    molecule: Molecule, coordinates: Coordinates, positions: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """Geometries with the coordinates brought to `values` by turning or moving one side of a bond.

    The side with fewer atoms moves, as a rigid body.

    Args:
        molecule: its bonds.
        coordinates: K tuples of atoms.
        positions: (M, N, 3) Å.
        values: (M, K) Å or rad.

    Returns:
        (M, N, 3) Å.

    Raises:
        InputError: the bond is in a ring or is none, or the coordinates depend on each other.
    """
    R = np.array(positions, float)
    for k, atoms in enumerate(coordinates):
        side, sign = moving_side(molecule, atoms)
        off = -np.asarray(_misses((atoms,), R, values[:, k : k + 1]))[:, 0]
        R[:, side] = _moved(R, atoms, side, sign * off)
    off = np.abs(np.asarray(_misses(coordinates, R, values)))
    if off.size and off.max() > 1e-4:
        names = " and ".join(label(molecule, atoms) for atoms in coordinates)
        raise InputError(
            f"{names} cannot have these values by rigid motion: they depend on each other, or "
            "an angle is outside 0 to 180 degrees"
        )
    return R


def moving_side(molecule: Molecule, atoms: Sequence[int]) -> tuple[np.ndarray, int]:
    """Atoms of the smaller side that moves a coordinate, and the sign of its motion.

    Returns:
        (S,) indices; +1 where the side of the last atom moves, −1 where that of the first does.

    Raises:
        InputError: no bond there, or one in a ring.
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
        elif len(atoms) > 2:  # two molecules may move apart
            continue
        side = networkx.node_connected_component(graph, moving[0])
        if side >= set(moving) and not side & set(fixed):
            sides.append((np.array(sorted(side)), sign))
    if not sides:
        raise InputError(
            f"{label(molecule, atoms)} (atoms {', '.join(map(str, atoms))} from 0) cannot be set "
            "by rigid motion: its bond is in a ring, or its atoms are not bonded in this order"
        )
    return min(sides, key=lambda found: (len(found[0]), -found[1]))


def _moved(R: np.ndarray, atoms, side: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Positions (M, S, 3) Å of a side moved along, or turned about, a coordinate's axis."""
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
        raise InputError("atoms of the coordinate coincide or stand in line: there is no axis")
    return vectors / length


def _misses(coordinates: Coordinates, R: np.ndarray, values: np.ndarray) -> Array:
    return jax.vmap(lambda R, v: misses(coordinates, R, v))(jnp.asarray(R), jnp.asarray(values))
