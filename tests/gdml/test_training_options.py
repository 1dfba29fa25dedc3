"""Options of training: energies, atoms, cells, descriptors, widths, checkpoints, errors."""

import json
from dataclasses import replace
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxff import Dataset, gdml, load, save
from jaxff.errors import InputError
from jaxff.gdml import standard_errors
from jaxff.gdml.descriptor import inverse_distances
from jaxff.gdml.search import NARROWEST, WIDEST, search_width, widths_below
from jaxff.gdml.training import force_rmse

SIGMA = 12.0


def test_energy_constraints_equal_the_reference_packages(data, frames, group):
    theirs = gdml.load(data / "ethanol_energy_model.npz")
    ours = gdml.train(
        frames[:16],
        sigma=SIGMA,
        kernel=gdml.Kernel(lam=1e-4, symmetries=group, energies="constrain"),
    )
    for a, b in zip(ours.predict(frames.positions), theirs.predict(frames.positions), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-7)
    with pytest.raises(InputError, match="no energies"):
        gdml.train(
            replace(frames, energies=None), sigma=SIGMA, kernel=gdml.Kernel(energies="constrain")
        )


def test_energies_can_be_left_unused(data, frames, group):
    model = gdml.train(
        frames[:16], sigma=SIGMA, kernel=gdml.Kernel(lam=1e-6, symmetries=group, energies=None)
    )
    assert float(model.params["gdml"]["offset"]) == 0.0
    assert not model.program.placed[0].term.knows_energies
    theirs = gdml.load(data / "ethanol_force_only_model.npz")
    F = [m.predict(frames.positions)[1] for m in (model, theirs)]
    np.testing.assert_allclose(*F, rtol=0, atol=1e-7)


def test_training_without_symmetries_equals_the_reference_packages(data, frames):
    ours = gdml.train(frames[:16], sigma=SIGMA, kernel=gdml.Kernel(lam=1e-6, symmetries=None))
    theirs = gdml.load(data / "ethanol_unsymmetrised_model.npz")
    for a, b in zip(ours.predict(frames.positions), theirs.predict(frames.positions), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-7)


def test_periodic_training_equals_the_reference_packages(data, frames, group):
    with np.load(data / "ethanol_periodic_model.npz", allow_pickle=False) as file:
        lattice = file["lattice"]
    with np.load(data / "predictions.npz") as file:
        R = file["R_wrapped"]
    periodic = replace(frames, positions=R, lattice=lattice)
    ours = gdml.train(periodic[:16], sigma=SIGMA, kernel=gdml.Kernel(lam=1e-6, symmetries=group))
    theirs = gdml.load(data / "ethanol_periodic_model.npz")
    for a, b in zip(ours.predict(R), theirs.predict(R), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-7)


def test_what_is_left_of_the_training_forces_is_lambda_times_the_coefficients(frames, group):
    """(K + λ) a = y: training errors are −std λ α, and what no kernel can fit."""
    model = gdml.train(frames, sigma=SIGMA, kernel=gdml.Kernel(lam=1e-5, symmetries=group))
    own = model.params["gdml"]
    op = gdml.KernelOperator.of(frames.positions, group, SIGMA)
    left = op.observed(model.predict(frames.positions)[1] - frames.forces)
    expected = float(own["std"] * own["lam"]) * op.observed(own["alphas"])
    np.testing.assert_allclose(left, expected, rtol=0, atol=1e-8)


def test_a_molecule_wrapped_into_a_cell_is_the_same_molecule(frames, group):
    lattice = np.array([[9.0, 1.0, 0.0], [0.0, 8.5, 0.5], [0.0, 0.0, 9.5]])
    shifts = np.random.default_rng(0).integers(-1, 2, size=frames.positions.shape)
    wrapped = replace(frames, positions=frames.positions + shifts @ lattice.T, lattice=lattice)
    options = {"sigma": SIGMA, "kernel": gdml.Kernel(1e-6, group)}
    free, periodic = (gdml.train(d[:16], **options) for d in (frames, wrapped))
    for a, b in zip(
        free.predict(frames.positions), periodic.predict(wrapped.positions), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-7)


