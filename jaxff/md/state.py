"""States of simulations: the initial state, and the state to continue from."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.md import kinetics
from jaxff.md import origin as origins
from jaxff.md.ensembles import Ensemble
from jaxff.md.integrators import Bath, Core, Scheme, scaled_masses
from jaxff.md.settings import Start
from jaxff.molecule import Molecule
from jaxff.npz import digest
from jaxff.potential import Potential


@dataclass(frozen=True)
class State:
    """State of one molecule or R replicas from which `simulate` can continue.

    Attributes:
        scheme: ensemble and other choices that determine the compiled code.
        dt: time step, fs.
        step: number of steps since the start.
        degrees_of_freedom: () or (R,) number of degrees of freedom with kinetic energy.
        potential: fingerprint of the potential.
        invariant: whether translation of the molecule leaves the energy unchanged, and whether
            rotation does.
        dynamics: state of jax-md, with positions relative to `origin`.
        origin: (3,) or (R, 3) integers, see `jaxff.md.origin`; zero in float64.
    """

    scheme: Scheme
    dt: float
    step: int
    degrees_of_freedom: np.ndarray
    potential: str
    invariant: tuple[bool, bool]
    dynamics: Any
    origin: Any

    @property
    def replicas(self) -> int | None:
        """Number of replicas, or None without an axis of replicas."""
        position = self.dynamics.position
        return len(position) if position.ndim == 3 else None

    @property
    def positions(self) -> np.ndarray:
        """Absolute positions (N, 3) or (R, N, 3), Å, in float64."""
        return origins.absolute(self.dynamics.position, self.origin)

    @property
    def velocities(self) -> np.ndarray:
        """Velocities (N, 3) or (R, N, 3), Å/fs, in float64."""
        return np.asarray(self.dynamics.velocity, float) / self.dt


def first_state(
    potential: Potential, molecule: Molecule, ensemble: Ensemble, start: Start, bath: Bath
) -> State:
    """Return the state at step 0, in the precision of the potential.

    Args:
        potential: the potential, in the atom order of the molecule.
        molecule: elements, masses and geometry.
        ensemble: settings of the ensemble.
        start: positions, velocities, replicas and seed.
        bath: settings of the thermostat.

    Raises:
        InputError: an array has a wrong shape or is not finite, or the thermostat would scale
            velocities that are zero.
    """
    positions = molecule.positions if start.positions is None else start.positions
    positions = _vectors("positions", positions, molecule.n_atoms, start.replicas)
    invariant = invariances(potential, positions)
    velocities = starting_velocities(molecule, ensemble, positions, start, invariant)
    freedom = degrees_of_freedom(molecule.masses, ensemble, positions, velocities, invariant)
    if ensemble.scales_velocities:
        _check_motion(molecule, ensemble, velocities, invariant)
    single = jnp.finfo(potential.dtype).bits < 64
    scheme = Scheme(type(ensemble), move_origin=invariant[0] and single)
    if ensemble.scales_velocities:
        scheme = scheme._replace(
            degrees_of_freedom=int(freedom.min()),
            remove_motion=invariant[1] and molecule.n_atoms > 1,
        )
    dtype = potential.dtype
    origin = np.zeros(positions[..., 0, :].shape, np.int32)
    if scheme.move_origin:
        origin = origins.nearest(positions)
    R = jnp.asarray(origins.relative(positions, origin), dtype)
    displacements = jnp.asarray(velocities * ensemble.dt, dtype)
    masses = jnp.asarray(scaled_masses(molecule.masses, ensemble.dt), dtype)[:, None]
    masses = jnp.broadcast_to(masses, (*R.shape[:-2], *masses.shape))
    core = Core(R, masses * displacements, forces(potential, R), masses)
    build = partial(type(ensemble).initial_state, scheme=scheme)
    if start.replicas is None:
        keys = jax.random.key(start.seed)
    else:
        seeds = np.array([start.seed + r for r in range(start.replicas)])
        keys = jax.vmap(jax.random.key)(seeds)
        build = jax.vmap(build)
    dynamics = build(core, keys, bath)
    return State(
        scheme, float(ensemble.dt), 0, freedom, fingerprint(potential), invariant, dynamics,
        jnp.asarray(origin),
    )  # fmt: skip


def continued_state(
    state: State, potential: Potential, molecule: Molecule, ensemble: Ensemble
) -> State:
    """Return the state to continue from, with the forces of a potential.

    Args:
        state: the last state of a simulation.
        potential: the potential, in the atom order of the molecule; it may be a new one.
        molecule: elements and masses.
        ensemble: settings of the ensemble.

    Raises:
        InputError: ensemble, time step, atoms, precision or invariance are not those of `state`.
    """
    n_atoms = state.dynamics.position.shape[-2]
    for name, old, new in (
        ("ensemble", state.scheme.ensemble.name, ensemble.name),
        ("dt", state.dt, ensemble.dt),
        ("number of atoms", n_atoms, molecule.n_atoms),
        ("precision", state.dynamics.position.dtype, potential.dtype),
    ):
        if old != new:
            raise InputError(
                f"the state to continue from has {name} {old}, not {new}; to change the {name}, "
                "start a new simulation from the positions and velocities of the state"
            )
    masses = np.asarray(state.dynamics.mass, float).reshape(-1, n_atoms)
    wanted = scaled_masses(molecule.masses, ensemble.dt)
    if not np.allclose(masses, wanted, rtol=1e-5, atol=0.0):
        raise InputError(
            "the state to continue from has other atoms or another atom order; give the molecule "
            "of the state"
        )
    checksum = fingerprint(potential)
    if checksum == state.potential:
        return state  # its forces are those of the last step to the last bit
    if invariances(potential, state.positions) != state.invariant:
        raise InputError(
            "the potential of the state and the new one differ in their invariance to translation "
            "or rotation; start a new simulation from the positions and velocities of the state"
        )
    dynamics = state.dynamics.set(force=forces(potential, state.dynamics.position))
    return replace(state, potential=checksum, dynamics=dynamics)


def forces(potential: Potential, R):
    """Forces, kcal/mol/Å, with the shape of the positions, (N, 3) or (R, N, 3) Å."""
    if R.ndim == 2:
        return potential.forces(R)
    return jnp.asarray(potential.predict(R)[1], R.dtype)


def fingerprint(potential: Potential) -> str:
    """Checksum of the terms and parameters, which is the same in every process."""
    terms = []
    for placed in potential.program.placed:
        term: Any = placed.term
        values = [_field(getattr(term, item.name)) for item in fields(term)]
        terms.append((placed.name, term.kind, _field(placed.atoms), values))
    return f"terms and parameters md5 {digest(terms, potential.params)}"


def _field(value):
    """Describe a field of a term by arrays and text, and functions by their names."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, partial):
        return [_field(value.func), repr(value.args), repr(value.keywords)]
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    return repr(value)


