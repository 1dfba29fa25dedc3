"""The settings of sampling, labelling and active learning."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jaxff.errors import InputError
from jaxff.reference.calculators import Method

if TYPE_CHECKING:
    import numpy as np

    from jaxff.md import Run
    from jaxff.molecule import Molecule
    from jaxff.potential import Potential

Progress = Callable[[str, float], None]
REACTIONS = ("stop", "keep", "drop")
MIN_VALID = 4  # validation frames of a model in active learning


@dataclass(frozen=True)
class Sampling:
    """Langevin dynamics from which frames are taken.

    Attributes:
        temperature: K.
        spacing: time between frames, fs; a multiple of `dt`.
        equilibration: time before the first frame, fs; rounded up to a multiple of `spacing`.
        replicas: number of independent runs.
        dt: time step, fs.
        friction: 1/ps.
        seed: seed of velocities and noise.
        stretch: a bond longer than this multiple of its length at the start stops the dynamics of
            a `Potential`; None allows any length.

    Raises:
        InputError: a value is out of its range.
    """

    temperature: float = 500.0
    spacing: float = 100.0
    equilibration: float = 1000.0
    replicas: int = 4
    dt: float = 0.5
    friction: float = 10.0
    seed: int = 0
    stretch: float | None = 1.5

    def __post_init__(self):
        for name in ("temperature", "spacing", "dt", "friction"):
            value = float(getattr(self, name))
            object.__setattr__(self, name, value)  # a plain number, also of a NumPy scalar
            if not 0.0 < value < math.inf:
                raise InputError(f"the {name} of a sampling is {value:g}: it must be positive")
        object.__setattr__(self, "equilibration", float(self.equilibration))
        object.__setattr__(self, "replicas", int(self.replicas))
        object.__setattr__(self, "seed", int(self.seed))
        if not 0.0 <= self.equilibration < math.inf or self.replicas < 1:
            raise InputError(
                f"a sampling with equilibration={self.equilibration:g} and replicas="
                f"{self.replicas}: the equilibration must be at least 0 fs, the replicas at least 1"
            )
        if abs(self.frame_steps * self.dt - self.spacing) > 1e-9 * self.spacing:
            raise InputError(
                f"the spacing of a sampling ({self.spacing:g} fs) must be a multiple of its time "
                f"step dt ({self.dt:g} fs)"
            )

    @property
    def frame_steps(self) -> int:
        """Time steps between two frames."""
        return round(self.spacing / self.dt)

    @property
    def waiting_frames(self) -> int:
        """Frames of each replica that belong to the equilibration and are not kept."""
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
        """Run the dynamics of all replicas, equilibration included.

        Args:
            potential: potential that moves the atoms.
            molecule: elements, bonds and starting geometry.
            n_frames: frames of each replica after the starting geometry.
            starts: starting geometries of the replicas (R, N, 3) Å; None: that of `molecule`.
            progress: called with a phase and the fraction done.

        Raises:
            InputError: the potential does not fit the molecule.
            SimulationError: numbers that are not finite, an explosion or a broken bond.
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
        """Positions (n, N, 3) Å after equilibration, ordered by time, then by replica.

        Args and errors are those of `run`; `n` is the number of frames of all replicas together.
        """
        if n < 1:
            raise InputError(f"{n} frames are requested: at least 1 is needed")
        each = self.waiting_frames + math.ceil(n / self.replicas)
        run = self.run(potential, molecule, each, starts=starts, progress=progress)
        return frames_by_time(run)[self.replicas * (self.waiting_frames + 1) :][:n]


def frames_by_time(run: Run) -> np.ndarray:
    """Positions (F R, N, 3) Å of R replicas, ordered by time, then by replica."""
    return run.positions.swapaxes(0, 1).reshape(-1, *run.positions.shape[2:])


@dataclass(frozen=True)
class Labelling:
    """How geometries are labelled with energies and forces.

    Attributes:
        calculator: name of a calculator (see `jaxff.reference.calculator`), or a `Potential`.
        options: keyword options of the calculator.
        workers: number of processes with one thread each.
        scheduler: None: processes of this machine; the address of a Dask scheduler, such as
            "tcp://host:8786"; or "local": a Dask cluster of `workers` processes, started for this
            run. With Dask, only this process writes files.
        skip_failed: leave out frames whose calculation fails, instead of stopping at the first.
        overwrite: replace a file that another run has written.
        command: the command line, recorded in the file.
        name: name of the data set; None: that of the file.
        trust: modules that may build the networks of a potential, see `jaxff.load`.
        reactions: what happens if bonds change during the dynamics of a calculator: "stop", "keep"
            the frames, or "drop" those with other bonds. After a stop the same call continues
            with "keep" or "drop", so that nothing is lost.
        companions: files that accompany a force-field file, see `jaxff.read_force_field`.

    Raises:
        InputError: `workers` is not positive, or `reactions` is another word.
    """

    calculator: str | Potential = "gfn2-xtb"
    options: Mapping[str, Any] = field(default_factory=dict)
    workers: int = 2
    scheduler: str | None = None
    skip_failed: bool = False
    overwrite: bool = False
    command: str = ""
    name: str | None = None
    trust: tuple[str, ...] = ()
    reactions: str = REACTIONS[0]
    companions: tuple[str, ...] = ()

    def __post_init__(self):
        if self.reactions not in REACTIONS:
            raise InputError(f"reactions={self.reactions!r}: use one of {', '.join(REACTIONS)}")
        if self.workers < 1:
            raise InputError(f"workers is {self.workers}: at least 1 process is needed")

    @property
    def method(self) -> Method:
        """The calculator with its options."""
        return Method(self.calculator, dict(self.options), self.trust, self.companions)


@dataclass(frozen=True)
class Loop:
    """The settings of active learning.

    Attributes:
        target: force RMSE on newly labelled frames at which the loop ends, kcal/mol/Å.
        n_round: number of frames labelled in each round.
        n_initial: number of frames labelled before the first round.
        max_frames: largest number of labelled frames.
        n_candidates: number of frames of the model's dynamics from which a round selects.
        training: further arguments of `gdml.train`: sigma, kernel, solver.

    Raises:
        InputError: a number is out of its range.
    """

    target: float
    n_round: int = 20
    n_initial: int = 50
    max_frames: int = 500
    n_candidates: int = 400
    training: Mapping[str, Any] = field(default_factory=lambda: {"sigma": (10.0, 20.0, 40.0, 80.0)})

    def __post_init__(self):
        if not self.target > 0:
            raise InputError(f"target is {self.target} kcal/mol/Å: it must be positive")
        if self.n_initial < 2 * MIN_VALID or self.n_round < 1:
            raise InputError(
                f"n_initial is {self.n_initial} and n_round {self.n_round}: they must be at least "
                f"{2 * MIN_VALID} and 1"
            )
        if self.max_frames < self.n_initial or self.n_candidates < self.n_round:
            raise InputError(
                f"max_frames ({self.max_frames}) must be at least n_initial ({self.n_initial}), "
                f"and n_candidates ({self.n_candidates}) at least n_round ({self.n_round})"
            )
