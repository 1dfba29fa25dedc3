"""The parameter file of GAFF, gaff.dat, as a table with line numbers.

Format: https://ambermd.org/FileFormats.php#parm.dat
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources

from jaxff.errors import InputError
from jaxff.npz import LARGEST

Types = tuple[str, ...]
DEGREE = 3.141594 / 180.0  # LEaP's value of one degree in rad, which differs from π/180 by 4e-7
_WIDTHS = {"bonds": 2, "angles": 3, "torsions": 4, "impropers": 4}
_HEADINGS = {
    "MASS": "masses",
    "BOND": "bonds",
    "ANGL": "angles",
    "DIHE": "torsions",
    "IMPR": "impropers",
    "NONB": "lj",
}
_SCALES = {"SCEE": 1.2, "SCNB": 2.0}


@dataclass(frozen=True)
class Entry:
    """One entry of a parameter file.

    Attributes:
        types: names of the atom types, "X" for any.
        values: bond (k kcal/mol/Å², length Å); angle (k kcal/mol/rad², angle rad); torsion and
            improper one or more Fourier terms (k kcal/mol, periodicity, phase rad).
        source: file and line, such as "gaff.dat 93".
        remark: the file's remark on the origin of the values.
    """

    types: Types
    values: tuple
    source: str
    remark: str = ""

    @property
    def name(self) -> str:
        """The types, such as "c3-hc"."""
        return "-".join(self.types)


@dataclass(frozen=True)
class ParameterTable:
    """Entries of bonded interactions by types, and σ and ε of each type.

    Attributes:
        title: the file's first line.
        descriptions: {type: description in the file}.
        masses: {type: amu}.
        lj: {type: (σ Å, ε kcal/mol)}.
        bonds, angles, torsions: entries by types, see `directed`.
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
        """The entry of a bond."""
        return self.bonds.get(directed(types))

    def angle(self, types: Types) -> Entry | None:
        """The entry of an angle."""
        return self.angles.get(directed(types))

    def torsion(self, types: Types) -> Entry | None:
        """The entry of four types, or else that of the two inner types with any ends."""
        _, b, c, _ = types
        return self.torsions.get(directed(types)) or self.torsions.get(directed(("X", b, c, "X")))

    def improper(self, centre: str, outer: Types) -> Entry | None:
        """The entry that fits a centre and its three neighbours with the fewest "X"."""
        fitting = [e for e in self.impropers.values() if e.types[2] == centre and _covers(e, outer)]
        # The last of equal entries is preferred, because it comes from a frcmod file.
        return min(reversed(fitting), key=lambda e: e.types.count("X"), default=None)


def directed(types: Types) -> Types:
    """The types, in the direction that comes first in the alphabet."""
    return min(types, types[::-1])


def _covers(entry: Entry, outer: Types) -> bool:
    """Whether an improper's entry fits three neighbours (3,) in any order."""
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
    """GAFF 1.81 (May 2017) of AmberTools, which is in the public domain."""
    path = resources.files("jaxff") / "data" / "gaff" / "gaff.dat"
    return parse_table(path.read_text(), "gaff.dat")


def parse_table(text: str, name: str) -> ParameterTable:
    """The table of a parameter file in AMBER's parm.dat format.

    Args:
        text: contents of the file.
        name: of the file, for sources and messages.

    Raises:
        InputError: a line cannot be read; the message gives its number.
    """
    lines = iter(enumerate(text.splitlines(), 1))
    _, title = next(lines)
    table = ParameterTable(title, {}, {}, {})
    for _, line in _section(lines):
        kind, mass, *rest = line.split(None, 3)
        table.masses[kind] = float(mass)
        table.descriptions[kind] = rest[-1].strip() if rest else ""
    next(lines)  # hydrophilic atoms
    for section in _WIDTHS:
        entries = getattr(table, section)
        for number, line in _section(lines):
            with _named_line(name, number, line):
                _add_entry(entries, section, line, f"{name} {number}")
        _finish(entries)
    for _ in _section(lines):  # 10-12 hydrogen bonds, which are not used
        pass
    for _, line in lines:
        if line.startswith("MOD4"):
            break
    for number, line in _section(lines):
        _add_lj(table, line, f"{name} {number}")
    return table


