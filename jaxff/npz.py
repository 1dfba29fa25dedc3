"""npz files: they are written atomically and read without pickles."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxff.errors import InputError

# No physical quantity in a file is larger, and the products of larger numbers may overflow.
LARGEST = 1e30


def usable(values) -> np.ndarray:
    """Whether each number is finite and its absolute value is below `LARGEST`."""
    return np.abs(np.asarray(values, float)) < LARGEST


@contextmanager
def atomic_path(path):
    """Yield the path of a temporary file that replaces `path` if the block succeeds.

    Raises:
        InputError: `path` is a folder or cannot be written; no file is changed.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give the path of a file")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise _not_writable(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # files of mkstemp are private
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _not_writable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write {path}: {error.strerror or error}; choose another path")


def writable_file(path) -> None:
    """Check that the file `path` can be written, without writing it.

    Raises:
        InputError: `path` is a folder, its folder does not exist, or it cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give the path of a file")
    if not path.parent.is_dir():
        raise InputError(
            f"cannot write {path}: the folder {path.parent} does not exist; make it first"
        )
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _not_writable(path, error) from error


def write_npz(path, arrays: Mapping[str, Any]) -> None:
    """Write arrays {name: array} to a compressed npz file with the name `path`.

    Raises:
        InputError: the file cannot be written; an earlier file is then unchanged.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


class NpzReader:
    """The arrays of one npz file, which are read on request.

    Pickled arrays are never read; `get` treats them as missing.

    Args:
        path: the file.
        what: kind of file, for messages.

    Raises:
        InputError: the file is missing, truncated or damaged.
    """

    def __init__(self, path, what: str = "npz file"):
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"{self.path}: no such file; check the path")
        try:
            # This verifies all checksums, so that a truncated file fails immediately.
            with zipfile.ZipFile(self.path) as archive:
                broken = archive.testzip()
            if broken is not None:
                raise zipfile.BadZipFile(broken)
            # The file is read from memory, so that it does not remain open after an error.
            self._file = np.load(io.BytesIO(self.path.read_bytes()), allow_pickle=False)
        except (
            zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, NotImplementedError,
            RuntimeError,
        ) as error:  # fmt: skip
            raise InputError(
                f"{self.path}: not a readable {what} (truncated or damaged); copy or make the file "
                "again"
            ) from error

    def __contains__(self, key: str) -> bool:
        return key in self._file.files

    def __iter__(self):
        return iter(self._file.files)

    def get(self, key: str, default=None):
        """The array `key`, or `default` if the array is missing.

        Raises:
            InputError: the array is pickled or damaged.
        """
        if key not in self:
            return default
        damaged = f"{self.path}: the array {key!r} is damaged; copy or make the file again"
        try:
            value = self._file[key]
        except ValueError as error:
            if "pickle" not in str(error):
                raise InputError(damaged) from error
            raise InputError(
                f"{self.path}: the array {key!r} is pickled, and pickled files may run code; store "
                "it as numbers or text"
            ) from error
        except Exception as error:  # a damaged header: TokenError, MemoryError, ...
            raise InputError(damaged) from error
        if not isinstance(value, np.ndarray):
            raise InputError(damaged)
        return value

    def need(self, key: str, check: Callable[[np.ndarray], str | None] = lambda _: None):
        """The array `key`, after a check.

        Args:
            key: name of the array.
            check: function of the array that describes what is wrong with it, or returns None.

        Raises:
            InputError: the array is missing, pickled, damaged or wrong.
        """
        value = self.get(key)
        if value is None:
            raise InputError(f"{self.path}: the array {key!r} is missing; make the file again")
        fault = check(value)
        if fault:
            raise InputError(f"{self.path}: the array {key!r} {fault}; make the file again")
        return value

    def text(self, key: str, default: str = "") -> str:
        """The string `key` without padding NULs, or `default` if it is missing."""
        value = self.get(key)
        if value is None or value.size != 1:
            return default
        value = value.reshape(()).item()
        text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        return text.strip("\0 ")


def digest(*arrays) -> str:
    """MD5 checksum, as a hexadecimal string, of arrays or trees of arrays."""
    import jax

    md5 = hashlib.md5(usedforsecurity=False)
    for leaf in jax.tree.leaves(arrays):
        md5.update(np.ascontiguousarray(leaf).tobytes())
    return md5.hexdigest()
