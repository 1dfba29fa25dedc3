"""A molecule held together by springs: the cheapest potential that vibrates."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from jaxff.dataset import Dataset
from jaxff.potential import Column, Potential, Term


@dataclass(frozen=True, eq=False)
class Springs(Term):
    """Harmonic springs between pairs; `broken` is NaN once a spring is longer than its limit."""

    n_atoms: int
    pairs: np.ndarray

    kind = "test springs"
    columns = {"k": Column("kcal/mol/Å²"), "length": Column("Å"), "limit": Column("Å")}  # noqa: RUF012

    def energies(self, params, R, space):
        r = jnp.linalg.norm(R[self.pairs[:, 0]] - R[self.pairs[:, 1]], axis=1)
        breaking = 0.0 * jnp.sum(jnp.sqrt(params["limit"] - r))
        return {"springs": jnp.sum(params["k"] * (r - params["length"]) ** 2) + breaking}


def springs(molecule, limit=1e3):
    """Springs between all atoms of `molecule`, at rest in its geometry."""
    pairs = np.stack(np.triu_indices(molecule.n_atoms, 1), axis=1)
    length = np.linalg.norm(
        molecule.positions[pairs[:, 0]] - molecule.positions[pairs[:, 1]], axis=1
    )
    bonded = {tuple(b) for b in molecule.bonds.tolist()}
    k = np.array([300.0 if tuple(p) in bonded else 20.0 for p in pairs.tolist()])
    params = {"k": k, "length": length, "limit": np.full(len(k), limit)}
    return Potential.of("springs", Springs(molecule.n_atoms, pairs), params, molecule)


def labelled(potential, R):
    """The data set "water" with positions R (M, N, 3) Å and the labels of a potential."""
    energies, forces = potential.predict(R)
    return Dataset(potential.molecule.numbers, R, forces, energies, name="water")
