"""Positions, velocities and degrees of freedom at the start of a simulation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.md import kinetics
from jaxff.md.barostats import Cell
from jaxff.md.ensembles import Ensemble
from jaxff.md.field import Field
from jaxff.md.rigid import Rigid, dynamic_masses
from jaxff.md.settings import Start
from jaxff.molecule import Molecule
from jaxff.potential import Potential

# The net force of a particle mesh is not exactly zero: net forces below this share of all forces
# count as zero in a box.
MESH = 1e-4
# Å; displacement of all atoms at which the net force is determined in a box.  It differs from
# multiples of the spacings of meshes, and shows the forces of fields with a minimum at the start.
SHIFT = (0.31, 0.47, 0.59)


def forces(potential: Potential, R, cell: Cell | None = None, neighbor: Any = None):
    """Forces, kcal/mol/Å, with the shape of the positions, (N, 3) or (R, N, 3) Å.

    Args:
        potential: the potential.
        R: (N, 3) or (R, N, 3) Å.
        cell: the box of each replica, or None.
        neighbor: neighbour list of each replica, or None.
    """
    if cell is not None:
        field = Field.of(potential, neighbor)
        if R.ndim == 2:
            return field.forces(R, cell.box)
        each = jax.vmap(lambda R, box, list_: replace(field, neighbor=list_).forces(R, box))
        return each(R, cell.box, neighbor)
    if R.ndim == 2:
        return potential.forces(R)
    return jnp.asarray(potential.predict(R)[1], R.dtype)


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


def invariance_in_box(force_fn: Callable, positions) -> tuple[bool, bool]:
    """Whether translation leaves the energy unchanged in a box, and False for rotation.

    Args:
        force_fn: function from positions (N, 3) Å to forces (N, 3) kcal/mol/Å.
        positions: (N, 3) Å.
    """
    forces = np.asarray(force_fn(positions + np.array(SHIFT)), float)
    limit = MESH * max(np.abs(forces).sum(), 1e-6)
    return bool(np.abs(forces.sum(axis=0)).max() < limit), False


def starting_velocities(
    molecule: Molecule,
    ensemble: Ensemble,
    positions: np.ndarray,
    start: Start,
    invariant: tuple[bool, bool],
    rigid: Rigid | None = None,
) -> np.ndarray:
    """Return the initial velocities, Å/fs, in the shape of `positions`.

    They are random unless `start` has velocities.  Overall translation and rotation, and changes of
    constrained distances, are removed if the ensemble and the system require it.

    Args:
        molecule: N atoms with masses.
        ensemble: settings of the ensemble.
        positions: (N, 3) or (R, N, 3) Å.
        start: velocities or seed.
        invariant: whether translation leaves the energy unchanged, and whether rotation does.
        rigid: constraints and virtual sites, or None.

    Raises:
        InputError: the velocities have a wrong shape or are not finite.
    """
    masses, replicas = dynamic_masses(molecule), start.replicas
    velocities, drawn = start.velocities, start.velocities is None
    if drawn:
        temperatures = np.atleast_1d(ensemble.temperatures(replicas)[0])
        draws = [np.random.default_rng(start.seed + r) for r in range(replicas or 1)]
        pairs = zip(temperatures, draws, strict=True)
        velocities = np.stack([kinetics.maxwell_boltzmann(masses, T, rng) for T, rng in pairs])
        velocities = velocities[0] if replicas is None else velocities
    velocities = vectors("velocities", velocities, molecule.n_atoms, replicas)
    change = ensemble.scales_velocities or (ensemble.conserves_momentum and drawn)
    change = change and molecule.n_atoms > 1 and invariant[0]
    if not change and rigid is None:
        return velocities
    corrected = []
    for R, v in zip(positions.reshape(-1, *positions.shape[-2:]),
                    velocities.reshape(-1, *velocities.shape[-2:]), strict=True):  # fmt: skip
        v = v if rigid is None else rigid.velocities(R, v, masses)
        if change and invariant[1] and ensemble.removes_rotation:
            v = kinetics.without_rotation(molecule.masses, R, v)
        elif change:
            v = kinetics.without_translation(molecule.masses, v)
        corrected.append(np.where(np.asarray(molecule.masses)[:, None] > 0, v, 0.0))
    return np.stack(corrected).reshape(velocities.shape)


def degrees_of_freedom(
    masses,
    ensemble: Ensemble,
    positions,
    velocities,
    invariant: tuple[bool, bool],
    constraints: int = 0,
) -> np.ndarray:
    """Number () or (R,) of degrees of freedom with kinetic energy.

    Args:
        masses: (N,) amu; virtual sites have none.
        ensemble: settings of the ensemble.
        positions: (N, 3) or (R, N, 3) Å.
        velocities: (N, 3) or (R, N, 3) Å/fs.
        invariant: whether translation leaves the energy unchanged, and whether rotation does.
        constraints: number of constrained distances.
    """
    n = len(masses)
    flat = positions.reshape(-1, n, 3), velocities.reshape(-1, n, 3)
    if not ensemble.conserves_momentum or n == 1 or not invariant[0]:
        conserved = [0] * len(flat[0])
    else:
        conserved = [kinetics.conserved_degrees(masses, R, v) for R, v in zip(*flat, strict=True)]
        conserved = conserved if invariant[1] else np.minimum(conserved, 3)
    moving = 3 * np.count_nonzero(np.asarray(masses) > 0) - constraints
    return (moving - np.array(conserved)).reshape(positions.shape[:-2])


def check_motion(
    molecule: Molecule, ensemble: Ensemble, velocities, invariant: tuple[bool, bool], freedom
) -> None:
    """Raise `InputError` if the thermostat would scale velocities that are zero."""
    name, replicas = ensemble.name, None if velocities.ndim == 2 else len(velocities)
    if molecule.n_atoms == 1 and invariant[0]:
        raise InputError(f"{name} cannot heat a free atom: use langevin or nve")
    if np.min(freedom) < 1:
        raise InputError(f"{name} cannot heat a single rigid molecule: use langevin or nve")
    if not kinetics.kinetic_energy(molecule.masses, velocities).all():
        raise InputError(f"{name} scales velocities: the initial velocities must not be zero")
    if not ensemble.temperatures(replicas)[0].all():
        raise InputError(f"{name}: the initial temperature must be above 0 K")


def vectors(name: str, value, n_atoms: int, replicas: int | None) -> np.ndarray:
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
