"""Potentials: a pure energy function and the parameters that it reads.

A potential is a sum of placed terms.  A `Term` contains integers only; every floating-point array
that it reads is in ``params[name]``, so that parameters can be trained, shared and replaced without
another compilation.  Sums, factors and `Potential.on` act on the placed terms: a composition of
potentials is again a flat list of terms.
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
from jaxff.program import Leaves, Placed, Program
from jaxff.term import Array, Column, Params, Term

__all__ = ["Array", "Column", "Params", "Placed", "Potential", "Program", "Term"]


@jax.tree_util.register_pytree_node_class
class Potential:
    """An energy in kcal/mol of positions in Å, with its parameters; a JAX pytree.

    Args:
        placed: the terms, or a `Program` to share together with its compiled functions.
        params: {term name: {column: array or tree of arrays}}, floating point.
        molecule: the molecule that the potential was made for, or None.  Atoms of data are matched
            to those of the potential through the bonds of this molecule.
        origin: the object that the potential was made from, such as a `Parametrization`, or None.
        trained: the training frames of the potential and of its parts; see `jaxff.domain`.
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
                f"a potential needs one parameter group for each of its terms {names}, "
                f"got {sorted(params)}"
            )

    @classmethod
    def of(cls, name: str, term: Term, params: Params, molecule: Molecule | None = None):
        """The potential of one term."""
        return cls([Placed(name, term)], {name: params}, molecule)

    # -- evaluation ---------------------------------------------------------------------

    @property
    def energy_fn(self):
        """The pure function ``(params, R, box=None, neighbor=None)``, () kcal/mol."""
        return self.program.energy

    def __call__(self, R, box=None, neighbor=None) -> Array:
        """Energy, () kcal/mol.

        Args:
            R: (N, 3) Å.
            box: (3, 3) Å, lattice vectors as rows, for terms that use it.
            neighbor: (2, P) atoms of neighbouring pairs, each pair once, for terms that use it.

        Raises:
            InputError: an argument has the wrong shape, or no term uses it.
        """
        return self.program.jit_energy(self._ready, self._checked(R), *_arrays(box, neighbor))

    def forces(self, R, box=None, neighbor=None) -> Array:
        """Forces (N, 3) kcal/mol/Å, minus the gradient; arguments as the energy's."""
        return self.energy_and_forces(R, box, neighbor)[1]

    def energy_and_forces(self, R, box=None, neighbor=None) -> tuple[Array, Array]:
        """Energy () kcal/mol and forces (N, 3) kcal/mol/Å; arguments as the energy's."""
        evaluate = self.program.jit_energy_and_forces
        return evaluate(self._ready, self._checked(R), *_arrays(box, neighbor))

    def terms(self, R, box=None, neighbor=None) -> dict[str, Array]:
        """Energy of each term by name, () kcal/mol; they sum to the energy."""
        return self.program.jit_terms(self._ready, self._checked(R), *_arrays(box, neighbor))

    def predict(
        self, positions, chunk: int | None = None, box=None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Energies (M,) kcal/mol and forces (M, N, 3) kcal/mol/Å of many frames.

        Args:
            positions: (M, N, 3) Å.
            chunk: number of frames evaluated at once, which bounds the memory (None: automatic).
            box: (3, 3) Å of all frames, for terms that use it.
        """
        positions = np.asarray(positions)
        self.program.space(self.params, box, None)  # checks the box, also of no frames
        if len(positions) == 0:
            return np.empty(0), np.empty((0, *positions.shape[1:]))
        positions = positions.astype(self._checked(positions[0]).dtype)
        chunk = chunk or min(self.program.frames_at_once(self.params), len(positions))
        left = -(-len(positions) // chunk)
        fill = np.repeat(positions[-1:], left * chunk - len(positions), axis=0)
        chunks = np.concatenate([positions, fill]).reshape(left, chunk, *positions.shape[1:])
        energies, forces, start = [], [], 0
        while start < len(chunks):
            # Few shapes, so that there are few compilations.
            count = next(n for n in (64, 8, 1) if n <= len(chunks) - start)
            energy, force = self.program.jit_batches(
                self._ready, chunks[start : start + count], _arrays(box, None)[0]
            )
            energies.append(np.asarray(energy).reshape(-1))
            forces.append(np.asarray(force).reshape(-1, *positions.shape[1:]))
            start += count
        stop = len(positions)
        return np.concatenate(energies)[:stop], np.concatenate(forces)[:stop]

    @property
    def _ready(self) -> Params:
        """Parameters and the arrays that terms derive from them; kept unless traced."""
        known = self._known
        if any(isinstance(leaf, Tracer) for leaf in known["leaves"].arrays):
            return self.params
        if "ready" not in known:
            with jax.ensure_compile_time_eval():  # a trace around this call must not record it
                known["ready"] = self.program.jit_ready(self.params)
        return known["ready"]

    @property
    def _known(self) -> dict[str, Any]:
        """Values computed from the parameters, and the arrays "leaves" of the parameters.

        This dict is emptied after an array in the dict of parameters has been replaced.
        """
        leaves, known = jax.tree.leaves(self.params), vars(self).get("_following")
        if known is None or not known["leaves"].are(leaves):
            known = self._following = {"leaves": Leaves(leaves)}
        return known

    def _checked(self, R) -> Array:
        R = jnp.asarray(R)
        # Kernels lose digits in float32: positions are converted to the type of the parameters.
        R = R.astype(jnp.promote_types(R.dtype, self.dtype))
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
    def dtype(self):
        """The type of positions and forces: the widest one of the parameters.

        Terms that always compute in float64 (`Term.precise`) count only if there are no others.
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
        """Whether a term was learnt from frames, and no training frames are described."""
        return not self.trained and any(p.term.learnt for p in self.program.placed)

    @property
    def n_atoms(self) -> int | None:
        """Number of atoms, or None if every term acts on some atoms of a larger system."""
        return self.program.n_atoms

    @property
    def columns(self) -> dict[str, dict[str, Any]]:
        """The column of each parameter: {term name: {column: Column or tree of them}}.

        It is a prefix of the tree `params`: a `Column` describes all arrays below it.
        """
        out = {}
        for placed in self.program.placed:
            columns = {k: placed.term.columns[k] for k in self.params[placed.name] if k != "scale"}
            if "scale" in self.params[placed.name]:
                columns["scale"] = Column("1", trainable=False)
            out[placed.name] = columns
        return out

    def replace(self, params: Params) -> Potential:
        """The potential with other parameters of equal names and shapes, not recompiled."""
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
        """The potential with another `origin`, the object from which it was made."""
        return Potential(self.program, self.params, self.molecule, origin, self.trained)

    def with_training(self, trained: Sequence[Trained]) -> Potential:
        """The potential with other training frames."""
        return Potential(self.program, self.params, self.molecule, self.origin, trained)

    def astype(self, dtype) -> Potential:
        """The potential with every parameter converted to `dtype` (float32 or float64).

        Kernels and other terms with `Term.precise` remain in float64: they convert the positions
        to float64 and their energy back.
        """
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
        trained = (*_parts(self), *_parts(other))
        return Potential(placed, params, a if a is not None else b, trained=trained)

    def __radd__(self, other) -> Potential:
        return self if isinstance(other, int) and other == 0 else NotImplemented  # sum([...])

    def __mul__(self, factor) -> Potential:
        """The potential times `factor` (), which becomes the parameter ``scale``."""
        if isinstance(factor, Potential) or jnp.ndim(factor) != 0:
            return NotImplemented
        factor = jnp.asarray(factor, float)

        def scaled(group: Params) -> Params:
            # A wider factor would widen the positions and forces of the potential.
            single = jnp.result_type(jnp.float32, *jax.tree.leaves(group))
            return {**group, "scale": factor.astype(single) * group.get("scale", 1.0)}

        params = {name: scaled(group) for name, group in self.params.items()}
        return Potential(self.program.placed, params, self.molecule, trained=_parts(self))

    __rmul__ = __mul__

    def __truediv__(self, divisor) -> Potential:
        return self * (1.0 / divisor)

    def __neg__(self) -> Potential:
        return self * -1.0

    def __sub__(self, other) -> Potential:
        return self + (-other) if isinstance(other, Potential) else NotImplemented

    def on(self, atoms: Sequence[int] | np.ndarray) -> Potential:
        """The potential placed on `atoms` of a larger or reordered system.

        Args:
            atoms: (n_atoms,) distinct indices; atom ``atoms[i]`` of the system is atom i here.
        """
        index = np.asarray(atoms)
        if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
            raise InputError(f"on(atoms) needs a list of atom indices, got {atoms!r}")
        least = self.n_atoms or self.program.n_atoms_min
        if len(index) != least:
            raise InputError(f"on(atoms) got {len(index)} indices for a potential of {least} atoms")
        if (index < 0).any() or len(set(index.tolist())) != len(index):
            raise InputError(
                f"on(atoms) needs distinct indices from 0 upwards, got {index.tolist()}"
            )
        index = index.astype(np.int32)
        placed = [
            Placed(p.name, p.term, index if p.atoms is None else index[p.atoms])
            for p in self.program.placed
        ]
        return Potential(placed, self.params, trained=[t.on(index) for t in self.trained])

    def matched(self, molecule: Molecule) -> Potential:
        """The potential placed on the atoms of `molecule`, in the molecule's order.

        Atoms are matched by the bonds of the potential's molecule.  A potential without a molecule
        must have the same number of atoms, and is assumed to have them in the same order.

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
                "place it with .on(atoms)"
            )
        return self

    def only(self, *names: str) -> Potential:
        """The sum of the named terms, such as ``hybrid.only("gdml")``."""
        known = [p.name for p in self.program.placed]
        if not names or (unknown := set(names) - set(known)):
            wrong = ", ".join(sorted(unknown)) if names else "no name"
            raise InputError(f"only() got {wrong}: use names of the terms, {', '.join(known)}")
        placed = [p for p in self.program.placed if p.name in names]
        exact = any(p.atoms is None for p in placed)
        params = {name: self.params[name] for name in names}
        molecule = self.molecule if exact else None
        return Potential(placed, params, molecule, trained=_parts(self))

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
    """The training frames of a potential that becomes a part of another potential."""
    return tuple(part._replace(whole=False) for part in potential.trained)


def _free_name(name: str, taken) -> str:
    stem = name.partition("#")[0]
    candidate, count = stem, 1
    while candidate in taken:
        count += 1
        candidate = f"{stem}#{count}"
    return candidate


def _constant(value) -> Array:
    """A JAX array, which later changes of a NumPy array `value` do not affect."""
    return value if isinstance(value, jax.Array) else jnp.array(value)


def _arrays(box, neighbor) -> tuple:
    """Box and neighbour list as arrays, or None."""
    pairs = getattr(neighbor, "idx", neighbor)  # of a jax-md neighbour list
    return tuple(None if x is None else jnp.asarray(x) for x in (box, pairs))
