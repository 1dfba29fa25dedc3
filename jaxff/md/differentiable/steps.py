"""Steps of a rollout, with their forces and derivatives."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxff.errors import InputError
from jaxff.md.ensembles import Ensemble
from jaxff.md.integrators import Bath, Core, Scheme
from jaxff.potential import Params, Program
from jaxff.settings import Settings, choice, count

METHODS = ("checkpoint", "reversible", "forward")


@dataclass(frozen=True)
class Plan(Settings):
    """Steps and recorded frames of a rollout, and the method of differentiation.

    Attributes:
        steps: number of steps, a multiple of `every`.
        every: number of steps between recorded frames.
        method: "checkpoint", "reversible" or "forward", see `jaxff.md.differentiable.rollouts`.
            Only "forward" can be used in forward mode (`jax.jvp`).
        segment: number of steps in a segment of "checkpoint", a divisor of `every`.  None: the
            divisor nearest to the square root of `every`.

    Raises:
        InputError: `every` does not divide `steps`, `segment` does not divide `every`, or the
            method is unknown.
    """

    steps: int = count(1000)
    every: int = count(10)
    method: str = choice("checkpoint", METHODS)
    segment: int | None = count(None)

    def __post_init__(self):
        super().__post_init__()
        if self.segment is None:
            segment = divisor_near(self.every, math.sqrt(self.every))
            object.__setattr__(self, "segment", segment)
        values = asdict(self)
        for large, small in (("steps", "every"), ("every", "segment")):
            if values[large] % values[small]:
                raise InputError(
                    f"{large} ({values[large]}) must be a multiple of {small} ({values[small]})"
                )


def divisor_near(number: int, wanted: float) -> int:
    """Return the divisor of `number` whose ratio to `wanted` is nearest to one."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return min(divisors, key=lambda d: abs(math.log(d / wanted)))


class Setup(NamedTuple):
    """Choices that determine the compiled code."""

    program: Program
    ensemble: type[Ensemble]
    plan: Plan


class Inputs(NamedTuple):
    """Arrays that determine a trajectory; replicas add a leading axis.

    The unit of time in momenta and masses is the time step.

    Attributes:
        positions: (N, 3) Å.
        momenta: (N, 3) kcal/mol step/Å.
        forces: (N, 3) kcal/mol/Å at the positions.
        masses: (N, 1) kcal/mol (step/Å)².
        bath: settings of the thermostat.
        key: JAX random key of the noise.
    """

    positions: Any
    momenta: Any
    forces: Any
    masses: Any
    bath: Bath
    key: Any


class Around(NamedTuple):
    """The surroundings of the atoms, which have no derivatives and are the same for all replicas.

    Attributes:
        box: (3, 3) Å, lattice vectors as rows, or None.
        neighbor: a neighbour list that is valid for all steps, or None.
        rigid: constraints and virtual sites, or None.
    """

    box: Any = None
    neighbor: Any = None
    rigid: Any = None

    def checked(self, frames):
        """Positions and momenta, NaN from the frame on at which the list may lack pairs."""
        if self.neighbor is None:
            return frames
        R, momenta = frames
        shape = R.shape[:-2]
        flat = jax.lax.stop_gradient(R).reshape(-1, *R.shape[-2:])
        stale = jax.vmap(lambda R: self.neighbor.stale(R, self.box))(flat).reshape(shape)
        bad = jnp.where(jnp.cumsum(stale, axis=0) > 0, jnp.nan, 0.0).astype(R.dtype)
        return R + bad[..., None, None], momenta + bad[..., None, None]


def loop(setup: Setup, params: Params, inputs: Inputs, around: Around, checkpoint: bool):
    """Run all steps, and return positions and momenta (F, ..., N, 3) of F frames.

    With `checkpoint`, a gradient stores only the start of each segment.
    """
    plan = setup.plan
    compute = pulled_forces if checkpoint else forces
    each = each_replica(inputs)

    def force_fn(R):
        return compute(setup.program, params, R, around)

    def one_step(core, t):
        return each(partial(step, setup.ensemble, force_fn, t, around.rigid))(core, inputs), None

    def one_segment(core, first):
        return jax.lax.scan(one_step, core, first + jnp.arange(plan.segment))[0], None

    if checkpoint:
        one_segment = jax.checkpoint(one_segment, prevent_cse=False)

    def one_frame(core, first):
        firsts = first + jnp.arange(0, plan.every, plan.segment)
        core, _ = jax.lax.scan(one_segment, core, firsts)
        return core, core[:2]

    core = inputs[:3]
    _, frames = jax.lax.scan(one_frame, core, jnp.arange(0, plan.steps, plan.every))
    frames = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), core[:2], frames)
    return around.checked(frames)


