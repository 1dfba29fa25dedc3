"""Gradients through trajectories: what they equal, what they keep in memory, when to trust them."""

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from springs import springs

import jaxff
from jaxff import InputError, Molecule, gdml, md
from jaxff.md.differentiable import perturbation_growth, rollout, value_and_gradient
from jaxff.md.differentiable.reweighting import UntrustedWarning
from jaxff.potential import Column, Potential, Term
from jaxff.units import TIME

DATA = Path(__file__).parents[1] / "gdml" / "data"
METHODS = ("checkpoint", "reversible", "forward")
REVERSE = METHODS[:2]


@pytest.fixture(scope="module")
def water():
    return Molecule.from_smiles("O")


@pytest.fixture(scope="module")
def potential(water):
    return springs(water)


@pytest.fixture(scope="module")
def start(water, potential):
    """Positions and velocities (2, 3, 3) of two replicas at 300 K."""
    run = md.simulate(potential, water, steps=100, record_every=100, replicas=2, seed=4)
    return jnp.asarray(run.positions[:, -1]), jnp.asarray(run.velocities[:, -1])


@dataclass(frozen=True, eq=False)
class Well(Term):
    """½ k |r|² of each atom; counts how often it is traced."""

    n_atoms: int
    traces: list

    kind = "test well"
    columns = {"k": Column("kcal/mol/Å²")}  # noqa: RUF012

    def energies(self, params, R, **context):
        self.traces.append(1)
        return {"well": 0.5 * jnp.sum(params["k"] * jnp.sum(R**2, axis=-1))}


@dataclass(frozen=True, eq=False)
class HenonHeiles(Term):
    """(x² + y²)/2 + x² y − y³/3, after Hénon and Heiles, Astron. J. 69, 73 (1964)."""

    n_atoms: int = 1

    kind = "test henon-heiles"
    columns = {"size": Column("kcal/mol")}  # noqa: RUF012

    def energies(self, params, R, **context):
        x, y, _ = R[0]
        return {"well": params["size"] * (0.5 * (x**2 + y**2) + x**2 * y - y**3 / 3)}


def richardson(function, step):
    """The derivative at 0, to fourth order in the step."""
    near, far = ((function(h) - function(-h)) / (2 * h) for h in (step, 2 * step))
    return (4 * near - far) / 3


# -- the trajectory ---------------------------------------------------------------------------


@pytest.mark.parametrize("ensemble", ["nve", "langevin"])
def test_it_is_the_trajectory_of_simulate(water, potential, ensemble):
    common = {"steps": 60, "record_every": 20, "ensemble": ensemble, "seed": 7, "dt": 0.4}
    run = md.simulate(potential, water, replicas=2, temperature=400.0, friction=30.0, **common)
    for method in METHODS:
        found = rollout(
            potential, run.positions[:, 0], run.velocities[:, 0], temperature=400.0, friction=30.0,
            method=method, **common,
        )  # fmt: skip
        np.testing.assert_allclose(found.positions, run.positions, atol=1e-13)
        np.testing.assert_allclose(found.velocities, run.velocities, atol=1e-14)
    alone = rollout(
        potential, run.positions[0, 0], run.velocities[0, 0], temperature=400.0, friction=30.0,
        **common,
    )  # fmt: skip
    np.testing.assert_allclose(alone.positions, run.positions[0], atol=1e-13)


