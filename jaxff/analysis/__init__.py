"""Observables of trajectories, energy surfaces, minima and normal modes."""

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
from jaxff.analysis.modes import Modes, hessian, normal_modes
from jaxff.analysis.sampling import (
    Agreement,
    Residence,
    compare,
    joint_occupations,
    residence,
    rmsd,
    torsion_distance,
)
from jaxff.analysis.scans import Scan, difference, scan
from jaxff.analysis.spectra import Peak, Spectrum, internal_velocities, peak_shifts, spectrum
from jaxff.analysis.stationary_points import (
    Minima,
    Ordering,
    StationaryPoints,
    automorphisms,
    conformers,
    minima,
    ordering,
)
from jaxff.analysis.thermodynamics import free_energy, free_energy_and_error, heat_capacity
from jaxff.analysis.torsions import rotatable_torsions, torsion_label
from jaxff.md.descent import relax
from jaxff.md.surface import as_surface

__all__ = [
    "Agreement", "Estimate", "Minima", "Modes", "Ordering", "Peak", "Residence", "Scan",
    "Spectrum", "StationaryPoints", "angles", "as_surface", "atom_pairs", "autocorrelation_time",
    "automorphisms", "average", "compare", "conformers", "density", "difference", "distances",
    "free_energy", "free_energy_and_error", "heat_capacity", "hessian", "internal_velocities",
    "joint_occupations", "mean_and_error", "mean_square_displacement", "minima", "normal_modes",
    "occupations", "ordering", "pair_density", "pair_occupations", "peak_shifts",
    "radial_distribution", "relax", "residence", "rmsd", "rotatable_torsions", "scan",
    "spectral_centroid", "spectrum", "torsion_angles", "torsion_distance", "torsion_label",
    "vdos", "velocity_autocorrelation",
]  # fmt: skip
