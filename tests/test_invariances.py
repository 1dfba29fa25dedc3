"""Every kind of potential, and hybrids on scattered atoms, obey the symmetries of space."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from jaxff import gaff, gdml
from jaxff.dataset import packaged_dataset

SCATTERED = [11, 2, 7, 0, 9, 5, 13, 3, 8]  # where ethanol's atoms stand among 14


@pytest.fixture(scope="module")
def ethanol():
    return packaged_dataset("ethanol")


@pytest.fixture(scope="module")
def potentials(ethanol):
    """{name: (potential, a geometry (N, 3) Å)}."""
    molecular = gaff(ethanol.molecule)
    kernel = gdml.train(ethanol[::200], sigma=10.0, kernel=gdml.Kernel(symmetries=None))
    hybrid = gdml.train(ethanol[::200], sigma=10.0, baseline=molecular)
    R = ethanol.positions[37]
    filler = 6.0 * np.random.default_rng(0).normal(size=(14, 3))
    filler[SCATTERED] = R
    placed = hybrid.on(SCATTERED) + 0.5 * kernel.on([*SCATTERED[::-1][:8], 1])
    return {
        "gaff": (molecular, R),
        "gdml": (kernel, R),
        "hybrid": (hybrid, R),
        "hybrid on scattered atoms": (placed, filler),
    }


NAMES = ("gaff", "gdml", "hybrid", "hybrid on scattered atoms")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_rigid_motions_and_balance(potentials, name, seed):
    potential, R = potentials[name]
    rng = np.random.default_rng(seed)
    R = R + 0.05 * rng.normal(size=R.shape)
    rotation = Rotation.random(random_state=seed).as_matrix()
    energy, forces = potential.energy_and_forces(R)
    moved_energy, moved_forces = potential.energy_and_forces(R @ rotation.T + rng.normal(size=3))
    size = np.abs(forces).max()
    # Kernel coefficients amplify the rounding of the rotated distances.
    assert abs(moved_energy - energy) < 1e-9 * max(1.0, size) + 1e-11 * abs(energy)
    np.testing.assert_allclose(moved_forces, forces @ rotation.T, atol=1e-8 * max(1.0, size))
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=1e-9 * max(1.0, size))
    np.testing.assert_allclose(np.cross(R, forces).sum(axis=0), 0.0, atol=1e-8 * max(1.0, size))


@pytest.mark.parametrize("name", NAMES)
def test_forces_are_minus_the_gradient_by_finite_differences(potentials, name):
    potential, R = potentials[name]
    rng = np.random.default_rng(3)
    forces, step = potential.forces(R), 1e-5
    for _ in range(6):
        direction = rng.normal(size=R.shape)
        ahead, behind = potential(R + step * direction), potential(R - step * direction)
        slope = -float(np.sum(forces * direction))
        assert float(ahead - behind) / (2 * step) == pytest.approx(slope, rel=1e-5, abs=1e-3)


@pytest.mark.parametrize("swap", [[0, 1, 2, 4, 5, 3, 6, 7, 8], [0, 1, 2, 4, 3, 5, 7, 6, 8]])
def test_gaff_and_symmetric_kernels_ignore_the_order_of_like_atoms(ethanol, swap):
    R = ethanol.positions[37]
    kernel = gdml.train(ethanol[::200], sigma=10.0)
    for potential in (gaff(ethanol.molecule), kernel):
        assert float(potential(R[swap])) == pytest.approx(float(potential(R)), abs=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_batches_and_hessians(potentials, name):
    potential, R = potentials[name]
    energies = jax.vmap(potential)(np.stack([R, R + 0.01 * np.sin(R)]))
    assert float(energies[0]) == pytest.approx(float(potential(R)), rel=1e-10)
    hessian = jax.jit(jax.hessian(potential))(R).reshape(R.size, R.size)
    assert np.isfinite(hessian).all()
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-6 * np.abs(hessian).max())
