"""Gradients of trajectories, and whether they can be trusted.

In chaotic motion, a small change of the start grows exponentially, and so do gradients.  Such a
gradient is exact, but valid for tiny changes only.  The growth of a small change shows for how long
a gradient is useful.
Source: Metz et al., arXiv:2111.05803.
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
        growth: (L,) factor by which a small random change of the start has grown at these times.
            The norm of changes δr and δv is √Σ m (δr²/τ² + δv²) with masses m and τ = 5.3 fs; the
            largest growth of the replicas is used.
        exponent: finite-time Lyapunov exponent ln(growth)/time at the end, 1/fs.
        horizon: first time with a growth above `limit` · (1 + time/τ), fs; infinite if there is
            none.  Without forces the growth is at most 1 + time/τ.
        miss: largest error of the backward motion of the method "reversible", Å; None for other
            methods.
        trusted: whether the trajectory ends before the horizon, `miss` is at most 1e-3 Å, and value
            and gradient are finite.
        reason: why the gradient is not trusted, or "".
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
        params: {term: {column: array}}, derivatives by the free parameters.  The unit is that of
            the loss divided by that of the parameter.  Rows that are not free are zero.
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
    """Compute a loss of a trajectory and its gradient, and check the gradient.

    Args:
        loss: function from the `Trajectory` to a scalar (), differentiable by JAX.
        potential: a potential of N atoms.
        start, ensemble, plan, masses: see `rollout`.  The method "forward" needs one tangent for
            each parameter.
        trainable: patterns of parameter names such as ["bond.k", "bond.k:c3-oh"], see `jaxff.fit`
            (None: the parameters that each term declares trainable).
        limit: see `Trust.horizon`.

    Raises:
        InputError: no parameter is free, or an argument of `rollout` is invalid.

    Warns:
        UntrustedWarning: the gradient must not be trusted.
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
    """Compute times (L,) fs and growth (L,) of a small random change of the start.

    Args:
        potential, start, ensemble, masses: see `rollout`.
        steps: number of steps; L is about 50.

    Raises:
        InputError: an argument of `rollout` is invalid.
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
    """Return a mask for an array: True in all rows, or where `rows` (n,) is True."""
    if rows is None:
        return np.ones(array.shape, bool)
    return np.broadcast_to(rows.reshape(-1, *(1,) * (array.ndim - 1)), array.shape)


def _forward(function, theta, masks):
    """Return value and gradient of a function of arrays, by forward mode.

    Args:
        function: function from a tree of arrays to a scalar ().
        theta: tree of arrays.
        masks: tree of masks of the entries that are free.
    """
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
            f"the motion is chaotic, because small changes grow {growth[-1]:.2g} times in "
            f"{times[-1]:g} fs: use less than {horizon:g} fs, or fit averages by reweighting"
        )
    if miss is not None and not miss <= MISS:
        reasons.append(
            f"the backward motion has an error of {miss:.2g} Å (limit {MISS:g} Å): record more "
            'frames, compute in float64, or use the method "checkpoint"'
        )
    if not finite and not reasons:
        reasons.append("the loss or its gradient is not finite: check the loss and the start")
    return Trust(times, growth, exponent, horizon, miss, not reasons, "; ".join(reasons))
