"""Sampling by dynamics from known frames, with repetition of dynamics that fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jaxff.errors import InputError
from jaxff.md import SimulationError
from jaxff.molecule import Molecule
from jaxff.potential import Potential
from jaxff.reference.settings import Progress, Sampling, frames_by_time

ATTEMPTS = 5  # largest number of repetitions


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
