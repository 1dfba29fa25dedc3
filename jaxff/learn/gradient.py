"""Stochastic gradient descent by optax, with validation, restarts and exact resumption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.learn.problem import Frames, Problem

ENERGY_WEIGHT = 0.1  # 1/Å²
SLOWER = 0.3  # factor on the updates after each return to the best
SETTLED = 0.01  # relative change of the loss, mean of five epochs, by which it is at rest


class Labels(NamedTuple):
    """Energies (B,) kcal/mol, their mean removed, and forces (B, N, 3) kcal/mol/Å of a batch."""

    energies: jax.Array
    forces: jax.Array


Loss = Callable[[Labels, Labels], jax.Array]


def force_matching(energy_weight: float = ENERGY_WEIGHT) -> Loss:
    """The loss mean|ΔF|² + energy_weight · mean ΔE², in (kcal/mol/Å)²; weight in 1/Å²."""

    def loss(predicted: Labels, reference: Labels) -> jax.Array:
        force = jnp.mean((predicted.forces - reference.forces) ** 2)
        return force + energy_weight * jnp.mean((predicted.energies - reference.energies) ** 2)

    return loss


@dataclass
class State:
    """Where the descent is between two epochs.

    Attributes:
        vector: (P,) moves; best: (P,) those of the best epoch; best_error: its error.
        optimizer: the leaves of the optimiser's state.
        pace: factor on the updates.
        waited: epochs since the best one or the last return to it.
        returns: returns to the best so far.
        losses, valid: by epoch.
        shares: effective share of the ensembles' frames after each epoch, if there are any.
        draws: of frames up to each epoch.
        samples: the ensembles' frames, as arrays.
    """

    vector: np.ndarray
    best: np.ndarray
    optimizer: list[np.ndarray]
    best_error: float = np.inf
    pace: float = 1.0
    waited: int = 0
    returns: int = 0
    losses: list[float] = field(default_factory=list)
    valid: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    draws: list[int] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)


class Descent:
    """A problem, a loss and an optimiser.

    Args:
        problem: molecules, frames and free parameters.
        loss: of a batch.
        optimizer: any optax optimiser of the moves.
        batch: frames a step, all of one molecule.
        seed: of the order of frames.
    """

    def __init__(
        self,
        problem: Problem,
        loss: Loss,
        optimizer: optax.GradientTransformation,
        batch: int,
        seed: int,
    ):
        self.problem, self.optimizer, self.seed = problem, optimizer, seed
        # A molecule with fewer frames takes part with all of them at once.
        self.sizes = [min(batch, len(own)) for own in problem.data]
        # Any loss must see the real atoms alone: a compiled function for each number of atoms.
        sweeps = [
            jax.jit(partial(self._sweep, loss, group), static_argnames=("n_atoms", "with_energies"))
            for group in problem.groups
        ]
        self._sweeps = {}
        for g, k, group, arrays in problem.molecules():
            own = problem.data[k]
            most = max(len(problem.data[m]) for m in group.members)
            nothing = np.zeros((0, group.n_atoms, 3))
            self._sweeps[k] = partial(
                sweeps[g],
                arrays=arrays,
                frames=next(
                    problem.chunks(group, own, most),
                    Frames(nothing, np.zeros(0), nothing, np.zeros(0)),
                ),
                n_atoms=own.n_atoms,
                with_energies=own.energies is not None,
            )

    def start(self) -> State:
        """The state before the first epoch."""
        vector = np.asarray(self.problem.start)
        leaves = jax.tree.leaves(self.optimizer.init(self.problem.start))
        return State(vector, vector, [np.asarray(leaf) for leaf in leaves])

    def _sweep(self, loss, group, vector, state, pace, orders, samples, *, frames, **molecule):
        """An update by each batch (L, B) of frames; `samples` are those of the ensembles."""

        def step(carry, order):
            own = jax.tree.map(lambda x: x[order], frames)
            *carry, value = self._step(loss, group, *carry, pace, samples, own, **molecule)
            return tuple(carry), value

        (vector, state), values = jax.lax.scan(step, (vector, state), orders)
        return vector, state, values

    def _step(
        self, loss: Loss, group, vector, state, pace, samples, frames, *, arrays, n_atoms,
        with_energies,
    ):  # fmt: skip
        problem = self.problem

        def labels(energies, forces) -> Labels:
            centred = energies - energies.mean()
            return Labels(centred if with_energies else 0.0 * centred, forces[:, :n_atoms])

        def objective(vector):
            value = sum(jnp.sum(r(vector) ** 2) for r in problem.targets)
            value += problem.ensembles.value(vector, samples)
            if not len(frames.R):
                return value
            one = partial(problem.energy_and_forces, group, vector, arrays)
            predicted = labels(*jax.vmap(one)(frames.R))
            return value + loss(predicted, labels(frames.E, frames.F))

        value, gradient = jax.value_and_grad(objective)(vector)
        updates, state = self.optimizer.update(gradient, state, vector)
        moved = problem.unravel(vector + pace * updates)
        return ravel_pytree(problem.free.confined(moved))[0], state, value

    def epoch(self, state: State) -> None:
        """Pass once over all frames; `state` is changed, by its losses too."""
        rng = np.random.default_rng([self.seed, len(state.losses)])
        ensembles = self.problem.ensembles
        # Of one molecule each: all its batches if nothing needs a look between, or else one batch.
        blocks = []
        for k, (own, size) in enumerate(zip(self.problem.data, self.sizes, strict=True)):
            if not size:
                continue
            orders = rng.permutation(len(own))[: len(own) // size * size].reshape(-1, size)
            alone = len(self.sizes) == 1 and not ensembles
            blocks += [(k, orders)] if alone else [(k, order[None]) for order in orders]
        if not any(self.sizes):  # the targets alone
            blocks = [(0, np.zeros((1, 0), int))]
        tree = jax.tree.structure(self.optimizer.init(self.problem.start))
        vector, optimizer = state.vector, jax.tree.unflatten(tree, state.optimizer)
        values = []
        for b in rng.permutation(len(blocks)):
            k, orders = blocks[b]
            ensembles.refresh(vector)
            vector, optimizer, value = self._sweeps[k](
                vector, optimizer, state.pace, orders, ensembles.samples
            )
            values.append(value)
        mean = float(np.concatenate(jax.device_get(values)).mean())
        if not np.isfinite(mean):
            raise InputError(
                f"the loss is not finite in epoch {len(state.losses) + 1}: lower the optimiser's "
                "learning rate"
            )
        state.vector = np.asarray(vector)
        state.optimizer = [np.asarray(leaf) for leaf in jax.tree.leaves(optimizer)]
        state.losses.append(mean)
        if ensembles:
            ensembles.log(state)

    def run(
        self,
        state: State,
        epochs: int,
        valid: Sequence[Dataset] | None,
        patience: int,
        returns: int,
        after: Callable[[State], None] = lambda state: None,
    ) -> bool:
        """Pass over the frames until `epochs`; whether it came to rest.

        That is: it stopped by itself, or the loss of the last epochs hardly changes.  Where the
        error on `valid` has not fallen for `patience` epochs, the descent goes on from the best
        with smaller updates, and after so many `returns` it stops.
        """
        self.problem.ensembles.restore(state.samples)
        while len(state.losses) < epochs:
            if state.waited >= patience:
                if state.returns >= returns:
                    return True
                state.vector, state.waited = state.best, 0
                state.pace *= SLOWER
                state.returns += 1
            self.epoch(state)
            error = -float(len(state.losses))  # without validation the latest is the best
            if valid is not None:
                error = self.problem.force_rmse(state.vector, valid)
                state.valid.append(error)
            if error < state.best_error:
                state.best, state.best_error, state.waited = state.vector, error, 0
            else:
                state.waited += 1
            after(state)
        last = state.losses[-10:]
        if len(last) < 10:
            return False
        first, second = np.mean(last[:5]), np.mean(last[5:])
        return abs(first - second) <= SETTLED * abs(second)
