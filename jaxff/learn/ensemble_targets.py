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
    block_deviations,
    free_energy_of,
    weights_of,
)
from jaxff.md.differentiable.sampling import Sampling
from jaxff.potential import Potential

Array = jax.Array


class EnsembleTarget(WeightedTarget):
    """Base class of targets that depend on the ensemble of the potential.

    Subclasses are frozen dataclasses (``eq=False``).

    Attributes:
        sampling: `Sampling`, or any object with `temperature` and a method
            ``draw(potential, number, previous)`` that returns `Frames`.
        weight: weight of the target in the objective.
        positions: (M, N, 3) Å, further geometries whose energies the target needs.
        kept: names of the entries that `record` returns.
    """

    kept: ClassVar[tuple[str, ...]]
    sampling: Sampling
    positions: np.ndarray

    def check(self, potential: Potential) -> None:
        """Raise `InputError` if `positions` have another number of atoms than the potential."""
        n = self.positions.shape[1]
        if len(self.positions) and potential.n_atoms not in (None, n):
            raise InputError(
                f"{self._name} has positions of {n} atoms, but the potential has "
                f"{potential.n_atoms}; give positions of its molecule"
            )

    def record(self, frames: Frames, further: Any, before: Any) -> dict[str, np.ndarray]:
        """Return the quantities of new frames that the target needs.

        Args:
            frames: the F frames that were drawn.
            further: (M,) energies at `positions` with the same parameters, kcal/mol.
            before: () value of the target with the same parameters, computed from the previous
                frames; zero at the first draw.

        Returns:
            Arrays by the names `kept`.
        """
        raise NotImplementedError

    def value(self, energies: Array, further: Array, frames: Frames, record: Mapping) -> Array:
        """Return the target's part of the objective, () (kcal/mol/Å)², as a pure JAX function.

        Args:
            energies: (F,) energies of the frames, kcal/mol.
            further: (M,) energies at `positions`, kcal/mol.
            frames: the frames.
            record: the result of `record` for these frames.
        """
        raise NotImplementedError

    def equations(
        self, energies, further, slopes, further_slopes, frames: Frames, record: Mapping
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return JᵀJ (P, P), Jᵀr (P,) and the statistical covariance (P, P) of Jᵀr.

        J contains the derivatives of the residuals r by the moves: the changes of the P free
        parameters, divided by their scales.

        Args:
            energies: (F,) energies of the frames, kcal/mol.
            further: (M,) energies at `positions`, kcal/mol.
            slopes: (F, P) derivatives of `energies` by the moves, kcal/mol.
            further_slopes: (M, P) derivatives of `further` by the moves, kcal/mol.
            frames: the frames.
            record: the result of `record` for these frames.
        """
        raise NotImplementedError

    def doubts(self, energies, frames: Frames, record: Mapping) -> str:
        """Return why the value of the target is not reliable, or an empty text.

        Args:
            energies: (F,) energies of the frames, kcal/mol.
            frames: the frames.
            record: the result of `record` for these frames.
        """
        return ""

    def _store(self, **arrays) -> None:
        if not callable(getattr(self.sampling, "draw", None)):
            raise InputError(f"{self._name}: sampling={self.sampling!r} must be a Sampling")
        super()._store(**arrays)


@dataclass(frozen=True, eq=False)
class EnsembleAverage(EnsembleTarget):
    """Ensemble averages of observables: mean square of (⟨O⟩ − values)/tolerance times `weight`.

    Attributes:
        sampling: settings of the simulations that draw frames.
        observable: function of positions (F, N, 3) Å, and for a system in a box also of boxes
            (F, 3, 3) Å, that returns O (F,) or (F, ...).
        values: () or (...) reference averages, in the unit of the observable.
        tolerance: () or (...) acceptable errors, in the unit of the observable.
        weight: (kcal/mol/Å)², contribution to the objective if each error equals the tolerance.

    Raises:
        InputError: values or a weight that are not finite, or a tolerance that is not positive.
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
            raise InputError(
                f"{self._name}: tolerance={self.tolerance!r} must be one positive number, or one "
                f"for each value with shape {shape}"
            )
        tolerance = np.broadcast_to(tolerance, shape).copy()
        self._store(values=values, tolerance=tolerance, positions=np.zeros((0, 1, 3)))

    def record(self, frames, further, before):
        observed = np.asarray(frames.observed(self.observable), float)
        if observed.shape != (len(frames), *self.values.shape):
            raise InputError(
                f"{self._name}: the observable of {len(frames)} frames has shape {observed.shape}, "
                f"but must have {(len(frames), *self.values.shape)}, because values have shape "
                f"{self.values.shape}"
            )
        if not np.isfinite(observed).all():
            raise InputError(
                f"{self._name}: the observable of a frame is not finite; correct the function"
            )
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
                f"{errors[worst] * tolerance[worst]:.2g}, larger than the tolerance of "
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
                f"between the halves of the frames, more than the tolerance of "
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
    """Return standard errors (n,) from deviations (blocks, n) of blocks; zero for one block."""
    return np.nan_to_num(np.sqrt((deviations**2).sum(axis=0)))


@dataclass(frozen=True, eq=False)
class RelativeEntropy(EnsembleTarget):
    """Relative entropy between reference frames and the ensemble, in nats.

    The relative entropy is ⟨U⟩_reference/kT + ln Z, minus this sum at the initial parameters. U is
    the energy with the parameters θ, and the partition function Z follows from the drawn frames.
    The gradient is (⟨dU/dθ⟩_reference − ⟨dU/dθ⟩)/kT. Least squares use the covariance of dU/dθ as
    the curvature, which is exact if U is linear in θ.
    Source: Shell, J. Chem. Phys. 129, 144108 (2008); Chaimovich and Shell, J. Chem. Phys. 134,
    094112 (2011).

    Attributes:
        sampling: settings of the simulations that draw frames, at the temperature of the reference.
        positions: (M, N, 3) Å, independent frames of the reference ensemble.
        weight: (kcal/mol/Å)², contribution of one nat to the objective.

    Raises:
        InputError: positions with a wrong shape, or positions or a weight that are not finite.
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
