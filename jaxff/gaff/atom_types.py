"""GAFF atom types of a Lewis structure.

Types follow from a table of rules.  Afterwards paired types alternate along conjugated systems.

Sources: the type descriptions of gaff.dat 1.81, and J. Wang, R. M. Wolf, J. W. Caldwell,
P. A. Kollman, D. A. Case, J. Comput. Chem. 25, 1157 (2004), tables 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jaxff.errors import InputError
from jaxff.gaff.environment import Environment
from jaxff.gaff.lewis import Lewis, canonical_ranks

# Both types of a pair have the same parameters.  In a conjugated system, atoms joined by a double
# or triple bond have different types of a pair, and atoms joined by a single bond the same type.
PAIRS = {
    "cc": "cd",
    "ce": "cf",
    "cg": "ch",
    "cp": "cq",
    "nc": "nd",
    "ne": "nf",
    "pc": "pd",
    "pe": "pf",
}
ELECTRONEGATIVE = {"N", "O", "F", "Cl", "Br", "I", "S"}


@dataclass(frozen=True)
class Rule:
    """The condition for an atom type.

    Attributes:
        type: the atom type.
        words: the condition in words.
        holds: function of an environment and an atom that tests the condition.
        example: SMILES of a molecule with this type.
    """

    type: str
    words: str
    holds: Callable[[Environment, int], bool]
    example: str


def _aromatic_or_planar(e: Environment, a: int) -> bool:
    return a in e.aromatic or a in e.planar


def _bridges_rings(e: Environment, a: int) -> bool:
    """Whether a bond to an aromatic atom is in no aromatic or six-membered ring."""
    return any(
        b in e.aromatic
        and frozenset((a, b)) not in e.aromatic_bonds
        and not e.share_ring(a, b, size=6)
        for b in e.neighbours[a]
    )


def _is_amide(e: Environment, a: int) -> bool:
    return e.degree(a) == 3 and any(e.is_carbonyl(b) for b in e.neighbours[a])


def _lone_pair_conjugates(e: Environment, a: int) -> bool:
    """Whether N has a double bond (C=N⁺) or an aromatic or sp2 neighbour."""
    return bool(e.multiple(a)) or any(
        b in e.aromatic or e.is_sp2(b) for b in e.neighbours[a] if e.symbols[b] in "CNP"
    )


def _guanidinium(e: Environment, a: int) -> bool:
    around = e.neighbours[a]
    return (
        e.degree(a) == 3
        and all(e.symbols[b] == "N" and e.degree(b) == 3 for b in around)
        and a not in e.planar
    )


def _nitro(e: Environment, a: int) -> bool:
    ends = [b for b in e.neighbours[a] if e.symbols[b] == "O" and e.degree(b) == 1]
    return e.degree(a) == 3 and len(ends) == 2


def _double_to(elements: str) -> Callable[[Environment, int], bool]:
    return lambda e, a: any(e.symbols[b] in elements for b in e.multiple(a))


def _ring(size: int) -> Callable[[Environment, int], bool]:
    return lambda e, a: e.in_ring(a, size)


def _degree(*degrees: int) -> Callable[[Environment, int], bool]:
    return lambda e, a: e.degree(a) in degrees


def _all(*conditions: Callable[[Environment, int], bool]) -> Callable[[Environment, int], bool]:
    return lambda e, a: all(condition(e, a) for condition in conditions)


def _in_planar(e: Environment, a: int) -> bool:
    return a in e.planar


def _in_conjugated_ring(e: Environment, a: int) -> bool:
    """Whether the atom is in a planar ring with a conjugated double bond."""
    return a in e.planar and any(e.is_inner(b) for b in (a, *e.multiple(a)))


def _in_aromatic(e: Environment, a: int) -> bool:
    return a in e.aromatic


def _inner(e: Environment, a: int) -> bool:
    return e.is_inner(a)


def _conjugated_oxide(e: Environment, a: int) -> bool:
    """Whether S or P without O⁻ or S⁻ is bonded to C=C, C=N or an aromatic ring."""
    return not e.has_oxide(a) and any(
        b in e.aromatic or (e.is_sp2(b) and not e.is_carbonyl(b)) for b in e.single(a)
    )


# The first rule with a true condition decides.  Types of hydrogen follow from its neighbour; see
# below.
RULES: dict[str, tuple[Rule, ...]] = {
    "C": (
        Rule("c3", "sp3", _all(_degree(4), lambda e, a: not (_ring(3)(e, a) or _ring(4)(e, a))),
             "CC"),
        Rule("cx", "sp3 in a three-membered ring", _all(_degree(4), _ring(3)), "C1CC1"),
        Rule("cy", "sp3 in a four-membered ring", _degree(4), "C1CCC1"),
        Rule("cg", "sp, next to a conjugated atom",
             _all(_degree(1, 2), lambda e, a: any(
                 e.conjugates(b) for b in e.single(a) if e.symbols[b] in "CN")), "C#CC#C"),
        Rule("c1", "sp", _degree(1, 2), "CC#C"),
        Rule("c", "C=O, C=S", lambda e, a: e.is_carbonyl(a), "CC(C)=O"),
        Rule("cp", "aromatic, at the bond between two rings (biphenyl)",
             _all(_in_aromatic, _bridges_rings), "c1ccc(cc1)-c1ccccc1"),
        Rule("ca", "aromatic", _in_aromatic, "c1ccccc1"),
        Rule("cc", "sp2 in a planar ring that is not purely aromatic", _in_planar, "c1ccoc1"),
        Rule("cz", "guanidinium", _guanidinium, "NC(N)=[NH2+]"),
        Rule("ce", "sp2, inside a conjugated chain", _inner, "C=CC=C"),
        Rule("cu", "sp2 in a three-membered ring", _ring(3), "C1=CC1"),
        Rule("cv", "sp2 in a four-membered ring", _ring(4), "C1=CCC1"),
        Rule("c2", "sp2", _degree(3), "C=C"),
    ),
    "N": (
        Rule("nk", "four neighbours, in a three-membered ring", _all(_degree(4), _ring(3)),
             "C1C[NH2+]1"),
        Rule("nl", "four neighbours, in a four-membered ring", _all(_degree(4), _ring(4)),
             "C1CC[NH2+]1"),
        Rule("n4", "four neighbours", _degree(4), "C[NH3+]"),
        Rule("n1", "sp", lambda e, a: e.degree(a) == 1
             or (e.degree(a) == 2 and sum(e.orders[a, b] for b in e.neighbours[a]) == 4), "CC#N"),
        Rule("no", "nitro", _nitro, "C[N+](=O)[O-]"),
        Rule("ni", "amide in a three-membered ring", _all(_is_amide, _ring(3)), "O=C1CN1"),
        Rule("nj", "amide in a four-membered ring", _all(_is_amide, _ring(4)), "O=C1CCN1"),
        Rule("n", "amide or thioamide", _is_amide, "CNC(C)=O"),
        Rule("na", "three neighbours, in an aromatic or planar ring",
             _all(_degree(3), _aromatic_or_planar), "c1cc[nH]c1"),
        Rule("nm", "conjugated amine in a three-membered ring",
             _all(_degree(3), _lone_pair_conjugates, _ring(3)), "C=CN1CC1"),
        Rule("nn", "conjugated amine in a four-membered ring",
             _all(_degree(3), _lone_pair_conjugates, _ring(4)), "C=CN1CCC1"),
        Rule("nh", "amine on an aromatic ring or another sp2 atom",
             _all(_degree(3), _lone_pair_conjugates), "Nc1ccccc1"),
        Rule("np", "amine in a three-membered ring", _all(_degree(3), _ring(3)), "C1CN1"),
        Rule("nq", "amine in a four-membered ring", _all(_degree(3), _ring(4)), "C1CCN1"),
        Rule("n3", "amine", _degree(3), "CN"),
        Rule("nb", "two neighbours, aromatic", _in_aromatic, "c1ccncc1"),
        Rule("nc", "two neighbours, conjugated, in a planar ring not purely aromatic",
             _in_conjugated_ring, "c1c[nH]cn1"),
        Rule("ne", "two neighbours, inside a conjugated chain",
             _all(_double_to("CNPS"), _inner), "C=NN=C"),
        Rule("n2", "two neighbours, a double bond", _degree(2), "CC=N"),
    ),
    "O": (
        Rule("o", "one neighbour", lambda e, a: e.degree(a) == 1 and not e.has_neighbour(a, "H"),
             "CC(C)=O"),
        Rule("oh", "with a hydrogen", lambda e, a: e.has_neighbour(a, "H") and e.degree(a) == 2,
             "CO"),
        Rule("op", "ether in a three-membered ring", _all(_degree(2), _ring(3)), "C1CO1"),
        Rule("oq", "ether in a four-membered ring", _all(_degree(2), _ring(4)), "C1COC1"),
        Rule("os", "ether, ester", _degree(2), "COC"),
    ),
    "S": (
        Rule("s", "one neighbour", _degree(1), "CC(C)=S"),
        Rule("s2", "two neighbours, a double bond",
             lambda e, a: e.degree(a) == 2 and len(e.multiple(a)) > 0 and a not in e.planar,
             "CN=S=NC"),
        Rule("sh", "with a hydrogen", _all(_degree(2), lambda e, a: e.has_neighbour(a, "H")), "CS"),
        Rule("sp", "sulfide in a three-membered ring", _all(_degree(2), _ring(3)), "C1CS1"),
        Rule("sq", "sulfide in a four-membered ring", _all(_degree(2), _ring(4)), "C1CSC1"),
        Rule("ss", "sulfide, disulfide, thioester", _degree(2), "CSC"),
        Rule("sx", "three neighbours, conjugated",
             _all(_degree(3), _double_to("ONS"), _conjugated_oxide), "CS(=O)c1ccccc1"),
        Rule("s4", "three neighbours", _degree(3), "CS(C)=O"),
        Rule("sy", "four neighbours, conjugated", _all(_degree(4), _conjugated_oxide),
             "CS(=O)(=O)c1ccccc1"),
        Rule("s6", "four neighbours", _degree(4, 6), "CS(C)(=O)=O"),
    ),
    "P": (
        Rule("pb", "two neighbours, aromatic", _all(_degree(2), _in_aromatic), "c1ccpcc1"),
        Rule("pc", "two neighbours, in a planar ring that is not purely aromatic",
             _all(_degree(2), _in_planar), "c1cpc[nH]1"),
        Rule("pe", "two neighbours, inside a conjugated chain", _all(_degree(2), _inner),
             "C=CP=C"),
        Rule("p2", "one or two neighbours, a multiple bond", _degree(1, 2), "CP=C"),
        Rule("px", "three neighbours and a double bond, conjugated",
             _all(_degree(3), lambda e, a: bool(e.multiple(a)), _conjugated_oxide,
                  lambda e, a: not e.has_neighbour(a, "H")), "O=P(=O)c1ccccc1"),
        Rule("p4", "three neighbours, a double bond",
             _all(_degree(3), lambda e, a: bool(e.multiple(a))), "CP(=O)=O"),
        Rule("p3", "three neighbours", _degree(3), "CP"),
        Rule("py", "four neighbours, conjugated", _all(_degree(4), _conjugated_oxide),
             "CP(C)(=O)c1ccccc1"),
        Rule("p5", "four neighbours", _degree(4, 5), "COP(=O)(O)O"),
    ),
    "F": (Rule("f", "fluorine", _degree(1), "CF"),),
    "Cl": (Rule("cl", "chlorine", _degree(1), "CCl"),),
    "Br": (Rule("br", "bromine", _degree(1), "CBr"),),
    "I": (Rule("i", "iodine", _degree(1), "CI"),),
}  # fmt: skip

# Types of hydrogen by its neighbour.  On carbon, the number of electronegative atoms decides.
ON_HETERO = {"N": "hn", "O": "ho", "S": "hs", "P": "hp"}
ON_SP3 = ("hc", "h1", "h2", "h3")
ON_SP2 = ("ha", "h4", "h5")
NEXT_TO_CATION = "hx"
HYDROGEN_WORDS = {
    "hc": "on sp3 carbon",
    "h1": "on sp3 carbon with one electronegative neighbour",
    "h2": "on sp3 carbon with two electronegative neighbours",
    "h3": "on sp3 carbon with three electronegative neighbours",
    "hx": "on carbon bonded to the nitrogen of a cation",
    "ha": "on sp2 or sp carbon",
    "h4": "on sp2 carbon with one electronegative neighbour",
    "h5": "on sp2 carbon with two electronegative neighbours",
    "hn": "on nitrogen",
    "ho": "on oxygen",
    "hs": "on sulfur",
    "hp": "on phosphorus",
}
HYDROGEN_EXAMPLES = {
    "hc": "CC", "h1": "CO", "h2": "ClCCl", "h3": "ClC(Cl)Cl", "hx": "C[NH3+]",
    "ha": "c1ccccc1", "h4": "CC=O", "h5": "CN(C)C=O",
    "hn": "CN", "ho": "CO", "hs": "CS", "hp": "CP",
}  # fmt: skip


def atom_types(lewis: Lewis) -> tuple[str, ...]:
    """GAFF types (N,) of the atoms of a Lewis structure.

    Raises:
        InputError: GAFF has no type for an atom.
    """
    environment = Environment.of(lewis)
    _check_rings(environment)
    types = [_type(environment, a) for a in range(len(environment.symbols))]
    return tuple(_alternated(environment, types))


def _check_rings(e: Environment) -> None:
    """Check that small rings contain no sp carbon, which indicates missing hydrogens.

    Raises:
        InputError: a ring of fewer than eight atoms contains an sp carbon.
    """
    for ring in e.rings:
        for a in ring:
            if len(ring) < 8 and e.symbols[a] == "C" and e.degree(a) == 2:
                raise InputError(
                    f"{e.lewis.molecule.label}: atom C{a + 1} in a ring of {len(ring)} atoms has "
                    "only two neighbours, and GAFF has no type for it: add missing hydrogens"
                )


def rule_of(environment: Environment, atom: int) -> Rule:
    """The rule for the type of an atom other than hydrogen.

    Args:
        environment: the molecule.
        atom: index of the atom.

    Raises:
        InputError: GAFF has no type for the atom.
    """
    for rule in RULES[environment.symbols[atom]]:
        if rule.holds(environment, atom):
            return rule
    molecule = environment.lewis.molecule
    charge = int(environment.lewis.charges[atom])
    raise InputError(
        f"{molecule.label}: GAFF has no type for atom "
        f"{molecule.symbols[atom]}{atom + 1} with {environment.degree(atom)} neighbours"
        + (f" and charge {charge:+d}" if charge else "")
        + ": check hydrogens, bonds and net charge, or give atom_types"
    )


def _type(e: Environment, a: int) -> str:
    if e.symbols[a] != "H":
        return rule_of(e, a).type
    around = e.neighbours[a]
    if not around or e.symbols[around[0]] in ("H", "F", "Cl", "Br", "I"):
        where = f"on {e.symbols[around[0]]}" if around else "without a neighbour"
        raise InputError(
            f"{e.lewis.molecule.label}: GAFF has no type for the hydrogen H{a + 1} {where}: check "
            "the bonds, or give atom_types"
        )
    (carrier,) = around
    if e.symbols[carrier] != "C":
        return ON_HETERO[e.symbols[carrier]]
    others = [e.symbols[b] for b in e.neighbours[carrier]]
    count = sum(symbol in ELECTRONEGATIVE for symbol in others)
    if e.degree(carrier) < 4:
        return ON_SP2[min(count, 2)] if e.degree(carrier) == 3 else ON_SP2[0]
    if any(e.symbols[b] == "N" and e.degree(b) == 4 for b in e.neighbours[carrier]):
        return NEXT_TO_CATION
    return ON_SP3[min(count, 3)]


def _alternated(e: Environment, types: list[str]) -> Iterator[str]:
    """Yield the N types after the alternation of paired types; see `PAIRS`."""
    ranks = canonical_ranks(e.lewis.molecule)
    second: dict[int, bool] = {}
    for start in sorted((a for a, t in enumerate(types) if t in PAIRS), key=ranks.__getitem__):
        if start in second:
            continue
        second[start], queue = False, [start]
        while queue:
            a = queue.pop(0)
            for b in sorted(e.neighbours[a], key=ranks.__getitem__):
                if b in second or types[b] not in PAIRS:
                    continue
                second[b] = second[a] != _differ(e, a, b)
                queue.append(b)
    for a, kind in enumerate(types):
        yield PAIRS[kind] if second.get(a, False) else kind


def _differ(e: Environment, a: int, b: int) -> bool:
    """Whether the types of two bonded atoms with paired types must differ."""
    return e.orders[a, b] > 1 or frozenset((a, b)) in e.aromatic_bonds
