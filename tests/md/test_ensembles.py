"""What the ensembles sample, with how many degrees of freedom, and how replicas run."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import ase.md.langevin
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import units as ase_units
from simulating import simulate
from springs import springs
from wells import Well, well

import jaxff
from jaxff import InputError, Molecule, md, units
from jaxff.ase import Calculator
from jaxff.potential import Column, Potential, Term

THERMOSTATS = ("langevin", "nose-hoover", "csvr")
HERE = Path(__file__).parent


def molecule_of(name):
    if name == "pair":
        return Molecule(
            numbers=np.array([17, 1]),
            positions=np.array([[0.0, 0.0, 0.0], [1.28, 0.0, 0.0]]),
            bonds=np.array([[0, 1]]),
        )
    return Molecule.from_smiles(
        {"water": "O", "ethanol": "CCO", "aspirin": "CC(=O)Oc1ccccc1C(=O)O"}[name]
    )


def mean_and_error(values):
    """Of replicas' means, values (R, F)."""
    means = values.mean(axis=1)
    return means.mean(), means.std(ddof=1) / np.sqrt(len(means))


@pytest.mark.parametrize("ensemble", THERMOSTATS)
@pytest.mark.parametrize(
    ("name", "steps", "error"), [("pair", 100_000, 0.03), ("water", 50_000, 0.03)]
)
def test_kinetic_energy_is_canonical(name, steps, error, ensemble):
    check_kinetic_energy(name, steps, error, ensemble)


@pytest.mark.slow
@pytest.mark.parametrize("ensemble", THERMOSTATS)
@pytest.mark.parametrize(
    ("name", "steps", "error"),
    [("pair", 400_000, 0.015), ("ethanol", 100_000, 0.01), ("aspirin", 50_000, 0.01)],
)
def test_kinetic_energy_is_canonical_at_length(name, steps, error, ensemble):
    check_kinetic_energy(name, steps, error, ensemble)


