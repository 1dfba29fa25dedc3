"""Corrections on some atoms, near some structures: what they learn, where they end."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxff
from jaxff import gdml
from jaxff.cli import main
from jaxff.dataset import Dataset, packaged_dataset
from jaxff.errors import InputError
from jaxff.gdml.frames import group_on
from jaxff.gdml.local import LocalKernelTerm
from jaxff.gdml.symmetry import restricted_to
from jaxff.potential import Column, Potential, Term

DEPTH = 6.0  # kcal/mol
OXYGEN, METHYL = 2, 0  # ends of the well
ATOMS = [8, 2, 1, 0]


@dataclass(frozen=True, eq=False)
class Well(Term):
    """E = −depth exp(−(r − length)²/2·width²) of one distance."""

    n_atoms: int
    kind = "toy well"
    columns = {"depth": Column("kcal/mol")}  # noqa: RUF012

    def energies(self, params, R, space):
        r = jnp.linalg.norm(R[OXYGEN] - R[METHYL])
        return {"well": -params["depth"] * jnp.exp(-((r - 2.4) ** 2) / (2 * 0.5**2))}


def labelled(potential, positions, numbers) -> Dataset:
    energies, forces = potential.predict(positions)
    return Dataset(numbers, positions, forces, energies, name="toy")


@pytest.fixture(scope="module")
def toy(frames, springs):
    """Ethanol of springs, the reference with a well besides, frames in the well and far from it."""
    R = frames.positions[0]
    baseline = springs(9)
    lengths = np.linalg.norm(np.diff(R, axis=0), axis=1)
    baseline = baseline.replace({"spring": {**baseline.params["spring"], "length": lengths}})
    reference = baseline + Potential.of("well", Well(9), {"depth": DEPTH})
    rng = np.random.default_rng(5)
    axis = (R[OXYGEN] - R[METHYL]) / np.linalg.norm(R[OXYGEN] - R[METHYL])

    def around(length, count):
        moved = R.copy()
        moved[[OXYGEN, 8]] += (length - np.linalg.norm(R[OXYGEN] - R[METHYL])) * axis
        return moved + rng.uniform(-0.1, 0.1, size=(count, 9, 3))

    near, far = around(2.4, 140), around(4.5, 40)
    return baseline, reference, near, far


@pytest.fixture(scope="module")
def parts(toy, frames):
    """(training frames, new frames, frames far away), labelled by the reference."""
    _, reference, near, far = toy
    return [labelled(reference, R, frames.numbers) for R in (near[:100], near[100:], far)]


@pytest.fixture(scope="module")
def correction(toy, parts):
    train, _, far = parts
    return gdml.train_correction(
        train,
        toy[0],
        ATOMS,
        background=far,
        sigma=1.0,
        kernel=gdml.LocalKernel(lam=1e-6, symmetries=None),
    )


def path(toy, n: int = 300) -> np.ndarray:
    """Geometries from the well to where it has ended."""
    return toy[2][0] + np.linspace(0.0, 1.0, n)[:, None, None] * (toy[3][0] - toy[2][0])


def test_the_sum_has_the_references_energies_and_forces(toy, parts, correction):
    baseline, _, _, _ = toy
    hybrid = baseline + correction.on(ATOMS)
    _, near, far = parts
    E, F = hybrid.predict(near.positions)
    E0, F0 = baseline.predict(near.positions)
    assert np.abs(E - near.energies).mean() < 0.1 * np.abs(E0 - near.energies).mean()
    assert np.abs(F - near.forces).mean() < 0.6 * np.abs(F0 - near.forces).mean()
    E, F = correction.predict(far.positions[:, ATOMS])
    assert (E == 0.0).all()
    assert (F == 0.0).all()
    assert (np.asarray(correction.on(ATOMS).forces(toy[2][0]))[[3, 4, 5, 6, 7]] == 0.0).all()


def test_it_ends_where_it_says_without_a_bump(toy, correction):
    R = path(toy)[:, ATOMS]
    own = correction.params[LocalKernelTerm.kind]
    x = np.asarray(jax.vmap(gdml.inverse_distances)(R))
    apart = x[:, None] - np.asarray(own["descriptors"] + own["centre"])
    squares = np.sum(apart**2, axis=2)
    tau = float(own["softness"])
    limit = float(own["outer"]) + tau * np.log(squares.shape[1])
    E, F = correction.predict(R)
    beyond = squares.min(axis=1) > limit
    assert beyond[-1]
    assert not beyond[0]
    assert (E[beyond] == 0.0).all()
    assert (F[beyond] == 0.0).all()
    assert E.min() > -1.1 * DEPTH
    assert E.max() < 0.5 * DEPTH
    # Until the switch leaves one, the energy is that of the kernel.
    q = -tau * np.log(np.exp(-squares / tau).sum(axis=1))
    inside = q < float(own["inner"])
    term = correction.program.placed[0].term
    plain = {k: v for k, v in own.items() if k not in ("inner", "outer", "softness")}
    kernel = Potential.of("gdml", gdml.KernelTerm(4, term.permutations), plain)
    np.testing.assert_allclose(E[inside], kernel.predict(R[inside])[0], atol=1e-9)
    assert inside[0]
    assert (~inside & ~beyond).sum() > 10


def test_forces_and_hessian_are_derivatives_across_the_switch(toy, correction):
    R = path(toy)[:, ATOMS]
    own = np.abs(correction.predict(R)[0])
    step = np.random.default_rng(1).normal(size=(4, 3))
    h = 1e-5
    for frame in R[(own > 0.0)][::40]:
        up, down = (correction.energy_and_forces(frame + s * h * step) for s in (1, -1))
        force = np.asarray(correction.forces(frame))
        slope = -np.sum(force * step)
        np.testing.assert_allclose((up[0] - down[0]) / (2 * h), slope, atol=1e-5)
        along = jax.jvp(correction.forces, (jnp.asarray(frame),), (jnp.asarray(step),))[1]
        np.testing.assert_allclose((up[1] - down[1]) / (2 * h), along, atol=1e-3, rtol=1e-5)
        np.testing.assert_allclose(force.sum(axis=0), 0.0, atol=1e-9)
        np.testing.assert_allclose(np.cross(frame, force).sum(axis=0), 0.0, atol=1e-9)


def test_it_is_finite_anywhere(toy, correction):
    R = toy[2][0][ATOMS]
    for scale in (1e-2, 0.1, 10.0, 1e4):
        energy, forces = correction.energy_and_forces(scale * R)
        assert energy == 0.0
        assert (forces == 0.0).all()


def test_files_batches_and_precision(toy, correction, tmp_path):
    hybrid = toy[0] + correction.on(ATOMS)
    for name, potential, R in (
        ("c", correction, toy[2][0][ATOMS]),
        ("h", correction.on(ATOMS), toy[2][0]),
    ):
        jaxff.save(tmp_path / f"{name}.npz", potential)
        again = jaxff.load(tmp_path / f"{name}.npz")
        np.testing.assert_array_equal(again.forces(R), potential.forces(R))
    batch = jax.jit(jax.vmap(hybrid))(toy[2][:5])
    np.testing.assert_allclose(batch, [hybrid(R) for R in toy[2][:5]], rtol=1e-9)
    single = correction.astype("float32")(toy[2][0][ATOMS].astype("float32"))
    np.testing.assert_allclose(single, correction(toy[2][0][ATOMS]), atol=1e-4)
    with pytest.raises(InputError, match="not a single sGDML model"):
        gdml.save(tmp_path / "plain.npz", correction)
    with pytest.raises(InputError, match="0 kernels"):
        gdml.uncertainty(hybrid, None, None)


def test_dynamics_through_the_rim_conserve_energy(toy, correction, frames):
    hybrid = toy[0] + correction.on(ATOMS)
    run = jaxff.md.simulate(
        hybrid,
        jaxff.Molecule(frames.numbers, toy[2][0], []),
        jaxff.md.NVE(temperature=900.0, dt=0.2),
        steps=4000,
        start=jaxff.md.Start(seed=3),
        output=jaxff.md.Output(every=20),
    )
    total = run.potential_energies + run.kinetic_energies
    felt = np.abs(correction.predict(np.asarray(run.positions)[..., ATOMS, :])[0])
    assert felt.max() > 0.5 * DEPTH
    assert felt.min() == 0.0
    assert np.abs(total - total[0]).max() < 0.1


def test_only_symmetries_of_the_molecule_that_keep_the_atoms(frames, group):
    inner = restricted_to(group, [3, 4, 5, 0])
    brute = {
        tuple([3, 4, 5, 0].index(a) for a in p[[3, 4, 5, 0]])
        for p in group
        if set(p[[3, 4, 5, 0]]) == {3, 4, 5, 0}
    }
    assert set(map(tuple, inner)) == brute
    assert len(inner) == 6
    # Hydrogen on carbon twice: alike as a fragment, not in ethanol.
    np.testing.assert_array_equal(group_on(frames, (0, 1, 3, 6), "auto", 0), [[0, 1, 2, 3]])


def test_equivalent_atoms_are_alike(toy, parts, group):
    atoms = [0, 1, 2, 3, 4, 5]
    inner = restricted_to(group, atoms)
    assert len(inner) == 6
    model = gdml.train_correction(
        parts[0][:20],
        toy[0],
        atoms,
        background=parts[2],
        sigma=1.0,
        kernel=gdml.LocalKernel(lam=1e-4, symmetries=inner),
    )
    rim = [R for R in path(toy)[:, atoms] if abs(float(model(R))) > 0.0][-20]
    for R in (toy[2][0][atoms], rim):
        for p in inner:
            np.testing.assert_allclose(model(R[p]), model(R), rtol=1e-10)
    wrong = model(R[[0, 2, 1, 3, 4, 5]])
    assert abs(float(wrong - model(R))) > 1e-6


def test_nearest_frames_are_those_of_a_brute_force_search(frames, group):
    atoms = [3, 4, 5, 0, 1, 2]
    inner = restricted_to(group, atoms)

    def apart(a, b):
        i, j = np.tril_indices(len(atoms), -1)
        x, y = (1.0 / np.linalg.norm(R[i] - R[j], axis=1) for R in (a, b))
        return np.linalg.norm(x - y)

    wanted = frames.positions[[4, 9]]
    distance = [
        min(apart(R[atoms], S[atoms][p]) for S in wanted for p in inner) for R in frames.positions
    ]
    found = gdml.nearest_frames(frames, wanted, 10, atoms=atoms, symmetries=inner)
    np.testing.assert_array_equal(found, np.argsort(distance)[:10])
    assert set(found[:2].tolist()) == {4, 9}


def test_the_regularisation_is_chosen_on_frames_not_trained_on(toy, parts):
    trials = []
    model = gdml.train_correction(
        parts[0],
        toy[0],
        ATOMS,
        background=parts[2],
        kernel=gdml.LocalKernel(lam=(1e-6, 1e3), symmetries=None),
        run=gdml.Run(on_trial=trials.append),
    )
    assert [t.lam for t in trials] == [1e-6, 1e3]
    assert trials[0].valid_rmse < trials[1].valid_rmse
    assert trials[0].n_train == 80
    assert float(model.params[LocalKernelTerm.kind]["lam"]) == 1e-6


def test_an_interrupted_correction_continues_from_its_checkpoint(toy, parts, tmp_path):
    class Stop(BaseException):
        pass

    def stopped(phase, fraction):
        if phase == "factorising":
            calls.append(fraction)
            if len(calls) == 3:
                raise Stop

    calls: list[float] = []
    kernel = gdml.LocalKernel(lam=(1e-6, 1e-4), symmetries=None)
    arguments = (parts[0][:20], toy[0], ATOMS, parts[1][:5])
    plain = gdml.train_correction(*arguments, kernel=kernel)
    run = gdml.Run(checkpoint=tmp_path / "state", progress=stopped)
    with pytest.raises(Stop):
        gdml.train_correction(*arguments, kernel=kernel, run=run)
    assert len(list((tmp_path / "state").glob("*.json"))) == 2  # the request and one model
    again = gdml.train_correction(*arguments, kernel=kernel, run=run)
    for key, value in plain.params[LocalKernelTerm.kind].items():
        np.testing.assert_array_equal(again.params[LocalKernelTerm.kind][key], value)


def test_without_a_background_its_mean_is_zero_over_its_data(toy, parts):
    model = gdml.train_correction(
        parts[0], toy[0], ATOMS, sigma=1.0, kernel=gdml.LocalKernel(lam=1e-4, symmetries=None)
    )
    E = model.predict(parts[0].positions[:, ATOMS])[0]
    assert abs(E.mean()) < 0.05 * E.std()


def test_aspirin_gaff_near_the_n_to_pi_star_contact():
    data = packaged_dataset("aspirin")
    atoms = [1, 2, 3, 4, 9, 10, 11, 12]  # ester, acid, and the ring carbons they sit on
    contact = np.linalg.norm(data.positions[:, 2] - data.positions[:, 10], axis=1)
    near = np.random.default_rng(0).permutation(np.flatnonzero(contact < 2.9))
    far = data[contact > 3.6]
    gaff = jaxff.gaff(data.molecule)
    correction = gdml.train_correction(
        data[near[:50]],
        gaff,
        atoms,
        background=far,
        kernel=gdml.LocalKernel(lam=1e-3, symmetries=None),
    )
    mended = gaff + correction.on(atoms)
    test = data[near[50:130]]
    errors = {}
    for name, potential in (("gaff", gaff), ("mended", mended)):
        zero = (far.energies - potential.predict(far.positions)[0]).mean()
        E, F = potential.predict(test.positions)
        wrong = (F - test.forces)[:, atoms]
        errors[name] = np.sqrt([np.mean(wrong**2), np.mean((E + zero - test.energies) ** 2)])
    assert (errors["mended"] < [0.6 * errors["gaff"][0], 0.6 * errors["gaff"][1]]).all()
    apart = data[contact > 4.8]
    felt = np.abs(correction.predict(apart.positions[:, atoms])[1]).max(axis=(1, 2)) > 0.0
    assert felt.mean() < 0.05


def test_bad_input_is_named(toy, parts, frames):
    train, new, far = parts
    blind = Dataset(train.numbers, train.positions, train.forces)
    good = {"background": far, "kernel": gdml.LocalKernel(lam=1e-4)}
    for arguments, message in (
        ((train, toy[0], [0, 1]), "3 or more distinct atoms"),
        ((train, None, ATOMS), "must be a jaxff.Potential"),
        ((blind, toy[0], ATOMS), "correction needs them"),
    ):
        with pytest.raises(InputError, match=message):
            gdml.train_correction(*arguments, **good)
    for wrong, message in (
        ({"sigma": None}, "sigma is None, but must be"),
        ({"background": new[:0]}, "at least one frame"),
        ({"background": packaged_dataset("keto_malondialdehyde")[:3]}, "differ from those of toy"),
    ):
        with pytest.raises(InputError, match=message):
            gdml.train_correction(train, toy[0], ATOMS, **(good | wrong))
    for wrong, message in (
        ({"reach": 1.0}, "reach is 1.0, but must be"),
        ({"lam": 0.0}, "lam is 0.0, but must be"),
        ({"symmetries": "all"}, "auto"),
    ):
        with pytest.raises(InputError, match=message):
            gdml.LocalKernel(**wrong)
    with pytest.raises(InputError, match=r"got \(1, 4, 3\)"):
        gdml.nearest_frames(frames, frames.positions[:1, :4], 3)
    with pytest.raises(InputError, match="count=25 must be from 1 to 24"):
        gdml.nearest_frames(frames, frames.positions[0], 25)


def test_command(frames, tmp_path, capsys):
    gaff = jaxff.gaff(frames.molecule)
    jaxff.save(tmp_path / "gaff.npz", gaff)
    frames.save(tmp_path / "frames.npz")
    frames.molecule.to_ase().write(tmp_path / "start.xyz")
    base = ["train", str(tmp_path / "frames.npz"), "-n", "8", "--valid", "3", "--test", "3"]
    base += ["--baseline", str(tmp_path / "gaff.npz"), "--lam", "1e-3,1e-2"]
    out = tmp_path / "model.npz"
    local = ["--atoms", "0,1,2,8", "--around", str(tmp_path / "start.xyz"), "-o", str(out)]
    assert main([*base, *local]) == 0
    hybrid = jaxff.load(out)
    assert list(hybrid.program.placed[-1].atoms) == [0, 1, 2, 8]
    assert hybrid.program.placed[-1].term.kind == "gdml-local"
    scores = jaxff.evaluate(hybrid, frames)
    assert scores["force_rmse"] < jaxff.evaluate(gaff, frames)["force_rmse"]
    assert main(["evaluate", str(out), str(tmp_path / "frames.npz")]) == 0
    assert main(["info", str(out)]) == 0
    capsys.readouterr()
    assert main([*base, "--around", str(tmp_path / "start.xyz"), "-o", str(out)]) == 1
    assert "--around needs" in capsys.readouterr().err
    assert main([*base, *local, "--adapt"]) == 1
    assert "--adapt cannot be used with --around" in capsys.readouterr().err
