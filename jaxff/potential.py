"""Potential: a pure energy function and the parameters it reads.

A potential is a sum of placed terms.  A `Term` holds integer structure only; every
floating-point array it reads stands in ``params[name]``, so that parameters can be trained,
shared and replaced without compiling again.  Sum, scaling and `on` act on the placed terms,
so a composition of potentials is again a flat list of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.interaction import Interactions, total
from jaxff.molecule import Molecule

Array = jax.Array
Params = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """What a parameter array is: its unit, the size of a typical change, its physical bounds,
    and whether training moves it unless told otherwise."""

    unit: str
    scale: float = 1.0
    lower: float = -math.inf
    upper: float = math.inf
    trainable: bool = True


class Term:
    """One kind of interaction in a system of `n_atoms` atoms.

    Subclasses are frozen dataclasses (``eq=False``) whose fields are integers, strings and
    integer or boolean NumPy arrays, so that any of them can be written to a file by its fields;
    they set `kind` (the name in files), `columns` and `energies`.
    """

    kind: ClassVar[str]
    columns: ClassVar[dict[str, Column]]
    # For terms whose parameters are tables that several molecules can share: the fields that hold
    # rows of tables, with the field of the rows' names ("": rows of this molecule alone) and the
    # columns they read; and what the other index fields count, column by column: atoms, or
    # entries of another field.
    tables: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {}
    indices: ClassVar[dict[str, tuple[str, ...]]] = {}
    n_atoms: int

    def energies(self, params: Params, R: Array, **context) -> dict[str, Array]:
        """Energies by name, each () kcal/mol, at positions R (n_atoms, 3) Å."""
        raise NotImplementedError

    def interactions(self, params: Params) -> Interactions | None:
        """The interactions whose energies are all of this term's, if it is a sum of such.

        A potential computes the interactions of all its terms together.
        """
        return None

    def derived(self, params: Params) -> Params:
        """What `energies` needs of the parameters alone, under names of its own.

        `energies` finds these arrays among its parameters; a potential computes them once for
        many geometries.
        """
        return {}

    def row_names(self, field: str) -> tuple[str, ...]:
        """Names of the rows that the field `field` of `tables` points to."""
        return getattr(self, self.tables[field][0])

    def alike(self, others: Sequence[Term]) -> Term:
        """This term with whatever is not an array made as `others` need it, itself among them."""
        return self

    def frame_bytes(self, params: Params) -> int:
        """Working memory of one geometry in a batch, bytes, where it is worth counting."""
        return 0

    def constrain(self, params: Params, start: Params) -> Params:
        """Trained parameters brought back to what must be conserved from `start`, such as the
        net charge; the identity unless a term says otherwise."""
        return params

    def undefined_rows(self, column: str, beside: dict[str, float]) -> np.ndarray:
        """Rows (n,) of a column that mean nothing, and that training leaves alone.

        Args:
            column: one of its own.
            beside: angles at rest, rad, by the types of their atoms, of all terms it stands with.
        """
        return np.zeros(0, bool)


@dataclass(frozen=True, eq=False)
class Placed:
    """A term, its unique name in a potential, and the atoms it acts on (None: all, in order)."""

    name: str
    term: Term
    atoms: tuple[int, ...] | None = None

    def energies(self, params: Params, R: Array, **context) -> dict[str, Array]:
        if self.atoms is not None:
            R = R[np.asarray(self.atoms)]
        own = self.ready(params)
        energies = self.term.energies(own, R, **context)
        if "scale" in own:
            energies = {key: own["scale"] * energy for key, energy in energies.items()}
        # A renamed term (a second "gdml" is "gdml#2") renames what it reports likewise.
        suffix = self.name.partition("#")[2]
        return {f"{key}#{suffix}": e for key, e in energies.items()} if suffix else energies

    def interactions(self, params: Params) -> Interactions | None:
        """Those of the term, if it is a sum of such, between atoms of the whole system."""
        own = self.ready(params)
        found = self.term.interactions(own)
        if found is None:
            return None
        if self.atoms is not None:
            xp = np if isinstance(found.atoms, np.ndarray) else jnp
            found = replace(found, atoms=xp.asarray(self.atoms)[found.atoms], matrices=None)
        return replace(found, scale=own.get("scale"))

    def ready(self, params: Params) -> Params:
        """This term's parameters with what it derives from them, unless that is there already."""
        own = params[self.name]
        return {**self.term.derived(own), **own}


