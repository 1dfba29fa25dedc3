"""Energies along one or two internal coordinates, rigid or relaxed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from jaxff.analysis.internal import checked_coordinates, is_movable, label, place
from jaxff.errors import InputError
from jaxff.md import descent as descents
from jaxff.md.constraints import Coordinates
from jaxff.md.descent import Descent, Minimum
from jaxff.md.surface import as_surface, evaluate
from jaxff.molecule import Molecule
from jaxff.npz import NpzReader, write_npz

FORMAT, VERSION = "jaxff scan", 1
UNITS = {"energies": "kcal/mol", "positions": "Å", "distances": "Å", "angles": "rad"}
ARRAYS = ("numbers", "positions", "energies", "converged")
GAIN = 1e-4  # kcal/mol: a smaller improvement does not replace a geometry


@dataclass(frozen=True, eq=False)
class Scan:
    """Energies and geometries on a grid over one or two internal coordinates.

    Attributes:
        names: (K,) names of the coordinates, such as "torsion C1-C2-O3-H9".
        coordinates: (K,) tuples of atoms.
        values: K arrays (g1,), (g2,) Å or rad.
        numbers: (N,) atomic numbers.
        positions: (g1[, g2], N, 3) Å.
        energies: (g1[, g2]) kcal/mol.
        converged: (g1[, g2]) bool; in a rigid scan, whether the energy is finite.
        relaxed: whether all other degrees of freedom were minimised.
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
        """Energies (g1[, g2]) kcal/mol relative to the lowest; NaN if not finite."""
        finite = np.where(np.isfinite(self.energies), self.energies, np.nan)
        return finite - np.nanmin(finite)

    @property
    def periodic(self) -> tuple[bool, ...]:
        """(K,) whether the values of each coordinate cover a full turn."""
        return tuple(map(_is_periodic, self.coordinates, self.values))

    def save(self, path) -> None:
        """Write an npz file with units and format version, completely or not at all."""
        header = {
            "format": FORMAT, "version": VERSION, "units": UNITS, "names": self.names,
            "coordinates": self.coordinates, "relaxed": bool(self.relaxed),
        }  # fmt: skip
        values = {f"values_{k}": v for k, v in enumerate(self.values)}
        arrays = {key: getattr(self, key) for key in ARRAYS}
        write_npz(path, {"header": np.array(json.dumps(header)), **values, **arrays})

    @classmethod
    def load(cls, path) -> Scan:
        """Read a file that `save` wrote.

        Raises:
            InputError: the file is no scan, is damaged, or has another format version.
        """
        file = NpzReader(path, "scan")
        try:
            header = json.loads(file.text("header"))
            form = (header["format"], header["version"])
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: not a scan written by jaxff") from error
        if form != (FORMAT, VERSION):
            raise InputError(
                f"{path}: its format is {form[0]} version {form[1]}, but this jaxff reads {FORMAT} "
                f"version {VERSION}"
            )
        values = tuple(file.need(f"values_{k}") for k in range(len(header["names"])))
        arrays = {key: file.need(key) for key in ARRAYS}
        coordinates = tuple(map(tuple, header["coordinates"]))
        return cls(tuple(header["names"]), coordinates, values, **arrays, relaxed=header["relaxed"])


def scan(
    surface,
    start: Molecule,
    coordinates: Sequence[Sequence[int]],
    values: Sequence,
    relax: bool = False,
    *,
    sweeps: int = 3,
    descent: Descent | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Scan:
    """Energies over a grid of one or two internal coordinates.

    Each geometry is made from the start: the smaller side of a bond is rotated or translated as a
    rigid body.  In a relaxed scan all other degrees of freedom are then minimised with the
    coordinates held.  The minimisation is repeated from the geometry of the lowest neighbour on
    the grid, so that the result depends little on the path to a point.  For a `Potential`, all
    points are one compiled call.

    Args:
        surface: a `Potential`, an ASE calculator, or a function (see `as_surface`).
        start: elements, bonds and starting geometry.
        coordinates: one or two tuples of atoms: two for their distance, three for the angle at
            the middle atom, four for a torsion.
        values: one array (g,) for each coordinate, Å or rad.
        relax: whether to minimise all other degrees of freedom.  Coordinates that no rigid motion
            can set, as in a ring, then start from the nearest geometry with their values.
        sweeps: largest number of minimisations from neighbours; they end when no energy falls.
        descent: settings of each minimisation; None for `Descent()`.
        progress: called with the task and the fraction done.

    Raises:
        InputError: unusable coordinates or values, a rigid scan of a bond in a ring, or no finite
            energy at any point.
    """
    coordinates = checked_coordinates(start, coordinates)
    axes = _checked_values(coordinates, values)
    surface = as_surface(surface, start)
    shape = tuple(map(len, axes))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))

    def on_grid(positions):
        if relax and not is_movable(start, coordinates):
            return positions
        return place(start, coordinates, positions, grid)

    R = on_grid(np.tile(start.positions, (len(grid), 1, 1)))
    if relax:
        periodic = tuple(map(_is_periodic, coordinates, axes))
        minimise = partial(
            descents.relax, surface, coordinates=coordinates, values=grid, descent=descent,
            progress=progress,
        )  # fmt: skip
        R, energies, converged = _swept(minimise, on_grid, R, _neighbours(shape, periodic), sweeps)
    else:
        energies = np.asarray(evaluate(surface, R)[0], float)
        converged = np.isfinite(energies)
    if not np.isfinite(energies).any():
        raise InputError("no point of the scan has a finite energy: check the starting geometry")
    return Scan(
        tuple(label(start, atoms) for atoms in coordinates), coordinates, axes, start.numbers,
        R.reshape(*shape, *R.shape[1:]), energies.reshape(shape), converged.reshape(shape), relax,
    )  # fmt: skip


