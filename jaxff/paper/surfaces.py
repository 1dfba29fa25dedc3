"""Relaxed energy surfaces of two torsions, where they can be trusted, and how they compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np

from jaxff.analysis import (
    Estimate,
    Scan,
    as_surface,
    automorphisms,
    rmsd,
    rotatable_torsions,
    scan,
    torsion_angles,
)
from jaxff.dataset import Dataset
from jaxff.md import Descent
from jaxff.md.surface import evaluate
from jaxff.molecule import Molecule
from jaxff.paper.experiment import Setting, force_fields
from jaxff.reference import calculator

KERNEL, HF_KERNEL = "sGDML", "sGDML@HF"
ALIKE = 0.35  # Å, root mean square distance below which two minima count as the same
THERMAL = 5.0  # kcal/mol above the lowest point; energy differences are averaged below
FAR = np.radians(30.0)  # a point is far from the data if no frame is nearer in both torsions
UNSURE = 0.5  # kcal/mol: a larger standard error of the kernel also counts as far
CHECKED = 8  # lowest minima that are compared with the reference method
CONFIRMED = 0.5  # kcal/mol: largest deviation of a minimum from the reference method


@dataclass(frozen=True, eq=False)
class Surface:
    """The surface of a kernel, and where it can be trusted.

    Attributes:
        scan: the energies by the kernel.
        far: (g1, g2) bool, points that are far from the data.
        error: kcal/mol, root mean square standard error of the energy at the other points.
        level: level of theory in words.
    """

    scan: Scan
    far: np.ndarray
    error: float
    level: str

    @property
    def far_share(self) -> str:
        """The share of points far from the data, in words."""
        return (
            f"{self.far.mean():.0%} of the points of {self.level} are hatched: no frame of the "
            f"data lies within {np.degrees(FAR):.0f}° in both torsions, or the kernel's standard "
            f"error is above {UNSURE:g} kcal/mol. They are left out of correlations and "
            "differences."
        )


@dataclass(frozen=True)
class GridMinimum:
    """A minimum on the grid of a surface.

    Attributes:
        place: its indices on the grid.
        torsions: degrees.
        energy: kcal/mol, relative to the lowest point of the surface.
        off: kcal/mol, deviation of `energy` from the reference method; NaN if it is not known.
        far: whether the minimum is far from the data.
    """

    place: tuple[int, int]
    torsions: tuple[float, float]
    energy: float
    off: float = nan
    far: bool = False

    @property
    def is_doubtful(self) -> bool:
        """Whether the reference method contradicts it or, if unknown, there are no data near it."""
        return self.far if np.isnan(self.off) else abs(self.off) > CONFIRMED

    def __str__(self) -> str:
        a, b = self.torsions
        mark = " (doubtful)" if self.is_doubtful else ""
        return f"{a:+.0f}°, {b:+.0f}°: {self.energy:.2f}{mark}"


def scanned(setting: Setting, molecule: str, title: str) -> Scan:
    """The relaxed scan of two torsions by one potential, kept in the folder `scans`."""
    path = setting.place("scans") / f"{molecule}-{title.lower()}.npz"
    if not path.is_file():
        data = setting.dataset(setting.surface_set(molecule))
        if title in (KERNEL, HF_KERNEL):
            potential = setting.kernel(_kernel_set(setting, molecule, title))
        else:
            potential = force_fields(setting, molecule, (title,) if title != "GAFF" else ())[title]
        values = np.radians(np.arange(-180.0, 180.0, setting.size(20.0, 60.0)))
        lowest = 0 if data.energies is None else int(np.argmin(data.energies))
        scan(
            potential, data.molecule.with_positions(data.positions[lowest]),
            rotatable_torsions(data.molecule)[:2].tolist(), [values, values], relax=True,
            descent=Descent(tolerance=2e-2, max_steps=400),
            progress=setting.titled(f"{title}, surface of {molecule}"),
        ).save(path)  # fmt: skip
    grid = Scan.load(path)
    return replace(grid, names=rotors(molecule, grid))


def surface(setting: Setting, molecule: str, title: str = KERNEL) -> Surface:
    """The surface of a kernel with its errors."""
    name, grid = _kernel_set(setting, molecule, title), scanned(setting, molecule, title)
    data = setting.dataset(name)
    errors = setting.uncertainty(name).predict(grid.positions.reshape(-1, data.n_atoms, 3))[0]
    errors = errors.reshape(grid.energies.shape)
    far = _far_in_torsions(grid, data) | (errors > UNSURE)
    error = float(np.sqrt(np.mean(errors[~far] ** 2))) if not far.all() else nan
    test = setting.kernel_error(name)["force_mae"]
    level = f"{title} of {molecule} ({data.theory}; test force MAE {test:.2f} kcal/mol/Å)"
    return Surface(grid, far, error, level)


def _kernel_set(setting: Setting, molecule: str, title: str) -> str:
    at_hf = title == HF_KERNEL
    return setting.hartree_fock_set(molecule) if at_hf else setting.surface_set(molecule)


def rotors(molecule: str, grid: Scan) -> tuple[str, ...]:
    """Names of the two rotors of a scan, in the order of its coordinates."""
    if molecule == "ethanol":  # the rotating bond is C-O or C-C
        bonds = [grid.numbers[list(atoms[1:3])] for atoms in grid.coordinates]
        return tuple("hydroxyl rotor" if 8 in bond else "methyl rotor" for bond in bonds)
    return "aldehyde rotor 1", "aldehyde rotor 2"


def correlation(reference: Surface, other: Scan) -> Estimate:
    """The correlation of two surfaces near the data.

    Its error is the kernel's error divided by the standard deviation of its surface.
    """
    near = ~reference.far & np.isfinite(other.relative)
    if near.sum() < 10:
        return Estimate(nan, nan)
    a, b = reference.scan.relative[near], other.relative[near]
    return Estimate(float(np.corrcoef(a, b)[0, 1]), reference.error / float(a.std()))


def rms_difference(reference: Surface, other: Scan) -> Estimate:
    """The root mean square difference near the data, below `THERMAL`, mean subtracted."""
    off = _difference(reference, other)
    return Estimate(nan, nan) if off is None else Estimate(float(off.std()), reference.error)


def coupling(energies: np.ndarray) -> np.ndarray:
    """The part (A, B) of a surface (A, B) that is no sum of functions of one torsion each."""
    rows, columns = energies.mean(axis=1, keepdims=True), energies.mean(axis=0, keepdims=True)
    return energies - rows - columns + energies.mean()


def coupling_slope(reference: Surface, other: Scan) -> Estimate:
    """The coupling of another surface as a multiple of the kernel's, by regression.

    Its error is the kernel's error divided by the root mean square of its coupling.
    """
    a, b = coupling(reference.scan.relative), coupling(other.relative)
    size = float(np.sum(a**2))
    slope = float(np.sum(a * b)) / size
    return Estimate(slope, reference.error / np.sqrt(size / a.size))


def coupling_share(reference: Surface, other: Scan) -> Estimate:
    """The share of the coupling in the mean square difference of two surfaces.

    Its error is the kernel's mean square error divided by the mean square difference.
    """
    off = reference.scan.relative - other.relative
    share = float(np.mean(coupling(off) ** 2) / off.var())
    return Estimate(share, reference.error**2 / float(off.var()))


def energy_at_lowest(reference: Surface, other: Scan) -> Estimate:
    """Relative energy of another surface where the surface of the kernel is lowest."""
    place = np.unravel_index(np.nanargmin(reference.scan.relative), reference.far.shape)
    return Estimate(float(other.relative[place]), reference.error)


def grid_minima(grid: Scan, molecule: Molecule, far: np.ndarray | None = None) -> list:
    """Minima on a periodic grid by ascending energy, without equivalent ones.

    Points that have not converged are none. Returns a list of `GridMinimum`.
    """
    E, R = np.where(grid.converged, grid.relative, np.inf), grid.positions
    moves = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    lower = np.all([np.roll(E, move, axis=(0, 1)) >= E for move in moves], axis=0) & np.isfinite(E)
    symmetries = automorphisms(molecule)
    kept: list[tuple[int, int]] = []
    for place in sorted(zip(*map(np.ndarray.tolist, np.nonzero(lower)), strict=True), key=E.item):
        if all(_distance(R[place], R[other], symmetries) > ALIKE for other in kept):
            kept.append(place)
    degrees = [np.degrees(v) for v in grid.values]
    return [
        GridMinimum(
            (i, j), (float(degrees[0][i]), float(degrees[1][j])), float(E[i, j]),
            far=far is not None and bool(far[i, j]),
        )
        for i, j in kept
    ]  # fmt: skip


def checked_minima(setting: Setting, molecule: str, learned: Surface) -> list[GridMinimum]:
    """Minima of a kernel's surface, compared with its reference method where it is available."""
    name = setting.surface_set(molecule)
    data, method = setting.dataset(name), setting.reference(name)
    minima = grid_minima(learned.scan, data.molecule, learned.far)
    if method is None or len(minima) < 2:
        return minima
    setting.progress(f"minima of {molecule} by the reference method", 0.0)
    exact = as_surface(calculator(method), data.molecule)
    some = minima[: setting.size(CHECKED, 2)]
    energies = evaluate(exact, np.array([learned.scan.positions[m.place] for m in some]))[0]
    off = [m.energy - float(e - energies[0]) for m, e in zip(some, energies, strict=True)]
    checked = [replace(m, off=o) for m, o in zip(some, off, strict=True)]
    return checked + minima[len(some) :]


