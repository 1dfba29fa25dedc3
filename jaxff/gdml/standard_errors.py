"""Standard errors of a kernel model, from the variance of its Gaussian process.

The variance conditioned on some training frames is an upper bound of the variance conditioned on
all training frames.  The errors on validation frames determine the scale of the standard errors.
Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), chapter 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.descriptor import Descriptor
from jaxff.gdml.fragment_term import FragmentKernelTerm
from jaxff.gdml.kernel import blocks
from jaxff.gdml.model import KernelTerm
from jaxff.gdml.operator import KernelOperator, in_chunks
from jaxff.gdml.system import require_float64
from jaxff.potential import Potential

Array = jax.Array

MAX_UNKNOWNS = 2000  # number of force components on which the variance is conditioned
_NO_FORCE = 1e-8  # share of the largest standard error below which the kernel has no force
_ROUNDING = 1e-12  # share of the prior variance below which there are rounding errors only


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("op", "whitener", "shift", "offset", "lattice", "energy_scale", "force_scale"),
    meta_fields=("atoms", "descriptor"),
)
@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Standard errors of energies and forces, as a pure function of positions.

    Attributes:
        op: kernel operator of the frames on which the variance is conditioned.
        whitener: (n, n) L⁻¹, where L is the Cholesky factor of K + λ.
        shift: (n,) covariance between the mean energy and the forces of these frames.
        offset: () variance of the mean energy of these frames.
        lattice: (3, 3) Å, lattice vectors as columns, or None.
        energy_scale: () kcal/mol, factor of the standard errors of energies.
        force_scale: () kcal/mol/Å, factor of the standard errors of forces.
        atoms: the atoms that the kernel acts on, or None for all.
        descriptor: function of the positions that the kernel compares.
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
        return jax.tree.map(np.asarray, _many(self, jnp.asarray(positions)))

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
        for key, ratio in _ratios(self, potential, data).items():
            out |= {f"{key}_{k}": float(np.mean(np.abs(ratio) < k)) for k in (1, 2)}
        return out


def uncertainty(
    potential: Potential, train: Dataset, valid: Dataset, *, seed: int = 0
) -> Uncertainty:
    """Compute the standard errors of a kernel model, or of its sum with a baseline.

    Args:
        potential: a potential with one kernel.
        train: the training frames.  The variance is conditioned on all of them, or on a random
            part with about 2,000 force components.
        valid: frames on which the model was not trained; they determine the scales of the errors.
        seed: seed of the random part.

    Raises:
        InputError: no kernel, several kernels or kernels on fragments in `potential`, frames that
            are too few, nearly identical or of other atoms, or float64 not enabled.
    """
    require_float64()
    placed_terms = potential.program.placed
    if any(isinstance(p.term, FragmentKernelTerm) for p in placed_terms):
        raise InputError(
            f"{potential!r} has kernels on fragments, whose standard errors are not available; "
            "give a potential without fragments"
        )
    kernels = [(p, p.term) for p in placed_terms if type(p.term) is KernelTerm]
    if len(kernels) != 1:
        raise InputError(
            f"{potential!r} has {len(kernels)} kernels; give a potential with exactly one"
        )
    _check(potential, train, "training")
    _check(potential, valid, "validation")
    if len(valid) == 0 or len(train) < 2:
        few, need = (valid, "one validation frame") if len(valid) == 0 else (train, "two frames")
        raise InputError(f"{few.label}: {len(few)} frames, but at least {need} must be given")
    placed, term = kernels[0]
    params = potential.params[placed.name]
    per_frame = 3 * term.n_atoms
    count = min(len(train), max(2, MAX_UNKNOWNS // per_frame))
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
    index = jnp.arange(count)
    matrix = op.block(index, index).reshape(op.size, op.size)
    L = jnp.linalg.cholesky(matrix + op.lam * jnp.eye(op.size))
    if not bool(jnp.isfinite(L).all()):
        raise InputError(
            f"{train.label}: the kernel matrix is not positive definite at λ = {float(op.lam):g}: "
            "remove nearly identical frames"
        )
    whitener = jax.scipy.linalg.solve_triangular(L, jnp.eye(op.size), lower=True)
    shift, offset = _mean_energy(op)
    one = jnp.ones(())
    atoms = None if placed.atoms is None else tuple(np.asarray(placed.atoms).tolist())
    lattice = params.get("lattice")
    raw = Uncertainty(op, whitener, shift, offset, lattice, one, one, atoms, term.descriptor)
    ratios = _ratios(raw, potential, valid)
    scale = {key: jnp.asarray(np.sqrt(np.mean(r**2))) for key, r in ratios.items()}
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


def _ratios(self: Uncertainty, potential: Potential, data: Dataset) -> dict[str, np.ndarray]:
    """Errors of a potential divided by their standard errors.

    Returns:
        "force": (n,) ratios of all force components that are not zero by symmetry; "energy": (M,)
        ratios, if the data have energies.
    """
    energy, force = self.predict(data.positions)
    energies, forces = potential.predict(data.positions)
    at = list(range(data.n_atoms)) if self.atoms is None else list(self.atoms)
    error, wrong = force[:, at].ravel(), (forces - data.forces)[:, at].ravel()
    some = error > _NO_FORCE * error.max()  # planar molecules have no forces out of their plane
    out = {"force": wrong[some] / error[some]}
    if data.energies is not None:
        wrong = energies - data.energies
        out["energy"] = (wrong - wrong.mean()) / energy
    return out


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
    rows = rows.at[-1].add(-self.shift)
    variance = jnp.diagonal(prior).at[-1].add(self.offset - 2.0 * cross[-1, :, -1].mean())
    variance = variance - jnp.sum((rows @ self.whitener.T) ** 2, axis=1)
    # Rounding can make a variance slightly negative at a frame on which it is conditioned.
    error = jnp.sqrt(jnp.maximum(variance, _ROUNDING * jnp.diagonal(prior)))
    forces = self.force_scale * error[:-1].reshape(-1, 3)
    if self.atoms is not None:
        forces = jnp.zeros_like(R).at[jnp.asarray(self.atoms)].set(forces)
    return self.energy_scale * error[-1], forces


@jax.jit
def _many(self: Uncertainty, positions: Array) -> tuple[Array, Array]:
    return in_chunks(lambda R: jax.vmap(partial(_standard_errors, self))(R), positions, 4)
