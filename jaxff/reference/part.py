"""The part folder: what an unfinished run has done, so that the next run continues it.

`OUT.part` holds ``settings.json`` (all that decides the result), ``rows.bin`` (one row of float64
for each frame, at its own place, whatever the order of completion) and whatever checkpoints the
worker keeps.  A row ends with its own number, counted from one, so that a row half written, or not
written at all, is never taken for a result.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxff.errors import InputError
from jaxff.npz import atomic_path


class Rows:
    """Rows of float64 in one file, each written once at its own place by any process.

    Args:
        path: the file, created when first written.
        count: number of rows.
        width: numbers in a row.
    """

    def __init__(self, path, count: int, width: int):
        self.path, self.count, self.width = Path(path), count, width

    def write(self, row: int, values: np.ndarray) -> None:
        """Store `values` (width,) as row number `row`."""
        record = np.append(np.asarray(values, np.float64), float(row + 1))
        with open(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            file.seek(row * record.nbytes)
            file.write(record.tobytes())

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(count,) which rows are there, and (count, width) their values (0 where not)."""
        table = np.zeros((self.count, self.width + 1))
        if self.path.exists():
            raw = np.fromfile(self.path, np.float64)[: table.size]
            table.reshape(-1)[: len(raw)] = raw
        done = table[:, -1] == np.arange(1, self.count + 1)
        return done, np.where(done[:, None], table[:, :-1], 0.0)


@contextmanager
def part_folder(out, settings: Mapping[str, Any]) -> Iterator[Path]:
    """The folder `OUT.part`, created or taken over from a run with the same settings.

    It is removed when the block ends without error, and locked against a second run meanwhile.

    Raises:
        InputError: `out` cannot be written, the folder holds a run with other settings, or
            another run is at work in it.
    """
    out = Path(out)
    folder = out.with_name(out.name + ".part")
    if out.is_dir():
        raise InputError(f"{out} is a folder, not a file to write")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error
    with _lock(folder):
        _check_settings(folder / "settings.json", dict(settings), out)
        yield folder
    shutil.rmtree(folder)


def _check_settings(path: Path, settings: dict, out: Path) -> None:
    if not (path.exists() and _begun(path.parent)):
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=1))
        return
    old, settings = json.loads(path.read_text()), json.loads(json.dumps(settings))
    differing = [k for k in {**old, **settings} if old.get(k) != settings.get(k)]
    if differing:
        changes = ", ".join(
            "other geometries" if k == "geometries" else f"{k} {old.get(k)!r} → {settings.get(k)!r}"
            for k in differing
        )
        raise InputError(
            f"{path.parent} holds an unfinished run with other settings ({changes}): run with "
            f"those settings to finish it, delete the folder to start again, or choose "
            f"another output than {out}"
        )


def _begun(folder: Path) -> bool:
    """Whether anything but the settings stands in a part folder."""
    others = (f for f in folder.iterdir() if f.name not in ("settings.json", "lock"))
    return any(f.stat().st_size for f in others)


@contextmanager
def _lock(folder: Path):
    try:
        import fcntl
    except ImportError:  # Windows has no flock; two runs at once stay the user's business there
        yield
        return
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"another run is at work in {folder}; wait until it ends") from error
        yield
