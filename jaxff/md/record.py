"""What a simulation leaves: its state, its frames on the host, and its files."""

from __future__ import annotations

import time as clock
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxff.md import kinetics, origin, restart
from jaxff.md.ensembles import Ensemble
from jaxff.md.integrate import Frame
from jaxff.md.trajectory import Writer, open_trajectory, resume_trajectory
from jaxff.molecule import Molecule

# A restart file is written when the last one is so old, s.
RESTART_SECONDS = 10.0


@dataclass(frozen=True)
class State:
    """Where a simulation stands; another `simulate` continues from it exactly.

    Attributes:
        ensemble: its name, and whether overall motion is held at zero.
        dt: time step, fs.
        step: steps done since the start.
        degrees_of_freedom: those that carry kinetic energy; (R,) of R replicas.
        potential: fingerprint of the potential whose forces it has.
        invariant: whether moving, and whether turning, the molecule leaves that one's energy alone.
        dynamics: jax-md's state, its positions from `origin`; of replicas each array has a leading
            axis.
        origin: (3,) or (R, 3) integers, see `jaxff.md.origin`; zero in float64.
    """

    ensemble: Ensemble
    dt: float
    step: int
    degrees_of_freedom: np.ndarray
    potential: str
    invariant: tuple[bool, bool]
    dynamics: Any
    origin: Any

    @property
    def replicas(self) -> int | None:
        """Their number, None without that axis."""
        position = self.dynamics.position
        return len(position) if position.ndim == 3 else None

    @property
    def positions(self) -> np.ndarray:
        """(N, 3) or (R, N, 3) Å, in float64."""
        return origin.absolute(self.dynamics.position, self.origin)

    @property
    def velocities(self) -> np.ndarray:
        """(N, 3) or (R, N, 3) Å/fs, in float64."""
        return np.asarray(self.dynamics.velocity, float) / self.dt


@dataclass(frozen=True)
class Run:
    """What a simulation recorded, in F frames; of R replicas every array has a leading axis R.

    Attributes:
        positions: (F, N, 3) Å.
        velocities: (F, N, 3) Å/fs.
        forces: (F, N, 3) kcal/mol/Å.
        potential_energies, kinetic_energies: (F,) kcal/mol.
        temperatures: (F,) K, of the kinetic energy over `degrees_of_freedom`.
        times: (F,) fs since the start; without the replicas' axis.
        degrees_of_freedom: 3N for Langevin; for the others 3N less the conserved ones; (R,) of R
            replicas.
        state: where it ended; pass it to `simulate` to continue.
        seconds: wall-clock time of the dynamics, compilation apart.
        compile_seconds: wall-clock time of compilation, or of finding it done.
        ns_per_day: simulated time per day of `seconds`, that of all replicas together.
    """

    positions: np.ndarray
    velocities: np.ndarray
    forces: np.ndarray
    potential_energies: np.ndarray
    kinetic_energies: np.ndarray
    temperatures: np.ndarray
    times: np.ndarray
    degrees_of_freedom: np.ndarray
    state: State
    seconds: float = 0.0
    compile_seconds: float = 0.0
    ns_per_day: float = 0.0


@dataclass
class Record:
    """The frames so far, on the host and in the files."""

    state: State
    molecule: Molecule
    files: list[Writer]
    restart_file: Any
    settings: dict
    keep: bool
    seconds: float = 0.0
    compile_seconds: float = 0.0
    parts: list[dict[str, np.ndarray]] = field(default_factory=list)

    def __post_init__(self):
        self.first_step, self.saved = self.state.step, clock.perf_counter()

    def add(self, frames: Frame, every: int) -> None:
        """Keep frames, `every` steps apart, that follow the present state."""
        frames = Frame(*(x.astype(float) for x in frames))
        steps = self.state.step + every * np.arange(1, len(frames.positions) + 1)
        part = {
            "positions": origin.absolute(frames.positions, frames.origin),
            "velocities": frames.displacements / self.state.dt,
            "forces": frames.forces,
            "potential_energies": frames.potential,
            "kinetic_energies": frames.kinetic,
            "temperatures": kelvin(frames.kinetic, self.state),
        }
        shared = {"times": steps * self.state.dt, "steps": steps}
        for r, file in enumerate(self.files):
            alone = self.state.replicas is None
            file.append({**{k: v if alone else v[:, r] for k, v in part.items()}, **shared})
        if not self.keep:
            part |= {k: part[k][:0] for k in ("positions", "velocities", "forces")}
        self.parts.append({**part, "times": shared["times"]})

    def move(self, state: State) -> None:
        """Go on to a later state, whose frames have been added."""
        self.state = state

    def save_if_old(self) -> None:
        if self.restart_file is None or clock.perf_counter() - self.saved > RESTART_SECONDS:
            self.save()

    def save(self) -> None:
        """Bring the files to the present state, the restart file last."""
        marks = [file.mark() for file in self.files]
        if self.restart_file is not None:
            restart.write_restart(
                self.restart_file,
                (self.state.dynamics, self.state.origin),
                self.settings,
                self.state.step,
                marks,
            )
        self.saved = clock.perf_counter()

    def run(self) -> Run:
        joined = {key: np.concatenate([p[key] for p in self.parts]) for key in self.parts[0]}
        times = joined.pop("times")
        if self.state.replicas is not None:
            joined = {key: np.moveaxis(x, 1, 0) for key, x in joined.items()}
        return Run(
            **joined,
            times=times,
            degrees_of_freedom=self.state.degrees_of_freedom,
            state=self.state,
            seconds=self.seconds,
            compile_seconds=self.compile_seconds,
            ns_per_day=self.ns_per_day,
        )

    @property
    def ns_per_day(self) -> float:
        """Simulated time of all replicas per day of dynamics."""
        simulated = (self.state.step - self.first_step) * self.state.dt
        return (self.state.replicas or 1) * simulated * 0.0864 / max(self.seconds, 1e-9)


def trajectories(
    out, molecule: Molecule, replicas: int | None, marks: list[dict] | None
) -> list[Writer]:
    """Trajectory files, one a replica, begun or continued after their marks."""
    if out is None:
        return []
    out = Path(out)
    paths = [out] if replicas is None else [
        out.with_name(f"{out.stem}-{r}{out.suffix}") for r in range(replicas)
    ]  # fmt: skip
    if marks is not None:
        return [resume_trajectory(p, molecule, m) for p, m in zip(paths, marks, strict=True)]
    return [open_trajectory(path, molecule) for path in paths]


def kelvin(kinetic: np.ndarray, state: State) -> np.ndarray:
    """Temperatures K of kinetic energies (..., R) kcal/mol."""
    return kinetics.temperature(kinetic, state.degrees_of_freedom)
