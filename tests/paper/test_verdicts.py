"""Each rule agrees, disagrees and stays undecided where it should."""

import math

import pytest

from jaxff.analysis import Estimate
from jaxff.paper.claims import CLAIMS
from jaxff.paper.verdicts import (
    AGREES,
    DISAGREES,
    NOTHING,
    PARTLY,
    combined,
    judged,
    minus,
    ratio,
    shown,
    untested,
)

ERROR = 0.01


def cases(claim):
    """(a value inside the bounds, values outside, values near a bound) of a claim."""
    bounds = [b for b in (claim.low, claim.high) if math.isfinite(b)]
    width = claim.high - claim.low
    inside = claim.low + 1.0 if claim.high == math.inf else claim.high - min(1.0, width / 2)
    outside = [b + (10.0 if b == claim.high else -10.0) for b in bounds]
    return inside, outside, [b + s * ERROR for b in bounds for s in (-1, 1)]


@pytest.mark.parametrize("name", CLAIMS)
def test_each_rule_has_three_answers(name):
    inside, outside, near = cases(CLAIMS[name])
    assert judged(name, {"here": Estimate(inside, ERROR)}).verdict == AGREES
    for value in outside:
        assert judged(name, {"here": Estimate(value, ERROR)}).verdict == DISAGREES
    for value in near:
        assert judged(name, {"here": Estimate(value, ERROR)}).verdict == NOTHING
    for unknown in (Estimate(math.nan, ERROR), Estimate(inside, math.nan)):
        assert judged(name, {"here": unknown}).verdict == NOTHING


def test_an_error_that_covers_both_answers_decides_nothing():
    # Almost a factor of two, but with an error of 0.4.
    assert judged("factor-two", {"ethanol": Estimate(1.8, 0.05)}).verdict == AGREES
    assert judged("factor-two", {"ethanol": Estimate(1.8, 0.4)}).verdict == NOTHING
    assert judged("factor-two", {"ethanol": Estimate(1.2, 0.05)}).verdict == DISAGREES


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([AGREES, AGREES], AGREES),
        ([AGREES, DISAGREES], PARTLY),
        ([AGREES, NOTHING], PARTLY),
        ([PARTLY, DISAGREES], PARTLY),
        ([DISAGREES, NOTHING], DISAGREES),
        ([NOTHING, NOTHING], NOTHING),
        ([], NOTHING),
    ],
)
def test_verdicts_are_combined_by_one_rule(verdicts, expected):
    assert combined(verdicts) == expected


def test_what_is_not_tested_says_nothing():
    assert untested("factor-two", "circular").verdict == NOTHING
    assert judged("factor-two", {}).verdict == NOTHING


def test_errors_are_propagated():
    assert ratio(Estimate(2.0, 0.3), Estimate(1.0, 0.2)).error == pytest.approx(0.5)
    assert minus(Estimate(2.0, 0.3), Estimate(1.0, 0.4)).error == pytest.approx(0.5)
    assert math.isnan(ratio(Estimate(1.0, math.nan), Estimate(1.0, 0.1)).error)
    assert math.isnan(ratio(Estimate(1.0, 0.1), Estimate(0.0, 0.1)).mean)
    assert shown(Estimate(1.234, 0.05)) == "1.23 ± 0.05"
    assert shown(Estimate(123.4, math.nan)) == "123 ± ?"
