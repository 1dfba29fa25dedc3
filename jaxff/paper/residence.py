"""Fig. 9: time spent near each minimum of aspirin; a local correction of GAFF."""

from __future__ import annotations

import numpy as np

from jaxff import gdml
from jaxff.analysis import residence, rotatable_torsions, torsion_angles, torsion_distance
from jaxff.gaff import gaff
from jaxff.molecule import Molecule
from jaxff.paper.experiment import MOLECULES, Result, Setting, Table, picture, settled
from jaxff.paper.minima import MOLECULE, lowest
from jaxff.potential import Potential
from jaxff.report import plot_sampling

TEMPERATURE = 300.0  # K
WITHIN = np.radians(60.0)
# Atoms in the order of the SMILES: the ester without its methyl group, the acid, and the two ring
# carbons between them.
INTERACTING = (1, 2, 3, 4, 9, 10, 11, 12)


def run(setting: Setting) -> Result:
    """Shares of the time near the lowest minima by sGDML, GAFF and corrected GAFF."""
    data = setting.dataset(MOLECULE)
    molecule, minima = data.molecule, lowest(setting)
    torsions = rotatable_torsions(molecule)
    wells = np.asarray(torsion_angles(minima.positions, torsions))
    mirrored = -wells  # mirror images of one minimum count as one
    models = {
        "sGDML": setting.kernel(MOLECULE),
        "GAFF": gaff(molecule),
        "GAFF + correction": corrected(setting, minima.positions),
    }
    replicas = setting.size(32, 2)
    starts = minima.positions[np.arange(replicas) % len(minima)]
    rows, near, numbers = [], {}, {}
    for name, potential in models.items():
        run = setting.sample(
            f"{name} at {TEMPERATURE:g} K", potential, molecule,
            setting.sampling(TEMPERATURE, replicas, 100), setting.size(40.0, 1.0), starts,
        )  # fmt: skip
        phi = np.asarray(torsion_angles(settled(run), torsions))
        distance = np.minimum(torsion_distance(phi, wells), torsion_distance(phi, mirrored))
        near[name] = spent = residence(distance, WITHIN, n_blocks=replicas)
        shares, errors = spent.shares
        cells = [f"{s:.1%} ± {e:.1%}" for s, e in zip(shares, errors, strict=True)]
        rows.append([name, *cells, f"{float(spent.elsewhere.mean):.1%}"])
        numbers[name] = {"shares": shares, "errors": errors, "elsewhere": spent.elsewhere.mean}
    spread = {n: np.append(r.shares.mean, r.elsewhere.mean) for n, r in near.items()}
    off = {n: 0.5 * float(np.abs(s - spread["sGDML"]).sum()) for n, s in spread.items()}
    numbers["difference"] = off
    return Result(
        "Fig. 9: time spent near each minimum of aspirin",
        f"{data.theory}; sGDML trained on it replaces the reference; {TEMPERATURE:g} K; the "
        "correction is a kernel on the ester and acid groups, trained on reference minus GAFF near "
        "the minima",
        "GAFF spends its time in other minima than the reference; with a kernel that corrects the "
        "n→π* interaction locally it spends it as the reference does.",
        "share of the time spent elsewhere than with sGDML: "
        + ", ".join(f"{n} {v:.0%}" for n, v in off.items() if n != "sGDML"),
        *_verdict(off),
        numbers,
        [
            Table(
                "Shares of the time within 60° of each minimum's torsions, with standard errors "
                "from the replicas",
                ["potential", *(f"minimum {k + 1}" for k in range(len(minima))), "elsewhere"],
                rows,
            )
        ],
        [
            picture(
                setting.place("fig9"), "residence.png", plot_sampling.residences(near),
                "Time spent near each minimum; lines are two standard errors.",
            )
        ],
    )  # fmt: skip


def corrected(setting: Setting, structures: np.ndarray) -> Potential:
    """GAFF with a kernel on two groups, trained near structures (S, N, 3) Å."""
    data = setting.dataset(MOLECULE)
    data = data[data.distinct()]
    order = Molecule.from_smiles(MOLECULES[MOLECULE]).match(data.molecule)
    atoms = order[list(INTERACTING)].tolist()
    start = gaff(data.molecule)

    def make():
        count = min(setting.size(600, 60), len(data) // 2)
        order = gdml.nearest_frames(data, structures, len(data), atoms=atoms, seed=setting.seed)
        near, far = data[order[:count]], data[order[-(len(data) // 3) :]]
        n_train = 2 * count // 3
        part = near.split(n_train, count - n_train, 0, seed=setting.seed)
        options = {"sigma": 2.0, "kernel": gdml.LocalKernel(lam=1e-2)} if setting.small else {}
        run = gdml.Run(seed=setting.seed, progress=setting.titled("local correction"))
        return gdml.train_correction(
            part.train, start, atoms, part.valid, background=far, run=run, **options
        )

    return start + setting.kept("aspirin-correction", make).on(atoms)


def _verdict(off: dict[str, float]) -> tuple[str, str]:
    caveat = (
        "Equal numbers of replicas start from each minimum. Where no replica crosses a barrier "
        "during a run, the shares stay as at the start."
    )
    if off["GAFF + correction"] < 0.5 * off["GAFF"]:
        return "agrees", f"The correction more than halves GAFF's difference from sGDML. {caveat}"
    if off["GAFF + correction"] < off["GAFF"]:
        return "partly agrees", f"The correction brings GAFF nearer to sGDML. {caveat}"
    return "disagrees", f"The correction does not bring GAFF nearer to sGDML. {caveat}"
