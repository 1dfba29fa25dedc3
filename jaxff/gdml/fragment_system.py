"""The kernel equations with kernels on fragments: from labels to a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import reduce
from operator import add

import jax.numpy as jnp
import numpy as np

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.fragment_operator import FragmentOperator
from jaxff.gdml.fragment_term import FragmentKernelTerm
from jaxff.gdml.fragments import FragmentType
from jaxff.gdml.operator import KernelOperator
from jaxff.gdml.settings import Run
from jaxff.gdml.solvers import Solver
from jaxff.gdml.system import KernelSystem
from jaxff.potential import Potential

UNKNOWNS = 12_000  # largest number of unknowns of a system with fragments


class FragmentSystem(KernelSystem):
    """The equations (K + λ) a = y with kernels on fragments and on the whole molecule.

    Args:
        frames: M training frames of N atoms.
        permutations: (P, N) a group of atom permutations of the whole molecule.
        kinds: the types of fragments.
        sigma: length scale of the kernel on the whole molecule, 1/Å.
        lam: regularisation λ.
        solver: settings of the solver, which must be the dense one.
        run: seed, memory limit and progress.

    Raises:
        InputError: as for `KernelSystem`.  Also: more than 12,000 unknowns, or the iterative
            solver.
    """

    def __init__(
        self,
        frames: Dataset,
        permutations: np.ndarray,
        kinds: Sequence[FragmentType],
        sigma: float,
        lam: float = 1e-10,
        *,
        solver: Solver | None = None,
        run: Run | None = None,
    ):
        solver = solver or Solver()
        check_fragments(frames, solver)
        self.kinds = tuple(kinds)
        dense = replace(solver, name="dense")
        super().__init__(frames, permutations, sigma, lam, solver=dense, run=run)

    def _completed(self, op: KernelOperator, frames: Dataset) -> KernelOperator:
        return FragmentOperator.with_fragments(op, frames.positions, self.kinds, frames.lattice)

    def _model(self, a, labels: Dataset, std: float, mean: float, provenance: dict) -> Potential:
        """The sum of one term for each type of fragments, and of the kernel on the molecule."""
        whole = super()._model(a, labels, std, mean, provenance)
        term, shared = whole.program.placed[0].term, whole.params["gdml"]
        known = {field.name: getattr(term, field.name) for field in fields(term)}
        op, parts = self.op, []
        assert isinstance(op, FragmentOperator)
        for kind, part, expansion in zip(self.kinds, op.parts, op.expansions(a), strict=True):
            own = {
                **known,
                "permutations": kind.permutations,
                "entries": np.asarray(part.op.entries),
                "instances": kind.instances,
            }
            params = {
                "descriptors": expansion.descriptors,
                "centre": part.op.centre,
                "coefficients": expansion.slopes,
                "sigma": expansion.sigma,
                "offset": jnp.zeros(()),
                **{key: shared[key] for key in ("std", "lam", "lattice") if key in shared},
            }
            parts.append(Potential.of("fragments", FragmentKernelTerm(**own), params))
        return reduce(add, [*parts, whole])


def check_fragments(frames: Dataset, solver: Solver) -> None:
    """Raise InputError if kernels on fragments cannot be trained on the frames."""
    unknowns = len(frames) * max(3 * frames.n_atoms - 6, 1)
    if unknowns > UNKNOWNS:
        most = UNKNOWNS // max(3 * frames.n_atoms - 6, 1)
        raise InputError(
            f"{frames.label}: {len(frames)} frames have {unknowns:,} unknowns, but kernels on "
            f"fragments are trained with at most {UNKNOWNS:,}: use at most {most} frames, or no "
            "fragments"
        )
    if solver.name == "iterative":
        raise InputError(
            "kernels on fragments need a Cholesky factor: use the dense solver, or no fragments"
        )
