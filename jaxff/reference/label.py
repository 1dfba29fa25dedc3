"""Labelling of given geometries with energies and forces."""

from __future__ import annotations

import platform
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxff.calculation import calculate
from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.reference.calculators import Method
from jaxff.reference.frames import coinciding_atoms
from jaxff.reference.pools import open_pool, run_tasks
from jaxff.reference.results import Job, Labelled, finished, part_folder
from jaxff.reference.settings import Labelling, Progress
from jaxff.store import Rows

if TYPE_CHECKING:
    from ase import Atoms

    from jaxff.potential import Potential
    from jaxff.reference.frames import Frames

# A worker that writes no files returns its finished labels after this time, s.
RETURN_AFTER = 5.0
BATCH = 1024  # frames of a potential in one block
NOT_FINITE = "the energy or a force is not finite"


def label_frames(
    frames: Frames,
    out: str | Path,
    labelling: Labelling = Labelling(),
    *,
    molecule: Molecule | None = None,
    charge: int | None = None,
    progress: Progress | None = None,
) -> Labelled:
    """Label geometries with an ASE calculator or a potential, and write a data set.

    Finished labels are stored in the folder `OUT.part`. Repeat the call to continue after an
    interruption. If `out` is complete, the data set in `out` is returned. Potentials are evaluated
    in batches in this process.

    Args:
        frames: path of an xyz, extxyz or npz file, a `Dataset`, or a sequence of `ase.Atoms` or
            `Molecule` with the same atoms in the same order.
        out: the npz file to write, in sGDML's format with kcal/mol and Å.
        labelling: the calculator and its settings.
        molecule: molecule with the bonds that a force field uses for all frames; None for the
            bonds of the first frame, or of the molecule of a `Dataset`. The atoms are matched to
            the first frame by the bond graph, or taken in order if only the elements agree.
        charge: net charge, e; None for the charge of `molecule` or of the frames (default 0).
        progress: called with the name of a phase and the fraction done.

    Returns:
        the labelled data set, with the numbers of frames that failed or have changed bonds.

    Raises:
        InputError: the frames cannot be read, the calculator cannot be created, a calculation
            failed, `out` or `OUT.part` belongs to a run with other settings, or the cluster
            failed.
    """
    job = Job.of(frames, labelling, molecule, charge, progress)
    method, positions, potential = labelling.method, job.positions, None
    if method.is_potential:
        if labelling.scheduler is not None:
            raise InputError(
                f"{method.name} is a potential, and potentials cannot be evaluated on a cluster: "
                "omit the scheduler"
            )
        potential = _in_float64(job)
    request = job.request()
    if (result := finished(out, request, labelling.overwrite, job.molecule)) is not None:
        return result
    with part_folder(out, request) as folder:
        rows = Rows(folder / "rows.bin", len(positions), 1 + positions[0].size)
        failed = coinciding_atoms(positions)
        _stop_at_failure(failed, labelling, folder)
        todo = np.setdiff1d(np.flatnonzero(~rows.read()[0]), list(failed))
        ended = len(positions) - len(todo)
        if progress is not None and len(todo):
            progress("labelling", ended / len(positions))
        block = Block(
            method, method.version, job.molecule, todo, positions[todo], None,
            labelling.skip_failed,
        )  # fmt: skip
        if potential is None:
            outcomes = _calculations(labelling, block, rows)
        else:
            outcomes = _predictions(potential, block)
        with closing(outcomes):
            for count, labels, failures in outcomes:
                for index, values in labels.items():
                    rows.write(index, values)
                failed |= failures
                ended += count
                _stop_at_failure(failed, labelling, folder)
                if progress is not None:
                    progress("labelling", ended / len(positions))
        done, table = rows.read()
        if not done.any():
            raise InputError(
                f"all calculations failed (frame 0: {failed[0]}): check the calculator, its "
                "options and the frames"
            )
        labels = positions[done], table[done, 0], table[done, 1:]
        notes = {"failed_frames": np.array(sorted(failed), int)} if failed else {}
        return job.finish(out, request, labels, notes, tuple(sorted(failed)))


def _stop_at_failure(failed: Mapping[int, str], labelling: Labelling, folder: Path) -> None:
    if failed and not labelling.skip_failed:
        frame = min(failed)
        raise InputError(
            f"frame {frame}: the calculation failed ({failed[frame]}); finished frames are in "
            f"{folder}. Correct this frame, or omit such frames with --skip-failed "
            "(skip_failed=True)"
        )


