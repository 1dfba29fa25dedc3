"""Molecular dynamics of a potential."""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxff import units
from jaxff.errors import InputError
from jaxff.md import kinetics
from jaxff.md.integrate import (
    FRAMES_PER_CHUNK,
    Frame,
    check_ensemble,
    initial_state,
    run_chunk,
    scaled_masses,
)
from jaxff.md.trajectory import Trajectory
from jaxff.molecule import Molecule
from jaxff.potential import Potential

# The host takes over the frames, and looks at them, about this often, s.
CHUNK_SECONDS = 1.0


@dataclass(frozen=True)
class State:
    """Where a simulation stands; another `simulate` continues from it exactly.

    Attributes:
        ensemble: "langevin" or "nve".
        dt: time step, fs.
        step: steps done since the start.
        degrees_of_freedom: those that carry kinetic energy.
        dynamics: jax-md's state.
    """

    ensemble: str
    dt: float
    step: int
    degrees_of_freedom: int
    dynamics: Any


@dataclass(frozen=True)
class Run:
    """What a simulation recorded, in F frames.

    Attributes:
        positions: (F, N, 3) Å.
        velocities: (F, N, 3) Å/fs.
        forces: (F, N, 3) kcal/mol/Å.
        potential_energies, kinetic_energies: (F,) kcal/mol.
        temperatures: (F,) K, of the kinetic energy over `degrees_of_freedom`.
        times: (F,) fs since the start.
        degrees_of_freedom: 3N for Langevin; for NVE 3N less the conserved ones.
        state: where it ended; pass it to `simulate` to continue.
        seconds: wall-clock time of the dynamics, compilation apart.
        compile_seconds: wall-clock time of compilation, or of finding it done.
        ns_per_day: simulated time per day of `seconds`.
    """

    positions: np.ndarray
    velocities: np.ndarray
    forces: np.ndarray
    potential_energies: np.ndarray
    kinetic_energies: np.ndarray
    temperatures: np.ndarray
    times: np.ndarray
    degrees_of_freedom: int
    state: State
    seconds: float = 0.0
    compile_seconds: float = 0.0
    ns_per_day: float = 0.0


class SimulationError(ArithmeticError):
    """A simulation met a number that is not finite.

    Attributes:
        run: what was recorded before, all finite; `run.state` is at its last frame.
        step: the step at which it began.
        time: that step's time, fs.
        atom: index of the first atom with such a force or position, None if only the energy.
    """

    def __init__(self, message: str, run: Run, step: int, time: float, atom: int | None):
        super().__init__(message)
        self.run, self.step, self.time, self.atom = run, step, time, atom


