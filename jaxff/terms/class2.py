"""Class-II terms: anharmonic bonds and angles, and their couplings.

The form follows U. Dinur and A. T. Hagler, Rev. Comput. Chem. 2, 99 (1991), and J. R. Maple et al.,
J. Comput. Chem. 15, 162 (1994).  The displacements in couplings are bounded, so that the energies
of bonds and angles exceed all couplings at large displacements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from jaxff import geometry
from jaxff.interaction import over
from jaxff.potential import Column, Term

STRETCH, BEND = 0.5, 1.0  # Å and rad, bounds of the displacements in couplings
STRAIGHT = 0.05  # couplings of a dihedral decrease to zero below this product of sin² of its angles
HARMONICS = (1, 2, 3)  # multiples of the dihedral angle in its couplings


@dataclass(frozen=True, eq=False)
class ClassTwo(Term):
    """Anharmonic bonds and angles with all couplings of neighbouring coordinates.

    Δ is the deviation of a bond length or angle from its equilibrium value.  s = w tanh(Δ/w) is the
    bounded deviation, with w = STRETCH for bonds and w = BEND for angles.  Bonds have a Morse
    energy.  Angles have the energy k Δ² exp(cubic s + quartic s²), which is never negative.

    Couplings are products of bounded deviations: of two bonds of an atom, of an angle and a bond at
    its vertex, and of two angles at an atom.  Couplings to a dihedral angle φ have the factor
    cos nφ.  For one bond or one angle of the dihedral, n is 1, 2, 3.  For the product of both outer
    bonds and for that of both angles, n is 0, 1, 2, 3.

    Attributes:
        n_atoms: number of atoms N.
        bonds, angles, dihedrals: (B, 2), (A, 3), (D, 4) atom indices; the vertex of an angle is
            second.
        bond_rows, angle_rows, dihedral_rows: (B,), (A,), (D,) types.
        angle_bonds, dihedral_bonds, dihedral_angles: (A, 2), (D, 3), (D, 2) indices of the bonds of
            each angle, and of the bonds and angles of each dihedral.
        bond_angle_rows: (A, 2) types of the couplings of each angle with its two bonds.
        third_bonds, third_bond_rows: (S, 2) indices of an angle and a third bond at its vertex, and
            (S,) type of their coupling.
        angle_pairs, angle_pair_rows: (Q, 2) indices of two angles with one vertex, and (Q,) type of
            their coupling.
        bond_dihedral_rows, angle_dihedral_rows: (D, 3), (D, 2) types of the couplings of each
            dihedral with its bonds and angles.
        bond_labels, angle_labels and so on: names of the types in bond_rows, angle_rows and so on.
    """

    kind: ClassVar[str] = "class2"
    columns: ClassVar[dict[str, Column]] = {
        "depth": Column("kcal/mol", scale=20.0, lower=10.0, upper=1000.0),
        "width": Column("1/Å", scale=0.2, lower=0.3, upper=6.0),
        # Equilibrium values have small scales, because couplings with a linear part determine them
        # badly: with larger scales some fitted angles are 80°, and differ between fits.
        "length": Column("Å", scale=0.0025, lower=0.5, upper=5.0),
        "k": Column("kcal/mol/rad²", scale=5.0, lower=1.0),
        "angle": Column("rad", scale=0.005, lower=0.5, upper=3.1416),
        "cubic": Column("1/rad", scale=0.2, lower=-2.0, upper=2.0),
        "quartic": Column("1/rad²", scale=0.4, lower=-2.0, upper=2.0),
        "bond_bond": Column("kcal/mol/Å²", scale=20.0),
        "bond_angle": Column("kcal/mol/Å/rad", scale=10.0),
        "third_bond": Column("kcal/mol/Å/rad", scale=10.0),
        "angle_angle": Column("kcal/mol/rad²", scale=5.0),
        "outer_bonds": Column("kcal/mol/Å²", scale=10.0),
        "bond_dihedral": Column("kcal/mol/Å", scale=2.0),
        "angle_dihedral": Column("kcal/mol/rad", scale=2.0),
        "angle_angle_dihedral": Column("kcal/mol/rad²", scale=5.0),
    }
    tables: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {
        "bond_rows": ("bond_labels", ("depth", "width", "length")),
        "angle_rows": ("angle_labels", ("k", "angle", "cubic", "quartic", "bond_bond")),
        "dihedral_rows": ("dihedral_labels", ("outer_bonds", "angle_angle_dihedral")),
        "bond_angle_rows": ("bond_angle_labels", ("bond_angle",)),
        "third_bond_rows": ("third_bond_labels", ("third_bond",)),
        "angle_pair_rows": ("angle_pair_labels", ("angle_angle",)),
        "bond_dihedral_rows": ("bond_dihedral_labels", ("bond_dihedral",)),
        "angle_dihedral_rows": ("angle_dihedral_labels", ("angle_dihedral",)),
    }
    indices: ClassVar[dict[str, tuple[str, ...]]] = {
        "bonds": ("atoms",) * 2,
        "angles": ("atoms",) * 3,
        "dihedrals": ("atoms",) * 4,
        "angle_bonds": ("bonds",) * 2,
        "dihedral_bonds": ("bonds",) * 3,
        "dihedral_angles": ("angles",) * 2,
        "third_bonds": ("angles", "bonds"),
        "angle_pairs": ("angles",) * 2,
    }
    dimensions: ClassVar[dict[str, str]] = {
        "bonds": "B 2",
        "bond_rows": "B",
        "angles": "A 3",
        "angle_rows": "A",
        "angle_bonds": "A 2",
        "bond_angle_rows": "A 2",
        "dihedrals": "D 4",
        "dihedral_rows": "D",
        "dihedral_bonds": "D 3",
        "dihedral_angles": "D 2",
        "bond_dihedral_rows": "D 3",
        "angle_dihedral_rows": "D 2",
        "third_bonds": "S 2",
        "third_bond_rows": "S",
        "angle_pairs": "Q 2",
        "angle_pair_rows": "Q",
        "outer_bonds": f"_ {1 + len(HARMONICS)}",
        "angle_angle_dihedral": f"_ {1 + len(HARMONICS)}",
        "bond_dihedral": f"_ {len(HARMONICS)}",
        "angle_dihedral": f"_ {len(HARMONICS)}",
    }

    n_atoms: int
    bonds: np.ndarray
    angles: np.ndarray
    dihedrals: np.ndarray
    bond_rows: np.ndarray
    angle_rows: np.ndarray
    dihedral_rows: np.ndarray
    angle_bonds: np.ndarray
    dihedral_bonds: np.ndarray
    dihedral_angles: np.ndarray
    bond_angle_rows: np.ndarray
    third_bonds: np.ndarray
    third_bond_rows: np.ndarray
    angle_pairs: np.ndarray
    angle_pair_rows: np.ndarray
    bond_dihedral_rows: np.ndarray
    angle_dihedral_rows: np.ndarray
    bond_labels: tuple[str, ...]
    angle_labels: tuple[str, ...]
    dihedral_labels: tuple[str, ...]
    bond_angle_labels: tuple[str, ...]
    third_bond_labels: tuple[str, ...]
    angle_pair_labels: tuple[str, ...]
    bond_dihedral_labels: tuple[str, ...]
    angle_dihedral_labels: tuple[str, ...]

    @classmethod
    def of(
        cls,
        types: Sequence[str],
        bonds: np.ndarray,
        angles: np.ndarray,
        dihedrals: np.ndarray,
    ) -> ClassTwo:
        """Make the term of a molecule; couplings of equal atom types share parameters.

        Args:
            types: (N,) atom types.
            bonds, angles, dihedrals: (B, 2), (A, 3), (D, 4) atom indices; the vertex of an angle is
                second.
        """
        bonds, angles, dihedrals = (
            np.asarray(x, np.int32).reshape(-1, n)
            for x, n in ((bonds, 2), (angles, 3), (dihedrals, 4))
        )
        bond_at = {frozenset(pair): b for b, pair in enumerate(bonds.tolist())}
        angle_at = {_ends_first(a): k for k, a in enumerate(angles.tolist())}
        neighbours: dict[int, set[int]] = {}
        for i, j in bonds.tolist():
            neighbours.setdefault(i, set()).add(j)
            neighbours.setdefault(j, set()).add(i)
        names = [[_name(types, row) for row in x.tolist()] for x in (bonds, angles, dihedrals)]
        labels, rows = zip(*map(_numbered, names), strict=True)
        pairs = list(_angle_pairs(angles))
        pair_names = [
            "/".join(sorted(_name(types, angles[a].tolist()) for a in pair))
            + (
                " across"
                if not set(angles[pair[0]]) & set(angles[pair[1]]) - {angles[pair[0]][1]}
                else ""
            )
            for pair in pairs
        ]
        pair_labels, pair_rows = _numbered(pair_names)
        thirds = [
            (k, bond_at[frozenset((j, other))])
            for k, (i, j, last) in enumerate(angles.tolist())
            for other in sorted(neighbours[j] - {i, last})
        ]
        third_labels, third_rows = _numbered(
            [
                f"{_name(types, angles[k].tolist())}/{_name(types, bonds[b].tolist())}"
                for k, b in thirds
            ]
        )
        chains = dihedrals.tolist()
        bond_angle_labels, bond_angle_rows = _parts(types, angles, 2)
        bond_dihedral_labels, bond_dihedral_rows = _parts(types, dihedrals, 3)
        angle_dihedral_labels, angle_dihedral_rows = _parts(types, dihedrals, 2)

        def array(values, width: int) -> np.ndarray:
            return np.array(values, np.int32).reshape(-1, width)

        return cls(
            n_atoms=len(types),
            bonds=bonds,
            angles=angles,
            dihedrals=dihedrals,
            bond_rows=rows[0],
            angle_rows=rows[1],
            dihedral_rows=rows[2],
            angle_bonds=array(
                [[bond_at[frozenset(p)] for p in (a[:2], a[1:])] for a in angles.tolist()], 2
            ),
            dihedral_bonds=array(
                [[bond_at[frozenset(c[k : k + 2])] for k in range(3)] for c in chains], 3
            ),
            dihedral_angles=array(
                [[angle_at[_ends_first(c[k : k + 3])] for k in range(2)] for c in chains], 2
            ),
            bond_angle_rows=bond_angle_rows,
            third_bonds=array(thirds, 2),
            third_bond_rows=third_rows,
            angle_pairs=array(pairs, 2),
            angle_pair_rows=pair_rows,
            bond_dihedral_rows=bond_dihedral_rows,
            angle_dihedral_rows=angle_dihedral_rows,
            bond_labels=labels[0],
            angle_labels=labels[1],
            dihedral_labels=labels[2],
            bond_angle_labels=bond_angle_labels,
            third_bond_labels=third_labels,
            angle_pair_labels=pair_labels,
            bond_dihedral_labels=bond_dihedral_labels,
            angle_dihedral_labels=angle_dihedral_labels,
        )

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each column, {column: shape}."""
        rows = {
            column: len(self.row_names(field))
            for field, (_, columns) in self.tables.items()
            for column in columns
        }
        one, both = (len(HARMONICS),), (1 + len(HARMONICS),)
        waves = {
            "bond_dihedral": one,
            "angle_dihedral": one,
            "outer_bonds": both,
            "angle_angle_dihedral": both,
        }
        return {column: (count, *waves.get(column, ())) for column, count in rows.items()}

    def energies(self, params, R, space):
        p = params
        r = over(geometry.distance, R, self.bonds)
        d = r - p["length"][self.bond_rows]
        morse = p["depth"][self.bond_rows] * jnp.expm1(-p["width"][self.bond_rows] * d) ** 2
        reference = p["angle"][self.angle_rows]
        square = over(geometry.squared_angle_deviation, R, self.angles, reference)
        bend = over(geometry.angle, R, self.angles) - reference
        # A straight angle has a kink at its minimum, so that it has no couplings.
        bent = geometry.fade(jnp.sin(reference) ** 2 / 0.2)
        s, t = STRETCH * jnp.tanh(d / STRETCH), bent * BEND * jnp.tanh(bend / BEND)
        shape = t * (p["cubic"][self.angle_rows] + t * p["quartic"][self.angle_rows])
        stiff = p["k"][self.angle_rows] * jnp.exp(shape)
        first, second = (s[self.angle_bonds[:, k]] for k in (0, 1))
        constants = p["bond_angle"][self.bond_angle_rows]
        out = {
            "bond": morse.sum(),
            "angle": (stiff * square).sum(),
            "bond_bond": (p["bond_bond"][self.angle_rows] * first * second).sum(),
            "bond_angle": ((constants[:, 0] * first + constants[:, 1] * second) * t).sum(),
        }
        third = t[self.third_bonds[:, 0]] * s[self.third_bonds[:, 1]]
        out["bond_angle"] += (p["third_bond"][self.third_bond_rows] * third).sum()
        a, b = (t[self.angle_pairs[:, k]] for k in (0, 1))
        out["angle_angle"] = (p["angle_angle"][self.angle_pair_rows] * a * b).sum()
        if len(self.dihedrals):
            cos, _ = over(geometry.dihedral_cos_sin, R, self.dihedrals)
            waves = jnp.stack([cos, 2.0 * cos**2 - 1.0, (4.0 * cos**2 - 3.0) * cos], axis=-1)
            s3, t2 = s[self.dihedral_bonds], t[self.dihedral_angles]
            with_bonds = jnp.einsum(
                "tbn,tn->tb", p["bond_dihedral"][self.bond_dihedral_rows], waves
            )
            with_angles = jnp.einsum(
                "tbn,tn->tb", p["angle_dihedral"][self.angle_dihedral_rows], waves
            )
            waves = jnp.concatenate([jnp.ones_like(waves[:, :1]), waves], axis=1)
            ks = (p[name][self.dihedral_rows] for name in ("outer_bonds", "angle_angle_dihedral"))
            outer, both = (jnp.sum(k * waves, axis=1) for k in ks)
            # Dihedrals of three collinear atoms are undefined: couplings decrease to zero there.
            sin2 = 1.0 - over(geometry.angle_cos, R, self.angles) ** 2
            fade = geometry.fade(jnp.prod(sin2[self.dihedral_angles], axis=1) / STRAIGHT)
            out |= {
                "outer_bonds": (fade * outer * s3[:, 0] * s3[:, 2]).sum(),
                "bond_dihedral": (fade * (with_bonds * s3).sum(axis=1)).sum(),
                "angle_dihedral": (fade * (with_angles * t2).sum(axis=1)).sum(),
                "angle_angle_dihedral": (fade * both * t2[:, 0] * t2[:, 1]).sum(),
            }
        return out


