"""Energy surfaces of two torsions, the domain of validity of kernels, and comparisons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan
from typing import Any

import numpy as np

from jaxff.analysis import Estimate, Scan, rotatable_torsions, scan, torsion_angles
from jaxff.domain import outside
from jaxff.md import Descent
from jaxff.paper.experiment import Setting, force_fields

KERNEL, HF_KERNEL = "sGDML", "sGDML@HF"
THERMAL = 5.0  # kcal/mol above the lowest point; energy differences are averaged below
FAR = np.radians(30.0)  # a point is far from the data if no frame is nearer in both torsions
UNSURE = 0.5  # kcal/mol: a larger standard error of the kernel also counts as far from the data


@dataclass(frozen=True, eq=False)
class Surface:
    """The surface of a kernel, with errors.

    Attributes:
        scan: the energies by the kernel.
        far: (g1, g2) whether each point is far from the data.
        error: root mean square of the standard errors of the energy near the data, kcal/mol.
        level: level of theory in words.
    """

    scan: Scan
    far: np.ndarray
    error: float
    level: str

    @property
    def highest(self) -> float:
        """The highest energy near the data, kcal/mol above the lowest point."""
        near = self.scan.relative[~self.far]
        return float(np.nanmax(near if near.size else self.scan.relative))

    @property
    def far_share(self) -> str:
        """Describe the share of points far from the data, in words."""
        kind = "relaxed" if self.scan.relaxed else "rigid"
        return (
            f"{self.far.mean():.0%} of the points of the {kind} scan by {self.level} are hatched. "
            "They are outside the domain of the training frames, have no training frame within "
            f"{np.degrees(FAR):.0f}° in both torsions, or have a standard error of the kernel "
            f"above {UNSURE:g} kcal/mol. Correlations and differences omit these points."
        )


def scanned(setting: Setting, molecule: str, title: str, relax: bool = True) -> Scan:
    """Scan two torsions with one potential, or read the scan from the folder `scans`.

    Rigid scans by all potentials have the same geometries, derived from the lowest geometry of the
    relaxed scan by sGDML.
    """
    kind = "" if relax else "-rigid"
    path = setting.place("scans") / f"{molecule}-{title.lower()}{kind}.npz"
    if not path.is_file():
        data = setting.dataset(setting.surface_set(molecule))
        values = np.radians(np.arange(-180.0, 180.0, setting.size(20.0, 90.0)))
        if relax:
            lowest = 0 if data.energies is None else int(np.argmin(data.energies))
            start = data.positions[lowest]
        else:
            start = _lowest(scanned(setting, molecule, KERNEL))
        scan(
            by_title(setting, molecule, title), data.molecule.with_positions(start),
            rotatable_torsions(data.molecule)[:2].tolist(), [values, values], relax=relax,
            descent=Descent(tolerance=2e-2, max_steps=400),
            progress=setting.titled(f"{title}, surface of {molecule}"),
        ).save(path)  # fmt: skip
    grid = Scan.load(path)
    return replace(grid, names=rotors(molecule, grid))


def surface(setting: Setting, molecule: str, title: str = KERNEL, relax: bool = True) -> Surface:
    """Return the surface of a kernel with errors."""
    name, grid = kernel_set(setting, molecule, title), scanned(setting, molecule, title, relax)
    positions = grid.positions.reshape(-1, *grid.positions.shape[-2:])
    errors = setting.uncertainty(name).predict(positions)[0]
    far = (is_far(setting.kernel(name), positions) | (errors > UNSURE)).reshape(grid.energies.shape)
    far |= no_frame_near(grid, setting.kernel_frames(name).train.positions)
    near = errors[~far.ravel()]
    error = float(np.sqrt(np.mean(near**2))) if near.size else nan
    test = setting.kernel_error(name)["force_mae"]
    theory = setting.dataset(name).theory
    level = f"{title} of {molecule} ({theory}; test force MAE {test:.2f} kcal/mol/Å)"
    return Surface(grid, far, error, level)


def by_title(setting: Setting, molecule: str, title: str) -> Any:
    """Return the potential or the calculator with the given title."""
    if title in (KERNEL, HF_KERNEL):
        return setting.kernel(kernel_set(setting, molecule, title))
    return force_fields(setting, molecule, (title,) if title != "GAFF" else ())[title]


def kernel_set(setting: Setting, molecule: str, title: str) -> str:
    """Return the name of the data set of a kernel."""
    at_hf = title == HF_KERNEL
    return setting.hartree_fock_set(molecule) if at_hf else setting.surface_set(molecule)


def is_far(potential: Any, positions: np.ndarray) -> np.ndarray:
    """Return whether geometries (M, N, 3) Å are outside the domain of a trained potential, (M,)."""
    found = outside(potential.trained, positions)
    return np.zeros(len(positions), bool) if found is None else found.frames


def no_frame_near(grid: Scan, frames: np.ndarray) -> np.ndarray:
    """Return whether points (g1, g2) of a scan have no frame (M, N, 3) Å within `FAR`."""
    seen = np.asarray(torsion_angles(frames, np.array(grid.coordinates)))
    points = np.stack(np.meshgrid(*grid.values, indexing="ij"), axis=-1)
    turn = points[:, :, None] - seen
    turn = np.abs(turn - 2.0 * np.pi * np.round(turn / (2.0 * np.pi)))
    return ~(turn.max(axis=-1) < FAR).any(axis=-1)


def rotors(molecule: str, grid: Scan) -> tuple[str, ...]:
    """Return the names of the two rotors of a scan, in the order of the coordinates."""
    if molecule == "ethanol":  # the rotating bond is C-O or C-C
        bonds = [grid.numbers[list(atoms[1:3])] for atoms in grid.coordinates]
        return tuple("hydroxyl rotor" if 8 in bond else "methyl rotor" for bond in bonds)
    return "aldehyde rotor 1", "aldehyde rotor 2"


def correlation(reference: Surface, other: Scan) -> Estimate:
    """Compute the correlation of two surfaces near the data.

    The error is the error of the kernel divided by the standard deviation of the kernel's surface.
    """
    near = ~reference.far & np.isfinite(other.relative)
    if near.sum() < 10:
        return Estimate(nan, nan)
    a, b = reference.scan.relative[near], other.relative[near]
    return Estimate(float(np.corrcoef(a, b)[0, 1]), reference.error / float(a.std()))


def rms_difference(reference: Surface, other: Scan) -> Estimate:
    """Compute the RMS difference near the data and below `THERMAL`, without the mean."""
    off = _difference(reference, other)
    return Estimate(nan, nan) if off is None else Estimate(float(off.std()), reference.error)


def coupling(energies: np.ndarray) -> np.ndarray:
    """Compute the coupling (A, B) of a surface (A, B) of two torsions.

    The coupling is the surface minus the sum of two functions, one of each torsion, that fits best.
    """
    rows, columns = energies.mean(axis=1, keepdims=True), energies.mean(axis=0, keepdims=True)
    return energies - rows - columns + energies.mean()


def coupling_slope(reference: Surface, other: Scan) -> Estimate:
    """Compute the slope of another surface's coupling against the coupling of a kernel's surface.

    The error of the slope is the error of the kernel divided by the root mean square of the
    kernel's coupling.
    """
    a, b = coupling(reference.scan.relative), coupling(other.relative)
    size = float(np.sum(a**2))
    slope = float(np.sum(a * b)) / size
    return Estimate(slope, reference.error / np.sqrt(size / a.size))


def coupling_share(reference: Surface, other: Scan) -> Estimate:
    """Compute the share of the coupling in the mean square difference of two surfaces.

    The error is the mean square error of the kernel divided by the mean square difference.
    """
    off = reference.scan.relative - other.relative
    share = float(np.mean(coupling(off) ** 2) / off.var())
    return Estimate(share, reference.error**2 / float(off.var()))


def energy_at_lowest(reference: Surface, other: Scan) -> Estimate:
    """Return the energy, kcal/mol, of another surface at the lowest point of the kernel's surface.

    The energy is relative to the lowest point of the other surface.
    """
    place = np.unravel_index(np.nanargmin(reference.scan.relative), reference.far.shape)
    return Estimate(float(other.relative[place]), reference.error)


def _difference(reference: Surface, other: Scan) -> np.ndarray | None:
    """Return differences (K,) kcal/mol near the data and below `THERMAL`; None if K < 3."""
    low = ~reference.far & (reference.scan.relative < THERMAL) & np.isfinite(other.relative)
    return None if low.sum() < 3 else reference.scan.relative[low] - other.relative[low]


def _lowest(grid: Scan) -> np.ndarray:
    """Return the geometry (N, 3) Å of the lowest point."""
    return grid.positions[np.unravel_index(np.nanargmin(grid.relative), grid.relative.shape)]
