"""Topologies: AMBER force fields of molecules as tables.

Force-field files and potentials are converted to and from a `Topology`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxff.errors import InputError
from jaxff.gaff.bonded import Table, with_periodicities
from jaxff.gaff.forms import form_of
from jaxff.gaff.tables import INTERACTIONS, Tables
from jaxff.molecule import Molecule, equivalent_atoms
from jaxff.potential import Placed, Potential
from jaxff.terms.pairs import Nonbonded
from jaxff.terms.torsion import FourierTorsion

SCEE, SCNB = 1.2, 2.0  # divisors of Coulomb and Lennard-Jones 1-4 interactions in AMBER
# Advice, in the Python interface and in the command line.
KEEP = "keep the model as an npz file, which can express every term"
# The attribute of `Tables` for each kind of bonded terms of AMBER.
_KINDS = {
    "harmonic_bond": "bonds",
    "harmonic_angle": "angles",
    "fourier_torsion": "torsions",
    "fourier_improper": "impropers",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Topology(Tables):
    """The AMBER force field of a molecule; see `Tables` for the other attributes.

    Attributes:
        molecule: elements, bonds and net charge; positions are zero if the source has none.
    """

    molecule: Molecule

    def reorder(self, order: Sequence[int] | np.ndarray) -> Topology:
        """The topology with atom ``order[i]`` at place i.

        Args:
            order: (N,) permutation of the atom indices.
        """
        order = np.asarray(order, int)
        return replace(self.renumbered(order), molecule=self.molecule.reorder(order))

    @classmethod
    def of(
        cls, potential: Potential, who: str = "the potential", ignored: tuple[str, ...] = ()
    ) -> Topology:
        """The topology of a potential with the functional form of AMBER.

        Args:
            potential: a potential with at most one term of each kind: harmonic bonds, harmonic
                angles, Fourier torsions, Fourier impropers and a nonbonded term.
            who: the file or program that needs the topology, for messages.
            ignored: kinds of terms that are omitted.

        Raises:
            InputError: the potential has no molecule or no nonbonded term; or a term is of another
                kind, acts on some atoms only, occurs twice or is scaled.
        """
        terms: dict[str, Any] = {}
        params: dict[str, dict[str, np.ndarray]] = {}
        for placed in potential.program.placed:
            kind = placed.term.kind
            if kind in ignored:
                continue
            if kind not in (*_KINDS, "nonbonded"):
                other = "write an OpenMM System (xml), or " if kind == "morse_bond" else ""
                raise InputError(
                    f"{who} cannot express the term {placed.name!r} ({kind}); {other}{KEEP}"
                )
            group = potential.params[placed.name]
            if kind in terms or placed.atoms is not None or "scale" in group:
                raise InputError(
                    f"{who} cannot express the term {placed.name!r}, which is scaled, acts on some "
                    f"atoms only, or is not the only term of its kind; {KEEP}"
                )
            terms[kind] = placed.term
            params[kind] = {key: np.asarray(v, float) for key, v in group.items()}
        if potential.molecule is None or "nonbonded" not in terms:
            raise InputError(
                f"{who} needs a potential with a molecule and a nonbonded term (got {potential!r})"
            )
        tables = {
            name: _table(terms[kind], params[kind])
            if kind in terms
            else Table.empty(*INTERACTIONS[name])
            for kind, name in _KINDS.items()
        }
        oriented = centre_third(tables["impropers"].atoms, potential.molecule.bonds)
        tables["impropers"] = replace(tables["impropers"], atoms=oriented)
        pairs, values = terms["nonbonded"], params["nonbonded"]

        def columns(*names: str) -> dict[str, np.ndarray]:
            return {name: values[name] for name in names if name in values}

        return cls(
            molecule=potential.molecule,
            atom_types=tuple(pairs.lj_labels[row] for row in pairs.lj_rows),
            charges=values["charge"][pairs.charge_rows],
            lj=Table(
                np.arange(pairs.n_atoms)[:, None],
                pairs.lj_rows,
                pairs.lj_labels,
                columns("sigma", "epsilon"),
            ),
            lj_overrides=Table(
                pairs.overrides,
                np.arange(len(pairs.overrides)),
                tuple("-".join(pairs.lj_labels[x] for x in pair) for pair in pairs.overrides),
                columns("c12", "c6"),
            ),
            pairs14=Table(
                pairs.pairs14,
                pairs.rows14,
                ("1-4",) * len(values["lj14"]),
                columns("lj14", "coulomb14"),
            ),
            exclusions=pairs.exclusions,
            **tables,
        )

    def potential(
        self,
        coulomb_constant: float | None = None,
        *,
        form: str = "gaff",
        fourier_terms: int | None = None,
    ) -> Potential:
        """The potential of this topology.

        Args:
            coulomb_constant: () kcal/mol Å/e² (None: the value of AMBER, 18.2223²).
            form: functional form of the bonded terms, a key of `jaxff.gaff.FORMS`.
            fourier_terms: largest periodicity of torsions; missing Fourier terms are added with
                k = 0 (0: none is added; None: the default of the form).

        Raises:
            InputError: the form is unknown, or `fourier_terms` is too large.
        """
        functional = form_of(form)
        most = functional.fourier_terms if fourier_terms is None else fourier_terms
        torsions = self.torsions
        if most != 0:
            torsions = with_periodicities(torsions, most, self.atom_types)
        bonded = replace(self.bonded(), torsions=torsions)
        terms: dict[str, tuple[Any, Mapping]] = functional.terms()(bonded)
        shape, params = self.nonbonded(equivalent_atoms(self.molecule), coulomb_constant)
        terms["nonbonded"] = Nonbonded(**shape), params
        placed = [Placed(name, term) for name, (term, _) in terms.items()]
        params = {name: values for name, (_, values) in terms.items()}
        return Potential(placed, params, self.molecule)


def _table(term: Any, values: dict[str, np.ndarray]) -> Table:
    """The table of a bonded term, with one entry for each Fourier term of a dihedral.

    Args:
        term: the term.
        values: {column: (T,)} parameters of the term.
    """
    if not isinstance(term, FourierTorsion):
        return Table(term.atoms, term.rows, term.labels, values)
    quadruple, slot = np.nonzero(term.rows >= 0)
    rows = term.rows[quadruple, slot]
    periodicity = np.zeros(len(term.labels), int)
    periodicity[rows] = np.array(term.periodicities, int)[slot]
    return Table(term.atoms[quadruple], rows, term.labels, values | {"periodicity": periodicity})


def centre_third(atoms: np.ndarray, bonds: np.ndarray) -> np.ndarray:
    """Impropers (n, 4), reversed if the centre is the second atom.

    The centre is bonded to the other three atoms.  Files may contain both directions, because their
    energies are equal.

    Args:
        atoms: (n, 4) atom indices.
        bonds: (B, 2) atom indices.
    """
    bonded = set(map(tuple, bonds.tolist())) | set(map(tuple, bonds[:, ::-1].tolist()))

    def is_centre(row: list[int], k: int) -> bool:
        return all((row[k], other) in bonded for other in row if other != row[k])

    rows = np.asarray(atoms, int).reshape(-1, 4).tolist()
    turned = [r[::-1] if not is_centre(r, 2) and is_centre(r, 1) else r for r in rows]
    return np.array(turned, np.int32).reshape(-1, 4)