def simulate(
    potential: Potential,
    molecule: Molecule,
    *,
    temperature: float = 300.0,
    steps: int = 10_000,
    dt: float = 0.5,
    ensemble: str = "langevin",
    friction: float = 1.0,
    record_every: int = 10,
    seed: int = 0,
    positions=None,
    velocities=None,
    remove_rotation: bool = False,
    state: State | None = None,
    out=None,
    progress: Callable[[str, float], None] | None = None,
) -> Run:
    """Molecular dynamics of `molecule`, in vacuum, in its own atom order.

    Langevin dynamics (BAOAB: Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34; jax-md's
    `nvt_langevin`) acts on all 3N degrees of freedom.  NVE is velocity Verlet (jax-md's `nve`); its
    starting velocities, drawn from the Maxwell-Boltzmann distribution, lose the centre of mass'
    motion, and with `remove_rotation` the rotation, and the temperature counts what is left.

    Args:
        potential: its atoms are matched to those of `molecule`.  It computes in the dtype of its
            parameters.
        molecule: elements, masses and starting geometry.
        temperature: of the thermostat and the starting velocities, K.
        steps: a multiple of `record_every`.
        dt: time step, fs.
        ensemble: "langevin" or "nve".
        friction: Langevin's, 1/ps; 1 disturbs the motion little, 10 equilibrates faster.
        record_every: steps between frames.  The start is a frame too, unless `state` is given.
        seed: of starting velocities and noise.
        positions: (N, 3) Å, in place of the molecule's.
        velocities: (N, 3) Å/fs, in place of drawn ones; used as they are.
        remove_rotation: see above.
        state: continue from there; positions, velocities and seed do not count then.
        out: extxyz file, replaced at the start and appended to as the simulation goes.
        progress: called about once a second with what goes on and the fraction done.

    Raises:
        InputError: arguments that cannot be used; a start that is not finite.
        SimulationError: a number that is not finite on the way.
    """
    check_ensemble(ensemble)
    _check_arguments(temperature, dt, friction, steps, record_every)
    potential = potential.matched(molecule)
    fresh = state is None
    if fresh:
        state = _start(
            potential, molecule, ensemble, temperature, dt, seed, positions, velocities,
            remove_rotation,
        )  # fmt: skip
    else:
        _check_state(state, ensemble, dt, molecule)
    dtype = state.dynamics.position.dtype
    kT = jnp.asarray(units.BOLTZMANN * temperature, dtype)
    per_step = jnp.asarray(friction * dt / 1000.0, dtype)

    def advance(dynamics, n_frames, every):
        dynamics, frames, count, finite = run_chunk(
            potential.program, ensemble, potential.params, dynamics, kT, per_step, n_frames, every
        )
        return dynamics, jax.device_get(frames), int(count), bool(finite)

    record = _Record(state, molecule)
    begun = clock.perf_counter()
    _, start, _, finite = advance(state.dynamics, 1, 0)  # compiles, and observes the start
    record.compile_seconds = clock.perf_counter() - begun
    if not finite:
        raise InputError("the energy or a force is not finite at the starting geometry")
    with ExitStack() as stack:
        if out is not None:
            record.trajectory = stack.enter_context(closing(Trajectory(out, molecule)))
        if fresh:
            record.add(start, 1, 0)
        every, n_frames, wanted = int(record_every), steps // record_every, 1
        begun, done = clock.perf_counter(), 0
        while done < n_frames:
            before, lap = record.state, clock.perf_counter()
            wanted = min(wanted, n_frames - done)
            dynamics, frames, count, finite = advance(before.dynamics, wanted, every)
            good = count if finite else count - 1
            record.add(frames, good, every)
            record.seconds = clock.perf_counter() - begun
            if not finite:
                dynamics, *_ = advance(before.dynamics, good, every)
                record.advance(dynamics, good * every)
                raise _failure(record, advance, every)
            record.advance(dynamics, count * every)
            done += count
            if progress is not None:
                progress("molecular dynamics", done / n_frames)
            pace = CHUNK_SECONDS * wanted / max(clock.perf_counter() - lap, 1e-6)
            wanted = int(np.clip(pace, 1, min(8 * wanted, FRAMES_PER_CHUNK)))
    return record.run()


@dataclass
class _Record:
    """The frames so far, on the host and in the trajectory file."""

    state: State
    molecule: Molecule
    trajectory: Trajectory | None = None
    seconds: float = 0.0
    compile_seconds: float = 0.0
    parts: list[dict[str, np.ndarray]] = field(default_factory=list)

    def __post_init__(self):
        self.first_step = self.state.step
        shape = (0, self.molecule.n_atoms, 3)
        self.add(Frame(*(np.zeros(shape),) * 3, *(np.zeros(0),) * 2), 0, 1)

    def add(self, frames: Frame, count: int, every: int) -> None:
        """Keep the first `count` frames, `every` steps apart, that follow the present state."""
        frames = Frame(*(x[:count].astype(float) for x in frames))
        part = {
            "positions": frames.positions,
            "velocities": frames.displacements / self.state.dt,
            "forces": frames.forces,
            "potential_energies": frames.potential,
            "kinetic_energies": frames.kinetic,
            "temperatures": kinetics.temperature(frames.kinetic, self.state.degrees_of_freedom),
            "times": (self.state.step + every * np.arange(1, count + 1)) * self.state.dt,
        }
        self.parts.append(part)
        if self.trajectory is not None:
            self.trajectory.append(*part.values())

    def advance(self, dynamics, steps: int) -> None:
        """Move the present state on to `dynamics`, `steps` later."""
        self.state = replace(self.state, step=self.state.step + steps, dynamics=dynamics)

    def run(self) -> Run:
        joined = {key: np.concatenate([p[key] for p in self.parts]) for key in self.parts[0]}
        simulated = (self.state.step - self.first_step) * self.state.dt
        return Run(
            **joined,
            degrees_of_freedom=self.state.degrees_of_freedom,
            state=self.state,
            seconds=self.seconds,
            compile_seconds=self.compile_seconds,
            ns_per_day=simulated * 1e-6 / self.seconds * 86400.0 if self.seconds else 0.0,
        )