def test_the_reference_package_s_lattice_convention(tmp_path, frames, group):
    """Lattice vectors are columns: r + L k is an image of r."""
    lattice = np.array([[9.0, 1.0, 0.0], [0.0, 8.5, 0.5], [0.0, 0.0, 9.5]])
    periodic = replace(frames, lattice=lattice)
    model = gdml.train(periodic[:16], sigma=SIGMA, kernel=gdml.Kernel(symmetries=group))
    gdml.save(tmp_path / "m.npz", model)
    again = gdml.load(tmp_path / "m.npz")
    R = frames.positions[20]
    moved = R.copy()
    moved[3] += lattice @ [1, -2, 0]
    np.testing.assert_allclose(again(moved), model(R), rtol=0, atol=1e-8)


def gaussians(R, lattice=None):
    """A descriptor of another kind."""
    return jnp.exp(-0.3 / inverse_distances(R, lattice) ** 2)


def angles_too(R, lattice=None):
    """One that no permutation of atoms permutes."""
    return jnp.concatenate([inverse_distances(R, lattice), jnp.sin(R[3:4, 0])])


def test_any_descriptor_serves_and_travels_with_the_model(tmp_path, frames, group):
    model = gdml.train(
        frames[:20], sigma=2.0, kernel=gdml.Kernel(descriptor=gaussians, symmetries=group)
    )
    R = frames.positions[20]
    for p in group:
        assert float(model(R[p])) == pytest.approx(float(model(R)), abs=1e-8)
    save(tmp_path / "m.npz", model)
    assert float(load(tmp_path / "m.npz")(R)) == float(model(R))
    with pytest.raises(InputError, match="not a single sGDML"):
        gdml.save(tmp_path / "n.npz", model)
    text = (tmp_path / "m.npz").read_bytes()
    assert b"pickle" not in text
    with pytest.raises(InputError, match="does not permute"):
        gdml.train(
            frames[:20], sigma=2.0, kernel=gdml.Kernel(descriptor=angles_too, symmetries=group)
        )
    with pytest.raises(InputError, match="cannot be imported by its name"):
        save(
            tmp_path / "n.npz",
            gdml.train(
                frames[:5],
                sigma=2.0,
                kernel=gdml.Kernel(
                    descriptor=lambda R, lattice: inverse_distances(R, lattice), symmetries=None
                ),
            ),
        )


def test_a_kernel_on_some_atoms_learns_the_forces_that_depend_on_them(frames, springs):
    atoms = [2, 8, 1]
    inner = springs(3, k=40.0, length=1.5).on(atoms)
    molecule = frames.molecule
    energies, forces = inner.predict(frames.positions)
    data = Dataset(frames.numbers, frames.positions, forces, energies)
    model = gdml.train(data[:20], sigma=5.0, kernel=gdml.Kernel(atoms=atoms))
    assert list(model.program.placed[0].atoms) == atoms
    F = model.predict(frames.positions)[1]
    assert (np.delete(F, atoms, axis=1) == 0.0).all()
    np.testing.assert_allclose(F[20:], forces[20:], rtol=0, atol=0.05 * np.abs(forces).max())
    assert model.molecule.symbols == molecule.symbols
    for wrong in ([0], [0, 0], [0, 9], "01"):
        with pytest.raises(InputError, match="distinct atoms from 0 to 8"):
            gdml.train(data[:20], sigma=5.0, kernel=gdml.Kernel(atoms=wrong))


def test_lambda_is_chosen_too(frames, group):
    trials = []
    model = gdml.train(
        frames[:16],
        frames[16:],
        sigma=SIGMA,
        kernel=gdml.Kernel(lam=(1e-8, 1e-3), symmetries=group),
        run=gdml.Run(on_trial=trials.append),
    )
    best = min(trials, key=lambda trial: trial.valid_rmse)
    assert float(model.params["gdml"]["lam"]) == best.lam
    assert best.valid_rmse == pytest.approx(force_rmse(model, frames[16:]))
    assert {trial.lam for trial in trials} == {1e-8, 1e-3}


