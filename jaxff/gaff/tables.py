"""AMBER force fields of any set of atoms as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np

from jaxff.gaff.bonded import Bonded, Table
from jaxff.units import AMBER_COULOMB

FOURIER = ("k", "periodicity", "phase")
# Tables of interactions: the attribute of `Tables`, the number of atoms and the columns.
INTERACTIONS = {
    "bonds": (2, ("k", "length")),
    "angles": (3, ("k", "angle")),
    "torsions": (4, FOURIER),
    "impropers": (4, FOURIER),
    "pairs14": (2, ("lj14", "coulomb14")),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Tables:
    """The AMBER force field of N atoms.

    Attributes:
        atom_types: (N,) names of the atom types.
        charges: (N,) e.
        bonds: atoms (B, 2); k kcal/mol/Å² without the factor ½, length Å.
        angles: atoms (A, 3), the vertex second; k kcal/mol/rad² without the factor ½, angle rad.
        torsions, impropers: atoms (n, 4), one entry for each Fourier term; k kcal/mol,
            periodicity, phase rad.  The third atom of an improper is its centre.
        lj: atoms (N, 1); sigma Å, epsilon kcal/mol.
        lj_overrides: pairs (V, 2) of types in `lj`, instead of atoms; c12 kcal/mol Å¹² and c6
            kcal/mol Å⁶ replace the values of the combination rules.
        pairs14: atoms (P, 2); factors lj14 = 1/SCNB and coulomb14 = 1/SCEE.
        exclusions: (E, 2) pairs of atoms without the full nonbonded interaction, including 1-4
            pairs.
    """

    atom_types: tuple[str, ...]
    charges: np.ndarray
    bonds: Table
    angles: Table
    torsions: Table
    impropers: Table
    lj: Table
    lj_overrides: Table
    pairs14: Table
    exclusions: np.ndarray

    def bonded(self) -> Bonded:
        """The bonded interactions."""
        return Bonded(
            len(self.charges),
            self.atom_types,
            self.bonds,
            self.angles,
            self.torsions,
            self.impropers,
        )

    def nonbonded(
        self, classes: np.ndarray, coulomb_constant: float | None = None
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Fields and parameters of a term of Lennard-Jones and Coulomb interactions.

        Args:
            classes: (N,) class of each atom; atoms of one class with equal charges share a
                parameter.
            coulomb_constant: () kcal/mol Å/e² (None: the value of AMBER, 18.2223²).

        Returns:
            The fields, {field: value}, and the parameters, {column: array}, of
            `jaxff.terms.pairs.Nonbonded`.
        """
        rows, first = charge_rows(classes, self.charges)
        constant = AMBER_COULOMB if coulomb_constant is None else coulomb_constant
        shape = {
            "n_atoms": len(self.charges),
            "lj_rows": self.lj.rows,
            "charge_rows": rows,
            "exclusions": self.exclusions,
            "pairs14": self.pairs14.atoms,
            "rows14": self.pairs14.rows,
            "overrides": self.lj_overrides.atoms,
            "lj_labels": self.lj.labels,
        }
        params = {
            **self.lj.values,
            "charge": self.charges[first],
            "coulomb_constant": np.float64(constant),
            **self.pairs14.values,
            **(self.lj_overrides.values if len(self.lj_overrides.atoms) else {}),
        }
        return shape, params

    def renumbered(self, order: np.ndarray) -> Self:
        """The tables with atom ``order[i]`` at place i; `order` (N,) is a permutation."""
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order))
        return replace(
            self,
            atom_types=tuple(self.atom_types[i] for i in order),
            charges=self.charges[order],
            lj=replace(self.lj, rows=self.lj.rows[order]),
            exclusions=place[self.exclusions],
            **{name: getattr(self, name).renumbered(place) for name in INTERACTIONS},
        )

    def selected(self, atoms: np.ndarray) -> Tables:
        """The tables of some atoms, with the interactions among these atoms.

        Args:
            atoms: (n,) distinct indices; atom ``atoms[i]`` becomes atom i.
        """
        place = np.full(len(self.charges), -1, np.int32)
        place[atoms] = np.arange(len(atoms))

        def among(table: Table) -> Table:
            inside = np.all(place[table.atoms] >= 0, axis=1)
            return table.rows_where(np.asarray(inside)).renumbered(place)

        exclusions = place[self.exclusions]
        return Tables(
            atom_types=tuple(self.atom_types[i] for i in atoms),
            charges=self.charges[atoms],
            lj=Table(
                np.arange(len(atoms))[:, None],
                self.lj.rows[atoms],
                self.lj.labels,
                self.lj.values,
            ),
            lj_overrides=self.lj_overrides,
            exclusions=exclusions[(exclusions >= 0).all(axis=1)],
            **{name: among(getattr(self, name)) for name in INTERACTIONS},
        )

    def water_lengths(self, waters: np.ndarray) -> np.ndarray:
        """Equilibrium distances O–H and H–H, (W, 2) Å, of water molecules.

        The distance H–H is that of a bond between the hydrogens, or follows from the angle H–O–H.
        A distance is NaN if the force field does not define it.

        Args:
            waters: (W, 3) atoms O, H, H.
        """

        def values_of(table: Table, atoms: np.ndarray, column: str) -> np.ndarray:
            """Values (n,) of interactions of atoms (n, k); NaN if there are none."""
            known = table.values[column][table.rows]
            keys = np.concatenate([np.sort(table.atoms, axis=1), np.sort(atoms, axis=1)])
            _, group = np.unique(keys, axis=0, return_inverse=True)
            found = np.full(group.max(initial=-1) + 1, np.nan)
            found[group[: len(known)]] = known
            return found[group[len(known) :]]

        r = values_of(self.bonds, waters[:, :2], "length")
        h = values_of(self.bonds, waters[:, 1:], "length")
        angle = values_of(self.angles, waters, "angle")
        return np.stack([r, np.where(np.isnan(h), 2.0 * r * np.sin(0.5 * angle), h)], axis=1)

    def values(self) -> dict[str, Any]:
        """The attributes of `Tables`, {name: value}."""
        return {field.name: getattr(self, field.name) for field in fields(Tables)}


