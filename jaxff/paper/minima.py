"""Fig. 5: the lowest minima of aspirin, and the energies of these minima by other potentials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np

from jaxff.analysis import (
    Estimate,
    as_surface,
    conformers,
    minima,
    ordering,
)
from jaxff.analysis.stationary_points import Minima, Ordering
from jaxff.md import Descent
from jaxff.molecule import Molecule
from jaxff.npz import NpzReader, write_npz
from jaxff.paper import contacts
from jaxff.paper.experiment import MOLECULES, Setting, force_fields
from jaxff.paper.result import Result, Structures, Table, picture
from jaxff.paper.surfaces import is_far
from jaxff.paper.verdicts import Finding, judged, minus, untested
from jaxff.reference import calculator, select
from jaxff.report import plot_surfaces

MOLECULE = "aspirin"
LOWEST = 3
CONFORMERS = 15
WINDOW = 20.0  # kcal/mol above the lowest minimum; higher minima have broken bonds
TOLERANCE = 5e-3  # kcal/mol/Å, of relaxed geometries
SAME = 0.05  # kcal/mol, the error of the energy of a minimum
BOND = 2.2  # Å, longest distance of a hydrogen bond
CONTACT = 3.2  # Å, van der Waals distance of O and C, below which n→π* interactions occur
CONTACT_CLAIMS = ("contact-gain", "contact-lost")
# Atoms in the order of the SMILES.
METHYL, ESTER_CARBON, ESTER_OXYGENS, ACID_CARBON, ACID_OXYGEN, HYDROXYL = 0, 1, (2, 3), 10, 11, 12


def run(setting: Setting) -> Result:
    """Compare the energies of the lowest minima of aspirin by several potentials (Fig. 5)."""
    data, folder = setting.dataset(MOLECULE), setting.place("fig5")
    everything, method = all_minima(setting), _method(setting)
    bonded = [k for k, R in enumerate(everything.positions) if is_hydrogen_bonded(data.molecule, R)]
    first = list(range(min(LOWEST, len(everything))))
    points = some(everything, first + [k for k in bonded[:1] if k not in first])
    c = points.positions.shape[0] - 1 if bonded and bonded[0] >= LOWEST else (bonded or [None])[0]
    others = {"sGDML": setting.kernel(MOLECULE), **force_fields(setting, MOLECULE)}
    title = data.theory if method is not None else "sGDML"
    if method is not None:
        others = {title: calculator(method), **others}
    order = ordering(points, others, _descent(setting))
    at = {name: order.relaxed[p] for p, name in enumerate(order.names)}
    far = is_far(setting.kernel(MOLECULE), points.positions) & (method is None)
    labels = [
        f"{k + 1}{' (a)' if k == 0 else ' (c)' if k == c else ''}{' (doubtful)' if far[k] else ''}"
        for k in range(len(points))
    ]
    result = Result(
        "Fig. 5: the lowest minima of aspirin",
        f"minima by {title}; sGDML trained on {data.theory}; {setting.charge_model}",
        _order_findings(order, c, title),
        [
            "(a) is the global minimum of the reference. (c) is the lowest minimum of the "
            "reference with a bond between the acid's hydrogen and an oxygen of the ester. "
            + (
                "The minima are stationary points of the reference method itself."
                if method is not None
                else "The minima are those of sGDML, because no calculator has this level of "
                     "theory. Minima outside the domain of the training frames are doubtful."
            )
        ],
        {"energies": at, "c": c},
        [_geometries(data.molecule, points, labels, title), _energies(order, labels)],
        [
            picture(
                folder, "levels.png",
                plot_surfaces.minima_levels(order, [f"minimum {label}" for label in labels]),
                "Energies of the minima after relaxation by each potential, relative to the "
                "lowest energy. Dashed: relaxed to another minimum. No level: not converged.",
            )
        ],
        [_structures(folder, data.molecule, points, labels, title)],
    )  # fmt: skip
    _add_contact(setting, result, points.positions[0], others, title)
    return result


def _order_findings(order: Ordering, c: int | None, title: str) -> list[Finding]:
    """Test the statements on the order of the minima by GAFF and by the reference."""
    at = {name: order.relaxed[p] for p, name in enumerate(order.names)}
    nearest = order.nearest[order.names.index("GAFF")]
    merged = [k + 1 for k in np.flatnonzero(nearest == 0) if k != 0]
    reason = ""
    if merged:
        reason = f"with GAFF, minimum {', '.join(map(str, merged))} relaxes to this minimum"
    if nearest[0] != 0:
        reason = "with GAFF, this minimum relaxes to another minimum"
    findings = [judged("gaff-order", {"GAFF": above_others(at["GAFF"], 0, nearest)}, reason)]
    if c is None:
        reason = "no minimum with the acid's hydrogen bonded to the ester was found"
        return findings + [untested(claim, reason) for claim in ("gaff-c", "ccsd-c")]
    energy = Estimate(float(at[title][c] - at[title][0]), SAME)
    return [
        *findings,
        judged("gaff-c", {"GAFF": above_others(at["GAFF"], c, nearest)}),
        judged("ccsd-c", {title: energy}),
    ]


def _geometries(molecule: Molecule, points: Minima, labels: list[str], title: str) -> Table:
    rows = [
        [
            label, float(energy), int(count), contact(molecule, R),
            "yes" if contact(molecule, R) < CONTACT else "no",
            "yes" if is_hydrogen_bonded(molecule, R) else "no",
        ]
        for label, R, energy, count in zip(
            labels, points.positions, points.relative, points.counts, strict=True
        )
    ]  # fmt: skip
    caption = (
        f"The minima of {title}, and contacts (n→π*): an oxygen of the acid is less than "
        f"{CONTACT:g} Å from the carbonyl carbon of the ester"
    )
    columns = ["minimum", "energy, kcal/mol", "number of starts", "O···C, Å", "n→π*"]
    return Table(caption, [*columns, "hydrogen bond"], rows)


def _energies(order: Ordering, labels: list[str]) -> Table:
    caption = (
        "Relative energies at these geometries and after relaxation by each potential; the "
        "minimum nearest to the relaxed geometry, and the distance from this minimum"
    )
    columns = [
        "potential", "minimum", "unrelaxed, kcal/mol", "relaxed, kcal/mol", "nearest minimum",
        "root mean square distance, Å",
    ]  # fmt: skip
    rows = [
        [name, labels[k - 1], fixed, *([relaxed, labels[near - 1], away] if np.isfinite(relaxed)
                                       else ["not converged", "-", "-"])]
        for name, k, fixed, relaxed, near, away in order.rows()
    ]  # fmt: skip
    return Table(caption, columns, rows)


def _structures(
    folder: Path, molecule: Molecule, points: Minima, labels: list[str], title: str
) -> Structures:
    files = {}
    for label, R, energy in zip(labels, points.positions, points.relative, strict=True):
        name = f"minimum-{label.split()[0]}.xyz"
        files[f"{label}: {energy:.2f} kcal/mol"] = name
        ase.io.write(folder / name, molecule.with_positions(R).to_ase(), format="xyz")
    return Structures(files, f"The minima of {title}, with their energies.")


def _add_contact(
    setting: Setting, result: Result, start: np.ndarray, others: Mapping[str, Any], title: str
) -> None:
    """Add the energies as a function of the O···C distance to the result.

    The scan starts at the global minimum of the reference, `start`.
    """
    molecule = setting.dataset(MOLECULE).molecule
    atoms, distance = closest_contact(molecule, start)
    if distance > CONTACT:
        reason = f"no oxygen of the acid is within {CONTACT:g} Å of the ester's carbonyl carbon"
        result.findings += [untested(claim, reason) for claim in CONTACT_CLAIMS]
        return
    distances = contacts.DISTANCES[:: setting.size(1, 8)]
    curves = {}
    for name, surface in others.items():
        setting.progress(f"O···C distance of aspirin by {name}", 0.0)
        curves[name] = contacts.curve(surface, molecule, start, atoms, distances)
    gains = {name: one.at(contacts.APART) - one.at(distance) for name, one in curves.items()}
    gain, of_gaff = Estimate(gains[title], SAME), Estimate(gains["GAFF"], 0.0)
    result.findings += [
        judged("contact-gain", {f"{title} − GAFF": minus(gain, of_gaff)}),
        judged("contact-lost", {"GAFF": Estimate(curves["GAFF"].at(distance), SAME)}),
    ]
    result.numbers["contact"] = {name: one._asdict() for name, one in curves.items()}
    columns = [
        "potential", "O···C of the lowest energy, Å", f"energy at {distance:.2f} Å, kcal/mol",
        f"gain from {contacts.APART:g} Å, kcal/mol",
    ]  # fmt: skip
    rows = [[name, one.best, one.at(distance), gains[name]] for name, one in curves.items()]
    caption = (
        "Energies at fixed distances between the nearest oxygen of the acid and the carbonyl "
        "carbon of the ester, with all other coordinates relaxed from the global minimum (a) of "
        "the reference"
    )
    result.tables.append(Table(caption, columns, rows))
    caption = "Energies against the O···C distance, with all other coordinates relaxed."
    figure = contacts.plot(curves, distance)
    result.pictures.append(picture(setting.place("fig5"), "contact.png", figure, caption))


def above_others(energies: np.ndarray, k: int, nearest: np.ndarray) -> Estimate:
    """Return the energy of minimum k relative to the lowest other minimum, kcal/mol.

    Args:
        energies: (K,) kcal/mol, of the minima relaxed by a potential; NaN if not converged.
        k: index of the minimum.
        nearest: (K,) indices of the minima after relaxation. Minima that relaxed to minimum k are
            ignored.
    """
    others = np.isfinite(energies) & (nearest != k) & (np.arange(len(energies)) != k)
    lowest = np.min(energies, where=others, initial=np.inf)
    return Estimate(float(energies[k] - lowest), SAME)


def all_minima(setting: Setting) -> Minima:
    """Find all minima of aspirin within `WINDOW`, or read them from the folder `fig5`.

    The minima are those of the reference method, or of sGDML if no calculator has the level of
    theory of the data.  Starts are conformers, frames far apart, and minima of GAFF from
    conformers, with and without rotation of the acid's hydrogen by 180°.
    """
    data, method = setting.dataset(MOLECULE), _method(setting)
    path, descent = setting.place("fig5") / "minima.npz", _descent(setting)
    if path.is_file():
        starts = NpzReader(path, "minima").need("positions")
    else:
        made = conformers(data.molecule, setting.size(CONFORMERS, 1), setting.seed)
        turned = np.array([acid_turned(data.molecule, R) for R in made])
        gaff, progress = setting.gaff(MOLECULE), setting.titled("minima of aspirin by GAFF")
        tried = np.concatenate([made, turned])
        by_gaff = minima(gaff, data.molecule, tried, descent=descent, progress=progress)
        frames = data.positions[select(data, setting.size(10, 1), "farthest")]
        starts = np.concatenate([by_gaff.positions, frames, *setting.size([made], [])])
    surface = setting.kernel(MOLECULE) if method is None else calculator(method)
    progress = setting.titled("minima of aspirin")
    surface = as_surface(surface, data.molecule)
    points = minima(surface, data.molecule, starts, descent=descent, progress=progress)
    points = some(points, np.flatnonzero(points.relative < WINDOW).tolist())
    if not path.is_file():
        write_npz(path, {"positions": points.positions, "numbers": data.numbers})
    return points


def _method(setting: Setting) -> str | None:
    """Return the calculator of the reference; None with small sizes, for a short run."""
    return None if setting.small else setting.reference(MOLECULE)


def _descent(setting: Setting) -> Descent:
    return Descent(tolerance=setting.size(TOLERANCE, 20 * TOLERANCE))


def some(points: Minima, which: list[int]) -> Minima:
    """Return the minima with the given indices."""
    return replace(
        points, positions=points.positions[which], energies=points.energies[which],
        frequencies=tuple(points.frequencies[k] for k in which), counts=points.counts[which],
    )  # fmt: skip


def atoms_of(molecule: Molecule) -> np.ndarray:
    """Return the indices of aspirin's atoms in the order of the SMILES string."""
    return Molecule.from_smiles(MOLECULES[MOLECULE]).match(molecule)


def acid_hydrogen(molecule: Molecule) -> int:
    """Return the index of the acid's hydrogen."""
    order = atoms_of(molecule)
    return next(a for a in molecule.graph[order[HYDROXYL]] if a != order[ACID_CARBON])


def acid_turned(molecule: Molecule, R: np.ndarray) -> np.ndarray:
    """Rotate the acid's hydrogen in a geometry (N, 3) Å by 180° about the C-O bond."""
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
    """Return the shortest distance, Å, of the acid's oxygens from the ester's carbonyl carbon."""
    return closest_contact(molecule, R)[1]


def closest_contact(molecule: Molecule, R: np.ndarray) -> tuple[tuple[int, int], float]:
    """Return the closest acid oxygen and ester carbonyl carbon (indices), and the distance, Å."""
    order = atoms_of(molecule)
    carbon = int(order[ESTER_CARBON])
    away = {int(o): float(np.linalg.norm(R[o] - R[carbon])) for o in order[[ACID_OXYGEN, HYDROXYL]]}
    oxygen = min(away, key=away.__getitem__)
    return (oxygen, carbon), away[oxygen]
