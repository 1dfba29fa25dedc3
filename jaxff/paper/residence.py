"""Fig. 9: time spent near each minimum of aspirin; a local correction of GAFF."""

from __future__ import annotations

import numpy as np

from jaxff import gdml
from jaxff.analysis import Estimate
from jaxff.analysis.sampling import Residence
from jaxff.paper.experiment import Setting, settled
from jaxff.paper.minima import MOLECULE, all_minima, atoms_of, basins
from jaxff.paper.result import Result, Table, picture
from jaxff.paper.verdicts import judged, minus, ratio, shown
from jaxff.potential import Potential
from jaxff.report import plot_sampling

TEMPERATURE = 500.0  # K
SHOWN = 3  # minima with a column; the basins of all others are "elsewhere"
CORRECTED = "GAFF + ML"
BLOCKS = 8  # blocks of time of each replica of the data
SAMPLES = 400  # of the bootstrap over replicas
# Atoms in the order of the SMILES: the ester without its methyl group, the acid, and the two ring
# carbons between them.
INTERACTING = (1, 2, 3, 4, 9, 10, 11, 12)


def run(setting: Setting) -> Result:
    """Shares of the time in the basins of the minima by the reference, GAFF and GAFF + ML."""
    data, wells = setting.dataset(MOLECULE), all_minima(setting).positions
    models = {
        "sGDML": setting.kernel(MOLECULE),
        "GAFF": setting.gaff(MOLECULE),
        CORRECTED: corrected(setting, wells[:SHOWN]),
    }
    replicas = setting.size(16, 2)
    starts = wells[np.arange(replicas) % min(SHOWN, len(wells))]
    sampled = {"reference": in_blocks(data.positions, setting.size(BLOCKS, 2))}
    for name, potential in models.items():
        run = setting.sample(
            f"{name} at {TEMPERATURE:g} K", potential, data.molecule,
            setting.sampling(TEMPERATURE, replicas, 100), setting.size(50.0, 1.0), starts,
        )  # fmt: skip
        sampled[name] = in_blocks(settled(run), replicas)
    shares = {
        name: basin_shares(data.molecule, parts, wells, min(SHOWN, len(wells)))
        for name, parts in sampled.items()
    }
    off = {
        name: other_basins(parts, shares["reference"], setting.seed)
        for name, parts in shares.items()
        if name != "reference"
    }
    rows, near = [], {}
    for name, parts in shares.items():
        mean, error = parts.mean(axis=0), parts.std(axis=0, ddof=1) / np.sqrt(len(parts))
        cells = [shown(Estimate(m, e), 3) for m, e in zip(mean, error, strict=True)]
        rows.append([name, *cells, shown(off[name], 3) if name in off else "-"])
        last = Estimate(float(mean[-1]), float(error[-1]))
        near[name] = Residence(np.empty(0, int), Estimate(mean[:-1], error[:-1]), last)
    labels = [f"minimum {k + 1}" for k in range(len(near["GAFF"].shares.mean))]
    return Result(
        "Fig. 9: time spent near each minimum of aspirin",
        f"the frames of the data ({data.theory}) as reference; {TEMPERATURE:g} K; "
        f"{setting.charge_model}; the correction is a kernel on the ester and acid groups, trained "
        "on the reference minus GAFF near the minima",
        findings(shares[CORRECTED], off),
        [
            "A frame belongs to the minimum whose torsions are nearest (mirror images are equal, "
            "the methyl torsion is left out), with all known minima as centres. Errors "
            "are standard errors over replicas, which start from each of the lowest minima, so "
            "that replicas that do not cross a barrier enlarge the error."
        ],
        {"shares": shares, "difference": {name: value._asdict() for name, value in off.items()}},
        [
            Table(
                "Shares of the time in the basins of the lowest minima of Fig. 5, and the share "
                "that is spent in other basins than the reference does",
                ["potential", *labels, "elsewhere", "other basins"],
                rows,
            )
        ],
        [
            picture(
                setting.place("fig9"), "residence.png", plot_sampling.residences(near),
                "Time spent in the basin of each minimum; lines are two standard errors.",
            )
        ],
    )  # fmt: skip


def findings(augmented: np.ndarray, off: dict[str, Estimate]) -> list:
    """The tests of the paper's statements.

    Args:
        augmented: (R, K) shares of the basins by each replica of GAFF + ML.
        off: share of the time that GAFF and GAFF + ML spend in other basins than the reference.
    """
    mean, error = augmented.mean(axis=0), augmented.std(axis=0, ddof=1) / len(augmented) ** 0.5
    k = 1 + int(np.argmax(mean[1:]))
    lead = minus(Estimate(mean[0], error[0]), Estimate(mean[k], error[k]))
    return [
        judged("recovered", {CORRECTED: ratio(off[CORRECTED], off["GAFF"])}),
        judged("preferred", {CORRECTED: lead}),
        judged("frequencies", {CORRECTED: off[CORRECTED]}),
    ]


def in_blocks(positions: np.ndarray, count: int) -> list[np.ndarray]:
    """Frames (F, N, 3) in the order of time, or of replicas, cut into equal blocks."""
    return np.array_split(positions, count)


def basin_shares(molecule, parts: list[np.ndarray], wells: np.ndarray, count: int) -> np.ndarray:
    """Shares (R, count + 1) of the first basins, and of all others, in each part of a sampling."""
    rows = []
    for R in parts:
        nearest = np.minimum(basins(molecule, R, wells), count)
        rows.append(np.bincount(nearest, minlength=count + 1) / len(R))
    return np.array(rows)


def other_basins(parts: np.ndarray, reference: np.ndarray, seed: int) -> Estimate:
    """Share of the time in other basins than the reference: half the sum of differences.

    The error is from a bootstrap over the rows, which are replicas or blocks of time.

    Args:
        parts, reference: (R, K) and (Q, K) shares of the basins.
        seed: seed of the bootstrap.
    """
    rng = np.random.default_rng(seed)

    def drawn(x: np.ndarray) -> np.ndarray:
        return x[rng.integers(len(x), size=(SAMPLES, len(x)))].mean(axis=1)

    samples = 0.5 * np.abs(drawn(parts) - drawn(reference)).sum(axis=1)
    value = 0.5 * np.abs(parts.mean(axis=0) - reference.mean(axis=0)).sum()
    return Estimate(float(value), float(samples.std(ddof=1)))


def corrected(setting: Setting, structures: np.ndarray) -> Potential:
    """GAFF with a kernel on two groups, trained near structures (S, N, 3) Å."""
    data = setting.dataset(MOLECULE)
    data = data[data.distinct()]
    atoms = atoms_of(data.molecule)[list(INTERACTING)].tolist()
    start = setting.gaff(MOLECULE)

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
