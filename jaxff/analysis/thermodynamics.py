"""Free energies along a coordinate, and heat capacities, from samples of an ensemble."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxff import units
from jaxff.analysis.averages import Estimate, average, checked_weights, mean_and_error
from jaxff.analysis.coordinates import floating
from jaxff.errors import InputError

Array = jax.Array

# Antiderivatives of the Jacobians.
_VOLUMES = {
    "none": lambda x: x,
    "distance": lambda x: x**3 / 3.0,
    "angle": lambda x: -jnp.cos(x),
}


def free_energy(
    density: ArrayLike, edges: ArrayLike, temperature: ArrayLike, jacobian: str = "none"
) -> Array:
    """Compute the free energy −kT ln(p/J) along a coordinate with density p and Jacobian J.

    Args:
        density: (..., bins) probability density of the coordinate, which need not be normalised.
        edges: (bins + 1,) Å or rad.
        temperature: () K.
        jacobian: "none" (J = 1), "distance" (J = r²) or "angle" (J = sin θ), averaged over each
            bin.  With the correct J, the free energy of atoms without interactions is constant.

    Returns:
        the free energy (..., bins) kcal/mol with minimum zero; infinite, with zero gradient, for
        density zero.

    Raises:
        InputError: an unknown Jacobian, or edges that do not match the number of bins.
    """
    density = floating(density)
    _check(density, edges, jacobian)
    return _free_energy(density, jnp.asarray(edges, density.dtype), temperature, jacobian)


def free_energy_and_error(
    occupations: ArrayLike,
    edges: ArrayLike,
    temperature: ArrayLike,
    jacobian: str = "none",
    n_blocks: int | None = None,
    weights: ArrayLike | None = None,
) -> Estimate:
    """Compute the free energy (bins,) kcal/mol and the standard error kT σ(p)/p.

    σ(p) is the error of the density p from `mean_and_error`.  The error of an empty bin is
    infinite.

    Args:
        occupations: (F, bins) shares of the frames in bins, from `occupations`.
        edges, temperature, jacobian: as for `free_energy`.
        n_blocks: number of blocks or replicas, see `mean_and_error`; None for automatic blocking.
        weights: (F,) weights of the frames that sum to one.

    Raises:
        InputError: as for `free_energy` and `mean_and_error`.
    """
    share, error = mean_and_error(occupations, n_blocks, weights)
    _check(share, edges, jacobian)
    return _with_error(share, error, jnp.asarray(edges, share.dtype), temperature, jacobian)


def heat_capacity_and_error(
    energies: ArrayLike,
    temperature: ArrayLike,
    degrees_of_freedom: ArrayLike = 0,
    n_blocks: int | None = None,
    weights: ArrayLike | None = None,
) -> Estimate:
    """Compute the heat capacity () kcal/mol/K and its standard error.

    Args:
        energies, temperature, degrees_of_freedom, weights: as for `heat_capacity`.
        n_blocks: number of blocks or replicas, see `mean_and_error`; None for automatic blocking.

    Raises:
        InputError: as for `heat_capacity` and `mean_and_error`.
    """
    value = heat_capacity(energies, temperature, degrees_of_freedom, weights)
    energies = floating(energies)
    squares = (energies - average(energies, weights)) ** 2
    error = mean_and_error(squares, n_blocks, weights).error
    return Estimate(value, error / (units.BOLTZMANN * jnp.asarray(temperature) ** 2))


def heat_capacity(
    energies: ArrayLike,
    temperature: ArrayLike,
    degrees_of_freedom: ArrayLike = 0,
    weights: ArrayLike | None = None,
) -> Array:
    """Compute the heat capacity () kcal/mol/K at constant volume or pressure.

    The result is var(U)/kT² plus k/2 for each degree of freedom, with the potential energy U and
    Boltzmann's constant k.  For constant pressure, give the enthalpies U + pV (see `enthalpies`) of
    a simulation at this pressure.

    Args:
        energies: (F,) potential energies of a canonical ensemble, or enthalpies, kcal/mol.
        temperature: () K.
        degrees_of_freedom: () number of degrees of freedom with kinetic energy; 0 for only the
            configurational part.
        weights: (F,) weights of the frames that sum to one.

    Raises:
        InputError: fewer than two frames, or invalid weights.
    """
    energies = floating(energies)
    if energies.ndim != 1 or len(energies) < 2:
        raise InputError(f"energies must have shape (F,) with F > 1 (got {energies.shape})")
    if weights is not None:
        weights = checked_weights(weights, len(energies), energies.dtype)
    return _heat_capacity(energies, temperature, degrees_of_freedom, weights)


@partial(jax.jit, static_argnames="jacobian")
def _free_energy(density: Array, edges: Array, temperature, jacobian):
    mean_jacobian = jnp.diff(_VOLUMES[jacobian](edges)) / jnp.diff(edges)
    kT = units.BOLTZMANN * jnp.asarray(temperature, density.dtype)
    empty = density <= 0.0
    energy = -kT * jnp.log(jnp.where(empty, 1.0, density) / mean_jacobian)
    energy = jnp.where(empty, jnp.inf, energy)
    return energy - jnp.min(energy, axis=-1, keepdims=True)


@partial(jax.jit, static_argnames="jacobian")
def _with_error(share: Array, error: Array, edges: Array, temperature, jacobian):
    energy = _free_energy(share / jnp.diff(edges), edges, temperature, jacobian)
    kT = units.BOLTZMANN * jnp.asarray(temperature, share.dtype)
    empty = share <= 0.0
    return Estimate(energy, jnp.where(empty, jnp.inf, kT * error / jnp.where(empty, 1.0, share)))


@jax.jit
def _heat_capacity(energies, temperature, degrees_of_freedom, weights):
    # A shift of the energies avoids rounding of their mean in float32.
    energies = energies - energies[0]
    variance = average((energies - average(energies, weights)) ** 2, weights)
    temperature = jnp.asarray(temperature, energies.dtype)
    kinetic = 0.5 * units.BOLTZMANN * jnp.asarray(degrees_of_freedom, energies.dtype)
    return variance / (units.BOLTZMANN * temperature**2) + kinetic


def _check(density, edges, jacobian):
    if jacobian not in _VOLUMES:
        raise InputError(f"unknown Jacobian {jacobian!r}: use one of {', '.join(_VOLUMES)}")
    if np.ndim(edges) != 1 or np.shape(edges)[0] != density.shape[-1] + 1:
        raise InputError(
            f"edges of {density.shape[-1]} bins must have shape ({density.shape[-1] + 1},) (got "
            f"{np.shape(edges)})"
        )
