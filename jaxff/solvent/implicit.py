"""Implicit solvents: the generalised Born potential of a molecule."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np

from jaxff import units
from jaxff.errors import InputError
from jaxff.formats.amber import topology_of
from jaxff.formats.prmtop import Prmtop
from jaxff.gaff import Parametrization, parametrize
from jaxff.gaff.born_radii import (
    carboxyl_oxygens,
    coefficients,
    environments,
    intrinsic_radii,
    screening_factors,
)
from jaxff.gaff.charges import charges_of_array
from jaxff.gaff.tables import charge_rows
from jaxff.molecule import Molecule, equivalent_atoms
from jaxff.potential import Potential
from jaxff.terms.born import ATOM_COLUMNS, MODELS, NECK_RADII, GeneralizedBorn
from jaxff.terms.pairs import AtomPairs

Name = Literal["hct", "obc1", "obc2", "gbn2"]

SOLVENT_DIELECTRIC = 78.5
SURFACE_TENSION = 0.0054  # kcal/mol/Å²


def gbsa(
    source: Molecule | Parametrization | Potential | str | Path,
    model: Name = "obc2",
    surface: Literal["ace"] | None = "ace",
    charges=None,
    *,
    radii: Literal["published", "hydration"] = "published",
    solvent_dielectric: float = SOLVENT_DIELECTRIC,
    solute_dielectric: float = 1.0,
) -> Potential:
    """The energy of a molecule in an implicit solvent, to be added to another potential.

    Args:
        source: a molecule, a parametrization, a potential with charges (such as GAFF), or the path
            of an AMBER topology (prmtop), whose radii and screening factors are used.
        model: "hct", "obc1", "obc2" or "gbn2"; see `GeneralizedBorn`.  Radii are those of
            mbondi (hct), mbondi2 (obc1, obc2) and mbondi3 (gbn2), which gives oxygens of
            carboxylate groups a smaller radius.
        surface: "ace" for a surface energy, or None.
        charges: (N,) e, or another value for `jaxff.parametrize`; None for the charges of `source`,
            which are GAFF's for a molecule.
        radii: "published", or "hydration" for radii, screening factors and surface tensions that
            were fitted to measured free energies of hydration with AM1-BCC charges, for neutral
            molecules in water (only obc2 with a surface energy).
        solvent_dielectric: dielectric constant of the solvent.
        solute_dielectric: dielectric constant of the molecule.

    Returns:
        A potential with the term "gbsa" and the energies "born" and "surface".

    Raises:
        InputError: an argument is wrong, charges are missing, or a radius does not suit the model.
    """
    if model not in MODELS:
        raise InputError(f"model must be one of {', '.join(MODELS)} (got {model!r})")
    if surface not in ("ace", None):
        raise InputError(f'surface must be "ace" or None (got {surface!r})')
    if radii not in ("published", "hydration"):
        raise InputError(f'radii must be "published" or "hydration" (got {radii!r})')
    if radii == "hydration" and (model != "obc2" or surface is None):
        raise InputError('radii="hydration" needs model="obc2" and surface="ace"')
    if not 1.0 <= solute_dielectric <= solvent_dielectric:
        raise InputError(
            "the dielectric constants must be at least 1, and that of the solvent not below that "
            f"of the molecule (got {solvent_dielectric:g} and {solute_dielectric:g})"
        )
    solute = _solute(source, charges)
    molecule = solute.molecule
    if radii == "hydration":
        names, sizes, scales, tensions = _fitted(molecule)
    else:
        names, sizes, scales, tensions = _published(solute, model)
    _check_radii(sizes, model, molecule)
    values = np.column_stack([sizes, scales, coefficients(molecule.symbols, model), tensions])
    atom_rows, labels, first = _rows(names, values)
    rows, charge_first = charge_rows(equivalent_atoms(molecule), solute.charges)
    term = GeneralizedBorn(
        n_atoms=molecule.n_atoms,
        model=model,
        surface=surface is not None,
        atom_rows=atom_rows,
        charge_rows=rows,
        labels=labels,
    )
    params = {
        **dict(zip(ATOM_COLUMNS, values[first].T.copy(), strict=True)),
        "charge": solute.charges[charge_first],
        "solute_dielectric": np.float64(solute_dielectric),
        "solvent_dielectric": np.float64(solvent_dielectric),
        "coulomb_constant": np.float64(solute.coulomb_constant),
    }
    return Potential.of("gbsa", term, params, molecule)


@dataclass(frozen=True, eq=False)
class _Solute:
    """A molecule with charges (N,) e, and radii (N,) Å and screening factors (N,), or None."""

    molecule: Molecule
    charges: np.ndarray
    coulomb_constant: float
    radii: np.ndarray | None = None
    screening: np.ndarray | None = None


def _check_radii(radii: np.ndarray, model: Name, molecule: Molecule) -> None:
    low, high = NECK_RADII if MODELS[model].neck else (MODELS[model].offset, np.inf)
    wrong = (radii < low) | (radii > high) | (radii == MODELS[model].offset)
    if wrong.any():
        atom = int(np.argmax(wrong))
        raise InputError(
            f"{molecule.label}: the radius of atom {atom} ({molecule.symbols[atom]}) is "
            f"{radii[atom]:g} Å, but {model} needs {low:g} to {high:g} Å; use another model"
        )


def _names(molecule: Molecule) -> list[str]:
    """The element of each atom, for hydrogen also that of its partner."""
    out, carboxyl = [], carboxyl_oxygens(molecule.symbols, molecule.neighbours)
    for atom, symbol in enumerate(molecule.symbols):
        if symbol == "H" and len(molecule.neighbours[atom]):
            symbol = f"H-{molecule.symbols[molecule.neighbours[atom][0]]}"
        out.append("O-carboxyl" if atom in carboxyl else symbol)
    return out


def _rows(
    names: Sequence[str], values: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...], list[int]]:
    """Rows of a table with one row for equal names and values of atoms.

    Args:
        names: (N,) names of the atoms.
        values: (N, V).

    Returns:
        The row of each atom (N,), the names of the rows, and the first atom of each row.
    """
    keys: dict[tuple, int] = {}
    rows, labels, first = [], [], []
    for atom, name in enumerate(names):
        key = name, *values[atom].tolist()
        if key not in keys:
            keys[key] = len(labels)
            repeats = sum(other[0] == name for other in keys) - 1
            labels.append(f"{name} {repeats + 1}" if repeats else name)
            first.append(atom)
        rows.append(keys[key])
    return np.array(rows, np.int32), tuple(labels), first


_Values = tuple[list[str], np.ndarray, np.ndarray, np.ndarray]


def _published(solute: _Solute, model: Name) -> _Values:
    """Names (N,), radii (N,) Å, screening factors (N,) and surface tensions (N,) kcal/mol/Å²."""
    molecule = solute.molecule
    radii, scales = solute.radii, solute.screening
    if radii is None:
        radii = intrinsic_radii(molecule.symbols, molecule.neighbours, model)
    if scales is None or model == "gbn2":
        scales = screening_factors(molecule.symbols, model)
    return _names(molecule), radii, scales, np.full(molecule.n_atoms, SURFACE_TENSION)


def _fitted(molecule: Molecule) -> _Values:
    """The fitted values in the order of `_published`; names are classes of atoms.

    Raises:
        InputError: a class of atoms was not in the fit.
    """
    table = json.loads((resources.files("jaxff.data") / "hydration.json").read_text())
    kinds = environments(molecule.symbols, molecule.neighbours)
    unknown = sorted(set(kinds) - set(table))
    if unknown:
        raise InputError(
            f'{molecule.label}: radii="hydration" has no radius for {", ".join(unknown)}; use '
            'radii="published"'
        )
    columns = ("radius", "screening", "surface_tension")
    radii, scales, tensions = np.array([[table[k][c] for c in columns] for k in kinds]).T
    return kinds, radii, scales, tensions


def _solute(source, charges) -> _Solute:
    if isinstance(source, str | Path):
        file = Prmtop(source)
        topology = topology_of(file)
        radii, screening = (file.floats(name, file.n_atoms) for name in ("RADII", "SCREEN"))
        found = _Solute(topology.molecule, topology.charges, units.AMBER_COULOMB, radii, screening)
    elif isinstance(source, Potential):
        found = _charged(source)
    elif isinstance(source, Parametrization):
        found = _Solute(source.molecule, source.charges, units.AMBER_COULOMB)
    elif isinstance(source, Molecule):
        values = parametrize(source, charges="auto" if charges is None else charges).charges
        return _Solute(source, values, units.AMBER_COULOMB)
    else:
        raise InputError(
            "an implicit solvent needs a Molecule, a Parametrization, a Potential or the path of a "
            f"prmtop file (got {type(source).__name__})"
        )
    if charges is None:
        return found
    if isinstance(charges, str | Path):
        values = parametrize(found.molecule, charges=str(charges)).charges
    else:
        values = charges_of_array(found.molecule, charges).values
    return replace(found, charges=values)


def _charged(potential: Potential) -> _Solute:
    """The molecule of a potential with its charges."""
    found = []
    for placed in potential.program.placed:
        if placed.atoms is None and isinstance(placed.term, AtomPairs):
            params = potential.params[placed.name]
            values = np.asarray(params["charge"], float)[placed.term.charge_rows]
            found.append((values, float(params["coulomb_constant"])))
    if len(found) != 1 or potential.molecule is None:
        raise InputError(
            "an implicit solvent needs a potential with a molecule and one term with charges; "
            "give the molecule and its charges instead"
        )
    return _Solute(potential.molecule, *found[0])