def test_validation_frames_must_not_be_training_frames(frames, group):
    with pytest.raises(InputError, match="3 of the validation frames are training frames"):
        gdml.train(frames[:16], frames[13:], sigma=[5, 10], kernel=gdml.Kernel(symmetries=group))


@pytest.mark.parametrize("best", [3.0, 11.0, 25.0, 70.0, 150.0])
def test_the_width_of_least_error_is_found_in_few_trials(best):
    tried = []

    def error(sigma):
        tried.append(sigma)
        return 1.0 + 0.3 * np.log(sigma / best) ** 2

    found = search_width(error)
    assert abs(np.log(found / best)) < np.log(1.2)
    assert len(tried) == len(set(tried)) <= 9
    assert search_width(lambda sigma: sigma) == NARROWEST
    assert search_width(lambda sigma: -sigma) == WIDEST


def test_widths_below_descend():
    widths = widths_below(28.0)
    assert widths[0] == 28.0
    assert all(1.3 < a / b < 1.5 for a, b in pairwise(widths))
    assert NARROWEST <= widths[-1] < 1.5 * NARROWEST


class Stop(BaseException):
    """A killed process, for these tests."""


def test_a_training_killed_at_any_moment_resumes_to_the_same_model(tmp_path, frames, group):
    options = {
        "sigma": (5.0, 10.0, 20.0),
        "valid": frames[16:],
        "kernel": gdml.Kernel(symmetries=group),
        "solver": gdml.Solver("iterative", tolerance=1e-8),
    }
    straight = gdml.train(frames[:16], **options)
    rng = np.random.default_rng(1)

    def killed(phase, fraction):
        if rng.random() < 0.08:
            raise Stop

    kills = 0
    for _ in range(200):
        try:
            found = gdml.train(
                frames[:16], run=gdml.Run(checkpoint=tmp_path / "state", progress=killed), **options
            )
            break
        except Stop:
            kills += 1
    assert kills > 2
    np.testing.assert_array_equal(found.params["gdml"]["alphas"], straight.params["gdml"]["alphas"])
    assert float(found.params["gdml"]["sigma"]) == float(straight.params["gdml"]["sigma"])
    trials = sorted(path.name for path in (tmp_path / "state").glob("16-*.json"))
    assert trials
    assert np.isfinite(json.loads((tmp_path / "state" / trials[0]).read_text())["valid_rmse"])


def test_a_checkpoint_of_another_training_is_not_taken_up(tmp_path, frames, group):
    folder = tmp_path / "state"
    first = gdml.train(
        frames[:16],
        sigma=5.0,
        kernel=gdml.Kernel(symmetries=group),
        run=gdml.Run(checkpoint=folder),
    )
    other = gdml.train(
        frames[:12],
        sigma=5.0,
        kernel=gdml.Kernel(symmetries=group),
        run=gdml.Run(checkpoint=folder),
    )
    assert len(other.params["gdml"]["alphas"]) == 12
    assert len(first.params["gdml"]["alphas"]) == 16
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    (other_folder / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="not the folder of a training"):
        gdml.train(
            frames[:16],
            sigma=5.0,
            kernel=gdml.Kernel(symmetries=group),
            run=gdml.Run(checkpoint=other_folder),
        )
    assert (other_folder / "thesis.tex").read_text() == "precious"


# -- uncertainty --------------------------------------------------------------------------------


