"""Sums of Lennard-Jones and Coulomb energies over the pairs of a neighbour list.

The sum runs over blocks of pairs that fit into the caches.  It computes the energy together with
its gradients by positions and box, in closed form.  The Coulomb energy of a pair is
q_i q_j (1/r − P(r²)) with a polynomial P: of the smooth part of an Ewald sum, or of a reaction
field.  Polynomials of r² are much faster than error functions.  Automatic differentiation provides
all other derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from jaxff import geometry
from jaxff.interaction import known_gradient_jvp

Array = jax.Array

BLOCK = 2**14  # pairs that are evaluated at once


@dataclass(frozen=True)
class Form:
    """The functional form of a sum of pair energies.

    Attributes:
        cutoff: Å.
        switch: distance at which the switching function of Lennard-Jones energies begins, Å; None:
            no switching function.
        smooth: coefficients of the powers of u = 2 r²/cutoff² − 1, ascending, of the polynomial P,
            1/Å, and of its derivative with respect to r², 1/Å³; None: no Coulomb energy.
    """

    cutoff: float
    switch: float | None = None
    smooth: tuple[tuple[float, ...], tuple[float, ...]] | None = None


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["types", "charges", "c12", "c6", "pairs", "excluded"],
    meta_fields=["form", "row"],
)
@dataclass(frozen=True)
class PairSum:
    """The arrays of a sum over pairs; a JAX pytree.

    Attributes:
        types: (N,) rows of c12 and c6.
        charges: (N,) √(kcal/mol Å), charges times the square root of the Coulomb constant.
        c12, c6: (T, T) kcal/mol Å¹² and kcal/mol Å⁶.
        pairs: (2, P) atom indices; a pair with an index from N upwards is padding.
        excluded: (N, K, 2) intervals of atoms, whose pairs with each atom are left out.
        form: the functional form.
        row: number of consecutive pairs that have the same first atom; it divides P.
    """

    types: Array
    charges: Array
    c12: Array
    c6: Array
    pairs: Array
    excluded: Array | np.ndarray
    form: Form
    row: int

    def energies(self, R: Array, box: Array) -> tuple[Array, Array]:
        """Energies () kcal/mol, Lennard-Jones and Coulomb, at R (N, 3) Å in a box (3, 3) Å."""

        @jax.checkpoint  # without it, derivatives would store all intermediate values of all pairs
        def add(sums, block):
            pairs = self._of_block(R, box, *block)
            lj, coulomb = self._pair_energies(*pairs[1:])
            return (sums[0] + lj.sum(), sums[1] + coulomb.sum()), None

        zero = jnp.zeros((), R.dtype)
        return jax.lax.scan(add, (zero, zero), self._blocks())[0]

    def energy_and_gradients(self, R: Array, box: Array, by_box: bool) -> tuple[Array, ...]:
        """Energy () kcal/mol and gradients, by R (N, 3) kcal/mol/Å and by the box (3, 3).

        The vector of a pair is d = Δr − t box with integers t.  A change of the box by box ε
        changes it by (d − Δr) ε, so that sums of products of forces with d and with R suffice.

        Args:
            R: (N, 3) Å.
            box: (3, 3) Å.
            by_box: whether to compute the gradient with respect to the box.
        """

        def add(sums, block):
            energy, gradient, virial = sums
            first, second = block
            # The barriers prevent that XLA computes common parts again for each result.
            d, *pair = jax.lax.optimization_barrier(self._of_block(R, box, *block))
            lj, coulomb = self._pair_energies(*pair)
            slope = self._slopes(*pair)
            slope, each = jax.lax.optimization_barrier((slope, lj + coulomb))
            by_axis = [slope * x for x in d]
            zeros = jnp.zeros_like(slope)  # four numbers are added by one instruction
            moves = jnp.stack([*by_axis, zeros], axis=-1).reshape(-1, 4)
            gradient = gradient.at[second.ravel()].add(moves, mode="promise_in_bounds")
            back = jnp.stack([x.sum(axis=1) for x in (*by_axis, zeros)], axis=-1)
            gradient = gradient.at[first].subtract(back, mode="promise_in_bounds")
            if by_box:  # xx, xy, xz, yy, yz, zz
                virial += jnp.stack(
                    [(by_axis[a] * d[b]).sum(axis=0) for a in range(3) for b in range(a, 3)]
                )
            return (energy + each.sum(axis=0), gradient, virial), None

        start = (
            jnp.zeros(self.row, R.dtype),  # sums of columns use instructions for several numbers
            jnp.zeros((len(R) + 1, 4), R.dtype),
            jnp.zeros((6, self.row), R.dtype) if by_box else None,
        )
        energy, gradient, virial = jax.lax.scan(add, start, self._blocks())[0]
        energy, gradient = energy.sum(), gradient[:-1, :3]
        if virial is None:
            return energy, gradient
        virial = virial.sum(axis=1)[np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])]
        return energy, gradient, geometry.inverse(box).T @ (virial - R.T @ gradient)

    def _blocks(self):
        """First atoms (M, B) and second atoms (M, B, row) of M blocks of pairs."""
        n_atoms = len(self.types)
        pairs = jnp.minimum(self.pairs, n_atoms).reshape(2, -1, self.row)
        count = pairs.shape[1]
        size = max(min(BLOCK // self.row, count), 1)
        blocks = -(-count // size)
        padding = ((0, 0), (0, blocks * size - count), (0, 0))
        first, second = jnp.pad(pairs, padding, constant_values=n_atoms)
        return first[:, 0].reshape(blocks, size), second.reshape(blocks, size, self.row)

    def _of_block(self, R, box, first, second):
        """Vectors, squared distances and parameters of the pairs of a block.

        Returns:
            The three components of the vectors, squared distances, c12, c6 and products of charges,
            each (B, row).  Pairs that do not interact have zero parameters and are at the cutoff.
        """
        n_atoms, n_types = len(R), len(self.c12)

        def both(x):
            x = jnp.concatenate([x, jnp.zeros(1, x.dtype)])  # padding
            start = x.at[first].get(mode="promise_in_bounds")[:, None]
            return start, x.at[second].get(mode="promise_in_bounds")

        ends = [both(R[:, k]) for k in range(3)]
        d = _nearest(box, [end - start for start, end in ends])
        square = sum(x * x for x in d)
        inside = (square < self.form.cutoff**2) & (first < n_atoms)[:, None] & (second < n_atoms)
        bounds = jnp.asarray(self.excluded)
        bounds = bounds.at[jnp.minimum(first, n_atoms - 1)].get(mode="promise_in_bounds")
        for k in range(bounds.shape[1]):
            low, high = bounds[:, k, 0, None], bounds[:, k, 1, None]
            inside &= (second < low) | (second > high)
        square = jnp.where(inside, square, self.form.cutoff**2)
        row, column = both(jnp.asarray(self.types))
        place = row * n_types + column
        c12 = self.c12.ravel().at[place].get(mode="promise_in_bounds")
        c6 = self.c6.ravel().at[place].get(mode="promise_in_bounds")
        left, right = both(self.charges)
        return (d, square, *(jnp.where(inside, x, 0.0) for x in (c12, c6, left * right)))

    def _pair_energies(self, square, c12, c6, qq):
        """Energies of Lennard-Jones and Coulomb, kcal/mol; arguments as from `_of_block`."""
        inverse2 = 1.0 / square
        inverse6 = inverse2 * inverse2 * inverse2
        lj = (c12 * inverse6 - c6) * inverse6
        if self.form.switch is not None:
            lj *= 1.0 - geometry.fade(self._switched(square * jnp.sqrt(inverse2)))
        if self.form.smooth is None:
            return lj, jnp.zeros_like(lj)
        smooth = geometry.polynomial(self.form.smooth[0], self._argument(square))
        return lj, qq * (jnp.sqrt(inverse2) - smooth)

    def _slopes(self, square, c12, c6, qq):
        """Twice the derivatives of the energies by the squared distance, kcal/mol/Å²."""
        inverse2 = 1.0 / square
        inverse6, inverse = inverse2 * inverse2 * inverse2, jnp.sqrt(inverse2)
        lj = (6.0 * c6 - 12.0 * c12 * inverse6) * inverse6
        if self.form.switch is not None:
            x = self._switched(square * inverse)
            by_x = 30.0 * (x * (1.0 - x)) ** 2 / (self.form.cutoff - self.form.switch)
            energy = (c12 * inverse6 - c6) * inverse6
            lj = lj * (1.0 - geometry.fade(x)) - energy * by_x * square * inverse
        if self.form.smooth is not None:
            smooth = geometry.polynomial(self.form.smooth[1], self._argument(square))
            lj -= qq * (inverse + (2.0 * square) * smooth)
        # XLA evaluates an expression that ends in a division once, not for each axis.
        return lj / square

    def _argument(self, square):
        return square * (2.0 / self.form.cutoff**2) - 1.0

    def _switched(self, r):
        """Position of the distance r between the two ends of the switching function, 0 to 1."""
        assert self.form.switch is not None
        return jnp.clip((r - self.form.switch) / (self.form.cutoff - self.form.switch), 0.0, 1.0)


def _nearest(box, d):
    """The vectors to the nearest images of atoms; `d` has three components, Å.

    Rounding fractional coordinates finds the nearest image in every box, if it is nearer than half
    of the smallest width of the box.
    """
    inverse = geometry.inverse(jax.lax.stop_gradient(box))
    still = jax.lax.stop_gradient(d)
    turns = [jnp.round(sum(still[a] * inverse[a, k] for a in range(3))) for k in range(3)]
    return [d[k] - sum(turns[a] * box[a, k] for a in range(3)) for k in range(3)]


@jax.custom_jvp
def pair_energy(pairs: PairSum, R: Array, box: Array) -> Array:
    """Energy () kcal/mol of a sum over pairs at R (N, 3) Å in a box (3, 3) Å.

    The derivatives with respect to R and the box are fast.
    """
    return _gradients(False, pairs, R, box)[0]


@partial(pair_energy.defjvp, symbolic_zeros=True)
def _pair_energy_jvp(primals, tangents):
    by_box = not isinstance(tangents[2], SymbolicZero)
    return known_gradient_jvp(partial(_gradients, by_box), _sum, primals, tangents)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _gradients(by_box, pairs, R, box):
    """The result of `PairSum.energy_and_gradients`."""
    return pairs.energy_and_gradients(R, box, by_box)


@_gradients.defjvp
def _gradients_jvp(by_box, primals, tangents):
    def plain(pairs, R, box):
        argnums = (1, 2) if by_box else (1,)
        energy, gradients = jax.value_and_grad(_sum, argnums)(pairs, R, box)
        return energy, *gradients

    return jax.jvp(plain, primals, tangents)


def _sum(pairs, R, box):
    return sum(pairs.energies(R, box))


def intervals(exclusions: np.ndarray, n_atoms: int) -> np.ndarray:
    """Excluded pairs as intervals of atoms, (N, K, 2), both ends included.

    Args:
        exclusions: (E, 2) pairs of atoms.
        n_atoms: N.
    """
    exclusions = np.asarray(exclusions, np.int64).reshape(-1, 2)
    i, j = np.concatenate([exclusions, exclusions[:, ::-1]]).T
    own = np.arange(n_atoms)  # an atom has no pair with itself; this joins intervals
    keys = np.unique(np.concatenate([i, own]) * n_atoms + np.concatenate([j, own]))
    atom, other = keys // n_atoms, keys % n_atoms
    begins = np.ones(len(keys), bool)
    begins[1:] = (np.diff(other) != 1) | (np.diff(atom) != 0)
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], len(keys)) - 1
    counts = np.bincount(atom[starts], minlength=n_atoms)
    out = np.empty((n_atoms, int(counts.max(initial=0)), 2), np.int32)
    out[..., 0], out[..., 1] = n_atoms + 1, -1  # empty
    rank = np.arange(len(starts)) - (np.cumsum(counts) - counts)[atom[starts]]
    out[atom[starts], rank] = np.stack([other[starts], other[ends]], axis=1)
    return out
