"""Thermodynamic reweighting: ensemble averages from frames of another potential.

Frames drawn with the energies U_0 have the weights w ∝ exp(−(U − U_0)/kT) under a potential with
energies U.  An average ⟨O⟩ with these weights has the derivative d⟨O⟩/dθ = ⟨dO/dθ⟩ −
(⟨O dU/dθ⟩ − ⟨O⟩⟨dU/dθ⟩)/kT by parameters θ.  No derivative of the dynamics is needed.
Source: Zwanzig, J. Chem. Phys. 22, 1420 (1954); Thaler and Zavadlav, Nat. Commun. 12, 6884 (2021),
"DiffTRe".

    frames = Sampling(molecule).draw(potential)
    slope = jax.grad(lambda p: average(p, frames, observable(frames.positions)))(potential)

In a box, energies U are those of each frame in its box.  At constant pressure the energy p V of the
pressure has no influence, because it is the same for both potentials.

`reweight` shows when new frames are needed, but cannot detect regions that no frame visits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxff import units
from jaxff.errors import InputError
from jaxff.potential import Params, Potential, Program

Array = jax.Array

LEAST = 0.5  # effective share of the frames below which the weights are not trusted
BLOCKS = 10  # least number of parts of the frames that count as independent


class UntrustedWarning(UserWarning):
    """A result is unreliable: weights are too uneven, or the motion is chaotic."""


class Places(NamedTuple):
    """Geometries of F frames; a single geometry has no axis F.

    Attributes:
        positions: (F, N, 3) Å.
        boxes: (F, 3, 3) Å, lattice vectors as rows, or None.
        neighbors: the neighbour list of each frame, with a leading axis F, or None.
    """

    positions: Any
    boxes: Any = None
    neighbors: Any = None


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("positions", "energies", "temperature", "blocks", "boxes", "neighbors"),
    meta_fields=("numbers",),
)
@dataclass(frozen=True)
class Frames:
    """Geometries drawn from an ensemble of a potential; a JAX pytree.

    The ensemble has a constant temperature, and a constant volume or a constant pressure.

    Attributes:
        positions: (F, N, 3) Å.
        energies: (F,) energies of this potential, kcal/mol.
        temperature: () K.
        blocks: () number of independent, consecutive parts of equal length.
        numbers: N atomic numbers (None: unknown).
        boxes: (F, 3, 3) Å, lattice vectors as rows, or None.
        neighbors: the neighbour list of each frame, with a leading axis F, or None.
    """

    positions: Any
    energies: Any
    temperature: Any
    blocks: Any
    numbers: tuple[int, ...] | None = None
    boxes: Any = None
    neighbors: Any = None

    @classmethod
    def of(
        cls,
        potential: Potential,
        positions,
        temperature: float,
        blocks: int | None = None,
        boxes=None,
    ):
        """Make the frames from geometries that were drawn with a potential.

        Args:
            potential: the potential, with the atom order of the positions.
            positions: (F, N, 3) Å in the order of time, or (R, F, N, 3) of R replicas.
            temperature: K.
            blocks: number of independent parts (None: the smallest multiple of the number of
                replicas that is at least 10).
            boxes: (F, 3, 3) or (R, F, 3, 3) Å, lattice vectors as rows, or None.

        Raises:
            InputError: there are no frames, a shape is wrong, an energy is not finite, or the
                temperature is not positive.
        """
        R = np.asarray(positions, float)
        if R.ndim not in (3, 4) or R.shape[-1] != 3 or 0 in R.shape:
            raise InputError(
                f"positions must have shape (F, N, 3) in Å with at least one frame, got {R.shape}"
            )
        if not (np.isfinite(temperature) and temperature > 0.0):
            raise InputError(f"the temperature of frames must be positive, got {temperature} K")
        flat = R.reshape(-1, *R.shape[-2:])
        replicas = len(R) if R.ndim == 4 else 1
        blocks = blocks or min(replicas * -(-BLOCKS // replicas), len(flat))
        if not 1 <= blocks <= len(flat):
            raise InputError(f"blocks={blocks} must be from 1 to {len(flat)}, the number of frames")
        potential._checked(flat[0])
        flat = flat.astype(jnp.promote_types(float, potential.dtype))
        if boxes is not None and np.shape(boxes) != (*R.shape[:-2], 3, 3):
            raise InputError(
                f"boxes must have shape {(*R.shape[:-2], 3, 3)} in Å, got {np.shape(boxes)}"
            )
        places = placed(potential, flat, boxes)
        energies = np.asarray(_jit_energies(potential.program, potential.params, places))
        if not np.isfinite(energies).all():
            frame = int(np.argmin(np.isfinite(energies)))
            raise InputError(f"the energy of frame {frame} is not finite: remove the frame")
        numbers = _elements(potential)
        kelvin = np.asarray(float(temperature))
        return cls(flat, energies, kelvin, np.asarray(blocks), numbers, *places[1:])

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def places(self) -> Places:
        """The geometries."""
        return Places(self.positions, self.boxes, self.neighbors)

    def observed(self, observable: Callable) -> Any:
        """Values (F, ...) of a function of positions and, in boxes, of positions and boxes."""
        R = jnp.asarray(self.positions)
        return observable(R) if self.boxes is None else observable(R, jnp.asarray(self.boxes))

    @property
    def kT(self) -> Array:
        """Boltzmann's constant times the temperature, () kcal/mol."""
        return units.BOLTZMANN * self.temperature


