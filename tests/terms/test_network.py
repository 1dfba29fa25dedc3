"""Networks as terms: forces, units, placement, files, training and trust."""

import json

import jax
import jax.numpy as jnp
import network_models
import numpy as np
import pytest

import jaxff
from jaxff import InputError, Molecule, load, md, save
from jaxff.parameters import FreeParameters

CONFIG = {"width": 5}


@pytest.fixture(scope="module")
def water():
    return Molecule.from_smiles("O", seed=1)


@pytest.fixture(scope="module")
def model(water):
    return jaxff.network(
        network_models.build(**CONFIG),
        network_models.variables(water.numbers, **CONFIG),
        water,
        builder="network_models:build",
        config=CONFIG,
    )


def test_energy_and_forces_are_those_of_the_module(model, water):
    weights = model.params["network"]["weights"]
    apply = network_models.PairNetwork(**CONFIG).apply
    R = water.positions
    np.testing.assert_allclose(model(R), apply(weights, water.numbers, R), rtol=1e-13)
    step, forces = 1e-5, np.asarray(model.forces(R))
    for index in np.ndindex(*R.shape):
        shift = np.zeros_like(R)
        shift[index] = step
        slope = (model(R + shift) - model(R - shift)) / (2 * step)
        np.testing.assert_allclose(forces[index], -slope, atol=1e-8)


def test_units_are_converted(model, water):
    weights = model.params["network"]["weights"]
    apply = network_models.build(**CONFIG)
    atomic = jaxff.network(apply, weights, water, energy_unit="Hartree", length_unit="Bohr")
    bohr, hartree = 0.529177210903, 627.5094740631
    expected = hartree * model(water.positions / bohr)
    np.testing.assert_allclose(atomic(water.positions), expected, rtol=1e-8)


def test_it_is_placed_scaled_and_added(model, water, springs):
    R = np.random.default_rng(0).normal(size=(5, 3))
    hybrid = springs(5) + 2.0 * model.on([4, 1, 3])
    np.testing.assert_allclose(hybrid(R), springs(5)(R) + 2.0 * model(R[[4, 1, 3]]), rtol=1e-13)


def test_weights_are_named_by_their_keys(model):
    free = FreeParameters.of(model, ["network.weights.*.kernel"])
    assert free.names == (
        "network.weights.params.Dense_0.kernel",
        "network.weights.params.Dense_1.kernel",
    )
    whole = FreeParameters.of(model)
    assert len(whole.names) == 4
    moves = jax.tree.map(jnp.ones_like, whole.no_moves())
    moved = whole.moved(moves)
    change = jax.tree.map(lambda a, b: np.ptp(a - b), moved.params, model.params)
    assert max(jax.tree.leaves(change)) < 1e-12  # each weight by its column's scale
    with pytest.raises(InputError, match="no parameter matches"):
        FreeParameters.of(model, ["network.weights.*.gain"])


def test_it_is_trained(model, water):
    """A network that made the labels is found again from other weights, by forces."""
    rng = np.random.default_rng(0)
    R = water.positions + 0.1 * rng.normal(size=(24, 3, 3))
    energies, forces = model.predict(R)
    data = jaxff.Dataset(water.numbers, R, forces, energies)
    other = network_models.variables(water.numbers, **CONFIG, seed=3)
    start = model.replace({"network": {"weights": other}})
    fitted = jaxff.fit(
        start, data, method=jaxff.learn.LeastSquares(prior=1e-6, steps=100)
    ).potential
    before, after = (jaxff.evaluate(p, data)["force_rmse"] for p in (start, fitted))
    assert after < 0.05 * before


def test_a_fit_keeps_the_type_of_each_weight(model, water, springs):
    """Also where terms of both types are fitted together."""
    rng = np.random.default_rng(0)
    R = water.positions + 0.1 * rng.normal(size=(6, 3, 3))
    energies, forces = (model + springs(3)).predict(R)
    data = jaxff.Dataset(water.numbers, R, forces, energies)
    single = model.astype(jnp.float32)
    assert single.dtype == jnp.float32
    for start, method in (
        (single, jaxff.learn.LeastSquares(steps=2)),
        (single + springs(3), jaxff.learn.Gradient(epochs=2, check_labels=False)),
    ):
        fitted = jaxff.fit(start, data, method=method).potential
        types = [[x.dtype for x in jax.tree.leaves(p.params)] for p in (fitted, start)]
        assert types[0] == types[1]


