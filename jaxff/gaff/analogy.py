"""Estimates of parameters missing in gaff.dat, by similar types or rules.

The penalty of an estimate is a sum over its atoms.  A type that differs only in conjugation or ring
size contributes about 1, and a type of another element up to 10.

Source: J. Wang, R. M. Wolf, J. W. Caldwell, P. A. Kollman, D. A. Case, J. Comput. Chem. 25, 1157
(2004), "Empirical approach", eqs. 3 to 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from heapq import heappop, heappush

import numpy as np

from jaxff.gaff.table import Entry, ParameterTable, Types, directed

# Types that may replace a type, with penalties.  Several replacements may follow each other.  Types
# inside a conjugated system (ce, ne) are replaced by types outside.  The reverse replacement
# has a high penalty, because c2=n2 is similar to ce=n2, but not to ce-ne.
SIMILAR: dict[str, dict[str, float]] = {
    "c": {"c2": 3},
    "c1": {"cg": 1, "c2": 6},
    "cg": {"c1": 1, "ch": 0.5},
    "ch": {"c1": 1, "cg": 0.5},
    "c2": {"ce": 4, "cc": 4, "ca": 4},
    "ce": {"cf": 0.5, "c2": 1, "cc": 1.5},
    "cf": {"ce": 0.5, "c2": 1, "cd": 1.5},
    "cc": {"cd": 0.5, "ce": 1.5, "c2": 1.5, "ca": 2},
    "cd": {"cc": 0.5, "cf": 1.5, "c2": 1.5, "ca": 2},
    "cu": {"c2": 1.5, "cv": 1.5},
    "cv": {"c2": 1.5, "cu": 1.5},
    "cz": {"c2": 1.5, "ca": 3},
    "ca": {"cp": 1, "cc": 2.5, "c2": 4},
    "cp": {"ca": 1, "cq": 0.5},
    "cq": {"ca": 1, "cp": 0.5},
    "c3": {"cy": 1.5, "cx": 2},
    "cx": {"c3": 1.5, "cy": 1.5},
    "cy": {"c3": 1, "cx": 1.5},
    "h1": {"hc": 0.5, "h2": 0.5},
    "h2": {"h1": 0.5, "h3": 0.5},
    "h3": {"h2": 0.5},
    "hx": {"h1": 0.5},
    "hc": {"h1": 0.5},
    "h4": {"ha": 0.5, "h5": 0.5},
    "h5": {"h4": 0.5},
    "ha": {"h4": 0.5, "hc": 3},
    "hn": {"ho": 5},
    "ho": {"hn": 5},
    "hs": {"ho": 5},
    "hp": {"hs": 3, "hc": 4},
    "n": {"na": 2, "nh": 3},
    "ni": {"n": 1},
    "nj": {"n": 1},
    "n1": {"n2": 6},
    "n2": {"ne": 4, "nc": 4, "nb": 4},
    "ne": {"nf": 0.5, "n2": 1, "nc": 1.5},
    "nf": {"ne": 0.5, "n2": 1, "nd": 1.5},
    "nc": {"nd": 0.5, "n2": 1.5, "nb": 2},
    "nd": {"nc": 0.5, "n2": 1.5, "nb": 2},
    "nb": {"nc": 2, "n2": 4},
    "na": {"n": 2, "nh": 2, "nc": 5},
    "nh": {"na": 2, "n": 3, "n3": 3},
    "nm": {"nh": 1, "np": 2},
    "nn": {"nh": 1, "nq": 2},
    "no": {"na": 4, "n": 5},
    "n3": {"nq": 1.5, "np": 2, "nh": 3, "n4": 4},
    "np": {"n3": 1, "nq": 1.5},
    "nq": {"n3": 1, "np": 1.5},
    "n4": {"n3": 4},
    "nk": {"n4": 1},
    "nl": {"n4": 1},
    "o": {"s": 10},
    "oh": {"os": 2},
    "os": {"oh": 2, "ss": 10},
    "op": {"os": 1, "oq": 1.5},
    "oq": {"os": 1, "op": 1.5},
    "s": {"o": 10},
    "s2": {"ss": 5, "s": 6},
    "sh": {"ss": 2},
    "ss": {"sh": 2, "os": 10},
    "sp": {"ss": 1, "sq": 1.5},
    "sq": {"ss": 1, "sp": 1.5},
    "s4": {"sx": 1, "s6": 4},
    "sx": {"s4": 1, "sy": 4},
    "s6": {"sy": 1, "s4": 4},
    "sy": {"s6": 1, "sx": 4},
    "p2": {"pe": 4, "pc": 4, "n2": 10},
    "pe": {"pf": 0.5, "p2": 1},
    "pf": {"pe": 0.5, "p2": 1},
    "pc": {"pd": 0.5, "p2": 1.5},
    "pd": {"pc": 0.5, "p2": 1.5},
    "pb": {"p2": 2, "pc": 2, "nb": 10},
    "p3": {"p4": 5, "n3": 10},
    "p4": {"px": 1, "p3": 5, "p5": 5},
    "px": {"p4": 1, "py": 4},
    "p5": {"py": 1, "s6": 10},
    "py": {"p5": 1, "sy": 10},
    "f": {"cl": 10},
    "cl": {"br": 5, "f": 10},
    "br": {"cl": 5, "i": 7},
    "i": {"br": 5},
}
FARTHEST = 30.0  # largest penalty of an analogy
LINEAR = frozenset({"c1", "cg", "ch", "n1"})
ENDS = 1.0  # penalty of a torsion entry without end types

# k = 143.9 Z C Z exp(−2 D) / ((r₁ + r₂) √θ), D = ((r₁ − r₂)/(r₁ + r₂))², in Å and rad.  These
# constants reproduce the angles of gaff.dat to 0.1 %.
ANGLE_END = {
    "H": 0.784, "C": 1.1831, "N": 1.2121, "O": 1.2191, "F": 1.1661, "P": 1.6203, "S": 1.2802,
    "Cl": 1.1831, "Br": 1.3782, "I": 1.3983,
}  # fmt: skip
ANGLE_VERTEX = {"C": 1.3395, "N": 1.3005, "O": 1.2496, "P": 0.9064, "S": 1.4486}
ANGLE_SCALE = 143.9


@dataclass(frozen=True)
class Estimate:
    """Estimated parameters of one interaction.

    Attributes:
        values: the parameters, in the units of `jaxff.gaff.table.Entry`.
        source: the entry or the rule from which the values are taken.
        reason: the analogy in words.
        penalty: measure of the difference of the types; see the module.
    """

    values: tuple
    source: str
    reason: str
    penalty: float


def similar_bond(table: ParameterTable, types: Types) -> Estimate | None:
    """The parameters of a bond between similar types; None if there are none.

    Args:
        table: the parameters.
        types: (2,) atom types.
    """
    return _first(directed(types), table.bond)


def similar_angle(
    table: ParameterTable, types: Types, lengths: tuple[float, float], elements: Types
) -> Estimate | None:
    """Estimate the parameters of an angle A-B-C by similar types or a rule of GAFF.

    The rule is the mean of the equilibrium angles A-B-A and C-B-C, with the force constant from
    `angle_constant`.

    Args:
        table: the parameters.
        types: atom types of A, B, C.
        lengths: equilibrium lengths of A-B and B-C, Å.
        elements: chemical symbols of A, B, C.

    Returns:
        The estimate with the smaller penalty, or None if there is none.
    """
    analogy = _first(directed(types), table.angle)
    a, b, c = types
    if b in LINEAR:
        if analogy is not None and analogy.penalty <= 3.0:
            return analogy
        k = angle_constant(elements, lengths, np.pi)
        return Estimate((k, np.pi), "a linear atom", "GAFF's empirical rule", 5.0)
    if analogy is not None and analogy.penalty <= 3.0:
        return analogy
    first, second = (_any_angle(table, (end, b, end)) for end in (a, c))
    if first is None or second is None or elements[1] not in ANGLE_VERTEX:
        return analogy
    angle = 0.5 * (first.values[1] + second.values[1])
    k = angle_constant(elements, lengths, angle)
    names = " and ".join(f"{end}-{b}-{end}" for end in (a, c))
    penalty = 5.0 + first.penalty + second.penalty
    if analogy is not None and analogy.penalty <= penalty:
        return analogy
    return Estimate((k, angle), f"mean of {names}", "GAFF's empirical rule", penalty)


def angle_constant(elements: Types, lengths: tuple[float, float], angle: float) -> float:
    """Force constant () kcal/mol/rad² of an angle, by the empirical rule of GAFF.

    The energy is k (θ − θ0)², without the factor ½.

    Args:
        elements: chemical symbols of the three atoms; the vertex is second.
        lengths: equilibrium lengths of the two bonds, Å.
        angle: equilibrium angle, rad.
    """
    a, b, c = elements
    total, difference = lengths[0] + lengths[1], lengths[0] - lengths[1]
    factors = ANGLE_SCALE * ANGLE_END[a] * ANGLE_VERTEX[b] * ANGLE_END[c]
    return factors * np.exp(-2.0 * (difference / total) ** 2) / (total * np.sqrt(angle))


def similar_torsion(table: ParameterTable, types: Types) -> Estimate | None:
    """The parameters of a torsion of similar types; None if there are none.

    The penalty for a replaced type of an end atom is half of that for an inner atom.

    Args:
        table: the parameters.
        types: (4,) atom types.
    """
    a, b, c, d = directed(types)
    best = None
    for cost, (inner_b, inner_c) in _substitutes((b, c)):
        if best is not None and cost >= best.penalty:
            break
        named = _first((a, d), lambda ends: table.torsions.get(
            directed((ends[0], inner_b, inner_c, ends[1]))
        ))  # fmt: skip
        general = table.torsions.get(directed(("X", inner_b, inner_c, "X")))
        for entry, penalty in (
            (named, np.inf if named is None else cost + 0.5 * named.penalty),
            (general, cost + ENDS),
        ):
            if entry is not None and penalty < (np.inf if best is None else best.penalty):
                name = entry.reason if isinstance(entry, Estimate) else f"like {entry.name}"
                best = Estimate(entry.values, entry.source, name, penalty)
    return best


def _any_angle(table: ParameterTable, types: Types) -> Estimate | None:
    entry = table.angle(types)
    if entry is not None:
        return Estimate(entry.values, entry.source, f"like {entry.name}", 0.0)
    return _first(types, table.angle)


def _first(types: Types, lookup: Callable[[Types], Entry | None]) -> Estimate | None:
    """Estimate from the entry of the most similar types, or None if no entry exists.

    Args:
        types: atom types of the interaction.
        lookup: function that returns the entry of atom types, or None.
    """
    for penalty, names in _substitutes(types):
        entry = lookup(names)
        if entry is not None:
            return Estimate(entry.values, entry.source, f"like {entry.name}", penalty)
    return None


def _substitutes(types: Types) -> Iterator[tuple[float, Types]]:
    """Yield (penalty, types) of all similar types, in ascending order of penalty."""
    choices = [_nearest(kind) for kind in types]
    queue, seen = [(0.0, (0,) * len(types))], set()
    while queue:
        penalty, places = heappop(queue)
        if places in seen:
            continue
        seen.add(places)
        yield penalty, tuple(c[p][1] for c, p in zip(choices, places, strict=True))
        for i, place in enumerate(places):
            if place + 1 < len(choices[i]):
                more = penalty + choices[i][place + 1][0] - choices[i][place][0]
                if more <= FARTHEST:
                    heappush(queue, (more, (*places[:i], place + 1, *places[i + 1 :])))


@cache
def _nearest(kind: str) -> list[tuple[float, str]]:
    """(penalty, type) of all types that may replace a type, sorted by penalty."""
    reached: dict[str, float] = {}
    queue = [(0.0, kind)]
    while queue:
        penalty, name = heappop(queue)
        if name in reached:
            continue
        reached[name] = penalty
        for other, more in SIMILAR.get(name, {}).items():
            if penalty + more <= FARTHEST:
                heappush(queue, (penalty + more, other))
    return sorted((penalty, name) for name, penalty in reached.items())
