"""Molecular dynamics: what the integrators keep, what they sample, what a run leaves behind."""

import subprocess
import sys
from dataclasses import replace
from functools import partial

import ase.io
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import units as ase_units
from ase.md.verlet import VelocityVerlet
from simulating import simulate
from springs import springs

import jaxff
from jaxff import Dataset, InputError, Molecule, md
from jaxff.ase import Calculator
from jaxff.dataset import packaged_dataset
from jaxff.md.guard import Guard
from jaxff.md.integrate import Frame, run_chunk


@pytest.fixture(scope="module")
def water():
    return Molecule.from_smiles("O")


@pytest.fixture(scope="module")
def potential(water):
    return springs(water)


def total(run):
    return run.potential_energies + run.kinetic_energies


# -- the integrators ---------------------------------------------------------------------


def test_nve_follows_ase_s_velocity_verlet(water, potential):
    run = simulate(potential, water, ensemble="nve", dt=0.3, steps=200, every=1, seed=5)
    atoms = water.to_ase()
    atoms.set_velocities(run.velocities[0] / ase_units.fs)
    atoms.calc = Calculator(potential)
    VelocityVerlet(atoms, 0.3 * ase_units.fs).run(200)
    np.testing.assert_allclose(run.positions[-1], atoms.positions, atol=1e-8)
    np.testing.assert_allclose(run.velocities[-1], atoms.get_velocities() * ase_units.fs, atol=1e-9)
    assert run.times[-1] == pytest.approx(60.0)


def test_nve_runs_back_to_its_start(water, potential):
    there = simulate(potential, water, ensemble="nve", steps=1000)
    back = simulate(
        potential,
        water,
        ensemble="nve",
        steps=1000,
        positions=there.positions[-1],
        velocities=-there.velocities[-1],
    )
    np.testing.assert_allclose(back.positions[-1], there.positions[0], atol=1e-9)


def test_nve_energy_error_falls_as_the_square_of_the_step(water, potential):
    common = {"ensemble": "nve", "seed": 3, "every": 1}
    errors = [
        np.std(total(simulate(potential, water, dt=dt, steps=round(200 / dt), **common)))
        for dt in (0.5, 0.25, 0.125)
    ]
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4.0, rel=0.05)


def test_nve_does_not_drift(water, potential):
    run = simulate(potential, water, ensemble="nve", dt=0.5, steps=40_000, every=10)
    drift = np.polyfit(run.times / 1000.0, total(run), 1)[0]
    assert abs(drift) < 1e-4  # kcal/mol/ps
    momentum = np.einsum("n,fnc->fc", water.masses, run.velocities)
    np.testing.assert_allclose(momentum, 0.0, atol=1e-10)
    assert run.degrees_of_freedom == 6


def test_nve_without_rotation(water, potential):
    run = simulate(potential, water, ensemble="nve", steps=100, remove_rotation=True)
    assert run.degrees_of_freedom == 3
    centred = run.positions - np.average(run.positions, axis=1, weights=water.masses)[:, None]
    angular = np.cross(centred, water.masses[:, None] * run.velocities).sum(axis=1)
    np.testing.assert_allclose(angular, 0.0, atol=1e-10)


def test_langevin_has_its_temperature(water, potential):
    run = simulate(
        potential, water, temperature=200.0, friction=100.0, steps=200_000, every=20, seed=2
    )
    assert run.degrees_of_freedom == 9
    assert run.temperatures.mean() == pytest.approx(200.0, rel=0.02)
    # Equipartition: three vibrations, nearly harmonic.
    expected = 1.5 * jaxff.units.BOLTZMANN * 200.0
    assert run.potential_energies.mean() == pytest.approx(expected, rel=0.05)
    # The heavy atom is as warm as the light ones.
    kinetic = 0.5 * md.kinetics.KINETIC * water.masses * np.square(run.velocities).sum(axis=-1)
    warmth = kinetic.mean(axis=0) / (1.5 * jaxff.units.BOLTZMANN)
    np.testing.assert_allclose(warmth, 200.0, rtol=0.05)


def test_langevin_without_friction_is_nve(water, potential):
    start = simulate(potential, water, ensemble="nve", steps=10)
    common = {"steps": 100, "velocities": start.velocities[0]}
    free = simulate(potential, water, friction=0.0, **common)
    nve = simulate(potential, water, ensemble="nve", **common)
    np.testing.assert_allclose(free.positions, nve.positions, atol=1e-9)


