"""Learning from data: errors of a potential on a data set, and fitting its parameters."""

from jaxff.learn.ensemble import EnsembleAverage, EnsembleTarget, RelativeEntropy
from jaxff.learn.evaluate import aligned, errors, evaluate
from jaxff.learn.fit import Change, Fit, fit
from jaxff.learn.gradient import Labels, force_matching
from jaxff.learn.targets import Dipole, Hessian, Target, TorsionScan

__all__ = [
    "Change",
    "Dipole",
    "EnsembleAverage",
    "EnsembleTarget",
    "Fit",
    "Hessian",
    "Labels",
    "RelativeEntropy",
    "Target",
    "TorsionScan",
    "aligned",
    "errors",
    "evaluate",
    "fit",
    "force_matching",
]
