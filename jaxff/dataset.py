"""Dataset: geometries of a molecule with reference energies and forces."""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

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
        notes: further text in the file (calculator, command, ...).
        index: (M,) indices of the frames in the original data set.
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
        who = self.label
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
            finite = lattice.shape == (3, 3) and np.isfinite(lattice).all()
            if not finite or abs(np.linalg.det(lattice)) < 1e-6:
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

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.numbers)

    def __getitem__(self, frames) -> Dataset:
        """The data set of selected frames: a slice, indices, a mask or an integer."""
        frames = np.arange(len(self))[frames].reshape(-1)
        return replace(
            self,
            positions=self.positions[frames],
            forces=self.forces[frames],
            energies=None if self.energies is None else self.energies[frames],
            index=np.asarray(self.index)[frames],
        )

    @property
    def label(self) -> str:
        """Name for messages."""
        return self.name or "dataset"

    def __repr__(self) -> str:
        label = f" {self.name!r}" if self.name else ""
        return f"Dataset({formula(self.numbers)}{label}, {len(self)} frames, {self.theory})"

    @cached_property
    def molecule(self) -> Molecule:
        """The molecule at the first frame; its bonds are perceived from up to 999 frames."""
        if len(self) == 0:
            raise InputError(f"{self.label}: no frames")
        sample = self.positions[:: max(1, len(self) // 500)]
        bonds = perceive_bonds(self.numbers, sample, self.lattice)
        return Molecule(self.numbers, self.positions[0], bonds, name=self.name)

    def reorder(self, order) -> Dataset:
        """The same frames with atom ``order[i]`` at place i; order (N,) is a permutation."""
        order = np.asarray(order, int)
        return replace(
            self,
            numbers=self.numbers[order],
            positions=self.positions[:, order],
            forces=self.forces[:, order],
        )

    def distinct(self) -> np.ndarray:
        """Ascending indices of the frames that are not copies of earlier frames."""
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
        """Disjoint random parts, without copies of frames with identical positions.

        Args:
            train, valid, test: numbers of frames (None: all remaining frames).
            seed: random seed.
            stratify: whether the training frames have the energy distribution of all frames, and
                the validation frames that of the remaining ones.

        Raises:
            InputError: there are not enough frames.
        """
        distinct = self.distinct()
        rest = len(distinct) - train - valid
        wanted = max(rest, 0) if test is None else test
        if min(train, valid, wanted) < 0 or rest < wanted:
            raise InputError(
                f"{self.label}: {train} training, {valid} validation and {wanted} test "
                f"frames asked for, but there are {len(distinct)} distinct frames"
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
        """MD5 checksum of the data set, as the sGDML package computes it.

        It covers numbers, positions, energies and forces.
        """
        digest = hashlib.md5(usedforsecurity=False)
        for array in (self.numbers.astype(np.uint8), self.positions, self.energies, self.forces):
            if array is not None:
                raw = np.ascontiguousarray(array).tobytes()
                digest.update(hashlib.md5(raw, usedforsecurity=False).digest())
        return digest.hexdigest()

    @classmethod
    def load(
        cls, path, *, length_unit: str | None = None, energy_unit: str | None = None
    ) -> Dataset:
        """Read an sGDML, MD17 or rMD17 npz, or an extxyz file, in Å and kcal/mol.

        Without declared units, npz files are read in kcal/mol and Å, and extxyz files in eV and Å
        (ASE's convention).  Bond lengths and bond force constants show whether these can be right.

        Args:
            path: the file.
            length_unit, energy_unit: replace the units of the file and skip that test.

        Raises:
            InputError: the file is unreadable, incomplete or inconsistent; values are not finite;
                or the units cannot be right.
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
        """Write an npz file for jaxff and the sGDML package (kcal/mol, Å), atomically."""
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
    """Random indices of `count` of the energies (M,) with the same histogram.

    The bins are those of Freedman and Diaconis; indices are drawn uniformly within each bin.
    """
    if not 0 < count < len(energies) or np.ptp(energies) == 0.0:
        return rng.permutation(len(energies))[:count]
    edges = np.histogram_bin_edges(energies, bins="fd")
    bins = np.clip(np.digitize(energies, edges) - 1, 0, len(edges) - 2)
    # In random order within each bin, the k-th of n frames has the place (k + u)/n.  The `count`
    # frames with the lowest places contain the right share of every bin.
    places = np.empty(len(energies))
    for each in np.unique(bins):
        members = rng.permutation(np.flatnonzero(bins == each))
        places[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(places)[:count]


# -- readers: fields of a Dataset, and the declared units --------------------------------------


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
            raise InputError(f"{path}: this sGDML file is of another type and contains no data set")
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
            f"forces (rMD17); its arrays are {', '.join(list(file)[:8]) or 'missing'}"
        )
    for key in ("numbers", "positions", "forces", "energies"):
        if fields.get(key) is not None and fields[key].dtype.kind not in "fiu":
            raise InputError(f"{path}: {key} are not numbers (their dtype is {fields[key].dtype})")
    return fields, (file.text("r_unit", "Ang"), file.text("e_unit", "kcal/mol"))


def _read_extxyz(path: Path) -> tuple[dict, tuple[str, str]]:
    import ase.io

    try:
        frames: Any = ase.io.read(path, index=":", format="extxyz")
    except Exception as error:
        raise InputError(f"{path}: cannot be read as extxyz ({error})") from error
    if not frames:
        raise InputError(f"{path}: no frames")
    numbers = frames[0].numbers
    positions, forces, energies = [], [], []
    for i, atoms in enumerate(frames):
        if not np.array_equal(atoms.numbers, numbers):
            raise InputError(
                f"{path}: frame {i} has other atoms, or another order of atoms, than frame 0"
            )
        results = atoms.calc.results if atoms.calc is not None else {}
        force = _first(results.get("forces"), *map(atoms.arrays.get, ("forces", "force")))
        if force is None:
            raise InputError(f"{path}: frame {i} has no forces (a per-atom column named forces)")
        keys = ("energy", "Energy", "potential_energy", "E")
        energies.append(_first(results.get("energy"), *map(atoms.info.get, keys)))
        positions.append(atoms.positions)
        forces.append(force)
    if any(e is None for e in energies):
        if any(e is not None for e in energies):
            raise InputError(
                f"{path}: frame {energies.index(None)} has no energy, but others have one"
            )
        energies = None
    info = frames[0].info
    by_jaxff = "kcal/mol" in str(info.get("units", ""))
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
        str(info.get("energy_unit", "kcal/mol" if by_jaxff else "eV")),
    )
    return fields, declared


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def packaged_dataset(name: str) -> Dataset:
    """A data set of the package: ethanol, keto_malondialdehyde or aspirin."""
    folder = importlib.resources.files("jaxff") / "data"
    with importlib.resources.as_file(folder / f"{name}.npz") as path:
        return Dataset.load(path)