# -- a run ---------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_run(water, potential):
    first, second, other = (
        simulate(potential, water, steps=3000, every=5, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.positions, second.positions)
    assert np.abs(first.positions[-1] - other.positions[-1]).max() > 1e-3


@pytest.mark.parametrize("ensemble", ["nve", "langevin"])
def test_a_continued_run_is_the_uninterrupted_one(water, potential, ensemble):
    common = {"ensemble": ensemble, "every": 7}
    whole = simulate(potential, water, steps=70, **common)
    first = simulate(potential, water, steps=28, **common)
    rest = simulate(potential, water, steps=42, state=first.state, **common)
    for key in ("positions", "velocities", "potential_energies", "times", "temperatures"):
        joined = np.concatenate([getattr(first, key), getattr(rest, key)])
        np.testing.assert_array_equal(joined, getattr(whole, key))


def test_frames_are_what_the_potential_says(water, potential):
    run = simulate(potential, water, steps=50, every=10)
    assert len(run.times) == 6
    np.testing.assert_allclose(run.times, np.arange(6) * 5.0)
    for frame, (energy, forces) in enumerate(map(potential.energy_and_forces, run.positions)):
        assert run.potential_energies[frame] == pytest.approx(float(energy), abs=1e-10)
        np.testing.assert_allclose(run.forces[frame], forces, atol=1e-9)
    np.testing.assert_allclose(
        run.kinetic_energies, md.kinetics.kinetic_energy(water.masses, run.velocities), rtol=1e-12
    )


def test_other_settings_do_not_compile_again(water, potential):
    simulate(potential, water, steps=20)
    before = run_chunk._cache_size()
    stiffer = jax.tree.map(lambda p: 1.1 * p, potential.params)
    simulate(
        potential.replace(stiffer), water, steps=700, dt=0.2, temperature=500.0, friction=5.0,
        every=1, seed=4,
    )  # fmt: skip
    assert run_chunk._cache_size() == before


def test_atom_order_never_matters(potential, water):
    # Matching may exchange the hydrogens, whose springs differ by 5e-7 Å as the geometry does.
    own = potential.params["springs"]
    a, _, c = np.asarray(own["length"])
    potential = potential.replace({"springs": {**own, "length": np.array([a, a, c])}})
    order = np.array([2, 0, 1])
    shuffled = water.reorder(order)
    run = simulate(potential, water, ensemble="nve", steps=100)
    velocities = run.velocities[0][order]
    other = simulate(potential, shuffled, ensemble="nve", steps=100, velocities=velocities)
    # A step rounds positions of some 2 Å to 4e-16 Å; a wrong velocity adds up over all later steps.
    bound = 4 * 100**2 / 2 * 4e-16
    np.testing.assert_allclose(other.positions, run.positions[:, order], rtol=0, atol=bound)


def test_float32_runs_in_float32(water, potential):
    single = potential.astype(jnp.float32)
    run = simulate(single, water, ensemble="nve", steps=1000)
    assert run.state.dynamics.position.dtype == jnp.float32
    double = simulate(potential, water, ensemble="nve", steps=1000)
    np.testing.assert_allclose(run.positions[:11], double.positions[:11], atol=1e-4)
    warm = simulate(single, water, steps=20_000, friction=100.0)
    assert warm.temperatures.mean() == pytest.approx(300.0, rel=0.1)
    assert warm.state.dynamics.momentum.dtype == jnp.float32


# -- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 25])
def test_a_run_stops_before_the_first_nan(water, every, tmp_path):
    # The springs break at 2 % stretch, which a hot molecule reaches within femtoseconds.
    fragile = springs(water, limit=1.02 * 1.53)
    out = tmp_path / "run.extxyz"
    with pytest.raises(md.SimulationError, match=r"not finite at step \d+ \(") as caught:
        simulate(
            fragile, water, temperature=500.0, ensemble="nve", steps=5000,
            every=every, path=out,
        )  # fmt: skip
    error = caught.value
    frames = ase.io.read(out, index=":")
    assert len(frames) == len(error.run.times) >= 1
    assert np.isfinite([a.positions for a in frames]).all()
    assert np.isfinite(error.run.potential_energies).all()
    assert error.step // every * every <= error.run.state.step + every
    assert error.run.state.step < error.step <= error.run.state.step + every
    # Single steps from the last good frame show the same step, and the one before it is fine.
    step = simulate(
        fragile, water, ensemble="nve", temperature=500.0, steps=error.step - 1, every=1
    )
    assert step.state.step == error.step - 1


def test_the_atom_is_named(water):
    with pytest.raises(md.SimulationError, match=r"atom [012] \([OH]\)"):
        simulate(springs(water, limit=1.02 * 1.53), water, temperature=500.0, ensemble="nve")


def test_the_first_fault_counts_whatever_its_kind(water):
    # An explosion is followed by numbers that are not finite, often in the same chunk.
    still = np.zeros((6, 3, 3))
    kinetic = np.array([1.0, 1.0, 1.0, 1e9, np.nan, 1.0])
    positions = np.tile(water.positions, (6, 1, 1))
    positions[5] = np.inf
    frames = Frame(positions, still, still, np.zeros(6), kinetic, np.zeros((6, 3), int))
    start = Frame(water.positions, still[0], still[0], 0.0, 1.0, np.zeros(3, int))
    watch = partial(Guard.of, water, start, 3, stop=md.Stop(stretch=1.5))
    for ensemble in (md.Langevin(), md.NVE()):
        fault, conserved = watch(ensemble).fault(frames), ensemble.conserves_energy
        assert (fault.frame, "the temperature is" in fault.what) == (3, True)
        assert ("the total energy has changed by 1e+09 kcal/mol" in fault.what) == conserved
    positions[2] *= 2.0
    fault = watch(md.Langevin()).fault(frames)
    assert (fault.frame, "above the limit" in fault.what) == (2, True)


def test_a_start_that_is_not_finite_is_refused_before_anything_is_written(water, tmp_path):
    out = tmp_path / "run.extxyz"
    out.write_text("precious")
    with pytest.raises(InputError, match="starting geometry"):
        simulate(springs(water, limit=0.5), water, path=out)
    assert out.read_text() == "precious"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dt": 0.0}, "dt is"),
        ({"temperature": -1.0}, "temperature is"),
        ({"temperature": float("nan")}, "temperature is"),
        ({"friction": -1.0}, "friction is"),
        ({"steps": 0}, "steps is"),
        ({"steps": 15}, "multiple of output.every"),
        ({"steps": float("nan")}, "steps is"),
        ({"seed": -1}, "seed is"),
        ({"seed": 0.5}, "seed is"),
        ({"every": 0}, "every is"),
        ({"max_temperature": 0.0}, "max_temperature is"),
        ({"ensemble": "nose-hoover", "relaxation": 0.1}, r"at least 2 time steps \(1 fs\)"),
        (
            {"ensemble": "nose-hoover", "final_temperature": 0.0},
            "above 0 K at the start",
        ),
        ({"positions": np.zeros((2, 3))}, "positions must have shape"),
        ({"positions": np.zeros((3, 3))}, "bonded atoms 0 and 1 are at the same position"),
        ({"velocities": np.full((3, 3), np.nan)}, "velocities of atom 0"),
        ({"path": "/no/such/folder/run.extxyz"}, "cannot write"),
    ],
)
def test_unusable_arguments_are_named(water, potential, change, message):
    with pytest.raises(InputError, match=message):
        simulate(potential, water, **{"steps": 20, **change})


