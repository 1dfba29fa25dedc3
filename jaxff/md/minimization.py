"""Energy minimisation of one geometry or of many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxff.errors import InputError
from jaxff.md.descent import Descent, Minimum, relax
from jaxff.md.frames import is_periodic
from jaxff.md.guard import nearest_atoms, starting_lengths
from jaxff.md.relax_system import relax_system
from jaxff.md.rigid import Rigid
from jaxff.md.surface import as_surface
from jaxff.potential import Potential


def minimize(
    surface: Any,
    molecule: Any,
    *,
    positions: ArrayLike | None = None,
    descent: Descent | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Minimum:
    """Minimise the energy from one starting geometry, or from each of many.

    Systems are minimised at constant box.  Constrained distances keep their lengths: forces are
    projected so that they do not change the distances, and steps are corrected as in dynamics.

    Args:
        surface: a `Potential` of the molecule in any atom order, an ASE calculator, or a function
            (see `jaxff.md.surface.as_surface`).  Systems need a potential.
        molecule: elements and starting geometry, a `Molecule` or a `System`.
        positions: (N, 3) or (B, N, 3) Å, starting geometries (None: that of `molecule`).
        descent: settings (None: `Descent(tolerance=1e-4)`).
        progress: for calculators and systems, function called with a text and the finished
            fraction.

    Returns:
        `Minimum`, with a leading axis B if `positions` has one.

    Raises:
        InputError: `positions` of another shape, a potential of another molecule, FIRE for a
            calculator or system, a system without a potential, bonded atoms at the same position,
            or a starting geometry whose energy or forces are not finite.
    """
    surface = as_surface(surface, molecule)
    R = np.asarray(molecule.positions if positions is None else positions, float)
    if R.ndim not in (2, 3) or R.shape[-2:] != (molecule.n_atoms, 3):
        raise InputError(
            f"positions must have shape (N, 3) or (B, N, 3) with N = {molecule.n_atoms}, "
            f"got {R.shape}"
        )
    starts = R.reshape(-1, *R.shape[-2:])
    if len(molecule.bonds):
        starting_lengths(molecule, starts)
    descent = descent or Descent(tolerance=1e-4)
    if is_periodic(molecule) or Rigid.of(molecule) is not None:
        if not isinstance(surface, Potential):
            raise InputError(
                "a system in a box or with constraints is minimised by a Potential only, such as "
                "that of system.potential()"
            )
        minima = relax_system(surface, molecule, starts, descent, progress)
    else:
        minima = relax(surface, starts, descent=descent, progress=progress)
    bad = np.flatnonzero(~np.isfinite(minima.energy))
    if len(bad):
        raise _not_finite(molecule, starts, bad, batched=R.ndim == 3)
    return minima.reshape(R.shape[:-2])


def _not_finite(molecule: Any, R: np.ndarray, bad: np.ndarray, batched: bool) -> InputError:
    """Return the error for the geometries with indices `bad` of R (B, N, 3) Å."""
    where = "the starting geometry"
    if batched:
        which = ", ".join(map(str, bad[:5])) + ", ..." * (len(bad) > 5)
        where = f"starting geometries {which} (of {len(R)}, from 0)"
    first, hint = R[bad[0]], ", where coordinates are not finite"
    if np.isfinite(first).all():
        near = [
            (r, i, j)
            for i in range(1, len(first))
            for r, j in nearest_atoms(molecule, first[: i + 1], i)
        ]
        hint = "".join(
            f", where atoms {j} and {i} are {r:.3g} Å apart" for r, i, j in sorted(near)[:1]
        )
    return InputError(f"the energy or a force is not finite at {where}{hint}: correct the geometry")
