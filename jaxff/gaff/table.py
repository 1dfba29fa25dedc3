"""The parameter file of GAFF, gaff.dat, as a table that knows the line of each entry.

Format: https://ambermd.org/FileFormats.php#parm.dat
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources

from jaxff.errors import InputError

Types = tuple[str, ...]
DEGREE = 3.141594 / 180.0  # rad of a degree as LEaP converts it, 4e-7 from π/180


@dataclass(frozen=True)
class Entry:
    """One entry: its values in jaxff's units, and where it stands.

    Attributes:
        types: names of the atom types, "X" for any.
        values: bond (k kcal/mol/Å², length Å); angle (k kcal/mol/rad², angle rad); torsion and
            improper one or more Fourier terms (k kcal/mol, periodicity, phase rad).
        source: such as "gaff.dat 93" (the line).
        remark: what the file says of the entry's origin.
    """

    types: Types
    values: tuple
    source: str
    remark: str = ""

    @property
    def name(self) -> str:
        return "-".join(self.types)


@dataclass(frozen=True)
class ParameterTable:
    """Entries of bonds, angles, torsions and impropers by types, and σ and ε of each type.

    Attributes:
        title: the file's first line.
        descriptions: {type: what the file says of it}.
        masses: {type: amu}.
        lj: {type: (σ Å, ε kcal/mol)}.
        bonds, angles, torsions: entries by types, in the smaller of both directions.
        impropers: entries by types, the centre third.
    """

    title: str
    descriptions: dict[str, str]
    masses: dict[str, float]
    lj: dict[str, Entry]
    bonds: dict[Types, Entry] = field(default_factory=dict)
    angles: dict[Types, Entry] = field(default_factory=dict)
    torsions: dict[Types, Entry] = field(default_factory=dict)
    impropers: dict[Types, Entry] = field(default_factory=dict)

    def bond(self, types: Types) -> Entry | None:
        return self.bonds.get(directed(types))

    def angle(self, types: Types) -> Entry | None:
        return self.angles.get(directed(types))

    def torsion(self, types: Types) -> Entry | None:
        """The entry of these four types, else that of the inner two with any ends."""
        _, b, c, _ = types
        return self.torsions.get(directed(types)) or self.torsions.get(directed(("X", b, c, "X")))

    def improper(self, centre: str, outer: Types) -> Entry | None:
        """The entry of a centre and its three neighbours; the fewer "X" the better."""
        found = [e for e in self.impropers.values() if e.types[2] == centre and _covers(e, outer)]
        # Of equals the last, which is a frcmod file's.
        return min(reversed(found), key=lambda e: e.types.count("X"), default=None)


def directed(types: Types) -> Types:
    """The smaller of the types and their reverse."""
    return min(types, types[::-1])


def _covers(entry: Entry, outer: Types) -> bool:
    a, b, _, d = entry.types
    left = list(outer)
    for wanted in (a, b, d):
        if wanted != "X":
            if wanted not in left:
                return False
            left.remove(wanted)
    return True


@cache
def gaff_table() -> ParameterTable:
    """GAFF 1.81 (May 2017), as AmberTools carries it (in the public domain)."""
    path = resources.files("jaxff") / "data" / "gaff" / "gaff.dat"
    return parse_table(path.read_text(), "gaff.dat")


def parse_table(text: str, name: str) -> ParameterTable:
    """The table of a parameter file in AMBER's parm.dat format.

    Raises:
        InputError: a line that cannot be read, with its number.
    """
    lines = iter(enumerate(text.splitlines(), 1))
    _, title = next(lines)
    descriptions, masses = {}, {}
    for _, line in _section(lines):
        kind, mass, *rest = line.split(None, 3)
        masses[kind], descriptions[kind] = float(mass), rest[-1].strip() if rest else ""
    next(lines)  # hydrophilic atoms
    table = ParameterTable(title, descriptions, masses, {})

    def read(section: dict, n_types: int, values) -> None:
        for number, line in _section(lines):
            types = tuple(line[3 * i : 3 * i + 2].strip() for i in range(n_types))
            try:
                own, remark = values(line[3 * n_types - 1 :].split())
            except (IndexError, ValueError) as error:
                raise InputError(f"{name} line {number} cannot be read: {line!r}") from error
            key = types if section is table.impropers else directed(types)
            before = section.get(key)
            if n_types == 4 and before is not None and _continues(before):
                own = (*before.values, *own)
                section[key] = Entry(types, own, before.source, before.remark)
            else:
                section[key] = Entry(types, own, f"{name} {number}", remark)

    def harmonic(unit):
        return lambda w: ((float(w[0]), unit(float(w[1]))), " ".join(w[2:]))

    def fourier(divided: bool):
        def values(w):
            divisor, words = (float(w[0]), w[1:]) if divided else (1.0, w)
            k, phase, n = float(words[0]) / divisor, float(words[1]), float(words[2])
            return ((k, n, phase * DEGREE),), " ".join(words[3:])

        return values

    read(table.bonds, 2, harmonic(float))
    read(table.angles, 3, harmonic(rest_angle))
    read(table.torsions, 4, fourier(True))
    read(table.impropers, 4, fourier(False))
    _finish(table.torsions)
    _finish(table.impropers)
    for _ in _section(lines):  # 10-12 hydrogen bonds: unused
        pass
    for _, line in lines:
        if line.startswith("MOD4"):
            break
    for number, line in _section(lines):
        kind, radius, epsilon, *rest = line.split(None, 3)
        # The file gives half the distance of the minimum.
        sigma = 2.0 * float(radius) / 2.0 ** (1.0 / 6.0) or 1.0  # no size where ε = 0
        remark = rest[0].strip() if rest else ""
        table.lj[kind] = Entry((kind,), (sigma, float(epsilon)), f"{name} {number}", remark)
    return table


def with_frcmod(table: ParameterTable, text: str, name: str) -> ParameterTable:
    """The table with the entries of a frcmod file in place of, or beside, its own.

    Raises:
        InputError: a line that cannot be read, with its number.
    """
    new = replace(
        table,
        **{
            key: dict(getattr(table, key))
            for key in ("descriptions", "masses", "lj", "bonds", "angles", "torsions", "impropers")
        },
    )
    own: dict[str, dict] = {"DIHE": {}, "IMPR": {}}
    heading = ""
    for number, line in list(enumerate(text.splitlines(), 1))[1:]:
        words = line.split()
        if not words:
            continue
        if words[0][:4].upper() in ("MASS", "BOND", "ANGL", "DIHE", "IMPR", "NONB") and (
            len(words) == 1
        ):
            heading = words[0][:4].upper()
            continue
        try:
            _frcmod_line(new, own, heading, line, f"{name} {number}")
        except (IndexError, ValueError, ZeroDivisionError) as error:
            raise InputError(f"{name} line {number} cannot be read: {line!r}") from error
    if not heading:
        raise InputError(f"{name} has no section of parameters (MASS, BOND, ...)")
    for heading, section in (("DIHE", new.torsions), ("IMPR", new.impropers)):
        _finish(own[heading])
        section |= own[heading]
    return new


def _frcmod_line(table: ParameterTable, own, heading: str, line: str, source: str) -> None:
    for word in line.split():
        scale, _, value = word.upper().partition("=")
        if scale in ("SCEE", "SCNB") and float(value) != {"SCEE": 1.2, "SCNB": 2.0}[scale]:
            raise ValueError(f"{word} is not supported")
        if word.lower() in ("nan", "inf", "-inf", "-nan"):
            raise ValueError("not finite")
    width = {"BOND": 2, "ANGL": 3, "DIHE": 4, "IMPR": 4}.get(heading)
    if width is None:
        kind, first, *rest = line.split()
        if heading == "MASS":
            table.masses[kind] = float(first)
        else:
            sigma = 2.0 * float(first) / 2.0 ** (1.0 / 6.0) or 1.0
            table.lj[kind] = Entry((kind,), (sigma, float(rest[0])), source)
        return
    types = tuple(line[3 * i : 3 * i + 2].strip() for i in range(width))
    words = line[3 * width - 1 :].split()
    if heading in ("BOND", "ANGL"):
        unit = float if heading == "BOND" else rest_angle
        section = table.bonds if heading == "BOND" else table.angles
        values = float(words[0]), unit(float(words[1]))
        section[directed(types)] = Entry(types, values, source, " ".join(words[2:]))
        return
    divisor, words = (float(words[0]), words[1:]) if heading == "DIHE" else (1.0, words)
    term = float(words[0]) / divisor, float(words[2]), float(words[1]) * DEGREE
    if term[1] != round(term[1]) or term[1] == 0:
        raise ValueError("a periodicity is a natural number")
    key = directed(types) if heading == "DIHE" else types
    before = own[heading].get(key)
    terms = (*before.values, term) if before is not None and _continues(before) else (term,)
    own[heading][key] = Entry(types, terms, source, " ".join(words[3:]))


def rest_angle(degrees: float) -> float:
    """Radians of an angle at rest; at most π, beyond which a straight angle would have a cusp."""
    return min(degrees * DEGREE, math.pi)


def _section(lines) -> Iterator[tuple[int, str]]:
    """Numbered lines up to the next blank one."""
    for number, line in lines:
        if not line.strip():
            return
        yield number, line


def _continues(entry: Entry) -> bool:
    """Whether more terms of the same dihedral follow: the last periodicity is negative."""
    return entry.values[-1][1] < 0


def _finish(section: dict[Types, Entry]) -> None:
    """Periodicities without the sign that says whether another term follows."""
    for key, entry in section.items():
        terms = tuple((k, int(abs(n)), phase) for k, n, phase in entry.values)
        section[key] = Entry(entry.types, terms, entry.source, entry.remark)