# -- what stops a run that need not stop ---------------------------------------------------------


def test_much_energy_at_the_start_is_no_explosion_where_it_is_conserved(water, potential):
    # Springs drawn to three times their length: 3000 kcal/mol, that all become motion.
    start = {"positions": 3.0 * water.positions, "velocities": np.zeros((3, 3))}
    run = simulate(potential, water, ensemble="nve", dt=0.05, steps=2000, **start)
    assert run.kinetic_energies.max() > 1000.0
    assert np.ptp(total(run)) < 0.01 * run.kinetic_energies.max()
    with pytest.raises(md.SimulationError, match="total energy has changed by"):
        simulate(potential, water, ensemble="nve", dt=12.0, steps=2000, stretch=np.inf)


def test_the_highest_temperature_can_be_set(water, potential):
    start = {"positions": 3.0 * water.positions, "dt": 0.1, "steps": 2000}
    with pytest.raises(md.SimulationError, match="the temperature is"):
        simulate(potential, water, **start)
    run = simulate(potential, water, max_temperature=np.inf, **start)
    assert run.temperatures.max() > 1e4
    strained = {"positions": 1.1 * water.positions, "velocities": np.zeros((3, 3))}
    for ensemble in ("nve", "langevin"):
        common = {"ensemble": ensemble, "dt": 0.1, "steps": 2000, "every": 1, **strained}
        hottest = simulate(potential, water, **common).temperatures.max()
        with pytest.raises(md.SimulationError, match=r"the temperature is .* K, and atom"):
            simulate(potential, water, max_temperature=0.9 * hottest, **common)
        simulate(potential, water, max_temperature=1.1 * hottest, **common)


