"""Figs. 2 to 4: energy surfaces of two torsions by sGDML and force fields."""

from __future__ import annotations

import numpy as np

from jaxff.analysis import (
    Scan,
    automorphisms,
    difference,
    rmsd,
    rotatable_torsions,
    scan,
    torsion_angles,
)
from jaxff.dataset import Dataset
from jaxff.md import Descent
from jaxff.paper.experiment import Result, Setting, Table, force_fields, picture
from jaxff.report import plot_surfaces

PAPER = {
    "ethanol": "The learned surface of ethanol's hydroxyl and methyl rotors couples both; "
    "classical force fields have its minima in about the right places, but wrong barriers and "
    "relative energies.",
    "keto-malondialdehyde": "On keto-malondialdehyde classical force fields differ from the "
    "learned surface, and from each other, in the places and the order of the minima.",
}
ALIKE = 0.35  # Å, root mean square distance below which two minima count as the same
THERMAL = 5.0  # kcal/mol above the lowest point; surfaces are compared below


def ethanol(setting: Setting) -> Result:
    """Fig. 2: the energy surface of the two rotors of ethanol by five potentials."""
    return _surfaces(setting, "fig2", "ethanol")


def keto_malondialdehyde(setting: Setting) -> Result:
    """Fig. 3: the energy surface of the two torsions of keto-malondialdehyde."""
    return _surfaces(setting, "fig3", "keto-malondialdehyde")


def differences(setting: Setting) -> Result:
    """Fig. 4: classical force fields minus sGDML on the surfaces of figs. 2 and 3."""
    folder = setting.place("fig4")
    rows, pictures, levels, errors = [], [], [], {}
    for molecule in setting.size(tuple(PAPER), ("ethanol",)):
        scans = _scans(setting, molecule)
        levels.append(_level(setting, molecule))
        reference = scans.pop("sGDML")
        low = reference.relative < THERMAL
        off = {name: difference(other, reference) for name, other in scans.items()}
        for name, wrong in off.items():
            inside = wrong[low] - wrong[low].mean()
            errors[molecule, name] = float(np.sqrt((inside**2).mean()))
            rows.append([
                molecule, name, errors[molecule, name], float(wrong[low].min()),
                float(wrong[low].max()),
            ])  # fmt: skip
        figure = plot_surfaces.difference_maps("sGDML", reference, scans)
        caption = f"{molecule}: force fields minus sGDML, each relative to its lowest point."
        pictures.append(picture(folder, f"{molecule}.png", figure, caption))
    mean = np.mean(list(errors.values()))
    return Result(
        "Fig. 4: force fields minus sGDML",
        "; ".join(levels),
        "Classical force fields deviate from the learned surfaces by energies comparable to the "
        "barriers themselves.",
        f"root mean square difference below {THERMAL:g} kcal/mol: "
        + ", ".join(f"{n} ({m}) {e:.2f}" for (m, n), e in errors.items())
        + " kcal/mol",
        *(
            ("agrees", "On average the differences exceed two thirds of kT at 500 K.")
            if mean > 0.7
            else (
                "partly agrees",
                "On average the differences stay below kT at 500 K (1 kcal/mol).",
            )
        ),
        {"rmsd": {f"{m}, {n}": e for (m, n), e in errors.items()}},
        [
            Table(
                f"Differences from sGDML where its energy is below {THERMAL:g} kcal/mol: root mean "
                "square after subtraction of the mean, lowest and highest (kcal/mol)",
                ["molecule", "force field", "root mean square", "lowest", "highest"],
                rows,
            )
        ],
        pictures,
    )


def _surfaces(setting: Setting, name: str, molecule: str) -> Result:
    folder, scans = setting.place(name), _scans(setting, molecule)
    data = setting.dataset(setting.surface_set(molecule))
    reference = scans["sGDML"]
    rows, kept = [], []
    symmetries = automorphisms(data.molecule)
    wanted = _lowest(reference, symmetries)
    for title, grid in scans.items():
        places = _lowest(grid, symmetries)
        lowest = "; ".join(_described(grid, place) for place in places[:4])
        near = _near(grid, places, reference, wanted, symmetries)
        if title != "sGDML":
            kept.append(len(near) == len(wanted) == len(places) and near == sorted(near))
        rows.append([
            title, len(places), lowest, float(grid.relative.max()), int((~grid.converged).sum()),
        ])  # fmt: skip
    figure = plot_surfaces.energy_maps(scans)
    caption = f"Relaxed energies of {molecule} over two torsions, kcal/mol above each lowest point."
    far = _far_from_data(reference, data)
    agreeing = [n for n, k in zip([t for t in scans if t != "sGDML"], kept, strict=True) if k]
    return Result(
        f"Fig. {name[-1]}: energy surfaces of {molecule}",
        _level(setting, molecule),
        PAPER[molecule],
        f"minima on the grid by sGDML: {rows[0][2]}; with the same minima in the same order: "
        f"{', '.join(agreeing) or 'no force field'}; {far:.0%} of the grid is farther than 30° "
        "from any frame of the data set, where sGDML extrapolates",
        *_verdict(agreeing, kept),
        {"minima": {row[0]: row[2] for row in rows}, "far_from_data": far},
        [
            Table(
                "Minima on the grid, equivalent ones counted once, with energies (kcal/mol); "
                "highest energy of the surface (kcal/mol); grid points that did not converge",
                ["potential", "minima", "lowest", "highest", "not converged"],
                rows,
            )
        ],
        [picture(folder, "surfaces.png", figure, caption)],
    )


