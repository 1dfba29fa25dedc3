"""sGDML predictions: the reference package's values, derivatives, invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxff
from jaxff import gdml
from jaxff.errors import InputError
from jaxff.gdml.descriptor import entry_permutations, inverse_distances, pair_permutations
from jaxff.gdml.kernel import (
    Expansion,
    _values,
    damped,
    decay,
    expand,
    matern,
    values_and_gradients,
)

# The reference package's own rounding is about 1e-9 for these models.
TOLERANCE = 1e-8

MODELS = [
    "ethanol_model",
    "ethanol_energy_model",
    "ethanol_cycle_model",
    "ethanol_force_only_model",
    "ethanol_unsymmetrised_model",
    "ethanol_cg_model",
]


def naive_energy(own, permutations, R):
    """The energy of one geometry, written out as in the papers."""
    i, j = np.tril_indices(len(R), -1)
    x = 1.0 / np.linalg.norm(R[i] - R[j], axis=1)
    sigma, energy = own["sigma"], 0.0
    for x_j, beta in zip(own["descriptors"] + own["centre"], own["coefficients"], strict=True):
        for p in pair_permutations(permutations):
            delta = x - x_j[p]
            t = np.sqrt(5.0) * np.linalg.norm(delta) / sigma
            energy += 5.0 / (3.0 * sigma**2) * (1.0 + t) * np.exp(-t) * (delta @ beta[p])
    return own["std"] * energy + own["offset"]


def central(function, R, step=1e-4):
    """Fourth-order finite differences of `function` (any shape) over positions (N, 3)."""
    out = []
    for index in np.ndindex(R.shape):
        e = np.zeros_like(R)
        e[index] = step
        values = [np.asarray(function(R + k * e)) for k in (-2, -1, 1, 2)]
        out.append((values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step))
    return np.stack(out, axis=-1).reshape(*np.shape(values[0]), *R.shape)


@pytest.mark.parametrize("name", MODELS)
def test_predictions_equal_the_reference_package(name, data, reference):
    potential = gdml.load(data / f"{name}.npz")
    E, F = jax.vmap(potential.energy_and_forces)(jnp.asarray(reference["R"]))
    np.testing.assert_allclose(E, reference[f"{name}_E"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(F, reference[f"{name}_F"], rtol=0, atol=TOLERANCE)


def test_periodic_models_predict_as_the_reference_package(data, reference):
    potential = gdml.load(data / "ethanol_periodic_model.npz")
    E, F = potential.predict(reference["R_wrapped"])
    np.testing.assert_allclose(E, reference["ethanol_periodic_model_E"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(F, reference["ethanol_periodic_model_F"], rtol=0, atol=TOLERANCE)


def test_models_of_2018_predict_as_those_of_today(data, reference):
    potential = gdml.load(data / "ethanol_model_2018.npz")
    E, F = potential.energy_and_forces(reference["R"][-1])
    np.testing.assert_allclose(E, reference["ethanol_model_E"][-1], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(F, reference["ethanol_model_F"][-1], rtol=0, atol=TOLERANCE)


def test_permutations_act_on_training_frames_not_their_inverses(data, reference):
    """A 3-cycle alone (no group) distinguishes the two."""
    potential = gdml.load(data / "ethanol_cycle_model.npz")
    own = {k: np.asarray(v) for k, v in potential.params["gdml"].items()}
    permutations = potential.program.placed[0].term.permutations
    R = reference["R"][20]
    right = naive_energy(own, permutations, R)
    wrong = naive_energy(own, np.argsort(permutations, axis=1), R)
    assert abs(right - wrong) > 1e-3
    np.testing.assert_allclose(potential(R), right, rtol=0, atol=TOLERANCE)


def test_forces_are_minus_the_gradient_of_the_energy(model, frames):
    R = frames.positions[20]
    np.testing.assert_allclose(model.forces(R), -central(model, R), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["ethanol_model", "ethanol_energy_model"])
def test_hessian_elsewhere_and_exactly_at_a_training_point(name, data, frames):
    potential = gdml.load(data / f"{name}.npz")
    hessian = jax.jit(jax.hessian(potential))
    for frame in (20, 3):
        numeric = -central(potential.forces, frames.positions[frame])
        np.testing.assert_allclose(hessian(frames.positions[frame]), numeric, rtol=0, atol=1e-5)


def test_hessian_is_the_same_in_reverse_mode(model, frames):
    R = jnp.asarray(frames.positions[3])
    reverse = jax.jit(jax.jacrev(jax.jacrev(model)))(R)
    np.testing.assert_allclose(reverse, jax.jit(jax.hessian(model))(R), rtol=0, atol=1e-7)


def test_gradient_is_finite_and_right_exactly_at_a_training_descriptor(model):
    """Distance zero from a training point, where the kernel's square root has no derivative."""
    own = model.params["gdml"]
    R = jnp.asarray(model.molecule.positions)  # the first training frame
    forces = model.forces(R)
    nearby = model.forces(R + 1e-7 * np.random.default_rng(0).normal(size=R.shape))
    assert np.isfinite(forces).all()
    np.testing.assert_allclose(forces, nearby, rtol=0, atol=1e-3)
    np.testing.assert_allclose(
        inverse_distances(R), own["descriptors"][0] + own["centre"], atol=1e-12
    )


