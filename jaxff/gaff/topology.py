"""Topology: a molecule's force field as readable tables, between its file and its Potential."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.potential import Placed, Potential
from jaxff.terms.angle import HarmonicAngle
from jaxff.terms.bond import HarmonicBond
from jaxff.terms.class2 import ClassTwo
from jaxff.terms.morse import MorseBond
from jaxff.terms.pairs import Nonbonded
from jaxff.terms.torsion import FourierImproper, FourierTorsion
from jaxff.units import AMBER_COULOMB

_KINDS = (
    "harmonic_bond",
    "harmonic_angle",
    "fourier_torsion",
    "fourier_improper",
    "nonbonded",
)
_LJ = ("sigma", "epsilon")
SCEE, SCNB = 1.2, 2.0  # AMBER's divisors of 1-4 interactions
MORSE_DEPTH = 0.3  # Å², times k: near the dissociation energies of most bonds


@dataclass(frozen=True, eq=False)
class Table:
    """Interactions of one kind and the table of their types.

    Attributes:
        atoms: (n, k) atom indices.
        rows: (n,) the type of each interaction.
        labels: (T,) names of the types, such as "c3-hc".
        values: {column: (T,)} parameters of the types, in jaxff's units.
    """

    atoms: np.ndarray
    rows: np.ndarray
    labels: tuple[str, ...]
    values: dict[str, np.ndarray]

    @classmethod
    def of(cls, atoms, names: Sequence[str], values: dict[str, np.ndarray]) -> Table:
        """One type for each distinct name and values; `names` and `values` by interaction."""
        key = np.array([np.unique(v, return_inverse=True)[1] for v in [names, *values.values()]])
        _, first, rows = np.unique(key, axis=1, return_index=True, return_inverse=True)
        labels = tuple(str(names[i]) for i in first)
        own = {column: np.asarray(v)[first] for column, v in values.items()}
        return cls(np.asarray(atoms, np.int32), rows.ravel().astype(np.int32), labels, own)

    @classmethod
    def empty(cls, width: int, columns: Sequence[str] = ()) -> Table:
        """No interactions of `width` atoms."""
        values = {column: np.zeros(0) for column in columns}
        return cls(np.zeros((0, width), np.int32), np.zeros(0, np.int32), (), values)

    def _renumbered(self, place: np.ndarray) -> Table:
        return replace(self, atoms=place[self.atoms])


@dataclass(frozen=True, eq=False)
class Topology:
    """A molecule's AMBER force field.

    Attributes:
        molecule: elements, bonds, net charge; positions are zero where the source has none.
        atom_types: (N,) names.
        charges: (N,) e.
        bonds: atoms (B, 2); k kcal/mol/Å² (no ½), length Å.
        angles: atoms (A, 3), the vertex second; k kcal/mol/rad² (no ½), angle rad.
        torsions, impropers: atoms (n, 4), one entry a Fourier term; k kcal/mol, periodicity,
            phase rad.  The third atom of an improper is its centre.
        lj: atoms (N, 1); sigma Å, epsilon kcal/mol.
        lj_overrides: atoms (V, 2), here types of `lj`; c12 kcal/mol Å¹², c6 kcal/mol Å⁶, in
            place of what the combination rules give.
        pairs14: atoms (P, 2); the factors lj14 and coulomb14, 1/SCNB and 1/SCEE.
        exclusions: (E, 2) pairs without the normal nonbonded interaction, 1-4 pairs among them.
    """

    molecule: Molecule
    atom_types: tuple[str, ...]
    charges: np.ndarray
    bonds: Table
    angles: Table
    torsions: Table
    impropers: Table
    lj: Table
    lj_overrides: Table
    pairs14: Table
    exclusions: np.ndarray

    def reorder(self, order: Sequence[int]) -> Topology:
        """The same topology with atom ``order[i]`` in place i; order (N,) is a permutation."""
        order = np.asarray(order, int)
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order))
        per_atom = replace(self.lj, rows=self.lj.rows[order])
        tables = ("bonds", "angles", "torsions", "impropers", "pairs14")
        return replace(
            self,
            molecule=self.molecule.reorder(order),
            atom_types=tuple(self.atom_types[i] for i in order),
            charges=self.charges[order],
            lj=per_atom,
            exclusions=place[self.exclusions],
            **{name: getattr(self, name)._renumbered(place) for name in tables},
        )

    @classmethod
    def of(
        cls, potential: Potential, who: str = "the potential", beside: tuple[str, ...] = ()
    ) -> Topology:
        """The topology of a potential made of AMBER's terms, with its present parameters.

        Args:
            potential: harmonic bonds and angles, Fourier torsions and impropers, and nonbonded
                terms, one of each at most and on all atoms.
            who: what messages call the place it is wanted for.
            beside: kinds of terms that are left out, because the caller sees to them.

        Raises:
            InputError: another kind of term, named; a term on some atoms, twice or scaled; a
                potential that does not know its molecule.
        """
        found: dict[str, tuple[str, object]] = {}
        for placed in potential.program.placed:
            kind = placed.term.kind
            if kind in beside:
                continue
            if kind not in _KINDS:
                other = "an OpenMM System (xml) can, " if kind == "morse_bond" else ""
                raise InputError(
                    f"{who} cannot express the term {placed.name!r} ({kind}); {other}jaxff.save "
                    "keeps it in jaxff's own npz format, .only(...) leaves it out"
                )
            own = potential.params[placed.name]
            if kind in found or placed.atoms is not None or "scale" in own:
                raise InputError(
                    f"{who} cannot express the term {placed.name!r}: it is one of several of its "
                    "kind, scaled, or on some atoms only; jaxff.save writes any potential"
                )
            found[kind] = placed.name, placed.term
        if potential.molecule is None or "nonbonded" not in found:
            raise InputError(f"{who} needs a potential with a molecule and a nonbonded term")

        def table(kind: str, width: int, columns: tuple[str, ...]) -> Table:
            if kind not in found:
                return Table.empty(width, columns)
            name, term = found[kind]
            own = {key: np.asarray(v, float) for key, v in potential.params[name].items()}
            if not isinstance(term, FourierTorsion):
                return Table(term.atoms, term.rows, term.labels, own)
            quadruple, slot = np.nonzero(term.rows >= 0)
            rows = term.rows[quadruple, slot]
            periodicity = np.zeros(len(term.labels), int)
            periodicity[rows] = np.array(term.periodicities, int)[slot]
            own["periodicity"] = periodicity
            return Table(term.atoms[quadruple], rows, term.labels, own)

        impropers = table("fourier_improper", 4, ("k", "periodicity", "phase"))
        oriented = centre_third(impropers.atoms, potential.molecule.bonds)
        name, term = found["nonbonded"]
        own = {key: np.asarray(v, float) for key, v in potential.params[name].items()}
        atoms = np.arange(term.n_atoms)[:, None]
        pairs = {c: own[c] for c in ("lj14", "coulomb14")}
        fourier = ("k", "periodicity", "phase")
        return cls(
            molecule=potential.molecule,
            atom_types=tuple(term.lj_labels[row] for row in term.lj_rows),
            charges=own["charge"][term.charge_rows],
            bonds=table("harmonic_bond", 2, ("k", "length")),
            angles=table("harmonic_angle", 3, ("k", "angle")),
            torsions=table("fourier_torsion", 4, fourier),
            impropers=replace(impropers, atoms=oriented),
            lj=Table(atoms, term.lj_rows, term.lj_labels, {c: own[c] for c in _LJ}),
            lj_overrides=Table(
                term.overrides,
                np.arange(len(term.overrides)),
                tuple("-".join(term.lj_labels[x] for x in pair) for pair in term.overrides),
                {c: own[c] for c in ("c12", "c6") if c in own},
            ),
            pairs14=Table(term.pairs14, term.rows14, ("1-4",) * len(own["lj14"]), pairs),
            exclusions=term.exclusions,
        )

    def potential(
        self,
        coulomb_constant: float | None = None,
        *,
        bonds: str = "harmonic",
        bonded: str = "harmonic",
        fourier_terms: int | None = None,
    ) -> Potential:
        """The potential of this topology.

        Args:
            coulomb_constant: kcal/mol Å/e²; AMBER's own (18.2223²) by default.
            bonds: "harmonic", or "morse": with the harmonic curvature.
            bonded: "harmonic" (angles, and bonds as `bonds` says), "class2": Morse bonds,
                anharmonic angles and all couplings, which start at zero, or "neural": each term
                with a small network of its coordinates, see `jaxff.terms.neural`.
            fourier_terms: give each torsion the periodicities 1 to this, those that it lacks with
                k = 0 (None: as they are).

        Raises:
            InputError: an unknown form.
        """
        if bonds not in ("harmonic", "morse") or bonded not in ("harmonic", "class2", "neural"):
            raise InputError(
                f'bonds={bonds!r}, bonded={bonded!r}: bonds are "harmonic" or "morse", bonded '
                'terms "harmonic", "class2" or "neural"'
            )
        torsions = self.torsions
        if fourier_terms is not None:
            torsions = _with_periodicities(torsions, fourier_terms, self.atom_types)
        charges, charge_rows = self._charge_classes()
        n, lj = self.molecule.n_atoms, self.lj
        terms, values = self._bonded(bonds, bonded)
        terms |= {
            "torsion": _fourier(FourierTorsion, n, torsions),
            "improper": _fourier(FourierImproper, n, self.impropers),
            "nonbonded": Nonbonded(
                n,
                lj_rows=lj.rows,
                charge_rows=charge_rows,
                exclusions=self.exclusions,
                pairs14=self.pairs14.atoms,
                rows14=self.pairs14.rows,
                overrides=self.lj_overrides.atoms,
                lj_labels=lj.labels,
            ),
        }
        constant = AMBER_COULOMB if coulomb_constant is None else coulomb_constant
        params = {
            **values,
            "torsion": _without_periodicity(torsions),
            "improper": _without_periodicity(self.impropers),
            "nonbonded": lj.values
            | {"charge": charges, "coulomb_constant": np.float64(constant)}
            | self.pairs14.values
            | (self.lj_overrides.values if len(self.lj_overrides.atoms) else {}),
        }
        if bonded == "neural":
            from jaxff.terms.neural import neural_terms  # brings flax in

            dihedrals = ((terms[name], params[name]) for name in ("torsion", "improper"))
            neural, values = neural_terms(self.atom_types, self.bonds, self.angles, *dihedrals)
            terms, params = terms | neural, params | values
        return Potential([Placed(name, t) for name, t in terms.items()], params, self.molecule)

    def _bonded(self, bonds: str, bonded: str) -> tuple[dict, dict]:
        """Terms and parameters of bonds and angles."""
        n, b, a = self.molecule.n_atoms, self.bonds, self.angles
        depth = MORSE_DEPTH * b.values["k"]
        morse = {
            "depth": depth,
            "width": np.sqrt(b.values["k"] / np.maximum(depth, 1e-6)),
            "length": b.values["length"],
        }
        if bonded == "class2":
            chains = np.unique(self.torsions.atoms, axis=0)
            term = ClassTwo.of(self.atom_types, b.atoms, a.atoms, chains)
            own = {
                **_by_labels(b, term.bonds, term.bond_rows, morse),
                **_by_labels(a, term.angles, term.angle_rows, a.values),
            }
            zeros = {key: np.zeros(shape) for key, shape in term.shapes.items() if key not in own}
            return {"class2": term}, {"class2": own | zeros}
        if bonds == "morse":
            stretch: object = MorseBond(n, b.atoms, b.rows, b.labels)
        else:
            stretch, morse = HarmonicBond(n, b.atoms, b.rows, b.labels), b.values
        angle = HarmonicAngle(n, a.atoms, a.rows, a.labels)
        return {"bond": stretch, "angle": angle}, {"bond": morse, "angle": a.values}

    def _charge_classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Charges (C,) and the row of each atom (N,): one for equivalent atoms of equal charge."""
        alike = equivalent_atoms(self.molecule)
        _, charge = np.unique(self.charges, return_inverse=True)
        _, first, rows = np.unique(
            np.stack([alike, charge]), axis=1, return_index=True, return_inverse=True
        )
        return self.charges[first], rows.ravel().astype(np.int32)


