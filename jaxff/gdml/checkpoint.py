"""What an interrupted training has finished, in a folder that the same request finds again."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np

from jaxff.errors import InputError
from jaxff.npz import atomic_path
from jaxff.potential import Potential
from jaxff.saved import load, save

# Names of the files in such a folder: the request, trials, solvers' states, unfinished writes.
_OWN = re.compile(r"request\.json|\d+-.*\.(json|npz)|solver-.*\.npz|\..*")


class Checkpoint:
    """A folder of finished trials and of the running solver's state.

    A folder left by another request is emptied.

    Args:
        folder: made if need be.
        request: what is trained, as JSON-like values: data, options, seed.

    Raises:
        InputError: the folder cannot be written, or holds files that are not a checkpoint's.
    """

    def __init__(self, folder, request: dict):
        self.folder = Path(folder)
        text = json.dumps(request, sort_keys=True, default=str)
        label = self.folder / "request.json"
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file, not a folder for checkpoints")
        found = [path.name for path in self.folder.glob("*")] if self.folder.exists() else []
        if not all(map(_OWN.fullmatch, found)):
            raise InputError(f"{self.folder} is not a checkpoint folder; name another, or empty it")
        if label.is_file() and label.read_text() == text:
            self.resumed = True
            return
        self.resumed = False
        try:
            if found:  # another request's, or what a kill during the next lines has left
                shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write into {self.folder}: {error.strerror}") from error
        with atomic_path(label) as temporary:
            temporary.write_text(text)

    def state(self, key: str) -> Path:
        """The file for the solver's state in the trial `key`."""
        return self.folder / f"solver-{key}.npz"

    def finished(self, key: str) -> tuple[Potential, float, str] | None:
        """A finished trial's potential, validation error and solver, if there is one."""
        path = self.folder / f"{key}.json"
        if not path.is_file():
            return None
        try:
            known = json.loads(path.read_text())
            error = np.inf if known["valid_rmse"] is None else float(known["valid_rmse"])
        except (ValueError, KeyError, TypeError) as fault:
            raise InputError(f"{path} is damaged; remove it") from fault
        return load(self.folder / f"{key}.npz"), error, known["solver"]

    def keep(self, key: str, potential: Potential, error: float, solver: str) -> None:
        """Keep a finished trial."""
        save(self.folder / f"{key}.npz", potential)
        with atomic_path(self.folder / f"{key}.json") as temporary:
            known = {"valid_rmse": error if np.isfinite(error) else None, "solver": solver}
            temporary.write_text(json.dumps(known))