def test_energy_is_invariant_to_motion_reflection_and_the_permutations(model, group, frames):
    rng = np.random.default_rng(1)
    R = frames.positions[21]
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert model(R @ rotation + rng.normal(size=3)) == pytest.approx(float(model(R)), abs=1e-8)
    assert model(-R) == pytest.approx(float(model(R)), abs=1e-8)
    for p in group:
        assert model(R[p]) == pytest.approx(float(model(R)), abs=1e-8)
        np.testing.assert_allclose(model.forces(R[p]), model.forces(R)[p], rtol=0, atol=1e-8)
    swapped = R[[0, 1, 2, 3, 4, 5, 7, 6, 8]]  # the methylene alone is no symmetry
    assert abs(float(model(swapped) - model(R))) > 1e-3


def test_no_net_force_and_no_net_torque(model, frames):
    R = frames.positions[22]
    F = np.asarray(model.forces(R))
    np.testing.assert_allclose(F.sum(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(np.cross(R, F).sum(axis=0), 0.0, atol=1e-8)


def test_batch_equals_loop_and_is_matrix_products_of_all_geometries(model, frames):
    R = jnp.asarray(frames.positions[:7])
    E, F = jax.vmap(model.energy_and_forces)(R)
    for k in range(len(R)):
        one = model.energy_and_forces(R[k])
        np.testing.assert_allclose(E[k], one[0], rtol=0, atol=1e-8)
        np.testing.assert_allclose(F[k], one[1], rtol=0, atol=1e-8)
    jaxpr = str(jax.make_jaxpr(jax.vmap(model.energy_and_forces))(R))
    assert "7,6,16" in jaxpr  # geometries × permutations × training frames
    assert "7,16,36" not in jaxpr  # the training set is never copied per geometry


def test_replacing_parameters_does_not_compile_again(model, frames):
    R = frames.positions[0]
    model.energy_and_forces(R)
    compiled = model.program.jit_energy_and_forces._cache_size()
    doubled = jax.tree.map(lambda p: 2.0 * p, model.params)
    model.replace(doubled).energy_and_forces(R)
    assert model.program.jit_energy_and_forces._cache_size() == compiled


def test_kernels_stay_in_float64(model, frames):
    """In a float32 sum the positions alone are rounded, by 1e-7 Å."""
    springs = jaxff.gaff(frames.molecule)
    hybrid = springs + model
    single = hybrid.astype(jnp.float32)
    R = frames.positions[20].astype(np.float32)
    energy, forces = single.energy_and_forces(R)
    assert single.dtype == energy.dtype == forces.dtype == jnp.float32
    assert single.params["gdml"]["coefficients"].dtype == jnp.float64
    # GAFF alone in float32 has an error of 1e-4 kcal/mol/Å.
    np.testing.assert_allclose(forces, hybrid.forces(R), rtol=0, atol=2e-3)
    forces = jax.jit(jax.vmap(jax.grad(model.astype(jnp.float32))))(R[None])
    np.testing.assert_allclose(forces[0], -model.forces(R), rtol=0, atol=2e-3)


def test_kernels_in_float32_are_refused(model, frames):
    rounded = jax.tree.map(lambda p: p.astype(jnp.float32), model.params)
    with pytest.raises(InputError, match=r"needs float64, but .* float32: .*JAX_ENABLE_X64=1"):
        model.replace(rounded)(frames.positions[0])


def test_descriptor():
    R = np.random.default_rng(2).normal(size=(5, 3)) * 2.0
    i, j = np.tril_indices(5, -1)
    expected = 1.0 / np.linalg.norm(R[i] - R[j], axis=1)
    np.testing.assert_allclose(inverse_distances(jnp.asarray(R)), expected, rtol=1e-14)


def test_pair_permutation_of_descriptor_is_descriptor_of_permuted_atoms():
    rng = np.random.default_rng(3)
    R, p = rng.normal(size=(6, 3)), rng.permutation(6)
    permuted = inverse_distances(jnp.asarray(R))[pair_permutations(p[None])[0]]
    np.testing.assert_allclose(permuted, inverse_distances(jnp.asarray(R[p])), rtol=1e-14)


def squared_distances(R, lattice=None):
    """A descriptor of another kind, for these tests."""
    return 1.0 / inverse_distances(R, lattice) ** 2


def test_permutations_of_any_descriptors_entries_are_found():
    rng = np.random.default_rng(4)
    permutations = np.stack([rng.permutation(6) for _ in range(3)])
    found = entry_permutations(squared_distances, permutations)
    assert np.array_equal(found, pair_permutations(permutations))
    with pytest.raises(InputError, match="does not permute"):
        entry_permutations(lambda R, lattice: R.ravel() @ rng.normal(size=(18, 4)), permutations)


@pytest.mark.parametrize("with_values", [False, True])
def test_the_gradient_written_out_is_that_of_the_values(with_values):
    rng = np.random.default_rng(5)
    values = rng.normal(size=7) if with_values else None
    parts = (rng.normal(size=(7, 4)), rng.normal(size=(7, 4)), 1.7, values)
    x = jnp.asarray(rng.normal(size=(3, 4)))
    x = x.at[1].set(parts[0][2])  # exactly at a centre

    def total(function):
        return lambda x, parts: jnp.sum(jnp.sin(function(x, Expansion.of(*parts))))

    written, plain = (jax.grad(total(f), (0, 1))(x, parts) for f in (expand, _values))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13), written, plain
    )
    value, gradient = values_and_gradients(x, Expansion.of(*parts))
    np.testing.assert_allclose(value, _values(x, Expansion.of(*parts)), rtol=1e-12)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("u", [0.0, 1e-12, 0.3, 4.0])
def test_radial_functions_are_each_others_derivatives(u):
    assert jax.grad(matern)(u) == pytest.approx(float(-damped(u)) / 6.0, rel=1e-14)
    assert jax.grad(damped)(u) == pytest.approx(float(-decay(u)) / 2.0, rel=1e-14)
    assert np.isfinite(jax.grad(decay)(u))
    if u >= 0.3:
        for function in (matern, damped, decay):
            step = 1e-4
            numeric = (function(u + step) - function(u - step)) / (2 * step)
            assert jax.grad(function)(u) == pytest.approx(float(numeric), rel=1e-6)
    t = np.sqrt(u)
    assert matern(u) == pytest.approx((1 + t + t * t / 3) * np.exp(-t), rel=1e-14)
