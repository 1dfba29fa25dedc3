"""Molecular dynamics on jax-md: ensembles, replicas, trajectories, minimisation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

# The settings import no JAX.  Everything else is imported when it is first used, so that the
# command line can read the ensembles quickly.
from jaxff.md.ensembles import CSVR, ENSEMBLES, NPT, NVE, Ensemble, Langevin, NoseHoover
from jaxff.md.settings import Output, Start, Stop

if TYPE_CHECKING:
    from jaxff.md.descent import Descent, Minimum
    from jaxff.md.masses import repartition
    from jaxff.md.minimization import minimize
    from jaxff.md.record import Run
    from jaxff.md.simulation import ExtrapolationError, SimulationError, simulate
    from jaxff.md.stacked import simulate_stack
    from jaxff.md.state import State
    from jaxff.md.trajectory import open_trajectory, read_trajectory

_MODULES = {
    "Descent": "descent",
    "ExtrapolationError": "simulation",
    "Minimum": "descent",
    "Run": "record",
    "SimulationError": "simulation",
    "State": "state",
    "minimize": "minimization",
    "open_trajectory": "trajectory",
    "read_trajectory": "trajectory",
    "repartition": "masses",
    "simulate": "simulation",
    "simulate_stack": "stacked",
}

__all__ = [
    "CSVR",
    "ENSEMBLES",
    "NPT",
    "NVE",
    "Descent",
    "Ensemble",
    "ExtrapolationError",
    "Langevin",
    "Minimum",
    "NoseHoover",
    "Output",
    "Run",
    "SimulationError",
    "Start",
    "State",
    "Stop",
    "minimize",
    "open_trajectory",
    "read_trajectory",
    "repartition",
    "simulate",
    "simulate_stack",
]


def __getattr__(name: str):
    if name in _MODULES:
        value = getattr(importlib.import_module(f"jaxff.md.{_MODULES[name]}"), name)
    elif name in ("differentiable", "kinetics"):
        value = importlib.import_module(f"jaxff.md.{name}")
    else:
        raise AttributeError(f"module 'jaxff.md' has no attribute {name!r}")
    globals()[name] = value
    return value
