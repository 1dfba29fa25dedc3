"""Frames of the ensembles that a fit draws and reweights.

A fit draws frames with the present parameters and reweights them as the parameters change. It draws
new frames when the effective share (effective number of frames divided by number of frames) is too
small. Targets with the same `Sampling` object share frames.
Source: Thaler and Zavadlav, Nat. Commun. 12, 6884 (2021), "DiffTRe".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.learn.ensemble_targets import EnsembleTarget
from jaxff.learn.state import State
from jaxff.md.differentiable.reweighting import (
    LEAST,
    Frames,
    Places,
    by_frames,
    effective_frames,
    energies_of,
    weights_of,
)
from jaxff.md.differentiable.sampling import Sampling
from jaxff.parameters import FreeParameters
from jaxff.potential import Potential, Program

Array = jax.Array

# No step goes below the effective share LEAST; below RENEW the next step draws new frames.
RENEW = 0.5 * (1.0 + LEAST)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sample:
    """Frames drawn with one set of parameters, and the records of the targets.

    Attributes:
        frames: the F frames.
        places: the F frames, followed by the M `positions` of the targets.
        records: for each target, the quantities of the frames that it needs.
        number: number of the draw, from 0.
    """

    frames: Frames
    places: Places
    records: tuple[Mapping[str, Array | np.ndarray], ...]
    number: int | np.ndarray


class Ensemble:
    """Targets of one molecule that share frames.

    Args:
        sampling: settings of the simulations that draw frames.
        targets: the targets.
        program: energy function of the molecule.
        free: the free parameters.
        unravel: function from a vector (P,) to the moves (scaled changes of the free parameters).
        potential_of: function from parameters to the potential of the molecule.
    """

    def __init__(
        self,
        sampling: Sampling,
        targets: tuple[EnsembleTarget, ...],
        program: Program,
        free: FreeParameters,
        unravel: Callable,
        potential_of: Callable[[dict], Potential],
    ):
        self.sampling, self.targets, self.program = sampling, targets, program
        self.free, self.unravel, self.potential_of = free, unravel, potential_of
        self.jit_energies = jax.jit(self._energies)
        self.jit_slopes = jax.jit(self._slopes)
        self.jit_value = jax.jit(self.value)

    def _params(self, vector):
        return self.free.params(self.unravel(vector))

    def _energies(self, vector, places) -> Array:
        """Return the energies (F + M,) kcal/mol after the moves (P,)."""
        return energies_of(self.program, self._params(vector), places)

    def _slopes(self, vector, places) -> tuple[Array, Array]:
        """Return energies (F + M,) kcal/mol and their derivatives (F + M, P) by moves (P,)."""

        def energy(vector, place):
            return self.program.energy(self._params(vector), *place)

        most = self.program.frames_at_once(self.free.start.params)
        return by_frames(partial(jax.value_and_grad(energy), vector), places, most)

    def value(self, vector, sample: Sample) -> tuple[Array, Array]:
        """Return the targets' part of the objective, (), and the effective share of the frames, ().

        Args:
            vector: (P,) moves.
            sample: the frames.
        """
        parts = self._parts(self._energies(vector, sample.places), sample)
        total = jnp.asarray(sum(self._values(parts, sample)))
        weights = weights_of(parts[0][0], sample.frames)
        return total, effective_frames(weights) / len(sample.frames)

    def _values(self, parts: list[tuple[Any, Any]], sample: Sample) -> list[Array]:
        return [
            target.value(*part, sample.frames, record)
            for target, part, record in zip(self.targets, parts, sample.records, strict=True)
        ]

    def equations(self, vector, sample: Sample) -> Iterator[tuple]:
        """Yield JᵀJ (P, P), Jᵀr (P,) and the covariance (P, P) of Jᵀr of each target.

        J contains the derivatives of the target's residuals r by the moves.
        """
        energies, slopes = map(np.asarray, self.jit_slopes(vector, sample.places))
        parts, dual = self._parts(energies, sample), self._parts(slopes, sample)
        for k, target in enumerate(self.targets):
            yield target.equations(*parts[k], *dual[k], sample.frames, sample.records[k])

    def doubts(self, vector, sample: Sample) -> Iterator[str]:
        """Yield the reasons why averages of the frames are not reliable."""
        energies = np.asarray(self.jit_energies(vector, sample.places))
        for k, target in enumerate(self.targets):
            of_frames, _ = self._parts(energies, sample)[k]
            if reason := target.doubts(of_frames, sample.frames, sample.records[k]):
                yield reason

    def drawn(self, vector, before: Sample | None) -> Sample:
        """Draw frames with the parameters after the moves.

        Args:
            vector: (P,) moves.
            before: the last sample (None: the first draw); simulations start from its frames.
        """
        potential = self.potential_of(self._params(jnp.asarray(vector)))
        number = 0 if before is None else int(before.number) + 1
        frames = self.sampling.draw(potential, number, before and before.frames)
        further = [R for t in self.targets if len(R := t.positions)]
        places = frames.places
        if further:
            if frames.boxes is not None:
                raise InputError("relative entropies of systems in boxes are not available")
            dtype = frames.positions.dtype
            more = [R.astype(dtype) for R in further]
            places = Places(np.concatenate([frames.positions, *more]))
        energies = self.jit_energies(vector, places)
        # The programs of one and of several molecules may round differently.
        frames = replace(frames, energies=np.asarray(energies[: len(frames)]))
        values = [np.zeros(())] * len(self.targets)
        if before is not None:
            earlier = self._parts(self.jit_energies(vector, before.places), before)
            values = [np.asarray(value) for value in self._values(earlier, before)]
        parts = self._parts(energies, Sample(frames, places, (), np.asarray(number)))
        records = tuple(
            target.record(frames, further, value)
            for target, (_, further), value in zip(self.targets, parts, values, strict=True)
        )
        return Sample(frames, places, records, np.asarray(number))

    def _parts(self, values, sample: Sample) -> list[tuple[Any, Any]]:
        """For each target, split values (F + M, ...) into frames and target positions."""
        at, out = len(sample.frames), []
        for target in self.targets:
            count = len(target.positions)
            out.append((values[: len(sample.frames)], values[at : at + count]))
            at += count
        return out


class Ensembles:
    """The ensembles of a fit, and their present frames.

    Args:
        ensembles: the ensembles of all molecules.

    Attributes:
        samples: frames of each ensemble; empty before the first `refresh`.
        draws: number of draws so far.
    """

    def __init__(self, ensembles: Iterable[Ensemble]):
        self.ensembles = tuple(ensembles)
        self.samples: tuple[Sample, ...] = ()
        self.draws = 0

    def __bool__(self) -> bool:
        return bool(self.ensembles)

    def refresh(self, vector) -> bool:
        """Draw frames with moves (P,) if necessary, and return whether any frames were drawn.

        A draw is necessary if there are no frames or if the effective share is too small.
        """
        new = []
        for k, ensemble in enumerate(self.ensembles):
            sample = self.samples[k] if self.samples else None
            if sample is None or not self._evaluated(k, vector)[1] >= RENEW:
                sample = ensemble.drawn(vector, sample)
            new.append(sample)
        count = sum(a is not b for a, b in zip(new, self.samples or [None] * len(new), strict=True))
        self.samples, self.draws = tuple(new), self.draws + count
        return count > 0

    def value(self, vector, samples: tuple[Sample, ...]) -> Array | int:
        """Return the ensembles' part of the objective, (), as a pure function of moves (P,)."""
        pairs = zip(self.ensembles, samples, strict=True)
        return sum(ensemble.value(vector, sample)[0] for ensemble, sample in pairs)

    def objective(self, vector) -> float:
        """Return the ensembles' part of the objective after moves (P,).

        The result is infinite if an effective share is too small.
        """
        results = [self._evaluated(k, vector) for k in range(len(self.ensembles))]
        if not all(share >= LEAST for _, share in results):
            return math.inf
        return math.fsum(value for value, _ in results)

    def equations(self, vector) -> Iterator[tuple]:
        """Yield JᵀJ (P, P), Jᵀr (P,) and the covariance (P, P) of Jᵀr of each target."""
        for ensemble, sample in zip(self.ensembles, self.samples, strict=True):
            yield from ensemble.equations(vector, sample)

    def log(self, state: State) -> None:
        """Add the smallest effective share, the number of draws and the frames to a state."""
        shares = [self._evaluated(k, state.vector)[1] for k in range(len(self.ensembles))]
        state.shares.append(min(shares))
        state.draws.append(self.draws)
        state.samples = [np.asarray(leaf) for leaf in jax.tree.leaves(self.samples)]

    def doubts(self, vector) -> list[str]:
        """Return the reasons why the present averages are not reliable."""
        pairs = zip(self.ensembles, self.samples, strict=True)
        return [reason for ensemble, sample in pairs for reason in ensemble.doubts(vector, sample)]

    def restore(self, arrays: Sequence[np.ndarray]) -> None:
        """Restore the frames from `samples` of a state."""
        if not arrays:
            return
        zero = jnp.zeros(())
        like = []
        for ensemble in self.ensembles:
            places = Places(zero)
            if getattr(getattr(ensemble.sampling, "molecule", None), "box", None) is not None:
                places = Places(zero, zero, ensemble.program.no_neighbors)
            frames = Frames(zero, zero, zero, zero, None, *places[1:])
            records = tuple(dict.fromkeys(t.kept, zero) for t in ensemble.targets)
            like.append(Sample(frames, places, records, 0))
        self.samples = jax.tree.unflatten(jax.tree.structure(tuple(like)), arrays)
        self.draws = sum(int(sample.number) + 1 for sample in self.samples)

    def _evaluated(self, k: int, vector) -> tuple[float, float]:
        value, share = self.ensembles[k].jit_value(vector, self.samples[k])
        return float(value), float(share)
