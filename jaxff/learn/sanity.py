"""Whether labels can be meant for a potential, before anything is fitted to them."""

from __future__ import annotations

import numpy as np

from jaxff.dataset import Dataset
from jaxff.errors import InputError

# Force ratios that are a mistake of units, and what it is.
MISTAKES = {
    23.06: "eV taken for kcal/mol",
    1.0 / 23.06: "kcal/mol taken for eV",
    627.5: "hartree taken for kcal/mol",
    1.0 / 627.5: "kcal/mol taken for hartree",
    4.184: "kcal/mol taken for kJ/mol",
    1.0 / 4.184: "kJ/mol taken for kcal/mol",
}
NEAR = 0.25  # of the ratio, within which it is taken for such a mistake
OUTLYING = 12.0  # times the median frame's error, beyond which a frame is off


def check_labels(data: Dataset, forces: np.ndarray) -> None:
    """Compare labels with what the starting potential predicts.

    Only where the potential describes the molecule at all: with forces that correlate.

    Args:
        data: the labels.
        forces: (M, N, 3) kcal/mol/Å that the potential predicts for the same frames.

    Raises:
        InputError: forces with the wrong sign or in other units, or frames far off all others.
    """
    if len(data) < 4:
        return
    if not np.isfinite(forces).all() or not forces.any() or not data.forces.any():
        return
    wrong = np.sqrt(((forces - data.forces) ** 2).mean(axis=(1, 2)))
    whole = np.corrcoef(forces.ravel(), data.forces.ravel())[0, 1]
    # Medians of frames, so that a few bad ones do not decide.
    size = np.median(np.linalg.norm(data.forces, axis=(1, 2)))
    size /= np.median(np.linalg.norm(forces, axis=(1, 2)))
    if whole < -0.5:
        raise InputError(
            f"{data.label}: forces point against those of the starting potential (correlation "
            f"{whole:.2f}): these are gradients; change their sign"
        )
    for ratio, what in MISTAKES.items():
        if whole > 0.5 and abs(size / ratio - 1.0) < NEAR and not 0.4 < size < 2.5:
            raise InputError(
                f"{data.label}: forces are {size:.3g} times those of the starting potential: "
                f"{what}? give the right unit"
            )
    off = np.flatnonzero(wrong > OUTLYING * np.median(wrong))
    if len(off) and np.median(wrong) > 0.05 and len(off) < 0.1 * len(data):
        frames = ", ".join(map(str, data.index[off][:10]))
        raise InputError(
            f"{data.label}: the forces of frames {frames} are far off all others (error "
            f"{wrong[off].max():.3g} against {np.median(wrong):.3g} kcal/mol/Å of most); remove "
            "them or compute them again"
        )