def check_kinetic_energy(name, steps, error, ensemble):
    molecule = molecule_of(name)
    potential = springs(molecule) if name in ("pair", "water") else jaxff.gaff(molecule)
    run = simulate(
        potential, molecule, ensemble=ensemble, temperature=300.0, steps=steps, every=20,
        dt=0.25, friction=20.0, relaxation=20.0, replicas=16, seed=11, keep=False,
    )  # fmt: skip
    atoms = 3 * molecule.n_atoms
    freedom = atoms if ensemble == "langevin" else atoms - (5 if name == "pair" else 6)
    assert set(run.degrees_of_freedom.tolist()) == {freedom}
    kinetic = run.kinetic_energies[:, len(run.times) // 10 :] / (units.BOLTZMANN * 300.0)
    mean, spread = mean_and_error(kinetic / (freedom / 2))
    assert spread < error
    assert abs(mean - 1.0) < 4 * spread + 0.005  # the integrator's own bias, of order dt²
    variance = kinetic.var(axis=1) / (freedom / 2)
    spread = variance.std(ddof=1) / 4
    assert spread < 5 * error
    assert abs(variance.mean() - 1.0) < 4 * spread + 0.01


@dataclass(frozen=True, eq=False)
class Aligned(Term):
    """The vector between the first two atoms in a field along x, kcal/mol/Å."""

    n_atoms: int

    kind = "test field"
    columns: ClassVar = {"field": Column("kcal/mol/Å")}

    def energies(self, params, R, space):
        return {"field": params["field"] * (R[1, 0] - R[0, 0])}


@pytest.mark.parametrize("ensemble", ["nve", "nose-hoover", "csvr"])
def test_a_field_that_only_turns_leaves_all_but_the_translation(ensemble):
    water = Molecule.from_smiles("O")
    field = Potential.of("field", Aligned(3), {"field": np.array(0.3)}, water)
    run = simulate(springs(water) + field, water, ensemble=ensemble, steps=10, remove_rotation=True)
    assert run.degrees_of_freedom == 6
    momentum = np.einsum("n,fnc->fc", water.masses, run.velocities)
    np.testing.assert_allclose(momentum, 0.0, atol=1e-12)


@pytest.mark.parametrize("ensemble", ["nose-hoover", "csvr"])
def test_a_free_atom_has_nothing_to_scale(ensemble):
    free, atom = well(k=0.0)
    with pytest.raises(InputError, match="cannot heat a free atom"):
        simulate(free, atom, ensemble=ensemble, steps=10)
    bound, atom = well(k=1e-3)
    assert simulate(bound, atom, ensemble=ensemble, steps=10).degrees_of_freedom == 3


@pytest.mark.parametrize("replicas", [None, 2])
def test_a_continued_chain_takes_its_new_relaxation_time(replicas):
    ethanol = Molecule.from_smiles("CCO")
    gaff = jaxff.gaff(ethanol)
    common = {"ensemble": "nose-hoover", "steps": 1000, "temperature": 300.0, "replicas": replicas}
    start = simulate(gaff, ethanol, relaxation=20.0, **common).state
    hot = {**common, "temperature": 600.0, "state": start}
    quick, slow = (simulate(gaff, ethanol, relaxation=tau, **hot) for tau in (20.0, 1e6))
    # A chain as slow as this leaves the energy alone.
    total = slow.potential_energies + slow.kinetic_energies
    assert np.ptp(total, axis=-1).max() < 0.5
    total = quick.potential_energies + quick.kinetic_energies
    assert np.ptp(total, axis=-1).min() > 2.0


def test_a_weak_field_is_seen_beside_stiff_bonds():
    ethanol = Molecule.from_smiles("CCO")
    gaff = jaxff.gaff(ethanol)
    zero = np.array(0.0)
    field = Potential.of("well", Well(9), {"k": np.array(0.01), "a": zero, "c": zero}, ethanol)
    for potential in (gaff, gaff.astype("float32")):
        run = simulate(potential, ethanol, ensemble="csvr", steps=10)
        assert run.degrees_of_freedom == 21
    held = gaff + field
    weaker = {**held.params["well"], "k": np.array(1e-4)}
    for potential in (held, held.replace({**held.params, "well": weaker})):
        run = simulate(potential, ethanol, ensemble="csvr", steps=10)
        assert run.degrees_of_freedom == 27


@pytest.mark.parametrize("ensemble", THERMOSTATS)
def test_a_harmonic_well_is_filled_as_boltzmann_says(ensemble):
    # Three atoms: one alone would be no ergodic system for a deterministic chain.
    potential, molecule = well(n_atoms=3, k=20.0)
    run = simulate(
        potential, molecule, ensemble=ensemble, steps=100_000, dt=1.0, every=25,
        friction=20.0, relaxation=30.0, replicas=16, seed=3,
    )  # fmt: skip
    assert set(run.degrees_of_freedom.tolist()) == {9}  # nothing is conserved, nothing removed
    expected = units.BOLTZMANN * 300.0 / 20.0
    squares = np.square(run.positions[:, 400:]).mean(axis=(2, 3))
    mean, spread = mean_and_error(squares)
    assert spread < 0.03 * expected
    assert mean == pytest.approx(expected, abs=4 * spread)


@pytest.mark.parametrize("ensemble", THERMOSTATS)
def test_a_double_well_is_filled_as_boltzmann_says(ensemble):
    # Its directions are coupled: rescaling alone brings no energy from one to another.
    kT, k, a, c = units.BOLTZMANN * 300.0, 20.0, 1.0, 60.0
    potential, molecule = well(k=k, a=a, c=c)
    run = simulate(
        potential, molecule, ensemble=ensemble, steps=100_000, dt=1.0, every=25,
        friction=10.0, relaxation=50.0, replicas=48, seed=5,
    )  # fmt: skip
    found = run.positions[:, 400:, 0, :2]
    x, y = np.meshgrid(np.linspace(-2.5, 2.5, 1001), np.linspace(-1.5, 1.5, 601))
    weight = np.exp(-(a * (x**2 - 1) ** 2 + 0.5 * (k + c * x**2) * y**2) / kT)
    weight /= np.sqrt(k + c * y**2)
    for measure in (
        lambda x, y: x**2,
        lambda x, y: y**2,
        lambda x, y: np.abs(x) < 0.5,
        lambda x, y: np.abs(x) > 1.2,
        lambda x, y: x > 0,
    ):
        expected = np.sum(measure(x, y) * weight) / weight.sum()
        mean, spread = mean_and_error(measure(*np.moveaxis(found, -1, 0)))
        assert spread < 0.1 * expected
        assert mean == pytest.approx(expected, abs=4 * spread)


@pytest.mark.slow
def test_langevin_samples_what_ase_s_samples():
    ethanol = molecule_of("ethanol")
    gaff = jaxff.gaff(ethanol)
    run = simulate(
        gaff, ethanol, temperature=400.0, steps=40_000, friction=10.0, replicas=16, keep=False
    )
    ours = mean_and_error(run.potential_energies[:, 500:])
    theirs = []
    for seed in range(4):
        atoms = ethanol.to_ase()
        atoms.calc = Calculator(gaff)
        rng = np.random.default_rng(seed)
        atoms.set_velocities(
            md.kinetics.maxwell_boltzmann(ethanol.masses, 400.0, rng) / ase_units.fs
        )
        dynamics = ase.md.langevin.Langevin(
            atoms, 0.5 * ase_units.fs, temperature_K=400.0, friction=0.01 / ase_units.fs,
            fixcm=False, rng=rng,
        )  # fmt: skip
        dynamics.run(2000)
        energies = []
        dynamics.attach(lambda e=energies, a=atoms: e.append(a.get_potential_energy()), 10)
        dynamics.run(20_000)
        theirs.append(energies)
    theirs = np.array(theirs) / (ase_units.kcal / ase_units.mol)
    mean, spread = mean_and_error(theirs)
    assert ours[0] == pytest.approx(mean, abs=4 * np.hypot(spread, ours[1]))


# -- settings ------------------------------------------------------------------------------


def test_the_temperature_follows_a_ramp():
    potential, molecule = well(n_atoms=30)
    run = simulate(
        potential, molecule, temperature=100.0, final_temperature=500.0, steps=40_000, dt=1.0,
        friction=50.0, every=20,
    )  # fmt: skip
    for share in (0.25, 0.5, 0.75):
        there = np.abs(run.times / run.times[-1] - share) < 0.05
        assert run.temperatures[there].mean() == pytest.approx(100.0 + 400.0 * share, rel=0.06)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_ramp_ends_at_its_last_temperature(dtype):
    # Friction that leaves nothing of the velocities: each step has those of its own temperature.
    free, atoms = well(n_atoms=400, k=0.0)
    common = {"friction": 1e6, "every": 1, "dt": 1.0}
    for steps in (1, 3, 7, 11, 13):  # of the shares of 300 K some round to less than 0 K
        run = simulate(free.astype(dtype), atoms, final_temperature=0.0, steps=steps, **common)
        assert np.isfinite(run.temperatures).all()
        assert run.temperatures[-1] < 1e-4
    run = simulate(
        free.astype(dtype), atoms, temperature=100.0, final_temperature=500.0, steps=4, **common
    )
    np.testing.assert_allclose(run.temperatures, [100.0, 200.0, 300.0, 400.0, 500.0], rtol=0.15)


def test_a_list_of_one_temperature_is_that_temperature():
    water = Molecule.from_smiles("O")
    for replicas in (None, 2):
        runs = [
            simulate(springs(water), water, temperature=T, steps=10, replicas=replicas)
            for T in (250.0, [250.0])
        ]
        np.testing.assert_array_equal(runs[0].positions, runs[1].positions)


def test_replicas_are_the_single_runs_of_their_seeds():
    water = Molecule.from_smiles("O")
    potential = springs(water)
    temperatures = [100.0, 200.0, 300.0]
    for ensemble in ("langevin", "nose-hoover"):
        common = {"ensemble": ensemble, "steps": 200, "every": 20}
        many = simulate(potential, water, temperature=temperatures, replicas=3, seed=7, **common)
        assert many.positions.shape == (3, 11, 3, 3)
        for r, temperature in enumerate(temperatures):
            one = simulate(potential, water, temperature=temperature, seed=7 + r, **common)
            np.testing.assert_allclose(many.positions[r], one.positions, atol=1e-9)
            np.testing.assert_allclose(many.kinetic_energies[r], one.kinetic_energies, atol=1e-8)
            assert many.degrees_of_freedom[r] == one.degrees_of_freedom


def test_replicas_on_several_devices_are_those_on_one(tmp_path):
    code = (
        "import jax, sys; jax.config.update('jax_enable_x64', True);"
        f"sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent)!r}];"
        "from springs import springs; from jaxff import Molecule, md; import numpy as np;"
        "water = Molecule.from_smiles('O');"
        "start, output = md.Start(replicas=4, seed=3), md.Output(every=10);"
        "run = md.simulate(springs(water), water, steps=100, start=start, output=output);"
        "print(len(run.state.dynamics.position.sharding.device_set));"
        "np.save(sys.argv[1], run.positions)"
    )
    path = tmp_path / "two.npy"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-c", code, path],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["2"]
    water = Molecule.from_smiles("O")
    one = simulate(springs(water), water, steps=100, replicas=4, seed=3)
    np.testing.assert_allclose(np.load(path), one.positions, atol=1e-10)


def test_overall_motion_stays_away():
    ethanol = molecule_of("ethanol")
    gaff = jaxff.gaff(ethanol).astype(jnp.float32)
    run = simulate(gaff, ethanol, ensemble="nose-hoover", steps=20_000, every=1000, relaxation=30.0)
    momenta = ethanol.masses[:, None] * run.velocities
    assert np.abs(momenta.sum(axis=1)).max() < 1e-4 * np.abs(momenta).sum(axis=(1, 2)).min()
    centred = run.positions - np.average(run.positions, axis=1, weights=ethanol.masses)[:, None]
    turning = np.abs(np.cross(centred, momenta).sum(axis=1)).max()
    assert turning < 1e-3 * np.abs(np.cross(centred, momenta)).sum(axis=(1, 2)).min()


def test_states_keep_double_precision():
    potential, molecule = well(n_atoms=2)
    for ensemble in ("nve", *THERMOSTATS):
        run = simulate(potential, molecule, ensemble=ensemble, steps=1, every=1)
        types = {str(x.dtype) for x in jax.tree.leaves(run.state.dynamics)}
        assert types <= {"float64", "key<fry>"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": [300.0, 400.0]}, "2 temperatures for one molecule"),
        ({"temperature": [300.0, 400.0], "replicas": 3}, "2 temperatures for 3 replicas"),
        ({"replicas": 0}, "replicas is 0"),
        ({"ensemble": "csvr", "relaxation": 0.0}, "relaxation is"),
        ({"stretch": 0.9}, "stretch is"),
        ({"ensemble": "csvr", "velocities": np.zeros((3, 3))}, "velocities must not be zero"),
        ({"ensemble": "nose-hoover", "temperature": 0.0}, "above 0 K"),
        ({"positions": np.zeros((2, 3, 3)), "replicas": 3}, "positions must have shape"),
    ],
)
def test_unusable_settings_are_named(change, message):
    water = Molecule.from_smiles("O")
    with pytest.raises(InputError, match=message):
        simulate(springs(water), water, **{"steps": 20, **change})


# -- what stops a run ------------------------------------------------------------------------


def test_an_explosion_stops_the_run_and_names_the_term():
    ethanol = molecule_of("ethanol")
    with pytest.raises(md.SimulationError, match=r"at step \d+ .*The term '") as caught:
        simulate(jaxff.gaff(ethanol), ethanol, ensemble="nve", dt=4.0, steps=2000, every=10)
    error = caught.value
    assert error.term in jaxff.gaff(ethanol).terms(ethanol.positions)
    assert len(error.atoms) <= 1
    assert np.isfinite(error.run.positions).all()
    assert error.run.state.step < error.step <= error.run.state.step + 10


def test_a_broken_bond_stops_the_run_of_its_replica():
    water = molecule_of("water")
    with pytest.raises(
        md.SimulationError, match=r"the bond of atom .* in replica [01] at"
    ) as caught:
        simulate(
            springs(water), water, temperature=[5.0, 4000.0], stretch=1.15,
            replicas=2, steps=5000, every=50,
        )  # fmt: skip
    error = caught.value
    assert error.replica == 1
    assert sorted(error.atoms) in water.bonds.tolist()
    assert error.term == "springs"
