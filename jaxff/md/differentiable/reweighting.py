"""Thermodynamic reweighting: ensemble averages from frames of another potential.

Frames drawn with the energies U_0 have the weights w ∝ exp(−(U − U_0)/kT) under the energies U
(Zwanzig, J. Chem. Phys. 22, 1420 (1954)).  Averages with these weights have the gradient
d⟨O⟩/dθ = ⟨dO/dθ⟩ − (⟨O dU/dθ⟩ − ⟨O⟩⟨dU/dθ⟩)/kT, which needs no derivative of the dynamics
(DiffTRe: Thaler and Zavadlav, Nat. Commun. 12, 6884 (2021)).

    frames = Sampling(molecule, temperature=300.0).draw(potential)
    slope = jax.grad(lambda p: average(p, frames, observable(frames.positions)))(potential)

If a changed potential prefers other geometries, the frames contain no information about it.
`reweight` shows by the effective number of frames when new ones are needed.  It cannot detect
regions that no frame visits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxff import units
from jaxff.errors import InputError
from jaxff.md.ensembles import Ensemble, Langevin
from jaxff.md.settings import Output, Start, checked_count
from jaxff.molecule import Molecule
from jaxff.potential import Params, Potential, Program

Array = jax.Array

LEAST = 0.5  # effective share of the frames below which the weights are not trusted
BLOCKS = 10  # smallest number of parts of the frames that are taken as independent


class UntrustedWarning(UserWarning):
    """A result is not reliable: the weights are too uneven, or the motion is chaotic."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Frames:
    """Geometries drawn from the canonical ensemble of some potential; a JAX pytree.

    Attributes:
        positions: (F, N, 3) Å.
        energies: (F,) kcal/mol of the potential that they were drawn with.
        temperature: () K.
        blocks: () number of independent, consecutive parts of equal length.
    """

    positions: Any
    energies: Any
    temperature: Any
    blocks: Any

    @classmethod
    def of(cls, potential: Potential, positions, temperature: float, blocks: int | None = None):
        """Frames that were drawn with `potential`.

        Args:
            potential: has its atoms in the order of the positions.
            positions: (F, N, 3) Å in the order of time, or (R, F, N, 3) of R replicas.
            temperature: K.
            blocks: number of independent parts; None: the number of replicas, or with fewer than
                10 replicas a multiple of it that is at least 10.

        Raises:
            InputError: no frames, wrong shapes, energies that are not finite, or a temperature
                that is not positive.
        """
        R = np.asarray(positions, float)
        if R.ndim not in (3, 4) or R.shape[-1] != 3 or 0 in R.shape:
            raise InputError(f"frames have shape {R.shape}, expected (F, N, 3) in Å, F from 1")
        if not (np.isfinite(temperature) and temperature > 0.0):
            raise InputError(f"the frames' temperature is {temperature} K: it must be positive")
        flat = R.reshape(-1, *R.shape[-2:])
        replicas = len(R) if R.ndim == 4 else 1
        blocks = blocks or min(replicas * -(-BLOCKS // replicas), len(flat))
        if not 1 <= blocks <= len(flat):
            raise InputError(f"blocks is {blocks}: use 1 to {len(flat)} for {len(flat)} frames")
        potential._checked(flat[0])
        flat = flat.astype(jnp.promote_types(float, potential.dtype))
        energies = np.asarray(_jit_energies(potential.program, potential.params, flat))
        if not np.isfinite(energies).all():
            frame = int(np.argmin(np.isfinite(energies)))
            raise InputError(f"the energy of frame {frame} is not finite: remove that frame")
        return cls(flat, energies, np.asarray(float(temperature)), np.asarray(blocks))

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def kT(self) -> Array:
        """Boltzmann's constant times the temperature, () kcal/mol."""
        return units.BOLTZMANN * self.temperature


def energies_of(program: Program, params: Params, positions) -> Array:
    """Energies (F,) kcal/mol of positions (F, N, 3) Å.

    They are computed in chunks that a gradient computes again, so that the memory of a gradient is
    almost independent of the number of frames.
    """
    ready = program.jit_ready(params)

    @jax.checkpoint
    def one(R):
        return program.energy(ready, R)

    return by_frames(one, jnp.asarray(positions), program.frames_at_once(params))


def by_frames(function, positions: Array, most: int):
    """Apply a function to each frame of positions (F, N, 3), at most `most` at a time."""
    # A chunk that divides the number of frames compiles once; otherwise the rest compiles again.
    even = max(n for n in range(1, most + 1) if len(positions) % n == 0)
    size = even if 4 * even >= most else most
    return jax.lax.map(function, positions, batch_size=min(size, max(len(positions), 1)))


_jit_energies = jax.jit(energies_of, static_argnums=0)


def _energies(potential: Potential, frames: Frames) -> Array:
    return _jit_energies(potential.program, potential.params, frames.positions)


def weights_of(energies, frames: Frames) -> Array:
    """Weights (F,) of frames, summing to one, under new energies (F,) kcal/mol."""
    return jax.nn.softmax(-(energies - frames.energies) / frames.kT)


def weights(potential: Potential, frames: Frames) -> Array:
    """Weights (F,) of frames under `potential`, summing to one: ∝ exp(−(U − U_0)/kT).

    Differentiable with respect to the potential's parameters.
    """
    return weights_of(_energies(potential, frames), frames)


def effective_frames(weights) -> Array:
    """Effective number () of frames with weights (F,) that sum to one: exp(−Σ w ln w).

    It is F for equal weights, and 1 if one frame has all the weight; Thaler and Zavadlav (2021),
    eq. 6, after Carmichael and Shell, J. Phys. Chem. B 116, 8383 (2012).
    """
    return jnp.exp(jax.scipy.special.entr(weights).sum())


def average(
    potential: Potential, frames: Frames, values: Array | Callable[[Array], Array]
) -> Array:
    """Average (...) of an observable under `potential`, from frames of another.

    Differentiable with respect to the potential's parameters.  It cannot check whether the weights
    can be trusted, because it may be traced: use `reweight` with the same arguments for this.

    Args:
        potential: its atoms in the order of the frames.
        frames: see `Frames`.
        values: (F, ...) of the frames, or a function of the positions (F, N, 3) Å that returns
            them.

    Raises:
        InputError: another number of values than frames.
    """
    return jnp.tensordot(weights(potential, frames), _values(values, frames), axes=1)


def free_energy_difference(potential: Potential, frames: Frames) -> Array:
    """Free energy () kcal/mol of `potential` relative to the potential of the frames.

    −kT ln⟨exp(−ΔU/kT)⟩_0, Zwanzig (1954).  The gradient is ⟨dU/dθ⟩ under `potential`.
    """
    return free_energy_of(_energies(potential, frames), frames)


def free_energy_of(energies, frames: Frames) -> Array:
    """`free_energy_difference` from new energies (F,) kcal/mol."""
    exponents = -(energies - frames.energies) / frames.kT
    return -frames.kT * (jax.nn.logsumexp(exponents) - jnp.log(len(frames)))


class Average(NamedTuple):
    """A mean (...) and its standard error (...), in the unit of the observable."""

    mean: np.ndarray
    error: np.ndarray


@dataclass(frozen=True, eq=False)
class Reweighting:
    """Frames with weights under a potential, and whether to trust the weights.

    Attributes:
        potential: the potential.
        frames: see `Frames`.
        weights: (F,), summing to one.
        share: effective number of frames divided by their number.
        trusted: whether the share reaches the limit.
        reason: why the weights are not trusted; empty if they are.
    """

    potential: Potential
    frames: Frames
    weights: np.ndarray
    share: float
    trusted: bool
    reason: str

    def average(self, values) -> Average:
        """Mean of an observable, and its standard error from the frames' blocks.

        The error is that of a ratio of means, to first order.

        Args:
            values: (F, ...) of the frames, or a function of the positions (F, N, 3) Å.

        Raises:
            InputError: another number of values than frames.

        Warns:
            UntrustedWarning: the weights must not be trusted.
        """
        self._warn("average")
        values = np.asarray(_values(values, self.frames))
        mean = np.tensordot(self.weights, values, axes=1)
        parts = block_deviations(self.weights, values - mean, int(self.frames.blocks))
        return Average(mean, np.sqrt((parts**2).sum(axis=0)))

    def gradient(self, values) -> Params:
        """Derivatives of the mean by each parameter, (..., shape of the parameter).

        Args:
            values: as for `average`, taken as independent of the parameters.

        Raises:
            InputError: another number of values than frames.

        Warns:
            UntrustedWarning: the weights must not be trusted.
        """
        self._warn("gradient")
        return jax.jacrev(average)(self.potential, self.frames, values).params

    def _warn(self, what: str) -> None:
        if not self.trusted:
            warnings.warn(f"{what} of {self.reason}", UntrustedWarning, stacklevel=3)


def reweight(potential: Potential, frames: Frames, least: float = LEAST) -> Reweighting:
    """Compute the weights of frames under `potential`, and whether to trust them.

    Args:
        potential: its atoms in the order of the frames.
        frames: see `Frames`.
        least: smallest effective share of the frames with trusted weights.
    """
    energies = np.asarray(_energies(potential, frames))
    if not np.isfinite(energies).all():
        frame = int(np.argmin(np.isfinite(energies)))
        reason = f"{len(frames)} frames: the energy of frame {frame} is not finite"
        return Reweighting(potential, frames, np.full(len(energies), np.nan), 0.0, False, reason)
    weights = np.asarray(weights_of(energies, frames))
    effective = float(effective_frames(weights))
    share = effective / len(frames)
    reason = ""
    if not share >= least:
        reason = (
            f"{len(frames)} frames of which only {effective:.3g} count effectively (less than "
            f"{least:g} of them) under these parameters: draw new frames with them"
        )
    return Reweighting(potential, frames, weights, share, not reason, reason)


def block_deviations(weights, deviations, blocks: int) -> np.ndarray:
    """Deviations (blocks, ...) of a weighted mean; their squares sum to its variance.

    Args:
        weights: (F,), summing to one.
        deviations: (F, ...) of the values from their weighted mean.
        blocks: number of equal parts of the frames, taken as independent; with one part the
            result is NaN.
    """
    weighted = np.asarray(weights).reshape(-1, *(1,) * (np.ndim(deviations) - 1)) * deviations
    if blocks < 2:
        return np.full((1, *weighted.shape[1:]), np.nan)
    starts = np.arange(blocks) * len(weighted) // blocks
    return np.sqrt(blocks / (blocks - 1)) * np.add.reduceat(weighted, starts, axis=0)


@dataclass(frozen=True, eq=False)
class Sampling:
    """Dynamics of replicas at one temperature that frames are drawn from.

    Each replica must cross all relevant barriers and forget its start during the equilibration.
    The weights cannot show whether it does, but fits warn if the two halves of the frames differ.

    Attributes:
        molecule: elements, masses and first geometry, in the atom order of the potential.
        ensemble: with a thermostat at one constant temperature.
        steps: number of recorded steps of each replica, a multiple of `every`.
        equilibration: number of steps before them, a multiple of `every`.
        every: steps between frames.
        start: replicas, seed, and perhaps the positions for the first draw.

    Raises:
        InputError: settings that cannot be used.
    """

    molecule: Molecule
    ensemble: Ensemble = Langevin(friction=5.0)
    steps: int = 10_000
    equilibration: int = 5_000
    every: int = 20
    start: Start = Start(replicas=16)

    def __post_init__(self):
        every = checked_count("every", self.every)
        for name, least in (("steps", every), ("equilibration", 0)):
            value = getattr(self, name)
            if value < least or value % every:
                raise InputError(
                    f"{name} is {value}: use a multiple of every ({every}) from {least}"
                )
        ensemble = self.ensemble
        first, last = ensemble.temperature, ensemble.last_temperature
        if ensemble.conserves_energy or np.ndim(first) or first != last or first == 0.0:
            raise InputError(
                f"the ensemble is {ensemble}: frames need a thermostat at one constant temperature "
                "above 0 K"
            )
        if self.start.replicas is None or self.start.velocities is not None:
            raise InputError("the start of a Sampling needs replicas and cannot have velocities")

    @property
    def temperature(self) -> float:
        """Temperature of the frames, K."""
        return float(np.asarray(self.ensemble.temperature))

    def draw(self, potential: Potential, number: int = 0, previous: Frames | None = None) -> Frames:
        """Frames of the canonical ensemble of `potential`, replica after replica.

        Args:
            potential: energy of the dynamics.
            number: number of the draw; each has other starts, velocities and noise.
            previous: frames of a similar potential: the replicas start from some of them, chosen
                by their weights under `potential`.

        Raises:
            InputError: the molecule's atoms are not in the potential's order.
            SimulationError: the dynamics failed.
        """
        from jaxff.md.simulation import simulate

        if potential.matched(self.molecule) is not potential:
            raise InputError(
                "the molecule of the sampling has its atoms in another order than the potential: "
                "use potential.molecule, or potential.matched(molecule)"
            )
        replicas = self.start.replicas or 1
        seed = self.start.seed + number * replicas
        positions = self.start.positions
        if previous is not None:
            chosen = _systematic(reweight(potential, previous).weights, replicas, number)
            positions = np.asarray(previous.positions)[chosen]
        run = simulate(
            potential,
            self.molecule,
            self.ensemble,
            steps=self.equilibration + self.steps,
            start=replace(self.start, positions=positions, seed=seed),
            output=Output(every=self.every),
        )
        first = self.equilibration // self.every + 1  # the start is a frame, too
        return Frames.of(potential, run.positions[:, first:], self.temperature)


def _systematic(weights: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Indices (count,) drawn with these weights by systematic resampling."""
    if not np.isfinite(weights).all():
        raise InputError(
            "the frames to start from have energies that are not finite: remove such frames"
        )
    points = (np.random.default_rng(seed).random() + np.arange(count)) / count
    return np.minimum(np.searchsorted(np.cumsum(weights), points), len(weights) - 1)


def _values(values, frames: Frames) -> Array:
    values = jnp.asarray(values(frames.positions) if callable(values) else values)
    if values.ndim == 0 or len(values) != len(frames):
        raise InputError(
            f"values have shape {values.shape}: {len(frames)} frames need ({len(frames)}, ...)"
        )
    return values
