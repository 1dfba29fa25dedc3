"""Tables of parameters from gaff.dat, the GAFF file, and from frcmod files.

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
DEGREE = (
    3.141594 / 180.0
)  # one degree in rad in LEaP; it differs from π/180 by a factor of 1 + 4e-7
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
        types: names of the atom types; "X" means any type.
        values: bonds: (k kcal/mol/Å², length Å); angles: (k kcal/mol/rad², angle rad);
            Lennard-Jones: (σ Å, ε kcal/mol); torsions and impropers: one or more Fourier terms
            (k kcal/mol, periodicity, phase rad).
        source: file and line, such as "gaff.dat 93".
        remark: remark in the file on the origin of the values.
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
        title: first line of the file.
        descriptions: {type: description in the file}.
        masses: {type: mass, amu}.
        lj: {type: entry}.
        bonds, angles, torsions: {types: entry}, with types in the order of `directed`.
        impropers: {types: entry}, with the centre third.
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
        """The entry of a bond with the types (2,), or None."""
        return self.bonds.get(directed(types))

    def angle(self, types: Types) -> Entry | None:
        """The entry of an angle with the types (3,), or None."""
        return self.angles.get(directed(types))

    def torsion(self, types: Types) -> Entry | None:
        """The entry of a torsion with the types (4,), or of X-b-c-X, or None."""
        _, b, c, _ = types
        return self.torsions.get(directed(types)) or self.torsions.get(directed(("X", b, c, "X")))

    def improper(self, centre: str, outer: Types) -> Entry | None:
        """The entry of an improper with the fewest "X", or None.

        Args:
            centre: type of the central atom.
            outer: (3,) types of its neighbours, in any order.
        """
        fitting = [e for e in self.impropers.values() if e.types[2] == centre and _covers(e, outer)]
        # The last of equal entries is preferred, because it comes from a frcmod file.
        return min(reversed(fitting), key=lambda e: e.types.count("X"), default=None)


def directed(types: Types) -> Types:
    """The types, reversed if the reversed order comes first in the alphabet."""
    return min(types, types[::-1])


def _covers(entry: Entry, outer: Types) -> bool:
    """Whether the entry of an improper fits the types (3,) of the neighbours."""
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
    """The parameters of GAFF 1.81 (May 2017), from AmberTools (public domain)."""
    path = resources.files("jaxff") / "data" / "gaff" / "gaff.dat"
    return parse_table(path.read_text(), "gaff.dat")


def parse_table(text: str, name: str) -> ParameterTable:
    """Read a parameter file in the parm.dat format of AMBER.

    Args:
        text: contents of the file.
        name: name of the file, for sources and messages.

    Raises:
        InputError: a line cannot be read.
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
    """A copy of a table, with the entries of a frcmod file added or replaced.

    Args:
        table: the table.
        text: contents of the frcmod file.
        name: name of the file, for sources and messages.

    Raises:
        InputError: a line cannot be read, or the file has no section of parameters.
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
        raise InputError(
            f"{name} has no section of parameters; a frcmod file needs {', '.join(_HEADINGS)}"
        )
    for section, entries in added.items():
        _finish(entries)
        getattr(new, section).update(entries)
    return new


@contextmanager
def _named_line(name: str, number: int, line: str) -> Iterator[None]:
    """Convert errors of the block into an InputError with the number of the line."""
    try:
        yield
    except (IndexError, ValueError, ArithmeticError) as error:
        raise InputError(
            f"{name} line {number} cannot be read ({error}); correct the line {line!r}"
        ) from error


def _check_words(words: list[str]) -> None:
    for word in words:
        scale, _, value = word.upper().partition("=")
        if scale in _SCALES and float(value) != _SCALES[scale]:
            raise ValueError(f"{scale} must be {_SCALES[scale]}")
        with suppress(ValueError):  # other words are types and comments
            if not abs(float(word)) < LARGEST:
                raise OverflowError("a number is not finite or too large")


def _add_entry(entries: dict[Types, Entry], section: str, line: str, source: str) -> None:
    """Add the entry of a line, or add another Fourier term to an existing entry.

    Args:
        entries: {types: entry}, which is changed.
        section: "bonds", "angles", "torsions" or "impropers".
        line: the line of the file.
        source: file and line number.

    Raises:
        ValueError, IndexError: the line cannot be read.
    """
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
        raise ValueError("the periodicity must be a whole number other than 0")
    before = entries.get(key)
    if before is not None and before.values[-1][1] < 0:  # a negative sign: another term follows
        entries[key] = replace(before, values=(*before.values, term))
    else:
        entries[key] = Entry(types, (term,), source, " ".join(words[3:]))


def _add_lj(table: ParameterTable, line: str, source: str) -> None:
    kind, radius, epsilon, *_ = line.split(None, 3)
    # The file contains half the distance of the minimum.  If it is zero, ε is zero and σ is set to
    # 1.
    sigma = 2.0 * float(radius) / 2.0 ** (1.0 / 6.0) or 1.0
    table.lj[kind] = Entry((kind,), (sigma, float(epsilon)), source)


def equilibrium_angle(degrees: float) -> float:
    """Convert an equilibrium angle from degrees to rad, and limit it to π."""
    return min(degrees * DEGREE, math.pi)


def _section(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield numbered lines up to the next empty line."""
    for number, line in lines:
        if not line.strip():
            return
        yield number, line


def _finish(entries: dict[Types, Entry]) -> None:
    """Make periodicities positive; in files, a minus means that another term follows."""
    for key, entry in entries.items():
        if len(key) == 4:
            terms = tuple((k, int(abs(n)), phase) for k, n, phase in entry.values)
            entries[key] = replace(entry, values=terms)
