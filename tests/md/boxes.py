"""Small systems in boxes, with the attributes of `jaxff.System` that dynamics use."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxff.potential import Column, Potential, Term

# Å, TIP3P; OpenMM stores the lengths of rigid water in single precision.
OH, HH = (10.0 * float(np.float32(x)) for x in (0.09572, 0.15139006545))


@dataclass
class Box:
    """Atoms in a periodic box."""

    numbers: np.ndarray
    positions: np.ndarray
    masses: np.ndarray
    molecules: np.ndarray
    box: np.ndarray | None = None
    bonds: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), int))
    constraints: Any = None
    sites: Any = None
    charge: int = 0
    name: str = ""

    @property
    def n_atoms(self):
        return len(self.numbers)

    @property
    def symbols(self):
        return [{0: "X", 1: "H", 8: "O", 18: "Ar"}[n] for n in self.numbers.tolist()]

    @property
    def formula(self):
        return "".join(self.symbols)


def waters(count, spacing=3.1, seed=0):
    """`count` rigid TIP3P molecules on a cubic grid, in random orientations."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(count ** (1 / 3)))
    half = np.arcsin(0.5 * HH / OH)
    shape = OH * np.array(
        [[0, 0, 0], [np.sin(half), np.cos(half), 0], [-np.sin(half), np.cos(half), 0]]
    )
    positions = []
    for k in range(count):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        place = spacing * np.array([k % side, k // side % side, k // side**2])
        positions.append(place + shape @ turn)
    atoms = np.arange(3 * count).reshape(-1, 3)
    constraints = SimpleNamespace(
        waters=atoms, water_lengths=np.tile([OH, HH], (count, 1)),
        bonds=np.zeros((0, 2), int), lengths=np.zeros(0),
    )  # fmt: skip
    return Box(
        numbers=np.tile([8, 1, 1], count), positions=np.concatenate(positions),
        masses=np.tile([15.999, 1.008, 1.008], count), molecules=np.repeat(np.arange(count), 3),
        box=spacing * side * np.eye(3), constraints=constraints,
        bonds=np.concatenate([atoms[:, [0, 1]], atoms[:, [0, 2]]]),
    )  # fmt: skip


def argon(count, spacing=3.9, box=None):
    """`count` atoms on a cubic grid."""
    side = int(np.ceil(count ** (1 / 3)))
    k = np.arange(count)
    positions = spacing * np.stack([k % side, k // side % side, k // side**2], axis=1)
    return Box(
        numbers=np.full(count, 18), positions=positions, masses=np.full(count, 39.95), molecules=k,
        box=spacing * side * np.eye(3) if box is None else box,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Fluid(Term):
    """Lennard-Jones and Coulomb energies between molecules, smoothly zero at a cutoff.

    Pairs come from the neighbour list, or else are all pairs.  Boxes have right angles.
    """

    n_atoms: int
    pairs: np.ndarray
    groups: np.ndarray
    cutoff: float
    listed: bool = True

    kind = "test fluid"
    columns = dict(sigma=Column("Å"), epsilon=Column("kcal/mol"), charge=Column("e"))  # noqa: RUF012

    @property
    def needs_list(self):
        return self.listed

    def list_cutoff(self):
        return self.cutoff if self.listed else None

    def reads(self, params):
        return ("box", "neighbor") if self.listed else ("box",)

    def energies(self, params, R, space):
        i, j = self.pairs if space.neighbor is None else space.neighbor
        i = jnp.minimum(i, self.n_atoms - 1)
        d = R[i] - R[jnp.minimum(j, self.n_atoms - 1)]
        if space.box is not None:
            lengths = jnp.diagonal(space.box)
            d = d - lengths * jnp.round(d / lengths)
        square = jnp.sum(d**2, axis=1)
        near = (square < self.cutoff**2) & (j < self.n_atoms)
        groups = jnp.asarray(self.groups)
        near &= groups[i] != groups[jnp.minimum(j, self.n_atoms - 1)]
        square = jnp.where(near, square, self.cutoff**2)
        x = square / self.cutoff**2
        fade = (1.0 - x) ** 3
        j = jnp.minimum(j, self.n_atoms - 1)
        sigma = 0.5 * (params["sigma"][i] + params["sigma"][j])
        depth = jnp.sqrt(params["epsilon"][i] * params["epsilon"][j] + 1e-20)
        six = (sigma**2 / square) ** 3
        charges = 332.06 * params["charge"][i] * params["charge"][j]
        each = 4.0 * depth * (six**2 - six) + charges / jnp.sqrt(square)
        return {"fluid": jnp.sum(jnp.where(near, fade * each, 0.0))}


def fluid(system, cutoff=6.0, listed=True, charged=True):
    """TIP3P water or argon with a smooth cutoff."""
    rows = {
        0: (0.0, 0.0, 0.0),
        1: (1.0, 0.0, 0.417),
        8: (3.15061, 0.1521, -0.834),
        18: (3.4, 0.238, 0.0),
    }
    sigma, epsilon, charge = np.array([rows[n] for n in system.numbers.tolist()]).T
    params = {"sigma": sigma, "epsilon": epsilon, "charge": charge * charged}
    pairs = np.stack(np.triu_indices(system.n_atoms, 1)).astype(np.int32)
    term = Fluid(system.n_atoms, pairs, system.molecules.astype(np.int32), cutoff, listed)
    return Potential.of("fluid", term, params)
