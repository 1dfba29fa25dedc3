"""Fig. 7: torsions and interatomic distances that the reference and GAFF sample at 500 K."""

from __future__ import annotations

import numpy as np

from jaxff.analysis import (
    Estimate,
    atom_pairs,
    automorphisms,
    compare,
    joint_occupations,
    mean_and_error,
    occupations,
    pair_occupations,
    rotatable_torsions,
    torsion_angles,
)
from jaxff.molecule import Molecule
from jaxff.paper import basins, rotor_modes
from jaxff.paper.dynamics import TEMPERATURE, gaff_frames
from jaxff.paper.experiment import Setting
from jaxff.paper.result import Result, Table, picture
from jaxff.paper.verdicts import judged, minus, shown, untested
from jaxff.report import plot_sampling

ASPIRIN = basins.MOLECULE
ROTORS = {
    "ethanol": ("hydroxyl rotor", "methyl rotor"),
    "keto-malondialdehyde": ("aldehyde rotor 1", "aldehyde rotor 2"),
    ASPIRIN: ("ester torsion", "acid torsion"),
}
EDGES = np.radians(np.linspace(-180.0, 180.0, 37))
WIDTH = np.radians(10.0)  # standard deviation of the Gaussian that smooths torsions
BLOCKS = 16  # of time, in the frames of the reference
SMOOTHED = (
    f"Densities of torsions are averaged over equivalent atoms and mirror images, and smoothed by "
    f"a Gaussian with a standard deviation of {np.degrees(WIDTH):.0f}°"
)


def run(setting: Setting) -> Result:
    """Compare torsion densities and interatomic distances of the three molecules (Fig. 7)."""
    folder, rows, levels, torsion, distance = setting.place("fig7"), [], [], {}, {}
    result = Result(f"Fig. 7: sampling at {TEMPERATURE:g} K by the reference and GAFF", "")
    for molecule in setting.size(tuple(ROTORS), ("ethanol",)):
        data, gaff = setting.dataset(molecule), gaff_frames(setting, molecule)
        levels.append(f"{molecule}: {data.theory}")
        samplings = {"reference": data.positions, "GAFF": gaff.reshape(-1, data.n_atoms, 3)}
        blocks = {"reference": setting.size(BLOCKS, 4), "GAFF": len(gaff)}
        furthest = max(np.linalg.norm(r[:, None] - r, axis=-1).max() for r in data.positions[::50])
        edges, pairs = np.arange(0.8, furthest + 1.0, 0.05), atom_pairs(data.numbers)
        turned, apart = {}, {}
        for name, R in samplings.items():
            turned[name] = torsion_occupations(data.molecule, R, torsions(molecule, data.molecule))
            apart[name] = np.asarray(pair_occupations(R, pairs, edges))
        agreements = [compare(x["reference"], x["GAFF"]) for x in (turned, apart)]
        torsion[molecule] = minus(agreements[0].overlap, agreements[0].chance_overlap)
        distance[molecule] = agreements[1].overlap
        cells = [shown(x, 3) for f in agreements for x in (f.overlap, f.chance_overlap)]
        rows.append([molecule, *cells])
        result.numbers[molecule] = {
            "torsion_overlap": agreements[0].overlap._asdict(),
            "distance_overlap": agreements[1].overlap._asdict(),
        }
        area = np.degrees(EDGES[1] - EDGES[0]) ** 2
        figure = plot_sampling.samplings(
            np.degrees(EDGES), {name: x.mean(axis=0) / area for name, x in turned.items()},
            ROTORS[molecule], edges, {n: _density(x, edges, blocks[n]) for n, x in apart.items()},
        )  # fmt: skip
        caption = (
            f"{molecule} at {TEMPERATURE:g} K: probability densities of two torsions by the "
            f"reference and GAFF, and of the interatomic distances with two standard errors."
        )
        result.pictures.append(picture(folder, f"{molecule}.png", figure, caption))
        if molecule == ASPIRIN:
            local = global_lead(setting, basins.counted(data.molecule, gaff))
    result.findings = [judged("other-sampling", torsion), judged("reliable-distances", distance)]
    if ASPIRIN in torsion:
        result.findings.append(judged("aspirin-local", {"GAFF": local}))
    else:
        result.findings.append(untested("aspirin-local", "aspirin is not run with small sizes"))
    result.level = f"{'; '.join(levels)}; {setting.charge_model}, independent conformers as starts"
    result.notes += [
        f"{SMOOTHED}. The same densities are compared in the table.",
        "Errors of overlaps come from a bootstrap of blocks of time. These errors are too small "
        "if replicas do not cross barriers within a block.",
    ]
    result.tables.append(
        Table(
            "Overlap of the densities by the reference and GAFF (1 for equal densities), for the "
            "joint density of two torsions and for interatomic distances. 'By chance' is the "
            "overlap of two samplings of this length from the same distribution",
            ["molecule", "torsions", "by chance", "distances", "by chance"],
            rows,
        )
    )
    return result


def torsions(name: str, molecule: Molecule) -> np.ndarray:
    """Return the two torsions (2, 4) of a molecule in Fig. 7, in the order of `ROTORS`."""
    if name == "ethanol":
        return rotor_modes.rotors(molecule)
    if name == ASPIRIN:
        return basins.torsions(molecule)[:2]
    return rotatable_torsions(molecule)[:2]


def torsion_occupations(molecule: Molecule, positions: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Compute the share (F, A, B) of each frame in the bins of two torsions.

    The shares are averages over equivalent atoms and mirror images, which have equal energies.

    Args:
        molecule: molecule with the bonds, to find equivalent atoms.
        positions: (F, N, 3) Å.
        pair: atoms of the two torsions, (2, 4).
    """
    copies = np.unique(automorphisms(molecule)[:, pair], axis=0)
    total = 0.0
    for copy in copies:
        phi = np.asarray(torsion_angles(positions, copy))
        for sign in (1.0, -1.0):
            a, b = (occupations(sign * phi[:, k], EDGES, WIDTH, 2.0 * np.pi) for k in (0, 1))
            total = total + joint_occupations(a, b)
    return np.asarray(total) / (2 * len(copies))


def global_lead(setting: Setting, counts: np.ndarray) -> Estimate:
    """Compare GAFF's share of the global minimum with the most visited other basins.

    The result is the share of the basin of the global minimum, minus the sum of the two largest
    shares of other basins. `counts` (R, K) are the numbers of frames of R replicas in K basins.
    """
    place = basins.global_basin(setting)

    def lead(shares: np.ndarray) -> np.ndarray:
        others = np.sort(np.delete(shares, place, axis=-1), axis=-1)
        return shares[..., place] - others[..., -2:].sum(axis=-1)

    return basins.estimated(lead, counts, seed=setting.seed)


def _density(occupied: np.ndarray, edges: np.ndarray, blocks: int) -> Estimate:
    mean, error = mean_and_error(occupied, blocks)
    width = np.diff(edges)
    return Estimate(np.asarray(mean) / width, np.asarray(error) / width)
