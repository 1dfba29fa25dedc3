"""Molecular dynamics on jax-md: integrators in chunks, trajectories."""

from jaxff.md.simulate import Run, SimulationError, State, simulate

__all__ = ["Run", "SimulationError", "State", "simulate"]
