"""Output folders of commands."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from jaxff.errors import InputError
from jaxff.store import has_pieces

_made: list[Path] = []  # folders that this command created, parents first


def writable_folder(path: str | Path) -> Path:
    """Create a folder if necessary, and check that files can be written in this folder.

    The end of the command removes the folder if it was created and is empty.

    Raises:
        InputError: the folder cannot be created or written.
    """
    folder = Path(path)
    if folder.is_file():
        raise InputError(f"{folder} is a file, not a folder: give another output folder")
    _made.extend(one for one in (*reversed(folder.parents), folder) if not one.exists())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write into the output folder {folder} ({error.strerror or error}): give "
            "another folder, or change its permissions"
        ) from error
    return folder


def remove_empty_folders() -> None:
    """Remove the folders that `writable_folder` created and that contain no results."""
    while _made:
        folder = _made.pop()
        with suppress(OSError):  # a folder with files remains
            for path in folder.iterdir():
                if path.is_dir() and not has_pieces(path):
                    shutil.rmtree(path)
            folder.rmdir()