def _scans(setting: Setting, molecule: str) -> dict[str, Scan]:
    """Relaxed scans of two torsions by all potentials, kept in the folder `scans`."""
    name = setting.surface_set(molecule)
    data, folder = setting.dataset(name), setting.place("scans")
    torsions = rotatable_torsions(data.molecule)[:2].tolist()
    values = np.radians(np.arange(-180.0, 180.0, setting.size(20.0, 60.0)))
    surfaces = {"sGDML": setting.kernel(name), **force_fields(setting, data.molecule)}
    lowest = 0 if data.energies is None else int(np.argmin(data.energies))
    start = data.molecule.with_positions(data.positions[lowest])
    scans = {}
    for name, surface in surfaces.items():
        path = folder / f"{molecule}-{name.lower()}.npz"
        if not path.is_file():
            scan(
                surface, start, torsions, [values, values], relax=True,
                descent=Descent(tolerance=2e-2, max_steps=400),
                progress=setting.titled(f"{name}, surface of {molecule}"),
            ).save(path)  # fmt: skip
        scans[name] = Scan.load(path)
    return scans


def _level(setting: Setting, molecule: str) -> str:
    name = setting.surface_set(molecule)
    error = setting.kernel_error(name)["force_mae"]
    theory = setting.dataset(name).theory
    return f"{theory}; sGDML trained on it (test force MAE {error:.2f} kcal/mol/Å); relaxed scans"


def _lowest(scan: Scan, symmetries: np.ndarray) -> list[tuple[int, int]]:
    """Minima on a periodic grid by ascending energy, without equivalent ones."""
    E, R = scan.relative, scan.positions
    moves = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    lower = np.all([np.roll(E, move, axis=(0, 1)) >= E for move in moves], axis=0)
    kept: list[tuple[int, int]] = []
    for place in sorted(zip(*map(np.ndarray.tolist, np.nonzero(lower)), strict=True), key=E.item):
        if all(_distance(R[place], R[other], symmetries) > ALIKE for other in kept):
            kept.append(place)
    return kept


def _near(
    scan: Scan, places: list, reference: Scan, wanted: list, symmetries: np.ndarray
) -> list[int]:
    """Indices of the reference minima that a scan has, in the order of `places`."""
    which = []
    for place in places:
        R = scan.positions[place]
        distances = [_distance(R, reference.positions[other], symmetries) for other in wanted]
        if min(distances) < ALIKE:
            which.append(int(np.argmin(distances)))
    return which


def _distance(R: np.ndarray, other: np.ndarray, symmetries: np.ndarray) -> float:
    return float(rmsd(R[None], other[None], symmetries, mirror=True)[0, 0])


def _described(scan: Scan, place: tuple[int, int]) -> str:
    """Torsions (degrees) and energy (kcal/mol) of a grid point."""
    a, b = (float(np.degrees(v[i])) for v, i in zip(scan.values, place, strict=True))
    return f"{a:+.0f}°, {b:+.0f}°: {scan.relative[place]:.2f}"


def _far_from_data(scan: Scan, data: Dataset) -> float:
    """Share of grid points without a frame within 30° in both torsions."""
    seen = np.degrees(np.asarray(torsion_angles(data.positions, np.array(scan.coordinates))))
    first, second = (np.degrees(v) for v in scan.values)
    near = [
        [bool((np.abs((seen - (a, b) + 180.0) % 360.0 - 180.0).max(axis=1) < 30.0).any())
         for b in second]
        for a in first
    ]  # fmt: skip
    return 1.0 - float(np.mean(near))


def _verdict(agreeing: list[str], kept: list[bool]) -> tuple[str, str]:
    caveat = (
        "The levels of theory differ from those of the paper; minima count as the same within "
        f"{ALIKE:g} Å."
    )
    if not agreeing:
        return "agrees", f"No force field has the minima of sGDML in their order. {caveat}"
    if len(agreeing) < len(kept):
        return "partly agrees", f"{', '.join(agreeing)} has the minima of sGDML in order. {caveat}"
    return "disagrees", f"All force fields have the minima of sGDML in their order. {caveat}"
