"""Table I: kernels trained on frames of one sampling and tested on another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxff import gdml
from jaxff.analysis import Estimate
from jaxff.dataset import Dataset
from jaxff.paper.claims import TABLE_I
from jaxff.paper.dynamics import TEMPERATURE, gaff_frames, replicas
from jaxff.paper.experiment import Setting
from jaxff.paper.result import Result, Table
from jaxff.paper.verdicts import judged, ratio, shown
from jaxff.potential import Potential
from jaxff.reference import Labelling, cross_validate, label_frames

SAMPLINGS = ("DFT", "GAFF")  # in the paper's words: of the reference and of GAFF
PAIRS = (("GAFF", "GAFF"), ("DFT", "DFT"), ("GAFF", "DFT"))  # training and validation
LABELS = "gfn2-xtb"  # where no calculator has the level of theory of the data
COLUMNS = [
    "molecule", "training", "validation", "MAE", "RMSE", "MAE, the paper", "RMSE, the paper"
]  # fmt: skip
Cells = dict[tuple[str, str], Estimate]


def run(setting: Setting) -> Result:
    """Compare errors of kernels across the samplings of the reference and of GAFF (Table I)."""
    n_train, n_test = setting.size((1000, 1000), (40, 40))
    rows, errors, levels, numbers = [], {}, [], {}
    for molecule in setting.size(("keto-malondialdehyde", "ethanol"), ("ethanol",)):
        samplings = labelled_samplings(setting, molecule)
        levels.append(f"{molecule}: {sampling_level(setting, molecule, samplings)}")
        result = cross_validate(
            samplings,
            n_train, n_valid=setting.size(100, 30), n_test=n_test,
            seeds=setting.size((0, 1, 2), (0,)), train=_kernel(setting),
            progress=setting.titled(f"kernels of {molecule}"),
        )  # fmt: skip
        errors[molecule] = {
            key: table_cells(result.errors[key]) for key in ("force_mae", "force_rmse")
        }
        numbers[molecule] = {
            key: {f"{a}→{b}": value._asdict() for (a, b), value in cells.items()}
            for key, cells in errors[molecule].items()
        }
        rows += [table_row(molecule, *pair, errors[molecule]) for pair in PAIRS]
    return Result(
        "Table I: training on frames of another sampling",
        f"{'; '.join(levels)}; {n_train} training frames (1000 in the paper); {TEMPERATURE:g} K; "
        f"{setting.charge_model}",
        findings({name: cells["force_mae"] for name, cells in errors.items()}),
        [
            "“DFT” is the sampling of the data. The frames of GAFF are random frames of the "
            f"dynamics of Fig. 7 ({replicas(setting)} replicas), which start from conformers. The "
            "same method, never a kernel, labels the frames of both samplings. Errors are "
            "standard errors over repeats with other training and test frames.",
        ],
        numbers,
        [
            Table(
                "Force errors (kcal/mol/Å) with standard errors, and those of the paper's Table I",
                COLUMNS, rows,
            )
        ],
    )  # fmt: skip


def findings(errors: dict[str, Cells]) -> list:
    """Test the paper's statements on force MAEs by molecule.

    Args:
        errors: force MAE, kcal/mol/Å, by molecule and pair of training and test samplings.
    """
    values = {
        "factor-two": {m: ratio(e["GAFF", "DFT"], e["GAFF", "GAFF"]) for m, e in errors.items()},
        "slightly-better": {
            m: ratio(e["DFT", "DFT"], e["GAFF", "GAFF"]) for m, e in errors.items()
        },
        "below-0.9": {m: e["GAFF", "DFT"] for m, e in errors.items()},
    }
    return [judged(claim, of_claim) for claim, of_claim in values.items()]


def labelled_samplings(setting: Setting, molecule: str) -> dict[str, Dataset]:
    """Return frames of the data and of GAFF, with labels of one method, by name of the sampling.

    The method has the level of theory of the data. If no calculator has this level of theory,
    GFN2-xTB labels the frames of both samplings.
    """
    data, method = setting.dataset(molecule), setting.reference(molecule)
    frames = gaff_frames(setting, molecule).reshape(-1, data.n_atoms, 3)
    count, rng = setting.size(2100, 120), np.random.default_rng(setting.seed)

    def drawn(positions: np.ndarray) -> np.ndarray:
        which = rng.choice(len(positions), min(count, len(positions)), replace=False)
        return positions[which]

    def labelled(name: str, positions: np.ndarray) -> Dataset:
        path = setting.place("table1") / f"{molecule}-{name.lower()}-sampling.npz"
        return label_frames(
            [data.molecule.with_positions(R) for R in positions], path,
            Labelling(method or LABELS, name=molecule), molecule=data.molecule,
            progress=setting.titled(f"{molecule} sampled by {name}"),
        ).dataset  # fmt: skip

    ours = labelled("GAFF", drawn(frames))
    return {"DFT": data if method else labelled("DFT", drawn(data.positions)), "GAFF": ours}


def sampling_level(setting: Setting, molecule: str, samplings: dict[str, Dataset]) -> str:
    """Return the level of theory of the labels and, if different, that of the dynamics."""
    labels, data = samplings["GAFF"].theory, setting.dataset(molecule)
    if setting.reference(molecule):
        return data.theory
    return f"labels {labels}, sampling {data.theory}"


def table_cells(error: Estimate) -> Cells:
    """Convert the errors (2, 2) to a dict by names of the training and the test sampling."""
    return {
        (a, b): Estimate(float(error.mean[i, j]), float(error.error[i, j]))
        for i, a in enumerate(SAMPLINGS)
        for j, b in enumerate(SAMPLINGS)
    }


def table_row(molecule: str, training: str, validation: str, errors: dict[str, Cells]) -> list:
    """Return a row with the errors (MAE, RMSE) of jaxff and of the paper."""
    pair = training, validation
    ours = [shown(cells[pair], 3) for cells in errors.values()]
    return [molecule, *pair, *ours, *(f"{x:.2f}" for x in TABLE_I[molecule, training, validation])]


def _kernel(setting: Setting) -> Callable[[Dataset, Dataset, int], Potential]:
    sigma = setting.size((10.0, 20.0, 40.0), 20.0)
    return lambda train, valid, seed: gdml.train(train, valid, sigma=sigma, run=gdml.Run(seed=seed))
