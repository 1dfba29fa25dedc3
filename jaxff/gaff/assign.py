"""Assignment of parameters to all interactions of a molecule with atom types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from jaxff.errors import InputError
from jaxff.gaff.analogy import Estimate, similar_angle, similar_bond, similar_torsion
from jaxff.gaff.bonded import Table
from jaxff.gaff.table import DEGREE, Entry, ParameterTable, Types, directed
from jaxff.gaff.topology import SCEE, SCNB, Topology
from jaxff.molecule import Molecule

IMPROPER = ((1.1, 2, 180.0 * DEGREE),)  # default of GAFF for planar centres without an entry
# Types of centres that are planar if they have three neighbours.
PLANAR = frozenset(
    [
        *("c", "c2", "ca", "cc", "cd", "ce", "cf", "cp", "cq", "cu", "cv", "cz"),
        *("n", "na", "nh", "ni", "nj", "nm", "nn", "no"),
    ]
)
ACID_OXYGENS = {"o", "oh", "os", "op", "oq"}


@dataclass(frozen=True)
class Assigned:
    """The parameters of one interaction.

    Attributes:
        kind: "bond", "angle", "torsion", "improper" or "lj".
        atoms: indices of the atoms; the centre of an improper is third.
        types: types of these atoms.
        values: the parameters, in the units of `jaxff.gaff.table.Entry`.
        source: file and line of the entry, or the rule.
        analogy: the analogy in words; "" if the file has an entry for these types.
        penalty: penalty of the analogy; 0 if the file has an entry.
    """

    kind: str
    atoms: tuple[int, ...]
    types: Types
    values: tuple
    source: str
    analogy: str = ""
    penalty: float = 0.0

    @property
    def name(self) -> str:
        """The types, such as "c3-hc", in the alphabetically first direction.

        Types of an improper keep their order.
        """
        types = self.types if self.kind == "improper" else directed(self.types)
        return "-".join(types)


def assign(
    molecule: Molecule, types: Types, table: ParameterTable, *, strict: bool = False
) -> list[Assigned]:
    """Assign parameters to all bonded interactions and Lennard-Jones types.

    Args:
        molecule: bonds and elements.
        types: (N,) atom types.
        table: the parameters.
        strict: whether only entries of the table are used, as in LEaP, without analogies and
            default impropers.

    Raises:
        InputError: parameters are missing; the message names all of them.
    """
    neighbours, symbols = molecule.neighbours, molecule.symbols
    missing: list[str] = []
    known: dict[tuple[str, Types], Entry | Estimate | None] = {}
    lengths: dict[tuple[int, int], float] = {}
    assigned: list[Assigned] = []

    def add(kind: str, atoms: tuple[int, ...], exact: Callable, similar: Callable) -> None:
        names = tuple(types[a] for a in atoms)
        if (kind, names) not in known:
            entry = exact(names)
            known[kind, names] = entry or (None if strict else similar(table, names))
        entry = known[kind, names]
        if entry is None:
            missing.append(f"{kind} {'-'.join(names)}")
        else:
            assigned.append(_assigned(kind, atoms, names, entry))

    for i, j in molecule.bonds.tolist():
        add("bond", (i, j), table.bond, similar_bond)
        if not missing:
            lengths[i, j] = lengths[j, i] = assigned[-1].values[1]
    _check_complete(missing, molecule)
    for i, j, k in angles(neighbours):
        similar = partial(
            similar_angle,
            lengths=(lengths[i, j], lengths[j, k]),
            elements=(symbols[i], symbols[j], symbols[k]),
        )
        add("angle", (i, j, k), table.angle, similar)
    for atoms in torsions(neighbours, molecule.bonds.tolist()):
        add("torsion", atoms, table.torsion, similar_torsion)
    seen: set[tuple] = set()  # types of the impropers so far
    for centre, around in enumerate(neighbours):
        if len(around) != 3:
            continue
        outer = tuple(sorted(types[a] for a in around))
        entry = table.improper(types[centre], outer)
        wanted = entry is not None if strict else types[centre] in PLANAR
        if wanted:
            first = (types[centre], outer) not in seen
            seen.add((types[centre], outer))
            assigned.append(
                _improper(centre, around, types, entry, first, None if strict else table)
            )
    for atom in range(molecule.n_atoms):
        add("lj", (atom,), lambda names: table.lj.get(names[0]), lambda *_: None)
    _check_complete(missing, molecule)
    return assigned


def angles(neighbours: list[list[int]]) -> Iterator[tuple[int, int, int]]:
    """Yield all angles (i, j, k) with i < k.

    Args:
        neighbours: N lists of the atoms that are bonded to each atom.
    """
    for j, around in enumerate(neighbours):
        for a, i in enumerate(sorted(around)):
            for k in sorted(around)[a + 1 :]:
                yield i, j, k


def torsions(neighbours: list[list[int]], bonds) -> Iterator[tuple[int, int, int, int]]:
    """Yield all chains (i, j, k, l) of four bonded atoms, each chain once.

    Args:
        neighbours: N lists of the atoms that are bonded to each atom.
        bonds: pairs of bonded atoms.
    """
    for j, k in bonds:
        for i in sorted(neighbours[j]):
            for last in sorted(neighbours[k]):
                if i != k and last not in (j, i):
                    yield i, j, k, last


def topology(
    molecule: Molecule, types: Types, charges: np.ndarray, assigned: list[Assigned]
) -> Topology:
    """The topology of a molecule with assigned parameters.

    Args:
        molecule: the molecule.
        types: (N,) atom types.
        charges: (N,) e.
        assigned: the result of `assign`.
    """

    def of(kind: str, columns: tuple[str, ...]) -> Table:
        members = [a for a in assigned if a.kind == kind]
        width = {"bond": 2, "angle": 3, "lj": 1}[kind]
        values = np.array([a.values for a in members], float).reshape(-1, len(columns))
        return Table.of(
            np.array([a.atoms for a in members], int).reshape(-1, width),
            np.array([a.name for a in members], str),
            dict(zip(columns, values.T, strict=True)),
        )

    def fourier(kind: str) -> Table:
        members = [(a, term) for a in assigned if a.kind == kind for term in a.values]
        values = np.array([term for _, term in members], float).reshape(-1, 3)
        return Table.of(
            np.array([a.atoms for a, _ in members], int).reshape(-1, 4),
            np.array([a.name for a, _ in members], str),
            {"k": values[:, 0], "periodicity": values[:, 1].astype(int), "phase": values[:, 2]},
        )

    bonded = {tuple(sorted(b)) for b in molecule.bonds.tolist()}
    near = {tuple(sorted((a.atoms[0], a.atoms[2]))) for a in assigned if a.kind == "angle"}
    ends = {tuple(sorted((a.atoms[0], a.atoms[3]))) for a in assigned if a.kind == "torsion"}
    pairs14 = np.array(sorted(ends - bonded - near), int).reshape(-1, 2)
    excluded = np.array(sorted(bonded | near | ends), np.int32).reshape(-1, 2)
    count = len(pairs14)
    return Topology(
        molecule=molecule,
        atom_types=types,
        charges=np.asarray(charges, float),
        bonds=of("bond", ("k", "length")),
        angles=of("angle", ("k", "angle")),
        torsions=fourier("torsion"),
        impropers=fourier("improper"),
        lj=of("lj", ("sigma", "epsilon")),
        lj_overrides=Table.empty(2),
        pairs14=Table.of(
            pairs14,
            np.full(count, "1-4"),
            {"lj14": np.full(count, 1.0 / SCNB), "coulomb14": np.full(count, 1.0 / SCEE)},
        ),
        exclusions=excluded,
    )


def _improper(
    centre: int,
    around: list[int],
    types: Types,
    entry: Entry | None,
    first: bool,
    table: ParameterTable | None,
) -> Assigned:
    """The improper of a planar centre, with the order of atoms that LEaP uses.

    Atoms are sorted by type, then by index.  If the entry contains no "X", the first improper of
    these types in a molecule has the order of the entry.

    Args:
        centre: index of the central atom.
        around: indices of its three neighbours.
        types: (N,) atom types.
        entry: the entry for these types, or None.
        first: whether this is the first improper of these types.
        table: if given, acids and esters get the parameters of X-o-c-o in this table.
    """
    by_name = sorted(around, key=lambda a: (types[a], a))
    if first and entry is not None and "X" not in entry.types:
        left, order = list(by_name), []
        for name in (entry.types[0], entry.types[1], entry.types[3]):
            order.append(next(a for a in left if types[a] == name))
            left.remove(order[-1])
        by_name = order
    a, b, d = by_name
    atoms = (a, b, centre, d)
    names = tuple(types[x] for x in atoms)
    acid = [types[a] for a in around if types[a] in ACID_OXYGENS]
    named = entry is not None and "X" not in entry.types
    if table is not None and types[centre] == "c" and len(acid) > 1 and not named:
        entry = table.impropers["X", "o", "c", "o"]
        exact = sorted(acid)[:2] == ["o", "o"]
        estimate = Estimate(entry.values, entry.source, f"like {entry.name}", 2.0)
        return _assigned("improper", atoms, names, entry if exact else estimate)
    if entry is None:
        return Assigned("improper", atoms, names, IMPROPER, "GAFF's default for a planar centre")
    return _assigned("improper", atoms, names, entry)


def _assigned(kind, atoms, names, entry: Entry | Estimate) -> Assigned:
    base = Assigned(kind, atoms, names, entry.values, entry.source)
    if isinstance(entry, Estimate):
        return replace(base, analogy=entry.reason, penalty=entry.penalty)
    return base


def _check_complete(missing: list[str], molecule: Molecule) -> None:
    if missing:
        raise InputError(
            f"{molecule.label}: GAFF has neither parameters nor analogies for "
            f"{', '.join(sorted(set(missing)))}; give a mol2 file, and these parameters in a "
            "frcmod file"
        )
