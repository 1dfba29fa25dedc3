"""Errors of a potential on a data set."""

from __future__ import annotations

import numpy as np

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.potential import Potential
from jaxff.settings import checked_type


def aligned(dataset: Dataset, potential: Potential) -> Dataset:
    """Return the data set in the atom order of the potential, by graph isomorphism.

    Raises:
        InputError: the molecules or the numbers of atoms differ.
    """
    if potential.molecule is not None:
        return dataset.reorder(potential.molecule.match(dataset.molecule))
    if potential.n_atoms not in (None, dataset.n_atoms):
        raise InputError(
            f"{dataset.label} has {dataset.n_atoms} atoms, but the potential has "
            f"{potential.n_atoms}; give frames of the potential's molecule"
        )
    return dataset


def evaluate(potential: Potential, dataset: Dataset, chunk: int | None = None) -> dict[str, float]:
    """Return the energy and force errors of a potential on a data set.

    The atoms of the data set may be in any order.  Potentials that use a box take the lattice of
    the data set.

    Args:
        potential: the potential.
        dataset: labelled frames.
        chunk: number of frames that are computed together (None: depends on the memory).

    Returns:
        Errors by name: force_mae and force_rmse of the Cartesian components, kcal/mol/Å.  If the
        data have energies, also energy_mae and energy_rmse without the mean error, kcal/mol.

    Raises:
        InputError: atoms that do not match, no frames, or a prediction that is not finite.
    """
    checked_type("dataset", dataset, Dataset)
    if len(dataset) == 0:
        raise InputError(f"{dataset.label}: no frames to evaluate on; give at least one")
    dataset = aligned(dataset, potential)
    boxed = dataset.lattice is not None and "box" in potential.program.reads(potential.params)
    box = np.asarray(dataset.lattice).T if boxed else None
    return errors(dataset, *potential.predict(dataset.positions, chunk, box))


def errors(dataset: Dataset, energies: np.ndarray, forces: np.ndarray) -> dict[str, float]:
    """Return the errors of predicted energies and forces by name, see `evaluate`.

    Args:
        dataset: M labelled frames.
        energies: (M,) predicted energies, kcal/mol.
        forces: (M, N, 3) predicted forces, kcal/mol/Å.

    Raises:
        InputError: a prediction is not finite.
    """
    for what, values in (("energy", energies), ("force", forces)):
        finite = np.isfinite(values).reshape(len(dataset), -1).all(axis=1)
        if not finite.all():
            frame = int(np.asarray(dataset.index)[np.argmin(finite)])
            raise InputError(
                f"{dataset.label}: the predicted {what} of frame {frame} is not finite; remove the "
                "frame or correct the potential"
            )
    differences = {"force": forces - dataset.forces}
    if dataset.energies is not None:
        wrong = energies - dataset.energies
        differences = {"energy": wrong - wrong.mean(), **differences}
    out = {}
    for what, wrong in differences.items():
        out[f"{what}_mae"] = float(np.abs(wrong).mean())
        out[f"{what}_rmse"] = float(np.sqrt((wrong**2).mean()))
    return out
