"""Descriptions of the files that jaxff reads, for `jaxff info`.

For a new kind of file, add a function and a line in `READERS`.  Each function returns a description
of the kind and a dict of facts.  Facts are JSON values in the units of `UNITS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from jaxff import gdml, store
from jaxff.analysis import scans
from jaxff.cell import amber_box
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.formats import read_gro, read_inpcrd
from jaxff.formats.potentials import model_of, read_potential
from jaxff.formats.registry import (
    AMBER,
    FORCE_FIELD_SUFFIXES,
    MODEL_SUFFIX,
    suffix_of,
    system_formats,
)
from jaxff.gaff.table import gaff_table, with_frcmod
from jaxff.gdml.descriptor import Descriptor, descriptor_name
from jaxff.md import read_trajectory
from jaxff.md.frames import FORMAT as TRAJECTORY
from jaxff.md.trajectory import FORMATS as TRAJECTORIES
from jaxff.molecule import Molecule
from jaxff.molecule_files import count_xyz_frames
from jaxff.npz import NpzReader
from jaxff.plausibility import Units
from jaxff.potential import Potential
from jaxff.system import System

Facts = dict[str, Any]
# Units of facts; other facts have none.
UNITS = {
    "charge": "e",
    "net_charge": "e",
    "box": "Å and degrees",
    "density": "g/cm³",
    "lowest_energy": "kcal/mol",
    "highest_energy": "kcal/mol",
    "energy_deviation": "kcal/mol",
    "force_deviation": "kcal/mol/Å",
    "sigma": "1/Å",
    "start": "fs",
    "end": "fs",
    "mean_temperature": "K",
    "temperature": "K",
    "dt": "fs",
}


def describe(
    path: str | Path, trust: Sequence[str] = (), companions: Sequence[str] = ()
) -> tuple[str, Facts]:
    """The kind of a file, such as "data set", and facts about its contents.

    Args:
        path: the file.
        trust: names of modules that may build the networks of a model; see `jaxff.load`.
        companions: files that accompany a force-field file; see `jaxff.read_force_field`.

    Raises:
        InputError: the file does not exist, its suffix is unknown, or it cannot be read.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; check the path")
    suffix = suffix_of(path)
    if (system := _boxed(path, suffix)) is not None:
        return "system", _system(system)
    if suffix in FORCE_FIELD_SUFFIXES and suffix not in Molecule.FORMATS:
        return "force field", _potential(read_potential(path, trust, companions))
    if suffix not in READERS:
        raise InputError(f"{path}: unknown suffix {suffix!r}; use {', '.join(known_suffixes())}")
    return READERS[suffix](Path(path), trust)


def known_suffixes() -> list[str]:
    """File suffixes that `describe` accepts, sorted."""
    return sorted({*READERS, *FORCE_FIELD_SUFFIXES})


def _boxed(path: str | Path, suffix: str) -> System | None:
    """The system of a topology with a box, whose coordinate file has the same name; or None.

    The result is also None for single molecules, because GROMACS files always contain a box.
    """
    form = next((form for form in system_formats() if suffix in form.suffixes), None)
    if form is None or not any(Path(path).with_suffix(s).is_file() for s in form.coordinates):
        return None
    try:
        system = System.read(path)
    except InputError:
        return None  # the message of the reader of force fields applies
    return None if system.box is None or system.molecules.max() == 0 else system


def _system(system: System) -> Facts:
    assert system.box is not None  # see `_boxed`
    lengths, angles = amber_box(system.box)
    return {
        "particles": len(system),
        "molecules": system.contents(),
        "virtual_sites": len(system.sites),
        "rigid_waters": len(system.constraints.waters),
        "net_charge": round(system.charge, 4),
        "box": [round(x, 4) for x in (*lengths.tolist(), *angles.tolist())],
        "density": round(system.density, 4),
    }


