"""Rules for the values of settings, which are checked when the settings are made.

This module does not import JAX, so that the command line starts quickly.
"""

from __future__ import annotations

import math
import sys
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Protocol

import numpy as np

from jaxff.errors import InputError


class Rule(Protocol):
    """Values that are allowed for a setting."""

    @property
    def optional(self) -> bool:
        """Whether None is allowed; it is also allowed for settings with the default None."""
        ...

    def checked(self, name: str, value) -> Any:
        """Return a value of the setting `name` as a plain Python value.

        Raises:
            InputError: the value is not allowed.
        """
        ...


class Settings:
    """Base class of settings: dataclasses that check the fields made by the functions below.

    Raises:
        InputError: a value is not allowed.
    """

    def __post_init__(self) -> None:
        for item in fields(self):  # pyright: ignore[reportArgumentType] - subclasses are dataclasses
            rule, value = item.metadata.get("rule"), getattr(self, item.name)
            if rule is None or (value is None and (rule.optional or item.default is None)):
                continue
            object.__setattr__(self, item.name, rule.checked(item.name, value))


@dataclass(frozen=True, kw_only=True)
class NumberRule:
    """Rule for numbers; JAX tracers are not checked.

    Attributes:
        unit: unit of the setting, for messages.
        above: limit that the numbers must exceed.
        least, most: smallest and largest allowed number.
        whole: whether the numbers must be whole.
        several: whether a sequence of numbers is allowed.
        infinite: whether infinity is allowed.
        optional: whether None is allowed.
    """

    unit: str = ""
    above: float = -math.inf
    least: float = -math.inf
    most: float = math.inf
    whole: bool = False
    several: bool = False
    infinite: bool = False
    optional: bool = False

    def checked(self, name: str, value) -> Any:
        """Return a number, or several numbers as a tuple; see `Rule.checked`."""
        if is_traced(value):
            return value
        try:
            array = np.asarray(value)
        except ValueError:  # nested sequences of different lengths
            array = np.array(None)
        one = array.ndim == 0 or array.size == 1
        if not self._allows(array) or not (one or (self.several and array.ndim == 1)):
            shown = repr(value) if isinstance(value, str) else " ".join(str(value).split())
            raise InputError(f"{name} is {f'{shown} {self.unit}'.strip()}, but must be {self}")
        kind = int if self.whole else float
        return kind(array.item()) if one else tuple(map(kind, array.tolist()))

    def _allows(self, array: np.ndarray) -> bool:
        if array.size == 0 or array.dtype.kind not in "iuf":  # not numbers, but bools or text
            return False
        # Comparisons with NaN are false.
        fine = (array > self.above) & (array >= self.least) & (array <= self.most)
        if not self.infinite:
            fine &= np.isfinite(array)
        if self.whole:
            fine &= np.floor(array) == array
        return bool(fine.all())

    def __str__(self) -> str:
        kind = "whole number" if self.whole else "number" if self.infinite else "finite number"
        text = f"a {kind}" if not self.several else f"one or several {kind}s"
        if math.isfinite(self.most):
            return f"{text} from {self.least} to {self.most}"
        if math.isfinite(self.above):
            return f"{text} above {self.above:g}"
        return f"{text} of at least {self.least:g}" if math.isfinite(self.least) else text


@dataclass(frozen=True)
class ChoiceRule:
    """Rule for one of several values, such as names.

    Attributes:
        choices: the allowed values, each a string, a bool or None.
        optional: see `Rule`.
    """

    choices: tuple[str | bool | None, ...]
    optional: bool = False

    def checked(self, name: str, value) -> Any:
        """Return the choice that equals the value; see `Rule.checked`."""
        plain = value.item() if isinstance(value, np.bool_) else value
        for choice in self.choices:
            if isinstance(plain, str | bool | None) and plain == choice:
                return choice
        shown = repr(value) if isinstance(value, str | bool | int | float) else type(value).__name__
        known = ", ".join(map(str, self.choices))
        raise InputError(f"{name} is {shown}, but must be one of {known}")


SEED = NumberRule(least=0, most=2**63 - 1, whole=True)


# -- fields of settings --------------------------------------------------------------------------


def number(default: Any = MISSING, unit: str = "", *, text: str = "", **limits: Any) -> Any:
    """Return a field for a number.

    Args:
        default: the default; without it the field has no default.
        unit: unit of the setting.
        text: help text for the command line.
        limits: further attributes of `NumberRule`.
    """
    return _field(default, NumberRule(unit=unit, **limits), text)


def count(default: Any = MISSING, *, least: int = 1, text: str = "") -> Any:
    """Return a field for a whole number of at least `least`; see `number` for the others."""
    return _field(default, NumberRule(least=least, whole=True), text)


def random_seed(default: Any = 0) -> Any:
    """Return a field for the seed of random numbers."""
    return _field(default, SEED)


def choice(default: Any, choices: tuple[str | None, ...], text: str = "") -> Any:
    """Return a field for one of several names; `text` is the help text for the command line."""
    return _field(default, ChoiceRule(choices), text)


def flag(default: bool, text: str = "") -> Any:
    """Return a field for True or False; `text` is the help text for the command line."""
    return _field(default, ChoiceRule((True, False)), text)


def _field(default: Any, rule: Rule, text: str = "") -> Any:
    return field(default=default, metadata={"rule": rule, "help": text})


# -- arguments of functions ----------------------------------------------------------------------


def is_traced(value) -> bool:
    """Whether a value is a JAX tracer, so that its range cannot be checked."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.core.Tracer)


def checked_number(name: str, value, unit: str = "", **limits: Any) -> Any:
    """Return a number as a float or int; see `NumberRule` for the limits and `Rule` for errors."""
    return NumberRule(unit=unit, **limits).checked(name, value)


def checked_count(name: str, value, least: int = 1) -> int:
    """Return a whole number of at least `least`; raise `InputError` for other values."""
    return NumberRule(least=least, whole=True).checked(name, value)


def checked_seed(seed) -> int:
    """Return the seed of random numbers as an int; raise `InputError` for other values."""
    return SEED.checked("seed", seed)


def checked_type(name: str, value, kind: type) -> Any:
    """Return an object of a class of jaxff; raise `InputError` for other objects."""
    if isinstance(value, kind):
        return value
    raise InputError(f"{name} must be a jaxff.{kind.__name__}, got {type(value).__name__}")


def checked_choice(name: str, value, choices: tuple[str | None, ...]) -> Any:
    """Return one of several names; raise `InputError` for other values."""
    return ChoiceRule(choices).checked(name, value)
