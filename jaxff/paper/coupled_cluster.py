"""Energies by coupled cluster at a few geometries, as a check of the level of theory."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import units as ase_units

from jaxff import memory, units
from jaxff.molecule import Molecule

METHODS = ("MP2 in the small basis", "CCSD(T) in the small basis", "MP2 in the large basis")
SMALL, LARGE = "cc-pvdz", "cc-pvtz"


def energies(molecule: Molecule, small: str = SMALL, large: str = LARGE) -> np.ndarray:
    """Compute energies (3,) kcal/mol by the `METHODS`, with frozen cores.

    Args:
        molecule: elements and geometry; closed-shell and neutral.
        small: PySCF's name of the basis of coupled cluster.
        large: name of the larger basis, in which density fitting is used.

    Raises:
        ImportError: PySCF is not installed.
        ValueError: a calculation does not converge.
    """
    from pyscf import cc, mp, scf
    from pyscf.data.elements import chemcore
    from pyscf.mp.dfmp2 import DFMP2

    cell = _molecule(molecule, small)
    frozen = chemcore(cell)
    field = _converged(scf.RHF(cell))
    clusters: Any = _converged(cc.CCSD(field, frozen=frozen))
    found = [
        field.e_tot + mp.MP2(field, frozen=frozen).kernel()[0],
        clusters.e_tot + clusters.ccsd_t(),
    ]
    field = _converged(scf.RHF(_molecule(molecule, large)).density_fit())
    perturbed: Any = DFMP2(field, frozen=frozen)
    found.append(field.e_tot + perturbed.kernel()[0])
    return np.array(found) * ase_units.Hartree * units.EV


def extrapolated(found: np.ndarray) -> np.ndarray:
    """Estimate energies by CCSD(T) in the large basis from the change of MP2 with the basis.

    Args:
        found: energies (..., 3) by the three `METHODS`, in any unit.

    Returns:
        the estimates (...), in the same unit.
    """
    return found[..., 1] + found[..., 2] - found[..., 0]


def _molecule(molecule: Molecule, basis: str) -> Any:
    from pyscf import gto

    atoms = list(zip(molecule.symbols, molecule.positions / ase_units.Bohr, strict=True))
    # PySCF counts the memory that the process uses already, MB.
    most = 4000 + memory.resident() // 10**6
    return gto.M(atom=atoms, unit="Bohr", basis=basis, verbose=0, max_memory=most)


def _converged(method: Any) -> Any:
    method.kernel()
    if not method.converged:
        raise ValueError(
            f"{type(method).__name__} of {method.mol.natm} atoms did not converge; check the "
            "geometry"
        )
    return method
