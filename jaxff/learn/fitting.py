"""Fit of the parameters of potentials to reference energies, forces and targets."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxff.dataset import Dataset
from jaxff.domain import Domain, Trained
from jaxff.errors import InputError
from jaxff.learn import gradient, least_squares
from jaxff.learn.changes import Change, changes
from jaxff.learn.checkpoint import checkpoint_of
from jaxff.learn.evaluation import aligned
from jaxff.learn.joint import Joint
from jaxff.learn.problem import Problem
from jaxff.learn.settings import METHODS, Gradient, LeastSquares, Method
from jaxff.md.differentiable.reweighting import UntrustedWarning
from jaxff.potential import Potential
from jaxff.sanity import check_labels
from jaxff.settings import checked_type

MINIMISERS: dict[type[Method], Callable] = {
    LeastSquares: least_squares.minimise,
    Gradient: gradient.minimise,
}


@dataclass(frozen=True)
class Fit:
    """Result of a fit.

    Attributes:
        potentials: the fitted potential of each molecule.
        history: arrays over the steps or epochs, by name. "loss" is the objective,
            (kcal/mol/Å)², and "valid_force_rmse" the force RMSE of the validation frames,
            kcal/mol/Å. For fits to ensembles, "effective_share" is the effective number of frames
            divided by the number of frames, and "draws" the number of draws so far.
        trained: names of the free parameters.
        changes: initial and fitted value of each free number.
        converged: whether the convergence criterion was met.
    """

    potentials: tuple[Potential, ...]
    history: dict[str, np.ndarray]
    trained: tuple[str, ...]
    changes: tuple[Change, ...] = ()
    converged: bool = True

    @property
    def potential(self) -> Potential:
        """The fitted potential, if the fit has one molecule.

        Raises:
            InputError: the fit has several molecules.
        """
        if len(self.potentials) != 1:
            raise InputError(f"this fit has {len(self.potentials)} potentials: use .potentials")
        return self.potentials[0]


def fit(
    potential: Potential | Sequence[Potential],
    train: Dataset | Sequence[Dataset | None] | None = None,
    *,
    valid: Dataset | Sequence[Dataset] | None = None,
    method: Method | None = None,
    trainable: Sequence[str] | None = None,
    targets: Sequence = (),
    checkpoint: str | Path | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Fit:
    """Fit the parameters of one potential, or of several molecules together.

    The fit keeps each parameter within its bounds and conserves the net charge. If several
    molecules have parameters of the same name, such as a bond type, they share the values. Atoms
    are matched through the molecular graph.

    Args:
        potential: the initial potential; for several molecules, one for each.
        train: training frames; for several molecules, a data set or None for each.
        valid: validation frames; for several molecules, a data set for each. Gradient descent
            returns the epoch with the lowest validation error; least squares only report the error.
        method: `LeastSquares` (the default) or `Gradient`, with their settings.
        trainable: patterns of the names of the free parameters, such as ``["bond.*",
            "torsion.k"]``, or of the value of a single type, such as ``"torsion.k:c3-c3-oh-ho*"``.
            By default, the parameters that the terms declare trainable are free.
        targets: further targets, such as `Hessian`, `Dipole`, `TorsionScan`, `EnsembleAverage`
            and `RelativeEntropy`; for several molecules, a list for each.
        checkpoint: file for the state after each step or epoch. After an interruption, the same
            call continues the fit and gives the same result. A custom optimizer or loss is not
            compared with the earlier one.
        progress: function called with the name of a phase and its finished fraction.

    Returns:
        The fitted potentials, and the history of the fit.

    Raises:
        InputError: too few frames, no free parameter, or a loss that is not finite. Also: labels
            with a wrong sign, unit or order, potentials that cannot share parameters, or a
            checkpoint of another fit.

    Warns:
        UntrustedWarning: an ensemble average has a statistical error or drift above its tolerance.
    """
    potentials = _list_of("potential", Potential, potential)
    train = [None] * len(potentials) if train is None else _list_of("train", Dataset, train)
    checked = None if valid is None else _list_of("valid", Dataset, valid)
    _check_data(potentials, train, checked)
    method = LeastSquares() if method is None else method
    if type(method) not in MINIMISERS:
        known = " or ".join(f"{kind.__name__}()" for kind in METHODS.values())
        raise InputError(f"method={method!r} must be {known} of jaxff.learn")
    progress = progress or (lambda phase, fraction: None)
    progress("fit", 0.0)
    data = [d and aligned(d, p) for d, p in zip(train, potentials, strict=True)]
    if checked:
        checked = [aligned(d, p) for d, p in zip(checked, potentials, strict=True)]
    aims = _checked_targets(targets, potentials)
    if not any(data) and not any(aims):
        raise InputError("there is nothing to fit to: give training frames or targets")
    problem = Problem(Joint.of(potentials), data, trainable, aims)
    checks = method.check_labels and potentials[0].program.physical
    for k, frames in enumerate(problem.data if checks else ()):
        if len(frames):
            check_labels(frames, *problem.predict(problem.start, k, frames))
    store = checkpoint_of(checkpoint, problem, method, trainable, checked, aims)
    solution = MINIMISERS[type(method)](problem, method, checked, store, progress)
    progress("fit", 1.0)
    history = {"loss": np.array(solution.state.losses)}
    if checked:
        history["valid_force_rmse"] = np.array(solution.state.valid)
    if problem.ensembles:
        history["effective_share"] = np.array(solution.state.shares)
        history["draws"] = np.array(solution.state.draws, int)
        problem.ensembles.refresh(solution.vector)
        for doubt in problem.ensembles.doubts(solution.vector):
            warnings.warn(doubt, UntrustedWarning, stacklevel=2)
    fitted = problem.free.moved(problem.unravel(jnp.asarray(solution.vector)))
    potentials = problem.joint.potentials(fitted.params)
    return Fit(
        tuple(map(_with_training, potentials, data)),
        history,
        problem.free.names,
        tuple(changes(problem, fitted, solution.errors)),
        solution.converged,
    )


def _list_of(name: str, kind: type, given: Any) -> list:
    """Return one object of a class, or a sequence of such objects or None, as a list.

    Raises:
        InputError: an object is of another class; `name` begins the message.
    """
    several = isinstance(given, Sequence) and not isinstance(given, str | kind)
    found = list(given) if several else [given]
    for one in found:
        if one is not None:
            checked_type(name, one, kind)
    return found


def _with_training(potential: Potential, frames: Dataset | None) -> Potential:
    """The fitted potential with a description of its training frames."""
    if not frames:
        return potential
    molecule, R = potential.molecule or frames.molecule, frames.positions
    domain = Domain.of(molecule, R, potential.predict(R)[0], lattice=frames.lattice)
    return potential.with_training([Trained(domain)])


def _checked_targets(targets, potentials: list[Potential]) -> list[list]:
    """Return the targets of each potential, after checking them."""
    aims = [targets] if hasattr(targets, "check") else list(targets)
    if len(potentials) == 1:
        aims = [aims]
    elif aims and (len(aims) != len(potentials) or any(hasattr(each, "check") for each in aims)):
        raise InputError(
            f"targets must be a list of {len(potentials)} lists of targets, one for each molecule"
        )
    aims = [list(each) for each in aims]
    for each, potential in zip(aims, potentials, strict=False):
        for target in each:
            target.check(potential)
    return aims


def _check_data(potentials: list, train: list, valid: list | None) -> None:
    counts = len(potentials), len(train), len(train if valid is None else valid)
    if not potentials or len(set(counts)) > 1:
        raise InputError(
            "{} potentials, {} training and {} validation sets: give one of each for each "
            "molecule".format(*counts)
        )
    for data in train:
        if data is not None and len(data) < 2:
            raise InputError(f"{data.label}: a fit needs at least 2 frames, got {len(data)}")
    for data in valid or ():
        if len(data) == 0:
            raise InputError(
                f"{data.label}: no frames to validate on; give at least one, or leave out valid="
            )