class Program:
    """The static part of a potential: placed terms and the compiled functions over them."""

    def __init__(self, placed: Sequence[Placed]):
        self.placed = tuple(placed)

    def terms(self, params: Params, R: Array, **context) -> dict[str, Array]:
        """Energies by term name, each () kcal/mol."""
        R = jnp.asarray(R)
        out: dict[str, Array] = {}
        for placed in self.placed:
            out.update(placed.energies(params, R, **context))
        return out

    def energy(self, params: Params, R: Array, **context) -> Array:
        """Energy, () kcal/mol, at positions R (N, 3) Å."""
        R = jnp.asarray(R)
        energy, found = jnp.zeros((), R.dtype), []
        for placed in self.placed:
            interactions = placed.interactions(params)
            if interactions is None:
                energy += sum(placed.energies(params, R, **context).values())
            else:
                found.append(interactions)
        return energy + total(found, R) if found else energy

    def energy_and_forces(self, params: Params, R: Array, **context) -> tuple[Array, Array]:
        """Energy () kcal/mol and forces (N, 3) kcal/mol/Å."""
        energy, gradient = jax.value_and_grad(self.energy, argnums=1)(params, R, **context)
        return energy, -gradient

    @cached_property
    def jit_energy(self):
        return jax.jit(self.energy)

    @cached_property
    def jit_energy_and_forces(self):
        return jax.jit(self.energy_and_forces)

    @cached_property
    def jit_terms(self):
        return jax.jit(self.terms)

    @cached_property
    def jit_batches(self):
        """Energies and forces of R (chunks, frames, N, 3), chunk after chunk."""
        batch = jax.vmap(self.energy_and_forces, in_axes=(None, 0))
        return jax.jit(lambda params, R: jax.lax.map(lambda R: batch(params, R), R))

    @cached_property
    def jit_ready(self):
        """Parameters with what the terms derive from them."""
        return jax.jit(lambda params: {p.name: p.ready(params) for p in self.placed})

    def frames_at_once(self, params: Params) -> int:
        """Frames of a batch whose working memory fits caches (on a CPU) or some 500 MB."""
        budget = 4e6 if jax.default_backend() == "cpu" else 5e8
        each = sum(p.term.frame_bytes(params[p.name]) for p in self.placed)
        return int(min(max(budget // max(each, 1), 1), 256))

    @property
    def n_atoms(self) -> int | None:
        """Number of atoms, or None if every term is placed on a subset."""
        return next((p.term.n_atoms for p in self.placed if p.atoms is None), None)

    @property
    def n_atoms_min(self) -> int:
        """The smallest number of atoms that holds every placed term."""
        return max(
            (p.term.n_atoms if p.atoms is None else max(p.atoms, default=-1) + 1)
            for p in self.placed
        )


@jax.tree_util.register_pytree_node_class
class Potential:
    """An energy in kcal/mol of positions in Å, with its parameters; a JAX pytree.

    Args:
        placed: the terms, or a `Program` to share (with its compiled functions).
        params: {term name: {column: array}}, floating point.
        molecule: the atoms this potential was made for, if known; whatever joins the
            potential with data matches atoms through it.
        origin: what it was made from, such as a `Parametrization`, if that is worth keeping; a
            composition or a file has none.
    """

    def __init__(
        self,
        placed: Sequence[Placed] | Program,
        params: Params,
        molecule: Molecule | None = None,
        origin=None,
    ):
        self.program = placed if isinstance(placed, Program) else Program(placed)
        self.params = jax.tree.map(jnp.asarray, params)
        self.molecule, self.origin = molecule, origin
        names = [p.name for p in self.program.placed]
        if len(set(names)) != len(names) or set(names) != set(params):
            raise InputError(
                f"a potential needs one parameter group for each of its terms {names}, "
                f"got {sorted(params)}"
            )

    @classmethod
    def of(cls, name: str, term: Term, params: Params, molecule: Molecule | None = None):
        """The potential of a single term."""
        return cls([Placed(name, term)], {name: params}, molecule)

    # -- evaluation ---------------------------------------------------------------------

    @property
    def energy_fn(self):
        """The pure function ``(params, R, **context) -> ()`` kcal/mol, for jax.grad and jax-md."""
        return self.program.energy

    def __call__(self, R, **context) -> Array:
        """Energy, () kcal/mol, at R (N, 3) Å."""
        return self.program.jit_energy(self._ready, self._checked(R), **context)

    def forces(self, R, **context) -> Array:
        """Forces, (N, 3) kcal/mol/Å: minus the gradient of the energy."""
        return self.energy_and_forces(R, **context)[1]

    def energy_and_forces(self, R, **context) -> tuple[Array, Array]:
        """Energy () kcal/mol and forces (N, 3) kcal/mol/Å at R (N, 3) Å."""
        return self.program.jit_energy_and_forces(self._ready, self._checked(R), **context)

    def terms(self, R, **context) -> dict[str, Array]:
        """Energy of each term by name, () kcal/mol each; they sum to the energy."""
        return self.program.jit_terms(self._ready, self._checked(R), **context)

    def predict(self, positions, chunk: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Energies (M,) kcal/mol and forces (M, N, 3) kcal/mol/Å of many frames.

        Args:
            positions: (M, N, 3) Å.
            chunk: frames evaluated at once, which bounds the memory (None: as many as suit it).
        """
        positions = np.asarray(positions)
        if len(positions) == 0:
            return np.empty(0), np.empty((0, *positions.shape[1:]))
        positions = positions.astype(self._checked(positions[0]).dtype)
        chunk = chunk or min(self.program.frames_at_once(self.params), len(positions))
        left = -(-len(positions) // chunk)
        fill = np.repeat(positions[-1:], left * chunk - len(positions), axis=0)
        chunks = np.concatenate([positions, fill]).reshape(left, chunk, *positions.shape[1:])
        energies, forces, start = [], [], 0
        while start < len(chunks):
            # Few shapes, hence few compilations.
            count = next(n for n in (64, 8, 1) if n <= len(chunks) - start)
            energy, force = self.program.jit_batches(self._ready, chunks[start : start + count])
            energies.append(np.asarray(energy).reshape(-1))
            forces.append(np.asarray(force).reshape(-1, *positions.shape[1:]))
            start += count
        stop = len(positions)
        return np.concatenate(energies)[:stop], np.concatenate(forces)[:stop]

    @property
    def _ready(self) -> Params:
        """The parameters with what terms derive from them; computed once where they are arrays."""
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(self.params)):
            return self.params
        if "_derived" not in vars(self):
            with jax.ensure_compile_time_eval():  # must not end up in a trace around this call
                self._derived = self.program.jit_ready(self.params)
        return self._derived

    def _checked(self, R) -> Array:
        R = jnp.asarray(R)
        # Kernels lose digits in float32: positions take the precision of the parameters.
        R = R.astype(jnp.promote_types(R.dtype, self._dtype))
        if R.ndim != 2 or R.shape[1] != 3:
            raise InputError(
                f"positions have shape {R.shape}, expected (N, 3) in Å; "
                "for a batch use jax.vmap(potential)(R)"
            )
        n, least = self.n_atoms, self.program.n_atoms_min
        if R.shape[0] < least or (n is not None and R.shape[0] != n):
            wanted = f"{n}" if n is not None else f"at least {least}"
            raise InputError(f"positions have {R.shape[0]} atoms, this potential needs {wanted}")
        return R

    @property
    def _dtype(self):
        """The widest type among the parameters."""
        if "_widest" not in vars(self):
            leaves = jax.tree.leaves(self.params)
            self._widest = jnp.result_type(*leaves) if leaves else jnp.result_type(float)
        return self._widest

    # -- parameters ---------------------------------------------------------------------

    @property
    def n_atoms(self) -> int | None:
        """Number of atoms, or None if the potential acts only on a subset of a larger system."""
        return self.program.n_atoms

    @property
    def columns(self) -> dict[str, dict[str, Column]]:
        """What each parameter is: {term name: {column: Column}}."""
        out = {}
        for placed in self.program.placed:
            own = {k: placed.term.columns[k] for k in self.params[placed.name] if k != "scale"}
            if "scale" in self.params[placed.name]:
                own["scale"] = Column("1", trainable=False)
            out[placed.name] = own
        return out

    def replace(self, params: Params) -> Potential:
        """The same potential with other parameters (same names and shapes); never recompiles."""
        old, new = jax.tree.structure(self.params), jax.tree.structure(params)
        if old != new:
            raise InputError(f"parameters have the structure {new}, expected {old}")
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(self.params), jax.tree.leaves(params), strict=True
        ):
            if jnp.shape(a) != jnp.shape(b):
                name = jax.tree_util.keystr(path)
                raise InputError(f"{name} has shape {jnp.shape(b)}, expected {jnp.shape(a)}")
        return Potential(self.program, params, self.molecule, self.origin)

    def with_origin(self, origin) -> Potential:
        """The same potential that remembers what it was made from."""
        return Potential(self.program, self.params, self.molecule, origin)

    def astype(self, dtype) -> Potential:
        """The same potential with every parameter in `dtype` (float32 or float64)."""
        params = jax.tree.map(lambda p: p.astype(dtype), self.params)
        return Potential(self.program, params, self.molecule, self.origin)

    # -- composition --------------------------------------------------------------------

    def __add__(self, other) -> Potential:
        if not isinstance(other, Potential):
            return NotImplemented
        n, m = self.n_atoms, other.n_atoms
        if n is not None and m is not None and n != m:
            raise InputError(
                f"cannot add potentials of {n} and {m} atoms; place the smaller with .on(atoms)"
            )
        total, least = n or m, max(self.program.n_atoms_min, other.program.n_atoms_min)
        if total is not None and least > total:
            raise InputError(
                f"cannot add a potential of {total} atoms to one that acts on atom {least - 1}"
            )
        a, b = self.molecule, other.molecule
        if a is not None and b is not None and not np.array_equal(a.numbers, b.numbers):
            raise InputError(
                f"cannot add potentials of {a.formula} and {b.formula} with different element "
                "orders; reorder one with .on(atoms)"
            )
        params, placed = dict(self.params), list(self.program.placed)
        for part in other.program.placed:
            name = _free_name(part.name, params)
            params[name] = other.params[part.name]
            placed.append(Placed(name, part.term, part.atoms))
        return Potential(placed, params, a if a is not None else b)

    def __radd__(self, other) -> Potential:
        return self if isinstance(other, int) and other == 0 else NotImplemented  # sum([...])

    def __mul__(self, factor) -> Potential:
        """Every term scaled by `factor`, (); the factor is the parameter ``scale`` of each term."""
        if isinstance(factor, Potential) or jnp.ndim(factor) != 0:
            return NotImplemented
        factor = jnp.asarray(factor, float)
        params = {
            name: {**own, "scale": factor * own.get("scale", 1.0)}
            for name, own in self.params.items()
        }
        return Potential(self.program.placed, params, self.molecule)

    __rmul__ = __mul__

    def __truediv__(self, divisor) -> Potential:
        return self * (1.0 / divisor)

    def __neg__(self) -> Potential:
        return self * -1.0

    def __sub__(self, other) -> Potential:
        return self + (-other) if isinstance(other, Potential) else NotImplemented

    def on(self, atoms: Sequence[int]) -> Potential:
        """This potential acting on `atoms` of a larger (or reordered) system.

        Args:
            atoms: (n_atoms,) distinct indices; ``atoms[i]`` plays the part of atom i here.
        """
        index = np.asarray(atoms)
        if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
            raise InputError(f"on(atoms) needs a list of atom indices, got {atoms!r}")
        least = self.n_atoms or self.program.n_atoms_min
        if len(index) != least:
            raise InputError(f"on(atoms) got {len(index)} indices for a potential of {least} atoms")
        if (index < 0).any() or len(set(index.tolist())) != len(index):
            raise InputError(f"on(atoms) needs distinct indices from 0 upwards, got {list(index)}")
        placed = [
            Placed(
                p.name,
                p.term,
                tuple(int(index[i]) for i in (range(len(index)) if p.atoms is None else p.atoms)),
            )
            for p in self.program.placed
        ]
        return Potential(placed, self.params)

    def matched(self, molecule: Molecule) -> Potential:
        """This potential acting on the atoms of `molecule`, in the molecule's order.

        Atoms are matched by the bond graph of the potential's own molecule; a potential that
        knows none must have as many atoms, and is taken to have them in the same order.

        Raises:
            InputError: the atoms cannot be matched.
        """
        if self.molecule is not None:
            order = self.molecule.match(molecule)
            return self if np.array_equal(order, np.arange(len(order))) else self.on(order)
        wanted, least = self.n_atoms, self.program.n_atoms_min
        if molecule.n_atoms < least or wanted not in (None, molecule.n_atoms):
            raise InputError(
                f"{molecule.name or 'the molecule'} has {molecule.n_atoms} atoms, the potential "
                f"needs {wanted if wanted is not None else f'at least {least}'}; "
                "place it with .on(atoms)"
            )
        return self

    def only(self, *names: str) -> Potential:
        """The part of this potential made of the named terms, such as ``hybrid.only("gdml")``."""
        known = [p.name for p in self.program.placed]
        if not names or (unknown := set(names) - set(known)):
            wrong = ", ".join(sorted(unknown)) if names else "no name"
            raise InputError(f"{wrong} given; this potential has the terms {', '.join(known)}")
        placed = [p for p in self.program.placed if p.name in names]
        exact = any(p.atoms is None for p in placed)
        params = {name: self.params[name] for name in names}
        return Potential(placed, params, self.molecule if exact else None)

    # -- JAX pytree -----------------------------------------------------------------------

    def tree_flatten(self):
        return (self.params,), (self.program, self.molecule, self.origin)

    @classmethod
    def tree_unflatten(cls, aux, children):
        self = object.__new__(cls)  # leaves may be placeholders: no checks here
        self.program, self.molecule, self.origin = aux
        (self.params,) = children
        return self

    def __repr__(self) -> str:
        parts = []
        for p in self.program.placed:
            where = "" if p.atoms is None else f" on {len(p.atoms)} atoms"
            parts.append(f"{p.name}{where}")
        who = f"{self.molecule.formula}: " if self.molecule is not None else ""
        return f"Potential({who}{', '.join(parts)})"


def _free_name(name: str, taken) -> str:
    stem = name.partition("#")[0]
    candidate, count = stem, 1
    while candidate in taken:
        count += 1
        candidate = f"{stem}#{count}"
    return candidate