def centre_third(atoms: np.ndarray, bonds: np.ndarray) -> np.ndarray:
    """Impropers (n, 4) turned round where that brings the atom bonded to all others third.

    A dihedral angle is the same from either end, so files may have either.
    """
    bonded = set(map(tuple, bonds.tolist())) | set(map(tuple, bonds[:, ::-1].tolist()))

    def is_centre(row: list[int], k: int) -> bool:
        return all((row[k], other) in bonded for other in row if other != row[k])

    rows = np.asarray(atoms, int).reshape(-1, 4).tolist()
    turned = [r[::-1] if not is_centre(r, 2) and is_centre(r, 1) else r for r in rows]
    return np.array(turned, np.int32).reshape(-1, 4)


def equivalent_atoms(molecule: Molecule) -> np.ndarray:
    """Classes (N,) of atoms with the same element and surroundings in the bond graph.

    Colour refinement: Weisfeiler and Leman, Nauchno-Tekh. Inf. 2 (9), 12 (1968).
    """
    colours, count = molecule.numbers, 0
    while len(np.unique(colours)) > count:
        count = len(np.unique(colours))
        seen = [
            (int(own), *sorted(colours[around].tolist()))
            for own, around in zip(colours, molecule.neighbours, strict=True)
        ]
        names = {key: c for c, key in enumerate(sorted(set(seen)))}
        colours = np.array([names[key] for key in seen])
    return colours


