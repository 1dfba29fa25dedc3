"""The minima of a molecule from many starts, and how potentials order them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import factorial, prod

import numpy as np

from jaxff.analysis.modes import normal_modes
from jaxff.analysis.relax import Relaxed, as_surface, evaluate, relax
from jaxff.analysis.sampling import rmsd
from jaxff.errors import InputError
from jaxff.molecule import Molecule

MOST = 20_000  # permutations that are tried one by one
ALIKE = 0.05  # kcal/mol, within which energies of one stationary point may differ
FLAT = 5.0  # cm⁻¹: an imaginary frequency below it is noise


@dataclass(frozen=True, eq=False)
class StationaryPoints:
    """Different stationary points, from the lowest energy up.

    Attributes:
        positions: (K, N, 3) Å.
        energies: (K,) kcal/mol.
        frequencies: K arrays (F,) cm⁻¹, imaginary ones negative.
        counts: (K,) starts that ended there.
    """

    positions: np.ndarray
    energies: np.ndarray
    frequencies: tuple[np.ndarray, ...]
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.energies)

    @property
    def relative(self) -> np.ndarray:
        """(K,) kcal/mol from the lowest."""
        return self.energies - self.energies.min() if len(self) else self.energies


@dataclass(frozen=True, eq=False)
class Minima(StationaryPoints):
    """The minima, without negative curvature, and what else the starts led to.

    Attributes:
        molecule: the atoms.
        saddles: stationary points with imaginary frequencies.
        led_to: (B,) the minimum each start ended in, or −1.
        failed: (B,) bool, starts that did not converge.
        permutations: (P, N) of equivalent atoms.
        mirror: whether mirror images count as one.
        exchangeable: atoms that besides are matched freely, see `rmsd`.
    """

    molecule: Molecule
    saddles: StationaryPoints
    led_to: np.ndarray
    failed: np.ndarray
    permutations: np.ndarray
    mirror: bool
    exchangeable: tuple[tuple[int, ...], ...] = ()


def conformers(molecule: Molecule, n: int, seed: int = 0) -> np.ndarray:
    """Starting geometries (M, N, 3) Å from distance geometry: RDKit's ETKDGv3, M ≤ n.

    S. Wang et al., J. Chem. Inf. Model. 60, 2044 (2020). Elements, bonds and net charge count;
    where atoms are stereocentres in the given geometry they stay as they are.

    Args:
        molecule: what to embed.
        n: geometries asked for.
        seed: of the embedding.

    Raises:
        InputError: RDKit cannot embed the molecule.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem import AllChem

    from jaxff.gaff.lewis import lewis_structure

    if n < 1:
        raise InputError(f"{n} conformers asked for: at least one is needed")
    mol = lewis_structure(molecule).to_rdkit(conformer=True)
    Chem.AssignStereochemistryFrom3D(mol)
    parameters = AllChem.ETKDGv3()
    parameters.randomSeed = int(seed) + 1  # 0 and below are drawn anew by RDKit
    with rdBase.BlockLogs():
        found = list(AllChem.EmbedMultipleConfs(mol, n, parameters))
        if not found:
            parameters.useRandomCoords = True
            found = list(AllChem.EmbedMultipleConfs(mol, n, parameters))
    if not found:
        raise InputError(f"RDKit finds no geometry for {molecule.name or molecule.formula}")
    return np.array([mol.GetConformer(k).GetPositions() for k in found])


