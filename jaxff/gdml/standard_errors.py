"""Standard errors of a kernel model, from the variance of its Gaussian process.

The variance conditioned on some force components of the training frames is an upper bound of the
variance conditioned on all of them.  The errors on validation frames determine the scale of the
standard errors.
Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), chapter 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.descriptor import Descriptor
from jaxff.gdml.fragment_term import FragmentKernelTerm
from jaxff.gdml.kernel import blocks
from jaxff.gdml.model import KernelTerm
from jaxff.gdml.nystrom import matrix_columns, pivots
from jaxff.gdml.operator import KernelOperator, in_chunks
from jaxff.gdml.system import require_float64
from jaxff.potential import Placed, Potential

Array = jax.Array

MAX_UNKNOWNS = 2000  # number of force components on which the variance is conditioned
MAX_SEEN = 30_000  # number of force components among which these are chosen
BLOCK = 8  # frames in one call of the compiled function, which so has one shape
_NO_FORCE = 1e-8  # share of the largest standard error below which the kernel has no force
_LEAST = 0.01  # least share of the squared errors that the last kernel explains
_ROUNDING = 1e-12  # share of the prior variance below which there are rounding errors only


@partial(
    jax.tree_util.register_dataclass,
    data_fields=(
        *("op", "whitener", "shift", "offset", "lattice", "energy_scale", "force_scale"),
        *("others", "pivots"),
    ),
    meta_fields=("atoms", "descriptor"),
)
@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Standard errors of energies and forces, as a pure function of positions.

    Attributes:
        op: kernel operator of the frames on which the variance is conditioned.
        whitener: (n, n) L⁻¹, where L is the Cholesky factor of K + λ for n force components.
        shift: (n,) covariance between the mean energy and these force components.
        offset: () variance of the mean energy of these frames.
        lattice: (3, 3) Å, lattice vectors as columns, or None.
        energy_scale: () kcal/mol, factor of the standard errors of energies.
        force_scale: () kcal/mol/Å, factor of the standard errors of forces.
        atoms: the atoms that the kernel acts on, or None for all.
        descriptor: function of the positions that the kernel compares.
        others: standard errors of the other terms, whose variances are added (None: zero).
        pivots: (n,) indices of the n force components among those of all frames (None: all).
    """

    op: KernelOperator
    whitener: Array
    shift: Array
    offset: Array
    lattice: Array | None
    energy_scale: Array
    force_scale: Array
    atoms: tuple[int, ...] | None
    descriptor: Descriptor
    others: Uncertainty | None = None
    pivots: Array | None = None

    def __call__(self, R: np.ndarray | Array) -> tuple[Array, Array]:
        """Standard errors of energy, () kcal/mol, and forces, (N, 3) kcal/mol/Å.

        The energy is relative to the mean energy of the frames on which the variance is
        conditioned.

        Args:
            R: (N, 3) Å.
        """
        return _standard_errors(self, jnp.asarray(R))

    def predict(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Standard errors (M,) kcal/mol and (M, N, 3) kcal/mol/Å at positions (M, N, 3) Å."""
        positions = np.asarray(positions, float)
        if len(positions) == 0:
            return np.empty(0), np.empty(positions.shape)
        fill = np.repeat(positions[-1:], -len(positions) % BLOCK, axis=0)
        filled = np.concatenate([positions, fill]).reshape(-1, BLOCK, *positions.shape[1:])
        parts = [_many(self, jnp.asarray(block)) for block in filled]
        energies, forces = (np.concatenate(x)[: len(positions)] for x in zip(*parts, strict=True))
        return energies, forces

    def coverage(self, potential: Potential, data: Dataset) -> dict[str, float]:
        """Shares of the errors of a potential that are below one and two standard errors.

        Calibrated Gaussian errors give 0.683 and 0.954.

        Args:
            potential: the potential that the standard errors belong to.
            data: frames with reference labels.

        Returns:
            Shares by name: force_1, force_2 and, if the data have energies, energy_1, energy_2.

        Raises:
            InputError: the frames have other atoms than the potential.
        """
        _check(potential, data, "data")
        out = {}
        for key, (errors, kernel, others) in _squares(self, potential, data).items():
            ratio = np.sqrt(errors / (kernel + others))
            out |= {f"{key}_{k}": float(np.mean(ratio < k)) for k in (1, 2)}
        return out


def uncertainty(
    potential: Potential,
    train: Dataset,
    valid: Dataset,
    *,
    seed: int = 0,
    others: Uncertainty | None = None,
) -> Uncertainty:
    """Compute the standard errors of a kernel model, or of its sum with a baseline.

    Args:
        potential: a potential with one kernel; with `others`, its last kernel is used.
        train: the training frames.  The variance is conditioned on all of them, or on those 2,000
            force components that determine the others best, see `jaxff.gdml.nystrom.pivots`.
        valid: frames on which the model was not trained; they determine the scales of the errors.
        seed: seed of the choice of these components.
        others: standard errors of the other terms, for example of a student that the kernel
            corrects.  The variances are added.

    Raises:
        InputError: no kernel, several kernels or kernels on fragments in `potential`, frames that
            are too few, nearly identical or of other atoms, or float64 not enabled.
    """
    kernels = kernels_of(potential)
    if len(kernels) != 1 and (others is None or not kernels):
        raise InputError(
            f"{potential!r} has {len(kernels)} kernels; give a potential with exactly one"
        )
    _check(potential, valid, "validation")
    if len(valid) == 0:
        raise InputError(
            f"{valid.label}: 0 frames, but at least one validation frame must be given"
        )
    raw = _conditioned(potential, train, seed, others)
    return _scaled(raw, [_squares(raw, potential, valid)])


def cross_validated(
    potential: Potential,
    train: Dataset,
    parts: Sequence[tuple[Potential, np.ndarray]],
    *,
    others: Uncertainty | None = None,
) -> Uncertainty:
    """Compute the standard errors of a kernel model without validation frames.

    Args:
        potential: the model; its last kernel was trained on all frames.
        train: the training frames.
        parts: models that were trained without some of the frames, with the indices of these
            frames; the errors at these frames determine the scales of the standard errors.
        others: as for `uncertainty`.

    Raises:
        InputError: as for `uncertainty`.
    """
    squares = []
    for model, left in parts:
        rest = train[np.setdiff1d(np.arange(len(train)), left)]
        squares.append(_squares(_conditioned(model, rest, 0, others), model, train[left]))
    return _scaled(_conditioned(potential, train, 0, others), squares)


def kernels_of(potential: Potential) -> list[Placed]:
    """The kernels of a potential.

    Raises:
        InputError: the potential has kernels on fragments.
    """
    placed = potential.program.placed
    if any(isinstance(p.term, FragmentKernelTerm) for p in placed):
        raise InputError(
            f"{potential!r} has kernels on fragments, whose standard errors are not available; "
            "give a potential without fragments"
        )
    return [p for p in placed if type(p.term) is KernelTerm]


def _conditioned(
    potential: Potential, train: Dataset, seed: int, others: Uncertainty | None
) -> Uncertainty:
    """Standard errors of the last kernel, in units of the amplitude of its Gaussian process."""
    require_float64()
    _check(potential, train, "training")
    if len(train) < 2:
        raise InputError(
            f"{train.label}: {len(train)} frames, but at least two frames must be given"
        )
    placed = kernels_of(potential)[-1]
    term = placed.term
    assert isinstance(term, KernelTerm)
    params = potential.params[placed.name]
    per_frame = 3 * term.n_atoms
    count = min(len(train), max(2, MAX_SEEN // per_frame))
    drawn = np.sort(np.random.default_rng(seed).permutation(len(train))[:count])
    R = train.positions[drawn]
    if placed.atoms is not None:
        R = R[:, placed.atoms]
    op = KernelOperator.of(
        R,
        term.permutations,
        float(params["sigma"]),
        max(float(params["lam"]), 1e-10),
        descriptor=term.descriptor,
        lattice=params.get("lattice"),
    )
    shift, offset = _mean_energy(op)
    if count <= max(2, MAX_UNKNOWNS // per_frame):
        chosen, index = None, jnp.arange(count)
        matrix = op.block(index, index).reshape(op.size, op.size)
    else:
        chosen = jnp.asarray(pivots(op, MAX_UNKNOWNS, seed))
        matrix = matrix_columns(op, chosen // op.width, chosen % op.width)[chosen]
        shift = shift[chosen]
    unit = jnp.eye(len(matrix))
    L = jnp.linalg.cholesky(matrix + op.lam * unit)
    if not bool(jnp.isfinite(L).all()):
        raise InputError(
            f"{train.label}: the kernel matrix is not positive definite at λ = {float(op.lam):g}: "
            "remove nearly identical frames"
        )
    whitener = jax.scipy.linalg.solve_triangular(L, unit, lower=True)
    one = jnp.ones(())
    atoms = None if placed.atoms is None else tuple(np.asarray(placed.atoms).tolist())
    lattice = params.get("lattice")
    return Uncertainty(
        op, whitener, shift, offset, lattice, one, one, atoms, term.descriptor, others, chosen
    )


class _Squares(NamedTuple):
    """Squares of the errors of one quantity, and variances, of n values."""

    errors: np.ndarray
    kernel: np.ndarray
    others: np.ndarray


def _squares(self: Uncertainty, potential: Potential, data: Dataset) -> dict[str, _Squares]:
    """Compare a potential with labels.

    Returns:
        "force": values of all n force components that are not zero by symmetry; "energy": values
        of all frames, if the data have energies.
    """
    variances = [np.square(x) for x in replace(self, others=None).predict(data.positions)]
    added = [np.zeros_like(x) for x in variances]
    if self.others is not None:
        added = [np.square(x) for x in self.others.predict(data.positions)]
    energies, forces = potential.predict(data.positions)
    at = list(range(data.n_atoms)) if self.atoms is None else list(self.atoms)
    wrong, kernel, others = (
        x[:, at].ravel() for x in (forces - data.forces, variances[1], added[1])
    )
    some = kernel > _NO_FORCE**2 * kernel.max()  # planar molecules: none out of their plane
    out = {"force": _Squares(wrong[some] ** 2, kernel[some], others[some])}
    if data.energies is not None:
        wrong = energies - data.energies
        out["energy"] = _Squares((wrong - wrong.mean()) ** 2, variances[0], added[0])
    return out


def _scaled(raw: Uncertainty, parts: Sequence[dict[str, _Squares]]) -> Uncertainty:
    """The standard errors with the scales that follow from errors at frames left out.

    The kernel explains what the other terms do not, but always a hundredth of the squared errors.
    """
    scale = {}
    for key in parts[0]:
        errors, kernel, others = map(
            np.concatenate, zip(*(part[key] for part in parts), strict=True)
        )
        left = max(np.mean((errors - others) / kernel), _LEAST * np.mean(errors / kernel))
        scale[key] = jnp.asarray(np.sqrt(left))
    return replace(
        raw, force_scale=scale["force"], energy_scale=scale.get("energy", scale["force"])
    )


def _check(potential: Potential, data: Dataset, which: str) -> None:
    molecule = potential.molecule
    if molecule is not None and not np.array_equal(molecule.numbers, data.numbers):
        raise InputError(
            f"{data.label}: the atoms of the {which} frames differ from those of the potential, "
            f"{molecule.formula}; give frames of this molecule in the same atom order"
        )


@jax.jit
def _mean_energy(op: KernelOperator) -> tuple[Array, Array]:
    """Covariances (n,) of the mean of ε with the gradients of ε, and the variance of the mean.

    ε is the negative energy in units of `std`, see `KernelOperator`.
    """

    def one(frame):
        x, A = frame
        both = blocks(
            (x[None], A[None]), (op.descriptors, op.jacobians), op.entries, op.sigma, True
        )[0]
        return both[-1, :, :-1].reshape(-1), both[-1, :, -1].mean()

    rows, values = jax.lax.map(one, (op.descriptors, op.jacobians))
    return rows.mean(axis=0), values.mean()


@jax.jit
def _standard_errors(self: Uncertainty, R: Array) -> tuple[Array, Array]:
    op = self.op
    moved = R if self.atoms is None else R[jnp.asarray(self.atoms)]
    x = self.descriptor(moved, self.lattice) - op.centre
    J = jax.jacfwd(self.descriptor)(moved, self.lattice).reshape(len(x), -1)
    frame = (x[None], J[None])
    prior = blocks(frame, frame, op.entries, op.sigma, True)[0, :, 0]
    cross = blocks(frame, (op.descriptors, op.jacobians), op.entries, op.sigma, True)[0]
    rows = cross[:, :, :-1].reshape(len(prior), -1)
    if self.pivots is not None:
        rows = rows[:, self.pivots]
    rows = rows.at[-1].add(-self.shift)
    variance = jnp.diagonal(prior).at[-1].add(self.offset - 2.0 * cross[-1, :, -1].mean())
    variance = variance - jnp.sum((rows @ self.whitener.T) ** 2, axis=1)
    # Rounding can make a variance slightly negative at a frame on which it is conditioned.
    error = jnp.sqrt(jnp.maximum(variance, _ROUNDING * jnp.diagonal(prior)))
    forces = self.force_scale * error[:-1].reshape(-1, 3)
    if self.atoms is not None:
        forces = jnp.zeros_like(R).at[jnp.asarray(self.atoms)].set(forces)
    energy = self.energy_scale * error[-1]
    if self.others is not None:
        energy_too, forces_too = _standard_errors(self.others, R)
        energy, forces = jnp.hypot(energy, energy_too), jnp.hypot(forces, forces_too)
    return energy, forces


@jax.jit
def _many(self: Uncertainty, positions: Array) -> tuple[Array, Array]:
    return in_chunks(lambda R: jax.vmap(partial(_standard_errors, self))(R), positions, 4)