def test_standard_errors_are_the_gaussian_process_s(frames, group):
    model = gdml.train(frames[:6], sigma=SIGMA, kernel=gdml.Kernel(lam=1e-6, symmetries=group))
    errors = gdml.uncertainty(model, frames[:6], frames[6:16])
    R = frames.positions[20]
    op = gdml.KernelOperator.of(
        np.concatenate([frames.positions[:6], R[None]]), group, SIGMA, 1e-6, values=True
    )
    index = np.arange(7)
    matrix = np.asarray(op.block(index, index))
    known = [k for k in range(6 * 22) if k % 22 != 21]  # gradients of the training frames
    K = matrix.reshape(7 * 22, 7 * 22)
    inverse = np.linalg.inv(K[np.ix_(known, known)] + 1e-6 * np.eye(len(known)))
    # forces, in Cartesian coordinates
    here = np.arange(6 * 22, 6 * 22 + 21)
    cross = K[np.ix_(here, known)]
    reduced = K[np.ix_(here, here)] - cross @ inverse @ cross.T
    variance = np.diag(np.asarray(op.bases[6]) @ reduced @ np.asarray(op.bases[6]).T)
    energy, forces = errors(R)
    expected = float(errors.force_scale) * np.sqrt(variance).reshape(9, 3)
    np.testing.assert_allclose(forces, expected, rtol=1e-5, atol=1e-5 * float(errors.force_scale))
    # the energy's difference from the mean over the training frames
    values = np.zeros(7 * 22)
    values[6 * 22 + 21] = 1.0
    values[21 : 6 * 22 : 22] -= 1.0 / 6.0
    cross = values @ K[:, known]
    variance = values @ K @ values - cross @ inverse @ cross
    assert float(energy) == pytest.approx(float(errors.energy_scale) * np.sqrt(variance), rel=1e-4)


def test_standard_errors_of_many_frames_use_the_best_force_components(frames, group, monkeypatch):
    """The variance is between that of all components and that of as many random components."""
    train, valid = frames[:16], frames[20:40]
    kernel = gdml.Kernel(symmetries=group)
    model = gdml.train(train, sigma=10.0, kernel=kernel)
    monkeypatch.setattr(standard_errors, "MAX_UNKNOWNS", 4 * 3 * frames.n_atoms)
    variances = []
    for part in (train, train[:4]):
        found = gdml.uncertainty(model, part, valid)
        unscaled = replace(found, force_scale=1.0)
        variances.append(np.mean(unscaled.predict(valid.positions)[1] ** 2))
        assert (found.pivots is None) == (len(part) == 4)
    monkeypatch.undo()
    every = replace(gdml.uncertainty(model, train, valid), force_scale=1.0)
    every = np.mean(every.predict(valid.positions)[1] ** 2)
    assert every < variances[0] < variances[1]


def test_standard_errors_cover_the_errors_and_vanish_at_training_frames(frames, group):
    model = gdml.train(frames[:12], sigma=SIGMA, kernel=gdml.Kernel(symmetries=group))
    errors = gdml.uncertainty(model, frames[:12], frames[12:18])
    coverage = errors.coverage(model, frames[18:])
    assert 0.4 < coverage["force_1"] < 0.95
    assert 0.8 < coverage["force_2"] <= 1.0
    known, new = (errors.predict(frames.positions[k])[1].mean() for k in (slice(12), slice(18, 24)))
    assert known < 0.05 * new
    slope = jax.grad(lambda R: errors(R)[1].sum())(jnp.asarray(frames.positions[20]))
    assert np.isfinite(slope).all()
    with pytest.raises(InputError, match="at least one validation frame"):
        gdml.uncertainty(model, frames[:12], frames[:0])
    with pytest.raises(InputError, match="2 kernels"):
        gdml.uncertainty(model + model, frames[:12], frames[12:])


def test_standard_errors_of_a_kernel_on_some_atoms(frames):
    atoms = [2, 8, 1, 0]
    model = gdml.train(frames[:12], sigma=SIGMA, kernel=gdml.Kernel(lam=1e-3, atoms=atoms))
    errors = gdml.uncertainty(model, frames[:12], frames[12:18])
    forces = np.asarray(errors(frames.positions[20])[1])
    assert (forces[atoms] > 0.0).all()
    assert (np.delete(forces, atoms, axis=0) == 0.0).all()


# -- unusual input -------------------------------------------------------------------------------


def test_single_precision_positions_give_double_precision_forces(frames, group):
    model = gdml.train(frames[:12], sigma=SIGMA, kernel=gdml.Kernel(symmetries=group))
    R = frames.positions[18:22].astype(np.float32)
    energies, forces = model.predict(R)
    wanted = model.predict(R.astype(float))
    assert forces.dtype == np.float64
    np.testing.assert_array_equal(energies, wanted[0])
    np.testing.assert_array_equal(forces, wanted[1])
    slope = jax.grad(model)(jnp.asarray(R[0]))
    np.testing.assert_allclose(-slope, forces[0], atol=1e-4)  # rounded to float32


