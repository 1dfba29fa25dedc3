"""Molecules with what antechamber, parmchk2 and LEaP made of them."""

import json
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from jaxff.molecule import Molecule

DATA = Path(__file__).parent / "data" / "mm"


def read(name: str):
    """(molecule, row) of each line of a fixture; positions are zero where it has none."""
    for line in (DATA / name).read_text().splitlines():
        row = json.loads(line)
        symbols = row["elements"].split()
        positions = np.zeros((len(symbols), 3))
        if "positions" in row:
            positions = np.array(row["positions"].split(), float).reshape(-1, 3)
        bonds = [tuple(map(int, bond.split("-"))) for bond in row["bonds"].split()]
        numbers = [atomic_numbers[s] for s in symbols]
        yield Molecule(numbers, positions, bonds, row["charge"], name=row["smiles"]), row
