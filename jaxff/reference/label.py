"""Labelling: energies and forces of given geometries, from any ASE calculator, resumable."""

from __future__ import annotations

import hashlib
import json
import platform
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import jaxff
from jaxff import units
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.molecule import Molecule, perceive_bonds
from jaxff.npz import NpzReader
from jaxff.reference.calculators import Method
from jaxff.reference.part import Rows, part_folder
from jaxff.reference.pools import here, open_pool, run_tasks

if TYPE_CHECKING:
    from jaxff.potential import Potential

# Isolated molecules feel no net force; calculators on grids leave less than this, kcal/mol/Å.
NET_FORCE_LIMIT = 1.0
COINCIDENT = 0.1  # Å
# Seconds after which a worker that writes no files hands over what it has done.
RETURN_AFTER = 5.0


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
    molecule: Molecule | None = None,
    workers: int = 2,
    scheduler: str | None = None,
    skip_failed: bool = False,
    overwrite: bool = False,
    command: str = "",
    name: str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Labelled:
    """Label geometries with an ASE calculator, or with a potential, and write the data set `out`.

    What is done stands in the folder `OUT.part`; the same call after an interruption continues
    from there and computes no frame twice; where `out` is finished, it returns what is there.
    Potentials are evaluated in batches in this process.

    Args:
        frames: path of an xyz, extxyz or npz file, a `Dataset`, or a sequence of `ase.Atoms` or
            `Molecule` with the same atoms in the same order.
        out: the npz file to write (sGDML's format, kcal/mol and Å).
        calculator, options: see `jaxff.reference.calculator`.
        charge: net charge, e; None: that of `molecule`, or of the frames (0 where they state none).
        molecule: its bonds give a force field the topology of all frames, matched to the frames'
            atoms by the bond graph of the first frame, or taken in order where only the elements
            agree; None: the bonds of the first frame (of a `Dataset`: of its molecule).
        workers: number of processes, of one thread each.
        scheduler: None: processes of this machine; the address of a Dask scheduler, such as
            "tcp://host:8786"; or "local": a Dask cluster of `workers` processes made for this
            run.  Only this process writes files then.
        skip_failed: leave frames out whose calculation fails, instead of stopping at the first.
        overwrite: replace what another run has written to `out`.
        command: the command line, recorded in the file.
        name: the data set's name; None: that of the file `out`.
        progress: called now and then with what goes on and the fraction done.

    Raises:
        InputError: frames that cannot be read or differ in their atoms, a calculator that cannot
            be made, a calculation that failed (with the frame's number), an `out` or an
            `OUT.part` of a run with other settings, or a cluster that cannot be reached or
            broke down.
    """
    first, positions = read_frames(frames)
    source = "the frames'" if molecule is None else "as given"
    molecule = topology(first, molecule, charge)
    numbers = molecule.numbers
    method = Method(calculator, dict(options or {}))
    made = method.make(molecule.charge, molecule)  # complain before any process starts
    if method.is_potential:
        if scheduler is not None:
            raise InputError(
                f"{calculator} is a potential, evaluated here in batches; leave out scheduler"
            )
        potential = _in_float64(_placed(made.potential, molecule))
    settings = run_settings(method, molecule, positions)
    if (there := finished(out, settings, overwrite)) is not None:
        return there
    n_frames = len(positions)
    with part_folder(out, settings) as folder:
        rows = Rows(folder / "rows.bin", n_frames, 1 + positions[0].size)
        failed = _coinciding(positions)
        _refuse(failed, skip_failed, folder)
        todo = np.setdiff1d(np.flatnonzero(~rows.read()[0]), list(failed))
        ended = n_frames - len(todo)
        with here() if method.is_potential else open_pool(scheduler, workers) as pool:
            if method.is_potential:
                function, size = partial(_predict_block, potential), 1024
            else:
                function = _label_block
                size = int(np.clip(len(todo) // (4 * max(pool.workers, 1)), 1, 32))
            blocks = (
                Block(
                    method,
                    method.version,
                    molecule,
                    todo[i : i + size],
                    positions[todo[i : i + size]],
                    rows if pool.shares_disk else None,
                    skip_failed,
                )
                for i in range(0, len(todo), size)
            )
            for count, labels, faults in run_tasks(function, blocks, pool):
                for index, values in labels.items():
                    rows.write(index, values)
                failed |= faults
                ended += count
                _refuse(failed, skip_failed, folder)
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
        extra = {"settings": json.dumps(settings)}
        if failed:
            extra["failed_frames"] = np.array(sorted(failed), int)
        if (found := getattr(made, "topology", None)) is not None:
            extra["topology"] = f"{found} ({source})"
        return finish(dataset, out, method, command, extra, tuple(sorted(failed)))


def _coinciding(positions: np.ndarray) -> dict[int, str]:
    """Frames with two atoms at one place, which some calculators give labels to all the same."""
    found = {}
    first, second = np.triu_indices(positions.shape[1], 1)
    for m, R in enumerate(positions):
        apart = np.linalg.norm(R[first] - R[second], axis=1)
        if len(apart) and apart.min() < COINCIDENT:
            k = int(apart.argmin())
            found[m] = f"atoms {first[k]} and {second[k]} are {apart[k]:.2g} Å apart"
    return found


def _refuse(failed: Mapping[int, str], skip_failed: bool, folder: Path) -> None:
    if failed and not skip_failed:
        frame = min(failed)
        raise InputError(
            f"frame {frame}: the calculation failed ({failed[frame]}); correct or remove that "
            f"frame, or leave such frames out with skip_failed; finished frames are kept in "
            f"{folder}"
        )


def finished(out, settings: Mapping, overwrite: bool) -> Labelled | None:
    """What a run of these settings has written to `out`; None where nothing stands in the way.

    Raises:
        InputError: `out` is something else, and not to be overwritten.
    """
    out = Path(out)
    if not out.is_file():
        return None
    try:
        file = NpzReader(out, "data set")
        same = json.loads(file.text("settings", "null")) == json.loads(json.dumps(settings))
    except (InputError, ValueError):
        same = False
    if same:
        # Units are known; whether they can be right was asked before.
        dataset = Dataset.load(out, energy_unit="kcal/mol")
        failed = file.get("failed_frames")
        return _described(dataset, () if failed is None else tuple(failed.tolist()))
    if not overwrite:
        raise InputError(
            f"{out} is there already, from something else than this run: choose another output, "
            "or say overwrite"
        )
    return None


def finish(
    dataset: Dataset,
    out,
    method: Method,
    command: str,
    extra: Mapping,
    failed: tuple[int, ...] = (),
) -> Labelled:
    """Check labelled frames, write them with their provenance, and say what was found."""
    notes = {
        "calculator": method.name,
        "options": json.dumps(method.all_options, sort_keys=True),
        "command": command,
        "versions": f"jaxff {jaxff.__version__}, {method.version}",
        **extra,
    }
    result = _described(replace(dataset, notes=notes), failed)
    if result.net_force > NET_FORCE_LIMIT:
        warnings.warn(
            f"{out}: a frame has a net force of {result.net_force:.3g} kcal/mol/Å; these are not "
            "the forces of an isolated molecule",
            stacklevel=3,
        )
    result.dataset.save(out)
    return result


def _described(dataset: Dataset, failed: tuple[int, ...]) -> Labelled:
    forces, positions = dataset.forces, dataset.positions
    centred = positions - positions.mean(axis=1, keepdims=True)
    bonds = [tuple(map(tuple, perceive_bonds(dataset.numbers, r))) for r in positions]
    usual = tuple(map(tuple, dataset.molecule.bonds))
    return Labelled(
        dataset,
        failed=failed,
        rebonded=tuple(i for i, graph in enumerate(bonds) if graph != usual),
        net_force=float(np.linalg.norm(forces.sum(axis=1), axis=1).max()),
        net_torque=float(np.linalg.norm(np.cross(centred, forces).sum(axis=1), axis=1).max()),
    )


def evaluate(calculator, atoms) -> tuple[float, np.ndarray]:
    """Energy () kcal/mol and forces (N, 3) kcal/mol/Å of `atoms`, afresh; ValueError if not finite.

    Nothing is carried over from an earlier geometry, so a label does not depend on what was
    computed before it.
    """
    calculator.reset()
    atoms.calc = calculator
    # Forces first: asked for energies, some calculators leave the forces to a second calculation.
    forces = atoms.get_forces() * units.EV
    energy = atoms.get_potential_energy() * units.EV
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise ValueError("the energy or a force is not finite")
    return energy, forces


def read_frames(frames) -> tuple[Molecule, np.ndarray]:
    """The molecule of the first frame, and positions (M, N, 3) Å, of frames in any of their forms.

    Its bonds are those a `Molecule` brings along, else perceived: from the first frame, or from
    all frames of a `Dataset`.
    """
    if isinstance(frames, str | Path):
        frames = _read_file(Path(frames))
    if isinstance(frames, Dataset):
        return frames.molecule, frames.positions
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
    return first, np.array([m.positions for m in molecules])


def topology(first: Molecule, given: Molecule | None, charge: int | None) -> Molecule:
    """The molecule that stands for all frames: `given` in the frames' order, or `first`.

    Args:
        first: the molecule of the first frame.
        given: the molecule that the user names.
        charge: the net charge that the user names, e.
    """
    molecule = first
    if given is not None:
        try:
            molecule = given.reorder(first.match(given))
        except InputError:
            # A stretched first frame is bonded otherwise; then the order must be the frames' own.
            if not np.array_equal(given.numbers, first.numbers):
                raise
            molecule = given
    return molecule if charge is None else replace(molecule, charge=int(charge))


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


def run_settings(method: Method, molecule: Molecule, positions: np.ndarray) -> dict:
    """What decides the numbers of a run: an unfinished one is continued only if all agree."""
    return {
        "format": "jaxff labels 1",
        **method.settings(molecule),
        "geometries": hashlib.md5(positions.tobytes(), usedforsecurity=False).hexdigest(),
    }


@dataclass(frozen=True)
class Block:
    """Frames to label in one go.

    Attributes:
        method, version: the calculator, and the version that the labels are to come from.
        molecule: charge and bonds for all frames of the run, those of other blocks included.
        indices: (B,) numbers of the frames.
        positions: (B, N, 3) Å.
        rows: where to write the labels as they come; None: return them.
        go_on: go on after a frame that failed.
    """

    method: Method
    version: str
    molecule: Molecule
    indices: np.ndarray
    positions: np.ndarray
    rows: Rows | None
    go_on: bool

    def after(self, count: int) -> Block | None:
        """What is left when the first `count` frames are done."""
        if count == len(self.indices):
            return None
        return replace(self, indices=self.indices[count:], positions=self.positions[count:])


# How many frames ended, labels to be written, and failures, by the frames' numbers; and the rest.
Outcome = tuple[tuple[int, dict[int, np.ndarray], dict[int, str]], Block | None]


def _label_block(block: Block) -> Outcome:
    """Label frame by frame; where labels travel, give them back after RETURN_AFTER seconds."""
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
        try:
            energy, forces = evaluate(calculator, block.molecule.with_positions(R).to_ase())
        except Exception as error:
            failed[index] = f"{type(error).__name__}: {error}"
            if not block.go_on:
                break
            calculator = block.method.make(block.molecule.charge, block.molecule)
            continue
        values = np.append(energy, forces)
        if block.rows is None:
            labels[index] = values
            if time.monotonic() - started > RETURN_AFTER:
                break
        else:
            block.rows.write(index, values)
    stopped = failed and not block.go_on
    return (count, labels, failed), None if stopped else block.after(count)


def _predict_block(potential: Potential, block: Block) -> Outcome:
    energies, forces = potential.predict(block.positions)
    labels, failed = {}, {}
    for index, energy, force in zip(block.indices.tolist(), energies, forces, strict=True):
        if np.isfinite(energy) and np.isfinite(force).all():
            labels[index] = np.append(energy, force)
        else:
            failed[index] = "the energy or a force is not finite"
    return (len(energies), labels, failed), None


def _in_float64(potential: Potential) -> Potential:
    import jax

    if not jax.config.jax_enable_x64:
        raise InputError(
            'labels need float64: call jax.config.update("jax_enable_x64", True) first, or set '
            "JAX_ENABLE_X64=1"
        )
    return potential.astype(jax.numpy.float64)


def _placed(potential: Potential, molecule: Molecule) -> Potential:
    """`potential` on the atoms of `molecule`: matched as `jaxff.ase.Calculator` does it."""
    known = potential.molecule
    try:
        return potential.matched(molecule)
    except InputError:
        if known is None or not np.array_equal(known.numbers, molecule.numbers):
            raise
        return potential
