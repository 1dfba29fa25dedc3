"""Molecular dynamics of a potential."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxff import units
from jaxff.errors import InputError
from jaxff.md import check, guard, kinetics, restart, start
from jaxff.md.ensembles import Bath, Ensemble, check_ensemble
from jaxff.md.guard import Fault, Guard
from jaxff.md.integrate import Frame, chunk_frames, run_chunk
from jaxff.md.record import Record, Run, State, trajectories
from jaxff.molecule import Molecule
from jaxff.npz import digest, writable_file
from jaxff.potential import Potential

# The host takes over the frames, and looks at them, about this often, s.
CHUNK_SECONDS = 1.0


class SimulationError(ArithmeticError):
    """A simulation met a number that is not finite, an explosion, or a broken bond.

    Attributes:
        run: what was recorded before, all sound; `run.state` is at its last frame.
        step: the step at which it was seen first.
        time: that step's time, fs.
        atoms: indices of the atoms where it shows, none if only the energy tells.
        replica: its index, None if there is one molecule alone.
        term: the potential's term with the strongest force on the atoms, None if unknown.
    """

    def __init__(self, message: str, run: Run, step: int, fault: Fault, term: str | None):
        super().__init__(message)
        self.run, self.step, self.time = run, step, step * run.state.dt
        self.atoms, self.replica, self.term = fault.atoms, fault.replica, term


def simulate(
    potential: Potential,
    molecule: Molecule,
    *,
    temperature: float | Sequence[float] = 300.0,
    final_temperature: float | Sequence[float] | None = None,
    steps: int = 10_000,
    dt: float = 0.5,
    ensemble: str = "langevin",
    friction: float = 1.0,
    relaxation: float = 100.0,
    record_every: int = 10,
    seed: int = 0,
    replicas: int | None = None,
    positions=None,
    velocities=None,
    remove_rotation: bool = False,
    stretch: float | None = None,
    max_temperature: float | None = None,
    state: State | None = None,
    out=None,
    restart_file=None,
    keep: bool = True,
    progress: Callable[[str, float], None] | None = None,
) -> Run:
    """Molecular dynamics of `molecule`, in vacuum, in its own atom order.

    The ensembles, all with steps from jax-md:

    - "langevin": BAOAB (Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34), on all 3N
      degrees of freedom.
    - "nve": velocity Verlet.  Velocities that are drawn lose the motion of the centre of mass, and
      with `remove_rotation` the rotation; those that are given are used as they are.
    - "nose-hoover": a chain of three thermostats (Martyna, Klein and Tuckerman, J. Chem. Phys. 97,
      2635 (1992)) on velocity Verlet.
    - "csvr": stochastic velocity rescaling (Bussi, Donadio and Parrinello, J. Chem. Phys. 126,
      014101 (2007)) on velocity Verlet.

    The last two scale all velocities by one factor, which never changes the direction of total
    and angular momentum.  A free molecule therefore starts without either, stays so, and the
    temperature counts the other 3N − 6 degrees of freedom (5 for two atoms).  Where the potential
    is found to depend on place nothing is removed, and all 3N count; where on orientation alone,
    the motion of the centre of mass is, and 3N − 3 count.

    Args:
        potential: its atoms are matched to those of `molecule`.  It computes in the dtype of its
            parameters.
        molecule: elements, masses and starting geometry.
        temperature: of the thermostat and the starting velocities, K; one, or one a replica.
        final_temperature: of the thermostat at the last step, reached at a constant rate (None:
            the same throughout), K.
        steps: a multiple of `record_every`.
        dt: time step, fs.
        ensemble: see above.
        friction: Langevin's, 1/ps; 1 disturbs the motion little, 10 equilibrates faster.
        relaxation: time of the Nosé-Hoover chain and of CSVR, fs.
        record_every: steps between frames.  The start is a frame too, unless `state` is given.
        seed: of starting velocities and noise; replica r is the single run of seed + r.
        replicas: molecules that run at once, each on its own, spread over the devices if there
            are several; None for one without a replicas' axis.
        positions: (N, 3) or (R, N, 3) Å, in place of the molecule's.
        velocities: likewise, Å/fs, in place of drawn ones.
        remove_rotation: of "nve", see above; the last two never rotate, and Langevin always does.
        stretch: a bond this many times as long as at the start (the longest start of the
            replicas) stops the run; None: bonds may break.
        max_temperature: K, beyond which the run stops; np.inf: never.  None: far beyond chance, or
            in "nve", where the total energy tells, once that has changed as much.
        state: continue from there; positions, velocities, seed and replicas do not count then.
            With another potential, its forces count from the start; it must be in the state's
            precision, and free to move and turn if that one was.
        out: trajectory file, replaced at the start and appended to as the simulation goes; the
            suffix tells the format: .extxyz, .h5 (H5MD) or .dcd.  Of replicas, run.h5 becomes
            run-0.h5, run-1.h5 and so on.
        restart_file: written every few seconds together with `out`.  If it is there, the simulation
            continues from it, bit for bit on the same hardware, until `steps` are done in all.
        keep: whether the run returned holds positions, velocities and forces; without, these
            arrays have no frames, and long runs little memory.
        progress: called about once a second with what goes on and the fraction done.

    Raises:
        InputError: arguments that cannot be used; a start that is not finite.
        SimulationError: a number that is not finite on the way, an explosion, a broken bond.
    """
    check_ensemble(ensemble)
    check.check_arguments(
        ensemble, dt, friction, relaxation, steps, record_every, replicas, stretch, max_temperature,
        remove_rotation, seed,
    )  # fmt: skip
    # Plain numbers, as the restart file needs them, of NumPy's and the like.
    steps, record_every, seed = int(steps), int(record_every), int(seed)
    replicas = None if replicas is None else int(replicas)
    dt, friction, relaxation = float(dt), float(friction), float(relaxation)
    potential = potential.matched(molecule)
    count = replicas if state is None else state.replicas
    warmth = [
        check.temperatures(T, count) for T in (temperature, final_temperature) if T is not None
    ]
    check.check_warmth(ensemble, warmth)
    fresh = state is None
    if fresh:
        state = _start(
            potential, molecule, ensemble, warmth[0], friction, relaxation, dt, seed, replicas,
            positions, velocities, remove_rotation,
        )  # fmt: skip
    else:
        check.check_state(state, ensemble, dt, molecule, potential)
        state = _taken_over(state, potential)
    settings = {
        "potential": state.potential,
        "molecule": digest(molecule.numbers, state.positions if fresh else 0),
        "ensemble": ensemble, "dt": dt, "friction": friction, "relaxation": relaxation,
        "record_every": record_every, "seed": seed, "replicas": count,
        "velocities": None if velocities is None else digest(np.asarray(velocities, float)),
        "remove_rotation": bool(remove_rotation),
        "temperature": [w.tolist() for w in warmth],
        "steps of the ramp": steps if len(warmth) > 1 else None,
        "trajectory": None if out is None else Path(out).name,
    }  # fmt: skip
    first, last, marks, initial = state.step, state.step + steps, None, state
    if last >= 2**31:
        raise InputError(f"{last} steps in all are more than their counter of 31 bits holds")
    if restart_file is not None:
        if not fresh:
            raise InputError("give either a state or a restart file to continue from, not both")
        writable_file(restart_file)
        if out is not None and Path(out).resolve() == Path(restart_file).resolve():
            raise InputError(f"{out}: trajectory and restart file must be two files")
        if restart.exists(restart_file):
            found = restart.read_restart(restart_file, (state.dynamics, state.origin), settings)
            (dynamics, origin), step, marks = found
            state = replace(state, dynamics=dynamics, origin=origin, step=step)
            if state.step >= last:
                raise InputError(
                    f"{restart_file}: that simulation is at step {state.step} already; ask for "
                    "more steps, or name another file (folder) to start anew"
                )
    bath = _spread(_bath(state, warmth, friction, relaxation, first, steps), count)
    params = potential.program.jit_ready(potential.params)

    def advance(state: State, n_frames: int, every: int):
        """The state after, and the frames, on the host."""
        moving = _spread((state.dynamics, state.origin), count)
        (dynamics, origin), frames = run_chunk(
            potential.program, state.ensemble, params, *moving, bath, state.step, n_frames, every
        )
        frames = Frame(*(np.asarray(x)[:n_frames] for x in frames))
        step = state.step + n_frames * every
        return replace(state, dynamics=dynamics, origin=origin, step=step), frames

    begun = clock.perf_counter()
    _, frames = advance(initial, 1, 0)  # compiles, and observes the start
    compile_seconds = clock.perf_counter() - begun
    watch = Guard.of(
        molecule, Frame(*(x[0] for x in frames)), state.degrees_of_freedom, float(np.max(warmth)),
        stretch, max_temperature, ensemble == "nve",
    )  # fmt: skip
    if (fault := watch.fault(frames)) is not None:
        raise InputError(f"at the starting geometry {fault.what}")
    with ExitStack() as stack:
        files = [
            stack.enter_context(closing(file)) for file in trajectories(out, molecule, count, marks)
        ]
        record = Record(state, molecule, files, restart_file, settings, keep)
        record.compile_seconds = compile_seconds
        if fresh and marks is None:
            record.add(frames, 0)
        wanted, begun = 1, clock.perf_counter()
        while record.state.step < last:
            before, lap = record.state, clock.perf_counter()
            left = (last - before.step) // record_every
            wanted = min(wanted, left)
            after, frames = advance(before, wanted, record_every)
            fault = watch.fault(frames)
            if fault is not None:
                good = Frame(*(x[: fault.frame] for x in frames))
                record.add(good, record_every)
                record.move(advance(before, fault.frame, record_every)[0])
                record.seconds = clock.perf_counter() - begun
                record.save()
                raise _failure(potential, record, watch, advance, record_every)
            record.add(frames, record_every)
            record.move(after)
            record.seconds = clock.perf_counter() - begun
            record.save_if_old()
            if progress is not None:
                rate = record.ns_per_day
                fraction = (after.step - first) / (last - first)
                progress(f"molecular dynamics ({rate:.3g} ns/day)", fraction)
            pace = CHUNK_SECONDS * wanted / max(clock.perf_counter() - lap, 1e-6)
            wanted = int(np.clip(pace, 1, min(8 * wanted, chunk_frames(after.dynamics))))
        record.save()
        return record.run()


def _failure(potential, record: Record, watch: Guard, advance, every: int) -> SimulationError:
    """Run on from the last good frame by single steps, to tell where it went wrong."""
    state, fault = record.state, None
    while fault is None and state.step < record.state.step + every:
        room = min(chunk_frames(state.dynamics), record.state.step + every - state.step)
        before = state
        state, frames = advance(state, room, 1)
        fault = watch.fault(frames)
    step = before.step + 1 + fault.frame
    last = advance(before, fault.frame, 1)[0].dynamics.position
    here = (np.asarray(last), frames.positions[fault.frame])
    if fault.replica is not None:
        here = tuple(x[fault.replica] for x in here)
    term = guard.culprit(potential, here[1], fault.atoms) or guard.culprit(
        potential, here[0], fault.atoms
    )
    kept = f"; the frames before it are in {record.files[0].path}" if record.files else ""
    whose = "" if fault.replica is None else f" in replica {fault.replica}"
    message = (
        f"{fault.what}{whose} at step {step} ({step * state.dt:g} fs), the strongest force there "
        f"being that of {term!r}: try a smaller dt than {state.dt:g} fs, a relaxed starting "
        f"geometry, or a potential fitted to what it meets here{kept}"
    )
    return SimulationError(message, record.run(), step, fault, term)


def _start(
    potential, molecule, ensemble, temperature, friction, relaxation, dt, seed, replicas, positions,
    velocities, remove_rotation,
) -> State:  # fmt: skip
    positions = start.starting_geometry(molecule, positions, replicas)
    seeds = [int(seed) + r for r in range(replicas or 1)]
    invariant = start.invariances(potential, positions.reshape(-1, molecule.n_atoms, 3)[0])
    velocities = start.starting_velocities(
        molecule, ensemble, positions, velocities, np.atleast_1d(temperature), seeds, invariant,
        remove_rotation,
    )  # fmt: skip
    masses = molecule.masses
    freedom = start.degrees_of_freedom(masses, ensemble, positions, velocities, invariant)
    if ensemble in ("nose-hoover", "csvr"):
        if molecule.n_atoms == 1 and invariant[0]:
            raise InputError(f"{ensemble} needs a molecule that can vibrate, not a free atom")
        if not kinetics.kinetic_energy(masses, velocities).all():
            raise InputError(f"{ensemble} scales velocities and cannot start from rest")
        if not temperature.all():
            raise InputError(f"{ensemble} needs a temperature above 0 K")
    kind = Ensemble(ensemble, followed=start.follows(potential, invariant))
    if ensemble in ("nose-hoover", "csvr"):
        still = invariant[1] and molecule.n_atoms > 1
        kind = kind._replace(freedom=int(freedom.min()), still=still)
    dtype = start.dtype_of(potential)
    bath = _thermostat(kind, dt, dtype, temperature, 0.0 * temperature, friction, relaxation)
    found = start.dynamics(potential, kind, positions, velocities, masses, dt, bath, seeds)
    return State(kind, dt, 0, freedom, restart.fingerprint(potential), invariant, *found)


def _taken_over(state: State, potential: Potential) -> State:
    """The state with the forces of this potential, which may be another than it had."""
    mark = restart.fingerprint(potential)
    if mark == state.potential:
        return state  # its forces are those of the last step to the last bit
    n_atoms = state.dynamics.position.shape[-2]
    invariant = start.invariances(potential, state.positions.reshape(-1, n_atoms, 3)[0])
    if invariant != state.invariant:
        raise InputError(
            "of the potential to continue with and that of the state only one lets the molecule "
            "move and turn freely; start anew from the state's positions and velocities"
        )
    forces = start.forces(potential, state.dynamics.position)
    return replace(state, potential=mark, dynamics=state.dynamics.set(force=forces))


def _bath(state: State, warmth: list[np.ndarray], friction, relaxation, first, steps) -> Bath:
    """The thermostat's settings: constant, or from the first temperature to the last in `steps`."""
    heating = (warmth[-1] - warmth[0]) / steps
    kind, dtype, begin = state.ensemble, state.dynamics.position.dtype, warmth[0] - heating * first
    return _thermostat(kind, state.dt, dtype, begin, heating, friction, relaxation)


def _thermostat(kind: Ensemble, dt, dtype, temperature, heating, friction, relaxation) -> Bath:
    rate = friction / 1000.0 if kind.name == "langevin" else 1.0 / relaxation
    values = (
        units.BOLTZMANN * temperature,
        units.BOLTZMANN * heating,
        np.full_like(temperature, rate * dt),
    )
    return Bath(*(jnp.asarray(value, dtype) for value in values))


def _spread(tree, replicas: int | None):
    """Replicas spread over the devices, where there are several and they divide them."""
    devices = jax.devices()
    if replicas is None or len(devices) == 1 or replicas % len(devices):
        return tree
    mesh = jax.make_mesh((len(devices),), ("replica",), (jax.sharding.AxisType.Auto,))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("replica"))
    return jax.device_put(tree, place)