def step(ensemble: type[Ensemble], force_fn, t, rigid, core, inputs: Inputs):
    """Return positions, momenta and forces (N, 3) after one step.

    Args:
        ensemble: class of the ensemble.
        force_fn: function from positions (N, 3) Å to forces (N, 3) kcal/mol/Å.
        t: () integer, number of earlier steps.
        rigid: constraints and virtual sites, or None.
        core: positions, momenta and forces (N, 3) before the step.
        inputs: masses, thermostat and key.
    """
    scheme = Scheme(ensemble)
    R, momenta, force = core
    state = ensemble.initial_state(
        Core(R, momenta, force, inputs.masses), inputs.key, inputs.bath, scheme
    )
    state = ensemble.step(force_fn, state, inputs.bath, t, scheme, rigid)
    return state.position, state.momentum, state.force


def each_replica(inputs: Inputs):
    """Return `jax.vmap` if there are replicas, and otherwise the identity."""
    return jax.vmap if inputs.positions.ndim == 3 else lambda function: function


def forces(program: Program, params: Params, R, around: Around):
    """Forces (N, 3) kcal/mol/Å of a program with parameters at R (N, 3) Å."""
    return -jax.grad(program.energy, argnums=1)(params, R, around.box, around.neighbor)


# Forces for reverse mode: they store R only and cost less than the derivative of `forces`.
pulled_forces = jax.custom_vjp(forces, nondiff_argnums=(0,))


def _forces_forwards(program: Program, params, R, around):
    moving, fixed, params = split(params)
    around = values_of(around)
    return forces(program, params, R.value, around), (moving, fixed, R.value, around)


def _forces_backwards(program: Program, kept, bar):
    moving, fixed, R, around = kept

    def energy(params, R):
        return program.energy(params, R, around.box, around.neighbor)

    return *pull(energy, moving, fixed, R, dense(bar))[1:], None


pulled_forces.defvjp(_forces_forwards, _forces_backwards, symbolic_zeros=True)


def pull(energy, moving, fixed, R, bar):
    """Compute forces at R, and the cotangents of parameters and positions.

    As second derivatives are symmetric, the result is minus the derivative of the energy's gradient
    along `bar`.

    Args:
        energy: function of parameters and positions R.
        moving: parameters that need a gradient; None in place of all other parameters.
        fixed: parameters that need no gradient; None in place of those in `moving`.
        R: (..., N, 3) Å.
        bar: (..., N, 3) cotangent of the forces.

    Returns:
        Forces, cotangents of `moving`, and cotangent of R.
    """

    def slopes(R):
        def joined(moving, R):
            params = jax.tree.map(lambda m, f: f if m is None else m, moving, fixed, is_leaf=_none)
            return energy(params, R)

        return jax.grad(joined, argnums=(0, 1))(moving, R)

    (_, slope), changes = jax.jvp(slopes, (R,), (bar,))
    return -slope, *jax.tree.map(jnp.negative, changes)


def split(params):
    """Return trees of the parameters that need a gradient, of the others, and of all.

    The first two trees contain None in place of the parameters of the other tree.

    Args:
        params: tree of values from `jax.custom_vjp` with `symbolic_zeros`.
    """
    moving = jax.tree.map(lambda x: x.value if x.perturbed else None, params, is_leaf=_primal)
    fixed = jax.tree.map(lambda x: None if x.perturbed else x.value, params, is_leaf=_primal)
    return moving, fixed, values_of(params)


def values_of(tree):
    """Return the arrays of values from `jax.custom_vjp` with `symbolic_zeros`."""
    return jax.tree.map(lambda x: x.value, tree, is_leaf=_primal)


def dense(cotangent):
    """Return a cotangent as an array; a symbolic zero becomes zeros."""
    if isinstance(cotangent, SymbolicZero):
        aval: Any = cotangent.aval
        return jnp.zeros(aval.shape, aval.dtype)
    return cotangent


def _primal(x) -> bool:
    return hasattr(x, "perturbed")


def _none(x) -> bool:
    return x is None
