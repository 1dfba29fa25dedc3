"""Dataset: geometries with reference energies and forces."""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols

from jaxff import units
from jaxff.errors import InputError
from jaxff.molecule import Molecule, formula, perceive_bonds
from jaxff.npz import NpzReader, write_npz
from jaxff.plausibility import implausible_units


class Split(NamedTuple):
    """Disjoint parts of a data set."""

    train: Dataset
    valid: Dataset
    test: Dataset


@dataclass(frozen=True, eq=False)
class Dataset:
    """Frames of one molecule with reference labels.

    Attributes:
        numbers: (N,) atomic numbers.
        positions: (M, N, 3) Å.
        forces: (M, N, 3) kcal/mol/Å.
        energies: (M,) kcal/mol, or None.
        lattice: (3, 3) Å, lattice vectors as columns, or None.
        name: label of the molecule.
        theory: level of theory, in words.
        notes: further text that travels with the file (calculator, command, ...).
        index: (M,) the frames' places in the data set they were drawn from.
    """

    numbers: np.ndarray
    positions: np.ndarray
    forces: np.ndarray
    energies: np.ndarray | None = None
    lattice: np.ndarray | None = None
    name: str = ""
    theory: str = "unknown"
    notes: Mapping[str, str] = field(default_factory=dict)
    index: np.ndarray | None = None

    def __post_init__(self):
        who = self.name or "dataset"
        arrays = {
            "numbers": np.asarray(self.numbers, int),
            "positions": np.asarray(self.positions, float),
            "forces": np.asarray(self.forces, float),
        }
        R = arrays["positions"]
        if R.ndim != 3 or R.shape[1:] != (len(arrays["numbers"]), 3):
            raise InputError(
                f"{who}: positions have shape {R.shape}, expected (M, {len(arrays['numbers'])}, 3)"
            )
        if arrays["forces"].shape != R.shape:
            raise InputError(
                f"{who}: forces have shape {arrays['forces'].shape}, positions {R.shape}"
            )
        if self.energies is not None:
            arrays["energies"] = np.asarray(self.energies, float).reshape(-1)
            if len(arrays["energies"]) != len(R):
                raise InputError(f"{who}: {len(arrays['energies'])} energies for {len(R)} frames")
        z = arrays["numbers"]
        if z.ndim != 1 or len(z) == 0 or (z < 1).any() or (z >= len(chemical_symbols)).any():
            raise InputError(f"{who}: {z.tolist()} are not atomic numbers of one molecule")
        if self.lattice is not None:
            arrays["lattice"] = lattice = np.asarray(self.lattice, float)
            sound = lattice.shape == (3, 3) and np.isfinite(lattice).all()
            if not sound or abs(np.linalg.det(lattice)) < 1e-6:
                raise InputError(
                    f"{who}: the lattice must be three independent vectors (3, 3) in Å, as columns"
                )
        for key in ("positions", "forces", "energies"):
            if key in arrays and not (finite := np.isfinite(arrays[key])).all():
                frame = int(np.argmin(finite.reshape(len(R), -1).all(axis=1)))
                raise InputError(
                    f"{who}: frame {frame} has a {key[:-1]} that is not finite; "
                    "remove or recompute that frame"
                )
        arrays["index"] = np.arange(len(R)) if self.index is None else np.asarray(self.index, int)
        for key, value in arrays.items():
            object.__setattr__(self, key, value)

    # -- as a sequence of frames ----------------------------------------------------------

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def n_atoms(self) -> int:
        return len(self.numbers)

    def __getitem__(self, frames) -> Dataset:
        """The data set of some frames: a slice, indices or a mask (an integer gives one frame)."""
        frames = np.arange(len(self))[frames].reshape(-1)
        return replace(
            self,
            positions=self.positions[frames],
            forces=self.forces[frames],
            energies=None if self.energies is None else self.energies[frames],
            index=self.index[frames],
        )

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.name or "dataset"

    def __repr__(self) -> str:
        label = f" {self.name!r}" if self.name else ""
        return f"Dataset({formula(self.numbers)}{label}, {len(self)} frames, {self.theory})"

    @cached_property
    def molecule(self) -> Molecule:
        """The molecule at the first frame, with bonds perceived from up to 500 of the frames."""
        if len(self) == 0:
            raise InputError(f"{self.label}: no frames")
        sample = self.positions[:: max(1, len(self) // 500)]
        bonds = perceive_bonds(self.numbers, sample, self.lattice)
        return Molecule(self.numbers, self.positions[0], bonds, name=self.name)

    def reorder(self, order) -> Dataset:
        """The same frames with atom ``order[i]`` in place i; order (N,) is a permutation."""
        order = np.asarray(order, int)
        return replace(
            self,
            numbers=self.numbers[order],
            positions=self.positions[:, order],
            forces=self.forces[:, order],
        )

    def distinct(self) -> np.ndarray:
        """Places of the frames without copies of earlier ones, in their order."""
        return np.sort(np.unique(self.positions, axis=0, return_index=True)[1])

    def split(
        self,
        train: int,
        valid: int = 0,
        test: int | None = None,
        seed: int = 0,
        *,
        stratify: bool = False,
    ) -> Split:
        """Disjoint random parts of `train`, `valid` and `test` frames (None: all that remain).

        Frames with identical positions count once, so no part holds a copy of another's frame.
        With `stratify` the training frames, and of the rest the validation frames, have the
        distribution of energies of what they are drawn from.

        Raises:
            InputError: more frames asked for than there are.
        """
        distinct = self.distinct()
        rest = len(distinct) - train - valid
        wanted = max(rest, 0) if test is None else test
        if min(train, valid, wanted) < 0 or rest < wanted:
            raise InputError(
                f"{self.label}: {train} training, {valid} validation and {wanted} test "
                f"frames asked for, {len(distinct)} distinct frames there"
            )
        rng = np.random.default_rng(seed)
        drawn = distinct[rng.permutation(len(distinct))]
        if stratify and self.energies is not None:
            for start, count in ((0, train), (train, valid)):
                left = drawn[start:]
                first = stratified(self.energies[left], count, rng)
                drawn[start:] = np.concatenate([left[first], np.delete(left, first)])
        stops = np.cumsum([train, valid, wanted])
        parts = np.split(drawn[: stops[-1]], stops[:-1])
        return Split(*(self[part] for part in parts))

    def fingerprint(self) -> str:
        """MD5 of numbers, positions, energies and forces, as the sGDML package computes it."""
        digest = hashlib.md5(usedforsecurity=False)
        for array in (self.numbers.astype(np.uint8), self.positions, self.energies, self.forces):
            if array is not None:
                raw = np.ascontiguousarray(array).tobytes()
                digest.update(hashlib.md5(raw, usedforsecurity=False).digest())
        return digest.hexdigest()

    # -- files ----------------------------------------------------------------------------

    @classmethod
    def load(
        cls, path, *, length_unit: str | None = None, energy_unit: str | None = None
    ) -> Dataset:
        """Read an sGDML or MD17 npz, an rMD17 npz, or an extxyz file, converted to Å and kcal/mol.

        Units are those the file declares; without a declaration npz files are taken to be in
        kcal/mol and Å, extxyz files in eV and Å (ASE's convention).  Whether they can be right is
        tested on bond lengths and bond force constants.

        Args:
            path: the file.
            length_unit, energy_unit: override the file's units, and skip that test.

        Raises:
            InputError: unreadable, incomplete or inconsistent file; values that are not finite;
                units that cannot be right.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        reader = _read_extxyz if path.suffix.lower() in (".xyz", ".extxyz") else _read_npz
        fields, declared = reader(path)
        try:
            r = units.length_factor(length_unit or declared[0])
            e = units.energy_factor(energy_unit or declared[1])
        except InputError as error:
            raise InputError(
                f"{path}: {error} (pass length_unit= and energy_unit= to override)"
            ) from error
        fields["positions"] = np.asarray(fields["positions"], float) * r
        fields["forces"] = np.asarray(fields["forces"], float) * (e / r)
        if fields.get("energies") is not None:
            fields["energies"] = np.asarray(fields["energies"], float) * e
        if fields.get("lattice") is not None:
            fields["lattice"] = np.asarray(fields["lattice"], float) * r
        fields["name"] = fields.get("name") or path.stem
        try:
            data = cls(**fields)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        if length_unit is None and energy_unit is None:
            fault = implausible_units(data.molecule, data.positions, data.forces)
            if fault:
                raise InputError(f"{path}: {fault}")
        return data

    def save(self, path) -> None:
        """Write an npz that jaxff and the sGDML package read (kcal/mol, Å), atomically."""
        arrays = {
            **{key: np.array(text) for key, text in self.notes.items()},
            "type": np.array("d"),
            "code_version": np.array("jaxff 1"),
            "name": np.array(self.name),
            "theory": np.array(self.theory),
            "z": self.numbers.astype(np.uint8),
            "R": self.positions,
            "F": self.forces,
            "r_unit": np.array("Ang"),
            "e_unit": np.array("kcal/mol"),
            "md5": np.array(self.fingerprint()),
        }
        labels = {"F": self.forces}
        if self.energies is not None:
            arrays["E"] = labels["E"] = self.energies
        if self.lattice is not None:
            arrays["lattice"] = self.lattice
        for key, values in labels.items():
            statistics = {"min": np.min, "max": np.max, "mean": np.mean, "var": np.var}
            arrays |= {f"{key}_{name}": function(values) for name, function in statistics.items()}
        write_npz(path, arrays)


def stratified(energies: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of `count` of the energies (M,), drawn so that their histogram is that of all.

    Bins are those of Freedman and Diaconis; each gives its share, drawn uniformly.
    """
    if not 0 < count < len(energies) or np.ptp(energies) == 0.0:
        return rng.permutation(len(energies))[:count]
    edges = np.histogram_bin_edges(energies, bins="fd")
    bins = np.clip(np.digitize(energies, edges) - 1, 0, len(edges) - 2)
    # In random order within each bin, the k-th of n frames stands at (k + u)/n: the first
    # `count` by that place hold every bin's share, and no bin gives more than it has.
    places = np.empty(len(energies))
    for each in np.unique(bins):
        own = rng.permutation(np.flatnonzero(bins == each))
        places[own] = (np.arange(len(own)) + rng.random()) / len(own)
    return np.argsort(places)[:count]


# -- readers: fields of a Dataset, and the units declared ----------------------------------


def _read_npz(path: Path) -> tuple[dict, tuple[str, str]]:
    file = NpzReader(path, "data set")
    if "nuclear_charges" in file and "coords" in file:  # rMD17
        fields = {
            "numbers": file.need("nuclear_charges"),
            "positions": file.need("coords"),
            "forces": file.need("forces"),
            "energies": file.get("energies"),
        }
    elif "R" in file or "F" in file:
        if file.text("type", "d") != "d":
            raise InputError(f"{path}: this is not a data set but an sGDML file of another type")
        fields = {
            "numbers": file.need("z"),
            "positions": file.need("R"),
            "forces": file.need("F"),
            "energies": file.get("E"),
            "lattice": file.get("lattice"),
            "name": file.text("name"),
            "theory": file.text("theory", "unknown"),
            "notes": {k: file.text(k) for k in ("calculator", "options", "command") if k in file},
        }
    else:
        raise InputError(
            f"{path}: not a data set: it has neither z, R, F (sGDML) nor nuclear_charges, coords, "
            f"forces (rMD17), but {', '.join(list(file)[:8]) or 'nothing'}"
        )
    for key in ("numbers", "positions", "forces", "energies"):
        if fields.get(key) is not None and fields[key].dtype.kind not in "fiu":
            raise InputError(f"{path}: {key} are not numbers ({fields[key].dtype})")
    return fields, (file.text("r_unit", "Ang"), file.text("e_unit", "kcal/mol"))


def _read_extxyz(path: Path) -> tuple[dict, tuple[str, str]]:
    import ase.io

    try:
        frames = ase.io.read(path, index=":", format="extxyz")
    except Exception as error:
        raise InputError(f"{path}: cannot be read as extxyz ({error})") from error
    if not frames:
        raise InputError(f"{path}: no frames")
    numbers = frames[0].numbers
    positions, forces, energies = [], [], []
    for i, atoms in enumerate(frames):
        if not np.array_equal(atoms.numbers, numbers):
            raise InputError(f"{path}: frame {i} has other atoms or another order than frame 0")
        results = atoms.calc.results if atoms.calc is not None else {}
        force = next(
            (
                f
                for f in (results.get("forces"), *map(atoms.arrays.get, ("forces", "force")))
                if f is not None
            ),
            None,
        )
        if force is None:
            raise InputError(f"{path}: frame {i} has no forces (a per-atom column named forces)")
        keys = ("energy", "Energy", "potential_energy", "E")
        energy = next(
            (e for e in (results.get("energy"), *map(atoms.info.get, keys)) if e is not None), None
        )
        positions.append(atoms.positions)
        forces.append(force)
        energies.append(energy)
    if any(e is None for e in energies):
        if any(e is not None for e in energies):
            raise InputError(f"{path}: frame {energies.index(None)} has no energy, others have")
        energies = None
    info = frames[0].info
    own = "kcal/mol" in str(info.get("units", ""))
    fields = {
        "numbers": numbers,
        "positions": np.array(positions),
        "forces": np.array(forces),
        "energies": energies,
        "name": str(info.get("name", "")),
        "theory": str(info.get("theory", "unknown")),
    }
    declared = (
        str(info.get("length_unit", "Ang")),
        str(info.get("energy_unit", "kcal/mol" if own else "eV")),
    )
    return fields, declared


def packaged_dataset(name: str) -> Dataset:
    """A data set that the package carries: ethanol, keto_malondialdehyde or aspirin."""
    folder = importlib.resources.files("jaxff") / "data"
    with importlib.resources.as_file(folder / f"{name}.npz") as path:
        return Dataset.load(path)
