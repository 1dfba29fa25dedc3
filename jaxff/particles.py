"""Particles in a box: elements, positions, residues, bonds, virtual sites and constraints."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from jaxff.cell import box_of, volume
from jaxff.errors import InputError
from jaxff.molecule import Molecule, equivalent_atoms, formula
from jaxff.npz import usable
from jaxff.sites import VirtualSites


@dataclass(frozen=True, eq=False)
class Constraints:
    """Distances that remain constant during dynamics.

    Attributes:
        waters: (W, 3) atoms O, H, H of the rigid water molecules.
        water_lengths: (W, 2) Å, distances O–H and H–H of each rigid water molecule.
        bonds: (C, 2) atoms of the other constrained bonds.
        lengths: (C,) Å of these bonds.
    """

    waters: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int32))
    water_lengths: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    bonds: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int32))
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return 3 * len(self.waters) + len(self.bonds)

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """All constrained pairs of atoms, (3W + C, 2), and their distances (3W + C,) Å."""
        sides = self.waters[:, [[0, 1], [0, 2], [1, 2]]].reshape(-1, 2)
        pairs = np.concatenate([sides, self.bonds]).astype(np.int32)
        return pairs, np.concatenate([self.water_lengths[:, [0, 0, 1]].ravel(), self.lengths])


@dataclass(frozen=True, eq=False, kw_only=True)
class Particles:
    """Atoms and virtual sites in a box or in vacuum.

    Attributes:
        numbers: (N,) atomic numbers; 0 for virtual sites.
        positions: (N, 3) Å.
        box: (3, 3) Å, lattice vectors as rows in the reduced form; None: no box.
        masses: (N,) amu; 0 for virtual sites.
        atom_names: (N,) names.
        residues: (N,) index of the residue of each atom, ascending.
        residue_names: names of the residues.
        bonds: (B, 2) covalent bonds of atoms, each row ascending; rows sorted.
        sites: the virtual sites.
        constraints: the constrained distances.
        name: label for messages and files.

    Raises:
        InputError: an attribute has the wrong shape or a wrong value.
    """

    numbers: np.ndarray
    positions: np.ndarray
    box: np.ndarray | None
    masses: np.ndarray
    atom_names: tuple[str, ...]
    residues: np.ndarray
    residue_names: tuple[str, ...]
    bonds: np.ndarray
    sites: VirtualSites = field(default_factory=VirtualSites.none)
    constraints: Constraints = field(default_factory=Constraints)
    name: str = ""

    def __post_init__(self):
        who, n = self.name or "system", len(self.numbers)
        if n == 0:
            raise InputError(f"{who}: there are no atoms; at least one is needed")
        wanted: dict[str, tuple[type, tuple[int, ...]]] = {
            "numbers": (int, (n,)),
            "positions": (float, (n, 3)),
            "masses": (float, (n,)),
            "residues": (int, (n,)),
        }
        for key, (kind, shape) in wanted.items():
            value = np.array(getattr(self, key), kind)
            if value.shape != shape:
                raise InputError(f"{who}: {key} has shape {value.shape}, expected {shape}")
            self._set(key, value)
        if not usable(self.positions).all():
            atom = int(np.argmax(~usable(self.positions).all(axis=1)))
            raise InputError(f"{who}: the position of atom {atom} is not finite; correct it")
        if (self.numbers < 0).any() or (self.numbers >= len(chemical_symbols)).any():
            raise InputError(f"{who}: atomic numbers must be from 0 to {len(chemical_symbols) - 1}")
        wrong = np.setxor1d(np.flatnonzero(self.numbers == 0), self.sites.atoms)
        if len(wrong) or len(np.unique(self.sites.atoms)) < len(self.sites):
            particle = f"particle {wrong[0]}" if len(wrong) else "each virtual site"
            raise InputError(
                f"{who}: {particle} must be one virtual site and have the atomic number 0"
            )
        heavy = self.numbers > 0
        if (self.masses[heavy] <= 0.0).any() or (self.masses[~heavy] != 0.0).any():
            wrong = int(np.argmax(heavy != (self.masses > 0.0)))
            raise InputError(
                f"{who}: particle {wrong} has the mass {self.masses[wrong]:g} amu; masses of atoms "
                "must be positive, and those of virtual sites zero"
            )
        steps, count = np.diff(self.residues, prepend=-1), len(self.residue_names)
        if len(self.atom_names) != n or steps[0] != 1 or not np.isin(steps, (0, 1)).all():
            raise InputError(f"{who}: atoms need names, and residues must be numbered 0, 1, 2, …")
        if self.residues[-1] != count - 1:
            raise InputError(
                f"{who}: there are {self.residues[-1] + 1} residues, but {count} residue names"
            )
        bonds = np.sort(np.asarray(self.bonds, np.int32).reshape(-1, 2), axis=1)
        for what, atoms in (("bonds", bonds), ("constraints", self.constraints.pairs()[0])):
            if len(atoms) and (atoms.min() < 0 or atoms.max() >= n or not heavy[atoms].all()):
                raise InputError(f"{who}: {what} must be between atoms from 0 to {n - 1}")
        self._set("bonds", np.unique(bonds, axis=0))
        self._set("atom_names", tuple(map(str, self.atom_names)))
        self._set("residue_names", tuple(map(str, self.residue_names)))
        if self.box is not None:
            self._set("box", box_of(self.box, who))

    def _set(self, key: str, value: Any) -> None:
        object.__setattr__(self, key, value)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def n_atoms(self) -> int:
        """Number of atoms and virtual sites."""
        return len(self.numbers)

    @property
    def symbols(self) -> list[str]:
        """(N,) chemical symbols; X for virtual sites."""
        return [chemical_symbols[z] for z in self.numbers]

    @property
    def density(self) -> float:
        """Density in g/cm³.

        Raises:
            InputError: there is no box.
        """
        if self.box is None:
            raise InputError(f"{self.name or 'system'}: the density needs a box")
        return float(self.masses.sum()) / volume(self.box) * AMU_PER_A3

    @cached_property
    def molecules(self) -> np.ndarray:
        """(N,) index of the molecule of each particle, in the order of their first atoms."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        links = self.links
        shape = (len(self), len(self))
        graph = coo_array((np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=shape)
        _, labels = connected_components(graph, directed=False)
        _, first, rows = np.unique(labels, return_index=True, return_inverse=True)
        rank = np.empty(len(first), int)
        rank[np.argsort(first)] = np.arange(len(first))
        return rank[rows]

    @property
    def links(self) -> np.ndarray:
        """Pairs (L, 2) of atoms in one molecule: bonds, and sites with their first parents."""
        own = np.stack([self.sites.atoms, self.sites.parents[:, 0]], axis=1)
        return np.concatenate([self.bonds, own]).astype(np.int32)

    @cached_property
    def kinds(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """The kind of each molecule, (M,), and the atoms of the first molecule of each kind.

        Molecules of one kind have equal elements, residue names and bonds in the same order.
        """
        order = np.argsort(self.molecules, kind="stable")
        starts = np.flatnonzero(np.diff(self.molecules[order], prepend=-1))
        groups = np.split(order, starts[1:])
        place = np.empty(len(self), int)
        place[order] = np.arange(len(self)) - np.repeat(starts, [len(g) for g in groups])
        bonds_of: list[list[tuple[int, int]]] = [[] for _ in groups]
        molecule = self.molecules[self.bonds[:, 0]] if len(self.bonds) else []
        for m, (i, j) in zip(molecule, place[self.bonds].tolist(), strict=True):
            bonds_of[m].append((i, j))
        known: dict[tuple, int] = {}
        kinds, examples = np.empty(len(groups), int), []
        for m, atoms in enumerate(groups):
            names = tuple(self.residue_names[r] for r in np.unique(self.residues[atoms]))
            key = (self.numbers[atoms].tobytes(), names, tuple(bonds_of[m]))
            if key not in known:
                known[key] = len(examples)
                examples.append(atoms)
            kinds[m] = known[key]
        return kinds, examples

    @cached_property
    def waters(self) -> np.ndarray:
        """Atoms O, H, H of each water molecule, (W, 3)."""
        kinds, examples = self.kinds
        order, out = np.argsort(self.molecules, kind="stable"), []
        for kind, atoms in enumerate(examples):
            numbers = self.numbers[atoms]
            if sorted(numbers[numbers > 0].tolist()) == [1, 1, 8]:
                place = np.concatenate([np.flatnonzero(numbers == z) for z in (8, 1)])
                members = np.flatnonzero(kinds == kind)
                out.append(order[np.searchsorted(self.molecules[order], members)[:, None] + place])
        found = np.concatenate([np.zeros((0, 3), int), *out])
        return found[np.argsort(found[:, 0])]

    @property
    def in_water(self) -> np.ndarray:
        """(N,) whether each particle belongs to a water molecule."""
        return np.isin(self.molecules, self.molecules[self.waters[:, 0]])

    @cached_property
    def classes(self) -> np.ndarray:
        """(N,) class of each particle; equivalent atoms of equal molecules share a class."""
        kinds, examples = self.kinds
        order = np.argsort(self.molecules, kind="stable")
        starts = np.flatnonzero(np.diff(self.molecules[order], prepend=-1))
        classes, count = np.empty(len(self), int), 0
        for kind, atoms in enumerate(examples):
            molecule, sites = self.molecule(int(self.molecules[atoms[0]])), self.numbers[atoms] == 0
            own = np.arange(len(atoms)) + len(atoms)  # virtual sites are not equivalent
            own[~sites] = np.unique(equivalent_atoms(molecule), return_inverse=True)[1]
            members = starts[kinds == kind]
            classes[order[members[:, None] + np.arange(len(atoms))]] = own + count
            count += 2 * len(atoms)
        return classes

    def molecule(self, index: int) -> Molecule:
        """A `Molecule` of the atoms of one molecule, without its virtual sites.

        Args:
            index: index of the molecule; see `molecules`.

        Raises:
            InputError: there is no such molecule.
        """
        atoms = np.flatnonzero((self.molecules == index) & (self.numbers > 0))
        if not len(atoms):
            raise InputError(f"there is no molecule {index}; use 0 to {self.molecules.max()}")
        place = np.full(len(self), -1)
        place[atoms] = np.arange(len(atoms))
        bonds = place[self.bonds[np.isin(self.bonds[:, 0], atoms)]]
        name = self.residue_names[self.residues[atoms[0]]]
        return Molecule(self.numbers[atoms], self.positions[atoms], bonds, name=name)

    def atoms_in(self, *residue_names: str) -> np.ndarray:
        """Indices (n,) of the particles of residues with these names.

        Raises:
            InputError: no residue has one of the names.
        """
        unknown = sorted(set(residue_names) - set(self.residue_names))
        if unknown or not residue_names:
            known = ", ".join(sorted(set(self.residue_names)))
            raise InputError(
                f"{self.name or 'system'}: no residue has the name "
                f"{', '.join(unknown) or '(none given)'}; use {known}"
            )
        wanted = np.isin(np.array(self.residue_names, object), residue_names)
        return np.flatnonzero(wanted[self.residues])

    def contents(self) -> dict[str, int]:
        """Numbers of molecules by residue name and formula, such as {"HOH (H2O)": 860}."""
        kinds, examples = self.kinds
        counts: dict[str, int] = {}
        for kind, atoms in enumerate(examples):
            residues = dict.fromkeys(self.residue_names[r] for r in self.residues[atoms])
            names = "-".join(list(residues)[:3]) + ("…" if len(residues) > 3 else "")
            label = f"{names} ({formula(self.numbers[atoms][self.numbers[atoms] > 0])})"
            counts[label] = counts.get(label, 0) + int((kinds == kind).sum())
        return counts


AMU_PER_A3 = 1.66053906660  # g/cm³ in one amu/Å³
