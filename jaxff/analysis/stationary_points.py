"""Minima of a molecule from many starts, and their energies by several potentials."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import factorial, prod

import numpy as np
from numpy.typing import ArrayLike

from jaxff.analysis.modes import normal_modes
from jaxff.analysis.sampling import rmsd
from jaxff.errors import InputError
from jaxff.md.descent import Descent, Minimum, relax
from jaxff.md.surface import as_surface, evaluate
from jaxff.molecule import Molecule

MAX_PERMUTATIONS = 20_000  # largest number of permutations that are enumerated
SAME_ENERGY = 0.05  # kcal/mol: the largest energy difference of equal stationary points
NOISE = 5.0  # cm⁻¹: imaginary frequencies below it count as zero


@dataclass(frozen=True, eq=False)
class StationaryPoints:
    """Distinct stationary points in order of increasing energy.

    Attributes:
        positions: (K, N, 3) Å.
        energies: (K,) kcal/mol.
        frequencies: K arrays (F,) cm⁻¹; imaginary frequencies are negative numbers.
        counts: (K,) number of starts that converged to each point.
    """

    positions: np.ndarray
    energies: np.ndarray
    frequencies: tuple[np.ndarray, ...]
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.energies)

    @property
    def relative(self) -> np.ndarray:
        """Energies (K,) kcal/mol relative to the lowest energy."""
        return self.energies - self.energies.min() if len(self) else self.energies


@dataclass(frozen=True, eq=False)
class Minima(StationaryPoints):
    """Minima and saddle points from minimisations of many starts.

    Attributes:
        molecule: elements and bonds.
        saddles: stationary points with imaginary frequencies.
        minimum_index: (B,) index of the minimum to which each start converged, or −1.
        failed: (B,) whether each start failed to converge.
        permutations: (P, N) permutations of equivalent atoms.
        mirror: whether mirror images are equal.
        exchangeable: groups of equivalent atoms, see `rmsd`.
    """

    molecule: Molecule
    saddles: StationaryPoints
    minimum_index: np.ndarray
    failed: np.ndarray
    permutations: np.ndarray
    mirror: bool
    exchangeable: tuple[tuple[int, ...], ...] = ()


def conformers(molecule: Molecule, n: int, seed: int = 0) -> np.ndarray:
    """Generate conformers (M, N, 3) Å, M ≤ n, by RDKit's ETKDGv3.

    Source: S. Wang et al., J. Chem. Inf. Model. 60, 2044 (2020).  Stereocentres keep the
    configuration of the given geometry.

    Args:
        molecule: elements, bonds, net charge and geometry.
        n: number of attempts.
        seed: random seed.

    Raises:
        InputError: RDKit cannot embed the molecule.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdDistGeom

    from jaxff.gaff.lewis import lewis_structure

    if n < 1:
        raise InputError(f"the number of conformers must be at least 1 (got {n})")
    mol = lewis_structure(molecule).to_rdkit(conformer=True)
    Chem.AssignStereochemistryFrom3D(mol)
    parameters = rdDistGeom.ETKDGv3()
    parameters.randomSeed = int(seed) + 1  # RDKit takes numbers below 1 as "no seed"
    indices: list[int] = []
    with rdBase.BlockLogs():
        for use_random in (False, True):
            parameters.useRandomCoords = use_random
            indices = indices or list(rdDistGeom.EmbedMultipleConfs(mol, n, parameters))
    if not indices:
        raise InputError(f"RDKit cannot embed {molecule.label}: give starting geometries instead")
    return np.array([mol.GetConformer(k).GetPositions() for k in indices])


