"""Calculations kept in a file as they are done, for a run that was stopped and is begun again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import BaseCalculator, Calculator, all_changes

from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.reference.calculators import Method
from jaxff.reference.part import part_folder

BEGIN = b'{"geometry": '


class Remembered(Calculator):
    """An ASE calculator that computes no geometry twice, also when it is made anew.

    Args:
        calculator: an ASE calculator with energies and forces.
        path: file of one JSON line a calculation; made with the first. It must come from the same
            calculator with the same options, which nothing in it tells.

    Raises:
        InputError: the file holds something else.
    """

    implemented_properties = ("energy", "forces")

    def __init__(self, calculator: BaseCalculator, path):
        super().__init__()
        self.calculator, self.path = calculator, Path(path)
        raw = self.path.read_bytes() if self.path.exists() else b""
        self._done = _read(raw, self.path)
        self._ended = raw[-1:] in (b"", b"\n")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        key = _key(self.atoms)
        if key not in self._done:
            own = self.atoms.copy()
            own.calc = self.calculator
            # Forces first: for energies alone, some calculators do not compute them.
            forces = own.get_forces()
            found = {"energy": float(own.get_potential_energy()), "forces": forces.tolist()}
            with self.path.open("ab") as file:
                if not self._ended:  # a line that a crash cut off
                    file.write(b"\n")
                file.write(json.dumps({"geometry": key, **found}).encode() + b"\n")
            self._ended = True
            self._done[key] = found
        energy, forces = self._done[key]["energy"], np.array(self._done[key]["forces"])
        self.results = {"energy": energy, "forces": forces}


@contextmanager
def resumable(method: Method, surface: Any, molecule: Molecule, out) -> Iterator[Any]:
    """The same surface; a calculator's results stand in `OUT.part` until the block ends well.

    Args:
        method: what the calculator was made by.
        surface: the calculator; a `Potential` is given back as it is.
        molecule: the molecule it was made for.
        out: the file that the block is to write.

    Raises:
        InputError: `OUT.part` is of another calculator or molecule, or in use.
    """
    if not isinstance(surface, BaseCalculator):
        yield surface
        return
    settings = {"format": "jaxff calculations 1", **method.settings(molecule)}
    with part_folder(out, settings) as folder:
        yield Remembered(surface, folder / "calculations.jsonl")


def _key(atoms) -> str:
    geometry = (atoms.numbers, atoms.positions, np.asarray(atoms.cell), atoms.pbc)
    raw = b"".join(np.ascontiguousarray(x).tobytes() for x in geometry)
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()


def _read(raw: bytes, path: Path) -> dict[str, dict]:
    """Calculations in a file by geometry; lines that a crash left broken are passed over.

    Raises:
        InputError: the file holds something else.
    """
    done: dict[str, dict] = {}
    lines = raw.splitlines()
    for line in lines:
        try:
            found = json.loads(line)
            done[found["geometry"]] = {key: found[key] for key in ("energy", "forces")}
        except (ValueError, KeyError, TypeError):
            continue
    if lines and not done and not lines[0].startswith(BEGIN[: len(lines[0])]):
        raise InputError(f"{path} is no file of calculations: give another, or delete it")
    return done