def _name(types: Sequence[str], atoms: Sequence[int]) -> str:
    names = [types[a] for a in atoms]
    return "-".join(min(names, names[::-1]))


def _numbered(names: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    labels, rows = np.unique(np.array(names, str), return_inverse=True)
    return tuple(labels.tolist()), rows.astype(np.int32).ravel()


def _ends_first(angle: Sequence[int]) -> tuple[int, int, int]:
    i, j, k = angle
    return (min(i, k), j, max(i, k))


def _sides(types: Sequence[str], atoms: Sequence[int], parts: int) -> list[int]:
    """Numbers (parts,) of the bonds, or of the angles, of a chain of atoms.

    The end with the alphabetically first types has the number 0.  If the types are the same in both
    directions, equivalent bonds or angles have equal numbers.

    Args:
        types: (N,) atom types.
        atoms: atom indices of the chain.
        parts: number of bonds, or of angles.
    """
    names = [types[a] for a in atoms]
    count = list(range(parts))
    if names == names[::-1]:
        return [min(k, parts - 1 - k) for k in count]
    return count if names < names[::-1] else count[::-1]


def _parts(types: Sequence[str], chains: np.ndarray, parts: int) -> tuple[tuple, np.ndarray]:
    """Labels and rows (n, parts) of the bonds, or of the angles, of chains of atoms.

    Bonds or angles of equal types share a row.

    Args:
        types: (N,) atom types.
        chains: (n, k) atom indices of angles or dihedrals.
        parts: number of bonds, or of angles, of each chain.
    """
    names = [
        f"{_name(types, chain)} {side + 1}"
        for chain in chains.tolist()
        for side in _sides(types, chain, parts)
    ]
    labels, rows = _numbered(names)
    return labels, rows.reshape(-1, parts)


def _angle_pairs(angles: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the indices of all pairs of angles (A, 3) with the same vertex."""
    at: dict[int, list[int]] = {}
    for k, vertex in enumerate(angles[:, 1].tolist()):
        at.setdefault(vertex, []).append(k)
    for members in at.values():
        yield from combinations(members, 2)