def test_the_default_prior_holds_weights_near_their_initial_values(water):
    """The solution is that of the regularised equations; without the prior it is exact."""

    def feature(weights, numbers, R):
        d = R[1:] - R[0]
        return weights["w"] * jnp.sum((jnp.linalg.norm(d, axis=1) - 0.96) ** 2)

    start = jaxff.network(feature, {"w": jnp.asarray(0.5)}, water)
    exact = start.replace({"network": {"weights": {"w": jnp.asarray(2.0)}}})
    R = water.positions + 0.05 * np.random.default_rng(0).normal(size=(20, 3, 3))
    energies, forces = exact.predict(R)
    data = jaxff.Dataset(water.numbers, R, forces, energies)

    def fitted(method):
        return jaxff.fit(start, data, method=method).potential.params["network"]["weights"]["w"]

    np.testing.assert_allclose(fitted(jaxff.learn.LeastSquares(prior=0.0)), 2.0, rtol=1e-12)
    # The objective a (w − 2)² + prior/M ((w − 0.5)/scale)², a the mean squares for w = 1.
    default = jaxff.learn.LeastSquares()
    scale = start.columns["network"]["weights"].scale
    a = np.mean((forces / 2.0) ** 2) + default.energy_weight * np.var(energies / 2.0)
    b = default.prior / len(R) / scale**2
    np.testing.assert_allclose(fitted(default), (2.0 * a + 0.5 * b) / (a + b), rtol=1e-8)


def test_a_file_brings_it_back(model, water, tmp_path):
    path = tmp_path / "net.npz"
    save(path, model + 0.5 * model.on([2, 0, 1]))
    read = load(path)
    whole = model + 0.5 * model.on([2, 0, 1])
    assert read(water.positions) == whole(water.positions)
    assert read.program.placed[0].term.numbers.tolist() == water.numbers.tolist()


def test_a_builder_gives_an_example_of_other_trees(water, tmp_path):
    weights = network_models.Weights(jnp.asarray(0.3), jnp.arange(10.0))
    plain = jaxff.network(network_models.attraction, weights, water)
    with pytest.raises(InputError, match="a network without a builder"):
        save(tmp_path / "x.npz", plain)
    named = jaxff.network(
        network_models.attraction, weights, water, builder="network_models:build_with_example"
    )
    save(tmp_path / "x.npz", named)
    read = load(tmp_path / "x.npz")
    assert isinstance(read.params["network"]["weights"], network_models.Weights)
    assert read(water.positions) == plain(water.positions)


def test_a_file_calls_no_function_that_is_not_trusted(model, tmp_path, monkeypatch):
    path = tmp_path / "net.npz"
    save(path, model)
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays["header"]))
    hostile = (
        "os:system",
        "subprocess:run",
        "builtins:exec",
        "jaxff.npz:write_npz",
        "network_models:unmarked",
        "not_there:build",
        "this:s",
    )
    for name in hostile:
        header["terms"][0]["fields"]["builder"] = name
        np.savez(path, **{**arrays, "header": np.array(json.dumps(header))})
        with pytest.raises(InputError, match=r"trust=\["):
            load(path)
    header["terms"][0]["fields"]["builder"] = "network_models:unmarked"
    np.savez(path, **{**arrays, "header": np.array(json.dumps(header))})
    assert load(path, trust=["network_models"]).n_atoms == 3
    assert load(path, trust="network_models").n_atoms == 3
    for trust in ("not_network_models_either", ["network"], "os", ["os"]):
        with pytest.raises(InputError, match=r"trust=\["):
            load(path, trust=trust)
    header["terms"][0]["fields"]["builder"] = "os:system"
    np.savez(path, **{**arrays, "header": np.array(json.dumps(header))})
    for trust in ("cosmos", ["os"]):
        with pytest.raises(InputError, match=r"trust=\["):
            load(path, trust=trust)


