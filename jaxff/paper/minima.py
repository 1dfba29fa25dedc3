"""Fig. 5: the lowest minima of aspirin, and their order by other potentials."""

from __future__ import annotations

from dataclasses import replace

import ase.io
import numpy as np

from jaxff.analysis import conformers, minima, ordering
from jaxff.analysis.stationary_points import Minima
from jaxff.md import Descent
from jaxff.npz import NpzReader, write_npz
from jaxff.paper.experiment import (
    CALCULATORS,
    Result,
    Setting,
    Structures,
    Table,
    force_fields,
    picture,
)
from jaxff.reference import calculator, select
from jaxff.report import plot_surfaces

MOLECULE = "aspirin"
LOWEST = 3
WINDOW = 20.0  # kcal/mol above the lowest minimum; higher minima have broken bonds


def run(setting: Setting) -> Result:
    """The three lowest minima of aspirin by sGDML and their energies."""
    data, folder = setting.dataset(MOLECULE), setting.place("fig5")
    points = lowest(setting)
    others = {"sGDML": setting.kernel(MOLECULE), **force_fields(setting, data.molecule)}
    reference = next((c for t, c in CALCULATORS.items() if data.theory.startswith(t)), None)
    if reference is not None:
        others = {f"reference ({data.theory})": calculator(reference), **others}
    order = ordering(points, others)
    files = {}
    for k, (R, energy) in enumerate(zip(points.positions, points.relative, strict=True)):
        files[f"{k + 1}: {energy:.2f} kcal/mol"] = f"minimum-{k + 1}.xyz"
        atoms = data.molecule.with_positions(R).to_ase()
        ase.io.write(folder / f"minimum-{k + 1}.xyz", atoms, format="xyz")
    first = order.relaxed[0]  # of the reference, or of sGDML if the reference is not known
    compared = {
        name: {
            "same_order": bool((np.argsort(order.relaxed[p]) == np.argsort(first)).all()),
            "fallen_together": len(set(order.nearest[p].tolist())) < len(points),
            "error": float(np.nanmax(np.abs(order.relaxed[p] - first))),
        }
        for p, name in enumerate(order.names)
    }
    mm = [n for n in compared if n not in ("sGDML", order.names[0])]
    wrong = [n for n in mm if not compared[n]["same_order"] or compared[n]["fallen_together"]]
    return Result(
        "Fig. 5: the lowest minima of aspirin",
        f"{data.theory}; sGDML trained on it; force fields as they come",
        "The learned force field has the reference's minima; classical force fields order the "
        "three lowest minima of aspirin differently, because they lack the n→π* interaction of "
        "carbonyl groups, and relax some to other geometries.",
        f"{len(points)} lowest minima within {points.relative[-1]:.2f} kcal/mol by sGDML; largest "
        "differences of relaxed energies from "
        f"{order.names[0]}: "
        + ", ".join(f"{n} {compared[n]['error']:.2f}" for n in compared if n != order.names[0])
        + " kcal/mol",
        *_verdict(compared, mm, wrong, order.names[0]),
        {"ordering": compared, "energies": dict(zip(order.names, order.relaxed, strict=True))},
        [
            Table(
                "Energies (kcal/mol, from each potential's lowest) of the minima of sGDML: at its "
                "geometries, and relaxed by each potential; the minimum of sGDML nearest to the "
                "relaxed geometry, and its distance (root mean square, Å)",
                ["potential", "minimum", "unrelaxed", "relaxed", "nearest", "distance"],
                order.rows(),
            )
        ],
        [
            picture(
                folder, "levels.png", plot_surfaces.minima_levels(order),
                "Energies of the minima after relaxation by each potential, from its lowest.",
            )
        ],
        structures=[Structures(files, "The minima of sGDML, with its energies.")],
    )  # fmt: skip


def lowest(setting: Setting) -> Minima:
    """The lowest minima of aspirin by sGDML, from conformers and frames far apart."""
    data, potential = setting.dataset(MOLECULE), setting.kernel(MOLECULE)
    path = setting.place("fig5") / "minima.npz"
    if path.is_file():
        starts = NpzReader(path, "minima").need("positions")
    else:
        n = setting.size(40, 6)
        made = conformers(data.molecule, n, setting.seed)
        starts = np.concatenate([made, data.positions[select(data, n, "farthest")]])
    progress = setting.titled("minima of aspirin")
    descent = Descent(tolerance=5e-3)
    points = minima(potential, data.molecule, starts, descent=descent, progress=progress)
    inside = int(np.sum(points.relative < WINDOW))
    n = min(inside, LOWEST)
    points = replace(
        points, positions=points.positions[:n], energies=points.energies[:n],
        frequencies=points.frequencies[:n], counts=points.counts[:n],
    )  # fmt: skip
    if not path.is_file():
        write_npz(path, {"positions": points.positions, "numbers": data.numbers})
    return points


def _verdict(compared: dict, mm: list[str], wrong: list[str], first: str) -> tuple[str, str]:
    if not compared["sGDML"]["same_order"] or compared["sGDML"]["fallen_together"]:
        return "disagrees", f"sGDML does not order the minima as {first} does."
    if len(wrong) == len(mm):
        return "agrees", (
            "Every classical force field orders the minima differently or loses one of them."
        )
    if wrong:
        return "partly agrees", (
            f"{', '.join(wrong)} order the minima differently or lose one; "
            f"{', '.join(n for n in mm if n not in wrong)} keep all in order."
        )
    return "disagrees", "Every classical force field has the same minima in the same order."
