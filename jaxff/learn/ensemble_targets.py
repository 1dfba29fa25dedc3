"""Targets that are properties of ensembles: averages and relative entropy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.learn.targets import WeightedTarget, checked_frames, checked_values
from jaxff.md.differentiable.reweighting import (
    Frames,
    Sampling,
    block_deviations,
    free_energy_of,
    weights_of,
)
from jaxff.potential import Potential

Array = jax.Array


class EnsembleTarget(WeightedTarget):
    """A property of the ensemble of the potential; subclasses are frozen dataclasses.

    Attributes:
        sampling: `Sampling`, or any object with `temperature` and a method
            ``draw(potential, number, previous)`` that returns `Frames`.
        weight: weight of the target in the objective.
        positions: (M, N, 3) Å, further geometries whose energies the target needs.
        kept: names of the entries of its records.
    """

    kept: ClassVar[tuple[str, ...]]
    sampling: Sampling
    positions: np.ndarray

    def check(self, potential: Potential) -> None:
        """Raise an InputError if `positions` do not fit the potential."""
        n = self.positions.shape[1]
        if len(self.positions) and potential.n_atoms not in (None, n):
            raise InputError(
                f"{self._name} has {n} atoms, but the potential has {potential.n_atoms}"
            )

    def record(self, frames: Frames, further: Any, before: Any) -> dict[str, np.ndarray]:
        """Return the quantities of new frames that the target needs.

        Args:
            frames: the F frames that were drawn.
            further: (M,) kcal/mol, energies at `positions` with the same parameters.
            before: () value of the target with these parameters, from the previous frames; zero for
                the first frames.
        """
        raise NotImplementedError

    def value(self, energies: Array, further: Array, frames: Frames, record: Mapping) -> Array:
        """Return the part of the objective (), (kcal/mol/Å)², a pure JAX function.

        Args:
            energies: (F,) kcal/mol of the frames.
            further: (M,) kcal/mol at `positions`.
            frames: the frames.
            record: their record.
        """
        raise NotImplementedError

    def equations(
        self, energies, further, slopes, further_slopes, frames: Frames, record: Mapping
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return JᵀJ (P, P), Jᵀr (P,) and the statistical covariance (P, P) of Jᵀr.

        Args:
            energies, further, frames, record: as for `value`.
            slopes, further_slopes: (F, P) and (M, P) derivatives of the energies by the moves.
        """
        raise NotImplementedError

    def doubts(self, energies, frames: Frames, record: Mapping) -> str:
        """Return why the value is not reliable, or an empty text.

        Called if the effective number of frames is large enough.
        """
        return ""

    def _store(self, **arrays) -> None:
        if not callable(getattr(self.sampling, "draw", None)):
            raise InputError(f"{self._name} needs a Sampling, not {self.sampling!r}")
        super()._store(**arrays)


