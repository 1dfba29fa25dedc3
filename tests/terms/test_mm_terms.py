"""Each term's energies and forces against OpenMM, and what holds for every molecule."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import mm_oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

import jaxff
from jaxff.molecule import Molecule

DATA = Path(__file__).parents[1] / "data" / "mm"
OWN = sorted(DATA.glob("*.prmtop"))
SMILES = {
    "sulfanilamide": "Nc1ccc(cc1)S(=O)(=O)N",
    "methylphosphate": "COP(=O)([O-])[O-]",
    "butynol": "CC#CCO",
    "bromoiodo": "BrCCI",
    "ethanol": "CCO",
    "keto_malondialdehyde": "O=CCC=O",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
}
REFERENCE = [
    "acetate",
    "acetonitrile",
    "aspirin",
    "caffeine",
    "ethanol",
    "keto_malondialdehyde",
    "methylammonium",
    "nitrobenzene",
    "paracetamol",
    "toluene",
]
NAMES = ("bond", "angle", "torsion", "improper", "lj", "lj14", "coulomb", "coulomb14")


def terms_and_forces(potential, frames):
    """Energies {name: (M,)} and forces {name: (M, N, 3)} of frames (M, N, 3)."""

    def energies(R):
        terms = potential.program.terms(potential.params, R)
        assert set(terms) == set(NAMES)
        return jnp.stack([terms[name] for name in NAMES])

    def both(R):
        return energies(R), -jax.jacrev(energies)(R)

    E, F = jax.jit(lambda frames: jax.lax.map(both, frames))(frames)
    return dict(zip(NAMES, E.T, strict=True)), dict(zip(NAMES, F.swapaxes(0, 1), strict=True))


def distorted(prmtop, n_frames=4):
    """Frames (M, N, 3) Å about RDKit's geometry, from gentle to wild."""
    potential = jaxff.formats.read_amber(prmtop)
    molecule = Molecule.from_smiles(SMILES[prmtop.stem])
    molecule = molecule.reorder(potential.molecule.match(molecule))
    rng = np.random.default_rng(len(prmtop.stem))
    noise = rng.normal(size=(n_frames, *molecule.positions.shape))
    return molecule.positions + np.linspace(0.01, 0.2, n_frames)[:, None, None] * noise


@pytest.fixture(scope="module")
def ethanol():
    potential = jaxff.formats.read_amber(DATA / "ethanol.prmtop")
    return potential, jnp.array(distorted(DATA / "ethanol.prmtop"))


@pytest.mark.parametrize("prmtop", OWN, ids=lambda p: p.stem)
def test_every_term_agrees_with_openmm(prmtop):
    frames = distorted(prmtop)
    potential = jaxff.formats.read_amber(prmtop, mm_oracle.coulomb_constant())
    energies, forces = terms_and_forces(potential, jnp.array(frames))
    for name, (energy, force) in mm_oracle.terms(prmtop, frames).items():
        # OpenMM takes 1-4 pairs from A and B, printed to 8 digits, jaxff from σ and ε
        scale = max(1.0, np.abs(force).max()) if name.startswith("lj") else 1.0
        assert np.allclose(energies[name], energy, rtol=0, atol=1e-7 * scale), name
        assert np.allclose(forces[name], force, rtol=0, atol=1e-6 * scale), name


@pytest.mark.parametrize("name", REFERENCE)
def test_every_term_agrees_with_the_reference_set(shared, name):
    folder = shared / "reference" / "gaff" / name
    reference = np.load(folder / f"{name}_openmm.npz")
    constant = float(reference["coulomb_const_kcalA"])
    potential = jaxff.formats.read_amber(folder / f"{name}.prmtop", constant)
    energies, forces = terms_and_forces(potential, jnp.array(reference["positions_A"]))
    for term in NAMES:
        key = "proper" if term == "torsion" else term
        assert np.allclose(energies[term], reference[f"E_{key}_kcal"], rtol=0, atol=1e-7), term
        assert np.allclose(forces[term], reference[f"F_{key}_kcalA"], rtol=0, atol=1e-6), term


def test_float32_agrees_with_float64():
    """To 1e-3 kcal/mol and 1e-2 kcal/mol/Å where terms reach hundreds of kcal/mol."""
    frames = distorted(DATA / "aspirin.prmtop")[:2]
    potential = jaxff.formats.read_amber(DATA / "aspirin.prmtop")
    energies, forces = terms_and_forces(potential, jnp.array(frames))
    single = potential.astype(jnp.float32)
    energies32, forces32 = terms_and_forces(single, jnp.array(frames, jnp.float32))
    for name in NAMES:
        assert energies32[name].dtype == forces32[name].dtype == jnp.float32
        assert np.allclose(energies32[name], energies[name], rtol=1e-5, atol=1e-3), name
        assert np.allclose(forces32[name], forces[name], rtol=1e-5, atol=1e-2), name