def minima(
    surface,
    molecule: Molecule,
    starts,
    *,
    tolerance: float = 1e-3,
    max_steps: int = 5000,
    distance: float = 0.1,
    mirror: bool = True,
    permutations=None,
    progress: Callable[[str, float], None] | None = None,
) -> Minima:
    """The different minima downhill of many starts, each verified by its Hessian.

    Two geometries are one where their energies agree to 0.05 kcal/mol and their atoms, laid upon
    each other with equivalent ones exchanged, to `distance`. Where all exchanges are more than
    20,000, those of like atoms at the end of one atom's bonds, such as a methyl group's hydrogens,
    are matched after superposition (see `rmsd`) instead of tried one by one.

    Args:
        surface: a `Potential`, an ASE calculator, or a function (see `jaxff.analysis.relax`).
        molecule: elements, bonds and masses.
        starts: (B, N, 3) Å, such as `conformers(molecule, 50)`.
        tolerance: largest force left on an atom, kcal/mol/Å.
        max_steps: of each minimisation.
        distance: root mean square, Å, below which geometries are the same.
        mirror: whether mirror images are.
        permutations: (P, N) of equivalent atoms (None: all that keep the bond graph).
        progress: called with what goes on and the fraction done.

    Raises:
        InputError: starts of another shape, none of them converged, or more than 20,000
            permutations without those of end atoms.
    """
    R = np.asarray(starts, float)
    if R.ndim != 3 or R.shape[1:] != (molecule.n_atoms, 3) or len(R) == 0:
        raise InputError(f"starts have shape {R.shape}, expected (B, {molecule.n_atoms}, 3)")
    exchangeable: tuple[tuple[int, ...], ...] = ()
    if permutations is None:
        permutations, exchangeable = _equivalences(molecule)
    permutations = np.asarray(permutations)
    surface = as_surface(surface, molecule)
    options = {"tolerance": tolerance, "max_steps": max_steps, "progress": progress}
    found = relax(surface, R, **options)
    if not found.converged.any():
        raise InputError(
            f"none of {len(R)} starts converged: the smallest largest force is "
            f"{found.max_forces.min():.2g} kcal/mol/Å; raise max_steps or tolerance"
        )
    first, group = _grouped(found, distance, permutations, mirror, exchangeable)
    modes = [normal_modes(surface, found.positions[b], molecule.masses) for b in first]
    frequencies = [m.frequencies for m in modes]
    sound = np.array([len(f) == 0 or f[0] > -FLAT for f in frequencies])
    counts = np.bincount(group[group >= 0], minlength=len(first))

    def chosen(which) -> dict:
        index = np.flatnonzero(which)
        own = np.array(first)[index]
        return {
            "positions": found.positions[own],
            "energies": found.energies[own],
            "frequencies": tuple(frequencies[k] for k in index),
            "counts": counts[index],
        }

    rank = np.where(sound, np.cumsum(sound) - 1, -1)
    led_to = np.where(group >= 0, rank[group], -1)
    return Minima(
        **chosen(sound), molecule=molecule, saddles=StationaryPoints(**chosen(~sound)),
        led_to=led_to, failed=~found.converged, permutations=permutations, mirror=mirror,
        exchangeable=exchangeable,
    )  # fmt: skip


def automorphisms(molecule: Molecule) -> np.ndarray:
    """All permutations (P, N) of atoms that keep elements and bonds, the identity first.

    Raises:
        InputError: they are more than 20,000.
    """
    permutations, exchangeable = _equivalences(molecule)
    if exchangeable:
        raise _too_many(molecule)
    return permutations


def _equivalences(molecule: Molecule) -> tuple[np.ndarray, tuple[tuple[int, ...], ...]]:
    """All permutations (P, N) and nothing, or those up to exchanges of end atoms, and these atoms.

    The second where the first are more than `MOST`.
    """
    from networkx.algorithms.isomorphism import GraphMatcher

    graph = molecule.graph.copy()
    ends: dict[tuple[int, int], list[int]] = {}
    for atom, degree in molecule.graph.degree:
        parent = next(iter(molecule.graph[atom]), atom)
        if degree == 1 and molecule.graph.degree[parent] > 1:
            ends.setdefault((parent, int(molecule.numbers[atom])), []).append(atom)
    # One end atom stands for all those like it.
    alike = {atoms[0]: tuple(atoms) for atoms in ends.values()}
    for first, *others in alike.values():
        graph.nodes[first]["count"] = 1 + len(others)
        graph.remove_nodes_from(others)
    matcher = GraphMatcher(graph, graph, node_match=lambda a, b: a == b)
    found = []
    for mapping in itertools.islice(matcher.isomorphisms_iter(), MOST + 1):
        order = np.arange(molecule.n_atoms)
        for atom, image in mapping.items():
            order[list(alike.get(atom, (atom,)))] = alike.get(image, (image,))
        found.append(order)
    if len(found) > MOST:
        raise _too_many(molecule)
    exchangeable = tuple(atoms for atoms in alike.values() if len(atoms) > 1)
    if len(found) * prod(factorial(len(atoms)) for atoms in exchangeable) > MOST:
        return np.array(sorted(found, key=tuple)), exchangeable
    for atoms in exchangeable:
        exchanged = []
        for order in itertools.permutations(atoms):
            exchange = np.arange(molecule.n_atoms)
            exchange[list(atoms)] = order
            exchanged.append(exchange)
        found = [order[exchange] for order in found for exchange in exchanged]
    return np.array(sorted(found, key=tuple)), ()


