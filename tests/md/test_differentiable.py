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
from jaxff import InputError, Molecule, analysis, gdml, md
from jaxff.md import NVE, Langevin, Start
from jaxff.md.differentiable import Plan, perturbation_growth, rollout, value_and_gradient
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
    run = md.simulate(
        potential, water, steps=100, start=Start(replicas=2, seed=4), output=md.Output(every=100)
    )
    return Start(jnp.asarray(run.positions[:, -1]), jnp.asarray(run.velocities[:, -1]))


@dataclass(frozen=True, eq=False)
class Well(Term):
    """½ k |r|² of each atom; counts how often it is traced."""

    n_atoms: int
    traces: list

    kind = "test well"
    columns = {"k": Column("kcal/mol/Å²")}  # noqa: RUF012

    def energies(self, params, R, space):
        self.traces.append(1)
        return {"well": 0.5 * jnp.sum(params["k"] * jnp.sum(R**2, axis=-1))}


@dataclass(frozen=True, eq=False)
class HenonHeiles(Term):
    """(x² + y²)/2 + x² y − y³/3, after Hénon and Heiles, Astron. J. 69, 73 (1964)."""

    n_atoms: int = 1

    kind = "test henon-heiles"
    columns = {"size": Column("kcal/mol")}  # noqa: RUF012

    def energies(self, params, R, space):
        x, y, _ = R[0]
        return {"well": params["size"] * (0.5 * (x**2 + y**2) + x**2 * y - y**3 / 3)}


@pytest.fixture(scope="module")
def well():
    """The quickest potential whose forces are not linear."""
    return Potential.of("well", HenonHeiles(), {"size": np.array(1.0)})


@pytest.fixture(scope="module")
def inside():
    """Positions and velocities (2, 1, 3) of two replicas in the well."""
    rng = np.random.default_rng(6)
    return Start(0.2 * rng.standard_normal((2, 1, 3)), 0.2 / TIME * rng.standard_normal((2, 1, 3)))


def richardson(function, step):
    """The derivative at 0, to fourth order in the step."""
    near, far = ((function(h) - function(-h)) / (2 * h) for h in (step, 2 * step))
    return (4 * near - far) / 3


# -- the trajectory ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ensemble", "method"),
    [
        (NVE(400.0, dt=0.4), "forward"),
        (Langevin(400.0, friction=30.0, dt=0.4), "reversible"),
        (Langevin([300.0, 400.0], final_temperature=900.0, friction=30.0), "checkpoint"),
    ],
)
def test_it_is_the_trajectory_of_simulate(water, potential, ensemble, method):
    run = md.simulate(
        potential, water, ensemble, steps=60, start=Start(replicas=2, seed=7),
        output=md.Output(every=20),
    )  # fmt: skip
    start = Start(run.positions[:, 0], run.velocities[:, 0], seed=7)
    found = rollout(potential, start, ensemble, Plan(60, 20, method))
    np.testing.assert_allclose(found.positions, run.positions, atol=1e-13)
    np.testing.assert_allclose(found.velocities, run.velocities, atol=1e-14)


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
            moved, Start(x0[None], v0[None]), NVE(dt=dt), Plan(steps, 50, method), masses=[mass]
        ).positions[-1, 0]  # fmt: skip

    np.testing.assert_allclose(last(jnp.array([k0])), exact(k0).real, rtol=1e-11)
    jacobian = jax.jacfwd if method == "forward" else jax.jacrev
    found = jacobian(last)(jnp.array([k0]))[:, 0]
    np.testing.assert_allclose(found, exact(k0 + 1e-30j).imag / 1e-30, rtol=1e-9)


