"""The kernel matrix of a set of frames as a linear operator, never stored.

Forces of one frame do not depend on rigid motions, hence 3N − 6 numbers hold all that a kernel
can say of them: the Jacobian of the descriptor is reduced to that many columns, which shrinks
every system and drops only what no coefficient can fit (net force and torque in the labels).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxff.gdml.descriptor import Descriptor, entry_permutations, inverse_distances
from jaxff.gdml.kernel import Expansion, blocks, values_and_gradients

Array = jax.Array

_LINEAR = 1e-3  # Å: a frame whose atoms are this near to a line


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("descriptors", "jacobians", "bases", "entries", "centre", "sigma", "lam"),
    meta_fields=("values", "mesh"),
)
@dataclass(frozen=True, eq=False)
class KernelOperator:
    """K + λ, the covariance of ε = −E/std: of its gradients, and of its values if asked for.

    A vector has shape (M, W), one row a frame, or (M, W + 1) with the values.

    Attributes:
        descriptors: (M, D) 1/Å, relative to `centre`.
        jacobians: (M, D, W) ∂x/∂r in the frames' reduced coordinates, 1/Å².
        bases: (M, 3N, W) orthonormal, from reduced coordinates to Cartesian ones.
        entries: (P, D) permutations of the descriptor's entries.
        centre: (D,) the mean descriptor, subtracted for the digits.
        sigma, lam: ().
        values: whether the values of ε are observed, too.
        mesh: devices over which the frames are spread (None: one device).
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
        positions,
        permutations,
        sigma: float,
        lam: float = 1e-10,
        *,
        values: bool = False,
        descriptor: Descriptor = inverse_distances,
        lattice=None,
    ) -> KernelOperator:
        """The operator of frames.

        Args:
            positions: (M, N, 3) Å.
            permutations: (P, N), a group.
            sigma: 1/Å.
            lam: λ.
            values: observe energies beside forces.
            descriptor: what the kernel compares.
            lattice: (3, 3) Å, or None.
        """
        entries = entry_permutations(descriptor, permutations, positions, lattice)
        R, entries = jnp.asarray(positions), jnp.asarray(entries)
        lattice = None if lattice is None else jnp.asarray(lattice)
        bases = jnp.asarray(reduced_bases(positions, descriptor, lattice))
        x, A = _describe(R, bases, descriptor, lattice)
        sigma, lam = (jnp.asarray(value, x.dtype) for value in (sigma, lam))
        # What is subtracted must be unchanged by every permutation.
        centre = x.mean(axis=0)[entries].mean(axis=0)
        return cls(x - centre, A, bases, entries, centre, sigma, lam, values)

    def sharded(self, mesh: Mesh) -> KernelOperator:
        """The same operator with its frames spread over the devices of a mesh.

        Frames without forces fill up the last devices; their part of a vector stays zero.

        Args:
            mesh: devices in one axis.
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
        """Numbers observed of one frame."""
        return self.jacobians.shape[2] + self.values

    @property
    def size(self) -> int:
        return self.n_frames * self.width

    @property
    def dtype(self):
        return self.descriptors.dtype

    # -- labels and coefficients ----------------------------------------------------------------

    def observed(self, forces, energies=None) -> Array:
        """The vector of labels: forces (M, N, 3) and, with `values`, minus energies (M,)."""
        flat = self.spread(np.asarray(forces).reshape(len(forces), -1))
        reduced = jnp.einsum("mcw,mc->mw", self.bases, flat)
        if not self.values:
            return reduced
        return jnp.concatenate([reduced, -jnp.asarray(energies)[:, None]], axis=1)

    def expansion(self, a: Array) -> Expansion:
        """The function ε whose coefficients are `a`."""
        return _expansion(self, a)

    def cartesian(self, a: Array) -> Array:
        """The force part of `a` in Cartesian coordinates, (M, 3N)."""
        return jnp.einsum("mcw,mw->mc", self.bases, a[:, : self.jacobians.shape[2]])

    def gathered(self, x: Array) -> np.ndarray:
        """An array with one row a frame, whole and on the host of every process."""
        if self.mesh is not None:
            x = jax.jit(lambda x: x, out_shardings=NamedSharding(self.mesh, P()))(x)
        return np.asarray(x)

    def spread(self, x) -> Array:
        """An array with one row a frame, on the operator's devices; missing rows are zero."""
        x = np.asarray(x)
        x = np.concatenate([x, np.zeros((self.n_frames - len(x), *x.shape[1:]), x.dtype)])
        return jnp.asarray(x) if self.mesh is None else jax.device_put(x, self.bases.sharding)

    # -- products and parts ---------------------------------------------------------------------

    def __matmul__(self, a: Array) -> Array:
        """(K + λ) a, as the gradients (and values) of the expansion at its own frames."""
        return _product(self, a)

    def diagonal(self) -> Array:
        """Diagonal of K + λ."""
        return _diagonal(self)

    def block(self, rows: Array, columns: Array) -> Array:
        """K between frames rows (I,) and columns (J,), (I, width, J, width)."""
        return _block(self, rows, columns)