def _too_many(molecule: Molecule) -> InputError:
    return InputError(
        f"{molecule.name or molecule.formula} has more than {MOST} permutations of equivalent "
        "atoms: give those to be tried as permutations="
    )


def _grouped(
    found: Relaxed, distance: float, permutations, mirror, exchangeable=()
) -> tuple[list, np.ndarray]:
    """Starts that stand for different points, lowest first; which of them (B,) each is, or −1."""
    first: list[int] = []
    group = np.full(len(found.energies), -1)
    equivalent = (permutations, mirror, exchangeable)
    for b in np.argsort(found.energies, kind="stable"):
        if not found.converged[b]:
            continue
        near = [k for k, a in enumerate(first) if found.energies[b] - found.energies[a] < ALIKE]
        others = found.positions[[first[k] for k in near]]
        away = rmsd(found.positions[[b]], others, *equivalent)[0] if near else []
        same = [k for k, d in zip(near, away, strict=True) if d < distance]
        group[b] = same[0] if same else len(first)
        first.extend([] if same else [int(b)])
    return first, group


@dataclass(frozen=True, eq=False)
class Ordering:
    """How P potentials order K minima; energies from the lowest of each potential's row.

    Attributes:
        names: (P,) of the potentials.
        unrelaxed: (P, K) kcal/mol, at the minima as given.
        relaxed: (P, K) kcal/mol, each minimum relaxed by the potential; not a number where it did
            not converge.
        onto: (P, K) the given minimum that the relaxed geometry is nearest to: those of one row
            with the same number have fallen together.
        rmsd: (P, K) Å, from it.
    """

    names: tuple[str, ...]
    unrelaxed: np.ndarray
    relaxed: np.ndarray
    onto: np.ndarray
    rmsd: np.ndarray

    def rows(self) -> list[list]:
        """[potential, minimum, unrelaxed, relaxed, onto, rmsd] of each, minima counted from 1."""
        return [
            [name, k + 1, self.unrelaxed[p, k], self.relaxed[p, k], self.onto[p, k] + 1,
             self.rmsd[p, k]]
            for p, name in enumerate(self.names)
            for k in range(self.unrelaxed.shape[1])
        ]  # fmt: skip


def ordering(
    found: Minima,
    surfaces: Mapping[str, object],
    *,
    tolerance: float = 1e-3,
    max_steps: int = 5000,
) -> Ordering:
    """Energies of the same minima by several potentials, as they are and relaxed by each.

    Args:
        found: the minima to compare, of one of the potentials or another.
        surfaces: {name: potential or calculator}.
        tolerance, max_steps: of the minimisations, as `minima`.

    Raises:
        InputError: there are no minima, or no potentials.
    """
    if not len(found) or not surfaces:
        raise InputError(
            f"{len(found)} minima and {len(surfaces)} potentials: there is nothing to order"
        )
    rows: list[Sequence] = []
    for surface in surfaces.values():
        surface = as_surface(surface, found.molecule)
        unrelaxed = np.asarray(evaluate(surface, found.positions)[0], float)
        own = relax(surface, found.positions, tolerance=tolerance, max_steps=max_steps)
        away = rmsd(own.positions, found.positions, found.permutations, found.mirror,
                    found.exchangeable)  # fmt: skip
        relaxed = np.where(own.converged, own.energies, np.nan)
        rows.append((_from_lowest(unrelaxed), _from_lowest(relaxed), away.argmin(axis=1),
                     away.min(axis=1)))  # fmt: skip
    return Ordering(tuple(surfaces), *map(np.array, zip(*rows, strict=True)))


def _from_lowest(energies) -> np.ndarray:
    """Energies above the lowest, all not a number where none is finite."""
    energies = np.where(np.isfinite(energies), energies, np.nan)
    return energies - np.min(energies, where=~np.isnan(energies), initial=np.inf)
