"""Whether what a simulation is asked for can be done."""

from __future__ import annotations

import numpy as np

from jaxff.errors import InputError
from jaxff.md.ensembles import scaled_masses
from jaxff.md.record import State
from jaxff.md.start import dtype_of
from jaxff.molecule import Molecule
from jaxff.potential import Potential

# Steps that a Nosé-Hoover chain needs in its relaxation time: with fewer it runs away.
CHAIN_STEPS = 2.0


def temperatures(value, replicas: int | None) -> np.ndarray:
    """Temperatures K, () or (R,) of R replicas, of one or of one a replica."""
    value = np.asarray(value, float)
    if not (np.isfinite(value).all() and (value >= 0).all()):
        raise InputError(f"temperature is {value} K, it must not be negative")
    shape = () if replicas is None else (replicas,)
    if value.size == 1:
        value = value.reshape(())
    elif value.shape != shape:
        alone = "one molecule: give one, or set replicas"
        several = f"{replicas} replicas: give one, or one a replica"
        raise InputError(
            f"there are {value.size} temperatures for {alone if replicas is None else several}"
        )
    return np.broadcast_to(value, shape).copy()


def check_arguments(
    ensemble, dt, friction, relaxation, steps, record_every, replicas, stretch, max_temperature,
    remove_rotation, seed,
) -> None:  # fmt: skip
    """InputError unless these arguments of `simulate` can be used."""
    for value, name, unit in ((dt, "dt", "fs"), (relaxation, "relaxation", "fs")):
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} is {value} {unit}, it must be positive")
    if not (np.isfinite(friction) and friction >= 0):
        raise InputError(f"friction is {friction} 1/ps, it must not be negative")
    if stretch is not None and not stretch > 1.0:
        raise InputError(f"stretch is {stretch}, it must be above 1")
    if max_temperature is not None and not max_temperature > 0:
        raise InputError(f"max_temperature is {max_temperature} K, it must be positive")
    if remove_rotation and ensemble == "langevin":
        raise InputError(
            "remove_rotation is of no use with langevin, whose noise sets the molecule turning "
            "again: leave it out, or use nve, nose-hoover or csvr"
        )
    if ensemble == "nose-hoover" and relaxation < CHAIN_STEPS * dt:
        raise InputError(
            f"relaxation is {relaxation} fs: a Nosé-Hoover chain needs at least {CHAIN_STEPS:g} "
            f"time steps ({CHAIN_STEPS * dt:g} fs); some 100 fs disturb the motion little"
        )
    counts = ((steps, "steps"), (record_every, "record_every"), (replicas, "replicas"))
    for value, name in counts:
        if value is not None and not (value >= 1 and value % 1 == 0):
            raise InputError(f"{name} is {value}, it must be a positive integer")
    if not (0 <= seed < 2**63 and seed % 1 == 0):
        raise InputError(f"seed is {seed}, it must be an integer from 0 to 2⁶³ - 1")
    if steps % record_every:
        raise InputError(
            f"steps ({steps}) must be a multiple of record_every ({record_every}): the last frame "
            "is the end of the run"
        )


def check_warmth(ensemble: str, warmth: list[np.ndarray]) -> None:
    """InputError where a thermostat cannot have these temperatures, K."""
    if ensemble == "nose-hoover" and not all(T.all() for T in warmth):
        raise InputError("nose-hoover needs temperatures above 0 K, at the end as at the start")


def check_state(
    state: State, ensemble: str, dt: float, molecule: Molecule, potential: Potential
) -> None:
    """InputError unless `simulate` can continue from the state with these."""
    n_atoms = state.dynamics.position.shape[-2]
    for name, old, new in (
        ("ensemble", state.ensemble.name, ensemble),
        ("dt", state.dt, dt),
        ("number of atoms", n_atoms, molecule.n_atoms),
        ("precision", state.dynamics.position.dtype, dtype_of(potential)),
    ):
        if old != new:
            raise InputError(
                f"the state to continue from has {name} {old}, not {new}; to change it, start anew "
                "from its positions and velocities"
            )
    masses = scaled_masses(molecule.masses, dt)
    found = np.asarray(state.dynamics.mass, float).reshape(-1, n_atoms)
    if not np.allclose(found, masses, rtol=1e-5, atol=0.0):
        raise InputError(
            "the state to continue from is of other atoms, or of these in another order"
        )
