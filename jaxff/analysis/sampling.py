"""Comparison of two samplings, and times spent near minima, with errors.

`compare` takes the occupations of bins (`jaxff.analysis.distributions`) in each frame, for one or
two torsions or for interatomic distances:

    edges = np.linspace(-np.pi, np.pi, 37)
    a, b = (occupations(torsion_angles(R, [[0, 1, 2, 3]])[:, 0], edges) for R in (first, second))
    compare(a, b).overlap
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxff.analysis.averages import Estimate, mean_and_error
from jaxff.errors import InputError


class Agreement(NamedTuple):
    """The agreement of two distributions.

    Attributes:
        overlap: Σ min(p, q) over the bins of the distributions p and q; 1 for equal distributions,
            0 for disjoint distributions.
        divergence: Jensen-Shannon divergence in bits; 0 for equal distributions, 1 for disjoint
            distributions.
        chance_overlap, chance_divergence: mean and standard deviation of both measures for two
            samplings of one distribution, with the lengths of the given samplings.  The given
            samplings differ significantly only if the overlap is smaller, or the divergence
            larger, than these values.
    """

    overlap: Estimate
    divergence: Estimate
    chance_overlap: Estimate
    chance_divergence: Estimate


class Residence(NamedTuple):
    """Time spent near minima.

    Attributes:
        nearest: (F,) index of the minimum near each frame, or −1.
        shares: (K,) shares of the frames near each minimum, with errors.
        elsewhere: () share of the frames near no minimum, with error.
    """

    nearest: np.ndarray
    shares: Estimate
    elsewhere: Estimate


def joint_occupations(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Compute the share of each frame in each pair of bins, (F, A, B), of two coordinates.

    Args:
        first, second: occupations of the single coordinates, (F, A) and (F, B).

    Raises:
        InputError: the numbers of frames differ.
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise InputError(
            f"occupations must have shapes (F, A) and (F, B) (got {first.shape} and {second.shape})"
        )
    return first[:, :, None] * second[:, None, :]


def compare(
    first: ArrayLike, second: ArrayLike, *, n_blocks: int = 20, n_samples: int = 400, seed: int = 0
) -> Agreement:
    """Compute the overlap and Jensen-Shannon divergence of two sampled distributions over bins.

    The divergence is defined by Lin, IEEE Trans. Inf. Theory 37, 145 (1991).  Errors come from a
    bootstrap of blocks of time (Künsch, Ann. Stat. 17, 1217 (1989)).  The blocks must be longer
    than the correlation time.  Finite samplings of the same distribution also differ, which
    `Agreement.chance_overlap` measures.

    Args:
        first, second: occupations of the same bins, (F, ...) and (G, ...), in the order of time;
            replicas one after another.
        n_blocks: number of blocks of the sampling with fewer frames; the blocks of the other
            sampling have the same length.
        n_samples: number of bootstrap samples.
        seed: seed of the bootstrap.

    Raises:
        InputError: different bins, fewer frames than blocks, or a sampling without any frame
            within the bins.
    """
    a, b = (np.asarray(x, float) for x in (first, second))
    if a.ndim < 2 or a.shape[1:] != b.shape[1:]:
        raise InputError(
            f"occupations must have shapes (F, bins) and (G, bins) (got {a.shape} and {b.shape})"
        )
    fewest = min(len(a), len(b))
    if not 2 <= n_blocks <= fewest or n_samples < 2:
        raise InputError(
            f"n_blocks must be 2 to {fewest}, the number of frames (got {n_blocks}), and n_samples "
            f"at least 2 (got {n_samples})"
        )
    a, b = (x.reshape(len(x), -1) for x in (a, b))
    for x, which in ((a, "first"), (b, "second")):
        if not x.sum() > 0.0:
            raise InputError(
                f"no frame of the {which} sampling lies within the bins: change the edges"
            )
    blocks = [_block_sums(x, fewest // n_blocks) for x in (a, b)]
    rng = np.random.default_rng(seed)
    drawn = _measures(*(_resampled(x, len(x), n_samples, rng) for x in blocks))
    # Both samples come from one sampling: pooled blocks would differ by more than chance.
    same = np.concatenate(
        [_measures(*(_resampled(one, len(x), n_samples, rng) for x in blocks)) for one in blocks],
        axis=1,
    )
    plain = _measures(a.sum(axis=0), b.sum(axis=0))
    errors = [Estimate(float(p), float(d.std(ddof=1))) for p, d in zip(plain, drawn, strict=True)]
    chance = [Estimate(float(s.mean()), float(s.std(ddof=1))) for s in same]
    return Agreement(*errors, *chance)


def rmsd(
    positions: ArrayLike,
    references: ArrayLike,
    permutations: ArrayLike | None = None,
    mirror: bool = False,
    exchangeable: Sequence[Sequence[int]] = (),
) -> np.ndarray:
    """Compute root-mean-square distances (F, K) Å of frames from reference geometries.

    Each distance is the minimum over translations, rotations and permutations of equivalent atoms
    (Kabsch, Acta Crystallogr. A 34, 827 (1978)).

    Args:
        positions: (F, N, 3) Å.
        references: (K, N, 3) Å.
        permutations: (P, N) equivalent orders of the atoms, such as those of
            `gdml.find_symmetries`.
        mirror: whether mirror images are equal.
        exchangeable: groups of equivalent atoms, such as the hydrogens of each methyl group, for
            molecules with too many permutations.  The groups are matched after superposition of
            the other atoms, and both steps are repeated until convergence.  Small distances are
            exact; larger distances are upper bounds.

    Raises:
        InputError: shapes that do not agree, or positions that are not finite.
    """
    x, y = (np.asarray(r, float) for r in (positions, references))
    if x.ndim != 3 or y.ndim != 3 or x.shape[1:] != y.shape[1:] or x.shape[2] != 3:
        raise InputError(
            f"positions must have shape (F, N, 3) (got {x.shape}), and references (K, N, 3) (got "
            f"{y.shape})"
        )
    for r, name in ((x, "positions"), (y, "references")):
        if not np.isfinite(r).all():
            bad = np.flatnonzero(~np.isfinite(r).all(axis=(1, 2)))[0]
            raise InputError(f"{name} are not finite in geometry {bad}: remove this geometry")
    n = x.shape[1]
    orders = np.arange(n)[None] if permutations is None else np.asarray(permutations)
    if orders.ndim != 2 or not (np.sort(orders, axis=1) == np.arange(n)).all():
        raise InputError(
            f"permutations must have shape (P, {n}) with the numbers 0 to {n - 1} in each row (got "
            f"shape {orders.shape})"
        )
    x, y = (r - r.mean(axis=1, keepdims=True) for r in (x, y))
    if len(exchangeable):
        return _matched(x, y, orders, mirror, [np.asarray(atoms) for atoms in exchangeable])
    sizes = np.sum(x**2, axis=(1, 2))[:, None] + np.sum(y**2, axis=(1, 2))
    common = np.full((len(x), len(y)), -np.inf)
    for order in orders:
        covariance = np.einsum("fnc,knd->fkcd", x, y[:, order])
        common = np.maximum(common, _common(covariance, mirror))
    return np.sqrt(np.maximum(sizes - 2.0 * common, 0.0) / n)


def _common(covariance, mirror=False) -> np.ndarray:
    """Return the largest trace (...) of a covariance (..., 3, 3) times a rotation."""
    values = np.linalg.svd(covariance, compute_uv=False)
    if not mirror:
        values[..., -1] *= np.where(np.linalg.det(covariance) < 0.0, -1.0, 1.0)
    return values.sum(axis=-1)


def _matched(x, y, orders, mirror, groups) -> np.ndarray:
    """Compute `rmsd` (F, K) Å of centred geometries with exchangeable groups of atoms."""
    n, centres = x.shape[1], np.arange(x.shape[1])
    for atoms in groups:
        centres[atoms] = atoms[0]
    average = (centres[:, None] == centres).astype(float)
    average /= average.sum(axis=1, keepdims=True)
    if any((np.linalg.svd(average @ r, compute_uv=False)[:, 1] < 0.05).any() for r in (x, y)):
        warnings.warn(
            "the atoms outside the exchangeable groups are in line, so that distances can be too "
            "large: give all permutations instead of exchangeable groups",
            stacklevel=3,
        )
    distances = np.empty((len(x), len(y)))
    for f, k in np.ndindex(*distances.shape):
        images = np.concatenate([y[k, orders], -y[k, orders]] if mirror else [y[k, orders]])
        # The distance of the centres is a lower bound of the distance of the atoms.
        a, b = average @ x[f], average @ images
        bound = np.sum(a**2) + np.sum(b**2, axis=(1, 2))
        bound -= 2.0 * _common(np.einsum("nc,pnd->pcd", a, b))
        best = np.inf
        for p in np.argsort(bound):
            if bound[p] >= best:
                break
            best = min(best, _match(x[f], images[p], a.T @ b[p], groups))
        distances[f, k] = np.sqrt(best / n)
    return distances


def _match(x, y, covariance, groups) -> float:
    """Compute the sum of squared distances, Å², of x from y (N, 3) after matching each group.

    The first superposition uses `covariance` (3, 3); the next ones use the matched atoms.
    """
    from scipy.optimize import linear_sum_assignment

    least = np.inf
    while True:
        u, _, wt = np.linalg.svd(covariance)
        u[:, -1] *= np.sign(np.linalg.det(u @ wt))
        turned, order = y @ (u @ wt).T, np.arange(len(y))
        for atoms in groups:
            order[atoms] = atoms[linear_sum_assignment(-x[atoms] @ turned[atoms].T)[1]]
        covariance = x.T @ y[order]
        square = max(np.sum(x**2) + np.sum(y**2) - 2.0 * float(_common(covariance)), 0.0)
        if not square < least - 1e-12:
            return min(square, least)
        least = square


def torsion_distance(torsions: ArrayLike, references: ArrayLike) -> np.ndarray:
    """Compute the largest difference (F, K), in [0, π] rad, of torsions from references.

    Args:
        torsions: (F, T) rad.
        references: (K, T) rad.

    Raises:
        InputError: the numbers of torsions differ.
    """
    x, y = np.asarray(torsions, float), np.asarray(references, float)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise InputError(
            f"torsions must have shape (F, T) (got {x.shape}), and references (K, T) (got "
            f"{y.shape})"
        )
    turn = x[:, None] - y[None]
    return np.abs(turn - 2.0 * np.pi * np.round(turn / (2.0 * np.pi))).max(axis=-1)


def residence(
    distances: ArrayLike, within: float = np.inf, n_blocks: int | None = None
) -> Residence:
    """Compute the shares of time that a trajectory spends near each of K minima.

    Args:
        distances: (F, K) distances of the frames, in the order of time, from the minima: `rmsd` in
            Å, or `torsion_distance` in rad.
        within: largest distance of a frame from the nearest minimum, in the unit of `distances`.
        n_blocks: as for `mean_and_error`.

    Raises:
        InputError: distances with a wrong shape or NaN, or fewer than two frames.
    """
    d = np.asarray(distances, float)
    if d.ndim != 2 or not d.size or np.isnan(d).any():
        raise InputError(f"distances must have shape (F, K) without NaN (got shape {d.shape})")
    nearest = np.where(d.min(axis=1) <= within, d.argmin(axis=1), -1)
    places = np.arange(-1, d.shape[1])
    there = (nearest[:, None] == places).astype(float)
    mean, error = (np.asarray(x) for x in mean_and_error(there, n_blocks))
    return Residence(nearest, Estimate(mean[1:], error[1:]), Estimate(mean[0], error[0]))


def _block_sums(occupations, length):
    """Compute sums (blocks, bins) over blocks of at least `length` frames."""
    count = len(occupations) // length
    starts = np.arange(count) * len(occupations) // count
    return np.add.reduceat(occupations, starts, axis=0)


def _resampled(blocks, count, n_samples, rng):
    """Compute sums (n_samples, bins) over `count` blocks drawn with replacement."""
    share = np.full(len(blocks), 1.0 / len(blocks))
    return rng.multinomial(count, share, size=n_samples) @ blocks


def _measures(p, q):
    """Compute the overlap and the divergence, each (...), of counts (..., bins)."""
    p, q = (x / np.maximum(x.sum(axis=-1, keepdims=True), 1e-300) for x in (p, q))
    middle = 0.5 * (p + q)

    def relative(x):
        there = x > 0.0
        return np.sum(np.where(there, x * np.log2(np.where(there, x / middle, 1.0)), 0.0), axis=-1)

    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = 0.5 * (relative(p) + relative(q))
    return np.minimum(p, q).sum(axis=-1), divergence
