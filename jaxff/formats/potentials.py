"""Read potentials from model files and from force-field files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from zipfile import is_zipfile

from jaxff import saved
from jaxff.errors import InputError
from jaxff.formats.force_fields import read_force_field
from jaxff.formats.registry import (
    FORCE_FIELD_SUFFIXES,
    MODEL_SUFFIX,
    is_force_field,
    suffix_of,
)
from jaxff.gdml.files import load as load_gdml
from jaxff.npz import NpzReader
from jaxff.potential import Potential


class Model(NamedTuple):
    """A kind of npz file that contains a potential.

    Attributes:
        name: the kind in words.
        arrays: names of arrays; a file of this kind contains one of them.
        load: function that reads the file; its arguments are the path and the trusted modules.
    """

    name: str
    arrays: tuple[str, ...]
    load: Callable[[Path, Sequence[str]], Potential]


MODELS = (
    Model("a potential written by jaxff", ("header",), saved.load),
    Model("an sGDML model", ("R_d_desc_alpha", "Rt_d_desc_alpha"), lambda path, _: load_gdml(path)),
)


def load(path: str | Path, trust: Sequence[str] = ()) -> Potential:
    """Read a potential from a file of `jaxff.save` or of the sGDML package.

    Args:
        path: the npz file.
        trust: names of modules; the file may call their functions to build networks.

    Raises:
        InputError: the file is of another kind or damaged, has a newer format version, or needs a
            module that is not trusted.
    """
    model = model_of(path)
    if model is None:
        kinds = ", nor ".join(known.name for known in MODELS)
        raise InputError(f"{path}: not {kinds}; give a file of one of these kinds")
    return model.load(Path(path), trust)


def model_of(path: str | Path) -> Model | None:
    """The kind of model in an npz file; None if the file contains no potential."""
    file = NpzReader(path, "potential")
    return next((m for m in MODELS if any(key in file for key in m.arrays)), None)


def is_model(path: str | Path) -> bool:
    """Whether a file is a force-field file, or an npz file with a potential."""
    return is_force_field(path) or (suffix_of(path) == MODEL_SUFFIX and model_of(path) is not None)


def read_potential(
    path: str | Path, trust: Sequence[str] = (), companions: Sequence[str | Path] = ()
) -> Potential:
    """Read the potential of a model file or of a force-field file of another program.

    Args:
        path: the file; the suffix determines the format.
        trust: names of trusted modules; see `load`.
        companions: files that accompany a force-field file; see `read_force_field`.

    Raises:
        InputError: a file cannot be read.
    """
    if is_force_field(path):
        return read_force_field(path, *companions)
    if suffix_of(path) != MODEL_SUFFIX and Path(path).is_file() and not is_zipfile(path):
        known = ", ".join((MODEL_SUFFIX, *FORCE_FIELD_SUFFIXES))
        raise InputError(
            f"{path}: neither a model nor a force field; use one of the suffixes {known}"
        )
    if companions:
        names = ", ".join(map(str, companions))
        raise InputError(f"{path}: {names} cannot be read together with a model file; omit {names}")
    return load(path, trust)
