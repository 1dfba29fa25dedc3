"""Environments of atoms in a Lewis structure, which determine GAFF types."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from jaxff.gaff.lewis import Lewis


@dataclass(frozen=True, eq=False)
class Environment:
    """A Lewis structure with its rings; atoms are counted from 0.

    Attributes:
        lewis: the structure.
        rings: smallest rings, each as the set of its atoms.
        aromatic: atoms of purely aromatic rings (benzene, pyridine, naphthalene).
        planar: atoms of other rings that consist of sp2 atoms only (pyrrole, quinone, azulene).
        aromatic_bonds: bonds of purely aromatic rings, each as the set of its atoms.
    """

    lewis: Lewis
    rings: tuple[frozenset[int], ...]
    aromatic: frozenset[int]
    planar: frozenset[int]
    aromatic_bonds: frozenset[frozenset[int]]

    @classmethod
    def of(cls, lewis: Lewis) -> Environment:
        """Find the rings of a Lewis structure, and which of them are aromatic or planar."""
        from rdkit import Chem

        rings = tuple(frozenset(ring) for ring in Chem.GetSymmSSSR(lewis.to_rdkit()))
        bare = cls(lewis, rings, frozenset(), frozenset(), frozenset())
        pure = [ring for ring in rings if bare._is_pure(ring)]
        bonds = {
            frozenset((i, j))
            for ring in pure
            for i in ring
            for j in bare.neighbours[i]
            if j in ring
        }
        aromatic = frozenset().union(*pure)
        flat = [r for r in rings if r not in pure and all(map(bare.is_flat, r))]
        return cls(lewis, rings, aromatic, frozenset().union(*flat), frozenset(bonds))

    @cached_property
    def symbols(self) -> list[str]:
        """(N,) chemical symbols."""
        return self.lewis.molecule.symbols

    @cached_property
    def orders(self) -> dict[tuple[int, int], int]:
        """Bond orders, {(i, j): order}, with the keys (i, j) and (j, i) of each bond."""
        pairs = self.lewis.molecule.bonds.tolist()
        both = {}
        for (i, j), order in zip(pairs, self.lewis.orders.tolist(), strict=True):
            both[i, j] = both[j, i] = order
        return both

    @property
    def neighbours(self) -> list[list[int]]:
        """Indices of the atoms that are bonded to each atom, N lists."""
        return self.lewis.molecule.neighbours

    def degree(self, a: int) -> int:
        """Number of neighbours of atom a."""
        return len(self.neighbours[a])

    def multiple(self, a: int) -> list[int]:
        """Neighbours of atom a with a double or triple bond to a."""
        return [b for b in self.neighbours[a] if self.orders[a, b] > 1]

    def single(self, a: int) -> list[int]:
        """Neighbours of atom a with a single bond to a."""
        return [b for b in self.neighbours[a] if self.orders[a, b] == 1]

    def has_neighbour(self, a: int, *elements: str) -> bool:
        """Whether a neighbour of atom a belongs to one of the elements."""
        return any(self.symbols[b] in elements for b in self.neighbours[a])

    def in_ring(self, a: int, size: int) -> bool:
        """Whether atom a is in a ring of `size` atoms."""
        return any(len(ring) == size and a in ring for ring in self.rings)

    def share_ring(self, a: int, b: int, size: int | None = None) -> bool:
        """Whether atoms a and b share a ring (of `size` atoms, if `size` is given)."""
        return any(a in ring and b in ring and size in (None, len(ring)) for ring in self.rings)

    def has_oxide(self, a: int) -> bool:
        """Whether a neighbour of atom a is O⁻ or S⁻."""
        return any(
            self.lewis.charges[b] < 0 and self.symbols[b] in "OS" for b in self.neighbours[a]
        )

    def is_carbonyl(self, a: int) -> bool:
        """Whether atom a is the C of C=O or C=S, and has three neighbours (also in CO2⁻)."""
        return (
            self.symbols[a] == "C"
            and self.degree(a) == 3
            and any(self.symbols[b] in "OS" and self.degree(b) == 1 for b in self.multiple(a))
        )

    def is_sp2(self, a: int) -> bool:
        """Whether atom a is C or N with exactly one double bond."""
        degree = {"C": (3,), "N": (2, 3)}.get(self.symbols[a], ())
        return self.degree(a) in degree and len(self.multiple(a)) == 1

    def conjugates(self, a: int) -> bool:
        """Whether a single bond to atom a is conjugated with a double bond of a."""
        symbol, degree, multiple = self.symbols[a], self.degree(a), self.multiple(a)
        if symbol == "C":
            return degree <= 3 and bool(multiple)
        if symbol in "NP" and degree <= 2:
            return bool(multiple)
        if symbol in "SP" and degree in (3, 4):
            return len(self.single(a)) < degree and not self.has_oxide(a)
        return False

    def is_inner(self, a: int) -> bool:
        """Whether a single bond of atom a is conjugated."""
        return any(self.conjugates(b) for b in self.single(a))

    def is_flat(self, a: int) -> bool:
        """Whether a ring with atom a can be planar and conjugated."""
        symbol, degree = self.symbols[a], self.degree(a)
        if symbol == "C":
            return degree == 3
        if symbol in "NP":
            return degree in (2, 3) and not (symbol == "P" and len(self.multiple(a)) > 1)
        return symbol in "OS" and degree == 2

    def _is_pure(self, ring: frozenset[int]) -> bool:
        """Whether a ring consists of six sp2 atoms with double bonds inside rings only."""
        return len(ring) == 6 and all(
            self.symbols[a] in "CNP"
            and self.is_flat(a)
            and len(self.multiple(a)) == 1
            and self.share_ring(a, *self.multiple(a))
            for a in ring
        )
