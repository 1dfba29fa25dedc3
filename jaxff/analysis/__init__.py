"""Looking at geometries and trajectories."""

from jaxff.analysis.torsions import rotatable_torsions, torsion_angles, torsion_label

__all__ = ["rotatable_torsions", "torsion_angles", "torsion_label"]
