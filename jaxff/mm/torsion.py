"""Fourier torsions and impropers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from jaxff import geometry
from jaxff.mm.interaction import over
from jaxff.potential import Column, Term


def fourier_torsion(a, b, c, d, k, cos_phase, sin_phase, *, periodicities):
    """Σ k (1 + cos(nφ − δ)) () kcal/mol over S Fourier terms of the dihedral a-b-c-d.

    Args:
        a, b, c, d: points (3,) Å.
        k: (S,) kcal/mol.
        cos_phase, sin_phase: (S,) cosine and sine of the phases δ.
        periodicities: S integers n ≥ 0.
    """
    cos, sin = geometry.dihedral_cos_sin(a, b, c, d)
    multiples = [(jnp.ones_like(cos), jnp.zeros_like(sin)), (cos, sin)]  # of cos nφ, sin nφ
    for _ in range(max(periodicities, default=0) - 1):
        cos_n, sin_n = multiples[-1]
        multiples.append((cos_n * cos - sin_n * sin, sin_n * cos + cos_n * sin))
    energy = jnp.zeros_like(cos)
    for s, n in enumerate(periodicities):
        energy += k[s] * (1.0 + multiples[n][0] * cos_phase[s] + multiples[n][1] * sin_phase[s])
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
        slots = tuple(sorted(Counter(most).elements()))
        left = list(slots)
        rows = np.full((len(self.atoms), len(slots)), -1, self.rows.dtype)
        for s, n in enumerate(self.periodicities):
            place = left.index(n)
            rows[:, place], left[place] = self.rows[:, s], None
        return replace(self, rows=rows, periodicities=slots)

    def energies(self, params, R, **context):
        if not len(self.atoms):
            return {self.energy_name: jnp.zeros((), R.dtype)}
        k = jnp.where(self.rows < 0, 0.0, params["k"][self.rows])
        cos_phase, sin_phase = jnp.cos(params["phase"]), jnp.sin(params["phase"])
        one = partial(fourier_torsion, periodicities=self.periodicities)
        energies = over(one, R, self.atoms, k, cos_phase[self.rows], sin_phase[self.rows])
        return {self.energy_name: energies.sum()}


@dataclass(frozen=True, eq=False)
class FourierImproper(FourierTorsion):
    """Fourier impropers: torsions by form, reported apart; the central atom is the third."""

    kind: ClassVar[str] = "fourier_improper"
    energy_name: ClassVar[str] = "improper"
