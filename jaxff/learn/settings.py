"""Settings of the methods of `jaxff.fit`; this module loads no heavy library."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from jaxff.errors import InputError

if TYPE_CHECKING:
    import optax


def _number(default: float | None, least: int) -> Any:
    """A field for numbers from `least` on; for integers unless the default is a float."""
    return field(default=default, metadata={"least": least})


@dataclass(frozen=True, kw_only=True)
class Method:
    """Settings that every method has.

    Attributes:
        energy_weight: weight of the mean squared error of the energies, 1/Å²; the mean squared
            error of the forces has the weight 1.
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
                raise InputError(f"{one.name}={value}: use a {kind} from {least}")


@dataclass(frozen=True, kw_only=True)
class LeastSquares(Method):
    """Levenberg and Marquardt's method, for a few thousand values, with tens of steps.

    Attributes:
        prior: strength of the restraint on the initial values, (kcal/mol/Å)² for a move by one
            column scale; it is divided by the number of frames.  A parameter that the frames
            determine weakly, or that must move by many scales of its column (0.05 for the weights
            of networks), therefore stops before its best value, even on exact data.  Use
            ``prior=0.0`` to fit without a restraint.
        steps: largest number of steps. Large problems first take as many steps on fewer frames.
        tolerance: relative change of the objective in one step below which the fit has converged.
    """

    prior: float = _number(0.005, 0)
    steps: int = _number(60, 1)
    tolerance: float = _number(1e-3, 0)


@dataclass(frozen=True, kw_only=True)
class Gradient(Method):
    """Stochastic gradient descent with optax, for any loss.

    If the validation error has not fallen for `patience` epochs, the descent returns to the best
    epoch and continues with smaller steps. After `restarts` such returns it stops.

    Attributes:
        optimizer: any optax optimiser of the moves. The default is Adam with a cosine schedule of
            the learning rate from 0.05 to 0 and moves of at most 0.1 in one step.
        loss: function of the predicted and the reference `Labels` of a batch that returns a
            scalar, (). The default is ``force_matching(energy_weight)``.
        epochs: number of passes over the training frames.
        batch: number of frames in one step.
        patience: see above; the default is a fifth of `epochs`.
        restarts: see above.
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
