"""Fits of parameters to data, and errors of a potential on a data set."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxff.learn.changes import Change
    from jaxff.learn.ensemble_targets import EnsembleAverage, EnsembleTarget, RelativeEntropy
    from jaxff.learn.evaluation import aligned, errors, evaluate
    from jaxff.learn.fitting import Fit, fit
    from jaxff.learn.gradient import Labels, force_matching
    from jaxff.learn.settings import METHODS, Gradient, LeastSquares, Method
    from jaxff.learn.students import Level, Student, Taught
    from jaxff.learn.targets import Dipole, Hessian, Target, TorsionScan
    from jaxff.learn.teaching import Teaching, teach

# The command line reads the settings before it imports JAX, so names are imported at first use. No
# module may have the name of a function here: importing it would replace the function.
_HOME = {
    "changes": ["Change"],
    "ensemble_targets": ["EnsembleAverage", "EnsembleTarget", "RelativeEntropy"],
    "evaluation": ["aligned", "errors", "evaluate"],
    "fitting": ["Fit", "fit"],
    "gradient": ["Labels", "force_matching"],
    "settings": ["METHODS", "Gradient", "LeastSquares", "Method"],
    "students": ["Level", "Student", "Taught"],
    "teaching": ["Teaching", "teach"],
    "targets": ["Dipole", "Hessian", "Target", "TorsionScan"],
}

__all__ = [
    "METHODS",
    "Change",
    "Dipole",
    "EnsembleAverage",
    "EnsembleTarget",
    "Fit",
    "Gradient",
    "Hessian",
    "Labels",
    "LeastSquares",
    "Level",
    "Method",
    "RelativeEntropy",
    "Student",
    "Target",
    "Taught",
    "Teaching",
    "TorsionScan",
    "aligned",
    "errors",
    "evaluate",
    "fit",
    "force_matching",
    "teach",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"jaxff.learn.{module}"), name)
    raise AttributeError(f"module 'jaxff.learn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
