"""Functions in files, by their names "module:function"."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

from jaxff.errors import InputError


def value_of(value, path):
    """The value that JSON values of a file describe: functions by name, and tuples for lists.

    Raises:
        InputError: a function is unknown.
    """
    if isinstance(value, dict):
        function = _function(value["function"], path)
        given = {key: value_of(v, path) for key, v in value.get("arguments", {}).items()}
        return partial(function, **given) if given else function
    return tuple(value_of(v, path) for v in value) if isinstance(value, list) else value


def described(function, path) -> dict:
    """A function as JSON values: the name, and arguments of a `functools.partial`.

    Raises:
        InputError: the function cannot be imported by its name.
    """
    if isinstance(function, partial) and not function.args:
        return {"function": _name_of(function.func, path), "arguments": function.keywords}
    return {"function": _name_of(function, path)}


def _name_of(function, path) -> str:
    name = f"{function.__module__}:{getattr(function, '__qualname__', '<unnamed>')}"
    if "<" in name or _find(name) is not function:
        raise InputError(
            f"{path}: not written, because the function {name} cannot be imported by its name; "
            "define the function at the top level of a module"
        )
    return name


def _function(name: str, path) -> Callable:
    function = _find(name)
    if function is None:
        module = name.partition(":")[0]
        raise InputError(
            f"{path}: the file needs the function {name}; import {module} before loading"
        )
    return function


def _find(name: str) -> Callable | None:
    """The Python function with the name "module:function", or None.

    The module must be imported already and must not belong to the standard library, so that a file
    cannot run other code.
    """
    module, _, qualified = name.partition(":")
    if module.partition(".")[0] in sys.stdlib_module_names - {"__main__"}:
        return None
    value: Any = sys.modules.get(module)
    for part in qualified.split("."):
        value = getattr(value, part, None)
    suitable = isinstance(value, FunctionType) and value.__module__ == module
    return value if suitable else None
