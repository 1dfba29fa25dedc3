"""What potentials were trained on: limits, files, sums, and warnings far from the training data."""

import json
import warnings

import numpy as np
import pytest

import jaxff
from jaxff import gdml, md
from jaxff.analysis import torsion_angles
from jaxff.analysis.internal import place
from jaxff.ase import ExtrapolationWarning
from jaxff.cli import main
from jaxff.dataset import packaged_dataset
from jaxff.domain import Domain, Trained, outside, trained_on
from jaxff.errors import InputError
from jaxff.turns import chains, torsions


@pytest.fixture(scope="module")
def ethanol():
    return packaged_dataset("ethanol").split(60, 0, 200, seed=0)


@pytest.fixture(scope="module")
def kernel(ethanol):
    return gdml.train(ethanol.train, sigma=20.0)


@pytest.fixture(scope="module")
def sparse(ethanol):
    """A kernel of twelve frames, which does not hold the molecule together."""
    return gdml.train(ethanol.train[:12], sigma=20.0)


def test_other_frames_of_the_same_dynamics_are_inside(kernel, ethanol):
    energies = kernel.predict(ethanol.test.positions)[0]
    assert outside(kernel.trained, ethanol.test.positions, energies).frames.mean() < 0.01


def test_stretched_bonds_low_energies_and_other_geometries_are_outside(kernel, ethanol):
    (part,), R = kernel.trained, ethanol.test.positions[:3].copy()
    low = part.domain.outside(R, np.full(3, part.domain.floor - 1.0))
    assert low.frames.all()
    assert "below the lowest training energy" in low.reason
    i, j = ethanol.train.molecule.bonds[0]
    R[1, i] += 3.0 * (R[1, i] - R[1, j])
    stretched = part.domain.outside(R)
    assert stretched.frames.tolist() == [False, True, False]
    assert "Å long" in stretched.reason
    assert part.domain.outside(np.full_like(R, np.nan)).frames.all()


def test_the_reason_gives_the_excess_of_a_bond_just_beyond_the_training_lengths():
    molecule = jaxff.Molecule([7, 7], [[0.0, 0, 0], [1, 0, 0]], [[0, 1]])
    lengths = np.array([1.0, 1.05, 1.1])
    domain = Domain.of(molecule, lengths[:, None, None] * np.array([[0.0, 0, 0], [1, 0, 0]]))
    low, high = domain.lengths[0]
    for length, excess in ((low - 0.004, "0.004 Å shorter"), (high + 0.003, "0.003 Å longer")):
        found = domain.outside(length * np.array([[[0.0, 0, 0], [1, 0, 0]]]))
        assert excess in found.reason
        assert f"({low:.2f} to {high:.2f} Å)" in found.reason


def test_limits_do_not_depend_on_orientation_or_on_the_order_of_equivalent_atoms(kernel, ethanol):
    domain, R = kernel.trained[0].domain, ethanol.test.positions[:5]
    group = kernel.program.placed[0].term.permutations
    turned = R @ np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0] + 5.0
    for other in (turned, R[:, group[-1]]):
        np.testing.assert_allclose(domain.distances(other), domain.distances(R), rtol=1e-5)


def test_training_frames_are_recognised_in_any_order(kernel, ethanol):
    order = np.arange(ethanol.train.n_atoms)[::-1]
    turned = kernel.on(order)
    R = ethanol.train.positions[:, order]
    assert trained_on(turned.trained, R).all()
    assert not trained_on(turned.trained, ethanol.test.positions[:, order]).any()


@pytest.mark.parametrize("form", [jaxff.save, gdml.save])
def test_files_keep_the_training_data(kernel, ethanol, form, tmp_path):
    form(tmp_path / "model.npz", kernel)
    (known,), (found,) = kernel.trained, jaxff.load(tmp_path / "model.npz").trained
    for name, array in known.domain.arrays().items():
        np.testing.assert_array_equal(found.domain.arrays()[name], array)
    assert Domain.from_arrays({}) is None


def test_sums_carry_the_geometry_but_not_the_energy(kernel, ethanol):
    total = kernel + jaxff.gaff(kernel.molecule, charges="gasteiger")
    assert [part.whole for part in total.trained] == [False]
    assert trained_on(total.trained, ethanol.train.positions).all()
    assert kernel.astype("float64").trained[0].whole


def test_fits_know_their_frames(ethanol):
    start = jaxff.gaff(ethanol.train.molecule, charges="gasteiger")
    fitted = jaxff.fit(start, ethanol.train, trainable=["bond.*"]).potential
    assert trained_on(fitted.trained, ethanol.train.positions).all()


def test_dynamics_count_frames_outside_or_stop(sparse, ethanol, tmp_path):
    settings = {"steps": 4000, "start": md.Start(replicas=2), "ensemble": md.Langevin(500.0)}
    molecule = ethanol.train.molecule
    stop = md.Stop(on_extrapolation="stop")
    with pytest.raises(md.ExtrapolationError, match="left the training data") as caught:
        md.simulate(
            sparse, molecule, stop=stop, **settings,
            output=md.Output(tmp_path / "run.extxyz", every=40),
        )  # fmt: skip
    run = caught.value.run
    assert run.extrapolation.step <= run.times[-1] / 0.5 + 40
    energies = sparse.predict(run.positions.reshape(-1, 9, 3))[0]
    assert not outside(sparse.trained, run.positions.reshape(-1, 9, 3), energies).frames.any()
    assert len(md.read_trajectory(tmp_path / "run-0.extxyz")["times"]) == len(run.times)


