"""The Matérn-5/2 kernel of sGDML: expansions, and blocks of the kernel matrix.

With t = √5 d/σ and d = |x − x'| the kernel is k = (1 + t + t²/3) exp(−t).  `matern`, `damped` and
`decay` are functions of u = t².  Each function is proportional to the derivative of the previous
one.  The derivatives are therefore finite and correct at d = 0, where the square root has no
derivative.
Source: Chmiela et al., Nat. Commun. 9, 3887 (2018).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


def _root(u: Array) -> Array:
    # u comes from a matrix product and may be slightly negative by rounding.
    return jnp.sqrt(jnp.maximum(u, 0.0))


@jax.custom_jvp
def matern(u: Array) -> Array:
    """Matérn-5/2 kernel k = (1 + t + t²/3) exp(−t) as a function of u = t²."""
    t = _root(u)
    return (1.0 + t + t * t / 3.0) * jnp.exp(-t)


@jax.custom_jvp
def damped(u: Array) -> Array:
    """(1 + t) exp(−t) = −6 dk/du as a function of u = t², where k is `matern`."""
    t = _root(u)
    return (1.0 + t) * jnp.exp(-t)


@jax.custom_jvp
def decay(u: Array) -> Array:
    """exp(−t) = 12 d²k/du² as a function of u = t², where k is `matern`."""
    return jnp.exp(-_root(u))


@matern.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]):
    (u,), (du,) = primals, tangents
    return matern(u), damped(u) * (-du / 6.0)


@damped.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]):
    (u,), (du,) = primals, tangents
    return damped(u), decay(u) * (-du / 2.0)


@decay.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]):
    # The slope diverges at u = 0, but energies contain it only times factors that vanish faster.
    (u,), (du,) = primals, tangents
    positive = u > 0.0
    t = jnp.sqrt(jnp.where(positive, u, 1.0))
    slope = jnp.where(positive, -0.5 * jnp.exp(-t) / t, 0.0)
    return decay(u), slope * du


def force_weight(sigma: Array) -> Array:
    """Factor 5/(3σ²) of `damped` in the force-force kernel and in predictions; σ is in 1/Å."""
    return 5.0 / (3.0 * sigma**2)


# -- expansions in the kernel ------------------------------------------------------------------


class Expansion(NamedTuple):
    """The function ε(x) = Σ_j [w δ·β_j + k a_j] of a descriptor x (D,), with δ = x − x_j.

    The energy of an sGDML model has this form.  k is the kernel, w = 5/(3σ²) (1 + t) exp(−t), and
    t = √5 |δ|/σ.

    Attributes:
        descriptors: (M, D) training descriptors x_j, 1/Å.
        slopes: (M, D) coefficients β_j.
        sigma: () σ, 1/Å.
        squares: (M,) x_j·x_j.
        projections: (M,) x_j·β_j.
        values: (M,) coefficients a_j, or None.
    """

    descriptors: Array
    slopes: Array
    sigma: Array
    squares: Array
    projections: Array
    values: Array | None

    @classmethod
    def of(
        cls, descriptors: Array, slopes: Array, sigma: Array, values: Array | None = None
    ) -> Expansion:
        """The expansion with the given coefficients; `squares` and `projections` are computed."""
        squares, projections = (_row_sums(descriptors * x) for x in (descriptors, slopes))
        return cls(descriptors, slopes, sigma, squares, projections, values)


def _row_sums(x: Array) -> Array:
    # XLA's reductions along rows are slow on CPUs, so this is a matrix product.
    return jnp.matmul(x, jnp.ones(x.shape[-1], x.dtype), precision="highest")


def _times(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def _radial(x: Array, expansion: Expansion) -> tuple[Array, Array]:
    """Values of u = t² (Q, M) and δ·β (Q, M) of an `Expansion` at descriptors x (Q, D)."""
    e = expansion
    u = _row_sums(x * x)[:, None] + e.squares - 2.0 * _times(x, e.descriptors.T)
    return (5.0 / e.sigma**2) * u, _times(x, e.slopes.T) - e.projections


def _values(x: Array, expansion: Expansion) -> Array:
    u, along = _radial(x, expansion)
    out = force_weight(expansion.sigma) * _row_sums(damped(u) * along)
    if expansion.values is not None:
        out = out + _times(matern(u), expansion.values)
    return out


def values_and_gradients(x: Array, expansion: Expansion) -> tuple[Array, Array]:
    """Values ε (Q,) and gradients ∂ε/∂x (Q, D) of an expansion at descriptors x (Q, D)."""
    e = expansion
    u, along = _radial(x, e)
    w, scale = force_weight(e.sigma), 5.0 / e.sigma**2
    near = damped(u)
    inward = scale * w * decay(u) * along
    values = w * _row_sums(near * along)
    if e.values is not None:
        values = values + _times(matern(u), e.values)
        inward = inward + w * near * e.values
    gradients = w * _times(near, e.slopes) + _times(inward, e.descriptors)
    return values, gradients - _row_sums(inward)[:, None] * x


@jax.custom_jvp
def expand(x: Array, expansion: Expansion) -> Array:
    """Values ε (Q,) of an expansion at descriptors x (Q, D), differentiable in closed form."""
    return _values(x, expansion)


@partial(expand.defjvp, symbolic_zeros=True)
def _(primals, tangents):
    (x, expansion), (dx, dexpansion) = primals, tangents
    values, gradients = values_and_gradients(x, expansion)
    zero = jnp.zeros_like(values)
    tangent = zero if _is_zero(dx) else _row_sums(gradients * dx)
    if not all(map(_is_zero, jax.tree.leaves(dexpansion, is_leaf=_is_zero))):
        moves = jax.tree.map(_instantiated, dexpansion, is_leaf=_is_zero)
        tangent = tangent + jax.jvp(partial(_values, x), (expansion,), (moves,))[1]
    return values, tangent


def _is_zero(tangent) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)


def _instantiated(tangent):
    return jnp.zeros(tangent.shape, tangent.dtype) if _is_zero(tangent) else tangent


# -- blocks of the kernel matrix ---------------------------------------------------------------


def blocks(
    rows: tuple[Array, Array],
    columns: tuple[Array, Array],
    entries: Array,
    sigma: Array,
    values: bool,
) -> Array:
    """Covariances of gradients (and values) of ε between two sets of frames.

    Block (i, j) is Σ_p A_iᵀ [w I − h δδᵀ] A_j^p; Chmiela et al. use the opposite sign.  The sum is
    over P permutations, A_i is the Jacobian of the descriptor x_i, δ = x_i − x_j^p, t = √5 |δ|/σ,
    w = 5/(3σ²) (1 + t) exp(−t) and h = 25/(3σ⁴) exp(−t).  With `values` each block has one more
    row and column for the values of ε.

    Args:
        rows: descriptors (I, D) 1/Å and Jacobians (I, D, W) 1/Å² of the first set.
        columns: descriptors (J, D) 1/Å and Jacobians (J, D, W) 1/Å² of the second set.
        entries: (P, D) permutations of the descriptor's entries, applied to `columns`.
        sigma: () σ, 1/Å.
        values: whether values are included in addition to gradients.

    Returns:
        (I, W, J, W), or (I, W + 1, J, W + 1) with `values`.
    """
    x, A = rows
    x_p = columns[0][:, entries]  # (J, P, D)
    A_p = columns[1][:, entries].transpose(1, 2, 0, 3)  # (P, D, J, W)
    n_perms, dimension = entries.shape

    squared = jnp.sum(x * x, -1)[:, None, None] + jnp.sum(x_p * x_p, -1)
    u = (5.0 / sigma**2) * (squared - 2.0 * jnp.einsum("id,jpd->ijp", x, x_p))
    w = force_weight(sigma) * damped(u)
    h = 25.0 / (3.0 * sigma**4) * decay(u)
    # A_iᵀδ and (A_j^p)ᵀδ
    left = jnp.einsum("ida,id->ia", A, x)[:, None, None] - jnp.einsum("ida,jpd->ijpa", A, x_p)
    right = jnp.einsum("id,pdjb->ijpb", x, A_p) - jnp.einsum("jpd,pdjb->jpb", x_p, A_p)

    def one_row(frame):
        # Adding up the permutations first leaves one matrix product for all columns.
        A, u, w, h, left, right = frame
        weighted = jnp.asarray(sum(w[:, p, None] * A_p[p] for p in range(n_perms)))
        block = (A.T @ weighted.reshape(dimension, -1)).reshape(A.shape[1], *right.shape[::2])
        block = block - jnp.einsum("jpa,jpb->ajb", h[..., None] * left, right)
        if not values:
            return block
        # Cov(∂ε/∂x_i, ε_j) = −w δ, Cov(ε_i, ∂ε/∂x_j) = +w δ
        above = -jnp.einsum("jp,jpa->aj", w, left)[:, :, None]
        below = jnp.einsum("jp,jpb->jb", w, right)[None]
        corner = jnp.sum(matern(u), -1)[None, :, None]
        upper, lower = (jnp.concatenate(parts, 2) for parts in ((block, above), (below, corner)))
        return jnp.concatenate([upper, lower], 0)

    return jax.lax.map(one_row, (A, u, w, h, left, right))
