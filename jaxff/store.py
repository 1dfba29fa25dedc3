"""Stores: the state of unfinished work on disk, together with its request.

A request contains everything that determines the result: settings, data and versions.  It consists
of nested dicts and lists of JSON values and arrays.  Only checksums of the arrays are stored.
The same request continues interrupted work.  A different request is an error that names the
settings that differ.

`Store` writes the state to one npz file. `claim` and `locked` manage a folder of several files.
`Rows` is a file to which several processes write rows of numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxff.errors import InputError
from jaxff.npz import NpzReader, atomic_path, writable_file, write_npz

FORMAT = "jaxff store 1"
REQUEST = "request.json"
LOCK = "lock"
SHOWN = 40  # characters; messages about settings that differ omit longer values


class Store:
    """The state of unfinished work in one npz file.

    Args:
        path: the file; None: `load` returns None, and `save` does nothing.
        request: everything that determines the result; see `described`.
        what: the kind of work, a noun such as "training", for messages.
        replace: whether the state of another request is replaced, instead of causing an error.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(
        self,
        path: str | Path | None,
        request: Mapping[str, Any],
        what: str = "calculation",
        *,
        replace: bool = False,
    ):
        self.path = None if path is None else Path(path)
        self.what, self.replace = what, replace
        if self.path is not None:
            writable_file(self.path)
            self.request = described(request)

    def load(self, like: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Read the state that `save` wrote last.

        Args:
            like: {name: example} of the entries that are pytrees of JAX arrays or random keys.
                Each example has the structure, shapes and dtypes of its entry.

        Returns:
            The state, or None if there is none.  Entries without an example consist of dicts,
            lists, JSON values and NumPy arrays.

        Raises:
            InputError: the file is damaged, or belongs to another request or kind of work.
        """
        if self.path is None or not self.path.exists():
            return None
        file = NpzReader(self.path, f"state of a {self.what}")
        try:
            header = json.loads(file.text("header"))
            known, state = header["request"], header["state"]
            if (header["format"], header["what"]) != (FORMAT, self.what):
                raise KeyError("format")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.path} is not the state of a {self.what} ({FORMAT}): delete the file to "
                "start again, or choose another file"
            ) from error
        if self.replace and differences(known, self.request):
            return None
        check_request(self.path, known, self.request, self.what)
        state = _decoded(state, file)
        for key, template in (like or {}).items():
            state[key] = self._restored(state.get(key), template, key)
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the state on disk; after an error the earlier state is unchanged.

        Args:
            state: nested dicts, lists and other pytrees of arrays, random keys and JSON values.

        Raises:
            InputError: the file cannot be written.
        """
        if self.path is None:
            return
        arrays: list[np.ndarray] = []
        header = {
            "format": FORMAT,
            "what": self.what,
            "request": self.request,
            "state": _encoded(dict(state), arrays),
        }
        named = {f"array_{i}": array for i, array in enumerate(arrays)}
        write_npz(self.path, {"header": np.array(json.dumps(header)), **named})

    def remove(self) -> None:
        """Delete the file if it exists."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _restored(self, value: Any, template: Any, key: str) -> Any:
        """A stored entry with the structure of a template and JAX arrays.

        Args:
            value: the stored entry.
            template: pytree with the structure, shapes and dtypes of the entry.
            key: name of the entry, for messages.

        Raises:
            InputError: shapes or dtypes differ from those of the template.
        """
        import jax

        leaves, structure = jax.tree.flatten(template)
        stored = jax.tree.leaves(value)
        kinds = [[(np.shape(x), getattr(x, "dtype", type(x))) for x in y] for y in (stored, leaves)]
        if kinds[0] != kinds[1]:
            raise InputError(
                f"{self.path}: the arrays {key!r} have other shapes or dtypes than those of this "
                f"{self.what}: delete the file to start again, or choose another file"
            )
        stored = [jax.numpy.asarray(x) if isinstance(x, np.ndarray) else x for x in stored]
        return jax.tree.unflatten(structure, stored)


def described(request: Any) -> Any:
    """A request as JSON values; each array becomes a text with its checksum.

    Args:
        request: nested dicts, lists and tuples of arrays, JSON values and paths.

    Raises:
        TypeError: a value has another type.
    """
    if request is None or isinstance(request, bool | int | float | str):
        return request
    if isinstance(request, Mapping):
        return {str(key): described(value) for key, value in request.items()}
    if isinstance(request, list | tuple):
        return [described(value) for value in request]
    if isinstance(request, np.generic):
        return request.item()
    if isinstance(request, Path):
        return str(request)
    if hasattr(request, "__array__"):
        array = np.ascontiguousarray(request)
        if array.dtype != object:
            checksum = hashlib.md5(array.tobytes(), usedforsecurity=False).hexdigest()
            return f"{array.dtype} {np.shape(request)} md5 {checksum}"
    raise TypeError(
        f"a request cannot contain a {type(request).__name__}; use JSON values, arrays and paths"
    )


def differences(known: Any, wanted: Any, name: str = "") -> list[str]:
    """Names and short values of the settings in which two requests differ.

    Args:
        known, wanted: results of `described`.
        name: prefix of the names.
    """
    if isinstance(known, dict) and isinstance(wanted, dict):
        keys = dict.fromkeys([*known, *wanted])
        return [
            difference
            for key in keys
            for difference in differences(
                known.get(key), wanted.get(key), f"{name}.{key}" if name else str(key)
            )
        ]
    old, new = json.dumps(known, sort_keys=True), json.dumps(wanted, sort_keys=True)
    if old == new:
        return []
    return [f"{name} {old} → {new}" if max(len(old), len(new)) <= SHOWN else name]


def check_request(path: str | Path, known: Any, wanted: Any, what: str) -> None:
    """Check that earlier work belongs to the same request.

    Args:
        path: the file or folder with the earlier work.
        known: request of the earlier work, a result of `described`.
        wanted: request of this call, a result of `described`.
        what: the kind of work, for messages.

    Raises:
        InputError: the requests differ; the message names the settings that differ.
    """
    changed = differences(known, wanted)
    if changed:
        raise InputError(
            f"{path} belongs to another {what} with other settings ({'; '.join(changed)}): use "
            f"its settings to continue it, delete {path} to start again, or choose another path"
        )


def claim(
    folder: str | Path,
    request: Mapping[str, Any],
    what: str,
    *,
    files: str | None = None,
    replace: bool = False,
) -> bool:
    """Assign a folder to a request.

    The file request.json in the folder contains the request.  A folder that contains only this file
    can be assigned to any request.

    Args:
        folder: the folder, which is created if it does not exist.
        request: everything that determines the result; see `described`.
        what: the kind of work, a noun such as "training", for messages.
        files: regular expression for the names of the files that this kind of work writes.  If it
            is given, other files in the folder are an error.  Files of replaced work, and files
            in a folder without a request, are deleted.
        replace: whether work on another request is replaced, instead of causing an error.

    Returns:
        Whether the folder contains earlier work on the same request.

    Raises:
        InputError: the folder cannot be written, or contains other files or work on another
            request.
    """
    folder, wanted = Path(folder), described(request)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose a folder for the {what}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write {folder}: {error.strerror or error}; choose another folder"
        ) from error
    # Names that begin with a dot belong to temporary files of an interrupted process.
    pieces = _pieces(folder)
    foreign = [
        path.name for path in pieces if files and not re.fullmatch(rf"{files}|\..*", path.name)
    ]
    if foreign:
        raise InputError(
            f"{folder} is not the folder of a {what}, because it contains {min(foreign)}: choose "
            "another folder, or delete its contents"
        )
    label = folder / REQUEST
    if label.is_file():
        try:
            known = json.loads(label.read_text())["request"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{label} is damaged: delete {folder} to start again") from error
        begun = has_pieces(folder)
        if not differences(known, wanted):
            return begun
        if begun and not replace:
            check_request(folder, known, wanted, what)
    if files:
        for path in pieces:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with atomic_path(label) as temporary:
        temporary.write_text(json.dumps({"format": FORMAT, "request": wanted}, indent=1) + "\n")
    return False


def has_pieces(folder: Path) -> bool:
    """Whether a folder has nonempty files besides request.json and the lock file."""
    return any(path.stat().st_size for path in _pieces(folder))


def _pieces(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name not in (REQUEST, LOCK)]


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Lock a folder for other processes until the block ends.

    Raises:
        InputError: another process has locked the folder.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no flock: users must not start two runs at once there.
        yield
        return
    with (Path(folder) / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another run uses {folder}: wait until that run ends, or choose another folder"
            ) from error
        yield


class Rows:
    """Rows of float64 numbers in one file; several processes may write to it.

    The last number of a row is its index plus one.  It identifies rows that are missing or
    incomplete.

    Args:
        path: the file; the first `write` creates it.
        count: number of rows.
        width: number of values in a row.
    """

    def __init__(self, path: str | Path, count: int, width: int):
        self.path, self.count, self.width = Path(path), count, width

    def write(self, row: int, values: np.ndarray) -> None:
        """Write `values` (width,) to the row with the index `row`, counted from zero."""
        record = np.append(np.asarray(values, np.float64), float(row + 1))
        with open(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            file.seek(row * record.nbytes)
            file.write(record.tobytes())

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Booleans (count,), True for complete rows, and values (count, width) or 0."""
        table = np.zeros((self.count, self.width + 1))
        if self.path.exists():
            raw = np.fromfile(self.path, np.float64)[: table.size]
            table.reshape(-1)[: len(raw)] = raw
        done = table[:, -1] == np.arange(1, self.count + 1)
        return done, np.where(done[:, None], table[:, :-1], 0.0)


def _encoded(value: Any, arrays: list[np.ndarray]) -> Any:
    """A state as JSON values; arrays are replaced by their indices in `arrays`.

    Raises:
        TypeError: a value cannot be stored.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {key: _encoded(item, arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(item, arrays) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            raise TypeError("a state cannot contain arrays of objects; use arrays of numbers")
        arrays.append(value)
        return {"$array": len(arrays) - 1}
    import jax

    if isinstance(value, jax.Array):
        if not jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
            return _encoded(np.asarray(value), arrays)
        data = _encoded(np.asarray(jax.random.key_data(value)), arrays)
        return {"$key": data["$array"], "kind": str(jax.random.key_impl(value))}
    leaves = jax.tree.leaves(value)
    if len(leaves) == 1 and leaves[0] is value:
        raise TypeError(
            f"a state cannot contain a {type(value).__name__}; use JSON values and arrays"
        )
    return [_encoded(leaf, arrays) for leaf in leaves]


def _decoded(value: Any, file: NpzReader) -> Any:
    """The state from the result of `_encoded`; pytrees become lists of leaves."""
    if isinstance(value, list):
        return [_decoded(item, file) for item in value]
    if not isinstance(value, dict):
        return value
    if "$array" in value:
        return file.need(f"array_{value['$array']}")
    if "$key" in value:
        import jax

        data = file.need(f"array_{value['$key']}")
        try:
            return jax.random.wrap_key_data(jax.numpy.asarray(data), impl=value["kind"])
        except (KeyError, TypeError, ValueError) as error:
            what = f"{file.path}: the array 'array_{value['$key']}' is not a key of random numbers"
            raise InputError(f"{what}: delete the file to start again") from error
    return {key: _decoded(item, file) for key, item in value.items()}
