"""Targets that are properties of ensembles: averages, distributions, relative entropy.

A fit draws frames with its own parameters, weighs them as these move, and draws new ones when too
few of them count: DiffTRe, Thaler and Zavadlav, Nat. Commun. 12, 6884 (2021).  Targets that name
the same `Sampling` object share its frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.learn.targets import checked_frames, checked_values
from jaxff.md.differentiable.reweighting import (
    LEAST,
    Frames,
    Sampling,
    block_deviations,
    by_frames,
    effective_frames,
    energies_of,
    free_energy_of,
    weights_of,
)
from jaxff.parameters import FreeParameters
from jaxff.potential import Potential, Program

Array = jax.Array

# Steps may go to where LEAST of the frames count; below this share the next step draws anew.
RENEW = 0.5 * (1.0 + LEAST)


class EnsembleTarget:
    """A property of the ensemble that `sampling` draws.

    Subclasses are frozen dataclasses (``eq=False``) with these attributes.

    Attributes:
        sampling: `Sampling`, or any object with `temperature` and `draw(potential, number,
            previous)` that gives `Frames`.
        weight: of the target in the objective.
        positions: (M, N, 3) Å, geometries beside the frames whose energies it needs.
        kept: names of what `record` gives.
    """

    kept: ClassVar[tuple[str, ...]]
    sampling: Sampling
    weight: float
    positions: np.ndarray

    def check(self, potential: Potential) -> None:
        """Whether the target can be meant for `potential`; InputError if not."""
        n = self.positions.shape[1]
        if len(self.positions) and potential.n_atoms not in (None, n):
            raise InputError(f"{self._name} has {n} atoms, the potential {potential.n_atoms}")

    def record(self, frames: Frames, own: Array, before: Array) -> dict[str, np.ndarray]:
        """What it needs to know of new frames.

        Args:
            frames: just drawn.
            own: (M,) kcal/mol, energies at `positions` under the same parameters.
            before: () its value there by the frames before; zero for the first ones.
        """
        raise NotImplementedError

    def value(self, energies: Array, own: Array, frames: Frames, record: dict) -> Array:
        """Its part of the objective (), (kcal/mol/Å)², from energies (F,) and (M,) kcal/mol."""
        raise NotImplementedError

    def equations(self, energies, own, slopes, own_slopes, frames: Frames, record: dict):
        """JᵀJ (P, P), Jᵀr (P,) and covariance (P, P) of Jᵀr by chance.

        Args:
            energies, own: (F,) and (M,) kcal/mol.
            slopes, own_slopes: (F, P) and (M, P), their derivatives by the moves.
            frames, record: as for `value`.
        """
        raise NotImplementedError

    def doubts(self, energies, frames: Frames, record: dict) -> str:
        """Why its value is not to be trusted though the weights are, in words; empty if it is."""
        return ""

    @property
    def _name(self) -> str:
        return f"the {type(self).__name__} target"

    def _store(self, **arrays) -> None:
        if not callable(getattr(self.sampling, "draw", None)):
            raise InputError(f"{self._name} needs a Sampling, not {self.sampling!r}")
        weight = float(self.weight)
        if not (math.isfinite(weight) and weight >= 0.0):
            raise InputError(f"{self._name}: weight={self.weight!r}: give a number from 0 upwards")
        for key, values in {"weight": weight, **arrays}.items():
            object.__setattr__(self, key, values)


@dataclass(frozen=True, eq=False)
class EnsembleAverage(EnsembleTarget):
    """Averages of observables: mean square of (⟨O⟩ − values)/tolerance.

    Attributes:
        sampling: how frames are drawn.
        observable: function of positions (F, N, 3) Å that gives (F,) or (F, ...) values.
        values: () or (...) to aim at, in the unit of the observable.
        tolerance: () or (...), likewise: the error that counts as `weight`.
        weight: (kcal/mol/Å)² for a mean square error of one tolerance.

    Raises:
        InputError: values or tolerances that cannot be used.
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

    def record(self, frames, own, before):
        observed = np.asarray(self.observable(jnp.asarray(frames.positions)), float)
        if observed.shape != (len(frames), *self.values.shape):
            raise InputError(
                f"{self._name}: the observable of {len(frames)} frames has shape {observed.shape}, "
                f"expected {(len(frames), *self.values.shape)} as the values tell"
            )
        if not np.isfinite(observed).all():
            raise InputError(f"{self._name}: the observable is not finite on all frames")
        return {"observed": observed.reshape(len(frames), -1)}

    def value(self, energies, own, frames, record):
        return jnp.sum(self._residuals(energies, frames, record) ** 2)

    def equations(self, energies, own, slopes, own_slopes, frames, record):
        weights = np.asarray(weights_of(energies, frames))
        residuals = np.asarray(self._residuals(energies, frames, record))
        # Of d⟨O⟩ = −⟨(O − ⟨O⟩) dU⟩/kT, in units of the residuals.
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
        errors = _root(block_deviations(weights, deviations, blocks))
        worst = int(np.argmax(errors))
        if errors[worst] > 1.0:
            return (
                f"an average of {self._name} has a statistical error of "
                f"{errors[worst] * tolerance[worst]:.2g}, beyond its tolerance of "
                f"{tolerance[worst]:.2g}: draw more frames"
            )
        # The mean of the later halves of the blocks less that of the earlier ones.
        late = np.arange(len(frames)) * 2 * blocks // len(frames) % 2
        contrast = (4.0 * late - 2.0)[:, None] * deviations
        drift = np.abs(weights @ contrast)
        scatter = _root(block_deviations(weights, contrast - weights @ contrast, blocks))
        worst = int(np.argmax(drift))
        if drift[worst] > max(1.0, 4.0 * scatter[worst]):
            return (
                f"an average of {self._name} changes by {drift[worst] * tolerance[worst]:.2g} "
                f"between the halves of its frames, beyond its tolerance of "
                f"{tolerance[worst]:.2g}: equilibrate longer"
            )
        return ""

    @property
    def _scale(self) -> np.ndarray:
        return math.sqrt(self.weight / self.values.size) / self.tolerance.ravel()

    def _residuals(self, energies, frames: Frames, record) -> Array:
        means = weights_of(energies, frames) @ record["observed"]
        return self._scale * (means - self.values.ravel())


