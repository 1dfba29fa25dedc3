"""Settings of the methods of `jaxff.fit`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from jaxff.errors import InputError

if TYPE_CHECKING:
    import optax


def _number(default: float | None, least: int) -> Any:
    """Return a field for a number of at least `least`; an integer unless the default is a float."""
    return field(default=default, metadata={"least": least})


@dataclass(frozen=True, kw_only=True)
class Method:
    """Settings of all methods.

    Attributes:
        energy_weight: weight of the mean squared error of the energies, 1/Å²; the forces have
            weight 1.
        check_labels: before the fit, compare the labels with the predictions of the initial
            potential, and refuse labels with a wrong sign, unit or order.

    Raises:
        InputError: a value outside its range.
    """

    energy_weight: float = _number(0.1, 0)
    check_labels: bool = True

    def __post_init__(self) -> None:
        for one in fields(self):
            value, least = getattr(self, one.name), one.metadata.get("least", -math.inf)
            if "least" not in one.metadata or value is one.default:
                continue
            whole = not isinstance(one.default, float)
            if not least <= value < math.inf or (whole and int(value) != value):
                kind = "whole number" if whole else "number"
                raise InputError(f"{one.name}={value} must be a {kind} of at least {least}")


@dataclass(frozen=True, kw_only=True)
class LeastSquares(Method):
    """Least squares by the Levenberg-Marquardt method, for up to a few thousand parameters.

    Attributes:
        prior: strength of a restraint to the initial values. A change by one scale of the
            parameter (see `Column`) adds prior/(number of frames) to the objective, (kcal/mol/Å)².
            The restraint affects parameters that the frames determine weakly and, even with exact
            data, parameters that must change by many scales. ``prior=0.0`` removes the restraint.
        steps: limit of the steps. Large problems first take up to the same number of steps with
            fewer frames.
        tolerance: relative change of the objective in one step below which the fit has converged.
    """

    prior: float = _number(0.005, 0)
    steps: int = _number(60, 1)
    tolerance: float = _number(1e-3, 0)


@dataclass(frozen=True, kw_only=True)
class Gradient(Method):
    """Stochastic gradient descent with optax, for any loss.

    Attributes:
        optimizer: an optax optimiser; each parameter is divided by its scale (see `Column`). The
            default is Adam with a cosine schedule of the learning rate from 0.05 to 0 and changes
            of at most 0.1 in one step.
        loss: function of the predicted and the reference `Labels` of a batch that returns a
            scalar, (). The default is ``force_matching(energy_weight)``.
        epochs: number of passes over the training frames.
        batch: number of frames in one step.
        patience: number of epochs without a smaller validation error after which the descent
            returns to the best epoch and continues with smaller steps. The default is a fifth of
            `epochs`.
        restarts: largest number of returns to the best epoch; the fit ends instead of one more
            return.
        seed: seed of the order of the frames.
    """

    optimizer: optax.GradientTransformation | None = None
    loss: Callable | None = None
    epochs: int = _number(150, 1)
    batch: int = _number(20, 1)
    patience: int | None = _number(None, 1)
    restarts: int = _number(2, 0)
    seed: int = _number(0, 0)


METHODS: dict[str, type[Method]] = {"least-squares": LeastSquares, "gradient": Gradient}
