"""How fits go about it: several molecules, checkpoints, restarts, targets, known parameters."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import jaxff
from jaxff import Dataset, InputError, evaluate, fit
from jaxff.dataset import packaged_dataset
from jaxff.learn import Dipole, Gradient, Hessian, LeastSquares, TorsionScan, aligned
from jaxff.learn.joint import Joint
from jaxff.learn.problem import Problem

FORMS = {
    "gaff": {},
    "morse": {"form": "morse"},
    "class2": {"form": "class2", "fourier_terms": 0},
    "neural": {"form": "nn"},
}


@pytest.fixture(scope="module")
def molecules():
    """Frames of three molecules of two sizes."""
    return [packaged_dataset(n)[:12] for n in ("ethanol", "keto_malondialdehyde", "aspirin")]


def random_moves(problem, size, seed=0):
    noise = size * np.random.default_rng(seed).normal(size=problem.start.shape)
    confined = problem.free.confined(problem.unravel(jnp.asarray(noise)))
    return np.asarray(ravel_pytree(confined)[0])


@pytest.mark.parametrize(
    "form", [pytest.param(f, marks=[pytest.mark.slow] * (f != "gaff")) for f in FORMS]
)
def test_molecules_on_one_table_have_the_energies_of_their_own(molecules, form):
    if form != "gaff":
        molecules = molecules[:2]
    potentials = [jaxff.gaff(d.molecule, charges="gasteiger", **FORMS[form]) for d in molecules]
    data = [aligned(d, p) for d, p in zip(molecules, potentials, strict=True)]
    problem = Problem(Joint.of(potentials), data)
    moves = random_moves(problem, 0.1)
    alone = problem.joint.potentials(problem.free.params(problem.unravel(moves)))
    for k, (potential, own) in enumerate(zip(alone, data, strict=True)):
        energies, forces = potential.predict(own.positions)
        filled = problem.predict(moves, k, own)
        np.testing.assert_allclose(filled[0], energies, atol=1e-9)
        np.testing.assert_allclose(filled[1], forces, atol=1e-9)
    # The gradient of the objective, from the Jacobians of filled-up molecules.
    _, b = problem.normal_equations(moves, 0.1)
    noise = problem.unravel(np.random.default_rng(1).normal(size=len(moves)))
    noise["nonbonded", "epsilon"] *= 0.0  # some stand at their bound
    direction, step = np.asarray(ravel_pytree(noise)[0]), 1e-5
    ahead, behind = (problem.objective(moves + s * direction, 0.1) for s in (step, -step))
    assert 2.0 * b @ direction == pytest.approx((ahead - behind) / (2 * step), rel=1e-5)
    # One compiled function for each size, however many molecules.
    assert len(problem.groups) == len(molecules) - 1
    assert {f._cache_size() for f in (*problem._normal, *problem._predict)} == {1}


def test_one_fit_gives_one_table(molecules):
    molecules = molecules[:2]
    potentials = [jaxff.gaff(d.molecule, charges="gasteiger") for d in molecules]
    found = fit(potentials, molecules, valid=molecules, method=LeastSquares(steps=6))
    shared = {}
    for potential, start, own in zip(found.potentials, potentials, molecules, strict=True):
        better = evaluate(potential, own)["force_rmse"]
        assert better < 0.8 * evaluate(start, own)["force_rmse"]
        term = potential.program.placed[0].term
        for label, k in zip(term.labels, np.asarray(potential.params["bond"]["k"]), strict=True):
            assert shared.setdefault(label, k) == k
    # Each keeps its own charges, and their sum.
    for potential, start in zip(found.potentials, potentials, strict=True):
        rows = start.program.placed[-1].term.charge_rows
        totals = [
            np.asarray(p.params["nonbonded"]["charge"])[rows].sum() for p in (potential, start)
        ]
        assert totals[0] == pytest.approx(totals[1], abs=1e-12)
    assert len(found.history["valid_force_rmse"]) == len(found.history["loss"])
    with pytest.raises(InputError, match="2 potentials"):
        _ = found.potential
    # The gradient method takes the same molecules.
    slow = fit(potentials, molecules, method=Gradient(epochs=3, batch=6))
    assert slow.history["loss"][-1] < slow.history["loss"][0]
    assert slow.potentials[0].params["bond"]["k"].shape == potentials[0].params["bond"]["k"].shape


def test_what_cannot_share_a_table_is_refused(molecules):
    ethanol, keto, _ = molecules
    one, two = (jaxff.gaff(d.molecule, charges="gasteiger") for d in (ethanol, keto))
    with pytest.raises(InputError, match="no common table"):
        fit(
            [one, jaxff.gaff(keto.molecule, charges="gasteiger", form="class2", fourier_terms=0)],
            [ethanol, keto],
        )
    bond = {**two.params["bond"], "k": two.params["bond"]["k"] * 1.1}
    with pytest.raises(InputError, match=r"different values for bond .*-.*same force field"):
        fit([one, two.replace({**two.params, "bond": bond})], [ethanol, keto])
    with pytest.raises(InputError, match="cannot be shared"):
        fit([2.0 * one, 2.0 * two], [ethanol, keto])
    with pytest.raises(InputError, match="2 potentials, 1 training and 1 validation sets"):
        fit([one, two], ethanol)
    with pytest.raises(InputError, match="no frames to validate"):
        fit(one, ethanol, valid=ethanol[:0])


@pytest.fixture
def water(springs):
    """A start and frames of water on springs."""
    molecule = jaxff.Molecule.from_smiles("O").reorder([1, 0, 2])
    truth = springs(3, k=900.0, length=0.96, molecule=molecule)
    R = molecule.positions + 0.08 * np.random.default_rng(0).normal(size=(30, 3, 3))
    energies, forces = truth.predict(R)
    start = springs(3, k=600.0, length=1.15, molecule=molecule)
    return start, Dataset(molecule.numbers, R, forces, energies)


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "method",
    [Gradient(epochs=6, batch=4), LeastSquares(steps=6)],
    ids=["gradient", "least-squares"],
)
def test_a_killed_fit_goes_on_to_the_same_result(tmp_path, water, method):
    start, data = water

    def run(path, progress=None, method=method, **options):
        options = {"valid": data[20:], "checkpoint": path, "progress": progress} | options
        return fit(start, data[:20], method=method, **options)

    def killed(phase, fraction, calls=[]):  # noqa: B006
        calls.append(fraction)
        if len(calls) == 4:
            raise Killed

    whole = run(None)
    path = tmp_path / "fit.ckpt"
    with pytest.raises(Killed):
        run(path, killed)
    again = run(path)
    jax.tree.map(np.testing.assert_array_equal, again.potential.params, whole.potential.params)
    for key, values in whole.history.items():
        np.testing.assert_array_equal(again.history[key], values)
    with pytest.raises(InputError, match=r"method\.energy_weight 0\.1 → 0\.2\)"):
        run(path, method=replace(method, energy_weight=0.2))
    with pytest.raises(InputError, match=r"another fit with other settings \(trainable null → "):
        run(path, trainable=["spring.k"])
    with pytest.raises(InputError, match=r"another fit with other settings \(valid\)"):
        run(path, valid=data[21:])
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="not a readable state of a fit"):
        run(path)


def test_descent_returns_to_the_best_and_stops(water):
    start, data = water
    # Softer than the training frames: on the way from the start the error falls, then rises.
    valid = Dataset(data.numbers, data.positions[20:], 0.8 * data.forces[20:])
    method = Gradient(optimizer=optax.adam(0.05), epochs=400, batch=4, patience=3, restarts=1)
    found = fit(start, data[:20], valid=valid, method=method)
    errors = found.history["valid_force_rmse"]
    assert len(errors) < 400
    assert found.converged
    best = evaluate(found.potential, valid)["force_rmse"]
    assert best == pytest.approx(errors.min(), abs=1e-9)


def test_known_parameters_come_back_where_data_tell_them():
    data = packaged_dataset("ethanol")[:60]
    start = jaxff.gaff(data.molecule, charges="gasteiger")
    data = aligned(data, start)
    problem = Problem(Joint.of([start]), [data])
    truth = random_moves(problem, 0.3, seed=5)
    energies, forces = problem.free.moved(problem.unravel(truth)).predict(data.positions)
    made = Dataset(data.numbers, data.positions, forces, energies)
    found = fit(start, made, method=LeastSquares(prior=1e-9))
    assert evaluate(found.potential, made)["force_rmse"] < 1e-3
    # Directions that the data tell, by the curvature of the objective at the truth.
    A, _ = Problem(Joint.of([start]), [made]).normal_equations(truth, 0.1)
    size, directions = np.linalg.eigh(A)
    told = directions[:, size > 1e-5 * size.max()]
    assert told.shape[1] > 0.7 * len(truth)
    moves = np.array([(c.fitted - c.start) / scale for c, scale in scaled(found, start)])
    assert np.abs(told.T @ (moves - truth)).max() < 0.02


def scaled(found, potential):
    for change in found.changes:
        term, column = change.name.split(".")
        yield change, potential.columns[term][column].scale


def test_targets_are_aimed_at(molecules):
    data = molecules[0]
    start = jaxff.gaff(data.molecule, charges="gasteiger")
    data = aligned(data, start)
    R = data.positions
    own = start.params
    other = start.replace(
        {
            **own,
            "bond": {**own["bond"], "k": own["bond"]["k"] * 1.3},
            "torsion": {**own["torsion"], "k": own["torsion"]["k"] + 0.5},
        }
    )
    energies, forces = start.predict(R)
    same = Dataset(data.numbers, R, forces, energies)
    hessian = jax.jit(jax.hessian(other.energy_fn, argnums=1))(other.params, jnp.asarray(R[0]))
    scan = TorsionScan(R, other.predict(R)[0], weight=0.1)
    charge = np.asarray(own["nonbonded"]["charge"])[start.program.placed[-1].term.charge_rows]
    dipole = Dipole(R, 1.2 * np.einsum("i,mix->mx", charge, R))
    targets = [Hessian(R[0], hessian, weight=0.1), scan, dipole]
    for method, aims in (
        (LeastSquares(steps=6), targets),
        (Gradient(epochs=20), [scan, dipole]),
    ):
        # The frames alone are met by the start already.
        aimed = fit(start, same, method=method, targets=aims).potential

        @jax.jit
        def wrong(params, aims=aims):
            return jnp.stack([(t.residuals(start.program, params) ** 2).sum() for t in aims])

        assert (wrong(aimed.params) < 0.9 * wrong(start.params)).all()
    with pytest.raises(InputError, match="atoms"):
        fit(start, same, targets=[Hessian(R[0][:3], np.eye(9) * 300.0)])


def test_a_fit_may_start_at_its_minimum(water):
    _, data = water
    start = jaxff.gaff(data.molecule, charges="gasteiger")
    energies, forces = start.predict(data.positions)
    same = Dataset(data.numbers, data.positions, forces, energies)
    for trainable in (None, ["nonbonded.*"], ["nonbonded.charge"], "bond.*"):
        found = fit(start, same, trainable=trainable, method=LeastSquares(prior=0.0))
        assert found.converged
        assert "nonbonded.coulomb_constant" not in found.trained
        assert evaluate(found.potential, same)["force_rmse"] < 1e-2
    named = ["nonbonded.coulomb_constant"]
    found = fit(start, same, trainable=named, method=LeastSquares(steps=1))
    assert found.trained == tuple(named)


def test_forces_alone_are_fitted_as_such(water):
    start, data = water
    forces = Dataset(data.numbers, data.positions, data.forces)
    for method in (Gradient(epochs=2), LeastSquares(steps=2)):
        losses = [
            fit(start, forces, method=replace(method, energy_weight=w)).history["loss"]
            for w in (0.0, 100.0)
        ]
        np.testing.assert_array_equal(*losses)


def test_any_loss_sees_the_real_atoms_alone(molecules):
    data = [molecules[0][:4], molecules[1][:4]]
    starts = [jaxff.gaff(d.molecule, charges="gasteiger") for d in data]

    def mean_error(predicted, reference):
        return jnp.abs(predicted.forces - reference.forces).mean()

    method = Gradient(loss=mean_error, optimizer=optax.sgd(0.0), epochs=1, batch=4)
    joint = fit(starts, data, method=method)
    maes = [evaluate(s, d)["force_mae"] for s, d in zip(starts, data, strict=True)]
    assert joint.history["loss"][0] == pytest.approx(np.mean(maes), rel=1e-5)


def test_checkpoints_know_their_targets(tmp_path, molecules):
    data = molecules[0]
    start = jaxff.gaff(data.molecule, charges="gasteiger")
    R = aligned(data, start).positions
    path = tmp_path / "fit.ckpt"
    aims = [TorsionScan(R, np.arange(12.0)), TorsionScan(R, np.ones(12))]
    options = {"method": LeastSquares(steps=1), "checkpoint": path}
    fit(start, data, targets=aims[0], **options)
    with pytest.raises(InputError, match=r"belongs to another fit with other settings \(targets\)"):
        fit(start, data, targets=aims[1], **options)


@pytest.mark.parametrize("frames", ["data.npz", 3, np.zeros((2, 3, 3)), {}, ["data.npz"]])
def test_only_data_sets_are_taken_for_them(water, frames):
    start, data = water
    kind = type(frames[0] if isinstance(frames, list) else frames).__name__
    with pytest.raises(InputError, match=rf"train must be a jaxff\.Dataset, got {kind}"):
        fit(start, frames)
    with pytest.raises(InputError, match=rf"valid must be a jaxff\.Dataset, got {kind}"):
        fit(start, data, valid=frames)
    with pytest.raises(InputError, match=r"potential must be a jaxff\.Potential, got str"):
        fit("gaff.npz", data)
    if not isinstance(frames, list):
        with pytest.raises(InputError, match=rf"dataset must be a jaxff\.Dataset, got {kind}"):
            evaluate(start, frames)


def test_bad_options_are_one_sentence(tmp_path, water):
    start, data = water
    for kind, name, value, message in (
        (Gradient, "batch", 0, "batch is 0, but must be a whole number of at least 1"),
        (Gradient, "epochs", 2.5, "epochs is 2.5, but must be a whole number of at least 1"),
        (Gradient, "patience", 0, "patience is 0, but must be a whole number of at least 1"),
        (Gradient, "restarts", -1, "restarts is -1, but must be a whole number of at least 0"),
        (Gradient, "seed", -1, "seed is -1, but must be a whole number from 0"),
        (LeastSquares, "steps", 0, "steps is 0, but must be a whole number of at least 1"),
        (
            LeastSquares,
            "energy_weight",
            float("nan"),
            "energy_weight is nan 1/Å², but must be a finite number",
        ),
        (LeastSquares, "prior", -1.0, "prior is -1.0, but must be a finite number of at least 0"),
        (LeastSquares, "tolerance", np.inf, "tolerance is inf"),
    ):
        with pytest.raises(InputError, match=message):
            kind(**{name: value})
    for options, message in (
        ({"method": "newton"}, r"method='newton' must be LeastSquares\(\) or Gradient\(\)"),
        ({"trainable": ["torsion.*"]}, "no parameter matches"),
        ({"checkpoint": tmp_path}, "is a folder"),
        ({"checkpoint": tmp_path / "no" / "fit.ckpt"}, "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            fit(start, data, **options)
    with pytest.raises(InputError, match="lists of targets, one for each molecule"):
        fit([start, start], [data, data], targets=[[]])


@pytest.mark.slow
def test_standard_errors_are_those_of_repeated_samples():
    """Against the spread of fits to many samples of frames."""
    data = packaged_dataset("ethanol")
    start = jaxff.gaff(data.molecule, charges="gasteiger")
    order = np.random.default_rng(0).permutation(len(data))[:480]
    fits = [fit(start, data[own], trainable=["bond.*", "angle.k"]) for own in order.reshape(8, 60)]
    values = np.array([[c.fitted for c in found.changes] for found in fits])
    errors = np.array([[c.error for c in found.changes] for found in fits]).mean(axis=0)
    ratios = values.std(axis=0, ddof=1) / errors
    assert 0.6 < np.median(ratios) < 1.6
    assert (ratios > 0.2).all()
    assert (ratios < 3.0).all()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["gaff", "morse"])
def test_the_end_hardly_depends_on_the_start(form):
    """Least squares end at the same error from starts far off: that of the functional form."""
    split = packaged_dataset("ethanol").split(200, 10, 300, seed=0)
    start = jaxff.gaff(split.train.molecule, charges="gasteiger", **FORMS[form])
    rng = np.random.default_rng(0)

    def moved(name, column, value):
        if not column.trainable or name == "charge":
            return value
        if name in ("epsilon", "sigma"):
            low, high = {"epsilon": (1e-3, 0.3), "sigma": (0.5, 3.5)}[name]
            return np.exp(rng.uniform(np.log(low), np.log(high), value.shape))
        step = 3.0 * column.scale * rng.standard_normal(value.shape)
        return np.clip(value + step, column.lower, column.upper)

    errors = []
    for number in range(4):
        params = jax.tree.map(np.array, start.params)
        for term, columns in start.columns.items() if number else ():
            for name, column in columns.items():
                params[term][name] = moved(name, column, params[term][name])
        method = LeastSquares(check_labels=False)
        found = fit(start.replace(params), split.train, method=method)
        assert found.converged
        errors.append(
            [evaluate(found.potential, x)["force_rmse"] for x in (split.train, split.test)]
        )
    assert np.ptp(errors, axis=0).max() < 0.01 * np.mean(errors)
