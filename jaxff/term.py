"""Terms: one kind of interaction in a system of atoms, as a JAX pytree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar, Self

import jax
import numpy as np

from jaxff.interaction import Interactions
from jaxff.space import Space

Array = jax.Array
Params = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """Unit, scale and bounds of a parameter array, and whether it is trainable.

    Attributes:
        unit: unit of the values, such as "kcal/mol/Å²".
        scale: size of a typical change, in this unit.
        lower, upper: physical bounds, in this unit.
        trainable: whether fits change the array if the user names no parameters.
    """

    unit: str
    scale: float = 1.0
    lower: float = -math.inf
    upper: float = math.inf
    trainable: bool = True


class Term:
    """One kind of interaction in a system of `n_atoms` atoms; a JAX pytree.

    A subclass is a frozen dataclass (``eq=False``).  It defines `kind`, `columns`, and either
    `energies` or `interactions`.  Fields that are arrays of integers (atom indices, rows of tables,
    permutations) are the leaves of the pytree.  All other fields are static.  Floating-point
    numbers are parameters, not fields.

    Attributes:
        kind: unique name, written to files.
        energy_name: name of the energy of a term that defines `interactions` (default: `kind`).
        columns: the `Column` of each parameter, as a prefix of the tree of parameters.
        tables: {field: (names, columns)} of parameters that several molecules can share.  The
            parameters `columns` are tables, and the array `field` contains row numbers of these
            tables.  `names` is the field with the names of the rows, or "" if there are no names.
        indices: {field: kinds} of all other arrays of integers.  `kinds` has one entry for each
            column of the array: "atoms" for atom indices, or the field to which the column refers.
            `kinds` is () for flags.
        open_rows: fields of `tables` in which −1 means no row.
        dimensions: {field or column: dimensions}, such as "B 2", for the check of files.  Equal
            letters denote equal sizes, N the number of atoms, and _ any size.  Columns of `tables`
            without an entry have one number for each row.
        adaptable: static fields that `alike` changes.
        notes: static fields that do not change the energy, such as the name of the training set.
            They may differ between the potentials of a stack.
        learnt: True if only training frames determine the energy, which may then be wrong for
            other frames.
        physical: False if the energy is meaningless before training.  Labels are then not compared
            with its predictions.
        precise: True if the energy needs float64, because large summands cancel.  The parameters
            then remain in float64 when a potential is converted to float32.
        needs_list: True if the energy needs a neighbour list.
        n_atoms: number of atoms.
    """

    kind: ClassVar[str]
    energy_name: ClassVar[str] = ""
    columns: ClassVar[Mapping[str, Any]] = {}
    tables: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {}
    indices: ClassVar[dict[str, tuple[str, ...]]] = {}
    open_rows: ClassVar[tuple[str, ...]] = ()
    dimensions: ClassVar[dict[str, str]] = {}
    adaptable: ClassVar[tuple[str, ...]] = ()
    notes: ClassVar[tuple[str, ...]] = ()
    learnt: ClassVar[bool] = False
    physical: ClassVar[bool] = True
    precise: ClassVar[bool] = False
    needs_list: ClassVar[bool] = False
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]  # of the subclass
    n_atoms: int

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        jax.tree_util.register_pytree_with_keys(
            cls, _flatten_with_keys, partial(_unflatten, cls), _flatten
        )

    def energies(self, params: Params, R: Array, space: Space) -> dict[str, Array]:
        """Energies of the term, {name: () kcal/mol}.

        Args:
            params: parameters of the term, and the result of `derived`.
            R: (n_atoms, 3) Å.
            space: box and neighbour list.
        """
        interactions = self.interactions(params)
        assert interactions is not None, f"{self.kind} defines neither energies nor interactions"
        return {self.energy_name or self.kind: interactions.each(R).sum()}

    def energy(self, params: Params, R: Array, space: Space) -> Array:
        """Sum () kcal/mol of `energies`, which a subclass may compute faster; equal arguments."""
        energy: Any = sum(self.energies(params, R, space).values())
        return energy

    def interactions(self, params: Params) -> Interactions | None:
        """The interactions of the term; None if its energy is not a sum of them.

        A potential evaluates the interactions of all its terms together, which is faster.

        Args:
            params: parameters of the term, and the result of `derived`.
        """
        return None

    def reads(self, params: Params) -> tuple[str, ...]:
        """The arguments, "box" or "neighbor", on which the energy depends."""
        return ()

    def list_cutoff(self) -> float | None:
        """Distance, Å, of the pairs that the energy takes from a neighbour list, or None."""
        return None

    def derived(self, params: Params) -> Params:
        """Additional arrays, {name: array}, that depend on the parameters alone.

        A potential computes these arrays once for many geometries, and passes them to `energies`
        together with the parameters.
        """
        return {}

    def row_names(self, field: str) -> tuple[str, ...]:
        """Names of the rows of the tables to which `field` refers; see `tables`."""
        return getattr(self, self.tables[field][0])

    def alike(self, others: Sequence[Self]) -> Self:
        """The term with static fields that are equal for all terms of a stack.

        Args:
            others: the terms of the stack, including this one.
        """
        return self

    def atom_groups(self) -> list[np.ndarray] | None:
        """Atoms (n, k) of the interactions, for each kind of interaction of k atoms.

        None if the energy is not a sum over groups of atoms.
        """
        names = [name for name, counted in self.indices.items() if counted]
        declared = all(self.dimensions.get(name) for name in names)
        return [self._atoms_of(name) for name in names] if names and declared else None

    def _atoms_of(self, name: str) -> np.ndarray:
        """Atoms (n, k) of the rows of a field of `indices`."""
        array, counted = np.asarray(getattr(self, name)), self.indices[name]
        parts = [
            array[:, k : k + 1] if of == "atoms" else self._atoms_of(of)[array[:, k]]
            for k, of in enumerate(counted)
        ]
        return np.concatenate(parts, axis=1)

    def without(self, inside: np.ndarray) -> Self:
        """The term without the interactions whose atoms all belong to a set.

        No interaction may have atoms inside and outside of the set; see `atom_groups`.

        Args:
            inside: (n_atoms,) whether each atom belongs to the set.
        """
        counted = {name: of for name, of in self.indices.items() if of}
        kept, place = {}, {}  # by the letter of the first dimension; by field
        for name in counted:
            keep = ~inside[self._atoms_of(name)].all(axis=1)
            kept[self.dimensions[name].split()[0]] = keep
            place[name] = np.cumsum(keep) - 1
        arrays = {}
        for name in array_fields(self):
            letter = self.dimensions.get(name, "").partition(" ")[0]
            array = np.asarray(getattr(self, name))
            array = array[kept[letter]] if letter in kept else array
            columns = [
                array[:, k] if of == "atoms" else place[of][array[:, k]]
                for k, of in enumerate(counted.get(name, ()))
            ]
            arrays[name] = np.stack(columns, axis=1).astype(array.dtype) if columns else array
        return replace(self, **arrays)

    def frame_bytes(self, params: Params) -> int:
        """Working memory of one geometry in a batch, in bytes; 0 if it is negligible."""
        return 0

    def constrain(self, params: Params, start: Params) -> Params:
        """Correct trained parameters to keep conserved quantities (the net charge).

        Args:
            params: trained parameters of the term.
            start: parameters of the term before training.
        """
        return params

    def undefined_rows(self, column: str, angles: dict[str, float]) -> np.ndarray:
        """Whether each row (n,) of a column has no defined meaning.

        An example is a torsion about a straight angle.  A fit does not change such rows unless a
        pattern selects them.

        Args:
            column: name of a column of this term.
            angles: {atom types: equilibrium angle, rad} of the whole potential.
        """
        return np.zeros(0, bool)

    def template(self) -> Any:
        """An example of the parameters if files cannot describe their tree, or None."""
        return None

    def fault(self, params: Params) -> str | None:
        """Describe a fault of the term or parameters in a file, or return None.

        Types, shapes, indices and bounds are checked before this call.
        """
        return None

    @classmethod
    def upgraded(cls, params: Params) -> Params:
        """Convert the parameters in a file of version 1 to the present version."""
        return params

    @classmethod
    def restored(cls, values: dict[str, Any], trust: Sequence[str]) -> Term:
        """Make the term from the fields in a file.

        Args:
            values: {field: value}.
            trust: names of modules that may build networks; see `jaxff.load`.
        """
        return cls(**values)


def array_fields(term: Term) -> tuple[str, ...]:
    """Names of the fields that are arrays, which are the leaves of the pytree."""
    known = vars(term).get("_array_fields")
    if known is not None:  # after a transformation leaves may be objects of any type
        return known
    return tuple(
        f.name for f in fields(term) if isinstance(getattr(term, f.name), np.ndarray | jax.Array)
    )


def name_fields(term: Term) -> set[str]:
    """Names of the static fields that do not change the energy."""
    return {label for label, _ in term.tables.values() if label} | set(term.notes)


def term_kinds() -> dict[str, type[Term]]:
    """All imported classes of terms, {kind: class}."""

    def subclasses(cls: type[Term]) -> Iterator[type[Term]]:
        for subclass in cls.__subclasses__():
            yield subclass
            yield from subclasses(subclass)

    return {cls.kind: cls for cls in subclasses(Term) if "kind" in vars(cls)}


def _flatten(term: Term):
    names = array_fields(term)
    static = tuple((f.name, getattr(term, f.name)) for f in fields(term) if f.name not in names)
    return [getattr(term, name) for name in names], (names, static)


def _flatten_with_keys(term: Term):
    leaves, (names, static) = _flatten(term)
    keys = [jax.tree_util.GetAttrKey(name) for name in names]
    return list(zip(keys, leaves, strict=True)), (names, static)


def _unflatten(cls: type[Term], aux, leaves) -> Term:
    names, static = aux
    term = object.__new__(cls)  # without the checks of __init__: leaves may be placeholders
    vars(term).update(zip(names, leaves, strict=True))
    vars(term).update(static, _array_fields=names)
    return term