@dataclass(frozen=True, eq=False)
class EnsembleAverage(EnsembleTarget):
    """Averages of observables: mean square of (⟨O⟩ − values)/tolerance.

    Attributes:
        sampling: how frames are drawn.
        observable: function of positions (F, N, 3) Å that returns (F,) or (F, ...) values.
        values: () or (...), the reference, in the unit of the observable.
        tolerance: () or (...), in the unit of the observable: the error that counts as `weight`.
        weight: (kcal/mol/Å)² for a mean squared error of one tolerance.

    Raises:
        InputError: values or tolerances outside their range.
    """

    kept: ClassVar[tuple[str, ...]] = ("observed",)

    sampling: Sampling
    observable: Callable[[Array], Array]
    values: np.ndarray
    tolerance: np.ndarray
    weight: float = 1.0

    def __post_init__(self):
        shape = np.shape(self.values)
        values = checked_values(self._name, "values", self.values, shape, "the observable's unit")
        tolerance = np.asarray(self.tolerance, float)
        if tolerance.shape not in ((), shape) or not (tolerance > 0.0).all():
            raise InputError(f"{self._name}: give one positive tolerance, or one for each value")
        tolerance = np.broadcast_to(tolerance, shape).copy()
        self._store(values=values, tolerance=tolerance, positions=np.zeros((0, 1, 3)))

    def record(self, frames, further, before):
        observed = np.asarray(self.observable(jnp.asarray(frames.positions)), float)
        if observed.shape != (len(frames), *self.values.shape):
            raise InputError(
                f"{self._name}: the observable of {len(frames)} frames has shape {observed.shape}; "
                f"expected {(len(frames), *self.values.shape)}, as values have shape "
                f"{self.values.shape}"
            )
        if not np.isfinite(observed).all():
            raise InputError(f"{self._name}: the observable is not finite for all frames")
        return {"observed": observed.reshape(len(frames), -1)}

    def value(self, energies, further, frames, record):
        return jnp.sum(self._residuals(energies, frames, record) ** 2)

    def equations(self, energies, further, slopes, further_slopes, frames, record):
        weights = np.asarray(weights_of(energies, frames))
        residuals = np.asarray(self._residuals(energies, frames, record))
        # From d⟨O⟩ = −⟨(O − ⟨O⟩) dU⟩/kT, in units of the residuals.
        scaled = self._scale * record["observed"]
        deviations = scaled - weights @ scaled
        J = -(weights[:, None] * deviations).T @ slopes / float(frames.kT)
        noise = block_deviations(weights, deviations, int(frames.blocks))
        spread = np.nan_to_num(noise.T @ noise) + np.mean(residuals**2) * np.eye(len(residuals))
        return J.T @ J, J.T @ residuals, J.T @ spread @ J

    def doubts(self, energies, frames, record):
        weights, blocks = np.asarray(weights_of(energies, frames)), int(frames.blocks)
        tolerance = self.tolerance.ravel()
        deviations = (record["observed"] - weights @ record["observed"]) / tolerance
        errors = _standard_errors(block_deviations(weights, deviations, blocks))
        worst = int(np.argmax(errors))
        if errors[worst] > 1.0:
            return (
                f"an average of {self._name} has a statistical error of "
                f"{errors[worst] * tolerance[worst]:.2g}, larger than its tolerance of "
                f"{tolerance[worst]:.2g}: draw more frames"
            )
        # The mean of the second halves of the blocks minus that of the first halves.
        late = np.arange(len(frames)) * 2 * blocks // len(frames) % 2
        contrast = (4.0 * late - 2.0)[:, None] * deviations
        drift = np.abs(weights @ contrast)
        scatter = _standard_errors(block_deviations(weights, contrast - weights @ contrast, blocks))
        worst = int(np.argmax(drift))
        if drift[worst] > max(1.0, 4.0 * scatter[worst]):
            return (
                f"an average of {self._name} changes by {drift[worst] * tolerance[worst]:.2g} "
                f"between the halves of its frames, more than its tolerance of "
                f"{tolerance[worst]:.2g}: equilibrate longer"
            )
        return ""

    @property
    def _scale(self) -> np.ndarray:
        return math.sqrt(self.weight / self.values.size) / self.tolerance.ravel()

    def _residuals(self, energies, frames: Frames, record) -> Array:
        means = weights_of(energies, frames) @ record["observed"]
        return self._scale * (means - self.values.ravel())


def _standard_errors(deviations: np.ndarray) -> np.ndarray:
    """Return standard errors from the deviations of blocks; zero for one block."""
    return np.nan_to_num(np.sqrt((deviations**2).sum(axis=0)))


@dataclass(frozen=True, eq=False)
class RelativeEntropy(EnsembleTarget):
    """Relative entropy between reference frames and the ensemble, in nats.

    It is ⟨U⟩_reference/kT + ln Z up to a constant, with Z from the drawn frames, and zero at the
    initial parameters. Its gradient is (⟨dU/dθ⟩_reference − ⟨dU/dθ⟩)/kT: Shell, J. Chem. Phys. 129,
    144108 (2008). The curvature in least squares is the covariance of dU/dθ, which is exact if U is
    linear in the parameters: Chaimovich and Shell, J. Chem. Phys. 134, 094112 (2011).

    Attributes:
        sampling: how frames are drawn, at the temperature of the reference.
        positions: (M, N, 3) Å of the reference ensemble, treated as independent.
        weight: (kcal/mol/Å)² for one nat.

    Raises:
        InputError: positions or a weight outside their range.
    """

    kept: ClassVar[tuple[str, ...]] = ("further", "before")

    sampling: Sampling
    positions: np.ndarray
    weight: float = 1.0

    def __post_init__(self):
        self._store(positions=checked_frames(self._name, self.positions))

    def record(self, frames, further, before):
        return {"further": np.asarray(further), "before": np.asarray(before)}

    def value(self, energies, further, frames, record):
        nats = (
            jnp.mean(further - record["further"]) - free_energy_of(energies, frames)
        ) / frames.kT
        return record["before"] + self.weight * nats

    def equations(self, energies, further, slopes, further_slopes, frames, record):
        weights, half = np.asarray(weights_of(energies, frames)), 0.5 * self.weight
        kT, mean = float(frames.kT), weights @ slopes
        deviations = (slopes - mean) / kT
        of_data = (further_slopes - further_slopes.mean(axis=0)) / kT / len(further)
        noise = block_deviations(weights, deviations, int(frames.blocks))
        curvature = (weights[:, None] * deviations).T @ deviations
        chance = of_data.T @ of_data + np.nan_to_num(noise.T @ noise)
        return half * curvature, half * (further_slopes.mean(axis=0) - mean) / kT, half**2 * chance
