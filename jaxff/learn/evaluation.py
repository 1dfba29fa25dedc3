"""Errors of a potential on a data set, by the conventions of the literature."""

from __future__ import annotations

import numpy as np

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.potential import Potential


def aligned(dataset: Dataset, potential: Potential) -> Dataset:
    """Return the data set in the atom order of the potential, by graph isomorphism.

    Raises:
        InputError: the atoms cannot be matched.
    """
    if potential.molecule is not None:
        return dataset.reorder(potential.molecule.match(dataset.molecule))
    if potential.n_atoms not in (None, dataset.n_atoms):
        raise InputError(
            f"{dataset.name or 'dataset'} has {dataset.n_atoms} atoms, "
            f"but the potential has {potential.n_atoms}"
        )
    return dataset


def evaluate(potential: Potential, dataset: Dataset, chunk: int | None = None) -> dict[str, float]:
    """Return the energy and force errors of a potential on a data set.

    The atoms of the data set may be in any order.

    Args:
        potential: the potential.
        dataset: labelled frames.
        chunk: number of frames that are computed together; by default it depends on the memory.

    Returns:
        energy_mae, energy_rmse (kcal/mol, after the mean offset; absent if the data have no
        energies), force_mae, force_rmse (kcal/mol/Å, per Cartesian component).

    Raises:
        InputError: atoms that do not match, no frames, or a prediction that is not finite.
    """
    if len(dataset) == 0:
        raise InputError(f"{dataset.name or 'dataset'}: no frames to evaluate on")
    dataset = aligned(dataset, potential)
    return errors(dataset, *potential.predict(dataset.positions, chunk))


def errors(dataset: Dataset, energies: np.ndarray, forces: np.ndarray) -> dict[str, float]:
    """Return the errors of energies (M,) kcal/mol and forces (M, N, 3) kcal/mol/Å."""
    for what, values in (("energy", energies), ("force", forces)):
        finite = np.isfinite(values).reshape(len(dataset), -1).all(axis=1)
        if not finite.all():
            frame = int(np.asarray(dataset.index)[np.argmin(finite)])
            raise InputError(f"the predicted {what} of frame {frame} is not finite")
    differences = {"force": forces - dataset.forces}
    if dataset.energies is not None:
        wrong = energies - dataset.energies
        differences = {"energy": wrong - wrong.mean(), **differences}
    out = {}
    for what, wrong in differences.items():
        out[f"{what}_mae"] = float(np.abs(wrong).mean())
        out[f"{what}_rmse"] = float(np.sqrt((wrong**2).mean()))
    return out
