"""Trajectories as HDF5 files in the H5MD layout.

The layout has version 1.1, with the units module 1.0.
Source: de Buyl, Colberg and Höfling, Comput. Phys. Commun. 185, 1546 (2014).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from jaxff.errors import InputError
from jaxff.md.frames import (
    FORMAT,
    charge,
    checked_frames,
    existing,
    is_periodic,
    missing_frames,
    title,
    writing,
    wrong_trajectory,
)
from jaxff.molecule import Molecule
from jaxff.npz import writable_file

GROUP = "particles/trajectory"
STEP, TIME = f"{GROUP}/position/step", f"{GROUP}/position/time"
DATASETS = {
    "positions": f"{GROUP}/position/value",
    "velocities": f"{GROUP}/velocity/value",
    "forces": f"{GROUP}/force/value",
    "potential_energies": "observables/potential_energy/value",
    "kinetic_energies": "observables/kinetic_energy/value",
    "temperatures": "observables/temperature/value",
    "boxes": f"{GROUP}/box/edges/value",
    "times": TIME,
    "steps": STEP,
}
UNITS = {
    "positions": "Angstrom",
    "velocities": "Angstrom fs-1",
    "forces": "kcal mol-1 Angstrom-1",
    "potential_energies": "kcal mol-1",
    "kinetic_energies": "kcal mol-1",
    "temperatures": "K",
    "boxes": "Angstrom",
    "times": "fs",
}
CHUNK_BYTES = 2**16


class H5MDWriter:
    """Writer of H5MD files with all quantities; see `jaxff.md.trajectory.Writer`.

    An HDF5 file is damaged if the process is killed while it writes.  Frames are therefore written
    to a second file in the same folder.  At every `mark` and at the end the two files are
    exchanged.  The new second file then receives the missing frames, so that no file is copied.  A
    killed process loses only the frames after the last mark.

    Args:
        path: the file.
        molecule: the atoms.
        frames: number of frames after which to continue (None: a new file).
    """

    def __init__(self, path, molecule: Molecule, frames: int | None = None):
        self.path, self._molecule = Path(path), molecule
        self._next = self.path.with_name(f".{self.path.name}.next")
        self._old = self.path.with_name(f".{self.path.name}.old")
        self._file: Any = None
        self._frames = frames or 0
        with writing(self.path):
            if frames is None:
                self._begin()
            self._clear()  # a killed process may have left them damaged

    @classmethod
    def resume(cls, path, molecule: Molecule, mark: dict | None) -> H5MDWriter:
        path = existing(path)
        with _reading(path) as file:
            _check(file, path, molecule)
            there = _length(file)
        wanted = there if mark is None else mark["frames"]
        if there < wanted:
            raise missing_frames(path, f"{wanted} frames")
        writer = cls(path, molecule, wanted)
        if there > wanted:
            with writing(path):
                writer._file = writer._copy()
                for name in _datasets(writer._file).values():
                    writer._file[name].resize(wanted, axis=0)
            writer._publish()
        return writer

    def append(self, frames) -> None:
        arrays = checked_frames(frames, self._molecule)
        if not len(arrays["positions"]):
            return
        try:
            with writing(self.path):
                if self._file is None:
                    self._file = self._second()
                if STEP not in self._file:
                    _create(self._file, arrays)
                for key, array in arrays.items():
                    _extend(self._file[DATASETS[key]], self._frames, array)
        except BaseException:
            self._discard()
            raise
        self._frames += len(arrays["positions"])

    def mark(self) -> dict:
        if self._file is not None:
            self._publish()
        return {"frames": self._frames}

    def close(self) -> None:
        self.mark()
        self._clear()

    def _begin(self) -> None:
        import h5py

        writable_file(self.path)
        with h5py.File(self._next, "w") as file:
            _describe(file, self._molecule)
            file.flush()
        os.replace(self._next, self.path)

    def _second(self) -> Any:
        """Open the second file, and add the missing frames of the first file."""
        import h5py

        try:
            second: Any = h5py.File(self._next, "r+")
        except OSError:  # there is none, or another program still reads it
            return self._copy()
        with _opened(self.path) as first:
            if STEP not in second and STEP in first:
                _create(second, {key: first[name] for key, name in _datasets(first).items()})
            for name in _datasets(first).values() if STEP in first else ():
                begin = min(len(second[name]), self._frames)
                _extend(second[name], begin, first[name][begin:])
        return second

    def _copy(self) -> Any:
        import h5py

        self._next.unlink(missing_ok=True)
        shutil.copyfile(self.path, self._next)
        return h5py.File(self._next, "r+")

    def _publish(self) -> None:
        """Exchange the first and the second file."""
        try:
            with writing(self.path):
                self._file.flush()
                self._file.close()
                try:
                    os.link(self.path, self._old)
                except OSError:  # a file system without hard links: the next second file is a copy
                    os.replace(self._next, self.path)
                else:
                    os.replace(self._next, self.path)
                    os.replace(self._old, self._next)
        except BaseException:
            self._discard()
            raise
        self._file = None

    def _discard(self) -> None:
        """Remove the second file, which may be incomplete, and return to the last mark."""
        file, self._file = self._file, None
        self._clear()
        with _opened(self.path) as first:
            self._frames = _length(first)
        if file is not None:
            with suppress(OSError, RuntimeError):  # the first error is the one to report
                file.close()

    def _clear(self) -> None:
        for path in (self._next, self._old):
            path.unlink(missing_ok=True)


def read_h5md(path, molecule: Molecule | None) -> dict[str, np.ndarray]:
    """Read the quantities in an H5MD file, see `jaxff.md.trajectory`.

    Args:
        path: the file.
        molecule: molecule that the file must belong to, or None.

    Raises:
        InputError: the file is missing or damaged, has no frames or other units, or belongs to
            another molecule.
    """
    path = existing(path)
    with _reading(path) as file:
        if molecule is not None:
            _check(file, path, molecule)
        if STEP not in file:
            raise InputError(
                f"{path}: the file has no frames, or jaxff did not write it; give another file"
            )
        for key, name in _datasets(file).items():
            unit = file[name].attrs.get("unit")
            if unit != UNITS.get(key):
                raise InputError(
                    f"{path}: {key} are in {unit}, but must be in {UNITS.get(key)}; convert them"
                )
        return {key: file[name][()] for key, name in _datasets(file).items()}


def _opened(path) -> Any:
    """Open an HDF5 file for reading; raise `InputError` if this fails."""
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(
            f"{path}: not an HDF5 file, or damaged ({error}); copy or make it again"
        ) from error


@contextmanager
def _reading(path) -> Iterator[Any]:
    """Open a file for reading in a block, with errors of h5py as `InputError`."""
    try:
        with _opened(path) as file:
            yield file
    except InputError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: the file is damaged ({error}); copy or make it again") from error


def _describe(file, molecule: Molecule) -> None:
    """Write the molecule and the metadata of a new file."""
    import jaxff

    h5md = file.create_group("h5md")
    h5md.attrs["version"] = np.array([1, 1], np.int32)
    h5md.create_group("author").attrs["name"] = "N/A"
    h5md.create_group("creator").attrs.update(name="jaxff", version=jaxff.__version__)
    h5md.create_group("modules/units").attrs["version"] = np.array([1, 0], np.int32)
    particles = file.create_group(GROUP)
    box = particles.create_group("box")
    box.attrs["dimension"] = 3
    box.attrs["boundary"] = ["periodic" if is_periodic(molecule) else "none"] * 3
    species = particles.create_dataset("species", data=molecule.numbers.astype(np.int32))
    bonds = file.create_dataset("connectivity/bonds", data=molecule.bonds.astype(np.int32))
    bonds.attrs["particles_group"] = particles.ref
    for dataset in (species, bonds):
        dataset.flush()
    facts = {"format": FORMAT, "charge": charge(molecule), "name": molecule.name}
    file.create_group("parameters").attrs.update(facts)


def _check(file, path, molecule: Molecule) -> None:
    """Raise `InputError` unless `_describe` wrote the file for these atoms."""
    if "parameters" not in file or file["parameters"].attrs.get("format") != FORMAT:
        raise wrong_trajectory(path, f"the format is not {FORMAT!r}")
    if not np.array_equal(file[f"{GROUP}/species"], molecule.numbers):
        raise wrong_trajectory(
            path, f"the atoms are not those of {title(molecule)} in the same order"
        )
    boundary = [str(x) for x in file[f"{GROUP}/box"].attrs["boundary"]]
    if (boundary[0] == "periodic") != is_periodic(molecule):
        raise wrong_trajectory(path, "only one of them is in a periodic box")
    for name in _datasets(file).values():
        if file[name].maxshape[0] is not None:  # None: it can grow
            raise wrong_trajectory(path, f"the dataset {name} cannot be extended")


def _create(file, arrays) -> None:
    """Create empty datasets with the shapes and types of `arrays`, chunked in time."""
    frames = max(1, CHUNK_BYTES // int(arrays["positions"][:1].nbytes))
    for key in arrays:
        name, rest = DATASETS[key], arrays[key].shape[1:]
        dataset = file.create_dataset(
            name, (0, *rest), arrays[key].dtype, maxshape=(None, *rest), chunks=(frames, *rest)
        )
        if key in UNITS:
            dataset.attrs["unit"] = UNITS[key]
    # Each H5MD element has a step and a time; here all elements share them.
    for key in (key for key in arrays if key not in ("positions", "times", "steps")):
        element = file[DATASETS[key]].parent
        element["step"], element["time"] = file[STEP], file[TIME]


def _datasets(file) -> dict[str, str]:
    """The quantities in a file and the names of their datasets."""
    return {key: name for key, name in DATASETS.items() if name in file}


def _extend(dataset, begin: int, values: np.ndarray) -> None:
    dataset.resize(begin + len(values), axis=0)
    dataset[begin:] = values
    dataset.flush()  # on a full disk this raises, while closing a dataset would fail silently


def _length(file) -> int:
    return len(file[STEP]) if STEP in file else 0
