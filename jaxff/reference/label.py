"""Labelling: energies and forces of given geometries, which continues after an interruption."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxff.calculation import calculate
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.reference.calculators import Method
from jaxff.reference.frames import coinciding_atoms, common_molecule, place, read_frames
from jaxff.reference.pools import here, open_pool, run_tasks
from jaxff.reference.results import Labelled, finish, finished, part_folder, run_request
from jaxff.reference.settings import Labelling, Progress
from jaxff.store import Rows

if TYPE_CHECKING:
    from ase import Atoms

    from jaxff.potential import Potential
    from jaxff.reference.frames import Frames

# A worker that writes no files returns the labels that it has computed after this time, s.
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
    """Label geometries by an ASE calculator or a potential's file, and write a data set.

    Finished labels are kept in the folder `OUT.part`. After an interruption the same call
    continues from there and computes no frame twice. If `out` is complete, its content is returned.
    Potentials are evaluated in batches in this process.

    Args:
        frames: path of an xyz, extxyz or npz file, a `Dataset`, or a sequence of `ase.Atoms` or
            `Molecule` with the same atoms in the same order.
        out: the npz file to write (in sGDML's format, kcal/mol and Å).
        labelling: the calculator and how it is run.
        molecule: molecule whose bonds give a force field the topology of all frames. Its atoms
            are matched to those of the first frame by bond graph, or taken in order if only the
            elements agree. None: the bonds of the first frame, or of the molecule of a `Dataset`.
        charge: net charge, e; None: that of `molecule` or of the frames (0 where they state none).
        progress: called with a phase and the fraction done.

    Raises:
        InputError: frames that cannot be read or differ in their atoms, a calculator that cannot
            be created, a calculation that failed (with the number of the frame), an `out` or an
            `OUT.part` of another run, or a cluster that cannot be reached or broke down.
    """
    first, positions = read_frames(frames)
    source = "the frames'" if molecule is None else "as given"
    molecule = common_molecule(first, molecule, charge)
    method = labelling.method
    calculator = method.make(molecule.charge, molecule)  # raises errors before any process starts
    if method.is_potential:
        if labelling.scheduler is not None:
            raise InputError(
                f"{method.name} is a potential, which is evaluated here in batches: leave out the "
                "scheduler"
            )
        potential = _in_float64(place(calculator.potential, molecule))
    request = run_request(method, molecule, positions)
    if (result := finished(out, request, labelling.overwrite)) is not None:
        return result
    with part_folder(out, request) as folder:
        rows = Rows(folder / "rows.bin", len(positions), 1 + positions[0].size)
        failed = coinciding_atoms(positions)
        _stop_at_failure(failed, labelling, folder)
        todo = np.setdiff1d(np.flatnonzero(~rows.read()[0]), list(failed))
        ended = len(positions) - len(todo)
        with (
            here()
            if method.is_potential
            else open_pool(labelling.scheduler, labelling.workers) as pool
        ):
            if method.is_potential:
                function, size = partial(_predict_block, potential), BATCH
            else:
                function = _label_block
                size = int(np.clip(len(todo) // (4 * max(pool.workers, 1)), 1, 32))
            whole = Block(
                method,
                method.version,
                molecule,
                todo,
                positions[todo],
                rows if pool.shares_disk else None,
                labelling.skip_failed,
            )
            blocks = (whole.part(i, i + size) for i in range(0, len(todo), size))
            for count, labels, failures in run_tasks(function, blocks, pool):
                for index, values in labels.items():
                    rows.write(index, values)
                failed |= failures
                ended += count
                _stop_at_failure(failed, labelling, folder)
                if progress is not None:
                    progress("labelling", ended / len(positions))
        done, table = rows.read()
        if not done.any():
            raise InputError(f"every calculation failed (frame 0: {failed[0]})")
        kept = positions[done]
        dataset = Dataset(
            molecule.numbers,
            kept,
            table[done, 1:].reshape(kept.shape),
            table[done, 0],
            name=labelling.name or Path(out).stem,
            theory=method.theory,
        )
        notes: dict[str, Any] = topology_note(calculator, source)
        if failed:
            notes["failed_frames"] = np.array(sorted(failed), int)
        return finish(dataset, out, labelling, request, notes, tuple(sorted(failed)))


def topology_note(calculator: Any, source: str) -> dict[str, str]:
    """The note about the topology of a force field; none for other calculators."""
    topology = getattr(calculator, "topology", None)
    return {} if topology is None else {"topology": f"{topology} ({source})"}


def _stop_at_failure(failed: Mapping[int, str], labelling: Labelling, folder: Path) -> None:
    if failed and not labelling.skip_failed:
        frame = min(failed)
        raise InputError(
            f"frame {frame}: the calculation failed ({failed[frame]}); correct or remove this "
            "frame, or leave out such frames (skip_failed=True, --skip-failed); finished frames "
            f"are kept in {folder}"
        )


def calculate_finite(atoms: Atoms) -> tuple[float, np.ndarray]:
    """Energy () kcal/mol and forces (N, 3) kcal/mol/Å by the calculator of `atoms`.

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
        rows: file to which the labels are written; None: they are returned.
        skip_failed: continue after a frame that failed.
    """

    method: Method
    version: str
    molecule: Molecule
    indices: np.ndarray
    positions: np.ndarray
    rows: Rows | None
    skip_failed: bool

    def part(self, start: int, stop: int | None = None) -> Block:
        """The frames from index `start` to `stop` of this block."""
        indices, positions = self.indices[start:stop], self.positions[start:stop]
        return replace(self, indices=indices, positions=positions)


# Number of frames that were tried, labels that are still to be written and failures (both by the
# number of the frame); and the frames that are left, or None.
Outcome = tuple[tuple[int, dict[int, np.ndarray], dict[int, str]], Block | None]


def _label_block(block: Block) -> Outcome:
    """Label frame by frame; if labels are returned, return them after RETURN_AFTER seconds."""
    if block.method.version != block.version:
        raise InputError(
            f"the worker on {platform.node()} has {block.method.version}, not {block.version}; "
            "install the same version there"
        )
    calculator = block.method.make(block.molecule.charge, block.molecule)
    labels, failed = {}, {}
    started, count = time.monotonic(), 0
    for index, R in zip(block.indices.tolist(), block.positions, strict=True):
        count += 1
        atoms = block.molecule.with_positions(R).to_ase()
        # A label must not depend on the geometries that were calculated before it.
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
    return (count, labels, failed), block.part(count) if count < len(block.indices) else None


def _predict_block(potential: Potential, block: Block) -> Outcome:
    energies, forces = potential.predict(block.positions)
    labels, failed = {}, {}
    for index, energy, force in zip(block.indices.tolist(), energies, forces, strict=True):
        if np.isfinite(energy) and np.isfinite(force).all():
            labels[index] = np.append(energy, force)
        else:
            failed[index] = NOT_FINITE
    return (len(energies), labels, failed), None


def _in_float64(potential: Potential) -> Potential:
    import jax

    if not jax.config.jax_enable_x64:
        raise InputError(
            'labels need float64: call jax.config.update("jax_enable_x64", True) first, or set '
            "JAX_ENABLE_X64=1"
        )
    return potential.astype(jax.numpy.float64)