def invariances(potential: Potential, positions) -> tuple[bool, bool]:
    """Whether translation leaves the energy unchanged, and whether rotation does.

    The answers follow from the net force and the net torque at a distorted geometry.

    Args:
        potential: a potential of N atoms.
        positions: (N, 3) or (R, N, 3) Å; the first geometry is used.
    """
    rng = np.random.default_rng(0)
    first = positions.reshape(-1, *positions.shape[-2:])[0]
    R = jnp.asarray(first + 0.05 * rng.standard_normal(first.shape))
    # The shape is that of the positions, so that the function for the first forces is compiled.
    F = forces(potential, jnp.broadcast_to(R, positions.shape))
    # The torque is computed with the positions as rounded to the dtype of the potential.
    dtype, R, F = F.dtype, np.asarray(R, float), np.asarray(F, float).reshape(-1, *R.shape)[0]
    centred = R - R.mean(axis=0)
    # The limit is above rounding errors, but below the net force of a weak field.
    limit = np.sqrt(np.finfo(dtype).eps) * max(np.abs(F).sum(), 1e-6)
    moving = np.abs(F.sum(axis=0)).max() < limit
    torque = np.abs(np.cross(centred, F).sum(axis=0)).max()
    return moving, moving and torque < limit * max(np.abs(centred).max(), 1.0)


