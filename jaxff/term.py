"""Terms: one kind of interaction in a system of atoms, as a JAX pytree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, fields
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
        unit: such as "kcal/mol/Å²".
        scale: size of a typical change, in this unit.
        lower, upper: physical bounds, in this unit.
        trainable: False if training changes it only when it is named.
    """

    unit: str
    scale: float = 1.0
    lower: float = -math.inf
    upper: float = math.inf
    trainable: bool = True


class Term:
    """One kind of interaction in a system of `n_atoms` atoms; a JAX pytree.

    Subclasses are frozen dataclasses (``eq=False``).  Fields that hold arrays of integers (atom
    indices, rows of tables, permutations) are the leaves of the pytree; all other fields are
    static. Floating-point numbers are parameters instead.  A subclass defines `kind` (its name in
    files), `columns`, and either `energies` or `interactions`.

    Attributes:
        kind: unique name, written to files.
        energy_name: name of the energy of a term that defines `interactions` (default: `kind`).
        columns: the `Column` of each parameter, as a prefix of the tree of parameters.
        tables: {field: (names, columns)}, for parameters that are tables which several molecules
            can share.  The field contains rows of the tables `columns`, and the field `names`
            contains the names of the rows ("" if the rows belong to one molecule).
        indices: {field: kinds}, for the other arrays of integers.  `kinds` contains, for each
            column of the array, what its integers are indices of: "atoms", or another field.  It is
            () for flags.
        open_rows: the fields of `tables` in which −1 means no row.
        dimensions: {field or column: dimensions}, such as "B 2", for the check of files.  Equal
            letters are equal sizes, N is the number of atoms, and _ any size.  Columns of `tables`
            that are not named have one number for each row.
        adaptable: static fields that `alike` changes.
        notes: static fields that describe the term and never change its energy, such as the name of
            its training data.  Together with the names of rows, they may differ within a stack.
        learnt: True if energies are determined by training frames alone, so that they may be wrong
            in all other places.
        physical: False if energies have no meaning before training, so that labels are not checked
            against them.
        precise: True if the energy needs float64, because large summands cancel.  Such parameters
            remain in float64 when a potential is converted to float32.
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
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]  # of the subclass
    n_atoms: int

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        jax.tree_util.register_pytree_with_keys(
            cls, _flatten_with_keys, partial(_unflatten, cls), _flatten
        )

    def energies(self, params: Params, R: Array, space: Space) -> dict[str, Array]:
        """Energies by name, each () kcal/mol.

        Args:
            params: the term's parameters and what `derived` returned.
            R: (n_atoms, 3) Å.
            space: box and neighbour list.
        """
        interactions = self.interactions(params)
        assert interactions is not None, f"{self.kind} defines neither energies nor interactions"
        return {self.energy_name or self.kind: interactions.each(R).sum()}

    def interactions(self, params: Params) -> Interactions | None:
        """The interactions whose sum is the term's energy, or None if it is no such sum.

        A potential evaluates the interactions of all its terms together, which is faster.
        """
        return None

    def reads(self, params: Params) -> tuple[str, ...]:
        """The names of the arguments, "box" and "neighbor", that change the energy."""
        return ()

    def derived(self, params: Params) -> Params:
        """Arrays that depend on the parameters alone, under new names.

        `energies` receives them together with the parameters.  A potential computes them once for
        many geometries.
        """
        return {}

    def row_names(self, field: str) -> tuple[str, ...]:
        """Names of the rows that the field `field` of `tables` selects from."""
        return getattr(self, self.tables[field][0])

    def alike(self, others: Sequence[Self]) -> Self:
        """The same term, with static fields that suit all of `others` (which include it)."""
        return self

    def frame_bytes(self, params: Params) -> int:
        """Working memory of one geometry in a batch, in bytes; 0 if it is negligible."""
        return 0

    def constrain(self, params: Params, start: Params) -> Params:
        """Trained parameters, corrected so that conserved quantities are those of `start`."""
        return params

    def undefined_rows(self, column: str, angles: dict[str, float]) -> np.ndarray:
        """Rows (n,) of a column that have no meaning, and that training leaves unchanged.

        Args:
            column: name of a column of this term.
            angles: equilibrium angles, rad, of the whole potential by the types of their atoms.
        """
        return np.zeros(0, bool)

    def template(self) -> Any:
        """An example of those parameters whose tree a file cannot describe, or None."""
        return None

    def fault(self, params: Params) -> str | None:
        """What is wrong with the term and its parameters in a file, or None.

        Types, shapes, indices and bounds have been checked already.
        """
        return None

    @classmethod
    def upgraded(cls, params: Params) -> Params:
        """Parameters of a file of version 1 in their present form."""
        return params

    @classmethod
    def restored(cls, values: dict[str, Any], trust: Sequence[str]) -> Term:
        """The term with the fields `values` of a file; see `jaxff.load` for `trust`."""
        return cls(**values)


def array_fields(term: Term) -> tuple[str, ...]:
    """Names of the fields that hold arrays: the leaves of the term."""
    known = vars(term).get("_array_fields")
    if known is not None:  # after a transformation leaves may be objects of any type
        return known
    return tuple(
        f.name for f in fields(term) if isinstance(getattr(term, f.name), np.ndarray | jax.Array)
    )


def name_fields(term: Term) -> set[str]:
    """Static fields that do not change the energy: names of rows, and `Term.notes`."""
    return {label for label, _ in term.tables.values() if label} | set(term.notes)


def term_kinds() -> dict[str, type[Term]]:
    """All kinds of terms that are imported, by name."""

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