# -- files ---------------------------------------------------------------------------------


def test_numbers_of_other_types_count_as_plain_ones(water, potential, tmp_path):
    common = {"replicas": 2, "steps": 20, "every": 10, "seed": 3, "dt": 0.5}
    plain = simulate(potential, water, **common)
    for kind in (np.float32, np.int64, float):
        files = {"path": tmp_path / "run.h5", "restart": tmp_path / f"{kind.__name__}.npz"}
        other = {k: kind(v) for k, v in common.items() if k != "dt"}
        run = simulate(potential, water, dt=np.float32(0.5), **other, **files)
        np.testing.assert_array_equal(run.positions, plain.positions)


def test_the_trajectory_reads_back(water, potential, tmp_path):
    out = tmp_path / "run.extxyz"
    named = replace(water, name=r'a "name" with C=C\C')
    run = simulate(potential, named, steps=40, path=out)
    frames = ase.io.read(out, index=":")
    assert len(frames) == 5
    for frame, atoms in enumerate(frames):
        np.testing.assert_allclose(atoms.positions, run.positions[frame], atol=1e-9)
        np.testing.assert_allclose(atoms.arrays["velocities"], run.velocities[frame], atol=1e-9)
        np.testing.assert_allclose(atoms.arrays["force"], run.forces[frame], atol=1e-7)
        for key, values in (
            ("time", run.times),
            ("temperature", run.temperatures),
            ("potential_energy", run.potential_energies),
            ("kinetic_energy", run.kinetic_energies),
        ):
            assert atoms.info[key] == pytest.approx(values[frame], abs=1e-5)
        assert atoms.info["units"] == "kcal/mol Ang fs K"
        assert atoms.info["format"] == "jaxff trajectory 1"
        assert atoms.calc is None  # nothing that ASE would take for eV
    data = Dataset.load(out)
    np.testing.assert_allclose(data.forces, run.forces, atol=1e-7)
    np.testing.assert_allclose(data.energies, run.potential_energies, atol=1e-9)
    assert Molecule.read(out).formula == "H2O"


def test_importing_the_room_does_not_import_jax_md():
    code = "import sys, jaxff.md, jaxff.ase, jaxff.reference; sys.exit('jax_md' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_gaff_ethanol_neither_drifts_nor_loses_its_temperature():
    ethanol = Molecule.from_smiles("CCO")
    gaff = jaxff.gaff(ethanol)
    run = simulate(gaff, ethanol, ensemble="nve", dt=0.5, steps=40_000, seed=1)
    assert abs(np.polyfit(run.times / 1000.0, total(run), 1)[0]) < 1e-3  # kcal/mol/ps
    warm = simulate(gaff, ethanol, temperature=300.0, friction=50.0, steps=100_000, seed=1)
    assert warm.temperatures.mean() == pytest.approx(300.0, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("hybrid", [False, True])
def test_kernels_and_hybrids_do_not_drift_in_100_ps(hybrid):
    data = packaged_dataset("ethanol")
    baseline = jaxff.gaff(data.molecule) if hybrid else None
    potential = jaxff.gdml.train(data, n_train=1000, sigma=20.0, baseline=baseline)
    run = simulate(
        potential, data.molecule, ensemble="nve", dt=0.5, steps=200_000, every=20,
        keep=False,
    )  # fmt: skip
    drift = np.polyfit(run.times / 1000.0, total(run), 1)[0]
    print(f"{drift:.2e} kcal/mol/ps")
    assert abs(drift) < 1e-3
