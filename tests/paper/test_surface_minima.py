"""Minima of surfaces are marked where the reference does not confirm them; points far from data."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from jaxff import Molecule
from jaxff.analysis import Scan, rotatable_torsions, torsion_angles
from jaxff.dataset import packaged_dataset
from jaxff.domain import Domain, Trained
from jaxff.paper import contacts
from jaxff.paper.experiment import Setting
from jaxff.paper.minima import closest_contact, contact
from jaxff.paper.surface_minima import (
    CONFIRMED,
    SurfaceMinimum,
    deviations,
    grid_minima,
    shared,
)
from jaxff.paper.surfaces import is_far, no_frame_near


def minimum(positions=None, **known):
    R = np.zeros((2, 3)) if positions is None else positions
    return SurfaceMinimum(R, (0.0, 120.0), 1.3, **{"exact": False, **known})


def test_minima_that_the_reference_contradicts_are_doubtful():
    contradicted = minimum(off=-CONFIRMED - 0.01)
    assert contradicted.is_doubtful
    assert "doubtful" in str(contradicted)
    confirmed = minimum(off=CONFIRMED - 0.01, far=True)
    assert not confirmed.is_doubtful
    assert str(confirmed) == "+0°, +120°: 1.30"


def test_minima_that_were_not_recomputed_are_doubtful_far_from_the_data():
    assert minimum(far=True).is_doubtful
    assert not minimum().is_doubtful
    assert "not recomputed" in str(minimum())
    assert not minimum(exact=True, far=True).is_doubtful  # a force field, not a kernel


def test_deviations_are_those_of_relative_energies():
    off = deviations(np.array([0.0, 1.3, 2.0]), np.array([-5.0, -1.6]))
    np.testing.assert_allclose(off[:2], [0.0, -2.1])
    assert math.isnan(off[2])


def test_minima_on_a_periodic_grid():
    x = np.radians(np.arange(-180.0, 180.0, 30.0))
    energies = 1.0 + np.cos(2.0 * x)[:, None] + 0.5 * np.cos(x)[None]  # lowest at ±90°, 180°
    R = np.zeros((12, 12, 5, 3))
    R[..., 0, 0], R[..., 0, 1] = np.meshgrid(x, x, indexing="ij")
    grid = Scan(
        ("a", "b"), ((0, 1, 2, 3), (1, 2, 3, 4)), (x, x), np.ones(5, int), R, energies,
        np.ones((12, 12), bool), True,
    )  # fmt: skip
    lowest = np.degrees(grid_minima(grid)[:, 0, :2])
    np.testing.assert_allclose(lowest, [[-90.0, -180.0], [90.0, -180.0]])


def test_minima_of_two_potentials_are_the_same_where_their_geometries_are():
    molecule = Molecule.from_smiles("CCO")
    R = molecule.positions
    other = R.copy()
    other[8] += 1.0
    mirrored = R * [1.0, 1.0, -1.0]
    wanted = [minimum(other), minimum(R)]
    assert shared([minimum(mirrored)], wanted, molecule) == [1]
    assert shared([], wanted, molecule) == []


def test_geometries_outside_the_domain_of_a_kernel_are_far_from_the_data():
    data = packaged_dataset("ethanol")[::25]
    kernel = SimpleNamespace(trained=[Trained(Domain.of(data.molecule, data.positions))])
    stretched = data.positions[:2] * 1.1
    assert is_far(kernel, np.concatenate([data.positions[:1], stretched])).tolist() == [
        False, True, True
    ]  # fmt: skip
    assert not is_far(SimpleNamespace(trained=[]), stretched).any()


def test_points_without_a_frame_near_them_are_far_from_the_data():
    data = packaged_dataset("ethanol")[:2]
    torsions = rotatable_torsions(data.molecule)[:2]
    seen = np.asarray(torsion_angles(data.positions, torsions))
    x = [np.array([seen[0, k], seen[0, k] + math.pi]) for k in (0, 1)]
    R = np.zeros((2, 2, 9, 3))
    grid = Scan(
        ("a", "b"), tuple(map(tuple, torsions.tolist())), tuple(x), data.numbers, R,
        np.zeros((2, 2)), np.ones((2, 2), bool), True,
    )  # fmt: skip
    far = no_frame_near(grid, data[:1].positions)
    assert far.tolist() == [[False, True], [True, True]]


def test_torsion_frames_are_training_frames_only(tmp_path):
    molecule = "keto-malondialdehyde"
    setting = Setting(tmp_path)
    name = setting.surface_set(molecule)
    part, more = setting.kernel_frames(name), setting.torsion_frames(name)
    np.testing.assert_array_equal(part.train.positions[-len(more) :], more.positions)
    assert (len(part.train), len(part.valid)) == (450 + len(more), 75)
    assert setting.torsion_frames(molecule) is None  # the data set that dynamics samples
    assert Setting(tmp_path, given={molecule: more}).torsion_frames(molecule) is None


def test_a_curve_has_its_lowest_energy_where_the_potential_has():
    start = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.6]])
    pair = Molecule([8, 6], start, np.empty((0, 2), int))

    def surface(R):
        along = R[:, 1] - R[:, 0]
        r = np.linalg.norm(along, axis=1)
        force = -20.0 * ((r - 2.83) / r)[:, None] * along
        return 10.0 * (r - 2.83) ** 2, np.stack([-force, force], axis=1)

    found = contacts.curve(surface, pair, start, (0, 1), np.arange(2.5, 3.2, 0.1))
    assert found.best == pytest.approx(2.83, abs=2e-3)
    assert found.at(3.0) == pytest.approx(10.0 * (0.17**2 - 0.03**2), abs=1e-3)
    gaps = contacts.Curve(found.distances, np.where(found.distances > 2.65, np.nan, 1.0))
    assert math.isnan(gaps.at(3.0))


def test_the_contact_is_that_of_the_nearer_oxygen():
    molecule = Molecule.from_smiles("CC(=O)Oc1ccccc1C(=O)O")
    (oxygen, carbon), distance = closest_contact(molecule, molecule.positions)
    assert (molecule.symbols[oxygen], molecule.symbols[carbon]) == ("O", "C")
    assert distance == contact(molecule, molecule.positions)


def test_a_curve_without_converged_points_is_unknown():
    unknown = contacts.Curve(np.arange(5.0), np.full(5, np.nan))
    assert np.isnan([unknown.best, unknown.at(2.0)]).all()
    figure = contacts.plot({"sGDML": unknown}, 2.0)
    assert np.isfinite(figure.axes[0].get_ylim()).all()
