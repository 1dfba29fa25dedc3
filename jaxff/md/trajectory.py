"""Trajectories as extxyz, appended to while a simulation runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxff.errors import InputError
from jaxff.molecule import Molecule

FORMAT = "jaxff trajectory 1"
COLUMNS = "species:S:1:pos:R:3:velocities:R:3:force:R:3"


class Trajectory:
    """An extxyz file of frames with energies, velocities and forces, units in each comment line.

    The forces stand in a column named ``force``, which ASE leaves alone: it would take ``forces``
    to be in eV/Å.

    Args:
        path: the file, replaced at once.
        molecule: elements and charge.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path, molecule: Molecule):
        from ase.io.extxyz import key_val_dict_to_str

        self.path = Path(path)
        facts = {"units": "kcal/mol Ang fs K", "format": FORMAT, "charge": molecule.charge}
        if molecule.name:
            facts["name"] = molecule.name
        self._header = f'Properties={COLUMNS} pbc="F F F" {key_val_dict_to_str(facts)}'
        numbers = " %.10f" * 6 + " %.8f" * 3
        self._rows = [symbol + numbers for symbol in molecule.symbols]
        try:
            self._file = self.path.open("wb", buffering=0)
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror or error}") from error

    def append(self, positions, velocities, forces, potential, kinetic, temperature, time) -> None:
        """Write frames: arrays (F, N, 3) in Å, Å/fs, kcal/mol/Å; (F,) kcal/mol, kcal/mol, K, fs."""
        table = np.concatenate([positions, velocities, forces], axis=2)
        for f, rows in enumerate(table.tolist()):
            lines = [
                str(len(rows)),
                f"{self._header} time={time[f]:.10g} potential_energy={potential[f]:.10f} "
                f"kinetic_energy={kinetic[f]:.10f} temperature={temperature[f]:.6f}",
                *(form % tuple(row) for form, row in zip(self._rows, rows, strict=True)),
            ]
            # One write a frame: a frame is in the file whole or not at all.
            self._file.write(("\n".join(lines) + "\n").encode())

    def close(self) -> None:
        self._file.close()
