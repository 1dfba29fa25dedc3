"""Learning from data: errors of a potential on a data set, and fitting its parameters."""

from jaxff.learn.evaluate import aligned, errors, evaluate
from jaxff.learn.fit import Fit, fit, force_matching

__all__ = ["Fit", "aligned", "errors", "evaluate", "fit", "force_matching"]
