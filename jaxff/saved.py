"""Files of potentials: any composition of terms, without pickles.

A file contains a JSON header and arrays.  The header lists the terms and their fields.  Parameters
are arrays ``params/TERM/COLUMN``.  If a column is a tree, its arrays are
``params/TERM/COLUMN/NUMBER``, and the header contains the structure of the tree.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.domain import Domain, Trained
from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.named_functions import described, value_of
from jaxff.npz import NpzReader, write_npz
from jaxff.potential import Placed, Potential, Program
from jaxff.regions import Region
from jaxff.sites import VirtualSites
from jaxff.soundness import fault_of
from jaxff.term import Term, array_fields, term_kinds

FORMAT = "jaxff potential"
VERSION = 2
UNITS = "kcal/mol, Ang, e, rad"
# Kinds of numbers, and the shape of one row, of the arrays of a molecule.
MOLECULE_ARRAYS = {
    "numbers": ("iu", ()),
    "positions": ("f", (3,)),
    "bonds": ("iu", (2,)),
    "bond_orders": ("f", ()),
}
# Modules that define the terms of the package.  Other terms need an import of their module.
TERM_MODULES = {
    "class2": "jaxff.terms.class2",
    "fourier_improper": "jaxff.terms.torsion",
    "fourier_torsion": "jaxff.terms.torsion",
    "gdml": "jaxff.gdml.model",
    "gdml-fragments": "jaxff.gdml.fragment_term",
    "gdml-local": "jaxff.gdml.local",
    "harmonic_angle": "jaxff.terms.angle",
    "harmonic_bond": "jaxff.terms.bond",
    "morse_bond": "jaxff.terms.morse",
    "network": "jaxff.terms.network",
    "neural_angle": "jaxff.terms.neural",
    "neural_bond": "jaxff.terms.neural",
    "neural_improper": "jaxff.terms.neural",
    "neural_torsion": "jaxff.terms.neural",
    "nonbonded": "jaxff.terms.pairs",
    "periodic_nonbonded": "jaxff.terms.periodic",
}
_TEMPLATE = "template"  # structure of a tree of parameters that the term can make


def save(path, potential: Potential) -> None:
    """Write a potential, including sums of potentials, to one npz file.

    Raises:
        InputError: a parameter is not finite, a function cannot be imported by its name, or `path`
            cannot be written; an earlier file is then unchanged.
    """
    arrays: dict[str, Any] = {}
    terms = []
    for i, placed in enumerate(potential.program.placed):
        term, others = placed.term, {}
        if not getattr(term, "builder", True):
            raise InputError(
                f"{path}: not written, because the term {placed.name!r} is a network without a "
                'builder; pass builder="package.module:function" to jaxff.network'
            )
        for field in fields(term):
            value = getattr(term, field.name)
            if not field.metadata.get("saved", True):
                continue
            if field.name in array_fields(term):
                arrays[f"term/{i}/{field.name}"] = np.asarray(value)
            else:
                others[field.name] = described(value, path) if callable(value) else value
        atoms = None if placed.atoms is None else placed.atoms.tolist()
        entry = {"name": placed.name, "kind": term.kind, "atoms": atoms, "fields": others}
        trees = {}
        for column, value in potential.params[placed.name].items():
            key = f"params/{placed.name}/{column}"
            leaves, _ = jax.tree.flatten(value)
            for leaf in leaves:
                if np.asarray(leaf).dtype.kind != "f":
                    raise InputError(
                        f"{path}: not written, because the parameter {placed.name}/{column} has "
                        f"the dtype {leaf.dtype}; convert it to float32"
                    )
                if not np.isfinite(leaf).all():
                    raise InputError(
                        f"{path}: not written, because the parameter {placed.name}/{column} is "
                        "not finite; correct it"
                    )
            if isinstance(value, jax.Array | np.ndarray):
                arrays[key] = np.asarray(value)
            else:
                arrays |= {f"{key}/{k}": np.asarray(leaf) for k, leaf in enumerate(leaves)}
                trees[column] = _structure(value, term, path)
        if fault := fault_of(term, potential.params[placed.name]):
            raise InputError(
                f"{path}: not written, because the term {placed.name!r} is damaged: {fault}; make "
                "the term again"
            )
        if trees:
            entry["trees"] = trees
        terms.append(entry)
    header = {"format": FORMAT, "version": VERSION, "units": UNITS, "terms": terms}
    if potential.trained:
        header["trained"] = [{"atoms": t.atoms, "whole": t.whole} for t in potential.trained]
    for i, part in enumerate(potential.trained):
        arrays |= {f"trained/{i}/{key}": value for key, value in part.domain.arrays().items()}
    if (sites := potential.program.sites) is not None:
        arrays |= {f"sites/{f.name}": getattr(sites, f.name) for f in fields(sites)}
    regions = potential.program.regions
    arrays |= {f"regions/{i}": region.rows for i, region in enumerate(regions)}
    if (molecule := potential.molecule) is not None:
        header["molecule"] = {"charge": int(molecule.charge), "name": molecule.name}
        for key in MOLECULE_ARRAYS:
            if (value := getattr(molecule, key)) is not None:
                arrays[f"molecule/{key}"] = value
    write_npz(path, {"header": np.array(json.dumps(header)), **arrays})


def load(path, trust: Sequence[str] = ()) -> Potential:
    """Read a potential that `save` has written.

    Args:
        path: the file.
        trust: names of modules; the file may call their functions to build networks.  See
            `jaxff.network`.

    Raises:
        InputError: the file contains no potential, is damaged, has a newer format, or needs a
            function of a module that is not trusted.
    """
    file = NpzReader(path, "potential")
    if "header" not in file:
        raise InputError(f"{path}: not a potential written by jaxff; give a file of jaxff.save")
    try:
        header = json.loads(file.text("header"))
    except ValueError as error:
        raise InputError(f"{path}: the header is damaged; make the file again") from error
    form = (header.get("format"), header.get("version")) if isinstance(header, dict) else (None, 0)
    if form[0] != FORMAT or form[1] not in range(1, VERSION + 1):
        name = " version ".join(map(str, form)) if form[0] is not None else "unknown"
        raise InputError(
            f"{path}: the format is {name}, but this jaxff reads {FORMAT} versions 1 to {VERSION}; "
            "install a newer jaxff or give another file"
        )
    try:
        potential = _restored(header, file, path, trust)
        potential.program.trace(potential.params)  # fails if arrays are missing or misshapen
    except InputError as error:
        message = str(error)
        raise error if str(path) in message else InputError(f"{path}: {message}") from error
    except Exception as error:  # a damaged file may cause any error
        raise InputError(
            f"{path}: the file is incomplete or damaged ({type(error).__name__}: {error}); make "
            "the file again"
        ) from error
    return potential


def _restored(header: dict, file: NpzReader, path, trust: Sequence[str]) -> Potential:
    placed, params = [], {}
    for i, entry in enumerate(header["terms"]):
        kind = _kind(entry["kind"], path)
        values = {}
        for field in fields(kind):
            if field.name in entry["fields"]:
                values[field.name] = value_of(entry["fields"][field.name], path)
            elif f"term/{i}/{field.name}" in file:
                values[field.name] = file.need(f"term/{i}/{field.name}")
            elif (
                field.default is MISSING
                and field.default_factory is MISSING
                and field.metadata.get("saved", True)
            ):
                raise InputError(
                    f"{path}: the array 'term/{i}/{field.name}' is missing; make the file again"
                )
        term, name = kind.restored(values, trust), entry["name"]
        atoms = entry["atoms"]
        if atoms is not None and (
            len(atoms) != term.n_atoms
            or len(set(atoms)) != len(atoms)
            or not all(isinstance(atom, int) and atom >= 0 for atom in atoms)
        ):
            raise InputError(
                f"{path}: the atoms of the term {name!r} are damaged; make the file again"
            )
        placed.append(Placed(name, term, None if atoms is None else np.array(atoms, np.int32)))
        prefix, trees = f"params/{name}/", entry.get("trees", {})
        params[name] = {
            key.removeprefix(prefix): file.need(key)
            for key in file
            if key.startswith(prefix) and "/" not in key.removeprefix(prefix)
        }
        for column, structure in trees.items():
            params[name][column] = _tree(structure, file, f"{prefix}{column}", term)
        if header["version"] == 1:
            params[name] = term.upgraded(params[name])
        if fault := fault_of(term, params[name]):
            raise InputError(f"{path}: the term {name!r} is damaged ({fault}); make the file again")
    molecule = None
    if "molecule" in header:
        arrays = {key: file.get(f"molecule/{key}") for key in MOLECULE_ARRAYS}
        for key, array in arrays.items():
            kinds, width = MOLECULE_ARRAYS[key]
            if array is not None and not (
                array.dtype.kind in kinds and array.ndim and array.shape[1:] == width
            ):
                raise InputError(
                    f"{path}: the array molecule/{key} is damaged; make the file again"
                )
        molecule = Molecule(**arrays, **header["molecule"])
    program = Program(placed, _sites(file, path), _regions(file, path))
    potential = Potential(program, params, molecule, trained=_trained(header, file, path))
    n_atoms = potential.n_atoms
    if molecule is not None and n_atoms not in (None, molecule.n_atoms):
        raise InputError(
            f"{path}: the molecule has {molecule.n_atoms} atoms, but the terms have {n_atoms}; "
            "make the file again"
        )
    return potential


def _sites(file: NpzReader, path) -> VirtualSites | None:
    """The virtual sites in a file, or None.

    Raises:
        InputError: an array is missing or has a wrong shape.
    """
    if "sites/atoms" not in file:
        return None
    sites = VirtualSites(**{f.name: file.need(f"sites/{f.name}") for f in fields(VirtualSites)})
    count = len(sites.atoms)
    shapes = [(count,), (count, 3), (count, 3), (count,)]
    if [getattr(sites, f.name).shape for f in fields(VirtualSites)] != shapes:
        raise InputError(f"{path}: the virtual sites are damaged; make the file again")
    return sites


def _regions(file: NpzReader, path) -> list[Region]:
    """The regions in a file.

    Raises:
        InputError: an array has a wrong shape or type.
    """
    arrays = [file.need(key) for key in sorted(k for k in file if k.startswith("regions/"))]
    if any(a.dtype.kind not in "iu" or a.shape[1:] != (3,) or (a < 0).any() for a in arrays):
        raise InputError(f"{path}: the regions are damaged; make the file again")
    return [Region(array) for array in arrays]


def _trained(header: dict, file: NpzReader, path) -> list[Trained]:
    """The training frames of the potential; files of earlier versions contain none.

    Raises:
        InputError: the description of the training frames is damaged.
    """
    parts = []
    for i, entry in enumerate(header.get("trained", ())):
        atoms, prefix = entry["atoms"], f"trained/{i}/"
        arrays = {k.removeprefix(prefix): file.get(k) for k in file if k.startswith(prefix)}
        domain = Domain.from_arrays(arrays)
        if domain is None or (atoms is not None and len(atoms) != len(domain.atoms)):
            raise InputError(
                f"{path}: the description of the training frames is damaged; make the file again"
            )
        parts.append(Trained(domain, None if atoms is None else tuple(atoms), entry["whole"]))
    return parts


def _kind(name: str, path) -> type[Term]:
    if name in TERM_MODULES:
        importlib.import_module(TERM_MODULES[name])
    kind = term_kinds().get(name)
    if kind is None:
        raise InputError(
            f"{path}: unknown kind of term {name!r}; import the module that defines this term"
        )
    return kind


# -- trees of parameters ------------------------------------------------------------------------


def _structure(tree, term: Term, path):
    """The structure of a tree as JSON values; leaves are numbered as in JAX.

    Nodes are dicts, lists and tuples.  For a tree with nodes of other types, the result is
    `_TEMPLATE` if the tree has the structure of `term.template()`.

    Raises:
        InputError: the tree has nodes of other types and not the structure of the template.
    """
    count = iter(range(len(jax.tree.leaves(tree))))

    def describe(node):
        if node is None:
            return None
        if isinstance(node, jax.Array | np.ndarray):
            return next(count)
        if type(node) is dict and all(isinstance(key, str) for key in node):
            return {"dict": [[key, describe(node[key])] for key in sorted(node)]}
        if type(node) in (list, tuple):
            return {type(node).__name__: [describe(item) for item in node]}
        kind = (
            "a dict with keys that are not strings" if type(node) is dict else type(node).__name__
        )
        raise TypeError(kind)

    try:
        return describe(tree)
    except TypeError as error:
        example = term.template()
        if jax.tree.structure(example) != jax.tree.structure(tree):
            raise InputError(
                f"{path}: not written, because the variables of the network contain {error}: use "
                "only dicts with strings as keys, lists and tuples, or let the builder return "
                "(apply, variables) with an example of the variables"
            ) from None
        return _TEMPLATE


def _tree(structure, file: NpzReader, prefix: str, term: Term):
    if structure == _TEMPLATE:
        example = jax.tree.structure(term.template())
        leaves = [file.need(f"{prefix}/{k}") for k in range(example.num_leaves)]
        return jax.tree.unflatten(example, [jnp.asarray(leaf) for leaf in leaves])

    def restore(node):
        if node is None:
            return None
        if isinstance(node, int):
            return jnp.asarray(file.need(f"{prefix}/{node}"))
        ((kind, items),) = node.items()
        if kind == "dict":
            return {key: restore(item) for key, item in items}
        return (tuple if kind == "tuple" else list)(map(restore, items))

    return restore(structure)
