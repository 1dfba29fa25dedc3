"""Restart files: where a simulation stands, so that it continues bit for bit."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import partial
from pathlib import Path

import jax
import numpy as np

from jaxff.errors import InputError
from jaxff.npz import NpzReader, digest, write_npz
from jaxff.potential import Potential

FORMAT = "jaxff restart 2"


def write_restart(path, state, settings: dict, step: int, marks: list[dict]) -> None:
    """Write a restart file, whole or not at all.

    Args:
        path: the file, replaced.
        state: arrays in any nesting: jax-md's state and its origin.
        settings: what must be the same when continuing, as JSON-like values.
        step: steps done.
        marks: where each trajectory file stands.
    """
    header = {"format": FORMAT, "settings": settings, "step": step, "marks": marks}
    leaves = map(_plain, jax.tree.leaves(state))
    arrays = {f"state/{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
    write_npz(path, {"header": np.array(json.dumps(header)), **arrays})


def read_restart(path, start, settings: dict):
    """The state, the steps done and the trajectories' marks of a restart file.

    Args:
        path: the file.
        start: the state at the start of such a simulation.
        settings: those of the simulation to continue.

    Raises:
        InputError: not a restart file, or one of another simulation.
    """
    file = NpzReader(path, "restart file")
    try:
        header = json.loads(file.text("header"))
        known, step, marks = header["settings"], header["step"], header["marks"]
        if header["format"] != FORMAT:
            raise KeyError("format")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a {FORMAT}; remove it to start anew") from error
    wanted = json.loads(json.dumps(settings))
    changed = sorted(k for k in {*known, *wanted} if known.get(k) != wanted.get(k))
    if changed:
        raise InputError(
            f"{path} belongs to a simulation with another {', '.join(changed)}: continue with the "
            "settings it was started with, or name another file (folder) to start anew"
        )
    leaves, structure = jax.tree.flatten(start)
    found = []
    for i, leaf in enumerate(leaves):
        plain = _plain(leaf)
        value = file.need(
            f"state/{i}",
            lambda x, plain=plain: (
                None if (x.shape, x.dtype) == (plain.shape, plain.dtype) else "has another shape"
            ),
        )
        found.append(_like(leaf, value))
    return jax.tree.unflatten(structure, found), int(step), marks


def fingerprint(potential: Potential) -> str:
    """What tells a potential from others, in this process and the next: terms and parameters."""
    terms = [
        (
            p.name,
            p.term.kind,
            str(p.atoms),
            [_told(getattr(p.term, f.name)) for f in fields(p.term)],
        )
        for p in potential.program.placed
    ]
    return digest(terms, potential.params)


def _told(value):
    """A field of a term as an array or text; functions by their names, as addresses change."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, partial):
        return [_told(value.func), repr(value.args), repr(value.keywords)]
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    return repr(value)


def exists(path) -> bool:
    return path is not None and Path(path).is_file()


def _plain(leaf):
    """A leaf as an array that NumPy can hold."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _like(leaf, value):
    return jax.random.wrap_key_data(value) if _is_key(leaf) else jax.numpy.asarray(value)


def _is_key(leaf) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