def _check_arguments(temperature, dt, friction, steps, record_every) -> None:
    if not (np.isfinite(temperature) and temperature >= 0):
        raise InputError(f"temperature is {temperature} K, it must not be negative")
    if not (np.isfinite(dt) and dt > 0):
        raise InputError(f"dt is {dt} fs, it must be positive")
    if not (np.isfinite(friction) and friction >= 0):
        raise InputError(f"friction is {friction} 1/ps, it must not be negative")
    for value, name in ((steps, "steps"), (record_every, "record_every")):
        if value != int(value) or value < 1:
            raise InputError(f"{name} is {value}, it must be a positive integer")
    if steps % record_every:
        raise InputError(
            f"steps ({steps}) must be a multiple of record_every ({record_every}): the last frame "
            "is the end of the run"
        )


def _check_state(state: State, ensemble: str, dt: float, molecule: Molecule) -> None:
    n_atoms = len(state.dynamics.position)
    for name, old, new in (
        ("ensemble", state.ensemble, ensemble),
        ("dt", state.dt, dt),
        ("number of atoms", n_atoms, molecule.n_atoms),
    ):
        if old != new:
            raise InputError(
                f"the state to continue from has {name} {old}, not {new}; to change it, start anew "
                "from positions and velocities"
            )


def _start(
    potential, molecule, ensemble, temperature, dt, seed, positions, velocities, remove_rotation
) -> State:
    leaves = jax.tree.leaves(potential.params)
    dtype = jnp.result_type(*leaves) if leaves else jnp.result_type(float)
    shape = (molecule.n_atoms, 3)
    positions = np.asarray(molecule.positions if positions is None else positions, float)
    masses = molecule.masses
    rng = np.random.default_rng(seed)
    if velocities is not None:
        velocities = np.asarray(velocities, float)
    elif positions.shape == shape:
        velocities = kinetics.maxwell_boltzmann(masses, temperature, rng)
        if ensemble == "nve" and molecule.n_atoms > 1:
            velocities = kinetics.without_translation(masses, velocities)
            if remove_rotation:
                velocities = kinetics.without_rotation(masses, positions, velocities)
    for name, value in (("positions", positions), ("velocities", velocities)):
        if value is None or value.shape != shape:
            raise InputError(f"{name} have shape {np.shape(value)}, expected {shape}")
        if not np.isfinite(value).all():
            atom = int(np.argmin(np.isfinite(value).all(axis=1)))
            raise InputError(f"the {name} of atom {atom} are not finite")
    freedom = 3 * molecule.n_atoms
    if ensemble == "nve":
        freedom -= kinetics.conserved_degrees(masses, positions, velocities)
    R = jnp.asarray(positions, dtype)
    _, forces = potential.energy_and_forces(R)
    dynamics = initial_state(
        ensemble,
        R,
        jnp.asarray(velocities * dt, dtype),
        forces,
        jnp.asarray(scaled_masses(masses, dt), dtype),
        jax.random.key(seed),
    )
    return State(ensemble, float(dt), 0, freedom, dynamics)


def _failure(record: _Record, advance: Callable, every: int) -> SimulationError:
    """Run on from the last good frame by single steps, to tell where it went wrong."""
    state, molecule = record.state, record.molecule
    dynamics, step, finite = state.dynamics, state.step, True
    while finite and step < state.step + every:
        dynamics, frames, count, finite = advance(dynamics, min(FRAMES_PER_CHUNK, every), 1)
        step += count
    bad = Frame(*(x[count - 1] for x in frames))
    fine = np.isfinite(np.hstack([bad.forces, bad.displacements, bad.positions])).all(axis=1)
    atom = None if fine.all() else int(np.argmin(fine))
    where = "the energy" if atom is None else f"atom {atom} ({molecule.symbols[atom]})"
    kept = f"; the frames before it are in {record.trajectory.path}" if record.trajectory else ""
    message = (
        f"{where} is not finite at step {step} ({step * state.dt:g} fs): try a smaller dt than "
        f"{state.dt:g} fs, a relaxed starting geometry, or a potential fitted to what it "
        f"meets here{kept}"
    )
    return SimulationError(message, record.run(), step, step * state.dt, atom)
