"""Boxes of solvent: water models, ions, solvation and mixtures of liquids."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxff.solvent.implicit import gbsa
    from jaxff.solvent.liquids import liquid
    from jaxff.solvent.models import WATER_MODELS, WaterModel
    from jaxff.solvent.solvation import solvate

# The command line reads the names of water models before it imports JAX.
_HOME = {
    "WATER_MODELS": "models",
    "WaterModel": "models",
    "gbsa": "implicit",
    "liquid": "liquids",
    "solvate": "solvation",
}

__all__ = ["WATER_MODELS", "WaterModel", "gbsa", "liquid", "solvate"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"jaxff.solvent.{_HOME[name]}"), name)
    raise AttributeError(f"module 'jaxff.solvent' has no attribute {name!r}")
