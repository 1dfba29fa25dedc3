"""The kernel equations of one set of frames: choosing a solver, and from labels to a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxff import memory
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml import cholesky
from jaxff.gdml.descriptor import Descriptor, inverse_distances
from jaxff.gdml.model import kernel_potential
from jaxff.gdml.operator import KernelOperator
from jaxff.gdml.solvers import (
    Dense,
    Iterative,
    Progress,
    dense_bytes,
    factor_dtype,
    iterative_bytes,
)
from jaxff.potential import Potential

SOLVERS = ("auto", "dense", "iterative")
# The choice of solver: as if products ran at one flop a unit of time and memory gave one byte in
# seven units (110 GFLOP/s, 15 GB/s), 250 iterations sufficed (67 to 600 did), and a factor, whose
# solution is exact, were worth twice the time.
TYPICAL_ITERATIONS, FLOPS_PER_BYTE, WORTH = 250, 7, 2
COMPILED = 1e8  # bytes that compiled programs and their work arrays will take
COLUMNS = 1 / 20  # of the preconditioner, per unknown, where memory allows
FEWEST_COLUMNS = 300
_AT_ONCE = 1024  # frames compared with all others at once
_IDENTICAL = 1e-6  # 1/Å: descriptors closer than this belong to the same geometry


class KernelSystem:
    """The equations (K + λ) a = y of one set of frames, for any labels y.

    Several sets of labels (two levels of theory; with and without a baseline) share one
    factor or preconditioner: ``system.fit(frames)``, ``system.fit(residual(frames, baseline))``.

    Args:
        frames: the training frames.
        permutations: (P, N), a group.
        sigma: length scale, 1/Å.
        lam: λ.
        constrain_energies: fit energies beside forces.
        descriptor: what the kernel compares.
        solver: "dense" (Cholesky), "iterative" (preconditioned conjugate gradients) or "auto".
        tolerance: relative residual that the iterative solver reaches.
        max_memory: GB that the whole process may hold (None: 80 % of the machine's).
        max_iterations: of the iterative solver.
        seed: of the preconditioner.
        checkpoint: file in which the iterative solver keeps its state.
        mesh: devices, in one axis, over which the iterative solver spreads the frames (None: all
            there are, in all processes of `jax.distributed`).
        progress: called with a phase and the fraction of it that is done.

    Raises:
        InputError: fewer than two or identical frames, too little memory, a system that is not
            positive definite, float64 not enabled.
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
        solver: str = "auto",
        tolerance: float = 1e-4,
        max_memory: float | None = None,
        max_iterations: int = 5000,
        seed: int = 0,
        checkpoint: Path | None = None,
        mesh: jax.sharding.Mesh | None = None,
        progress: Progress | None = None,
    ):
        require_float64()
        report = progress or (lambda phase, fraction: None)
        if len(frames) < 2 or frames.n_atoms < 2:
            raise InputError(
                f"{frames.label}: {len(frames)} frames of {frames.n_atoms} atoms; "
                "training needs at least two frames of two atoms"
            )
        if constrain_energies and frames.energies is None:
            raise InputError(f"{frames.label}: there are no energies to constrain the model to")
        self.permutations = np.asarray(permutations, int)
        self.descriptor, self.lattice = descriptor, frames.lattice
        self.op = KernelOperator.of(
            frames.positions,
            self.permutations,
            sigma,
            lam,
            values=constrain_energies,
            descriptor=descriptor,
            lattice=frames.lattice,
        )
        _refuse_identical(self.op, frames)
        if constrain_energies and solver == "auto":
            solver = "dense"
        columns = plan(self.op, solver, max_memory, frames.label)
        if columns is None:
            self.solver = self._factorised(frames, report)
            return
        if constrain_energies:
            raise InputError(
                f"{frames.label}: energies can be constrained with the dense solver only; "
                'use fewer frames, or solver="dense" with more memory'
            )
        if mesh is None and jax.device_count() > 1:
            auto = (jax.sharding.AxisType.Auto,)
            mesh = jax.make_mesh((jax.device_count(),), ("frames",), axis_types=auto)
        if mesh is not None:
            self.op = self.op.sharded(mesh)
        self.solver = Iterative(
            self.op,
            columns,
            tolerance=tolerance,
            max_iterations=max_iterations,
            seed=seed,
            checkpoint=checkpoint,
            progress=report,
        )

    def _factorised(self, frames: Dataset, report: Progress) -> Dense:
        try:
            return Dense(self.op, factor_dtype(self.op), report)
        except cholesky.NotPositiveDefinite as error:
            raise InputError(
                f"{frames.label}: the kernel matrix is not positive definite at λ = "
                f"{float(self.op.lam):g}: remove nearly identical frames or raise lam"
            ) from error

    @property
    def sigma(self) -> float:
        return float(self.op.sigma)

    @property
    def lam(self) -> float:
        return float(self.op.lam)

    def weigh(self, forces: np.ndarray) -> np.ndarray:
        """(K + λ)⁻¹ of force labels (3NM,) or (3NM, k), by the factor of the dense solver.

        What no kernel can fit, net forces and torques, is left out.

        Raises:
            InputError: energies are constrained, or the solver is iterative.
        """
        if self.op.values:
            raise InputError("energies are constrained: forces alone have no weight of their own")
        if not isinstance(self.solver, Dense):
            raise InputError('forces are weighed by a factor: use solver="dense"')
        op, width = self.op, self.op.bases.shape[1]
        columns = np.reshape(forces, (len(forces) // width, width, -1))
        reduced = jnp.einsum("mcw,mck->mwk", op.bases, columns)
        weighed = jnp.einsum("mcw,mwk->mck", op.bases, self.solver(reduced))
        return np.asarray(weighed).reshape(np.shape(forces))

    def fit(self, labels: Dataset, **provenance) -> Potential:
        """The potential that reproduces the forces (and the mean energy) of `labels`.

        Args:
            labels: the training frames, in order, with any forces and energies.
            **provenance: what the model should remember of its data, see `KernelTerm`.

        Raises:
            NotConverged: the solver did not converge.
        """
        op, energies, mean = self.op, labels.energies, 0.0
        scale = [labels.forces.ravel()]
        if op.values:
            mean = float(np.mean(energies))
            energies = energies - mean
            scale.append(energies)
        std = float(np.std(np.concatenate(scale))) or 1.0
        y = op.observed(labels.forces / std, energies / std if op.values else None)
        a = -self.solver.solve(y)
        expansion, count = op.expansion(a), len(labels)
        model = kernel_potential(
            op.gathered(op.descriptors)[:count] + np.asarray(op.centre),
            op.gathered(expansion.slopes)[:count],
            permutations=self.permutations,
            sigma=self.sigma,
            std=std,
            offset=mean,
            lam=self.lam,
            molecule=labels.molecule,
            alphas=op.gathered(op.cartesian(a))[:count].reshape(labels.forces.shape),
            energy_alphas=expansion.values,
            lattice=self.lattice,
            dataset=labels.name,
            theory=labels.theory,
            knows_energies=labels.energies is not None,
            descriptor=self.descriptor,
            entries=np.asarray(op.entries),
            **provenance,
        )
        if labels.energies is None:
            return model
        predicted, _ = model.predict(labels.positions)
        if op.values:
            return model
        offset = jnp.asarray(np.mean(labels.energies - predicted))
        return model.replace({"gdml": {**model.params["gdml"], "offset": offset}})


def _factor_pays(op: KernelOperator) -> bool:
    n_perms, dimension = op.entries.shape
    product = 8 * n_perms * op.n_frames**2 * dimension
    preconditioner = 2 * op.dtype.itemsize * FLOPS_PER_BYTE * op.size * _columns(op)
    return op.size**3 / 3 <= WORTH * TYPICAL_ITERATIONS * (product + preconditioner)


def _columns(op: KernelOperator) -> int:
    return min(max(round(COLUMNS * op.size), FEWEST_COLUMNS), op.size)


def plan(op: KernelOperator, solver: str, max_memory: float | None, who: str) -> int | None:
    """Columns of the iterative solver's preconditioner; None for the dense solver.

    Raises:
        InputError: an unknown solver, or one that does not fit into the memory, with the figures.
    """
    if solver not in SOLVERS:
        raise InputError(f"solver={solver!r}: use one of {', '.join(map(repr, SOLVERS))}")
    there = memory.capacity()
    limit = max_memory * 1e9 if max_memory is not None else None if there is None else 0.8 * there
    free = np.inf if limit is None else limit - memory.held() - COMPILED
    dense = dense_bytes(op)
    if solver == "dense" or (solver == "auto" and dense <= free and _factor_pays(op)):
        if dense > free:
            raise InputError(
                f"{who}: a factor of {op.size:,} unknowns needs {dense / 1e9:.1f} GB, "
                f'{max(free, 0.0) / 1e9:.1f} GB are free: use solver="iterative", fewer frames or '
                "a larger max_memory"
            )
        return None
    columns = _columns(op)
    while columns > 50 and iterative_bytes(op, columns) > free:
        columns = int(0.9 * columns)
    needed = iterative_bytes(op, columns)
    if needed > free:
        raise InputError(
            f"{who}: even the smallest preconditioner of {op.size:,} unknowns needs "
            f"{needed / 1e9:.1f} GB, {max(free, 0.0) / 1e9:.1f} GB are free: use fewer frames or a "
            "larger max_memory"
        )
    return columns


# -- labels -------------------------------------------------------------------------------------


def residual(data: Dataset, baseline: Potential) -> Dataset:
    """`data` with the energies and forces of `baseline` (in its atom order) subtracted."""
    energies, forces = baseline.predict(data.positions)
    if not (np.isfinite(energies).all() and np.isfinite(forces).all()):
        finite = np.isfinite(forces).all(axis=(1, 2)) & np.isfinite(energies)
        raise InputError(
            f"{data.label}: the baseline is not finite at frame {int(np.argmin(finite))}; "
            "mend its parameters or remove the frame"
        )
    return replace(
        data,
        energies=None if data.energies is None else data.energies - energies,
        forces=data.forces - forces,
    )


# -- checks -------------------------------------------------------------------------------------


def require_float64() -> None:
    """InputError unless JAX computes in float64."""
    if not jax.config.jax_enable_x64:
        raise InputError(
            'kernel training needs float64: call jax.config.update("jax_enable_x64", True) first, '
            "or set JAX_ENABLE_X64=1"
        )


def _refuse_identical(op: KernelOperator, frames: Dataset) -> None:
    x = np.asarray(op.descriptors)
    square = np.sum(x**2, axis=1)
    for p in np.asarray(op.entries):
        permuted = x[:, p]
        for start in range(0, len(x), _AT_ONCE):
            # |x_i − x_j^p|² by a matrix product, checked by differences where it is small
            rows = slice(start, start + _AT_ONCE)
            squares = square[rows, None] + square - 2.0 * x[rows] @ permuted.T
            for i, j in np.add(np.argwhere(np.tril(squares < 1e-9, start - 1)), (start, 0)):
                if np.linalg.norm(x[i] - permuted[j]) < _IDENTICAL:
                    raise InputError(
                        f"{frames.label}: frames {frames.index[j]} and {frames.index[i]} are the "
                        "same geometry; remove one of them"
                    )
