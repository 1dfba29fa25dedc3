"""Verdicts on statements of the paper, computed from numbers and errors by rules.

The verdict is "says nothing" if a bound of the rule is within `SIGMAS` standard errors of the
number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import hypot, isfinite, nan
from typing import NamedTuple

from jaxff.analysis.averages import Estimate
from jaxff.paper.claims import CLAIMS

AGREES, PARTLY, DISAGREES, NOTHING = VERDICTS = (
    "agrees",
    "partly agrees",
    "disagrees",
    "says nothing",
)
SIGMAS = 2.0


class Finding(NamedTuple):
    """The test of one statement of the paper.

    Attributes:
        claim: key in `CLAIMS`.
        obtained: the numbers here, with their errors.
        verdict: one of `VERDICTS`.
        reason: reason for a missing test, or further results; may be empty.
    """

    claim: str
    obtained: str
    verdict: str
    reason: str = ""


def between(value: Estimate, low: float, high: float) -> str:
    """Return the verdict on the statement that a value is between low and high.

    The verdict is "agrees" if the interval of two standard errors around the value is within the
    bounds, and "disagrees" if the interval is outside.  Otherwise, or if the value or the error is
    unknown, the verdict is "says nothing".
    """
    mean, error = float(value.mean), float(value.error)
    if not (isfinite(mean) and isfinite(error)):
        return NOTHING
    below, above = mean - SIGMAS * error, mean + SIGMAS * error
    if low < below and above < high:
        return AGREES
    if above <= low or below >= high:
        return DISAGREES
    return NOTHING


def combined(verdicts: Iterable[str]) -> str:
    """Combine the verdicts on several statements.

    The result is "agrees" if all agree, and "partly agrees" if some agree.  If none agrees, the
    result is "disagrees" if any disagrees, and otherwise "says nothing".
    """
    given = set(verdicts)
    if given == {AGREES}:
        return AGREES
    if given & {AGREES, PARTLY}:
        return PARTLY
    return DISAGREES if DISAGREES in given else NOTHING


def judged(claim: str, values: Mapping[str, Estimate], reason: str = "") -> Finding:
    """Test a statement of the paper on each value, such as one for each molecule."""
    rule = CLAIMS[claim]
    verdict = combined(between(v, rule.low, rule.high) for v in values.values())
    obtained = ", ".join(f"{name} {shown(value)}" for name, value in values.items())
    return Finding(claim, obtained, verdict, reason)


def untested(claim: str, reason: str) -> Finding:
    """Return the finding for a statement that is not tested, with the reason."""
    return Finding(claim, "not tested", NOTHING, reason)


def shown(value: Estimate, digits: int | None = None) -> str:
    """Format a number with the standard error; an unknown error is written as "± ?"."""
    mean, error = float(value.mean), float(value.error)
    if digits is None:
        digits = 0 if abs(mean) >= 20.0 else 1 if abs(mean) >= 10.0 else 2
    if not isfinite(mean):
        return "unknown"
    return f"{mean:.{digits}f} ± " + (f"{error:.{digits}f}" if isfinite(error) else "?")


def ratio(first: Estimate, second: Estimate) -> Estimate:
    """Return the ratio of two independent numbers, with the error to first order."""
    if not second.mean:
        return Estimate(nan, nan)
    value = first.mean / second.mean
    return Estimate(value, hypot(first.error, value * second.error) / abs(second.mean))


def minus(first: Estimate, second: Estimate) -> Estimate:
    """Return the difference of two independent numbers, with the error."""
    return Estimate(first.mean - second.mean, hypot(first.error, second.error))


def lowest(values: Iterable[Estimate]) -> Estimate:
    """Return the number with the lowest mean."""
    return min(values, key=lambda value: value.mean)
