"""The Lewis structure of a molecule, from its connectivity and net charge alone.

Bond orders and formal charges as drawn do not enter, so that resonance forms, Kekulé structures
and aromatic bonds of one molecule all give the same structure: the cheapest by a table of
penalties, as in J. Wang, W. Wang, P. A. Kollman, D. A. Case, J. Mol. Graph. Model. 25, 247 (2006),
found here as an integer program.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from jaxff.errors import InputError
from jaxff.molecule import Molecule

# Element and number of neighbours: the (valence, formal charge, penalty) an atom may have.
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
_UNIT = 1000.0  # of the objective per unit of penalty; ties are broken by less than one


@dataclass(frozen=True, eq=False)
class Lewis:
    """Bond orders (B,) of ``molecule.bonds`` (1, 2, 3) and formal charges (N,) e."""

    molecule: Molecule
    orders: np.ndarray
    charges: np.ndarray

    def to_rdkit(self, conformer: bool = False):
        """A sanitised RDKit molecule with the atoms in the same order."""
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
        except ValueError as error:  # RDKit's own valence model is narrower
            raise InputError(
                f"{_who(self.molecule)}: RDKit refuses the structure ({error})"
            ) from error
        return mol


def lewis_structure(molecule: Molecule) -> Lewis:
    """The Lewis structure of `molecule`; the same whatever the order of its atoms.

    Raises:
        InputError: an element outside H C N O S P F Cl Br I, separate molecules, an atom with more
            neighbours than its element takes, or no structure of paired electrons for this charge.
    """
    if not isinstance(molecule, Molecule):
        raise InputError(
            f"a jaxff.Molecule is needed, got {type(molecule).__name__}; Molecule.from_smiles, "
            ".read and .from_ase make one"
        )
    who = _who(molecule)
    if molecule.charge != round(molecule.charge):
        raise InputError(f"{who}: the net charge {molecule.charge} is no whole number")
    unknown = sorted({s for s in molecule.symbols if s not in STATES})
    if unknown:
        raise InputError(
            f"{who}: {', '.join(unknown)} is not among the elements of GAFF "
            f"({', '.join(STATES)}); no parameters exist for it"
        )
    parts = _fragments(molecule)
    if parts > 1:
        raise InputError(
            f"{who}: consists of {parts} separate molecules; parametrize each by itself"
        )
    degree = np.bincount(molecule.bonds.ravel(), minlength=molecule.n_atoms)
    for atom, (symbol, neighbours) in enumerate(zip(molecule.symbols, degree, strict=True)):
        if neighbours not in STATES[symbol]:
            raise InputError(
                f"{who}: atom {symbol}{atom + 1} has {neighbours} neighbours, which no {symbol} "
                "of GAFF has; check the bonds and the geometry they were perceived from"
            )
    solved = _cheapest(molecule, degree, molecule.charge)
    if solved is None:
        fits = [q for q in range(-4, 5) if _cheapest(molecule, degree, q) is not None]
        raise InputError(
            f"{who}: no closed-shell structure has net charge {molecule.charge:+d}"
            + (
                f" (possible: {', '.join(f'{q:+d}' for q in fits)}); correct the charge, or the "
                "hydrogens"
                if fits
                else "; are hydrogens missing, or is it a radical?"
            )
        )
    return Lewis(molecule, *solved)


def canonical_ranks(molecule: Molecule) -> np.ndarray:
    """(N,) ranks of the atoms by element and bond graph alone, all different.

    Equivalent atoms are told apart arbitrarily; all else is independent of the order of atoms.
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
    """Bond orders and charges of least penalty, or None: an integer program.

    Its variables are the order of each bond beyond one, and one of the states of each atom.
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
    # Of equal structures one is chosen by the ranks of the atoms.
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
    upper = np.concatenate([np.full(n_bonds, 2.0), np.ones(len(states))])
    result = milp(
        cost,
        constraints=LinearConstraint(matrix, target, target),
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
    """n numbers in (0, 1) no two small sets of which have the same sum."""
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


def _fragments(molecule: Molecule) -> int:
    from networkx import number_connected_components

    return number_connected_components(molecule.graph)


def _who(molecule: Molecule) -> str:
    return molecule.name or molecule.formula
