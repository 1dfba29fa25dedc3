"""Settings of the methods of `jaxff.fit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxff.settings import Settings, count, flag, number, random_seed

if TYPE_CHECKING:
    import optax


@dataclass(frozen=True, kw_only=True)
class Method(Settings):
    """Settings of all methods.

    Attributes:
        energy_weight: weight of the mean squared error of the energies, 1/Å²; the forces have
            weight 1.
        check_labels: before the fit, compare the labels with the predictions of the initial
            potential, and refuse labels with a wrong sign, unit or order.

    Raises:
        InputError: a value outside its range.
    """

    energy_weight: float = number(0.1, "1/Å²", least=0.0)
    check_labels: bool = flag(True)


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

    prior: float = number(0.005, least=0.0)
    steps: int = count(60)
    tolerance: float = number(1e-3, least=0.0)


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
    epochs: int = count(150)
    batch: int = count(20)
    patience: int | None = count(None)
    restarts: int = count(2, least=0)
    seed: int = random_seed()


METHODS: dict[str, type[Method]] = {"least-squares": LeastSquares, "gradient": Gradient}