def test_a_checkpoint_knows_the_lattice_the_functions_and_the_theory(tmp_path, frames):
    def described(power):
        def descriptor(R, lattice=None):
            return inverse_distances(R, lattice) ** power

        return descriptor

    few, folder = frames[:8], tmp_path / "state"
    options = {"sigma": SIGMA, "run": gdml.Run(checkpoint=folder)}
    plain = gdml.Kernel(symmetries=None)
    gdml.train(few, kernel=plain, **options)
    periodic = gdml.train(replace(few, lattice=9.0 * np.eye(3)), kernel=plain, **options)
    assert "lattice" in periodic.params["gdml"]
    theory = gdml.train(replace(few, theory="another"), kernel=plain, **options)
    assert theory.program.placed[0].term.theory == "another"
    with pytest.raises(InputError, match="cannot be imported by its name"):
        gdml.train(few, kernel=replace(plain, descriptor=described(2.0)), **options)


def test_a_training_out_of_iterations_continues_by_the_same_call(tmp_path, frames, group):
    options = {
        "sigma": SIGMA,
        "kernel": gdml.Kernel(symmetries=group),
        "solver": gdml.Solver("iterative", tolerance=1e-9, max_iterations=4),
        "run": gdml.Run(checkpoint=tmp_path / "state"),
    }
    for _ in range(40):
        try:
            model = gdml.train(frames[:12], **options)
        except gdml.NotConverged:
            continue
        break
    else:
        pytest.fail("the training did not continue")
    exact = gdml.train(
        frames[:12], sigma=SIGMA, kernel=gdml.Kernel(symmetries=group), solver=gdml.Solver("dense")
    )
    R = frames.positions[18:20]
    np.testing.assert_allclose(model.predict(R)[1], exact.predict(R)[1], atol=1e-5)


def test_a_checkpoint_folder_left_by_a_kill_is_taken_over(tmp_path, frames, group):
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / ".request.json.x1").write_text("{")
    gdml.train(
        frames[:8],
        sigma=SIGMA,
        kernel=gdml.Kernel(symmetries=group),
        run=gdml.Run(checkpoint=folder),
    )
    assert (folder / "request.json").is_file()
    with pytest.raises(InputError, match="is a file"):
        gdml.train(
            frames[:8],
            sigma=SIGMA,
            kernel=gdml.Kernel(symmetries=group),
            run=gdml.Run(checkpoint=folder / "request.json"),
        )


def near(R, lattice=None):
    """Inverse distances that fade out at 2.6 Å: many entries are zero, for these tests."""
    inverse = inverse_distances(R, lattice)
    return inverse * jnp.where(inverse > 1 / 2.6, (1.0 - 1.0 / (2.6 * inverse)) ** 3, 0.0)


def wrapped(R, lattice):
    """Inverse distances that cannot do without a lattice."""
    assert lattice is not None
    return inverse_distances(R, lattice) * 1.0


def test_descriptors_with_a_cutoff_or_a_lattice_train(frames, group):
    few = frames[:10]
    close = gdml.train(
        few, sigma=3.0, kernel=gdml.Kernel(lam=1e-8, symmetries=group, descriptor=near)
    )
    R = few.positions[0]
    assert float(close(R)) == pytest.approx(float(close(R[group[-1]])), abs=1e-9)
    cell = replace(few, lattice=12.0 * np.eye(3))
    own = gdml.train(cell, sigma=SIGMA, kernel=gdml.Kernel(symmetries=group, descriptor=wrapped))
    plain = gdml.train(cell, sigma=SIGMA, kernel=gdml.Kernel(symmetries=group))
    np.testing.assert_allclose(own.predict(R[None])[1], plain.predict(R[None])[1], atol=1e-6)


