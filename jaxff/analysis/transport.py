"""Diffusion of molecules in a periodic box.

centres = molecular_centres(positions, boxes, system)
found = diffusion(times, centres)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import erfc

from jaxff import cell, units
from jaxff.analysis.averages import Estimate
from jaxff.analysis.correlations import mean_square_displacement
from jaxff.errors import InputError

# Å, root mean square displacement at the end of the fitted lags.
DISTANCE = 6.0
# The fitted lags begin at this fraction of the last one.
START = 0.2
# Fewest and most blocks; a block is at least twice as long as the longest fitted lag.
BLOCKS, MOST_BLOCKS = 5, 50
# Fewest fitted lags, and largest deviation of the exponent of normal diffusion from 1.
FEWEST, EXPONENT = 4, 0.1
AT_ONCE = 2**23  # numbers in memory at once


@dataclass(frozen=True, eq=False)
class Diffusion:
    """The mean square displacement of molecules and their diffusion coefficient.

    Attributes:
        lags: (K,) fs.
        displacements: (K,) Å², mean square displacements.
        coefficient: 10⁻⁹ m²/s (10⁻⁵ cm²/s) in the periodic box, with its error; None if the
            trajectory does not determine it.
        exponent: of the displacements as a power of the lag, within the window; 1 for diffusion.
            None if unknown.
        window: first and last fitted lag, fs; None without a fit.
        reason: why there is no coefficient; empty if there is one.
    """

    lags: np.ndarray
    displacements: np.ndarray
    coefficient: Estimate | None
    exponent: Estimate | None
    window: tuple[float, float] | None
    reason: str = ""


def molecular_centres(positions: ArrayLike, boxes: ArrayLike, system: Any) -> np.ndarray:
    """Compute the unwrapped centres of mass of molecules, (F, M, 3) Å.

    The displacements between consecutive frames are those of the fractional coordinates, to the
    nearest image.  The scaling of the box by a barostat therefore does not move the centres (von
    Bülow, Bullerjahn and Hummer, J. Chem. Phys. 153, 021101 (2020)).  The motion of the centre of
    mass of the whole box is removed.  Molecules must move less than half the box between frames.

    Args:
        positions: (F, N, 3) Å of whole molecules, in any image.
        boxes: (F, 3, 3) Å, lattice vectors as rows.
        system: the `System`, with its masses and molecules.

    Raises:
        InputError: the arrays do not have these shapes.
    """
    positions, boxes = np.asarray(positions), np.asarray(boxes, float)
    shape = positions.shape
    if len(shape) != 3 or shape[1:] != (len(system), 3) or boxes.shape != (shape[0], 3, 3):
        raise InputError(
            f"positions must have shape (F, {len(system)}, 3) and boxes (F, 3, 3) (got {shape} and "
            f"{boxes.shape})"
        )
    index, masses = np.asarray(system.molecules), np.asarray(system.masses, float)
    order = np.argsort(index, kind="stable")
    starts = np.flatnonzero(np.diff(index[order], prepend=-1))
    totals = np.bincount(index, masses)
    centres = np.empty((shape[0], len(totals), 3))
    for f, R in enumerate(positions):
        weighted = (masses[:, None] * np.asarray(R, float))[order]
        centres[f] = np.add.reduceat(weighted, starts) / totals[:, None]
    steps = np.diff(centres @ np.linalg.inv(boxes), axis=0)
    steps = (steps - np.round(steps)) @ boxes[1:]
    steps -= (totals[:, None] * steps).sum(axis=1, keepdims=True) / totals.sum()
    centres[1:] = centres[0] + np.cumsum(steps, axis=0)
    return centres


def diffusion(
    times: ArrayLike, centres: ArrayLike, window: tuple[float, float] | None = None
) -> Diffusion:
    """Compute the diffusion coefficient of molecules from Einstein's relation.

    A line is fitted to the mean square displacement.  Without a window, the fit ends where the root
    of the displacement is 6 Å, and begins at a fifth of this lag.  The error is computed from
    blocks of the trajectory.  There is no coefficient if the trajectory is shorter than ten times
    the last lag, or if the displacement is not proportional to the lag within its error.

    Args:
        times: (F,) fs, at equal intervals.
        centres: (F, M, 3) Å; see `molecular_centres`.
        window: first and last fitted lag, fs.

    Raises:
        InputError: the arrays do not have these shapes, or the intervals differ.
    """
    t, r = np.asarray(times, float), np.asarray(centres, float)
    if r.ndim != 3 or r.shape[2] != 3 or t.shape != r.shape[:1] or len(t) < 2:
        raise InputError(
            f"centres must have shape (F, M, 3) and times (F,) with F > 1 (got {r.shape} and "
            f"{t.shape})"
        )
    step = (t[-1] - t[0]) / (len(t) - 1)
    if not step > 0.0 or np.abs(np.diff(t) - step).max() > 1e-6 * step * len(t):
        raise InputError("the times between frames must be positive and equal; select such frames")
    n_lags = (len(t) - 1) // (2 * BLOCKS) + 1
    lags, curve = step * np.arange(n_lags), _displacements(r, n_lags)
    if window is None:
        far = np.flatnonzero(curve >= DISTANCE**2)
        if not len(far):
            return Diffusion(lags, curve, None, None, None, _too_short(curve, lags, t[-1] - t[0]))
        last = int(far[0])
        first = int(np.ceil(START * last))
    else:
        first, last = (round(x / step) for x in window)
        if not 0 < first < last < n_lags:
            reason = (
                f"the trajectory of {(t[-1] - t[0]) / 1e3:.4g} ps must be {2 * BLOCKS} times as "
                f"long as the last fitted lag, {window[1] / 1e3:.4g} ps"
            )
            return Diffusion(lags, curve, None, None, None, reason)
    first = max(first, 1)
    span = lags[first], lags[last]
    if last - first + 1 < FEWEST:
        reason = (
            f"there are only {last - first + 1} frames between the lags {span[0]:.4g} and "
            f"{span[1]:.4g} fs, but at least {FEWEST} are needed; record more frames"
        )
        return Diffusion(lags, curve, None, None, span, reason)
    count = int(np.clip((len(t) - 1) // (2 * last), BLOCKS, MOST_BLOCKS))
    length = (len(t) - 1) // count + 1  # neighbouring blocks share a frame
    blocks = np.stack([r[b * (length - 1) :][:length] for b in range(count)])
    curves = [curve, *_displacements(blocks, last + 1)]
    fits = np.array([_fit(lags[first : last + 1], c[first : last + 1]) for c in curves])
    errors = fits[1:].std(axis=0, ddof=1) / np.sqrt(count)
    coefficient, exponent = (Estimate(*pair) for pair in zip(fits[0], errors, strict=True))
    reason = ""
    if abs(exponent.mean - 1.0) > EXPONENT + 2.0 * exponent.error:
        reason = (
            f"the mean square displacement grows as the lag to the power of {exponent.mean:.2f} ± "
            f"{exponent.error:.2f}, so that the motion is not yet diffusive; simulate longer"
        )
    return Diffusion(lags, curve, None if reason else coefficient, exponent, span, reason)


def finite_size_correction(box: ArrayLike, temperature: float, viscosity: float) -> float:
    """Compute the correction of diffusion coefficients in a periodic box, 10⁻⁹ m²/s.

    The correction ξ kT/(6π η L) is added to the coefficient in the box.  ξ/L is the negative of the
    self-interaction of a charge in this box with a neutralising background; ξ is 2.837297 for a
    cube with the edge L.
    Source: Yeh and Hummer, J. Phys. Chem. B 108, 15873 (2004).

    Args:
        box: (3, 3) Å, lattice vectors as rows; the mean over frames at constant pressure.
        temperature: K.
        viscosity: mPa s, of the model; the experimental value of water at 298 K is 0.89.
    """
    if not (temperature > 0.0 and viscosity > 0.0):
        raise InputError(
            f"temperature and viscosity must be positive (got {temperature} K and {viscosity} "
            "mPa s)"
        )
    kT = units.BOLTZMANN_SI * temperature
    per_metre = 1e10 * _self_interaction(np.asarray(box, float))
    return 1e9 * kT * per_metre / (6.0 * np.pi * 1e-3 * viscosity)


def _self_interaction(box: np.ndarray) -> float:
    """ξ/L in 1/Å of a box (3, 3) Å, by an Ewald sum."""
    volume = cell.volume(box)
    alpha = np.sqrt(np.pi) / volume ** (1.0 / 3.0)
    # Both sums converge within six widths of their Gaussians.
    real = _lattice(box, 6.0 / alpha)
    waves = _lattice(2.0 * np.pi * np.linalg.inv(box).T, 12.0 * alpha)
    k2 = waves**2
    total = (erfc(alpha * real) / real).sum()
    total += 4.0 * np.pi / volume * (np.exp(-k2 / (4.0 * alpha**2)) / k2).sum()
    return float(2.0 * alpha / np.sqrt(np.pi) + np.pi / (volume * alpha**2) - total)


def _lattice(rows: np.ndarray, reach: float) -> np.ndarray:
    """Lengths (K,) of the vectors of a lattice (3, 3) up to a length, without zero."""
    most = np.ceil(reach * np.linalg.norm(np.linalg.inv(rows), axis=0)).astype(int)
    steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in most)), axis=-1).reshape(-1, 3)
    lengths = np.linalg.norm(steps @ rows, axis=1)
    return lengths[(lengths > 0.0) & (lengths <= reach)]


def _displacements(r: np.ndarray, n_lags: int) -> np.ndarray:
    """Mean square displacements (..., n_lags) Å² of r (..., F, M, 3) Å, few molecules at a time."""
    at_once = max(1, AT_ONCE // (6 * r[..., 0, 0].size))
    total = np.zeros((*r.shape[:-3], n_lags))
    for begin in range(0, r.shape[-2], at_once):
        part = r[..., begin : begin + at_once, :]
        total += part.shape[-2] * np.asarray(mean_square_displacement(part, n_lags=n_lags))
    return total / r.shape[-2]


def _fit(lags: np.ndarray, curve: np.ndarray) -> tuple[float, float]:
    """Diffusion coefficient, 10⁻⁹ m²/s, and exponent of displacements (K,) Å² at lags (K,) fs."""
    slope = np.polyfit(lags, curve, 1)[0]
    exponent = np.polyfit(np.log(lags), np.log(curve), 1)[0]
    return units.DIFFUSION * slope / 6.0, float(exponent)


def _too_short(curve: np.ndarray, lags: np.ndarray, duration: float) -> str:
    return (
        f"within a tenth of the trajectory of {duration / 1e3:.4g} ps, the root mean square "
        f"displacement reaches {np.sqrt(curve[-1]):.2g} Å, but {DISTANCE:g} Å are needed; simulate "
        "longer"
    )