def test_forces_agree_with_finite_differences(ethanol):
    potential, frames = ethanol
    R, h = frames[2], 1e-4
    shifts = h * np.eye(R.size).reshape(-1, *R.shape)
    energy = jax.vmap(potential)
    near = energy(R + shifts) - energy(R - shifts)
    far = energy(R + 2 * shifts) - energy(R - 2 * shifts)
    slope = ((8 * near - far) / (12 * h)).reshape(R.shape)
    assert np.allclose(potential.forces(R), -slope, atol=1e-6)


def test_parameter_gradients_agree_with_finite_differences(ethanol):
    potential, frames = ethanol
    energy = jax.jit(lambda params: potential.energy_fn(params, frames[1]))
    gradient = jax.jit(jax.grad(energy))
    # √(εi εj) has no slope at the hydroxyl hydrogen's ε = 0, but its gradient is finite.
    assert (potential.params["nonbonded"]["epsilon"] == 0.0).any()
    assert np.isfinite(ravel_pytree(gradient(potential.params))[0]).all()

    params = jax.tree.map(lambda p: p, potential.params)
    params["nonbonded"]["epsilon"] += 0.01
    flat, unravel = ravel_pytree(params)
    steps = 1e-4 * np.diag(np.maximum(1e-2, np.abs(flat)))
    energies = jax.jit(jax.vmap(lambda x: energy(unravel(x))))
    slopes = (energies(flat + steps) - energies(flat - steps)) / (2 * np.diag(steps))
    assert np.allclose(ravel_pytree(gradient(params))[0], slopes, rtol=1e-5, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_energy_does_not_depend_on_place_or_direction(ethanol, seed):
    potential, frames = ethanol
    rng = np.random.default_rng(seed)
    R = frames[0] + 0.1 * rng.normal(size=frames[0].shape)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn = turn * np.sign(np.linalg.det(turn))
    energy, forces = potential.energy_and_forces(R)
    moved, turned = potential.energy_and_forces(R @ turn.T + 10.0 * rng.normal(size=3))
    size = np.abs(forces).max()
    assert np.isclose(moved, energy, rtol=1e-11)
    assert np.allclose(turned, forces @ turn.T, atol=1e-10 * size)
    assert np.allclose(forces.sum(axis=0), 0.0, atol=1e-11 * size)
    assert np.allclose(np.cross(R, forces).sum(axis=0), 0.0, atol=1e-10 * size)


def test_mirror_image_has_the_same_energy_where_phases_are_0_or_180_degrees(ethanol):
    potential, frames = ethanol
    # AMBER prints 180° as 3.141594
    assert np.isclose(potential(frames[1]), potential(frames[1] * np.array([1, 1, -1])), atol=1e-4)


def test_batch_equals_loop(ethanol):
    potential, frames = ethanol
    assert np.allclose(jax.vmap(potential)(frames), [potential(R) for R in frames], rtol=1e-13)


def test_every_derivative_is_that_of_the_sum_of_the_terms(ethanol):
    """Energies bring their own gradients, of one geometry and of a batch: beside plain autodiff."""
    potential, frames = ethanol
    part = potential.only("angle", "nonbonded")
    potential = potential + 0.3 * part.on(np.roll(np.arange(9), 2))
    energy, program, params = potential.energy_fn, potential.program, potential.params

    def plain(params, R):
        return sum(program.terms(params, R).values())

    def mismatch(energy):
        """Through forces of a batch, as a fit has it."""

        def loss(params):
            forces = jax.vmap(jax.grad(energy, argnums=1), in_axes=(None, 0))(params, frames)
            return (forces**2).sum() + jax.vmap(energy, in_axes=(None, 0))(params, frames).sum()

        return ravel_pytree(jax.jit(jax.grad(loss))(params))[0]

    def of_one(energy):
        R = frames[1]
        return ravel_pytree(
            jax.jit(
                lambda R: (
                    jax.value_and_grad(energy, argnums=1)(params, R),
                    jax.jvp(partial(energy, params), (R,), (R**2,)),
                    jax.hessian(energy, argnums=1)(params, R),
                )
            )(jnp.asarray(R))
        )[0]

    for values in (mismatch, of_one):
        exact = values(plain)
        assert np.allclose(values(energy), exact, rtol=1e-9, atol=1e-11 * np.abs(exact).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_excluded_atoms_may_coincide(ethanol, dtype):
    potential = jaxff.formats.read_amber(DATA / "ethanol.prmtop").astype(dtype)
    R = jnp.asarray(ethanol[1][1], dtype)
    hydrogens = np.flatnonzero(potential.molecule.numbers == 1)[:2]  # of the methyl group
    R = R.at[hydrogens[1]].set(R[hydrogens[0]])
    assert np.isfinite(potential.forces(R)).all()
    nonbonded = potential.only("nonbonded")
    batch = jax.vmap(nonbonded.forces)(R[None])
    assert np.isfinite(batch).all()
    assert np.allclose(batch[0], nonbonded.forces(R), rtol=1e-4, atol=1e-4)


def test_new_positions_and_parameters_never_compile_again(ethanol):
    potential, frames = ethanol
    potential.energy_and_forces(frames[0])
    compiled = potential.program.jit_energy_and_forces
    before = compiled._cache_size()
    for factor in (1.1, 1.2):
        other = potential.replace(jax.tree.map(lambda p: factor * p, potential.params))
        other.energy_and_forces(factor * frames[1])
    assert compiled._cache_size() == before == 1


def test_changing_one_type_changes_all_its_bonds_and_no_other(ethanol):
    potential, frames = ethanol
    term = {p.name: p.term for p in potential.program.placed}["bond"]
    row = term.labels.index("c3-hc")
    bonds = term.atoms[term.rows == row]
    assert len(bonds) == 3  # the methyl group's; the methylene hydrogens are of type h1
    params = jax.tree.map(lambda p: p, potential.params)
    params["bond"]["k"] = params["bond"]["k"].at[row].add(7.0)
    stretch = np.linalg.norm(frames[1][bonds[:, 0]] - frames[1][bonds[:, 1]], axis=1)
    expected = 7.0 * ((stretch - params["bond"]["length"][row]) ** 2).sum()
    before, after = potential.terms(frames[1]), potential.replace(params).terms(frames[1])
    assert np.isclose(after["bond"] - before["bond"], expected, atol=1e-10)
    assert all(after[name] == before[name] for name in NAMES[1:])


def test_straight_alkyne_has_the_right_forces_and_hessian():
    """C-C≡C-C exactly straight along x, equilibrium at 180°: differences of the energy agree."""
    positions = jaxff.formats.read_inpcrd(DATA / "butynol.inpcrd")
    positions[:4, 1:] = positions[0, 1:]
    check_straight(jaxff.formats.read_amber(DATA / "butynol.prmtop"), positions)


def test_straight_acetonitrile_has_the_right_forces_and_hessian(shared):
    folder = shared / "reference" / "gaff" / "acetonitrile"
    turns = 2 * np.pi / 3 * np.arange(3)
    hydrogens = np.stack([np.full(3, -0.36), 1.03 * np.cos(turns), 1.03 * np.sin(turns)], axis=1)
    chain = np.array([[0.0, 0, 0], [1.467, 0, 0], [2.62, 0, 0]])
    potential = jaxff.formats.read_amber(folder / "acetonitrile.prmtop")
    check_straight(potential, np.concatenate([chain, hydrogens]))


def check_straight(potential, positions):
    term = {p.name: p.term for p in potential.program.placed}["angle"]
    u, v = (positions[term.atoms[:, i]] - positions[term.atoms[:, 1]] for i in (0, 2))
    straight = np.abs(np.cross(u, v)).sum(axis=1) == 0.0
    assert straight.any()
    params = jax.tree.map(lambda p: p, potential.params)
    angle = params["angle"]["angle"]
    params["angle"]["angle"] = angle.at[term.rows[straight]].set(np.pi)

    hessian = jax.jit(jax.hessian(potential.energy_fn, argnums=1))(params, jnp.array(positions))
    forces, energy = potential.replace(params).forces, jax.vmap(potential.replace(params))
    h = 1e-3
    shifts = h * np.eye(positions.size).reshape(-1, *positions.shape)
    near = energy(positions + shifts) - energy(positions - shifts)
    far = energy(positions + 2 * shifts) - energy(positions - 2 * shifts)
    gradient = ((8 * near - far) / (12 * h)).reshape(positions.shape)
    assert np.allclose(forces(positions), -gradient, atol=1e-5)

    pull = jax.jit(lambda R: jax.lax.map(forces, R))
    near = pull(positions + shifts) - pull(positions - shifts)
    far = pull(positions + 2 * shifts) - pull(positions - 2 * shifts)
    columns = -((8 * near - far) / (12 * h)).reshape(len(shifts), -1)
    assert np.allclose(hessian.reshape(columns.shape), columns, rtol=1e-4, atol=1e-2)


def test_flat_torsion_has_no_energy_and_no_force_even_if_collinear(ethanol):
    potential, frames = ethanol
    params = jax.tree.map(lambda p: p, potential.params)
    params["torsion"]["k"] = jnp.zeros_like(params["torsion"]["k"])
    R = frames[0].at[:, 1:].set(0.0)  # everything on the x axis
    torsion = jax.jit(jax.value_and_grad(lambda R: potential.program.terms(params, R)["torsion"]))
    for geometry in (frames[0], R):
        energy, gradient = torsion(geometry)
        assert energy == 0.0
        assert not np.any(gradient)