def test_planar_frames_have_standard_errors():
    from ase.build import molecule as build

    rng = np.random.default_rng(5)
    water = build("H2O").positions[:, [1, 2, 0]]
    R = water + 0.05 * rng.normal(size=(20, 3, 3)) * [1.0, 1.0, 0.0]
    d = np.linalg.norm(R[:, 1:] - R[:, :1], axis=-1)
    unit = (R[:, 1:] - R[:, :1]) / d[..., None]
    pull = -800.0 * (d - 0.97)[..., None] * unit
    forces = np.concatenate([-pull.sum(axis=1, keepdims=True), pull], axis=1)
    data = Dataset([8, 1, 1], R, forces, 400.0 * ((d - 0.97) ** 2).sum(axis=1), name="water")
    model = gdml.train(data[:12], sigma=10.0, kernel=gdml.Kernel(symmetries=None))
    errors = gdml.uncertainty(model, data[:12], data[12:])
    assert np.isfinite(errors.predict(data.positions)[1]).all()
    assert errors.coverage(model, data[12:])["force_2"] > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": gdml.Kernel(adapt_baseline=True)}, "needs a baseline"),
        ({"baseline": "gaff"}, "must be a jaxff.Potential"),
        ({"sigma": "wide"}, "sigma is .*, but must be one or several finite numbers"),
        ({"n_train": 4.0}, "whole number"),
    ],
)
def test_options_that_make_no_sense_are_named(frames, options, message):
    with pytest.raises(InputError, match=message):
        gdml.train(frames[:8], **{"sigma": SIGMA, **options})


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        (gdml.Solver, {"tolerance": 0.0}, "tolerance"),
        (gdml.Solver, {"max_iterations": -1}, "max_iterations"),
        (gdml.Run, {"memory": float("nan")}, "memory"),
        (
            gdml.Kernel,
            {"lam": None},
            "lam is .*, but must be one or several finite numbers",
        ),
        (gdml.Kernel, {"symmetries": "all"}, "auto"),
        (gdml.Kernel, {"energies": "both"}, "one of offset, constrain, None"),
        (gdml.Kernel, {"descriptor": "distances"}, "must be a function"),
        (gdml.Kernel, {"adapt_baseline": True, "atoms": [0, 1]}, "leave out atoms="),
    ],
)
def test_settings_check_themselves(settings, options, message):
    with pytest.raises(InputError, match=message):
        settings(**options)


def test_kernels_are_described_alike_in_every_process():
    kernel = gdml.Kernel(descriptor=gdml.light_hydrogens([6, 1], 0.5), atoms=[0, 1])
    expected = (
        "Kernel(lam=1e-10, symmetries='auto', "
        "descriptor='weighted_inverse_distances(weights=(1.0, 0.5))', learn_metric=False, "
        "energies='offset', "
        "atoms=[0, 1], adapt_baseline=False, fragments=None)"
    )
    assert repr(kernel) == expected


def test_no_validation_frames_and_no_lattice_are_named(frames):
    with pytest.raises(InputError, match="no validation frames"):
        gdml.train(frames[:8], frames[:0], sigma=[5.0, 10.0], kernel=gdml.Kernel(symmetries=None))
    with pytest.raises(InputError, match="lattice"):
        replace(frames, lattice=np.zeros((3, 3)))


def test_a_width_of_no_use_is_said(frames):
    with pytest.warns(UserWarning, match="more than 90"):
        gdml.train(frames[:8], sigma=1e200, kernel=gdml.Kernel(symmetries=None))


def test_a_descriptor_with_light_hydrogens_is_saved_with_its_weights(tmp_path, frames, group):
    light = gdml.light_hydrogens(frames.numbers, 0.5)
    heavy = [k for k, z in enumerate(frames.numbers) if z > 1]
    pair = gdml.light_hydrogens(frames.numbers[heavy], 0.5)
    R = jnp.asarray(frames.positions[0])
    np.testing.assert_allclose(
        pair(R[jnp.asarray(heavy)]), inverse_distances(R[jnp.asarray(heavy)])
    )
    model = gdml.train(
        frames[:12], sigma=SIGMA, kernel=gdml.Kernel(symmetries=group, descriptor=light)
    )
    save(tmp_path / "m.npz", model)
    again = load(tmp_path / "m.npz")
    wanted = model.predict(frames.positions[18:20])[1]
    np.testing.assert_allclose(again.predict(frames.positions[18:20])[1], wanted, atol=1e-12)
    with pytest.raises(InputError, match="not a single sGDML model"):
        gdml.save(tmp_path / "s.npz", model)
