"""Distances, angles and dihedrals: values, gradients and second derivatives, everywhere."""

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxff import geometry

gradients = {
    f: jax.jit(jax.grad(f, argnums=tuple(range(n))))
    for f, n in ((geometry.distance, 2), (geometry.angle, 3), (geometry.dihedral, 4))
}
gradient_of_squared_deviation = jax.jit(
    jax.grad(lambda X, reference: geometry.squared_angle_deviation(*X, reference))
)
gradient_of_squared_angle = jax.jit(
    jax.grad(lambda X, reference: (geometry.angle(*X) - reference) ** 2)
)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def points(n):
    return arrays(np.float64, (n, 3), elements=st.floats(-3.0, 3.0, width=32))


def finite_difference(f, X, h=1e-5):
    """Central differences of f(*X), fourth order."""
    out = np.zeros_like(X)
    for i in np.ndindex(X.shape):
        step = np.zeros_like(X)
        step[i] = h
        near = f(*(X + step)) - f(*(X - step))
        out[i] = (8 * near - (f(*(X + 2 * step)) - f(*(X - 2 * step)))) / (12 * h)
    return out


def bent(deviation, dtype, length=1.1):
    """An angle of π − deviation, lying askew in space, made in extended precision."""
    x = np.array([1.0, 2.0, 2.0], np.longdouble) / 3
    y = np.array([2.0, 1.0, -2.0], np.longdouble) / 3
    d = np.longdouble(deviation)
    X = [-length * x, 0 * x, length * (np.cos(d) * x + np.sin(d) * y)]
    return jnp.array(np.array(X), dtype)


@settings(max_examples=50, deadline=None)
@given(points(4))
def test_values_agree_with_ase(X):
    b = np.diff(X, axis=0)
    m, n = np.cross(b[0], b[1]), np.cross(b[1], b[2])
    assume(np.linalg.norm(b, axis=1).min() > 0.1)
    assume(min(np.linalg.norm(m), np.linalg.norm(n)) > 0.1)
    atoms = ase.Atoms("H4", X)
    # ASE takes an arccos: its own error is the tolerance
    assert np.allclose(geometry.distance(*X[:2]), atoms.get_distance(0, 1), atol=1e-12)
    assert np.allclose(geometry.angle(*X[:3]), np.deg2rad(atoms.get_angle(0, 1, 2)), atol=1e-6)
    turn = geometry.dihedral(*jnp.array(X)) - np.deg2rad(atoms.get_dihedral(0, 1, 2, 3))
    assert np.allclose(np.exp(1j * turn), 1.0, atol=1e-6)


def test_dihedral_has_the_iupac_sign():
    """Looking along b-c, d is reached from a by a clockwise turn of 90°: +90°."""
    a, b, c, d = np.array([[0, 1, 0], [0, 0, 0], [0, 0, 1], [-1.0, 0, 1]])
    assert np.allclose(geometry.dihedral(*jnp.array([a, b, c, d])), np.pi / 2, atol=1e-15)


@settings(max_examples=30, deadline=None)
@given(points(4))
def test_gradients_agree_with_finite_differences(X):
    b = np.diff(X, axis=0)
    m, n = np.cross(b[0], b[1]), np.cross(b[1], b[2])
    assume(np.linalg.norm(b, axis=1).min() > 0.3)
    assume(min(np.linalg.norm(m), np.linalg.norm(n)) > 0.3)
    assume(abs(geometry.dihedral(*jnp.array(X))) < 3.1)
    for f, gradient in gradients.items():
        k = {geometry.distance: 2, geometry.angle: 3, geometry.dihedral: 4}[f]
        g = np.array(gradient(*jnp.array(X[:k])))
        assert np.allclose(g, finite_difference(jax.jit(f), X[:k]), rtol=1e-6, atol=1e-7)


