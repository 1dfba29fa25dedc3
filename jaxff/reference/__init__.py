"""Labelling geometries, and sampling them, with any ASE calculator."""

from jaxff.reference.active import ActiveLearning, Round, active_learning
from jaxff.reference.calculators import calculator
from jaxff.reference.label import Labelled, label_frames
from jaxff.reference.sample import label_md
from jaxff.reference.select import select
from jaxff.reference.two_step import (
    CrossValidation,
    Sampler,
    cross_validate,
    two_step,
)

__all__ = [
    "ActiveLearning",
    "CrossValidation",
    "Labelled",
    "Round",
    "Sampler",
    "active_learning",
    "calculator",
    "cross_validate",
    "label_frames",
    "label_md",
    "select",
    "two_step",
]
