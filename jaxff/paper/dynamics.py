"""Stored dynamics at 500 K for several experiments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxff.analysis import conformers
from jaxff.npz import NpzReader, write_npz
from jaxff.paper.experiment import Setting
from jaxff.potential import Potential

TEMPERATURE = 500.0  # K
SETTLING = 0.2  # share of the frames of each replica that is left out at the start


def replicas(setting: Setting) -> int:
    """Return the number of replicas."""
    return setting.size(16, 2)


def sampled(
    setting: Setting,
    molecule: str,
    title: str,
    make: Callable[[], Potential],
    ps: float | None = None,
) -> np.ndarray:
    """Sample frames by dynamics of a potential, or read them from the folder `dynamics`.

    The replicas start from conformers of RDKit, independent of all data. The first fifth of each
    replica is omitted.

    Args:
        setting: the settings.
        molecule: name of the molecule.
        title: name of the potential.
        make: function that returns the potential; called if there is no file.
        ps: length of each replica, ps; None for 50 (aspirin) or 100 (other molecules).

    Returns:
        positions (R, F, N, 3) Å of R replicas and F frames, in the order of time.
    """
    path = setting.place("dynamics") / f"{molecule}-{title.lower().replace(' ', '-')}.npz"
    if not path.is_file():
        ps = ps or setting.size({"aspirin": 50.0}.get(molecule, 100.0), 2.0)
        shape, count = setting.dataset(molecule).molecule, replicas(setting)
        starts = conformers(shape, count, setting.seed)
        plan = setting.sampling(TEMPERATURE, count, setting.size(200, 40))  # steps of 0.5 fs
        run = setting.sample(
            f"{title} of {molecule} at {TEMPERATURE:g} K", make(), shape, plan,
            ps, starts[np.arange(count) % len(starts)],
        )  # fmt: skip
        settled = run.positions[:, int(SETTLING * run.positions.shape[1]) :]
        write_npz(path, {"positions": settled})
    return NpzReader(path, "dynamics").need("positions")


def gaff_frames(setting: Setting, molecule: str) -> np.ndarray:
    """Return frames (R, F, N, 3) Å of R replicas sampled by GAFF; see `sampled`."""
    return sampled(setting, molecule, "GAFF", lambda: setting.gaff(molecule))
