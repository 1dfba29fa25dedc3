"""The folder in which a training keeps finished models and the state of the solver."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from jaxff.errors import InputError
from jaxff.gdml.descriptor import Descriptor, inverse_distances, scaled_distances
from jaxff.npz import atomic_path
from jaxff.potential import Potential
from jaxff.saved import load, save
from jaxff.store import claim

# Finished models, states of the solver, and a learnt metric
FILES = r"\d+-.*\.(json|npz)|solver-.*\.npz|metric\.json"


class Checkpoint:
    """The folder with the intermediate results of a training.

    Results of a training with other inputs in this folder are deleted.

    Args:
        folder: path of the folder, which is created if it does not exist.
        request: all inputs that determine the result, by name; see `jaxff.store`.

    Raises:
        InputError: the folder cannot be written, or contains files that no training wrote.
    """

    def __init__(self, folder: str | Path, request: Mapping):
        self.folder = Path(folder)
        claim(folder, request, "training", files=FILES, replace=True)

    def state(self, key: str) -> Path:
        """Path of the file for the state of the solver that trains the model `key`."""
        return self.folder / f"solver-{key}.npz"

    def finished(self, key: str) -> tuple[Potential, float, str] | None:
        """The finished model `key`, or None if there is none.

        Returns:
            The potential, its force RMSE on the validation frames in kcal/mol/Å (∞ if unknown),
            and the description of the solver.

        Raises:
            InputError: a file of the model is damaged.
        """
        path = self.folder / f"{key}.json"
        if not path.is_file():
            return None
        try:
            known = json.loads(path.read_text())
            error = np.inf if known["valid_rmse"] is None else float(known["valid_rmse"])
            solver = known["solver"]
        except (ValueError, KeyError, TypeError) as fault:
            raise InputError(f"{path}: the file is damaged; remove it and train again") from fault
        return load(self.folder / f"{key}.npz"), error, solver

    def descriptor(self) -> Descriptor | None:
        """The descriptor that `learn_metric` returned, or None if there is none.

        Raises:
            InputError: the file of the descriptor is damaged.
        """
        path = self.folder / "metric.json"
        if not path.is_file():
            return None
        try:
            known = json.loads(path.read_text())
            if known is None:
                return inverse_distances
            weights = tuple(map(float, known["weights"]))
            return partial(scaled_distances, weights=weights, power=float(known["power"]))
        except (ValueError, KeyError, TypeError) as fault:
            raise InputError(f"{path}: the file is damaged; remove it and train again") from fault

    def keep_descriptor(self, descriptor: Descriptor) -> None:
        """Write the descriptor that `learn_metric` returned."""
        values = descriptor.keywords if isinstance(descriptor, partial) else None
        with atomic_path(self.folder / "metric.json") as temporary:
            temporary.write_text(json.dumps(values))

    def keep(self, key: str, potential: Potential, error: float, solver: str) -> None:
        """Write the finished model `key`, with the values that `finished` returns."""
        save(self.folder / f"{key}.npz", potential)
        with atomic_path(self.folder / f"{key}.json") as temporary:
            known = {"valid_rmse": error if np.isfinite(error) else None, "solver": solver}
            temporary.write_text(json.dumps(known))
