"""Velocities, kinetic energy and temperature; velocities in Å/fs, masses in amu."""

from __future__ import annotations

import numpy as np

from jaxff import units

# kcal/mol of kinetic energy in one amu (Å/fs)²
KINETIC = units.TIME**2


def maxwell_boltzmann(masses, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """Velocities (N, 3) Å/fs drawn at `temperature`, K, for masses (N,) amu."""
    spread = np.sqrt(units.BOLTZMANN * temperature / (KINETIC * np.asarray(masses)))
    return spread[:, None] * rng.standard_normal((len(spread), 3))


def kinetic_energy(masses, velocities) -> np.ndarray:
    """Kinetic energy (...) kcal/mol of velocities (..., N, 3) Å/fs and masses (N,) amu."""
    squares = np.sum(np.square(velocities), axis=-1)
    return 0.5 * KINETIC * np.sum(np.asarray(masses) * squares, axis=-1)


def temperature(energy, degrees_of_freedom: int) -> np.ndarray:
    """Temperature (...) K of a kinetic energy (...) kcal/mol; 0 without degrees of freedom."""
    return 2.0 * np.asarray(energy) / (max(degrees_of_freedom, 1) * units.BOLTZMANN)


def without_translation(masses, velocities) -> np.ndarray:
    """Velocities (N, 3) Å/fs without those of the centre of mass."""
    return velocities - np.average(velocities, axis=0, weights=masses)


def without_rotation(masses, positions, velocities) -> np.ndarray:
    """Velocities (N, 3) Å/fs without those of the rotation about the centre of mass.

    Args:
        positions: (N, 3) Å.
    """
    centred = positions - np.average(positions, axis=0, weights=masses)
    moving = without_translation(masses, velocities)
    momentum = np.einsum("n,nc->c", masses, np.cross(centred, moving))
    # The pseudo-inverse leaves out the axis about which a linear molecule has no inertia.
    omega = np.linalg.pinv(_inertia(masses, centred), rcond=1e-8, hermitian=True) @ momentum
    return velocities - np.cross(omega, centred)


def conserved_degrees(masses, positions, velocities) -> int:
    """How many degrees of freedom stay still in NVE: 3 without momentum, and 2 or 3 more without
    angular momentum about the centre of mass (2 for a linear molecule).

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
    return 3 + np.linalg.matrix_rank(_inertia(masses, centred), tol=1e-8, hermitian=True)


def _inertia(masses, centred) -> np.ndarray:
    square = np.einsum("n,na,nb->ab", masses, centred, centred)
    return np.trace(square) * np.eye(3) - square
