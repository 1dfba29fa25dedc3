"""Checks that labels are plausible for a potential, before a fit or a training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.plausibility import bond_force_constants, unit_mistakes

# The limits were measured on 45 to 48 molecules with GFN2-xTB at 500 K and GAFF as the potential.
# If the correlation of forces exceeds 0.8, their norms differ from the labels by a factor of at
# most 1.5.  The ratio of the standard deviations of energies differs from this factor by at most
# 1.3.
USUAL, CONSISTENT = (1.0 / 1.6, 1.6), 1.65
# The median ratio of the force constants of bonds is more precise: 0.69 to 1.16 (15 or 60 frames),
# and 0.84 and 1.03 for MD17's aspirin and ethanol. The smallest mistake of units is 1.89.
USUAL_STIFFNESS, BONDS = (0.65, 1.33), 3
# Forces correlated above 0.82 and energies above 0.73 (0.54 with 12 frames). The ratio of the
# standard deviations of the energies was 0.56 to 1.12 (0.46 to 2.0 with 12 frames).
UNRELATED, UNRELATED_ENERGIES = 0.3, 0.6
USUAL_SPREAD, USUAL_SPREAD_OF_FEW = (0.4, 1.8), (0.25, 4.0)
CORRELATED, HIGH_CORRELATION = 0.8, 0.85
OUTLYING = 12.0  # errors of outliers, in units of the median error
# Labels of single atoms, in units of their median. The errors of correct labels were at most 4.2
# times the median error of the atom (12 sets of 7 molecules, MMFF94 and GFN2-xTB at 500 K).
MONSTROUS = 5.0
FEW, MANY = 10, 30  # frames
SMALL_FORCE = 5.0  # kcal/mol/Å; smaller forces mainly show where the minimum of the potential is
# Bond lengths in units of their median: lengths in wrong frames, and deviations in strained frames.
# Thermal motion stretched few bonds beyond 1.2.
TORN, STRAINED = 1.6, 0.18
REMEDY = "or accept them with the setting check_labels=False (--no-check)"


def check_labels(data: Dataset, energies: np.ndarray, forces: np.ndarray) -> None:
    """Compare the labels of a data set with the predictions of the initial potential.

    Most checks accept all labels if the predictions do not correlate with the labels, because the
    potential then does not describe the molecule.

    Args:
        data: M frames with labels.
        energies: (M,) kcal/mol, predicted for these frames.
        forces: (M, N, 3) kcal/mol/Å, predicted for these frames.

    Raises:
        InputError: bonds differ between frames; or labels have a wrong sign or unit, belong to
            other geometries, or are outliers.
    """
    for fault in _faults(data, energies, forces):
        raise InputError(f"{data.label}: {fault}")


def _faults(data: Dataset, energies: np.ndarray, forces: np.ndarray) -> Iterator[str]:
    if len(data) < 4 or not np.isfinite(forces).all() or not forces.any():
        return
    first, second = data.molecule.bonds.T
    lengths = np.linalg.norm(data.positions[:, first] - data.positions[:, second], axis=-1)
    stretches = lengths / np.median(lengths, axis=0)
    torn = np.flatnonzero((stretches > TORN).any(axis=1))
    if len(torn):
        yield (
            f"in {len(torn)} frames ({_some(data, torn)}) a bond is more than {TORN} times as long "
            "as in most frames, probably by a reaction or another order of atoms: remove or "
            f"correct these frames, {REMEDY}"
        )
    # The potential may be wrong if a bond is far from its usual length.
    strained = (np.abs(stretches - 1.0) > STRAINED).any(axis=1)
    if not data.forces.any():
        if data.energies is not None and np.ptp(data.energies) > 1.0:
            yield f"all forces are zero, but the energies vary: give the forces, {REMEDY}"
        return
    yield from _outliers(data, forces, strained)
    strength = np.linalg.norm(forces, axis=(1, 2))
    calm = strength <= 3.0 * np.median(strength)  # without frames where the potential has a clash
    correlation = np.corrcoef(forces[calm].ravel(), data.forces[calm].ravel())[0, 1]
    if correlation < -0.5:
        yield (
            "forces have the opposite direction of those of the initial potential (correlation "
            f"{correlation:.2f}), so they are probably gradients: change their sign, {REMEDY}"
        )
    # Medians over frames are not affected by a few wrong frames.
    labelled, predicted = (np.median(np.linalg.norm(f, axis=(1, 2))) for f in (data.forces, forces))
    if correlation < UNRELATED and labelled > SMALL_FORCE * np.sqrt(3 * data.n_atoms):
        yield (
            "forces hardly correlate with those of the initial potential (correlation "
            f"{correlation:.2f}): check that frames and atoms have the same order in forces and "
            f"positions, {REMEDY}"
        )
    ratio, frames = labelled / predicted, (data.molecule, data.positions)
    stiffness = bond_force_constants(*frames, data.forces) / bond_force_constants(*frames, forces)
    stiffness = stiffness[np.isfinite(stiffness)]
    if len(stiffness) >= BONDS:
        yield from _mistake("forces", 1, float(np.median(stiffness)), 1.0, usual=USUAL_STIFFNESS)
    else:
        yield from _mistake("forces", 1, ratio, correlation)
    if data.energies is not None and len(data) >= FEW and np.ptp(energies) > 0.1:
        yield from _energy_faults(data, energies, strained, correlation, ratio)


def _energy_faults(
    data: Dataset, energies: np.ndarray, strained: np.ndarray, correlation: float, ratio: float
) -> Iterator[str]:
    """Yield descriptions of faults of the energies.

    Args:
        data, energies: see `check_labels`.
        strained: (M,) whether a bond of the frame is far from its usual length.
        correlation: correlation coefficient of predicted and labelled forces.
        ratio: median norm of the labelled forces, divided by that of the predicted forces.
    """
    assert data.energies is not None
    predicted, labelled = (e - np.median(e) for e in (energies, data.energies))
    error = np.abs(labelled - predicted)
    far = error > OUTLYING * np.median(error)
    # Errors of the potential are not faults of labels: its energy is too large for close contacts,
    # and may be wrong for strained geometries.
    off = far & (error > 20.0) & (np.abs(labelled) > np.abs(predicted)) & ~strained
    if 0 < off.sum() <= 0.25 * len(data):
        yield (
            f"the energies of frames {_some(data, np.flatnonzero(off))} differ from those of the "
            f"initial potential by up to {error[off].max():.3g} kcal/mol, compared with "
            f"{np.median(error):.3g} in most frames: remove these frames, compute them again, "
            f"{REMEDY}"
        )
    predicted, labelled = predicted[~far], labelled[~far]
    of_energies = np.corrcoef(predicted, labelled)[0, 1]
    if of_energies < -0.5:
        yield (
            "energies have the opposite sign of those of the initial potential (correlation "
            f"{of_energies:.2f}): change their sign, {REMEDY}"
        )
    if correlation > CORRELATED and of_energies < UNRELATED_ENERGIES - 1.0 / np.sqrt(len(data)):
        yield (
            "energies hardly correlate with those of the initial potential (correlation "
            f"{of_energies:.2f}), but forces do: check that energies and positions have the same "
            f"order of frames, {REMEDY}"
        )
    spread = float(np.std(labelled) / np.std(predicted))
    low, high = (
        USUAL_SPREAD if len(data) >= MANY and correlation > CORRELATED else USUAL_SPREAD_OF_FEW
    )
    if not low < spread < high:
        yield from _mistake("energies", 0, spread, of_energies, near=2.5)
    consistent = 1.0 / CONSISTENT < ratio / spread < CONSISTENT
    if min(correlation, of_energies) > HIGH_CORRELATION and len(data) >= 20 and not consistent:
        yield (
            f"forces are {ratio:.3g} times and energies {spread:.3g} times as large as those of "
            f"the initial potential: correct the unit of one of them, {REMEDY}"
        )


def _mistake(
    what: str, power: int, ratio: float, correlation: float, near=USUAL[1], usual=USUAL
) -> Iterator[str]:
    """Yield a description of the wrong unit, if the ratio of labels indicates one.

    Args:
        what: "forces" or "energies".
        power: 0 for energies, 1 for forces; see `unit_mistakes`.
        ratio: labels divided by predictions.
        correlation: correlation coefficient of labels and predictions.
        near: largest factor by which `ratio` may differ from the factor of a wrong unit.
        usual: lowest and highest `ratio` that is accepted for labels that correlate well.
    """
    mistake, factor = min(unit_mistakes(power).items(), key=lambda m: abs(np.log(ratio / m[1])))
    low, high = usual if correlation > CORRELATED else (0.4, 2.5)
    if correlation > 0.5 and 1.0 / near < ratio / factor < near and not low < ratio < high:
        yield (
            f"{what} are {ratio:.3g} times as large as those of the initial potential (probably "
            f"{mistake}): give the right unit, {REMEDY}"
        )


def _outliers(data: Dataset, forces: np.ndarray, strained: np.ndarray) -> Iterator[str]:
    error, predicted, labelled = (
        np.sqrt(np.mean(f**2, axis=(1, 2))) for f in (forces - data.forces, forces, data.forces)
    )
    usual = np.median(error)
    suspect = (predicted < 2.0 * labelled) & (error > 0.7 * labelled) & ~strained
    cosine = np.mean(forces * data.forces, axis=(1, 2)) / np.maximum(predicted * labelled, 1e-300)
    turned = (cosine < -0.5) & (np.median(cosine) > 0.5) & (error > 2.0 * usual)
    single = _monstrous(data.forces, forces).any(axis=1) & ~strained
    off = np.flatnonzero((error > OUTLYING * usual) & suspect | turned | single)
    if usual > 0.05 and 0 < len(off) <= 0.25 * len(data):
        yield (
            f"the forces of frames {_some(data, off)} differ from those of the initial potential "
            f"by up to {error[off].max():.3g} kcal/mol/Å, compared with {usual:.3g} in most "
            f"frames: remove these frames, compute them again, {REMEDY}"
        )


def _monstrous(labelled: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Whether each force is much larger than predicted, and than in other frames.

    Means over all atoms of a frame do not detect a single wrong force.

    Args:
        labelled, predicted: (M, N, 3) kcal/mol/Å.

    Returns:
        (M, N) booleans.
    """
    error, size, expected = (
        np.linalg.norm(f, axis=2) for f in (labelled - predicted, labelled, predicted)
    )
    usual = np.maximum(np.median(error, axis=0), np.median(error))
    large = (error > OUTLYING * usual) & (size > MONSTROUS * np.median(size, axis=0))
    return large & (expected < 2.0 * size) & (error > 0.7 * size)


def _some(data: Dataset, frames: np.ndarray) -> str:
    """Original indices of up to ten of the frames, as text."""
    return ", ".join(map(str, np.asarray(data.index)[frames][:10]))
