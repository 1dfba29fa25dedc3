"""Fitting the parameters of a potential to reference energies and forces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.learn.evaluate import aligned, evaluate
from jaxff.learn.least_squares import Solution, levenberg_marquardt
from jaxff.learn.sanity import check_labels
from jaxff.parameters import FreeParameters
from jaxff.potential import Potential


class Labels(NamedTuple):
    """Energies (B,) kcal/mol, their mean removed, and forces (B, N, 3) kcal/mol/Å of a batch."""

    energies: jax.Array
    forces: jax.Array


Loss = Callable[[Labels, Labels], jax.Array]


METHODS = ("gradient", "least-squares")
ENERGY_WEIGHT = 0.1  # 1/Å²
PRIOR = 0.005  # (kcal/mol/Å)² of a move by one column scale


def force_matching(energy_weight: float = ENERGY_WEIGHT) -> Loss:
    """The loss mean|ΔF|² + energy_weight · mean ΔE², in (kcal/mol/Å)²; weight in 1/Å²."""

    def loss(predicted: Labels, reference: Labels) -> jax.Array:
        force = jnp.mean((predicted.forces - reference.forces) ** 2)
        return force + energy_weight * jnp.mean((predicted.energies - reference.energies) ** 2)

    return loss


@dataclass(frozen=True)
class Fit:
    """A fitted potential, and how it came about.

    Attributes:
        potential: the best potential found, by validation where there is one.
        history: {"loss": (epochs,), "valid_force_rmse": (epochs,)} (the latter if validated).
        trained: names of the parameters that were free.
        changes: each of their values: (name, label, start, fitted, standard error or None, unit).
        converged: whether the method came to rest by itself.
    """

    potential: Potential
    history: dict[str, np.ndarray]
    trained: tuple[str, ...]
    changes: tuple[Change, ...] = ()
    converged: bool = True


class Change(NamedTuple):
    """What a fit has made of one value; the error is that of the least-squares solution."""

    name: str
    label: str
    start: float
    fitted: float
    error: float | None
    unit: str


def fit(
    potential: Potential,
    train: Dataset,
    *,
    valid: Dataset | None = None,
    method: str = "gradient",
    optimizer: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
    trainable: Sequence[str] | None = None,
    epochs: int = 150,
    batch: int = 20,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Fit:
    """Fit the parameters of `potential` to a data set.

    Parameters move in units of their column's typical change, inside the column's bounds; total
    charges are conserved.  Atoms are matched through the molecular graph.

    Args:
        potential: the start.
        train: frames to fit.
        valid: frames that choose the best epoch; without them the last epoch counts.
        method: "gradient" (stochastic, by optax, for any loss), or "least-squares" (Levenberg and
            Marquardt's, in tens of steps, for physical forms of up to a few thousand values; its
            loss is that of `force_matching`, with a weak pull towards the start).
        optimizer: any optax optimiser of the scaled parameters; default Adam with a cosine
            schedule from 0.05 to 0.
        loss: default `force_matching()`.
        trainable: patterns of parameter names such as ``["bond.*", "torsion.k"]``; default: what
            each term declares trainable.
        epochs: passes over the training frames.
        batch: frames a step.
        seed: of the order of frames.
        progress: called with a phase and the fraction done.

    Raises:
        InputError: too few frames, no matching parameter, a loss that is not finite, or labels
            that cannot be meant: forces of the wrong sign or unit, frames far off all others.
    """
    if len(train) < 2:
        raise InputError(f"fitting needs at least 2 frames, {train.name or 'dataset'} gives 1")
    if method not in METHODS:
        raise InputError(f"method={method!r}: use {' or '.join(METHODS)}")
    batch = min(batch, len(train))
    steps = len(train) // batch
    data = aligned(train, potential)
    check_labels(potential, data)
    if method == "least-squares":
        if loss is not None or optimizer is not None:
            raise InputError(
                'method="least-squares" has its own loss: leave loss and optimizer out'
            )
        return _least_squares(potential, data, valid, trainable, progress)
    loss = loss or force_matching()
    if optimizer is None:
        optimizer = optax.adam(optax.cosine_decay_schedule(0.05, epochs * steps))
    free = FreeParameters.of(potential, trainable)
    with_energies = data.energies is not None

    def labels(energies, forces):
        centred = energies - energies.mean() if with_energies else jnp.zeros_like(energies)
        return Labels(centred, forces)

    def objective(moves, R, energies, forces):
        predicted = jax.vmap(potential.program.energy_and_forces, (None, 0))(free.params(moves), R)
        return loss(labels(*predicted), labels(energies, forces))

    def step(carry, frames):
        moves, state, R, E, F = carry
        value, gradient = jax.value_and_grad(objective)(moves, R[frames], E[frames], F[frames])
        updates, state = optimizer.update(gradient, state, moves)
        moves = free.confined(optax.apply_updates(moves, updates))
        return (moves, state, R, E, F), value

    @jax.jit
    def epoch(moves, state, R, E, F, order):
        (moves, state, *_), values = jax.lax.scan(step, (moves, state, R, E, F), order)
        return moves, state, values.mean()

    R, F = jnp.asarray(data.positions), jnp.asarray(data.forces)
    E = jnp.asarray(data.energies) if with_energies else jnp.zeros(len(data))
    moves = free.no_moves()
    state = optimizer.init(moves)
    rng = np.random.default_rng(seed)
    history: dict[str, list[float]] = {"loss": []} | ({"valid_force_rmse": []} if valid else {})
    best, best_error = moves, np.inf
    report = progress or (lambda phase, fraction: None)
    report("fit", 0.0)
    for i in range(epochs):
        order = rng.permutation(len(data))[: steps * batch].reshape(steps, batch)
        moves, state, value = epoch(moves, state, R, E, F, order)
        if not np.isfinite(value):
            raise InputError(
                f"the loss is not finite in epoch {i + 1}: lower the optimiser's learning rate"
            )
        history["loss"].append(float(value))
        error = -float(i)  # without validation the latest is the best
        if valid is not None:
            error = evaluate(free.moved(moves), valid)["force_rmse"]
            history["valid_force_rmse"].append(error)
        if error < best_error:
            best, best_error = moves, error
        report("fit", (i + 1) / epochs)
    return Fit(free.moved(best), {k: np.array(v) for k, v in history.items()}, free.names)


def _least_squares(potential, data: Dataset, valid, trainable, progress) -> Fit:
    free = FreeParameters.of(potential, trainable)
    report = progress or (lambda phase, fraction: None)
    errors: list[float] = []
    report("fit", 0.0)

    def after(moves) -> None:
        if valid is not None:
            errors.append(evaluate(free.moved(moves), valid)["force_rmse"])
        report("fit", min(0.95, len(errors) / 30.0))

    solution = levenberg_marquardt(
        free,
        jnp.asarray(data.positions),
        data.energies,
        jnp.asarray(data.forces),
        energy_weight=ENERGY_WEIGHT,
        prior=PRIOR,
        after=after,
    )
    report("fit", 1.0)
    history = {"loss": np.array(solution.losses)}
    if valid is not None:
        history["valid_force_rmse"] = np.array(errors)
    fitted = free.moved(solution.moves)
    changes = tuple(_changes(free, solution, fitted, data.forces.size))
    return Fit(fitted, history, free.names, changes, solution.converged)


def _changes(free: FreeParameters, solution: Solution, fitted: Potential, count: int):
    inverse = np.linalg.pinv(solution.curvature, hermitian=True)
    errors = np.sqrt(np.maximum(np.diag(inverse), 0.0) * solution.variance / count)
    moves = jax.tree.leaves(solution.moves)
    place = 0
    for (term, column), own in zip(sorted(free.columns), moves, strict=True):
        known = free.columns[term, column]
        start, end = (np.ravel(p.params[term][column]) for p in (free.start, fitted))
        labels = _labels(free.start, term, column, own.shape)
        for k in range(own.size):
            error = float(errors[place + k]) * known.scale
            yield Change(
                f"{term}.{column}", labels[k], float(start[k]), float(end[k]), error, known.unit
            )
        place += own.size


def _labels(potential: Potential, term: str, column: str, shape) -> list[str]:
    """Names of the values of a column, by whichever labels of the term have its length."""
    kind = next(p.term for p in potential.program.placed if p.name == term)
    rows = shape[0] if shape else 1
    for field in ("labels", "bond_labels", "angle_labels", "dihedral_labels", "lj_labels"):
        labels = getattr(kind, field, ())
        if len(labels) == rows and column not in ("charge",):
            return [name for name in labels for _ in range(int(np.prod(shape[1:], dtype=int)))]
    return [str(k) for k in range(int(np.prod(shape, dtype=int)))]