def minima(
    surface,
    molecule: Molecule,
    starts: ArrayLike,
    *,
    descent: Descent | None = None,
    distance: float = 0.1,
    mirror: bool = True,
    permutations: ArrayLike | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Minima:
    """Minimise many geometries, and return the distinct minima and saddle points.

    Minima are distinguished from saddle points by their Hessians.  Two geometries are equal if
    their energies differ by less than 0.05 kcal/mol and their `rmsd` is below `distance`.  With
    more than 20,000 permutations, atoms such as the hydrogens of methyl groups become the
    exchangeable groups of `rmsd`.

    Args:
        surface: a `Potential`, an ASE calculator, or a function (see `as_surface`).
        molecule: elements, bonds and masses.
        starts: (B, N, 3) Å, such as `conformers(molecule, 50)`.
        descent: settings of the minimisations; None for `Descent()`.
        distance: RMSD below which two geometries are equal, Å.
        mirror: whether mirror images are equal.
        permutations: (P, N) permutations of equivalent atoms; None for all permutations that keep
            the bond graph.
        progress: called with the name of a phase and the fraction done.

    Raises:
        InputError: starts with a wrong shape, no start that converged, or more than 20,000
            permutations despite the exchangeable groups.
    """
    R = np.asarray(starts, float)
    if R.ndim != 3 or R.shape[1:] != (molecule.n_atoms, 3) or len(R) == 0:
        raise InputError(f"starts must have shape (B, {molecule.n_atoms}, 3) (got {R.shape})")
    exchangeable: tuple[tuple[int, ...], ...] = ()
    if permutations is None:
        permutations, exchangeable = _equivalences(molecule)
    permutations = np.asarray(permutations)
    surface = as_surface(surface, molecule)
    ends = relax(surface, R, descent=descent, progress=progress)
    if not ends.converged.any():
        raise InputError(
            f"none of {len(R)} starts converged (smallest final force {ends.max_force.min():.2g} "
            "kcal/mol/Å): raise max_steps or tolerance"
        )
    first, group = _grouped(ends, distance, (permutations, mirror, exchangeable))
    modes = [normal_modes(surface, ends.positions[b], molecule.masses) for b in first]
    frequencies = [m.frequencies for m in modes]
    is_minimum = np.array([len(f) == 0 or f[0] > -NOISE for f in frequencies])
    counts = np.bincount(group[group >= 0], minlength=len(first))

    def selected(which) -> dict:
        index = np.flatnonzero(which)
        representatives = np.array(first)[index]
        return {
            "positions": ends.positions[representatives],
            "energies": ends.energy[representatives],
            "frequencies": tuple(frequencies[k] for k in index),
            "counts": counts[index],
        }

    rank = np.where(is_minimum, np.cumsum(is_minimum) - 1, -1)
    return Minima(
        **selected(is_minimum), molecule=molecule,
        saddles=StationaryPoints(**selected(~is_minimum)),
        minimum_index=np.where(group >= 0, rank[group], -1), failed=~ends.converged,
        permutations=permutations, mirror=mirror, exchangeable=exchangeable,
    )  # fmt: skip


def automorphisms(molecule: Molecule) -> np.ndarray:
    """Return all permutations (P, N) of atoms that keep elements and bonds, the identity first.

    Raises:
        InputError: there are more than 20,000 permutations.
    """
    permutations, exchangeable = _equivalences(molecule)
    if exchangeable:
        raise _too_many(molecule)
    return permutations


def _equivalences(molecule: Molecule) -> tuple[np.ndarray, tuple[tuple[int, ...], ...]]:
    """Return permutations (P, N) of equivalent atoms, and groups of exchangeable atoms.

    Groups exist only with more than `MAX_PERMUTATIONS` permutations.  A group contains the atoms
    of one element that are bonded only to the same atom.
    """
    from networkx.algorithms.isomorphism import GraphMatcher

    graph = molecule.graph.copy()
    ends: dict[tuple[int, int], list[int]] = {}
    for atom, degree in molecule.graph.degree:
        parent = next(iter(molecule.graph[atom]), atom)
        if degree == 1 and molecule.graph.degree[parent] > 1:
            ends.setdefault((parent, int(molecule.numbers[atom])), []).append(atom)
    # In the graph that is matched, the first atom of each group represents the group.
    groups = {atoms[0]: tuple(atoms) for atoms in ends.values()}
    for first, *others in groups.values():
        graph.nodes[first]["count"] = 1 + len(others)
        graph.remove_nodes_from(others)
    matcher = GraphMatcher(graph, graph, node_match=lambda a, b: a == b)
    orders = []
    for mapping in itertools.islice(matcher.isomorphisms_iter(), MAX_PERMUTATIONS + 1):
        order = np.arange(molecule.n_atoms)
        for atom, image in mapping.items():
            order[list(groups.get(atom, (atom,)))] = groups.get(image, (image,))
        orders.append(order)
    if len(orders) > MAX_PERMUTATIONS:
        raise _too_many(molecule)
    exchangeable = tuple(atoms for atoms in groups.values() if len(atoms) > 1)
    if len(orders) * prod(factorial(len(atoms)) for atoms in exchangeable) > MAX_PERMUTATIONS:
        return np.array(sorted(orders, key=tuple)), exchangeable
    for atoms in exchangeable:
        exchanges = []
        for images in itertools.permutations(atoms):
            exchange = np.arange(molecule.n_atoms)
            exchange[list(atoms)] = images
            exchanges.append(exchange)
        orders = [order[exchange] for order in orders for exchange in exchanges]
    return np.array(sorted(orders, key=tuple)), ()


def _too_many(molecule: Molecule) -> InputError:
    return InputError(
        f"{molecule.label} has more than {MAX_PERMUTATIONS} permutations of equivalent atoms: give "
        "a subset by permutations=..."
    )


def _grouped(ends: Minimum, distance: float, equivalence: tuple) -> tuple[list[int], np.ndarray]:
    """Group B converged geometries into distinct points, in order of increasing energy.

    `equivalence` contains the last three arguments of `rmsd`.

    Returns:
        the index of the first start of each point; and the point of each start, (B,), or −1 for a
        start that did not converge.
    """
    first: list[int] = []
    group = np.full(len(ends.energy), -1)
    for b in np.argsort(ends.energy, kind="stable"):
        if not ends.converged[b]:
            continue
        near = [k for k, a in enumerate(first) if ends.energy[b] - ends.energy[a] < SAME_ENERGY]
        others = ends.positions[[first[k] for k in near]]
        away = rmsd(ends.positions[[b]], others, *equivalence)[0] if near else []
        equal = [k for k, d in zip(near, away, strict=True) if d < distance]
        group[b] = equal[0] if equal else len(first)
        first.extend([] if equal else [int(b)])
    return first, group


@dataclass(frozen=True, eq=False)
class Ordering:
    """Energies of K minima by P potentials, relative to the lowest energy of each potential.

    Attributes:
        names: (P,) names of the potentials.
        unrelaxed: (P, K) energies at the given geometries, kcal/mol.
        relaxed: (P, K) energies after minimisation with the potential, kcal/mol; NaN without
            convergence.
        nearest: (P, K) index of the given minimum nearest to the relaxed geometry.
        rmsd: (P, K) distance of the relaxed geometry from the nearest minimum, Å.
    """

    names: tuple[str, ...]
    unrelaxed: np.ndarray
    relaxed: np.ndarray
    nearest: np.ndarray
    rmsd: np.ndarray

    def rows(self) -> list[list]:
        """Return one row of a table for each potential and minimum.

        A row contains the name of the potential, the number of the minimum (from 1), and the
        values of unrelaxed, relaxed, nearest (from 1) and rmsd.
        """
        return [
            [name, k + 1, self.unrelaxed[p, k], self.relaxed[p, k], self.nearest[p, k] + 1,
             self.rmsd[p, k]]
            for p, name in enumerate(self.names)
            for k in range(self.unrelaxed.shape[1])
        ]  # fmt: skip


def ordering(
    reference: Minima, surfaces: Mapping[str, object], descent: Descent | None = None
) -> Ordering:
    """Compute the energies of minima with several potentials, unrelaxed and relaxed.

    Args:
        reference: the minima.
        surfaces: potentials or calculators by name.
        descent: settings of the minimisations; None for `Descent()`.

    Raises:
        InputError: there are no minima, or no potentials.
    """
    if not len(reference) or not surfaces:
        raise InputError(
            f"{len(reference)} minima and {len(surfaces)} potentials: give at least one of each"
        )
    rows: list[Sequence] = []
    equivalence = (reference.permutations, reference.mirror, reference.exchangeable)
    for surface in surfaces.values():
        surface = as_surface(surface, reference.molecule)
        unrelaxed = np.asarray(evaluate(surface, reference.positions)[0], float)
        ends = relax(surface, reference.positions, descent=descent)
        away = rmsd(ends.positions, reference.positions, *equivalence)
        relaxed = np.where(ends.converged, ends.energy, np.nan)
        rows.append((_from_lowest(unrelaxed), _from_lowest(relaxed), away.argmin(axis=1),
                     away.min(axis=1)))  # fmt: skip
    return Ordering(tuple(surfaces), *map(np.array, zip(*rows, strict=True)))


def _from_lowest(energies) -> np.ndarray:
    """Return energies relative to the lowest energy of each row; NaN if none is finite."""
    energies = np.where(np.isfinite(energies), energies, np.nan)
    return energies - np.min(energies, where=~np.isnan(energies), initial=np.inf)
