"""Torsions about rotatable bonds."""

from __future__ import annotations

from collections.abc import Iterable

import networkx
import numpy as np

from jaxff.molecule import Molecule


def rotatable_torsions(molecule: Molecule) -> np.ndarray:
    """Return one torsion (i, j, k, l) for each rotatable bond j-k.

    The end atoms i and l are the heaviest neighbours of j and k.
    A rotatable bond is outside rings.  The atoms j and k are not linear, and each is bonded to a
    further atom.  Torsions are in order of decreasing mass of the lighter end atom.  Torsions of
    symmetric tops, such as methyl groups, are last.

    Returns:
        (T, 4) atom indices.
    """
    graph, masses = molecule.graph, molecule.masses
    bridges = {frozenset(edge) for edge in networkx.bridges(graph)} if graph.edges else set()
    torsions = []
    for j, k in molecule.bonds.tolist():
        if frozenset((j, k)) not in bridges or min(graph.degree[j], graph.degree[k]) < 2:
            continue
        if any(_is_linear(molecule, atom) for atom in (j, k)):
            continue
        ends = []
        for centre, other in ((j, k), (k, j)):
            rest = [n for n in graph.neighbors(centre) if n != other]
            ends.append(max(rest, key=lambda n: (masses[n], graph.degree[n], -n)))
        is_top = any(_is_symmetric_top(molecule, a, b) for a, b in ((j, k), (k, j)))
        torsions.append((is_top, -min(masses[ends[0]], masses[ends[1]]), (ends[0], j, k, ends[1])))
    torsions.sort()
    return np.array([torsion for *_, torsion in torsions], int).reshape(-1, 4)


def torsion_label(molecule: Molecule, torsion: Iterable[int]) -> str:
    """Return the name of a torsion, such as H9-O3-C1-C2 (atoms counted from 1)."""
    return "-".join(f"{molecule.symbols[i]}{i + 1}" for i in torsion)


def _is_linear(molecule: Molecule, atom: int) -> bool:
    neighbours = list(molecule.graph.neighbors(atom))
    if len(neighbours) != 2:
        return False
    a, b = molecule.positions[neighbours] - molecule.positions[atom]
    return np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)) < np.cos(np.radians(165))


def _is_symmetric_top(molecule: Molecule, centre: int, other: int) -> bool:
    """Whether `centre` has three equal neighbours in addition to `other`."""
    rest = [n for n in molecule.graph.neighbors(centre) if n != other]
    kinds = {(int(molecule.numbers[n]), molecule.graph.degree[n]) for n in rest}
    return len(rest) == 3 and len(kinds) == 1
