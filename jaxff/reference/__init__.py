"""Labelling geometries, and sampling them, with any ASE calculator."""

from jaxff.reference.calculators import calculator
from jaxff.reference.label import Labelled, label_frames
from jaxff.reference.sample import label_md

__all__ = ["Labelled", "calculator", "label_frames", "label_md"]