def calculate_finite(atoms: Atoms) -> tuple[float, np.ndarray]:
    """Calculate the energy () kcal/mol and forces (N, 3) kcal/mol/Å of ASE's atoms.

    Raises:
        ValueError: a result is not finite.
    """
    energy, forces = calculate(atoms)
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise ValueError(NOT_FINITE)
    return energy, forces


@dataclass(frozen=True)
class Block:
    """Frames that one task labels.

    Attributes:
        method: the calculator.
        version: the package version that must compute the labels.
        molecule: charge and bonds of all frames.
        indices: (B,) numbers of the frames.
        positions: (B, N, 3) Å.
        rows: file to which the labels are written; None to return the labels.
        skip_failed: whether to continue after a frame that failed.
    """

    method: Method
    version: str
    molecule: Molecule
    indices: np.ndarray
    positions: np.ndarray
    rows: Rows | None
    skip_failed: bool

    def after(self, count: int) -> Block | None:
        """Return the block without the first `count` frames; None if no frames are left."""
        if count >= len(self.indices):
            return None
        return replace(self, indices=self.indices[count:], positions=self.positions[count:])

    def parts(self, size: int) -> Iterator[Block]:
        """Yield blocks of at most `size` frames."""
        for i in range(0, len(self.indices), size):
            place = slice(i, i + size)
            yield replace(self, indices=self.indices[place], positions=self.positions[place])


# Number of calculated frames; labels and failures by the number of the frame.
Outcome = tuple[int, dict[int, np.ndarray], dict[int, str]]


def _calculations(labelling: Labelling, block: Block, rows: Rows) -> Generator[Outcome]:
    """Label frames with the calculator, in local processes or on a cluster."""
    with open_pool(labelling.scheduler, labelling.workers) as pool:
        size = int(np.clip(len(block.indices) // (4 * max(pool.workers, 1)), 1, 32))
        block = replace(block, rows=rows if pool.shares_disk else None)
        yield from run_tasks(_label_block, block.parts(size), pool)


def _label_block(block: Block) -> tuple[Outcome, Block | None]:
    """Label frame by frame, for at most RETURN_AFTER seconds if labels are returned.

    Returns:
        the outcome, and the block of the remaining frames (None if there are none).

    Raises:
        InputError: this process has another version of the calculator.
    """
    if block.method.version != block.version:
        raise InputError(
            f"the worker on {platform.node()} has {block.method.version} instead of "
            f"{block.version}: install the same version on this worker"
        )
    calculator = block.method.make(block.molecule.charge, block.molecule)
    labels, failed = {}, {}
    started, count = time.monotonic(), 0
    for index, R in zip(block.indices.tolist(), block.positions, strict=True):
        count += 1
        atoms = block.molecule.with_positions(R).to_ase()
        # A label must not depend on earlier geometries.
        calculator.reset()
        atoms.calc = calculator
        try:
            values = np.append(*calculate_finite(atoms))
        except Exception as error:
            failed[index] = f"{type(error).__name__}: {error}"
            if not block.skip_failed:
                return (count, labels, failed), None
            calculator = block.method.make(block.molecule.charge, block.molecule)
            continue
        if block.rows is None:
            labels[index] = values
            if time.monotonic() - started > RETURN_AFTER:
                break
        else:
            block.rows.write(index, values)
    return (count, labels, failed), block.after(count)


def _predictions(potential: Potential, block: Block) -> Generator[Outcome]:
    """Label frames with a potential, in batches."""
    for part in block.parts(BATCH):
        energies, forces = potential.predict(part.positions)
        labels = np.column_stack([energies, forces.reshape(len(energies), -1)])
        rows = dict(zip(part.indices.tolist(), labels, strict=True))
        failed = {index: NOT_FINITE for index, row in rows.items() if not np.isfinite(row).all()}
        yield len(rows), {i: row for i, row in rows.items() if i not in failed}, failed


def _in_float64(job: Job) -> Potential:
    """Return the potential of a job in float64, in the atom order of the frames."""
    import jax.numpy as jnp

    from jaxff.ase import match

    if jnp.result_type(float) != np.float64:
        raise InputError(
            'labels need float64: call jax.config.update("jax_enable_x64", True) first, or set '
            "JAX_ENABLE_X64=1"
        )
    return match(job.calculator.potential, job.molecule).astype(jnp.float64)
