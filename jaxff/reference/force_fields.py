"""Force fields of Open Babel and RDKit as ASE calculators with a fixed topology."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from ase import units as ase_units
from ase.calculators.calculator import Calculator, all_changes

from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.molecule_files import check_not_periodic

Surface = Callable[[np.ndarray], tuple[float, np.ndarray]]

# Step of central differences, Å. With four points, truncation and rounding each cause a relative
# error of about 1e-9 in forces near a minimum, and of 1e-8 in a close contact.
STEP = 2e-4
STENCIL = ((1, 2.0 / 3.0), (2, -1.0 / 12.0))
# Open Babel treats an angle within 1e-5 rad of 180° as 0°. The central atom of an angle within
# STRAIGHT (rad) of 180° is displaced by OFF_LINE (Å), which costs less than 1e-6 kcal/mol.
STRAIGHT, OFF_LINE = 2e-5, 4e-5
# Largest difference between the MMFF94 energies of two programs, kcal/mol and relative. Rounding
# of constants causes much smaller differences.
ALIKE, ALIKE_RELATIVE = 1.0, 0.02
# Cutoff that includes all pairs, in Å or in multiples of the van der Waals minimum.
EVERY_PAIR = 1e9
_OPEN_BABEL = threading.Lock()  # a process has only one object for each force field


class ForceField(Calculator):
    """Energy and forces of a molecule from a force field of Open Babel or RDKit.

    Bond orders, formal charges, atom types and parameters are the same for all geometries. They
    follow from the bonds and the net charge (`jaxff.gaff.lewis.lewis_structure`). Forces of Open
    Babel are central differences of energies, because the analytic gradients of UFF and MMFF94 in
    Open Babel are wrong around planar centres.

    Args:
        force_field: "uff", "mmff94", "ghemical" (Open Babel), "uff-rdkit" or "mmff94-rdkit".
        molecule: molecule with the bonds, in the atom order of the geometries; None for bonds
            perceived from the first geometry.
        charge: net charge, e; None for the charge of the molecule or of the first geometry.

    Attributes:
        molecule: molecule with the bonds; None before the first geometry.
        topology: SMILES string of the molecule; None before the first geometry.

    Raises:
        InputError: an unknown force field, a missing package, a molecule without a Lewis structure
            or parameters, or a geometry with other atoms than the molecule.
    """

    atoms: Any  # declared as None by ASE
    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012 - declared so

    def __init__(
        self, force_field: str, molecule: Molecule | None = None, charge: int | None = None
    ):
        super().__init__()
        if force_field not in SURFACES:
            raise InputError(
                f"unknown force field {force_field!r}: use one of {', '.join(SURFACES)}"
            )
        if not force_field.endswith("-rdkit"):
            _open_babel(force_field)  # raises an error if it is missing
        self.force_field, self.charge = force_field, charge
        self.molecule: Molecule | None = None
        self.topology: str | None = None
        if molecule is not None:
            self._set_up(molecule)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        check_not_periodic(self.atoms)
        molecule = self.molecule or self._set_up(Molecule.from_ase(self.atoms, self.charge))
        if not np.array_equal(self.atoms.numbers, molecule.numbers):
            raise InputError(
                f"this {self.force_field} calculator is for {molecule.formula} in a fixed atom "
                "order: create a new calculator for other atoms or another order"
            )
        energy, forces = self._surface(self.atoms.positions)
        unit = ase_units.kcal / ase_units.mol
        energy, forces = energy * unit, forces * unit
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}

    def _set_up(self, molecule: Molecule) -> Molecule:
        """Determine the topology from the bonds and the charge of `molecule`."""
        if self.charge is not None and self.charge != molecule.charge:
            molecule = replace(molecule, charge=self.charge)
        try:
            self._surface, self.topology = SURFACES[self.force_field](molecule), smiles(molecule)
        except InputError as error:
            raise InputError(
                f"{self.force_field} cannot assign a topology ({error}); if bonds are wrong, give "
                "a molecule with the correct bonds (`jaxff label --molecule`)"
            ) from error
        self.molecule = molecule
        return molecule


def smiles(molecule: Molecule) -> str:
    """Return the canonical SMILES string of the Lewis structure of `molecule`."""
    from rdkit import Chem

    from jaxff.gaff.lewis import lewis_structure

    return Chem.MolToSmiles(Chem.RemoveHs(lewis_structure(molecule).to_rdkit()))


def central_differences(energy: Callable[[np.ndarray], float], R: np.ndarray) -> np.ndarray:
    """Compute forces (N, 3) kcal/mol/Å at R (N, 3) Å from differences of `energy`, kcal/mol."""
    forces = np.zeros(R.shape)
    for place in np.ndindex(R.shape):
        moved = R.copy()
        for steps, weight in STENCIL:
            for sign in (1.0, -1.0):
                moved[place] = R[place] + sign * steps * STEP
                forces[place] -= sign * weight / STEP * energy(moved)
    return forces


def bent(R: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Displace the central atoms of straight angles (A, 3), so that the angles are not straight.

    Returns:
        the new positions (N, 3) Å; `R` if no angle is straight.
    """
    while len(angles):
        a, b = R[angles[:, 0]] - R[angles[:, 1]], R[angles[:, 2]] - R[angles[:, 1]]
        sine = np.linalg.norm(np.cross(a, b), axis=1)
        straight = sine < -STRAIGHT * np.sum(a * b, axis=1)
        if not straight.any():
            break
        first = int(np.argmax(straight))
        across = np.cross(a[first], np.eye(3)[np.argmin(np.abs(a[first]))])
        R = R.copy()
        R[angles[first, 1]] += OFF_LINE * across / np.linalg.norm(across)
    return R


