"""Resumable Langevin dynamics with any ASE calculator."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.reference.calculators import Method
from jaxff.reference.frames import changed_bonds
from jaxff.reference.label import calculate_finite
from jaxff.reference.pools import processes, run_tasks
from jaxff.reference.results import Job, Labelled, finished, part_folder
from jaxff.reference.settings import Labelling, Progress, Sampling
from jaxff.store import Rows, Store

if TYPE_CHECKING:
    from jaxff.reference.frames import Frames

FRAMES_PER_TASK = 20
LATER = {"keep": "kept", "drop": "omitted from the file"}


def label_md(
    start: Frames,
    out: str | Path,
    n_frames: int = 2000,
    labelling: Labelling = Labelling(),
    sampling: Sampling = Sampling(spacing=10.0, replicas=2),
    *,
    molecule: Molecule | None = None,
    charge: int | None = None,
    progress: Progress | None = None,
) -> Labelled:
    """Sample a molecule by Langevin dynamics with a calculator, and write a data set.

    The replicas start from Maxwell-Boltzmann velocities and use ASE's integrator (Vanden-Eijnden
    and Ciccotti, Chem. Phys. Lett. 429, 310 (2006), eq. 23), with a free centre of mass. Frames
    are ordered by time, then by replica. The arrays ``replica`` and ``time_fs`` of the file
    contain the replica of each frame and the time after the equilibration, fs.

    Repeat the call to continue an interrupted run from the folder `OUT.part`, with identical
    results. If `out` is complete, the data set in `out` is returned. Bonds are compared with the
    bonds of the molecule at every frame; see `Labelling.reactions`.

    Args:
        start: G starting geometries, as `frames` of `label_frames`; replica i starts from
            geometry i modulo G.
        out: the npz file to write, in sGDML's format with kcal/mol and Å.
        n_frames: total number of frames of all replicas.
        labelling: the calculator and its settings; `scheduler` and `skip_failed` are ignored.
            For potentials, use the faster `jaxff.md`.
        sampling: settings of the dynamics.
        molecule: molecule with the bonds, see `label_frames`; None for the first geometry.
        charge: net charge, e; None for the charge of the molecule.
        progress: called with the name of a phase and the fraction done.

    Returns:
        the data set, with the frames whose bonds have changed.

    Raises:
        InputError: as for `label_frames`. Also if bonds changed with the setting "stop" of
            `reactions`, or in all frames with the setting "drop".

    Warns:
        UserWarning: bonds changed, with the setting "keep" or "drop" of `reactions`.
    """
    if n_frames < 1:
        raise InputError(f"n_frames must be at least 1 (got {n_frames})")
    method = labelling.method
    if method.is_potential:
        raise InputError(
            f"{method.name} is a potential: sample with `jaxff md`, and label the trajectory"
        )
    job = Job.of(start, labelling, molecule, charge, progress)
    molecule, starts = job.molecule, job.positions
    sampling = replace(sampling, replicas=min(sampling.replicas, n_frames), stretch=None)
    replicas, kept = sampling.replicas, -(-n_frames // sampling.replicas)
    request = job.request(sampling=asdict(sampling), frames=n_frames)
    # An unfinished run continues with any setting of reactions.
    written = {**request, "reactions": labelling.reactions}
    if (result := finished(out, written, labelling.overwrite, molecule)) is not None:
        return result
    with part_folder(out, request) as folder:
        rows = Rows(folder / "rows.bin", replicas * kept, 1 + 2 * starts[0].size)
        tasks = [
            Replica(
                method, molecule.with_positions(starts[i % len(starts)]), sampling, kept, i, folder,
                rows,
            )
            for i in range(replicas)
        ]  # fmt: skip
        for task in tasks:
            _announce(task.reaction(), molecule, labelling, folder)
        ended = sum(task.frames_done() for task in tasks)
        total = sum(task.n_frames for task in tasks)
        tasks = [task for task in tasks if task.frames_done() < task.n_frames]
        if progress is not None and tasks:
            progress("sampling", ended / total)
        with processes(min(labelling.workers, replicas)) as pool:
            for advanced, reaction in run_tasks(_advance, tasks, pool):
                _announce(reaction, molecule, labelling, folder)
                ended += advanced
                if progress is not None:
                    progress("sampling", ended / total)
        done, table = rows.read()
        if not done.all():
            raise InputError(f"{folder}: frames are missing; delete this folder to start again")
        order = np.arange(replicas * kept).reshape(replicas, kept).T.ravel()[:n_frames]
        geometries = table[:, 1 : 1 + starts[0].size].reshape(-1, *starts.shape[1:])
        reacted = np.array([bool(changed_bonds(molecule, geometries[i])) for i in order])
        count, how = int(reacted.sum()), labelling.reactions
        if count and how == "drop":
            order = order[~reacted]
        if not len(order):
            raise InputError(
                f"{folder}: the bonds of all {n_frames} frames differ from those of "
                f"{molecule.label}; give the molecule of the frames, or keep the frames "
                '(reactions="keep", --reactions keep)'
            )
        positions, forces = geometries[order], table[order, 1 + starts[0].size :]
        notes = {
            "dynamics": json.dumps(_described(sampling)),
            "replica": order // kept,
            "time_fs": (order % kept + 1) * sampling.frame_steps * sampling.dt,
            "reactions": f"{count} of {n_frames} frames with other bonds than {molecule.label}"
            + (", omitted" if count and how == "drop" else ""),
        }
        return job.finish(out, written, (positions, table[order, 0], forces), notes)


def _announce(reaction: str, molecule: Molecule, labelling: Labelling, folder: Path) -> None:
    """Raise an error or warn if bonds have changed; see `Labelling.reactions`."""
    if not reaction:
        return
    fault = f"{reaction}; the bonds are compared with those of {molecule.label}"
    if labelling.reactions == "stop":
        raise InputError(
            f"{fault}. Finished frames are in {folder}. Lower the temperature, or continue with "
            '--reactions keep or drop (reactions="keep" or "drop")'
        )
    warnings.warn(
        f"{fault}; frames with changed bonds are {LATER[labelling.reactions]}. To prevent changes "
        "of bonds, lower the temperature",
        stacklevel=3,
    )


def _described(sampling: Sampling) -> Mapping[str, Any]:
    """Return the settings of the dynamics with units, for the data set."""
    spacing = sampling.frame_steps * sampling.dt
    return {
        "ensemble": "Langevin (ASE, fixcm=False)",
        "temperature_K": sampling.temperature,
        "dt_fs": sampling.dt,
        "friction_per_ps": sampling.friction,
        "spacing_fs": spacing,
        "equilibration_fs": sampling.waiting_frames * spacing,
        "replicas": sampling.replicas,
        "seed": sampling.seed,
    }


@dataclass(frozen=True)
class Replica:
    """The dynamics of one replica.

    Attributes:
        method: the calculator.
        molecule: charge, bonds and starting geometry.
        sampling: settings of the dynamics.
        kept: number of frames after the equilibration.
        number: number of the replica.
        folder: folder with the state of the replica.
        rows: file of the frames after the equilibration.
    """

    method: Method
    molecule: Molecule
    sampling: Sampling
    kept: int
    number: int
    folder: Path
    rows: Rows

    @property
    def n_frames(self) -> int:
        """Number of frames, including the equilibration."""
        return self.sampling.waiting_frames + self.kept

    @property
    def store(self) -> Store:
        """The file with the state of the replica."""
        path = self.folder / f"replica-{self.number:04d}.npz"
        return Store(path, {"replica": self.number}, "replica")

    def frames_done(self) -> int:
        """Return the number of finished frames, including the equilibration."""
        state = self.store.load()
        return 0 if state is None else state["frame"]

    def reaction(self) -> str:
        """Describe the first change of bonds so far; "" if there is none."""
        state = self.store.load()
        return "" if state is None else state["reaction"]


def _advance(replica: Replica) -> tuple[tuple[int, str], Replica | None]:
    """Run one replica for up to FRAMES_PER_TASK more frames.

    Each task creates a new calculator. Therefore interrupted and uninterrupted runs give the same
    results, even if a calculator uses the preceding geometry.

    Returns:
        the number of frames and the first change of bonds in these frames ("" if there is none);
        and the replica, or None if the replica is complete.

    Raises:
        InputError: the calculation of a frame failed.
    """
    from ase import units as ase_units
    from ase.md.langevin import Langevin as AseLangevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

    molecule, sampling = replica.molecule, replica.sampling
    atoms = molecule.to_ase()
    rng = np.random.default_rng([sampling.seed, replica.number])
    frame, state, reaction, news = 0, replica.store.load(), "", ""
    if state is None:
        MaxwellBoltzmannDistribution(atoms, temperature_K=sampling.temperature, rng=rng)
    else:
        frame, reaction = state["frame"], state["reaction"]
        atoms.set_positions(state["positions"])
        atoms.set_momenta(state["momenta"])
        rng.bit_generator.state = state["rng"]
    atoms.calc = replica.method.make(molecule.charge, molecule)
    dynamics = AseLangevin(
        atoms,
        timestep=sampling.dt * ase_units.fs,
        temperature_K=sampling.temperature,
        friction=sampling.friction / (1000.0 * ase_units.fs),
        fixcm=False,
        rng=rng,
    )
    first, last = frame, min(frame + FRAMES_PER_TASK, replica.n_frames)
    for frame in range(first, last):
        try:
            dynamics.run(sampling.frame_steps)
            energy, forces = calculate_finite(atoms)
        except Exception as error:
            step = sampling.frame_steps * sampling.dt
            raise InputError(
                f"replica {replica.number}: the calculation failed between {frame * step:g} and "
                f"{(frame + 1) * step:g} fs ({type(error).__name__}: {error}); start from a "
                "relaxed geometry, or lower dt or the temperature"
            ) from error
        if not reaction and (change := changed_bonds(molecule, atoms.positions)):
            time = (frame + 1) * sampling.frame_steps * sampling.dt
            where = f"replica {replica.number}, {time:g} fs after the start"
            reaction = news = f"{where}: bonds have changed ({change})"
        kept = frame - sampling.waiting_frames
        if kept >= 0:
            values = np.concatenate([[energy], atoms.positions.ravel(), forces.ravel()])
            replica.rows.write(replica.number * replica.kept + kept, values)
    replica.store.save(
        {
            "frame": last,
            "reaction": reaction,
            "positions": atoms.positions,
            "momenta": atoms.get_momenta(),
            "rng": rng.bit_generator.state,
        }
    )
    return (last - first, news), replica if last < replica.n_frames else None
