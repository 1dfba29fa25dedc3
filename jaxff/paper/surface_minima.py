"""Minima of surfaces of two torsions, and comparison of these minima with the reference method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from jaxff.analysis import Scan, as_surface, automorphisms, minima, rmsd, torsion_angles
from jaxff.md import Descent
from jaxff.md.surface import evaluate
from jaxff.molecule import Molecule
from jaxff.npz import NpzReader, write_npz
from jaxff.paper import surfaces
from jaxff.paper.experiment import Setting
from jaxff.paper.surfaces import HF_KERNEL, KERNEL
from jaxff.reference import calculator

ALIKE = 0.35  # Å, root mean square distance below which minima of two potentials are the same
CHECKED = 8  # lowest minima that are compared with the reference method
CONFIRMED = 0.5  # kcal/mol: largest deviation of a minimum from the reference method


@dataclass(frozen=True, eq=False)
class SurfaceMinimum:
    """A minimum of a potential, relaxed in all coordinates.

    Attributes:
        positions: (N, 3) Å.
        torsions: torsion angles of the two rotors, degrees.
        energy: energy relative to the lowest minimum of the potential, kcal/mol.
        exact: whether the potential is not a kernel, so that the minimum needs no confirmation.
        off: deviation of `energy` from the reference method, kcal/mol; NaN if unknown.
        far: whether the minimum is far from the data of the kernel.
    """

    positions: np.ndarray
    torsions: tuple[float, float]
    energy: float
    exact: bool = True
    off: float = nan
    far: bool = False

    @property
    def is_doubtful(self) -> bool:
        """Whether a minimum of a kernel contradicts the reference method.

        If the energy by the reference method is unknown, a minimum far from the data is doubtful.
        """
        if self.exact:
            return False
        return self.far if np.isnan(self.off) else abs(self.off) > CONFIRMED

    def __str__(self) -> str:
        a, b = self.torsions
        unknown = not self.exact and np.isnan(self.off)
        mark = " (doubtful)" if self.is_doubtful else " (not recomputed)" if unknown else ""
        return f"{a:+.0f}°, {b:+.0f}°: {self.energy:.2f}{mark}"


def found_minima(setting: Setting, molecule: str, title: str) -> list[SurfaceMinimum]:
    """Find the distinct minima of a potential, in the order of energy.

    The minima are relaxed from the minima on the grid of a scan. Minima of kernels are compared
    with the reference method, if a calculator has this level of theory.
    """
    grid, path = surfaces.scanned(setting, molecule, title), _path(setting, molecule, title)
    if path.is_file():
        file = NpzReader(path, "minima")
        R, energies, off, far = (
            file.need(key) for key in ("positions", "energies", "off", "far")
        )  # fmt: skip
    else:
        R, energies = _relaxed(setting, molecule, title, grid)
        off, far = np.full(len(R), nan), np.zeros(len(R), bool)
        if title in (KERNEL, HF_KERNEL):
            name = surfaces.kernel_set(setting, molecule, title)
            far = surfaces.is_far(setting.kernel(name), R)
            far |= setting.uncertainty(name).predict(R)[0] > surfaces.UNSURE
            off = _deviations(setting, molecule, name, R, energies)
        arrays = {"positions": R, "energies": energies, "off": off, "far": far}
        write_npz(path, arrays)
    phi = np.degrees(np.asarray(torsion_angles(R, np.array(grid.coordinates))))
    exact = title not in (KERNEL, HF_KERNEL)
    return [
        SurfaceMinimum(r, (float(a), float(b)), float(e), exact, float(o), bool(f))
        for r, (a, b), e, o, f in zip(R, phi, energies, off, far, strict=True)
    ]


def grid_minima(grid: Scan) -> np.ndarray:
    """Return geometries (K, N, 3) Å of points on a periodic grid that are below all neighbours."""
    E = np.where(grid.converged, grid.relative, np.inf)
    moves = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    lower = np.all([np.roll(E, move, axis=(0, 1)) >= E for move in moves], axis=0) & np.isfinite(E)
    return grid.positions[lower]


def shared(
    own: Sequence[SurfaceMinimum], wanted: Sequence[SurfaceMinimum], molecule: Molecule
) -> list[int]:
    """Return the indices of those minima in `wanted` that also occur in `own`."""
    if not own or not wanted:
        return []
    away = rmsd(
        np.array([m.positions for m in own]), np.array([m.positions for m in wanted]),
        automorphisms(molecule), mirror=True,
    )  # fmt: skip
    nearest = away.argmin(axis=1)
    return sorted({int(k) for row, k in zip(away, nearest, strict=True) if row[k] < ALIKE})


def deviations(energies: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Compute the deviations (K,) kcal/mol of relative energies from a reference method.

    The deviation of the lowest minimum is zero.

    Args:
        energies: (K,) energies by the kernel, kcal/mol, ascending.
        exact: (C,) energies by the reference method at the lowest C ≤ K geometries, kcal/mol. The
            other deviations are NaN.
    """
    off = np.full(len(energies), nan)
    off[: len(exact)] = (energies[: len(exact)] - energies[0]) - (exact - exact[0])
    return off


def _path(setting: Setting, molecule: str, title: str):
    return setting.place("scans") / f"{molecule}-{title.lower()}-minima.npz"


def _relaxed(
    setting: Setting, molecule: str, title: str, grid: Scan
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct minima (K, N, 3) Å, and relative energies (K,) kcal/mol."""
    starts = grid_minima(grid)
    shape = setting.dataset(setting.surface_set(molecule)).molecule
    if not len(starts):
        return np.empty((0, shape.n_atoms, 3)), np.empty(0)
    points = minima(
        surfaces.by_title(setting, molecule, title), shape, starts,
        descent=Descent(tolerance=5e-3, max_steps=1000),
        progress=setting.titled(f"minima of {molecule} by {title}"),
    )  # fmt: skip
    return points.positions, points.relative


def _deviations(
    setting: Setting, molecule: str, name: str, R: np.ndarray, energies: np.ndarray
) -> np.ndarray:
    """Compute `deviations` (K,) kcal/mol of a kernel's minima from the reference method.

    The deviations are NaN with small sizes, or if no calculator has the level of theory.
    """
    method = None if setting.small else setting.reference(name)
    if method is None or len(R) < 2:
        return np.full(len(R), nan)
    setting.progress(f"minima of {molecule} by the reference method", 0.0)
    exact = as_surface(calculator(method), setting.dataset(name).molecule)
    return deviations(energies, evaluate(exact, R[:CHECKED])[0])
