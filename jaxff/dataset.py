"""Dataset: geometries of a molecule with reference energies and forces."""

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
from jaxff.dataset_files import read_extxyz, read_npz
from jaxff.errors import InputError
from jaxff.molecule import Molecule, formula, perceive_bonds
from jaxff.npz import usable, write_npz
from jaxff.plausibility import Units, implausible_units
from jaxff.settings import checked_count, checked_seed


class Split(NamedTuple):
    """Training, validation and test sets: disjoint parts of a data set."""

    train: Dataset
    valid: Dataset
    test: Dataset


@dataclass(frozen=True, eq=False)
class Dataset:
    """Frames of one molecule with reference energies and forces.

    Attributes:
        numbers: (N,) atomic numbers.
        positions: (M, N, 3) Å.
        forces: (M, N, 3) kcal/mol/Å.
        energies: (M,) kcal/mol, or None.
        lattice: (3, 3) Å, lattice vectors as columns, or None.
        charge: net charge, e.
        name: label of the molecule.
        theory: level of theory, in words.
        notes: further text in the file (calculator, command, ...).
        index: (M,) indices of the frames in the original data set.

    Raises:
        InputError: an array has a wrong shape or a value that is not finite, or the charge is not
            a whole number.
    """

    numbers: np.ndarray
    positions: np.ndarray
    forces: np.ndarray
    energies: np.ndarray | None = None
    lattice: np.ndarray | None = None
    charge: int = 0
    name: str = ""
    theory: str = "unknown"
    notes: Mapping[str, str] = field(default_factory=dict)
    index: np.ndarray | None = None

    def __post_init__(self):
        who, given = self.label, np.asarray(self.numbers)
        if given.dtype.kind not in "iu" and not np.array_equal(given, np.floor(given)):
            raise InputError(f"{who}: atomic numbers must be whole numbers (got {given.tolist()})")
        arrays = {
            "numbers": np.asarray(self.numbers, int),
            "positions": np.asarray(self.positions, float),
            "forces": np.asarray(self.forces, float),
        }
        R = arrays["positions"]
        if R.ndim != 3 or R.shape[1:] != (len(arrays["numbers"]), 3):
            raise InputError(
                f"{who}: positions have shape {R.shape}, expected (M, {len(arrays['numbers'])}, 3) "
                "in Å"
            )
        if arrays["forces"].shape != R.shape:
            raise InputError(
                f"{who}: forces have shape {arrays['forces'].shape}, expected {R.shape}, the shape "
                "of the positions"
            )
        if self.energies is not None:
            arrays["energies"] = np.asarray(self.energies, float).reshape(-1)
            if len(arrays["energies"]) != len(R):
                raise InputError(
                    f"{who}: there are {len(arrays['energies'])} energies for {len(R)} frames; "
                    "give one for each frame"
                )
        z = arrays["numbers"]
        if z.ndim != 1 or len(z) == 0 or (z < 1).any() or (z >= len(chemical_symbols)).any():
            raise InputError(
                f"{who}: numbers must be the atomic numbers (N,) of one molecule (got {z.tolist()})"
            )
        if self.lattice is not None:
            arrays["lattice"] = lattice = np.asarray(self.lattice, float)
            finite = lattice.shape == (3, 3) and np.isfinite(lattice).all()
            if not finite or abs(np.linalg.det(lattice)) < 1e-6:
                raise InputError(
                    f"{who}: the lattice must be three independent vectors (3, 3) in Å, as columns"
                )
        for key in ("positions", "forces", "energies"):
            if key in arrays and not (finite := usable(arrays[key])).all():
                frame = int(np.argmin(finite.reshape(len(R), -1).all(axis=1)))
                raise InputError(
                    f"{who}: frame {frame} has a {key[:-1]} that is not finite or too large; "
                    "remove or recompute that frame"
                )
        charge = np.asarray(self.charge)
        if charge.dtype.kind not in "iuf" or charge.size != 1 or charge.item() % 1 != 0:
            raise InputError(
                f"{who}: the net charge must be a whole number of e (got {self.charge!r})"
            )
        object.__setattr__(self, "charge", int(charge.item()))
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
        """The data set of the selected frames.

        Args:
            frames: a slice, indices, a mask (M,) or an integer.
        """
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
        """Name in messages; "dataset" if the data set has no name."""
        return self.name or "dataset"

    def __repr__(self) -> str:
        label = f" {self.name!r}" if self.name else ""
        return f"Dataset({formula(self.numbers)}{label}, {len(self)} frames, {self.theory})"

    @cached_property
    def molecule(self) -> Molecule:
        """The molecule at the first frame, with bonds perceived from up to 999 frames.

        Raises:
            InputError: there are no frames.
        """
        if len(self) == 0:
            raise InputError(f"{self.label}: there are no frames; at least one is needed")
        sample = self.positions[:: max(1, len(self) // 500)]
        bonds = perceive_bonds(self.numbers, sample, self.lattice)
        return Molecule(self.numbers, self.positions[0], bonds, self.charge, name=self.name)

    def reorder(self, order) -> Dataset:
        """The frames with atom ``order[i]`` at place i; other atoms are omitted.

        Args:
            order: (K,) distinct atom indices.

        Raises:
            InputError: an index is repeated or out of range.
        """
        order = np.asarray(order, int)
        if len(set(order.tolist()) & set(range(self.n_atoms))) < len(order):
            raise InputError(
                f"order must contain distinct atom indices from 0 to {self.n_atoms - 1} (got "
                f"{order.tolist()})"
            )
        return replace(
            self,
            numbers=self.numbers[order],
            positions=self.positions[:, order],
            forces=self.forces[:, order],
        )

    def joined(self, other: Dataset) -> Dataset:
        """The frames of this data set, followed by those of `other`.

        Args:
            other: a data set of the same molecule, atom order and theory.

        Raises:
            InputError: the elements of `other`, or their order, are different.
        """
        if not np.array_equal(self.numbers, other.numbers):
            raise InputError(
                f"{self.label} and {other.label} have different atoms, or another order of atoms: "
                "only data sets of one molecule can be joined"
            )
        energies = None
        if self.energies is not None and other.energies is not None:
            energies = np.concatenate([self.energies, other.energies])
        return replace(
            self,
            positions=np.concatenate([self.positions, other.positions]),
            forces=np.concatenate([self.forces, other.forces]),
            energies=energies,
            index=None,
        )

    def distinct(self) -> np.ndarray:
        """Indices (K,), ascending, of the frames that are not copies of earlier frames."""
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
        """Disjoint random training, validation and test sets.

        Only the first of several frames with identical positions is used.

        Args:
            train, valid, test: numbers of frames (None: all remaining frames).
            seed: random seed.
            stratify: whether the training and validation frames are drawn such that their energies
                have the distribution of all energies.

        Raises:
            InputError: a number is not a whole number, or there are not enough frames.
        """
        train, valid = checked_count("train", train, 0), checked_count("valid", valid, 0)
        test = None if test is None else checked_count("test", test, 0)
        distinct = self.distinct()
        rest = len(distinct) - train - valid
        wanted = max(rest, 0) if test is None else test
        if rest < wanted:
            raise InputError(
                f"{self.label}: {train} training, {valid} validation and {wanted} test frames are "
                f"requested, but there are {len(distinct)} distinct frames; request fewer"
            )
        rng = np.random.default_rng(checked_seed(seed))
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
        """MD5 checksum of all arrays, equal to that of the sGDML package."""
        digest = hashlib.md5(usedforsecurity=False)
        for array in (self.numbers.astype(np.uint8), self.positions, self.energies, self.forces):
            if array is not None:
                raw = np.ascontiguousarray(array).tobytes()
                digest.update(hashlib.md5(raw, usedforsecurity=False).digest())
        return digest.hexdigest()

    @classmethod
    def load(
        cls,
        path,
        *,
        length_unit: str | None = None,
        energy_unit: str | None = None,
        energy_key: str | None = None,
        forces_key: str | None = None,
        check: bool = True,
    ) -> Dataset:
        """Read an npz (sGDML, MD17, rMD17) or extxyz file; convert to Å and kcal/mol.

        A file without units is read in kcal/mol and Å (npz), or in eV and Å (extxyz, as in ASE).
        Bond lengths and bond force constants show whether the units are plausible.

        Args:
            path: the file.
            length_unit, energy_unit: units that replace those of the file; see `jaxff.units`.
            energy_key, forces_key: names of the energies and forces in an extxyz file, such as
                "REF_energy" and "REF_forces" (None: ASE's results, or one of the usual names).
            check: whether implausible units are an error.

        Raises:
            InputError: the file cannot be read, is incomplete or inconsistent, contains values that
                are not finite, or has implausible units.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file; check the path")
        if path.suffix.lower() in (".xyz", ".extxyz"):
            fields, stated = read_extxyz(path, energy_key, forces_key)
        elif energy_key or forces_key:
            raise InputError(
                f"{path}: energy_key and forces_key (--energy-key, --forces-key) are for extxyz "
                "files only; leave them out"
            )
        else:
            fields, stated = read_npz(path)
        assumed = "" if energy_unit else stated.assumed
        used = Units(length_unit or stated.length, energy_unit or stated.energy, assumed)
        try:
            r, e = units.length_factor(used.length), units.energy_factor(used.energy)
        except InputError as error:
            raise InputError(
                f"{path}: {error} (replace the units of the file by length_unit= and energy_unit=, "
                "or --length-unit and --energy-unit)"
            ) from error
        fields["positions"] = np.asarray(fields["positions"], float) * r
        fields["forces"] = np.asarray(fields["forces"], float) * (e / r)
        if fields.get("energies") is not None:
            fields["energies"] = np.asarray(fields["energies"], float) * e
        if fields.get("lattice") is not None:
            fields["lattice"] = np.asarray(fields["lattice"], float) * r
        fields["name"] = fields.get("name") or path.stem
        if (r, e) != (1.0, 1.0):
            fields["notes"] = {"source_units": str(used), **fields.get("notes", {})}
        try:
            data = cls(**fields)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        if check and (fault := implausible_units(data.molecule, data.positions, data.forces, used)):
            raise InputError(f"{path}: {fault}")
        return data

    def save(self, path) -> None:
        """Write an npz file for jaxff and the sGDML package, in kcal/mol and Å.

        Raises:
            InputError: the file cannot be written; an earlier file is then unchanged.
        """
        arrays = {
            **{key: np.array(text) for key, text in self.notes.items()},
            "type": np.array("d"),
            "code_version": np.array("jaxff 1"),
            "name": np.array(self.name),
            "theory": np.array(self.theory),
            "charge": np.array(self.charge),
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
    """Random indices (count,) of frames with the energy distribution of all frames.

    The energies are divided into bins by the rule of Freedman and Diaconis.  Each bin contributes
    in proportion to the number of its frames.

    Args:
        energies: (M,) kcal/mol.
        count: number of indices.
        rng: random number generator.
    """
    if not 0 < count < len(energies) or np.ptp(energies) == 0.0:
        return rng.permutation(len(energies))[:count]
    edges = np.histogram_bin_edges(energies, bins="fd")
    bins = np.clip(np.digitize(energies, edges) - 1, 0, len(edges) - 2)
    # The k-th of n frames of a bin, in random order, has the place (k + u)/n.  The `count` frames
    # with the lowest places then contain the right share of every bin.
    places = np.empty(len(energies))
    for each in np.unique(bins):
        members = rng.permutation(np.flatnonzero(bins == each))
        places[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(places)[:count]


def packaged_dataset(name: str) -> Dataset:
    """Load a data set that is part of the package.

    Args:
        name: the name of a file in `jaxff/data`, such as "ethanol" or "aspirin".
    """
    folder = importlib.resources.files("jaxff") / "data"
    with importlib.resources.as_file(folder / f"{name}.npz") as path:
        return Dataset.load(path)
