"""Small systems whose canonical ensembles are known in closed form, drawn without dynamics."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from jaxff.md.differentiable.reweighting import Frames
from jaxff.potential import Column, Potential, Term
from jaxff.terms.torsion import FourierTorsion
from jaxff.units import BOLTZMANN

T = 300.0
KT = BOLTZMANN * T


@dataclass(frozen=True, eq=False)
class Well(Term):
    """E = k/2 |R|² of one atom."""

    n_atoms: int = 1

    kind = "test well"
    columns = {"k": Column("kcal/mol/Å²", 1.0, lower=1e-3)}  # noqa: RUF012

    def energies(self, params, R, space):
        return {"well": 0.5 * params["k"] * jnp.sum(R**2)}


@dataclass(frozen=True, eq=False)
class DoubleWell(Term):
    """E = a x⁴ − b x² + c x of the first coordinate of one atom."""

    n_atoms: int = 1

    kind = "test double well"
    columns = {name: Column("kcal/mol") for name in "abc"}  # noqa: RUF012

    def energies(self, params, R, space):
        x = R[0, 0]
        return {"double": params["a"] * x**4 - params["b"] * x**2 + params["c"] * x}


def well(k: float) -> Potential:
    return Potential.of("well", Well(), {"k": np.asarray(k)})


def double_well(a: float, b: float, c: float) -> Potential:
    return Potential.of(
        "double", DoubleWell(), dict(a=np.asarray(a), b=np.asarray(b), c=np.asarray(c))
    )


def rotor(k1: float, k3: float) -> Potential:
    """Four atoms with E = k1 (1 + cos φ) + k3 (1 + cos 3φ)."""
    term = FourierTorsion.of_terms(4, [(0, 1, 2, 3)] * 2, [0, 1], [1, 3], ("one", "three"))
    return Potential.of("torsion", term, {"k": np.array([k1, k3]), "phase": np.zeros(2)})


def rotor_positions(phi) -> np.ndarray:
    """(F, 4, 3) Å with dihedral angles (F,) rad."""
    phi = np.asarray(phi)
    ends = np.stack([np.ones_like(phi), np.cos(phi), np.sin(phi)], axis=-1)
    fixed = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    return np.concatenate([np.tile(fixed, (len(phi), 1, 1)), ends[:, None]], axis=1)


def inverse_transform(energy: Callable, grid: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Samples of exp(−energy/kT) on a grid, from uniform random numbers."""
    density = np.exp(-energy(grid) / KT)
    total = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    return np.interp(u, total / total[-1], grid)


@dataclass(frozen=True, eq=False)
class Exact:
    """Independent frames of a system, as `Sampling` would draw them."""

    frames: Callable[[Potential, np.random.Generator, int], np.ndarray]
    count: int = 4000
    seed: int = 0
    temperature: float = T
    blocks: int = 100

    def draw(self, potential, number=0, previous=None):
        rng = np.random.default_rng([self.seed, number])
        return Frames.of(potential, self.frames(potential, rng, self.count), T, self.blocks)


def well_frames(potential, rng, count):
    k = float(potential.params["well"]["k"])
    return np.sqrt(KT / k) * rng.normal(size=(count, 1, 3))


def rotor_frames(potential, rng, count):
    k1, k3 = np.asarray(potential.params["torsion"]["k"])
    grid = np.linspace(-np.pi, np.pi, 4001)
    phi = inverse_transform(lambda x: k1 * np.cos(x) + k3 * np.cos(3 * x), grid, rng.random(count))
    return rotor_positions(phi)
