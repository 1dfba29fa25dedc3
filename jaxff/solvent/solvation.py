"""Solvation of molecules in a box of water with ions."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any, Literal

import numpy as np

from jaxff import cell
from jaxff.errors import InputError
from jaxff.gaff import Parametrization
from jaxff.molecule import Molecule
from jaxff.npz import NpzReader
from jaxff.settings import checked_choice, checked_number, checked_seed
from jaxff.solvent.models import CHARGES, WaterModel, water_model
from jaxff.solvent.packing import close_pairs, rotations
from jaxff.solvent.parts import Copies, join, of_ion, of_molecule, of_water
from jaxff.system import System

Shape = Literal["cube", "octahedron"]
Solute = Molecule | Parametrization | System

# Smallest distances, Å.  The oxygen of water is at least CONTACT times the mean σ away from atoms
# of the solute; the other limits apply to single atoms.
CONTACT = 0.85
OXYGEN, HYDROGEN = 2.3, 1.5  # between water molecules: O–O, and all other atoms
SOLUTE = 1.6  # between atoms of water and of the solute
ION = 4.0  # between ions, and between ions and the solute
MOLAR_WATER = 55.4  # mol/L
CLOSE = 0.005  # relative error of the number of water molecules
SMALLEST = 18.0  # Å, smallest width of a box: two cutoffs of 9 Å


def solvate(
    solute: Solute | Sequence[Solute],
    water: str = "tip3p",
    padding: float = 12.0,
    shape: Shape = "cube",
    salt: float = 0.0,
    *,
    ions: tuple[str, str] = ("Na", "Cl"),
    seed: int = 0,
) -> System:
    """Put molecules into a box of water, and add ions.

    The atoms of the solute are at least `padding` from the faces of the box in each orientation of
    the solute.  Ions replace water molecules: first those that neutralise the solute, then pairs
    of ions until their concentration in the water is `salt`.  The order is solute, cations,
    anions, water.  Water is rigid.  The system should be minimised before dynamics.

    Args:
        solute: a molecule, its parameters (`jaxff.parametrize`) or a system (such as one read from
            AMBER files); or several of these, placed by their positions.  A `Molecule` gets GAFF
            parameters.
        water: "tip3p", "spce", "opc3", "tip4pew" or "opc".
        padding: Å, smallest distance between the solute and the faces of the box.
        shape: "cube" or "octahedron" (truncated, with 77 % of the volume).
        salt: mol/L, concentration of pairs of ions.
        ions: elements of the cation and of the anion, monovalent.
        seed: random seed of the places of water and ions.

    Raises:
        InputError: an argument has no valid value, GAFF has no parameters for the solute, or the
            box has no place for the ions.
    """
    model = water_model(water)
    shape = checked_choice("shape", shape, ("cube", "octahedron"))
    padding = checked_number("padding", padding, "Å", above=0.0)
    salt = checked_number("salt", salt, "mol/L", least=0.0, most=5.0)
    seed = checked_seed(seed)
    single = isinstance(solute, Molecule | Parametrization | System | str)
    several: list[Any] = [solute] if single else list(solute)
    systems = [of_molecule(one) for one in several]
    if not systems:
        raise InputError("there is no solute; use jaxff.liquid for a box of water alone")
    R = np.concatenate([system.positions for system in systems])
    centre = 0.5 * (R.min(axis=0) + R.max(axis=0))
    radius = float(np.linalg.norm(R - centre, axis=1).max())
    unit = np.eye(3) if shape == "cube" else cell.truncated_octahedron(1.0)
    box = unit * max(2.0 * (radius + padding), SMALLEST / cell.widths(unit).min())
    middle = 0.5 * box.sum(axis=0)
    copies = [Copies(s, (s.positions - centre + middle)[None]) for s in systems]
    random = np.random.default_rng(seed)
    waters = _around(copies, model, box, random)
    cations, anions, waters = _with_ions(copies, waters, model, salt, ions, box, random)
    oxygen = waters[:, :1]
    waters = waters + (_compact(oxygen - middle, box) - (oxygen - middle))
    parts = [*copies, cations, anions, Copies(of_water(model), waters)]
    return join(parts, box, " and ".join(dict.fromkeys(s.name or "solute" for s in systems)))


def _around(
    solute: Sequence[Copies], model: WaterModel, box: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Positions (W, n, 3) Å of the water molecules around a solute.

    Molecules of a tile of liquid water are missing at the faces of the box, where they would
    overlap.  The tile is therefore contracted slightly, such that the water has its density.
    """
    trials = []
    for scale in np.linspace(1.0, 0.965, 12):
        waters, wanted = _filled(solute, model, box, scale, random)
        trials.append((abs(len(waters) / max(wanted, 1.0) - 1.0), waters))
        if trials[-1][0] < CLOSE:
            break
    return min(trials, key=lambda trial: trial[0])[1]


