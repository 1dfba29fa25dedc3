"""Section IV D: energies by DFT and by coupled cluster at minima and barriers of the rotors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxff.analysis import Estimate, Scan, as_surface, torsion_angles
from jaxff.md.surface import evaluate
from jaxff.molecule import Molecule
from jaxff.npz import NpzReader, write_npz
from jaxff.paper import coupled_cluster, surface_minima, surfaces
from jaxff.paper.experiment import Setting
from jaxff.paper.force_field_surfaces import ETHANOL, KETO
from jaxff.paper.result import Result, Table
from jaxff.paper.surfaces import KERNEL
from jaxff.paper.verdicts import judged
from jaxff.reference import calculator

DFT = "pbe-d3bj"
MINIMA = 3  # lowest minima of each molecule
SAME = 0.05  # kcal/mol: barriers of equivalent rotors differ by less
COLUMNS = [
    "molecule", "point", "torsions", "sGDML", "PBE-D3(BJ)/def2-SVP",
    *coupled_cluster.METHODS, "CCSD(T) in the large basis, estimated", "PBE − CCSD(T)",
]  # fmt: skip


class Point(NamedTuple):
    """A geometry on the surface of a molecule.

    Attributes:
        name: description of the geometry.
        positions: (N, 3) Å.
    """

    name: str
    positions: np.ndarray


def run(setting: Setting) -> Result:
    """Compare relative energies by DFT and coupled cluster at minima and barriers of sGDML."""
    rows, levels, off = [], [], {}
    for molecule in setting.size((ETHANOL, KETO), (ETHANOL,)):
        name = setting.surface_set(molecule)
        shape, grid = setting.dataset(name).molecule, surfaces.scanned(setting, molecule, KERNEL)
        levels.append(f"{molecule}: {setting.dataset(name).theory}")
        some = points(setting, molecule, grid)
        R = np.array([point.positions for point in some])
        sgdml = setting.kernel(name).predict(R)[0]
        found = np.array([
            computed(setting, f"{molecule}-{k}", shape.with_positions(point.positions))
            for k, point in enumerate(some)
        ])  # fmt: skip
        exact = coupled_cluster.extrapolated(found[:, 1:])
        columns = np.column_stack([sgdml, found, exact])
        columns -= columns[0]
        off[molecule] = largest_deviation(found)
        phi = np.degrees(np.asarray(torsion_angles(R, np.array(grid.coordinates))))
        for point, (a, b), values in zip(some, phi, columns, strict=True):
            deviation = values[1] - values[-1]
            rows.append([molecule, point.name, f"{a:+.0f}°, {b:+.0f}°", *values, deviation])
    small, large = basis_sets(setting)
    return Result(
        "Section IV D: DFT and coupled cluster",
        f"sGDML and geometries: {'; '.join(levels)}; small basis {small}, large basis {large}",
        [judged("dft-close", off), judged("dft-struggles", off)],
        [
            "Points are minima and barriers of sGDML. A barrier is the highest point of the "
            "lowest path along a rotor on the grid of the relaxed scan. Energies are relative to "
            "the lowest minimum. CCSD(T) in the large basis is estimated as CCSD(T) in the small "
            "basis plus the change of MP2 from the small to the large basis, with frozen cores. "
            "The error of a deviation is half of this change."
        ],
        {molecule: value._asdict() for molecule, value in off.items()},
        [Table("Energies above the lowest minimum, kcal/mol", COLUMNS, rows)],
    )


def points(setting: Setting, molecule: str, grid: Scan) -> list[Point]:
    """Return the lowest minima of sGDML, and the barriers of the rotors on the grid."""
    minima = surface_minima.found_minima(setting, molecule, KERNEL)[: setting.size(MINIMA, 1)]
    kept = [Point(f"minimum {k + 1}", one.positions) for k, one in enumerate(minima)]
    heights: list[float] = []
    for axis, rotor in enumerate(grid.names):
        place = barrier(grid, axis)
        height = float(grid.relative[place])
        if all(abs(height - other) > SAME for other in heights):  # not an equivalent rotor
            kept.append(Point(f"barrier of the {rotor}", grid.positions[place]))
        heights.append(height)
    return kept


def barrier(grid: Scan, axis: int) -> tuple[int, ...]:
    """Return the index of the barrier: the highest point of the lowest path along a torsion.

    `axis` is the number of the torsion in the scan.
    """
    E = np.moveaxis(np.where(grid.converged, grid.relative, np.inf), axis, 0)
    lowest = E.argmin(axis=1)
    along = np.take_along_axis(E, lowest[:, None], axis=1)[:, 0]
    k = int(np.argmax(np.where(np.isfinite(along), along, -np.inf)))
    return (k, int(lowest[k])) if axis == 0 else (int(lowest[k]), k)


def largest_deviation(found: np.ndarray) -> Estimate:
    """Compute the largest deviation, kcal/mol, of DFT from coupled cluster in relative energies.

    The error is half of the difference between the extrapolated and the small-basis CCSD(T) energy
    at the same geometry.

    Args:
        found: (P, 4) energies of P geometries, kcal/mol, by DFT and by `coupled_cluster.METHODS`.
            The first geometry is the lowest minimum.
    """
    relative = found - found[0]
    exact = coupled_cluster.extrapolated(relative[:, 1:])
    size = np.abs(relative[:, 0] - exact)
    k = int(np.argmax(size))
    return Estimate(float(size[k]), 0.5 * float(abs(exact[k] - relative[k, 2])))


def basis_sets(setting: Setting) -> tuple[str, str]:
    """Return PySCF's names of the small and the large basis for coupled cluster."""
    full = (coupled_cluster.SMALL, coupled_cluster.LARGE)
    return setting.size(full, ("sto-3g", "3-21g"))


def computed(setting: Setting, name: str, molecule: Molecule) -> np.ndarray:
    """Compute energies (4,) kcal/mol by DFT and `coupled_cluster.METHODS`.

    Energies are kept in the folder `level`, and read from this folder if present.
    """
    path = setting.place("level") / f"{name}.npz"
    if not path.is_file():
        setting.progress(f"coupled cluster of {name}", 0.0)
        options = setting.size({}, {"basis": "sto-3g", "grid_level": 1})
        dft = evaluate(as_surface(calculator(DFT, **options), molecule), molecule.positions[None])
        found = coupled_cluster.energies(molecule, *basis_sets(setting))
        write_npz(path, {"energies": np.array([float(dft[0][0]), *found])})
    return NpzReader(path, "energies").need("energies")
