"""Fig. 9: time spent in the basins of aspirin by the reference, GAFF and corrected force fields."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxff import units
from jaxff.analysis import Estimate
from jaxff.paper import basins
from jaxff.paper.basins import BASINS, MOLECULE, counted, estimated, facing
from jaxff.paper.corrections import CORRECTED, corrected, labelled, refitted
from jaxff.paper.dynamics import TEMPERATURE, gaff_frames, replicas, sampled
from jaxff.paper.experiment import Setting
from jaxff.paper.result import Result, Table, picture
from jaxff.paper.verdicts import judged, shown
from jaxff.potential import Potential
from jaxff.report import plot_sampling

GAFF, REFITTED = "GAFF", "refitted GAFF"
FRAMES, REWEIGHTED = "frames of the reference", "reference"
BLOCKS = 16  # of time, in the frames of the data


def run(setting: Setting) -> Result:
    """Shares of the time in each basin by the reference, GAFF, GAFF + ML and refitted GAFF + ML."""
    data, effective = setting.dataset(MOLECULE), None
    tables = {FRAMES: counted(data.molecule, in_blocks(data.positions, setting.size(BLOCKS, 4)))}
    if setting.reference(MOLECULE):
        tables[REWEIGHTED], effective = reweighted(setting)
    reference = list(tables)[-1]
    for title, make in force_fields(setting).items():
        tables[title] = counted(data.molecule, sampled(setting, MOLECULE, title, make))
        name = title + CORRECTED

        def build(title: str = title, make: Callable[[], Potential] = make) -> Potential:
            return corrected(setting, title, make())

        tables[name] = counted(data.molecule, sampled(setting, MOLECULE, name, build))
    place = basins.global_basin(setting)
    seed = setting.seed
    rows, numbers = [], {}
    for name, table in tables.items():
        each = [estimated(lambda s, k=k: s[..., k], table, seed=seed) for k in range(len(BASINS))]
        share = estimated(facing, table, seed=seed)
        numbers[name] = {
            "facing": share._asdict(),
            "shares": [one._asdict() for one in each],
            "lead": leading(table, place, seed)._asdict(),
        }
        rows.append([name, shown(share, 3), *(shown(one, 3) for one in each)])
    notes = [
        basins.RULE,
        f"The reference's global minimum lies in the basin “{BASINS[place]}”. Errors come from a "
        "bootstrap over replicas, which start from conformers, and over blocks of time of the "
        "frames of the data.",
        f"“{reference}” is the reference of the verdicts. By itself, its share of the basin of the "
        f"global minimum minus its largest other share is "
        f"{shown(leading(tables[reference], place, seed), 3)}.",
        "The kernel acts on the ester and acid groups. It is trained on energies and forces of a "
        "grid of both torsions, of frames of the data, and of frames of the sum itself.",
    ]
    if effective is not None:
        notes.append(
            f"“{REWEIGHTED}” is the sampling of class-II refitted to the data, with the weights of "
            f"the reference's energies at its frames; {effective:.0f} frames count. The frames of "
            "the data are two short replicas."
        )
    else:
        notes.append("No calculator has this level of theory: sGDML labels the frames of the sums.")
    shares = {
        name: Estimate(*(np.array([one[k] for one in value["shares"]]) for k in ("mean", "error")))
        for name, value in numbers.items()
        if name == reference or name != FRAMES
    }
    caption = (
        f"Time spent in the basins of aspirin at {TEMPERATURE:g} K; lines: two standard errors."
    )
    return Result(
        "Fig. 9: time spent in the basins of aspirin",
        f"{data.theory}; {TEMPERATURE:g} K, {replicas(setting)} replicas; {setting.charge_model}",
        findings(tables, reference, place, seed),
        notes,
        numbers,
        [
            Table(
                "Share of the frames whose ester faces the acid, and shares of the basins",
                ["potential", "ester facing", *BASINS],
                rows,
            )
        ],
        [
            picture(
                setting.place("fig9"), "shares.png", plot_sampling.shares(BASINS, shares), caption
            )
        ],
    )


def force_fields(setting: Setting) -> dict[str, Callable[[], Potential]]:
    """Functions that return the force fields that are corrected; GAFF alone if small."""
    makers = {GAFF: lambda: setting.gaff(MOLECULE), REFITTED: lambda: refitted(setting, "gaff")}
    return setting.size(makers, {GAFF: makers[GAFF]})


def findings(tables: dict[str, np.ndarray], reference: str, place: int, seed: int = 0) -> list:
    """The tests of the paper's statements on GAFF + ML.

    Corrections of other force fields are added to the reasons.

    Args:
        tables: numbers of frames (R, K) in each basin, by the names of the potentials.
        reference: the name of the reference.
        place: index of the basin of the global minimum.
        seed: seed of the bootstrap.
    """
    exact, gaff = tables[reference], tables[GAFF]
    measured: dict[str, Callable[[np.ndarray], Estimate]] = {
        "recovered": lambda table: estimated(remaining, table, gaff, exact, seed=seed),
        "preferred": lambda table: leading(table, place, seed),
        "frequencies": lambda table: estimated(other_basins, table, exact, seed=seed),
    }
    name = GAFF + CORRECTED
    others = [other for other in tables if other.endswith(CORRECTED) and other != name]
    return [
        judged(
            claim, {name: measure(tables[name])},
            ", ".join(f"{other} {shown(measure(tables[other]))}" for other in others),
        )
        for claim, measure in measured.items()
    ]  # fmt: skip


def remaining(shares: np.ndarray, gaff: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """What remains of GAFF's deviation in the share of frames whose ester faces the acid."""
    return (facing(shares) - facing(exact)) / (facing(gaff) - facing(exact))


def other_basins(shares: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Share of the time in other basins than the reference: half the sum of differences."""
    return 0.5 * np.abs(shares - exact).sum(axis=-1)


def leading(table: np.ndarray, place: int, seed: int = 0) -> Estimate:
    """The share of one basin minus the largest share of the others."""

    def lead(shares: np.ndarray) -> np.ndarray:
        return shares[..., place] - np.delete(shares, place, axis=-1).max(axis=-1)

    return estimated(lead, table, seed=seed)


def in_blocks(positions: np.ndarray, count: int) -> list[np.ndarray]:
    """Frames (F, N, 3) in the order of time, cut into equal blocks."""
    return np.array_split(positions, count)


def reweighted(setting: Setting) -> tuple[np.ndarray, float]:
    """Frames of the reference's own ensemble: weighted numbers (R, K), and how many frames count.

    Frames of refitted class-II get the weights exp(−ΔE/kT), with ΔE the reference's energy minus
    that of class-II. The effective number is (Σ w)²/Σ w².
    """
    model = refitted(setting, "class2")
    if setting.small:  # GAFF itself
        run = gaff_frames(setting, MOLECULE)
    else:
        run = sampled(setting, MOLECULE, "refitted class-II", lambda: model)
    each = setting.size(60, 8)
    which = np.linspace(0, run.shape[1] - 1, each).round().astype(int)
    chosen = run[:, which]
    exact = labelled(setting, "class-ii-sampled", chosen.reshape(-1, *run.shape[2:]))
    kT = units.BOLTZMANN * TEMPERATURE
    excess = (exact.energies - model.predict(exact.positions)[0]) / kT
    weights = np.exp(excess.min() - excess)
    parts = weights.reshape(len(run), each)
    table = counted(setting.dataset(MOLECULE).molecule, chosen, parts)
    return table, float(weights.sum() ** 2 / np.sum(weights**2))
