"""GAFF-NN: the bonded terms of GAFF with small networks of internal coordinates.

The idea is that of GAFF-NN in H. E. Sauceda, M. Gastegger, S. Chmiela, K.-R. Müller and A.
Tkatchenko, J. Chem. Phys. 153, 124109 (2020).  Here the network of each type multiplies the GAFF
term or is added to it.  The initial outputs are zero, so that a fit begins at GAFF.  The outputs
are bounded, so that the GAFF terms exceed them at large displacements.

Features of the networks:
- w tanh(Δr/w) of a bond with the deviation Δr from its equilibrium length and w = STRETCH.
- cos θ0 − cos θ of an angle θ with the equilibrium angle θ0; it is smooth at straight angles.
- cos φ and cos 2φ of a dihedral φ; they are equal for mirror images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxff import geometry
from jaxff.interaction import over
from jaxff.potential import Column, Term
from jaxff.terms.class2 import STRAIGHT, STRETCH
from jaxff.terms.torsion import FourierTorsion

LARGEST_EXPONENT = 2.0  # a network changes the force constant by a factor of at most e²
STRETCHED, BENT = 0.1, 0.2  # Å and 1: typical thermal values, for features of order one
WIDTHS = {"bond": 4, "angle": 6, "torsion": 6, "improper": 3}
SEED = 0
_HIDDEN = {"kernel": Column("1", scale=0.05), "bias": Column("1", scale=0.05)}
_STIFFNESS = {"stiffness": {"kernel": Column("1", scale=0.1)}}
_ENERGY = {"energy": {"kernel": Column("kcal/mol", scale=0.2)}}


class Perceptron(nn.Module):
    """Perceptron with one hidden layer of tanh units and linear outputs.

    Attributes:
        width: number of hidden units.
        outputs: names of the outputs.
    """

    width: int
    outputs: tuple[str, ...]

    @nn.compact
    def __call__(self, x):
        """Outputs {name: (..., 1)} for features x (..., F)."""
        hidden = nn.tanh(nn.Dense(self.width, name="hidden")(x))
        return {
            name: nn.Dense(1, use_bias=False, kernel_init=nn.initializers.zeros, name=name)(hidden)
            for name in self.outputs
        }


def start(n_types: int, n_features: int, width: int, outputs: tuple[str, ...]) -> dict:
    """Initial weights of one network for each type, with zero outputs.

    The hidden layers are random with a fixed seed and equal for all types, so that the tables of
    two molecules have equal initial values.

    Args:
        n_types: number of types T.
        n_features: number of features.
        width: number of hidden units.
        outputs: names of the outputs.

    Returns:
        {layer: {"kernel" or "bias": array (T, ...)}}.
    """
    rng = np.random.default_rng(SEED)
    module = Perceptron(width, outputs)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(n_features))["params"]
    weights = jax.tree.map(lambda shape: np.zeros(shape.shape), shapes)
    # Half the usual standard deviation gives smoother networks with lower validation errors.
    kernel = 0.5 * rng.normal(size=(n_features, width)) / np.sqrt(n_features)
    weights["hidden"] = {"kernel": kernel, "bias": rng.normal(size=width)}
    return jax.tree.map(lambda v: np.tile(v, (n_types,) + (1,) * v.ndim), weights)


def outputs_of(weights, rows, x) -> dict:
    """Outputs {name: (n, P)} of the networks of n interactions.

    Args:
        weights: {layer: {"kernel" or "bias": array (T, ...)}}.
        rows: (n,) types.
        x: (n, P, F) features of each interaction in P orders of its atoms.
    """
    names = tuple(sorted(weights.keys() - {"hidden"}))
    module = Perceptron(weights["hidden"]["bias"].shape[-1], names)
    selected = jax.tree.map(lambda v: v[rows], weights)

    def evaluate(weights, x) -> Any:
        return module.apply({"params": weights}, x)

    out = jax.vmap(evaluate)(selected, x)
    return {name: value[..., 0] for name, value in out.items()}


def turned(x, order: Sequence[int], palindromic):
    """Features (n, F) for reversed atoms, or x if the reversal changes the types.

    The mean of the outputs for x and for the result does not depend on the order of atoms.

    Args:
        x: (n, F) features.
        order: (F,) order of the features of reversed atoms.
        palindromic: (n,) 1 if the types are the same in both directions, 0 if x is returned.
    """
    return jnp.where(palindromic[:, None] == 1, x[:, np.array(order)], x)


def stretch(a, b, length):
    """Bounded, dimensionless deviation () of a bond length from equilibrium.

    Args:
        a, b: (3,) Å.
        length: () Å, equilibrium length.
    """
    return (STRETCH / STRETCHED) * jnp.tanh((geometry.distance(a, b) - length) / STRETCH)


def bend(a, b, c, angle):
    """(cos θ0 − cos θ)/BENT, (), of an angle θ.

    Args:
        a, b, c: (3,) Å; θ is the angle at b.
        angle: θ0, () rad, equilibrium angle.
    """
    return (jnp.cos(angle) - geometry.angle_cos(a, b, c)) / BENT


def scaled(energy, exponent):
    """Energy multiplied by exp(w tanh(exponent/w)) with w = LARGEST_EXPONENT.

    Args:
        energy: () kcal/mol.
        exponent: ().
    """
    return energy * jnp.exp(LARGEST_EXPONENT * jnp.tanh(exponent / LARGEST_EXPONENT))


def dihedral_features(a, b, c, d):
    """cos φ and cos 2φ, (2,), of a dihedral angle φ, and a factor ().

    The factor decreases smoothly from 1 to 0 if three consecutive points become collinear.

    Args:
        a, b, c, d: the points, (3,) Å.
    """
    cos, _ = geometry.dihedral_cos_sin(a, b, c, d)
    first, second = geometry.angle_cos(a, b, c), geometry.angle_cos(b, c, d)
    fade = geometry.fade((1.0 - first**2) * (1.0 - second**2) / STRAIGHT)
    return jnp.stack([cos, 2.0 * cos**2 - 1.0]), fade


class _Neural(Term):
    """Base class of the terms with networks."""

    @classmethod
    def upgraded(cls, params):
        """Convert columns of file version 1, such as hidden_kernel, to a tree of weights."""
        out: dict[str, Any] = {}
        for column, value in params.items():
            layer, _, key = column.rpartition("_")
            if key in ("kernel", "bias"):
                out.setdefault("network", {}).setdefault(layer, {})[key] = value
            else:
                out[column] = value
        return out


@dataclass(frozen=True, eq=False)
class NeuralBond(_Neural):
    """Bonds with the energy k (r − length)² exp(f); f is a bounded network output.

    Attributes:
        atoms: (B, 2) atom indices.
        rows: (B,) row of each bond in the parameter arrays.
        labels: names of the rows.
    """

    kind: ClassVar[str] = "neural_bond"
    columns: ClassVar[dict[str, Any]] = {
        "k": Column("kcal/mol/Å²", scale=30.0, lower=0.0),
        "length": Column("Å", scale=0.01, lower=0.5, upper=5.0),
        "network": {"hidden": _HIDDEN, **_STIFFNESS},
    }
    tables: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {"rows": ("labels", tuple(columns))}
    indices: ClassVar[dict[str, tuple[str, ...]]] = {"atoms": ("atoms",) * 2}
    dimensions: ClassVar[dict[str, str]] = {"atoms": "B 2", "rows": "B"}

    n_atoms: int
    atoms: np.ndarray
    rows: np.ndarray
    labels: tuple[str, ...]

    def energies(self, params, R, space):
        k, length = params["k"][self.rows], params["length"][self.rows]
        r = over(geometry.distance, R, self.atoms)
        x = (STRETCH / STRETCHED) * jnp.tanh((r - length) / STRETCH)
        # The output at equilibrium is subtracted, so that k is the force constant there.
        points = jnp.stack([x, jnp.zeros_like(x)], axis=1)[..., None]
        f = outputs_of(params["network"], self.rows, points)["stiffness"]
        return {"bond": scaled(k * (r - length) ** 2, f[:, 0] - f[:, 1]).sum()}


@dataclass(frozen=True, eq=False)
class NeuralAngle(_Neural):
    """Angles with the energy k (θ − angle)² exp(f) + g.

    f and g are outputs of one network of the angle and its two bonds.  The parameter `lengths`
    contains the equilibrium lengths of these bonds.

    Attributes:
        atoms: (A, 3) atom indices, the vertex second, in the direction in which the types are first
            in the alphabet.
        rows: (A,) row of each angle in the parameter arrays.
        palindromic: (A,) 1 if the types are the same in both directions, else 0.
        labels: names of the rows.
    """

    kind: ClassVar[str] = "neural_angle"
    columns: ClassVar[dict[str, Any]] = {
        "k": Column("kcal/mol/rad²", scale=5.0, lower=0.0),
        "angle": Column("rad", scale=0.02, lower=0.0, upper=3.1416),
        "lengths": Column("Å", scale=0.01, lower=0.5, upper=5.0, trainable=False),
        "network": {"hidden": _HIDDEN, **_STIFFNESS, **_ENERGY},
    }
    tables: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {"rows": ("labels", tuple(columns))}
    indices: ClassVar[dict[str, tuple[str, ...]]] = {
        "atoms": ("atoms",) * 3,
        "palindromic": (),
    }
    dimensions: ClassVar[dict[str, str]] = {
        "atoms": "A 3",
        "rows": "A",
        "palindromic": "A",
        "lengths": "_ 2",
    }

    n_atoms: int
    atoms: np.ndarray
    rows: np.ndarray
    palindromic: np.ndarray
    labels: tuple[str, ...]

    def energies(self, params, R, space):
        def one(a, b, c, angle, lengths):
            square = geometry.squared_angle_deviation(a, b, c, angle)
            x = stretch(a, b, lengths[0]), stretch(b, c, lengths[1]), bend(a, b, c, angle)
            return square, jnp.stack(x)

        values = (params[key][self.rows] for key in ("angle", "lengths"))
        square, x = over(one, R, self.atoms, *values)
        back = turned(x, (1, 0, 2), self.palindromic)
        points = jnp.stack([x, back, jnp.zeros_like(x)], axis=1)
        out = outputs_of(params["network"], self.rows, points)
        f, g = (v[:, :2].mean(axis=1) - v[:, 2] for v in (out["stiffness"], out["energy"]))
        return {"angle": (scaled(params["k"][self.rows] * square, f) + g).sum()}


@dataclass(frozen=True, eq=False)
class NeuralTorsion(_Neural, FourierTorsion):
    """Fourier torsions plus a network of the dihedral, its bonds and its angles.

    The parameters `lengths` and `angles` contain the equilibrium values of these bonds and angles.

    Attributes:
        atoms: (Q, 4) atom indices, in the direction in which the types are first in the alphabet.
        rows, periodicities, labels: see `FourierTorsion`.
        type_rows: (Q,) rows of the networks, of `lengths` and of `angles`.
        palindromic: (Q,) 1 if the types are the same in both directions, else 0.
        type_labels: names of the rows `type_rows`.
    """

    kind: ClassVar[str] = "neural_torsion"
    columns: ClassVar[dict[str, Any]] = {
        **FourierTorsion.columns,
        "lengths": Column("Å", scale=0.01, lower=0.5, upper=5.0, trainable=False),
        "angles": Column("rad", scale=0.02, lower=0.0, upper=3.1416, trainable=False),
        "network": {"hidden": _HIDDEN, **_ENERGY},
    }
    tables: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {
        "rows": ("labels", tuple(FourierTorsion.columns)),
        "type_rows": (
            "type_labels",
            tuple(c for c in columns if c not in ("k", "phase")),
        ),
    }
    indices: ClassVar[dict[str, tuple[str, ...]]] = {
        "atoms": ("atoms",) * 4,
        "palindromic": (),
    }
    dimensions: ClassVar[dict[str, str]] = {
        **FourierTorsion.dimensions,
        "type_rows": "Q",
        "palindromic": "Q",
        "lengths": "_ 3",
        "angles": "_ 2",
    }

    type_rows: np.ndarray
    palindromic: np.ndarray
    type_labels: tuple[str, ...]

    def interactions(self, params):
        return None  # the network couples several coordinates

    def energies(self, params, R, space):
        fourier = self.fourier(params).each(R).sum()
        if not len(self.atoms):
            return {self.energy_name: fourier}

        def one(a, b, c, d, lengths, angles):
            s = stretch(a, b, lengths[0]), stretch(b, c, lengths[1]), stretch(c, d, lengths[2])
            t = bend(a, b, c, angles[0]), bend(b, c, d, angles[1])
            waves, fade = dihedral_features(a, b, c, d)
            return jnp.concatenate([jnp.stack([*s, *t]), waves]), fade

        values = (params[key][self.type_rows] for key in ("lengths", "angles"))
        x, fade = over(one, R, self.atoms, *values)
        points = jnp.stack([x, turned(x, (2, 1, 0, 4, 3, 5, 6), self.palindromic)], axis=1)
        h = outputs_of(params["network"], self.type_rows, points)["energy"].mean(axis=1)
        return {self.energy_name: fourier + (fade * h).sum()}


@dataclass(frozen=True, eq=False)
class NeuralImproper(_Neural, FourierTorsion):
    """Fourier impropers plus a network of cos φ and cos 2φ; the centre is third.

    Attributes:
        atoms, rows, periodicities, labels: see `FourierTorsion`.
        type_rows: (Q,) rows of the networks.
        type_labels: names of the rows `type_rows`.
    """

    kind: ClassVar[str] = "neural_improper"
    energy_name: ClassVar[str] = "improper"
    columns: ClassVar[dict[str, Any]] = {
        **FourierTorsion.columns,
        "network": {"hidden": _HIDDEN, **_ENERGY},
    }
    tables: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {
        "rows": ("labels", tuple(FourierTorsion.columns)),
        "type_rows": ("type_labels", ("network",)),
    }
    dimensions: ClassVar[dict[str, str]] = {**FourierTorsion.dimensions, "type_rows": "Q"}

    type_rows: np.ndarray
    type_labels: tuple[str, ...]

    def interactions(self, params):
        return None  # the network couples several coordinates

    def energies(self, params, R, space):
        fourier = self.fourier(params).each(R).sum()
        if not len(self.atoms):
            return {self.energy_name: fourier}
        x, fade = over(dihedral_features, R, self.atoms)
        h = outputs_of(params["network"], self.type_rows, x[:, None])["energy"][:, 0]
        return {self.energy_name: fourier + (fade * h).sum()}