def placed(potential: Potential, positions: np.ndarray, boxes=None) -> Places:
    """Geometries with the neighbour lists that a potential needs.

    Args:
        potential: the potential.
        positions: (F, N, 3) Å.
        boxes: (..., 3, 3) Å, F boxes, or None.
    """
    if boxes is None:
        return Places(positions)
    boxes = np.asarray(boxes).reshape(-1, 3, 3).astype(positions.dtype)
    if not potential.program.needs_list:
        return Places(positions, boxes)
    frames = zip(positions, boxes, strict=True)
    lists = [potential.neighbors(R, box, skin=0.0) for R, box in frames]
    capacity = max(one.capacity for one in lists)
    lists = [one.grown(capacity) for one in lists]
    return Places(positions, boxes, jax.tree.map(lambda *x: np.stack(x), *lists))


def energies_of(program: Program, params: Params, places: Places) -> Array:
    """Energies (F,) kcal/mol of frames.

    A gradient computes energies again in chunks, so that its memory hardly depends on F.
    """
    ready = program.jit_ready(params)

    @jax.checkpoint
    def one(place):
        return program.energy(ready, *place)

    return by_frames(one, places, program.frames_at_once(params))


def by_frames(function, places: Places, most: int):
    """Apply a function of one geometry to frames, `most` at a time."""
    places = jax.tree.map(jnp.asarray, places)
    # A chunk that divides the number of frames compiles once; a smaller last chunk compiles again.
    count = len(places.positions)
    even = max(n for n in range(1, most + 1) if count % n == 0)
    size = even if 4 * even >= most else most
    return jax.lax.map(function, places, batch_size=min(size, max(count, 1)))


_jit_energies = jax.jit(energies_of, static_argnums=0)


def _elements(potential: Potential) -> tuple[int, ...] | None:
    molecule = potential.molecule
    return None if molecule is None else tuple(molecule.numbers.tolist())


def _energies(potential: Potential, frames: Frames) -> Array:
    """Energies (F,) kcal/mol of the frames.

    Raises:
        InputError: the frames are of another molecule than the potential.
    """
    potential._checked(frames.positions[0])
    numbers = _elements(potential)
    if None not in (numbers, frames.numbers) and numbers != frames.numbers:
        raise InputError(
            f"the atomic numbers {list(frames.numbers or ())} of the frames differ from those of "
            f"the potential, {list(numbers or ())}: give frames of the same molecule in the same "
            "atom order"
        )
    return _jit_energies(potential.program, potential.params, frames.places)


def weights_of(energies, frames: Frames) -> Array:
    """Weights (F,) of frames; see `weights`.  `energies` are U, (F,) kcal/mol."""
    return jax.nn.softmax(-(energies - frames.energies) / frames.kT)


def weights(potential: Potential, frames: Frames) -> Array:
    """Weights (F,) of frames under a potential, with a sum of one.

    They are proportional to exp(−(U − U_0)/kT) for energies U of `potential` and U_0 of `frames`.
    """
    return weights_of(_energies(potential, frames), frames)


def effective_frames(weights) -> Array:
    """Effective number () of frames, exp(−Σ w ln w), for weights w (F,) of sum one.

    The number is F for equal weights, and 1 if one frame has all the weight.
    Source: Carmichael and Shell, J. Phys. Chem. B 116, 8383 (2012); Thaler and Zavadlav, Nat.
    Commun. 12, 6884 (2021), eq. 6.
    """
    return jnp.exp(jax.scipy.special.entr(weights).sum())


def average(
    potential: Potential, frames: Frames, values: Array | Callable[[Array], Array]
) -> Array:
    """Mean (...) of an observable under a potential, by reweighting of frames.

    The average is differentiable by the parameters.  `reweight` shows whether to trust it.

    Args:
        potential: the potential, with the atom order of the frames.
        frames: see `Frames`.
        values: (F, ...) values of the observable, or a function of positions (F, N, 3) Å (and,
            in boxes, of boxes (F, 3, 3) Å) that returns them.

    Raises:
        InputError: the numbers of values and frames differ.
    """
    return jnp.tensordot(weights(potential, frames), _values(values, frames), axes=1)


