"""Observables of trajectories, energy surfaces, minima and normal modes."""

from jaxff.analysis.averages import (
    Estimate,
    autocorrelation_time,
    average,
    equilibration,
    estimate,
    mean_and_error,
)
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
    radial_distributions,
)
from jaxff.analysis.hydrogen_bonds import hydrogen_bonds
from jaxff.analysis.liquids import (
    compressibility,
    dielectric_constant,
    dipole_moments,
    enthalpies,
    enthalpy_of_vaporization,
    mass_densities,
    molecule_pairs,
    thermal_expansion,
    volumes,
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
from jaxff.analysis.thermodynamics import (
    free_energy,
    free_energy_and_error,
    heat_capacity,
    heat_capacity_and_error,
)
from jaxff.analysis.torsions import rotatable_torsions, torsion_label
from jaxff.analysis.transport import (
    Diffusion,
    diffusion,
    finite_size_correction,
    molecular_centres,
)
from jaxff.md.descent import relax
from jaxff.md.surface import as_surface

__all__ = [
    "Agreement", "Diffusion", "Estimate", "Minima", "Modes", "Ordering", "Peak", "Residence",
    "Scan", "Spectrum", "StationaryPoints", "angles", "as_surface", "atom_pairs",
    "autocorrelation_time", "automorphisms", "average", "compare", "compressibility", "conformers",
    "density", "dielectric_constant", "difference", "diffusion", "dipole_moments", "distances",
    "enthalpies", "enthalpy_of_vaporization", "equilibration", "estimate", "finite_size_correction",
    "free_energy", "free_energy_and_error", "heat_capacity", "heat_capacity_and_error", "hessian",
    "hydrogen_bonds", "internal_velocities", "joint_occupations", "mass_densities",
    "mean_and_error", "mean_square_displacement", "minima", "molecular_centres", "molecule_pairs",
    "normal_modes", "occupations", "ordering", "pair_density", "pair_occupations", "peak_shifts",
    "radial_distribution", "radial_distributions", "relax", "residence", "rmsd",
    "rotatable_torsions", "scan", "spectral_centroid", "spectrum", "thermal_expansion",
    "torsion_angles", "torsion_distance", "torsion_label", "vdos", "velocity_autocorrelation",
    "volumes",
]  # fmt: skip