def _by_labels(table: Table, atoms, rows, values: dict) -> dict[str, np.ndarray]:
    """Values by types of the term, the mean where the table tells several apart."""
    of_atoms = {tuple(a): row for a, row in zip(table.atoms.tolist(), table.rows, strict=True)}
    own = np.array([of_atoms[tuple(a)] for a in atoms.tolist()], int)
    count = np.bincount(rows)
    return {key: np.bincount(rows, np.asarray(v)[own]) / count for key, v in values.items()}


def _with_periodicities(torsions: Table, most: int, types: tuple[str, ...]) -> Table:
    """The torsions with every periodicity from 1 to `most`, those added with k = 0."""
    if not 1 <= most <= 12:
        raise InputError(f"fourier_terms={most}: use 1 to 12")
    there = {
        (tuple(atoms), int(torsions.values["periodicity"][row]))
        for atoms, row in zip(torsions.atoms.tolist(), torsions.rows, strict=True)
    }
    added = [
        (list(atoms), n)
        for atoms in sorted({atoms for atoms, _ in there})
        for n in range(1, most + 1)
        if (atoms, n) not in there
    ]
    names = [torsions.labels[row] for row in torsions.rows]
    for atoms, _ in added:
        own = [types[a] for a in atoms]
        names.append("-".join(min(own, own[::-1])))
    extra = {
        "k": np.zeros(len(added)),
        "periodicity": np.array([n for _, n in added], int),
        "phase": np.zeros(len(added)),
    }
    return Table.of(
        np.concatenate([torsions.atoms, np.array([a for a, _ in added], int).reshape(-1, 4)]),
        np.array(names, str),
        {key: np.concatenate([torsions.values[key][torsions.rows], extra[key]]) for key in extra},
    )


def _fourier(kind, n_atoms, table: Table):
    periodicity = table.values["periodicity"]
    return kind.of_terms(n_atoms, table.atoms, table.rows, periodicity, table.labels)


def _without_periodicity(table: Table) -> dict[str, np.ndarray]:
    return {name: v for name, v in table.values.items() if name != "periodicity"}
