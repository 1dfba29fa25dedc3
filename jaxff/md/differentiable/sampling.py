"""Simulations that draw frames of an ensemble of a potential."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxff.errors import InputError
from jaxff.md.differentiable.reweighting import Frames, reweight
from jaxff.md.ensembles import NPT, Ensemble, Langevin
from jaxff.md.settings import Output, Start
from jaxff.potential import Potential
from jaxff.settings import Settings, count


@dataclass(frozen=True, eq=False)
class Sampling(Settings):
    """Settings of the simulations of replicas that draw frames at one temperature.

    The replicas must cross all relevant barriers and equilibrate.  Fits warn if the two halves of
    the frames differ.

    Attributes:
        molecule: elements, masses and first geometry, in the atom order of the potential; a
            `Molecule` or a `System`.
        ensemble: an ensemble with a thermostat and one constant temperature, also `NPT`.
        steps: number of recorded steps of each replica, a multiple of `every`.
        equilibration: number of steps before the recorded steps, a multiple of `every`.
        every: number of steps between frames.
        start: replicas, seed, and optionally positions for the first draw.

    Raises:
        InputError: `steps` or `equilibration` is not a multiple of `every`, the temperature is not
            one positive constant, or `start` has velocities or no replicas.
    """

    molecule: Any
    ensemble: Ensemble = Langevin(friction=5.0)
    steps: int = count(10_000)
    equilibration: int = count(5_000, least=0)
    every: int = count(20)
    start: Start = Start(replicas=16)

    def __post_init__(self):
        super().__post_init__()
        for name, value in (("steps", self.steps), ("equilibration", self.equilibration)):
            if value % self.every:
                raise InputError(f"{name} ({value}) must be a multiple of every ({self.every})")
        ensemble = self.ensemble
        first, last = ensemble.temperature, ensemble.last_temperature
        if ensemble.conserves_energy or np.ndim(first) or first != last or first == 0.0:
            raise InputError(
                f"ensemble={ensemble} must have a thermostat at one constant temperature above 0 K"
            )
        if self.start.replicas is None or self.start.velocities is not None:
            raise InputError("the start of a Sampling must have replicas, and no velocities")

    @property
    def temperature(self) -> float:
        """Temperature of the frames, K."""
        return float(np.asarray(self.ensemble.temperature))

    def draw(self, potential: Potential, number: int = 0, previous: Frames | None = None) -> Frames:
        """Draw frames of the ensemble of a potential, replica by replica.

        Args:
            potential: the potential.
            number: index of the draw, which determines the random numbers.
            previous: frames of a similar potential.  Initial positions are drawn from these frames
                with the weights under `potential` (None: use the positions of `start`).  At
                constant pressure, they are always those of `start`.

        Raises:
            InputError: the potential has another atom order, or a previous frame has an energy that
                is not finite.
            SimulationError: the dynamics failed.
        """
        from jaxff.md.simulation import simulate

        if potential.matched(self.molecule) is not potential:
            raise InputError(
                "the molecule of the Sampling has another atom order than the potential: use "
                "potential.molecule, or potential.matched(molecule)"
            )
        replicas = self.start.replicas or 1
        seed = self.start.seed + number * replicas
        positions = self.start.positions
        if previous is not None and not isinstance(self.ensemble, NPT):
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
        boxes = None if run.boxes is None else run.boxes[:, first:]
        return Frames.of(potential, run.positions[:, first:], self.temperature, boxes=boxes)


def _systematic(weights: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Indices (count,) drawn with `weights` by systematic resampling."""
    if not np.isfinite(weights).all():
        raise InputError("previous frames have energies that are not finite: remove such frames")
    points = (np.random.default_rng(seed).random() + np.arange(count)) / count
    return np.minimum(np.searchsorted(np.cumsum(weights), points), len(weights) - 1)
