"""Fig. 7: torsions and interatomic distances that the reference and GAFF sample at 500 K."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxff.analysis import (
    Estimate,
    atom_pairs,
    compare,
    conformers,
    joint_occupations,
    mean_and_error,
    occupations,
    pair_occupations,
    rotatable_torsions,
    torsion_angles,
    torsion_label,
)
from jaxff.dataset import Dataset
from jaxff.paper.experiment import MOLECULES, Setting, settled
from jaxff.paper.minima import MOLECULE as ASPIRIN
from jaxff.paper.minima import all_minima, basins
from jaxff.paper.result import Picture, Result, Table, picture
from jaxff.paper.verdicts import judged, minus, shown, untested
from jaxff.report import plot_sampling

TEMPERATURE = 500.0  # K
TORSION_EDGES = np.radians(np.linspace(-180.0, 180.0, 37))


def run(setting: Setting) -> Result:
    """Torsion densities, pair distributions and overlaps of the three molecules."""
    folder, rows, levels, torsion, distance = setting.place("fig7"), [], [], {}, {}
    result = Result(f"Fig. 7: sampling at {TEMPERATURE:g} K by the reference and GAFF", "")
    for molecule in setting.size(tuple(MOLECULES), ("ethanol",)):
        data = setting.dataset(molecule)
        levels.append(f"{molecule}: {data.theory}")
        gaff = sampled(setting, molecule)
        samplings = {"reference": data.positions, "GAFF": settled(gaff)}
        result.pictures += _pictures(folder, molecule, data, samplings)
        agreements = [compare(x["reference"], x["GAFF"]) for x in _bins(data, samplings)]
        torsion[molecule] = minus(agreements[0].overlap, agreements[0].chance_overlap)
        distance[molecule] = agreements[1].overlap
        cells = [shown(x, 3) for f in agreements for x in (f.overlap, f.chance_overlap)]
        rows.append([molecule, *cells])
        result.numbers[molecule] = {
            "torsion_overlap": agreements[0].overlap._asdict(),
            "distance_overlap": agreements[1].overlap._asdict(),
        }
        if molecule == ASPIRIN:
            local = global_share(setting, data, samplings["GAFF"], len(gaff.positions))
    result.findings = [judged("other-sampling", torsion), judged("reliable-distances", distance)]
    if ASPIRIN in torsion:
        result.findings.append(judged("aspirin-local", {"GAFF": local}))
    else:
        result.findings.append(untested("aspirin-local", "aspirin is not run with small sizes"))
    result.level = f"{'; '.join(levels)}; {setting.charge_model}, independent conformers as starts"
    result.notes.append(
        "Errors come from a bootstrap of blocks of time. Where a replica does not cross a barrier "
        "within a block they are too small."
    )
    result.tables.append(
        Table(
            "Overlap of the densities of torsions (the joint density of up to two) and of "
            "interatomic distances by the reference and GAFF; 1 for equal densities. 'By chance' "
            "is the overlap of two samplings of this length from one distribution",
            ["molecule", "torsions", "by chance", "distances", "by chance"],
            rows,
        )
    )
    return result


def sampled(setting: Setting, molecule: str):
    """Dynamics of GAFF from conformers, independent of the data; an `md.Run`."""
    shape, replicas = setting.dataset(molecule).molecule, setting.size(16, 2)
    made = conformers(shape, replicas, setting.seed)
    ps = setting.size({ASPIRIN: 50.0}.get(molecule, 100.0), 2.0)
    return setting.sample(
        f"GAFF {molecule} at {TEMPERATURE:g} K", setting.gaff(molecule), shape,
        setting.sampling(TEMPERATURE, replicas, 40), ps, made[np.arange(replicas) % len(made)],
    )  # fmt: skip


def global_share(setting: Setting, data: Dataset, positions: np.ndarray, replicas: int) -> Estimate:
    """Share of the frames nearest to aspirin's global minimum, minus that of all others.

    The error is the standard error over the replicas, which follow one another in `positions`.
    """
    nearest = basins(data.molecule, positions, all_minima(setting).positions)
    signs = np.where(nearest == 0, 1.0, -1.0)
    mean, error = mean_and_error(signs, replicas)
    return Estimate(float(mean), float(error))


def _bins(data: Dataset, samplings: dict[str, np.ndarray]) -> tuple[dict, dict]:
    """Occupations of bins of torsions and of distances by each sampling."""
    torsions = rotatable_torsions(data.molecule)[:2]
    edges = _distance_edges(data)
    turned, apart = {}, {}
    for name, R in samplings.items():
        phi = np.asarray(torsion_angles(R, torsions))
        bins = [
            occupations(phi[:, t], TORSION_EDGES, period=2 * np.pi) for t in range(len(torsions))
        ]
        turned[name] = bins[0] if len(bins) == 1 else joint_occupations(*bins)
        apart[name] = np.asarray(pair_occupations(R, atom_pairs(data.numbers), edges))
    return turned, apart


def _distance_edges(data: Dataset) -> np.ndarray:
    """Edges of bins of distances, Å."""
    furthest = max(np.linalg.norm(r[:, None] - r, axis=-1).max() for r in data.positions[::50])
    return np.arange(0.8, furthest + 1.0, 0.05)


def _pictures(
    folder: Path, molecule: str, data: Dataset, samplings: dict[str, np.ndarray]
) -> list[Picture]:
    torsions = rotatable_torsions(data.molecule)[:2]
    labels = [torsion_label(data.molecule, t) for t in torsions]
    degrees = np.degrees(TORSION_EDGES)
    pictures = []
    if len(torsions) == 2:
        maps = {}
        for name, R in samplings.items():
            phi = np.degrees(np.asarray(torsion_angles(R, torsions)))
            maps[name] = np.histogram2d(phi[:, 0], phi[:, 1], (degrees, degrees), density=True)[0]
        figure = plot_sampling.density_maps((degrees, degrees), maps, labels)
        pictures.append(
            picture(folder, f"{molecule}_torsions.png", figure,
                    f"Torsions of {molecule} at {TEMPERATURE:g} K, probability density.")
        )  # fmt: skip
    edges = _distance_edges(data)
    pairs = atom_pairs(data.numbers)
    curves = {}
    for name, R in samplings.items():
        mean, error = mean_and_error(np.asarray(pair_occupations(R, pairs, edges)), 16)
        width = np.diff(edges)
        curves[name] = Estimate(np.asarray(mean) / width, np.asarray(error) / width)
    figure = plot_sampling.density_curves(edges, curves, "interatomic distance", "Å")
    pictures.append(
        picture(folder, f"{molecule}_distances.png", figure,
                f"Interatomic distances of {molecule} at {TEMPERATURE:g} K, probability density.")
    )  # fmt: skip
    return pictures
