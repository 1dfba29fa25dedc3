"""Figs. 2 and 3: surfaces of force fields, sGDML and sGDML trained on Hartree-Fock data."""

from __future__ import annotations

from jaxff.analysis import Scan
from jaxff.paper import surfaces
from jaxff.paper.experiment import Setting
from jaxff.paper.result import Result, Table, picture
from jaxff.paper.surfaces import HF_KERNEL, KERNEL, GridMinimum, Surface
from jaxff.paper.verdicts import Estimate, Finding, judged, minus, untested
from jaxff.report import plot_surfaces

ETHANOL, KETO = "ethanol", "keto-malondialdehyde"
MINIMA_COLUMNS = [
    "molecule", "potential", "minima", "lowest minima (torsions: kcal/mol)",
    "highest energy, kcal/mol", "not converged",
]  # fmt: skip
NOT_RUN = "not run with the small sizes"


def run(setting: Setting) -> Result:
    """Fig. 2: surfaces of both molecules by sGDML and force fields."""
    titles = setting.size(("GAFF", "MMFF94", "Ghemical", "UFF"), ("GAFF", "UFF"))
    result = Result("Fig. 2: energy surfaces by sGDML and force fields", "")
    levels = []
    for molecule in setting.size((ETHANOL, KETO), (ETHANOL,)):
        reference = surfaces.surface(setting, molecule)
        scans = {title: surfaces.scanned(setting, molecule, title) for title in titles}
        minima = surfaces.checked_minima(setting, molecule, reference)
        levels.append(reference.level)
        find = _ethanol if molecule == ETHANOL else _keto
        result.findings += find(setting, reference, scans, minima)
        add_surfaces(setting, result, "fig2", molecule, reference, scans, minima)
    if setting.small:
        result.findings += [untested(c, NOT_RUN) for c in KETO_CLAIMS]
    result.level = f"{'; '.join(levels)}; {setting.charge_model}; relaxed scans"
    result.notes.append(
        "The paper's surfaces are cuts by sGDML@CCSD(T). The coupling is the part of a surface "
        "that is no sum of functions of one torsion each."
    )
    return result


KETO_CLAIMS = ("keto-uff", "keto-global", "keto-local", "keto-remote")


def hartree_fock(setting: Setting) -> Result:
    """Fig. 3: keto-malondialdehyde by sGDML, GAFF, sGDML trained on HF, and MMFF94."""
    reference, at_hf = (surfaces.surface(setting, KETO, title) for title in (KERNEL, HF_KERNEL))
    mmff94, gaff = (surfaces.scanned(setting, KETO, title) for title in ("MMFF94", "GAFF"))
    minima = surfaces.checked_minima(setting, KETO, reference)
    with_hf = surfaces.correlation(at_hf, mmff94)
    with_reference = surfaces.correlation(reference, mmff94)
    gaff_with = {
        KERNEL: surfaces.correlation(reference, gaff), HF_KERNEL: surfaces.correlation(at_hf, gaff)
    }  # fmt: skip
    result = Result(
        "Fig. 3: keto-malondialdehyde by sGDML, GAFF, sGDML@HF and MMFF94",
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
    result.notes.append(at_hf.far_share)
    scans = {"GAFF": gaff, HF_KERNEL: at_hf.scan, "MMFF94": mmff94}
    add_surfaces(setting, result, "fig3", KETO, reference, scans, minima, {HF_KERNEL: at_hf.far})
    return result


def add_surfaces(
    setting: Setting, result: Result, name: str, molecule: str, reference: Surface,
    scans: dict[str, Scan], minima: list[GridMinimum], far: dict | None = None,
) -> None:  # fmt: skip
    """Add the table of minima, the picture and the notes of a molecule to a result."""
    shape = setting.dataset(setting.surface_set(molecule)).molecule
    rows = []
    for title, grid in {KERNEL: reference.scan, **scans}.items():
        places = minima if title == KERNEL else surfaces.grid_minima(grid, shape)
        rows.append([
            molecule, title, len(places), "; ".join(map(str, places[:4])),
            float(grid.relative.max()), int((~grid.converged).sum()),
        ])  # fmt: skip
        result.numbers.setdefault("minima", {})[f"{molecule}, {title}"] = rows[-1][3]
    result.numbers.setdefault("far_from_data", {})[molecule] = float(reference.far.mean())
    caption = f"Minima of {molecule} on the grid, equivalent ones counted once"
    result.tables.append(Table(caption, MINIMA_COLUMNS, rows))
    figure = plot_surfaces.energy_maps(
        {KERNEL: reference.scan, **scans}, float(reference.scan.relative.max()),
        {KERNEL: reference.far, **(far or {})},
    )  # fmt: skip
    caption = (
        f"Relaxed energies of {molecule}, kcal/mol above each lowest point (cross), on the scale "
        "of sGDML. Hatched: far from the data of the kernel. Dots: not converged."
    )
    result.pictures.append(picture(setting.place(name), f"{molecule}.png", figure, caption))
    result.notes.append(reference.far_share)
    result.notes.append(
        f"Minima of sGDML for {molecule}: each counts as doubtful if its energy deviates by more "
        f"than {surfaces.CONFIRMED:g} kcal/mol from the reference method at the same geometry or, "
        "where no calculator has this level, if it is far from the data."
    )


def _ethanol(
    setting: Setting, reference: Surface, scans: dict[str, Scan], minima: list[GridMinimum]
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
    setting: Setting, reference: Surface, scans: dict[str, Scan], minima: list[GridMinimum]
) -> list[Finding]:
    alike = {name: surfaces.correlation(reference, grid) for name, grid in scans.items()}
    higher = [m for m in minima[1:] if not m.is_doubtful]
    if higher:
        molecule = setting.dataset(setting.surface_set(KETO)).molecule
        kept = surfaces.shared_minima(scans["GAFF"], reference.scan, higher, molecule)
        reason = f"{len(higher)} higher minima of sGDML are not doubtful"
        local = judged("keto-local", {"GAFF": Estimate(len(set(kept)), 0.0)}, reason)
    else:
        local = untested("keto-local", "every higher minimum of sGDML is doubtful")
    return [
        judged("keto-uff", chosen(alike, ("UFF",))),
        judged("keto-global", {"GAFF": surfaces.energy_at_lowest(reference, scans["GAFF"])}),
        local,
        judged("keto-remote", chosen(alike, ("MMFF94", "Ghemical"))),
    ]


def chosen(values: dict[str, Estimate], names: tuple[str, ...]) -> dict[str, Estimate]:
    """The values of those names that were computed."""
    return {name: values[name] for name in names if name in values}