def shared_minima(
    grid: Scan, reference: Scan, wanted: Sequence[GridMinimum], molecule: Molecule
) -> list[int]:
    """Indices of the wanted minima of a reference scan that another scan has."""
    symmetries, which = automorphisms(molecule), []
    for minimum in grid_minima(grid, molecule):
        R = grid.positions[minimum.place]
        away = [_distance(R, reference.positions[w.place], symmetries) for w in wanted]
        if away and min(away) < ALIKE:
            which.append(int(np.argmin(away)))
    return which


def _difference(reference: Surface, other: Scan) -> np.ndarray | None:
    """Differences (K,) kcal/mol near the data below `THERMAL`; None for fewer than three."""
    low = ~reference.far & (reference.scan.relative < THERMAL) & np.isfinite(other.relative)
    return None if low.sum() < 3 else reference.scan.relative[low] - other.relative[low]


def _distance(R: np.ndarray, other: np.ndarray, symmetries: np.ndarray) -> float:
    return float(rmsd(R[None], other[None], symmetries, mirror=True)[0, 0])


def _far_in_torsions(grid: Scan, data: Dataset) -> np.ndarray:
    """Grid points (g1, g2) without a frame within `FAR` in both torsions."""
    seen = np.asarray(torsion_angles(data.positions, np.array(grid.coordinates)))
    points = np.stack(np.meshgrid(*grid.values, indexing="ij"), axis=-1)
    turn = points[:, :, None] - seen
    turn = np.abs(turn - 2.0 * np.pi * np.round(turn / (2.0 * np.pi)))
    return ~(turn.max(axis=-1) < FAR).any(axis=-1)
