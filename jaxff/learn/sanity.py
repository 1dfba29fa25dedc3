"""Whether labels can be meant for a potential, before anything is fitted to them."""

from __future__ import annotations

import numpy as np

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.plausibility import bond_force_constants, unit_mistakes

# GAFF's forces were found within a factor of 1.5 of the reference wherever they correlate above
# 0.8 (45 molecules at 500 K), and its energies' spread then within 1.3 of what the forces say.
USUAL, CONSISTENT = (1.0 / 1.6, 1.6), 1.65
# The stiffness of bonds tells more: the median of the bonds' ratios was 0.69 to 1.16 in 48
# molecules (GFN2-xTB at 500 K, 15 or 60 frames), and 0.84 and 1.03 in MD17's aspirin and ethanol.
# The least of the mistakes is a factor of 1.89.
USUAL_STIFFNESS, BONDS = (0.65, 1.33), 3
# There the forces correlated above 0.82, the energies above 0.73 (0.54 with 12 frames), and the
# energies' spread was 0.56 to 1.12 times GAFF's (0.46 to 2.0).
UNRELATED, UNRELATED_ENERGIES = 0.3, 0.6
USUAL_SPREAD, USUAL_SPREAD_OF_FEW = (0.4, 1.8), (0.25, 4.0)
ALIKE, VERY_ALIKE = 0.8, 0.85
OUTLYING = 12.0  # times the median frame's error, beyond which a frame is off
FEW, MANY = 10, 30  # frames
WARM = 5.0  # kcal/mol/Å; where forces are less, the potential's own minimum decides
TORN, STRAINED = 1.6, 0.18  # of a bond's usual length; heat stretched few bonds beyond 1.2
REMEDY = "or accept them with the setting check_labels=False (--no-check)"


def check_labels(data: Dataset, energies: np.ndarray, forces: np.ndarray) -> None:
    """Compare labels with what the starting potential predicts.

    Only where the potential describes the molecule at all: with values that correlate.

    Args:
        data: the labels.
        energies: (M,) kcal/mol that the potential predicts for the same frames.
        forces: (M, N, 3) kcal/mol/Å likewise.

    Raises:
        InputError: frames bonded unlike the others, the wrong sign, other units, labels that have
            nothing to do with the geometries, or frames far off all others.
    """
    if len(data) < 4 or not np.isfinite(forces).all() or not forces.any():
        return
    stretches = _stretches(data)
    _refuse_torn(data, stretches)
    # Where a bond is far from its usual length, no potential need be right.
    strained = (np.abs(stretches - 1.0) > STRAINED).any(axis=1)
    if not data.forces.any():
        if data.energies is not None and np.ptp(data.energies) > 1.0:
            raise InputError(f"{data.label}: all forces are zero, while energies vary")
        return
    _refuse_outliers(data, forces, strained)
    strength = np.linalg.norm(forces, axis=(1, 2))
    calm = strength <= 3.0 * np.median(strength)  # not what the potential takes for a clash
    alike = np.corrcoef(forces[calm].ravel(), data.forces[calm].ravel())[0, 1]
    if alike < -0.5:
        raise InputError(
            f"{data.label}: forces point against those of the starting potential (correlation "
            f"{alike:.2f}): these are gradients; change their sign"
        )
    # Medians of frames, so that a few bad ones do not decide.
    own, mine = (np.median(np.linalg.norm(f, axis=(1, 2))) for f in (data.forces, forces))
    if alike < UNRELATED and own > WARM * np.sqrt(3 * data.n_atoms):
        raise InputError(
            f"{data.label}: forces have little to do with those of the starting potential "
            f"(correlation {alike:.2f}): are they of other frames, or in another order of atoms? "
            f"correct them, {REMEDY}"
        )
    stiffness = _stiffness(data, forces)
    if stiffness is None:
        _check_ratio(data, "forces", 1, own / mine, alike)
    else:
        _check_ratio(data, "forces", 1, stiffness, 1.0, usual=USUAL_STIFFNESS)
    if data.energies is not None and len(data) >= FEW and np.ptp(energies) > 0.1:
        _check_energies(data, energies, strained, alike, own / mine)