# -- gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_harmonic_oscillator_has_its_closed_form(method):
    """Velocity Verlet of ω is x0 cos nΩ + v0 dt sin nΩ / sin Ω, cos Ω = 1 − (ω dt)²/2."""
    mass, dt, k0, steps = 2.5, 0.7, 90.0, 150
    x0, v0 = np.array([0.3, -0.2, 0.1]), np.array([0.01, 0.02, -0.005])

    def exact(k):
        angle = np.arccos(1 - k / mass * (dt / TIME) ** 2 / 2 + 0j)
        return x0 * np.cos(steps * angle) + v0 * dt * np.sin(steps * angle) / np.sin(angle)

    well = Potential.of("well", Well(1, []), {"k": np.array([k0])})

    def last(k):
        moved = well.replace({"well": {"k": k}})
        return rollout(
            moved, x0[None], v0[None], steps=steps, record_every=50, dt=dt, masses=[mass],
            method=method,
        ).positions[-1, 0]  # fmt: skip

    np.testing.assert_allclose(last(jnp.array([k0])), exact(k0).real, rtol=1e-11)
    jacobian = jax.jacfwd if method == "forward" else jax.jacrev
    found = jacobian(last)(jnp.array([k0]))[:, 0]
    np.testing.assert_allclose(found, exact(k0 + 1e-30j).imag / 1e-30, rtol=1e-9)


def hybrid(molecule, model):
    """A part of GAFF-Morse, to compile quickly, and a share of the kernel with its atoms placed."""
    return jaxff.gaff(molecule, bonds="morse").only("bond", "angle") + 0.7 * model.on(range(9))


@pytest.mark.parametrize(
    ("make", "ensemble"),
    [
        pytest.param(lambda molecule, model: jaxff.gaff(molecule), "nve", id="gaff"),
        pytest.param(lambda molecule, model: model, "langevin", id="sgdml"),
        pytest.param(hybrid, "langevin", id="hybrid"),
    ],
)
def test_gradients_are_those_of_finite_differences(make, ensemble):
    """Of parameters, of the start, and of what drives the motion, by all methods."""
    model = gdml.load(DATA / "ethanol_model.npz")
    frames = jaxff.Dataset.load(DATA / "ethanol_frames.npz")
    potential = make(frames.molecule, model)
    rng = np.random.default_rng()
    R, masses = jnp.asarray(frames.positions[3]), frames.molecule.masses
    v = jnp.asarray(md.kinetics.maxwell_boltzmann(masses, 400.0, rng))
    weights = rng.standard_normal((3, 9, 3))

    def loss(params, R, v, drive, method):
        dt, temperature, friction, masses = drive
        frames = rollout(
            potential.replace(params), R, v, steps=60, record_every=30, ensemble=ensemble, dt=dt,
            temperature=temperature, friction=friction, masses=masses, seed=5, method=method,
        )  # fmt: skip
        return jnp.sum(weights * (frames.positions + 20.0 * frames.velocities))

    point = (potential.params, R, v, (0.5, 350.0, 3.0, jnp.asarray(masses)))
    random = jax.tree.map(lambda x: x * (1 + rng.standard_normal(np.shape(x))), point)
    gradients = {
        method: jax.jit(jax.grad(partial(loss, method=method), argnums=(0, 1, 2, 3)))(*point)
        for method in REVERSE
    }
    a, b = (jax.tree_util.tree_leaves_with_path(gradients[method]) for method in REVERSE)
    for (path, x), (_, y) in zip(a, b, strict=True):
        scale = np.abs(np.asarray(x)).max(initial=1e-9)
        np.testing.assert_allclose(x, y, atol=1e-8 * scale, err_msg=jax.tree_util.keystr(path))

    run = jax.jit(lambda *x: jax.jvp(partial(loss, method="forward"), *x))
    # One group of arguments at a time, with a step that suits it.
    for part, step in enumerate((1e-7, 1e-6, 1e-4, 1e-6)):
        change = jax.tree.map(jnp.zeros_like, point)
        change = tuple(random[i] if i == part else change[i] for i in range(4))
        change = jax.tree.map(jnp.asarray, change)

        def moved(h, change=change):
            return float(run(jax.tree.map(lambda p, c: p + h * c, point, change), change)[0])

        numeric = richardson(moved, step)
        products = {
            method: jax.tree.leaves(
                jax.tree.map(lambda g, c: float(np.sum(g * c)), gradients[method], change)
            )
            for method in REVERSE
        }
        near = partial(pytest.approx, rel=1e-5, abs=1e-6 * np.abs(products["checkpoint"]).sum())
        for method in REVERSE:
            assert sum(products[method]) == near(numeric), (method, part)
        assert float(run(point, change)[1]) == near(numeric), part


