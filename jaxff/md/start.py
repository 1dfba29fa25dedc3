"""Where simulations start: geometry, velocities, and the degrees of freedom that move."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.md import kinetics
from jaxff.md import origin as origins
from jaxff.md.ensembles import Bath, Ensemble, initial_state, scaled_masses
from jaxff.molecule import Molecule
from jaxff.potential import Potential


def dtype_of(potential: Potential):
    """The precision a potential computes in: that of its parameters."""
    leaves = jax.tree.leaves(potential.params)
    return jnp.result_type(*leaves) if leaves else jnp.result_type(float)


def invariances(potential: Potential, positions) -> tuple[bool, bool]:
    """Whether moving, and whether turning, the molecule as a whole leaves its energy alone.

    Told by the net force and torque at a distorted geometry.

    Args:
        potential: of N atoms.
        positions: (N, 3) Å.
    """
    rng = np.random.default_rng(0)
    R = jnp.asarray(positions + 0.05 * rng.standard_normal(positions.shape))
    forces = potential.forces(R)
    # Far away, rounded as the potential sees them: the torque is to be of the same geometry.
    dtype, R, forces = forces.dtype, np.asarray(R, float), np.asarray(forces, float)
    centred = R - R.mean(axis=0)
    # Rounding alone leaves some eps; a weak field beside stiff bonds must still show.
    limit = np.sqrt(np.finfo(dtype).eps) * max(np.abs(forces).sum(), 1e-6)
    moving = np.abs(forces.sum(axis=0)).max() < limit
    torque = np.abs(np.cross(centred, forces).sum(axis=0)).max()
    return moving, moving and torque < limit * max(np.abs(centred).max(), 1.0)


def starting_geometry(molecule: Molecule, positions, replicas: int | None) -> np.ndarray:
    """Positions (N, 3) Å, or (R, N, 3) of R replicas, checked.

    Args:
        molecule: whose geometry stands in for `positions` None.
        positions: (N, 3) or (R, N, 3) Å.
        replicas: R, or None for one molecule without that axis.
    """
    return _vectors("positions", molecule.positions if positions is None else positions,
                    molecule.n_atoms, replicas)  # fmt: skip


def starting_velocities(
    molecule: Molecule,
    ensemble: str,
    positions: np.ndarray,
    velocities,
    temperature: np.ndarray,
    seeds: list[int],
    invariant: tuple[bool, bool],
    remove_rotation: bool,
) -> np.ndarray:
    """Velocities Å/fs of the shape of `positions`, drawn unless given.

    Overall motion that the ensemble conserves, or must not have, is taken off; see `simulate`.

    Args:
        positions: (N, 3) or (R, N, 3) Å.
        velocities: as `positions`, (N, 3), or None, Å/fs.
        temperature: K, one a replica.
        seeds: one a replica.
        invariant: see `invariances`.
    """
    masses, alone = molecule.masses, positions.ndim == 2
    drawn = velocities is None
    if drawn:
        draws = [np.random.default_rng(seed) for seed in seeds]
        pairs = zip(temperature, draws, strict=True)
        velocities = np.stack([kinetics.maxwell_boltzmann(masses, T, rng) for T, rng in pairs])
        velocities = velocities[0] if alone else velocities
    velocities = _vectors("velocities", velocities, molecule.n_atoms, None if alone else len(seeds))
    thermostat = ensemble in ("nose-hoover", "csvr")
    if molecule.n_atoms == 1 or not (thermostat or (ensemble == "nve" and drawn)):
        return velocities
    calm = []
    for R, v in zip(positions.reshape(-1, *positions.shape[-2:]),
                    velocities.reshape(-1, *velocities.shape[-2:]), strict=True):  # fmt: skip
        if invariant[1] and (thermostat or remove_rotation):
            calm.append(kinetics.without_rotation(masses, R, v))
        else:
            calm.append(kinetics.without_translation(masses, v) if invariant[0] else v)
    return np.stack(calm).reshape(velocities.shape)


def degrees_of_freedom(
    masses, ensemble: str, positions, velocities, invariant: tuple[bool, bool]
) -> np.ndarray:
    """Degrees of freedom that carry kinetic energy: 3N of Langevin; else less the still ones.

    Args:
        masses: (N,) amu.
        positions: (N, 3) or (R, N, 3) Å.
        velocities: likewise, Å/fs.
        invariant: see `invariances`.

    Returns:
        an integer, () or (R,).
    """
    whole, n = 3 * len(masses), len(masses)
    flat = positions.reshape(-1, n, 3), velocities.reshape(-1, n, 3)
    if ensemble == "langevin" or n == 1 or not invariant[0]:
        still = [0] * len(flat[0])
    else:
        still = [kinetics.conserved_degrees(masses, R, v) for R, v in zip(*flat, strict=True)]
        still = still if invariant[1] else np.minimum(still, 3)
    return (whole - np.array(still)).reshape(positions.shape[:-2])


def follows(potential: Potential, invariant: tuple[bool, bool]) -> bool:
    """Whether positions count from an origin that goes with the molecule, see `jaxff.md.origin`.

    Where the molecule may be anywhere, and digits are short.
    """
    return invariant[0] and jnp.finfo(dtype_of(potential)).bits < 64


def dynamics(
    potential: Potential,
    ensemble: Ensemble,
    positions: np.ndarray,
    velocities: np.ndarray,
    masses: np.ndarray,
    dt: float,
    bath: Bath,
    seeds: list[int],
):
    """jax-md's state, of replicas where positions are (R, N, 3), and the origin of its positions.

    In the potential's precision.
    """
    dtype = dtype_of(potential)
    origin = np.zeros(positions[..., 0, :].shape, np.int32)
    if ensemble.followed:
        origin = origins.nearest(positions)
    R = jnp.asarray(origins.relative(positions, origin), dtype)
    displacements = jnp.asarray(velocities * dt, dtype)
    scaled = jnp.asarray(scaled_masses(masses, dt), dtype)
    build = partial(initial_state, ensemble)
    if R.ndim == 2:
        keys = jax.random.key(seeds[0])
    else:
        keys = jax.vmap(jax.random.key)(np.array(seeds))
        build = jax.vmap(build, in_axes=(0, 0, 0, None, 0, 0))
    state = build(R, displacements, forces(potential, R), scaled, keys, bath)
    return state, jnp.asarray(origin)


def forces(potential: Potential, R):
    """Forces kcal/mol/Å, in its precision, at R (N, 3) or (R, N, 3) Å."""
    if R.ndim == 2:
        return potential.forces(R)
    return jnp.asarray(potential.predict(R)[1], R.dtype)


def _vectors(name: str, value, n_atoms: int, replicas: int | None) -> np.ndarray:
    value, shape = np.asarray(value, float), (n_atoms, 3)
    if replicas is not None and value.shape == shape:
        value = np.tile(value, (replicas, 1, 1))
    wanted = shape if replicas is None else (replicas, *shape)
    if value.shape != wanted:
        raise InputError(f"{name} have shape {value.shape}, expected {wanted}")
    if not np.isfinite(value).all():
        atom = int(np.argmin(np.isfinite(value).reshape(-1, *shape).all(axis=(0, 2))))
        raise InputError(f"the {name} of atom {atom} are not finite")
    return value
