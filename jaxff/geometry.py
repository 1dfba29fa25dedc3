"""Distances, angles and dihedrals of single points: finite values and right gradients everywhere.

Each function takes points (3,) Å and is meant for `jax.vmap`.  Where the gradient of the
quantity itself is undefined (coincident atoms, straight angles, collinear dihedrals) it is zero,
the mean over directions.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array

# Below this tan² of its distance from 0° or 180° an angle is expanded about the straight line;
# six terms of atan(√t)/√t are then exact in float64.
_STRAIGHT = 1e-3
_ATAN_SERIES = tuple((-1.0) ** k / (2 * k + 1) for k in range(6))


def distance(a: Array, b: Array) -> Array:
    """Distance () Å of points a, b (3,) Å; the gradient is zero where they coincide."""
    d = b - a
    return safe_sqrt(_dot(d, d))


def angle(a: Array, b: Array, c: Array) -> Array:
    """Angle () rad in [0, π] at b between a and c (3,) Å, as atan2(|u × v|, u · v).

    The gradient is zero at exactly 0° and 180°.  For a harmonic energy use
    `squared_angle_deviation`, whose second derivative is right there, too.
    """
    cos, sin2 = _angle_products(a, b, c)
    defined = sin2 > 0.0
    sin = jnp.sqrt(jnp.where(defined, sin2, 1.0))
    straight = jnp.where(cos < 0.0, jnp.pi, jnp.zeros_like(cos))
    return jnp.where(defined, jnp.arctan2(sin, cos), straight)


def squared_angle_deviation(a: Array, b: Array, c: Array, reference: Array) -> Array:
    """(θ − reference)² () rad² of the angle θ at b between a and c (3,) Å.

    Near a straight angle (θ − θ0)² is written with η, the distance of θ from 0 or π:
    η² − 2 η η0 + η0², where η² is a smooth function of |u × v|².  The first and second derivative
    are therefore right at exactly 0° and 180° if that is the reference; for any other reference
    the energy has a cusp there, and its gradient is taken as zero.
    """
    cos, sin2 = _angle_products(a, b, c)
    straight = sin2 <= _STRAIGHT * cos**2  # holds for coincident points, too

    sin = jnp.sqrt(jnp.where(straight, 1.0, sin2))
    far = (jnp.arctan2(sin, jnp.where(straight, 1.0, cos)) - reference) ** 2

    adjacent2 = jnp.where(straight & (cos != 0.0), cos**2, 1.0)
    t = jnp.where(straight, sin2, 0.0) / adjacent2
    ratio = _polynomial(_ATAN_SERIES, t)  # η / tan η
    offset = jnp.where(cos < 0.0, jnp.pi - reference, reference)
    near = t * ratio**2 - 2.0 * offset * safe_sqrt(t) * ratio + offset**2
    return jnp.where(straight, near, far)


def dihedral(a: Array, b: Array, c: Array, d: Array) -> Array:
    """Dihedral angle () rad in (−π, π] of a-b-c-d (3,) Å, IUPAC sign (cis 0, clockwise positive).

    Zero with zero gradient where three consecutive points are collinear.
    """
    cos, sin = dihedral_cos_sin(a, b, c, d)
    return jnp.arctan2(sin, cos)


def dihedral_cos_sin(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array]:
    """Cosine and sine () of the dihedral a-b-c-d (3,) Å: (1, 0) where it is undefined.

    With bond vectors b1, b2, b3: cos φ ∝ (b1 × b2) · (b2 × b3), sin φ ∝ |b2| b1 · (b2 × b3).
    """
    b1, b2, b3 = b - a, c - b, d - c
    m, n = _cross(b1, b2), _cross(b2, b3)
    x, y = _dot(m, n), safe_sqrt(_dot(b2, b2)) * _dot(b1, n)
    square = x**2 + y**2
    defined = square > 0.0
    inverse = jax.lax.rsqrt(jnp.where(defined, square, 1.0))
    return jnp.where(defined, x * inverse, 1.0), jnp.where(defined, y * inverse, 0.0)


def safe_sqrt(square: Array) -> Array:
    """Square root with a zero gradient at zero."""
    positive = square > 0.0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def _angle_products(a, b, c):
    u, v = a - b, c - b
    w = _cross(u, v)
    return _dot(u, v), _dot(w, w)


# Written out by component: under vmap over (3, n) points these are plain elementwise operations,
# which XLA fuses, where a sum over an axis is not.
def _dot(u, v):
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


def _cross(u, v):
    return (
        u[1] * v[2] - u[2] * v[1],
        u[2] * v[0] - u[0] * v[2],
        u[0] * v[1] - u[1] * v[0],
    )


def _polynomial(coefficients, x):
    value = jnp.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value
