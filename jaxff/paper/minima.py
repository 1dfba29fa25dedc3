"""Fig. 5: the lowest minima of aspirin, and their order by other potentials."""

from __future__ import annotations

from dataclasses import replace

import ase.io
import numpy as np

from jaxff.analysis import (
    Estimate,
    as_surface,
    conformers,
    minima,
    ordering,
)
from jaxff.analysis.stationary_points import Minima
from jaxff.md import Descent
from jaxff.molecule import Molecule
from jaxff.npz import NpzReader, write_npz
from jaxff.paper.experiment import MOLECULES, Setting, force_fields
from jaxff.paper.result import Result, Structures, Table, picture
from jaxff.paper.verdicts import judged, untested
from jaxff.reference import calculator, select
from jaxff.report import plot_surfaces

MOLECULE = "aspirin"
LOWEST = 3
CONFORMERS = 15
WINDOW = 20.0  # kcal/mol above the lowest minimum; higher minima have broken bonds
DESCENT = Descent(tolerance=5e-3)
SAME = 0.05  # kcal/mol, the error of the energy of a minimum
BOND = 2.2  # Å, longest distance of a hydrogen bond
CONTACT = 3.2  # Å, van der Waals distance of O and C, below which n→π* interactions occur
# Atoms in the order of the SMILES.
METHYL, ESTER_CARBON, ESTER_OXYGENS, ACID_CARBON, ACID_OXYGEN, HYDROXYL = 0, 1, (2, 3), 10, 11, 12


def run(setting: Setting) -> Result:
    """The lowest minima of aspirin by the reference, and their energies by each potential."""
    data, folder = setting.dataset(MOLECULE), setting.place("fig5")
    everything, method = all_minima(setting), setting.reference(MOLECULE)
    bonded = [k for k, R in enumerate(everything.positions) if is_hydrogen_bonded(data.molecule, R)]
    first = list(range(min(LOWEST, len(everything))))
    points = some(everything, first + [k for k in bonded[:1] if k not in first])
    c = points.positions.shape[0] - 1 if bonded and bonded[0] >= LOWEST else (bonded or [None])[0]
    others = {"sGDML": setting.kernel(MOLECULE), **force_fields(setting, MOLECULE)}
    title = data.theory if method is not None else "sGDML"
    if method is not None:
        others = {title: calculator(method), **others}
    order = ordering(points, others, DESCENT)
    at = {name: order.relaxed[p] for p, name in enumerate(order.names)}
    fallen = int(order.nearest[order.names.index("GAFF")][0]) != 0
    findings = [
        judged(
            "gaff-order", {"GAFF": above_others(at["GAFF"], 0)},
            "by GAFF it relaxes to another minimum" if fallen else "",
        )
    ]  # fmt: skip
    if c is None:
        reason = "no minimum with the acid's hydrogen bonded to the ester was found"
        findings += [untested(claim, reason) for claim in ("gaff-c", "ccsd-c")]
    else:
        findings.append(judged("gaff-c", {"GAFF": above_others(at["GAFF"], c)}))
        energy = Estimate(float(at[title][c] - at[title][0]), SAME)
        findings.append(judged("ccsd-c", {title: energy}))
    labels = [
        f"{k + 1}{' (a)' if k == 0 else ' (c)' if k == c else ''}" for k in range(len(points))
    ]
    files = {}
    for label, R, energy in zip(labels, points.positions, points.relative, strict=True):
        name = f"minimum-{label.split()[0]}.xyz"
        files[f"{label}: {energy:.2f} kcal/mol"] = name
        ase.io.write(folder / name, data.molecule.with_positions(R).to_ase(), format="xyz")
    return Result(
        "Fig. 5: the lowest minima of aspirin",
        f"minima by {title}; sGDML trained on {data.theory}; {setting.charge_model}",
        findings,
        [
            "(a) is the global minimum of the reference, (c) its lowest minimum in which the "
            "acid's hydrogen is bonded to an oxygen of the ester. "
            + (
                "The minima are stationary points of the reference method itself."
                if method is not None
                else "No calculator has this level of theory: the minima are those of sGDML and "
                "are doubtful where the data have no similar frames."
            )
        ],
        {"energies": at, "c": c},
        [
            Table(
                f"The minima of {title}, and where an oxygen of the acid is less than "
                f"{CONTACT:g} Å from the carbonyl carbon of the ester (n→π*)",
                ["minimum", "energy, kcal/mol", "starts", "O···C, Å", "n→π*", "hydrogen bond"],
                [
                    [
                        label, float(energy), int(count), contact(data.molecule, R),
                        "yes" if contact(data.molecule, R) < CONTACT else "no",
                        "yes" if is_hydrogen_bonded(data.molecule, R) else "no",
                    ]
                    for label, R, energy, count in zip(
                        labels, points.positions, points.relative, points.counts, strict=True
                    )
                ],
            ),
            Table(
                "Energies (kcal/mol, from each potential's lowest) at these geometries, and "
                "relaxed by each potential; the minimum nearest to the relaxed geometry, and its "
                "distance (root mean square, Å)",
                ["potential", "minimum", "unrelaxed", "relaxed", "nearest", "distance"],
                order.rows(),
            ),
        ],
        [
            picture(
                folder, "levels.png", plot_surfaces.minima_levels(order),
                "Energies of the minima after relaxation by each potential, from its lowest.",
            )
        ],
        [Structures(files, f"The minima of {title}, with their energies.")],
    )  # fmt: skip


