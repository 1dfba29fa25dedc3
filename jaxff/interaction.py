"""Sums over interactions of a few atoms, with their gradients.

A sum brings its gradient with it, of one geometry or, under `jax.vmap`, of a batch that then is the
last axis: loops run over replicas, at the full width of the processor.  Further derivatives, and
those by parameters, are autodiff's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

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
    """n interactions of one form.

    Attributes:
        energy: energy () kcal/mol of one, from the k − 1 vectors (3,) Å that lead from each of its
            atoms to the next, and its parameters; further axes, of all of them, are those of many.
        atoms: (k, n).
        parameters: arrays (n, ...), one row an interaction.
        scale: () factor of the sum, or None.
        matrices: for pairs whose energy is the same from either end, and zero where all parameters
            are: the parameters of any two atoms, (N, N) each, by which one geometry needs no index.
    """

    energy: Callable
    atoms: np.ndarray | Array
    parameters: tuple[Array, ...]
    scale: Array | None = None
    matrices: tuple[Array, ...] | None = None

    def each(self, R: Array):
        """What `energy` returns of each, (n,), at R (N, 3) Å."""
        # One gather for all points: its transpose is then one scatter.
        points = R.at[self.atoms.ravel()].get(mode="promise_in_bounds")
        points = points.reshape(*self.atoms.shape, 3)
        return jax.vmap(self.energy)(*(points[1:] - points[:-1]), *self.parameters)

    def sum(self, R: Array) -> Array:
        """The energy () kcal/mol at R (N, 3) Å."""
        return self._scaled(self.each(R).sum())

    def add_to(self, energy: Array, gradient: Array, X: Array) -> tuple[Array, Array]:
        """`energy` () kcal/mol with this one's, and `gradient` (3, N) kcal/mol/Å with its.

        At X (3, N) Å; or of a batch (3, N, B), with a last axis B throughout.
        """
        batch = X.shape[2:]
        if self.matrices is not None and not batch:
            own_energy, own_gradient = self._by_matrices(X)
            return energy + own_energy, gradient + own_gradient
        points = X.at[:, self.atoms.ravel()].get(mode="promise_in_bounds")
        points = points.reshape(3, *self.atoms.shape, *batch)
        vectors = [points[:, k + 1] - points[:, k] for k in range(len(self.atoms) - 1)]
        parameters = [jnp.moveaxis(p, 0, -1) for p in self.parameters]
        if batch:
            parameters = [p[..., None] for p in parameters]

        def own_sum(*vectors):
            return self._scaled(self.energy(*vectors, *parameters).sum(axis=0))

        own_energy, pull_back = jax.vjp(own_sum, *vectors)
        slopes, starts, ends = pull_back(jnp.ones_like(own_energy)), self.atoms[:-1], self.atoms[1:]
        if not batch:  # for one geometry few loops are fast, for a batch few copies
            slopes = [jnp.concatenate(slopes, axis=1)]
            starts, ends = starts.reshape(1, -1), ends.reshape(1, -1)
        for slope, start, end in zip(slopes, starts, ends, strict=True):
            gradient = gradient.at[:, end].add(slope, mode="promise_in_bounds")
            gradient = gradient.at[:, start].subtract(slope, mode="promise_in_bounds")
        return energy + own_energy, gradient

    def _by_matrices(self, X):
        # Where there is no pair any distance will do that is not zero.
        paired = sum(matrix != 0.0 for matrix in self.matrices)
        d = jnp.where(paired, X[:, None, :] - X[:, :, None], 1.0)
        twice = jax.value_and_grad(lambda d: self.energy(d, *self.matrices).sum())
        energy, slopes = twice(d)
        # Either atom of a pair is once the end of its vector.
        return self._scaled(0.5 * energy), self._scaled(slopes.sum(axis=1))

    def _scaled(self, x):
        return x if self.scale is None else self.scale * x


def over(energy: Callable, R: Array, atoms: np.ndarray, *parameters: Array):
    """``energy(*points, *parameters)`` of every interaction.

    Args:
        energy: energy of one interaction from k points (3,) Å and its parameters.
        R: (N, 3) Å.
        atoms: (n, k) atom indices.
        parameters: arrays (n, ...), one row an interaction.

    Returns:
        what `energy` returns, with a leading axis n.
    """
    # One gather for all points: its transpose is then one scatter, the slowest step of the forces.
    points = R.at[atoms.T.ravel()].get(mode="promise_in_bounds")
    return jax.vmap(energy)(*jnp.split(points, atoms.shape[1]), *parameters)


def total(interactions: Sequence[Interactions], R: Array) -> Array:
    """The sum of all energies, () kcal/mol, at R (N, 3) Å."""
    R = R.astype(jnp.result_type(R, *(p for own in interactions for p in own.parameters)))
    return _total(_merged(interactions), R)


@jax.custom_jvp
def _total(interactions, R):
    return _energy_and_gradient(interactions, R)[0]


@partial(_total.defjvp, symbolic_zeros=True)
def _total_jvp(primals, tangents):
    interactions, R = primals
    energy, gradient = _energy_and_gradient(interactions, R)
    *of_parameters, of_R = jax.tree.leaves(tangents)
    tangent = jnp.zeros_like(energy)
    if not isinstance(of_R, SymbolicZero):
        tangent += (gradient * of_R).sum()
    if not all(isinstance(x, SymbolicZero) for x in of_parameters):
        moves = jax.tree.map(_instantiated, tangents[0])
        tangent += jax.jvp(lambda own: _sum(own, R), (interactions,), (moves,))[1]
    return energy, tangent


def _instantiated(tangent):
    if not isinstance(tangent, SymbolicZero):
        return tangent
    zeros = np.zeros if tangent.dtype == jax.dtypes.float0 else jnp.zeros
    return zeros(tangent.shape, tangent.dtype)


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
        in_axes = jax.tree.map(lambda batched: 0 if batched else None, tuple(in_batched))
        return jax.vmap(_value_and_gradient, in_axes)(interactions, R), (True, True)
    return _value_and_gradient(interactions, R), (True, True)


def _value_and_gradient(interactions, R):
    X = R.T
    energy, gradient = jnp.zeros(X.shape[2:], R.dtype), jnp.zeros_like(X)
    for own in interactions:
        energy, gradient = own.add_to(energy, gradient, X)
    return energy, gradient.T


def _sum(interactions, R):
    return sum(own.sum(R) for own in interactions)


def _merged(interactions):
    """Those of one form put together: fewer, longer loops."""
    forms: dict[tuple, list[Interactions]] = {}
    for i, own in enumerate(interactions):
        form = own.energy, tuple(p.shape[1:] for p in own.parameters)
        alone = own.scale is not None or own.matrices is not None
        forms.setdefault((i, *form) if alone else form, []).append(own)
    return [alike[0] if len(alike) == 1 else _joined(alike) for alike in forms.values()]


def _joined(alike):
    xp = np if all(isinstance(own.atoms, np.ndarray) for own in alike) else jnp
    parameters = zip(*(own.parameters for own in alike), strict=True)
    return Interactions(
        alike[0].energy,
        xp.concatenate([own.atoms for own in alike], axis=-1),
        tuple(jnp.concatenate(p) for p in parameters),
    )
