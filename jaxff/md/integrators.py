"""Integration steps of the ensembles, built from parts of jax-md.

The unit of time is the time step, which is then exactly 1 in both precisions, and masses are
m (TIME/dt)².  Time step, temperature and friction are arguments of compiled code, so that new
values need no new compilation.

Noise depends only on the key of the replica and the number of the step.  Simulations that are
continued or integrated backwards therefore use the same noise without storing it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxff import units
from jaxff.md import kinetics, origin
from jaxff.md.barostats import Coupling, Pressure
from jaxff.md.noise import normal
from jaxff.md.rigid import Rigid

CHAIN_LENGTH = 3
# Steps between corrections: removal of the overall motion that rounding adds, moves of the origin.
CORRECT_EVERY = 1000


class Scheme(NamedTuple):
    """Choices that determine the compiled code.

    Attributes:
        ensemble: class of the ensemble, see `jaxff.md.ensembles`.
        degrees_of_freedom: number for thermostats that scale all velocities.
        remove_motion: whether translation and rotation of the molecule are kept at zero.
        periodic: whether the atoms are in a periodic box, in which only translation is removed.
        coupling: choices of the barostat, or None.
        move_origin: whether the origin follows the molecule, see `jaxff.md.origin`.
    """

    ensemble: type
    degrees_of_freedom: int = 0
    remove_motion: bool = False
    move_origin: bool = False
    periodic: bool = False
    coupling: Coupling | None = None

    @property
    def corrects(self) -> bool:
        """Whether the state is corrected every CORRECT_EVERY steps."""
        return self.remove_motion or self.move_origin


class Bath(NamedTuple):
    """Settings of thermostat and barostat; with replicas each field has a leading axis.

    Attributes:
        kT: () Boltzmann's constant times the temperature at step 0, kcal/mol.
        heating: () change of kT per step, kcal/mol.
        rate: () friction of Langevin dynamics or inverse relaxation time, 1/step.
        barostat: settings of the barostat, or None.
    """

    kT: jax.Array
    heating: jax.Array
    rate: jax.Array
    barostat: Pressure | None = None

    def kT_after(self, t):
        """Return kT, () kcal/mol, for the step after the first t steps."""
        # Rounding must not make the last temperature negative.
        return jnp.maximum(self.kT + self.heating * (t + 1), 0.0)


class Core(NamedTuple):
    """Arrays in the states of all ensembles; the unit of time is the time step.

    Attributes:
        positions: (N, 3) Å.
        momenta: (N, 3) kcal/mol step/Å.
        forces: (N, 3) kcal/mol/Å.
        masses: (N, 1) kcal/mol (step/Å)².
    """

    positions: Any
    momenta: Any
    forces: Any
    masses: Any


def scaled_masses(masses, dt):
    """Convert masses in amu to kcal/mol (step/Å)², for a time step dt in fs."""
    return masses * (units.TIME / dt) ** 2


def plain_state(core: Core):
    """Return the state of jax-md without a thermostat."""
    from jax_md.simulate import NVEState

    return _make(NVEState, *core)


def state_with_key(core: Core, key):
    """Return the state of jax-md for an ensemble with noise, from a JAX random key."""
    from jax_md.simulate import NVTLangevinState

    return _make(NVTLangevinState, *core, key)


def state_with_chain(core: Core, bath: Bath, degrees_of_freedom: int):
    """Return the state of jax-md with a Nosé-Hoover chain."""
    from jax_md.simulate import NVTNoseHooverState

    kinetic = _kinetic(core.momenta, core.masses)
    chain = _chain().initialize(degrees_of_freedom, kinetic, bath.kT).set(tau=1.0 / bath.rate)
    return _make(NVTNoseHooverState, *core, _chain().update_mass(chain, bath.kT))


def corrected(scheme: Scheme, rigid: Rigid | None, state, where):
    """Correct a state and its origin `where` (3,), and return both.

    Rounding errors in translation and rotation are removed, and the origin is moved near the
    molecule, if `scheme` requires it.
    """
    if scheme.remove_motion:
        masses = state.mass[:, 0]
        if scheme.periodic:
            velocities = kinetics.without_translation(masses, state.velocity, jnp)
        else:
            velocities = kinetics.without_rotation(masses, state.position, state.velocity, jnp)
        state = projected(state.set(momentum=state.mass * velocities), rigid)
    return origin.moved(state, where) if scheme.move_origin else (state, where)


def projected(state, rigid: Rigid | None):
    """Return the state with momenta that change no constrained distance."""
    if rigid is None:
        return state
    return state.set(momentum=rigid.projected(state.position, state.momentum, state.mass))


def velocity_verlet(force_fn: Callable, state, rigid: Rigid | None):
    """Return the state after a step of velocity Verlet, with constraints after RATTLE.

    Source: Andersen, J. Comput. Phys. 52, 24 (1983).

    Args:
        force_fn: function from positions (N, 3) Å to forces (N, 3) kcal/mol/Å.
        state: the present state of jax-md.
        rigid: constraints and virtual sites, or None.
    """
    state = _drift(_kick(state, 0.5), 1.0, rigid)
    return projected(_kick(state.set(force=force_fn(state.position)), 0.5), rigid)


def langevin(force_fn: Callable, state, bath: Bath, t, rigid: Rigid | None):
    """Return the state after a step of BAOAB, or g-BAOAB with constraints; see `Ensemble.step`.

    Momenta are projected once, at the end: the drifts remove the parts along constraints from kicks
    and noise.
    Source: Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34; with constraints Proc. R.
    Soc. A 472, 20160138 (2016).
    """
    kT, noise = bath.kT_after(t), _noise(state, t)
    state = _drift(_kick(state, 0.5), 0.5, rigid)
    keep = jnp.exp(-bath.rate)
    spread = jnp.sqrt(kT * -jnp.expm1(-2.0 * bath.rate) * state.mass)
    state = state.set(momentum=keep * state.momentum + spread * noise)
    state = _drift(state, 0.5, rigid)
    return projected(_kick(state.set(force=force_fn(state.position)), 0.5), rigid)


def nose_hoover(force_fn: Callable, state, bath: Bath, t, rigid: Rigid | None):
    """Return the state after a step with a Nosé-Hoover chain; see `Ensemble.step`.

    Source: Tuckerman et al., J. Phys. A 39, 5629 (2006).
    """
    kT = bath.kT_after(t)
    chain = _chain().update_mass(state.chain.set(tau=1.0 / bath.rate), kT)
    momentum, chain = _chain().half_step(state.momentum, chain, kT)
    state = velocity_verlet(force_fn, state.set(momentum=momentum), rigid)
    chain = chain.set(kinetic_energy=_kinetic(state.momentum, state.mass))
    momentum, chain = _chain().half_step(state.momentum, chain, kT)
    return state.set(momentum=momentum, chain=chain)


def csvr(force_fn: Callable, state, bath: Bath, t, degrees_of_freedom: int, rigid: Rigid | None):
    """Return the state after a step of velocity rescaling; see `Ensemble.step`.

    Source: Bussi, Donadio and Parrinello, J. Chem. Phys. 126, 014101 (2007), eq. A7; for the sign
    of the factor, Bussi and Parrinello, Comput. Phys. Commun. 179, 26 (2008).
    """
    kT, noise = bath.kT_after(t), _noise(state, t).ravel()[:degrees_of_freedom]
    state = velocity_verlet(force_fn, state, rigid)
    keep = jnp.exp(-bath.rate)
    # Target kinetic energy of one degree of freedom divided by the present total kinetic energy.
    ratio = 0.5 * kT / _kinetic(state.momentum, state.mass)
    new = ratio * -jnp.expm1(-bath.rate)
    cross = jnp.sqrt(keep * new)
    factor = jnp.sqrt(keep + new * jnp.sum(noise**2) + 2.0 * cross * noise[0])
    factor = jnp.copysign(factor, noise[0] + jnp.sqrt(keep / new))
    return state.set(momentum=factor * state.momentum)


def _make(kind: Any, *arrays):
    """Make a state of jax-md, whose fields type checkers do not know."""
    return kind(*arrays)


def _kick(state, steps):
    from jax_md.simulate import momentum_step

    return momentum_step(state, steps)


def _drift(state, steps, rigid: Rigid | None):
    if rigid is not None:
        moves = steps * state.velocity
        # The momenta change by the correction itself: differences of positions have fewer digits.
        correction = rigid.correction(state.position, moves, state.mass)
        momentum = state.momentum + state.mass * correction / steps
        return state.set(
            position=rigid.placed(state.position + moves + correction), momentum=momentum
        )
    from jax_md import simulate, space

    _, shift = space.free()
    return simulate.position_step(state, shift, steps)


def _noise(state, t):
    return normal(state.rng, t, state.momentum.shape, state.momentum.dtype)


def _kinetic(momenta, masses):
    return 0.5 * jnp.sum(momenta**2 / masses)


def _chain():
    from jax_md.simulate import nose_hoover_chain

    # One substep and one piece: for larger numbers, jax-md casts step lengths to float32.
    return nose_hoover_chain(1.0, CHAIN_LENGTH, 1, 1, 1.0)
