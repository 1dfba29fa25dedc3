"""Calculators that cost nothing, count their calls, are slow or fail when told to."""

import os
import time
from pathlib import Path

import numpy as np
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes


class Springs(Calculator):
    """Springs of 30 eV/Å² between all atoms, at rest at 1.2 Å.

    Options: `log`, a file that gets a byte a calculation; `delay`, s; `fail_above`, Å: a first
    coordinate of the first atom beyond which it fails, or gives NaN if `quietly`.
    """

    implemented_properties = ("energy", "forces")
    length = 1.2  # Å

    def __init__(self, log=None, delay=0.0, fail_above=np.inf, quietly=False):
        super().__init__()
        self.log, self.delay, self.fail_above, self.quietly = log, delay, fail_above, quietly

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        time.sleep(self.delay)
        if self.log is not None:
            with Path(self.log).open("ab") as file:
                file.write(b".")
        R = self.atoms.positions
        if R[0, 0] > self.fail_above and not self.quietly:
            raise CalculationFailed("no convergence")
        separation = R[:, None] - R[None, :]
        r = np.linalg.norm(separation, axis=-1) + np.eye(len(R))
        stretch = (r - self.length) * (1.0 - np.eye(len(R)))
        energy = 0.25 * 30.0 * np.sum(stretch**2)
        forces = -30.0 * np.einsum("ij,ijc->ic", stretch / r, separation)
        nan = np.nan if R[0, 0] > self.fail_above else 0.0
        self.results = {"energy": energy + nan, "forces": forces}


class Water(Springs):
    """Springs with the lengths in water, for the atoms O, H and H."""

    length = np.array([[0.0, 0.97, 0.97], [0.97, 0.0, 1.53], [0.97, 1.53, 0.0]])


class Deadly(Springs):
    """Ends its process where `Springs` would fail."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if atoms.positions[0, 0] > self.fail_above:
            os._exit(1)
        super().calculate(atoms, properties, system_changes)


class Charged(Springs):
    """Springs whose energy tells the charge it was given, eV."""

    def __init__(self, charge=0):
        super().__init__()
        self.charge = charge

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] = float(self.charge)
