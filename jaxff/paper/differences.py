"""Fig. 4: sGDML, GAFF and their difference on the surfaces of both molecules."""

from __future__ import annotations

from jaxff.analysis import difference
from jaxff.paper import surfaces
from jaxff.paper.experiment import Setting
from jaxff.paper.force_field_surfaces import ETHANOL, KETO, NOT_RUN, marks_of
from jaxff.paper.result import Result, Table, picture
from jaxff.paper.surface_minima import found_minima
from jaxff.paper.surfaces import KERNEL
from jaxff.paper.verdicts import judged, minus, shown, untested
from jaxff.report import plot_surfaces

COLUMNS = [
    "molecule", "scan", "root mean square, kcal/mol", "lowest, kcal/mol", "highest, kcal/mol",
]  # fmt: skip


def run(setting: Setting) -> Result:
    """Compare the relaxed and rigid surfaces of sGDML and GAFF (Fig. 4)."""
    folder, rows, levels, off = setting.place("fig4"), [], [], {}
    result = Result("Fig. 4: sGDML, GAFF and their difference", "")
    for molecule in setting.size((ETHANOL, KETO), (ETHANOL,)):
        minima = {title: found_minima(setting, molecule, title) for title in (KERNEL, "GAFF")}
        for relax in (True, False):
            kind = "relaxed" if relax else "rigid"
            reference = surfaces.surface(setting, molecule, relax=relax)
            gaff = surfaces.scanned(setting, molecule, "GAFF", relax)
            apart = surfaces.rms_difference(reference, gaff)
            wrong = difference(reference.scan, gaff)[~reference.far]
            extremes = ["-", "-"] if not wrong.size else [float(wrong.min()), float(wrong.max())]
            rows.append([molecule, kind, shown(apart), *extremes])
            figure = plot_surfaces.energy_maps(
                {KERNEL: reference.scan, "GAFF": gaff}, reference.highest,
                {KERNEL: reference.far}, marks_of(minima) if relax else None,
            )  # fmt: skip
            caption = (
                f"{molecule}, {kind} scans: sGDML, GAFF, and sGDML − GAFF. Crosses: lowest "
                "minima; circles: higher minima; hatched: far from the data."
            )
            file = f"{molecule}{'' if relax else '-rigid'}.png"
            result.pictures.append(picture(folder, file, figure, caption))
            result.notes.append(reference.far_share)
            if relax:
                levels.append(reference.level)
                off[molecule] = apart
                if molecule == ETHANOL:
                    share = surfaces.coupling_share(reference, gaff)
                    result.findings.append(judged("ethanol-minor", {"GAFF": apart}))
                    result.findings.append(judged("coupling-difference", {"GAFF": share}))
    if len(off) == 2:
        more = minus(off[KETO], off[ETHANOL])
        result.findings.append(judged("keto-more", {"GAFF": more}))
    else:
        result.findings.append(untested("keto-more", NOT_RUN))
    result.level = f"{'; '.join(levels)}; {setting.charge_model}; verdicts use relaxed scans"
    result.numbers["rmsd"] = {name: value._asdict() for name, value in off.items()}
    result.tables.append(
        Table(
            "sGDML − GAFF: root mean square without the mean (near the data, sGDML below "
            f"{surfaces.THERMAL:g} kcal/mol), and lowest and highest difference near the data",
            COLUMNS, rows,
        )
    )  # fmt: skip
    return result
