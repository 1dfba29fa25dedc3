"""Intrinsic radii and screening factors of atoms for generalised Born models.

Radii are the sets mbondi, mbondi2 and mbondi3 of AMBER: those of Bondi, J. Phys. Chem. 68, 441
(1964), modified for hydrogen and carboxyl groups (Tsui and Case, Biopolymers 56, 275 (2000);
Onufriev, Bashford and Case, Proteins 55, 383 (2004); Nguyen, Roe and Simmerling, J. Chem. Theory
Comput. 9, 2020 (2013)).  The modifications of mbondi3 for arginine are not included.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxff.errors import InputError

# Bondi radii, Å, modified for hydrogen (mbondi, mbondi2 and mbondi3 of AMBER).
RADII = {
    **{"C": 1.7, "N": 1.55, "O": 1.5, "F": 1.5, "Si": 2.1, "P": 1.85, "S": 1.8, "Cl": 1.7},
    **{"Br": 1.5, "I": 1.5},
}
CARBOXYL = 1.4  # Å, oxygens without hydrogen in carboxyl groups and esters, with gbn2
HYDROGEN = 1.2  # Å
# Radii, Å, of hydrogen bonded to other elements.
MBONDI = {"C": 1.3, "N": 1.3, "O": 0.8, "S": 0.8}
MBONDI2 = {"N": 1.3}
# Screening factors, and those of gbn2.
SCREENING = {"H": 0.85, "C": 0.72, "N": 0.79, "O": 0.85, "F": 0.88, "P": 0.86, "S": 0.96}
SCREENING_GBN2 = {"H": 1.425952, "C": 1.058554, "N": 0.733599, "O": 1.061039, "S": -0.703469}
OTHER_SCREENING, OTHER_SCREENING_GBN2 = 0.8, 0.5
# The coefficients alpha, beta and gamma of Born radii.
OBC = {"hct": (0.0, 0.0, 0.0), "obc1": (0.8, 0.0, 2.909125), "obc2": (1.0, 0.8, 4.85)}
GBN2 = {
    "H": (0.788440, 0.798699, 0.437334),
    "C": (0.733756, 0.506378, 0.205844),
    "N": (0.503364, 0.316828, 0.192915),
    "O": (0.867814, 0.876635, 0.387882),
    "S": (0.867814, 0.876635, 0.387882),
}
OTHER_GBN2 = (1.0, 0.8, 4.851)


def intrinsic_radii(
    symbols: Sequence[str],
    neighbours: Sequence[Sequence[int]],
    model: str,
    other: float | None = None,
) -> np.ndarray:
    """Return the intrinsic radii (N,) Å of atoms.

    Args:
        symbols: (N,) chemical symbols.
        neighbours: (N,) bonded atoms of each atom.
        model: "hct" for mbondi, "obc1" or "obc2" for mbondi2, "gbn2" for mbondi3.
        other: radius of other elements, Å; None for an exception.

    Raises:
        InputError: there is no radius for an element.
    """
    special = MBONDI if model == "hct" else MBONDI2
    radii = np.zeros(len(symbols))
    for atom, symbol in enumerate(symbols):
        if symbol == "H":
            partners = [symbols[a] for a in neighbours[atom]]
            radii[atom] = special.get(partners[0], HYDROGEN) if partners else HYDROGEN
        elif symbol in RADII or other is not None:
            radii[atom] = RADII.get(symbol, other)
        else:
            raise InputError(
                f"there is no intrinsic radius for {symbol} (atom {atom}); give an AMBER topology "
                "(prmtop) with radii"
            )
    if model == "gbn2":
        radii[sorted(carboxyl_oxygens(symbols, neighbours))] = CARBOXYL
    return radii


def carboxyl_oxygens(symbols: Sequence[str], neighbours: Sequence[Sequence[int]]) -> set[int]:
    """Return the oxygens bonded only to a carbon that has three neighbours with another oxygen.

    The arguments are those of `intrinsic_radii`.
    """
    found = set()
    for atom, symbol in enumerate(symbols):
        if symbol != "O" or len(neighbours[atom]) != 1:
            continue
        carbon = neighbours[atom][0]
        others = [symbols[a] for a in neighbours[carbon] if a != atom]
        if symbols[carbon] == "C" and len(others) == 2 and "O" in others:
            found.add(atom)
    return found


def screening_factors(symbols: Sequence[str], model: str) -> np.ndarray:
    """Return the screening factors (N,) of atoms with `symbols` (N,) for a model."""
    if model == "gbn2":
        return np.array([SCREENING_GBN2.get(s, OTHER_SCREENING_GBN2) for s in symbols])
    return np.array([SCREENING.get(s, OTHER_SCREENING) for s in symbols])


def coefficients(symbols: Sequence[str], model: str) -> np.ndarray:
    """Return the coefficients alpha, beta and gamma (N, 3) of the Born radii for a model."""
    if model == "gbn2":
        return np.array([GBN2.get(symbol, OTHER_GBN2) for symbol in symbols])
    return np.tile(OBC[model], (len(symbols), 1))


def environments(symbols: Sequence[str], neighbours: Sequence[Sequence[int]]) -> list[str]:
    """Return the class of each atom for fitted radii: its element and the kind of its bonds.

    The arguments are those of `intrinsic_radii`.
    """
    degree = [len(around) for around in neighbours]

    def ends(atom: int, elements: str) -> list[int]:
        """Atoms without other bonds, of some elements, that are bonded to an atom."""
        return [a for a in neighbours[atom] if symbols[a] in elements and degree[a] == 1]

    out = []
    for atom, symbol in enumerate(symbols):
        around = neighbours[atom]
        first = symbols[around[0]] if len(around) else ""
        kind = symbol
        if symbol == "H":
            kind = f"H-{first}"
            if first == "C":
                kind += " sp3" if degree[around[0]] == 4 else " sp2"
        elif symbol == "C":
            kind = {4: "C sp3", 3: "C sp2"}.get(degree[atom], "C sp")
            if degree[atom] == 3 and ends(atom, "OS"):
                kind = "C=O"
        elif symbol == "N" and degree[atom] < 3:
            kind = "N sp" if degree[atom] == 1 else "N sp2"
        elif symbol == "N":
            kind = "N amine"
            if any(symbols[a] == "C" and degree[a] == 3 for a in around):
                kind = "N aniline"
            if any(ends(a, "OS") for a in around):
                kind = "N amide"
            if len(ends(atom, "O")) > 1:
                kind = "N nitro"
        elif symbol == "O" and degree[atom] == 1:
            kind = {"C": "O=C", "N": "O=N"}.get(first, "O=S,P")
        elif symbol == "O":
            kind = "O hydroxyl" if "H" in [symbols[a] for a in around] else "O ether"
        elif symbol == "S":
            kind = {1: "S=", 2: "S"}.get(degree[atom], "S oxide")
        out.append(kind)
    return out
