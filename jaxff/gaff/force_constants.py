"""Force constants of bonds and angles from a Hessian at a minimum.

Sources: J. M. Seminario, Int. J. Quantum Chem. 60, 1271 (1996); modified for angles that share a
bond: A. E. A. Allen, M. C. Payne, D. J. Cole, J. Chem. Theory Comput. 14, 274 (2018),
doi:10.1021/acs.jctc.7b00785; one block of the Hessian for one interaction: R. Wang,
M. Ozhgibesov, H. Hirao, J. Comput. Chem. 37, 2349 (2016), doi:10.1002/jcc.24457.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from jaxff.errors import InputError
from jaxff.hessian import check_rigid_motion, checked_hessian
from jaxff.potential import Placed, Potential

ANGLES = ("projected", "modified")
# Larger angles define no plane.  Their force constant is the mean over all planes.  Their
# equilibrium angle is set to π, because other values give a cusp at the straight angle.
STRAIGHT = np.radians(178.0)
# Plausible medians of the force constants of bonds, kcal/mol/Å² without the factor ½, for molecules
# with and without hydrogen.
PLAUSIBLE = {True: (125.0, 875.0), False: (30.0, 3500.0)}


def seminario(
    potential: Potential,
    positions,
    hessian,
    *,
    angles: str = "projected",
    equilibrium: bool = False,
) -> Potential:
    """Set the force constants of bonds and angles from a Hessian at a minimum.

    The force constant of a type is the mean over its interactions.  Types without interactions keep
    their force constant.  Morse bonds keep their depth, and the force constant sets their width.

    The force constant of a bond is the block of the Hessian for its two atoms, projected onto the
    bond.  It is exact if the energy consists of bonds, angles and torsions.  It agrees with
    the sum over eigenvectors by Seminario within a few percent.

    Args:
        potential: a potential with harmonic or Morse bonds, harmonic angles, or class-II terms.
        positions: (N, 3) Å, the minimum, in the atom order of the potential.
        hessian: (N, 3, N, 3) or (3N, 3N) kcal/mol/Å² at `positions`, in the same orientation.
        angles: "projected": the block of the two end atoms, projected onto their rotations about
            the vertex; this is impossible in three-membered rings.  "modified": the method of
            Allen, Payne and Cole.
        equilibrium: whether equilibrium lengths and angles are also set, from `positions`.

    Returns:
        The potential with the new parameters.

    Raises:
        InputError: the potential has no such term, or the term is scaled; a shape, the atom order,
            the orientation or the unit is wrong; the Hessian is not symmetric; a force constant is
            not positive; or "projected" is used with a three-membered ring.
    """
    if angles not in ANGLES:
        raise InputError(f'angles must be "projected" or "modified" (got {angles!r})')
    R, H = checked_hessian(positions, hessian)
    potential._checked(R)
    groups = list(_groups(potential))
    if not groups:
        raise InputError(
            f"{potential!r} has no force constants that a Hessian can set; give a potential with "
            "harmonic, Morse or class-II bonds or angles"
        )
    check_rigid_motion(R, H)
    names = _Names(potential)
    bonds = {tuple(sorted(pair)) for g in groups if g.width == 2 for pair in g.atoms.tolist()}
    params = {name: dict(group) for name, group in potential.params.items()}
    stretches: list[np.ndarray] = []
    for group in groups:
        if group.width == 2:
            constants = np.array([bond_constant(R, H, *pair) for pair in group.atoms])
            stretches.append(constants)
            sizes = np.array([_length(R[a] - R[b]) for a, b in group.atoms])
        elif angles == "modified":
            constants = modified_angle_constants(R, H, group.atoms)
            sizes = np.array([_angle(R, *triple) for triple in group.atoms])
        else:
            _check_no_ring_of_three(group, bonds, names)
            constants = np.array([projected_angle_constant(R, H, *t) for t in group.atoms])
            sizes = np.array([_angle(R, *triple) for triple in group.atoms])
        _check_positive(group, constants, names)
        columns = params[group.name]
        columns |= group.filled(columns, constants, sizes if equilibrium else None)
    _check_units(stretches, potential)
    return potential.replace(params)


def bond_constant(R: np.ndarray, H: np.ndarray, a: int, b: int) -> float:
    """Force constant () kcal/mol/Å² of a bond, without the factor ½.

    It is −½ u · B u with the unit vector u along the bond and the block B of the Hessian for both
    atoms.

    Args:
        R: (N, 3) Å.
        H: (N, 3, N, 3) kcal/mol/Å², Hessian.
        a, b: indices of the atoms.
    """
    along = _unit(R[b] - R[a])
    return -0.5 * float(along @ H[a, :, b] @ along)


def modified_angle_constants(R: np.ndarray, H: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Force constants (A,) kcal/mol/rad² of angles, without ½, by Allen et al.

    For each angle, 1/(2k) is the sum of s/(r² Σ λ |p·ν|) over both end atoms:
    - r is the length of the bond between the end and the vertex.
    - λ and ν are eigenvalues and eigenvectors of −B, where B is the block of the Hessian for the
      end and the vertex.
    - p is the direction in which the end opens the angle (Seminario, eq. 14).
    - s is 1 plus the mean of (p·p')² over the directions p' of all other angles with this bond and
      vertex (Allen et al.).

    If two eigenvalues are equal, as in methyl groups, the sum depends on the choice of eigenvectors
    by up to √2.  For a straight angle, p is averaged over all planes.

    Args:
        R: (N, 3) Å.
        H: (N, 3, N, 3) kcal/mol/Å², Hessian.
        angles: (A, 3) atom indices; the vertex is second.
    """
    sharing: dict[tuple[int, int], list[tuple[int, np.ndarray]]] = {}
    for k, (a, b, c) in enumerate(angles.tolist()):
        for end, other in ((a, c), (c, a)):
            sharing.setdefault((b, end), []).append((k, _opening(R, end, b, other)))
    flexibility = np.zeros(len(angles))
    for (vertex, end), members in sharing.items():
        block = -H[end, :, vertex]
        values, vectors = np.linalg.eig(block)
        square = np.sum((R[end] - R[vertex]) ** 2)
        for k, opening in members:
            others = [np.sum(opening * other) for j, other in members if j != k]
            share = 1.0 + (np.mean(others) if others else 0.0)
            if np.sum(opening * opening) < 0.75:  # a straight angle
                stiffness = np.sum(opening * block)
            else:
                # |p·ν| is equal for both members of a complex pair, so the sum is real.
                squares = np.einsum("ai,ab,bi->i", vectors.conj(), opening, vectors).real
                overlap = np.sqrt(np.maximum(squares, 0.0))
                stiffness = np.sum(values * overlap).real
            # Without positive stiffness the constant is negative, which the caller reports.
            flexibility[k] += share / (square * stiffness) if stiffness > 0.0 else -np.inf
    return 0.5 / flexibility


