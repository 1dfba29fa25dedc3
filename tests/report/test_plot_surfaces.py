"""Pictures of surfaces: what is marked, and where."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection

from jaxff.analysis import Scan
from jaxff.analysis.stationary_points import Ordering
from jaxff.report import plot_surfaces

ANGLES = np.radians(np.arange(-180.0, 180.0, 20.0))


def scan_of(energies):
    R = np.zeros((*energies.shape, 5, 3))
    return Scan(
        ("hydroxyl rotor", "methyl rotor"), ((0, 1, 2, 3), (1, 2, 3, 4)), (ANGLES, ANGLES),
        np.ones(5, int), R, energies, np.ones(energies.shape, bool), True,
    )  # fmt: skip


@pytest.fixture
def trans():
    """A surface that is lowest at 180°, ±60° and 180°, 180°."""
    return scan_of(2.0 + np.cos(ANGLES)[:, None] + np.cos(3.0 * ANGLES)[None])


def test_the_lowest_point_is_inside_its_panel(trans):
    figure = plot_surfaces.energy_maps({"a": trans, "b": trans})
    panel = figure.axes[0]
    assert panel.get_xlim() == (0.0, 360.0)
    assert figure.axes[2].get_xlabel() == "hydroxyl rotor, degrees"
    assert panel.get_ylabel() == "methyl rotor, degrees"
    (x,), (y,) = panel.lines[0].get_data()  # a cross
    assert (x, y) == (pytest.approx(180.0), pytest.approx(180.0))


def test_minima_are_marked_at_their_torsions(trans):
    marks = plot_surfaces.Marks(np.array([[178.0, 61.0], [-60.0, -60.0]]), np.array([False, True]))
    panel = plot_surfaces.energy_maps({"a": trans}, minima={"a": marks}).axes[0]
    assert np.ravel(panel.lines[0].get_data()).tolist() == [178.0, 61.0]
    circle = next(c for c in panel.collections if isinstance(c, PathCollection))
    assert circle.get_offsets().tolist() == [[300.0, -60.0]]
    assert circle.get_linestyle()[0][1] is not None  # dashed


def test_values_between_grid_points_are_those_of_a_smooth_function(trans):
    (x, y), z = plot_surfaces._around(trans, trans.energies)
    expected = 2.0 + np.cos(np.radians(x))[:, None] + np.cos(np.radians(3.0 * y))[None]
    np.testing.assert_allclose(z, expected, atol=0.03)


def test_levels_of_different_potentials_are_not_joined_by_lines():
    order = Ordering(
        ("reference", "GAFF"), np.zeros((2, 2)), np.array([[0.0, 1.5], [2.0, 0.0]]),
        np.array([[0, 1], [1, 1]]), np.zeros((2, 2)),
    )  # fmt: skip
    ax = plot_surfaces.minima_levels(order, ["(a)", "(c)"]).axes[0]
    assert not ax.lines
    ends = [c.get_segments() for c in ax.collections if isinstance(c, LineCollection)]
    assert all(abs(b[0] - a[0]) < 1.0 for levels in ends for a, b in levels)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "(a)", "(c)", "relaxed to another"
    ]  # fmt: skip
    assert "kcal/mol" in ax.get_ylabel()
