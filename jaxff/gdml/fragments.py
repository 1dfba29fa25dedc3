"""Fragments of a molecule: each heavy atom with its surroundings, sorted by type.

Fragments whose bond graphs are isomorphic form a type.  The atoms of all fragments of a type are
in corresponding order, so that all fragments of a type can share one function of positions.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxff.gdml.symmetry import MAX_ORDER, subgroup
from jaxff.molecule import Molecule

if TYPE_CHECKING:
    import networkx

BONDS = 2  # usual number of bonds from the centre of a fragment to its other heavy atoms


class FragmentType(NamedTuple):
    """Fragments with isomorphic bond graphs.

    Attributes:
        instances: (F, K) atoms of each fragment; the atoms of one column correspond to each other.
        permutations: (P, K) the permutations of the K atoms that preserve the bond graph, the
            identity first.
    """

    instances: np.ndarray
    permutations: np.ndarray


def fragment_types(molecule: Molecule, bonds: int = BONDS) -> list[FragmentType]:
    """The fragments of a molecule by type.

    The fragment of a heavy atom consists of all heavy atoms that are at most `bonds` bonds away,
    and of the hydrogens that are bonded to one of them.  Fragments of the same atoms count once.

    Args:
        molecule: N atoms and their bonds.
        bonds: number of bonds from the centre to the other heavy atoms.
    """
    centres = np.flatnonzero(molecule.numbers != 1).tolist()
    every = dict.fromkeys(_around(molecule, centre, bonds) for centre in centres)  # ordered set
    known: list[tuple[networkx.Graph, list[list[int]]]] = []
    for atoms in every:
        part = molecule.graph.subgraph(atoms)
        for first, instances in known:
            match = next(_isomorphisms(first, part), None)
            if match is not None:
                instances.append([match[atom] for atom in instances[0]])
                break
        else:
            known.append((part, [list(atoms)]))
    return [
        FragmentType(np.array(instances), _automorphisms(part, instances[0], molecule))
        for part, instances in known
    ]


def _around(molecule: Molecule, centre: int, bonds: int) -> tuple[int, ...]:
    """The atoms of the fragment of a heavy atom, in ascending order."""
    heavy, rim = {centre}, {centre}
    for _ in range(bonds):
        near = {b for a in rim for b in molecule.neighbours[a] if molecule.numbers[b] != 1}
        rim = near - heavy
        heavy |= near
    light = {b for a in heavy for b in molecule.neighbours[a] if molecule.numbers[b] == 1}
    return tuple(sorted(heavy | light))


def _isomorphisms(a: networkx.Graph, b: networkx.Graph):
    """Iterator over the maps from the atoms of `a` to those of `b`; empty if there are none."""
    from networkx.algorithms.isomorphism import GraphMatcher

    if len(a) != len(b):
        return iter(())
    return GraphMatcher(a, b, lambda x, y: x["element"] == y["element"]).isomorphisms_iter()


def _automorphisms(part: networkx.Graph, atoms: list[int], molecule: Molecule) -> np.ndarray:
    """The group (P, K) of permutations of `atoms` that preserve `part`.

    If the group has more than 100 elements, only a subgroup is returned: cyclic permutations of
    atoms of one element that are bonded only to the same atom, such as the hydrogens of a methyl
    group.
    """
    place = {atom: k for k, atom in enumerate(atoms)}
    maps = islice(_isomorphisms(part, part), MAX_ORDER + 1)
    found = np.array([[place[match[atom]] for atom in atoms] for match in maps])
    if len(found) <= MAX_ORDER:
        return np.unique(found, axis=0)
    leaves: dict[tuple[int, int], list[int]] = {}
    for atom in atoms:
        if part.degree[atom] == 1:
            (centre,) = part.neighbors(atom)
            leaves.setdefault((centre, molecule.numbers[atom]), []).append(place[atom])
    cycles = np.tile(np.arange(len(atoms)), (len(leaves), 1))
    for cycle, equal in zip(cycles, leaves.values(), strict=True):
        cycle[equal] = np.roll(equal, 1)
    inside = molecule.bonds[np.isin(molecule.bonds, atoms).all(axis=1)].tolist()
    bonds = np.array([[place[i], place[j]] for i, j in inside])
    return subgroup(cycles, Molecule(molecule.numbers[atoms], molecule.positions[atoms], bonds))
