"""Settings of the methods of `jaxff.fit`; this module loads no heavy library."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Real
from typing import TYPE_CHECKING, Any

from jaxff.errors import InputError

if TYPE_CHECKING:
    import optax


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

    energy_weight: float = 0.1
    check_labels: bool = True

    def __post_init__(self) -> None:
        self._need("energy_weight", 0)

    def _need(self, name: str, least: int, kind: type = float) -> None:
        """Raise an InputError if the field `name` is not a finite number from `least` upwards."""
        value = getattr(self, name)
        if not least <= value < math.inf or kind(value) != value:
            whole = "whole " if kind is int else ""
            raise InputError(f"{name}={value}: use a {whole}number from {least}")

    @property
    def request(self) -> dict[str, Any]:
        """The fields as text; two fits with equal requests minimise in the same way.

        Functions and optimisers have no text that identifies them, so they count as given or not.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: str(value) if value is None or isinstance(value, Real) else "given"
            for name, value in values.items()
        }


@dataclass(frozen=True, kw_only=True)
class LeastSquares(Method):
    """The method of Levenberg and Marquardt: tens of steps, for up to a few thousand values.

    Attributes:
        prior: strength of the restraint on the initial values, (kcal/mol/Å)² for a move by one
            column scale; it is divided by the number of frames.
        steps: largest number of steps. Large problems first take as many steps on fewer frames.
        tolerance: relative change of the objective in one step below which the fit has converged.
    """

    prior: float = 0.005
    steps: int = 60
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._need("prior", 0)
        self._need("steps", 1, int)
        self._need("tolerance", 0)


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
    epochs: int = 150
    batch: int = 20
    patience: int | None = None
    restarts: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._need("epochs", 1, int)
        self._need("batch", 1, int)
        if self.patience is not None:
            self._need("patience", 1, int)
        self._need("restarts", 0, int)
        self._need("seed", 0, int)


METHODS: dict[str, type[Method]] = {"least-squares": LeastSquares, "gradient": Gradient}
