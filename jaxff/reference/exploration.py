"""Sampling by dynamics from known frames, and by rotations about bonds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jaxff.analysis.internal import place
from jaxff.analysis.torsions import rotatable_torsions
from jaxff.errors import InputError
from jaxff.md import SimulationError
from jaxff.molecule import Molecule
from jaxff.potential import Potential
from jaxff.reference.settings import Progress, Sampling, frames_by_time

ATTEMPTS = 5  # largest number of repetitions
TURNS = 20  # rotations that are tried for each rotated frame; most lead to clashes


def explore(
    model: Potential,
    molecule: Molecule,
    known: np.ndarray,
    count: tuple[int, int],
    sampling: Sampling,
    progress: Progress | None = None,
) -> tuple[np.ndarray, str]:
    """Sample frames by dynamics from known frames.

    If dynamics fail, the frames before the failure are used. With too few frames, dynamics are
    repeated from other frames, up to five times.

    Args:
        model: the potential.
        molecule: elements and bonds.
        known: (K, N, 3) Å, frames from which starting geometries are drawn at random.
        count: smallest number of frames, and number of frames if dynamics do not fail.
        sampling: settings of the dynamics.
        progress: called with the name of a phase and the fraction done.

    Returns:
        the frames (M, N, 3) Å, and the reason of the first failure ("" if there was none).

    Raises:
        InputError: all repetitions failed.
    """
    drawn, fault = [], ""
    least, wanted = count
    rng = np.random.default_rng(sampling.seed)
    for attempt in range(ATTEMPTS):
        starts = known[rng.integers(len(known), size=sampling.replicas)]
        now = replace(sampling, seed=sampling.seed + 100 * attempt)
        try:
            frames = now.frames(model, molecule, wanted, starts=starts, progress=progress)
        except SimulationError as error:
            fault = fault or str(error)
            skipped = sampling.replicas * (1 + sampling.waiting_frames)
            frames = frames_by_time(error.run)[skipped:]
        drawn.append(frames)
        if sum(map(len, drawn)) >= least:
            return np.concatenate(drawn), fault
    raise InputError(
        f"the dynamics from {len(known)} frames failed {ATTEMPTS} times before {least} frames were "
        f"sampled ({fault}): label more initial frames, give a baseline, or lower the temperature"
    )


def turned(
    model: Potential, molecule: Molecule, frames: np.ndarray, count: int, seed: int = 0
) -> np.ndarray:
    """Rotate parts of frames about rotatable bonds by random angles.

    Rotated frames are accepted if their energy does not exceed the highest energy of the frames.

    Args:
        model: the potential of the energies.
        molecule: elements and bonds.
        frames: (M, N, 3) Å, frames from dynamics.
        count: largest number of rotated frames.
        seed: random seed of frames, bonds and angles.

    Returns:
        the rotated frames (n, N, 3) Å, at most `count`.
    """
    torsions = rotatable_torsions(molecule)
    rng = np.random.default_rng(seed)
    drawn = frames[rng.integers(len(frames), size=TURNS * count if len(torsions) else 0)]
    bonds = rng.integers(max(len(torsions), 1), size=len(drawn))
    angles = rng.uniform(-np.pi, np.pi, (len(drawn), 1))
    for k, torsion in enumerate(torsions.tolist()):
        mine = bonds == k
        if mine.any():
            drawn[mine] = place(molecule, (tuple(torsion),), drawn[mine], angles[mine])
    energies = model.predict(drawn)[0]
    return drawn[energies <= model.predict(frames)[0].max()][:count]
