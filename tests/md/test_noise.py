"""The generator against its authors' known answers, its numbers against the normal law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxff.md.noise import normal, threefry


@pytest.mark.parametrize(
    ("key", "counter", "answer"),
    [  # Random123, kat_vectors: threefry2x32, 20 rounds
        ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_the_generator_gives_the_known_answers(key, counter, answer):
    found = jax.jit(threefry)(*map(jnp.uint32, key + counter))
    assert tuple(map(int, found)) == answer


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_are_normal_and_independent(dtype):
    keys = jax.vmap(jax.random.key)(np.arange(20))
    steps = np.arange(2000)
    draw = jax.vmap(jax.vmap(lambda k, t: normal(k, t, (7, 3), dtype), (None, 0)), (0, None))
    x = np.asarray(draw(keys, steps))
    assert x.dtype == dtype
    assert scipy.stats.kstest(x.ravel(), "norm").pvalue > 1e-4
    n = x.size
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        found = np.mean(x.astype(float) ** power)
        assert found == pytest.approx(expected, abs=5 * np.sqrt(variance / n))
    flat = x.reshape(20, 2000, 21).astype(float)
    for a, b in (
        (flat[:, 1:], flat[:, :-1]),  # of a step and the next
        (flat[1:], flat[:-1]),  # of a replica and the next
        (flat[..., 1:], flat[..., :-1]),  # of a coordinate and the next
    ):
        assert abs(np.mean(a * b)) < 5 / np.sqrt(a.size)


def test_replicas_have_the_noise_of_their_keys():
    keys = jax.vmap(jax.random.key)(np.arange(3))
    many = jax.vmap(lambda key: normal(key, 5, (4, 3), float))(keys)
    for key, found in zip(keys, many, strict=True):
        np.testing.assert_array_equal(normal(key, 5, (4, 3), float), found)
