"""Derivatives of trajectories, and of ensemble averages by reweighting."""

from jaxff.md.differentiable.reweighting import (
    Average,
    Frames,
    Reweighting,
    UntrustedWarning,
    average,
    effective_frames,
    free_energy_difference,
    reweight,
    weights,
)
from jaxff.md.differentiable.rollouts import Trajectory, rollout
from jaxff.md.differentiable.sampling import Sampling
from jaxff.md.differentiable.steps import Plan
from jaxff.md.differentiable.trust import (
    Gradient,
    Trust,
    perturbation_growth,
    value_and_gradient,
)

__all__ = [
    "Average",
    "Frames",
    "Gradient",
    "Plan",
    "Reweighting",
    "Sampling",
    "Trajectory",
    "Trust",
    "UntrustedWarning",
    "average",
    "effective_frames",
    "free_energy_difference",
    "perturbation_growth",
    "reweight",
    "rollout",
    "value_and_gradient",
    "weights",
]
