"""Molecular dynamics on jax-md: ensembles, replicas, trajectories, minimisation."""

from jaxff.md.descent import Descent, Minimum
from jaxff.md.minimize import minimize
from jaxff.md.record import Run, State
from jaxff.md.simulate import SimulationError, simulate
from jaxff.md.trajectory import open_trajectory, read_trajectory

__all__ = [
    "Descent",
    "Minimum",
    "Run",
    "SimulationError",
    "State",
    "minimize",
    "open_trajectory",
    "read_trajectory",
    "simulate",
]
