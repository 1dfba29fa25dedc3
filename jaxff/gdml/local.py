"""The term of a local correction: an sGDML energy that is zero far from its training frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxff.gdml.descriptor import squared_distances as _squares
from jaxff.gdml.model import KernelTerm
from jaxff.potential import Array, Column, Params
from jaxff.space import Space


@dataclass(frozen=True, eq=False)
class LocalKernelTerm(KernelTerm):
    """An sGDML energy times a switch: one near the training frames, zero far away.

    E = s(q) E_kernel(x) for the descriptor x of a frame.  The P permuted images of the M training
    descriptors are x_j^p, and q = −τ log Σ_jp exp(−|x − x_j^p|²/τ) is a smooth minimum of the
    squared distances from x.  The switch s is 1 for q ≤ inner, 0 for q ≥ outer, and
    1 − t³(10 − 15 t + 6 t²) between, with t = (q − inner)/(outer − inner).  The energy is twice
    continuously differentiable.  Energy and forces are zero if all distances exceed
    sqrt(outer + τ log MP).

    Parameters in addition to those of `KernelTerm`:
        inner, outer: () 1/Å²; the switch is one for q below `inner` and zero for q above `outer`.
        softness: () τ, 1/Å².
    """

    kind: ClassVar[str] = "gdml-local"
    columns: ClassVar[dict[str, Column]] = {
        **KernelTerm.columns,
        "inner": Column("1/Å²", trainable=False),
        "outer": Column("1/Å²", trainable=False),
        "softness": Column("1/Å²", lower=0.0, trainable=False),
    }

    dimensions: ClassVar[dict[str, str]] = {
        **KernelTerm.dimensions,
        **dict.fromkeys(("inner", "outer", "softness"), ""),
    }

    def fault(self, params: Params) -> str | None:
        if not params["inner"] < params["outer"] or params["softness"] <= 0.0:
            return "inner must be below outer, and softness must be positive"
        return super().fault(params)

    def energies(self, params: Params, R: Array, space: Space) -> dict[str, Array]:
        kernel = super().energies(params, R, space)["gdml"]
        squares = _squares(self.images(params, R, space), params["descriptors"])
        q = soft_minimum(squares, params["softness"])
        energy = switch(q, params["inner"], params["outer"]) * kernel
        return {"correction": energy.astype(R.dtype)}


def soft_minimum(values: Array, softness: Array | float) -> Array:
    """Smooth minimum −τ log Σ exp(−v/τ), (), of values v; at most the smallest v.

    Args:
        values: v, of any shape.
        softness: τ, () in the unit of the values.
    """
    return -softness * jax.scipy.special.logsumexp(-jnp.asarray(values) / softness)


def switch(q: Array, inner: Array | float, outer: Array | float) -> Array:
    """Quintic switch of q: 1 for q ≤ inner, 0 for q ≥ outer, and twice differentiable."""
    t = jnp.clip((q - inner) / (outer - inner), 0.0, 1.0)
    return 1.0 - t**3 * (10.0 - 15.0 * t + 6.0 * t**2)