def free_energy_difference(potential: Potential, frames: Frames) -> Array:
    """Free energy, () kcal/mol, of a potential relative to that of the frames.

    The formula is −kT ln⟨exp(−(U − U_0)/kT)⟩ with the energies U of `potential` and U_0 in
    `frames`.  Its gradient is the average of dU/dθ under `potential`, with the parameters θ.
    Source: Zwanzig, J. Chem. Phys. 22, 1420 (1954).
    """
    return free_energy_of(_energies(potential, frames), frames)


def free_energy_of(energies, frames: Frames) -> Array:
    """Free energy () kcal/mol of `free_energy_difference`, for energies U (F,)."""
    exponents = -(energies - frames.energies) / frames.kT
    return -frames.kT * (jax.nn.logsumexp(exponents) - jnp.log(len(frames)))


class Average(NamedTuple):
    """Mean (...) and standard error (...) of an observable, in its unit."""

    mean: np.ndarray
    error: np.ndarray


@dataclass(frozen=True, eq=False)
class Reweighting:
    """Frames with weights under a potential, and whether to trust the weights.

    Attributes:
        potential: the potential.
        frames: see `Frames`.
        weights: (F,) weights with a sum of one.
        share: effective number of frames divided by F.
        trusted: whether the share is at least the limit of `reweight`.
        reason: why the weights are not trusted, or "".
    """

    potential: Potential
    frames: Frames
    weights: np.ndarray
    share: float
    trusted: bool
    reason: str

    def average(self, values) -> Average:
        """Mean of an observable, and standard error from the blocks of the frames.

        Args:
            values: (F, ...) values of the observable, or a function of positions (F, N, 3) Å
                (and, in boxes, of boxes (F, 3, 3) Å) that returns them.

        Raises:
            InputError: the numbers of values and frames differ.

        Warns:
            UntrustedWarning: the weights must not be trusted.
        """
        self._warn("average")
        values = np.asarray(_values(values, self.frames))
        mean = np.tensordot(self.weights, values, axes=1)
        parts = block_deviations(self.weights, values - mean, int(self.frames.blocks))
        return Average(mean, np.sqrt((parts**2).sum(axis=0)))

    def gradient(self, values) -> Params:
        """Derivatives of the mean by the parameters, each (..., shape of the parameter).

        Args:
            values: (F, ...) values of the observable, or a function of positions (F, N, 3) Å
                (and, in boxes, of boxes (F, 3, 3) Å) that returns them.  The values must not
                depend on the parameters.

        Raises:
            InputError: the numbers of values and frames differ.

        Warns:
            UntrustedWarning: the weights must not be trusted.
        """
        self._warn("gradient")
        return jax.jacrev(average)(self.potential, self.frames, values).params

    def _warn(self, what: str) -> None:
        if not self.trusted:
            warnings.warn(f"the {what} is not reliable: {self.reason}", UntrustedWarning, 3)


def reweight(potential: Potential, frames: Frames, least: float = LEAST) -> Reweighting:
    """Compute the weights of frames under a potential, and whether to trust them.

    Args:
        potential: the potential, with the atom order of the frames.
        frames: see `Frames`.
        least: effective share of the frames below which the weights are not trusted.

    Raises:
        InputError: the frames are of another molecule than the potential.
    """
    energies = np.asarray(_energies(potential, frames))
    if not np.isfinite(energies).all():
        frame = int(np.argmin(np.isfinite(energies)))
        reason = f"the energy of frame {frame} is not finite; remove the frame"
        return Reweighting(potential, frames, np.full(len(energies), np.nan), 0.0, False, reason)
    weights = np.asarray(weights_of(energies, frames))
    effective = float(effective_frames(weights))
    share = effective / len(frames)
    reason = ""
    if not share >= least:
        reason = (
            f"the effective number of the {len(frames)} frames is {effective:.3g}, but must be at "
            f"least {least * len(frames):.3g}: draw new frames with the present parameters"
        )
    return Reweighting(potential, frames, weights, share, not reason, reason)


def block_deviations(weights, deviations, blocks: int) -> np.ndarray:
    """Deviations (blocks, ...); the sum of squares is the variance of the mean.

    Args:
        weights: (F,) weights with a sum of one.
        deviations: (F, ...) deviations of the values from their weighted mean.
        blocks: number of equal, independent parts of the frames; with one part the result is NaN.
    """
    weighted = np.asarray(weights).reshape(-1, *(1,) * (np.ndim(deviations) - 1)) * deviations
    if blocks < 2:
        return np.full((1, *weighted.shape[1:]), np.nan)
    starts = np.arange(blocks) * len(weighted) // blocks
    return np.sqrt(blocks / (blocks - 1)) * np.add.reduceat(weighted, starts, axis=0)


def _values(values, frames: Frames) -> Array:
    values = jnp.asarray(frames.observed(values) if callable(values) else values)
    if values.ndim == 0 or len(values) != len(frames):
        raise InputError(
            f"values must have shape ({len(frames)}, ...) for these frames, got {values.shape}"
        )
    return values
