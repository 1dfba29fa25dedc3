"""Choice of the frames, atoms and symmetries of a training, and checks of the labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.symmetry import check_symmetries, find_symmetries, restricted_to

MAX_VALID = 500  # default number of validation frames


def draw(
    data: Dataset,
    n_train: int | None,
    valid: Dataset | int | None,
    needs_valid: bool,
    seed: int,
) -> tuple[Dataset, Dataset | None]:
    """Draw the training frames and, if needed, the validation frames.

    Args:
        data: M frames.
        n_train: number of training frames (None: all).
        valid: validation frames, or the number to draw from the frames not used for training
            (None: up to 500).
        needs_valid: whether validation frames are needed.
        seed: seed of the draw.

    Returns:
        The training frames, and the validation frames or None.

    Raises:
        InputError: a number of frames that is not a whole number or not available, validation
            frames of other atoms, or training frames among `valid`.
    """
    data = replace(data, index=None)  # indices refer to this data set
    count = None if isinstance(valid, Dataset) else valid
    for key, value in (("n_train", n_train), ("valid", count)):
        if not isinstance(value, int | np.integer | None):
            raise InputError(f"{key}={value!r} must be a whole number of frames")
    if n_train is None and count is not None:
        raise InputError(
            f"valid={valid!r} is a number of frames to draw, which needs n_train: give n_train, "
            "or give the validation frames as a data set"
        )
    n_train = len(data) if n_train is None else n_train
    if n_train < 2:
        raise InputError(
            f"{data.label}: the number of training frames is {n_train}, but must be at least two"
        )
    if n_train > len(data):
        raise InputError(
            f"{data.label}: n_train={n_train} must not exceed the number of frames, {len(data)}"
        )
    if n_train == len(data):
        frames, rest = data, data[:0]
    else:
        frames, _, rest = data.split(n_train, 0, seed=seed, stratify=True)
    if isinstance(valid, Dataset):
        if needs_valid and len(valid) == 0:
            raise InputError(
                f"{valid.label}: there are no validation frames to choose sigma on; give at least "
                "one, or give one sigma"
            )
        if not np.array_equal(valid.numbers, data.numbers):
            raise InputError(
                f"{valid.label}: the atoms of the validation frames differ from those of "
                f"{data.label}; give frames of the same molecule in the same atom order"
            )
    if not needs_valid:
        return frames, None
    if isinstance(valid, Dataset):
        known = {R.tobytes() for R in frames.positions}
        shared = sum(R.tobytes() in known for R in valid.positions)
        if shared:
            raise InputError(
                f"{valid.label}: {shared} of the validation frames are training frames; "
                "draw both with Dataset.split, or give other frames"
            )
        return frames, valid
    count = min(MAX_VALID, len(rest)) if count is None else count
    if not 0 < count <= len(rest):
        raise InputError(
            f"{data.label}: {len(rest)} frames are left for validation, but {max(count, 1)} are "
            "needed to choose sigma: give one sigma, or give validation frames as valid="
        )
    return frames, rest.split(count, 0, seed=seed, stratify=True).train


def some(frames: Dataset, count: int, seed: int) -> Dataset:
    """Draw `count` of the frames at random, and keep their order."""
    return frames[np.sort(np.random.default_rng(seed).permutation(len(frames))[:count])]


def restricted(data: Dataset, atoms: Sequence[int] | None) -> Dataset:
    """The frames with only `atoms`, in this order (None: with all atoms)."""
    return data if atoms is None else data.reorder(atoms)


def checked_atoms(atoms: Sequence[int], data: Dataset, least: int = 2) -> tuple[int, ...]:
    """Check the indices `atoms` (K,), and return them as integers.

    Raises:
        InputError: there are fewer than `least` atoms, or one occurs twice or is not in `data`.
    """
    index = np.asarray(atoms)
    if (
        index.ndim != 1
        or index.dtype.kind not in "iu"
        or len(index) < least
        or len(set(index.tolist())) != len(index)
        or not ((index >= 0) & (index < data.n_atoms)).all()
    ):
        raise InputError(
            f"{data.label}: atoms={atoms!r} must be {'two' if least == 2 else least} or more "
            f"distinct atoms from 0 to {data.n_atoms - 1}"
        )
    return tuple(index.tolist())


def group_on(
    data: Dataset, atoms: Sequence[int] | None, symmetries: str | np.ndarray | None, seed: int
) -> np.ndarray:
    """The group of permutations (P, K) of `atoms` (K,), or of all atoms.

    Args:
        data: frames with all atoms.
        atoms: (K,) indices of atoms, or None.
        symmetries: permutations (P, K), None (identity only) or "auto".  "auto" uses the
            permutations of the whole molecule that map `atoms` to `atoms`, because an isolated
            fragment may have more symmetry.
        seed: seed of the search for symmetries.

    Raises:
        InputError: given permutations are not a group, or change elements or bonds.
    """
    if symmetries is None:
        return np.arange(data.n_atoms if atoms is None else len(atoms))[None]
    if not isinstance(symmetries, str):
        return check_symmetries(symmetries, restricted(data, atoms).molecule)
    whole = find_symmetries(data.positions, data.molecule, lattice=data.lattice, seed=seed)
    return whole if atoms is None else restricted_to(whole, atoms)


# -- checks of the labels ----------------------------------------------------------------------


def warn_if_not_learnt(
    labels: Dataset, forces: np.ndarray, baseline_forces: np.ndarray | float
) -> None:
    """Warn if a model leaves more than 90 % of its training forces unexplained.

    Args:
        labels: M training frames.
        forces: (M, N, 3) forces of the model, kcal/mol/Å.
        baseline_forces: (M, N, 3) forces of the baseline, or 0.
    """
    left = np.sqrt(np.mean((forces - labels.forces) ** 2))
    if left > 0.9 * np.sqrt(np.mean((labels.forces - baseline_forces) ** 2)) > 0.0:
        warnings.warn(
            f"{labels.label}: the model leaves {left:.3g} kcal/mol/Å of its training forces "
            "unexplained, more than 90 %: try another sigma, lower lam, or check the forces",
            stacklevel=3,
        )


def check_energies(label: str, energies: np.ndarray, predicted: np.ndarray) -> None:
    """Check that energies integrated from the forces agree with the labels, or warn.

    Args:
        label: name of the data set, for messages.
        energies: (M,) energies of the training frames, kcal/mol.
        predicted: (M,) energies of the model, kcal/mol.

    Raises:
        InputError: the forces have the wrong sign.
    """
    if len(predicted) < 10 or np.ptp(energies) == 0.0 or np.ptp(predicted) == 0.0:
        return
    correlation = np.corrcoef(energies, predicted)[0, 1]
    slope = np.polyfit(predicted, energies, 1)[0]
    if correlation < -0.5:
        raise InputError(
            f"{label}: the forces point towards higher energies (correlation {correlation:.2f}), "
            "so the forces are probably gradients; change the sign"
        )
    if correlation < 0.5 or not 0.5 < slope < 2.0:
        warnings.warn(
            f"{label}: energies and forces of the training frames do not agree (correlation "
            f"{correlation:.2f}, slope {slope:.2f}), so predicted energies are unreliable: check "
            "units and levels of theory, or use more frames",
            stacklevel=3,
        )