def hybrid(molecule, model):
    """A part of GAFF-Morse, to compile quickly, and a share of the kernel with its atoms placed."""
    return jaxff.gaff(molecule, form="morse", fourier_terms=0).only(
        "bond", "angle"
    ) + 0.7 * model.on(range(9))


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
    rng = np.random.default_rng(0)
    R, masses = jnp.asarray(frames.positions[3]), frames.molecule.masses
    v = jnp.asarray(md.kinetics.maxwell_boltzmann(masses, 400.0, rng))
    weights = rng.standard_normal((3, 9, 3))

    def loss(params, R, v, drive, method):
        dt, temperature, friction, masses = drive
        kind = NVE(dt=dt) if ensemble == "nve" else Langevin(temperature, friction=friction, dt=dt)
        frames = rollout(
            potential.replace(params), Start(R, v, seed=5), kind, Plan(60, 30, method),
            masses=masses,
        )  # fmt: skip
        return jnp.sum(weights * (frames.positions + 20.0 * frames.velocities))

    point = (potential.params, R, v, (0.5, 350.0, 3.0, jnp.asarray(masses)))
    random = jax.tree.map(lambda x: x * (1 + rng.standard_normal(np.shape(x))), point)
    gradients = {
        method: jax.jit(jax.grad(partial(loss, method=method), argnums=(0, 1, 2, 3)))(*point)
        for method in REVERSE
    }
    # Of a single number chance may leave next to nothing, from parts that cancel: its tolerance is
    # that of a relative change of dt.
    change_of_dt = abs(float(gradients[REVERSE[0]][3][0])) * point[3][0]
    a, b = (jax.tree_util.tree_leaves_with_path(gradients[method]) for method in REVERSE)
    values = jax.tree.leaves(point)
    for (path, x), (_, y), value in zip(a, b, values, strict=True):
        scale = np.abs(np.asarray(x)).max(initial=1e-9)
        if np.ndim(x) == 0:
            scale = max(scale, change_of_dt / abs(float(value)))
        np.testing.assert_allclose(
            x, y, rtol=1e-6, atol=1e-8 * scale, err_msg=jax.tree_util.keystr(path)
        )

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
def test_replicas_have_the_sum_of_their_gradients(well, inside, method):
    ensemble, plan = Langevin(20.0, friction=20.0, dt=5.0), Plan(40, 8, method)
    inside = inside.positions, inside.velocities
    weights = np.random.default_rng(2).standard_normal((2, 6, 1, 3))

    def loss(potential, start, weights, seed):
        frames = rollout(potential, Start(*start, seed=seed), ensemble, plan, masses=[1.0])
        return jnp.sum(weights * frames.positions)

    both = jax.grad(loss, argnums=(0, 1))(well, inside, weights, 3)
    alone = [
        jax.grad(loss, argnums=(0, 1))(well, tuple(x[r] for x in inside), weights[r], 3 + r)
        for r in range(2)
    ]
    joined = jax.tree.map(lambda a, b: a + b, *(a[0] for a in alone))
    for a, b in zip(jax.tree.leaves(joined), jax.tree.leaves(both[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    for r in range(2):
        for a, b in zip(alone[r][1], both[1], strict=True):
            np.testing.assert_allclose(a, b[r], rtol=1e-9, atol=1e-9)


def test_segments_change_the_memory_and_not_the_gradient(well, inside):
    def gradient(segment):
        def loss(potential):
            plan = Plan(60, 30, segment=segment)
            return weighted(rollout(potential, inside, NVE(dt=5.0), plan, masses=[1.0]))

        return jax.grad(loss)(well)

    whole = gradient(30)
    for segment in (None, 1):
        for a, b in zip(*map(jax.tree.leaves, (whole, gradient(segment))), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_float32_has_the_gradient_to_three_digits(well, inside):
    def loss(potential, method):
        plan = Plan(100, 20, method)
        return weighted(rollout(potential, inside, NVE(dt=5.0), plan, masses=[1.0]))

    exact = jax.grad(loss)(well, "checkpoint").params["well"]["size"]
    for method in REVERSE:
        found = jax.grad(loss)(well.astype(jnp.float32), method).params["well"]["size"]
        assert found.dtype == jnp.float32
        assert float(found) == pytest.approx(float(exact), rel=1e-3)


# -- cost -------------------------------------------------------------------------------------


def memory(well, method, steps) -> int:
    """Bytes that a compiled gradient needs beside its arguments and results."""

    def loss(potential, start):
        last = rollout(
            potential, Start(start, start), plan=Plan(steps, steps, method), masses=[1.0]
        ).positions[-1]
        return jnp.sum(last**2)

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(well, jnp.zeros((1, 3))).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_grows_as_it_is_said_to(well):
    few, many = 256, 4096
    sizes = {method: [memory(well, method, steps) for steps in (few, many)] for method in METHODS}
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
            weighted, moved,
            Start(rng.standard_normal((2, 3)), 0.01 * rng.standard_normal((2, 3)), seed=seed),
            Langevin(temperature, friction=friction, dt=dt), Plan(20, 5, method),
            masses=[1.0, 2.0],
        )  # fmt: skip

    run(np.array([80.0, 90.0]), 0, 0.5, 1.0, 300.0)
    before = len(traces)
    run(np.array([70.0, 95.0]), 1, 0.4, 2.0, 200.0)
    assert len(traces) == before > 0


# -- value_and_gradient and its trust -----------------------------------------------------------


def test_all_methods_give_the_gradient_of_the_rows_asked_for():
    bonds = jaxff.gaff(Molecule.from_smiles("C=O")).only("bond")
    velocities = md.kinetics.maxwell_boltzmann(
        bonds.molecule.masses, 300.0, np.random.default_rng(2)
    )
    found = {
        method: value_and_gradient(
            weighted, bonds, Start(velocities=velocities), plan=Plan(30, method=method),
            trainable=["bond.k", "bond.length:c-o"],
        )
        for method in METHODS
    }  # fmt: skip
    rows = bonds.program.placed[0].term.labels
    for gradient in found.values():
        assert gradient.trust.trusted
        slopes = gradient.params["bond"]
        assert slopes["k"].all()
        assert [name for name, x in zip(rows, slopes["length"], strict=True) if x] == ["c-o"]
        assert gradient.value == pytest.approx(found["forward"].value, rel=1e-12)
        for key, slope in slopes.items():
            np.testing.assert_allclose(slope, found["forward"].params["bond"][key], rtol=1e-9)
    assert found["reversible"].trust.miss < 1e-12
    assert found["checkpoint"].trust.miss is None


def orbit(energy):
    """A start (1, 3) in the well of this energy, kcal/mol.

    With a mass of 1 amu the unit of time of Hénon and Heiles is TIME, 48.9 fs.
    """
    y, vy = 0.1, 0.05
    vx = np.sqrt(2 * (energy - (0.5 * y**2 - y**3 / 3)) - vy**2)
    return Start(np.array([[0.0, y, 0.0]]), np.array([[vx, vy, 0.0]]) / TIME)


def test_growth_is_that_of_two_trajectories(potential, start, water):
    """A small change of the start, brought forward by the dynamics themselves."""
    times, growth = perturbation_growth(potential, start, NVE(dt=0.5), 400)
    assert times[-1] == 200.0
    masses, rng = water.masses[:, None], np.random.default_rng(0)
    change = [rng.standard_normal((2, 3, 3)) / np.sqrt(masses) * unit for unit in (5.3, 1.0)]

    def run(h):
        arrays = start.positions, start.velocities
        moved = Start(*(x + h * c for x, c in zip(arrays, change, strict=True)))
        return rollout(potential, moved, NVE(dt=0.5), Plan(400, 400 // (len(times) - 1), "forward"))

    dR, dv = ((a - b) / 2e-7 for a, b in zip(run(1e-7), run(-1e-7), strict=True))
    norm = np.sqrt((masses * (np.square(dR) / 5.3**2 + np.square(dv))).sum(axis=(-2, -1)))
    np.testing.assert_allclose(growth, (norm / norm[:, :1]).max(axis=0), rtol=1e-5)


def test_chaos_has_its_known_exponent(well):
    """0.13 at an energy of 1/6: Benettin, Galgani and Strelcyn, Phys. Rev. A 14, 2338 (1976)."""
    start = orbit(1 / 6 - 1e-3)
    times, growth = perturbation_growth(well, start, NVE(dt=1.0), 60_000, masses=[1.0])
    exponent = np.log(growth[-1]) / (times[-1] / TIME)
    assert exponent == pytest.approx(0.13, abs=0.04)


@pytest.mark.parametrize("method", METHODS)
def test_a_regular_orbit_is_trusted_and_a_chaotic_one_is_not(well, method):
    """And a trusted gradient foretells what a change of one in 10,000 does; the other does not."""

    def last(frames):
        return frames.positions[-1, 0, 0]

    settings = {"ensemble": NVE(dt=1.0), "plan": Plan(8000, 8000, method), "masses": [1.0]}
    errors = []
    for energy in (1 / 24, 1 / 6 - 1e-3):
        start = orbit(energy)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = value_and_gradient(last, well, start, **settings)
        trust, slope = found.trust, float(found.params["well"]["size"])
        values = [
            float(last(rollout(well.replace({"well": {"size": s}}), start, **settings)))
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


def test_a_way_back_that_misses_is_seen(well, inside):
    """Strong friction forgets the past, and no inverse brings it back from rounded numbers."""

    def grad(every, method):
        ensemble, plan = Langevin(10.0, friction=50.0, dt=1.0), Plan(1000, every, method)
        return value_and_gradient(weighted, well, inside, ensemble, plan, masses=[1.0])

    with pytest.warns(UntrustedWarning, match=r"has an error of .* record more"):
        lost = grad(1000, "reversible")
    assert not lost.trust.trusted
    assert not lost.trust.miss < 1e-3
    assert np.isnan(lost.params["well"]["size"])
    # Frames in between hold it.
    found, exact = (grad(50, method) for method in ("reversible", "checkpoint"))
    assert found.trust.trusted
    assert found.trust.miss < 1e-6
    assert found.params["well"]["size"] == pytest.approx(exact.params["well"]["size"], rel=1e-6)


def test_numbers_that_are_not_finite_are_not_trusted(well, inside):
    with pytest.warns(UntrustedWarning, match="not finite"):
        found = value_and_gradient(
            lambda frames: jnp.sqrt(0.0 * frames.positions[0, -1, 0, 0]), well, inside,
            plan=Plan(10), masses=[1.0],
        )  # fmt: skip
    assert not found.trust.trusted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ensemble": md.CSVR()}, "'csvr' cannot be differentiated: use one of nve, langevin"),
        ({"positions": np.zeros((2, 3))}, r"got \(2, 3\)"),
        ({"velocities": np.zeros((2, 3))}, r"got \(2, 3\)"),
        ({"velocities": None}, "positions or velocities are missing"),
        ({"masses": [1.0, 1.0]}, r"positions must have shape \(2, 3\) .*got \(3, 3\)"),
    ],
)
def test_unusable_arguments_are_named(water, potential, change, message):
    arrays = {"positions": water.positions, "velocities": np.zeros((3, 3)), **change}
    start = Start(arrays.pop("positions"), arrays.pop("velocities"))
    with pytest.raises(InputError, match=message):
        rollout(potential, start, plan=Plan(20), **arrays)


def test_masses_are_asked_for(water):
    bare = Potential(springs(water).program, springs(water).params)
    with pytest.raises(InputError, match="give masses"):
        rollout(bare, Start(water.positions, np.zeros((3, 3))))
    with pytest.raises(InputError, match="give masses"):
        perturbation_growth(bare, Start(water.positions, np.zeros((3, 3))))


# -- an experiment ------------------------------------------------------------------------------


@pytest.mark.slow  # as the notebook "stretch" does, which runs every day
def test_a_morse_bond_is_fitted_to_the_peak_of_its_stretch():
    """Newton's steps on the width of ethanol's O–H bond, by gradients through the trajectory."""
    ethanol = Molecule.from_smiles("CCO")
    potential = jaxff.gaff(ethanol, form="morse", fourier_terms=0)
    labels = potential.program.placed[0].term.labels
    oxygen, hydrogen, row = 2, 8, labels.index("ho-oh")
    assert ethanol.numbers[[oxygen, hydrogen]].tolist() == [8, 1]
    assert [oxygen, hydrogen] in ethanol.bonds.tolist()
    rng, target = np.random.default_rng(3), 3670.0
    velocities = np.stack(
        [md.kinetics.maxwell_boltzmann(ethanol.masses, 600.0, rng) for _ in range(4)]
    )
    start = Start(np.tile(ethanol.positions, (4, 1, 1)), velocities)

    def spectrum(frames):
        """That of the speed at which the bond's length changes."""
        bond = frames.positions[:, :, hydrogen] - frames.positions[:, :, oxygen]
        speed = frames.velocities[:, :, hydrogen] - frames.velocities[:, :, oxygen]
        along = jnp.sum(speed * bond, axis=-1) / jnp.linalg.norm(bond, axis=-1)
        waves = along[..., None, None] * jnp.eye(3)[0]
        frequencies, densities = analysis.vdos(waves, np.ones(1), 2.0)
        return frequencies, densities.mean(axis=0)

    def peak(frames):
        return analysis.spectral_centroid(*spectrum(frames), 2000.0, 4500.0)

    peaks = []
    for _ in range(3):
        found = value_and_gradient(
            peak, potential, start, plan=Plan(400, 4, "reversible"), trainable=["bond.width:ho-oh"],
        )  # fmt: skip
        assert found.trust.trusted
        peaks.append(found.value)
        bond = potential.params["bond"]
        step = (target - found.value) / found.params["bond"]["width"][row]
        width = bond["width"].at[row].add(step)
        potential = potential.replace({**potential.params, "bond": {**bond, "width": width}})
    assert peaks[0] < 3100.0
    assert abs(peaks[2] - target) < 0.1
    # The whole molecule's spectrum, of longer runs from elsewhere.
    run = md.simulate(
        potential, ethanol, NVE(600.0), steps=8000, start=Start(replicas=4, seed=8),
        output=md.Output(every=4),
    )  # fmt: skip
    frequencies, density = analysis.vdos(run.velocities, ethanol.masses, 2.0, segment=1000)
    above = frequencies > 3300.0
    highest = frequencies[above][density.mean(axis=0)[above].argmax()]
    assert float(highest) == pytest.approx(target, abs=30.0)
