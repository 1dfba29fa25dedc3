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
from jaxff.settings import checked_type

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
        values: K arrays (g1,), (g2,) of the values on the grid, Å or rad.
        numbers: (N,) atomic numbers.
        positions: (g1[, g2], N, 3) Å.
        energies: (g1[, g2]) kcal/mol.
        converged: (g1[, g2]) whether the minimisation converged or, in a rigid scan, whether the
            energy is finite.
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
        """Energies (g1[, g2]) kcal/mol relative to the lowest energy; NaN if not finite."""
        finite = np.where(np.isfinite(self.energies), self.energies, np.nan)
        return finite - np.nanmin(finite)

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Whether the values of each coordinate cover a full turn, (K,)."""
        return tuple(map(_is_periodic, self.coordinates, self.values))

    def save(self, path) -> None:
        """Write the scan atomically to an npz file."""
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
            InputError: the file is not a scan, is damaged, or has an unknown format version.
        """
        file = NpzReader(path, "scan")
        try:
            header = json.loads(file.text("header"))
            form = (header["format"], header["version"])
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{path} is not a scan: give a file that `jaxff scan` wrote"
            ) from error
        if form != (FORMAT, VERSION):
            raise InputError(
                f"{path} has the format {form[0]} version {form[1]}, but this jaxff reads {FORMAT} "
                f"version {VERSION}: repeat the scan"
            )
        try:
            names, relaxed = tuple(header["names"]), bool(header["relaxed"])
            coordinates = tuple(map(tuple, header["coordinates"]))
        except (TypeError, KeyError) as error:
            raise InputError(f"{path} is damaged: repeat the scan") from error
        values = tuple(file.need(f"values_{k}", _wrong("f", 1)) for k in range(len(coordinates)))
        grid = tuple(map(len, values))
        numbers = file.need("numbers", _wrong("iu", 1))
        arrays = {
            "numbers": numbers,
            "positions": file.need("positions", _wrong("f", (*grid, len(numbers), 3))),
            "energies": file.need("energies", _wrong("f", grid)),
            "converged": file.need("converged", _wrong("b", grid)),
        }
        return cls(names, coordinates, values, **arrays, relaxed=relaxed)


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
    """Compute energies on a grid of one or two internal coordinates.

    Each geometry is created from the start by rigid rotation or translation of the smaller side of
    a bond.  In a relaxed scan, all other degrees of freedom are then minimised.  This minimisation
    is repeated from the geometry of the lowest neighbour on the grid, which makes the result nearly
    independent of the path.  A `Potential` computes all points in one compiled call.

    Args:
        surface: a `Potential`, an ASE calculator, or a function (see `as_surface`).
        start: elements, bonds and starting geometry.
        coordinates: one or two tuples of atoms: two for their distance, three for the angle at
            the middle atom, four for a torsion.
        values: one array (g,) for each coordinate, Å or rad.
        relax: whether to minimise all other degrees of freedom.  If rigid motion cannot set a
            coordinate, as in a ring, the minimisation starts from the nearest geometry with the
            given value.
        sweeps: largest number of minimisations from neighbours; they stop when no energy decreases.
        descent: settings of each minimisation; None for `Descent()`.
        progress: called with the name of a phase and the fraction done.

    Returns:
        the energies and geometries.

    Raises:
        InputError: `start` is not a `Molecule`, unusable coordinates or values, a rigid scan of a
            bond in a ring, or no finite energy at any point.
    """
    coordinates = checked_coordinates(checked_type("start", start, Molecule), coordinates)
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
    """Subtract the energies of two scans, relative to the lowest energy of each scan.

    Returns:
        `scan` minus `other`, (g1[, g2]) kcal/mol.

    Raises:
        InputError: the scans have different coordinates or values.
    """
    same = scan.coordinates == other.coordinates and all(
        a.shape == b.shape and np.allclose(a, b)
        for a, b in zip(scan.values, other.values, strict=True)
    )
    if not same:
        raise InputError(
            "the two scans have different coordinates or values: use the same coordinates and "
            "values for both"
        )
    return scan.relative - other.relative


def _wrong(kinds: str, shape: int | tuple[int, ...]) -> Callable[[np.ndarray], str | None]:
    """Return a check of the kind of numbers and of the shape, or the number of axes, of arrays."""

    def check(array: np.ndarray) -> str | None:
        fits = array.ndim == shape if isinstance(shape, int) else array.shape == shape
        if fits and array.dtype.kind in kinds:
            return None
        return f"has shape {array.shape} and type {array.dtype}, which a scan never has"

    return check


def _swept(minimise, on_grid, starts: np.ndarray, neighbours: np.ndarray, sweeps: int):
    """Minimise from `starts`, then repeatedly from the lowest neighbour of each grid point.

    Args:
        minimise: minimises geometries (M, N, 3) Å, one for each grid point.
        on_grid: sets the coordinates of geometries (M, N, 3) Å to the values of the grid points.
        starts: (M, N, 3) Å.
        neighbours: (2K, M) indices from `_neighbours`.
        sweeps: largest number of repetitions.

    Returns:
        positions (M, N, 3) Å, energies (M,) kcal/mol, and whether each point converged, (M,).
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
    """Return the indices (2K, M) of the neighbours of each of M grid points along K coordinates.

    At the ends of a coordinate that is not periodic, a point is its own neighbour.  For a single
    point the shape is (0, 1).
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
            f"{len(coordinates)} coordinates and {len(values)} arrays of values: give one or two "
            "coordinates, and one array of values for each coordinate"
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
