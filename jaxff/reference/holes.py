"""Search for holes: reachable geometries outside the training data of a potential.

The energy of a hole is too low, so that long dynamics would end there.  `find_holes` finds holes
earlier.  `mend_holes` labels the holes and trains the kernel again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxff import gdml
from jaxff.analysis import rotatable_torsions, scan
from jaxff.analysis.internal import label as coordinate_label
from jaxff.analysis.internal import place
from jaxff.dataset import Dataset
from jaxff.domain import outside, trained_on
from jaxff.errors import InputError
from jaxff.gdml.model import KernelTerm
from jaxff.molecule import Molecule
from jaxff.pair_distances import inverse_distances
from jaxff.potential import Potential
from jaxff.reference.calculators import Method
from jaxff.reference.exploration import explore
from jaxff.reference.generation import label
from jaxff.reference.selection import select
from jaxff.reference.settings import SEARCHING, Labelling, Progress, Sampling
from jaxff.settings import Settings, checked_count, checked_type, count
from jaxff.store import claim

STRETCHES = (0.75, 1.3, 1.6)  # lengths of stretched bonds, in units of their lengths at the start
SAME = 0.01  # 1/Å: geometries whose inverse distances differ less are the same
ENERGY = 2.0  # kcal/mol: a labelled frame whose energy lies lower by this much is a hole


@dataclass(frozen=True, kw_only=True)
class Search(Settings):
    """Settings of the search for holes.

    Attributes:
        sampling: dynamics from known frames.
        frames: number of frames of these dynamics.
        points: number of points of the relaxed scan of each rotatable bond; 0: no scans.
        most: largest number of geometries of one search; the geometries that differ most are kept.

    Raises:
        InputError: a number is out of range.
    """

    sampling: Sampling = SEARCHING
    frames: int = count(2000)
    points: int = count(12, least=0)
    most: int = count(20)


class Hole(NamedTuple):
    """A geometry outside the training data that the potential considers reachable.

    Attributes:
        positions: (N, 3) Å.
        energy: kcal/mol, above the lowest training energy.
        origin: the part of the search that found the geometry.
        reason: why the geometry is outside the training data.
    """

    positions: np.ndarray
    energy: float
    origin: str
    reason: str


class Round(NamedTuple):
    """One round of `mend_holes`.

    Attributes:
        found: number of geometries that were found and labelled.
        wrong: number of these geometries that are holes according to the labels.
        depth: kcal/mol, largest amount by which an energy of the potential was too low.
        force_rmse: kcal/mol/Å, error of the forces of the potential at these geometries.
    """

    found: int
    wrong: int
    depth: float
    force_rmse: float


@dataclass(frozen=True)
class Mended:
    """The result of `mend_holes`.

    Attributes:
        potential: the potential, trained on all frames of `dataset`.
        dataset: the training frames, followed by the new frames.
        rounds: the rounds in order.
        closed: whether the last round found no hole.
    """

    potential: Potential
    dataset: Dataset
    rounds: tuple[Round, ...]
    closed: bool


def find_holes(
    potential: Potential,
    molecule: Molecule,
    known: np.ndarray,
    search: Search = Search(),
    progress: Progress | None = None,
) -> tuple[Hole, ...]:
    """Geometries outside the training data whose energy is below the highest training energy.

    The geometries come from dynamics, relaxed scans of rotatable bonds, and stretched and
    compressed bonds.

    Args:
        potential: a trained potential, which contains a description of its training frames.
        molecule: elements, bonds and charge, in the atom order of the potential.
        known: (K, N, 3) Å, training frames, or similar frames.
        search: settings of the search.
        progress: called with a phase and the fraction done.

    Raises:
        InputError: `molecule` is not a `Molecule`, the potential contains no description of its
            training frames, or `known` has another shape.
    """
    checked_type("molecule", molecule, Molecule)
    known = np.asarray(known, float)
    if known.ndim != 3 or known.shape[1:] != (molecule.n_atoms, 3) or not len(known):
        raise InputError(
            f"known must have shape (K, {molecule.n_atoms}, 3) in Å with at least one frame, got "
            f"{known.shape}"
        )
    spans = [part.domain.energies for part in potential.trained if part.whole]
    if not spans or not np.isfinite(spans).all():
        raise InputError(
            "the potential contains no energies of training frames, but the search for holes needs "
            "them: train the whole potential on frames, a kernel with its force field as baseline"
        )
    lowest, highest = np.min(spans), np.max(spans)
    found: list[Hole] = []
    for origin, R in _geometries(potential, molecule, known, search, progress):
        R = R[np.isfinite(R).all(axis=(1, 2))]
        energies = potential.predict(R)[0]
        compared = outside(potential.trained, R, energies)
        assert compared is not None
        found += [
            Hole(R[i], float(energies[i] - lowest), origin, "")
            for i in np.flatnonzero(compared.frames & (energies < highest))
        ]
    found = _different(found)
    if len(found) > search.most:
        positions = np.stack([hole.positions for hole in found])
        chosen = select(positions, search.most, "farthest", known=known)
        found = [found[i] for i in chosen]
    return tuple(hole._replace(reason=_reason(potential, hole, lowest)) for hole in found)


def _reason(potential: Potential, hole: Hole, lowest: float) -> str:
    """Return why a hole is outside the training data, whose lowest energy is `lowest`."""
    one = outside(potential.trained, hole.positions[None], np.array([hole.energy + lowest]))
    return "" if one is None else one.reason


def _different(holes: list[Hole]) -> list[Hole]:
    """Remove holes with the same interatomic distances as earlier holes, such as mirror images."""
    kept: list[int] = []
    if not holes:
        return holes
    x = inverse_distances(np.stack([hole.positions for hole in holes]), None)
    for i in range(len(x)):
        if not kept or np.linalg.norm(x[kept] - x[i], axis=1).min() > SAME:
            kept.append(i)
    return [holes[i] for i in kept]


def _geometries(
    potential: Potential,
    molecule: Molecule,
    known: np.ndarray,
    search: Search,
    progress: Progress | None,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of each part of the search, and its geometries (M, N, 3) Å."""
    sampling = search.sampling
    drawn, _ = explore(potential, molecule, known, (1, search.frames), sampling, progress)
    yield f"dynamics at {sampling.temperature:g} K", drawn
    start = molecule.with_positions(known[int(np.argmin(potential.predict(known)[0]))])
    angles = np.radians(np.arange(search.points) * 360.0 / max(search.points, 1) - 180.0)
    for torsion in rotatable_torsions(molecule) if search.points else ():
        turned = scan(potential, start, [torsion.tolist()], [angles], relax=True, progress=progress)
        yield f"scan of {turned.names[0]}", turned.positions[turned.converged]
    for bond in molecule.bonds.tolist():
        length = np.linalg.norm(start.positions[bond[0]] - start.positions[bond[1]])
        try:
            stretched = place(
                start,
                ((bond[0], bond[1]),),
                np.repeat(start.positions[None], len(STRETCHES), axis=0),
                length * np.array(STRETCHES)[:, None],
            )
        except InputError:  # a bond of a ring cannot be stretched alone
            continue
        yield f"stretched {coordinate_label(molecule, bond)}", stretched


