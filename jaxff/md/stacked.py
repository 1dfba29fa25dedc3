"""Molecular dynamics of several different molecules together."""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.batch import Stack
from jaxff.errors import InputError
from jaxff.groups import StackGroup
from jaxff.md.ensembles import Ensemble, Langevin
from jaxff.md.extrapolation import Watch
from jaxff.md.guard import Guard
from jaxff.md.integrate import Frame, chunk_frames, run_chunk
from jaxff.md.integrators import Core, Scheme, scaled_masses
from jaxff.md.motion import degrees_of_freedom, starting_velocities
from jaxff.md.record import Run, quantities
from jaxff.md.settings import Output, Start, Stop, checked_steps
from jaxff.md.simulation import SimulationError
from jaxff.md.state import State, fingerprint
from jaxff.molecule import Molecule
from jaxff.padding import ghost_positions, with_ghosts

GHOST_MASS = 1e12  # amu; ghost atoms do not move


def simulate_stack(
    stack: Stack,
    molecules: Sequence[Molecule],
    ensemble: Ensemble = Langevin(),
    *,
    steps: int = 10_000,
    start: Start = Start(),
    output: Output = Output(),
    stop: Stop = Stop(),
) -> list[Run]:
    """Run molecular dynamics of several different molecules together.

    Args:
        stack: potentials of the molecules.
        molecules: elements, masses and starting geometries, in the atom orders of the potentials.
        ensemble: `NVE` or `Langevin`, the same for all molecules.
        steps: number of steps, a multiple of `output.every`.
        start: only `seed` is used; molecule k has the seed ``seed + k``.
        output: only `every` is used, the number of steps between recorded frames.
        stop: limits; `on_extrapolation` must not be "stop".

    Returns:
        The run of each molecule.  `simulate` can continue from its `state`.

    Raises:
        InputError: an argument is invalid.
        SimulationError: a number that is not finite, an explosion or a broken bond.
    """
    _check(stack, molecules, ensemble, start, output)
    if stop.on_extrapolation == "stop":
        raise InputError(
            "simulations of stacks cannot stop at frames outside the training data: use "
            'on_extrapolation="warn", or run the molecules one by one'
        )
    steps = checked_steps(steps, output.every)
    runs: dict[int, Run] = {}
    for group, params in zip(stack.groups, stack.params, strict=True):
        simulation = _GroupSimulation.of(stack, group, params, molecules, ensemble, steps, start)
        runs |= dict(zip(group.members, simulation.run(steps, output.every, stop), strict=True))
    return [runs[k] for k in range(len(stack))]


def _check(
    stack: Stack, molecules: Sequence[Molecule], ensemble: Ensemble, start: Start, output: Output
) -> None:
    if not isinstance(stack, Stack):
        raise InputError("the first argument must be a stack: make it with jaxff.stack(potentials)")
    if len(molecules) != len(stack):
        raise InputError(
            f"{len(molecules)} molecules for a stack of {len(stack)} potentials: give one for each"
        )
    for k, (potential, molecule) in enumerate(zip(stack, molecules, strict=True)):
        numbers = None if potential.molecule is None else potential.molecule.numbers
        if potential.n_atoms != molecule.n_atoms or (
            numbers is not None and not np.array_equal(numbers, molecule.numbers)
        ):
            raise InputError(
                f"molecule {k} ({molecule.formula}) and its potential {potential!r} have different "
                "atoms or atom orders; give the same molecule, or call Molecule.reorder"
            )
    if ensemble.scales_velocities:
        raise InputError(f"the ensemble {ensemble.name} cannot run stacks; use Langevin or NVE")
    if start.positions is not None or start.velocities is not None or start.replicas is not None:
        raise InputError(
            "the start of a stack can have a seed only: set geometries by molecule.with_positions, "
            "and repeat a molecule for replicas"
        )
    if output.path is not None or output.restart is not None:
        raise InputError(
            "simulations of stacks do not write files: leave out path and restart, and save the "
            "returned runs"
        )


