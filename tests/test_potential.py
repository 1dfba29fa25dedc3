"""Potentials compose, transform and check what they are given."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxff
from jaxff import InputError, load
from jaxff.parameters import FreeParameters

V1 = Path(__file__).parent / "data" / "v1"


@pytest.fixture
def R():
    return np.random.default_rng(0).normal(size=(6, 3))


def test_sum_and_scale_act_on_energies_and_forces(springs, R):
    a, b = springs(6, 100.0), springs(6, 250.0, 1.4)
    mixed = a + 2.5 * b - b / 2
    expected = a(R) + 2.0 * b(R)
    np.testing.assert_allclose(mixed(R), expected, rtol=1e-14)
    np.testing.assert_allclose(mixed.forces(R), a.forces(R) + 2.0 * b.forces(R), atol=1e-10)
    np.testing.assert_allclose(sum([a, b, a])(R), 2 * a(R) + b(R), rtol=1e-14)
    np.testing.assert_allclose((-a)(R), -a(R))


def test_terms_are_named_and_sum_to_the_energy(springs, R):
    mixed = springs(6) + 3.0 * springs(6, 50.0) + springs(2).on([4, 1])
    terms = mixed.terms(R)
    assert list(terms) == ["spring", "spring#2", "spring#3"]
    np.testing.assert_allclose(sum(terms.values()), mixed(R), rtol=1e-14)


def test_only_takes_terms_out_of_a_sum(springs, R):
    a, b = springs(6, 100.0), 2.0 * springs(3, 70.0).on([5, 0, 2])
    np.testing.assert_allclose((a + b).only("spring#2")(R), b(R), rtol=1e-14)
    with pytest.raises(InputError, match=r"only\(\) got bond; use names of terms: spring"):
        a.only("bond")


@settings(max_examples=8, deadline=None)
@given(st.permutations(range(8)), st.permutations(range(5)))
def test_on_acts_on_any_atoms_in_any_order(springs, atoms, again):
    part = springs(5)
    atoms = list(atoms[:5])
    R = np.random.default_rng(1).normal(size=(8, 3))
    placed = part.on(atoms)
    np.testing.assert_allclose(placed(R), part(R[atoms]), rtol=1e-14)
    inner = springs(3) + springs(2).on([2, 0])
    twice = inner.on(list(again[:3])).on(range(max(again[:3]) + 1))
    np.testing.assert_allclose(twice(R), inner(R[list(again[:3])]), rtol=1e-14)


def test_forces_are_minus_the_gradient(springs, R):
    potential = springs(6) + 0.3 * springs(3, 70.0).on([5, 0, 2])
    step = 1e-5
    numeric = np.zeros_like(R)
    for index in np.ndindex(*R.shape):
        shift = np.zeros_like(R)
        shift[index] = step
        numeric[index] = -(potential(R + shift) - potential(R - shift)) / (2 * step)
    energy, forces = potential.energy_and_forces(R)
    np.testing.assert_allclose(forces, numeric, atol=1e-6)
    assert energy == potential(R)


def test_transforms(springs, R):
    potential = springs(6) + springs(3).on([5, 0, 2])
    batch = np.stack([R, R + 0.1 * np.sin(R)])
    energies = jax.vmap(potential)(batch)
    np.testing.assert_allclose(energies, [potential(batch[0]), potential(batch[1])], rtol=1e-14)
    np.testing.assert_allclose(jax.jit(potential)(R), potential(R), rtol=1e-14)
    np.testing.assert_allclose(jax.grad(potential)(jnp.asarray(R)), -potential.forces(R))
    hessian = jax.jit(jax.hessian(potential))(jnp.asarray(R)).reshape(18, 18)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-10)
    gradient = jax.grad(potential.energy_fn)(potential.params, R)
    assert jax.tree.structure(gradient) == jax.tree.structure(potential.params)
    # A potential is itself a pytree: it can be an argument.
    by_potential = jax.jit(jax.grad(lambda p: p(R)))(potential)
    np.testing.assert_allclose(by_potential.params["spring"]["k"], gradient["spring"]["k"])


def test_a_factor_can_be_differentiated(springs, R):
    a = springs(6)
    slope = jax.grad(lambda factor: (factor * a + a)(R))(0.7)
    np.testing.assert_allclose(slope, a(R), rtol=1e-12)


def test_replace_keeps_the_compiled_program(springs, R):
    potential = springs(6)
    traces = 0
    original = potential.program.energy

    def counted(params, R, box=None, neighbor=None):
        nonlocal traces
        traces += 1
        return original(params, R, box, neighbor)

    potential.program.__dict__["jit_energy"] = jax.jit(counted)
    for k in (100.0, 200.0, 300.0):
        params = jax.tree.map(lambda p: p * k, potential.params)
        potential.replace(params)(R)
    assert traces == 1


def test_predict_equals_single_calls_for_any_number_of_frames(springs, R):
    potential = springs(6)
    frames = R + np.random.default_rng(2).normal(size=(7, 6, 3))
    energies, forces = potential.predict(frames, chunk=3)
    np.testing.assert_allclose(energies, [potential(r) for r in frames], rtol=1e-13)
    np.testing.assert_allclose(forces, [potential.forces(r) for r in frames], atol=1e-10)
    assert potential.predict(frames[:0])[1].shape == (0, 6, 3)
    for chunk in (-1, 0, 1.5, "3", True):
        with pytest.raises(InputError, match=r"chunk is .*, but must be a whole number"):
            potential.predict(frames, chunk=chunk)


def test_predictions_of_few_frames_share_two_programs(springs, R):
    potential = springs(6)
    frames = R + np.random.default_rng(2).normal(size=(200, 6, 3))
    energies, forces = potential.predict(frames, chunk=200)
    before = potential.program.jit_batches._cache_size()
    for count in (1, 2, 5, 7, 8, 64, 70, 100, 200):
        found = potential.predict(frames[:count])
        np.testing.assert_allclose(found[0], energies[:count], rtol=1e-13)
        np.testing.assert_allclose(found[1], forces[:count], atol=1e-10)
    assert potential.program.jit_batches._cache_size() <= before + 2


def test_potentials_with_equal_terms_share_compiled_functions(springs, R):
    first, stiff, longer = springs(6), springs(6), springs(7)
    stiff = stiff.replace(jax.tree.map(lambda p: 2.0 * p, stiff.params))
    assert stiff.program is not first.program
    energies, _ = first.predict(R[None])
    count = first.program.jit_batches._cache_size()
    assert stiff.predict(R[None])[0] == pytest.approx(float(stiff(R)))
    assert stiff.predict(R[None])[0] != pytest.approx(energies)
    assert stiff.program.jit_batches is first.program.jit_batches
    assert first.program.jit_batches._cache_size() == count
    assert longer.program.jit_batches is not first.program.jit_batches


def test_float32_follows_the_parameters(springs, R):
    single = springs(6).astype(jnp.float32)
    energy, forces = single.energy_and_forces(R.astype(np.float32))
    assert energy.dtype == forces.dtype == jnp.float32
    np.testing.assert_allclose(energy, springs(6)(R), rtol=1e-5)


def test_a_factor_does_not_widen_a_potential(springs, R):
    narrow = springs(4).astype(jnp.float32)
    for scaled in (0.1 * narrow, narrow / 3.0, narrow - narrow, jnp.asarray(0.1) * (0.1 * narrow)):
        assert scaled.dtype == jnp.float32
    assert (0.1 * springs(4)).params["spring"]["scale"] == 0.1


def test_changed_parameters_are_never_stale(R):
    """Neither the derived arrays nor the type, however the parameters have changed."""
    potential = load(V1 / "gaff.npz")
    X = np.random.default_rng(0).normal(size=(9, 3)) * 3.0
    charges = np.array(potential.params["nonbonded"]["charge"])
    params = {**potential.params, "nonbonded": {**potential.params["nonbonded"], "charge": charges}}
    copied = potential.replace(params)
    first = copied(X)
    charges *= 2.0  # the caller's array
    assert copied(X) == first == potential(X)
    doubled = potential.replace(params)
    assert doubled(X) != first
    copied.params["nonbonded"]["charge"] = jnp.asarray(charges)
    np.testing.assert_allclose(copied(X), doubled(X), rtol=1e-14)
    arrays = jax.tree.map(np.array, potential)  # a pytree of NumPy arrays
    assert arrays(X) == first
    arrays.params["nonbonded"]["charge"] *= 2.0
    np.testing.assert_allclose(arrays(X), doubled(X), rtol=1e-14)
    for name, own in potential.params.items():
        copied.params[name] = jax.tree.map(lambda x: x.astype(jnp.float32), own)
    assert copied.dtype == jnp.float32


def test_the_pure_function_takes_numpy_arrays():
    potential = load(V1 / "gaff.npz").only("bond", "nonbonded")
    params = jax.tree.map(np.asarray, potential.params)
    frames = np.random.default_rng(0).normal(size=(2, 9, 3)) * 3.0
    expected, forces = potential.predict(frames)
    mapped = jax.vmap(potential.energy_fn, (None, 0))
    np.testing.assert_allclose(mapped(params, frames), expected, rtol=1e-12)
    slopes = jax.grad(lambda R: mapped(params, R).sum())(frames)
    np.testing.assert_allclose(slopes, -forces, rtol=1e-10, atol=1e-8)
    of_params = jax.grad(lambda params: mapped(params, frames).sum())(params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(of_params))
    parts = potential.program.terms(params, frames[0])
    np.testing.assert_allclose(sum(parts.values()), expected[0], rtol=1e-12)


def test_no_frames_have_a_box_too(springs):
    nothing = np.zeros((0, 6, 3))
    with pytest.raises(InputError, match="box was given, but none of the terms"):
        springs(6).predict(nothing, box=np.eye(3))
    assert springs(6).predict(nothing)[1].shape == (0, 6, 3)


def test_free_parameters_that_do_not_exist_are_refused(springs):
    with pytest.raises(InputError, match=r"no parameter matches \[\]"):
        FreeParameters.of(springs(6), [])
    water = jaxff.gaff(jaxff.Molecule.from_smiles("O"), charges="gasteiger")
    with pytest.raises(InputError, match=r"^the arrays nonbonded\.lj14 are empty"):
        FreeParameters.of(water, ["nonbonded.lj14"])


def test_bad_input_is_one_sentence(springs, R):
    a = springs(6)
    with pytest.raises(InputError, match=r"shape \(2, 6, 3\), expected \(N, 3\).*vmap"):
        a(np.stack([R, R]))
    with pytest.raises(InputError, match="positions have 5 atoms; this potential needs 6"):
        a(R[:5])
    with pytest.raises(InputError, match="at least 8"):
        springs(2).on([7, 0])(R)
    with pytest.raises(InputError, match="potentials of 6 and 5 atoms"):
        a + springs(5)
    with pytest.raises(InputError, match="potential of 6 atoms to one that acts on atom 8"):
        a + springs(2).on([0, 8])
    for wrong in ([1, 1], [0, 2**32], [-1, 0]):
        with pytest.raises(InputError, match="distinct indices"):
            springs(2).on(wrong)
    with pytest.raises(InputError, match="float32 or float64"):
        springs(2).astype("int32")
    with pytest.raises(InputError, match=r"needs 2 indices, one for each atom .got 3"):
        springs(2).on([0, 1, 2])
    with pytest.raises(InputError, match="list of atom indices"):
        springs(2).on([0.5, 1.0])
    with pytest.raises(InputError, match="structure"):
        a.replace({"spring": {"k": np.ones(5)}})
    with pytest.raises(InputError, match=r"\['spring'\]\['k'\] has shape \(4,\)"):
        a.replace({"spring": {"k": np.ones(4), "length": np.ones(5)}})
