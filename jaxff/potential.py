"""Potentials: a pure energy function together with its parameters.

A potential is a sum of placed terms.  A `Term` contains integer arrays only.  Its floating-point
arrays are in ``params[name]``, so that parameters can be trained, shared and replaced without
another compilation.  Sums, multiples and placements of potentials are again flat lists of terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxff.domain import Trained
from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.neighbors import NeighborList
from jaxff.placed import Placed, placement
from jaxff.program import Leaves, Program
from jaxff.settings import checked_count
from jaxff.space import arrays
from jaxff.term import Array, Column, Params, Term

__all__ = ["Array", "Column", "Params", "Placed", "Potential", "Program", "Term"]


@jax.tree_util.register_pytree_node_class
class Potential:
    """An energy function of positions with its parameters; a JAX pytree.

    Args:
        placed: the terms, or a `Program`, whose compiled functions are then shared.
        params: {term name: {column: array or tree of arrays}}, floating point.
        molecule: the molecule of the potential, or None.  The atoms of other molecules and data
            sets are matched to this molecule by its bonds.
        origin: the object from which the potential was made, such as a `Parametrization`, or None.
        trained: the training frames of the potential and of its terms; see `jaxff.domain`.

    Raises:
        InputError: the names of terms and parameters differ.
    """

    def __init__(
        self,
        placed: Sequence[Placed] | Program,
        params: Params,
        molecule: Molecule | None = None,
        origin: Any = None,
        trained: Sequence[Trained] = (),
    ):
        self.program = placed if isinstance(placed, Program) else Program(placed)
        self.params = jax.tree.map(_constant, params)
        self.molecule, self.origin, self.trained = molecule, origin, tuple(trained)
        names = [p.name for p in self.program.placed]
        if len(set(names)) != len(names) or set(names) != set(params):
            raise InputError(
                f"a potential needs parameters for each of its terms {names} (got {sorted(params)})"
            )

    @classmethod
    def of(cls, name: str, term: Term, params: Params, molecule: Molecule | None = None):
        """The potential of one term, with its name, parameters and molecule."""
        return cls([Placed(name, term)], {name: params}, molecule)

    # -- evaluation ---------------------------------------------------------------------

    @property
    def energy_fn(self):
        """Energy () kcal/mol as a pure function ``(params, R, box=None, neighbor=None)``."""
        return self.program.energy

    def __call__(self, R, box=None, neighbor=None) -> Array:
        """Energy () kcal/mol.

        Args:
            R: (N, 3) Å.
            box: (3, 3) Å, lattice vectors as rows, for terms that use a box.
            neighbor: a list from `neighbors`, or (2, P) atoms of neighbouring pairs, each pair
                once.  Outside transformed and compiled code, a missing list is made.

        Raises:
            InputError: an argument has the wrong shape, no term uses it, or a list is missing.
        """
        return self.program.jit_energy(self._ready, *self._arguments(R, box, neighbor))

    def neighbors(self, R, box=None, skin: float = 1.0) -> NeighborList:
        """The neighbour list for the argument `neighbor`; see `Program.neighbors`."""
        return self.program.neighbors(self._checked(R), box, skin)

    def forces(self, R, box=None, neighbor=None) -> Array:
        """Forces (N, 3) kcal/mol/Å; arguments as in `__call__`."""
        return self.energy_and_forces(R, box, neighbor)[1]

    def energy_and_forces(self, R, box=None, neighbor=None) -> tuple[Array, Array]:
        """Energy () kcal/mol and forces (N, 3) kcal/mol/Å; arguments as in `__call__`."""
        return self.program.jit_energy_and_forces(self._ready, *self._arguments(R, box, neighbor))

    def terms(self, R, box=None, neighbor=None) -> dict[str, Array]:
        """Energies of the terms, {name: () kcal/mol}; arguments as in `__call__`."""
        return self.program.jit_terms(self._ready, *self._arguments(R, box, neighbor))

    def predict(
        self, positions, chunk: int | None = None, box=None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Energies (M,) kcal/mol and forces (M, N, 3) kcal/mol/Å of many frames.

        Args:
            positions: (M, N, 3) Å.
            chunk: number of frames evaluated at once, which limits the memory (None: automatic).
            box: (3, 3) Å, lattice vectors as rows, of all frames, for terms that use a box.

        Raises:
            InputError: an argument has the wrong shape, or no term uses it.
        """
        positions = np.asarray(positions)
        self.program.space(self.params, box, None)  # checks the box, also of no frames
        if len(positions) == 0:
            return np.empty(0), np.empty((0, *positions.shape[1:]))
        positions = positions.astype(self._checked(positions[0]).dtype)
        if self.program.needs_list:
            pairs = [self.energy_and_forces(R, box) for R in positions]
            return np.array([e for e, _ in pairs]), np.array([f for _, f in pairs])
        most = self.program.frames_at_once(self.params)
        if len(positions) < most:  # few shapes, so that there are few compilations
            most = min(most, 64 if len(positions) >= 64 else 8)
        chunk = checked_count("chunk", most if chunk is None else chunk)
        fill = np.repeat(positions[-1:], -len(positions) % chunk, axis=0)
        chunks = np.concatenate([positions, fill]).reshape(-1, chunk, *positions.shape[1:])
        energies, forces, start = [], [], 0
        while start < len(chunks):
            count = next(n for n in (64, 8, 1) if n <= len(chunks) - start)
            part = chunks[start : start + count]
            energy, force = self.program.jit_batches(self._ready, part, arrays(box, None)[0])
            energies.append(np.asarray(energy).reshape(-1))
            forces.append(np.asarray(force).reshape(-1, *positions.shape[1:]))
            start += count
        return np.concatenate(energies)[: len(positions)], np.concatenate(forces)[: len(positions)]

    @property
    def _ready(self) -> Params:
        """Parameters and arrays that depend on them alone; stored unless JAX traces them."""
        known = self._known
        if any(isinstance(leaf, Tracer) for leaf in known["leaves"].arrays):
            return self.params
        if "ready" not in known:
            with jax.ensure_compile_time_eval():  # a trace around this call must not record it
                known["ready"] = self.program.jit_ready(self.params)
        return known["ready"]

    @property
    def _known(self) -> dict[str, Any]:
        """Stored values that depend on the parameters, and the parameters as "leaves".

        The dict is emptied after an array of the parameters has been replaced.
        """
        leaves, known = jax.tree.leaves(self.params), vars(self).get("_following")
        if known is None or not known["leaves"].are(leaves):
            known = self._following = {"leaves": Leaves(leaves)}
        return known

    def _checked(self, R) -> Array:
        # Kernels lose digits in float32: positions are converted to the type of the parameters.
        return self.program.checked(R, self.dtype)

    def _arguments(self, R, box, neighbor) -> tuple:
        return (R := self._checked(R)), *self.program.found(R, box, neighbor)

    @property
    def dtype(self):
        """The dtype of positions and forces: the widest dtype of the parameters.

        Terms that always compute in float64 (`Term.precise`) are ignored if there are other terms.
        """
        known = self._known
        if "dtype" not in known:
            placed = self.program.placed
            others = [self.params[p.name] for p in placed if not p.term.precise]
            leaves = jax.tree.leaves(others or self.params)
            known["dtype"] = jnp.result_type(*leaves) if leaves else jnp.result_type(float)
        return known["dtype"]

    # -- parameters ---------------------------------------------------------------------

    @property
    def training_is_unknown(self) -> bool:
        """Whether a term was learnt from frames, but its training frames are unknown."""
        return not self.trained and any(p.term.learnt for p in self.program.placed)

    @property
    def n_atoms(self) -> int | None:
        """Number of atoms; None if every term acts on some atoms of a larger system."""
        return self.program.n_atoms

    @property
    def columns(self) -> dict[str, dict[str, Any]]:
        """Units, scales and bounds, {term name: {column: `Column` or tree of them}}.

        The tree is a prefix of the tree `params`: a `Column` describes all arrays of its subtree.
        """
        out = {}
        for placed in self.program.placed:
            columns = {k: placed.term.columns[k] for k in self.params[placed.name] if k != "scale"}
            if "scale" in self.params[placed.name]:
                columns["scale"] = Column("1", trainable=False)
            out[placed.name] = columns
        return out

    def replace(self, params: Params) -> Potential:
        """The potential with new parameters, which have equal names and shapes.

        Raises:
            InputError: a name or a shape differs.
        """
        old, new = jax.tree.structure(self.params), jax.tree.structure(params)
        if old != new:
            raise InputError(f"parameters have the structure {new}, expected {old}")
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(self.params), jax.tree.leaves(params), strict=True
        ):
            if jnp.shape(a) != jnp.shape(b):
                name = jax.tree_util.keystr(path)
                raise InputError(f"{name} has shape {jnp.shape(b)}, expected {jnp.shape(a)}")
        return Potential(self.program, params, self.molecule, self.origin, _parts(self))

    def with_origin(self, origin) -> Potential:
        """The potential with a new `origin`; see `Potential`."""
        return Potential(self.program, self.params, self.molecule, origin, self.trained)

    def with_training(self, trained: Sequence[Trained]) -> Potential:
        """The potential with new training frames `trained`; see `Potential`."""
        return Potential(self.program, self.params, self.molecule, self.origin, trained)

    def astype(self, dtype) -> Potential:
        """The potential with all parameters in `dtype` (float32 or float64).

        Terms that need float64, such as kernels (`Term.precise`), keep it and convert positions.
        """
        if not jnp.issubdtype(dtype, jnp.floating):
            raise InputError(f"dtype must be float32 or float64 (got {dtype})")
        precise = {p.name for p in self.program.placed if p.term.precise}
        params = {
            name: group if name in precise else jax.tree.map(lambda p: p.astype(dtype), group)
            for name, group in self.params.items()
        }
        return Potential(self.program, params, self.molecule, self.origin, self.trained)

    # -- composition --------------------------------------------------------------------

    def __add__(self, other) -> Potential:
        if not isinstance(other, Potential):
            return NotImplemented
        a, b = self.molecule, other.molecule
        if a is not None and b is not None and not np.array_equal(a.numbers, b.numbers):
            raise InputError(
                f"cannot add potentials of {a.formula} and {b.formula} with different orders of "
                "elements; reorder one with .on(atoms)"
            )
        program, names = self.program.plus(other.program)
        params = self.params | {new: other.params[old] for new, old in names.items()}
        trained = (*_parts(self), *_parts(other))
        return Potential(program, params, a if a is not None else b, trained=trained)

    def __radd__(self, other) -> Potential:
        return self if isinstance(other, int) and other == 0 else NotImplemented  # sum([...])

    def __mul__(self, factor) -> Potential:
        """The potential multiplied by `factor` (), which becomes the parameter ``scale``."""
        if isinstance(factor, Potential) or jnp.ndim(factor) != 0:
            return NotImplemented
        factor = jnp.asarray(factor, float)

        def scaled(group: Params) -> Params:
            # A wider factor would widen the positions and forces of the potential.
            single = jnp.result_type(jnp.float32, *jax.tree.leaves(group))
            return {**group, "scale": factor.astype(single) * group.get("scale", 1.0)}

        params = {name: scaled(group) for name, group in self.params.items()}
        return Potential(self.program, params, self.molecule, trained=_parts(self))

    __rmul__ = __mul__

    def __truediv__(self, divisor) -> Potential:
        return self * (1.0 / divisor)

    def __neg__(self) -> Potential:
        return self * -1.0

    def __sub__(self, other) -> Potential:
        return self + (-other) if isinstance(other, Potential) else NotImplemented

    def on(self, atoms: Sequence[int] | np.ndarray) -> Potential:
        """The potential placed on some atoms of a larger or reordered system.

        Args:
            atoms: (n_atoms,) distinct indices; atom ``atoms[i]`` of the system is atom i of `self`.

        Raises:
            InputError: the number of indices is wrong, or an index is negative or repeated.
        """
        index = placement(atoms, self.n_atoms or self.program.n_atoms_min)
        program = self.program.on(index)
        return Potential(program, self.params, trained=[t.on(index) for t in self.trained])

    def without(self, atoms: Sequence[int] | np.ndarray) -> Potential:
        """The potential without the energy of some atoms, such as a solute, among each other.

        Bonded terms within the set are removed, and its pairs become excluded pairs, also in Ewald
        sums.  The interactions with all other atoms and with periodic images remain, and so does
        the dispersion tail.  ``mm.without(atoms) + ml.on(atoms)`` puts another potential there.  In
        a box, several molecules are moved together, to the images nearest to the largest one.

        Args:
            atoms: indices of the atoms and virtual sites of whole molecules, in any order; the
                images of the set must be farther than the cutoff.

        Raises:
            InputError: an index is out of range, or a molecule or a term is divided.
        """
        index, count = np.asarray(atoms), self.n_atoms or self.program.n_atoms_min
        integers = index.ndim == 1 and np.issubdtype(index.dtype, np.integer)
        if not (integers and len(index) and (index >= 0).all() and (index < count).all()):
            raise InputError(
                f"without(atoms) needs a list of indices from 0 to {count - 1} (got {atoms!r})"
            )
        program = self.program.without(index)
        params = {name: self.params[name] for name in program.names}
        trained = [part for part in _parts(self) if not part.within(index, count)]
        return Potential(program, params, self.molecule, trained=trained)

    def matched(self, molecule: Molecule) -> Potential:
        """The potential placed on the atoms of `molecule`, in their order.

        Atoms are matched by elements and bonds.  If the potential has no molecule, its atoms must
        have the same number and order.

        Raises:
            InputError: the atoms cannot be matched.
        """
        if self.molecule is not None:
            order = self.molecule.match(molecule)
            return self if np.array_equal(order, np.arange(len(order))) else self.on(order)
        wanted, least = self.n_atoms, self.program.n_atoms_min
        if molecule.n_atoms < least or wanted not in (None, molecule.n_atoms):
            raise InputError(
                f"{molecule.name or 'the molecule'} has {molecule.n_atoms} atoms, but the "
                f"potential needs {wanted if wanted is not None else f'at least {least}'}; "
                "place the potential with .on(atoms)"
            )
        return self

    def only(self, *names: str) -> Potential:
        """The sum of some terms, such as ``hybrid.only("gdml")``.

        Raises:
            InputError: no name is given, or there is no term with a given name.
        """
        known = [p.name for p in self.program.placed]
        if not names or (unknown := set(names) - set(known)):
            wrong = ", ".join(sorted(unknown)) if names else "no name"
            raise InputError(f"only() got {wrong}; use names of terms: {', '.join(known)}")
        placed = [p for p in self.program.placed if p.name in names]
        exact = any(p.atoms is None for p in placed)
        params = {name: self.params[name] for name in names}
        molecule = self.molecule if exact else None
        program = self.program.with_placed(placed)
        return Potential(program, params, molecule, trained=_parts(self))

    # -- JAX pytree -----------------------------------------------------------------------

    def tree_flatten(self):
        return (self.params,), (self.program, self.molecule, self.origin, self.trained)

    @classmethod
    def tree_unflatten(cls, aux, children):
        self = object.__new__(cls)  # without checks: leaves may be placeholders
        self.program, self.molecule, self.origin, self.trained = aux
        (self.params,) = children
        return self

    def __repr__(self) -> str:
        parts = [
            p.name if p.atoms is None else f"{p.name} on {len(p.atoms)} atoms"
            for p in self.program.placed
        ]
        who = f"{self.molecule.formula}: " if self.molecule is not None else ""
        return f"Potential({who}{', '.join(parts)})"


def _parts(potential: Potential) -> tuple[Trained, ...]:
    """The training frames of a potential that becomes a summand of another potential."""
    return tuple(part._replace(whole=False) for part in potential.trained)


def _constant(value) -> Array:
    """The array `value` as a JAX array; a NumPy array is copied."""
    return value if isinstance(value, jax.Array) else jnp.array(value)
