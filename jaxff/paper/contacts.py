"""The n→π* contact of aspirin: energies against the O···C distance by each potential.

An oxygen of the acid donates a lone pair to the carbonyl carbon of the ester, which causes an
attraction. Force fields contain only the electrostatic part of this attraction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.interpolate import CubicSpline

from jaxff.analysis import scan
from jaxff.md import Descent
from jaxff.molecule import Molecule
from jaxff.report import style

DISTANCES = np.arange(2.4, 4.01, 0.1)  # Å
APART = 3.8  # Å, a distance at which the contact is lost
DESCENT = Descent(tolerance=2e-2, max_steps=500)


class Curve(NamedTuple):
    """Energies along a distance, with all other coordinates relaxed.

    Attributes:
        distances: (D,) Å, ascending.
        energies: (D,) kcal/mol above the lowest energy; NaN without convergence.
    """

    distances: np.ndarray
    energies: np.ndarray

    def at(self, distance: float) -> float:
        """Return the energy, kcal/mol, at a distance, Å, by a cubic spline."""
        known = np.isfinite(self.energies)
        if known.sum() < 4:
            return float("nan")
        return float(CubicSpline(self.distances[known], self.energies[known])(distance))

    @property
    def best(self) -> float:
        """The distance of the lowest energy, Å, by a cubic spline; NaN if unknown."""
        known = np.flatnonzero(np.isfinite(self.energies))
        if len(known) < 4:
            return float("nan")
        fine = np.linspace(self.distances[known[0]], self.distances[known[-1]], 1000)
        return float(fine[np.argmin([self.at(d) for d in fine])])


def curve(
    surface: Any, molecule: Molecule, start: np.ndarray, atoms: tuple[int, int],
    distances: np.ndarray = DISTANCES,
) -> Curve:  # fmt: skip
    """Compute energies along the distance between two atoms, with all other coordinates relaxed.

    Args:
        surface: a potential or a calculator.
        molecule: elements and bonds.
        start: (N, 3) Å, from which the geometry at each distance is relaxed first.
        atoms: the two atoms.
        distances: (D,) Å, ascending.
    """
    start_at = molecule.with_positions(start)
    grid = scan(surface, start_at, [atoms], [distances], relax=True, descent=DESCENT)
    energies = np.where(grid.converged, grid.relative, np.nan)
    return Curve(np.asarray(distances), energies - np.fmin.reduce(energies))


def plot(curves: Mapping[str, Curve], marked: float) -> Figure:
    """Plot the curves of several potentials.

    Args:
        curves: the curves by name of the potential.
        marked: distance that a line marks, Å.
    """
    figure, ax = style.single(6.4, 4.0)
    for k, (name, one) in enumerate(curves.items()):
        ax.plot(
            one.distances, one.energies, label=name, color=style.colour(k), markersize=4,
            marker=style.MARKERS[k % len(style.MARKERS)],
        )  # fmt: skip
    ax.axvline(marked, color="#888888", linewidth=1.0, linestyle="--")
    ax.annotate("minimum (a)", (marked, 1.0), (3, -10), xycoords=("data", "axes fraction"),
                textcoords="offset points", fontsize="small")  # fmt: skip
    ax.set_xlabel("O···C distance, Å")
    ax.set_ylabel("energy above the lowest, kcal/mol")
    highest = np.fmax.reduce([one.energies for one in curves.values()], axis=None)
    ax.set_ylim(-0.2, np.fmin(15.0, highest + 0.5))
    ax.grid(alpha=0.3)
    ax.legend(fontsize="small")
    return figure
