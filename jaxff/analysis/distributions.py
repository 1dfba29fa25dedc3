"""Distributions of coordinates over frames: histograms, h(r) and g(r).

`occupations` computes the share of each frame in each bin.  The weighted mean of these shares is a
reweighted distribution.  With the bounds of energy wells as edges, this mean contains the
populations of the wells:

    phi = torsion_angles(positions, [[0, 1, 2, 3]])
    shares = occupations(phi, np.radians([0, 120, 240, 360]), width=0.1, period=2 * np.pi)
    gauche_plus, anti, gauche_minus = average(shares, weights)

With a `width`, bins are smooth: each sample is replaced by a Gaussian of this standard deviation,
which is integrated over each bin.  Only smooth bins have a gradient with respect to the samples.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxff.analysis.averages import average, checked_weights
from jaxff.analysis.coordinates import (
    checked_indices,
    checked_lattice,
    floating,
    is_known,
    pair_distances,
)
from jaxff.cell import widths
from jaxff.errors import InputError

Array = jax.Array

# Number of kernel values in memory at once: 8 MB in float64.
CHUNK = 2**20
# Number of pairs in memory at once, and cost of the hard bin of a pair.
PAIRS, HARD = 2**17, 64
# Largest width per period: wider kernels would need more than the nearest images.
MAX_WIDTH = 1.0 / 8.0


def occupations(
    samples: ArrayLike,
    edges: ArrayLike,
    width: ArrayLike | None = None,
    period: ArrayLike | None = None,
) -> Array:
    """Compute the share of each frame in each bin, (F, bins).

    Args:
        samples: values (F,), or (F, K) of K equivalent coordinates, such as all C-H bonds.
        edges: (bins + 1,) increasing, in the unit of the samples.  A bin includes the lower edge;
            the last bin also includes the upper edge.
        width: () standard deviation of the Gaussian, in the unit of the samples; None for hard
            bins.
        period: () period of the coordinate, 2π for torsions; None without a period.

    Raises:
        InputError: edges that do not increase or span more than the period, a width that is not
            positive or exceeds an eighth of the period, or samples with a wrong shape.
    """
    samples = _checked_samples(samples, edges, width, period)
    return _occupations(samples, jnp.asarray(edges, samples.dtype), width, period)


def density(
    samples: ArrayLike,
    edges: ArrayLike,
    width: ArrayLike | None = None,
    period: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Array:
    """Compute the probability density (bins,) of a coordinate, with integral one.

    The density is NaN if no sample is within the edges.

    Args:
        samples, edges, width, period: as for `occupations`.
        weights: (F,) weights of the frames that sum to one.

    Raises:
        InputError: as for `occupations`, or invalid weights.
    """
    samples = _checked_samples(samples, edges, width, period)
    if weights is not None:
        weights = checked_weights(weights, len(samples), samples.dtype)
    return _density(samples, jnp.asarray(edges, samples.dtype), width, period, weights)


def pair_occupations(
    positions: ArrayLike,
    pairs: ArrayLike,
    edges: ArrayLike,
    width: ArrayLike | None = None,
    box: ArrayLike | None = None,
) -> Array:
    """Compute the share of the distances of each frame in each bin, (F, bins).

    Distances of few pairs are in memory at once.

    Args:
        positions: (F, N, 3) Å.
        pairs: (P, 2) atom indices, such as those of `atom_pairs`.
        edges: (bins + 1,) Å, increasing.
        width: () Å, standard deviation of the Gaussian; None for hard bins.
        box: lattice vectors as rows, (3, 3) Å, or (F, 3, 3) Å for each frame; edges of an
            orthorhombic box, (3,) Å, or of a cubic box, () Å; None in vacuum.

    Raises:
        InputError: as for `occupations` and `distances`.  Also: edges beyond half of the smallest
            width of a box, where nearest images do not give all distances.
    """
    positions = floating(positions)
    if positions.ndim != 3 or positions.shape[0] == 0:
        raise InputError(f"positions must have shape (F, N, 3) with F > 0 (got {positions.shape})")
    _check_bins(edges, width, None)
    lattice = None if box is None else checked_lattice(box, positions)
    if lattice is not None and is_known(box, edges):
        half = 0.5 * widths(lattice).min()
        if np.max(edges) > half * (1 + 1e-6):
            raise InputError(
                f"the last edge must be at most half the box, which is {half:.6g} Å wide (got "
                f"{np.max(edges):.6g} Å)"
            )
    pairs = checked_indices(positions, pairs, 2)
    if not len(pairs):
        raise InputError("there are no pairs: give at least one pair of atoms")
    return _pair_occupations(positions, pairs, jnp.asarray(edges, positions.dtype), width, lattice)


def pair_density(
    positions: ArrayLike,
    pairs: ArrayLike,
    edges: ArrayLike,
    width: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Array:
    """Compute the distribution h(r), (bins,) 1/Å, of interatomic distances, with integral one.

    Source: Sauceda et al., J. Chem. Phys. 153, 124109 (2020).

    Args:
        positions, pairs, edges, width: as for `pair_occupations`.
        weights: (F,) weights of the frames that sum to one.

    Raises:
        InputError: as for `pair_occupations`, or invalid weights.
    """
    shares = average(pair_occupations(positions, pairs, edges, width), weights)
    return _normalized(shares, jnp.asarray(edges, shares.dtype))


def radial_distribution(
    positions: ArrayLike,
    pairs: ArrayLike,
    edges: ArrayLike,
    box: ArrayLike,
    width: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Array:
    """Compute the pair distribution function g(r), (bins,), in a box.

    g(r) is the share of the pairs in a shell, divided by the share of the volume in this shell
    (Allen and Tildesley, Computer Simulation of Liquids (2017), chapter 8); 1 for an ideal gas.
    Each frame is normalised by the volume of its box.

    Args:
        positions, pairs, edges, box, width: as for `pair_occupations`.
        weights: (F,) weights of the frames that sum to one.

    Raises:
        InputError: as for `pair_occupations`, or invalid weights.
    """
    return average(radial_distributions(positions, pairs, edges, box, width), weights)


def radial_distributions(
    positions: ArrayLike,
    pairs: ArrayLike,
    edges: ArrayLike,
    box: ArrayLike,
    width: ArrayLike | None = None,
) -> Array:
    """Compute g(r) of each frame, (F, bins), for averages and standard errors.

    The arguments and errors are those of `radial_distribution`.
    """
    shares = pair_occupations(positions, pairs, edges, width, box)
    lattice = checked_lattice(box, floating(positions))
    return _to_ideal_gas(shares, jnp.asarray(edges, shares.dtype), lattice)


@jax.jit
def _to_ideal_gas(shares, edges, lattice):
    volumes = jnp.abs(jnp.linalg.det(lattice))[..., None]
    return shares * volumes / (4.0 / 3.0 * jnp.pi * jnp.diff(edges**3))


@jax.jit
def _occupations(samples, edges, width, period):
    weights = jnp.full(samples.shape[1], 1.0 / samples.shape[1], samples.dtype)
    return _frame_by_frame(
        lambda row: _binned(row, weights, edges, width, period),
        samples,
        samples.shape[1] * len(edges),
    )


@jax.jit
def _density(samples, edges, width, period, weights):
    n, k = samples.shape
    weights = jnp.full(n, 1.0 / n, samples.dtype) if weights is None else weights
    weights = jnp.repeat(weights / k, k)
    return _normalized(_binned(samples.reshape(-1), weights, edges, width, period), edges)


@jax.jit
def _pair_occupations(positions, pairs, edges, width, lattice):
    n, size = len(pairs), min(len(pairs), PAIRS)
    chunks = jnp.pad(pairs, ((0, -n % size), (0, 0)), mode="edge").reshape(-1, size, 2)
    weights = jnp.pad(jnp.full(n, 1.0 / n, positions.dtype), (0, -n % size)).reshape(-1, size)

    def of_frame(frame):
        R, box = frame if each else (frame, lattice)

        @jax.checkpoint
        def add(total, chunk):
            pairs, weights = chunk
            return total + _binned(pair_distances(R, pairs, box), weights, edges, width, None), None

        return jax.lax.scan(add, jnp.zeros(len(edges) - 1, edges.dtype), (chunks, weights))[0]

    each = lattice is not None and lattice.ndim == 3
    # Hard bins of many frames at once would be slower.
    cost = size * (HARD if width is None else len(edges))
    return _frame_by_frame(of_frame, (positions, lattice) if each else positions, cost)


@jax.jit
def _binned(samples, weights, edges, width, period):
    """Compute the histogram (bins,) of samples (S,) with weights (S,).

    The gradient recomputes each chunk of samples, which limits the memory.
    """
    if period is not None:
        period = jnp.asarray(period, edges.dtype)
        samples = edges[0] + jnp.mod(samples - edges[0], period)
    if width is None:
        return _hard(samples, weights, edges, period)
    n, size = len(samples), max(1, CHUNK // len(edges))
    if n <= size:
        return _smooth(samples, weights, edges, width, period)
    samples = jnp.pad(samples, (0, -n % size), mode="edge").reshape(-1, size)
    weights = jnp.pad(weights, (0, -n % size)).reshape(-1, size)

    @jax.checkpoint
    def add(total, chunk):
        samples, weights = chunk
        return total + _smooth(samples, weights, edges, width, period), None

    return jax.lax.scan(add, jnp.zeros(len(edges) - 1, samples.dtype), (samples, weights))[0]


def _smooth(samples, weights, edges, width, period):
    shifts = (0.0,) if period is None else (-period, 0.0, period)
    scale = 2.0**0.5 * jnp.asarray(width, edges.dtype)
    u = edges - samples[:, None]
    below = sum(jax.scipy.special.erf((u + s) / scale) for s in shifts)
    # Rounding must not make a share negative.
    shares = jnp.maximum(0.5 * jnp.diff(below, axis=1), 0.0)
    return jnp.sum(weights[:, None] * shares, axis=0)


def _hard(samples: Array, weights: Array, edges: Array, period):
    bins = len(edges) - 1
    index = jnp.searchsorted(edges, samples, side="right", method="scan_unrolled") - 1
    # The last bin includes its upper edge, which wrapped samples can exceed by rounding.
    slack = 0.0 if period is None else 4.0 * jnp.finfo(edges.dtype).eps * period
    index = jnp.where(jnp.abs(samples - edges[-1]) <= slack, bins - 1, index)
    inside = (index >= 0) & (index < bins)
    weights = jnp.where(inside | jnp.isnan(samples), weights + 0.0 * samples, 0.0)
    return jnp.zeros(bins, weights.dtype).at[jnp.clip(index, 0, bins - 1)].add(weights)


def _frame_by_frame(function, frames, cost: int):
    """Apply a function to each frame, in batches; `cost` is the number of values of a frame."""
    n_frames = len(jax.tree.leaves(frames)[0])
    at_once = max(1, CHUNK // cost)
    return jax.lax.map(jax.checkpoint(function), frames, batch_size=min(at_once, n_frames))


@jax.jit
def _normalized(shares, edges):
    return shares / (shares.sum() * jnp.diff(edges))


def _checked_samples(samples, edges, width, period):
    samples = floating(samples)
    if samples.ndim not in (1, 2) or samples.size == 0:
        raise InputError(f"samples must have shape (F,) or (F, K) (got {samples.shape})")
    _check_bins(edges, width, period)
    return samples.reshape(len(samples), -1)


def _check_bins(edges, width, period):
    if np.ndim(edges) != 1 or np.shape(edges)[0] < 2:
        raise InputError(f"edges must have shape (bins + 1,) (got {np.shape(edges)})")
    if is_known(edges) and not (np.diff(np.asarray(edges, float)) > 0).all():
        raise InputError(
            "the edges of the bins do not increase: sort the edges and remove duplicates"
        )
    if is_known(edges, period) and period is not None:
        span = float(np.asarray(edges)[-1] - np.asarray(edges)[0])
        if not span <= period * (1 + 1e-6):
            raise InputError(
                f"the range of the edges must be at most the period, {period:.6g} (got {span:.6g})"
            )
    if width is None or not is_known(width, period):
        return
    if not width > 0:
        raise InputError(f"width must be positive, or None for hard bins (got {width})")
    if period is not None and width > MAX_WIDTH * period:
        raise InputError(
            f"width must be at most an eighth of the period, {period / 8:.4g} (got {width:.4g})"
        )