@partial(jax.jit, static_argnums=2)
def _describe(R, bases, descriptor, lattice):
    def one(frame):
        R, basis = frame
        slope = jax.jacfwd(descriptor)(R, lattice)
        return descriptor(R, lattice), slope.reshape(slope.shape[0], -1) @ basis

    return jax.lax.map(one, (R, bases), batch_size=16)


def reduced_bases(positions, descriptor: Descriptor = inverse_distances, lattice=None):
    """(M, 3N, W) orthonormal bases of the displacements that can change the descriptor.

    Those are all but translations and rotations.  Nothing is left out where the descriptor
    sees rigid motions, rotations are kept in a lattice and where a frame is linear.
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
    if not _unseen(R[0], rigid[0], descriptor, lattice):
        rigid = translations
        if not _unseen(R[0], rigid[0], descriptor, lattice):
            return np.tile(np.eye(3 * n_atoms), (n_frames, 1, 1))
    complete = np.linalg.qr(rigid, mode="complete")[0]
    return complete[:, :, rigid.shape[2] :]


def _unseen(R, motions, descriptor, lattice) -> bool:
    """Whether the descriptor does not change along displacements (3N, K) of R (N, 3)."""
    slope = np.asarray(jax.jacfwd(descriptor)(jnp.asarray(R), lattice)).reshape(-1, R.size)
    return bool(np.abs(slope @ motions).max() < 1e-5 * np.abs(slope).max())


# -- compiled parts ------------------------------------------------------------------------


@jax.jit
def _expansion(op: KernelOperator, a: Array) -> Expansion:
    width = op.jacobians.shape[2]
    slopes = jnp.einsum("mdw,mw->md", op.jacobians, a[:, :width])
    values = a[:, width] if op.values else None
    return Expansion.of(op.descriptors, slopes, op.sigma, values)


def frames_at_once(n_perms: int, n_frames: int, itemsize: int = 8, budget: float = 4e6) -> int:
    """Queries per chunk that keep their (P, M) arrays within caches."""
    return int(np.clip(budget / (4 * itemsize * n_perms * n_frames), 1, 64))


@jax.jit
def _product(op: KernelOperator, a: Array) -> Array:
    own = _expansion(op, a)
    at_once = frames_at_once(len(op.entries), op.n_frames, op.dtype.itemsize)
    observed = partial(observations, values=op.values, at_once=at_once)
    if op.mesh is not None:
        # Each device asks for its own frames; the expansion, which is small, all of them hold.
        local, whole = P(*op.mesh.axis_names), P()
        observed = jax.shard_map(
            observed,
            mesh=op.mesh,
            in_specs=(whole, whole, local, local),
            out_specs=local,
            check_vma=False,
        )
    return observed(own, op.entries, op.descriptors, op.jacobians) + op.lam * a


def observations(expansion, entries, x, A, *, values: bool, at_once: int) -> Array:
    """Gradients (and values) of an expansion at frames.

    Args:
        expansion: the function.
        entries: (P, D) permutations of the descriptor's entries.
        x: (B, D) the frames' descriptors, relative to the same centre as the expansion's.
        A: (B, D, W) their Jacobians.
        values: whether values stand beside gradients.
        at_once: frames per chunk.

    Returns:
        (B, W), or (B, W + 1) with `values`.
    """
    n_perms, dimension = entries.shape
    inverse = jnp.argsort(entries, axis=1)

    def chunk(frames):
        x, A = frames
        # |x − x_j^p| = |x^(p⁻¹) − x_j|: queries are permuted, not the training set.
        query = x[:, inverse].reshape(-1, dimension)
        value, gradient = values_and_gradients(query, expansion)
        gradient = gradient.reshape(len(x), n_perms, dimension)
        gradient = sum(gradient[:, p, entries[p]] for p in range(n_perms))
        out = jnp.einsum("mdw,md->mw", A, gradient)
        if values:
            out = jnp.concatenate([out, value.reshape(len(x), n_perms).sum(1)[:, None]], axis=1)
        return out

    return in_chunks(chunk, (x, A), at_once)


def in_chunks(function, arrays, at_once: int):
    """`function` over the leading axis of arrays, in chunks of one shape (the last is filled)."""
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
