"""GAFF for a molecule: types, charges and parameters, with the source of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import resources

import numpy as np

from jaxff.errors import InputError
from jaxff.gaff.assign import Assigned, assign, topology
from jaxff.gaff.atom_types import HYDROGEN_WORDS, rule_of
from jaxff.gaff.atom_types import atom_types as find_types
from jaxff.gaff.charges import Charges, find_charges, from_mol2
from jaxff.gaff.environment import Environment
from jaxff.gaff.lewis import Lewis, lewis_structure
from jaxff.gaff.table import ParameterTable, gaff_table
from jaxff.gaff.topology import Topology
from jaxff.molecule import Molecule
from jaxff.potential import Potential

PACKAGED = ("ethanol", "keto_malondialdehyde", "aspirin")  # molecules with packaged charges
KINDS = ("bond", "angle", "torsion", "improper")
DOUBTFUL = 5.0  # estimates with this penalty or more should be checked


@dataclass(frozen=True, eq=False)
class Parametrization:
    """A molecule with atom types, charges and parameters of GAFF.

    Attributes:
        molecule: the molecule.
        lewis: bond orders and formal charges, which determine the types.
        atom_types: (N,) GAFF types.
        charges: (N,) e; the sum is the net charge.
        charge_method: the charge model in words.
        table: the parameter file.
        assigned: all interactions with parameters, source, analogy and penalty.
    """

    molecule: Molecule
    lewis: Lewis
    atom_types: tuple[str, ...]
    charges: np.ndarray
    charge_method: str
    table: ParameterTable
    assigned: tuple[Assigned, ...]

    @cached_property
    def topology(self) -> Topology:
        """The parameters as tables."""
        return topology(self.molecule, self.atom_types, self.charges, list(self.assigned))

    def potential(
        self,
        coulomb_constant: float | None = None,
        *,
        form: str = "gaff",
        fourier_terms: int | None = None,
    ) -> Potential:
        """The potential, with this parametrization as its `origin`.

        See `Topology.potential` for arguments and errors.
        """
        potential = self.topology.potential(
            coulomb_constant, form=form, fourier_terms=fourier_terms
        )
        return potential.with_origin(self)

    @property
    def estimates(self) -> tuple[Assigned, ...]:
        """Estimates of missing parameters, in descending order of penalty."""
        estimates = {(a.kind, a.name): a for a in self.assigned if a.penalty}
        return tuple(sorted(estimates.values(), key=lambda a: (-a.penalty, a.kind, a.types)))

    def reasons(self) -> list[str]:
        """The reason for the type of each atom, N texts."""
        environment = Environment.of(self.lewis)
        return [
            HYDROGEN_WORDS[kind] if z == 1 else rule_of(environment, atom).words
            for atom, (z, kind) in enumerate(
                zip(self.molecule.numbers, self.atom_types, strict=True)
            )
        ]

    def summary(self) -> str:
        """A text with tables of atoms, of terms with their sources, and of estimates."""
        from jaxff.console import plain_table

        symbols, formal = self.molecule.symbols, self.lewis.charges
        atoms = [
            [f"{symbols[a]}{a + 1}", kind, f"{self.charges[a]:+.4f}", why]
            for a, (kind, why) in enumerate(zip(self.atom_types, self.reasons(), strict=True))
        ]
        lines = [
            f"{self.molecule.label}: {self.molecule.formula}, net charge {self.molecule.charge:+d}"
            + (f", formal charges on {self._charged(formal)}" if formal.any() else ""),
            f"parameters: {self.table.title}",
            f"charges: {self.charge_method}",
            "",
            plain_table(["atom", "type", "charge", "because"], atoms),
            "",
            plain_table(["term", "types", "times", "parameters", "source"], self._terms()),
            "",
        ]
        if self.estimates:
            rows = [[a.kind, a.name, a.analogy, a.source, f"{a.penalty:g}"] for a in self.estimates]
            lines += [
                f"{len(rows)} parameters are not in the file and were estimated "
                f"(check those with a penalty of {DOUBTFUL:g} or more):",
                plain_table(["term", "types", "estimate", "from", "penalty"], rows),
            ]
        else:
            lines.append("all parameters are from the file")
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """The contents of `summary` as JSON values."""
        return {
            "name": self.molecule.name,
            "formula": self.molecule.formula,
            "net_charge": self.molecule.charge,
            "charge_method": self.charge_method,
            "parameters": self.table.title,
            "atoms": [
                {"element": symbol, "type": kind, "charge": float(charge), "because": why}
                for symbol, kind, charge, why in zip(
                    self.molecule.symbols,
                    self.atom_types,
                    self.charges,
                    self.reasons(),
                    strict=True,
                )
            ],
            "terms": [
                {
                    "kind": a.kind,
                    "atoms": list(a.atoms),
                    "types": list(a.types),
                    "values": np.array(a.values, float).tolist(),
                    "source": a.source,
                    "analogy": a.analogy,
                    "penalty": a.penalty,
                }
                for a in self.assigned
            ],
        }

    def _charged(self, formal) -> str:
        atoms = np.flatnonzero(formal)
        return ", ".join(f"{self.molecule.symbols[a]}{a + 1} {formal[a]:+d}" for a in atoms)

    def _terms(self) -> list[list]:
        groups: dict[tuple, list[Assigned]] = {}
        for a in self.assigned:
            if a.kind in KINDS:
                groups.setdefault((KINDS.index(a.kind), a.name, a.values, a.source), []).append(a)
        rows = []
        for (kind, name, values, source), members in groups.items():
            rows.append([KINDS[kind], name, len(members), _in_words(KINDS[kind], values), source])
        return sorted(rows, key=lambda row: (KINDS.index(row[0]), row[1]))


def gaff(
    mol: Molecule,
    coulomb_constant: float | None = None,
    *,
    charges="auto",
    form: str = "gaff",
    fourier_terms: int | None = None,
) -> Potential:
    """The GAFF 1.81 potential of a molecule; its `origin` is the `Parametrization`.

    Args:
        mol: an organic molecule with all hydrogens and its net charge; see `parametrize`.
        coulomb_constant: () kcal/mol Å/e² (None: the value of AMBER, 18.2223²).
        charges: charge model or charges; see `parametrize`.
        form, fourier_terms: functional form of the bonded terms; see
            `jaxff.gaff.Topology.potential`.

    Raises:
        InputError: the form is unknown, or `parametrize` raises an error.

    Source: Wang et al., J. Comput. Chem. 25, 1157 (2004), doi:10.1002/jcc.20035.
    """
    parametrization = parametrize(mol, charges)
    return parametrization.potential(coulomb_constant, form=form, fourier_terms=fourier_terms)


def parametrize(
    mol: Molecule, charges="auto", *, atom_types: tuple[str, ...] | None = None, cache: bool = True
) -> Parametrization:
    """Assign atom types, charges and parameters of GAFF 1.81 to an organic molecule.

    Args:
        mol: molecule of H, C, N, O, S, P, F, Cl, Br and I with all hydrogens and its net charge.
            The bond orders are ignored.
        charges: "resp", "gasteiger", "am1bcc", a mol2 file or an array (N,) e; see
            `jaxff.gaff.charges.find_charges`.  "auto": packaged AM1-BCC charges for ethanol,
            keto-malondialdehyde and aspirin, and "resp" for other molecules.
        atom_types: (N,) GAFF types that replace the automatic types.
        cache: whether computed charges are stored in the user's cache folder and read from it.

    Raises:
        InputError: the molecule is a radical, contains other elements, has an impossible net
            charge, or consists of several molecules; GAFF has no type for an atom, or no
            parameters for an interaction; or the charges cannot be computed.

    Source: Wang et al., J. Comput. Chem. 25, 1157 (2004), doi:10.1002/jcc.20035.
    """
    lewis, table = lewis_structure(mol), gaff_table()
    types = find_types(lewis) if atom_types is None else _checked_types(mol, atom_types, table)
    assigned = assign(mol, types, table)  # before the charges, which may take minutes
    computed = None
    if isinstance(charges, str) and charges == "auto":
        computed = _packaged_charges(mol)
        charges = "resp"
    if computed is None:
        computed = find_charges(lewis, charges, cache=cache)
    return Parametrization(
        mol, lewis, types, computed.values, computed.method, table, tuple(assigned)
    )


def _checked_types(mol: Molecule, types, table: ParameterTable) -> tuple[str, ...]:
    types = tuple(map(str, types))
    unknown = sorted(set(types) - set(table.masses))
    if len(types) != mol.n_atoms or unknown:
        raise InputError(
            f"{mol.label}: atom_types must be {mol.n_atoms} GAFF types (got {len(types)}"
            + (f", with the unknown types {', '.join(unknown)})" if unknown else ")")
        )
    for atom, (kind, mass) in enumerate(zip(types, mol.masses, strict=True)):
        if abs(table.masses[kind] - mass) > 0.6:
            raise InputError(
                f"{mol.label}: atom {mol.symbols[atom]}{atom + 1} has the type {kind} "
                f"({table.descriptions[kind]}) of another element: correct the type"
            )
    return types


def _packaged_charges(mol: Molecule) -> Charges | None:
    for name in PACKAGED:
        try:
            with resources.as_file(resources.files("jaxff") / "data" / "gaff") as folder:
                known = from_mol2(mol, folder / f"{name}.mol2")
        except InputError:  # another molecule
            continue
        return Charges(known.values, "AM1-BCC (antechamber), packaged with jaxff")
    return None


def _in_words(kind: str, values: tuple) -> str:
    if kind == "bond":
        return f"k {values[0]:.1f}, {values[1]:.4f} Å"
    if kind == "angle":
        return f"k {values[0]:.1f}, {np.rad2deg(values[1]):.2f}°"
    return "; ".join(f"k {k:.3f}, n {n}, {np.rad2deg(phase):.0f}°" for k, n, phase in values)