def test_good_models_cause_no_alarm(kernel, ethanol):
    run = md.simulate(
        kernel, ethanol.train.molecule, md.Langevin(300.0), steps=4000,
        start=md.Start(replicas=2), stop=md.Stop(on_extrapolation="stop"),
    )  # fmt: skip
    assert run.extrapolation.outside == 0


def test_the_ase_calculator_warns_once(kernel, ethanol):
    atoms = ethanol.train.molecule.to_ase()
    atoms.calc = jaxff.ase.Calculator(kernel)
    atoms.get_potential_energy()
    assert atoms.calc.results["outside_training"] is False
    atoms.positions[0] += 0.7
    with pytest.warns(ExtrapolationWarning, match="outside the training data"):
        atoms.get_potential_energy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        atoms.positions[0] += 0.01
        atoms.get_potential_energy()


def test_commands_report_frames_outside_and_training_frames(kernel, ethanol, tmp_path, capsys):
    model, data, out = (str(tmp_path / n) for n in ("model.npz", "data.npz", "out.json"))
    jaxff.save(model, kernel)
    ethanol.train.save(data)
    assert main(["evaluate", model, data, "--json", out]) == 0
    assert "was trained on 60 of these frames" in capsys.readouterr().out
    with open(out) as file:
        assert json.load(file)["trained_on"] == 60


def test_one_atom_has_no_distances_to_compare():
    positions = np.random.default_rng(0).normal(size=(5, 1, 3))
    domain = Domain.of(
        jaxff.Molecule(np.array([18]), positions[0], np.empty((0, 2), int)),
        positions,
        np.arange(5.0),
    )
    assert not domain.outside(positions + 1.0, np.arange(5.0)).frames.any()
    assert domain.outside(positions, np.arange(5.0) - 9.0).frames.all()


@pytest.fixture(scope="module")
def water():
    """GAFF's water, with a function that gives it training frames around a scaled geometry."""
    potential = jaxff.gaff(jaxff.Molecule.from_smiles("O"), charges="gasteiger")
    start = md.minimize(potential, potential.molecule).positions
    molecule = potential.molecule.with_positions(start)
    potential = jaxff.Potential(potential.program, potential.params, molecule)
    noise = 0.01 * np.random.default_rng(0).normal(size=(20, 3, 3))

    def trained(scale):
        return potential.with_training([Trained(Domain.of(molecule, scale * start + noise))])

    return trained


