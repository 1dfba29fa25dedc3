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
    """Compare the shares of time in each basin by the reference, GAFF and GAFF + ML (Fig. 9)."""
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
        f"The global minimum of the reference is in the basin “{BASINS[place]}”. Errors come from "
        "a bootstrap over replicas, which start from conformers, or over blocks of time for the "
        "frames of the data.",
        f"“{reference}” is the reference of the verdicts. The share of the reference in the basin "
        "of the global minimum minus the largest share of all other basins is "
        f"{shown(leading(tables[reference], place, seed), 3)}.",
        "The kernel acts on the ester and acid groups. The training frames are a grid of both "
        "torsions, frames of the data, and frames sampled by the sum of force field and kernel.",
    ]
    if effective is not None:
        notes.append(
            f"“{REWEIGHTED}” is the sampling of class-II refitted to the data, reweighted to the "
            f"energies of the reference; the effective number of frames is {effective:.0f}. The "
            "frames of the data are two short replicas."
        )
    else:
        notes.append(
            "sGDML labels the sampled frames, because no calculator has this level of theory."
        )
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
                "Share of the frames with the ester facing the acid, and shares of the basins",
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
    """Return functions that create the force fields to correct; only GAFF if small."""
    makers = {GAFF: lambda: setting.gaff(MOLECULE), REFITTED: lambda: refitted(setting, "gaff")}
    return setting.size(makers, {GAFF: makers[GAFF]})


def findings(tables: dict[str, np.ndarray], reference: str, place: int, seed: int = 0) -> list:
    """Test the paper's statements on GAFF + ML.

    The reasons also contain the results for corrections of other force fields.

    Args:
        tables: numbers of frames (R, K) in each basin, by name of the potential.
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
    """Return the deviation of `facing` from the reference, divided by that of GAFF.

    The arguments are shares (..., K) of time in K basins, by a potential, by GAFF and by
    the reference.
    """
    return (facing(shares) - facing(exact)) / (facing(gaff) - facing(exact))


def other_basins(shares: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Return half the sum of the absolute differences of the shares from the reference."""
    return 0.5 * np.abs(shares - exact).sum(axis=-1)


def leading(table: np.ndarray, place: int, seed: int = 0) -> Estimate:
    """Return the share of basin `place` minus the largest share of all other basins."""

    def lead(shares: np.ndarray) -> np.ndarray:
        return shares[..., place] - np.delete(shares, place, axis=-1).max(axis=-1)

    return estimated(lead, table, seed=seed)


def in_blocks(positions: np.ndarray, count: int) -> list[np.ndarray]:
    """Cut frames (F, N, 3) Å, in the order of time, into equal blocks."""
    return np.array_split(positions, count)


def reweighted(setting: Setting) -> tuple[np.ndarray, float]:
    """Reweight frames of refitted class-II to the ensemble of the reference.

    The weights are w = exp(−ΔE/kT), where ΔE is the energy of the reference minus the energy of
    class-II. The effective number of frames is (Σ w)²/Σ w².

    Returns:
        the weighted numbers of frames (R, K) in R replicas and K basins, and the effective number.
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