def _check_energies(data: Dataset, energies, strained, alike: float, ratio: float) -> None:
    """InputErrors for energies (M,); the forces correlate so, and are larger by such a ratio."""
    mine, own = (e - np.median(e) for e in (energies, data.energies))
    left = np.abs(own - mine)
    far = left > OUTLYING * np.median(left)
    # Where the potential's value is the odd one, as at a contact that it takes for a clash, or
    # where the geometry is strained, the labels are not to blame.
    off = far & (left > 20.0) & (np.abs(own) > np.abs(mine)) & ~strained
    if 0 < off.sum() <= 0.25 * len(data):
        raise InputError(
            f"{data.label}: the energies of frames {_some(data, np.flatnonzero(off))} are up to "
            f"{left[off].max():.3g} kcal/mol off, {np.median(left):.3g} is usual; remove these "
            f"frames, compute them again, {REMEDY}"
        )
    mine, own = mine[~far], own[~far]
    alike_energies = np.corrcoef(mine, own)[0, 1]
    if alike_energies < -0.5:
        raise InputError(
            f"{data.label}: energies fall where those of the starting potential rise (correlation "
            f"{alike_energies:.2f}); change their sign"
        )
    if alike > ALIKE and alike_energies < UNRELATED_ENERGIES - 1.0 / np.sqrt(len(data)):
        raise InputError(
            f"{data.label}: energies have little to do with those of the starting potential "
            f"(correlation {alike_energies:.2f}), while forces do: are they of other frames? "
            f"correct them, {REMEDY}"
        )
    spread = np.std(own) / np.std(mine)
    low, high = USUAL_SPREAD if len(data) >= MANY and alike > ALIKE else USUAL_SPREAD_OF_FEW
    if not low < spread < high:
        _check_ratio(data, "energies", 0, spread, alike_energies, near=2.5)
    if min(alike, alike_energies) > VERY_ALIKE and len(data) >= 20:
        both = ratio / spread
        if not 1.0 / CONSISTENT < both < CONSISTENT:
            raise InputError(
                f"{data.label}: beside the starting potential, forces are {ratio:.3g} times and "
                f"energies {spread:.3g} times as large: one of them is in another unit"
            )


def _stretches(data: Dataset) -> np.ndarray:
    """(M, B) bond lengths over the medians of their bonds."""
    first, second = data.molecule.bonds.T
    lengths = np.linalg.norm(data.positions[:, first] - data.positions[:, second], axis=-1)
    return lengths / np.median(lengths, axis=0)


def _refuse_torn(data: Dataset, stretches: np.ndarray) -> None:
    torn = np.flatnonzero((stretches > TORN).any(axis=1))
    if len(torn):
        raise InputError(
            f"{data.label}: in {len(torn)} frames ({_some(data, torn)}) bonds are more than {TORN} "
            "times as long as in most: these have their atoms in another order, or reacted; remove "
            f"or correct them, {REMEDY}"
        )


def _stiffness(data: Dataset, forces: np.ndarray) -> float | None:
    """How much stiffer bonds are by the labels than by the potential (None: frames do not tell)."""
    frames = data.molecule, data.positions
    ratios = bond_force_constants(*frames, data.forces) / bond_force_constants(*frames, forces)
    ratios = ratios[np.isfinite(ratios)]
    return float(np.median(ratios)) if len(ratios) >= BONDS else None


def _check_ratio(
    data, what: str, power: int, ratio: float, alike: float, near=USUAL[1], usual=USUAL
) -> None:
    """InputError where labels that correlate so with the potential are larger by a known ratio."""
    mistake, factor = min(unit_mistakes(power).items(), key=lambda m: abs(np.log(ratio / m[1])))
    is_near = 1.0 / near < ratio / factor < near
    low, high = usual if alike > ALIKE else (0.4, 2.5)
    if alike > 0.5 and is_near and not low < ratio < high:
        raise InputError(
            f"{data.label}: {what} are {ratio:.3g} times those of the starting potential: "
            f"{mistake}? give the right unit, {REMEDY}"
        )


def _refuse_outliers(data: Dataset, forces: np.ndarray, strained: np.ndarray) -> None:
    wrong, predicted, labelled = (
        np.sqrt(np.mean(f**2, axis=(1, 2))) for f in (forces - data.forces, forces, data.forces)
    )
    usual = np.median(wrong)
    suspect = (predicted < 2.0 * labelled) & (wrong > 0.7 * labelled) & ~strained
    cosine = np.mean(forces * data.forces, axis=(1, 2)) / np.maximum(predicted * labelled, 1e-300)
    turned = (cosine < -0.5) & (np.median(cosine) > 0.5) & (wrong > 2.0 * usual)
    off = np.flatnonzero((wrong > OUTLYING * usual) & suspect | turned)
    if usual > 0.05 and 0 < len(off) <= 0.25 * len(data):
        raise InputError(
            f"{data.label}: the forces of frames {_some(data, off)} are far off all others (error "
            f"{wrong[off].max():.3g} against {usual:.3g} kcal/mol/Å of most); remove them, "
            f"compute them again, {REMEDY}"
        )


def _some(data: Dataset, frames: np.ndarray) -> str:
    return ", ".join(map(str, data.index[frames][:10]))
