"""Gaussian noise as a function of a key and the number of a step.

The generator is that of jax.random, but compiled as one kernel, which is faster on a CPU.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def threefry(key0, key1, x0, x1):
    """Return two random words from a key and a counter, by Threefry-2x32-20.

    Source: Salmon et al., Proc. SC'11, 16 (2011), https://doi.org/10.1145/2063384.2063405.

    Args:
        key0, key1: words of the key, uint32.
        x0, x1: words of the counter, uint32 arrays (...).
    """
    keys = (key0, key1, key0 ^ key1 ^ jnp.uint32(_PARITY))
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for group in range(5):
        for turn in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = (x1 << turn) | (x1 >> (32 - turn))
            x1 = x0 ^ x1
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return x0, x1


def normal(key, t, shape: tuple[int, ...], dtype):
    """Return standard normal numbers for step t, drawn in single precision.

    Args:
        key: JAX random key of two words (threefry).
        t: () integer; only its lower 32 bits are used.
        shape: shape of the result.
        dtype: type of the result.
    """
    words, size = jax.random.key_data(key), 1
    for n in shape:
        size *= n
    index = jnp.arange((size + 1) // 2, dtype=jnp.uint32)
    step = jnp.broadcast_to(jnp.asarray(t).astype(jnp.uint32), index.shape)
    bits = jnp.concatenate(threefry(words[0], words[1], step, index))[:size]
    # The midpoints of 2²³ equal parts of (−1, 1), exact in single precision.
    uniform = ((bits >> 9).astype(jnp.float32) + 0.5) * 2.0**-22 - 1.0
    return (2.0**0.5 * jax.lax.erf_inv(uniform)).astype(dtype).reshape(shape)
