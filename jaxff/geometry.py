"""Distances, angles and dihedrals of single points: finite values and right gradients everywhere.

Each function takes points (3,) Å and is meant for `jax.vmap`.  Where a gradient does not exist
(coincident atoms, straight angles, collinear dihedrals) it is zero, the mean over directions.
Derivatives are given in closed form: that keeps them accurate, and XLA compiles a few vector
operations in place of the many that autodiff would make of the products.
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


def inverse_distance(a: Array, b: Array) -> Array:
    """1/r () 1/Å of points a, b (3,) Å; infinite where they coincide."""
    d = b - a
    return _inverse_sqrt(_dot(d, d))


def angle(a: Array, b: Array, c: Array) -> Array:
    """Angle () rad in [0, π] at b between a and c (3,) Å, as atan2(|u × v|, u · v).

    The gradient is zero at exactly 0° and 180°.  A harmonic energy needs
    `squared_angle_deviation`, whose second derivative is right there, too.
    """
    return _angle(a - b, c - b)


def angle_cos(a: Array, b: Array, c: Array) -> Array:
    """Cosine () of the angle at b between a and c (3,) Å: smooth at straight angles, too.

    Zero with zero gradient where b coincides with a or c.
    """
    u, v = a - b, c - b
    square = _dot(u, u) * _dot(v, v)
    defined = square > 0.0
    return jnp.where(defined, _dot(u, v) * jax.lax.rsqrt(_or_one(square, defined)), 0.0)


def fade(x: Array) -> Array:
    """0 to x = 0, 1 from x = 1, and smooth between: two derivatives vanish at either end."""
    x = jnp.clip(x, 0.0, 1.0)
    return x**3 * (10.0 + x * (6.0 * x - 15.0))


def squared_angle_deviation(a: Array, b: Array, c: Array, reference: Array) -> Array:
    """(θ − θ0)² () rad² of the angle θ at b between a and c (3,) Å; θ0 = `reference` () rad.

    At exactly 0° and 180° the first and second derivatives are right if θ0 is that angle; for any
    other θ0 the energy has a cusp there, and its gradient is taken as zero.
    """
    return _squared_deviation(a - b, c - b, jnp.asarray(reference, a.dtype))


def dihedral(a: Array, b: Array, c: Array, d: Array) -> Array:
    """Dihedral angle () rad in [−π, π] of a-b-c-d (3,) Å, IUPAC sign: 0 is cis.

    Zero with zero gradient where three consecutive points are collinear.
    """
    cos, sin = dihedral_cos_sin(a, b, c, d)
    return jnp.arctan2(sin, cos)


def dihedral_cos_sin(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array]:
    """Cosine and sine () of the dihedral a-b-c-d (3,) Å: (1, 0) where it is undefined.

    With bond vectors b1, b2, b3: cos φ ∝ (b1 × b2) · (b2 × b3), sin φ ∝ |b2| b1 · (b2 × b3);
    gradient after Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996), eq. 27.
    """
    return _dihedral(b - a, c - b, d - c)


def safe_sqrt(square: Array) -> Array:
    """Square root with a zero gradient at zero."""
    positive = square > 0.0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


# -- the derivatives, for bond vectors ------------------------------------------------------


@jax.custom_jvp
def _inverse_sqrt(x):
    return jax.lax.rsqrt(x)


@_inverse_sqrt.defjvp
def _inverse_sqrt_jvp(primals, tangents):
    y = _inverse_sqrt(*primals)  # the derivative needs no further division
    return y, -0.5 * y**3 * tangents[0]


@jax.custom_jvp
def _angle(u, v):
    cos, sin2 = _angle_products(u, v)
    return jnp.arctan2(jnp.sqrt(sin2), cos)


@_angle.defjvp
def _angle_jvp(primals, tangents):
    _, sin2 = _angle_products(*primals)
    inverse = jnp.where(sin2 > 0.0, _inverse_sqrt(_or_one(sin2, sin2 > 0.0)), 0.0)
    return _angle(*primals), inverse * _sine_times_tangent(*primals, *tangents)


@jax.custom_jvp
def _squared_deviation(u, v, reference):
    return (_angle(u, v) - reference) ** 2


@_squared_deviation.defjvp
def _squared_deviation_jvp(primals, tangents):
    u, v, reference = primals
    deviation = _angle(u, v) - reference
    bend = _deviation_over_sine(*_angle_products(u, v), reference)
    tangent = bend * _sine_times_tangent(u, v, *tangents[:2]) - deviation * tangents[2]
    return deviation**2, 2.0 * tangent


def _sine_times_tangent(u, v, du, dv):
    """|u × v| dθ: linear in du and dv, and smooth at the straight angle."""
    cos, uu, vv = _dot(u, v), _dot(u, u), _dot(v, v)
    cos_u, cos_v = cos / _or_one(uu, uu > 0.0), cos / _or_one(vv, vv > 0.0)
    return _dot(cos_u * u - v, du) + _dot(cos_v * v - u, dv)


def _deviation_over_sine(cos, sin2, reference):
    """(θ − θ0)/s with s = |u × v|, from u · v, s² and θ0, for use in derivatives.

    Near the straight line it is ±(η − η0)/s, η the distance of θ from 0 or π: η/s is a smooth
    function of s², and the cusp η0/s is left out at s = 0.
    """
    straight = sin2 <= _STRAIGHT * cos**2  # holds for coincident points, too
    inverse = jnp.where(sin2 > 0.0, _inverse_sqrt(_or_one(sin2, sin2 > 0.0)), 0.0)

    sin = jnp.sqrt(_or_one(sin2, ~straight))
    far = (jnp.arctan2(sin, _or_one(cos, ~straight)) - reference) * inverse

    adjacent = _or_one(jnp.abs(cos), straight & (cos != 0.0))
    tan2 = jnp.where(straight, sin2, 0.0) / adjacent**2
    offset = jnp.where(cos < 0.0, jnp.pi - reference, reference)
    near = jnp.sign(cos) * (_polynomial(_ATAN_SERIES, tan2) / adjacent - offset * inverse)
    return jnp.where(straight, near, far)


@jax.custom_jvp
def _dihedral(b1, b2, b3):
    m, n = jnp.cross(b1, b2), jnp.cross(b2, b3)
    square = _dot(m, m) * _dot(n, n)
    defined = square > 0.0
    scale = jax.lax.rsqrt(_or_one(square, defined))
    cos, sin = _dot(m, n), jnp.sqrt(_dot(b2, b2)) * _dot(b1, n)
    return jnp.where(defined, cos * scale, 1.0), jnp.where(defined, sin * scale, 0.0)


@_dihedral.defjvp
def _dihedral_jvp(primals, tangents):
    (b1, b2, b3), (db1, db2, db3) = primals, tangents
    cos, sin = _dihedral(b1, b2, b3)
    m, n = jnp.cross(b1, b2), jnp.cross(b2, b3)
    mm, nn, bb = _dot(m, m), _dot(n, n), _dot(b2, b2)
    defined = mm * nn > 0.0
    mm, nn, bb = (_or_one(x, defined) for x in (mm, nn, bb))
    length = jnp.where(defined, jnp.sqrt(bb), 0.0)
    first, third = (length / mm) * m, (length / nn) * n
    second = -(_dot(b1, b2) / bb) * first - (_dot(b3, b2) / bb) * third
    dphi = _dot(first, db1) + _dot(second, db2) + _dot(third, db3)
    return (cos, sin), (-sin * dphi, cos * dphi)


def _angle_products(u, v):
    w = jnp.cross(u, v)
    return _dot(u, v), _dot(w, w)


def _dot(u, v):
    return (u * v).sum()  # under vmap faster than the batched matrix product of jnp.dot


def _or_one(x, usable):
    return jnp.where(usable, x, 1.0)


def _polynomial(coefficients, x):
    value = jnp.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value