def _root(deviations: np.ndarray) -> np.ndarray:
    """Standard errors from the deviations of blocks; zero where there is one block alone."""
    return np.nan_to_num(np.sqrt((deviations**2).sum(axis=0)))


@dataclass(frozen=True, eq=False)
class RelativeEntropy(EnsembleTarget):
    """Information, in nats, that the potential's ensemble lacks of reference frames.

    ⟨U⟩_reference/kT + ln Z up to a constant, Z from the drawn frames; its gradient is
    (⟨dU/dθ⟩_reference − ⟨dU/dθ⟩)/kT: Shell, J. Chem. Phys. 129, 144108 (2008).  Least squares take
    the covariance of dU/dθ for its curvature, exact for parameters that U is linear in: Chaimovich
    and Shell, J. Chem. Phys. 134, 094112 (2011).  Values are counted from the start of the fit.

    Attributes:
        sampling: how frames are drawn, at the temperature of the reference.
        positions: (M, N, 3) Å of the reference ensemble, taken as independent.
        weight: (kcal/mol/Å)² for one nat.

    Raises:
        InputError: positions or a weight that cannot be used.
    """

    kept: ClassVar[tuple[str, ...]] = ("own", "before")

    sampling: Sampling
    positions: np.ndarray
    weight: float = 1.0

    def __post_init__(self):
        self._store(positions=checked_frames(self._name, self.positions))

    def record(self, frames, own, before):
        return {"own": np.asarray(own), "before": np.asarray(before)}

    def value(self, energies, own, frames, record):
        nats = (jnp.mean(own - record["own"]) - free_energy_of(energies, frames)) / frames.kT
        return record["before"] + self.weight * nats

    def equations(self, energies, own, slopes, own_slopes, frames, record):
        weights, half = np.asarray(weights_of(energies, frames)), 0.5 * self.weight
        kT, mean = float(frames.kT), weights @ slopes
        deviations = (slopes - mean) / kT
        of_data = (own_slopes - own_slopes.mean(axis=0)) / kT / len(own)
        noise = block_deviations(weights, deviations, int(frames.blocks))
        curvature = (weights[:, None] * deviations).T @ deviations
        chance = of_data.T @ of_data + np.nan_to_num(noise.T @ noise)
        return half * curvature, half * (own_slopes.mean(axis=0) - mean) / kT, half**2 * chance


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sample:
    """Frames drawn with the parameters of some moves, and what the targets know of them.

    Attributes:
        frames: F of them.
        positions: (F + M, N, 3) Å, those of the targets after those of the frames.
        records: by target.
        number: of the draw.
    """

    frames: Frames
    positions: Array
    records: tuple[dict[str, Array], ...]
    number: Array


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Targets of one molecule that share frames; pure functions of moves and samples.

    Attributes:
        sampling, targets: see `EnsembleTarget`.
        program: that of the molecule.
        free: the parameters that move.
        unravel: from a vector (P,) to moves.
        made: the molecule's potential with such parameters.
    """

    sampling: Sampling
    targets: tuple[EnsembleTarget, ...]
    program: Program
    free: FreeParameters
    unravel: Callable
    made: Callable[[dict], Potential]

    def energies(self, vector, positions) -> Array:
        """(F + M,) kcal/mol after moves."""
        return energies_of(self.program, self.free.params(self.unravel(vector)), positions)

    def slopes(self, vector, positions) -> tuple[Array, Array]:
        """Energies (F + M,) kcal/mol, and their derivatives (F + M, P) by the moves."""

        def energy(vector, R):
            return self.program.energy(self.free.params(self.unravel(vector)), R)

        most = self.program.frames_at_once(self.free.start.params)
        return by_frames(partial(jax.value_and_grad(energy), vector), positions, most)

    def value(self, vector, sample: Sample) -> tuple[Array, Array]:
        """The targets' part of the objective (), and the effective share () of the frames."""
        energies = self.energies(vector, sample.positions)
        parts = self._parts(energies, sample)
        weights = weights_of(parts[0][0], sample.frames)
        total = sum(
            target.value(*own, sample.frames, record)
            for target, own, record in zip(self.targets, parts, sample.records, strict=True)
        )
        return total, effective_frames(weights) / len(sample.frames)

    @cached_property
    def jit_energies(self):
        return jax.jit(self.energies)

    @cached_property
    def jit_slopes(self):
        return jax.jit(self.slopes)

    @cached_property
    def jit_value(self):
        return jax.jit(self.value)

    def equations(self, vector, sample: Sample) -> Iterator[tuple]:
        """For each target JᵀJ, Jᵀr and the covariance of Jᵀr."""
        energies, slopes = map(np.asarray, self.jit_slopes(vector, sample.positions))
        for target, own, dual, record in zip(
            self.targets, self._parts(energies, sample), self._parts(slopes, sample),
            sample.records, strict=True,
        ):  # fmt: skip
            yield target.equations(*own, *dual, sample.frames, record)

    def doubts(self, vector, sample: Sample) -> Iterator[str]:
        energies = np.asarray(self.jit_energies(vector, sample.positions))
        for target, own, record in zip(
            self.targets, self._parts(energies, sample), sample.records, strict=True
        ):
            if reason := target.doubts(own[0], sample.frames, record):
                yield reason

    def drawn(self, vector, before: Sample | None) -> Sample:
        """New frames after moves; the earlier sample gives the starts and the values so far."""
        potential = self.made(self.free.params(self.unravel(jnp.asarray(vector))))
        number = 0 if before is None else int(before.number) + 1
        frames = self.sampling.draw(potential, number, before and before.frames)
        own = [t.positions.astype(frames.positions.dtype) for t in self.targets]
        positions = np.concatenate([frames.positions, *(R for R in own if len(R))])
        energies = self.jit_energies(vector, positions)
        # The program of several molecules may round otherwise than that of one.
        frames = Frames(
            frames.positions, np.asarray(energies[: len(frames)]), frames.temperature, frames.blocks
        )
        values = [np.zeros(())] * len(self.targets)
        if before is not None:
            earlier = self.jit_energies(vector, before.positions)
            values = [
                np.asarray(target.value(*parts, before.frames, record))
                for target, parts, record in zip(
                    self.targets, self._parts(earlier, before), before.records, strict=True
                )
            ]
        new = Sample(frames, positions, (), np.asarray(number))
        records = tuple(
            target.record(frames, parts[1], value)
            for target, parts, value in zip(
                self.targets, self._parts(energies, new), values, strict=True
            )
        )
        return Sample(frames, positions, records, new.number)

    def _parts(self, values, sample: Sample) -> list[tuple]:
        """For each target the values of the frames, and those of its own positions."""
        at, out = len(sample.frames), []
        for target in self.targets:
            count = len(target.positions)
            out.append((values[: len(sample.frames)], values[at : at + count]))
            at += count
        return out