def joined(parts: Sequence[tuple[Tables, int]]) -> Tables:
    """The tables of several copies of several sets of atoms, in this order.

    Args:
        parts: pairs (tables of one copy, number of copies).  The tables have no overrides.
    """
    sizes = [len(tables.charges) for tables, _ in parts]
    starts = np.cumsum([0, *(n * count for n, (_, count) in zip(sizes, parts, strict=True))])

    def copies(atoms: np.ndarray, part: int) -> np.ndarray:
        count = parts[part][1]
        offsets = starts[part] + sizes[part] * np.arange(count)
        return (atoms + offsets[:, None, None]).reshape(count * len(atoms), atoms.shape[1])

    def table(name: str) -> Table:
        tables = [getattr(tables, name) for tables, _ in parts]
        atoms = [copies(t.atoms, part) for part, t in enumerate(tables)]
        rows = [np.tile(t.rows, count) for t, (_, count) in zip(tables, parts, strict=True)]
        labels = [np.array(t.labels, object)[r] for t, r in zip(tables, rows, strict=True)]
        columns = INTERACTIONS[name][1] if name in INTERACTIONS else ("sigma", "epsilon")
        values = {
            column: np.concatenate([t.values[column][r] for t, r in zip(tables, rows, strict=True)])
            for column in columns
        }
        return Table.of(np.concatenate(atoms), np.concatenate(labels).astype(str), values)

    exclusions = [copies(tables.exclusions, part) for part, (tables, _) in enumerate(parts)]
    return Tables(
        atom_types=tuple(t for tables, count in parts for t in tables.atom_types * count),
        charges=np.concatenate([np.tile(tables.charges, count) for tables, count in parts]),
        lj=table("lj"),
        lj_overrides=Table.empty(2),
        exclusions=np.concatenate(exclusions).astype(np.int32),
        **{name: table(name) for name in INTERACTIONS},
    )


def charge_rows(classes: np.ndarray, charges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a table of charges that atoms of one class with equal charges share.

    Args:
        classes: (N,) class of each atom.
        charges: (N,) e.

    Returns:
        The row of each atom (N,), and the first atom of each row.
    """
    key = np.stack([classes, np.unique(charges, return_inverse=True)[1]])
    _, first, rows = np.unique(key, axis=1, return_index=True, return_inverse=True)
    return rows.ravel().astype(np.int32), first
