"""Sums over interactions of a few atoms, and their gradients.

The gradient of a sum with respect to positions is written explicitly, for one geometry and for a
batch under `jax.vmap`.  A batch becomes the last axis, so that the innermost loops run over its
geometries, which is fast.  Automatic differentiation provides all other derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero

Array = jax.Array


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["atoms", "parameters", "scale", "matrices"],
    meta_fields=["energy"],
)
@dataclass(frozen=True)
class Interactions:
    """n interactions of one form; a JAX pytree.

    Attributes:
        energy: function that returns the energy () kcal/mol of one interaction of k atoms.  Its
            arguments are the k − 1 vectors (3,) Å from each atom to the next, and the parameters.
            Additional trailing axes of its arguments batch over interactions.
        atoms: (k, n) atom indices.
        parameters: arrays (n, ...), one row for each interaction.
        scale: () factor of the sum, or None.
        matrices: for pairs, the parameters of all pairs of atoms, (N, N) each, or None.  The energy
            of a pair must be symmetric, and zero if all its parameters are zero.  With matrices,
            one geometry is evaluated without indexing.
    """

    energy: Callable
    atoms: np.ndarray | Array
    parameters: tuple[Array, ...]
    scale: Array | None = None
    matrices: tuple[Array, ...] | None = None

    def each(self, R: Array):
        """Energies (n,) kcal/mol of the interactions, without `scale`, at R (N, 3) Å."""
        # One gather for all points, so that its transpose is one scatter.
        points = R.at[self.atoms.ravel()].get(mode="promise_in_bounds")
        points = points.reshape(*self.atoms.shape, 3)
        return jax.vmap(self.energy)(*(points[1:] - points[:-1]), *self.parameters)

    def sum(self, R: Array) -> Array:
        """Sum () kcal/mol of the energies of all interactions, at R (N, 3) Å."""
        return self._scaled(self.each(R).sum())

    def add_to(self, energy: Array, gradient: Array, X: Array) -> tuple[Array, Array]:
        """Add the energy and the gradient of this sum to an energy and a gradient.

        For a batch of B geometries, all arguments have an additional last axis B.

        Args:
            energy: () kcal/mol, or (K,) for K molecules.  The molecules then have equal numbers of
                interactions, which are sorted by molecule, and `scale` is (K,).
            gradient: (3, N) kcal/mol/Å.
            X: positions, (3, N) Å.

        Returns:
            The two sums, with the shapes of `energy` and `gradient`.
        """
        batch = X.shape[2:]
        if self.matrices is not None and not energy.ndim:
            own_energy, own_gradient = self._by_matrices(X)
            return energy + own_energy, gradient + own_gradient
        points = X.at[:, self.atoms.ravel()].get(mode="promise_in_bounds")
        points = points.reshape(3, *self.atoms.shape, *batch)
        vectors = [points[:, k + 1] - points[:, k] for k in range(len(self.atoms) - 1)]
        parameters = [jnp.moveaxis(p, 0, -1) for p in self.parameters]
        if batch:
            parameters = [p[..., None] for p in parameters]

        def summed(*vectors):
            energies = self.energy(*vectors, *parameters)
            if energy.ndim > len(batch):  # one energy for each of several molecules
                energies = energies.reshape(len(energy), -1, *batch).sum(axis=1)
                return energies if self.scale is None else (self.scale * energies.T).T
            return self._scaled(energies.sum(axis=0))

        own_energy, pull_back = jax.vjp(summed, *vectors)
        slopes, starts, ends = pull_back(jnp.ones_like(own_energy)), self.atoms[:-1], self.atoms[1:]
        if not batch:  # few loops are fast for one geometry, few copies are fast for a batch
            slopes = [jnp.concatenate(slopes, axis=1)]
            starts, ends = starts.reshape(1, -1), ends.reshape(1, -1)
        for slope, start, end in zip(slopes, starts, ends, strict=True):
            gradient = gradient.at[:, end].add(slope, mode="promise_in_bounds")
            gradient = gradient.at[:, start].subtract(slope, mode="promise_in_bounds")
        return energy + own_energy, gradient

    def _by_matrices(self, X):
        # Elements without a pair get an arbitrary nonzero distance.
        matrices = self.matrices or ()
        paired = sum(matrix != 0.0 for matrix in matrices)
        d = jnp.where(paired, X[:, None, :] - X[:, :, None], 1.0)
        twice = jax.value_and_grad(lambda d: self.energy(d, *matrices).sum())
        energy, slopes = twice(d)
        # Each atom of a pair is the end of its vector in one of the two elements.
        return self._scaled(0.5 * energy), self._scaled(slopes.sum(axis=1))

    def _scaled(self, x):
        return x if self.scale is None else self.scale * x


def over(energy: Callable, R: Array, atoms: np.ndarray, *parameters: Array):
    """Evaluate ``energy(*points, *parameters)`` for every interaction.

    Args:
        energy: function of the k points (3,) Å of one interaction and its parameters.
        R: (N, 3) Å.
        atoms: (n, k) atom indices.
        parameters: arrays (n, ...), one row for each interaction.

    Returns:
        The values of `energy`, with a leading axis n.
    """
    # One gather for all points, so that its transpose is one scatter, the slowest step of forces.
    points = R.at[atoms.T.ravel()].get(mode="promise_in_bounds")
    return jax.vmap(energy)(*jnp.split(points, atoms.shape[1]), *parameters)


def total(interactions: Sequence[Interactions], R: Array) -> Array:
    """Sum () kcal/mol of the energies of all interactions, at R (N, 3) Å."""
    R = R.astype(jnp.result_type(R, *(p for kind in interactions for p in kind.parameters)))
    return _total(merged(interactions), R)


@jax.custom_jvp
def _total(interactions, R):
    return _energy_and_gradient(interactions, R)[0]


@partial(_total.defjvp, symbolic_zeros=True)
def _total_jvp(primals, tangents):
    return known_gradient_jvp(_energy_and_gradient, _sum, primals, tangents)


def known_gradient_jvp(energy_and_gradients, energy_fn, primals, tangents):
    """Energy () and its change by a rule that uses known gradients.

    Args:
        energy_and_gradients: function of the primals that returns the energy () kcal/mol and its
            gradients with respect to the second primal, the third, and so on.  Gradients at the end
            may be missing if their tangents are symbolic zeros.
        energy_fn: function of the primals that returns the energy, for the other derivatives.
        primals: the terms, a pytree, and arrays such as R (N, 3) Å.
        tangents: their tangents, which may contain symbolic zeros.
    """
    terms, *arrays = primals
    of_terms, *moves = tangents
    energy, *gradients = energy_and_gradients(*primals)
    tangent = jnp.zeros_like(energy)
    for gradient, move in zip(gradients, moves, strict=False):
        if not isinstance(move, SymbolicZero):
            tangent += (gradient * move).sum()
    if not all(isinstance(x, SymbolicZero) for x in jax.tree.leaves(of_terms)):
        changes = jax.tree.map(instantiated, of_terms)
        tangent += jax.jvp(lambda terms: energy_fn(terms, *arrays), (terms,), (changes,))[1]
    return energy, tangent


def instantiated(tangent):
    """The tangent as an array, also if it is a symbolic zero."""
    if not isinstance(tangent, SymbolicZero):
        return tangent
    zero: Any = tangent  # its attributes are not known to type checkers
    zeros = np.zeros if zero.dtype == jax.dtypes.float0 else jnp.zeros
    return zeros(zero.shape, zero.dtype)


@jax.custom_jvp
def _energy_and_gradient(interactions, R):
    return _by_batches(interactions, R)


@_energy_and_gradient.defjvp
def _energy_and_gradient_jvp(primals, tangents):
    def plain(interactions, R):
        return jax.value_and_grad(_sum, argnums=1)(interactions, R)

    return jax.jvp(plain, primals, tangents)


@custom_vmap
def _by_batches(interactions, R):
    return _value_and_gradient(interactions, R)


@_by_batches.def_vmap
def _by_batches_rule(axis_size, in_batched, interactions, R):
    if any(jax.tree.leaves(in_batched[0])):
        return _of_molecules(axis_size, in_batched, interactions, R), (True, True)
    return _value_and_gradient(interactions, R), (True, True)


@custom_vmap
def _value_and_gradient(interactions, R):
    """Energy () kcal/mol and gradient (N, 3) kcal/mol/Å at R (N, 3) Å.

    For a batch R (B, N, 3) Å, the results have a leading axis B.
    """
    X = R.T
    energy, gradient = jnp.zeros(X.shape[2:], R.dtype), jnp.zeros_like(X)
    for interaction in interactions:
        energy, gradient = interaction.add_to(energy, gradient, X)
    return energy, gradient.T


@_value_and_gradient.def_vmap
def _value_and_gradient_rule(axis_size, in_batched, interactions, R):
    return _of_molecules(axis_size, in_batched, interactions, R), (True, True)


def _of_molecules(count: int, in_batched, interactions, R):
    """Energies (K,) kcal/mol and gradients (K, N, 3) kcal/mol/Å of K molecules.

    Args:
        count: K.
        in_batched: trees of flags: which arrays of `interactions` and R have a leading axis K.
        interactions: the interactions; their arrays have equal shapes for all molecules.
        R: (K, N, 3) or (N, 3) Å.
    """
    batched, R_batched = in_batched
    R = R if R_batched else jnp.broadcast_to(R, (count, *R.shape))
    leaves, structure = jax.tree.flatten(interactions)
    leaves = [
        x if is_batched else jnp.broadcast_to(x, (count, *jnp.shape(x)))
        for x, is_batched in zip(leaves, jax.tree.leaves(batched), strict=True)
    ]
    interactions = jax.tree.unflatten(structure, leaves)
    return energies_and_gradients(side_by_side(interactions, R.shape[-2]), R)


def side_by_side(interactions: Sequence[Interactions], n_atoms: int) -> list[Interactions]:
    """The interactions of K molecules as those of one system of K · n_atoms atoms.

    Args:
        interactions: interactions; their arrays have a leading axis K.
        n_atoms: number of atoms of each molecule.

    Returns:
        Interactions of the whole system.  The arrays `scale` and `matrices` keep the axis K.
    """
    out = []
    for one in interactions:
        offsets = n_atoms * jnp.arange(len(one.atoms), dtype=jnp.int32)[:, None, None]
        atoms = jnp.moveaxis(one.atoms + offsets, 0, 1).reshape(one.atoms.shape[1], -1)
        parameters = tuple(p.reshape(-1, *p.shape[2:]) for p in one.parameters)
        out.append(Interactions(one.energy, atoms, parameters, one.scale, one.matrices))
    return out


def energies_and_gradients(interactions: Sequence[Interactions], R: Array) -> tuple[Array, Array]:
    """Energies (K,) kcal/mol and gradients (K, N, 3) kcal/mol/Å of K molecules.

    Args:
        interactions: the result of `side_by_side`.
        R: (K, N, 3) Å, or (K, B, N, 3) Å for B frames of each molecule.  The results then have the
            shapes (K, B) and (K, B, N, 3).
    """
    count, n_atoms, frames = len(R), R.shape[-2], R.shape[1:-2]
    # (K, [B,] N, 3) to (3, K N [, B])
    X = jnp.moveaxis(R, -1, 0)
    X = jnp.moveaxis(X, 2, -1) if frames else X
    X = X.reshape(3, count * n_atoms, *frames)
    energy, gradient = jnp.zeros((count, *frames), R.dtype), jnp.zeros_like(X)
    for one in interactions:
        if one.matrices is not None and not frames:
            one = replace(one, atoms=np.zeros((count, 0), int), parameters=())
            own_energy, slopes = jax.vmap(Interactions._by_matrices)(one, jnp.swapaxes(R, 1, 2))
            energy += own_energy
            gradient += jnp.swapaxes(slopes, 0, 1).reshape(3, -1)
        else:
            energy, gradient = replace(one, matrices=None).add_to(energy, gradient, X)
    gradient = gradient.reshape(3, count, n_atoms, *frames)
    gradient = jnp.moveaxis(gradient, 0, -1)  # (K, N [, B], 3)
    return energy, jnp.swapaxes(gradient, 1, 2) if frames else gradient


def _sum(interactions, R):
    return sum(kind.sum(R) for kind in interactions)


def merged(interactions: Sequence[Interactions]) -> list[Interactions]:
    """Join interactions with equal energy functions, for fewer and longer loops."""
    forms: dict[tuple, list[Interactions]] = {}
    for i, kind in enumerate(interactions):
        form = kind.energy, tuple(p.shape[1:] for p in kind.parameters)
        alone = kind.scale is not None or kind.matrices is not None
        forms.setdefault((i, *form) if alone else form, []).append(kind)
    return [alike[0] if len(alike) == 1 else _joined(alike) for alike in forms.values()]


def _joined(alike):
    parameters = zip(*(kind.parameters for kind in alike), strict=True)
    return Interactions(
        alike[0].energy,
        jnp.concatenate([kind.atoms for kind in alike], axis=-1),
        tuple(jnp.concatenate(p) for p in parameters),
    )
