"""A small equivariant message-passing network of e3x, for the notebook `network`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import e3x
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxff import network_builder


class MessagePassing(nn.Module):
    """The energy of a molecule, (), from atomic numbers (N,) and positions (N, 3) in Å.

    Each atom has features up to the degree `max_degree`. In each layer it receives messages from
    all atoms within the cutoff. The energy is a sum over atoms of a linear function of their scalar
    features. It does not change under translations, rotations, reflections and permutations of
    equal atoms. Its initial value is zero.

    Attributes:
        features: number of features of each degree.
        max_degree: highest degree of the features and of the spherical harmonics.
        layers: number of message-passing layers.
        basis: number of radial basis functions.
        cutoff: largest distance of interacting atoms, Å.
        elements: the network accepts atomic numbers below this one.
    """

    features: int = 16
    max_degree: int = 1
    layers: int = 2
    basis: int = 8
    cutoff: float = 5.0
    elements: int = 10

    @nn.compact
    def __call__(self, numbers: jax.Array, R: jax.Array) -> jax.Array:
        receiver, sender = e3x.ops.sparse_pairwise_indices(len(R))
        basis = e3x.nn.basis(
            R[sender] - R[receiver],
            max_degree=self.max_degree,
            num=self.basis,
            radial_fn=partial(e3x.nn.sinc, limit=self.cutoff),
            cutoff_fn=partial(e3x.nn.smooth_cutoff, cutoff=self.cutoff),
        )
        x = e3x.nn.Embed(self.elements, self.features)(numbers)
        x = x.astype(basis.dtype)  # e3x adds only arrays of one type
        for layer in range(self.layers):
            # The energy needs only scalars, so the last layer computes nothing else.
            degree = 0 if layer == self.layers - 1 else self.max_degree
            message = e3x.nn.MessagePass(degree, include_pseudotensors=False)(
                x, basis, dst_idx=receiver, src_idx=sender
            )
            x = e3x.nn.change_max_degree_or_type(x, max_degree=degree)
            change = e3x.nn.silu(e3x.nn.Dense(self.features)(e3x.nn.add(x, message)))
            x = e3x.nn.add(x, e3x.nn.Dense(self.features)(change))
        zeros = nn.initializers.zeros
        return jnp.sum(nn.Dense(1, use_bias=False, kernel_init=zeros)(x[:, 0, 0, :]))


@network_builder
def build(**config) -> Callable:
    """The function ``apply(variables, numbers, R)`` of a `MessagePassing` with these attributes."""
    return MessagePassing(**config).apply
