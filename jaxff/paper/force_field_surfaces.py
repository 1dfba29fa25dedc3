"""Figs. 2 and 3: surfaces of force fields, sGDML and sGDML trained on Hartree-Fock data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxff.analysis import Scan
from jaxff.paper import surface_minima, surfaces
from jaxff.paper.experiment import Setting
from jaxff.paper.result import Result, Table, picture
from jaxff.paper.surface_minima import SurfaceMinimum
from jaxff.paper.surfaces import HF_KERNEL, KERNEL, Surface
from jaxff.paper.verdicts import Estimate, Finding, judged, minus, shown, untested
from jaxff.report import plot_surfaces

ETHANOL, KETO = "ethanol", "keto-malondialdehyde"
MINIMA_COLUMNS = [
    "molecule", "potential", "number of minima", "lowest minima (torsions: kcal/mol)",
    "highest point, kcal/mol", "points not converged",
]  # fmt: skip
LIKENESS_COLUMNS = [
    "molecule", "potential", "correlation, relaxed", "correlation, rigid",
    "coupling of the rotors relative to sGDML, relaxed", "rigid",
]  # fmt: skip
LISTED = 5  # minima in a row of the table
NOT_RUN = "not run with the small sizes"
KETO_CLAIMS = ("keto-uff", "keto-global", "keto-local", "keto-remote")


def run(setting: Setting) -> Result:
    """Compare the surfaces of both molecules by sGDML and force fields (Fig. 2)."""
    titles = setting.size(("GAFF", "MMFF94", "Ghemical", "UFF"), ("GAFF", "UFF"))
    result = Result("Fig. 2: energy surfaces by sGDML and force fields", "")
    levels = []
    for molecule in setting.size((ETHANOL, KETO), (ETHANOL,)):
        reference = surfaces.surface(setting, molecule)
        scans = {title: surfaces.scanned(setting, molecule, title) for title in titles}
        minima = _minima(setting, molecule, (KERNEL, *titles))
        levels.append(reference.level)
        find = _ethanol if molecule == ETHANOL else _keto
        result.findings += find(setting, reference, scans, minima)
        add_surfaces(setting, result, "fig2", molecule, {KERNEL: reference, **scans}, minima)
        _add_rigid(setting, result, molecule, reference, scans)
    if setting.small:
        result.findings += [untested(c, NOT_RUN) for c in KETO_CLAIMS]
    result.level = f"{'; '.join(levels)}; {setting.charge_model}"
    result.notes.append(
        "The verdicts use relaxed scans. The tables also contain rigid scans, because the paper "
        "calls its surfaces cuts. The coupling is the surface minus the sum of two functions, "
        "one of each torsion, that fits best."
    )
    return result


def hartree_fock(setting: Setting) -> Result:
    """Compare keto-malondialdehyde by sGDML, GAFF, sGDML trained on HF, and MMFF94 (Fig. 3).

    The small sizes use ethanol, whose surfaces other experiments have computed.
    """
    molecule = setting.size(KETO, ETHANOL)
    reference, at_hf = (surfaces.surface(setting, molecule, title) for title in (KERNEL, HF_KERNEL))
    mmff94, gaff = (surfaces.scanned(setting, molecule, title) for title in ("MMFF94", "GAFF"))
    minima = _minima(setting, molecule, (KERNEL, "GAFF", HF_KERNEL, "MMFF94"))
    with_hf = surfaces.correlation(at_hf, mmff94)
    with_reference = surfaces.correlation(reference, mmff94)
    gaff_with = {
        KERNEL: surfaces.correlation(reference, gaff), HF_KERNEL: surfaces.correlation(at_hf, gaff)
    }  # fmt: skip
    result = Result(
        f"Fig. 3: {molecule} by sGDML, GAFF, sGDML@HF and MMFF94",
        f"{reference.level}; {at_hf.level}; {setting.charge_model}; relaxed scans",
        [
            judged("mmff94-hf", {"MMFF94 with sGDML@HF": with_hf}),
            judged("hf-reason", {"MMFF94": minus(with_hf, with_reference)}),
        ],
        numbers={
            "correlation_mmff94": {HF_KERNEL: with_hf._asdict(), KERNEL: with_reference._asdict()},
            "correlation_gaff": {name: value._asdict() for name, value in gaff_with.items()},
        },
    )
    shown_surfaces = {KERNEL: reference, "GAFF": gaff, HF_KERNEL: at_hf, "MMFF94": mmff94}
    add_surfaces(setting, result, "fig3", molecule, shown_surfaces, minima)
    return result


def add_surfaces(
    setting: Setting,
    result: Result,
    name: str,
    molecule: str,
    shown_surfaces: Mapping[str, Surface | Scan],
    minima: Mapping[str, list[SurfaceMinimum]],
) -> None:
    """Add the table of minima, the picture and the notes of a molecule to a result."""
    scans = {t: s.scan if isinstance(s, Surface) else s for t, s in shown_surfaces.items()}
    learned = {t: s for t, s in shown_surfaces.items() if isinstance(s, Surface)}
    rows = []
    for title, grid in scans.items():
        places = minima[title]
        rows.append([
            molecule, title, len(places), "; ".join(map(str, places[:LISTED])),
            float(grid.relative.max()), int((~grid.converged).sum()),
        ])  # fmt: skip
        result.numbers.setdefault("minima", {})[f"{molecule}, {title}"] = rows[-1][3]
    far = {title: surface.far for title, surface in learned.items()}
    shares = {title: float(points.mean()) for title, points in far.items()}
    result.numbers.setdefault("far_from_data", {})[molecule] = shares
    caption = (
        f"The {LISTED} lowest distinct minima of {molecule}, relaxed in all coordinates by each "
        "potential from the minima on the grid"
    )
    result.tables.append(Table(caption, MINIMA_COLUMNS, rows))
    figure = plot_surfaces.energy_maps(scans, learned[KERNEL].highest, far, marks_of(minima))
    caption = (
        f"Relaxed energies of {molecule} relative to the lowest point of each potential, "
        "kcal/mol, on the scale of sGDML. Crosses: lowest minima; circles: higher minima "
        "(dashed: doubtful). Hatched: far from the data of the kernel. Dots: not converged."
    )
    result.pictures.append(picture(setting.place(name), f"{molecule}.png", figure, caption))
    result.notes += [surface.far_share for surface in learned.values()]
    result.notes.append(
        f"A minimum of sGDML for {molecule} is doubtful if the energy deviates by more than "
        f"{surface_minima.CONFIRMED:g} kcal/mol from the reference method at the same geometry. "
        "If no calculator has this level of theory, a minimum far from the data is doubtful."
    )


def marks_of(minima: Mapping[str, list[SurfaceMinimum]]) -> dict[str, plot_surfaces.Marks]:
    """Return the marks of minima in the panels of a picture, by potential."""
    return {
        title: plot_surfaces.Marks(
            np.array([m.torsions for m in places]).reshape(-1, 2),
            np.array([m.is_doubtful for m in places], bool),
        )
        for title, places in minima.items()
    }


def _minima(
    setting: Setting, molecule: str, titles: tuple[str, ...]
) -> dict[str, list[SurfaceMinimum]]:
    return {title: surface_minima.found_minima(setting, molecule, title) for title in titles}


def _add_rigid(
    setting: Setting, result: Result, molecule: str, relaxed: Surface, scans: Mapping[str, Scan]
) -> None:
    """Add a table that compares rigid with relaxed scans, and a picture of the rigid scans."""
    rigid = surfaces.surface(setting, molecule, relax=False)
    cuts = {title: surfaces.scanned(setting, molecule, title, relax=False) for title in scans}
    rows = [
        [
            molecule, title,
            shown(surfaces.correlation(relaxed, scans[title])),
            shown(surfaces.correlation(rigid, cuts[title])),
            shown(surfaces.coupling_slope(relaxed, scans[title])),
            shown(surfaces.coupling_slope(rigid, cuts[title])),
        ]
        for title in scans
    ]  # fmt: skip
    caption = f"Comparison of the surfaces of {molecule} with the surface of sGDML"
    result.tables.append(Table(caption, LIKENESS_COLUMNS, rows))
    result.numbers.setdefault("likeness", {})[molecule] = rows
    figure = plot_surfaces.energy_maps(
        {KERNEL: rigid.scan, **cuts}, rigid.highest, {KERNEL: rigid.far}
    )
    caption = (
        f"Rigid scans of {molecule}: all potentials at the same geometries, created from the "
        "lowest geometry of sGDML by rotation of the rotors. Crosses: lowest points. Hatched: "
        "far from the data of the kernel."
    )
    folder = setting.place("fig2")
    result.pictures.append(picture(folder, f"{molecule}-rigid.png", figure, caption))
    result.notes.append(rigid.far_share)


def _ethanol(
    setting: Setting, reference: Surface, scans: dict[str, Scan], minima: Mapping
) -> list[Finding]:
    alike = {name: surfaces.correlation(reference, grid) for name, grid in scans.items()}
    slopes = {name: surfaces.coupling_slope(reference, grid) for name, grid in scans.items()}
    return [
        judged("ethanol-good", chosen(alike, ("GAFF", "MMFF94"))),
        judged("coupling-missed", chosen(slopes, ("GAFF", "MMFF94"))),
        judged("coupling-kept", chosen(slopes, ("Ghemical", "UFF"))),
        judged("ethanol-misrepresented", chosen(alike, ("Ghemical", "UFF"))),
    ]


def _keto(
    setting: Setting, reference: Surface, scans: dict[str, Scan], minima: Mapping
) -> list[Finding]:
    alike = {name: surfaces.correlation(reference, grid) for name, grid in scans.items()}
    higher = [m for m in minima[KERNEL][1:] if not m.is_doubtful]
    if higher:
        molecule = setting.dataset(setting.surface_set(KETO)).molecule
        kept = surface_minima.shared(minima["GAFF"], higher, molecule)
        reason = f"{len(higher)} higher minima of sGDML are not doubtful"
        local = judged("keto-local", {"GAFF": Estimate(len(kept), 0.0)}, reason)
    else:
        local = untested("keto-local", "every higher minimum of sGDML is doubtful")
    return [
        judged("keto-uff", chosen(alike, ("UFF",))),
        judged("keto-global", {"GAFF": surfaces.energy_at_lowest(reference, scans["GAFF"])}),
        local,
        judged("keto-remote", chosen(alike, ("MMFF94", "Ghemical"))),
    ]


def chosen(values: dict[str, Estimate], names: tuple[str, ...]) -> dict[str, Estimate]:
    """Return the values of `names` that were computed."""
    return {name: values[name] for name in names if name in values}