def difference(scan: Scan, other: Scan) -> np.ndarray:
    """`scan` minus `other`, each relative to its lowest energy, (g1[, g2]) kcal/mol.

    Raises:
        InputError: the scans have different coordinates or values.
    """
    same = scan.coordinates == other.coordinates and all(
        a.shape == b.shape and np.allclose(a, b)
        for a, b in zip(scan.values, other.values, strict=True)
    )
    if not same:
        raise InputError(
            "the two scans have different coordinates or values: use the same ones for both"
        )
    return scan.relative - other.relative


def _swept(minimise, on_grid, starts: np.ndarray, neighbours: np.ndarray, sweeps: int):
    """Minimise from `starts`, then repeatedly from the lowest neighbours on the grid.

    Args:
        minimise: minimises geometries (M, N, 3) Å, one for each grid point.
        on_grid: sets the coordinates of geometries (M, N, 3) Å to the values of the grid points.
        starts: (M, N, 3) Å.
        neighbours: see `_neighbours`.
        sweeps: largest number of repetitions.

    Returns:
        Positions (M, N, 3) Å, energies (M,) kcal/mol and convergence (M,).
    """
    best: Minimum = minimise(starts)
    R, energies, converged = best.positions, best.energy, best.converged
    for _ in range(sweeps if len(neighbours) else 0):
        lowest = neighbours[np.argmin(energies[neighbours], axis=0), np.arange(len(energies))]
        again = minimise(on_grid(R[lowest]))
        lower = again.energy < energies - GAIN
        better = again.converged & (lower | ~converged)
        R = np.where(better[:, None, None], again.positions, R)
        energies = np.where(better, again.energy, energies)
        converged = converged | better
        if not better.any():
            break
    return R, np.asarray(energies, float), converged


def _neighbours(shape: tuple[int, ...], periodic: tuple[bool, ...]) -> np.ndarray:
    """Indices (2K, M) of the neighbours of each grid point along each coordinate.

    At the end of a coordinate that is not periodic, the neighbour of a point is the point itself.
    A grid of one point has no neighbours: the shape is (0, 1).
    """
    index = np.arange(np.prod(shape)).reshape(shape)
    neighbours = []
    for axis, wraps in enumerate(periodic if index.size > 1 else ()):
        for shift in (1, -1):
            shifted = np.roll(index, shift, axis)
            if not wraps:
                edge = [slice(None)] * len(shape)
                edge[axis] = slice(0, 1) if shift > 0 else slice(-1, None)
                shifted[tuple(edge)] = index[tuple(edge)]
            neighbours.append(shifted.ravel())
    return np.array(neighbours, int).reshape(-1, index.size)


def _checked_values(coordinates: Coordinates, values) -> tuple[np.ndarray, ...]:
    if len(coordinates) not in (1, 2) or len(values) != len(coordinates):
        raise InputError(
            f"{len(coordinates)} coordinates and {len(values)} arrays of values given: a scan has "
            "one or two coordinates, with one array of values for each"
        )
    axes = tuple(np.asarray(v, float) for v in values)
    for atoms, axis in zip(coordinates, axes, strict=True):
        if axis.ndim != 1 or len(axis) == 0 or not np.isfinite(axis).all():
            raise InputError(f"values of {atoms} must be finite numbers, of shape (g,)")
        if len(atoms) == 2 and not (axis > 0).all():
            raise InputError(f"values of the distance {atoms} must be positive, in Å")
        if len(atoms) == 3 and not ((axis > 0) & (axis < np.pi)).all():
            raise InputError(f"values of the angle {atoms} must be positive and below π, in rad")
    return axes


def _is_periodic(atoms, values: np.ndarray) -> bool:
    if len(atoms) < 4 or len(values) < 3:
        return False
    steps = np.diff(values)
    return bool(np.allclose(steps, steps[0]) and np.isclose(abs(steps[0]) * len(values), 2 * np.pi))
