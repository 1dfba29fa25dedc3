"""Formats of force-field files: suffixes, and the modules that handle them.

For a new format, add a module and a line in `FORCE_FIELDS`.  The module defines

    read(path, companions, coulomb_constant) -> Potential
    write(path, topology, potential) -> list of the written files

A module that handles systems defines

    read_system(path, coordinates) -> (Particles, Tables)
    write_system(path, particles, tables) -> list of the written files
    write_coordinates(path, particles) -> None

The module is imported at its first use, so that the command line can read the suffixes quickly.
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
        module: name of the module in `jaxff.formats`, and of the format in `jaxff export --to`.
        suffixes: suffixes in lower case; the first is the usual one.
        companions: suffixes of companions, the files that may accompany a file of this format
            (empty: the suffixes of molecule files).
        most: largest number of companions (None: any number).
        written_suffixes: additional suffixes that are accepted for writing.
        terms: kinds of terms that the format can express in addition to those of AMBER.
        needs_companions: whether companions contain parameters; a companion with the same name is
            then read by default.
        systems: name of the module that reads and writes systems, or "".
        coordinates: suffixes of the coordinate files of systems; the first is the usual one.
    """

    name: str
    module: str
    suffixes: tuple[str, ...]
    companions: tuple[str, ...] = ()
    most: int | None = 1
    written_suffixes: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()
    needs_companions: bool = False
    systems: str = ""
    coordinates: tuple[str, ...] = ()

    def load(self) -> ModuleType:
        """Import and return the module that reads and writes this format."""
        return import_module(f"jaxff.formats.{self.module}")

    def load_systems(self) -> ModuleType:
        """Import and return the module that reads and writes systems of this format."""
        return import_module(f"jaxff.formats.{self.systems}")


FORCE_FIELDS = (
    Format(
        "AMBER topology",
        "amber",
        (".prmtop", ".parm7"),
        (".inpcrd", ".rst7", ".crd"),
        systems="amber",
        coordinates=(".rst7", ".inpcrd", ".crd", ".ncrst", ".nc", ".restrt"),
    ),
    Format(
        "mol2",
        "mol2",
        (".mol2",),
        (".frcmod",),
        most=None,
        written_suffixes=(".frcmod",),
        needs_companions=True,
    ),
    Format(
        "GROMACS topology",
        "gromacs",
        (".top",),
        (".gro",),
        systems="gromacs_system",
        coordinates=(".gro",),
    ),
    Format(
        "OpenMM System",
        "openmm",
        (".xml",),
        terms=("morse_bond",),
        systems="openmm_system",
        coordinates=(".pdb",),
    ),
)
AMBER = FORCE_FIELDS[0]
GROMACS = FORCE_FIELDS[2]
COORDINATES = AMBER.companions + GROMACS.companions  # files of positions without elements
FORCE_FIELD_SUFFIXES = tuple(suffix for form in FORCE_FIELDS for suffix in form.suffixes)
MODEL_SUFFIX = ".npz"


def system_formats() -> list[Format]:
    """The formats of systems."""
    return [form for form in FORCE_FIELDS if form.systems]


def coordinate_format(path: str | Path) -> Format | None:
    """The format of systems whose coordinate files have the suffix of a path, or None."""
    return next((form for form in system_formats() if suffix_of(path) in form.coordinates), None)


def suffix_of(path: str | Path) -> str:
    """The suffix of a path, such as ".npz", in lower case."""
    return Path(path).suffix.lower()


def is_force_field(path: str | Path) -> bool:
    """Whether a path has the suffix of a force-field file."""
    return suffix_of(path) in FORCE_FIELD_SUFFIXES


def is_potential(path: str | Path) -> bool:
    """Whether a path has the suffix of a model file or a force-field file."""
    return suffix_of(path) == MODEL_SUFFIX or is_force_field(path)


def needs_companions(path: str | Path) -> bool:
    """Whether a path is a force-field file with parameters in other files."""
    return is_force_field(path) and format_of(path).needs_companions


def companions_of(path: str | Path, given: Sequence[str | Path] = ()) -> list[Path]:
    """The companions of a force-field or model file, which are read with the file.

    Args:
        path: the file.
        given: companions given by the user.

    Returns:
        The given companions.  If none is given and the format needs companions, the existing files
        with the same name and a suffix of companions.
    """
    if given or not needs_companions(path):
        return list(map(Path, given))
    named = [Path(path).with_suffix(suffix) for suffix in format_of(path).companions]
    return [file for file in named if file.is_file()]


def format_of(path: str | Path, *, writing: bool = False) -> Format:
    """The format of a force-field file, by its suffix.

    Args:
        path: the file.
        writing: whether suffixes that are accepted only for writing are included.

    Raises:
        InputError: no format has this suffix.
    """
    suffix, known = suffix_of(path), []
    for form in FORCE_FIELDS:
        suffixes = form.suffixes + (form.written_suffixes if writing else ())
        if suffix in suffixes:
            return form
        known += suffixes
    raise InputError(f"{path}: unknown force field suffix {suffix!r}; use {', '.join(known)}")
