"""Training: the reference package's coefficients, interpolation, residuals, errors."""

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxff import gdml
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.descriptor import inverse_distances, pair_permutations
from jaxff.gdml.kernel import matern
from jaxff.gdml.training import force_rmse
from jaxff.potential import Column, Potential, Term

SIGMA = 12.0


def test_predictions_and_coefficients_equal_the_reference_package(frames, group, model):
    ours = gdml.train(
        frames[:16], n_train=16, sigma=SIGMA, kernel=gdml.Kernel(lam=1e-6, symmetries=group)
    )
    own, other = ours.params["gdml"], model.params["gdml"]
    # Net forces and torques in the labels, which no kernel fits, are left out of our α.
    scale = np.abs(other["coefficients"]).max()
    np.testing.assert_allclose(
        own["coefficients"], other["coefficients"], rtol=0, atol=1e-8 * scale
    )
    assert own["std"] == pytest.approx(float(other["std"]), rel=1e-12)
    assert own["offset"] == pytest.approx(float(other["offset"]), abs=1e-6)
    R = frames.positions[16:]
    for mine, theirs in zip(ours.predict(R), model.predict(R), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-7)


@pytest.mark.parametrize("values", [False, True])
def test_blocks_and_products_are_derivatives_of_the_kernel(values, frames, group):
    R = jnp.asarray(frames.positions[:3])
    pairs = pair_permutations(group)

    def kernel(a, b):
        delta = inverse_distances(a) - inverse_distances(b)[pairs]
        return jnp.sum(matern(5.0 * jnp.sum(delta**2, axis=1) / SIGMA**2))

    op = gdml.KernelOperator.of(R, group, SIGMA, lam=0.1, values=values)
    width = op.width
    assert width == 21 + values
    matrix = np.asarray(op.block(np.arange(3), np.arange(3)))
    second = jax.jit(jax.jacfwd(jax.grad(kernel, 0), 1))
    first = jax.jit(jax.grad(kernel, 0))
    for i, j in np.ndindex(3, 3):
        mixed = op.bases[i].T @ second(R[i], R[j]).reshape(27, 27) @ op.bases[j]
        np.testing.assert_allclose(matrix[i, :21, j, :21], mixed, rtol=0, atol=1e-12)
        if values:
            slope = op.bases[i].T @ first(R[i], R[j]).ravel()
            np.testing.assert_allclose(matrix[i, :21, j, 21], slope, rtol=0, atol=1e-12)
            np.testing.assert_allclose(matrix[j, 21, i, :21], slope, rtol=0, atol=1e-12)
            assert matrix[i, 21, j, 21] == pytest.approx(float(kernel(R[i], R[j])), abs=1e-12)
    matrix = matrix.reshape(op.size, op.size) + 0.1 * np.eye(op.size)
    a = np.random.default_rng(0).normal(size=(3, width))
    np.testing.assert_allclose((op @ a).ravel(), matrix @ a.ravel(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(op.diagonal().ravel(), np.diag(matrix), rtol=0, atol=1e-12)


def test_what_the_reduced_coordinates_leave_out_cannot_be_fitted(frames):
    R = frames.positions[:4]
    op = gdml.KernelOperator.of(R, np.arange(9)[None], SIGMA)
    rng = np.random.default_rng(0)
    rigid = rng.normal(size=3) + np.cross(rng.normal(size=3), R)  # one force, one torque
    np.testing.assert_allclose(op.observed(rigid), 0.0, atol=1e-12)
    inner = op.cartesian(rng.normal(size=(4, op.width))).reshape(4, 9, 3)
    np.testing.assert_allclose(op.cartesian(op.observed(inner)), inner.reshape(4, -1), atol=1e-12)


def labelled(frames, potential):
    """The frames with exact labels: those of an electronic structure code have a net torque."""
    energies, forces = potential.predict(frames.positions)
    return replace(frames, energies=energies, forces=forces)


def test_training_forces_and_the_mean_energy_are_reproduced(frames, group, model):
    data = labelled(frames, model)
    interpolation = gdml.train(data, sigma=2.0, kernel=gdml.Kernel(lam=1e-13, symmetries=group))
    E, F = interpolation.predict(data.positions)
    np.testing.assert_allclose(F, data.forces, rtol=0, atol=1e-6)
    assert np.mean(E - data.energies) == pytest.approx(0.0, abs=1e-7)


def test_symmetries_are_recovered_and_used(frames, group):
    automatic = gdml.train(frames, n_train=16, sigma=SIGMA, run=gdml.Run(seed=5))
    assert len(automatic.program.placed[0].term.permutations) == 6
    without = gdml.train(
        frames, n_train=16, sigma=SIGMA, kernel=gdml.Kernel(symmetries=None), run=gdml.Run(seed=5)
    )
    rest = np.setdiff1d(np.arange(24), automatic.program.placed[0].term.train_index)
    assert force_rmse(automatic, frames[rest]) < force_rmse(without, frames[rest])
    again = gdml.train(frames, n_train=16, sigma=SIGMA, run=gdml.Run(seed=5))
    assert np.array_equal(again.params["gdml"]["alphas"], automatic.params["gdml"]["alphas"])


def test_sigma_is_the_best_on_the_validation_frames(frames, group):
    valid = frames[16:]
    candidates = (2.0, 10.0, 300.0)
    report = []
    chosen = gdml.train(
        frames[:16],
        valid,
        n_train=16,
        sigma=candidates,
        kernel=gdml.Kernel(symmetries=group),
        run=gdml.Run(progress=lambda phase, fraction: report.append((phase, fraction))),
    )
    errors = [
        force_rmse(
            gdml.train(frames[:16], n_train=16, sigma=s, kernel=gdml.Kernel(symmetries=group)),
            valid,
        )
        for s in candidates
    ]
    first_rise = next(k for k in range(1, 4) if k == 3 or errors[k] >= errors[k - 1])
    assert float(chosen.params["gdml"]["sigma"]) == candidates[first_rise - 1]
    phases = {phase.split()[0] for phase, _ in report}
    assert {"symmetries", "assembling", "factorising", "sigma"} <= phases
    assert all(0.0 <= fraction <= 1.0 for _, fraction in report)


# -- baselines ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Springs(Term):
    """Harmonic bonds, for these tests."""

    kind: ClassVar[str] = "test-springs"
    columns: ClassVar[dict] = {"k": Column("kcal/mol/Å²"), "length": Column("Å")}
    n_atoms: int
    bonds: np.ndarray

    def energies(self, params, R, space):
        d = R[self.bonds[:, 0]] - R[self.bonds[:, 1]]
        length = jnp.sqrt(jnp.sum(d * d, axis=1))
        return {"springs": jnp.sum(params["k"] * (length - params["length"]) ** 2)}


def springs(molecule):
    count = len(molecule.bonds)
    params = {"k": np.full(count, 300.0), "length": np.full(count, 1.2)}
    return Potential.of("springs", Springs(molecule.n_atoms, molecule.bonds), params, molecule)


@pytest.fixture(scope="module")
def stiff(frames, model):
    """Frames labelled with the sum of springs and a kernel model."""
    return labelled(frames, springs(frames.molecule) + model)


@pytest.mark.parametrize("order", [range(9), (8, 2, 5, 0, 6, 1, 4, 3, 7)], ids=["same", "other"])
def test_the_sum_with_a_baseline_fits_the_data_in_any_atom_order(order, stiff, group):
    baseline = springs(stiff.molecule.reorder(order))
    settings = {"sigma": 5.0, "baseline": baseline, "kernel": gdml.Kernel(symmetries=group)}
    with pytest.raises(
        InputError, match=r"forces are 2.* times as large as those of the initial potential"
    ):
        gdml.train(stiff, n_train=20, **settings)
    run = gdml.Run(check_labels=False)  # these labels are twice as stiff as the baseline
    total = gdml.train(stiff, n_train=20, **settings, run=run)
    assert {p.name for p in total.program.placed} == {"springs", "gdml"}
    assert total.molecule.symbols == stiff.molecule.symbols
    E, F = total.predict(stiff.positions)
    trained = total.program.placed[-1].term.train_index
    np.testing.assert_allclose(F[trained], stiff.forces[trained], rtol=0, atol=1e-3)
    assert np.mean((E - stiff.energies)[trained]) == pytest.approx(0.0, abs=1e-6)
    plain = gdml.train(stiff, n_train=20, sigma=5.0, kernel=gdml.Kernel(symmetries=group))
    assert force_rmse(total, stiff) < 0.5 * force_rmse(plain, stiff)


def test_one_factorisation_serves_several_labels(stiff, group):
    baseline = springs(stiff.molecule)
    system = gdml.KernelSystem(stiff, group, 5.0)
    plain = system.fit(stiff)
    rest = system.fit(gdml.residual(stiff, baseline))
    R, F = stiff.positions[0], stiff.forces[0]
    np.testing.assert_allclose(plain.forces(R), F, rtol=0, atol=1e-3)
    np.testing.assert_allclose((baseline + rest).forces(R), F, rtol=0, atol=1e-3)


def test_a_model_acts_on_atoms_of_a_larger_system(model, frames):
    atoms = [11, 3, 5, 7, 2, 0, 9, 8, 1]
    R = np.random.default_rng(0).normal(size=(12, 3)) * 5.0
    R[atoms] = frames.positions[0]
    placed = model.on(atoms)
    assert float(placed(R)) == pytest.approx(float(model(frames.positions[0])), abs=1e-9)
    F = np.asarray(placed.forces(R))
    np.testing.assert_allclose(F[atoms], model.forces(frames.positions[0]), atol=1e-9)
    assert (np.delete(F, atoms, axis=0) == 0.0).all()


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_train": 1}, "at least two"),
        ({"n_train": 25}, "number of frames, 24"),
        ({"n_train": 16, "sigma": -1.0}, "sigma is -1.0, but must be"),
        ({"n_train": 24, "sigma": None}, "left for validation"),
        ({"n_train": 20, "sigma": [1, 2], "valid": 9}, "left for validation"),
        ({"valid": 9}, "give n_train, or"),
    ],
)
def test_bad_options_are_named(options, message, frames):
    with pytest.raises(InputError, match=message):
        gdml.train(frames, **{"sigma": SIGMA, **options})