def above_others(energies: np.ndarray, k: int) -> Estimate:
    """Energy of minimum k above the lowest of the other minima, kcal/mol."""
    rest = np.delete(energies, k)
    lowest = np.min(rest, where=np.isfinite(rest), initial=np.inf)
    return Estimate(float(energies[k] - lowest), SAME)


def all_minima(setting: Setting) -> Minima:
    """All minima of aspirin within `WINDOW`, kept in the folder `fig5`.

    They are minima of the reference method, or of sGDML where no calculator has its level.  Starts
    are conformers, frames far apart, and GAFF's minima from conformers and from conformers with the
    acid's hydrogen turned by 180°.
    """
    data, method = setting.dataset(MOLECULE), setting.reference(MOLECULE)
    path = setting.place("fig5") / "minima.npz"
    if path.is_file():
        starts = NpzReader(path, "minima").need("positions")
    else:
        made = conformers(data.molecule, CONFORMERS, setting.seed)
        turned = np.array([acid_turned(data.molecule, R) for R in made])
        gaff, progress = setting.gaff(MOLECULE), setting.titled("minima of aspirin by GAFF")
        tried = np.concatenate([made, turned])
        by_gaff = minima(gaff, data.molecule, tried, descent=DESCENT, progress=progress)
        frames = data.positions[select(data, setting.size(10, 1), "farthest")]
        starts = np.concatenate([by_gaff.positions, frames, *setting.size([made], [])])
    surface = setting.kernel(MOLECULE) if method is None else calculator(method)
    progress = setting.titled("minima of aspirin")
    surface = as_surface(surface, data.molecule)
    points = minima(surface, data.molecule, starts, descent=DESCENT, progress=progress)
    points = some(points, np.flatnonzero(points.relative < WINDOW).tolist())
    if not path.is_file():
        write_npz(path, {"positions": points.positions, "numbers": data.numbers})
    return points


def some(points: Minima, which: list[int]) -> Minima:
    """Some of the minima."""
    return replace(
        points, positions=points.positions[which], energies=points.energies[which],
        frequencies=tuple(points.frequencies[k] for k in which), counts=points.counts[which],
    )  # fmt: skip


def atoms_of(molecule: Molecule) -> np.ndarray:
    """The atoms of aspirin in the order of the SMILES."""
    return Molecule.from_smiles(MOLECULES[MOLECULE]).match(molecule)


def acid_hydrogen(molecule: Molecule) -> int:
    """The hydrogen of the acid."""
    order = atoms_of(molecule)
    return next(a for a in molecule.graph[order[HYDROXYL]] if a != order[ACID_CARBON])


def acid_turned(molecule: Molecule, R: np.ndarray) -> np.ndarray:
    """A geometry (N, 3) Å with the acid's hydrogen turned by 180° about its C-O bond."""
    order, proton = atoms_of(molecule), acid_hydrogen(molecule)
    origin, turned = R[order[HYDROXYL]], R.copy()
    axis = origin - R[order[ACID_CARBON]]
    axis = axis / np.linalg.norm(axis)
    arm = R[proton] - origin
    turned[proton] = origin + 2.0 * (arm @ axis) * axis - arm
    return turned


def is_hydrogen_bonded(molecule: Molecule, R: np.ndarray) -> bool:
    """Whether the acid's hydrogen is bonded to an oxygen of the ester, at R (N, 3) Å."""
    order, proton = atoms_of(molecule), acid_hydrogen(molecule)
    return any(np.linalg.norm(R[proton] - R[order[o]]) < BOND for o in ESTER_OXYGENS)


def contact(molecule: Molecule, R: np.ndarray) -> float:
    """Shortest distance Å from an oxygen of the acid to the ester's carbonyl carbon."""
    order = atoms_of(molecule)
    carbon = R[order[ESTER_CARBON]]
    return float(min(np.linalg.norm(carbon - R[order[o]]) for o in (ACID_OXYGEN, HYDROXYL)))
