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
from jaxff.analysis.sampling import (
    Agreement,
    Residence,
    compare,
    joint_occupations,
    residence,
    rmsd,
    torsion_distance,
)
from jaxff.analysis.spectra import Peak, Spectrum, internal_velocities, peak_shifts, spectrum
from jaxff.analysis.thermodynamics import free_energy, free_energy_and_error, heat_capacity
from jaxff.analysis.torsions import rotatable_torsions, torsion_label

__all__ = [
    "Agreement",
    "Estimate",
    "Peak",
    "Residence",
    "Spectrum",
    "angles",
    "atom_pairs",
    "autocorrelation_time",
    "average",
    "compare",
    "density",
    "distances",
    "free_energy",
    "free_energy_and_error",
    "heat_capacity",
    "internal_velocities",
    "joint_occupations",
    "mean_and_error",
    "mean_square_displacement",
    "occupations",
    "pair_density",
    "pair_occupations",
    "peak_shifts",
    "radial_distribution",
    "residence",
    "rmsd",
    "rotatable_torsions",
    "spectral_centroid",
    "spectrum",
    "torsion_angles",
    "torsion_distance",
    "torsion_label",
    "vdos",
    "velocity_autocorrelation",
]