@dtypes
def test_coincident_points_have_finite_values_and_no_gradient(dtype):
    p, q = jnp.array([[1, 2, 3], [0, 1, 0]], dtype)
    for f, X in (
        (geometry.distance, (p, p)),
        (geometry.angle, (p, p, q)),
        (geometry.angle, (p, q, q)),
        (geometry.angle, (p, p, p)),
        (geometry.dihedral, (p, p, q, q)),
        (geometry.dihedral, (p, p, p, p)),
    ):
        value, gradient = jax.value_and_grad(f, argnums=tuple(range(len(X))))(*X)
        assert value == 0.0
        assert value.dtype == dtype
        assert not np.any(gradient)
    energy = jax.value_and_grad(geometry.squared_angle_deviation, argnums=(0, 1, 2))
    value, gradient = energy(p, p, q, dtype(2.0))
    assert np.isclose(value, 4.0)
    assert not np.any(gradient)


@dtypes
def test_exactly_straight_angles(dtype):
    x = jnp.array([1.0, 0, 0], dtype)
    for end, angle in ((-1.5 * x, np.pi), (1.5 * x, 0.0)):
        value, gradient = jax.value_and_grad(geometry.angle, argnums=(0, 1, 2))(x, 0 * x, end)
        assert np.isclose(value, angle, atol=1e-7)
        assert not np.any(gradient)
        for reference in (dtype(2.0), dtype(angle)):
            energy = jax.value_and_grad(geometry.squared_angle_deviation, argnums=(0, 1, 2))
            value, gradient = energy(x, 0 * x, end, reference)
            assert np.isclose(value, (angle - reference) ** 2, atol=1e-6)
            assert not np.any(gradient)


@pytest.mark.parametrize(
    ("dtype", "deviation", "tolerance"),
    [(np.float64, 10.0**-k, 1e-7) for k in range(1, 8)]
    + [(np.float32, 10.0**-k, 1e-3) for k in range(1, 4)],
)
def test_force_of_a_nearly_straight_angle(dtype, deviation, tolerance):
    """½ k (θ − θ0)² pulls the end atom with k (θ − θ0)/r, which tends to 51.89 here."""
    k, reference, length = 50.0, 2.0, 1.1
    X = bent(deviation, dtype, length)
    exact = k * (np.pi - deviation - reference) / length
    for gradient in (gradient_of_squared_deviation, gradient_of_squared_angle):
        force = 0.5 * k * np.linalg.norm(gradient(X, dtype(reference))[0])
        assert np.isclose(force, exact, rtol=tolerance)
    assert abs(exact - 51.89) < 50 * deviation + 1e-3


@dtypes
def test_hessian_of_an_exactly_straight_angle_at_its_equilibrium(dtype):
    """k (θ − π)² is k |Δ|² there, Δ = (y_a − y_b)/r_ab + (y_c − y_b)/r_bc, likewise in z."""
    k, left, right = 58.0, 1.4671, 1.1535
    X = jnp.array([[-left, 0, 0], [0, 0, 0], [right, 0, 0]], dtype)

    def energy(X):
        return k * geometry.squared_angle_deviation(*X, dtype(np.pi))

    slope = np.array([1 / left, -1 / left - 1 / right, 1 / right])
    exact = np.einsum("i,j,ab->iajb", slope, slope, 2 * k * np.diag([0.0, 1, 1]))
    tolerance = {np.float32: 1e-3, np.float64: 1e-11}[dtype]
    assert energy(X) < tolerance
    assert np.abs(jax.jit(jax.grad(energy))(X)).max() < tolerance
    assert np.allclose(jax.jit(jax.hessian(energy))(X), exact, atol=tolerance)


def test_fourth_derivative_of_a_straight_angle():
    """(θ − π)² = atan² y = y² − 2/3 y⁴ + ... with an end atom moved sideways by y."""
    x, y = jnp.array([1.0, 0, 0]), jnp.array([0, 1.0, 0])

    def energy(s):
        return geometry.squared_angle_deviation(-x, 0 * x, x + s * y, np.pi)

    second = jax.jacfwd(jax.grad(energy))
    fourth = jax.jacfwd(jax.jacfwd(second))
    assert np.allclose(jax.jit(lambda s: (second(s), fourth(s)))(0.0), (2.0, -16.0), rtol=1e-12)