def test_float64_is_asked_for(frames):
    with jax.enable_x64(False), pytest.raises(InputError, match="JAX_ENABLE_X64=1"):
        gdml.train(frames, n_train=16, sigma=SIGMA)


def test_gradients_in_place_of_forces_are_recognised(frames, group):
    turned = replace(frames, forces=-frames.forces)
    with pytest.raises(InputError, match="probably gradients"):
        gdml.train(turned, sigma=SIGMA, kernel=gdml.Kernel(symmetries=group))


def test_energies_of_another_scale_are_warned_of(frames, group):
    scaled = replace(frames, energies=frames.energies * 23.06)
    with pytest.warns(UserWarning, match="slope 2"):
        gdml.train(scaled, sigma=SIGMA, kernel=gdml.Kernel(symmetries=group))


@pytest.mark.parametrize("how", ["exact", "rotated", "permuted"])
def test_identical_training_frames_are_named(how, frames, group):
    R = frames.positions.copy()
    R[7] = {"exact": R[2], "rotated": R[2][:, [1, 2, 0]] + 1.0, "permuted": R[2][group[1]]}[how]
    with pytest.raises(InputError, match="frames 2 and 7"):
        gdml.train(replace(frames, positions=R), sigma=SIGMA, kernel=gdml.Kernel(symmetries=group))


