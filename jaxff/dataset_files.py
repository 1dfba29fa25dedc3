"""Readers of data-set files: they return fields of a `Dataset` and units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxff.errors import InputError
from jaxff.molecule_files import charge_of_ase, read_xyz_frames
from jaxff.npz import NpzReader
from jaxff.plausibility import Units

if TYPE_CHECKING:
    from ase import Atoms

Fields = dict[str, Any]
NOTES = ("calculator", "options", "command", "topology", "source_units", "reactions")
# Names under which programs write energies and forces into extxyz files; MACE writes REF_.
ENERGY_KEYS = ("energy", "Energy", "potential_energy", "E", "REF_energy")
FORCES_KEYS = ("forces", "force", "REF_forces")


def read_npz(path: Path) -> tuple[Fields, Units]:
    """Read fields of a `Dataset` and units from an sGDML, MD17 or rMD17 file.

    Raises:
        InputError: the file cannot be read, contains no data set, or an array is missing.
    """
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
            raise InputError(
                f"{path}: not a data set, but an sGDML file of type {file.text('type')!r}; give a "
                "data set"
            )
        fields = {
            "numbers": file.need("z"),
            "positions": file.need("R"),
            "forces": file.need("F"),
            "energies": file.get("E"),
            "lattice": file.get("lattice"),
            "charge": file.get("charge", 0),
            "name": file.text("name"),
            "theory": file.text("theory", "unknown"),
            "notes": {k: file.text(k) for k in NOTES if k in file},
        }
    elif "header" in file or "R_d_desc_alpha" in file:
        raise InputError(f"{path}: the file contains a model or a state; give a data set")
    else:
        raise InputError(
            f"{path}: not a data set, which needs the arrays z, R, F (sGDML) or nuclear_charges, "
            f"coords, forces (rMD17); the file contains {', '.join(list(file)[:8]) or 'no arrays'}"
        )
    for key in ("numbers", "positions", "forces", "energies", "lattice"):
        if fields.get(key) is not None and fields[key].dtype.kind not in "fiu":
            raise InputError(f"{path}: {key} must be numbers (got dtype {fields[key].dtype})")
    why = "" if "e_unit" in file else "the default of npz files"
    return fields, Units(file.text("r_unit", "Ang"), file.text("e_unit", "kcal/mol"), why)


def read_extxyz(
    path: Path, energy_key: str | None = None, forces_key: str | None = None
) -> tuple[Fields, Units]:
    """Read fields of a `Dataset` and units from an extxyz file.

    Args:
        path: the file.
        energy_key, forces_key: names of energies and forces; see `Dataset.load`.

    Raises:
        InputError: the file cannot be read, forces are missing, or frames are inconsistent.
    """
    try:
        frames = read_xyz_frames(path, slice(None))
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read as extxyz ({error}); correct or write the file again"
        ) from error
    if not frames:
        raise InputError(f"{path}: there are no frames; at least one is needed")
    numbers = frames[0].numbers
    positions, forces, energies, charges = [], [], [], []
    for i, atoms in enumerate(frames):
        where = f"{path}: frame {i}"
        if not np.array_equal(atoms.numbers, numbers):
            raise InputError(
                f"{where} has other atoms than frame 0, or another order: all frames must have the "
                "same atoms in the same order"
            )
        results = {} if atoms.calc is None else atoms.calc.results
        force = _labels(
            {**atoms.arrays, **results}, forces_key, FORCES_KEYS, "forces", where, needed=True
        )
        energy = _labels({**atoms.info, **results}, energy_key, ENERGY_KEYS, "energy", where)
        for what, value in (("energy", energy), ("forces", force)):
            if value is not None and np.asarray(value).dtype.kind not in "fiu":
                raise InputError(f"{where}: {what} must be numbers (got {value!r})")
        energies.append(energy)
        positions.append(atoms.positions)
        forces.append(force)
        try:
            charges.append(charge_of_ase(atoms))
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: the charge must be a number ({error})") from error
        if charges[i] != charges[0]:
            raise InputError(
                f"{where} has charge {charges[i]}, but frame 0 has {charges[0]}: all frames must "
                "have the same charge"
            )
    if any(e is None for e in energies):
        if any(e is not None for e in energies):
            raise InputError(
                f"{path}: frame {energies.index(None)} has no energy, but other frames have one: "
                "give energies for all frames or for none"
            )
        energies = None
    info = frames[0].info
    by_jaxff = "kcal/mol" in str(info.get("units", ""))
    fields = {
        "numbers": numbers,
        "positions": np.array(positions),
        "forces": np.array(forces),
        "energies": energies,
        "lattice": _lattice(frames, path),
        "charge": charges[0],
        "name": str(info.get("name", "")),
        "theory": str(info.get("theory", "unknown")),
    }
    usual = "kcal/mol" if by_jaxff else "eV"
    why = "" if by_jaxff or "energy_unit" in info else "ASE's default: the file states no units"
    length, energy = str(info.get("length_unit", "Ang")), str(info.get("energy_unit", usual))
    return fields, Units(length, energy, why)


def _lattice(frames: Sequence[Atoms], path: Path) -> np.ndarray | None:
    """Lattice vectors (3, 3) as columns, in the unit of the file; None if no frame is periodic.

    Raises:
        InputError: frames have different cells, or are periodic in some directions only.
    """
    if not any(atoms.pbc.any() for atoms in frames):
        return None
    for i, atoms in enumerate(frames):
        if not atoms.pbc.all() or not np.allclose(atoms.cell.array, frames[0].cell.array):
            raise InputError(
                f"{path}: frame {i} is periodic in some directions only, or its cell differs from "
                'that of frame 0: give all frames one periodic cell, or state pbc="F F F" for '
                "molecules in vacuum"
            )
    return frames[0].cell.array.T


def _labels(
    known: Mapping[str, Any],
    key: str | None,
    usual: tuple[str, ...],
    what: str,
    where: str,
    needed: bool = False,
) -> Any:
    """Energy () or forces (N, 3) of a frame, in units of the file; None if missing.

    Args:
        known: the values of the frame by name.
        key: the name given by the user, or None.
        usual: names that are tried if `key` is None.
        what: "energy" or "forces", for messages.
        where: file and frame, for messages.
        needed: whether missing values are an error even if `key` is None.

    Raises:
        InputError: a needed value is missing, or two of the usual names have different values.
    """
    names = [name for name in ((key,) if key else usual) if known.get(name) is not None]
    remedy = f'give the name by {what}_key="..." (--{what}-key ...)'
    if not names and (key or needed):
        there = ", ".join(name for name in known if name not in ("numbers", "positions"))
        missing = f"{what} named {key}" if key else f"{what} (a column named forces)"
        raise InputError(f"{where} has no {missing}; it has {there or 'no values'}: {remedy}")
    for name in names[1:]:
        if not np.array_equal(known[name], known[names[0]]):
            raise InputError(
                f"{where} has different {what} values named {names[0]} and {name}: {remedy}"
            )
    return known[names[0]] if names else None