def _filled(
    solute: Sequence[Copies],
    model: WaterModel,
    box: np.ndarray,
    scale: float,
    random: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """Positions (W, n, 3) Å of water molecules, and the number that has the density of water.

    Args:
        solute: the solute.
        model: the water model.
        box: (3, 3) Å.
        scale: () factor of the distances of molecules in the tile.
        random: source of random numbers.
    """
    template = of_water(model)
    waters = _oriented(_tiled(box, scale, random), template.positions)
    R = np.concatenate([part.positions[0] for part in solute])
    sigma = np.concatenate(
        [part.system.tables.lj.values["sigma"][part.system.tables.lj.rows] for part in solute]
    )
    epsilon = np.concatenate(
        [part.system.tables.lj.values["epsilon"][part.system.tables.lj.rows] for part in solute]
    )
    limit = np.where(epsilon > 0.0, 0.5 * CONTACT * (sigma + model.sigma), SOLUTE)
    atoms = waters[:, :3].reshape(-1, 3)
    i, j, d = close_pairs(R, waters[:, 0], box, max(float(limit.max()), SOLUTE))
    remove = [j[np.linalg.norm(d, axis=1) < limit[i]], close_pairs(R, atoms, box, SOLUTE)[1] // 3]
    keep = np.ones(len(waters), bool)
    keep[np.concatenate(remove)] = False
    wanted = scale**3 * keep.sum()
    waters = waters[keep]
    # Molecules of the tile overlap only at the faces of the box.
    oxygen, atoms = waters[:, 0], waters[:, :3].reshape(-1, 3)
    i, j, _ = close_pairs(oxygen, oxygen, box, OXYGEN)
    k, m, _ = close_pairs(atoms, atoms, box, HYDROGEN)
    i, j = np.concatenate([i, k // 3]), np.concatenate([j, m // 3])
    clashes: dict[int, set[int]] = {}
    for a, b in zip(i[i != j].tolist(), j[i != j].tolist(), strict=True):
        clashes.setdefault(a, set()).add(b)
    keep = np.ones(len(waters), bool)
    while clashes:
        worst = max(clashes, key=lambda a: (len(clashes[a]), a))
        for other in clashes.pop(worst):
            clashes[other].discard(worst)
            if not clashes[other]:
                del clashes[other]
        keep[worst] = False
    return waters[keep], wanted


def _tiled(box: np.ndarray, scale: float, random: np.random.Generator) -> np.ndarray:
    """Positions (W, 3, 3) Å of O, H, H of liquid water in a box, from the packaged tile.

    The arguments are those of `_filled`.
    """
    with resources.as_file(resources.files("jaxff") / "data" / "water_tile.npz") as path:
        file = NpzReader(path)
        tile, edge = file.need("positions").astype(float), float(file.need("edge"))
    molecules = tile.reshape(-1, 3, 3)
    molecules, edge = molecules - (1.0 - scale) * molecules[:, :1], scale * edge
    turn = rotations(1, random).as_matrix()[0]  # so that the faces of box and tile are not parallel
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) @ box
    reach = np.ceil(np.linalg.norm(corners, axis=1).max() / edge) + 1
    steps = edge * np.arange(-reach, reach + 1)
    offset = edge * random.random(3)
    inverse, out = np.linalg.inv(box), []
    for x in steps:
        for y in steps:
            cells = np.array([[x, y, z] for z in steps]) + offset
            R = (molecules[None] + cells[:, None, None]).reshape(-1, 3, 3) @ turn
            place = R[:, 0] @ inverse
            out.append(R[((place >= 0.0) & (place < 1.0)).all(axis=1)])
    return np.concatenate(out)


def _oriented(waters: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Water molecules (W, n, 3) Å of a model at the places of others, (W, 3, 3) Å."""
    oxygen, first, second = waters[:, 0], waters[:, 1], waters[:, 2]
    z = first + second - 2.0 * oxygen
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    x = first - second
    x -= (x * z).sum(axis=1, keepdims=True) * z
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    axes = np.stack([x, np.cross(z, x), z], axis=1)
    return oxygen[:, None] + np.einsum("nk,wki->wni", template, axes)


def _with_ions(
    solute: Sequence[Copies],
    waters: np.ndarray,
    model: WaterModel,
    salt: float,
    elements: tuple[str, str],
    box: np.ndarray,
    random: np.random.Generator,
) -> tuple[Copies, Copies, np.ndarray]:
    """Cations, anions and the remaining water molecules; ions take the place of oxygen.

    Raises:
        InputError: an ion is unknown or has the wrong charge, the charge of the solute is not
            whole, or there is no place for the ions.
    """
    cation, anion = (of_ion(element, model) for element in elements)
    if CHARGES[elements[0]] < 0 or CHARGES[elements[1]] > 0:
        raise InputError(f"ions must be a cation and an anion (got {' and '.join(elements)})")
    charge = sum(part.system.charge for part in solute)
    if abs(charge - round(charge)) > 1e-3:
        raise InputError(f"the solute has the charge {charge:.4f} e, which is not a whole number")
    pairs = int(np.floor(len(waters) * salt / MOLAR_WATER + 0.5))
    counts = pairs + max(-round(charge), 0), pairs + max(round(charge), 0)
    R = np.concatenate([part.positions[0] for part in solute])
    free = np.ones(len(waters), bool)
    free[close_pairs(R, waters[:, 0], box, ION)[1]] = False
    chosen: list[int] = []
    for site in random.permutation(len(waters)).tolist():
        if len(chosen) == sum(counts):
            break
        if free[site]:
            chosen.append(site)
            free[close_pairs(waters[[site], 0], waters[:, 0], box, ION)[1]] = False
    if len(chosen) < sum(counts):
        raise InputError(
            f"the box has {len(waters)} water molecules and no place for {sum(counts)} ions that "
            f"are {ION:g} Å apart; give a larger padding or less salt"
        )
    places = waters[chosen, :1]
    keep = np.ones(len(waters), bool)
    keep[chosen] = False
    return Copies(cation, places[: counts[0]]), Copies(anion, places[counts[0] :]), waters[keep]


def _compact(vectors: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The shortest periodic images of vectors (W, 1, 3) Å."""
    vectors = cell.nearest(vectors, box)
    steps = np.array([[i, j, k] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]) @ box
    images = vectors + steps
    best = np.argmin((images**2).sum(axis=-1), axis=1)
    return images[np.arange(len(images)), best][:, None]
