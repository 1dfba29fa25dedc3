"""An ASE calculator that stores results in a file, to continue interrupted runs."""

from __future__ import annotations

import hashlib
import json
import warnings
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
    """An ASE calculator that reads the results of known geometries from a file.

    Args:
        calculator: an ASE calculator with energies and forces.
        path: file with one JSON line for each calculation, created if necessary.

    Raises:
        InputError: the file was not written by `CachedCalculator`, or belongs to a calculator of
            another class or with other parameters.
    """

    atoms: Any  # declared as None by ASE
    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - declared so by ASE

    def __init__(self, calculator: BaseCalculator, path: str | Path):
        super().__init__()
        self.calculator, self.path = calculator, Path(path)
        raw = self.path.read_bytes() if self.path.exists() else b""
        self._name = _name(calculator)
        self._known = _read(raw, self.path, self._name)
        self._used: set[str] = set()
        self._complete = raw[-1:] in (b"", b"\n")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        copy = self.atoms.copy()
        key = _key(copy)
        if key not in self._known:
            copy.calc = self.calculator
            energy, forces = calculate(copy, unit=1.0)
            results = {"energy": energy, "forces": forces.tolist()}
            line = {"geometry": key, "calculator": self._name, **results}
            with self.path.open("ab") as file:
                if not self._complete:  # a crash left an incomplete line
                    file.write(b"\n")
                file.write(json.dumps(line).encode() + b"\n")
            self._complete = True
            self._known[key] = results
        self._used.add(key)
        results = self._known[key]
        self.results = {"energy": results["energy"], "forces": np.array(results["forces"])}

    @property
    def unused(self) -> int:
        """Number of calculations in the file that have not been used."""
        return len(self._known.keys() - self._used)


@contextmanager
def resumable(method: Method, surface: Any, molecule: Molecule, out: str | Path) -> Iterator[Any]:
    """Store the results of a calculator in the folder `OUT.part` until the block ends.

    The folder is kept if the block did not use all results in the folder.

    Args:
        method: the name and options of the calculator.
        surface: the calculator; a `Potential` is returned unchanged.
        molecule: the molecule for which the calculator was created.
        out: the file that the block writes.

    Yields:
        a `CachedCalculator`, or `surface` if it is a `Potential`.

    Raises:
        InputError: `OUT.part` belongs to a run with another calculator or molecule, or is in use.
    """
    if not isinstance(surface, BaseCalculator):
        yield surface
        return
    request = {"format": "jaxff calculations 1", **method.settings(molecule)}
    made: list[CachedCalculator] = []
    with part_folder(out, request, keep=lambda: any(c.unused for c in made)) as folder:
        made.append(CachedCalculator(surface, folder / "calculations.jsonl"))
        yield made[0]
    if made[0].unused:
        warnings.warn(
            f"{folder} is kept, because this command did not use {made[0].unused} of the stored "
            "results: repeat the interrupted command to use these results, or delete the folder",
            stacklevel=2,
        )


def _name(calculator: BaseCalculator) -> str:
    """Return the class of a calculator and a checksum of the parameters."""

    def shown(value: Any) -> Any:  # without addresses, which differ between processes
        return value.tolist() if hasattr(value, "tolist") else type(value).__name__

    parameters = json.dumps(getattr(calculator, "parameters", {}), sort_keys=True, default=shown)
    checksum = hashlib.md5(parameters.encode(), usedforsecurity=False).hexdigest()
    return f"{type(calculator).__module__}.{type(calculator).__name__} {checksum}"


def _key(atoms: Atoms) -> str:
    geometry = (atoms.numbers, atoms.positions, np.asarray(atoms.cell), atoms.pbc)
    raw = b"".join(np.ascontiguousarray(x).tobytes() for x in geometry)
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()


def _read(raw: bytes, path: Path, name: str) -> dict[str, dict]:
    """Return, by geometry, the complete calculations in the content `raw` of a file.

    Raises:
        InputError: the file was not written by `CachedCalculator`, or is of another calculator.
    """
    known: dict[str, dict] = {}
    lines = raw.splitlines()
    for line in lines:
        try:
            entry = json.loads(line)
            known[entry["geometry"]] = {key: entry[key] for key in ("energy", "forces")}
        except (ValueError, KeyError, TypeError):
            continue
        if entry.get("calculator", name) != name:
            raise InputError(
                f"{path} contains results of another calculator or of other parameters "
                f"({entry['calculator'].split()[0]}): use a separate file for each calculator"
            )
    if lines and not known and not lines[0].startswith(BEGIN[: len(lines[0])]):
        raise InputError(
            f"{path} is not a file of calculations: give another file, or delete this file"
        )
    return known