def weighted(frames):
    """A loss of frames, the same for each call."""
    weights = np.random.default_rng(1).standard_normal(frames.positions.shape)
    return jnp.sum(weights * (frames.positions + 20.0 * frames.velocities))


@pytest.mark.parametrize("method", REVERSE)
def test_replicas_have_the_sum_of_their_gradients(potential, start, method):
    settings = {"steps": 40, "record_every": 8, "ensemble": "langevin", "friction": 20.0}
    weights = np.random.default_rng(2).standard_normal((2, 6, 3, 3))

    def loss(potential, start, weights, seed):
        frames = rollout(potential, *start, method=method, seed=seed, **settings)
        return jnp.sum(weights * frames.positions)

    both = jax.grad(loss, argnums=(0, 1))(potential, start, weights, 3)
    alone = [
        jax.grad(loss, argnums=(0, 1))(potential, tuple(x[r] for x in start), weights[r], 3 + r)
        for r in range(2)
    ]
    joined = jax.tree.map(lambda a, b: a + b, *(a[0] for a in alone))
    for a, b in zip(jax.tree.leaves(joined), jax.tree.leaves(both[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    for r in range(2):
        for a, b in zip(alone[r][1], both[1], strict=True):
            np.testing.assert_allclose(a, b[r], rtol=1e-9, atol=1e-9)


def test_segments_change_the_memory_and_not_the_gradient(potential, start):
    def gradient(segment):
        def loss(potential):
            return weighted(rollout(potential, *start, steps=60, record_every=30, segment=segment))

        return jax.grad(loss)(potential)

    whole = gradient(30)
    for segment in (None, 1):
        for a, b in zip(*map(jax.tree.leaves, (whole, gradient(segment))), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_float32_has_the_gradient_to_three_digits(potential, start):
    def loss(potential, method):
        return weighted(rollout(potential, *start, steps=100, record_every=20, method=method))

    exact = jax.grad(loss)(potential, "checkpoint").params["springs"]
    single = potential.astype(jnp.float32)
    for method in REVERSE:
        found = jax.grad(loss)(single, method).params["springs"]
        for key in ("k", "length"):
            assert found[key].dtype == jnp.float32
            scale = np.abs(exact[key]).max()
            np.testing.assert_allclose(found[key], exact[key], atol=1e-3 * scale)


# -- cost -------------------------------------------------------------------------------------


def memory(method, steps) -> int:
    """Bytes that a compiled gradient needs beside its arguments and results."""
    well = Potential.of("well", HenonHeiles(), {"size": np.array(1.0)})

    def loss(potential, start):
        last = rollout(
            potential, start, start, masses=[1.0], steps=steps, record_every=steps, method=method
        ).positions[-1]
        return jnp.sum(last**2)

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(well, jnp.zeros((1, 3))).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_grows_as_it_is_said_to():
    few, many = 256, 4096
    sizes = {method: [memory(method, steps) for steps in (few, many)] for method in METHODS}
    assert sizes["reversible"][0] == sizes["reversible"][1]
    assert sizes["checkpoint"][1] / sizes["checkpoint"][0] < 1.3 * (many / few) ** 0.5
    assert sizes["forward"][1] / sizes["forward"][0] > 0.9 * many / few  # in reverse mode


@pytest.mark.parametrize("method", METHODS)
def test_other_numbers_are_not_traced_again(method):
    traces = []
    well = Potential.of("well", Well(2, traces), {"k": np.array([80.0, 90.0])})
    rng = np.random.default_rng(0)

    def run(k, seed, dt, friction, temperature):
        moved = well.replace({"well": {"k": k}})
        return value_and_gradient(
            weighted, moved, rng.standard_normal((2, 3)), 0.01 * rng.standard_normal((2, 3)),
            steps=20, record_every=5, ensemble="langevin", masses=[1.0, 2.0], method=method,
            seed=seed, dt=dt, friction=friction, temperature=temperature,
        )  # fmt: skip

    run(np.array([80.0, 90.0]), 0, 0.5, 1.0, 300.0)
    before = len(traces)
    run(np.array([70.0, 95.0]), 1, 0.4, 2.0, 200.0)
    assert len(traces) == before > 0


# -- value_and_gradient and its trust -----------------------------------------------------------


def test_all_methods_give_the_gradient_of_the_rows_asked_for(water):
    gaff = jaxff.gaff(Molecule.from_smiles("C=O")).only("bond", "angle")
    velocities = md.kinetics.maxwell_boltzmann(
        gaff.molecule.masses, 300.0, np.random.default_rng(2)
    )
    found = {
        method: value_and_gradient(
            weighted, gaff, gaff.molecule.positions, velocities, steps=30, method=method,
            trainable=["bond.*:c-o", "angle.k"],
        )
        for method in METHODS
    }  # fmt: skip
    rows = gaff.program.placed[0].term.labels
    for gradient in found.values():
        assert gradient.trust.trusted
        assert {k: set(v) for k, v in gradient.params.items()} == {
            "bond": {"k", "length"}, "angle": {"k"},
        }  # fmt: skip
        for slope in gradient.params["bond"].values():
            assert [name for name, x in zip(rows, slope, strict=True) if x] == ["c-o"]
        assert gradient.value == pytest.approx(found["forward"].value, rel=1e-12)
        both = (found["forward"].params, gradient.params)
        for a, b in zip(*map(jax.tree.leaves, both), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)
    assert found["reversible"].trust.miss < 1e-12
    assert found["checkpoint"].trust.miss is None


def henon_heiles(energy, dt=1.0):
    """The well, and a start (1, 3) of this energy, kcal/mol, on the line of section x = 0.

    With a mass of 1 amu the unit of time of Hénon and Heiles is TIME, 48.9 fs.
    """
    well = Potential.of("well", HenonHeiles(), {"size": np.array(1.0)})
    y, vy = 0.1, 0.05
    vx = np.sqrt(2 * (energy - (0.5 * y**2 - y**3 / 3)) - vy**2)
    return well, np.array([[0.0, y, 0.0]]), np.array([[vx, vy, 0.0]]) / TIME


def test_growth_is_that_of_two_trajectories(potential, start, water):
    """A small change of the start, brought forward by the dynamics themselves."""
    settings = {"steps": 400, "dt": 0.5}
    times, growth = perturbation_growth(potential, *start, **settings)
    assert times[-1] == 200.0
    masses, rng = water.masses[:, None], np.random.default_rng(0)
    change = [rng.standard_normal((2, 3, 3)) / np.sqrt(masses) * unit for unit in (5.3, 1.0)]

    def run(h):
        moved = (x + h * c for x, c in zip(start, change, strict=True))
        every = 400 // (len(times) - 1)
        return rollout(potential, *moved, record_every=every, method="forward", **settings)

    dR, dv = ((a - b) / 2e-7 for a, b in zip(run(1e-7), run(-1e-7), strict=True))
    norm = np.sqrt((masses * (np.square(dR) / 5.3**2 + np.square(dv))).sum(axis=(-2, -1)))
    np.testing.assert_allclose(growth, (norm / norm[:, :1]).max(axis=0), rtol=1e-5)


def test_chaos_has_its_known_exponent():
    """0.13 at an energy of 1/6: Benettin, Galgani and Strelcyn, Phys. Rev. A 14, 2338 (1976)."""
    times, growth = perturbation_growth(
        *henon_heiles(1 / 6 - 1e-3), masses=[1.0], steps=60_000, dt=1.0
    )
    exponent = np.log(growth[-1]) / (times[-1] / TIME)
    assert exponent == pytest.approx(0.13, abs=0.04)


@pytest.mark.parametrize("method", METHODS)
def test_a_regular_orbit_is_trusted_and_a_chaotic_one_is_not(method):
    """And a trusted gradient foretells what a change of one in 10,000 does; the other does not."""

    def last(frames):
        return frames.positions[-1, 0, 0]

    settings = {"masses": [1.0], "steps": 8000, "dt": 1.0, "record_every": 8000, "method": method}
    errors = []
    for energy in (1 / 24, 1 / 6 - 1e-3):
        well, *start = henon_heiles(energy)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = value_and_gradient(last, well, *start, **settings)
        trust, slope = found.trust, float(found.params["well"]["size"])
        values = [
            float(last(rollout(well.replace({"well": {"size": s}}), *start, **settings)))
            for s in (1 + 5e-5, 1 - 5e-5)
        ]
        errors.append(abs((values[0] - values[1]) / 1e-4 / slope - 1))
        regular = energy == 1 / 24
        assert trust.trusted == regular == np.isinf(trust.horizon) == (trust.reason == "")
        assert [w.category for w in caught] == ([] if regular else [UntrustedWarning])
        if not regular:
            assert "chaotic" in str(caught[0].message)
            assert 2000.0 < trust.horizon < 8000.0
            before = trust.times < trust.horizon
            bound = 100.0 * (1 + trust.times / 5.3)
            assert (trust.growth <= bound)[before].all()
            assert not (trust.growth <= bound)[~before][0]
    assert errors[0] < 0.01
    assert errors[1] > 0.5


def test_a_way_back_that_misses_is_seen(potential, start):
    """Strong friction forgets the past, and no inverse brings it back from rounded numbers."""
    settings = {
        "steps": 1000, "ensemble": "langevin", "friction": 100.0, "method": "reversible",
    }  # fmt: skip
    with pytest.warns(UntrustedWarning, match="missed a frame by .* record more often"):
        lost = value_and_gradient(weighted, potential, *start, record_every=1000, **settings)
    assert not lost.trust.trusted
    assert not lost.trust.miss < 1e-3
    assert np.isnan(lost.params["springs"]["k"]).all()
    # Frames in between hold it.
    found = value_and_gradient(weighted, potential, *start, record_every=50, **settings)
    assert found.trust.miss < 1e-9
    settings["method"] = "checkpoint"
    exact = value_and_gradient(weighted, potential, *start, record_every=50, **settings)
    for a, b in zip(*(jax.tree.leaves(x.params) for x in (exact, found)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7 * np.abs(a).max())


def test_numbers_that_are_not_finite_are_not_trusted(potential, start):
    with pytest.warns(UntrustedWarning, match="not finite"):
        found = value_and_gradient(
            lambda frames: jnp.sqrt(frames.positions[0, -1, 0, 0] * 0.0),
            potential,
            *start,
            steps=10,
        )
    assert not found.trust.trusted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 15}, r"steps \(15\) must be a multiple of record_every \(10\)"),
        ({"segment": 3}, r"record_every \(10\) must be a multiple of segment \(3\)"),
        ({"steps": 0}, "steps is 0"),
        ({"ensemble": "csvr"}, "'csvr' cannot be differentiated"),
        ({"method": "adjoint"}, "unknown method 'adjoint'"),
        ({"dt": 0.0}, "dt is 0"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"friction": np.nan}, "friction is nan"),
        ({"positions": np.zeros((2, 3))}, r"positions have shape \(2, 3\)"),
        ({"velocities": np.zeros((2, 3))}, r"velocities have shape \(2, 3\)"),
        ({"masses": [1.0, 1.0]}, r"positions have shape \(3, 3\), expected \(2, 3\)"),
    ],
)
def test_unusable_arguments_are_named(water, potential, change, message):
    still = {"positions": water.positions, "velocities": np.zeros((3, 3)), "steps": 20}
    with pytest.raises(InputError, match=message):
        rollout(potential, **{**still, **change})


def test_masses_are_asked_for(water):
    bare = Potential(springs(water).program, springs(water).params)
    with pytest.raises(InputError, match="give masses"):
        rollout(bare, water.positions, np.zeros((3, 3)), steps=10)
