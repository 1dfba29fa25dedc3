"""Sampling: Langevin dynamics driven by any ASE calculator, labels included, resumable."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxff import units
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.npz import NpzReader, write_npz
from jaxff.reference.calculators import Method
from jaxff.reference.label import Labelled, finish, finished, read_frames, run_settings, topology
from jaxff.reference.part import Rows, part_folder
from jaxff.reference.pools import processes, run_tasks

STRIDES_PER_TASK = 20


@dataclass(frozen=True)
class Langevin:
    """How the dynamics run: temperature in K, dt in fs, friction in 1/ps, lengths in steps.

    A stride is the time between two kept frames; the first strides only equilibrate.
    """

    temperature: float
    dt: float
    friction: float
    steps_per_stride: int
    equilibration_strides: int
    kept: int
    seed: int


def label_md(
    start,
    out,
    *,
    calculator: str = "gfn2-xtb",
    options: Mapping[str, Any] | None = None,
    charge: int | None = None,
    molecule: Molecule | None = None,
    temperature: float = 500.0,
    dt: float = 0.5,
    friction: float = 10.0,
    spacing: float = 10.0,
    equilibration: float = 1000.0,
    n_frames: int = 2000,
    replicas: int = 2,
    seed: int = 0,
    workers: int = 2,
    overwrite: bool = False,
    command: str = "",
    name: str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Labelled:
    """Sample a molecule by Langevin dynamics on a calculator's surface; write frames and labels.

    The replicas start from Maxwell-Boltzmann velocities and run the integrator of
    Vanden-Eijnden and Ciccotti (Chem. Phys. Lett. 429, 310 (2006), eq. 23) of ASE, centre of mass
    free.  Frames are ordered by time, and at equal times by replica; the arrays ``replica`` and
    ``time_fs`` (from the end of the equilibration) in the file tell them apart.  An interrupted run
    continues from the folder `OUT.part` and ends with the very same numbers; of a finished one the
    same call returns what is there.

    Args:
        start: as `frames` of `label_frames`; replica i starts from frame i (modulo their number).
        out, calculator, options, charge, molecule, workers, command, name: see `label_frames`; not
            a potential, which `jaxff.md` samples far faster.
        temperature: K.
        dt: time step, fs.
        friction: 1/ps.
        spacing: time between kept frames, fs, a multiple of dt.
        equilibration: time before the first stride whose frame is kept, fs; rounded up to a
            multiple of `spacing`.
        n_frames: frames in all.
        replicas: independent runs.
        seed: of velocities and noise.
        overwrite: replace what another run has written to `out`.
        progress: called now and then with what goes on and the fraction done.

    Raises:
        InputError: as `label_frames`; a calculation that failed is named by replica and time.
    """
    first, starts = read_frames(start)
    source = "the start's" if molecule is None else "as given"
    molecule = topology(first, molecule, charge)
    numbers = molecule.numbers
    for value, label in ((temperature, "temperature"), (dt, "dt"), (friction, "friction")):
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{label} is {value}, it must be positive")
    if n_frames < 1 or replicas < 1 or equilibration < 0:
        raise InputError("n_frames and replicas must be at least 1, equilibration at least 0")
    steps = round(spacing / dt)
    if steps < 1 or abs(steps * dt - spacing) > 1e-9 * spacing:
        raise InputError(f"spacing ({spacing} fs) must be a multiple of dt ({dt} fs)")
    method = Method(calculator, dict(options or {}))
    if method.is_potential:
        raise InputError(
            f'{calculator} is a potential: sample it with "jaxff md", and label the trajectory'
        )
    made = method.make(molecule.charge, molecule)  # complain before any process starts
    replicas = min(replicas, n_frames)
    plan = Langevin(
        float(temperature),
        float(dt),
        float(friction),
        steps,
        int(np.ceil(equilibration / spacing - 1e-9)),
        -(-n_frames // replicas),
        int(seed),
    )
    settings = {
        **run_settings(method, molecule, starts),
        "dynamics": vars(plan),
        "frames": n_frames,
        "replicas": replicas,
    }
    if (there := finished(out, settings, overwrite)) is not None:
        return there
    strides = plan.equilibration_strides + plan.kept
    with part_folder(out, settings) as folder:
        rows = Rows(folder / "rows.bin", replicas * plan.kept, 1 + 2 * starts[0].size)
        begun = [_strides_done(folder, replica) for replica in range(replicas)]
        tasks = [
            (method, molecule.with_positions(starts[i % len(starts)]), plan, i, rows, folder)
            for i in range(replicas)
            if begun[i] < strides
        ]
        ended = sum(begun)
        with processes(min(workers, replicas)) as pool:
            for advanced in run_tasks(_advance, tasks, pool):
                ended += advanced
                if progress is not None:
                    progress("sampling", ended / (replicas * strides))
        done, table = rows.read()
        if not done.all():
            raise InputError(f"{folder}: frames are missing; delete the folder and start again")
        order = np.arange(replicas * plan.kept).reshape(replicas, plan.kept).T.ravel()[:n_frames]
        frames = table[order]
        shape = (n_frames, len(numbers), 3)
        positions, forces = np.split(frames[:, 1:], 2, axis=1)
        dataset = Dataset(
            numbers,
            positions.reshape(shape),
            forces.reshape(shape),
            frames[:, 0],
            name=Path(out).stem if name is None else name,
            theory=method.theory,
        )
        extra = {
            "settings": json.dumps(settings),
            "dynamics": json.dumps(
                {
                    "ensemble": "Langevin (ASE, fixcm=False)",
                    "temperature_K": plan.temperature,
                    "dt_fs": plan.dt,
                    "friction_per_ps": plan.friction,
                    "spacing_fs": steps * plan.dt,
                    "equilibration_fs": plan.equilibration_strides * steps * plan.dt,
                    "replicas": replicas,
                    "seed": plan.seed,
                }
            ),
            "replica": order // plan.kept,
            "time_fs": (order % plan.kept + 1) * steps * plan.dt,
        }
        if (found := getattr(made, "topology", None)) is not None:
            extra["topology"] = f"{found} ({source})"
        return finish(dataset, out, method, command, extra)


def _checkpoint(folder: Path, replica: int) -> Path:
    return folder / f"replica-{replica:04d}.npz"


def _strides_done(folder: Path, replica: int) -> int:
    path = _checkpoint(folder, replica)
    return int(NpzReader(path).need("stride")) if path.exists() else 0


def _advance(task) -> tuple[int, tuple | None]:
    """Run one replica on from its checkpoint by up to STRIDES_PER_TASK strides.

    Gives how many it ran, and the task again unless the replica is at its end.

    The calculator is made anew for each task, in an interrupted run as in one that was not:
    whatever it remembers of earlier geometries has the same extent in both.
    """
    from ase import units as ase_units
    from ase.md.langevin import Langevin as AseLangevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

    method, molecule, plan, replica, rows, folder = task
    atoms = molecule.to_ase()
    rng = np.random.default_rng([plan.seed, replica])
    path = _checkpoint(folder, replica)
    stride = 0
    if path.exists():
        state = NpzReader(path, "checkpoint")
        stride = int(state.need("stride"))
        atoms.set_positions(state.need("positions"))
        atoms.set_momenta(state.need("momenta"))
        rng.bit_generator.state = json.loads(state.text("rng"))
    else:
        MaxwellBoltzmannDistribution(atoms, temperature_K=plan.temperature, rng=rng)
    atoms.calc = method.make(molecule.charge, molecule)
    dynamics = AseLangevin(
        atoms,
        timestep=plan.dt * ase_units.fs,
        temperature_K=plan.temperature,
        friction=plan.friction / (1000.0 * ase_units.fs),
        fixcm=False,
        rng=rng,
    )
    first = stride
    end = plan.equilibration_strides + plan.kept
    last = min(stride + STRIDES_PER_TASK, end)
    while stride < last:
        try:
            dynamics.run(plan.steps_per_stride)
            forces = atoms.get_forces() * units.EV
            energy = atoms.get_potential_energy() * units.EV
            if not (np.isfinite(energy) and np.isfinite(forces).all()):
                raise ValueError("the energy or a force is not finite")
        except Exception as error:
            time = stride * plan.steps_per_stride * plan.dt
            raise InputError(
                f"replica {replica}: the calculation failed between {time:g} and "
                f"{time + plan.steps_per_stride * plan.dt:g} fs ({type(error).__name__}: {error}); "
                "start from a relaxed geometry, or lower dt or the temperature"
            ) from error
        kept = stride - plan.equilibration_strides
        if kept >= 0:
            values = np.concatenate([[energy], atoms.positions.ravel(), forces.ravel()])
            rows.write(replica * plan.kept + kept, values)
        stride += 1
    write_npz(
        path,
        {
            "stride": np.array(stride),
            "positions": atoms.positions,
            "momenta": atoms.get_momenta(),
            "rng": np.array(json.dumps(rng.bit_generator.state)),
        },
    )
    return stride - first, task if stride < end else None


def starting_geometries(start: str, replicas: int = 1, seed: int = 7) -> str | list[Molecule]:
    """`start` itself if it is the path of a file, else a conformer of a SMILES for each replica.

    Args:
        start: path of a structure or data file, or a SMILES string.
        replicas: number of conformers, made with RDKit's seeds `seed`, `seed` + 1, ...
    """
    if os.path.exists(start) or Path(start).suffix.lower() in (".npz", *Molecule.FORMATS):
        return start
    return [Molecule.from_smiles(start, seed=seed + i) for i in range(replicas)]
