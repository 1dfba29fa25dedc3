"""Recorded frames of a simulation, in memory and in files."""

from __future__ import annotations

import time as clock
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxff import units
from jaxff.md import kinetics, origin
from jaxff.md.extrapolation import Extrapolation, Watch
from jaxff.md.field import Molecules
from jaxff.md.integrate import Frame
from jaxff.md.settings import Output
from jaxff.md.state import State, arrays_of
from jaxff.md.trajectory import Writer, open_trajectory, resume_trajectory
from jaxff.molecule import Molecule
from jaxff.store import Store

# Seconds between writes of the restart file.
RESTART_SECONDS = 10.0


@dataclass(frozen=True)
class Run:
    """F recorded frames of a simulation.

    With R replicas every array has a leading axis R.

    Attributes:
        positions: (F, N, 3) Å.
        velocities: (F, N, 3) Å/fs.
        forces: (F, N, 3) kcal/mol/Å.
        potential_energies, kinetic_energies: (F,) kcal/mol.
        temperatures: (F,) K, from kinetic energies and `degrees_of_freedom`.
        times: (F,) fs since the start; no axis of replicas.
        boxes: (F, 3, 3) Å, lattice vectors as rows; None in vacuum.
        pressures: (F,) bar, see `jaxff.md.barostats.energy_and_pressure`; None in vacuum.
        degrees_of_freedom: () or (R,), 3N for Langevin dynamics, otherwise 3N minus the number
            of degrees of freedom without kinetic energy.  Constrained distances are subtracted.
        state: last state; pass it to `simulate` to continue.
        seconds: wall-clock time of the dynamics without compilation, s.
        compile_seconds: wall-clock time of the compilation, s.
        ns_per_day: simulated time of all replicas together per day of wall-clock time, ns.
        extrapolation: statistics of the frames outside the training data; None if the training data
            are unknown or the frames were not compared.
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
    extrapolation: Extrapolation | None = None
    boxes: np.ndarray | None = None
    pressures: np.ndarray | None = None

    @property
    def rebuilds(self) -> int:
        """Number of times that the neighbour list was built since the start of the simulation."""
        return self.state.rebuilds


def quantities(frames: Frame, dt: float, degrees_of_freedom: np.ndarray) -> dict[str, Any]:
    """Return the arrays of a `Run` by name, in float64.

    Args:
        frames: frames with the leading axes F, or F and R.
        dt: time step, fs.
        degrees_of_freedom: () or (R,).
    """
    frames = jax.tree.map(lambda x: x.astype(float), frames)
    boxed = {}
    if frames.box is not None:
        boxed = {"boxes": frames.box, "pressures": frames.pressure / units.BAR}
    return {
        "positions": origin.absolute(frames.positions, frames.origin),
        "velocities": frames.displacements / dt,
        "forces": frames.forces,
        "potential_energies": frames.potential,
        "kinetic_energies": frames.kinetic,
        "temperatures": kinetics.temperature(frames.kinetic, degrees_of_freedom),
        **boxed,
    }


@dataclass
class Record:
    """The frames recorded so far in memory and in files, and the present state.

    Files contain wrapped positions if `wrap` contains the molecules.
    """

    state: State
    files: list[Writer]
    output: Output
    store: Store
    watch: Watch
    wrap: Molecules | None = None
    seconds: float = 0.0
    compile_seconds: float = 0.0
    parts: list[dict[str, np.ndarray]] = field(default_factory=list)

    def __post_init__(self):
        self.first_step, self.saved = self.state.step, clock.perf_counter()

    def add(self, frames: Frame, steps: np.ndarray) -> None:
        """Add frames at the given steps (F,)."""
        part = quantities(frames, self.state.dt, self.state.degrees_of_freedom)
        shared = {"times": steps * self.state.dt, "steps": steps}
        for r, file in enumerate(self.files):
            alone = self.state.replicas is None
            one = {k: v if alone else v[:, r] for k, v in part.items()}
            if self.wrap is not None:
                one["positions"] = wrapped(one["positions"], one["boxes"], self.wrap)
            file.append({**one, **shared})
        if not self.output.keep:
            part |= {k: part[k][:0] for k in ("positions", "velocities", "forces")}
        self.parts.append({**part, "times": shared["times"]})

    def save_if_due(self) -> None:
        """Save if the last save was RESTART_SECONDS ago, or if there is no restart file."""
        if self.output.restart is None or clock.perf_counter() - self.saved > RESTART_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the present state to the trajectory files, and then to the restart file."""
        marks = [file.mark() for file in self.files]
        found, neighbor = self.watch.result(), self.state.neighbor
        self.store.save(
            {
                "arrays": arrays_of(self.state), "step": self.state.step, "marks": marks,
                "compared": None if found is None else asdict(found),
                "capacity": None if neighbor is None else neighbor.capacity,
                "rebuilds": self.state.rebuilds,
            }
        )  # fmt: skip
        self.saved = clock.perf_counter()

    def run(self) -> Run:
        """Return the recorded frames."""
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
            extrapolation=self.watch.result(),
        )

    @property
    def ns_per_day(self) -> float:
        """Simulated time of all replicas together per day of wall-clock time, ns."""
        simulated = (self.state.step - self.first_step) * self.state.dt
        return (self.state.replicas or 1) * simulated * 0.0864 / max(self.seconds, 1e-9)


def wrapped(positions: np.ndarray, boxes: np.ndarray, molecules: Molecules) -> np.ndarray:
    """Positions (F, N, 3) Å of whole molecules whose centres of mass are in the box.

    Args:
        positions: (F, N, 3) Å.
        boxes: (F, 3, 3) Å, lattice vectors as rows.
        molecules: the molecules.
    """
    out = np.empty_like(positions)
    for f, (R, box) in enumerate(zip(positions, boxes, strict=True)):
        images = np.floor(np.asarray(molecules.centres(R), float) @ np.linalg.inv(box))
        out[f] = R - (images @ box)[molecules.index]
    return out


def trajectories(
    output: Output, molecule: Molecule, replicas: int | None, marks: list[dict] | None
) -> list[Writer]:
    """Open the trajectory files, one for each replica.

    Args:
        output: settings of the files.
        molecule: the atoms.
        replicas: number of replicas, or None for one molecule.
        marks: ends of the files after which to continue (None: new files).

    Raises:
        InputError: a file cannot be written or continued.
    """
    if output.path is None:
        return []
    path = Path(output.path)
    paths = [path] if replicas is None else [
        path.with_name(f"{path.stem}-{r}{path.suffix}") for r in range(replicas)
    ]  # fmt: skip
    if marks is not None:
        return [resume_trajectory(p, molecule, m) for p, m in zip(paths, marks, strict=True)]
    return [open_trajectory(path, molecule) for path in paths]