def mend_holes(
    potential: Potential,
    data: Dataset,
    out: str | Path,
    labelling: Labelling = Labelling(),
    search: Search = Search(),
    *,
    rounds: int = 5,
    progress: Progress | None = None,
) -> Mended:
    """Label the holes of a kernel or hybrid, and train the kernel again, until no hole is left.

    All other terms remain unchanged.  The kernel keeps its width, symmetries and descriptor.  A
    labelled geometry is a hole if the energy of the potential is more than 2 kcal/mol too low,
    relative to the training frames.  Repeat the call to continue after an interruption.

    Args:
        potential: sGDML, or a sum with one sGDML term on all atoms.
        data: frames with labels; those on which the potential was trained remain training frames.
        out: folder for the labels of the rounds.
        labelling: the calculator of the level of theory of `data`.  Frames that fail are left out.
        search: settings of the search.
        rounds: largest number of rounds.
        progress: called with a phase and the fraction done.

    Raises:
        InputError: a potential without one sGDML term on all atoms or without a description of the
            training frames, or a folder of a call with other arguments.
    """
    gdml.require_float64()
    rounds = checked_count("rounds", rounds)
    kernel = _kernel(potential)
    molecule = replace(data.molecule, charge=data.charge)
    potential = potential.matched(molecule)
    frames = data[np.flatnonzero(_training_frames(potential, data))]
    out, labelling = Path(out), replace(labelling, skip_failed=True)
    request = {
        "data": data.fingerprint(),
        "potential": Method(potential).settings(molecule),
        "labels": labelling.method.settings(molecule),
        **asdict(search),
    }
    claim(out, request, "search for holes")
    done: list[Round] = []
    while len(done) < rounds:
        file = out / f"round-{len(done) + 1}.npz"
        new = Dataset.load(file, check=False) if file.is_file() else None
        if new is None:
            holes = find_holes(potential, molecule, frames.positions, search, progress)
            if not holes:
                return Mended(potential, frames, (*done, Round(0, 0, 0.0, 0.0)), True)
            positions = np.stack([hole.positions for hole in holes])
            new = label(positions, molecule, out / "labels.npz", labelling, progress)
            new.save(file)
            (out / "labels.npz").unlink(missing_ok=True)
        done.append(_judged(potential, frames, new))
        frames = frames.joined(new)
        potential = _trained_again(potential, kernel, frames, progress)
        if not done[-1].wrong:
            return Mended(potential, frames, tuple(done), True)
    return Mended(potential, frames, tuple(done), False)


