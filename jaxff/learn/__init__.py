"""Learning from data: errors of a potential on a data set, and fitting its parameters."""

from __future__ import annotations

import importlib

# Imported on first use: the command line reads the default settings without loading JAX.
_HOME = {
    "Change": "changes",
    "EnsembleAverage": "ensemble_targets",
    "EnsembleTarget": "ensemble_targets",
    "RelativeEntropy": "ensemble_targets",
    "aligned": "evaluation",
    "errors": "evaluation",
    "evaluate": "evaluation",
    "Fit": "fitting",
    "fit": "fitting",
    "Labels": "gradient",
    "force_matching": "gradient",
    "METHODS": "settings",
    "Gradient": "settings",
    "LeastSquares": "settings",
    "Method": "settings",
    "Dipole": "targets",
    "Hessian": "targets",
    "Target": "targets",
    "TorsionScan": "targets",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"jaxff.learn.{_HOME[name]}"), name)
    raise AttributeError(f"module 'jaxff.learn' has no attribute {name!r}")


def __dir__():
    return __all__