def projected_angle_constant(R: np.ndarray, H: np.ndarray, a: int, b: int, c: int) -> float:
    """Force constant () kcal/mol/rad², without the factor ½, of the angle a-b-c.

    It is ½ r r' p·B p'.  B is the block of the Hessian for a and c.  r and r' are the distances of
    a and c from b.  p and p' are the directions in which a and c open the angle.  No other bond,
    angle or torsion depends on both displacements.

    Args:
        R: (N, 3) Å.
        H: (N, 3, N, 3) kcal/mol/Å², Hessian.
        a, b, c: indices of the atoms; the vertex is b.
    """
    lever = _length(R[a] - R[b]) * _length(R[c] - R[b])
    if _angle(R, a, b, c) > STRAIGHT:
        return 0.5 * lever * float(np.sum(_opening(R, a, b, c) * H[a, :, c]))
    first, second = _direction(R, a, b, c), _direction(R, c, b, a)
    return 0.5 * lever * float(first @ H[a, :, c] @ second)


def _length(v: np.ndarray) -> float:
    return float(np.linalg.norm(v))


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


def _angle(R, a, b, c) -> float:
    u, v = R[a] - R[b], R[c] - R[b]
    return float(np.arctan2(np.linalg.norm(np.cross(u, v)), u @ v))


def _direction(R, end, vertex, other) -> np.ndarray:
    """Unit vector (3,), normal to the bond, along which `end` opens the angle."""
    along, across = _unit(R[end] - R[vertex]), R[other] - R[vertex]
    return _unit((across @ along) * along - across)


def _opening(R, end, vertex, other) -> np.ndarray:
    """Projector p pᵀ (3, 3) on p = `_direction`; its mean for straight angles."""
    if _angle(R, end, vertex, other) > STRAIGHT:
        along = _unit(R[end] - R[vertex])
        return 0.5 * (np.eye(3) - np.outer(along, along))
    across = _direction(R, end, vertex, other)
    return np.outer(across, across)