COMMANDS = {  # the scale of the training frames, and the options of the command
    "md": (1.0, ("--temperature", 2000, "--steps", 100, "--replicas", 2)),
    "minimize": (1.3, ("--tolerance", 0.1)),
    "scan": (1.0, ("--distance", "0,1", "--range", 0.9, 1.5, "--points", 3)),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_warn_stop_or_ignore(command, water, tmp_path, capsys):
    scale, options = COMMANDS[command]
    model, results = tmp_path / "model.npz", tmp_path / "results.json"
    jaxff.save(model, water(scale))

    def run(choice):
        arguments = (command, model, model, *options, "--on-extrapolation", choice)
        code = main([*map(str, arguments), "-o", str(tmp_path / choice), "--json", str(results)])
        return code, capsys.readouterr()

    code, shown = run("warn")
    found = json.loads(results.read_text())
    found = found["models"]["model"] if command == "scan" else found
    assert code == 0
    assert (
        f"are outside the training data of {'model' if command == 'scan' else model}" in shown.out
    )
    assert found["extrapolation"]["outside"] > 0
    assert found["extrapolation"]["reason"] in shown.out
    if command == "md":
        assert "outside the training data" in (tmp_path / "warn" / "report.html").read_text()
    code, shown = run("stop")
    assert code == 1
    assert "training data" in shown.err
    code, shown = run("ignore")
    assert code == 0
    assert "training data" not in shown.out


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_say_that_training_data_are_unknown(command, sparse, tmp_path, capsys):
    model, (_, options) = tmp_path / "model.npz", COMMANDS[command]
    jaxff.save(model, sparse.with_training([]))
    arguments = [*map(str, (command, model, model, *options)), "-o", str(tmp_path / "out")]
    if command == "md":
        arguments += ["--temperature", "10"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("are unknown") == 1
    assert main([*arguments, "--on-extrapolation", "stop"]) == 1
    assert "no description of the training frames" in capsys.readouterr().err


def test_an_interrupted_simulation_remembers_frames_outside(water, tmp_path):
    potential, output = water(1.0), {"path": tmp_path / "run.extxyz", "restart": tmp_path / "r.npz"}

    def run(steps, **options):
        return md.simulate(
            potential, potential.molecule, md.Langevin(2000.0), steps=steps,
            output=md.Output(**options),
        ).extrapolation  # fmt: skip

    whole, first = run(200), run(100, **output)
    assert 0 < first.outside < whole.outside
    assert run(200, **output) == whole


def test_broken_simulations_say_which_frames_were_outside_before(water):
    potential = water(1.0)
    warning = r"warning: \d+ of \d+ frames .* outside"
    with pytest.raises(md.SimulationError, match=warning) as caught:
        md.simulate(
            potential, potential.molecule, md.Langevin(2000.0), steps=2000,
            output=md.Output(every=1), stop=md.Stop(stretch=1.15),
        )  # fmt: skip
    assert caught.value.run.extrapolation.outside > 0


def test_stacks_count_frames_outside(water):
    potentials = [water(1.0), water(1.0)]
    molecules = [potential.molecule for potential in potentials]
    runs = md.simulate_stack(jaxff.stack(potentials), molecules, md.Langevin(2000.0), steps=100)
    assert all(run.extrapolation.outside > 0 for run in runs)
    stop = md.Stop(on_extrapolation="stop")
    with pytest.raises(InputError, match="cannot stop"):
        md.simulate_stack(jaxff.stack(potentials), molecules, steps=100, stop=stop)


def test_periodic_frames_are_compared_by_their_nearest_images(ethanol):
    lattice = np.array([[9.0, 1.0, 0.0], [0.0, 8.0, 0.5], [0.0, 0.0, 10.0]])
    R = ethanol.train.positions
    domain = Domain.of(ethanol.train.molecule, R, lattice=lattice)
    wrapped = R.copy()
    wrapped[:, 4:] += lattice @ [1.0, -1.0, 2.0]
    np.testing.assert_allclose(domain.distances(wrapped), domain.distances(R), atol=1e-6)
    assert domain.trained_on(wrapped).all()
    assert not domain.outside(wrapped).frames.any()
    known = Domain.from_arrays(domain.arrays())
    np.testing.assert_array_equal(known.lattice, lattice)
    assert Domain.of(ethanol.train.molecule, R).outside(wrapped).frames.all()


def test_local_corrections_know_their_frames_and_have_no_limits(ethanol):
    baseline = jaxff.gaff(ethanol.train.molecule, charges="gasteiger")
    atoms = [0, 1, 2, 8]
    kernel = gdml.LocalKernel(1e-3)
    correction = gdml.train_correction(ethanol.train[:20], baseline, atoms, kernel=kernel)
    total = baseline + correction.on(atoms)
    assert trained_on(total.trained, ethanol.train.positions[:20]).all()
    assert not trained_on(total.trained, ethanol.test.positions).any()
    far = 1.5 * ethanol.test.positions
    assert not outside(total.trained, far, np.full(len(far), -1e6)).frames.any()
    assert not total.training_is_unknown


def test_torsions_far_from_the_training_frames_are_outside(tmp_path):
    amide = jaxff.Molecule.from_smiles("CC(=O)NC")
    rng = np.random.default_rng(3)
    frames = amide.positions + rng.normal(scale=0.05, size=(60, amide.n_atoms, 3))
    domain = Domain.of(amide, frames)
    carbon, nitrogen = 1, 3
    twisted = place(amide, [(0, carbon, nitrogen, 4)], frames[:1], np.radians([[100.0]]))
    found = domain.outside(np.concatenate([frames[:1], twisted]))
    assert found.frames.tolist() == [False, True]
    assert "torsion of atoms" in found.reason
    mirror = frames * [1.0, 1.0, -1.0]
    assert not domain.outside(mirror).frames.any()
    # Methyl groups may turn, although no frame shows it: their hydrogens are equivalent.
    methyl = [a for a in amide.neighbours[0] if amide.numbers[a] == 1]
    swapped = frames.copy()
    swapped[:, methyl] = frames[:, np.roll(methyl, 1)]
    assert not domain.outside(swapped).frames.any()
    assert Domain.from_arrays({**domain.arrays(), "allowed": np.zeros((2, 72), bool)}) is None
    older = {k: v for k, v in domain.arrays().items() if k not in ("chains", "allowed")}
    assert not Domain.from_arrays(older)._turned(twisted).any()


def test_torsions_are_those_of_the_analysis_and_undefined_about_straight_angles():
    molecule = jaxff.Molecule.from_smiles("CC#CC(O)C")
    atoms = chains(molecule)
    frames = molecule.positions + np.random.default_rng(0).normal(
        scale=0.02, size=(4, molecule.n_atoms, 3)
    )
    values = torsions(frames, atoms)
    expected = np.stack([torsion_angles(R, atoms) for R in frames])
    straight = np.array([len(molecule.neighbours[k]) == 2 for k in range(molecule.n_atoms)])
    linear = (straight & (molecule.numbers == 6))[atoms[:, 1:3]].any(axis=1)
    assert np.isnan(values[:, linear]).all()
    apart = np.exp(1j * values[:, ~linear]) - np.exp(1j * expected[:, ~linear])
    assert np.abs(apart).max() < 1e-12
