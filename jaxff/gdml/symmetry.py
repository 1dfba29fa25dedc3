"""Permutation symmetries of a molecule, from matches between distance matrices of frames.

Source: Chmiela et al., Nat. Commun. 9, 3887 (2018), "Multi-partite matching".
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import minimum_spanning_tree

from jaxff.errors import InputError
from jaxff.molecule import Molecule

NEIGHBOURS = 40  # number of the most similar frames with which a frame is matched
MAX_ORDER = 100  # largest number of permutations in a group


def find_symmetries(
    positions: np.ndarray,
    molecule: Molecule,
    *,
    lattice: np.ndarray | None = None,
    max_frames: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Find the group of atom permutations that occur in the frames of a molecule.

    The eigenvectors of the distance matrices give a permutation for each pair of similar frames.
    The permutations on the edges of a minimum spanning tree over the frames generate the group.
    Permutations that change elements or bonds are omitted.

    Args:
        positions: (M, N, 3) Å.
        molecule: N atoms with elements and bonds.
        lattice: (3, 3) Å, lattice vectors as columns, or None.
        max_frames: number of frames to draw at random if there are more.
        seed: seed of the random draw.

    Returns:
        (P, N) permutations, the identity first.  If the group has more than 100 elements, a
        warning is given and a subgroup returned.
    """
    positions = np.asarray(positions, float)
    if len(positions) > max_frames:
        drawn = np.random.default_rng(seed).choice(len(positions), max_frames, replace=False)
        positions = positions[drawn]
    matches = _tree_matches(_distances(positions, lattice), molecule.numbers)
    kept = matches[preserves_bonds(matches, molecule)]
    group = close(kept)
    if group is None:
        group = close(_without_overlaps(kept))
    if group is None:
        group = subgroup(kept, molecule)
        warnings.warn(
            f"{molecule.label}: there are more than {MAX_ORDER} symmetries, so a subgroup of "
            f"{len(group)} is used; to use another group, give it as symmetries=",
            stacklevel=2,
        )
    return group


def check_symmetries(permutations, molecule: Molecule) -> np.ndarray:
    """Check permutations (P, N) and return them as integers, the identity first.

    Raises:
        InputError: the array has a wrong shape or type, the permutations are not a group, or one
            of them changes elements or bonds.
    """
    permutations = np.asarray(permutations)
    n, who = molecule.n_atoms, molecule.label
    if permutations.ndim != 2 or permutations.shape[1] != n or permutations.dtype.kind not in "iu":
        raise InputError(
            f"{who}: symmetries must be integers of shape (P, {n}), got "
            f"{permutations.dtype} {permutations.shape}"
        )
    if not (np.sort(permutations, axis=1) == np.arange(n)).all():
        raise InputError(f"{who}: each symmetry must be a permutation of the atoms 0 to {n - 1}")
    kept = preserves_bonds(permutations, molecule)
    if not kept.all():
        bad = permutations[np.argmin(kept)].tolist()
        raise InputError(
            f"{who}: the symmetry {bad} does not preserve elements and bonds; remove it"
        )
    group = close(permutations)
    if group is None or len(group) != len(permutations):
        raise InputError(
            f"{who}: the symmetries are not a group, because a product of two symmetries is "
            'missing or one occurs twice; use symmetries="auto"'
        )
    return group


def close(permutations: np.ndarray, max_order: int = MAX_ORDER) -> np.ndarray | None:
    """The group (Q, N) that permutations (P, N) generate, or None if Q exceeds `max_order`.

    The first element is the identity.
    """
    identity = np.arange(permutations.shape[1])
    group = np.unique(np.concatenate([identity[None], permutations]), axis=0)
    while True:
        products = group[:, group].reshape(-1, group.shape[1])  # p[i][p[j]] for all pairs
        larger = np.unique(products, axis=0)
        if len(larger) == len(group):
            return group
        if len(larger) > max_order:
            return None
        group = larger


def restricted_to(permutations: np.ndarray, atoms: Sequence[int]) -> np.ndarray:
    """Restrict a group (P, N) of permutations of all atoms to `atoms` (K,).

    The result (Q, K) contains the permutations that map `atoms` to `atoms`.  The integers are
    positions in `atoms`, from 0 to K − 1.
    """
    permutations, index = np.asarray(permutations), np.asarray(atoms)
    place = np.full(permutations.shape[1], -1)
    place[index] = np.arange(len(index))
    images = place[permutations[:, index]]
    return np.unique(images[(images >= 0).all(axis=1)], axis=0)