@dataclass(frozen=True, eq=False)
class _Group:
    """Bonds or angles of a term.

    Attributes:
        name: name of the term.
        atoms: (n, 2) or (n, 3) atom indices in the whole system.
        rows: (n,) row of each bond or angle in the parameter arrays of the term.
        morse: whether the group contains Morse bonds.
    """

    name: str
    atoms: np.ndarray
    rows: np.ndarray
    morse: bool

    @property
    def width(self) -> int:
        return self.atoms.shape[1]

    def filled(self, params: dict, constants, sizes) -> dict[str, np.ndarray]:
        """The columns of the term that change, {column: array}.

        Args:
            params: parameters of the term.
            constants: (n,) force constants.
            sizes: (n,) equilibrium lengths, Å, or angles, rad; None: they do not change.

        Raises:
            InputError: a Morse bond has the depth 0.
        """
        out = {}
        if self.morse:
            depth = np.asarray(params["depth"])
            if (depth[self.rows] <= 0.0).any():
                raise InputError(
                    f"{self.name}: a Morse bond has the depth 0, so that its width cannot be set; "
                    "set a positive depth"
                )
            start = depth * np.asarray(params["width"]) ** 2
            k = self._by_type(constants, start)
            out["width"] = np.sqrt(k / np.where(depth > 0.0, depth, 1.0))
        else:
            out["k"] = self._by_type(constants, params["k"])
        if sizes is not None:
            column = "length" if self.width == 2 else "angle"
            if self.width == 3:
                sizes = np.where(sizes > STRAIGHT, np.pi, sizes)
            out[column] = self._by_type(sizes, params[column])
        return {column: values.astype(params[column].dtype) for column, values in out.items()}

    def _by_type(self, values, start) -> np.ndarray:
        start = np.asarray(start, float)
        count = np.bincount(self.rows, minlength=len(start))
        total = np.bincount(self.rows, values, minlength=len(start))
        return np.where(count > 0, total / np.maximum(count, 1), start)


def _groups(potential: Potential) -> Iterator[_Group]:
    for placed in potential.program.placed:
        kind, term = placed.term.kind, cast(Any, placed.term)
        if kind not in ("harmonic_bond", "morse_bond", "harmonic_angle", "class2"):
            continue
        if "scale" in potential.params[placed.name]:
            raise InputError(
                f"the term {placed.name} is multiplied by a factor; set force constants first, "
                "then multiply the potential"
            )
        if kind == "class2":
            yield _group(placed, term.bonds, term.bond_rows, morse=True)
            yield _group(placed, term.angles, term.angle_rows)
        else:
            yield _group(placed, term.atoms, term.rows, morse=kind == "morse_bond")


def _group(placed: Placed, atoms: np.ndarray, rows: np.ndarray, morse: bool = False) -> _Group:
    place = np.arange(placed.term.n_atoms) if placed.atoms is None else np.array(placed.atoms)
    return _Group(placed.name, place[atoms], rows, morse)


class _Names:
    """Names of bonds and angles for messages."""

    def __init__(self, potential: Potential):
        self.symbols = potential.molecule.symbols if potential.molecule is not None else None

    def __call__(self, atoms) -> str:
        kind = "bond" if len(atoms) == 2 else "angle"
        if self.symbols is None:
            return f"{kind} of atoms {', '.join(str(a) for a in atoms)} (counted from 0)"
        return f"{kind} {'-'.join(f'{self.symbols[a]}{a + 1}' for a in atoms)}"


def _check_no_ring_of_three(group: _Group, bonds: set, names: _Names) -> None:
    for a, b, c in group.atoms.tolist():
        if tuple(sorted((a, c))) in bonds:
            raise InputError(
                f"the ends of {names((a, b, c))} are bonded; "
                'use angles="modified" for three-membered rings'
            )


def _check_positive(group: _Group, constants: np.ndarray, names: _Names) -> None:
    bad = np.flatnonzero(~(constants > 0.0))
    if len(bad):
        worst = names(group.atoms[bad[0]].tolist())
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise InputError(
            f"the Hessian gives no positive force constant for the {worst}{more}: give the "
            "positions of a minimum at which these atoms are bonded"
        )


def _check_units(stretches: list[np.ndarray], potential: Potential) -> None:
    if not stretches or not sum(map(len, stretches)):
        return
    molecule = potential.molecule
    hydrogen = molecule is not None and bool((molecule.numbers == 1).any())
    median = float(np.median(np.concatenate(stretches)))
    low, high = PLAUSIBLE[hydrogen]
    if not low < median < high:
        raise InputError(
            f"the median force constant of bonds from the Hessian is {median:.3g} kcal/mol/Å², "
            f"expected {low:.0f} to {high:.0f}: give the Hessian in kcal/mol/Å²"
        )
