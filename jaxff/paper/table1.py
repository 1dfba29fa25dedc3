"""Table I: kernels trained on frames of one sampling and tested on another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxff import gdml
from jaxff.analysis import Estimate, conformers
from jaxff.dataset import Dataset
from jaxff.paper.claims import TABLE_I
from jaxff.paper.experiment import Setting
from jaxff.paper.result import Result, Table
from jaxff.paper.verdicts import judged, ratio, shown, untested
from jaxff.potential import Potential
from jaxff.reference import Labelling, Sampling, Selection, cross_validate, two_step

TEMPERATURE = 500.0  # K
SAMPLINGS = ("DFT", "GAFF")  # in the paper's words: of the reference and of GAFF
CLAIMS = ("factor-two", "slightly-better", "below-0.9")
COLUMNS = [
    "molecule", "training", "validation", "MAE", "RMSE", "MAE, the paper", "RMSE, the paper"
]  # fmt: skip


def run(setting: Setting) -> Result:
    """Errors of kernels across the samplings of the reference and of GAFF."""
    n_train, n_frames = setting.size((200, 1000), (40, 120))
    rows, errors, levels, circular, numbers = [], {}, [], [], {}
    for molecule in setting.size(("keto-malondialdehyde", "ethanol"), ("ethanol",)):
        data, labels = setting.dataset(molecule), setting.reference(molecule)
        levels.append(f"{molecule}: {data.theory}")
        if labels is None:
            circular.append(molecule)
            rows += [table_row(molecule, *pair, None) for pair in PAIRS]
            continue
        result = cross_validate(
            {"DFT": data, "GAFF": gaff_frames(setting, molecule, labels, n_frames)},
            n_train, n_valid=setting.size(100, 30), n_test=setting.size(600, 40),
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
        f"{'; '.join(levels)}; {n_train} training frames (1,000 in the paper); {TEMPERATURE:g} K; "
        f"{setting.charge_model}",
        findings({name: cells["force_mae"] for name, cells in errors.items()}, circular),
        [
            "DFT stands for the reference method of the data. The frames of GAFF come from "
            f"{setting.size(16, 2)} replicas that start from conformers, not from frames of the "
            "reference, and are labelled by the reference method itself. Errors are standard "
            "errors over the seeds of the training sets.",
        ],
        numbers,
        [
            Table(
                "Force errors (kcal/mol/Å) with standard errors, and those of the paper's Table I",
                COLUMNS, rows,
            )
        ],
    )  # fmt: skip


PAIRS = (("GAFF", "GAFF"), ("DFT", "DFT"), ("GAFF", "DFT"))  # training and validation
Cells = dict[tuple[str, str], Estimate]


def findings(errors: dict[str, Cells], circular: list[str]) -> list:
    """The tests of the paper's statements on force MAEs by molecule.

    Args:
        errors: {molecule: {(training, validation): force MAE}}.
        circular: molecules whose frames only the kernel itself could label.
    """
    reason = (
        f"{', '.join(circular)}: no calculator has the level of theory of the data; labels of both "
        "samplings by the kernel itself would be circular"
        if circular
        else ""
    )
    if not errors:
        return [untested(claim, reason) for claim in CLAIMS]
    values = {
        "factor-two": {m: ratio(e["GAFF", "DFT"], e["GAFF", "GAFF"]) for m, e in errors.items()},
        "slightly-better": {
            m: ratio(e["DFT", "DFT"], e["GAFF", "GAFF"]) for m, e in errors.items()
        },
        "below-0.9": {m: e["GAFF", "DFT"] for m, e in errors.items()},
    }
    return [judged(claim, values[claim], reason) for claim in CLAIMS]


def gaff_frames(setting: Setting, molecule: str, labels: str, n_frames: int) -> Dataset:
    """Frames of long, independent dynamics of GAFF, labelled by the reference method."""
    shape = setting.dataset(molecule).molecule
    replicas = setting.size(16, 2)
    made = conformers(shape, replicas, setting.seed)
    sampling = Sampling(
        TEMPERATURE, spacing=setting.size(1000.0, 100.0),
        equilibration=setting.size(20_000.0, 500.0), replicas=replicas, seed=setting.seed,
    )  # fmt: skip
    return two_step(
        setting.gaff(molecule), shape, setting.place("table1") / f"{molecule}-gaff-sampling.npz",
        Selection(n_frames), Labelling(labels), sampling,
        starts=made[np.arange(replicas) % len(made)],
        progress=setting.titled(f"{molecule} sampled by GAFF"),
    )  # fmt: skip


def table_cells(error: Estimate) -> Cells:
    """An error by training and validation sampling, from arrays (2, 2)."""
    return {
        (a, b): Estimate(float(error.mean[i, j]), float(error.error[i, j]))
        for i, a in enumerate(SAMPLINGS)
        for j, b in enumerate(SAMPLINGS)
    }


def table_row(molecule: str, training: str, validation: str, errors: dict | None) -> list:
    """A row with our errors and those of the paper; None: not run."""
    pair = training, validation
    ours = ["-", "-"] if errors is None else [shown(errors[k][pair], 3) for k in errors]
    return [molecule, *pair, *ours, *(f"{x:.2f}" for x in TABLE_I[molecule, training, validation])]


def _kernel(setting: Setting) -> Callable[[Dataset, Dataset, int], Potential]:
    sigma = setting.size((10.0, 20.0, 40.0), 20.0)
    return lambda train, valid, seed: gdml.train(train, valid, sigma=sigma, run=gdml.Run(seed=seed))