def test_trust_covers_what_a_module_defines_and_not_what_it_imports(model, tmp_path, monkeypatch):
    package = tmp_path / "trusted_package"
    package.mkdir()
    body = "from network_models import unmarked\nfrom subprocess import run\nimport subprocess\n"
    (package / "__init__.py").write_text(f"{body}from trusted_package.inner import build\n")
    (package / "inner.py").write_text(
        "import network_models\ndef build(width):\n    return network_models.build(width)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "net.npz"
    save(path, model)
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays["header"]))

    def read(builder, trust):
        header["terms"][0]["fields"]["builder"] = builder
        np.savez(path, **{**arrays, "header": np.array(json.dumps(header))})
        return load(path, trust=trust)

    assert read("trusted_package:build", ["trusted_package"]).n_atoms == 3
    assert read("trusted_package:unmarked", ["trusted_package", "network_models"]).n_atoms == 3
    for builder in ("run", "subprocess.run", "unmarked"):
        with pytest.raises(InputError, match=r"is defined in \w+, which is not trusted: .*--trust"):
            read(f"trusted_package:{builder}", ["trusted_package", "subprocess"])


def test_negative_neighbours_and_large_ones_are_padding():
    gas = jaxff.network(network_models.periodic, {"k": jnp.ones(())}, np.ones(4, int))
    R = np.random.default_rng(0).uniform(0, 4, size=(6, 3))
    for potential in (gas, gas.on([5, 4, 1, 0])):
        X = R[: potential.program.n_atoms_min]
        listed = np.array([[0, 1], [1, 4 if len(X) > 4 else 3]])
        for fill in (-1, -3, len(X), 99):
            long = np.concatenate([listed, [[fill, 0], [fill, fill]]], axis=1)
            assert potential(X, neighbor=long) == potential(X, neighbor=listed)
            by_trace = jax.jit(potential.energy_fn)(potential.params, X, None, jnp.asarray(long))
            np.testing.assert_allclose(by_trace, potential(X, neighbor=listed), rtol=1e-14)


def test_box_and_neighbours_reach_functions_that_declare_them(water):
    numbers = np.ones(4, int)
    gas = jaxff.network(network_models.periodic, {"k": jnp.ones(())}, numbers)
    R = np.random.default_rng(0).uniform(0, 4, size=(4, 3))
    i, j = np.triu_indices(4, 1)
    d = R[i] - R[j]
    np.testing.assert_allclose(gas(R), np.exp(-np.linalg.norm(d, axis=1)).sum(), rtol=1e-12)
    box = np.array([[4.0, 0, 0], [1.0, 5.0, 0], [0.5, 0.3, 6.0]])
    near = d - np.round(d @ np.linalg.inv(box)) @ box
    expected = np.exp(-np.linalg.norm(near, axis=1))
    np.testing.assert_allclose(gas(R, box=box), expected.sum(), rtol=1e-12)
    pairs = np.stack([np.append(i[:3], 4), np.append(j[:3], 4)])  # the last one is padding
    np.testing.assert_allclose(gas(R, box=box, neighbor=pairs), expected[:3].sum(), rtol=1e-12)
    # Placed on some atoms of a larger system, pairs with other atoms drop out.
    larger = np.concatenate([R[:2] + 9.0, R[::-1]])
    place = np.array([5, 4, 3, 2])
    mapped = np.concatenate([place[pairs[:, :3]], [[0, 1, 6], [3, 5, 6]]], axis=1)
    short = jaxff.network(network_models.periodic, {"k": jnp.ones(())}, numbers, cutoff=1.5)
    np.testing.assert_allclose(
        short.on(place)(larger, box=box, neighbor=mapped), expected[:3].sum(), rtol=1e-12
    )
    # Without a cutoff, a network on some atoms has all pairs of these atoms, whatever the list.
    np.testing.assert_allclose(
        gas.on(place)(larger, box=box, neighbor=mapped), expected.sum(), rtol=1e-12
    )


