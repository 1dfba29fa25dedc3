"""Looking at geometries and trajectories: pure functions of arrays, differentiable with JAX."""

from jaxff.analysis.averages import Estimate, autocorrelation_time, average, mean_and_error
from jaxff.analysis.coordinates import angles, atom_pairs, distances, torsion_angles
from jaxff.analysis.correlations import (
    mean_square_displacement,
    spectral_centroid,
    vdos,
    velocity_autocorrelation,
)
from jaxff.analysis.distributions import (
    density,
    occupations,
    pair_density,
    pair_occupations,
    radial_distribution,
)
from jaxff.analysis.thermodynamics import free_energy, free_energy_and_error, heat_capacity
from jaxff.analysis.torsions import rotatable_torsions, torsion_label

__all__ = [
    "Estimate",
    "angles",
    "atom_pairs",
    "autocorrelation_time",
    "average",
    "density",
    "distances",
    "free_energy",
    "free_energy_and_error",
    "heat_capacity",
    "mean_and_error",
    "mean_square_displacement",
    "occupations",
    "pair_density",
    "pair_occupations",
    "radial_distribution",
    "rotatable_torsions",
    "spectral_centroid",
    "torsion_angles",
    "torsion_label",
    "vdos",
    "velocity_autocorrelation",
]
