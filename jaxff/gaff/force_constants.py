"""Force constants of bonds and angles from a Hessian at a minimum.

Sources: J. M. Seminario, Int. J. Quantum Chem. 60, 1271 (1996); modified for angles that share a
bond: A. E. A. Allen, M. C. Payne, D. J. Cole, J. Chem. Theory Comput. 14, 274 (2018),
doi:10.1021/acs.jctc.7b00785; one block of the Hessian for one interaction: R. Wang,
M. Ozhgibesov, H. Hirao, J. Comput. Chem. 37, 2349 (2016), doi:10.1002/jcc.24457.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxff.errors import InputError
from jaxff.hessian import check_at_rest, checked_hessian
from jaxff.potential import Placed, Potential

ANGLES = ("projected", "modified")
# Angles beyond this have no plane of their own: their constant is the mean over all planes, and at
# rest they are π, since any other angle at rest puts a cusp on the straight line.
STRAIGHT = np.radians(178.0)
# Medians of bond constants that can be meant, kcal/mol/Å² (no ½): with hydrogen, without.
PLAUSIBLE = {True: (125.0, 875.0), False: (30.0, 3500.0)}


def seminario(
    potential: Potential,
    positions,
    hessian,
    *,
    angles: str = "projected",
    equilibrium: bool = False,
) -> Potential:
    """The same potential with force constants of bonds and angles from a Hessian at a minimum.

    Each is the mean over the interactions of a type; types that have none keep theirs.  Morse
    bonds keep their depth and take their width from the constant.  A bond has what the Hessian's
    block of its atoms gives along it: exact if the energy is one of bonds, angles and torsions,
    and within a few percent of Seminario's sum over eigenvectors.

    Args:
        potential: has harmonic or Morse bonds, harmonic angles, or class-II terms.
        positions: (N, 3) Å, the minimum, in the potential's atom order.
        hessian: (N, 3, N, 3) or (3N, 3N) kcal/mol/Å² there, in the same axes.
        angles: "projected" (the block of an angle's two end atoms along their turns about the
            vertex: exact as that of bonds, and the same for equivalent angles of symmetric
            molecules; not for rings of three), or "modified" (Allen, Payne and Cole).
        equilibrium: take lengths and angles at rest from `positions`, too.

    Raises:
        InputError: nothing to set; wrong shapes, order, axes or units; an asymmetric Hessian; a
            constant that is not positive; a bond or angle term that is scaled; a ring of three
            with "projected".
    """
    if angles not in ANGLES:
        raise InputError(f'angles={angles!r}: use "modified" or "projected"')
    R, H = checked_hessian(positions, hessian)
    potential._checked(R)
    groups = list(_groups(potential))
    if not groups:
        raise InputError(
            f"{potential!r} has no harmonic, Morse or class-II bonds or angles to set from a "
            "Hessian"
        )
    check_at_rest(R, H)
    names = _Names(potential)
    bonds = {tuple(sorted(pair)) for g in groups if g.width == 2 for pair in g.atoms.tolist()}
    params = {name: dict(own) for name, own in potential.params.items()}
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
            _refuse_rings_of_three(group, bonds, names)
            constants = np.array([projected_angle_constant(R, H, *t) for t in group.atoms])
            sizes = np.array([_angle(R, *triple) for triple in group.atoms])
        _check_positive(group, constants, names)
        own = params[group.name]
        own |= group.filled(own, constants, sizes if equilibrium else None)
    _check_units(stretches, potential)
    return potential.replace(params)


def bond_constant(R: np.ndarray, H: np.ndarray, a: int, b: int) -> float:
    """k (no ½) kcal/mol/Å² of the bond of atoms a and b.

    Minus the block of both atoms, along the bond: forces on one as the other moves.

    Args:
        R: (N, 3) Å.
        H: (N, 3, N, 3) kcal/mol/Å².
        a, b: the atoms.
    """
    along = _unit(R[b] - R[a])
    return -0.5 * float(along @ H[a, :, b] @ along)


def modified_angle_constants(R: np.ndarray, H: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """k (A,) (no ½) kcal/mol/rad² of angles by the modified Seminario method.

    1/2k is the sum over both ends of s/(r² Σ λ |p·ν|), with λ and ν of minus the block of that
    end and the vertex, p the direction in which the end opens the angle (Seminario, eq. 14), and
    s one more than the mean overlap (p·p')² with the other angles of that bond at the vertex
    (Allen et al.).  Where two eigenvalues agree, as in methyl groups, the sum depends on how they
    share their plane, by up to √2; a straight angle has the trace over its plane instead.

    Args:
        R: (N, 3) Å.
        H: (N, 3, N, 3) kcal/mol/Å².
        angles: (A, 3) atoms, the vertex second.
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
        for k, own in members:
            others = [np.sum(own * other) for j, other in members if j != k]
            share = 1.0 + (np.mean(others) if others else 0.0)
            if np.sum(own * own) < 0.75:  # not one direction, but a plane of them
                stiffness = np.sum(own * block)
            else:
                # |p·ν| is the same for both of a complex pair: the sum is real.
                squares = np.einsum("ai,ab,bi->i", vectors.conj(), own, vectors).real
                overlap = np.sqrt(np.maximum(squares, 0.0))
                stiffness = np.sum(values * overlap).real
            # An end that does not resist makes the constant negative, to be refused by name.
            flexibility[k] += share / (square * stiffness) if stiffness > 0.0 else -np.inf
    return 0.5 / flexibility


def projected_angle_constant(R: np.ndarray, H: np.ndarray, a: int, b: int, c: int) -> float:
    """k (no ½) kcal/mol/rad² of the angle a-b-c from the block of its ends.

    r r' p·H·p', where p and p' are the directions in which a and c open the angle: of all bonds,
    angles and torsions, this angle alone depends on both moves.

    Args:
        R: (N, 3) Å.
        H: (N, 3, N, 3) kcal/mol/Å².
        a, b, c: the atoms, the vertex second.
    """
    lever = _length(R[a] - R[b]) * _length(R[c] - R[b])
    if _angle(R, a, b, c) > STRAIGHT:
        return 0.5 * lever * float(np.sum(_opening(R, a, b, c) * H[a, :, c]))
    first, second = _direction(R, a, b, c), _direction(R, c, b, a)
    return 0.5 * lever * float(first @ H[a, :, c] @ second)


# -- geometry --------------------------------------------------------------------------------


def _length(v: np.ndarray) -> float:
    return float(np.linalg.norm(v))


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


def _angle(R, a, b, c) -> float:
    u, v = R[a] - R[b], R[c] - R[b]
    return float(np.arctan2(np.linalg.norm(np.cross(u, v)), u @ v))


def _direction(R, end, vertex, other) -> np.ndarray:
    """Unit vector across the bond of `end`, in the angle's plane, that opens the angle."""
    along, beside = _unit(R[end] - R[vertex]), R[other] - R[vertex]
    return _unit((beside @ along) * along - beside)


def _opening(R, end, vertex, other) -> np.ndarray:
    """p pᵀ (3, 3) of that direction; for a straight angle the mean over all of them."""
    if _angle(R, end, vertex, other) > STRAIGHT:
        along = _unit(R[end] - R[vertex])
        return 0.5 * (np.eye(3) - np.outer(along, along))
    across = _direction(R, end, vertex, other)
    return np.outer(across, across)


# -- the potential's tables -----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Group:
    """Bonds or angles of a term: its name, their atoms in the whole system, and their rows."""

    name: str
    atoms: np.ndarray
    rows: np.ndarray
    morse: bool

    @property
    def width(self) -> int:
        return self.atoms.shape[1]

    def filled(self, own: dict, constants, sizes) -> dict[str, np.ndarray]:
        """New columns for the parameters `own` of the term."""
        out = {}
        if self.morse:
            depth = np.asarray(own["depth"])
            if (depth[self.rows] <= 0.0).any():
                raise InputError(f"{self.name}: a Morse bond of no depth has no width; set depth")
            start = depth * np.asarray(own["width"]) ** 2
            k = self._by_type(constants, start)
            out["width"] = np.sqrt(k / np.where(depth > 0.0, depth, 1.0))
        else:
            out["k"] = self._by_type(constants, own["k"])
        if sizes is not None:
            column = "length" if self.width == 2 else "angle"
            if self.width == 3:
                sizes = np.where(sizes > STRAIGHT, np.pi, sizes)
            out[column] = self._by_type(sizes, own[column])
        return {column: values.astype(own[column].dtype) for column, values in out.items()}

    def _by_type(self, values, start) -> np.ndarray:
        start = np.asarray(start, float)
        count = np.bincount(self.rows, minlength=len(start))
        total = np.bincount(self.rows, values, minlength=len(start))
        return np.where(count > 0, total / np.maximum(count, 1), start)


def _groups(potential: Potential) -> Iterator[_Group]:
    for placed in potential.program.placed:
        term, kind = placed.term, placed.term.kind
        if kind not in ("harmonic_bond", "morse_bond", "harmonic_angle", "class2"):
            continue
        if "scale" in potential.params[placed.name]:
            raise InputError(
                f"{placed.name} is scaled: set its constants first, multiply the potential then"
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
    """Bonds and angles in words."""

    def __init__(self, potential: Potential):
        self.symbols = potential.molecule.symbols if potential.molecule is not None else None

    def __call__(self, atoms) -> str:
        kind = "bond" if len(atoms) == 2 else "angle"
        if self.symbols is None:
            return f"{kind} of atoms {', '.join(str(a) for a in atoms)} (counted from 0)"
        return f"{kind} {'-'.join(f'{self.symbols[a]}{a + 1}' for a in atoms)}"


def _refuse_rings_of_three(group: _Group, bonds: set, names: _Names) -> None:
    for a, b, c in group.atoms.tolist():
        if tuple(sorted((a, c))) in bonds:
            raise InputError(
                f'the ends of {names((a, b, c))} are bonded, which angles="projected" cannot tell '
                'from the angle: use angles="modified"'
            )


def _check_positive(group: _Group, constants: np.ndarray, names: _Names) -> None:
    bad = np.flatnonzero(~(constants > 0.0))
    if len(bad):
        worst = names(group.atoms[bad[0]].tolist())
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise InputError(
            f"the Hessian gives the {worst}{more} no positive constant: positions are no minimum, "
            "or these atoms are not bonded there"
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
            f"bond constants from the Hessian are {median:.3g} kcal/mol/Å² in the middle, "
            f"expected {low:.0f} to {high:.0f}: give the Hessian in kcal/mol/Å²"
        )