@dataclass(frozen=True, eq=False)
class _GroupSimulation:
    """Dynamics of the K molecules of a group, whose arrays have a leading axis K."""

    group: StackGroup
    params: Any
    members: list[tuple[Any, Molecule]]
    ensemble: Ensemble
    scheme: Scheme
    bath: Any
    dynamics: Any
    freedom: list[np.ndarray]

    @classmethod
    def of(cls, stack, group, params, molecules, ensemble, steps, start) -> _GroupSimulation:
        members = [(stack[k], molecules[k]) for k in group.members]
        dtype, n = stack[group.members[0]].dtype, group.n_atoms
        ghosts = [ghost_positions(n - count) for count in group.counts]
        R, v, m, freedom = [], [], [], []
        for k, (_, molecule), ghost in zip(group.members, members, ghosts, strict=True):
            begin = Start(seed=start.seed + k)
            X, free = np.asarray(molecule.positions), (True, True)
            velocity = starting_velocities(molecule, ensemble, X, begin, free)
            freedom.append(degrees_of_freedom(molecule.masses, ensemble, X, velocity, free))
            R.append(with_ghosts(X, n, ghost))
            v.append(with_ghosts(velocity, n))
            masses = np.append(molecule.masses, np.full(len(ghost), GHOST_MASS))
            m.append(scaled_masses(masses, ensemble.dt)[:, None])
        positions, masses = (jnp.asarray(np.stack(x), dtype) for x in (R, m))
        displacements = jnp.asarray(np.stack(v) * ensemble.dt, dtype)
        ready = jax.jit(group.ready)(params)
        _, forces = jax.jit(group.energy_and_forces)(ready, positions[:, None])
        core = Core(positions, masses * displacements, forces[:, 0], masses)
        scheme = Scheme(type(ensemble))
        bath = ensemble.bath(steps, dtype, len(members))
        keys = jax.vmap(jax.random.key)(np.array([start.seed + k for k in group.members]))
        initial = jax.vmap(partial(type(ensemble).initial_state, scheme=scheme))
        dynamics = jax.jit(initial)(core, keys, bath)
        return cls(group, ready, members, ensemble, scheme, bath, dynamics, freedom)

    def advance(self, dynamics, step: int, n_frames: int, every: int):
        """Return the state after `n_frames` × `every` steps, and frames in NumPy arrays."""
        origin = jnp.zeros((len(self.members), 3), jnp.int32)
        (dynamics, _), frames = run_chunk(
            self.group, self.scheme, self.params, (dynamics, origin), self.bath,
            (step, n_frames, every),
        )  # fmt: skip
        return dynamics, jax.tree.map(lambda x: np.asarray(x)[:n_frames], frames)

    def run(self, steps: int, every: int, stop: Stop) -> list[Run]:
        """Run, and return the run of each molecule."""
        begun = clock.perf_counter()
        _, first = self.advance(self.dynamics, 0, 1, 0)
        compile_seconds = clock.perf_counter() - begun
        parts, dynamics, step = [first], self.dynamics, 0
        guards = []
        for k, (_, molecule) in enumerate(self.members):
            frame = jax.tree.map(lambda x: x[0], self.frames_of(first, k))
            guards.append(Guard.of(molecule, frame, self.freedom[k], self.ensemble, stop))
        begun = clock.perf_counter()
        while step < steps:
            count = min((steps - step) // every, chunk_frames(dynamics))
            dynamics, frames = self.advance(dynamics, step, count, every)
            for k, guard in enumerate(guards):
                fault = guard.fault(self.frames_of(frames, k))
                if fault is not None:
                    at = step + (fault.frame + 1) * every
                    run = self._run(parts, k, dynamics, step, every, 0.0, 0.0)
                    name = f"molecule {self.group.members[k]} ({self.members[k][1].formula})"
                    message = f"{fault.what} in {name} by step {at}: try a smaller time step"
                    raise SimulationError(message, run, at, fault, None)
            parts.append(frames)
            step += count * every
        seconds, runs = clock.perf_counter() - begun, []
        for k, (potential, _) in enumerate(self.members):
            watch, chunks = Watch(potential.trained, stop), [self.frames_of(p, k) for p in parts]
            watch.compare(_joined(chunks), every * np.arange(steps // every + 1))
            run = self._run(parts, k, dynamics, step, every, seconds, compile_seconds)
            runs.append(replace(run, extrapolation=watch.result()))
        return runs

    def frames_of(self, frames: Frame, k: int) -> Frame:
        """Return the frames of molecule k, without ghost atoms."""
        n = self.group.counts[k]
        positions, displacements, forces = (
            x[:, k, :n] for x in (frames.positions, frames.displacements, frames.forces)
        )
        masses = scaled_masses(self.members[k][1].masses, self.ensemble.dt)
        kinetic = 0.5 * np.einsum("n,fnx->f", masses, displacements**2)
        origin = frames.origin[:, k]
        return Frame(positions, displacements, forces, frames.potential[:, k], kinetic, origin)

    def _run(self, parts, k: int, dynamics, step, every, seconds, compile_seconds) -> Run:
        potential, _ = self.members[k]
        chunks = [self.frames_of(frames, k) for frames in parts]
        frames = _joined(chunks)
        n, dt = self.group.counts[k], self.ensemble.dt
        last = jax.tree.map(lambda x: x[k], dynamics)
        last = last.set(
            position=last.position[:n], momentum=last.momentum[:n],
            force=last.force[:n], mass=last.mass[:n],
        )  # fmt: skip
        state = State(
            self.scheme, float(dt), step, self.freedom[k], fingerprint(potential), (True, True),
            last, jnp.zeros(3, jnp.int32),
        )  # fmt: skip
        simulated = 0.0864 * step * dt / max(seconds, 1e-9)
        return Run(
            **quantities(frames, float(dt), self.freedom[k]),
            times=every * dt * np.arange(len(frames.potential)),
            degrees_of_freedom=self.freedom[k],
            state=state,
            seconds=seconds,
            compile_seconds=compile_seconds,
            ns_per_day=simulated,
        )


def _joined(chunks: Sequence[Frame]) -> Frame:
    """Join the frames of all chunks, in float64."""
    return jax.tree.map(lambda *x: np.concatenate(x).astype(float), *chunks)
