"""Frames of ensembles during a fit: drawn, reweighted, and drawn again.

A fit draws frames with its own parameters, reweights them as the parameters move, and draws new
ones when too few of them count: DiffTRe, Thaler and Zavadlav, Nat. Commun. 12, 6884 (2021).
Targets with the same `Sampling` object share its frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.learn.ensemble_targets import EnsembleTarget
from jaxff.md.differentiable.reweighting import (
    LEAST,
    Frames,
    Sampling,
    by_frames,
    effective_frames,
    energies_of,
    weights_of,
)
from jaxff.parameters import FreeParameters
from jaxff.potential import Potential, Program

Array = jax.Array

# Steps end where the effective share is LEAST; below RENEW the next step draws new frames.
RENEW = 0.5 * (1.0 + LEAST)


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
