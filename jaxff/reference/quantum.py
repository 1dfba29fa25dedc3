"""Hartree-Fock and density functionals of isolated molecules: PySCF as an ASE calculator."""

from __future__ import annotations

from importlib import import_module

import numpy as np
from ase import units as ase_units
from ase.calculators.calculator import Calculator, all_changes

from jaxff.errors import InputError

COARSE = 0  # PySCF's lowest level of the integration grid


class PySCF(Calculator):
    """Energy and forces of a closed- or open-shell molecule from PySCF.

    Each geometry starts from PySCF's own guess, so that no result depends on an earlier one; a
    functional is first converged roughly on a coarse grid, which saves a fifth of the time.  A
    calculation whose density did not converge is an error, never a number.

    Args:
        xc: "hf", or a functional by PySCF's name, such as "pbe" or "b3lyp".
        basis: basis set by PySCF's name.
        dispersion: "d3bj", "d4" ... (needs pyscf-dispersion); None for none.
        charge: net charge, e.
        spin: number of unpaired electrons.
        density_fit: Coulomb integrals by density fitting, with PySCF's auxiliary basis.
        grid_level: PySCF's level of the integration grid; its response is in the forces, so that
            they are the derivative of the energy.
        conv_tol: largest change of the energy in the last cycle, hartree.
    """

    implemented_properties = ("energy", "forces")
    default_parameters = {  # noqa: RUF012 - ASE's way
        "xc": "pbe",
        "basis": "def2-svp",
        "dispersion": None,
        "charge": 0,
        "spin": 0,
        "density_fit": True,
        "grid_level": 3,
        "conv_tol": 1e-9,
    }

    def __init__(self, **options):
        unknown = sorted(set(options) - set(self.default_parameters))
        if unknown:
            raise InputError(
                f"PySCF has no option {unknown[0]!r} here; it takes "
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
                "look at the geometry, the charge and the spin"
            )
        self.results = {"energy": energy * ase_units.Hartree}
        if "forces" in properties:
            gradient = field.nuc_grad_method()
            gradient.grid_response = True
            slope = np.asarray(gradient.kernel())
            self.results["forces"] = -slope * ase_units.Hartree / ase_units.Bohr

    def _mean_field(self):
        from pyscf import dft, gto, scf

        own = self.parameters
        molecule = gto.M(
            # In bohr by ASE's constants, so that forces are derivatives in ASE's Å exactly.
            atom=list(
                zip(
                    self.atoms.get_chemical_symbols(),
                    self.atoms.positions / ase_units.Bohr,
                    strict=True,
                )
            ),
            unit="Bohr",
            basis=own.basis,
            charge=own.charge,
            spin=own.spin,
            verbose=0,
        )
        if own.xc.lower() == "hf":
            field = scf.HF(molecule)
        else:
            field = dft.KS(molecule, xc=own.xc)
            field.grids.level = own.grid_level
        if own.density_fit:
            field = field.density_fit()
        if own.dispersion:
            field.disp = own.dispersion
        field.conv_tol = own.conv_tol
        return field