def with_frcmod(table: ParameterTable, text: str, name: str) -> ParameterTable:
    """The table, with the entries of a frcmod file added or replaced.

    Args:
        table: the table.
        text: contents of the file.
        name: of the file, for sources and messages.

    Raises:
        InputError: a line cannot be read; the message gives its number.
    """
    new = replace(
        table,
        descriptions=dict(table.descriptions),
        **{section: dict(getattr(table, section)) for section in _HEADINGS.values()},
    )
    added: dict[str, dict[Types, Entry]] = {section: {} for section in _WIDTHS}
    section = ""
    for number, line in list(enumerate(text.splitlines(), 1))[1:]:
        words = line.split()
        if not words:
            continue
        if len(words) == 1 and words[0][:4].upper() in _HEADINGS:
            section = _HEADINGS[words[0][:4].upper()]
            continue
        source = f"{name} {number}"
        with _named_line(name, number, line):
            _check_words(words)
            if section in _WIDTHS:
                _add_entry(added[section], section, line, source)
            elif section == "masses":
                new.masses[words[0]] = float(words[1])
            else:
                _add_lj(new, line, source)
    if not section:
        raise InputError(f"{name} has no section of parameters (MASS, BOND, ...)")
    for section, entries in added.items():
        _finish(entries)
        getattr(new, section).update(entries)
    return new


@contextmanager
def _named_line(name: str, number: int, line: str) -> Iterator[None]:
    """Turn errors of the block into an InputError that names the line."""
    try:
        yield
    except (IndexError, ValueError, ArithmeticError) as error:
        raise InputError(f"{name} line {number} cannot be read: {line!r}") from error


def _check_words(words: list[str]) -> None:
    for word in words:
        scale, _, value = word.upper().partition("=")
        if scale in _SCALES and float(value) != _SCALES[scale]:
            raise ValueError(f"{word} is not supported")
        with suppress(ValueError):  # other words are types and comments
            if not abs(float(word)) < LARGEST:
                raise OverflowError("not finite or too large")


def _add_entry(entries: dict[Types, Entry], section: str, line: str, source: str) -> None:
    """Add the entry of a line, or one more Fourier term to an existing entry."""
    width = _WIDTHS[section]
    types = tuple(line[3 * i : 3 * i + 2].strip() for i in range(width))
    words = line[3 * width - 1 :].split()
    key = types if section == "impropers" else directed(types)
    if width < 4:
        second = float(words[1])
        values = float(words[0]), second if section == "bonds" else equilibrium_angle(second)
        entries[key] = Entry(types, values, source, " ".join(words[2:]))
        return
    divisor = float(words.pop(0)) if section == "torsions" else 1.0
    term = float(words[0]) / divisor, float(words[2]), float(words[1]) * DEGREE
    if term[1] != round(term[1]) or term[1] == 0:
        raise ValueError("a periodicity is a natural number")
    before = entries.get(key)
    if before is not None and before.values[-1][1] < 0:  # the negative sign means: more follow
        entries[key] = replace(before, values=(*before.values, term))
    else:
        entries[key] = Entry(types, (term,), source, " ".join(words[3:]))


def _add_lj(table: ParameterTable, line: str, source: str) -> None:
    kind, radius, epsilon, *_ = line.split(None, 3)
    # The file contains half the distance of the minimum; σ is 1 if it is zero, where ε = 0.
    sigma = 2.0 * float(radius) / 2.0 ** (1.0 / 6.0) or 1.0
    table.lj[kind] = Entry((kind,), (sigma, float(epsilon)), source)


def equilibrium_angle(degrees: float) -> float:
    """Convert an equilibrium angle to rad; above π the energy would have a cusp at π."""
    return min(degrees * DEGREE, math.pi)


def _section(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Numbered lines up to the next blank one."""
    for number, line in lines:
        if not line.strip():
            return
        yield number, line


def _finish(entries: dict[Types, Entry]) -> None:
    """Make periodicities positive: their sign only says whether another term follows."""
    for key, entry in entries.items():
        if len(key) == 4:
            terms = tuple((k, int(abs(n)), phase) for k, n, phase in entry.values)
            entries[key] = replace(entry, values=terms)
