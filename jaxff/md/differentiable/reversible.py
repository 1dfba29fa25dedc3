"""Gradients of trajectories by integrating the motion backwards.

The inverse of a step of velocity Verlet is a step backwards in time.  A step of BAOAB has an
inverse for known noise, which is computed again from its key.
Source: Greener, Chem. Sci. 15, 4897 (2024), for the adjoint steps.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from jaxff.md.differentiable.steps import (
    Around,
    Inputs,
    Setup,
    dense,
    each_replica,
    loop,
    pull,
    split,
    step,
    values_of,
)  # fmt: skip
from jaxff.md.ensembles import Ensemble
from jaxff.potential import Params

# Largest error of the backward motion at a frame, Å; with a larger error the gradient is NaN.
MISS = 1e-3


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def run(setup: Setup, params: Params, inputs: Inputs, miss, around: Around):
    """Positions and momenta (F, ..., N, 3) of F frames; see `rollout_and_miss`."""
    return loop(setup, params, inputs, around, checkpoint=False)


def _forwards(setup: Setup, params, inputs, miss, around):
    moving, fixed, params = split(params)
    inputs, around = values_of(inputs), values_of(around)
    frames = loop(setup, params, inputs, around, checkpoint=False)
    return frames, (moving, fixed, inputs, frames, around)


def _backwards(setup: Setup, kept, cotangents):
    """Return cotangents of parameters, inputs and `miss`, by one backward pass.

    The last half kick of a step and the first half kick of the next step share one evaluation of
    the forces.  At each recorded frame the backward motion restarts from that frame.
    """
    moving, fixed, inputs, (recorded_R, recorded_p), around = kept
    bar_frames, each = [dense(bar) for bar in cotangents], each_replica(inputs)
    ensemble, plan = setup.ensemble, setup.plan

    def energy(params, R):
        def one(R):
            return setup.program.energy(params, R, around.box, around.neighbor)

        return jnp.sum(each(one)(R))

    def one_step(i, carry):
        """Compute the state after step k − 1 from the state after step k.

        `kicked` are the momenta after the kick of step k.  Names with `bar` are cotangents.
        """
        R, kicked, bar_R, bar_kicked, bars, miss = carry
        k = plan.steps - i
        frame, recorded = k // plan.every, k % plan.every == 0
        frame_R, frame_p = recorded_R[frame], recorded_p[frame]
        miss = jnp.where(recorded & (i > 0), jnp.maximum(miss, jnp.abs(R - frame_R).max()), miss)
        R = jnp.where(recorded, frame_R, R)
        bar_R = bar_R + jnp.where(recorded, bar_frames[0][frame], 0.0)
        bar_p = bar_kicked + jnp.where(recorded, bar_frames[1][frame], 0.0)

        bar_F = 0.5 * (bar_kicked + jnp.where(k > 0, bar_p, 0.0))
        F, bar_moving, more = pull(energy, moving, fixed, R, bar_F)
        bar_R = bar_R + more
        flowed = jnp.where(recorded, frame_p - 0.5 * F, kicked - F)

        def flow(R, kicked, masses, bath):
            changed = inputs._replace(masses=masses, bath=bath)
            return each(partial(_flow, ensemble, k - 1))(R, kicked, changed)

        before = each(partial(_unflow, ensemble, k - 1))(R, flowed, inputs)
        _, pull_flow = jax.vjp(flow, *before, inputs.masses, inputs.bath)
        bar = pull_flow(tuple(jnp.where(k > 0, x, 0.0) for x in (bar_R, bar_p)))
        bars = jax.tree.map(jnp.add, bars, (bar_moving, *bar[2:]))
        last = (R, flowed, bar_R, bar_p)
        here = (jnp.where(k > 0, x, y) for x, y in zip((*before, *bar[:2]), last, strict=True))
        return (*here, bars, miss)

    zeros = jax.tree.map(jnp.zeros_like, (moving, inputs.masses, inputs.bath))
    zero = jnp.zeros_like(inputs.positions)
    carry = (zero, zero, zero, zero, zeros, jnp.zeros((), zero.dtype))
    *_, bar_R, bar_p, bars, miss = jax.lax.fori_loop(0, plan.steps + 1, one_step, carry)
    bad = jnp.where(miss <= MISS, 0.0, jnp.nan).astype(miss.dtype)
    bar_R, bar_p, bars = jax.tree.map(lambda x: x + bad.astype(x.dtype), (bar_R, bar_p, bars))
    bar_moving, bar_masses, bar_bath = bars
    # The first forces depend on positions and parameters, whose cotangents they increase.
    return bar_moving, Inputs(bar_R, bar_p, None, bar_masses, bar_bath, None), miss, None


run.defvjp(_forwards, _backwards, symbolic_zeros=True)


def _flow(ensemble: type[Ensemble], t, R, p, inputs: Inputs):
    """Positions and momenta (N, 3) after step t without its kicks, from R and p."""
    zero = jnp.zeros_like(R)
    return step(ensemble, lambda R: zero, t, None, (R, p, zero), inputs)[:2]


def _unflow(ensemble: type[Ensemble], t, R, p, inputs: Inputs):
    """Inverse of `_flow`: the positions and momenta (N, 3) before the step.

    `_flow` moves the positions by half a step, scales the momenta and adds noise, and then moves
    the positions by another half step.
    """
    zero = jnp.zeros_like(R)
    _, noise = _flow(ensemble, t, zero, zero, inputs)
    before = (p - noise) * ensemble.inverse_scale(inputs.bath)
    return R - 0.5 * (before + p) / inputs.masses, before
