"""Gradients of trajectories, and whether they can be trusted.

In chaotic motion two trajectories that start close together separate exponentially.  A gradient
through such motion also grows exponentially.  It is exact, but valid for tiny changes only
(Metz et al., arXiv:2111.05803).  The growth of a small change of the start shows for how long
a gradient is useful.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxff.md.differentiable.reversible import MISS
from jaxff.md.differentiable.reweighting import UntrustedWarning
from jaxff.md.differentiable.rollouts import Trajectory, checked_arrays, rollout, rollout_and_miss
from jaxff.md.differentiable.steps import Plan, divisor_near
from jaxff.md.ensembles import NVE, Ensemble
from jaxff.md.settings import Start
from jaxff.parameters import FreeParameters
from jaxff.potential import Array, Potential

# Largest growth of a small change, in units of its growth without forces.
GROWTH = 100.0
# 1/(angular frequency) of a vibration at 1000 cm⁻¹, fs: converts velocities to lengths.
VIBRATION = 5.3
# Number of times at which the growth is computed.
LOOKS = 50


@dataclass(frozen=True)
class Trust:
    """Whether a gradient through a trajectory can be trusted.

    Attributes:
        times: (L,) fs.
        growth: (L,) factor by which a small random change of the start has grown, in the norm
            √Σ m (δr²/τ² + δv²), τ = 5.3 fs; the largest of the replicas.
        exponent: 1/fs, the finite-time Lyapunov exponent ln(growth)/time at the end.
        horizon: fs, first time with a growth above `limit` times 1 + time/τ, which is the largest
            growth without forces; infinite if there is none.
        miss: Å, distance by which the backward motion of the method "reversible" missed a frame;
            None for other methods.
        trusted: whether the run ends before the horizon, the miss is below 1e-3 Å, and value and
            gradient are finite.
        reason: why the gradient is not trusted; empty if it is.
    """

    times: np.ndarray
    growth: np.ndarray
    exponent: float
    horizon: float
    miss: float | None
    trusted: bool
    reason: str


class Gradient(NamedTuple):
    """A loss of a trajectory and its gradient.

    Attributes:
        value: the loss.
        params: {term: {column: array}} of the free parameters, in the unit of the loss divided by
            that of the parameter; zero for rows that are not free.
        trust: see `Trust`.
    """

    value: float
    params: dict[str, dict[str, Any]]
    trust: Trust


def value_and_gradient(
    loss: Callable[[Trajectory], Array],
    potential: Potential,
    start: Start,
    ensemble: Ensemble = NVE(),
    plan: Plan = Plan(),
    *,
    masses=None,
    trainable: Sequence[str] | None = None,
    limit: float = GROWTH,
) -> Gradient:
    """A loss of a trajectory, its gradient, and whether to trust the gradient.

    Costs one forward-mode rollout in addition to the gradient.

    Args:
        loss: a function that JAX can differentiate, from the `Trajectory` to a scalar ().
        potential: of N atoms.
        start, ensemble, plan, masses: as for `rollout`.  With the method "forward" the gradient is
            by forward mode, one tangent for each parameter.
        trainable: patterns of parameter names such as ["bond.k", "bond.k:c3-oh"], as in `fit`;
            None: the parameters that each term declares trainable.
        limit: see `Trust.horizon`.

    Raises:
        InputError: as `rollout`, or no parameter is free.

    Warns:
        UntrustedWarning: the gradient must not be trusted; the message says why.
    """
    free = FreeParameters.of(potential, trainable)
    theta = free.values(potential.params)
    masks = {key: _free_entries(x, free.rows.get(key)) for key, x in theta.items()}

    def loss_of(theta, miss):
        changed = Potential(potential.program, free.with_values(theta), potential.molecule)
        return loss(rollout_and_miss(changed, start, ensemble, plan, masses, miss))

    miss = None
    if plan.method == "forward":
        value, gradient = _forward(lambda theta: loss_of(theta, 0.0), theta, masks)
    elif plan.method == "reversible":
        value, (gradient, miss) = jax.value_and_grad(loss_of, argnums=(0, 1))(theta, 0.0)
    else:
        value, gradient = jax.value_and_grad(loss_of)(theta, 0.0)
    params: dict[str, Any] = {}
    for name, x in gradient.items():
        node: dict[str, Any] = params
        for key in name[:-1]:
            node = node.setdefault(key, {})
        node[name[-1]] = np.where(masks[name], x, 0.0)
    finite = all(np.isfinite(x).all() for x in jax.tree.leaves((value, params)))
    times, growth = perturbation_growth(potential, start, ensemble, plan.steps, masses=masses)
    miss = None if miss is None else float(miss)
    trust = _verdict(times, growth, miss, finite, limit)
    if not trust.trusted:
        warnings.warn(f"the gradient must not be trusted: {trust.reason}", UntrustedWarning, 2)
    return Gradient(float(value), params, trust)


def perturbation_growth(
    potential: Potential,
    start: Start,
    ensemble: Ensemble = NVE(),
    steps: int = 1000,
    *,
    masses=None,
) -> tuple[np.ndarray, np.ndarray]:
    """Times (L,) fs, and the growth (L,) of a small random change of the start.

    Args:
        potential, start, ensemble, masses: as for `rollout`.
        steps: number of steps; the growth is recorded about 50 times.
    """
    every = divisor_near(steps, max(steps / LOOKS, 1.0))
    plan = Plan(steps, every, "forward")
    *arrays, scale = checked_arrays(potential, start, masses, float)
    scale, rng = np.asarray(scale)[:, None], np.random.default_rng(0)
    changes = [
        jnp.asarray(length * rng.standard_normal(x.shape) / np.sqrt(scale), x.dtype)
        for length, x in zip((VIBRATION, 1.0), arrays, strict=True)
    ]

    def run(positions, velocities):
        moved = replace(start, positions=positions, velocities=velocities)
        return rollout(potential, moved, ensemble, plan, masses=masses)

    dR, dv = map(np.asarray, jax.jvp(run, arrays, changes)[1])
    with np.errstate(over="ignore", invalid="ignore"):
        square = np.sum(scale * ((dR / VIBRATION) ** 2 + dv**2), axis=(-2, -1), dtype=float)
        growth = np.sqrt(square / square[..., :1])
    growth = growth.max(axis=0) if growth.ndim == 2 else growth
    return every * float(ensemble.dt) * np.arange(len(growth)), growth


def _free_entries(array, rows) -> np.ndarray:
    """Mask in the shape of the array: True in all rows, or in those of `rows` (n,)."""
    if rows is None:
        return np.ones(array.shape, bool)
    return np.broadcast_to(rows.reshape(-1, *(1,) * (array.ndim - 1)), array.shape)


def _forward(function, theta, masks):
    """Value and gradient of a function of arrays, by forward mode in the free entries."""
    vector, arrays = ravel_pytree(theta)
    entries = np.flatnonzero(ravel_pytree(masks)[0])
    directions = np.zeros((len(entries), len(vector)), vector.dtype)
    directions[np.arange(len(entries)), entries] = 1.0

    def slope(direction):
        return jax.jvp(lambda vector: function(arrays(vector)), (vector,), (direction,))

    values, slopes = jax.vmap(slope)(jnp.asarray(directions))
    return values[0], arrays(jnp.zeros_like(vector).at[entries].set(slopes))


def _verdict(times, growth, miss, finite: bool, limit: float) -> Trust:
    past = ~(growth <= limit * (1.0 + times / VIBRATION))
    horizon = float(times[np.argmax(past)]) if past.any() else math.inf
    with np.errstate(divide="ignore"):
        exponent = float(np.log(growth[-1]) / times[-1])
    reasons = []
    if past.any():
        reasons.append(
            f"small changes grow by {growth[-1]:.2g} in {times[-1]:g} fs, and after {horizon:g} fs "
            f"more than {limit:g} times as much as without forces: the motion is chaotic, and the "
            "gradient is valid for tiny changes only; use fewer steps, or fit averages by "
            "reweighting"
        )
    if miss is not None and not miss <= MISS:
        reasons.append(
            f"the backward motion missed a frame by {miss:.2g} Å (allowed: {MISS:g} Å): record "
            'more often, compute in float64, or use the method "checkpoint"'
        )
    if not finite and not reasons:
        reasons.append("the loss or its gradient is not finite")
    return Trust(times, growth, exponent, horizon, miss, not reasons, "; ".join(reasons))
