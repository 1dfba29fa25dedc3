"""Fitting the parameters of potentials to reference energies and forces."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.learn import gradient, least_squares
from jaxff.learn.evaluate import aligned
from jaxff.learn.gradient import ENERGY_WEIGHT, Descent, Loss, force_matching
from jaxff.learn.joint import Joint
from jaxff.learn.problem import Problem
from jaxff.learn.sanity import check_labels
from jaxff.md.differentiable.reweighting import UntrustedWarning
from jaxff.npz import NpzReader, digest, writable_file, write_npz
from jaxff.potential import Potential

METHODS = ("least-squares", "gradient")
PRIOR = 0.005  # (kcal/mol/Å)² of a move by one column scale
TOLERANCE = 1e-3  # relative change of the objective in a step


class Change(NamedTuple):
    """What a fit has made of one value; the error is that of the least-squares solution."""

    name: str
    label: str
    start: float
    fitted: float
    error: float | None
    unit: str


@dataclass(frozen=True)
class Fit:
    """Fitted potentials, and how they came about.

    Attributes:
        potentials: the best found, one for each molecule.
        history: {"loss": by step or epoch, "valid_force_rmse": likewise, if validated}; with
            ensembles' targets "effective_share" of their frames, and "draws" of them so far.
        trained: names of the parameters that were free.
        changes: each of their values: (name, label, start, fitted, standard error or None, unit).
        converged: whether the method came to rest by itself.
    """

    potentials: tuple[Potential, ...]
    history: dict[str, np.ndarray]
    trained: tuple[str, ...]
    changes: tuple[Change, ...] = ()
    converged: bool = True

    @property
    def potential(self) -> Potential:
        """The best potential of the only molecule.

        Raises:
            InputError: there are several.
        """
        if len(self.potentials) > 1:
            raise InputError(f"this fit has {len(self.potentials)} potentials: use .potentials")
        return self.potentials[0]


def fit(
    potential: Potential | Sequence[Potential],
    train: Dataset | Sequence[Dataset | None] | None = None,
    *,
    valid: Dataset | Sequence[Dataset] | None = None,
    method: str | None = None,
    trainable: Sequence[str] | None = None,
    targets: Sequence = (),
    energy_weight: float = ENERGY_WEIGHT,
    prior: float = PRIOR,
    steps: int = 60,
    optimizer: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
    epochs: int = 150,
    batch: int = 20,
    patience: int | None = None,
    restarts: int = 2,
    seed: int = 0,
    check: bool = True,
    checkpoint=None,
    progress: Callable[[str, float], None] | None = None,
) -> Fit:
    """Fit the parameters of a potential, or of several molecules' at once, to data and targets.

    Parameters move in units of their column's typical change, inside the column's bounds; total
    charges are conserved.  Potentials of several molecules share the rows of their tables by
    name.  Atoms are matched through the molecular graph.

    Args:
        potential: the start; one for each molecule.
        train: frames to fit; a data set for each molecule, or None where targets say it all.
        valid: frames that choose the best epoch (by gradient), and by which errors are reported;
            without them the last epoch counts.
        method: "least-squares" (Levenberg and Marquardt's, in tens of steps, for up to a few
            thousand values; the default), or "gradient" (stochastic, by optax, for any loss; the
            default where an `optimizer` or a `loss` is given).
        trainable: patterns of parameter names such as ``["bond.*", "torsion.k"]``, or of rows such
            as ``"torsion.k:c3-c3-oh-ho*"``; default: what each term declares trainable.
        targets: Hessians, dipoles, torsion scans (`jaxff.learn.targets`), ensemble averages,
            relative entropies (`jaxff.learn.ensemble`); for several molecules a sequence of them
            for each.
        energy_weight: of the energies' mean square error beside that of the forces, 1/Å².
        prior: pull towards the start by least squares, (kcal/mol/Å)² of a move of one scale,
            shared among all frames.
        steps: of least squares, at most; large problems take as many on fewer frames before.
        optimizer: any optax optimiser of the scaled parameters; default Adam with a cosine
            schedule from 0.05 to 0 and moves of at most 0.1 a step.
        loss: of a batch; default `force_matching(energy_weight)`.
        epochs: passes over the training frames.
        batch: frames a step.
        patience: epochs without a lower validation error after which the descent returns to the
            best with smaller steps; default a fifth of `epochs`.
        restarts: such returns, after which it stops.
        seed: of the order of frames.
        check: compare the labels with the start first.
        checkpoint: file in which the state is kept after each step or epoch; the same call goes
            on from there, to the same result.  An `optimizer` or a `loss` of one's own is taken
            to be the one of the call before.
        progress: called with a phase (and the validation error, if any, in parentheses) and the
            fraction done.

    Raises:
        InputError: too few frames, no matching parameter, a loss that is not finite, labels that
            cannot be meant (forces of the wrong sign or unit, frames far off all others),
            potentials that cannot share tables, or a checkpoint of another fit.

    Warns:
        UntrustedWarning: averages at the end whose statistical error is beyond their tolerance.
    """
    potentials = [potential] if isinstance(potential, Potential) else list(potential)
    if train is None:
        train = [None] * len(potentials)
    train = [train] if isinstance(train, Dataset) else list(train)
    several = valid is not None and not isinstance(valid, Dataset)
    valid = list(valid) if several else None if valid is None else [valid]
    _check(potentials, train, valid)
    _check_numbers(energy_weight, prior, steps, epochs, batch, restarts)
    method = method or ("gradient" if optimizer or loss else "least-squares")
    if method not in METHODS:
        raise InputError(f"method={method!r}: use {' or '.join(METHODS)}")
    if method == "least-squares" and (loss is not None or optimizer is not None):
        raise InputError('method="least-squares" has its own loss: leave loss and optimizer out')
    data = [d and aligned(d, p) for d, p in zip(train, potentials, strict=True)]
    checked = valid and [aligned(d, p) for d, p in zip(valid, potentials, strict=True)]
    aims = _targets(targets, potentials)
    if not any(data) and not any(aims):
        raise InputError("there is nothing to fit to: give frames, or targets")
    problem = Problem(Joint.of(potentials), data, trainable, aims)
    data = problem.data
    for k, own in enumerate(data if check else ()):
        if len(own):
            check_labels(own, *problem.predict(problem.start, k, own))
    options = (method, energy_weight, prior, seed, batch, epochs, patience, restarts, trainable)
    own = (optimizer is None, loss is None)
    keep = Checkpoint(checkpoint, problem, repr((*options, *own)), checked, aims)
    report = progress or (lambda phase, fraction: None)
    report("fit", 0.0)
    if method == "gradient":
        count = sum(len(own) // min(batch, len(own)) for own in data if len(own)) or 1
        if optimizer is None:
            schedule = optax.cosine_decay_schedule(0.05, epochs * count)
            optimizer = optax.chain(optax.adam(schedule), optax.clip(0.1))
        descent = Descent(problem, loss or force_matching(energy_weight), optimizer, batch, seed)
        state = keep.state(descent.start())

        def after_epoch(state: gradient.State) -> None:
            keep.write(state)
            report(_phase(state), len(state.losses) / epochs)

        wait = max(1, epochs // 5) if patience is None else patience
        converged = descent.run(state, epochs, checked, wait, restarts, after_epoch)
        vector, errors = state.best, None
    else:
        state = keep.state(least_squares.State(np.asarray(problem.start)))

        def after_step(state: least_squares.State) -> None:
            if checked:
                state.valid.append(problem.force_rmse(state.vector, checked))
            keep.write(state)
            report(_phase(state), len(state.losses) / (len(state.losses) + 8.0))

        descend = partial(
            least_squares.levenberg_marquardt,
            energy_weight=energy_weight,
            prior=prior,
            steps=steps,
            tolerance=TOLERANCE,
        )
        few = problem.thinned()
        if few is not None and not state.losses:
            first = least_squares.State(state.vector)
            descend(few, state=first, after=lambda _: report("fit, fewer frames first", 0.0))
            state.vector, state.damping = first.vector, first.damping
        solution = descend(problem, state=state, after=after_step)
        vector, converged = solution.vector, solution.converged
        errors = np.sqrt(np.maximum(np.diag(solution.covariance), 0.0))
    report("fit", 1.0)
    history = {"loss": np.array(state.losses)}
    if checked:
        history["valid_force_rmse"] = np.array(state.valid)
    if problem.ensembles:
        history["effective_share"] = np.array(state.shares)
        history["draws"] = np.array(state.draws, int)
        problem.ensembles.refresh(vector)
        for doubt in problem.ensembles.doubts(vector):
            warnings.warn(doubt, UntrustedWarning, stacklevel=2)
    fitted = problem.free.moved(problem.unravel(jnp.asarray(vector)))
    return Fit(
        problem.joint.potentials(fitted.params),
        history,
        problem.free.names,
        tuple(_changes(problem, fitted, errors)),
        converged,
    )


def _check_numbers(energy_weight, prior, steps, epochs, batch, restarts) -> None:
    numbers = {"energy_weight": energy_weight, "prior": prior, "restarts": restarts}
    for name, value in numbers.items():
        if not 0.0 <= value < np.inf:
            raise InputError(f"{name}={value}: use a number from 0")
    for name, value in {"steps": steps, "epochs": epochs, "batch": batch}.items():
        if value < 1:
            raise InputError(f"{name}={value}: use a whole number from 1")


def _targets(targets, potentials: list[Potential]) -> list[list]:
    """The targets of each potential, each checked."""
    single = hasattr(targets, "check")
    if len(potentials) == 1:
        aims = [[targets] if single else list(targets)]
    else:
        aims = [] if single else [list(own) for own in targets if not hasattr(own, "check")]
        if len(aims) not in (0, len(potentials)) or len(aims) < len(targets if not single else [1]):
            raise InputError(
                f"targets of {len(potentials)} molecules: give a list of targets for each of them"
            )
    for own, potential in zip(aims, potentials, strict=False):
        for target in own:
            target.check(potential)
    return aims


def _phase(state: gradient.State | least_squares.State) -> str:
    return f"fit (validation force RMSE {state.valid[-1]:.3f})" if state.valid else "fit"


def _check(potentials: list, train: list, valid: list | None) -> None:
    checked = train if valid is None else valid
    if not potentials or not len(potentials) == len(train) == len(checked):
        raise InputError(
            f"{len(potentials)} potentials, {len(train)} training and {len(checked)} validation "
            "sets: give one of each for each molecule"
        )
    for own in train:
        if own is not None and len(own) < 2:
            raise InputError(
                f"fitting needs at least 2 frames, {own.name or 'dataset'} gives {len(own)}"
            )
    for own in valid or ():
        if len(own) == 0:
            raise InputError(f"{own.label}: no frames to validate on; leave valid out")


def _changes(problem: Problem, fitted: Potential, errors: np.ndarray | None) -> Iterator[Change]:
    free, place = problem.free, 0
    for term, column in sorted(free.columns):
        known = free.columns[term, column]
        start, end = (np.asarray(p.params[term][column]) for p in (free.start, fitted))
        labels = _labels(problem.joint, term, column, start.shape)
        rows = free.rows.get((term, column), np.ones(len(start) if start.ndim else 1, bool))
        loose = np.repeat(rows, start.size // max(len(rows), 1))
        for k, (a, b) in enumerate(zip(start.ravel(), end.ravel(), strict=True)):
            if not loose[k]:
                continue
            error = None if errors is None else float(errors[place + k]) * known.scale
            yield Change(f"{term}.{column}", labels[k], float(a), float(b), error, known.unit)
        place += start.size


def _labels(joint: Joint, term: str, column: str, shape: tuple[int, ...]) -> list[str]:
    """Names of the values of a column: of its rows, by types or by the atoms that read them."""
    rows = list(map(str, range(shape[0]))) if shape else [""]
    for program in joint.programs:
        own = next(p.term for p in program.placed if p.name == term)
        for field, (label, columns) in own.tables.items():
            if column not in columns:
                continue
            if label:
                rows = list(own.row_names(field))
            elif getattr(own, field).shape == (own.n_atoms,):
                for row in np.unique(getattr(own, field)):
                    atoms = np.flatnonzero(getattr(own, field) == row)
                    rows[row] = f"atoms {','.join(map(str, atoms))}"
    each = int(np.prod(shape[1:], dtype=int))
    return [name if each == 1 else f"{name} [{k}]" for name in rows for k in range(each)]


class Checkpoint:
    """The state of a fit in one file, if a file is given.

    Args:
        path: the file, or None.
        problem: what is fitted.
        options: everything else that decides the result.
        valid: frames to validate on.
        aims: further targets of each molecule.

    Raises:
        InputError: the file belongs to another fit, or is not readable.
    """

    def __init__(
        self,
        path,
        problem: Problem,
        options: str,
        valid: Sequence[Dataset] | None,
        aims: Sequence[Sequence] = (),
    ):
        self.path = None if path is None else Path(path)
        if self.path is None:
            return
        writable_file(self.path)
        things = [p.term for program in problem.joint.programs for p in program.placed]
        things += [target for own in aims for target in own]
        shapes = [(type(x).__name__, [d.positions.shape for d in problem.data]) for x in things]
        self.request = digest(
            problem.joint.first.params,
            [(d.positions, d.forces, d.energies) for d in (*problem.data, *(valid or ()))],
            [list(_numbers(thing)) for thing in things],
            np.frombuffer(f"{options} {problem.free.names} {shapes}".encode(), np.uint8),
        )

    def state(self, fresh):
        """The state in the file, or else `fresh`."""
        if self.path is None or not self.path.exists():
            return fresh
        file = NpzReader(self.path, "checkpoint of a fit")
        leaves = {
            name: sum(key.startswith(f"{name}/") for key in file)
            for name in ("optimizer", "samples")
        }
        wanted = len(getattr(fresh, "optimizer", ()))
        if file.text("request") != self.request or leaves["optimizer"] != wanted:
            raise InputError(f"{self.path} belongs to another fit: delete it, or name another file")
        known = {}
        for field in fields(fresh):
            value = getattr(fresh, field.name)
            if field.name in leaves:
                known[field.name] = [
                    file.need(f"{field.name}/{k}") for k in range(leaves[field.name])
                ]
            elif isinstance(value, np.ndarray):
                known[field.name] = file.need(field.name)
            elif isinstance(value, list):
                known[field.name] = file.need(field.name).tolist()
            else:
                known[field.name] = type(value)(file.need(field.name))
        return type(fresh)(**known)

    def write(self, state) -> None:
        if self.path is None:
            return
        arrays = {f.name: getattr(state, f.name) for f in fields(state)}
        for name in ("optimizer", "samples"):
            for k, leaf in enumerate(arrays.pop(name, ())):
                arrays[f"{name}/{k}"] = leaf
        write_npz(self.path, {"request": np.array(self.request), **arrays})


def _numbers(thing) -> Iterator[np.ndarray | float]:
    """The arrays and numbers that a term or a target is made of, not what it has derived."""
    names = [f.name for f in fields(thing)] if is_dataclass(thing) else list(vars(thing))
    for name in names:
        if isinstance(value := getattr(thing, name), np.ndarray | float):
            yield value
        elif name == "sampling":
            yield from _numbers(value)