def preserves_bonds(permutations: np.ndarray, molecule: Molecule) -> np.ndarray:
    """Whether each of the permutations (P, N) preserves elements and bonds, (P,)."""
    bonded = np.zeros((molecule.n_atoms, molecule.n_atoms), bool)
    i, j = molecule.bonds.T
    bonded[i, j] = bonded[j, i] = True
    elements = molecule.numbers[permutations] == molecule.numbers
    images = bonded[permutations[:, :, None], permutations[:, None, :]]
    return elements.all(axis=1) & (images == bonded).all(axis=(1, 2))


def _tree_matches(distance: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Unique matches (K, N) on the edges of the minimum spanning tree over the frames.

    A match of frames i and j maps each atom of i to the corresponding atom of j.  Permutations do
    not change the eigenvalues of a distance matrix, so only frames with similar eigenvalues are
    matched.

    Args:
        distance: (M, N, N) distance matrices, Å.
        numbers: (N,) atomic numbers.
    """
    n_frames, n_atoms = distance.shape[:2]
    spectra, vectors = np.linalg.eigh(distance)
    vectors = np.abs(vectors[:, :, ::-1])
    forbidden = numbers[:, None] != numbers
    identity = np.arange(n_atoms)
    cost = np.zeros((n_frames, n_frames))
    matches = {}
    for i, others in enumerate(_similar(spectra)):
        if len(others) == 0:
            continue
        overlap = vectors[i] @ vectors[others].transpose(0, 2, 1)
        penalty = forbidden * overlap.max(axis=(1, 2), keepdims=True)
        match = np.array([linear_sum_assignment(c)[1] for c in penalty - overlap])
        there = distance[others]
        matched = there[np.arange(len(others))[:, None, None], match[:, :, None], match[:, None]]
        before = np.linalg.norm(there - distance[i], axis=(1, 2))
        after = np.linalg.norm(matched - distance[i], axis=(1, 2))
        better = (after < before) & ~np.isclose(after, before)
        matches |= {
            (i, j): m if b else identity for j, m, b in zip(others, match, better, strict=True)
        }
        # Below zero means "no edge", so the cost of identical frames is a tiny positive number.
        cost[i, others] = np.maximum(np.where(better, after, before), 1e-12)
    tree = minimum_spanning_tree(cost)
    edges = [matches[edge] for edge in zip(*tree.nonzero(), strict=True)]
    return np.unique(np.array([identity, *edges]), axis=0)


def _similar(spectra: np.ndarray) -> list[np.ndarray]:
    """Indices of later frames with similar eigenvalues, for each of M frames.

    These pairs of frames are matched; the pairs connect all frames.

    Args:
        spectra: (M, N) eigenvalues of the distance matrices.
    """
    square = np.sum(spectra**2, axis=1)
    apart = square[:, None] + square - 2.0 * spectra @ spectra.T
    linked = np.zeros(apart.shape, bool)
    near = np.argsort(apart, axis=1)[:, : NEIGHBOURS + 1]
    np.put_along_axis(linked, near, True, axis=1)
    tree = minimum_spanning_tree(np.maximum(apart, 1e-12)).nonzero()
    linked[tree] = True
    linked = np.triu(linked | linked.T, 1)
    return [np.flatnonzero(row) for row in linked]


def _distances(positions: np.ndarray, lattice) -> np.ndarray:
    """Distances (M, N, N), Å, between all atoms (nearest images in a lattice)."""
    difference = positions[:, :, None] - positions[:, None]
    if lattice is not None:
        difference -= np.round(difference @ np.linalg.inv(lattice).T) @ np.asarray(lattice).T
    return np.linalg.norm(difference, axis=-1)


def _without_overlaps(permutations: np.ndarray) -> np.ndarray:
    """Remove those of K permutations (K, N) whose cycles overlap with longer cycles."""
    cycles = [[set(c) for c in _cycles(p)] for p in permutations]
    every = [cycle for part in cycles for cycle in part]
    keep = [not any(len(a) < len(b) and a & b for a in part for b in every) for part in cycles]
    return permutations[keep]


def subgroup(permutations: np.ndarray, molecule: Molecule) -> np.ndarray:
    """A subgroup of permutations (K, N) with at most `MAX_ORDER` elements.

    Generators are added unless the subgroup becomes too large: first single cycles, such as methyl
    rotations, then permutations that move few atoms.
    """
    identity = np.arange(permutations.shape[1])
    single = []
    for permutation in permutations:
        for cycle in _cycles(permutation):
            rotation = identity.copy()
            rotation[cycle] = permutation[cycle]
            single.append(rotation)
    single = np.unique(np.array(single), axis=0)
    single = single[preserves_bonds(single, molecule)]
    longest = np.argsort([-max(map(len, _cycles(p))) for p in single], kind="stable")
    few = np.argsort((permutations != identity).sum(axis=1), kind="stable")
    group = identity[None]
    for candidate in [*single[longest], *permutations[few]]:
        larger = close(np.concatenate([group, candidate[None]]))
        group = group if larger is None else larger
    return group


# -- in words ------------------------------------------------------------------------------------


def describe_symmetries(permutations: np.ndarray, molecule: Molecule) -> list[str]:
    """Describe permutations that generate a group, with atoms numbered from 1.

    Examples are "methyl rotation of C2: H5 H6 H7" and "exchange of H7 and H8 on C3".  The list is
    empty if the group contains only the identity.

    Args:
        permutations: (P, N) a group.
        molecule: N atoms with elements and bonds.
    """
    return [_in_words(p, molecule) for p in generators(permutations)]


def generators(permutations: np.ndarray) -> np.ndarray:
    """A few elements (Q, N) that generate a group (P, N); long single cycles come first."""
    permutations = np.asarray(permutations)
    moved = (permutations != np.arange(permutations.shape[1])).sum(axis=1)
    longest = [max(map(len, _cycles(p)), default=1) for p in permutations]
    chosen = permutations[:0]
    reached = {tuple(range(permutations.shape[1]))}
    for k in np.lexsort((np.negative(longest), moved - longest)):
        if tuple(permutations[k]) not in reached:
            chosen = np.concatenate([chosen, permutations[[k]]])
            reached = set(map(tuple, _within(chosen, permutations)))
    # Permutations that later permutations generate are not needed.
    for k in reversed(range(len(chosen))):
        rest = np.delete(chosen, k, axis=0)
        if len(rest) and len(_within(rest, permutations)) == len(permutations):
            chosen = rest
    return chosen


def _within(subset: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The subgroup (Q, N) that some elements (K, N) of a group (P, N) generate."""
    closed = close(subset, len(group))
    return group if closed is None else closed


def _in_words(permutation: np.ndarray, molecule: Molecule) -> str:
    def names(atoms) -> list[str]:
        return [f"{molecule.symbols[a]}{a + 1}" for a in atoms]

    parts, swaps = [], []
    for cycle in _cycles(permutation):
        around = [set(molecule.graph.neighbors(a)) - set(cycle) for a in cycle]
        anchors = set.intersection(*around)
        terminal = all(molecule.graph.degree[a] == 1 for a in cycle)
        if len(cycle) == 2 and anchors and terminal:
            parts.append(f"exchange of {' and '.join(names(cycle))} on {names(sorted(anchors))[0]}")
        elif len(cycle) == 2:
            swaps.append(" with ".join(names(cycle)))
        elif anchors:
            anchor = names(sorted(anchors))[0]
            hydrogens = set(molecule.symbols[a] for a in cycle) == {"H"}
            methyl = hydrogens and len(cycle) == 3 and molecule.symbols[min(anchors)] == "C"
            what = "methyl rotation" if methyl else "rotation"
            parts.append(f"{what} of {anchor}: {' '.join(names(cycle))}")
        else:
            parts.append(f"cycle {' '.join(names(cycle))}")
    if swaps:
        parts.append(f"exchange of {', '.join(swaps)}")
    return "; ".join(parts)


def _cycles(permutation: np.ndarray) -> list[list[int]]:
    """Cycles of two or more atoms in a permutation; each begins with the smallest index."""
    cycles, seen = [], set()
    for start in range(len(permutation)):
        cycle, atom = [], start
        while atom not in seen:
            seen.add(atom)
            cycle.append(atom)
            atom = int(permutation[atom])
        if len(cycle) > 1:
            cycles.append(cycle)
    return cycles
