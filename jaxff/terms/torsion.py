"""Fourier torsions and impropers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import jax.numpy as jnp
import numpy as np

from jaxff import geometry
from jaxff.interaction import Interactions
from jaxff.potential import Array, Column, Params, Term

STRAIGHT = np.radians(170.0)  # larger equilibrium angles are treated as straight
# Every series contains these periodicities, so that torsions and impropers usually have the same
# form and are evaluated in one loop.
USUAL_PERIODICITIES = (1, 2, 3)
LARGEST_PERIODICITY = 100  # in files; larger periodicities cost time


@dataclass(frozen=True)
class FourierSeries:
    """Energy Σ k (1 + cos(nφ − δ)), () kcal/mol, as a function of a dihedral φ.

    The arguments are the bond vectors b1, b2, b3 (3,) Å, k (S,) kcal/mol, and the cosines and sines
    (S,) of the phases δ.

    Attributes:
        periodicities: (S,) integers n ≥ 0 of the S Fourier terms.
    """

    periodicities: tuple[int, ...]

    def __call__(self, b1, b2, b3, k, cos_phase, sin_phase):
        cos, sin = geometry.torsion_cos_sin(b1, b2, b3)
        multiples = [(jnp.ones_like(cos), jnp.zeros_like(sin)), (cos, sin)]  # of cos nφ, sin nφ
        for _ in range(max(self.periodicities, default=0) - 1):
            cos_n, sin_n = multiples[-1]
            multiples.append((cos_n * cos - sin_n * sin, sin_n * cos + cos_n * sin))
        energy = jnp.zeros_like(cos)
        for s, n in enumerate(self.periodicities):
            cos_n, sin_n = multiples[n]
            energy += k[s] * (1.0 + cos_n * cos_phase[s] + sin_n * sin_phase[s])
        return energy


@dataclass(frozen=True, eq=False)
class FourierTorsion(Term):
    """Fourier torsions with several Fourier terms per dihedral; see `FourierSeries`.

    Attributes:
        atoms: (Q, 4) atom indices of the dihedrals; no dihedral occurs twice.
        rows: (Q, S) rows of the table of Fourier terms; −1 for no term.
        periodicities: (S,) periodicity of each column of `rows`.
        labels: names of the rows.

    Source: Cornell et al., J. Am. Chem. Soc. 117, 5179 (1995), eq. 1.
    """

    kind: ClassVar[str] = "fourier_torsion"
    energy_name: ClassVar[str] = "torsion"
    columns: ClassVar[dict[str, Column]] = {
        "k": Column("kcal/mol", scale=0.3),
        "phase": Column("rad", scale=0.1, trainable=False),
    }
    tables: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {"rows": ("labels", ("k", "phase"))}
    indices: ClassVar[dict[str, tuple[str, ...]]] = {"atoms": ("atoms",) * 4}
    open_rows: ClassVar[tuple[str, ...]] = ("rows",)
    dimensions: ClassVar[dict[str, str]] = {
        "atoms": "Q 4",
        "rows": "Q S",
        "periodicities": "S",
    }
    adaptable: ClassVar[tuple[str, ...]] = ("periodicities",)

    n_atoms: int
    atoms: np.ndarray
    rows: np.ndarray
    periodicities: tuple[int, ...]
    labels: tuple[str, ...]

    @classmethod
    def of_terms(cls, n_atoms, atoms, rows, periodicity, labels):
        """Make the term from a list of n Fourier terms.

        Args:
            n_atoms: number of atoms of the molecule.
            atoms: (n, 4) atom indices of each Fourier term.
            rows: (n,) row in the table of each Fourier term.
            periodicity: (T,) periodicity of each row of the table.
            labels: (T,) names of the rows of the table.
        """
        atoms, rows = np.asarray(atoms, int).reshape(-1, 4), np.asarray(rows, int)
        backwards = (atoms[:, 0] > atoms[:, 3])[:, None]  # φ is the same in both directions
        atoms = np.where(backwards, atoms[:, ::-1], atoms)
        quadruples, place = np.unique(atoms, axis=0, return_inverse=True)
        # Columns of `rows` by (n, number of earlier terms with this n and dihedral).
        slots: dict[tuple[int, int], list] = {}
        seen: dict[tuple[int, int], int] = {}
        for quadruple, row in zip(place.ravel().tolist(), rows.tolist(), strict=True):
            n = int(periodicity[row])
            count = seen[quadruple, n] = seen.get((quadruple, n), -1) + 1
            slots.setdefault((n, count), []).append((quadruple, row))
        table = np.full((len(quadruples), len(slots)), -1)
        for s, key in enumerate(sorted(slots)):
            quadruple, row = np.array(slots[key]).T
            table[quadruple, s] = row
        return cls(n_atoms, quadruples, table, tuple(n for n, _ in sorted(slots)), tuple(labels))

    def fault(self, params):
        whole = all(type(n) is int and 0 <= n <= LARGEST_PERIODICITY for n in self.periodicities)
        return (
            None
            if whole
            else f"the periodicities must be integers from 0 to {LARGEST_PERIODICITY} (got "
            f"{self.periodicities})"
        )

    def undefined_rows(self, column, angles):
        """Whether each row (n,) belongs to a torsion about a straight angle.

        See `Term.undefined_rows` for the arguments.
        """

        def straight(label: str) -> bool:
            types = label.split("-")
            inner = ("-".join(min(a, a[::-1])) for a in (types[:3], types[1:]))
            return any(angles.get(name, 0.0) > STRAIGHT for name in inner)

        if column not in self.columns:  # the factor `scale` of all rows
            return super().undefined_rows(column, angles)
        return np.array([straight(label) for label in self.labels], bool)

    def row_names(self, field: str) -> tuple[str, ...]:
        names = super().row_names(field)
        if field != "rows":
            return names
        _, slot = np.nonzero(self.rows >= 0)
        periodicity = np.zeros(len(names), int)
        periodicity[self.rows[self.rows >= 0]] = np.array(self.periodicities, int)[slot]
        return tuple(f"{name} n={n}" for name, n in zip(names, periodicity, strict=True))

    def alike(self, others: Sequence[Self]) -> Self:
        """The term, with columns of `rows` for the periodicities of all terms `others`."""
        counts = [Counter(other.periodicities) for other in others]
        most = {n: max(count[n] for count in counts) for n in set().union(*counts)}
        term = self._with_periodicities(Counter(most))
        return replace(term, rows=np.asarray(term.rows))

    def _with_periodicities(self, count: Counter[int]) -> Self:
        """The term, with count[n] columns of `rows` for each periodicity n.

        In added columns every entry is −1, which means no Fourier term.
        """
        periodicities, left = sorted(count.elements()), list(self.periodicities)
        columns = []
        for n in periodicities:
            columns.append(left.index(n) if n in left else -1)
            if n in left:
                left[columns[-1]] = -1
        columns = np.array(columns, int)
        rows = self.rows if self.periodicities else np.full((len(self.rows), 1), -1)
        rows = jnp.where(columns < 0, -1, rows[:, columns])
        return replace(self, rows=rows, periodicities=tuple(periodicities))

    def fourier(self, params: Params) -> Interactions:
        """The interactions of all Fourier terms, without the network of a subclass."""
        usual = Counter(self.periodicities) | Counter(USUAL_PERIODICITIES)
        term = self._with_periodicities(usual)
        k: Array = params["k"][term.rows]
        k = jnp.where(term.rows < 0, 0.0, k)
        cos_phase, sin_phase = jnp.cos(params["phase"]), jnp.sin(params["phase"])
        series = FourierSeries(term.periodicities)
        return Interactions(series, self.atoms.T, (k, cos_phase[term.rows], sin_phase[term.rows]))

    def interactions(self, params):
        return self.fourier(params)


@dataclass(frozen=True, eq=False)
class FourierImproper(FourierTorsion):
    """Fourier impropers: torsions with the central atom third; see `FourierTorsion`."""

    kind: ClassVar[str] = "fourier_improper"
    energy_name: ClassVar[str] = "improper"

    def undefined_rows(self, column, angles):
        """An empty array, because the atoms of an improper are not a chain of bonds."""
        return np.zeros(0, bool)
