"""Fits by stochastic gradient descent with optax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.learn.checkpoint import resumed
from jaxff.learn.problem import Frames, Problem
from jaxff.learn.settings import Gradient
from jaxff.learn.state import Solution, State
from jaxff.store import Store

SLOWER = 0.3  # factor on the updates after each return to the best epoch
SETTLED = 0.01  # relative change between means of five losses below which the fit has converged


class Labels(NamedTuple):
    """Labels of a batch: energies (B,) kcal/mol minus their mean, forces (B, N, 3) kcal/mol/Å."""

    energies: jax.Array
    forces: jax.Array


Loss = Callable[[Labels, Labels], jax.Array]


def force_matching(energy_weight: float = Gradient.energy_weight) -> Loss:
    """Return the loss function mean ΔF² + energy_weight · mean ΔE², in (kcal/mol/Å)².

    ΔF are the errors of the force components and ΔE those of the energies.  The weight is in 1/Å².
    """

    def loss(predicted: Labels, reference: Labels) -> jax.Array:
        force = jnp.mean((predicted.forces - reference.forces) ** 2)
        return force + energy_weight * jnp.mean((predicted.energies - reference.energies) ** 2)

    return loss


@dataclass(kw_only=True)
class Epochs(State):
    """State of the descent between two epochs.

    Attributes:
        best: (P,) moves (scaled changes of the parameters) after the best epoch.
        best_error: validation error after the best epoch.
        optimizer: leaves of the state of the optimiser.
        pace: factor of the updates.
        waited: number of epochs since the best epoch, or since the last return to the best epoch.
        returns: number of returns to the moves of the best epoch.
    """

    best: np.ndarray
    optimizer: list[np.ndarray]
    best_error: float = np.inf
    pace: float = 1.0
    waited: int = 0
    returns: int = 0


class _Kind(NamedTuple):
    """Properties of a molecule on which a compiled function depends."""

    n_atoms: int
    with_energies: bool


def minimise(
    problem: Problem,
    settings: Gradient,
    valid: Sequence[Dataset] | None,
    store: Store,
    progress: Callable[[str, float], None],
) -> Solution:
    """Minimise the loss of a problem by gradient descent.

    Args:
        problem: molecules, frames and free parameters.
        settings: see `Gradient`.
        valid: validation frames of each molecule, which determine the best epoch (None: the last
            epoch is the best).
        store: store of the state.
        progress: function called after each epoch with the name of a phase and its finished
            fraction.

    Raises:
        InputError: the loss is not finite, or the state in the store belongs to another fit.
    """
    descent = Descent(problem, settings)
    initial = descent.start()
    state = resumed(store, initial, {"optimizer": initial.optimizer})

    def after_epoch() -> None:
        store.save(vars(state))
        progress(state.phase, len(state.losses) / settings.epochs)

    converged = descent.run(state, valid, after_epoch)
    return Solution(state.best, state, converged)


class Descent:
    """Gradient descent on the loss of a problem.

    Args:
        problem: molecules, frames and free parameters.
        settings: see `Gradient`.
    """

    def __init__(self, problem: Problem, settings: Gradient):
        self.problem, self.settings = problem, settings
        self.loss = settings.loss or force_matching(settings.energy_weight)
        # A molecule with fewer frames contributes all of them to each of its steps.
        self.sizes = [min(settings.batch, len(data)) for data in problem.data]
        self.optimizer = settings.optimizer or self._adam()
        # The loss must not contain ghost atoms: one compiled function for each number of atoms.
        sweeps = [
            jax.jit(partial(self._sweep, group), static_argnames="kind") for group in problem.groups
        ]
        self._sweeps = {}
        for g, k, group, program in problem.molecules():
            data = problem.data[k]
            most = max(len(problem.data[m]) for m in group.members)
            no_forces, no_energies = jnp.zeros((0, group.n_atoms, 3)), jnp.zeros(0)
            no_frames = Frames(no_forces, no_energies, no_forces, no_energies)
            frames = next(problem.chunks(group, data, most), no_frames)
            kind = _Kind(data.n_atoms, data.energies is not None)
            self._sweeps[k] = partial(sweeps[g], program=program, frames=frames, kind=kind)

    def _adam(self) -> optax.GradientTransformation:
        pairs = zip(self.problem.data, self.sizes, strict=True)
        count = sum(len(data) // size for data, size in pairs if size) or 1
        schedule = optax.cosine_decay_schedule(0.05, self.settings.epochs * count)
        return optax.chain(optax.adam(schedule), optax.clip(0.1))

    def start(self) -> Epochs:
        """Return the state before the first epoch."""
        vector = np.asarray(self.problem.start)
        leaves = jax.tree.leaves(self.optimizer.init(self.problem.start))
        return Epochs(vector=vector, best=vector, optimizer=[np.asarray(leaf) for leaf in leaves])

    def _sweep(self, group, carry, pace, orders, samples, *, frames, program, kind: _Kind):
        """Take a step with each batch of frames of one molecule.

        Args:
            group: molecules that share a compiled function.
            carry: moves (P,) and state of the optimiser.
            pace: factor of the updates.
            orders: (L, B) indices of the frames of each batch.
            samples: frames of the ensembles.
            frames: all frames of the molecule.
            program: padded program of the molecule, or None for that of the group.
            kind: see `_Kind`.

        Returns:
            The new moves and state of the optimiser, and the loss (L,) before each step.
        """
        problem = self.problem

        def labels(energies, forces) -> Labels:
            centred = energies - energies.mean()
            energies = centred if kind.with_energies else 0.0 * centred
            return Labels(energies, forces[:, : kind.n_atoms])

        def objective(vector, batch: Frames):
            value = sum(jnp.sum(r(vector) ** 2) for r in problem.targets)
            value += problem.ensembles.value(vector, samples)
            if not len(batch.R):
                return value
            one = partial(problem.energy_and_forces, group, vector, program)
            predicted = labels(*jax.vmap(one)(batch.R))
            return value + self.loss(predicted, labels(batch.E, batch.F))

        def step(carry, order):
            vector, state = carry
            batch = jax.tree.map(lambda x: x[order], frames)
            value, gradient = jax.value_and_grad(objective)(vector, batch)
            updates, state = self.optimizer.update(gradient, state, vector)
            moved = problem.unravel(vector + pace * updates)
            return (ravel_pytree(problem.free.confined(moved))[0], state), value

        return jax.lax.scan(step, carry, orders)

    def epoch(self, state: Epochs) -> None:
        """Take a step with each batch of frames, and change `state` in place.

        Raises:
            InputError: the loss is not finite.
        """
        rng = np.random.default_rng([self.settings.seed, len(state.losses)])
        ensembles = self.problem.ensembles
        # A block contains batches of one molecule. A single molecule without ensembles has one
        # block. Otherwise each batch is a block, so that molecules mix and frames can be drawn.
        blocks = []
        for k, (data, size) in enumerate(zip(self.problem.data, self.sizes, strict=True)):
            if not size:
                continue
            orders = rng.permutation(len(data))[: len(data) // size * size].reshape(-1, size)
            alone = len(self.sizes) == 1 and not ensembles
            blocks += [(k, orders)] if alone else [(k, order[None]) for order in orders]
        if not any(self.sizes):  # only targets, no frames
            blocks = [(0, np.zeros((1, 0), int))]
        tree = jax.tree.structure(self.optimizer.init(self.problem.start))
        carry = state.vector, jax.tree.unflatten(tree, state.optimizer)
        values = []
        for b in rng.permutation(len(blocks)):
            k, orders = blocks[b]
            ensembles.refresh(carry[0])
            carry, value = self._sweeps[k](carry, state.pace, orders, ensembles.samples)
            values.append(value)
        mean = float(np.concatenate(jax.device_get(values)).mean())
        if not np.isfinite(mean):
            raise InputError(
                f"the loss is not finite in epoch {len(state.losses) + 1}: give an optimizer with "
                "a lower learning rate"
            )
        state.vector = np.asarray(carry[0])
        state.optimizer = [np.asarray(leaf) for leaf in jax.tree.leaves(carry[1])]
        state.losses.append(mean)
        if ensembles:
            ensembles.log(state)

    def run(
        self, state: Epochs, valid: Sequence[Dataset] | None, after: Callable[[], None]
    ) -> bool:
        """Run epochs until the last one, or until the restarts are used up.

        Args:
            state: the initial state, which is changed in place.
            valid: validation frames of each molecule, or None.
            after: function called after each epoch.

        Returns:
            Whether the descent converged. This means that the restarts are used up, or that the
            mean loss of five epochs changed by at most 1 %.
        """
        settings = self.settings
        patience = settings.patience or max(1, settings.epochs // 5)
        self.problem.ensembles.restore(state.samples)
        while len(state.losses) < settings.epochs:
            if state.waited >= patience:
                if state.returns >= settings.restarts:
                    return True
                state.vector, state.waited = state.best, 0
                state.pace *= SLOWER
                state.returns += 1
            self.epoch(state)
            error = -float(len(state.losses))  # without validation the last epoch is the best
            if valid is not None:
                error = self.problem.force_rmse(state.vector, valid)
                state.valid.append(error)
            if error < state.best_error:
                state.best, state.best_error, state.waited = state.vector, error, 0
            else:
                state.waited += 1
            after()
        last = state.losses[-10:]
        if len(last) < 10:
            return False
        first, second = np.mean(last[:5]), np.mean(last[5:])
        return bool(abs(first - second) <= SETTLED * abs(second))
