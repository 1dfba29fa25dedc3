"""How far a kernel model may be wrong: the variance of the Gaussian process behind it.

The variance given some of the training frames bounds the one given all of them from above; scaled
by the errors on validation frames it becomes an estimate of the model's error.
Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), chapter 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import erf, sqrt

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.descriptor import Descriptor
from jaxff.gdml.kernel import blocks
from jaxff.gdml.model import KernelTerm
from jaxff.gdml.operator import KernelOperator, in_chunks
from jaxff.gdml.system import require_float64
from jaxff.potential import Potential

Array = jax.Array

MAX_UNKNOWNS = 2000  # of the frames that the variance is conditioned on
_UNFELT = 1e-8  # of the largest standard error: components in which the kernel has no force
_ROUNDING = 1e-12  # of the prior variance, below which there is rounding only


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("op", "whitener", "shift", "offset", "lattice", "energy_scale", "force_scale"),
    meta_fields=("atoms", "descriptor"),
)
@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Standard errors of a potential's energies and forces; a pure function of positions.

    Attributes:
        op: the kernel operator of the frames that the variance is conditioned on.
        whitener: (n, n) L⁻¹, L the Cholesky factor of K + λ.
        shift: (n,) covariance of the mean energy of these frames with their forces.
        offset: () variance of that mean energy: energies count from it.
        lattice: (3, 3) Å, or None.
        energy_scale, force_scale: () kcal/mol and kcal/mol/Å, from validation.
        atoms: the atoms that the kernel acts on, or None for all.
        descriptor: what the kernel compares.
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

    def __call__(self, R) -> tuple[Array, Array]:
        """Standard errors of the energy () kcal/mol and forces (N, 3) kcal/mol/Å at R (N, 3) Å.

        The energy's is that of its difference from the mean over the conditioning frames.
        """
        return _standard_errors(self, jnp.asarray(R))

    def predict(self, positions) -> tuple[np.ndarray, np.ndarray]:
        """Standard errors (M,) kcal/mol and (M, N, 3) kcal/mol/Å of many frames (M, N, 3) Å."""
        positions = np.asarray(positions, float)
        if len(positions) == 0:
            return np.empty(0), np.empty(positions.shape)
        return jax.tree.map(np.asarray, _many(self, jnp.asarray(positions)))

    def coverage(self, potential: Potential, data: Dataset) -> dict[str, float]:
        """Shares of the errors of `potential` on `data` within one and two standard errors.

        Calibrated Gaussian errors give 0.683 and 0.954.

        Returns:
            energy_1, energy_2 (absent without energies), force_1, force_2.
        """
        _check(potential, data, "data")
        out = {}
        for key, ratio in _ratios(self, potential, data).items():
            out |= {f"{key}_{k}": float(np.mean(np.abs(ratio) < k)) for k in (1, 2)}
        return out


EXPECTED = {k: erf(k / sqrt(2.0)) for k in (1, 2)}  # shares of a normal distribution


def uncertainty(
    potential: Potential, train: Dataset, valid: Dataset, *, seed: int = 0
) -> Uncertainty:
    """The standard errors of a kernel model, or of its sum with a baseline.

    Args:
        potential: its kernel gives σ, λ, permutations and atoms.
        train: the training frames; where they are many, the variance is conditioned on as many
            of them as make 2,000 unknowns, drawn at random.
        valid: frames that the model has not seen; they set the scales.
        seed: of that draw.

    Raises:
        InputError: no kernel or several in `potential`, no validation frames, float64 not enabled.
    """
    require_float64()
    kernels = [p for p in potential.program.placed if p.term.kind == KernelTerm.kind]
    if len(kernels) != 1:
        raise InputError(f"{potential!r} has {len(kernels)} kernels; uncertainty needs one")
    _check(potential, train, "training")
    _check(potential, valid, "validation")
    if len(valid) == 0 or len(train) < 2:
        few, what = (valid, "calibrate") if len(valid) == 0 else (train, "condition")
        raise InputError(f"{few.label}: too few frames to {what} the uncertainty on")
    placed = kernels[0]
    own, term = potential.params[placed.name], placed.term
    per_frame = 3 * term.n_atoms
    count = min(len(train), max(2, MAX_UNKNOWNS // per_frame))
    drawn = np.sort(np.random.default_rng(seed).permutation(len(train))[:count])
    R = train.positions[drawn]
    if placed.atoms is not None:
        R = R[:, placed.atoms]
    op = KernelOperator.of(
        R,
        term.permutations,
        float(own["sigma"]),
        max(float(own["lam"]), 1e-10),
        descriptor=term.descriptor,
        lattice=own.get("lattice"),
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
    raw = Uncertainty(
        op,
        whitener,
        shift,
        offset,
        own.get("lattice"),
        one,
        one,
        placed.atoms,
        term.descriptor,
    )
    ratios = _ratios(raw, potential, valid)
    scale = {key: jnp.asarray(np.sqrt(np.mean(r**2))) for key, r in ratios.items()}
    return replace(
        raw, force_scale=scale["force"], energy_scale=scale.get("energy", scale["force"])
    )


def _check(potential: Potential, data: Dataset, which: str) -> None:
    own = potential.molecule
    if own is not None and not np.array_equal(own.numbers, data.numbers):
        raise InputError(f"{data.label}: the {which} frames are not of {own.formula} in its order")


def _ratios(self: Uncertainty, potential: Potential, data: Dataset) -> dict[str, np.ndarray]:
    """Errors of `potential` on `data` over their standard errors."""
    energy, force = self.predict(data.positions)
    energies, forces = potential.predict(data.positions)
    at = list(range(data.n_atoms)) if self.atoms is None else list(self.atoms)
    error, wrong = force[:, at].ravel(), (forces - data.forces)[:, at].ravel()
    felt = error > _UNFELT * error.max()  # planar molecules have no forces across their plane
    out = {"force": wrong[felt] / error[felt]}
    if data.energies is not None:
        wrong = energies - data.energies
        out["energy"] = (wrong - wrong.mean()) / energy
    return out


@jax.jit
def _mean_energy(op: KernelOperator) -> tuple[Array, Array]:
    """Covariance (n,) of the mean of ε over the frames with its gradients, and its variance."""

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
    own = R if self.atoms is None else R[jnp.asarray(self.atoms)]
    x = self.descriptor(own, self.lattice) - op.centre
    J = jax.jacfwd(self.descriptor)(own, self.lattice).reshape(len(x), -1)
    frame = (x[None], J[None])
    prior = blocks(frame, frame, op.entries, op.sigma, True)[0, :, 0]
    cross = blocks(frame, (op.descriptors, op.jacobians), op.entries, op.sigma, True)[0]
    rows = cross[:, :, :-1].reshape(len(prior), -1)
    rows = rows.at[-1].add(-self.shift)
    variance = jnp.diagonal(prior).at[-1].add(self.offset - 2.0 * cross[-1, :, -1].mean())
    variance = variance - jnp.sum((rows @ self.whitener.T) ** 2, axis=1)
    # Rounding can leave a variance just below zero at a conditioning frame.
    error = jnp.sqrt(jnp.maximum(variance, _ROUNDING * jnp.diagonal(prior)))
    forces = self.force_scale * error[:-1].reshape(-1, 3)
    if self.atoms is not None:
        forces = jnp.zeros_like(R).at[jnp.asarray(self.atoms)].set(forces)
    return self.energy_scale * error[-1], forces


@jax.jit
def _many(self: Uncertainty, positions: Array) -> tuple[Array, Array]:
    return in_chunks(lambda R: jax.vmap(partial(_standard_errors, self))(R), positions, 4)
