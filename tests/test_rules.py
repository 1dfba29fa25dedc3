"""Settings check the values of their fields when they are made."""

from dataclasses import fields, is_dataclass
from importlib import import_module

import numpy as np
import pytest

from jaxff import InputError
from jaxff.learn import Dipole, TorsionScan
from jaxff.settings import ChoiceRule, NumberRule, Settings, checked_number

MODULES = (
    "gdml", "learn.teaching", "md", "md.descent", "md.differentiable", "reference.generation",
    "reference.holes", "reference.levels", "reference.teacher",
)  # fmt: skip
REQUIRED = {"target": 1.0, "n": 5, "molecule": None}  # fields without a default


def with_subclasses(kind: type):
    """Yield a class and all of its subclasses."""
    yield kind
    for each in kind.__subclasses__():
        yield from with_subclasses(each)


for name in MODULES:
    import_module(f"jaxff.{name}")
PUBLIC = {
    f"{kind.__module__}.{kind.__name__}": kind
    for kind in with_subclasses(Settings)
    if is_dataclass(kind) and not kind.__name__.startswith("_")
}


def made(kind: type, **values):
    """Return settings with the given values."""
    needed = {item.name for item in fields(kind)} & REQUIRED.keys()
    return kind(**{name: REQUIRED[name] for name in needed} | values)


def test_the_settings_of_every_part_are_checked():
    names = {name.rpartition(".")[2] for name in PUBLIC}
    assert names >= {
        "CSVR", "Descent", "Distilling", "Gradient", "Kernel", "Labelling", "Langevin",
        "LeastSquares", "LocalKernel", "Loop", "NVE", "NoseHoover", "Output", "Plan", "Run",
        "Sampling", "Search", "Selection", "Solver", "Start", "Stop", "Teaching",
    }  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_each_number_and_flag_has_a_rule(name):
    plain = {"int", "float", "bool", "int | None", "float | None", "Number", "Temperature"}
    for item in fields(PUBLIC[name]):
        assert str(item.type) not in plain or "rule" in item.metadata, item.name


@pytest.mark.parametrize("name", PUBLIC)
def test_each_field_refuses_values_of_a_wrong_type_or_range(name):
    for item in fields(PUBLIC[name]):
        rule = item.metadata.get("rule")
        wrong = ["yes", 2, np.nan, [None]] if isinstance(rule, ChoiceRule) else []
        if isinstance(rule, NumberRule):
            wrong = ["5", "x", True, np.nan, [[1.0, 2.0]], [], np.array("1")]
            wrong += [-1] if max(rule.above, rule.least) >= 0.0 else []
            wrong += [1.5] if rule.whole else []
            wrong += [10**30] if np.isfinite(rule.most) else []
            wrong += [] if rule.infinite else [np.inf]
        for value in wrong:
            with pytest.raises(InputError, match=rf"{item.name} is .*, but must be "):
                made(PUBLIC[name], **{item.name: value})


@pytest.mark.parametrize("name", PUBLIC)
def test_settings_without_a_given_value_have_their_defaults(name):
    one = made(PUBLIC[name])
    for item in fields(one):
        if isinstance(rule := item.metadata.get("rule"), NumberRule) and item.default is not None:
            given = getattr(one, item.name)
            assert rule.several or type(given) in ((int,) if rule.whole else (float,))


def test_numbers_of_numpy_become_plain_numbers():
    assert type(checked_number("x", np.float32(2.0))) is float
    assert type(checked_number("x", np.int64(2), whole=True)) is int
    assert checked_number("x", np.array([1.0]), above=0.0) == 1.0
    assert checked_number("x", np.array([1, 2]), several=True) == (1.0, 2.0)


@pytest.mark.parametrize("weight", ["1.0", True, np.nan, None])
def test_targets_refuse_weights_and_values_that_are_not_numbers(weight):
    R = np.zeros((2, 3, 3))
    with pytest.raises(InputError, match="the TorsionScan target: weight is"):
        TorsionScan(R, np.zeros(2), weight=weight)
    with pytest.raises(InputError, match="energies must be finite numbers"):
        TorsionScan(R, ["0.0", "1.0"])
    with pytest.raises(InputError, match="dipoles must be finite numbers"):
        Dipole(R, np.zeros((2, 3), bool))
