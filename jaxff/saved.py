"""Files of potentials: any composition of terms, written by its fields and read back."""

from __future__ import annotations

import json
import sys
from dataclasses import MISSING, fields
from functools import partial
from types import FunctionType

import jax
import numpy as np

from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.npz import NpzReader, write_npz
from jaxff.potential import Placed, Potential, Term

FORMAT = "jaxff potential"
VERSION = 1
UNITS = "kcal/mol, Ang, e, rad"


def save(path, potential: Potential) -> None:
    """Write any potential (hybrids included) to one npz file, atomically.

    Raises:
        InputError: a parameter is not finite, or `path` cannot be written.
    """
    arrays, terms = {}, []
    for i, placed in enumerate(potential.program.placed):
        scalars = {}
        for field in fields(placed.term):
            value = getattr(placed.term, field.name)
            if isinstance(value, np.ndarray):
                arrays[f"term/{i}/{field.name}"] = value
            elif callable(value):
                scalars[field.name] = _described(value, path)
            else:
                scalars[field.name] = value
        where = None if placed.atoms is None else list(placed.atoms)
        terms.append(
            {"name": placed.name, "kind": placed.term.kind, "atoms": where, "fields": scalars}
        )
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(potential.params):
        key = "/".join(str(part.key) for part in key_path)
        if not np.isfinite(leaf).all():
            raise InputError(f"{path}: not written, the parameter {key} is not finite")
        arrays[f"params/{key}"] = np.asarray(leaf)
    header = {"format": FORMAT, "version": VERSION, "units": UNITS, "terms": terms}
    if (molecule := potential.molecule) is not None:
        header["molecule"] = {"charge": int(molecule.charge), "name": molecule.name}
        for key in ("numbers", "positions", "bonds", "bond_orders"):
            if (value := getattr(molecule, key)) is not None:
                arrays[f"molecule/{key}"] = value
    write_npz(path, {"header": np.array(json.dumps(header)), **arrays})


def load(path) -> Potential:
    """Read a potential written by `save`, or a model file of the sGDML package.

    Raises:
        InputError: not such a file, a damaged one, or one of a newer format.
    """
    file = NpzReader(path, "potential")
    if "header" not in file:
        if "R_d_desc_alpha" in file or "Rt_d_desc_alpha" in file:
            from jaxff import gdml

            return gdml.load(path)
        raise InputError(f"{path}: not a potential written by jaxff, nor an sGDML model")
    try:
        header = json.loads(file.text("header"))
    except ValueError as error:
        raise InputError(f"{path}: its header is damaged; make the file again") from error
    form = (header.get("format"), header.get("version")) if isinstance(header, dict) else None
    if form != (FORMAT, VERSION):
        raise InputError(
            f"{path}: its format is {' version '.join(map(str, form or ('unknown',)))}, this jaxff "
            f"reads {FORMAT} version {VERSION}"
        )
    try:
        potential = _restored(header, file, path)
        _tried(potential)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file leads to
        raise InputError(
            f"{path}: it is incomplete or damaged ({type(error).__name__}: {error}); make it again"
        ) from error
    return potential


def _tried(potential: Potential) -> None:
    """Trace the energy, without computing it: an error if parameters are missing or misshapen."""
    n_atoms = potential.n_atoms or potential.program.n_atoms_min
    shape = jax.ShapeDtypeStruct((n_atoms, 3), jax.numpy.result_type(float))
    jax.eval_shape(potential.energy_fn, potential.params, shape)


def _restored(header: dict, file: NpzReader, path) -> Potential:
    kinds = _term_kinds()
    placed = []
    for i, entry in enumerate(header["terms"]):
        if entry["kind"] not in kinds:
            raise InputError(
                f"{path}: unknown kind of term {entry['kind']!r}; import the module that defines it"
            )
        kind = kinds[entry["kind"]]
        values = {
            field.name: (
                _value(entry["fields"][field.name], path)
                if field.name in entry["fields"]
                else file.need(f"term/{i}/{field.name}")
            )
            for field in fields(kind)
            if field.name in entry["fields"]
            or f"term/{i}/{field.name}" in file
            or (field.default is MISSING and field.default_factory is MISSING)
        }
        atoms = None if entry["atoms"] is None else tuple(entry["atoms"])
        placed.append(Placed(entry["name"], kind(**values), atoms))
    params: dict = {p.name: {} for p in placed}
    for key in file:
        if key.startswith("params/"):
            *groups, column = key.split("/")[1:]
            node = params
            for group in groups:
                node = node.setdefault(group, {})
            node[column] = file.need(key)
    molecule = None
    if "molecule" in header:
        arrays = {
            key: file.get(f"molecule/{key}")
            for key in ("numbers", "positions", "bonds", "bond_orders")
        }
        molecule = Molecule(**arrays, **header["molecule"])
    return Potential(placed, params, molecule)


def _value(value, path):
    if isinstance(value, dict):
        function = _function(value["function"], path)
        given = {key: _value(v, path) for key, v in value.get("arguments", {}).items()}
        return partial(function, **given) if given else function
    return tuple(_value(v, path) for v in value) if isinstance(value, list) else value


def _described(function, path) -> dict:
    """A function by its name, with the keywords that `functools.partial` has given it."""
    if isinstance(function, partial) and not function.args:
        return {"function": _name_of(function.func, path), "arguments": function.keywords}
    return {"function": _name_of(function, path)}


def _name_of(function, path) -> str:
    name = f"{function.__module__}:{getattr(function, '__qualname__', '<unnamed>')}"
    if "<" in name or _find(name) is not function:
        raise InputError(f"{path}: not written, the function {name} cannot be found by its name")
    return name


def _function(name: str, path):
    function = _find(name)
    if function is None:
        module = name.partition(":")[0]
        raise InputError(f"{path}: it needs the function {name}; import {module} before loading")
    return function


def _find(name: str):
    """A function written in Python in an imported module that is not the standard library's.

    A file must not make other code run.
    """
    module, _, qualified = name.partition(":")
    if module.partition(".")[0] in sys.stdlib_module_names - {"__main__"}:
        return None
    found = sys.modules.get(module)
    for part in qualified.split("."):
        found = getattr(found, part, None)
    mine = isinstance(found, FunctionType) and found.__module__ == module
    return found if mine else None


def _term_kinds() -> dict[str, type[Term]]:
    from jaxff import gdml  # noqa: F401  (it and mm define the kinds that come with jaxff)
    from jaxff.terms import neural  # noqa: F401

    found, queue = {}, [Term]
    while queue:
        for kind in queue.pop().__subclasses__():
            queue.append(kind)
            if "kind" in vars(kind):
                found[kind.kind] = kind
    return found
