"""RESP charges: restrained fits to the electrostatic potential of HF/6-31G*.

Sources: C. I. Bayly, P. Cieplak, W. D. Cornell, P. A. Kollman, J. Phys. Chem. 97, 10269 (1993);
grid: U. C. Singh, P. A. Kollman, J. Comput. Chem. 5, 129 (1984).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxff.errors import InputError
from jaxff.molecule import Molecule, equivalent_atoms
from jaxff.units import BOHR

# Radii, Å, of the surfaces of Merz and Kollman.
RADII = {
    "H": 1.2, "C": 1.5, "N": 1.5, "O": 1.4, "F": 1.35, "P": 1.8, "S": 1.75, "Cl": 1.7, "Br": 2.3,
}  # fmt: skip
SHELLS = (1.4, 1.6, 1.8, 2.0)  # factors of these radii
DENSITY = 6.0  # points per Å² with a weight of 1/6 each; charges depend little on their positions
RESTRAINTS = (0.0005, 0.001)  # strength a of the restraint in the two stages, atomic units
TIGHTNESS = 0.1  # width b of the restraint, e
CONVERGED, MAX_ITERATIONS = 1e-10, 200  # e


@dataclass(frozen=True, eq=False)
class ESP:
    """The electrostatic potential of one conformer.

    Attributes:
        positions: (N, 3) Å.
        points: (K, 3) Å.
        values: (K,) hartree/e, electrostatic potential at the points.
        weight: statistical weight of each point.
    """

    positions: np.ndarray
    points: np.ndarray
    values: np.ndarray
    weight: float = 1.0


def resp(molecule: Molecule, conformers: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """RESP charges (N,) e at HF/6-31G*, by PySCF.

    Args:
        molecule: the molecule; the geometry is not optimised.
        conformers: geometries (N, 3) Å, which are fitted together (None: the geometry of the
            molecule).

    Raises:
        InputError: PySCF is not installed, 6-31G* has no functions for an element, or the SCF
            iteration does not converge.
    """
    geometries = [molecule.positions] if conformers is None else list(conformers)
    if not geometries:
        raise InputError("conformers must contain at least one geometry (got an empty list)")
    return fit_charges(molecule, [potential_at(molecule.with_positions(R)) for R in geometries])


def potential_at(molecule: Molecule) -> ESP:
    """HF/6-31G* potential of a molecule on Merz-Kollman surfaces, by PySCF.

    Raises:
        InputError: PySCF is not installed, an element or the geometry is not supported, or
            Hartree-Fock does not converge.
    """
    try:
        from pyscf import df, gto, scf
    except ImportError as error:
        raise InputError(
            "RESP charges need PySCF: pip install 'jaxff[resp]', use charges='gasteiger' "
            "(--charges gasteiger), or give the charges in a mol2 file"
        ) from error
    who = molecule.label
    unknown = sorted(set(molecule.symbols) - set(RADII))
    if unknown:
        raise InputError(
            f"{who}: RESP at HF/6-31G* is not defined for {', '.join(unknown)}; give the charges "
            "in a mol2 file"
        )
    _check_geometry(molecule)
    positions = standard_orientation(molecule)
    mol = gto.M(
        atom=list(zip(molecule.symbols, positions.tolist(), strict=True)),
        basis="6-31g*",
        charge=molecule.charge,
        cart=True,  # 6-31G* has six Cartesian d functions
        verbose=0,
    )
    field: Any = scf.RHF(mol).density_fit()
    field.conv_tol = 1e-9
    try:
        field.kernel()
    except (RuntimeError, np.linalg.LinAlgError) as error:
        raise InputError(f"{who}: Hartree-Fock failed ({error}); check the geometry") from error
    if not field.converged:
        raise InputError(f"{who}: Hartree-Fock did not converge; check the geometry and the charge")
    points = surface_points(molecule.symbols, positions)
    values = np.zeros(len(points))
    for z, R in zip(mol.atom_charges(), positions, strict=True):
        values += z / np.linalg.norm((points - R) / BOHR, axis=1)
    density = field.make_rdm1()
    at_once = max(1, int(2e8 / (8 * mol.nao**2)))
    for start in range(0, len(points), at_once):
        part = slice(start, start + at_once)
        probe = gto.fakemol_for_charges(points[part] / BOHR)
        probe.cart = True  # as for the molecule
        values[part] -= np.einsum("ijp,ij->p", df.incore.aux_e2(mol, probe), density)
    return ESP(positions, points, values, 1.0 / DENSITY)


def _check_geometry(molecule: Molecule) -> None:
    who, R = molecule.label, molecule.positions
    if (molecule.numbers.sum() - molecule.charge) % 2:
        raise InputError(
            f"{who}: RESP needs an even number of electrons (got "
            f"{molecule.numbers.sum() - molecule.charge}); correct the net charge or the hydrogens"
        )
    apart = np.linalg.norm(R[:, None] - R, axis=-1) + 10.0 * np.eye(len(R))
    if apart.min() < 0.4:
        i, j = np.unravel_index(np.argmin(apart), apart.shape)
        raise InputError(
            f"{who}: atoms {i} and {j} are only {apart.min():.2f} Å apart; move one of them"
        )
    degree = np.bincount(molecule.bonds.ravel(), minlength=len(R))
    flat = np.linalg.svd(R - R.mean(axis=0), compute_uv=False)[-1] < 0.05 if len(R) > 3 else False
    if flat and (degree >= 4).any():
        raise InputError(
            f"{who}: all atoms are in one plane, although an atom has four neighbours; give a "
            "three-dimensional geometry"
        )


def standard_orientation(molecule: Molecule) -> np.ndarray:
    """Positions (N, 3) Å in a standard orientation.

    The origin is the centre of nuclear charge, and the axes are the principal axes.  Therefore the
    charges do not depend on the orientation of the input, unless two moments of inertia are equal
    (methane, benzene).
    """
    z = molecule.numbers[:, None]
    R = molecule.positions - (z * molecule.positions).sum(axis=0) / z.sum()
    _, axes = np.linalg.eigh((z * R).T @ R)
    R = R @ axes
    for k in range(3):  # the third moments determine the signs of the axes
        skew = float((z[:, 0] * R[:, k] ** 3).sum())
        R[:, k] *= -1.0 if skew < -1e-3 else 1.0
    return R


def surface_points(symbols: Sequence[str], positions: np.ndarray) -> np.ndarray:
    """Points (K, 3) Å on spheres around atoms, outside the spheres of other atoms.

    Args:
        symbols: (N,) elements.
        positions: (N, 3) Å.
    """
    radii = np.array([RADII[s] for s in symbols])
    points = []
    for shell in SHELLS:
        for k, centre in enumerate(positions):
            radius = shell * radii[k]
            sphere = centre + radius * _sphere(round(4.0 * np.pi * radius**2 * DENSITY))
            distance = np.linalg.norm(sphere[:, None] - positions, axis=-1)
            distance[:, k] = np.inf
            points.append(sphere[(distance >= shell * radii).all(axis=1)])
    return np.concatenate(points)


def _sphere(n: int) -> np.ndarray:
    """Points (n, 3) of a Fibonacci spiral, evenly distributed on the unit sphere."""
    k = np.arange(n) + 0.5
    cos, around = 1.0 - 2.0 * k / n, np.pi * (1.0 + np.sqrt(5.0)) * k
    sin = np.sqrt(1.0 - cos**2)
    return np.stack([sin * np.cos(around), sin * np.sin(around), cos], axis=1)


# -- the fit --------------------------------------------------------------------------------


def fit_charges(molecule: Molecule, potentials: Sequence[ESP]) -> np.ndarray:
    """RESP charges (N,) e from one or several conformers, in two stages.

    The first stage fits all charges with a weak restraint.  Equivalent atoms outside methyl and
    methylene groups have equal charges.  The second stage fits the charges of methyl and methylene
    groups with a stronger restraint and equal charges of hydrogens.  All other charges are fixed.

    Args:
        molecule: elements, bonds and net charge.
        potentials: the electrostatic potential of each conformer.

    Raises:
        InputError: the fit does not converge.
    """
    matrix, vector = np.zeros((molecule.n_atoms,) * 2), np.zeros(molecule.n_atoms)
    for esp in potentials:
        distance = np.linalg.norm(esp.points[:, None] - esp.positions, axis=-1)
        inverse = BOHR / distance
        matrix += esp.weight * inverse.T @ inverse
        vector += esp.weight * inverse.T @ esp.values
    again = _methyl_and_methylene(molecule)
    classes = equivalent_atoms(molecule)
    # In the first stage each atom of these groups forms a separate class.
    alone = np.where(again, molecule.n_atoms + np.arange(molecule.n_atoms), classes)
    heavy = molecule.numbers > 1
    everywhere = np.ones(molecule.n_atoms, bool)
    first = restrained_fit(
        matrix, vector, molecule.charge, alone, heavy, RESTRAINTS[0], everywhere,
        np.zeros(molecule.n_atoms),
    )  # fmt: skip
    if not again.any():
        return first
    return restrained_fit(
        matrix, vector, molecule.charge, classes, heavy, RESTRAINTS[1], again, first
    )


def restrained_fit(
    matrix, vector, total: float, classes, restrained, strength: float, free, start
) -> np.ndarray:
    """Charges q (N,) e that minimise q·A q − 2 v·q + 2 a Σ (√(q² + b²) − b).

    The sum is over the restrained atoms, and b is `TIGHTNESS`.  The linear equations for the
    minimum are solved repeatedly, with the slope of the restraint at the previous charges.

    Args:
        matrix: A, (N, N) bohr⁻², Σ_k 1/(r_ik r_jk) over the points k.
        vector: v, (N,), Σ_k V_k/r_ik in atomic units, with the potential V_k at point k.
        total: net charge, e.
        classes: (N,) class of each atom; atoms of one class have equal charges.
        restrained: (N,) whether the charge of each atom is restrained.
        strength: a, atomic units.
        free: (N,) whether the charge of each atom is fitted; other charges are those of `start`.
        start: (N,) initial charges, e.

    Raises:
        InputError: the iteration does not converge.
    """
    names, member = np.unique(classes[free], return_inverse=True)
    spread = np.zeros((len(classes), len(names)))  # maps charges of classes to those of atoms
    spread[np.flatnonzero(free), member] = 1.0
    fixed = np.where(free, 0.0, start)
    reduced = spread.T @ matrix @ spread
    target = spread.T @ (vector - matrix @ fixed)
    count = spread.sum(axis=0)
    kkt = np.zeros((len(names) + 1,) * 2)
    kkt[:-1, -1] = kkt[-1, :-1] = count
    right = np.append(target, total - fixed.sum())
    q = start
    for _ in range(MAX_ITERATIONS):
        slope = np.where(restrained, strength / np.sqrt(q**2 + TIGHTNESS**2), 0.0)
        kkt[:-1, :-1] = reduced + np.diag(spread.T @ slope)
        new = fixed + spread @ np.linalg.solve(kkt, right)[:-1]
        done = np.abs(new - q).max() < CONVERGED
        q = new
        if done:
            return q
    raise InputError(
        f"the RESP fit did not converge in {MAX_ITERATIONS} iterations; check the geometry, or "
        "give the charges in a mol2 file"
    )


def _methyl_and_methylene(molecule: Molecule) -> np.ndarray:
    """Whether each atom (N,) belongs to a methyl or methylene group."""
    mask = np.zeros(molecule.n_atoms, bool)
    for a, z in enumerate(molecule.numbers):
        around = list(molecule.graph.neighbors(a))
        hydrogens = [b for b in around if molecule.numbers[b] == 1]
        if z == 6 and len(around) == 4 and len(hydrogens) in (2, 3):
            mask[[a, *hydrogens]] = True
    return mask
