"""Errors of a potential on a data set, counted as the field's tables count them."""

from __future__ import annotations

import numpy as np

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.potential import Potential


def aligned(dataset: Dataset, potential: Potential) -> Dataset:
    """The data set with its atoms in the potential's order, found by graph isomorphism.

    Raises:
        InputError: the atoms cannot be matched.
    """
    if potential.molecule is not None:
        return dataset.reorder(potential.molecule.match(dataset.molecule))
    if potential.n_atoms not in (None, dataset.n_atoms):
        raise InputError(
            f"{dataset.name or 'dataset'} has {dataset.n_atoms} atoms, "
            f"the potential {potential.n_atoms}"
        )
    return dataset


def evaluate(potential: Potential, dataset: Dataset, chunk: int | None = None) -> dict[str, float]:
    """Energy and force errors of `potential` on `dataset`, whatever its atom order.

    Returns:
        energy_mae, energy_rmse (kcal/mol, mean offset removed; absent if the data have no
        energies), force_mae, force_rmse (kcal/mol/Å, per Cartesian component).

    Raises:
        InputError: atoms that do not match, no frames, or a prediction that is not finite.
    """
    if len(dataset) == 0:
        raise InputError(f"{dataset.name or 'dataset'}: no frames to evaluate on")
    dataset = aligned(dataset, potential)
    return errors(dataset, *potential.predict(dataset.positions, chunk))


def errors(dataset: Dataset, energies: np.ndarray, forces: np.ndarray) -> dict[str, float]:
    """The errors of predicted energies (M,) kcal/mol and forces (M, N, 3) kcal/mol/Å."""
    for what, values in (("energy", energies), ("force", forces)):
        finite = np.isfinite(values).reshape(len(dataset), -1).all(axis=1)
        if not finite.all():
            frame = int(dataset.index[np.argmin(finite)])
            raise InputError(f"the predicted {what} of frame {frame} is not finite")
    out = {}
    if dataset.energies is not None:
        wrong = energies - dataset.energies
        wrong = wrong - wrong.mean()
        out |= {"energy_mae": np.abs(wrong).mean(), "energy_rmse": np.sqrt((wrong**2).mean())}
    wrong = forces - dataset.forces
    out |= {"force_mae": np.abs(wrong).mean(), "force_rmse": np.sqrt((wrong**2).mean())}
    return {key: float(value) for key, value in out.items()}
