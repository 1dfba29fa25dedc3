"""The energy of all fragments of one type, which share one kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import jax
import numpy as np

from jaxff.gdml.model import KernelTerm
from jaxff.potential import Array, Params
from jaxff.space import Space


@dataclass(frozen=True, eq=False)
class FragmentKernelTerm(KernelTerm):
    """The sum of one sGDML energy over all fragments of a type.

    E = Σ_f E_kernel(R_f), where R_f are the positions of the K atoms of fragment f.  The M
    training geometries are the geometries of all fragments in all training frames. `permutations`
    permute the K atoms of a fragment.

    Attributes in addition to those of `KernelTerm`:
        instances: (F, K) atoms of each fragment; the atoms of one column correspond to each other.
    """

    kind: ClassVar[str] = "gdml-fragments"
    dimensions: ClassVar[dict[str, str]] = {
        **KernelTerm.dimensions,
        "permutations": "P K",
        "instances": "F K",
    }

    instances: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), int))

    def fault(self, params: Params) -> str | None:
        rows = np.sort(self.instances, axis=1)
        if not rows.size or rows.min() < 0 or rows.max() >= self.n_atoms:
            return "instances contains no atoms or an index out of range"
        if (np.diff(rows, axis=1) == 0).any():
            return "instances names one atom twice in one row"
        return super().fault(params)

    def frame_bytes(self, params: Params) -> int:
        return len(self.instances) * super().frame_bytes(params)

    def images(self, params: Params, R: Array, space: Space) -> Array:
        """Permuted descriptors (F P, D) of all fragments of R (N, 3) Å, relative to `centre`."""
        one = super().images
        images = jax.vmap(lambda R: one(params, R, space))(R[self.instances])
        return images.reshape(-1, images.shape[-1])

    def energies(self, params: Params, R: Array, space: Space) -> dict[str, Array]:
        return {"fragments": super().energies(params, R, space)["gdml"]}
