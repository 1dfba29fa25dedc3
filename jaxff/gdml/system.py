"""The kernel equations of one set of frames, whose solution is a model."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.dense import Dense
from jaxff.gdml.descriptor import Descriptor, inverse_distances
from jaxff.gdml.model import KernelTerm, kernel_potential
from jaxff.gdml.operator import KernelOperator
from jaxff.gdml.settings import Run
from jaxff.gdml.solvers import Solver, make_solver
from jaxff.potential import Potential

_AT_ONCE = 1024  # frames compared with all others at once
_IDENTICAL = 1e-6  # 1/Å: smallest distance of the descriptors of two different geometries


class KernelSystem:
    """The equations (K + λ) a = y of one set of frames, for any labels y.

    K is the kernel matrix and λ the regularisation.  Several sets of labels share one factor or
    preconditioner, for example ``system.fit(frames)`` and
    ``system.fit(residual(frames, baseline))``.

    Args:
        frames: M training frames of N atoms.
        permutations: (P, N) a group of atom permutations.
        sigma: length scale, 1/Å.
        lam: regularisation λ.
        constrain_energies: fit energies together with the forces.
        descriptor: function of the positions that the kernel compares.
        solver: settings of the solver.
        run: seed, memory limit and progress; `run.checkpoint` is the file for the state of the
            iterative solver.

    Raises:
        InputError: fewer than two frames, two identical frames, no energies to constrain, too
            little memory, a matrix that is not positive definite, or float64 not enabled.
    """

    def __init__(
        self,
        frames: Dataset,
        permutations: np.ndarray,
        sigma: float,
        lam: float = 1e-10,
        *,
        constrain_energies: bool = False,
        descriptor: Descriptor = inverse_distances,
        solver: Solver | None = None,
        run: Run | None = None,
    ):
        require_float64()
        check_size(frames)
        if constrain_energies and frames.energies is None:
            raise InputError(
                f"{frames.label}: the frames have no energies to constrain the model to; give "
                "frames with energies, or do not constrain energies"
            )
        self.permutations = np.asarray(permutations, int)
        self.descriptor, self.lattice = descriptor, frames.lattice
        op = KernelOperator.of(
            frames.positions,
            self.permutations,
            sigma,
            lam,
            values=constrain_energies,
            descriptor=descriptor,
            lattice=frames.lattice,
        )
        refuse_identical(op, frames)
        op = self._completed(op, frames)
        self.solver = make_solver(op, solver or Solver(), run or Run(), frames.label)

    def _completed(self, op: KernelOperator, frames: Dataset) -> KernelOperator:
        """The operator of the system, made from the operator of the whole molecule."""
        return op

    @property
    def op(self) -> KernelOperator:
        """The operator K + λ."""
        return self.solver.op

    @property
    def sigma(self) -> float:
        return float(self.op.sigma)

    @property
    def lam(self) -> float:
        return float(self.op.lam)

    def weigh(self, forces: np.ndarray) -> np.ndarray:
        """Product of (K + λ)⁻¹ and forces (3NM,) or (3NM, k), by the dense solver.

        Net forces and torques, which no kernel can fit, are left out.

        Raises:
            InputError: energies are constrained, or the solver is iterative.
        """
        if self.op.values:
            raise InputError(
                "this product of forces and inverse kernel matrix needs a system without "
                "constrained energies: use constrain_energies=False"
            )
        if not isinstance(self.solver, Dense):
            raise InputError(
                "this product of forces and inverse kernel matrix needs a Cholesky factor: use "
                'Solver("dense")'
            )
        op, width = self.op, self.op.bases.shape[1]
        columns = np.reshape(forces, (len(forces) // width, width, -1))
        reduced = jnp.einsum("mcw,mck->mwk", op.bases, columns)
        weighed = jnp.einsum("mcw,mwk->mck", op.bases, self.solver(reduced))
        return np.asarray(weighed).reshape(np.shape(forces))

    def fit(self, labels: Dataset, **provenance) -> Potential:
        """The potential that reproduces the forces (and the mean energy) of `labels`.

        Args:
            labels: the M training frames, in the order of the system, with any forces and energies.
            **provenance: fields of `KernelTerm` that describe the training data.

        Raises:
            NotConverged: the solver did not converge.
        """
        op, mean, energies = self.op, 0.0, None
        observed = [labels.forces.ravel()]
        if op.values and labels.energies is not None:
            mean = float(np.mean(labels.energies))
            energies = labels.energies - mean
            observed.append(energies)
        std = float(np.std(np.concatenate(observed))) or 1.0
        y = op.observed(labels.forces / std, None if energies is None else energies / std)
        model = self._model(-self.solver.solve(y), labels, std, mean, provenance)
        if labels.energies is None or op.values:
            return model
        predicted, _ = model.predict(labels.positions)
        offset = jnp.asarray(np.mean(labels.energies - predicted))
        return model.replace({**model.params, "gdml": {**model.params["gdml"], "offset": offset}})

    def _model(self, a, labels: Dataset, std: float, mean: float, provenance: dict) -> Potential:
        """The potential with the coefficients `a` (M, W), in units of `std`."""
        op, expansion, count = self.op, self.op.expansion(a), len(labels)
        columns = {
            "coefficients": op.gathered(expansion.slopes)[:count],
            "alphas": op.gathered(op.cartesian(a))[:count].reshape(labels.forces.shape),
            "energy_alphas": expansion.values,
            "lattice": self.lattice,
            "sigma": self.sigma,
            "std": std,
            "offset": mean,
            "lam": self.lam,
        }
        term = KernelTerm(
            labels.molecule.n_atoms,
            self.permutations,
            dataset=labels.name,
            theory=labels.theory,
            knows_energies=labels.energies is not None,
            descriptor=self.descriptor,
            entries=np.asarray(op.entries),
            **provenance,
        )
        descriptors = op.gathered(op.descriptors)[:count] + np.asarray(op.centre)
        return kernel_potential(term, descriptors, columns, labels.molecule)


def residual(data: Dataset, baseline: Potential) -> Dataset:
    """Subtract the energies and forces of a baseline from those of a data set.

    Args:
        data: M frames.
        baseline: a potential in the atom order of `data`.

    Raises:
        InputError: an energy or force of the baseline is not finite.
    """
    energies, forces = baseline.predict(data.positions)
    if not (np.isfinite(energies).all() and np.isfinite(forces).all()):
        finite = np.isfinite(forces).all(axis=(1, 2)) & np.isfinite(energies)
        raise InputError(
            f"{data.label}: the energy or the forces of the baseline are not finite at frame "
            f"{int(np.argmin(finite))}; correct the baseline or remove the frame"
        )
    return replace(
        data,
        energies=None if data.energies is None else data.energies - energies,
        forces=data.forces - forces,
    )


def require_float64() -> None:
    """Raise `InputError` unless JAX computes in float64."""
    if jnp.result_type(float) != jnp.float64:
        raise InputError(
            'kernel training needs float64: call jax.config.update("jax_enable_x64", True) first, '
            "or set JAX_ENABLE_X64=1"
        )


def check_size(frames: Dataset) -> None:
    """Raise `InputError` unless there are at least two frames of at least two atoms."""
    if len(frames) < 2 or frames.n_atoms < 2:
        raise InputError(
            f"{frames.label}: {len(frames)} frames of {frames.n_atoms} atoms, but training needs "
            "at least two frames of two atoms; give more"
        )


def refuse_identical(op: KernelOperator, frames: Dataset) -> None:
    """Raise `InputError` if two frames have the same geometry, which makes K singular."""
    x, index = np.asarray(op.descriptors), np.asarray(frames.index)
    square = np.sum(x**2, axis=1)
    for p in np.asarray(op.entries):
        permuted = x[:, p]
        for start in range(0, len(x), _AT_ONCE):
            # |x_i − x_j^p|² by a matrix product, confirmed by differences where it is small
            rows = slice(start, start + _AT_ONCE)
            squares = square[rows, None] + square - 2.0 * x[rows] @ permuted.T
            for i, j in np.add(np.argwhere(np.tril(squares < 1e-9, start - 1)), (start, 0)):
                if np.linalg.norm(x[i] - permuted[j]) < _IDENTICAL:
                    raise InputError(
                        f"{frames.label}: frames {index[j]} and {index[i]} have the same geometry; "
                        "remove one of them"
                    )
