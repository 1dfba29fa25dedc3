"""Velocities, kinetic energy and temperature."""

from __future__ import annotations

import numpy as np

from jaxff import units

# kcal/mol in one amu (Å/fs)²
KINETIC = units.TIME**2
# A molecule whose smallest moment of inertia is below this share of the largest is linear.
LINEAR = 1e-5


def maxwell_boltzmann(masses, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """Draw velocities (N, 3) Å/fs at `temperature`, K, for masses (N,) amu."""
    spread = np.sqrt(units.BOLTZMANN * temperature / (KINETIC * np.asarray(masses)))
    return spread[:, None] * rng.standard_normal((len(spread), 3))


def kinetic_energy(masses, velocities) -> np.ndarray:
    """Kinetic energy (...) kcal/mol; masses (N,) amu, velocities (..., N, 3) Å/fs."""
    squares = np.sum(np.square(velocities), axis=-1)
    return 0.5 * KINETIC * np.sum(np.asarray(masses) * squares, axis=-1)


def temperature(energy, degrees_of_freedom) -> np.ndarray:
    """Temperature (...) K from kinetic energy (...) kcal/mol and degrees of freedom."""
    return 2.0 * np.asarray(energy) / (np.maximum(degrees_of_freedom, 1) * units.BOLTZMANN)


def without_translation(masses, velocities, xp=np):
    """Velocities (N, 3) Å/fs relative to the centre of mass; masses (N,) amu.

    `xp` is NumPy or jax.numpy.
    """
    return velocities - xp.average(velocities, axis=0, weights=masses)


def without_rotation(masses, positions, velocities, xp=np):
    """Velocities (N, 3) Å/fs without translation and rotation of the molecule.

    Args:
        masses: (N,) amu.
        positions: (N, 3) Å.
        velocities: (N, 3) Å/fs.
        xp: NumPy or jax.numpy.
    """
    centred = positions - xp.average(positions, axis=0, weights=masses)
    moving = without_translation(masses, velocities, xp)
    momentum = xp.einsum("n,nc->c", masses, xp.cross(centred, moving))
    moments, axes = xp.linalg.eigh(_inertia(masses, centred, xp))
    # A linear molecule has no inertia about its axis.
    turns = moments > LINEAR * moments[-1]
    inverse = xp.where(turns, 1.0 / xp.where(turns, moments, 1.0), 0.0)
    omega = axes @ (inverse * (axes.T @ momentum))
    return moving - xp.cross(omega, centred)


def conserved_degrees(masses, positions, velocities) -> int:
    """Number of degrees of freedom without kinetic energy at constant energy.

    The number is 0 if the total momentum is not zero.  Otherwise it is 3, plus the rotational
    degrees of freedom if the angular momentum about the centre of mass is zero.

    Args:
        masses: (N,) amu.
        positions: (N, 3) Å.
        velocities: (N, 3) Å/fs.
    """
    masses, positions = np.asarray(masses), np.asarray(positions)
    momenta = masses[:, None] * velocities
    scale = 1e-5 * np.abs(momenta).sum()
    if np.abs(momenta.sum(axis=0)).max() > scale:
        return 0
    centred = positions - np.average(positions, axis=0, weights=masses)
    angular = np.cross(centred, momenta).sum(axis=0)
    if np.abs(angular).max() > scale * np.abs(centred).max():
        return 3
    return 3 + rotational_degrees(len(masses))


def rotational_degrees(n_atoms: int) -> int:
    """Number of rotational degrees of freedom: 0 (one atom), 2 (two) or 3 (more).

    Molecules with a linear minimum have three, because they bend during the dynamics.
    """
    return min(n_atoms, 3) if n_atoms > 1 else 0


def _inertia(masses, centred, xp=np):
    square = xp.einsum("n,na,nb->ab", masses, centred, centred)
    return xp.trace(square) * xp.eye(3, dtype=square.dtype) - square
