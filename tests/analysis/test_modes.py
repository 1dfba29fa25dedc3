"""Normal modes against closed forms and ASE's finite differences."""

import numpy as np
import pytest
from ase.vibrations import Vibrations

import jaxff
from jaxff import InputError, Molecule, md
from jaxff.analysis import as_surface, normal_modes
from jaxff.ase import Calculator

# cm⁻¹ of √(k/μ) with k in kcal/mol/Å² and μ in amu, from SI constants.
CM = np.sqrt(4184.0 / 6.02214076e23 * 1e20 / 1.66053906660e-27) / (2 * np.pi * 2.99792458e10)


def test_a_diatomic_has_one_mode_of_closed_form(springs):
    rng = np.random.default_rng(0)
    m, M = rng.uniform(1, 40, 2)
    k = rng.uniform(100, 2000)
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    positions = rng.normal(size=3) + np.outer([0.0, 1.2], direction)
    modes = normal_modes(springs(2, k=k, length=1.2), positions, [m, M])
    assert modes.frequencies == pytest.approx([CM * np.sqrt(k * (1 / m + 1 / M))], rel=1e-9)
    assert modes.vectors.shape == (1, 2, 3)
    arms = np.array([1 / m, -1 / M])
    expected = np.outer(arms / np.linalg.norm(arms), direction)
    np.testing.assert_allclose(np.abs(modes.vectors[0]), np.abs(expected), atol=1e-8)
    assert modes.reduced_masses[0] == pytest.approx((1 / m + 1 / M) / (arms @ arms))


def test_a_linear_molecule_has_one_mode_more(springs):
    """A chain m-M-m: √(k/m), √(k (1/m + 2/M)), and two bends that nothing holds."""
    m, M, k = 15.999, 12.011, 900.0
    positions = np.outer([-1.16, 0.0, 1.16], [1.0, 2.0, -0.5] / np.sqrt(5.25))
    modes = normal_modes(springs(3, k=k, length=1.16), positions, [m, M, m])
    assert len(modes.frequencies) == 4
    np.testing.assert_allclose(modes.frequencies[:2], 0.0, atol=0.1)
    expected = CM * np.sqrt([k / m, k * (1 / m + 2 / M)])
    np.testing.assert_allclose(modes.frequencies[2:], expected, rtol=1e-9)


@pytest.mark.parametrize("smiles", ["CCO", "O=C=O"])
def test_frequencies_are_those_of_ase(smiles, tmp_path):
    molecule = Molecule.from_smiles(smiles)
    gaff = jaxff.gaff(molecule, charges="gasteiger")
    rest = md.minimize(gaff, molecule, descent=md.Descent(tolerance=1e-5))
    modes = normal_modes(gaff, rest.positions, molecule.masses)
    rigid = 5 if smiles == "O=C=O" else 6
    assert len(modes.frequencies) == 3 * molecule.n_atoms - rigid
    atoms = molecule.with_positions(rest.positions).to_ase()
    atoms.set_masses(molecule.masses)
    atoms.calc = Calculator(gaff)
    outside = Vibrations(atoms, name=str(tmp_path / "vib"), delta=0.002)
    outside.run()
    found = outside.get_frequencies()
    expected = np.sort(found.real - found.imag)[-len(modes.frequencies) :]
    np.testing.assert_allclose(modes.frequencies, expected, atol=0.3)
    by_differences = normal_modes(
        as_surface(Calculator(gaff), molecule), rest.positions, molecule.masses
    )
    np.testing.assert_allclose(by_differences.frequencies, modes.frequencies, atol=0.3)
    # Orthogonal with masses, and of norm one without.
    weighted = modes.vectors * np.sqrt(molecule.masses)[:, None]
    overlaps = np.einsum("anc,bnc->ab", weighted, weighted)
    np.testing.assert_allclose(overlaps, np.diag(modes.reduced_masses), atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(modes.vectors, axis=(1, 2)), 1.0)


def test_bends_beside_a_cusp_are_warned_of():
    """Acetylene rests at 179.1° in GAFF; CO2, at 180°, has no cusp."""
    molecule = Molecule.from_smiles("C#C")
    gaff = jaxff.gaff(molecule, charges="gasteiger")
    with pytest.warns(UserWarning, match=r"angles at atoms 0, 1 \(counted from 0\) are within 2°"):
        normal_modes(gaff, molecule.positions, molecule.masses)
    order = np.array([4, 2, 1, 3])
    apart = np.zeros((5, 3))
    apart[order], apart[0] = molecule.positions, 9.0
    with pytest.warns(UserWarning, match="at atoms 2, 4 "):
        normal_modes(gaff.on(order), apart, np.ones(5))


def test_negative_curvature_is_a_negative_frequency(springs):
    modes = normal_modes(springs(2, k=-100.0, length=1.0), [[0, 0, 0], [0, 0, 1.0]], [1.0, 1.0])
    assert modes.frequencies == pytest.approx([-CM * np.sqrt(200.0)])


def test_bad_input_is_named(springs):
    with pytest.raises(InputError, match=r"masses \(N,\) .got \(3,\)"):
        normal_modes(springs(2), np.zeros((2, 3)), np.ones(3))
    with pytest.raises(InputError, match="positive"):
        normal_modes(springs(2), np.eye(3)[:2], [1.0, 0.0])
    with pytest.raises(InputError, match="not finite"):
        normal_modes(springs(2), np.zeros((2, 3)), np.ones(2))
