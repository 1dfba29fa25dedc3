"""Fig. 4: sGDML, GAFF and their difference on the surfaces of both molecules."""

from __future__ import annotations

from jaxff.analysis import difference
from jaxff.paper import surfaces
from jaxff.paper.experiment import Setting
from jaxff.paper.force_field_surfaces import ETHANOL, KETO, NOT_RUN
from jaxff.paper.result import Result, Table, picture
from jaxff.paper.verdicts import judged, minus, shown, untested
from jaxff.report import plot_surfaces


def run(setting: Setting) -> Result:
    """The surfaces of sGDML and GAFF, and sGDML minus GAFF."""
    folder, rows, levels, off = setting.place("fig4"), [], [], {}
    result = Result("Fig. 4: sGDML, GAFF and their difference", "")
    for molecule in setting.size((ETHANOL, KETO), (ETHANOL,)):
        reference = surfaces.surface(setting, molecule)
        gaff = surfaces.scanned(setting, molecule, "GAFF")
        levels.append(reference.level)
        off[molecule] = surfaces.rms_difference(reference, gaff)
        wrong = difference(reference.scan, gaff)[~reference.far]
        extremes = ["-", "-"] if not wrong.size else [float(wrong.min()), float(wrong.max())]
        rows.append([molecule, shown(off[molecule]), *extremes])
        if molecule == ETHANOL:
            share = surfaces.coupling_share(reference, gaff)
            result.findings.append(judged("ethanol-minor", {"GAFF": off[molecule]}))
            result.findings.append(judged("coupling-difference", {"GAFF": share}))
        figure = plot_surfaces.energy_maps(
            {"sGDML": reference.scan, "GAFF": gaff}, doubtful={"sGDML": reference.far}
        )
        caption = f"{molecule}: sGDML, GAFF, and sGDML − GAFF; hatched: far from the data."
        result.pictures.append(picture(folder, f"{molecule}.png", figure, caption))
        result.notes.append(reference.far_share)
    if len(off) == 2:
        more = minus(off[KETO], off[ETHANOL])
        result.findings.append(judged("keto-more", {"GAFF": more}))
    else:
        result.findings.append(untested("keto-more", NOT_RUN))
    result.level = f"{'; '.join(levels)}; {setting.charge_model}; relaxed scans"
    result.numbers["rmsd"] = {name: value._asdict() for name, value in off.items()}
    result.tables.append(
        Table(
            f"sGDML − GAFF: root mean square near the data where sGDML is below "
            f"{surfaces.THERMAL:g} kcal/mol, mean subtracted; lowest and highest near the data",
            ["molecule", "root mean square, kcal/mol", "lowest, kcal/mol", "highest, kcal/mol"],
            rows,
        )
    )
    return result
