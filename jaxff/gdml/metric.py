"""The learnt metric of a kernel: weights and a power of the inverse distances.

A kernel compares two geometries by the distance between their descriptors, in which all pairs of
atoms have the same weight.  Here the pairs are divided into classes by their elements and by the
number of bonds between the two atoms.  Each class has its weight, and all classes share the power.
Weights and power minimise the leave-one-out error of the forces, see `jaxff.gdml.leave_out`.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.sparse.csgraph

from jaxff.dataset import Dataset
from jaxff.gdml.descriptor import (
    Descriptor,
    inverse_distances,
    pair_permutations,
    scaled_distances,
)
from jaxff.gdml.kernel import blocks
from jaxff.gdml.leave_out import MOST_UNKNOWNS, LeftOut, left_out
from jaxff.gdml.operator import KernelOperator
from jaxff.gdml.settings import Progress, ascending
from jaxff.gdml.system import check_size, refuse_identical, require_float64
from jaxff.molecule import Molecule

Array = jax.Array

SIGMA = 20.0  # 1/Å, the width for which the weights are learnt
# The search starts with a fourth of the frames, which is 64 times as fast, but with at least 20.
FIRST_SHARE, LEAST_FRAMES = 4, 20
FARTHEST = 4  # bonds; pairs that are farther apart form one class
WIDTHS = 5.0, 10.0, 20.0, 40.0, 80.0  # 1/Å, widths σ of kernels without a metric
START = 0.5  # initial logarithm of all weights: the best σ of few frames is often below 20
LIMITS = (-4.0, 4.0), (-1.5, 1.5)  # of the logarithms of weights and power
MAX_STEPS = 60
WORTH = 0.98  # a metric is used if it multiplies the leave-one-out error by less than this
SINGULAR = 1e3  # value where K is singular; the search needs a finite one
_BYTES = 2e8  # largest array of permuted Jacobians


def pair_classes(molecule: Molecule, entries: np.ndarray) -> np.ndarray:
    """The class (D,) of each pair of atoms; classes are numbered from zero.

    Pairs with the same elements and the same number of bonds between the two atoms are in one
    class; more than four bonds count as four.  Pairs that a permutation maps to each other are
    also in one class.

    Args:
        molecule: N atoms and their bonds.
        entries: (P, D) permutations of the D = N(N − 1)/2 pairs.
    """
    n_atoms = molecule.n_atoms
    i, j = np.tril_indices(n_atoms, -1)
    bonded = np.zeros((n_atoms, n_atoms))
    bonded[tuple(molecule.bonds.T)] = 1.0
    steps = scipy.sparse.csgraph.shortest_path(bonded, directed=False, unweighted=True)
    elements = np.sort(np.stack([molecule.numbers[i], molecule.numbers[j]]), axis=0)
    keys = np.column_stack([*elements, np.minimum(steps[i, j], FARTHEST)])
    kinds = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
    # Kinds that a permutation connects become one class.
    connected = np.zeros((kinds.max() + 1, kinds.max() + 1))
    for images in entries:
        connected[kinds, kinds[images]] = 1.0
    return scipy.sparse.csgraph.connected_components(connected, directed=False)[1][kinds]


@dataclass(frozen=True)
class LeaveOneOut:
    """The leave-one-out error of the forces as a function of the metric.

    The moves (C + 1,) are the logarithms of the weights of the C classes, and of the power.

    Attributes:
        distances: (M, D) inverse distances x, 1/Å.
        jacobians: (M, D, W) derivatives of x by the W reduced coordinates of each frame, 1/Å².
        entries: (P, D) permutations of the pairs.
        classes: (D,) class of each pair, from 0 to C − 1.
        centres: (D,) geometric mean of x in the class of each pair, 1/Å.
        labels: (M, W) forces in reduced coordinates.
        lam: regularisation λ, relative to the variance of the forces.
        n_atoms: N.
    """

    distances: Array
    jacobians: Array
    entries: Array
    classes: Array
    centres: Array
    labels: np.ndarray
    lam: float
    n_atoms: int

    @classmethod
    def of(
        cls, frames: Dataset, permutations: np.ndarray, classes: np.ndarray, lam: float
    ) -> LeaveOneOut:
        """Return the error as a function of the metric, for given training frames.

        Args:
            frames: M frames.
            permutations: (P, N) a group of atom permutations.
            classes: (D,) class of each pair, see `pair_classes`.
            lam: regularisation λ, relative to the variance of the forces.

        Raises:
            InputError: two frames have the same geometry.
        """
        op = KernelOperator.of(frames.positions, permutations, SIGMA, lattice=frames.lattice)
        refuse_identical(op, frames)
        x = op.descriptors + op.centre
        log = np.asarray(jnp.log(x).mean(axis=0))
        count = np.bincount(classes)
        centres = np.exp(np.bincount(classes, log) / count)[classes]
        return cls(
            distances=x,
            jacobians=op.jacobians,
            entries=op.entries,
            classes=jnp.asarray(classes),
            centres=jnp.asarray(centres),
            labels=np.asarray(op.observed(frames.forces)),
            lam=lam,
            n_atoms=frames.n_atoms,
        )

    def weights(self, moves: np.ndarray) -> tuple[np.ndarray, float]:
        """The arguments of `scaled_distances`: weights (D,) and power, from moves (C + 1,)."""
        weights, power = _weights(jnp.asarray(moves), self.classes, self.centres)
        return np.asarray(weights), float(power)

    def rmse(self, moves: np.ndarray) -> float:
        """Leave-one-out force RMSE, kcal/mol/Å, for `moves` (C + 1,); ∞ if K is singular."""
        parts = self._errors(moves)
        if parts is None:
            return np.inf
        return float(np.sqrt(np.sum(parts.errors**2) / (3 * self.n_atoms * len(self.labels))))

    def without(self) -> float:
        """Leave-one-out force RMSE, kcal/mol/Å, without weights, for the best of some widths."""
        count = int(self.classes.max()) + 1
        scales = np.log(SIGMA / np.array(WIDTHS))
        return min(self.rmse(np.append(np.full(count, scale), 0.0)) for scale in scales)

    def __call__(self, moves: np.ndarray) -> tuple[float, np.ndarray]:
        """The logarithm of the RMSE plus a constant, and the derivative by moves (C + 1,)."""
        parts = self._errors(moves)
        if parts is None:
            return SINGULAR, np.zeros_like(moves)
        errors, diagonal, inverse, alphas = parts
        count, width = self.labels.shape
        square = np.sum(errors**2)
        # With B = (K + λ)⁻¹, α = B y and r = B_mm⁻¹ α_m: dr = B_mm⁻¹ (dα_m − dB_mm r), dB = −B dK B
        slopes = np.linalg.solve(diagonal, errors[..., None])[..., 0] / square
        strips = inverse.reshape(-1, count, width)
        left = np.einsum("nmw,mw->nm", strips, slopes)
        right = np.einsum("nmw,mw->nm", strips, errors)
        by_kernel = np.outer(inverse @ slopes.ravel(), alphas) - left @ right.T
        by_kernel = -(by_kernel + by_kernel.T) / 2.0
        return 0.5 * np.log(square), np.asarray(_pulled_back(by_kernel, moves, *self._arrays))

    @property
    def _arrays(self) -> tuple[Array, ...]:
        return self.distances, self.jacobians, self.entries, self.classes, self.centres

    def _errors(self, moves: np.ndarray) -> LeftOut | None:
        """Errors at left-out frames, in reduced coordinates; None if K is singular."""
        kernel = np.array(_kernel(jnp.asarray(moves), *self._arrays))
        kernel[np.diag_indices_from(kernel)] += self.lam
        return left_out(kernel, self.labels)


def learn_metric(
    frames: Dataset,
    permutations: np.ndarray,
    *,
    lam: float = 1e-10,
    seed: int = 0,
    seconds: float = np.inf,
    progress: Progress | None = None,
) -> Descriptor:
    """Learn a descriptor that minimises the leave-one-out error of training frames.

    The result is an argument of `Kernel(descriptor=...)`; `Kernel(learn_metric=True)` does the same
    within a training.  If there are more than about 3,000 force components, a random part of the
    frames is used.

    Args:
        frames: M training frames with the forces that the kernel learns.
        permutations: (P, N) a group of atom permutations.
        lam: regularisation λ relative to the variance of the forces.
        seed: seed of the random choice of frames.
        seconds: time after which the search ends with the best weights so far.
        progress: function called with the name of a phase and its finished fraction.

    Returns:
        `scaled_distances` with weights and a power, or `inverse_distances` if the weights lower
        the leave-one-out error by less than 2 %, of all frames or of the fourth with which the
        search starts.

    Raises:
        InputError: fewer than two frames or atoms, two identical frames, λ not positive, or
            float64 not enabled.
    """
    require_float64()
    check_size(frames)
    lam = ascending(lam, "lam")[0]
    report = progress or (lambda phase, fraction: None)
    count = max(MOST_UNKNOWNS // (3 * frames.n_atoms), LEAST_FRAMES)
    order = np.random.default_rng(seed).permutation(len(frames))[:count]
    classes = pair_classes(frames.molecule, pair_permutations(permutations))
    moves = np.append(np.full(classes.max() + 1, START), 0.0)
    until = time.perf_counter() + seconds
    few = max(len(order) // FIRST_SHARE, LEAST_FRAMES)
    stages = [few, len(order)] if 2 * few <= len(order) else [len(order)]
    report("learning the metric", 0.0)
    for k, count in enumerate(stages):
        part = frames[np.sort(order[:count])]
        error = LeaveOneOut.of(part, permutations, classes, lam)
        moves = _best(error, moves, until, report, k / len(stages))
        before, after = error.without(), error.rmse(moves)
        used = after < WORTH * before
        if not used:  # more frames would take much longer
            break
    report(
        f"leave-one-out force RMSE of {count} frames, kcal/mol/Å: {before:.4f} without and "
        f"{after:.4f} with the learnt metric ({len(moves) - 1} classes of atom pairs)"
        f"{'' if used else '; the metric is not used'}",
        1.0,
    )
    if not used:
        return inverse_distances
    weights, power = error.weights(moves)
    return partial(scaled_distances, weights=tuple(weights.tolist()), power=power)


def _best(
    error: LeaveOneOut, moves: np.ndarray, until: float, report: Progress, done: float
) -> np.ndarray:
    """The moves (C + 1,) of `LeaveOneOut` with the smallest error.

    Args:
        error: the function to minimise.
        moves: (C + 1,) initial logarithms of the weights and of the power.
        until: value of `time.perf_counter` at which the search ends.
        report: function called with the name of the phase and its finished fraction.
        done: finished fraction at the start.
    """
    steps = itertools.count(1)

    def after_step(_: np.ndarray) -> None:
        report("learning the metric", done + next(steps) / (2.1 * MAX_STEPS))
        if time.perf_counter() > until:
            raise StopIteration

    return scipy.optimize.minimize(
        error,
        moves,
        jac=True,
        method="L-BFGS-B",
        bounds=[LIMITS[0]] * (len(moves) - 1) + [LIMITS[1]],
        callback=after_step,
        options={"maxiter": MAX_STEPS, "ftol": 1e-4},
    ).x


# -- compiled parts ----------------------------------------------------------------------------


def _weights(moves: Array, classes: Array, centres: Array) -> tuple[Array, Array]:
    # The slope of an entry by x at the centre of its class is the weight of the class, so that the
    # power changes the curvature alone.
    power = jnp.exp(moves[-1])
    return jnp.exp(moves[classes]) * centres ** (1.0 - power) / power, power


@jax.jit
def _kernel(moves, distances, jacobians, entries, classes, centres) -> Array:
    """The kernel matrix (MW, MW) for moves (C + 1,) of `LeaveOneOut`, without λ."""
    weights, power = _weights(moves, classes, centres)
    x = weights * distances**power
    A = (weights * power * distances ** (power - 1.0))[..., None] * jacobians
    x = x - x.mean(axis=0)[entries].mean(axis=0)
    count, _, width = A.shape
    sigma = jnp.asarray(SIGMA)
    at_once = max(1, int(_BYTES // (A.itemsize * entries.size * width)))

    def part(row, columns):
        return blocks((row[0][None], row[1][None]), columns, entries, sigma, False)[0]

    @jax.checkpoint
    def strip(row):
        if at_once >= count:
            return part(row, (x, A))
        one = jax.lax.map(
            lambda column: part(row, jax.tree.map(lambda a: a[None], column))[:, 0],
            (x, A),
            batch_size=at_once,
        )
        return one.transpose(1, 0, 2)

    return jax.lax.map(strip, (x, A)).reshape(count * width, count * width)


@jax.jit
def _pulled_back(by_kernel, moves, *arrays) -> Array:
    """Derivative (C + 1,) by the moves, from the derivative (MW, MW) by the kernel matrix."""
    return jax.vjp(lambda moves: _kernel(moves, *arrays), moves)[1](by_kernel)[0]
