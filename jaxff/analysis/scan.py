"""Energies along one or two internal coordinates, rigid or relaxed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from jaxff.analysis.internal import (
    KINDS,
    Coordinates,
    checked_coordinates,
    label,
    moving_side,
    placed,
)
from jaxff.analysis.relax import as_surface, evaluate, relax
from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.npz import NpzReader, write_npz

FORMAT, VERSION = "jaxff scan", 1
UNITS = {"energies": "kcal/mol", "positions": "Å", "distances": "Å", "angles": "rad"}
GAIN = 1e-4  # kcal/mol, by which another start must be better to count


@dataclass(frozen=True, eq=False)
class Scan:
    """Energies and geometries on a grid of one or two internal coordinates.

    Attributes:
        names: (K,) of the coordinates, such as "torsion C1-C2-O3-H9".
        coordinates: (K,) tuples of atoms.
        values: K arrays (g1,), (g2,) Å or rad.
        numbers: (N,) atomic numbers.
        positions: (g1[, g2], N, 3) Å.
        energies: (g1[, g2]) kcal/mol.
        converged: (g1[, g2]) bool; of a rigid scan, whether the energy is finite.
        relaxed: whether the rest of the molecule was minimised.
    """

    names: tuple[str, ...]
    coordinates: Coordinates
    values: tuple[np.ndarray, ...]
    numbers: np.ndarray
    positions: np.ndarray
    energies: np.ndarray
    converged: np.ndarray
    relaxed: bool

    @cached_property
    def relative(self) -> np.ndarray:
        """(g1[, g2]) kcal/mol, energies from the lowest; not a number where it is not finite."""
        finite = np.where(np.isfinite(self.energies), self.energies, np.nan)
        return finite - np.nanmin(finite)

    @property
    def periodic(self) -> tuple[bool, ...]:
        """(K,) whether the values of each coordinate go once around."""
        return tuple(map(_periodic, self.coordinates, self.values))

    def save(self, path) -> None:
        """Write an npz file with units and format version, whole or not at all."""
        header = {
            "format": FORMAT, "version": VERSION, "units": UNITS, "names": self.names,
            "coordinates": self.coordinates, "relaxed": bool(self.relaxed),
        }  # fmt: skip
        values = {f"values_{k}": v for k, v in enumerate(self.values)}
        arrays = {key: getattr(self, key) for key in _ARRAYS}
        write_npz(path, {"header": np.array(json.dumps(header)), **values, **arrays})

    @classmethod
    def load(cls, path) -> Scan:
        """Read what `save` wrote.

        Raises:
            InputError: another file, a damaged one, or one of a newer format.
        """
        file = NpzReader(path, "scan")
        try:
            header = json.loads(file.text("header"))
            form = (header["format"], header["version"])
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: not a scan written by jaxff") from error
        if form != (FORMAT, VERSION):
            raise InputError(
                f"{path}: its format is {form[0]} version {form[1]}, this jaxff reads {FORMAT} "
                f"version {VERSION}"
            )
        values = tuple(file.need(f"values_{k}") for k in range(len(header["names"])))
        arrays = {key: file.need(key) for key in _ARRAYS}
        coordinates = tuple(map(tuple, header["coordinates"]))
        return cls(tuple(header["names"]), coordinates, values, **arrays, relaxed=header["relaxed"])


_ARRAYS = ("numbers", "positions", "energies", "converged")


def scan(
    surface,
    start: Molecule,
    coordinates: Sequence[Sequence[int]],
    values: Sequence,
    relax: bool = False,
    *,
    sweeps: int = 3,
    tolerance: float = 1e-3,
    max_steps: int = 1000,
    progress: Callable[[str, float], None] | None = None,
) -> Scan:
    """Energies along one internal coordinate, or over two.

    Each geometry is the start with one side of a bond, the one of fewer atoms, turned or moved as
    a rigid body. Relaxed, the coordinates are then held and all else is minimised, and once more
    from the geometry of the best neighbour on the grid, so that the path by which a point was
    reached matters little. Of a `Potential` all points are one compiled call.

    Args:
        surface: a `Potential`, an ASE calculator, or a function of positions (M, N, 3) Å giving
            energies (M,) kcal/mol and forces (M, N, 3) kcal/mol/Å.
        start: elements, bonds and starting geometry.
        coordinates: one or two tuples of atoms: two for their distance, three for the angle at
            the middle one, four for a torsion.
        values: of each coordinate (g,), Å or rad.
        relax: minimise the rest. Coordinates that no rigid motion sets, as in a ring, start from
            the nearest geometry that has their values.
        sweeps: at most so many times from the neighbours, while any point gains.
        tolerance: largest force left on an atom, kcal/mol/Å.
        max_steps: of each minimisation.
        progress: called with what goes on and the fraction done.

    Raises:
        InputError: coordinates or values that cannot be used, or (rigid) a bond in a ring.
    """
    coordinates = checked_coordinates(start, coordinates)
    axes = _checked_values(coordinates, values)
    surface = as_surface(surface, start)
    shape = tuple(map(len, axes))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    starts = np.tile(start.positions, (len(grid), 1, 1))
    movable = _is_movable(start, coordinates) if relax else True
    if movable:
        starts = placed(start, coordinates, starts, grid)
    if relax:
        options = {"tolerance": tolerance, "max_steps": max_steps, "progress": progress}
        place = (lambda R: placed(start, coordinates, R, grid)) if movable else (lambda R: R)
        around = tuple(map(_periodic, coordinates, axes))
        found = _swept(surface, starts, coordinates, grid, shape, around, place, sweeps, options)
        R, energies, converged = found
    else:
        R = starts
        energies = np.asarray(evaluate(surface, R)[0], float)
        converged = np.isfinite(energies)
    if not np.isfinite(energies).any():
        raise InputError("no point of the scan has a finite energy: look at the start's geometry")
    return Scan(
        tuple(label(start, atoms) for atoms in coordinates), coordinates, axes, start.numbers,
        R.reshape(*shape, *R.shape[1:]), energies.reshape(shape), converged.reshape(shape), relax,
    )  # fmt: skip


def difference(scan: Scan, other: Scan) -> np.ndarray:
    """`scan` minus `other`, each from its own lowest energy, (g1[, g2]) kcal/mol.

    Raises:
        InputError: they are not of the same coordinates and values.
    """
    same = scan.coordinates == other.coordinates and all(
        a.shape == b.shape and np.allclose(a, b)
        for a, b in zip(scan.values, other.values, strict=True)
    )
    if not same:
        raise InputError("the two scans are of other coordinates or values: scan both alike")
    return scan.relative - other.relative


def _swept(surface, starts, coordinates, grid, shape, around, place, sweeps, options):
    """Positions, energies and convergence, from `starts` and then from neighbours on the grid."""
    found = relax(surface, starts, coordinates, grid, **options)
    R, energies, converged = found.positions, found.energies, found.converged
    for _ in range(sweeps):
        nearest = _best_neighbour(energies, shape, around)
        if nearest is None:
            break
        found = relax(surface, place(R[nearest]), coordinates, grid, **options)
        better = (found.energies < energies - GAIN) & found.converged | (
            found.converged & ~converged
        )
        R = np.where(better[:, None, None], found.positions, R)
        energies = np.where(better, found.energies, energies)
        converged = converged | better
        if not better.any():
            break
    return R, np.asarray(energies, float), converged


def _best_neighbour(energies: np.ndarray, shape, around) -> np.ndarray | None:
    """Index (M,) of the lowest neighbour of each grid point; None of a single point."""
    if len(energies) == 1:
        return None
    index = np.arange(len(energies)).reshape(shape)
    options = []
    for axis, periodic in enumerate(around):
        for shift in (1, -1):
            neighbour = np.roll(index, shift, axis)
            if not periodic:  # an end has itself in place of what is beyond
                edge = [slice(None)] * len(shape)
                edge[axis] = 0 if shift > 0 else -1
                neighbour[tuple(edge)] = index[tuple(edge)]
            options.append(neighbour.ravel())
    options = np.stack(options)
    return options[np.argmin(energies[options], axis=0), np.arange(len(energies))]


def _is_movable(start: Molecule, coordinates: Coordinates) -> bool:
    try:
        for atoms in coordinates:
            moving_side(start, atoms)
    except InputError:
        return False
    return True


def _checked_values(coordinates: Coordinates, values) -> tuple[np.ndarray, ...]:
    if len(coordinates) not in (1, 2) or len(values) != len(coordinates):
        raise InputError(
            f"{len(coordinates)} coordinates and {len(values)} arrays of values given: a scan has "
            "one or two coordinates, and an array of values of each"
        )
    axes = tuple(np.asarray(v, float) for v in values)
    for atoms, axis in zip(coordinates, axes, strict=True):
        if axis.ndim != 1 or len(axis) == 0 or not np.isfinite(axis).all():
            raise InputError(f"values of {atoms} must be finite numbers, of shape (g,)")
        limit = {2: np.inf, 3: np.pi, 4: np.inf}[len(atoms)]
        if len(atoms) < 4 and not ((axis > 0).all() and (axis < limit).all()):
            raise InputError(
                f"values of the {KINDS[len(atoms)]} {atoms} must be positive"
                f"{' and below π' if len(atoms) == 3 else ''}, in {'rad' if limit < 9 else 'Å'}"
            )
    return axes


def _periodic(atoms, values: np.ndarray) -> bool:
    if len(atoms) < 4 or len(values) < 3:
        return False
    steps = np.diff(values)
    return bool(np.allclose(steps, steps[0]) and np.isclose(abs(steps[0]) * len(values), 2 * np.pi))