def _rdkit_molecule(molecule: Molecule, force_field: str) -> Any:
    """Return the RDKit molecule, if RDKit has all parameters of `force_field` for this molecule.

    Open Babel silently replaces missing parameters by defaults.

    Raises:
        InputError: a parameter is missing.
    """
    from rdkit import rdBase
    from rdkit.Chem import rdForceFieldHelpers

    from jaxff.gaff.lewis import lewis_structure

    mol = lewis_structure(molecule).to_rdkit(conformer=True)
    known = {
        "mmff94": rdForceFieldHelpers.MMFFHasAllMoleculeParams,
        "uff": rdForceFieldHelpers.UFFHasAllMoleculeParams,
    }[force_field]
    with rdBase.BlockLogs():
        if not known(mol):
            raise InputError(
                f"{force_field.upper()} lacks parameters for {molecule.label}: use another "
                "calculator"
            )
    return mol


def _rdkit_mmff94(molecule: Molecule) -> Surface:
    from rdkit.Chem import rdForceFieldHelpers

    mol = _rdkit_molecule(molecule, "mmff94")
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol)
    return _rdkit_surface(
        mol,
        rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, properties, nonBondedThresh=EVERY_PAIR),
    )


def _rdkit_uff(molecule: Molecule) -> Surface:
    from rdkit.Chem import rdForceFieldHelpers

    mol = _rdkit_molecule(molecule, "uff")
    return _rdkit_surface(
        mol, rdForceFieldHelpers.UFFGetMoleculeForceField(mol, vdwThresh=EVERY_PAIR)
    )


def _rdkit_surface(mol: Any, field: Any) -> Surface:
    field.Initialize()

    def surface(R):
        flat = R.ravel().tolist()
        # The closure keeps `mol` alive, because `field` points to it.
        return field.CalcEnergy(flat), -np.array(field.CalcGrad(flat)).reshape(mol.GetNumAtoms(), 3)

    return surface


def _open_babel(name: str) -> tuple[Any, Any]:
    """Return the module of Open Babel, and Open Babel's force field `name`."""
    try:
        from openbabel import openbabel
    except ImportError as error:
        raise InputError(
            f'Open Babel cannot be imported ({error}): pip install "jaxff[openbabel]"'
        ) from error
    field = openbabel.OBForceField.FindForceField(name)
    if field is None:
        raise InputError(f"Open Babel has no force field {name!r}: reinstall Open Babel")
    return openbabel, field


def _open_babel_surface(name: str, molecule: Molecule) -> Surface:
    from jaxff.gaff.lewis import lewis_structure

    openbabel, field = _open_babel(name)
    if name in ("mmff94", "uff"):
        _rdkit_molecule(molecule, name)
    lewis = lewis_structure(molecule)
    start = np.array(molecule.positions)
    with _OPEN_BABEL:
        mol = openbabel.OBMol()
        mol.BeginModify()
        for z, charge in zip(molecule.numbers.tolist(), lewis.charges.tolist(), strict=True):
            atom = mol.NewAtom()
            atom.SetAtomicNum(z)
            atom.SetFormalCharge(charge)
        for (i, j), order in zip(molecule.bonds.tolist(), lewis.orders.tolist(), strict=True):
            mol.AddBond(i + 1, j + 1, order)
        mol.EndModify()
        mol.SetTotalCharge(int(molecule.charge))
        atoms = [mol.GetAtom(i + 1) for i in range(molecule.n_atoms)]
        _place(atoms, start)
        if not field.Setup(mol):
            raise InputError(
                f"Open Babel cannot assign {name} types to {molecule.label}: use another calculator"
            )
        unit = {"kcal/mol": 1.0, "kJ/mol": ase_units.kJ / ase_units.kcal}[field.GetUnit()]

    angles = np.array(
        [(n[0], j, n[1]) for j, n in enumerate(molecule.neighbours) if len(n) == 2], int
    ).reshape(-1, 3)

    def energy(R):
        _place(atoms, bent(R, angles))
        field.SetCoordinates(mol)
        return field.Energy(False) * unit

    def surface(R):
        with _OPEN_BABEL:
            # Another molecule may have been set up since the last call. `Setup` cannot distinguish
            # isomers, unless an empty molecule is set up between the two.
            field.Setup(openbabel.OBMol())
            _place(atoms, start)
            field.Setup(mol)
            return energy(R), central_differences(energy, R)

    if name == "mmff94":
        _check_energies(molecule, surface(start)[0], _rdkit_mmff94(molecule)(start)[0])
    return surface


def _check_energies(molecule: Molecule, energy: float, other: float) -> None:
    """Raise InputError if the energies of Open Babel and RDKit, kcal/mol, differ."""
    if abs(energy - other) > ALIKE + ALIKE_RELATIVE * abs(other):
        raise InputError(
            f"Open Babel lacks MMFF94 parameters for {molecule.label} (energy {energy:.6g} "
            f'kcal/mol instead of {other:.6g} by RDKit): use "mmff94-rdkit"'
        )


def _place(atoms, R: np.ndarray) -> None:
    for atom, (x, y, z) in zip(atoms, R.tolist(), strict=True):
        atom.SetVector(x, y, z)


SURFACES: dict[str, Callable[[Molecule], Surface]] = {
    "uff": lambda molecule: _open_babel_surface("uff", molecule),
    "mmff94": lambda molecule: _open_babel_surface("mmff94", molecule),
    "ghemical": lambda molecule: _open_babel_surface("ghemical", molecule),
    "uff-rdkit": _rdkit_uff,
    "mmff94-rdkit": _rdkit_mmff94,
}
