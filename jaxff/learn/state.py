"""State of a fit between two steps or epochs, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(kw_only=True)
class State:
    """State of a fit that all methods have in common.

    Attributes:
        vector: (P,) present moves: changes of the free parameters, divided by the scales of the
            parameters; see `jaxff.parameters.FreeParameters`.
        losses: objective after each step or epoch.
        valid: force RMSE of the validation frames after each step or epoch, kcal/mol/Å.
        shares: smallest effective share of the ensembles' frames after each step or epoch.
        draws: total number of draws of frames after each step or epoch.
        samples: arrays of the present frames of the ensembles.
    """

    vector: np.ndarray
    losses: list[float] = field(default_factory=list)
    valid: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    draws: list[int] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)

    @property
    def phase(self) -> str:
        """Name of the phase for a progress bar, with the last validation error."""
        return f"fit (validation force RMSE {self.valid[-1]:.3f})" if self.valid else "fit"


@dataclass(frozen=True, eq=False)
class Solution:
    """Result of a method.

    Attributes:
        vector: (P,) moves with the smallest objective; see `State`.
        state: the last state.
        converged: whether the convergence criterion was met.
        errors: (P,) standard errors of the moves, or None.
    """

    vector: np.ndarray
    state: State
    converged: bool
    errors: np.ndarray | None = None