def starting_velocities(
    molecule: Molecule,
    ensemble: Ensemble,
    positions: np.ndarray,
    start: Start,
    invariant: tuple[bool, bool],
) -> np.ndarray:
    """Return the initial velocities, Å/fs, in the shape of `positions`.

    They are random unless `start` has velocities.  Overall translation and rotation are removed if
    the ensemble requires it.

    Args:
        molecule: N atoms with masses.
        ensemble: settings of the ensemble.
        positions: (N, 3) or (R, N, 3) Å.
        start: velocities or seed.
        invariant: whether translation leaves the energy unchanged, and whether rotation does.

    Raises:
        InputError: the velocities have a wrong shape or are not finite.
    """
    masses, replicas = molecule.masses, start.replicas
    velocities, drawn = start.velocities, start.velocities is None
    if drawn:
        temperatures = np.atleast_1d(ensemble.temperatures(replicas)[0])
        draws = [np.random.default_rng(start.seed + r) for r in range(replicas or 1)]
        pairs = zip(temperatures, draws, strict=True)
        velocities = np.stack([kinetics.maxwell_boltzmann(masses, T, rng) for T, rng in pairs])
        velocities = velocities[0] if replicas is None else velocities
    velocities = _vectors("velocities", velocities, molecule.n_atoms, replicas)
    change = ensemble.scales_velocities or (ensemble.conserves_momentum and drawn)
    if molecule.n_atoms == 1 or not change or not invariant[0]:
        return velocities
    corrected = []
    for R, v in zip(positions.reshape(-1, *positions.shape[-2:]),
                    velocities.reshape(-1, *velocities.shape[-2:]), strict=True):  # fmt: skip
        if invariant[1] and ensemble.removes_rotation:
            corrected.append(kinetics.without_rotation(masses, R, v))
        else:
            corrected.append(kinetics.without_translation(masses, v))
    return np.stack(corrected).reshape(velocities.shape)


def degrees_of_freedom(
    masses, ensemble: Ensemble, positions, velocities, invariant: tuple[bool, bool]
) -> np.ndarray:
    """Number () or (R,) of degrees of freedom with kinetic energy.

    Args:
        masses: (N,) amu.
        ensemble: settings of the ensemble.
        positions: (N, 3) or (R, N, 3) Å.
        velocities: (N, 3) or (R, N, 3) Å/fs.
        invariant: whether translation leaves the energy unchanged, and whether rotation does.
    """
    n = len(masses)
    flat = positions.reshape(-1, n, 3), velocities.reshape(-1, n, 3)
    if not ensemble.conserves_momentum or n == 1 or not invariant[0]:
        conserved = [0] * len(flat[0])
    else:
        conserved = [kinetics.conserved_degrees(masses, R, v) for R, v in zip(*flat, strict=True)]
        conserved = conserved if invariant[1] else np.minimum(conserved, 3)
    return (3 * n - np.array(conserved)).reshape(positions.shape[:-2])


def _check_motion(
    molecule: Molecule, ensemble: Ensemble, velocities, invariant: tuple[bool, bool]
) -> None:
    """Raise `InputError` if the thermostat would scale velocities that are zero."""
    name, replicas = ensemble.name, None if velocities.ndim == 2 else len(velocities)
    if molecule.n_atoms == 1 and invariant[0]:
        raise InputError(f"{name} cannot heat a free atom: use langevin or nve")
    if not kinetics.kinetic_energy(molecule.masses, velocities).all():
        raise InputError(f"{name} scales velocities: the initial velocities must not be zero")
    if not ensemble.temperatures(replicas)[0].all():
        raise InputError(f"{name}: the initial temperature must be above 0 K")


def _vectors(name: str, value, n_atoms: int, replicas: int | None) -> np.ndarray:
    """Check positions or velocities, and return them as (N, 3) or (R, N, 3)."""
    value, shape = np.asarray(value, float), (n_atoms, 3)
    if replicas is not None and value.shape == shape:
        value = np.tile(value, (replicas, 1, 1))
    wanted = shape if replicas is None else (replicas, *shape)
    if value.shape != wanted:
        raise InputError(f"{name} must have shape {wanted}, got {value.shape}")
    if not np.isfinite(value).all():
        atom = int(np.argmin(np.isfinite(value).reshape(-1, *shape).all(axis=(0, 2))))
        raise InputError(f"the {name} of atom {atom} are not finite: correct them")
    return value
