"""Solvers of the kernel system (K + λ) a = y by name, and the choice between them.

Both solvers use conjugate gradients.  The preconditioner is a Cholesky factor of K + λ in the dense
solver, and a low-rank approximation of K + λ in the iterative solver.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from jaxff import memory
from jaxff.errors import InputError
from jaxff.gdml import cholesky
from jaxff.gdml.dense import Dense, dense_bytes, factor_dtype
from jaxff.gdml.iterative import Iterative, iterative_bytes
from jaxff.gdml.operator import KernelOperator
from jaxff.gdml.settings import Run
from jaxff.settings import Settings, checked_choice, count, number

AUTO = "auto"
# Cost model of the choice: a product takes one unit of time per flop and seven per byte of memory
# (110 GFLOP/s, 15 GB/s).  The iterative solver takes 250 steps (67 to 600 were observed).  A factor
# may take twice the time, because its solution is more accurate.
TYPICAL_ITERATIONS, FLOPS_PER_BYTE, DENSE_BONUS, FLOPS_PER_SECOND = 250, 7, 2, 1.1e11
COMPILED = 1e8  # bytes reserved for compiled programs and their work arrays
COLUMNS = 1 / 20  # columns of the preconditioner per unknown, where the memory allows it
FEWEST_COLUMNS = 300


@dataclass(frozen=True, eq=False)
class Solver(Settings):
    """Settings of the solver of the kernel system.

    Args:
        name: "dense" (Cholesky factor), "iterative" (preconditioned conjugate gradients) or
            "auto" (chosen by the size of the system and the free memory).
        tolerance: relative residual at which the iterative solver stops.
        max_iterations: limit of the iterations of the iterative solver.
        mesh: devices, in one axis, over which the iterative solver distributes the frames (None:
            all devices, in all processes of `jax.distributed`).

    Raises:
        InputError: a value is invalid.
    """

    name: str = AUTO
    tolerance: float = number(1e-4, above=0.0)
    max_iterations: int = count(5000)
    mesh: jax.sharding.Mesh | None = None

    def __post_init__(self):
        super().__post_init__()
        checked_choice("solver", self.name, (AUTO, *SOLVERS))


def make_solver(op: KernelOperator, settings: Solver, run: Run, label: str) -> Dense | Iterative:
    """Make the solver of the system (K + λ) a = y.

    Args:
        op: the operator K + λ: kernel matrix plus regularisation.
        settings: the settings of the solver.
        run: seed, memory limit and progress; `run.checkpoint` is the file for the state of the
            iterative solver.
        label: name of the data set, for messages.

    Raises:
        InputError: too little memory, a matrix that is not positive definite, or constrained
            energies with the iterative solver.
    """
    free = free_memory(run.memory)
    name = settings.name if settings.name != AUTO else automatic(op, free)
    return SOLVERS[name](op, settings, run, free, label)


def automatic(op: KernelOperator, free: float) -> str:
    """Name of the solver that is faster for a system, given the free memory in bytes."""
    if op.values or (dense_bytes(op) <= free and _factor_pays(op)):
        return "dense"
    return "iterative"


def typical_seconds(n_frames: int, n_atoms: int, n_perms: int) -> float:
    """Estimated time of a training with the iterative solver on two idle cores, s.

    Args:
        n_frames: number of training frames.
        n_atoms: number of atoms.
        n_perms: number of permutations.
    """
    size = n_frames * max(3 * n_atoms - 6, 1)
    product = 8 * n_perms * n_frames**2 * (n_atoms * (n_atoms - 1) // 2)
    preconditioner = 16 * FLOPS_PER_BYTE * size * _usual_columns(size)
    return TYPICAL_ITERATIONS * (product + preconditioner) / FLOPS_PER_SECOND


def free_memory(limit: float | None) -> float:
    """Memory that a solver may use, bytes.

    Args:
        limit: memory limit of the whole process, GB (None: 80 % of the machine's memory).
    """
    capacity = memory.capacity()
    if limit is not None:
        allowed = limit * 1e9
    elif capacity is not None:
        allowed = 0.8 * capacity
    else:
        return np.inf
    return allowed - memory.held() - COMPILED


def affordable_columns(op: KernelOperator, free: float, label: str) -> int:
    """Number of columns of the preconditioner that fit into the memory.

    Args:
        op: the operator K + λ: kernel matrix plus regularisation.
        free: free memory, bytes.
        label: name of the data set, for messages.

    Raises:
        InputError: even the smallest preconditioner needs more memory.
    """
    columns = _usual_columns(op.size)
    while columns > 50 and iterative_bytes(op, columns) > free:
        columns = int(0.9 * columns)
    needed = iterative_bytes(op, columns)
    if needed > free:
        raise InputError(
            f"{label}: even the smallest preconditioner of {op.size:,} unknowns needs "
            f"{needed / 1e9:.1f} GB, but {max(free, 0.0) / 1e9:.1f} GB are free: use fewer frames "
            "or raise the memory limit"
        )
    return columns


def _dense(op: KernelOperator, settings: Solver, run: Run, free: float, label: str) -> Dense:
    needed = dense_bytes(op)
    if needed > free:
        raise InputError(
            f"{label}: a factor of {op.size:,} unknowns needs {needed / 1e9:.1f} GB, "
            f"but {max(free, 0.0) / 1e9:.1f} GB are free: use the iterative solver, fewer "
            "frames or more memory"
        )
    try:
        return Dense(op, factor_dtype(op), run.report)
    except cholesky.NotPositiveDefinite as error:
        raise InputError(
            f"{label}: the kernel matrix is not positive definite at λ = {float(op.lam):g}: "
            "remove nearly identical frames or raise lam"
        ) from error


def _iterative(
    op: KernelOperator, settings: Solver, run: Run, free: float, label: str
) -> Iterative:
    columns = affordable_columns(op, free, label)
    if op.values:
        raise InputError(
            f"{label}: the iterative solver cannot constrain energies: use the dense solver, or "
            'energies="offset"'
        )
    mesh = settings.mesh
    if mesh is None and jax.device_count() > 1:
        auto = (jax.sharding.AxisType.Auto,)
        mesh = jax.make_mesh((jax.device_count(),), ("frames",), axis_types=auto)
    return Iterative(
        op if mesh is None else op.sharded(mesh),
        columns,
        tolerance=settings.tolerance,
        max_iterations=settings.max_iterations,
        seed=run.seed,
        checkpoint=run.checkpoint,
        progress=run.report,
    )


# The registry of solvers: functions that make the solver of an operator.
SOLVERS: dict[str, Callable[[KernelOperator, Solver, Run, float, str], Dense | Iterative]] = {
    "dense": _dense,
    "iterative": _iterative,
}


def _factor_pays(op: KernelOperator) -> bool:
    n_perms, dimension = op.entries.shape
    product = 8 * n_perms * op.n_frames**2 * dimension
    preconditioner = 2 * op.dtype.itemsize * FLOPS_PER_BYTE * op.size * _usual_columns(op.size)
    return op.size**3 / 3 <= DENSE_BONUS * TYPICAL_ITERATIONS * (product + preconditioner)


def _usual_columns(size: int) -> int:
    return min(max(round(COLUMNS * size), FEWEST_COLUMNS), size)