@pytest.mark.parametrize("end", [(1.0, 1.0), (0.0, 1.0), (-1.0, 1.0)])
def test_hessian_where_forms_of_the_arctangent_meet(end):
    """At 45°, 90° and 135°, with θ_x = −y/r², θ_y = x/r² of the end (x, y)."""
    reference, (x, y) = 1.2, end

    def energy(end):
        start = jnp.array([1.0, 0, 0])
        return geometry.squared_angle_deviation(start, 0 * start, jnp.append(end, 0.0), reference)

    r2, deviation = x * x + y * y, np.arctan2(y, x) - reference
    slope = np.array([-y, x]) / r2
    curvature = np.array([[2 * x * y, y * y - x * x], [y * y - x * x, -2 * x * y]]) / r2**2
    exact = 2 * np.outer(slope, slope) + 2 * deviation * curvature
    assert np.allclose(jax.hessian(energy)(jnp.array(end)), exact, atol=1e-14)


@pytest.mark.parametrize("reference", [1.9, 3.0, np.pi])
def test_hessian_of_bent_and_nearly_straight_angles(reference):
    @jax.jit
    def gradient(X):
        return jax.grad(lambda X: geometry.squared_angle_deviation(*X, reference))(X)

    jacobian = jax.jit(jax.jacfwd(gradient))
    for deviation in (1.2, 0.033, 0.031, 1e-2):  # both sides of the change of form
        X = bent(deviation, np.float64)
        h = deviation * 1e-3
        hessian = jacobian(X).reshape(9, 9)
        for i in range(9):
            step = np.zeros(9)
            step[i] = h
            step = step.reshape(3, 3)
            near = gradient(X + step) - gradient(X - step)
            far = gradient(X + 2 * step) - gradient(X - 2 * step)
            column = (8 * near - far) / (12 * h)
            assert np.allclose(column.ravel(), hessian[i], rtol=1e-6, atol=1e-6 / deviation)


@dtypes
def test_collinear_dihedrals_are_zero_without_gradient(dtype):
    x, y = jnp.eye(3, dtype=dtype)[:2]
    value_and_gradient = jax.jit(jax.value_and_grad(geometry.dihedral, argnums=(0, 1, 2, 3)))
    hessian = jax.jit(jax.hessian(geometry.dihedral))
    for X in ((-x, 0 * x, x, x + y), (y, 0 * x, x, 2 * x), (0 * x, x, 2 * x, 3 * x)):
        value, gradient = value_and_gradient(*X)
        assert value == 0.0
        assert not np.any(gradient)
        assert np.isfinite(hessian(*X)).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-14)])
def test_dihedral_of_planar_chains_has_its_gradient(dtype, tolerance):
    """At exactly 0° and 180° the gradient on the end atom is 1/distance from the axis."""
    for side in (1.0, -1.0):
        X = jnp.array([[0, 1, 0], [0, 0, 0], [1.5, 0, 0], [1.5, side, 0]], dtype)
        value, gradient = jax.value_and_grad(geometry.dihedral, argnums=3)(*X)
        assert np.isclose(abs(value), 0.0 if side > 0 else np.pi, atol=tolerance)
        assert np.allclose(np.abs(gradient), [0, 0, 1], atol=tolerance)


def test_functions_batch_and_differentiate_twice():
    X = jnp.array(np.random.default_rng(0).normal(size=(6, 4, 3)))
    batch = jax.vmap(geometry.dihedral)(*X.swapaxes(0, 1))
    assert np.allclose(batch, [geometry.dihedral(*x) for x in X], atol=1e-14)
    gradient = jax.jit(jax.grad(geometry.dihedral))
    hessian = jax.jit(jax.hessian(geometry.dihedral))(*X[0])
    h = 1e-5
    for i in range(3):
        step = h * np.eye(3)[i]
        column = gradient(X[0, 0] + step, *X[0, 1:]) - gradient(X[0, 0] - step, *X[0, 1:])
        assert np.allclose(column / (2 * h), hessian[i], atol=1e-8)
