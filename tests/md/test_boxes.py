"""Dynamics in periodic boxes: neighbour lists, constant pressure, files and restarts."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from boxes import argon, fluid, waters

from jaxff import InputError, md, units
from jaxff.md import barostats, ensembles
from jaxff.md.field import Field, Molecules
from jaxff.potential import Column, Potential, Term


@dataclasses.dataclass(frozen=True, eq=False)
class Nothing(Term):
    """No energy: an ideal gas."""

    n_atoms: int

    kind = "test nothing"
    columns = dict(zero=Column("kcal/mol"))  # noqa: RUF012

    def energies(self, params, R, space):
        return {"nothing": params["zero"] * jnp.sum(R)}


def ideal(system):
    return Potential.of("nothing", Nothing(system.n_atoms), {"zero": np.zeros(())})


@pytest.fixture(scope="module")
def gas():
    """Argon with neighbour lists, one potential for all tests: each is compiled once."""
    system = argon(27, spacing=3.9)
    return system, fluid(system, cutoff=5.0)


@pytest.fixture(scope="module")
def droplet():
    """Rigid water without charges."""
    system = waters(8, spacing=3.6)
    return system, fluid(system, cutoff=3.4, charged=False)


def test_lists_change_no_trajectory():
    system = argon(64, spacing=3.7)
    ensemble = md.NVE(temperature=150.0, dt=4.0)
    runs = [
        md.simulate(
            fluid(system, listed=listed), system, ensemble, steps=400, output=md.Output(every=50)
        )
        for listed in (True, False)
    ]
    assert runs[0].rebuilds > 5
    assert runs[1].rebuilds == 0
    np.testing.assert_allclose(runs[0].positions, runs[1].positions, atol=1e-6)
    total = runs[0].potential_energies + runs[0].kinetic_energies
    assert np.ptp(total) < 0.02
    assert runs[0].degrees_of_freedom == 3 * 64 - 3


def test_fast_atoms_lose_no_pair(monkeypatch):
    # Every step moves atoms farther than the skin allows, so that each list serves one step only.
    from jaxff.md import lists

    monkeypatch.setattr(lists, "SKIN", 0.01)
    system = argon(27, spacing=4.1)
    ensemble = md.NVE(temperature=300.0, dt=10.0)
    settings = dict(steps=30, output=md.Output(every=10), stop=md.Stop(max_temperature=1e6))
    listed, alone = (
        md.simulate(fluid(system, listed=listed), system, ensemble, **settings)
        for listed in (True, False)
    )
    assert listed.rebuilds >= 30
    np.testing.assert_allclose(listed.positions, alone.positions, atol=1e-8)


@pytest.mark.parametrize("scaling", ensembles.AXES)
def test_virial_is_the_derivative_by_the_box(scaling):
    system, axes = waters(8, spacing=3.4), ensembles.AXES[scaling]
    potential = fluid(system, cutoff=3.3, listed=False)
    molecules = Molecules.of(system)
    R, box = jnp.asarray(system.positions), jnp.asarray(system.box)
    centres = molecules.centres(R)

    def energy(R, box):
        return potential(R, box=box)

    slopes = Field.of(potential, None).energy_and_slopes(molecules, R, box)[1]
    found = barostats.slopes_of(slopes, axes)
    h, first = 1e-5, 0
    for k, n in enumerate(axes):
        ends = []
        for sign in (1, -1):
            factors = np.ones(3)
            factors[first : first + n] = np.exp(sign * h / n)
            moved = R + (centres * (factors - 1.0))[molecules.index]
            ends.append(energy(moved, box * factors))
        np.testing.assert_allclose(found[k], (ends[0] - ends[1]) / (2 * h), rtol=1e-6)
        first += n


def check_volumes(volumes, molecules, pressure, temperature):
    """Compare volumes (R, F) with the distribution V^M exp(−PV/kT) of an ideal gas."""
    scale = units.BOLTZMANN * temperature / (pressure * units.BAR)
    for value, expected in (
        (volumes.mean(axis=1), (molecules + 1) * scale),
        (volumes.var(axis=1), (molecules + 1) * scale**2),
    ):
        error = value.std(ddof=1) / np.sqrt(len(value))
        assert abs(value.mean() - expected) < 4 * error
        assert error < 0.08 * expected


def once(first, second):
    """All pairs, of which the slow ones combine pieces that the others test."""
    quick = list(zip(first, second, strict=True))
    return [
        pytest.param(a, b, marks=() if (a, b) in quick else pytest.mark.slow)
        for a, b in itertools.product(first, second)
    ]


@pytest.mark.parametrize(("barostat", "scaling"), once(ensembles.BAROSTATS, ensembles.AXES))
def test_volumes_of_an_ideal_gas(barostat, scaling):
    system = argon(20, spacing=3.0)
    pressure = 21 * units.BOLTZMANN * 300.0 / 9.0**3 / units.BAR  # the mean volume is the first
    ensemble = md.NPT(
        temperature=300.0, pressure=pressure, barostat=barostat, scaling=scaling,
        pressure_relaxation=100.0, compressibility=1.0 / pressure, barostat_every=1, dt=2.0,
    )  # fmt: skip
    run = md.simulate(
        ideal(system), system, ensemble, steps=20_000, start=md.Start(replicas=16),
        output=md.Output(every=50, keep=False),
    )  # fmt: skip
    check_volumes(np.linalg.det(run.boxes)[:, 100:], 20, pressure, 300.0)
    lengths = np.diagonal(run.boxes, axis1=-2, axis2=-1)
    np.testing.assert_allclose(lengths[..., 0], lengths[..., 1])
    assert (np.ptp(lengths[..., 2] / lengths[..., 0]) > 0.1) == (scaling == "semi-isotropic")


@pytest.mark.parametrize("barostat", ensembles.BAROSTATS)
def test_molecules_are_not_deformed_by_barostats(droplet, barostat):
    from jaxff.md.rigid import Rigid

    system, potential = droplet
    ensemble = md.NPT(temperature=300.0, pressure=1.0, barostat=barostat, friction=10.0, dt=1.0)
    run = md.simulate(potential, system, ensemble, steps=200, output=md.Output(every=50))
    assert np.ptp(np.linalg.det(run.boxes)) > 0.1
    assert np.abs(Rigid.of(system).deviations(run.positions[-1])).max() < 1e-9
    assert run.degrees_of_freedom == 48


def test_energies_in_boxes_are_traced_twice(gas):
    traces = []

    @dataclasses.dataclass(frozen=True, eq=False)
    class Counted(Nothing):
        kind = "test counted"

        def energies(self, params, R, space):
            traces.append(R.shape)
            return super().energies(params, R, space)

    system, ensemble = gas[0], md.NPT(temperature=120.0, dt=4.0)
    potential = gas[1] + Potential.of("c", Counted(system.n_atoms), {"zero": np.zeros(())})
    for steps in (20, 40):
        md.simulate(potential, system, ensemble, steps=steps, output=md.Output(every=10))
        assert len(traces) == 2  # with forces, and with derivatives by the box


def test_constant_pressure_needs_a_box():
    system = argon(8)
    system.box = None
    with pytest.raises(InputError, match="npt changes a box, but the molecule has none"):
        md.simulate(ideal(system), system, md.NPT(), steps=5)


def test_registries_of_barostats_agree():
    assert tuple(barostats.STEPS) == ensembles.BAROSTATS


@pytest.mark.parametrize("suffix", ["extxyz", "h5", "dcd"])
def test_files_contain_boxes_and_whole_molecules(tmp_path, droplet, suffix):
    system, potential = droplet
    system = dataclasses.replace(system, positions=system.positions + 20.0)  # outside the box
    ensemble = md.NPT(friction=10.0, dt=1.0, barostat_every=2, scaling="semi-isotropic")
    kept = md.simulate(
        potential, system, ensemble, steps=40, output=md.Output(tmp_path / f"a.{suffix}", every=10)
    )
    md.simulate(
        potential, system, ensemble, steps=40,
        output=md.Output(tmp_path / f"b.{suffix}", every=10, wrap=True),
    )  # fmt: skip
    near = {"atol": 2e-5 if suffix == "dcd" else 1e-9}
    plain, wrapped = (md.read_trajectory(tmp_path / f"{x}.{suffix}", system) for x in "ab")
    np.testing.assert_allclose(plain["positions"], kept.positions, **near)
    molecules = Molecules.of(system)
    for frames in (plain, wrapped):
        np.testing.assert_allclose(frames["boxes"], kept.boxes, atol=1e-9)
    for R, box, old in zip(wrapped["positions"], kept.boxes, kept.positions, strict=True):
        fractions = molecules.centres(jnp.asarray(R, float)) @ np.linalg.inv(box)
        assert (fractions > -1e-5).all()
        assert (fractions < 1.0 + 1e-5).all()
        images = (old - R) @ np.linalg.inv(box)
        np.testing.assert_allclose(images, np.round(images), atol=1e-5)
        assert np.abs(images).max() > 0.5
        first = images[::3]
        np.testing.assert_allclose(images, np.repeat(first, 3, axis=0), atol=1e-5)


@pytest.mark.filterwarnings("ignore:DCDReader:DeprecationWarning")
def test_other_programs_read_boxes(tmp_path, droplet):
    import ase.io

    mda = pytest.importorskip("MDAnalysis")
    system, potential = droplet
    for suffix in ("extxyz", "dcd"):
        md.simulate(
            potential, system, md.NPT(dt=1.0), steps=40,
            output=md.Output(tmp_path / f"a.{suffix}", every=10),
        )  # fmt: skip
    atoms = ase.io.read(tmp_path / "a.extxyz", ":")
    boxes = md.read_trajectory(tmp_path / "a.extxyz")["boxes"]
    np.testing.assert_allclose([a.cell.array for a in atoms], boxes)
    assert atoms[0].pbc.all()
    universe = mda.Universe.empty(24, trajectory=False)
    universe.load_new(str(tmp_path / "a.dcd"))
    found = [step.dimensions.copy() for step in universe.trajectory]
    np.testing.assert_allclose([x[:3] for x in found], np.diagonal(boxes, axis1=1, axis2=2), 1e-6)


@pytest.mark.parametrize(("replicas", "barostat"), once([None, 2], ensembles.BAROSTATS))
def test_a_run_in_a_box_continues_bit_for_bit(tmp_path, gas, barostat, replicas):
    system, potential = gas
    ensemble = md.NPT(temperature=120.0, barostat=barostat, dt=4.0, barostat_every=3)
    start = md.Start(replicas=replicas, seed=3)
    name = "run.h5" if replicas is None else "run-1.h5"

    def run(steps, folder, restart=None):
        (tmp_path / folder).mkdir(exist_ok=True)
        output = md.Output(tmp_path / folder / "run.h5", every=10, restart=restart)
        return md.simulate(potential, system, ensemble, steps=steps, start=start, output=output)

    whole = run(400, "whole")
    restart = tmp_path / "restart.npz"
    run(150, "cut", restart)
    rest = run(400, "cut", restart)
    assert whole.rebuilds == rest.rebuilds > 2
    one, other = (md.read_trajectory(tmp_path / folder / name) for folder in ("whole", "cut"))
    for key, values in one.items():
        np.testing.assert_array_equal(values, other[key])
    half = run(200, "half")
    rest = md.simulate(
        potential, system, ensemble, steps=200, start=half.state, output=md.Output(every=10)
    )
    np.testing.assert_array_equal(rest.boxes[..., -1, :, :], whole.boxes[..., -1, :, :])


def test_replicas_in_boxes_equal_single_runs(gas):
    system, potential = gas
    ensemble = md.NPT(temperature=120.0, dt=4.0, barostat_every=5)
    settings = dict(steps=100, output=md.Output(every=20))
    both = md.simulate(potential, system, ensemble, start=md.Start(replicas=2, seed=4), **settings)
    alone = md.simulate(potential, system, ensemble, start=md.Start(seed=5), **settings)
    np.testing.assert_allclose(both.positions[1], alone.positions, atol=1e-8)
    np.testing.assert_allclose(both.boxes[1], alone.boxes, atol=1e-10)


def test_single_precision_runs_in_a_box(gas):
    system, potential = gas[0], gas[1].astype(jnp.float32)
    for ensemble in (md.NPT(temperature=120.0, dt=4.0), md.CSVR(temperature=120.0, dt=4.0)):
        run = md.simulate(potential, system, ensemble, steps=100, output=md.Output(every=20))
        assert run.state.dynamics.position.dtype == jnp.float32
        assert run.state.cell.box.dtype == jnp.float32


def test_atoms_at_one_place_are_reported(gas):
    system, potential = gas
    close = system.positions.copy()
    close[1] = close[0] + 1e-3
    system = dataclasses.replace(system, positions=close)
    with pytest.raises((md.SimulationError, InputError)):
        md.simulate(potential, system, md.NVE(dt=4.0), steps=20)
