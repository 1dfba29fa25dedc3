"""Hydrogen bonds between molecules by a geometric criterion."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from jaxff.errors import InputError
from jaxff.neighbors import NeighborList
from jaxff.settings import checked_choice, checked_number

ELEMENTS = {7: "N", 8: "O", 9: "F"}  # donors and acceptors


def hydrogen_bonds(
    system: Any,
    positions: ArrayLike,
    boxes: ArrayLike,
    distance: float = 3.5,
    angle: float = 30.0,
    vertex: Literal["donor", "hydrogen"] = "donor",
) -> dict[str, np.ndarray]:
    """Count the hydrogen bonds between different molecules in each frame.

    A donor D is an atom of N, O or F with a bonded hydrogen H, and an acceptor A is an atom of N, O
    or F.  They form a bond if the distance D–A is at most `distance` and D–H···A is close to
    straight.  With the defaults, this is the criterion of Luzar and Chandler, Phys. Rev. Lett. 76,
    928 (1996).

    Args:
        system: the `System`.
        positions: (F, N, 3) Å.
        boxes: (F, 3, 3) Å, lattice vectors as rows.
        distance: Å, largest distance of donor and acceptor.
        angle: degrees, largest deviation from a straight bond.
        vertex: "donor": the deviation is the angle H–D–A; "hydrogen": it is 180° minus the angle
            D–H–A.

    Returns:
        numbers (F,) of hydrogen bonds by the elements of donor and acceptor, such as "O-H···O".

    Raises:
        InputError: an argument has no valid value, or the boxes are too small for the distance.
    """
    checked_choice("vertex", vertex, ("donor", "hydrogen"))
    distance = checked_number("distance", distance, "Å", above=0.0)
    limit = np.cos(np.radians(checked_number("angle", angle, "degrees", above=0.0, most=90.0)))
    R, boxes = np.asarray(positions), np.asarray(boxes, float)
    if R.ndim != 3 or R.shape[1:] != (len(system), 3) or boxes.shape != (len(R), 3, 3):
        raise InputError(
            f"positions must have shape (F, {len(system)}, 3) and boxes (F, 3, 3) (got {R.shape} "
            f"and {boxes.shape})"
        )
    numbers, molecules = system.numbers, system.molecules
    polar = np.flatnonzero(np.isin(numbers, list(ELEMENTS)))
    bonds = np.concatenate([system.bonds, system.bonds[:, ::-1]])
    bonds = bonds[np.isin(bonds[:, 0], polar) & (numbers[bonds[:, 1]] == 1)]
    bonds = bonds[np.argsort(bonds[:, 0], kind="stable")]
    first = np.searchsorted(bonds[:, 0], polar)
    hydrogens = np.searchsorted(bonds[:, 0], polar, side="right") - first
    kinds = sorted({(int(numbers[d]), int(a)) for d in bonds[:, 0] for a in set(numbers[polar])})
    labels = {pair: f"{ELEMENTS[pair[0]]}-H···{ELEMENTS[pair[1]]}" for pair in kinds}
    counts = {label: np.zeros(len(R), int) for label in labels.values()}
    for f in range(len(R)):
        frame = np.asarray(R[f], float)
        pairs = np.asarray(NeighborList.of(frame[polar], boxes[f], cutoff=distance, skin=0.0).pairs)
        pairs = pairs[:, (pairs < len(polar)).all(axis=0)]
        i, j = np.concatenate([pairs, pairs[::-1]], axis=1)
        keep = (hydrogens[i] > 0) & (molecules[polar[i]] != molecules[polar[j]])
        i, j = i[keep], j[keep]
        # One row for each hydrogen of the donor.
        row = np.repeat(np.arange(len(i)), hydrogens[i])
        place = np.arange(len(row)) - np.repeat(
            np.cumsum(hydrogens[i]) - hydrogens[i], hydrogens[i]
        )
        donor, acceptor = polar[i[row]], polar[j[row]]
        hydrogen = bonds[first[i[row]] + place, 1]
        to_h = frame[hydrogen] - frame[donor]
        d = frame[acceptor] - frame[donor]
        d -= np.round(d @ np.linalg.inv(boxes[f])) @ boxes[f]
        along = d if vertex == "donor" else d - to_h
        near = np.linalg.norm(d, axis=1) <= distance
        lengths = np.linalg.norm(to_h, axis=1) * np.linalg.norm(along, axis=1)
        straight = (to_h * along).sum(axis=1) >= limit * lengths
        found = np.flatnonzero(near & straight)
        for (z, a), label in labels.items():
            counts[label][f] = (
                (numbers[donor[found]] == z) & (numbers[acceptor[found]] == a)
            ).sum()
    return counts
