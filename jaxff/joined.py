"""Interactions of several molecules, one geometry each, in one list.

On a CPU, the start of a compiled loop takes longer than a short loop.  Therefore all interactions
of all molecules share one gather of positions and one scatter of forces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.interaction import Array, Interactions


class Form(NamedTuple):
    """Size of the interactions of one form.

    Attributes:
        energy: the energy function; see `Interactions`.
        n_points: number of atoms of one interaction.
        count: number of interactions.
        shapes: shapes of the parameters of one interaction.
    """

    energy: Callable
    n_points: int
    count: int
    shapes: tuple[tuple[int, ...], ...]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["atoms", "owners", "factors", "parameters"],
    meta_fields=["forms", "n_molecules"],
)
@dataclass(frozen=True, eq=False)
class Joined:
    """The interactions of several molecules; a JAX pytree of few arrays.

    Attributes:
        forms: the forms, in the order of the arrays.
        n_molecules: number of molecules K.
        atoms: flat array of atom indices.  For each form, the first atoms of all interactions are
            followed by the second atoms, and so on.
        owners: (n,) index of the molecule of each interaction.
        factors: (n,) factor of the energy of each interaction, or None.
        parameters: flat array of the parameters (..., count) of each form.
    """

    forms: tuple[Form, ...]
    n_molecules: int
    atoms: Array
    owners: Array
    factors: Array | None
    parameters: Array

    @classmethod
    def of(cls, parts: Sequence[tuple[Interactions, np.ndarray]], n_molecules: int) -> Joined:
        """Join the interactions of several molecules.

        Args:
            parts: pairs of `Interactions` with NumPy arrays and the indices (n,) of their
                molecules.  The field `scale` may be an array (n,).
            n_molecules: number of molecules.
        """
        alike: dict[tuple, list[tuple[Interactions, np.ndarray]]] = {}
        for kind, owners in parts:
            shapes = tuple(p.shape[1:] for p in kind.parameters)
            alike.setdefault((kind.energy, len(kind.atoms), shapes), []).append((kind, owners))
        forms, atoms, parameters, molecules, factors = [], [], [], [], []
        for (energy, n_points, shapes), members in alike.items():
            count = sum(len(owners) for _, owners in members)
            forms.append(Form(energy, n_points, count, shapes))
            atoms.append(np.concatenate([kind.atoms for kind, _ in members], axis=1).ravel())
            columns = zip(*(kind.parameters for kind, _ in members), strict=True)
            parameters += [np.moveaxis(np.concatenate(c), 0, -1).ravel() for c in columns]
            for kind, owners in members:
                molecules.append(owners)
                scale = 1.0 if kind.scale is None else kind.scale
                factors.append(np.broadcast_to(scale, owners.shape))
        scaled = any(kind.scale is not None for kind, _ in parts)
        return cls(
            tuple(forms),
            n_molecules,
            jnp.asarray(np.concatenate(atoms).astype(np.int32)),
            jnp.asarray(np.concatenate(molecules).astype(np.int32)),
            jnp.asarray(np.concatenate(factors)) if scaled else None,
            jnp.asarray(np.concatenate(parameters)),
        )

    @jax.jit
    def energies_and_forces(self, R: Array) -> tuple[Array, Array]:
        """Energies (K,) kcal/mol and forces (N, 3) kcal/mol/Å of all molecules.

        Args:
            R: (N, 3) Å, positions of all N atoms of all molecules.
        """
        R = R.astype(jnp.result_type(R, self.parameters))
        inside = {"mode": "promise_in_bounds", "wrap_negative_indices": False}
        points = _split(
            R.T.at[:, self.atoms].get(**inside), [f.n_points * f.count for f in self.forms]
        )
        sizes = [prod(shape) * form.count for form in self.forms for shape in form.shapes]
        columns = iter(_split(self.parameters, sizes))
        factors = [1.0] * len(self.forms)
        if self.factors is not None:
            factors = _split(self.factors, [form.count for form in self.forms])
        energies, forces = [], []
        for form, x, factor in zip(self.forms, points, factors, strict=True):
            x = x.reshape(3, form.n_points, form.count)
            vectors = [x[:, k + 1] - x[:, k] for k in range(form.n_points - 1)]
            parameters = [next(columns).reshape(*shape, form.count) for shape in form.shapes]
            energy, pull_back = jax.vjp(lambda *d: factor * form.energy(*d, *parameters), *vectors)
            slopes = pull_back(jnp.ones_like(energy))
            middle = [after - before for before, after in pairwise(slopes)]
            energies.append(energy)
            forces += [slopes[0], *middle, -slopes[-1]]
        total = jnp.zeros(self.n_molecules, R.dtype)
        total = total.at[self.owners].add(jnp.concatenate(energies), **inside)
        force = jnp.zeros_like(R.T).at[:, self.atoms].add(jnp.concatenate(forces, axis=1), **inside)
        return total, force.T


def _split(x: Array, sizes: Sequence[int]) -> list[Array]:
    """Split the last axis into parts of the given sizes."""
    return jnp.split(x, np.cumsum(sizes)[:-1], axis=-1)
