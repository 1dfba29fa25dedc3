"""Labelling: energies and forces of given geometries, from any ASE calculator, resumable."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import jaxff
from jaxff import units
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.molecule import Molecule, perceive_bonds
from jaxff.reference.calculators import Method
from jaxff.reference.part import Rows, part_folder, run_tasks

# Isolated molecules feel no net force; calculators on grids leave less than this, kcal/mol/Å.
NET_FORCE_LIMIT = 1.0


@dataclass(frozen=True)
class Labelled:
    """What a labelling run did.

    Attributes:
        dataset: the labelled frames, as written.
        failed: numbers of the frames left out because their calculation failed.
        rebonded: places in `dataset` of the frames whose bond graph is not that of the data set.
        net_force: largest net force of a frame, kcal/mol/Å.
        net_torque: largest net torque of a frame about its centroid, kcal/mol.
    """

    dataset: Dataset
    failed: tuple[int, ...]
    rebonded: tuple[int, ...]
    net_force: float
    net_torque: float


def label_frames(
    frames,
    out,
    *,
    calculator: str = "gfn2-xtb",
    options: Mapping[str, Any] | None = None,
    charge: int | None = None,
    workers: int = 2,
    skip_failed: bool = False,
    command: str = "",
    name: str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Labelled:
    """Label geometries with an ASE calculator and write the data set `out`.

    What is done stands in the folder `OUT.part`; the same call after an interruption continues
    from there and computes no frame twice.

    Args:
        frames: path of an xyz, extxyz or npz file, a `Dataset`, or a sequence of `ase.Atoms` or
            `Molecule` with the same atoms in the same order.
        out: the npz file to write (sGDML's format, kcal/mol and Å).
        calculator, options: see `jaxff.reference.calculator`.
        charge: net charge, e; None: that of the frames (0 where they state none).
        workers: number of processes, of one thread each.
        skip_failed: leave frames out whose calculation fails, instead of stopping at the first.
        command: the command line, recorded in the file.
        name: the data set's name; None: that of the file `out`.
        progress: called now and then with what goes on and the fraction done.

    Raises:
        InputError: frames that cannot be read or differ in their atoms, a calculator that cannot
            be made, a calculation that failed (with the frame's number), or an `OUT.part` left by
            a run with other settings.
    """
    numbers, positions, own_charge = read_frames(frames)
    charge = own_charge if charge is None else int(charge)
    method = Method(calculator, dict(options or {}))
    method.make(charge)  # complain before any process starts
    settings = run_settings(method, numbers, charge, positions)
    n_frames = len(positions)
    with part_folder(out, settings) as folder:
        rows = Rows(folder / "rows.bin", n_frames, 1 + positions[0].size)
        todo = np.flatnonzero(~rows.read()[0])
        size = int(np.clip(len(todo) // (4 * max(workers, 1)), 1, 32))
        blocks = [todo[i : i + size] for i in range(0, len(todo), size)]
        tasks = [
            [(method, charge, numbers, positions[block], block, rows, skip_failed)]
            for block in blocks
        ]
        failed: dict[int, str] = {}
        ended = n_frames - len(todo)
        for block_size, faults in run_tasks(_label_block, tasks, workers):
            failed |= faults
            ended += block_size
            if failed and not skip_failed:
                frame = min(failed)
                raise InputError(
                    f"frame {frame}: the calculation failed ({failed[frame]}); correct or remove "
                    f"that frame, or leave such frames out with skip_failed; finished frames are "
                    f"kept in {folder}"
                )
            if progress is not None:
                progress("labelling", ended / n_frames)
        done, table = rows.read()
        if not done.any():
            raise InputError(f"every calculation failed (frame 0: {failed[0]})")
        kept = positions[done]
        dataset = Dataset(
            numbers,
            kept,
            table[done, 1:].reshape(kept.shape),
            table[done, 0],
            name=Path(out).stem if name is None else name,
            theory=method.theory,
        )
        extra = {"failed_frames": np.array(sorted(failed), int)} if failed else {}
        result = finish(dataset, out, method, command, failed=tuple(sorted(failed)), extra=extra)
    return result


def finish(
    dataset: Dataset,
    out,
    method: Method,
    command: str,
    *,
    failed: tuple[int, ...] = (),
    extra: Mapping[str, np.ndarray] | None = None,
) -> Labelled:
    """Check labelled frames, write them with their provenance, and say what was found."""
    forces, positions = dataset.forces, dataset.positions
    centred = positions - positions.mean(axis=1, keepdims=True)
    net_force = float(np.linalg.norm(forces.sum(axis=1), axis=1).max())
    net_torque = float(np.linalg.norm(np.cross(centred, forces).sum(axis=1), axis=1).max())
    if net_force > NET_FORCE_LIMIT:
        warnings.warn(
            f"{out}: a frame has a net force of {net_force:.3g} kcal/mol/Å; these are not the "
            "forces of an isolated molecule",
            stacklevel=3,
        )
    options = method.all_options
    notes = {
        "calculator": method.name,
        "options": json.dumps(options, sort_keys=True),
        "command": command,
        "versions": f"jaxff {jaxff.__version__}, {method.version}",
        **(extra or {}),
    }
    replace(dataset, notes=notes).save(out)
    bonds = [tuple(map(tuple, perceive_bonds(dataset.numbers, r))) for r in positions]
    usual = tuple(map(tuple, dataset.molecule.bonds))
    rebonded = tuple(i for i, graph in enumerate(bonds) if graph != usual)
    return Labelled(dataset, failed, rebonded, net_force, net_torque)


def evaluate(calculator, atoms) -> tuple[float, np.ndarray]:
    """Energy () kcal/mol and forces (N, 3) kcal/mol/Å of `atoms`, afresh; ValueError if not finite.

    Nothing is carried over from an earlier geometry, so a label does not depend on what was
    computed before it.
    """
    calculator.reset()
    atoms.calc = calculator
    energy = atoms.get_potential_energy() * units.EV
    forces = atoms.get_forces() * units.EV
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise ValueError("the energy or a force is not finite")
    return energy, forces


def read_frames(frames) -> tuple[np.ndarray, np.ndarray, int]:
    """Numbers (N,), positions (M, N, 3) Å and charge of frames in any of their forms."""
    if isinstance(frames, str | Path):
        frames = _read_file(Path(frames))
    if isinstance(frames, Dataset):
        return frames.numbers, frames.positions, 0
    frames = (
        [frames] if isinstance(frames, Molecule) or hasattr(frames, "get_positions") else frames
    )
    molecules = [f if isinstance(f, Molecule) else Molecule.from_ase(f) for f in frames]
    if not molecules:
        raise InputError("no frames to label")
    first = molecules[0]
    for i, molecule in enumerate(molecules):
        if not np.array_equal(molecule.numbers, first.numbers):
            raise InputError(f"frame {i} has other atoms or another order than frame 0")
        if molecule.charge != first.charge:
            raise InputError(f"frame {i} has charge {molecule.charge}, frame 0 {first.charge}")
    positions = np.array([m.positions for m in molecules])
    return first.numbers, positions, first.charge


def _read_file(path: Path) -> Dataset | Sequence:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix.lower() == ".npz":
        return Dataset.load(path)
    if path.suffix.lower() not in (".xyz", ".extxyz"):
        return [Molecule.read(path)]
    import ase.io

    try:
        return ase.io.read(path, index=":", format="extxyz")
    except Exception as error:
        raise InputError(f"{path}: cannot be read as extxyz ({error})") from error


def run_settings(method: Method, numbers: np.ndarray, charge: int, positions: np.ndarray) -> dict:
    """What decides the numbers of a run: an unfinished one is continued only if all agree."""
    return {
        "format": "jaxff labels 1",
        "calculator": method.name,
        "options": method.all_options,
        "version": method.version,
        "numbers": numbers.tolist(),
        "charge": charge,
        "geometries": hashlib.md5(positions.tobytes(), usedforsecurity=False).hexdigest(),
    }


def _label_block(task) -> tuple[int, dict[int, str]]:
    from ase import Atoms

    method, charge, numbers, positions, indices, rows, go_on = task
    calculator = method.make(charge)
    failed = {}
    for index, frame in zip(indices, positions, strict=True):
        atoms = Atoms(numbers=numbers, positions=frame)
        try:
            energy, forces = evaluate(calculator, atoms)
        except Exception as error:
            failed[int(index)] = f"{type(error).__name__}: {error}"
            if not go_on:
                break
            calculator = method.make(charge)
            continue
        rows.write(index, np.append(energy, forces))
    return len(indices), failed
