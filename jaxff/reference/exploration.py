"""Dynamics that start from known frames, and give frames even if they fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jaxff.errors import InputError
from jaxff.md import SimulationError
from jaxff.molecule import Molecule
from jaxff.potential import Potential
from jaxff.reference.settings import Progress, Sampling, frames_by_time

ATTEMPTS = 5  # to run the dynamics, if they fail before there are enough frames


def explore(
    model: Potential,
    molecule: Molecule,
    known: np.ndarray,
    count: tuple[int, int],
    sampling: Sampling,
    progress: Progress | None = None,
) -> tuple[np.ndarray, str]:
    """Frames of dynamics from known frames, and why the dynamics ended early ("" if not).

    Dynamics that fail contribute the frames before the failure. If these are too few, dynamics
    start again from other frames, up to five times.

    Args:
        model: potential that moves the atoms.
        molecule: elements and bonds.
        known: (K, N, 3) Å, frames from which the replicas start, drawn at random.
        count: least number of frames, and the number of frames of dynamics that do not fail.
        sampling: the dynamics.
        progress: called with a phase and the fraction done.

    Raises:
        InputError: the dynamics failed each time.
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
        f"the dynamics from {len(known)} frames failed {ATTEMPTS} times before giving {least} "
        f"frames ({fault}): label more initial frames, give a baseline, or lower the temperature"
    )
