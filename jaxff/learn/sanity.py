"""Whether labels can be meant for a potential, before anything is fitted to them."""

from __future__ import annotations

import numpy as np

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.plausibility import bond_force_constants, unit_mistakes

# GAFF's forces were found within a factor of 1.5 of the reference wherever they correlate above
# 0.8 (45 molecules at 500 K), and its energies' spread then within 1.3 of what the forces say.
USUAL, CONSISTENT = 1.6, 1.65
# The stiffness of bonds tells more: the median of the bonds' ratios was 0.69 to 1.16 in 48
# molecules (GFN2-xTB at 500 K, 15 or 60 frames), and 0.84 and 1.03 in MD17's aspirin and ethanol.
# The least of the mistakes is a factor of 1.89.
USUAL_STIFFNESS, BONDS = (0.65, 1.33), 3
ALIKE, VERY_ALIKE = 0.8, 0.85
OUTLYING = 12.0  # times the median frame's error, beyond which a frame is off


def check_labels(data: Dataset, energies: np.ndarray, forces: np.ndarray) -> None:
    """Compare labels with what the starting potential predicts.

    Only where the potential describes the molecule at all: with values that correlate.

    Args:
        data: the labels.
        energies: (M,) kcal/mol that the potential predicts for the same frames.
        forces: (M, N, 3) kcal/mol/Å likewise.

    Raises:
        InputError: the wrong sign, other units, or frames far off all others.
    """
    if len(data) < 4 or not np.isfinite(forces).all() or not forces.any():
        return
    if not data.forces.any():
        if data.energies is not None and np.ptp(data.energies) > 1.0:
            raise InputError(f"{data.label}: all forces are zero, while energies vary")
        return
    alike = np.corrcoef(forces.ravel(), data.forces.ravel())[0, 1]
    stiffness = _stiffness(data, forces)
    if alike < -0.5 or (stiffness is not None and stiffness < 0.0):
        raise InputError(
            f"{data.label}: forces point against those of the starting potential (correlation "
            f"{alike:.2f}): these are gradients; change their sign"
        )
    _refuse_outliers(data, forces)
    # Medians of frames, so that a few bad ones do not decide.
    ratio = np.median(np.linalg.norm(data.forces, axis=(1, 2)))
    ratio /= np.median(np.linalg.norm(forces, axis=(1, 2)))
    if stiffness is None:
        _check_ratio(data, "forces", 1, ratio, alike)
    else:
        _check_ratio(data, "forces", 1, stiffness, 1.0, usual=USUAL_STIFFNESS)
    if data.energies is None or len(data) < 20 or np.ptp(energies) < 0.1:
        return
    mine, own = (e - np.median(e) for e in (energies, data.energies))
    left = np.abs(own - mine)
    off = (left > OUTLYING * np.median(left)) & (left > 20.0)
    # Where the potential's value is the odd one, as at a contact that it takes for a clash, the
    # labels are not to blame.
    off = np.flatnonzero(off & (np.abs(own) > np.abs(mine)))
    if 0 < len(off) < 0.1 * len(data):
        raise InputError(
            f"{data.label}: the energies of frames {_some(data, off)} are up to "
            f"{left[off].max():.3g} kcal/mol off, {np.median(left):.3g} is usual; remove these "
            "frames or compute them again"
        )
    alike_energies = np.corrcoef(mine, own)[0, 1]
    if alike_energies < -0.5:
        raise InputError(
            f"{data.label}: energies fall where those of the starting potential rise (correlation "
            f"{alike_energies:.2f}); change their sign"
        )
    spread = np.std(own) / np.std(mine)
    if not 0.25 < spread < 4.0:
        _check_ratio(data, "energies", 0, spread, alike_energies, near=2.5)
    if min(alike, alike_energies) > VERY_ALIKE:
        both = ratio / spread
        if not 1.0 / CONSISTENT < both < CONSISTENT:
            raise InputError(
                f"{data.label}: beside the starting potential, forces are {ratio:.3g} times and "
                f"energies {spread:.3g} times as large: one of them is in another unit"
            )


def _stiffness(data: Dataset, forces: np.ndarray) -> float | None:
    """How much stiffer bonds are by the labels than by the potential (None: frames do not tell)."""
    ratios = bond_force_constants(data, data.forces) / bond_force_constants(data, forces)
    ratios = ratios[np.isfinite(ratios)]
    return float(np.median(ratios)) if len(ratios) >= BONDS else None


def _check_ratio(
    data, what: str, power: int, ratio: float, alike: float, near=USUAL, usual=(1 / USUAL, USUAL)
) -> None:
    """InputError where labels that correlate so with the potential are larger by a known ratio."""
    mistake, factor = min(unit_mistakes(power).items(), key=lambda m: abs(np.log(ratio / m[1])))
    is_near = 1.0 / near < ratio / factor < near
    low, high = usual if alike > ALIKE else (0.4, 2.5)
    if alike > 0.5 and is_near and not low < ratio < high:
        raise InputError(
            f"{data.label}: {what} are {ratio:.3g} times those of the starting potential: "
            f"{mistake}? give the right unit, or check=False if the start is that far off"
        )


def _refuse_outliers(data: Dataset, forces: np.ndarray) -> None:
    wrong, predicted, labelled = (
        np.sqrt(np.mean(f**2, axis=(1, 2))) for f in (forces - data.forces, forces, data.forces)
    )
    usual = np.median(wrong)
    off = np.flatnonzero((wrong > OUTLYING * usual) & (predicted < 2.0 * labelled))
    if usual > 0.05 and 0 < len(off) < 0.1 * len(data):
        raise InputError(
            f"{data.label}: the forces of frames {_some(data, off)} are far off all others (error "
            f"{wrong[off].max():.3g} against {usual:.3g} kcal/mol/Å of most); remove them or "
            "compute them again"
        )


def _some(data: Dataset, frames: np.ndarray) -> str:
    return ", ".join(map(str, data.index[frames][:10]))