def _kernel(potential: Potential) -> str:
    """The name of the sGDML term."""
    placed = [p for p in potential.program.placed if isinstance(p.term, KernelTerm)]
    if len(placed) != 1 or placed[0].atoms is not None:
        raise InputError(
            "holes are mended by training the kernel again, so the potential must contain one "
            "sGDML term on all atoms: train a kernel with this force field as baseline first"
        )
    return placed[0].name


def _training_frames(potential: Potential, data: Dataset) -> np.ndarray:
    """Whether each frame of the data is a training frame, (F,)."""
    known = trained_on(potential.trained, data.positions)
    if not known.any():
        raise InputError(
            f"the potential was trained on none of the frames of {data.label}: give the data set "
            "on which the potential was trained"
        )
    return known


def _judged(potential: Potential, frames: Dataset, new: Dataset) -> Round:
    """Compare the potential with the labels of new frames."""
    energies, forces = potential.predict(new.positions)
    rmse = float(np.sqrt(np.mean((forces - new.forces) ** 2)))
    if new.energies is None or frames.energies is None:
        raise InputError("holes are recognised by energies: give labels with energies")
    offset = np.mean(frames.energies - potential.predict(frames.positions)[0])
    low = new.energies - (energies + offset)
    return Round(len(new), int((low > ENERGY).sum()), float(max(low.max(), 0.0)), rmse)


def _trained_again(
    potential: Potential, name: str, frames: Dataset, progress: Progress | None
) -> Potential:
    """The potential with the kernel `name` trained on the given frames."""
    others = [p.name for p in potential.program.placed if p.name != name]
    baseline = potential.only(*others) if others else None
    if baseline is not None:
        baseline = Potential(baseline.program, baseline.params, frames.molecule)
    term = next(p.term for p in potential.program.placed if p.name == name)
    assert isinstance(term, KernelTerm)
    params = potential.params[name]
    return gdml.train(
        frames,
        sigma=float(params["sigma"]),
        baseline=baseline,
        kernel=gdml.Kernel(
            lam=float(params["lam"]), symmetries=term.permutations, descriptor=term.descriptor
        ),
        run=gdml.Run(progress=progress, check_labels=False),
    )
