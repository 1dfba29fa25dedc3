"""Boxes of liquids and mixtures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxff import cell
from jaxff.errors import InputError
from jaxff.gaff import Parametrization
from jaxff.molecule import Molecule
from jaxff.particles import AMU_PER_A3
from jaxff.settings import checked_count, checked_number, checked_seed
from jaxff.solvent.models import water_model
from jaxff.solvent.packing import packed
from jaxff.solvent.parts import Copies, join, of_molecule, of_water
from jaxff.system import System


def liquid(
    molecules: Mapping[Molecule | Parametrization | System | str, int],
    density: float,
    *,
    seed: int = 0,
) -> System:
    """A cubic box of molecules at random places and orientations, without overlaps.

    Heavy atoms of different molecules are at least 2.6 Å apart, and all other atoms at least 1.9 Å.
    The box has the given density exactly.  The order is that of `molecules`.  The system should be
    minimised and equilibrated before other use.

    Args:
        molecules: numbers of molecules.  A key is a `Molecule` (which gets GAFF parameters), its
            parameters (`jaxff.parametrize`), a system of one molecule, or the name of a water
            model, such as "tip3p".
        density: g/cm³.
        seed: random seed.

    Raises:
        InputError: a number or the density is not positive, GAFF has no parameters for a molecule,
            or the molecules do not fit into the box.
    """
    if not isinstance(molecules, Mapping) or not molecules:
        raise InputError("molecules must be a dict of molecules and their numbers")
    counts = [checked_count("number of molecules", n) for n in molecules.values()]
    density = checked_number("density", density, "g/cm³", above=0.0)
    seed = checked_seed(seed)
    systems = [
        of_water(water_model(key))
        if isinstance(key, str)
        else of_molecule(key, "MOL" if k == 0 else f"M{k + 1:02d}")
        for k, key in enumerate(molecules)
    ]
    mass = sum(n * float(s.masses.sum()) for s, n in zip(systems, counts, strict=True))
    box = cell.box_of([(mass * AMU_PER_A3 / density) ** (1.0 / 3.0)] * 3)
    largest = max(float(np.ptp(s.positions, axis=0).max()) for s in systems)
    if box[0, 0] < largest + 3.0:
        raise InputError(
            f"the box of {box[0, 0]:.1f} Å is too small for a molecule of {largest:.1f} Å; give "
            "more molecules"
        )
    placed = packed(
        [(s.positions, s.numbers > 1, n) for s, n in zip(systems, counts, strict=True)],
        box,
        np.random.default_rng(seed),
    )
    parts = [Copies(s, R) for s, R in zip(systems, placed, strict=True)]
    return join(parts, box, " and ".join(s.name or "liquid" for s in systems))
