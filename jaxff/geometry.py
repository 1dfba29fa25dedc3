"""Distances, angles and dihedrals, with finite values and correct gradients.

Points and vectors are (3,) Å.  Additional trailing axes batch over interactions, so that one
processor instruction serves several interactions.  Gradients that do not exist are set to zero,
which is their mean over all directions.  This happens at coincident atoms, at straight angles, and
for dihedrals of collinear atoms.  Derivatives are written in closed form, so they are accurate.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array

# atan(t)/t in t², exact in float64 to |t| = tan(π/8)
_TAN_EIGHTH = 0.41421356237309503
_ATAN_SERIES = tuple((-1.0) ** k / (2 * k + 1) for k in range(20))


def distance(a: Array, b: Array) -> Array:
    """Distance () Å of points a and b (3,) Å; the gradient is zero if they coincide."""
    return length(b - a)


def length(d: Array) -> Array:
    """Length () Å of the vector d (3,) Å; the gradient is zero if the length is zero."""
    return safe_sqrt(square(d))


def square(d: Array) -> Array:
    """Squared length () Å² of the vector d (3,) Å."""
    return _dot(d, d)


def angle(a: Array, b: Array, c: Array) -> Array:
    """Angle () rad in [0, π] at the point b between the points a and c (3,) Å.

    The angle is atan2(|u × v|, u · v) with u = a − b and v = c − b.  The gradient is zero at 0° and
    180°.  For harmonic energies use `squared_angle_deviation`, which has correct derivatives there.
    """
    return _angle(a - b, c - b)


def angle_cos(a: Array, b: Array, c: Array) -> Array:
    """Cosine () of the angle at the point b between the points a and c (3,) Å.

    It is smooth at straight angles.  Value and gradient are zero if b coincides with a or c.
    """
    u, v = a - b, c - b
    product = _dot(u, u) * _dot(v, v)
    defined = product > 0.0
    return jnp.where(defined, _dot(u, v) * jnp.sqrt(1.0 / _or_one(product, defined)), 0.0)


def fade(x: Array) -> Array:
    """Smooth step () from 0 at x ≤ 0 to 1 at x ≥ 1; x is ().

    The first and second derivatives are zero at 0 and 1.
    """
    x = jnp.clip(x, 0.0, 1.0)
    return x**3 * (10.0 + x * (6.0 * x - 15.0))


def squared_angle_deviation(a: Array, b: Array, c: Array, reference: Array) -> Array:
    """Squared deviation (θ − θ0)², () rad², of an angle θ from θ0.

    At exactly 0° and 180°, the first and second derivatives are correct if θ0 is this angle.  For
    other θ0 the energy has a cusp there, and the gradient is set to zero.

    Args:
        a, b, c: (3,) Å; θ is the angle at b between a and c.
        reference: θ0, () rad.
    """
    return squared_deviation(a - b, c - b, reference)


def squared_deviation(u: Array, v: Array, reference: Array) -> Array:
    """Squared deviation (θ − θ0)², () rad²; see `squared_angle_deviation`.

    Args:
        u, v: (3,) Å; θ is the angle between them.
        reference: θ0, () rad.
    """
    return _squared_deviation(u, v, jnp.asarray(reference, u.dtype))


def dihedral(a: Array, b: Array, c: Array, d: Array) -> Array:
    """Dihedral angle () rad in [−π, π] of the points a, b, c, d (3,) Å.

    The angle is 0 in cis conformation, and its sign follows IUPAC.  Value and gradient are zero if
    three consecutive points are collinear.
    """
    cos, sin = dihedral_cos_sin(a, b, c, d)
    return jnp.arctan2(sin, cos)


def dihedral_cos_sin(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array]:
    """Cosine () and sine () of the dihedral angle of the points a, b, c, d (3,) Å.

    The results are (1, 0) with zero gradients if three consecutive points are collinear.
    """
    return torsion_cos_sin(b - a, c - b, d - c)


def inverse(box: Array) -> Array:
    """Inverse (3, 3) of a box (3, 3); its columns are the reciprocal lattice vectors."""
    a, b, c = box
    columns = jnp.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=1)
    return columns / _dot(a, columns[:, 0])


def determinant(box: Array) -> Array:
    """Determinant () of a box (3, 3), which is its volume up to the sign."""
    return _dot(box[0], _cross(box[1], box[2]))


def safe_sqrt(square: Array) -> Array:
    """Square root () of `square` (), or 0 if it is negative; the gradient at 0 is 0."""
    positive = square > 0.0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


# -- derivatives with respect to bond vectors ------------------------------------------------


@jax.custom_jvp
def _angle(u: Array, v: Array) -> Array:
    cos, sin2 = _angle_products(u, v)
    return _arctan(sin2, cos)[0]


@_angle.defjvp
def _angle_jvp(primals, tangents):
    (u, v), (du, dv) = primals, tangents
    cos, sin2 = _angle_products(u, v)
    sin = safe_sqrt(sin2)
    slope = _sine_times_tangent(u, v, cos, du, dv) / _or_one(sin, sin > 0.0)
    return _arctan(sin2, cos)[0], jnp.where(sin > 0.0, slope, 0.0)


@jax.custom_jvp
def _squared_deviation(u: Array, v: Array, reference: Array) -> Array:
    return (_angle(u, v) - reference) ** 2


@_squared_deviation.defjvp
def _squared_deviation_jvp(primals, tangents):
    u, v, reference = primals
    cos, sin2 = _angle_products(u, v)
    deviation, over_sine = _deviation(sin2, cos, reference)
    du, dv, shift = tangents
    tangent = over_sine * _sine_times_tangent(u, v, cos, du, dv) - deviation * shift
    return deviation**2, 2.0 * tangent


def _angle_products(u: Array, v: Array) -> tuple[Array, Array]:
    """The products u · v, () Å², and |u × v|², () Å⁴, of vectors u and v (3,) Å."""
    w = _cross(u, v)
    return _dot(u, v), _dot(w, w)


def _sine_times_tangent(u: Array, v: Array, cos: Array, du: Array, dv: Array) -> Array:
    """The product |u × v| dθ, () Å² rad, with the tangent dθ of θ; always smooth.

    Args:
        u, v: (3,) Å; θ is the angle between them.
        cos: u · v, () Å².
        du, dv: tangents of u and v, (3,) Å.
    """
    uu, vv = _dot(u, u), _dot(v, v)
    along_u, along_v = cos / _or_one(uu, uu > 0.0), cos / _or_one(vv, vv > 0.0)
    return _dot(u, along_u * du - dv) + _dot(v, along_v * dv - du)


@jax.custom_jvp
def _arctan(sin2: Array, cos: Array) -> tuple[Array, Array]:
    """The angle θ = atan2(s, c) in [0, π], and the ratio η/tan η.

    η is the deviation of θ from 0 or π, whichever is nearer.  The ratio is correct for η below π/8.
    jnp.arctan2 calls a library function for each number and is ten times slower.

    Args:
        sin2: s², ().
        cos: c, ().
    """
    sin, adjacent = safe_sqrt(sin2), jnp.abs(cos)
    large, small = jnp.maximum(sin, adjacent), jnp.minimum(sin, adjacent)
    middle = small > _TAN_EIGHTH * large  # closer to 45° than to 0° or 90°
    above = jnp.where(middle, small - large, small)
    below = _or_one(jnp.where(middle, small + large, large), large > 0.0)
    t = above / below
    ratio = polynomial(_ATAN_SERIES, t * t)
    angle = t * ratio + jnp.where(middle, 0.25 * jnp.pi, 0.0)
    angle = jnp.where(sin > adjacent, 0.5 * jnp.pi - angle, angle)
    return jnp.where(cos < 0.0, jnp.pi - angle, angle), ratio


@_arctan.defjvp
def _arctan_jvp(primals, tangents):
    # Automatic differentiation would give kinks between the cases, at 45° and 90°.
    (sin2, cos), (dsin2, dcos) = primals, tangents
    sin, square = safe_sqrt(sin2), sin2 + cos * cos
    dsin = jnp.where(sin > 0.0, 0.5 / _or_one(sin, sin > 0.0), 0.0) * dsin2
    slope = (cos * dsin - sin * dcos) / _or_one(square, square > 0.0)
    return _arctan(*primals), (slope, jax.jvp(_straight_ratio, primals, tangents)[1])


def _straight_ratio(sin2: Array, cos: Array) -> Array:
    """The ratio η/tan η as a smooth function; for the arguments see `_arctan`."""
    straight = (sin2 <= _TAN_EIGHTH**2 * cos * cos) & (cos != 0.0)
    tan2 = jnp.where(straight, sin2, 0.0) / _or_one(cos * cos, straight)
    return polynomial(_ATAN_SERIES, tan2)


def _deviation(sin2: Array, cos: Array, reference: Array) -> tuple[Array, Array]:
    """The deviation θ − θ0 of an angle, and (θ − θ0)/s, where s = |u × v|.

    Near a straight angle (0 or π), (θ − θ0)/s is ±(η − η0)/s.  Here η and η0 are the deviations of
    θ and θ0 from the straight angle.  η/s is a smooth function of s².  The cusp η0/s is set to zero
    at s = 0.

    Args:
        sin2: s² = |u × v|², () Å⁴.
        cos: u · v, () Å².
        reference: θ0, () rad.
    """
    angle, ratio = _arctan(sin2, cos)
    sin, adjacent = safe_sqrt(sin2), jnp.abs(cos)
    straight = sin <= _TAN_EIGHTH * adjacent  # also for coincident points
    deviation = angle - reference
    offset = jnp.where(cos < 0.0, jnp.pi - reference, reference)
    # η/s is `ratio` divided by the adjacent side.
    smooth = jnp.where(straight, ratio / _or_one(adjacent, adjacent > 0.0), 0.0)
    rest = jnp.where(straight, -offset, deviation) / _or_one(sin, sin > 0.0)
    rest = jnp.where(sin > 0.0, rest, 0.0)
    return deviation, jnp.where(straight, jnp.sign(cos) * (smooth + rest), rest)


@jax.custom_jvp
def torsion_cos_sin(b1: Array, b2: Array, b3: Array) -> tuple[Array, Array]:
    """Cosine () and sine () of the dihedral φ of bond vectors b1, b2, b3 (3,) Å.

    cos φ is proportional to (b1 × b2) · (b2 × b3), and sin φ to |b2| b1 · (b2 × b3).  The results
    are (1, 0) with zero gradients if two consecutive vectors are parallel.  The gradient follows
    Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996), eq. 27.
    """
    m, n = _cross(b1, b2), _cross(b2, b3)
    product = _dot(m, m) * _dot(n, n)
    defined = product > 0.0
    scale = jnp.sqrt(1.0 / _or_one(product, defined))
    cos, sin = _dot(m, n), jnp.sqrt(_dot(b2, b2)) * _dot(b1, n)
    return jnp.where(defined, cos * scale, 1.0), jnp.where(defined, sin * scale, 0.0)


@torsion_cos_sin.defjvp
def _torsion_cos_sin_jvp(primals, tangents):
    (b1, b2, b3), (db1, db2, db3) = primals, tangents
    cos, sin = torsion_cos_sin(b1, b2, b3)
    m, n = _cross(b1, b2), _cross(b2, b3)
    mm, nn, bb = _dot(m, m), _dot(n, n), _dot(b2, b2)
    defined = mm * nn > 0.0
    mm, nn, bb = (_or_one(x, defined) for x in (mm, nn, bb))
    length = jnp.where(defined, jnp.sqrt(bb), 0.0)
    first, third = (length / mm) * m, (length / nn) * n
    second = -(_dot(b1, b2) / bb) * first - (_dot(b3, b2) / bb) * third
    dphi = _dot(first, db1) + _dot(second, db2) + _dot(third, db3)
    return (cos, sin), (-sin * dphi, cos * dphi)


def _dot(u: Array, v: Array) -> Array:
    return (u * v).sum(axis=0)


def _cross(u: Array, v: Array) -> Array:
    return jnp.cross(u, v, axis=0)


def _or_one(x: Array, usable: Array) -> Array:
    return jnp.where(usable, x, 1.0)


def polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """The polynomial with `coefficients` of ascending powers, at each element of x."""
    value = jnp.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value
