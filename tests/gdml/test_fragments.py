"""Kernels on fragments: the fragments, the kernel matrix, and the models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from springs import labelled, springs

from jaxff import InputError, Molecule, evaluate, gdml, load, save
from jaxff.gdml.descriptor import pair_permutations
from jaxff.gdml.fragment_operator import FragmentOperator
from jaxff.gdml.kernel import matern
from jaxff.gdml.leave_out import Inverse, leave_out_errors
from jaxff.gdml.training import force_rmse

SIGMA = 3.0


@pytest.fixture(scope="module")
def trioxidane():
    """HOOOH: two fragments of three atoms, of one type, and one that is the whole molecule."""
    return Molecule.from_smiles("OOO")


@pytest.fixture(scope="module")
def data(trioxidane):
    truth = springs(trioxidane)
    moves = np.random.default_rng(2).normal(0.0, 0.08, (40, trioxidane.n_atoms, 3))
    return labelled(truth, trioxidane.positions + moves)


@pytest.fixture(scope="module")
def kinds(trioxidane):
    return gdml.fragment_types(trioxidane, 1)


@pytest.fixture(scope="module")
def op(data, kinds):
    group = kinds[1].permutations
    whole = gdml.KernelOperator.of(data.positions[:4], group, SIGMA, 1e-8)
    return FragmentOperator.with_fragments(whole, data.positions[:4], kinds)


@pytest.fixture(scope="module")
def model(data):
    return gdml.train(data[:20], sigma=SIGMA, kernel=gdml.Kernel(fragments=1))


def test_fragments_of_one_type_are_isomorphic(trioxidane, kinds):
    small, whole = kinds
    assert small.instances.shape == (2, 3)
    assert small.permutations.tolist() == [[0, 1, 2]]
    assert whole.instances.shape == (1, 5)
    assert len(whole.permutations) == 2
    numbers = trioxidane.numbers[small.instances]
    np.testing.assert_array_equal(numbers[0], numbers[1])
    bonded = {tuple(bond) for bond in trioxidane.bonds.tolist()}
    for i, j in ((0, 1), (0, 2), (1, 2)):
        both = {tuple(sorted(row[[i, j]].tolist())) in bonded for row in small.instances}
        assert len(both) == 1


def test_many_permutations_of_a_fragment_are_replaced_by_a_subgroup():
    neopentane = Molecule.from_smiles("CC(C)(C)C")
    (kind,) = gdml.fragment_types(neopentane)  # all five fragments are the whole molecule
    assert kind.instances.shape == (1, 17)
    assert 1 < len(kind.permutations) <= 100
    permuted = neopentane.reorder(kind.instances[0])
    gdml.check_symmetries(kind.permutations, permuted)


def test_the_kernel_matrix_is_the_second_derivative_of_the_scalar_kernel(op, data, kinds):
    """JAX differentiates the sum of scalar kernels by both geometries."""

    def kernel(R, other, instances, permutations, sigma):
        def x(R, atoms):
            return gdml.inverse_distances(R[atoms])

        entries = pair_permutations(permutations)
        return sum(
            matern(5.0 * jnp.sum((x(R, a) - x(other, b)[images]) ** 2) / sigma**2)
            for a in instances
            for b in instances
            for images in entries
        )

    def total(R, other):
        out = kernel(R, other, np.arange(5)[None], kinds[1].permutations, SIGMA)
        for kind, part in zip(kinds, op.parts, strict=True):
            out += kernel(R, other, *kind, SIGMA * float(part.op.sigma))
        return out

    second = jax.jit(jax.jacfwd(jax.grad(total), argnums=1))
    R = jnp.asarray(data.positions[:4])
    rows = [[second(a, b).reshape(15, 15) for b in R] for a in R]
    wanted = np.einsum("icw,ijcd,jdv->iwjv", op.bases, np.array(rows), op.bases)
    every = jnp.arange(4)
    block = op.block(every, every)
    np.testing.assert_allclose(block, wanted, atol=1e-10 * np.abs(wanted).max())
    vector = jnp.asarray(np.random.default_rng(3).normal(size=(4, op.width)))
    product = jnp.einsum("iwjv,jv->iw", block, vector) + op.lam * vector
    np.testing.assert_allclose(op @ vector, product, atol=1e-11 * np.abs(product).max())
    diagonal = np.einsum("iwiw->iw", block) + float(op.lam)
    np.testing.assert_allclose(op.diagonal(), diagonal, rtol=1e-10)


def test_a_type_is_as_wide_as_its_descriptor_varies(op, data, kinds):
    x = np.array([gdml.inverse_distances(R) for R in data.positions[:4]])
    pieces = data.positions[:4][:, kinds[0].instances]
    y = np.array([[gdml.inverse_distances(R) for R in frame] for frame in pieces])
    variances = y.var(axis=0).sum(axis=1).mean(), x.var(axis=0).sum()
    assert float(op.parts[0].op.sigma) == pytest.approx(np.sqrt(variances[0] / variances[1]))
    assert float(op.parts[1].op.sigma) == 1.0


def test_forces_are_the_gradient_and_reproduce_the_labels(model, data):
    assert evaluate(model, data[:20])["force_mae"] < 1e-4
    R = data.positions[30]
    direction, step = np.random.default_rng(4).normal(size=R.shape), 1e-4
    difference = model(R + step * direction) - model(R - step * direction)
    slope = -float(jnp.vdot(model.forces(R), direction))
    assert slope == pytest.approx(float(difference) / (2 * step), rel=1e-6)


def test_equivalent_atoms_can_be_exchanged(model, data, kinds):
    p, R = kinds[1].permutations[1], data.positions[25]
    order = kinds[1].instances[0]
    exchanged = np.empty(5, int)
    exchanged[order] = order[p]
    assert not np.array_equal(exchanged, np.arange(5))
    assert float(model(R[exchanged])) == pytest.approx(float(model(R)), abs=1e-8)
    np.testing.assert_allclose(model.forces(R[exchanged]), model.forces(R)[exchanged], atol=1e-7)


def test_a_fragment_that_is_the_whole_molecule_changes_nothing(data, kinds):
    """The kernel is then twice that of the molecule, so that λ counts half."""
    group = kinds[1].permutations
    train = data[:12]
    fragment = gdml.Kernel(symmetries=group, fragments=2, lam=2e-8)
    both = gdml.train(train, sigma=SIGMA, kernel=fragment)
    plain = gdml.train(train, sigma=SIGMA, kernel=gdml.Kernel(symmetries=group, lam=1e-8))
    assert set(both.params) == {"fragments", "gdml"}
    for a, b in zip(*(m.predict(data.positions[12:]) for m in (both, plain)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 * np.abs(b).max())


def test_a_file_gives_the_same_numbers(model, data, tmp_path):
    save(tmp_path / "m.npz", model)
    again = load(tmp_path / "m.npz")
    for a, b in zip(*(m.predict(data.positions[20:]) for m in (model, again)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.trained[0].domain.n_frames == 20


def test_damaged_fragments_are_refused(model, tmp_path):
    save(tmp_path / "m.npz", model)
    with np.load(tmp_path / "m.npz") as file:
        arrays = dict(file)
    key = next(name for name in arrays if name.endswith("/instances"))
    for wrong, fault in ((9, "out of range"), (arrays[key].ravel()[0], "one atom twice")):
        instances = arrays[key].copy()
        instances[0, -1] = wrong
        np.savez(tmp_path / "bad.npz", **{**arrays, key: instances})
        with pytest.raises(InputError, match=fault):
            load(tmp_path / "bad.npz")


def test_errors_of_left_out_frames_are_those_of_models_without_them(op, data):
    forces = data.forces[:4]
    y = np.asarray(op.observed(forces))
    every = jnp.arange(4)
    K = np.asarray(op.block(every, every)).reshape(op.size, -1) + float(op.lam) * np.eye(op.size)
    rest = slice(0, 3 * op.width)
    predicted = K[3 * op.width :, rest] @ np.linalg.solve(K[rest, rest], y[:3].ravel())
    (errors,) = leave_out_errors(Inverse.of(op), forces)
    np.testing.assert_allclose(op.observed(errors)[3], y[3] - predicted, atol=1e-6)


def test_fragments_add_to_a_baseline(data, trioxidane):
    base = springs(trioxidane)
    params = base.params["springs"]
    base = base.replace({"springs": {**params, "k": 1.2 * params["k"]}})
    kernel = gdml.Kernel(fragments=1)
    hybrid = gdml.train(data[:12], sigma=SIGMA, baseline=base, kernel=kernel)
    assert force_rmse(hybrid, data[12:]) < 0.3 * force_rmse(base, data[12:])
    assert not hybrid.trained[-1].domain.outside(data.positions[12:14]).frames.any()
    far = hybrid.trained[-1].domain.outside(1.5 * data.positions[:1])
    assert far.frames.all()
    placed = hybrid.on([7, 6, 5, 4, 3])
    R = np.random.default_rng(0).normal(size=(8, 3))
    R[[7, 6, 5, 4, 3]] = data.positions[3]
    assert float(placed(R)) == pytest.approx(float(hybrid(data.positions[3])), abs=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fragments": True}, "fragments is True, but must be a whole number"),
        ({"fragments": 0}, "fragments is 0, but must be a whole number of at least 1"),
        ({"fragments": 2, "learn_metric": True}, "cannot be combined"),
        ({"fragments": 2, "atoms": [0, 1]}, "cannot be combined"),
        ({"fragments": 2, "energies": "constrain"}, "cannot be combined"),
    ],
)
def test_settings_that_exclude_fragments_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        gdml.Kernel(**options)


def test_large_systems_and_other_solvers_are_refused(data, model, monkeypatch):
    kernel = gdml.Kernel(fragments=1)
    with pytest.raises(InputError, match="Cholesky factor"):
        gdml.train(data[:5], sigma=1.0, kernel=kernel, solver=gdml.Solver("iterative"))
    with pytest.raises(InputError, match="fragments"):
        gdml.uncertainty(model, data[:20], data[20:])
    monkeypatch.setattr("jaxff.gdml.fragment_system.UNKNOWNS", 40)
    with pytest.raises(InputError, match="at most 4 frames"):
        gdml.train(data[:5], sigma=1.0, kernel=kernel)