def test_bad_input_is_one_sentence(model, water):
    apply, weights = network_models.build(**CONFIG), model.params["network"]["weights"]
    with pytest.raises(InputError, match="must be a floating-point array"):
        jaxff.network(apply, {"w": jnp.arange(3)}, water)
    with pytest.raises(InputError, match="must be a floating-point array"):
        jaxff.network(apply, {"activation": jnp.tanh}, water)
    with pytest.raises(InputError, match="must return the energy as a real scalar"):
        jaxff.network(lambda w, z, R: R[:, 0], {"w": jnp.ones(2)}, water)
    for energy, got in ((None, "NoneType"), (1j, "complex"), ((1.0, 2.0), "tuple"), (1, "int")):
        with pytest.raises(
            InputError, match=rf"must return the energy as a real scalar \(\) \(got {got}"
        ):
            jaxff.network(lambda w, z, R, energy=energy: energy, weights, water)
    assert jaxff.network(lambda w, z, R: 1.0, weights, water)(water.positions) == 1.0
    for numbers in ([0, 1], [-1], [8, 119]):
        with pytest.raises(InputError, match="must be from 1 to 118"):
            jaxff.network(apply, weights, numbers)
    for builder in ("x", "os.path", ":build", "network_models:", 5):
        with pytest.raises(InputError, match="must be an importable function"):
            jaxff.network(apply, weights, water, builder=builder)
    with pytest.raises(
        InputError, match=r"cutoff must be a positive number of Å, or None \(got '5'"
    ):
        jaxff.network(apply, weights, water, cutoff="5")
    with pytest.raises(InputError, match="cannot be imported"):
        jaxff.network(apply, weights, water, builder="nowhere:build")
    with pytest.raises(InputError, match="JSON"):
        jaxff.network(apply, weights, water, builder="network_models:build", config={"a": {1}})
    with pytest.raises(InputError, match="fails with config"):
        jaxff.network(apply, weights, water, builder="network_models:build", config={"other": 4})
    with pytest.raises(InputError, match="differs from apply"):
        jaxff.network(
            lambda w, z, R: 2.0 * apply(w, z, R), weights, water,
            builder="network_models:build", config=CONFIG,
        )  # fmt: skip
    with pytest.raises(
        InputError, match=r"cutoff must be a positive number of Å, or None \(got -1"
    ):
        jaxff.network(apply, weights, water, cutoff=-1.0)
    with pytest.raises(InputError, match="energy unit"):
        jaxff.network(apply, weights, water, energy_unit="parsec")


def test_float32_weights_serve_a_float64_potential(water, springs):
    weights = network_models.variables(water.numbers)
    wide = jaxff.network(network_models.build(), weights, water)
    narrow = jaxff.network(
        network_models.build(), jax.tree.map(lambda x: x.astype(np.float32), weights), water
    )
    both = narrow + springs(3)
    energy, forces = both.energy_and_forces(water.positions)
    assert energy.dtype == forces.dtype == jnp.float64
    np.testing.assert_allclose(narrow(water.positions), wide(water.positions), rtol=1e-5)


def test_batches_are_cut_to_bounded_memory(water):
    """A frame's working memory is estimated, and many frames are evaluated in parts."""

    def heavy(weights, numbers, R):
        return jnp.sum(jnp.tanh(weights["w"] * jnp.sum(R)))

    potential = jaxff.network(heavy, {"w": jnp.linspace(0.0, 1.0, 100_000)}, water)
    assert potential.program.frame_bytes(potential.params) > 8e5
    assert potential.program.frames_at_once(potential.params) < 6
    R = water.positions + 0.01 * np.arange(7)[:, None, None]
    energies, _ = potential.predict(R)
    np.testing.assert_allclose(energies, [potential(r) for r in R], rtol=1e-12)


def test_replicas_are_run_in_parts_of_bounded_memory(model, water, monkeypatch):
    weights = model.params["network"]["weights"]
    settings = {
        "steps": 20,
        "start": md.Start(replicas=5, seed=1),
        "output": md.Output(every=10),
    }
    whole = md.simulate(model, water, md.NVE(temperature=300.0), **settings)
    other = jaxff.network(network_models.build(**CONFIG), weights, water)
    two_frames = 2.5 * other.program.frame_bytes(other.params)
    monkeypatch.setattr("jaxff.program.BATCH_BYTES", two_frames)
    assert other.program.replicas_at_once(other.params) == 2
    parts = md.simulate(other, water, md.NVE(temperature=300.0), **settings)
    np.testing.assert_allclose(parts.positions, whole.positions, atol=1e-12)
