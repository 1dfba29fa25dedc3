"""One step of each ensemble, on jax-md's states and with its parts.

Time is counted in steps: with masses m (TIME/dt)² the step is 1, which jax-md's parts hold exactly
in either precision; and time step, temperature and friction are arguments of compiled code, so that
changing them never compiles again.

Noise is a function of a replica's key and the number of the step.  A run stopped anywhere and
continued, or integrated backwards, therefore meets the same noise without any being stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxff import units
from jaxff.errors import InputError
from jaxff.md import kinetics
from jaxff.md import origin as origins
from jaxff.md.noise import normal

ENSEMBLES = ("nve", "langevin", "nose-hoover", "csvr")
CHAIN_LENGTH = 3
# Steps between removals of the overall motion that rounding brings in, and moves of the origin.
TIDY_EVERY = 1000


class Ensemble(NamedTuple):
    """What decides which code is compiled.

    Attributes:
        name: one of ENSEMBLES.
        freedom: degrees of freedom that the thermostat heats; only nose-hoover and csvr ask.
        still: whether the molecule neither moves nor turns as a whole, and is kept from it.
        followed: whether the origin goes with the molecule (see `jaxff.md.origin`).
    """

    name: str
    freedom: int = 0
    still: bool = False
    followed: bool = False

    @property
    def tidy(self) -> bool:
        """Whether there is something to do every TIDY_EVERY steps."""
        return self.still or self.followed


class Bath(NamedTuple):
    """What a thermostat is set to; for replicas, each field has a leading axis.

    Attributes:
        kT: () kcal/mol, extrapolated to the start.
        heating: () kcal/mol per step: after t steps it is kT + heating · t.
        rate: () 1/step: the friction of Langevin, one over the relaxation time of the others.
    """

    kT: jax.Array
    heating: jax.Array
    rate: jax.Array


def check_ensemble(name: str) -> None:
    if name not in ENSEMBLES:
        raise InputError(f"unknown ensemble {name!r}: use one of {', '.join(ENSEMBLES)}")


def scaled_masses(masses, dt):
    """Masses in kcal/mol (step/Å)² of masses in amu, for a time step dt in fs."""
    return masses * (units.TIME / dt) ** 2


def initial_state(
    ensemble: Ensemble, positions, displacements, forces, masses, key, bath: Bath
) -> Any:
    """jax-md's state of the ensemble.

    Args:
        ensemble: static.
        positions: (N, 3) Å.
        displacements: (N, 3) Å per step, the velocities.
        forces: (N, 3) kcal/mol/Å.
        masses: (N,) scaled.
        key: JAX random key.
        bath: at step 0.
    """
    from jax_md import simulate

    masses = masses[:, None]
    momenta = masses * displacements
    core = (positions, momenta, forces, masses)
    if ensemble.name == "nve":
        return simulate.NVEState(*core)
    if ensemble.name == "nose-hoover":
        chain = _chain().initialize(ensemble.freedom, _kinetic(momenta, masses), bath.kT)
        chain = chain.set(tau=1.0 / bath.rate)
        return simulate.NVTNoseHooverState(*core, _chain().update_mass(chain, bath.kT))
    return simulate.NVTLangevinState(*core, key)


def step(ensemble: Ensemble, force_fn: Callable, state, bath: Bath, t) -> Any:
    """The state after step t.

    Args:
        ensemble: static.
        force_fn: positions (N, 3) Å to forces (N, 3) kcal/mol/Å.
        state: jax-md's state.
        bath: see `Bath`.
        t: () integer, steps before this one since the start.
    """
    # The last step of a ramp has its last temperature; rounding must not take it below zero.
    kT = jnp.maximum(bath.kT + bath.heating * (t + 1), 0.0)
    if ensemble.name == "nve":
        return _velocity_verlet(force_fn, state)
    if ensemble.name == "langevin":
        return _langevin(force_fn, state, kT, bath.rate, _noise(state, t))
    if ensemble.name == "nose-hoover":
        return _nose_hoover(force_fn, state, kT, bath.rate)
    return _csvr(force_fn, state, kT, bath.rate, _noise(state, t).ravel()[: ensemble.freedom])


def tidied(ensemble: Ensemble, state, origin):
    """State and origin (3,) after what is done every TIDY_EVERY steps against rounding."""
    if ensemble.still:
        state = stilled(state)
    return origins.followed(state, origin) if ensemble.followed else (state, origin)


def stilled(state):
    """The state without motion of its centre of mass and rotation about it."""
    masses = state.mass[:, 0]
    velocities = kinetics.without_rotation(masses, state.position, state.velocity, jnp)
    return state.set(momentum=state.mass * velocities)


def _velocity_verlet(force_fn, state):
    state = _drift(_kick(state, 0.5), 1.0)
    return _kick(state.set(force=force_fn(state.position)), 0.5)


def _langevin(force_fn, state, kT, friction, noise):
    """BAOAB: Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34."""
    state = _drift(_kick(state, 0.5), 0.5)
    keep = jnp.exp(-friction)
    spread = jnp.sqrt(kT * -jnp.expm1(-2.0 * friction) * state.mass)
    state = state.set(momentum=keep * state.momentum + spread * noise)
    state = _drift(state, 0.5)
    return _kick(state.set(force=force_fn(state.position)), 0.5)


def _nose_hoover(force_fn, state, kT, rate):
    """jax-md's chain: Tuckerman et al., J. Phys. A 39, 5629 (2006)."""
    chain = _chain().update_mass(state.chain.set(tau=1.0 / rate), kT)
    momentum, chain = _chain().half_step(state.momentum, chain, kT)
    state = _velocity_verlet(force_fn, state.set(momentum=momentum))
    chain = chain.set(kinetic_energy=_kinetic(state.momentum, state.mass))
    momentum, chain = _chain().half_step(state.momentum, chain, kT)
    return state.set(momentum=momentum, chain=chain)


def _csvr(force_fn, state, kT, rate, noise):
    """Canonical sampling through velocity rescaling: Bussi, Donadio and Parrinello, J. Chem. Phys.
    126, 014101 (2007), eq. A7; the sign after Bussi and Parrinello, Comput. Phys. Commun. 179, 26
    (2008)."""
    state = _velocity_verlet(force_fn, state)
    keep = jnp.exp(-rate)
    # Per degree of freedom: the target's kinetic energy over the present one.
    ratio = 0.5 * kT / _kinetic(state.momentum, state.mass)
    new = ratio * -jnp.expm1(-rate)
    cross = jnp.sqrt(keep * new)
    factor = jnp.sqrt(keep + new * jnp.sum(noise**2) + 2.0 * cross * noise[0])
    factor = jnp.copysign(factor, noise[0] + jnp.sqrt(keep / new))
    return state.set(momentum=factor * state.momentum)


def _kick(state, steps):
    from jax_md.simulate import momentum_step

    return momentum_step(state, steps)


def _drift(state, steps):
    from jax_md import simulate, space

    _, shift = space.free()
    return simulate.position_step(state, shift, steps)


def _noise(state, t):
    return normal(state.rng, t, state.momentum.shape, state.momentum.dtype)


def _kinetic(momenta, masses):
    return 0.5 * jnp.sum(momenta**2 / masses)


def _chain():
    from jax_md.simulate import nose_hoover_chain

    # One substep of one piece: with more, jax-md casts their lengths to float32.
    return nose_hoover_chain(1.0, CHAIN_LENGTH, 1, 1, 1.0)