def _molecule(molecule: Molecule) -> Facts:
    return {
        "name": molecule.name,
        "formula": molecule.formula,
        "charge": int(molecule.charge),
        "atoms": molecule.n_atoms,
        "bonds": len(molecule.bonds),
    }


def _describe_molecule(path: Path, trust: Sequence[str]) -> tuple[str, Facts]:
    return "molecule", _molecule(Molecule.read(path))


def _describe_xyz(path: Path, trust: Sequence[str]) -> tuple[str, Facts]:
    """Describe an xyz file: a trajectory of jaxff, a data set, or geometries."""
    with path.open(encoding="utf-8", errors="replace") as file:
        head = "".join(islice(file, 2))
    if TRAJECTORY in head:
        return _describe_trajectory(path, trust)
    try:
        data = Dataset.load(path, check=False)
    except InputError as error:
        return "geometries", _geometries(path) | {"not_a_data_set": str(error)}
    facts = _dataset(data)
    facts["units_of_the_file"] = facts["notes"].pop("source_units", str(Units()))
    return "data set", facts


def _geometries(path: Path) -> Facts:
    facts = _molecule(Molecule.read(path))
    try:
        return facts | {"frames": count_xyz_frames(path)}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _describe_npz(path: Path, trust: Sequence[str]) -> tuple[str, Facts]:
    file = NpzReader(path)
    try:
        header = json.loads(file.text("header", "{}"))
    except ValueError:
        header = {}
    form = header.get("format") if isinstance(header, dict) else None
    if form == scans.FORMAT:
        return "scan", _scan(scans.Scan.load(path))
    if form == store.FORMAT:
        return _state(path, header)
    if model_of(path) is not None:
        return "model", _potential(read_potential(path, trust))
    if file.text("format").startswith("jaxff spectra"):
        return "spectra", {"spectra": file.need("labels").tolist()}
    return "data set", _dataset(Dataset.load(path, check=False))


