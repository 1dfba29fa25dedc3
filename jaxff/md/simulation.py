"""Molecular dynamics of a potential."""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxff.errors import InputError
from jaxff.md import blocks, guard
from jaxff.md.blocks import Medium, Moving
from jaxff.md.ensembles import Ensemble, Langevin
from jaxff.md.extrapolation import Watch, check_can_stop
from jaxff.md.field import Field
from jaxff.md.guard import Fault, Guard
from jaxff.md.integrate import Frame, chunk_frames, part, run_chunk
from jaxff.md.integrators import Bath
from jaxff.md.record import Record, Run, trajectories
from jaxff.md.rigid import Rigid
from jaxff.md.settings import Output, Start, Stop, checked_steps
from jaxff.md.state import State, arrays_of, continued_state, first_state, restored
from jaxff.md.trajectory import format_of
from jaxff.potential import Params, Potential
from jaxff.store import Store

# Wall-clock time of a chunk, after which the host checks and stores its frames, s.
CHUNK_SECONDS = 1.0

Progress = Callable[[str, float], None]


class SimulationError(ArithmeticError):
    """A number that is not finite, an explosion or a broken bond in a simulation.

    Attributes:
        run: the frames recorded before the fault; `run.state` is the state at the last of them.
        step: first step with the fault.
        time: time of this step, fs.
        atoms: indices of the atoms with the fault; empty if only an energy is wrong.
        replica: index of the replica; None without an axis of replicas.
        term: term of the potential with the strongest force on these atoms; None if unknown.
    """

    def __init__(self, message: str, run: Run, step: int, fault: Fault, term: str | None):
        super().__init__(message)
        self.run, self.step, self.time = run, step, step * run.state.dt
        self.atoms, self.replica, self.term = fault.atoms, fault.replica, term


class ExtrapolationError(SimulationError):
    """A simulation left the training data; see `Stop.on_extrapolation`."""


def simulate(
    potential: Potential,
    molecule: Any,
    ensemble: Ensemble = Langevin(),
    *,
    steps: int = 10_000,
    start: Start | State = Start(),
    output: Output = Output(),
    stop: Stop = Stop(),
    progress: Progress | None = None,
) -> Run:
    """Run molecular dynamics of a molecule in vacuum or of a system in a periodic box.

    Args:
        potential: a potential of the molecule in any atom order.  Numbers have the type of the
            parameters.
        molecule: a `Molecule`, or a `System` with its box, constraints and virtual sites.
        ensemble: `NVE`, `Langevin`, `NoseHoover`, `CSVR` or, in a box, `NPT`.
        steps: number of steps, a multiple of `output.every`.
        start: `Start`, or the `state` of a `Run` to continue from.  A different potential is then
            possible, but it must have the same precision and the same invariance to translation
            and rotation.
        output: recorded frames and files.  The first frame is the start, unless a simulation is
            continued.
        stop: limits that stop the simulation.
        progress: function called about once a second with a text and the finished fraction.

    Returns:
        The recorded frames, in the atom order of the molecule.

    Raises:
        InputError: an argument is invalid, or the start exceeds a limit.
        SimulationError: a number that is not finite, an explosion or a broken bond.
        ExtrapolationError: a frame outside the training data, if `stop.on_extrapolation` is "stop".
    """
    check_can_stop(potential, stop.on_extrapolation)
    if progress is not None:
        progress("compiling", 0.0)
    return Simulation.of(potential, molecule, ensemble, steps, start, output).run(stop, progress)


