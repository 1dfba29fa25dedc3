"""The file with the state of a fit, and with all data and settings of this fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jaxff.dataset import Dataset
from jaxff.learn.problem import Problem
from jaxff.learn.settings import Method
from jaxff.learn.state import State
from jaxff.store import Store

S = TypeVar("S", bound=State)


def checkpoint_of(
    path: str | Path | None,
    problem: Problem,
    method: Method,
    trainable: Sequence[str] | str | None,
    valid: Sequence[Dataset] | None,
    targets: Sequence[Sequence],
) -> Store:
    """Return the store for the state of a fit.

    Args:
        path: the file, or None for a store that keeps nothing.
        problem: molecules, frames and free parameters.
        method: settings of the method.
        trainable: patterns of parameter names, or None.
        valid: validation frames of each molecule, or None.
        targets: further targets of each molecule.

    Raises:
        InputError: the file cannot be written.
    """
    if path is None:
        return Store(None, {})
    programs = problem.joint.programs
    request = {
        "method": described(method),
        "trainable": trainable,
        "parameters": problem.joint.first.params,
        "terms": described([placed.term for program in programs for placed in program.placed]),
        "train": [(data.positions, data.forces, data.energies) for data in problem.data],
        "valid": [(data.positions, data.forces, data.energies) for data in valid or ()],
        "targets": described(targets),
    }
    return Store(path, request, "fit")


def resumed(store: Store, initial: S, like: Mapping[str, Any] | None = None) -> S:
    """Return the state in the store, or `initial` if the store is empty.

    Args:
        store: the store.
        initial: the state before the first step.
        like: trees by name, which have the same structure as the stored entries.

    Raises:
        InputError: the file is damaged, or belongs to a fit of other data or settings.
    """
    known = store.load(like)
    return initial if known is None else type(initial)(**known)


def described(thing: Any) -> Any:
    """Describe settings, terms or targets by nested JSON values and arrays.

    A function is described by its name, and any other object by its class and numbers.
    """
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if isinstance(thing, Mapping):
        return {str(key): described(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [described(value) for value in thing]
    if hasattr(thing, "__array__"):
        return np.asarray(thing)
    name = {"class": getattr(thing, "__qualname__", type(thing).__qualname__)}
    if is_dataclass(thing) and not isinstance(thing, type):
        return name | {f.name: described(getattr(thing, f.name)) for f in fields(thing)}
    values = getattr(thing, "__dict__", {}).items()
    return name | {key: v for key, v in values if isinstance(v, np.ndarray | float | int | str)}
