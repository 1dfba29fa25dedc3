"""The kernel matrix of a sum of kernels on fragments and on the whole molecule.

K = K_whole + Σ_t Σ_ff' T_fᵀ K_t(R_f, R'_f') T_f'.  The fragments f and f' of type t share the
kernel K_t, and T_f maps displacements of the molecule to those of fragment f.  All kernels have
unit variance: weights of K_whole between 0.1 and 1 change the errors of aspirin by 2 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.gdml.fragments import FragmentType
from jaxff.gdml.kernel import Expansion
from jaxff.gdml.operator import KernelOperator

Array = jax.Array

_NARROWEST = 0.01  # smallest width of a type, in units of that of the whole molecule


@partial(jax.tree_util.register_dataclass, data_fields=("op", "maps"), meta_fields=("count",))
@dataclass(frozen=True, eq=False)
class FragmentPart:
    """The kernel of one type of fragments.

    Attributes:
        op: the operator of the M F geometries of the fragments; geometries of one frame are
            consecutive.  The σ of this operator is relative to the σ of the whole molecule.
        maps: (M F, w, W) matrices T, which map the W reduced coordinates of the molecule to the w
            reduced coordinates of the fragment.
        count: number F of fragments in one frame.
    """

    op: KernelOperator
    maps: Array
    count: int

    @classmethod
    def of(
        cls, positions: np.ndarray, kind: FragmentType, whole: KernelOperator, lattice
    ) -> FragmentPart:
        """The kernel of one type of fragments in frames (M, N, 3) Å."""
        (count, size), n_frames = kind.instances.shape, len(positions)
        R = np.asarray(positions)[:, kind.instances].reshape(-1, size, 3)
        op = KernelOperator.of(R, kind.permutations, 1.0, 0.0, lattice=lattice)
        spread, unit = _spread(op, count), _spread(whole, 1)
        ratio = 1.0 if size == positions.shape[1] else max(spread / unit, _NARROWEST)
        bases = whole.bases.reshape(n_frames, -1, 3, whole.width)[:, kind.instances]
        bases = bases.reshape(n_frames * count, 3 * size, whole.width)
        maps = jnp.einsum("mcw,mcv->mwv", op.bases, bases)
        return cls(replace(op, sigma=jnp.asarray(ratio)), maps, count)

    def at(self, sigma: Array) -> KernelOperator:
        """The operator if the kernel of the whole molecule has the width `sigma`, 1/Å."""
        return replace(self.op, sigma=self.op.sigma * sigma)

    def mapped(self, a: Array) -> Array:
        """Convert coefficients (M, W) of the molecule to those (M F, w) of the fragments."""
        return jnp.einsum("mwv,mv->mw", self.maps, jnp.repeat(a, self.count, axis=0))

    def product(self, a: Array, sigma: Array) -> Array:
        """The product (M, W) of the kernel matrix and a vector (M, W)."""
        out = jnp.einsum("mwv,mw->mv", self.maps, self.at(sigma) @ self.mapped(a))
        return out.reshape(len(a), self.count, -1).sum(axis=1)

    def block(self, rows: Array, columns: Array, sigma: Array) -> Array:
        """The kernel matrix between frames rows (I,) and columns (J,), (I, W, J, W)."""
        op, right = self.at(sigma), self.maps[self._instances(columns)]

        def one(row):
            index = self._instances(row[None])
            part = op.block(index, self._instances(columns))  # (F, w, J F, w)
            part = jnp.einsum("fwjv,jvb->fwjb", part, right)
            part = part.reshape(*part.shape[:2], len(columns), self.count, -1).sum(axis=3)
            return jnp.einsum("fwa,fwjb->ajb", self.maps[index], part)

        return jax.lax.map(one, rows)

    def _instances(self, frames: Array) -> Array:
        return (frames[:, None] * self.count + jnp.arange(self.count)).ravel()


@partial(
    jax.tree_util.register_dataclass,
    data_fields=(
        *("descriptors", "jacobians", "bases", "entries", "centre", "sigma", "lam"),
        "parts",
    ),
    meta_fields=("values", "mesh"),
)
@dataclass(frozen=True, eq=False)
class FragmentOperator(KernelOperator):
    """The operator K + λ with kernels on the whole molecule and on fragments.

    The attributes of `KernelOperator` describe the kernel on the whole molecule.

    Attributes in addition to those of `KernelOperator`:
        parts: the kernels of the types of fragments.
    """

    parts: tuple[FragmentPart, ...] = ()

    @classmethod
    def with_fragments(
        cls,
        whole: KernelOperator,
        positions: np.ndarray,
        kinds: Sequence[FragmentType],
        lattice: np.ndarray | None = None,
    ) -> FragmentOperator:
        """Add kernels on fragments to the operator of the whole molecule.

        The width of the kernel on type t is σ s_t/s.  The spread s_t is the root of the summed
        variances of the descriptors of the fragments.  The spread s is this root for the whole
        molecule.

        Args:
            whole: the operator of the whole molecule, without energies.
            positions: (M, N, 3) Å, the frames of the operator.
            kinds: types of fragments.
            lattice: (3, 3) Å, lattice vectors as columns, or None.
        """
        parts = tuple(FragmentPart.of(positions, kind, whole, lattice) for kind in kinds)
        return cls(**vars(whole), parts=parts)

    def expansions(self, a: Array) -> list[Expansion]:
        """The function ε of each type, from coefficients `a` (M, W) of the molecule."""
        return [part.at(self.sigma).expansion(part.mapped(a)) for part in self.parts]

    def __matmul__(self, a: Array) -> Array:
        return _product(self, a)

    def diagonal(self) -> Array:
        return _diagonal(self)

    def block(self, rows: Array, columns: Array) -> Array:
        return _block(self, rows, columns)


@jax.jit
def _product(op: FragmentOperator, a: Array) -> Array:
    out = KernelOperator.__matmul__(op, a)
    return out + sum(part.product(a, op.sigma) for part in op.parts)


@jax.jit
def _block(op: FragmentOperator, rows: Array, columns: Array) -> Array:
    out = KernelOperator.block(op, rows, columns)
    return out + sum(part.block(rows, columns, op.sigma) for part in op.parts)


@jax.jit
def _diagonal(op: FragmentOperator) -> Array:
    def one(frame):
        return jnp.diagonal(op.block(frame[None], frame[None])[0, :, 0])

    return jax.lax.map(one, jnp.arange(op.n_frames)) + op.lam


def _spread(op: KernelOperator, count: int) -> float:
    """Root of the sum of the variances of the descriptors, about the mean of each fragment."""
    x = np.asarray(op.descriptors).reshape(-1, count, op.descriptors.shape[1])
    return float(np.sqrt(x.var(axis=0).sum(axis=1).mean()))