@dataclass(frozen=True, eq=False)
class Simulation:
    """A simulation whose settings have been checked.

    Attributes:
        potential: the potential, in the atom order of the molecule.
        params: parameters of the potential, including derived ones.
        molecule: the molecule or system.
        medium: its constraints, virtual sites and molecules.
        ensemble: settings of the ensemble.
        output: recorded frames and files.
        bath: settings of the thermostat.
        store: the restart file.
        first: state at the start.
        fresh: whether `first` is a frame to record.
        state: state to continue from: the state in the restart file, or `first`.
        last: number of the last step.
        marks: ends of the trajectory files at `state`; None for new files.
        compared: statistics of the frames before `state`, see `Watch.continued`.
    """

    potential: Potential
    params: Params
    molecule: Any
    medium: Medium
    ensemble: Ensemble
    output: Output
    bath: Bath
    store: Store
    first: State
    fresh: bool
    state: State
    last: int
    marks: list[dict] | None
    compared: dict | None

    @classmethod
    def of(
        cls,
        potential: Potential,
        molecule: Any,
        ensemble: Ensemble,
        steps: int,
        start: Start | State,
        output: Output,
    ) -> Simulation:
        """Check the arguments of `simulate`, and make the simulation.

        Raises:
            InputError: see `simulate`.
        """
        if not isinstance(ensemble, Ensemble):
            raise InputError(f"ensemble={ensemble!r} must be an ensemble such as Langevin()")
        steps = checked_steps(steps, output.every)
        potential = potential.matched(molecule)
        begin = start.step if isinstance(start, State) else 0
        bath = ensemble.bath(steps, potential.dtype, start.replicas, begin)
        if isinstance(start, State):
            state = continued_state(start, potential, molecule, ensemble)
        else:
            state = first_state(potential, molecule, ensemble, start, bath)
        last = state.step + steps
        if last >= 2**31:
            raise InputError(f"the number of steps in total, {last}, must be below 2³¹")
        if output.path is not None:
            format_of(output.path)
        store = Store(
            output.restart, _request(state, molecule, ensemble, steps, start, output), "simulation"
        )
        current, contents = _restarted(state, start, output, store)
        marks = contents.get("marks")
        if current.step >= last:
            raise InputError(
                f"{output.restart}: this simulation is already at step {current.step}; increase "
                "the number of steps, or choose another file or folder for a new simulation"
            )
        params = potential.program.jit_ready(potential.params)
        bath = _spread(bath, state.replicas)
        return cls(
            potential, params, molecule, Medium.of(molecule), ensemble, output, bath, store,
            first=state,
            fresh=isinstance(start, Start) and marks is None, state=current, last=last, marks=marks,
            compared=contents.get("compared"),
        )  # fmt: skip

    def advance(self, state: State, n_frames: int, every: int) -> tuple[State, Frame]:
        """Return the state after `n_frames` × `every` steps, and frames in NumPy arrays."""
        program, step = self.potential.program, state.step
        if state.cell is not None:
            moving, neighbor = _spread(
                (Moving(state.dynamics, state.cell), state.neighbor), state.replicas
            )
            (dynamics, cell), neighbor, rebuilds, frames = blocks.advance(
                state.scheme, Field(program, self.params, neighbor), self.medium, moving, self.bath,
                (step, n_frames, every),
            )  # fmt: skip
            state = replace(
                state, dynamics=dynamics, cell=cell, neighbor=neighbor,
                rebuilds=state.rebuilds + rebuilds,
            )  # fmt: skip
        else:
            moving = _spread((state.dynamics, state.origin), state.replicas)
            (dynamics, origin), frames = run_chunk(
                program, state.scheme, self.params, moving, self.bath, (step, n_frames, every),
                self.medium.rigid,
            )  # fmt: skip
            state = replace(state, dynamics=dynamics, origin=origin)
        frames = jax.tree.map(lambda x: np.asarray(x)[:n_frames], frames)
        return replace(state, step=step + n_frames * every), frames

    def run(self, stop: Stop, progress: Progress | None = None) -> Run:
        """Run the simulation; for arguments and errors see `simulate`."""
        watched = Watch(self.potential.trained, stop)
        watched.continued(self.compared)
        every = watched.interval(self.output.every, self.ensemble.dt)
        if self.first.cell is not None:
            guard.check_strain(
                self.molecule, self.first.positions, np.asarray(self.first.dynamics.force, float)
            )
        begun = clock.perf_counter()
        _, frames = self.advance(self.first, 1, 0)  # compiles, and observes the start
        compile_seconds = clock.perf_counter() - begun
        watch = Guard.of(
            self.molecule, part(frames, 0), self.first.degrees_of_freedom,
            self.ensemble, stop,
        )  # fmt: skip
        if (fault := watch.fault(frames)) is not None:
            raise InputError(
                f"at the starting geometry {fault.what}: correct the geometry or the limits"
            )
        if self.fresh:
            left = watched.compare(frames, np.array([self.first.step]))
            if watched.stops and left is not None:
                raise InputError(
                    f"the starting geometry is outside the training data of the potential: "
                    f"{watched.found.reason}; start from a training frame"
                )
        with ExitStack() as stack:
            files = trajectories(self.output, self.molecule, self.first.replicas, self.marks)
            for file in files:
                stack.enter_context(closing(file))
            wrap = self.medium.molecules if self.output.wrap else None
            record = Record(self.state, files, self.output, self.store, watched, wrap)
            record.compile_seconds = compile_seconds
            if self.fresh:
                record.add(frames, np.array([self.first.step]))
                record.save()  # from here on an interrupted run can be continued
            wanted, begun = 1, clock.perf_counter()
            while record.state.step < self.last:
                before, lap = record.state, clock.perf_counter()
                wanted = min(wanted, (self.last - before.step) // every)
                after, frames = self.advance(before, wanted, every)
                steps = before.step + every * np.arange(1, len(frames.potential) + 1)
                fault = watch.fault(frames)
                n = len(steps) if fault is None else fault.frame
                left = watched.compare(part(frames, slice(n)), steps)
                n = left if watched.stops and left is not None else n
                kept = np.flatnonzero(self._is_recorded(steps[:n]))
                record.add(part(frames, kept), steps[kept])
                record.state = after
                if n < len(steps):
                    count = kept[-1] + 1 if len(kept) else 0
                    record.state = self.advance(before, count, every)[0]
                record.seconds = clock.perf_counter() - begun
                if n < len(steps):
                    if self._is_recorded(record.state.step):
                        record.save()
                    raise self._failure(record, watch) if n != left else self._left(record)
                if self._is_recorded(after.step):
                    record.save_if_due()
                if progress is not None:
                    fraction = (after.step - self.first.step) / (self.last - self.first.step)
                    progress(f"molecular dynamics ({record.ns_per_day:.3g} ns/day)", fraction)
                pace = CHUNK_SECONDS * wanted / max(clock.perf_counter() - lap, 1e-6)
                wanted = int(np.clip(pace, 1, min(8 * wanted, chunk_frames(after.dynamics))))
            record.save()
            return record.run()

    def _is_recorded(self, step):
        return (step - self.first.step) % self.output.every == 0

    def _left(self, record: Record) -> ExtrapolationError:
        """Return the error for a simulation that has left the training data."""
        run = record.run()
        found = run.extrapolation
        assert found is not None
        assert found.step is not None
        where = "" if found.replica is None else f" in replica {found.replica}"
        kept = f"; earlier frames are in {record.files[0].path}" if record.files else ""
        return ExtrapolationError(
            f"the simulation left the training data of the potential{where} at step {found.step} "
            f"({found.step * run.state.dt:g} fs): {found.reason}; label such frames and train "
            f"again, or lower the temperature{kept}",
            run, found.step, Fault(0, found.replica, (), found.reason), None,
        )  # fmt: skip

    def _failure(self, record: Record, watch: Guard) -> SimulationError:
        """Find the first step with the fault, and return the error."""
        before, end = record.state, record.state.step + self.output.every
        while True:
            count = min(chunk_frames(before.dynamics), end - before.step)
            state, frames = self.advance(before, count, 1)
            if (fault := watch.fault(frames)) is not None:
                break
            before = state
        step = before.step + 1 + fault.frame
        last = self.advance(before, fault.frame, 1)[0]
        r = () if fault.replica is None else fault.replica
        here, term = part(frames, fault.frame), None
        for R, box in ((here.positions, here.box), (last.dynamics.position, last.box)):
            box = None if box is None else box[r]
            term = term or guard.strongest_term(self.potential, np.asarray(R)[r], fault.atoms, box)
        kept = f"; earlier frames are in {record.files[0].path}" if record.files else ""
        run = record.run()
        if run.extrapolation is not None and run.extrapolation.outside:
            kept += f"; {run.extrapolation.text('the potential')}"
        where = "" if fault.replica is None else f" in replica {fault.replica}"
        message = (
            f"{fault.what}{where} at step {step} ({step * state.dt:g} fs).  The term {term!r} has "
            f"the strongest force there.  Use a time step below {state.dt:g} fs, a minimised "
            f"starting geometry, or a potential fitted to such geometries{kept}"
        )
        return SimulationError(message, run, step, fault, term)


def _request(
    state: State, molecule: Any, ensemble: Ensemble, steps: int, start: Start | State,
    output: Output,
) -> dict[str, Any]:  # fmt: skip
    """Return the settings that must be the same when a simulation is continued."""
    begin = start if isinstance(start, Start) else Start()
    ramp = ensemble.last_temperature != ensemble.temperature
    constraints = Rigid.of(molecule)
    system = {} if state.cell is None and constraints is None else {
        "box": state.box,
        "masses": np.asarray(molecule.masses),
        "constraints": None if constraints is None else constraints.lengths(),
        "wrap": output.wrap,
    }  # fmt: skip
    return {
        "potential": state.potential,
        "elements": molecule.numbers,
        "positions": state.positions,
        **ensemble.settings(),
        **system,
        "every": output.every,
        "seed": begin.seed,
        "replicas": state.replicas,
        "velocities": None if begin.velocities is None else np.asarray(begin.velocities, float),
        "steps of the ramp": steps if ramp else None,
        "trajectory": None if output.path is None else Path(output.path).name,
    }


def _restarted(
    state: State, start: Start | State, output: Output, store: Store
) -> tuple[State, dict[str, Any]]:
    """Return the state and the other contents of the restart file, or `state` and {}.

    Raises:
        InputError: `start` is a state, or the file is damaged or belongs to another simulation.
    """
    if store.path is not None and isinstance(start, State):
        raise InputError(
            f"{store.path}: a restart file and a state to continue from exclude each other; give "
            "only one of them"
        )
    contents = None if output.overwrite else store.load({"arrays": arrays_of(state)})
    return (state, {}) if contents is None else (restored(state, contents), contents)


def _spread(tree, replicas: int | None):
    """Distribute replicas over all devices if each device gets the same number."""
    devices = jax.devices()
    if replicas is None or len(devices) == 1 or replicas % len(devices):
        return tree
    mesh = jax.make_mesh((len(devices),), ("replica",), (jax.sharding.AxisType.Auto,))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("replica"))
    return jax.device_put(tree, place)
