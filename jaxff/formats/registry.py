"""Formats of force-field files: suffixes, and the modules that handle them.

A new format takes one module and one line in `FORCE_FIELDS`.  The module defines

    read(path, companions, coulomb_constant) -> Potential
    write(path, topology, potential) -> list of the files written

and is imported at its first use, so that the command line can read the suffixes quickly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from jaxff.errors import InputError


@dataclass(frozen=True)
class Format:
    """A format of force-field files.

    Attributes:
        name: the format in words.
        module: its module in `jaxff.formats`, and its name in `jaxff export --to`.
        suffixes: in lower case; the first is the usual one.
        companions: suffixes of the files that may accompany it (empty: those of molecules).
        most: the largest number of these files.
        written_suffixes: more suffixes under which it is written.
        terms: kinds of terms that it can express in addition to AMBER's.
        needs_companions: whether these files contain parameters, so that a file of the same name is
            read if none is given.
    """

    name: str
    module: str
    suffixes: tuple[str, ...]
    companions: tuple[str, ...] = ()
    most: int | None = 1
    written_suffixes: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()
    needs_companions: bool = False

    def load(self) -> ModuleType:
        """The module that reads and writes this format."""
        return import_module(f"jaxff.formats.{self.module}")


FORCE_FIELDS = (
    Format("AMBER topology", "amber", (".prmtop", ".parm7"), (".inpcrd", ".rst7", ".crd")),
    Format(
        "mol2",
        "mol2",
        (".mol2",),
        (".frcmod",),
        most=None,
        written_suffixes=(".frcmod",),
        needs_companions=True,
    ),
    Format("GROMACS topology", "gromacs", (".top",), (".gro",)),
    Format("OpenMM System", "openmm", (".xml",), terms=("morse_bond",)),
)
AMBER = FORCE_FIELDS[0]
GROMACS = FORCE_FIELDS[2]
COORDINATES = AMBER.companions + GROMACS.companions  # files of positions without elements
FORCE_FIELD_SUFFIXES = tuple(suffix for form in FORCE_FIELDS for suffix in form.suffixes)
MODEL_SUFFIX = ".npz"


def suffix_of(path: str | Path) -> str:
    """The suffix of a path in lower case."""
    return Path(path).suffix.lower()


def is_force_field(path: str | Path) -> bool:
    """Whether the suffix of a path is that of a force-field file."""
    return suffix_of(path) in FORCE_FIELD_SUFFIXES


def is_potential(path: str | Path) -> bool:
    """Whether the suffix of a path is that of a model file or a force-field file."""
    return suffix_of(path) == MODEL_SUFFIX or is_force_field(path)


def needs_companions(path: str | Path) -> bool:
    """Whether the parameters of a force-field file may be in other files."""
    return is_force_field(path) and format_of(path).needs_companions


def companions_of(path: str | Path, given: Sequence[str | Path] = ()) -> list[Path]:
    """The files that are read together with a force-field or model file.

    Args:
        path: the file.
        given: the companions that the user names.

    Returns:
        the given files; if there are none and the format needs companions, the file with the same
        name and the companions' suffix, if it exists.
    """
    if given or not needs_companions(path):
        return list(map(Path, given))
    named = [Path(path).with_suffix(suffix) for suffix in format_of(path).companions]
    return [file for file in named if file.is_file()]


def format_of(path: str | Path, *, writing: bool = False) -> Format:
    """The format of a force-field file, by its suffix.

    Raises:
        InputError: no format has this suffix.
    """
    suffix, known = suffix_of(path), []
    for form in FORCE_FIELDS:
        suffixes = form.suffixes + (form.written_suffixes if writing else ())
        if suffix in suffixes:
            return form
        known += suffixes
    raise InputError(f"{path}: unknown force field {suffix!r}; use {', '.join(known)}")
