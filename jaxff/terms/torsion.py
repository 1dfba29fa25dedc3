"""Fourier torsions and impropers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from jaxff import geometry
from jaxff.interaction import Interactions
from jaxff.potential import Column, Term

STRAIGHT = np.radians(170.0)
USUAL = (1, 2, 3)  # periodicities; torsions and impropers then mostly are of one form


@dataclass(frozen=True)
class FourierSeries:
    """Σ k (1 + cos(nφ − δ)) () kcal/mol over S Fourier terms of a dihedral φ.

    `periodicities` are S integers n ≥ 0; called with bond vectors b1, b2, b3 (3,) Å, k (S,)
    kcal/mol, and cosine and sine (S,) of the phases δ.
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
    """Fourier torsions, any number of terms on one dihedral angle.

    `atoms` (Q, 4) are distinct quadruples; Fourier term s of each has periodicity
    ``periodicities[s]`` and reads row ``rows[q, s]`` of the table, -1 for none; `labels` of rows.
    AMBER's form, Cornell et al., J. Am. Chem. Soc. 117, 5179 (1995), eq. 1.
    """

    kind: ClassVar[str] = "fourier_torsion"
    energy_name: ClassVar[str] = "torsion"
    columns: ClassVar[dict[str, Column]] = {
        "k": Column("kcal/mol", scale=0.3),
        "phase": Column("rad", scale=0.1, trainable=False),
    }

    tables: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {"rows": ("labels", ("k", "phase"))}
    indices: ClassVar[dict[str, tuple[str, ...]]] = {"atoms": ("atoms",) * 4}

    n_atoms: int
    atoms: np.ndarray
    rows: np.ndarray
    periodicities: tuple[int, ...]
    labels: tuple[str, ...]

    @classmethod
    def of_terms(cls, n_atoms, atoms, rows, periodicity, labels):
        """From Fourier terms: `atoms` (n, 4) and `rows` (n,); `periodicity` and `labels` (T,)."""
        atoms, rows = np.asarray(atoms, int).reshape(-1, 4), np.asarray(rows, int)
        backwards = (atoms[:, 0] > atoms[:, 3])[:, None]  # φ is the same from either end
        atoms = np.where(backwards, atoms[:, ::-1], atoms)
        quadruples, place = np.unique(atoms, axis=0, return_inverse=True)
        slots: dict[tuple[int, int], list] = {}  # (n, count of n before it on that quadruple)
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

    def undefined_rows(self, column, beside):
        """Those of dihedrals through a straight angle, about which there is nothing to turn."""

        def straight(label: str) -> bool:
            types = label.split("-")
            inner = ("-".join(min(a, a[::-1])) for a in (types[:3], types[1:]))
            return any(beside.get(name, 0.0) > STRAIGHT for name in inner)

        if column not in self.columns:  # such as a scale of all
            return super().undefined_rows(column, beside)
        return np.array([straight(label) for label in self.labels], bool)

    def row_names(self, field: str) -> tuple[str, ...]:
        names = super().row_names(field)
        if field != "rows":
            return names
        _, slot = np.nonzero(self.rows >= 0)
        periodicity = np.zeros(len(names), int)
        periodicity[self.rows[self.rows >= 0]] = np.array(self.periodicities, int)[slot]
        return tuple(f"{name} n={n}" for name, n in zip(names, periodicity, strict=True))

    def alike(self, others):
        """With places for the Fourier terms of all of `others`."""
        counts = [Counter(other.periodicities) for other in others]
        most = {n: max(count[n] for count in counts) for n in set().union(*counts)}
        return self._with_slots(Counter(most))

    def _with_slots(self, count: Counter):
        """With so many Fourier terms of each periodicity, empty ones where it has fewer."""
        slots, left, own = sorted(count.elements()), list(self.periodicities), []
        for n in slots:
            own.append(left.index(n) if n in left else -1)
            if n in left:
                left[own[-1]] = None
        xp = np if isinstance(self.rows, np.ndarray) else jnp
        none = xp.full((len(self.rows), 1), -1, self.rows.dtype)
        rows = xp.concatenate([self.rows, none], axis=1)[:, np.array(own, int)]
        return replace(self, rows=rows, periodicities=tuple(slots))

    def fourier(self, params) -> Interactions:
        """The Fourier terms, with places for those of `USUAL`."""
        own = self._with_slots(Counter(self.periodicities) | Counter(USUAL))
        rows = own.rows
        k = jnp.where(rows < 0, 0.0, params["k"][rows])
        cos_phase, sin_phase = jnp.cos(params["phase"]), jnp.sin(params["phase"])
        series = FourierSeries(own.periodicities)
        return Interactions(series, self.atoms.T, (k, cos_phase[rows], sin_phase[rows]))

    def interactions(self, params):
        return self.fourier(params)

    def energies(self, params, R, **context):
        return {self.energy_name: self.fourier(params).each(R).sum()}


@dataclass(frozen=True, eq=False)
class FourierImproper(FourierTorsion):
    """Fourier impropers: torsions by form, reported apart; the central atom is the third."""

    kind: ClassVar[str] = "fourier_improper"
    energy_name: ClassVar[str] = "improper"

    def undefined_rows(self, column, beside):
        """None: its atoms are no chain of bonds."""
        return np.zeros(0, bool)
