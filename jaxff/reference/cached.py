"""An ASE calculator that keeps its results in a file for interrupted runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator, all_changes

from jaxff.calculation import calculate
from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.reference.calculators import Method
from jaxff.reference.results import part_folder

BEGIN = b'{"geometry": '


class CachedCalculator(Calculator):
    """An ASE calculator that computes no geometry twice, even when created anew.

    Args:
        calculator: an ASE calculator with energies and forces.
        path: file with one JSON line for each calculation, created with the first one. It does
            not name the calculator: always use it with the same calculator and options.

    Raises:
        InputError: the file contains something else.
    """

    atoms: Any  # declared as None by ASE
    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - declared so by ASE

    def __init__(self, calculator: BaseCalculator, path: str | Path):
        super().__init__()
        self.calculator, self.path = calculator, Path(path)
        raw = self.path.read_bytes() if self.path.exists() else b""
        self._known = _read(raw, self.path)
        self._complete = raw[-1:] in (b"", b"\n")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        copy = self.atoms.copy()
        key = _key(copy)
        if key not in self._known:
            copy.calc = self.calculator
            energy, forces = calculate(copy, unit=1.0)
            results = {"energy": energy, "forces": forces.tolist()}
            with self.path.open("ab") as file:
                if not self._complete:  # a crash left an incomplete line
                    file.write(b"\n")
                file.write(json.dumps({"geometry": key, **results}).encode() + b"\n")
            self._complete = True
            self._known[key] = results
        results = self._known[key]
        self.results = {"energy": results["energy"], "forces": np.array(results["forces"])}


@contextmanager
def resumable(method: Method, surface: Any, molecule: Molecule, out: str | Path) -> Iterator[Any]:
    """Keep the results of a calculator in the folder `OUT.part` until the block ends.

    Args:
        method: the name and options of the calculator.
        surface: the calculator; a `Potential` is returned as it is.
        molecule: the molecule for which the calculator was created.
        out: the file that the block writes.

    Raises:
        InputError: `OUT.part` belongs to another calculator or molecule, or is in use.
    """
    if not isinstance(surface, BaseCalculator):
        yield surface
        return
    request = {"format": "jaxff calculations 1", **method.settings(molecule)}
    with part_folder(out, request) as folder:
        yield CachedCalculator(surface, folder / "calculations.jsonl")


def _key(atoms: Atoms) -> str:
    geometry = (atoms.numbers, atoms.positions, np.asarray(atoms.cell), atoms.pbc)
    raw = b"".join(np.ascontiguousarray(x).tobytes() for x in geometry)
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()


def _read(raw: bytes, path: Path) -> dict[str, dict]:
    """The calculations in a file by geometry, without incomplete lines.

    Raises:
        InputError: the file contains something else.
    """
    known: dict[str, dict] = {}
    lines = raw.splitlines()
    for line in lines:
        try:
            entry = json.loads(line)
            known[entry["geometry"]] = {key: entry[key] for key in ("energy", "forces")}
        except (ValueError, KeyError, TypeError):
            continue
    if lines and not known and not lines[0].startswith(BEGIN[: len(lines[0])]):
        raise InputError(f"{path} is not a file of calculations: name another file, or delete it")
    return known
