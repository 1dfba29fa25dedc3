"""Vibrational spectra of trajectories and their peaks, with errors.

A spectrum is the mean over blocks of time and over replicas.  Errors of the spectrum are computed
from the differences between blocks, and errors of the peaks by the jackknife method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxff import units
from jaxff.analysis.correlations import vdos
from jaxff.errors import InputError

RESOLUTION = 5.0  # cm⁻¹, unless the trajectories are too short
PROMINENCE = 0.01  # least height of a peak above its valleys, relative to the highest peak
SIGNIFICANCE = 2.5  # least logarithm of peak over valley, in standard errors
SCATTER = 0.5  # least standard deviation of that logarithm: few blocks underestimate it
BENT = np.radians(30.0)  # root mean square bend above which a molecule is not linear
MAX_BLOCKS = 32  # in all; the relative uncertainty of the error is then 13 %


class Peak(NamedTuple):
    """A maximum of a spectrum.

    Attributes:
        wavenumber: cm⁻¹.
        error: standard error of the wavenumber, cm⁻¹ (NaN for a single block).
        density: density of states at the maximum, 1/cm⁻¹.
    """

    wavenumber: float
    error: float
    density: float


@dataclass(frozen=True)
class Spectrum:
    """A vibrational density of states.

    Attributes:
        wavenumbers: (K,) cm⁻¹.
        density: (K,) 1/cm⁻¹, with integral one.
        error: (K,) standard error of the density, 1/cm⁻¹ (NaN for a single block).
        peaks: the maxima in order of increasing wavenumber.
        resolution: distance of the points, cm⁻¹; lines closer than two or three times this
            distance merge.
        n_blocks: number of blocks of time and replicas.
    """

    wavenumbers: np.ndarray
    density: np.ndarray
    error: np.ndarray
    peaks: tuple[Peak, ...]
    resolution: float
    n_blocks: int


def spectrum(
    velocities: ArrayLike,
    masses: ArrayLike,
    dt: float,
    *,
    positions: ArrayLike | None = None,
    resolution: float | None = None,
    window: str = "hann",
    step: float | None = None,
) -> Spectrum:
    """Compute the vibrational density of states of one trajectory or of R replicas.

    The density is that of `vdos`.  Wavenumbers above 16,678/dt cm⁻¹ (dt in fs) appear at wrong,
    lower wavenumbers: O-H and N-H stretches need frames at most 4 fs apart.

    Args:
        velocities: (F, N, 3) or (R, F, N, 3) Å/fs.
        masses: (N,) amu.
        dt: time between frames, fs.
        positions: Å, with the shape of `velocities`, to remove overall motion by
            `internal_velocities`; None to keep this motion, which adds a band at zero and broadens
            the lines.
        resolution: cm⁻¹; None for 5, or more if the trajectories have fewer than eight segments.
        window: "hann", "blackman" or "none".
        step: time step of the dynamics, fs, to correct the wavenumbers for the time step; None for
            no correction.  Velocity Verlet and BAOAB shift an angular frequency ω to ω' with
            ω = 2/step sin(ω' step/2) (Hairer, Lubich and Wanner, Acta Numer. 12, 399 (2003)):
            ω' is 19 cm⁻¹ too high at 3,700 cm⁻¹ and 0.5 fs.

    Raises:
        InputError: arrays with wrong shapes, values that are not finite or not positive, no
            motion, a step longer than dt, or trajectories too short for the resolution.
    """
    for value, name in ((dt, "dt"), (step, "step"), (resolution, "resolution")):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} must be positive and finite (got {value})")
    if step is not None and step > dt * (1.0 + 1e-6):
        raise InputError(f"step must be at most dt, {dt:g} fs (got {step:g} fs)")
    masses = np.asarray(masses, float)
    v = _vibrations(velocities, positions, masses)
    v = v[None] if v.ndim == 3 else v
    replicas, n = v.shape[:2]
    spacing = units.WAVENUMBER_PER_FS / dt
    length = round(spacing / (RESOLUTION if resolution is None else resolution))
    if resolution is None:
        length = min(length, n, n * replicas // 8)
    if not 2 <= length <= n:
        raise InputError(
            f"a resolution of {resolution or RESOLUTION:g} cm⁻¹ needs {max(length, 16)} frames of "
            f"{dt:g} fs (got {n}): use a coarser resolution or longer trajectories"
        )
    blocks = int(np.clip(n // (2 * length), 1, max(MAX_BLOCKS // replicas, 1)))
    cut = n // blocks
    v = v[:, : cut * blocks].reshape(replicas * blocks, cut, *v.shape[2:])
    wavenumbers, parts = (np.asarray(x, float) for x in vdos(v, masses, dt, window, length))
    if step is not None:
        wavenumbers, stretch = _exact(wavenumbers, step)
        parts = parts / stretch
    density, error = parts.mean(axis=0), np.full(len(wavenumbers), np.nan)
    if len(parts) > 1:
        error = parts.std(axis=0, ddof=1) / np.sqrt(len(parts))
    peaks = _peaks(wavenumbers, parts)
    return Spectrum(wavenumbers, density, error, peaks, spacing / length, len(parts))


def _vibrations(velocities, positions, masses: np.ndarray) -> np.ndarray:
    """Check velocities (R, F, N, 3) Å/fs, and remove overall motion if there are positions."""
    v = np.asarray(velocities)
    if v.ndim not in (3, 4) or v.shape[-1] != 3 or not v.size:
        raise InputError(f"velocities must have shape (F, N, 3) or (R, F, N, 3) (got {v.shape})")
    if masses.shape != v.shape[-2:-1] or not (np.isfinite(masses) & (masses > 0.0)).all():
        raise InputError(
            f"masses must be positive, amu, with shape ({v.shape[-2]},) (got shape {masses.shape}, "
            f"lowest mass {masses.min(initial=np.inf):g})"
        )
    _check_finite(v, "velocities")
    if not v.any():
        raise InputError("all velocities are zero: give the velocities of a simulation")
    if positions is None:
        return v
    r = np.asarray(positions)
    if r.shape != v.shape:
        raise InputError(
            f"positions must have the shape of the velocities, {v.shape} (got {r.shape})"
        )
    _check_finite(r, "positions")
    fastest, v = np.abs(v).max(), internal_velocities(r, v, masses)
    if not np.abs(v).max() > 1e-12 * fastest:
        raise InputError(
            "the molecule does not vibrate: give the velocities of a simulation of all atoms"
        )
    return v


def internal_velocities(
    positions: ArrayLike, velocities: ArrayLike, masses: ArrayLike
) -> np.ndarray:
    """Remove the overall motion from velocities.

    The velocity of the centre of mass and the angular velocity are subtracted.  Each frame is then
    superposed on the first frame by mass-weighted least squares (Eckart axes, to first order in
    the vibrations), and the velocities are rotated accordingly.  For linear molecules, which bend
    by less than 30° (root mean square), only the rotation of the molecular axis is subtracted.

    Args:
        positions: (..., F, N, 3) Å, frames in the order of time.
        velocities: (..., F, N, 3) Å/fs.
        masses: (N,) amu.

    Returns:
        velocities (..., F, N, 3) Å/fs in molecular axes.

    Raises:
        InputError: the shapes differ.
    """
    r, v, m = (np.asarray(x, float) for x in (positions, velocities, masses))
    if r.shape != v.shape or r.ndim < 3 or m.shape != r.shape[-2:-1]:
        raise InputError(
            f"positions and velocities must have the same shape (..., F, N, 3) (got {r.shape} and "
            f"{v.shape}), and masses (N,) (got {m.shape})"
        )
    share = m / m.sum()
    r, v = (x - np.einsum("n,...nc->...c", share, x)[..., None, :] for x in (r, v))
    return (_along_axis if _is_linear(r) else _turned_back)(r, v, m)


def _turned_back(r, v, m) -> np.ndarray:
    """Compute `internal_velocities` of a nonlinear molecule with the centre of mass at zero."""
    momentum = np.einsum("n,...nc->...c", m, np.cross(r, v))
    squares = np.einsum("n,...nc,...nd->...cd", m, r, r)
    inertia = np.trace(squares, axis1=-2, axis2=-1)[..., None, None] * np.eye(3) - squares
    # The pseudo-inverse also covers a single atom.
    turn = np.einsum("...cd,...d->...c", np.linalg.pinv(inertia, 1e-9, hermitian=True), momentum)
    v = v - np.cross(turn[..., None, :], r)
    first = r.reshape(-1, *r.shape[-2:])[0]
    u, _, wt = np.linalg.svd(np.einsum("n,...nc,nd->...cd", m, r, first))
    sign = np.where(np.linalg.det(u @ wt) < 0.0, -1.0, 1.0)
    u[..., :, -1] *= sign[..., None]
    return v @ (u @ wt)


def _along_axis(r, v, m) -> np.ndarray:
    """Compute `internal_velocities` of a linear molecule.

    Rotation about the molecular axis is not removed.  A vibrating linear molecule has a small
    moment of inertia about this axis, so that bends would be taken for rotations.
    """
    first = r.reshape(-1, *r.shape[-2:])[0]
    weights = m * (first @ _main_axis(first, m))
    # Eckart's axis: the bends displace no moment about it.
    axis, rate = (np.einsum("n,...nc->...c", weights, x) for x in (r, v))
    length = np.linalg.norm(axis, axis=-1, keepdims=True)
    axis = axis / length
    v = v - np.cross(np.cross(axis, rate / length)[..., None, :], r)
    # Two normals of the axis in each frame.  The shortest rotation carries the normals of the frame
    # before to this axis; the angle between the two pairs is subtracted.
    side = np.cross(axis, np.eye(3)[np.abs(axis).argmin(axis=-1)])
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    other = np.cross(axis, side)
    old, new = axis[..., :-1, :], axis[..., 1:, :]
    carried = side[..., :-1, :]
    overlap = _dot(carried, new) / np.maximum(1.0 + _dot(old, new), 1e-12)
    carried = carried - overlap[..., None] * (old + new)
    angle = np.arctan2(_dot(carried, other[..., 1:, :]), _dot(carried, side[..., 1:, :]))
    angle = np.cumsum(np.pad(angle, [*[(0, 0)] * (angle.ndim - 1), (1, 0)]), axis=-1)
    cos, sin = np.cos(angle)[..., None], np.sin(angle)[..., None]
    axes = np.stack([cos * side + sin * other, cos * other - sin * side, axis], axis=-2)
    return v @ np.swapaxes(axes, -1, -2) @ axes.reshape(-1, 3, 3)[0]


def _is_linear(r) -> bool:
    """Whether a molecule with frames r (..., F, N, 3) Å is linear, apart from vibrations.

    The criterion uses the angles between neighbours along the molecule.  Moments of inertia cannot
    be used, because a long rod with a bent end or a methyl group also has a small moment.
    """
    if r.shape[-2] < 2:
        return False
    first = r.reshape(-1, *r.shape[-2:])[0]
    steps = np.diff(r[..., np.argsort(first @ _main_axis(first, 1.0)), :], axis=-2)
    a, b = steps[..., :-1, :], steps[..., 1:, :]
    bends = np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), _dot(a, b))
    squares = np.square(bends).mean(axis=tuple(range(bends.ndim - 1)))
    return bool((squares < BENT**2).all())


def _main_axis(r, m) -> np.ndarray:
    """Return the direction (3,) of the largest variance of centred positions r (N, 3)."""
    return np.linalg.eigh(np.einsum("nc,nd->cd", r * np.reshape(m, (-1, 1)), r))[1][:, -1]


def _dot(a, b) -> np.ndarray:
    return np.einsum("...c,...c->...", a, b)


def _check_finite(values, name: str) -> None:
    if not np.isfinite(values).all():
        frame = np.argwhere(~np.isfinite(values))[0][-3]
        raise InputError(f"{name} are not finite in frame {frame}: remove such frames")


def peak_shifts(spectra: Sequence[Spectrum], within: float = 40.0) -> list[dict]:
    """Compute the shifts of peaks relative to the first spectrum.

    Peaks of two spectra are paired one to one, with the smallest sum of distances.

    Args:
        spectra: S spectra.
        within: largest shift, cm⁻¹.

    Returns:
        a dict for each peak of the first spectrum: "peaks" (S `Peak` or None), "shifts" (S,) cm⁻¹
        and "errors" (S,) cm⁻¹; NaN if a spectrum has no such peak.
    """
    from scipy.optimize import linear_sum_assignment

    first = spectra[0].peaks
    partners: list[list[Peak | None]] = [[peak] for peak in first]
    for other in spectra[1:]:
        distance = np.array(
            [[abs(a.wavenumber - b.wavenumber) for b in other.peaks] for a in first]
        ).reshape(len(first), len(other.peaks))
        # Distances far beyond `within` are cut, so that they do not pull near pairs apart.
        pairs = zip(*linear_sum_assignment(np.minimum(distance, 1e3 * within)), strict=True)
        partner = {i: other.peaks[j] for i, j in pairs if distance[i, j] <= within}
        for i, row in enumerate(partners):
            row.append(partner.get(i))
    rows = []
    for peak, row in zip(first, partners, strict=True):
        shifts = [np.nan if p is None else p.wavenumber - peak.wavenumber for p in row]
        errors = [np.nan if p is None else np.hypot(p.error, peak.error) for p in row]
        rows.append({"peaks": row, "shifts": shifts, "errors": [0.0, *errors[1:]]})
    return rows


def _exact(wavenumbers, step):
    """Correct wavenumbers, cm⁻¹, for the time step; also return the derivative of the result."""
    phase = np.pi * wavenumbers / units.WAVENUMBER_PER_FS * step
    return units.WAVENUMBER_PER_FS / (np.pi * step) * np.sin(phase), np.cos(phase)


def _peaks(wavenumbers, parts) -> tuple[Peak, ...]:
    """Return the significant maxima of the mean of spectra `parts` (blocks, K)."""
    from scipy.signal import find_peaks

    density, n = parts.mean(axis=0), len(parts)
    places, bases = find_peaks(density, prominence=PROMINENCE * density.max())
    sides = np.stack([bases["left_bases"], bases["right_bases"]])
    valleys = np.where(density[sides[0]] > density[sides[1]], *sides)
    # Logarithms, because the height of a line varies between blocks with the energy of its mode.
    rise = np.log(np.maximum(parts[:, places], 1e-300) / np.maximum(parts[:, valleys], 1e-300))
    if n > 1:
        doubt = np.maximum(rise.std(axis=0, ddof=1), SCATTER) / np.sqrt(n)
        places = places[rise.mean(axis=0) > SIGNIFICANCE * doubt]
    without = [] if n == 1 else [(n * density - part) / (n - 1) for part in parts]
    peaks = []
    for place in places:
        at, height = _vertex(wavenumbers, density, place)
        again = np.array([_vertex(wavenumbers, other, place)[0] for other in without])
        spread = np.sqrt((n - 1) * again.var()) if n > 1 else np.nan
        peaks.append(Peak(float(at), float(spread), float(height)))
    return tuple(peaks)


def _vertex(x, density, place) -> tuple[float, float]:
    """Return the wavenumber and height of a maximum, by a parabola through three logarithms."""
    low = max(place - 2, 1)
    k = low + int(np.argmax(density[low : min(place + 3, len(x) - 1)]))
    a, b, c = np.log(np.maximum(density[k - 1 : k + 2], 1e-300))
    bend = a - 2.0 * b + c
    offset = np.clip(0.5 * (a - c) / bend, -0.5, 0.5) if bend < 0.0 else 0.0
    at = np.interp(k + offset, np.arange(len(x)), x)
    return at, np.exp(b - 0.25 * (a - c) * offset)
