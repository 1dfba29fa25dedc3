"""Labelling geometries, and sampling them, with any ASE calculator or potential."""

from __future__ import annotations

import importlib

# Imported when first asked for: the processes that label need neither dynamics nor kernels.
_HOME = {
    "ActiveLearning": "active",
    "Round": "active",
    "active_learning": "active",
    "calculator": "calculators",
    "Labelled": "label",
    "label_frames": "label",
    "label_md": "sample",
    "Remembered": "remembered",
    "select": "selection",
    "CrossValidation": "generation",
    "Sampler": "generation",
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
