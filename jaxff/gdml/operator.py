"""The kernel matrix of a set of frames as a linear operator, without storing the matrix.

Rigid motions do not change the descriptor.  The predicted forces of one frame therefore have only
W = 3N − 6 independent components, and the Jacobian of the descriptor is reduced to W columns.  This
leaves out only the net force and torque of the labels, which no kernel can fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxff.gdml.descriptor import Descriptor, entry_permutations, inverse_distances
from jaxff.gdml.kernel import Expansion, blocks, values_and_gradients

Array = jax.Array

_LINEAR = 1e-3  # Å, largest distance of the atoms of a linear frame from a line


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("descriptors", "jacobians", "bases", "entries", "centre", "sigma", "lam"),
    meta_fields=("values", "mesh"),
)
@dataclass(frozen=True, eq=False)
class KernelOperator:
    """The operator K + λ: covariance K of the gradients (and values) of ε, plus regularisation λ.

    ε = −E/std is the negative energy divided by the standard deviation of the labels.  A vector
    has shape (M, W), one row for each frame, or (M, W + 1) with the values of ε.

    Attributes:
        descriptors: (M, D) 1/Å, relative to `centre`.
        jacobians: (M, D, W) derivatives of the descriptors by reduced coordinates, 1/Å².
        bases: (M, 3N, W) W orthonormal Cartesian vectors of each frame, one for each reduced
            coordinate.
        entries: (P, D) permutations of the descriptor's entries.
        centre: (D,) 1/Å, the mean descriptor; subtracting it reduces rounding errors.
        sigma: () 1/Å.
        lam: () λ.
        values: whether the values of ε are included.
        mesh: devices over which the frames are distributed (None: one device).
    """

    descriptors: Array
    jacobians: Array
    bases: Array
    entries: Array
    centre: Array
    sigma: Array
    lam: Array
    values: bool = False
    mesh: Mesh | None = None

    @classmethod
    def of(
        cls,
        positions: np.ndarray | Array,
        permutations: np.ndarray,
        sigma: float,
        lam: float = 1e-10,
        *,
        values: bool = False,
        descriptor: Descriptor = inverse_distances,
        lattice: np.ndarray | Array | None = None,
    ) -> KernelOperator:
        """The operator of given frames.

        Args:
            positions: (M, N, 3) Å.
            permutations: (P, N) a group of atom permutations.
            sigma: length scale, 1/Å.
            lam: regularisation λ.
            values: include energies in addition to forces.
            descriptor: function of the positions that the kernel compares.
            lattice: (3, 3) Å, lattice vectors as columns, or None.
        """
        R = jnp.asarray(positions)
        entries = jnp.asarray(entry_permutations(descriptor, permutations, positions, lattice))
        lattice = None if lattice is None else jnp.asarray(lattice)
        bases = jnp.asarray(reduced_bases(positions, descriptor, lattice))
        x, A = _describe(R, bases, descriptor, lattice)
        # The centre must not be changed by any of the permutations.
        centre = _centre(x, entries)
        width, shift = jnp.asarray(sigma, x.dtype), jnp.asarray(lam, x.dtype)
        return cls(x - centre, A, bases, entries, centre, width, shift, values)

    def sharded(self, mesh: Mesh) -> KernelOperator:
        """The same operator with its frames distributed over the devices of a mesh, in one axis.

        Frames with zero Jacobians are added until the number of frames is a multiple of the number
        of devices.  Vectors are zero in the rows of these frames.
        """
        fill = -self.n_frames % mesh.size
        frames, everywhere = (NamedSharding(mesh, P(*axes)) for axes in (mesh.axis_names, ()))

        def spread(x, filled):
            tail = jnp.repeat(x[-1:], fill, axis=0) if filled else jnp.zeros((fill, *x.shape[1:]))
            return jax.device_put(np.concatenate([x, tail]), frames)

        return replace(
            self,
            descriptors=spread(self.descriptors, True),
            jacobians=spread(self.jacobians, False),
            bases=spread(self.bases, False),
            **{
                key: jax.device_put(np.asarray(getattr(self, key)), everywhere)
                for key in ("entries", "centre", "sigma", "lam")
            },
            mesh=mesh,
        )

    # -- shapes -----------------------------------------------------------------------------

    @property
    def n_frames(self) -> int:
        return len(self.descriptors)

    @property
    def width(self) -> int:
        """Length of the row of a vector: W, or W + 1 with `values`."""
        return self.jacobians.shape[2] + self.values

    @property
    def size(self) -> int:
        return self.n_frames * self.width

    @property
    def dtype(self):
        return self.descriptors.dtype

    # -- labels and coefficients ----------------------------------------------------------------

    def observed(self, forces: np.ndarray, energies: np.ndarray | None = None) -> Array:
        """The vector of labels, from forces (M, N, 3) and, with `values`, energies (M,).

        Both must be divided by std.  The sign of the energies is changed here.
        """
        flat = self.spread(np.asarray(forces).reshape(len(forces), -1))
        reduced = jnp.einsum("mcw,mc->mw", self.bases, flat)
        if not self.values:
            return reduced
        return jnp.concatenate([reduced, -jnp.asarray(energies)[:, None]], axis=1)

    def expansion(self, a: Array) -> Expansion:
        """The function ε with the coefficients `a`, a vector."""
        return _expansion(self, a)

    def cartesian(self, a: Array) -> Array:
        """The force part of a vector `a` in Cartesian coordinates, (M, 3N)."""
        return jnp.einsum("mcw,mw->mc", self.bases, a[:, : self.jacobians.shape[2]])

    def gathered(self, x: Array) -> np.ndarray:
        """Copy a distributed array (M, ...) to the host of every process."""
        if self.mesh is not None:
            x = jax.jit(lambda x: x, out_shardings=NamedSharding(self.mesh, P()))(x)
        return np.asarray(x)

    def spread(self, x: np.ndarray) -> Array:
        """Distribute an array (M, ...) over the devices; rows of added frames are zero."""
        x = np.asarray(x)
        x = np.concatenate([x, np.zeros((self.n_frames - len(x), *x.shape[1:]), x.dtype)])
        return jnp.asarray(x) if self.mesh is None else jax.device_put(x, self.bases.sharding)

    # -- products and parts ---------------------------------------------------------------------

    def __matmul__(self, a: Array) -> Array:
        """Product (K + λ) a, from the gradients (and values) of the expansion of `a`."""
        return _product(self, a)

    def diagonal(self) -> Array:
        """Diagonal of K + λ, a vector."""
        return _diagonal(self)

    def block(self, rows: Array, columns: Array) -> Array:
        """Block (I, width, J, width) of K between frames `rows` (I,) and `columns` (J,)."""
        return _block(self, rows, columns)


@partial(jax.jit, static_argnums=1)
def _slope(R, descriptor, lattice):
    return jax.jacfwd(descriptor)(R, lattice)


@partial(jax.jit, static_argnums=2)
def _describe(R, bases, descriptor, lattice):
    def one(frame):
        R, basis = frame
        slope = jax.jacfwd(descriptor)(R, lattice)
        return descriptor(R, lattice), slope.reshape(slope.shape[0], -1) @ basis

    return jax.lax.map(one, (R, bases), batch_size=16)


@jax.jit
def _centre(x, entries):
    return x.mean(axis=0)[entries].mean(axis=0)


def reduced_bases(
    positions: np.ndarray | Array,
    descriptor: Descriptor = inverse_distances,
    lattice: Array | None = None,
) -> np.ndarray:
    """Orthonormal bases (M, 3N, W) of the displacements that change the descriptor.

    Translations and rotations are left out.  Rotations are kept if there is a lattice, if a frame
    is linear, or if rotations change the descriptor.  Translations are kept if translations change
    the descriptor.

    Args:
        positions: (M, N, 3) Å.
        descriptor: function of the positions that the kernel compares.
        lattice: (3, 3) Å, lattice vectors as columns, or None.
    """
    R = np.asarray(positions, float)
    n_frames, n_atoms, _ = R.shape
    centred = R - R.mean(axis=1, keepdims=True)
    translations = np.tile(np.eye(3), (n_frames, n_atoms, 1)) / np.sqrt(n_atoms)
    axes = np.eye(3)
    turns = np.stack([np.cross(axis, centred) for axis in axes], axis=-1)
    turns = turns.reshape(n_frames, 3 * n_atoms, 3)
    extent = np.linalg.svd(centred, compute_uv=False)[:, :2]
    if lattice is not None or n_atoms < 3 or (extent[:, 1] < _LINEAR).any():
        rigid = translations
    else:
        rigid = np.concatenate([translations, turns], axis=2)
    if not _invariant(R[0], rigid[0], descriptor, lattice):
        rigid = translations
        if not _invariant(R[0], rigid[0], descriptor, lattice):
            return np.tile(np.eye(3 * n_atoms), (n_frames, 1, 1))
    complete = np.linalg.qr(rigid, mode="complete")[0]
    return complete[:, :, rigid.shape[2] :]


def _invariant(R, motions, descriptor, lattice) -> bool:
    """Whether displacements `motions` (3N, K) of R (N, 3) leave the descriptor unchanged."""
    slope = np.asarray(_slope(R, descriptor, lattice)).reshape(-1, R.size)
    return bool(np.abs(slope @ motions).max() < 1e-5 * np.abs(slope).max())


# -- compiled parts ------------------------------------------------------------------------


@jax.jit
def _expansion(op: KernelOperator, a: Array) -> Expansion:
    width = op.jacobians.shape[2]
    slopes = jnp.einsum("mdw,mw->md", op.jacobians, a[:, :width])
    values = a[:, width] if op.values else None
    return Expansion.of(op.descriptors, slopes, op.sigma, values)


def frames_at_once(n_perms: int, n_frames: int, itemsize: int = 8, budget: float = 4e6) -> int:
    """Number of frames in a chunk whose (P, M) arrays need at most `budget` bytes."""
    return int(np.clip(budget / (4 * itemsize * n_perms * n_frames), 1, 64))


@jax.jit
def _product(op: KernelOperator, a: Array) -> Array:
    expansion = _expansion(op, a)
    at_once = frames_at_once(len(op.entries), op.n_frames, op.dtype.itemsize)
    observed = partial(observations, values=op.values, at_once=at_once)
    if op.mesh is not None:
        # Each device evaluates the frames that it stores; the small expansion is on all devices.
        local, whole = P(*op.mesh.axis_names), P()
        observed = jax.shard_map(
            observed,
            mesh=op.mesh,
            in_specs=(whole, whole, local, local),
            out_specs=local,
            check_vma=False,
        )
    return observed(expansion, op.entries, op.descriptors, op.jacobians) + op.lam * a


def observations(
    expansion: Expansion, entries: Array, x: Array, A: Array, *, values: bool, at_once: int
) -> Array:
    """Gradients (and values) of an expansion at given frames.

    Args:
        expansion: the function.
        entries: (P, D) permutations of the descriptor's entries.
        x: (B, D) descriptors of the frames, relative to the centre of the expansion.
        A: (B, D, W) Jacobians of the frames.
        values: whether values are included in addition to gradients.
        at_once: number of frames in a chunk.

    Returns:
        (B, W), or (B, W + 1) with `values`.
    """
    n_perms, dimension = entries.shape
    inverse = jnp.argsort(entries, axis=1)

    def chunk(frames):
        x, A = frames
        # |x − x_j^p| = |x^(p⁻¹) − x_j|: the queries are permuted instead of the training set.
        query = x[:, inverse].reshape(-1, dimension)
        value, gradient = values_and_gradients(query, expansion)
        gradient = gradient.reshape(len(x), n_perms, dimension)
        gradient = sum(gradient[:, p, entries[p]] for p in range(n_perms))
        out = jnp.einsum("mdw,md->mw", A, gradient)
        if values:
            out = jnp.concatenate([out, value.reshape(len(x), n_perms).sum(1)[:, None]], axis=1)
        return out

    return in_chunks(chunk, (x, A), at_once)


def in_chunks(function: Callable, arrays: Any, at_once: int) -> Any:
    """Apply a function to chunks of a pytree of arrays, and join the results.

    Args:
        function: function of chunks of the arrays that returns a pytree of arrays.
        arrays: pytree of arrays (M, ...).
        at_once: number of rows in a chunk; copies of the last row fill the last chunk.

    Returns:
        The pytree of the function, with arrays (M, ...).
    """
    count = len(jax.tree.leaves(arrays)[0])
    at_once = min(at_once, count)
    n_chunks = -(-count // at_once)
    fill = n_chunks * at_once - count

    def shaped(x):
        x = jnp.concatenate([x, jnp.repeat(x[-1:], fill, axis=0)]) if fill else x
        return x.reshape(n_chunks, at_once, *x.shape[1:])

    out = jax.lax.map(function, jax.tree.map(shaped, arrays))
    return jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:])[:count], out)


@jax.jit
def _diagonal(op: KernelOperator) -> Array:
    def one(frame):
        x, A = frame
        square = blocks((x[None], A[None]), (x[None], A[None]), op.entries, op.sigma, op.values)
        return jnp.diagonal(square[0, :, 0])

    return jax.lax.map(one, (op.descriptors, op.jacobians)) + op.lam


@jax.jit
def _block(op: KernelOperator, rows: Array, columns: Array) -> Array:
    def part(index):
        return op.descriptors[index], op.jacobians[index]

    return blocks(part(rows), part(columns), op.entries, op.sigma, op.values)