def test_copies_in_the_pool_are_never_drawn_twice(frames, group):
    doubled = Dataset(
        frames.numbers,
        np.concatenate([frames.positions, frames.positions[:6]]),
        np.concatenate([frames.forces, frames.forces[:6]]),
    )
    gdml.train(doubled, n_train=23, sigma=SIGMA, kernel=gdml.Kernel(symmetries=group))
    with pytest.raises(InputError, match="24 distinct"):
        gdml.train(doubled, n_train=25, sigma=SIGMA, kernel=gdml.Kernel(symmetries=group))


def test_data_without_energies_train_without_an_offset(frames, group):
    bare = replace(frames, energies=None)
    model = gdml.train(bare, sigma=SIGMA, kernel=gdml.Kernel(symmetries=group))
    assert float(model.params["gdml"]["offset"]) == 0.0


def test_a_baseline_of_another_molecule_is_refused(frames):
    from jaxff import Molecule

    with pytest.raises(InputError, match="cannot be matched"):
        gdml.train(frames, n_train=16, sigma=SIGMA, baseline=springs(Molecule.from_smiles("CO")))


def test_a_lambda_too_small_for_the_frames_is_named(frames, group):
    with pytest.raises(InputError, match=r"not positive definite at λ = 1e-30.* raise lam"):
        gdml.train(frames, sigma=1e4, kernel=gdml.Kernel(lam=1e-30, symmetries=group))
