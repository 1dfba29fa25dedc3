"""PySCF as an ASE calculator for isolated molecules."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from ase import units as ase_units
from ase.calculators.calculator import Calculator, all_changes

from jaxff.errors import InputError

COARSE = 0  # PySCF's lowest level of the integration grid


class PySCF(Calculator):
    """Energy and forces of a closed-shell or open-shell molecule from PySCF.

    Each geometry starts from PySCF's initial guess, so results do not depend on earlier
    geometries. Functionals are first converged on a coarse grid, which saves a fifth of the time.
    The forces include the response of the grid.

    Args:
        xc: "hf", or PySCF's name of a functional, such as "pbe" or "b3lyp".
        basis: PySCF's name of a basis set.
        dispersion: dispersion correction such as "d3bj" or "d4" (needs pyscf-dispersion), or None.
        charge: net charge, e.
        spin: number of unpaired electrons.
        density_fit: whether Coulomb integrals use density fitting, with PySCF's auxiliary basis.
        grid_level: PySCF's level of the integration grid.
        conv_tol: convergence threshold of the energy, hartree.

    Raises:
        InputError: an unknown option, or PySCF is not installed.
        ValueError: the SCF of a geometry did not converge.
    """

    atoms: Any  # declared as None by ASE
    parameters: Any
    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - declared so by ASE
    default_parameters = {  # noqa: RUF012
        "xc": "pbe",
        "basis": "def2-svp",
        "dispersion": None,
        "charge": 0,
        "spin": 0,
        "density_fit": True,
        "grid_level": 3,
        "conv_tol": 1e-9,
    }

    def __init__(self, **options: Any):
        unknown = sorted(set(options) - set(self.default_parameters))
        if unknown:
            raise InputError(
                f"the PySCF calculator has no option {unknown[0]!r}: use one of "
                f"{', '.join(self.default_parameters)}"
            )
        try:
            import_module("pyscf")
            if options.get("dispersion"):
                import_module("pyscf.dispersion")
        except ImportError as error:
            raise InputError(
                f'PySCF cannot be imported ({error}): pip install "jaxff[quantum]"'
            ) from error
        super().__init__(**options)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        field, guess = self._mean_field(), None
        if self.parameters.xc.lower() != "hf" and self.parameters.grid_level > COARSE:
            rough = self._mean_field()
            rough.grids.level, rough.conv_tol, rough.disp = COARSE, 1e-6, None
            rough.kernel()
            guess = rough.make_rdm1()
        energy = field.kernel(guess)
        if not field.converged:
            raise ValueError(
                f"the SCF of {self.atoms.get_chemical_formula()} did not converge; "
                "check the geometry, the charge and the spin"
            )
        self.results = {"energy": energy * ase_units.Hartree}
        if "forces" in properties:
            gradient = field.nuc_grad_method()
            gradient.grid_response = True
            slope = np.asarray(gradient.kernel())
            self.results["forces"] = -slope * ase_units.Hartree / ase_units.Bohr

    def _mean_field(self) -> Any:
        """Return PySCF's mean-field method for the current geometry and options."""
        from pyscf import dft, gto, scf

        options = self.parameters
        symbols = self.atoms.get_chemical_symbols()
        molecule = gto.M(
            # In bohr by ASE's constants, so that forces are derivatives in ASE's Å exactly.
            atom=list(zip(symbols, self.atoms.positions / ase_units.Bohr, strict=True)),
            unit="Bohr",
            basis=options.basis,
            charge=options.charge,
            spin=options.spin,
            verbose=0,
        )
        field: Any
        if options.xc.lower() == "hf":
            field = scf.HF(molecule)
        else:
            field = dft.KS(molecule, xc=options.xc)
            field.grids.level = options.grid_level
        if options.density_fit:
            field = field.density_fit()
        if options.dispersion:
            field.disp = options.dispersion
        field.conv_tol = options.conv_tol
        return field
