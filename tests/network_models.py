"""Small networks that tests wrap as terms; importable, as builders must be."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxff import network_builder


class PairNetwork(nn.Module):
    """An energy from inverse distances and both atomic numbers of each pair, by a perceptron."""

    width: int = 8

    @nn.compact
    def __call__(self, numbers, R):
        i, j = jnp.triu_indices(len(R), 1)
        r = jnp.linalg.norm(R[i] - R[j], axis=-1)
        z = jnp.stack([numbers[i] + numbers[j], numbers[i] * numbers[j]], axis=-1) / 10.0
        x = jnp.concatenate([jnp.exp(-r)[:, None], z.astype(r.dtype)], axis=-1)
        hidden = nn.tanh(nn.Dense(self.width)(x))
        return jnp.sum(jnp.exp(-r) * nn.Dense(1)(hidden)[:, 0])


@network_builder
def build(width: int = 8):
    """`apply` of a `PairNetwork`."""
    return PairNetwork(width).apply


def unmarked(width: int = 8):
    """The same, not declared as a builder."""
    return PairNetwork(width).apply


def variables(numbers, width: int = 8, seed: int = 0):
    """Random weights of a `PairNetwork` in float64."""
    R = jax.random.normal(jax.random.key(1), (len(numbers), 3))
    model = PairNetwork(width)
    return jax.tree.map(
        lambda x: x.astype(float), model.init(jax.random.key(seed), jnp.asarray(numbers), R)
    )


@jax.tree_util.register_pytree_node_class
class Weights:
    """A tree of weights that is no dict, as an Equinox module is none."""

    def __init__(self, a, b):
        self.a, self.b = a, b

    def tree_flatten(self):
        return (self.a, self.b), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def attraction(weights, numbers, R):
    """An energy of `Weights`."""
    return weights.a * jnp.sum((R - R.mean(0)) ** 2) + jnp.sum(weights.b[numbers])


@network_builder
def build_with_example():
    """`attraction`, and an example of its weights."""
    return attraction, Weights(jnp.zeros(()), jnp.zeros(10))


def periodic(weights, numbers, R, box=None, neighbor=None):
    """Exponential repulsion of neighbouring pairs, of nearest images where there is a box."""
    n = len(R)
    i, j = neighbor
    real = (i < n) & (j < n)
    d = R[jnp.minimum(i, n - 1)] - R[jnp.minimum(j, n - 1)]
    if box is not None:
        d = d - jnp.round(d @ jnp.linalg.inv(box)) @ box
    square = jnp.where(real, jnp.sum(d * d, axis=-1), 1.0)
    return jnp.sum(jnp.where(real, weights["k"] * jnp.exp(-jnp.sqrt(square)), 0.0))
