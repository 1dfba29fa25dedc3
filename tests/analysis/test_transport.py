"""Diffusion, compared with random walks and lattice constants."""

import numpy as np
import pytest

from jaxff import InputError, cell, units
from jaxff.analysis import diffusion, finite_size_correction, molecular_centres
from jaxff.solvent.models import water_model
from jaxff.solvent.parts import Copies, join, of_water

D = 2.5e-4  # Å²/fs


def walk(frames: int, molecules: int, step: float, seed: int) -> np.ndarray:
    """Random walks (F, M, 3) Å with the diffusion coefficient D."""
    random = np.random.default_rng(seed)
    return np.cumsum(random.normal(size=(frames, molecules, 3)) * np.sqrt(2 * D * step), axis=0)


def test_a_random_walk_has_its_diffusion_coefficient():
    deviations = []
    for seed in range(12):
        found = diffusion(200.0 * np.arange(3000), walk(3000, 60, 200.0, seed))
        assert found.reason == ""
        assert found.window[1] <= 0.1 * 200.0 * 3000
        exact = units.DIFFUSION * D
        assert abs(found.coefficient.mean / exact - 1.0) < 0.15
        deviations.append((found.coefficient.mean - exact) / found.coefficient.error)
        assert abs(found.exponent.mean - 1.0) < 0.1
    # In units of the errors, the deviations have a variance near one.
    assert 0.4 < np.sqrt(np.mean(np.square(deviations))) < 1.8


def test_a_short_or_confined_motion_has_no_diffusion_coefficient():
    times = 200.0 * np.arange(3000)
    short = diffusion(times[:100], walk(100, 60, 200.0, 1))
    assert short.coefficient is None
    assert "simulate longer" in short.reason
    random = np.random.default_rng(2)
    confined = diffusion(times, random.normal(size=(3000, 20, 3)) * 8.0)
    assert confined.coefficient is None
    assert confined.reason
    ballistic = np.arange(3000)[:, None, None] * random.normal(size=(1, 20, 3)) * 0.1
    assert "not yet diffusive" in diffusion(times, ballistic).reason
    assert "long" in diffusion(times, walk(3000, 5, 200.0, 3), window=(1e3, 3e5)).reason
    rare = diffusion(40 * times, walk(3000, 5, 8e3, 4), window=(8e3, 2.4e4))
    assert "only 3 frames" in rare.reason


def test_a_window_can_be_given():
    found = diffusion(200.0 * np.arange(2000), walk(2000, 100, 200.0, 5), window=(2e3, 8e3))
    np.testing.assert_allclose(found.window, (2e3, 8e3))
    exact = units.DIFFUSION * D
    assert abs(found.coefficient.mean - exact) < 4.0 * found.coefficient.error < exact


@pytest.mark.parametrize("box", [np.diag([9.0, 10.0, 11.0]), cell.truncated_octahedron(9.0)])
def test_centres_do_not_move_with_the_box_and_have_no_images(box):
    random, frames = np.random.default_rng(6), 400
    water = of_water(water_model("tip3p"))
    places = random.random((20, 1, 3)) @ box
    system = join([Copies(water, water.positions + places)], box, "water")
    # Fractional random walks in a box that changes by 2 % between frames.
    scales = 1.0 + 0.02 * random.normal(size=frames)
    boxes = box * scales[:, None, None]
    steps = random.normal(size=(frames, 20, 3)) * 0.3
    steps -= steps.mean(axis=1, keepdims=True)  # the removed motion of the box
    fractions = places[:, 0] @ np.linalg.inv(box) + np.cumsum(steps @ np.linalg.inv(boxes), axis=0)
    wrapped = (fractions - np.floor(fractions)) @ boxes
    inside = water.positions - water.masses @ water.positions / water.masses.sum()
    positions = (wrapped[:, :, None] + inside).reshape(frames, 60, 3)
    centres = molecular_centres(positions, boxes, system)
    moves = centres - centres[0]
    np.testing.assert_allclose(moves, np.cumsum(steps, axis=0) - steps[0], atol=1e-8)
    with pytest.raises(InputError, match=r"shape \(F, 60, 3\)"):
        molecular_centres(positions[:, :-1], boxes, system)


def test_times_must_be_equally_spaced():
    times = 200.0 * np.arange(100.0)
    times[-1] += 100.0
    with pytest.raises(InputError, match="positive and equal"):
        diffusion(times, walk(100, 5, 200.0, 7))
    with pytest.raises(InputError, match="must have shape"):
        diffusion(times, walk(90, 5, 200.0, 7))


def test_the_finite_size_correction_has_the_constants_of_wigner_lattices():
    # −ξ r_s/(2 L) with the radius r_s of a sphere of the volume of the box: Wigner energies.
    fcc = np.array([[8.0, 0, 0], [4.0, 4.0 * 3**0.5, 0], [4.0, 4.0 / 3**0.5, 8.0 * (2 / 3) ** 0.5]])
    known = {
        -0.880059442: 17.0 * np.eye(3),
        -0.895929255: cell.truncated_octahedron(17.0),
        -0.895873615: fcc,
    }
    for energy, box in known.items():
        radius = (3.0 * cell.volume(box) / (4.0 * np.pi)) ** (1.0 / 3.0)
        per_angstrom = -2.0 * energy / radius
        ours = finite_size_correction(box, 298.15, 0.89)
        exact = 1.380649e-23 * 298.15 * per_angstrom * 1e10 / (6.0 * np.pi * 0.89e-3)
        np.testing.assert_allclose(ours, 1e9 * exact, rtol=1e-8)
    exact = 1.380649e-23 * 298.15 * 2.837297 / (6.0 * np.pi * 0.89e-3 * 17e-10)
    np.testing.assert_allclose(
        finite_size_correction(17.0 * np.eye(3), 298.15, 0.89), 1e9 * exact, rtol=1e-6
    )
    with pytest.raises(InputError, match="must be positive"):
        finite_size_correction(17.0 * np.eye(3), 298.15, 0.0)
