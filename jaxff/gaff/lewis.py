"""The Lewis structure of a molecule, from its bond graph and net charge.

Bond orders and formal charges of the input are ignored.  Therefore all resonance forms of a
molecule give the same structure, the one with the smallest sum of penalties.  An integer program
finds this structure.  The penalties follow J. Wang, W. Wang, P. A. Kollman, D. A. Case, J. Mol.
Graph. Model. 25, 247 (2006).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from jaxff.errors import InputError
from jaxff.molecule import Molecule

# Possible (valence, formal charge, penalty) of an atom, by its element and number of neighbours.
STATES: dict[str, dict[int, tuple[tuple[int, int, int], ...]]] = {
    "H": {0: ((0, 1, 30),), 1: ((1, 0, 0),)},
    "C": {
        1: ((3, -1, 10), (4, 0, 40)),
        2: ((4, 0, 0), (3, -1, 40)),
        3: ((4, 0, 0), (3, -1, 30), (3, 1, 35)),
        4: ((4, 0, 0),),
    },
    "N": {
        1: ((3, 0, 0), (2, -1, 11)),
        2: ((3, 0, 0), (4, 1, 11), (2, -1, 12)),
        3: ((3, 0, 0), (4, 1, 10)),
        4: ((4, 1, 10),),
    },
    "O": {
        0: ((0, -2, 30),),
        1: ((2, 0, 0), (1, -1, 10), (3, 1, 25)),
        2: ((2, 0, 0), (3, 1, 20)),
        3: ((3, 1, 20),),
    },
    "P": {
        1: ((3, 0, 0), (2, -1, 20)),
        2: ((3, 0, 0), (2, -1, 20), (4, 1, 25)),
        3: ((3, 0, 0), (5, 0, 5), (4, 1, 25)),
        4: ((5, 0, 0), (4, 1, 13), (6, -1, 25)),
        5: ((5, 0, 0),),
    },
    "S": {
        1: ((2, 0, 0), (1, -1, 9)),
        2: ((2, 0, 0), (4, 0, 3), (3, 1, 20), (3, -1, 25)),
        3: ((4, 0, 0), (3, 1, 13), (6, 0, 3), (5, -1, 25)),
        4: ((6, 0, 0), (5, 1, 25), (4, 0, 1)),
        6: ((6, 0, 0),),
    },
    "F": {0: ((0, -1, 10),), 1: ((1, 0, 0),)},
    "Cl": {0: ((0, -1, 10),), 1: ((1, 0, 0),)},
    "Br": {0: ((0, -1, 10),), 1: ((1, 0, 0),)},
    "I": {0: ((0, -1, 10),), 1: ((1, 0, 0),)},
}
_UNIT = 1000.0  # weight of the penalties; the costs that select among equal structures are below 1


@dataclass(frozen=True, eq=False)
class Lewis:
    """A Lewis structure.

    Attributes:
        molecule: the molecule.
        orders: (B,) bond orders 1, 2 or 3 of ``molecule.bonds``.
        charges: (N,) formal charges, e.
    """

    molecule: Molecule
    orders: np.ndarray
    charges: np.ndarray

    def to_rdkit(self, conformer: bool = False) -> Any:
        """A sanitised RDKit molecule with the same atom order.

        Args:
            conformer: whether the result contains the geometry of the molecule.

        Raises:
            InputError: RDKit does not accept the structure.
        """
        from rdkit import Chem

        mol = _bare(self.molecule)
        for bond, order in zip(mol.GetBonds(), self.orders, strict=True):
            bond.SetBondType(Chem.BondType.values[int(order)])
        for atom, charge in zip(mol.GetAtoms(), self.charges, strict=True):
            atom.SetFormalCharge(int(charge))
        mol = mol.GetMol()
        if conformer:
            points = Chem.Conformer(self.molecule.n_atoms)
            points.SetPositions(np.array(self.molecule.positions))
            mol.AddConformer(points)
        try:
            Chem.SanitizeMol(mol)
        except ValueError as error:  # RDKit allows fewer valences
            raise InputError(
                f"{self.molecule.label}: RDKit does not accept the structure ({error}): correct "
                "the bonds or the net charge"
            ) from error
        return mol


def lewis_structure(molecule: Molecule) -> Lewis:
    """The Lewis structure of a molecule; it does not depend on the order of atoms.

    Raises:
        InputError: GAFF does not support an element, there are several molecules, an atom has too
            many neighbours, or no closed-shell structure exists.
    """
    if not isinstance(molecule, Molecule):
        raise InputError(
            f"molecule must be a jaxff.Molecule (got {type(molecule).__name__}); make one by "
            "Molecule.from_smiles, Molecule.read or Molecule.from_ase"
        )
    from networkx import number_connected_components

    who = molecule.label
    if molecule.charge != round(molecule.charge):
        raise InputError(f"{who}: the net charge must be a whole number (got {molecule.charge})")
    unknown = sorted({s for s in molecule.symbols if s not in STATES})
    if unknown:
        raise InputError(
            f"{who}: GAFF has no parameters for {', '.join(unknown)}; use molecules of "
            f"{', '.join(STATES)}"
        )
    parts = number_connected_components(molecule.graph)
    if parts > 1:
        raise InputError(
            f"{who}: the molecule consists of {parts} separate molecules; parametrize each of them"
        )
    degree = np.bincount(molecule.bonds.ravel(), minlength=molecule.n_atoms)
    for atom, (symbol, neighbours) in enumerate(zip(molecule.symbols, degree, strict=True)):
        if neighbours not in STATES[symbol]:
            raise InputError(
                f"{who}: atom {symbol}{atom + 1} has {neighbours} neighbours, which GAFF does not "
                f"allow for {symbol}; check the geometry and the bonds"
            )
    solved = _cheapest(molecule, degree, molecule.charge)
    if solved is None:
        fits = [q for q in range(-4, 5) if _cheapest(molecule, degree, q) is not None]
        raise InputError(
            f"{who}: no closed-shell structure has the net charge {molecule.charge:+d}"
            + (
                f" (possible: {', '.join(f'{q:+d}' for q in fits)}); correct the charge "
                "(--charge) or the hydrogens"
                if fits
                else "; add missing hydrogens (radicals are not supported)"
            )
        )
    return Lewis(molecule, *solved)


def canonical_ranks(molecule: Molecule) -> np.ndarray:
    """A different rank for each atom (N,), from elements and bond graph.

    The ranks do not depend on the order of the atoms, except that equivalent atoms are ranked
    arbitrarily.
    """
    from rdkit import Chem

    mol = _bare(molecule).GetMol()
    for atom in mol.GetAtoms():
        atom.SetNoImplicit(True)
    mol.UpdatePropertyCache(strict=False)
    return np.array(list(Chem.CanonicalRankAtoms(mol, breakTies=True)))


def _cheapest(molecule, degree, charge) -> tuple[np.ndarray, np.ndarray] | None:
    key = (tuple(molecule.symbols), tuple(map(tuple, molecule.bonds.tolist())), charge)
    ranks = canonical_ranks(molecule)
    return _solve(*key, tuple(degree.tolist()), tuple(ranks.tolist()))


@lru_cache(maxsize=256)
def _solve(symbols, bonds, charge, degree, ranks):
    """The Lewis structure with the smallest penalty.

    The variables of the integer program are the bond orders minus one and the state of each atom.

    Args:
        symbols: (N,) elements.
        bonds: (B, 2) atom indices.
        charge: net charge, e.
        degree: (N,) numbers of neighbours.
        ranks: (N,) ranks of the atoms, which select one of several structures of equal penalty.

    Returns:
        Bond orders (B,) and formal charges (N,), or None if there is no structure.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    states = [
        (atom, *state)
        for atom, (symbol, n) in enumerate(zip(symbols, degree, strict=True))
        for state in STATES[symbol][n]
    ]
    n_atoms, n_bonds = len(symbols), len(bonds)
    size = n_bonds + len(states)
    cost = np.zeros(size)
    ranked = np.sort(np.array(ranks)[np.array(bonds, int).reshape(-1, 2)], axis=1)
    order = np.lexsort(ranked.T)
    cost[order] = 0.5 * _UNIT * _spread(n_bonds) / max(n_bonds, 1)
    matrix = np.zeros((2 * n_atoms + 1, size))
    target = np.zeros(2 * n_atoms + 1)
    for b, pair in enumerate(bonds):
        matrix[list(pair), b] = 1.0
    for column, (atom, valence, formal, penalty) in enumerate(states, n_bonds):
        cost[column] = _UNIT * penalty
        matrix[atom, column] = degree[atom] - valence  # Σ (order − 1) = valence − neighbours
        matrix[n_atoms + atom, column] = 1.0
        matrix[-1, column] = formal
    target[n_atoms:-1] = 1.0
    target[-1] = charge
    upper: Any = np.concatenate([np.full(n_bonds, 2.0), np.ones(len(states))])
    bound: Any = target
    result = milp(
        cost,
        constraints=LinearConstraint(matrix, bound, bound),
        integrality=np.ones(size),
        bounds=Bounds(0.0, upper),
        options={"mip_rel_gap": 0.0},
    )
    if result.x is None:
        return None
    x = np.round(result.x).astype(int)
    charges = np.zeros(n_atoms, int)
    for taken, (atom, _, formal, _) in zip(x[n_bonds:], states, strict=True):
        charges[atom] += taken * formal
    return x[:n_bonds] + 1, charges


def _spread(n: int) -> np.ndarray:
    """Numbers (n,) between 0 and 1; small subsets of them have different sums."""
    return np.modf(np.sqrt(2.0) * np.arange(1, n + 1) ** 2 * 0.6180339887498949)[0]


def _bare(molecule: Molecule):
    from rdkit import Chem

    mol = Chem.RWMol()
    for z in molecule.numbers.tolist():
        atom = Chem.Atom(z)
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
    for i, j in molecule.bonds.tolist():
        mol.AddBond(i, j, Chem.BondType.SINGLE)
    return mol