class Ensembles:
    """The ensembles of a fit, and the frames that each has at present.

    Args:
        ensembles: of all molecules.

    Attributes:
        samples: of each ensemble; empty before the first `refresh`.
        draws: of frames so far, the first ones among them.
    """

    def __init__(self, ensembles: Iterable[Ensemble]):
        self.ensembles = tuple(ensembles)
        self.samples: tuple[Sample, ...] = ()
        self.draws = 0

    def __bool__(self) -> bool:
        return bool(self.ensembles)

    def refresh(self, vector) -> bool:
        """Draw frames where there are none or too few count; whether any were drawn."""
        new = []
        for k, ensemble in enumerate(self.ensembles):
            sample = self.samples[k] if self.samples else None
            if sample is None or not self._evaluated(k, vector)[1] >= RENEW:
                sample = ensemble.drawn(vector, sample)
            new.append(sample)
        count = sum(a is not b for a, b in zip(new, self.samples or [None] * len(new), strict=True))
        self.samples, self.draws = tuple(new), self.draws + count
        return count > 0

    def value(self, vector, samples: tuple[Sample, ...]) -> Array:
        """Part of the objective (), pure."""
        own = zip(self.ensembles, samples, strict=True)
        return sum(ensemble.value(vector, sample)[0] for ensemble, sample in own)

    def objective(self, vector) -> float:
        """Part of the objective; infinite where too few of the frames count to tell."""
        found = [self._evaluated(k, vector) for k in range(len(self.ensembles))]
        if not all(share >= LEAST for _, share in found):
            return math.inf
        return math.fsum(value for value, _ in found)

    def share(self, vector) -> float:
        """Effective share of the frames, the smallest of the ensembles."""
        return min(self._evaluated(k, vector)[1] for k in range(len(self.ensembles)))

    def equations(self, vector) -> Iterator[tuple]:
        for ensemble, sample in zip(self.ensembles, self.samples, strict=True):
            yield from ensemble.equations(vector, sample)

    def log(self, state) -> None:
        """Note in the state of a fit, after a step, how many frames count, and the frames."""
        state.shares.append(self.share(state.vector))
        state.draws.append(self.draws)
        state.samples = [np.asarray(leaf) for leaf in jax.tree.leaves(self.samples)]

    def doubts(self, vector) -> list[str]:
        """Why the present averages are not to be trusted, in words."""
        own = zip(self.ensembles, self.samples, strict=True)
        return [reason for ensemble, sample in own for reason in ensemble.doubts(vector, sample)]

    def _evaluated(self, k: int, vector) -> tuple[float, float]:
        return tuple(map(float, self.ensembles[k].jit_value(vector, self.samples[k])))

    def restore(self, arrays: Sequence[np.ndarray]) -> None:
        """Go on with the samples that a state has kept."""
        if not arrays:
            return
        empty = Frames(*[np.zeros(())] * 4)
        like = tuple(
            Sample(empty, 0.0, tuple(dict.fromkeys(t.kept, 0.0) for t in e.targets), 0)
            for e in self.ensembles
        )
        self.samples = jax.tree.unflatten(jax.tree.structure(like), arrays)
        self.draws = sum(int(sample.number) + 1 for sample in self.samples)
