"""Settings of sampling, labelling and active learning."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jaxff.errors import InputError
from jaxff.reference.calculators import Method
from jaxff.settings import Settings, checked_count, choice, count, flag, number, random_seed

if TYPE_CHECKING:
    import numpy as np

    from jaxff.md import Run
    from jaxff.molecule import Molecule
    from jaxff.potential import Potential

Progress = Callable[[str, float], None]
SETTING_UP = "setting up the calculator"  # a phase of work, for progress
REACTIONS = ("stop", "keep", "drop")
CRITERIA = ("uncertainty", "farthest", "random")  # of the selection in active learning
MIN_VALID = 4  # validation frames of a model in active learning


@dataclass(frozen=True)
class Sampling(Settings):
    """Settings of Langevin dynamics that sample frames.

    Attributes:
        temperature: K.
        spacing: time between frames, fs; a multiple of `dt`.
        equilibration: time before the first frame, fs; rounded up to a multiple of `spacing`.
        replicas: number of independent runs.
        dt: time step, fs.
        friction: 1/ps.
        seed: random seed of velocities and noise.
        stretch: dynamics of a `Potential` stop if a bond becomes longer than this multiple of the
            initial length; None for no limit.

    Raises:
        InputError: a value is out of range.
    """

    temperature: float = number(500.0, "K", above=0.0)
    spacing: float = number(100.0, "fs", above=0.0)
    equilibration: float = number(1000.0, "fs", least=0.0)
    replicas: int = count(4)
    dt: float = number(0.5, "fs", above=0.0)
    friction: float = number(10.0, "1/ps", above=0.0)
    seed: int = random_seed()
    stretch: float | None = number(1.5, above=1.0, infinite=True, optional=True)

    def __post_init__(self):
        super().__post_init__()
        if abs(self.frame_steps * self.dt - self.spacing) > 1e-9 * self.spacing:
            raise InputError(
                f"spacing ({self.spacing:g} fs) must be a multiple of the time step dt "
                f"({self.dt:g} fs)"
            )

    @property
    def frame_steps(self) -> int:
        """Number of time steps between two frames."""
        return round(self.spacing / self.dt)

    @property
    def waiting_frames(self) -> int:
        """Number of frames of each replica in the equilibration."""
        return math.ceil(self.equilibration / self.spacing - 1e-9)

    def run(
        self,
        potential: Potential,
        molecule: Molecule,
        n_frames: int,
        *,
        starts: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> Run:
        """Run the dynamics of all replicas, including the equilibration.

        Args:
            potential: the potential.
            molecule: elements, bonds and starting geometry.
            n_frames: number of frames of each replica after the starting geometry.
            starts: starting geometries of the replicas (R, N, 3) Å; None for the geometry of
                `molecule`.
            progress: called with the name of a phase and the fraction done.

        Raises:
            InputError: the potential does not match the molecule.
            SimulationError: numbers that are not finite, a temperature above the limit, or a broken
                bond.
        """
        from jaxff import md

        return md.simulate(
            potential,
            molecule,
            md.Langevin(self.temperature, friction=self.friction, dt=self.dt),
            steps=self.frame_steps * n_frames,
            start=md.Start(starts, replicas=self.replicas, seed=self.seed),
            output=md.Output(every=self.frame_steps),
            stop=md.Stop(stretch=self.stretch),
            progress=progress,
        )

    def frames(
        self,
        potential: Potential,
        molecule: Molecule,
        n: int,
        *,
        starts: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Sample positions (n, N, 3) Å after equilibration, ordered by time, then by replica.

        `n` is the total number of frames of all replicas.  The other arguments and the errors are
        those of `run`.
        """
        n = checked_count("the number of frames", n)
        each = self.waiting_frames + math.ceil(n / self.replicas)
        run = self.run(potential, molecule, each, starts=starts, progress=progress)
        return frames_by_time(run)[self.replicas * (self.waiting_frames + 1) :][:n]


# Dynamics of a search for holes, which shall leave the training data.
SEARCHING = Sampling(600.0, spacing=20.0, equilibration=0.0, replicas=8)


def frames_by_time(run: Run) -> np.ndarray:
    """Return positions (F R, N, 3) Å of R replicas, ordered by time, then by replica."""
    return run.positions.swapaxes(0, 1).reshape(-1, *run.positions.shape[2:])


@dataclass(frozen=True)
class Labelling(Settings):
    """Settings for labelling geometries with energies and forces.

    Attributes:
        calculator: name of a calculator (see `jaxff.reference.calculator`), or a `Potential`.
        options: keyword options of the calculator.
        workers: number of processes with one thread each.
        scheduler: address of a Dask scheduler, such as "tcp://host:8786"; "local" to start a Dask
            cluster of `workers` processes; None for local processes without Dask.
        skip_failed: whether to omit frames whose calculation fails, instead of stopping.
        overwrite: whether to replace a file of a run with other settings.
        command: the command line, recorded in the file.
        name: name of the data set; None for the name of the file.
        trust: modules that may build the networks of a potential, see `jaxff.load`.
        reactions: action if bonds change during the dynamics of a calculator: "stop", "keep" the
            frames, or "drop" frames with changed bonds. After "stop", repeat the call with "keep"
            or "drop" to continue.
        companions: files that accompany a force-field file, see `jaxff.read_force_field`.

    Raises:
        InputError: `workers` is not positive, or `reactions` is unknown.
    """

    calculator: str | Potential = "gfn2-xtb"
    options: Mapping[str, Any] = field(default_factory=dict)
    workers: int = count(2)
    scheduler: str | None = None
    skip_failed: bool = flag(False)
    overwrite: bool = flag(False)
    command: str = ""
    name: str | None = None
    trust: tuple[str, ...] = ()
    reactions: str = choice(REACTIONS[0], REACTIONS)
    companions: tuple[str, ...] = ()

    @property
    def method(self) -> Method:
        """The calculator with its options."""
        return Method(self.calculator, dict(self.options), self.trust, self.companions)


@dataclass(frozen=True)
class Loop(Settings):
    """Settings of active learning.

    Attributes:
        target: force RMSE on newly labelled frames at which active learning ends, kcal/mol/Å.
        n_round: number of frames to label in each round.
        n_initial: number of frames to label before the first round.
        max_frames: largest number of labelled frames.
        n_candidates: number of sampled frames from which each round selects.
        by: criterion of the selection: "uncertainty", "farthest" or "random", see `select`.
        training: further arguments of `gdml.train`: sigma, kernel, solver.

    Raises:
        InputError: a number is out of range.
    """

    target: float = number(unit="kcal/mol/Å", above=0.0)
    n_round: int = count(20)
    n_initial: int = count(50, least=2 * MIN_VALID)
    max_frames: int = count(500)
    n_candidates: int = count(400)
    by: str = choice(CRITERIA[0], CRITERIA)
    training: Mapping[str, Any] = field(default_factory=lambda: {"sigma": (10.0, 20.0, 40.0, 80.0)})

    def __post_init__(self):
        super().__post_init__()
        if self.max_frames < self.n_initial or self.n_candidates < self.n_round:
            raise InputError(
                f"max_frames ({self.max_frames}) must be at least n_initial ({self.n_initial}), "
                f"and n_candidates ({self.n_candidates}) at least n_round ({self.n_round})"
            )