def _state(path: Path, header: dict[str, Any]) -> tuple[str, Facts]:
    """Describe the state of unfinished work, a file of `jaxff.store.Store`.

    Raises:
        InputError: the header of the file is damaged.
    """
    try:
        kind, request, state = header["what"], dict(header["request"]), dict(header["state"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: the header is damaged; run the command again") from error
    facts = {"step": state["step"]} if isinstance(state.get("step"), int) else {}
    return f"state of a {kind}", facts | {
        key: value for key, value in request.items() if isinstance(value, str | int | float)
    }


def _scan(scan: scans.Scan) -> Facts:
    return {
        "coordinates": list(scan.names),
        "points": list(scan.energies.shape),
        "relaxed": scan.relaxed,
        "lowest_energy": float(np.nanmin(scan.energies)),
        "not_converged": int((~scan.converged).sum()),
    }


def _dataset(data: Dataset) -> Facts:
    facts = _molecule(data.molecule) | {
        "name": data.name,
        "charge": int(data.charge or 0),
        "frames": len(data),
        "theory": data.theory,
    }
    if data.energies is not None:
        facts["lowest_energy"] = float(data.energies.min())
        facts["highest_energy"] = float(data.energies.max())
        facts["energy_deviation"] = float(data.energies.std())
    facts["force_deviation"] = float(data.forces.std())
    facts["fingerprint"] = data.fingerprint()
    return facts | {"notes": {key: text for key, text in data.notes.items() if text}}


def _potential(potential: Potential) -> Facts:
    facts: Facts = {"potential": repr(potential)}
    if potential.molecule is not None:
        facts |= _molecule(potential.molecule)
        facts["elements"] = potential.molecule.symbols
    facts["terms"] = {}
    for placed in potential.program.placed:
        term: Facts = {"kind": placed.term.kind}
        if placed.atoms is not None:
            term["on_atoms"] = placed.atoms.tolist()
        if isinstance(placed.term, gdml.KernelTerm):
            term |= _kernel(placed, potential)
        own = potential.params[placed.name]
        term["parameters"] = {
            key: {"shape": list(own[key].shape), "unit": column.unit}
            for key, column in potential.columns.get(placed.name, {}).items()
        }
        facts["terms"][placed.name] = term
    return facts


def _kernel(placed, potential: Potential) -> Facts:
    term, own = placed.term, potential.params[placed.name]
    fragments = term.instances.tolist() if isinstance(term, gdml.FragmentKernelTerm) else []
    count = len(own["descriptors"]) // max(len(fragments), 1)
    facts = {
        "training_frames": count,
        "trained_on": f"{count} frames of {term.dataset or 'an unnamed data set'} ({term.theory})",
        "data_fingerprint": term.train_md5 or None,
        "sigma": float(own["sigma"]),
        "lambda": float(own["lam"]),
        "permutations": len(term.permutations),
    }
    if term.descriptor is not gdml.inverse_distances:
        facts["descriptor"] = _descriptor(term.descriptor)
    if "energy_alphas" in own:
        facts["energies"] = "constrained"
    elif not term.knows_energies:
        facts["energies"] = "only energy differences, because the training set had no energies"
    if fragments:
        facts["fragments"] = fragments
    elif potential.molecule is not None and placed.atoms is None:
        words = gdml.describe_symmetries(term.permutations, potential.molecule)
        if words:
            facts["generated_by"] = "; and ".join(words)
    return facts


def _descriptor(descriptor: Descriptor) -> str:
    """Return the name and options of a descriptor; lists of numbers are given as their range."""
    if not isinstance(descriptor, partial):
        return descriptor_name(descriptor)
    words = [
        f"{key}={value:.4g}"
        if isinstance(value, float)
        else f"{len(value)} {key} from {min(value):.4g} to {max(value):.4g}"
        for key, value in descriptor.keywords.items()
    ]
    return f"{descriptor_name(descriptor.func)} ({', '.join(words)})"


def _describe_trajectory(path: Path, trust: Sequence[str]) -> tuple[str, Facts]:
    frames = read_trajectory(path)
    positions, times = frames["positions"], frames.get("times")
    facts: Facts = {"frames": len(positions), "atoms": positions.shape[1]}
    if times is not None and len(times):
        facts |= {"start": float(times[0]), "end": float(times[-1])}
    if len(frames.get("temperatures", ())):
        facts["mean_temperature"] = float(np.mean(frames["temperatures"]))
    return "trajectory", facts | {"contents": sorted(frames)}


def _describe_frcmod(path: Path, trust: Sequence[str]) -> tuple[str, Facts]:
    text, plain = path.read_text(encoding="utf-8-sig", errors="replace"), gaff_table()
    table = with_frcmod(plain, text, path.name)
    facts: Facts = {"title": text.partition("\n")[0].strip()}
    for section in ("bonds", "angles", "torsions", "impropers", "lj"):
        entries = getattr(table, section).values()
        facts[section] = sum(entry.source.startswith(f"{path.name} ") for entry in entries)
    return "parameters for mol2 files", facts


def _describe_inpcrd(path: Path, trust: Sequence[str]) -> tuple[str, Facts]:
    return "AMBER coordinates", {"atoms": len(read_inpcrd(path))}


def _describe_gro(path: Path, trust: Sequence[str]) -> tuple[str, Facts]:
    gro = read_gro(path)
    facts = {"title": gro.title, "atoms": len(gro.positions), "box": gro.box}
    return "GROMACS coordinates", facts


READERS: dict[str, Callable[[Path, Sequence[str]], tuple[str, Facts]]] = {
    **dict.fromkeys(Molecule.FORMATS, _describe_molecule),
    **dict.fromkeys(TRAJECTORIES, _describe_trajectory),
    ".xyz": _describe_xyz,
    ".extxyz": _describe_xyz,
    MODEL_SUFFIX: _describe_npz,
    ".frcmod": _describe_frcmod,
    ".gro": _describe_gro,
    **dict.fromkeys(AMBER.companions, _describe_inpcrd),
}
