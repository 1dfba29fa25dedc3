"""Labelling and sampling of geometries with any ASE calculator or potential."""

from __future__ import annotations

import importlib

# Modules are imported at their first use, because processes that label need no JAX.
_HOME = {
    "ActiveLearning": "active",
    "Round": "active",
    "active_learning": "active",
    "Hole": "holes",
    "Mended": "holes",
    "Search": "holes",
    "find_holes": "holes",
    "mend_holes": "holes",
    "label_md": "ase_dynamics",
    "CachedCalculator": "cached",
    "calculator": "calculators",
    "label_frames": "label",
    "Labelled": "results",
    "Labelling": "settings",
    "Distilling": "teacher",
    "Loop": "settings",
    "Sampling": "settings",
    "select": "selection",
    "student_of": "teacher",
    "Chain": "levels",
    "Lesson": "levels",
    "teach_levels": "levels",
    "CrossValidation": "generation",
    "Selection": "generation",
    "cross_validate": "generation",
    "two_step": "generation",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"jaxff.reference.{_HOME[name]}"), name)
    raise AttributeError(f"module 'jaxff.reference' has no attribute {name!r}")


def __dir__():
    return __all__
