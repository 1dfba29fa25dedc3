"""Tables of bonded interactions, and the terms of each functional form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxff.errors import InputError
from jaxff.potential import Term
from jaxff.terms.angle import HarmonicAngle
from jaxff.terms.bond import HarmonicBond
from jaxff.terms.class2 import ClassTwo
from jaxff.terms.morse import MorseBond
from jaxff.terms.torsion import FourierImproper, FourierTorsion

MORSE_DEPTH = 0.3  # Å²; multiplied by k it is close to the dissociation energy of most bonds
MOST_FOURIER_TERMS = 12

Terms = dict[str, tuple[Term, dict]]


@dataclass(frozen=True, eq=False)
class Table:
    """Interactions of one kind and the table of their types.

    Attributes:
        atoms: (n, k) atom indices.
        rows: (n,) index of the type of each interaction.
        labels: (T,) names of the types, such as "c3-hc".
        values: {column: (T,)} parameters of the types; units in `Topology`.
    """

    atoms: np.ndarray
    rows: np.ndarray
    labels: tuple[str, ...]
    values: dict[str, np.ndarray]

    @classmethod
    def of(cls, atoms, names: Sequence[str] | np.ndarray, values: dict[str, np.ndarray]) -> Table:
        """Make a table with one type for each distinct combination of name and values.

        Args:
            atoms: (n, k) atom indices.
            names: (n,) names of the interactions.
            values: {column: (n,)} parameters of the interactions.
        """
        key = np.array([np.unique(v, return_inverse=True)[1] for v in [names, *values.values()]])
        _, first, rows = np.unique(key, axis=1, return_index=True, return_inverse=True)
        labels = tuple(str(names[i]) for i in first)
        columns = {column: np.asarray(v)[first] for column, v in values.items()}
        return cls(np.asarray(atoms, np.int32), rows.ravel().astype(np.int32), labels, columns)

    @classmethod
    def empty(cls, width: int, columns: Sequence[str] = ()) -> Table:
        """A table without interactions.

        Args:
            width: number of atoms of an interaction.
            columns: names of the parameters.
        """
        values = {column: np.zeros(0) for column in columns}
        return cls(np.zeros((0, width), np.int32), np.zeros(0, np.int32), (), values)

    def rows_where(self, wanted: np.ndarray) -> Table:
        """The table with the interactions for which `wanted` (n,) is true."""
        return replace(self, atoms=self.atoms[wanted], rows=self.rows[wanted])

    def renumbered(self, place: np.ndarray) -> Table:
        """The table with atom i replaced by atom ``place[i]``; `place` is (N,)."""
        return replace(self, atoms=place[self.atoms])


@dataclass(frozen=True, eq=False)
class Bonded:
    """The bonded interactions of a molecule.

    Attributes:
        n_atoms: number of atoms.
        atom_types: (N,) names of the atom types.
        bonds, angles, torsions, impropers: tables; see `jaxff.gaff.Topology`.
    """

    n_atoms: int
    atom_types: tuple[str, ...]
    bonds: Table
    angles: Table
    torsions: Table
    impropers: Table

    def dihedrals(self) -> Terms:
        """Fourier torsions and impropers, {name: (term, parameters)}."""
        return {
            name: (
                kind.of_terms(self.n_atoms, t.atoms, t.rows, t.values["periodicity"], t.labels),
                {column: v for column, v in t.values.items() if column != "periodicity"},
            )
            for name, kind, t in (
                ("torsion", FourierTorsion, self.torsions),
                ("improper", FourierImproper, self.impropers),
            )
        }

    def harmonic_angles(self) -> Terms:
        """Harmonic angles, {name: (term, parameters)}."""
        t = self.angles
        return {"angle": (HarmonicAngle(self.n_atoms, t.atoms, t.rows, t.labels), t.values)}

    def morse_values(self) -> dict[str, np.ndarray]:
        """Columns of Morse bonds with the force constants of the harmonic bonds."""
        k, depth = self.bonds.values["k"], MORSE_DEPTH * self.bonds.values["k"]
        width = np.sqrt(k / np.maximum(depth, 1e-6))
        return {"depth": depth, "width": width, "length": self.bonds.values["length"]}


def harmonic(bonded: Bonded) -> Terms:
    """The terms of GAFF: harmonic bonds and angles, Fourier torsions and impropers.

    Returns:
        {name: (term, parameters)}.
    """
    t = bonded.bonds
    bond = HarmonicBond(bonded.n_atoms, t.atoms, t.rows, t.labels), t.values
    return {"bond": bond, **bonded.harmonic_angles(), **bonded.dihedrals()}


def morse(bonded: Bonded) -> Terms:
    """Morse bonds, harmonic angles, Fourier torsions and impropers.

    Returns:
        {name: (term, parameters)}.
    """
    t = bonded.bonds
    bond = MorseBond(bonded.n_atoms, t.atoms, t.rows, t.labels), bonded.morse_values()
    return {"bond": bond, **bonded.harmonic_angles(), **bonded.dihedrals()}


def class2(bonded: Bonded) -> Terms:
    """Class-II terms with couplings of zero, Fourier torsions and impropers.

    Returns:
        {name: (term, parameters)}.
    """
    b, a = bonded.bonds, bonded.angles
    chains = np.unique(bonded.torsions.atoms, axis=0)
    term = ClassTwo.of(bonded.atom_types, b.atoms, a.atoms, chains)
    values = {
        **_by_labels(b, term.bonds, term.bond_rows, bonded.morse_values()),
        **_by_labels(a, term.angles, term.angle_rows, a.values),
    }
    zeros = {key: np.zeros(shape) for key, shape in term.shapes.items() if key not in values}
    return {"class2": (term, values | zeros), **bonded.dihedrals()}


def neural(bonded: Bonded) -> Terms:
    """The terms of GAFF, each with a small network; see `jaxff.terms.neural`.

    Returns:
        {name: (term, parameters)}.
    """
    from jaxff.terms.neural_tables import neural_terms  # imports flax

    dihedrals = bonded.dihedrals()
    terms, params = neural_terms(
        bonded.atom_types, bonded.bonds, bonded.angles, dihedrals["torsion"], dihedrals["improper"]
    )
    return {name: (terms[name], params[name]) for name in ("bond", "angle", "torsion", "improper")}


def with_periodicities(torsions: Table, most: int, types: tuple[str, ...]) -> Table:
    """The torsions with all periodicities from 1 to `most`; added terms have k = 0.

    Args:
        torsions: the table of torsions.
        most: largest periodicity.
        types: (N,) atom types.

    Raises:
        InputError: `most` is too small or too large.
    """
    if not 1 <= most <= MOST_FOURIER_TERMS:
        raise InputError(f"fourier_terms must be from 0 to {MOST_FOURIER_TERMS} (got {most})")
    present = {
        (tuple(atoms), int(torsions.values["periodicity"][row]))
        for atoms, row in zip(torsions.atoms.tolist(), torsions.rows, strict=True)
    }
    added = [
        (list(atoms), n)
        for atoms in sorted({atoms for atoms, _ in present})
        for n in range(1, most + 1)
        if (atoms, n) not in present
    ]
    names = [torsions.labels[row] for row in torsions.rows]
    for atoms, _ in added:
        chain = [types[a] for a in atoms]
        names.append("-".join(min(chain, chain[::-1])))
    extra = {
        "k": np.zeros(len(added)),
        "periodicity": np.array([n for _, n in added], int),
        "phase": np.zeros(len(added)),
    }
    return Table.of(
        np.concatenate([torsions.atoms, np.array([a for a, _ in added], int).reshape(-1, 4)]),
        names,
        {key: np.concatenate([torsions.values[key][torsions.rows], extra[key]]) for key in extra},
    )


def _by_labels(table: Table, atoms, rows, values: dict) -> dict[str, np.ndarray]:
    """Values of each type of a term: means over the interactions of this type.

    Args:
        table: the table with the atoms of all interactions.
        atoms: (n, k) atom indices of the interactions in the order of the term.
        rows: (n,) types of the interactions.
        values: {column: values of the types of `table`}.
    """
    of_atoms = {tuple(a): row for a, row in zip(table.atoms.tolist(), table.rows, strict=True)}
    table_rows = np.array([of_atoms[tuple(a)] for a in atoms.tolist()], int)
    count = np.bincount(rows)
    return {key: np.bincount(rows, np.asarray(v)[table_rows]) / count for key, v in values.items()}
