"""Properties of liquids, compared with closed forms, MDAnalysis and finite differences."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxff import InputError, cell, units
from jaxff.analysis import (
    compressibility,
    dielectric_constant,
    dipole_moments,
    enthalpies,
    enthalpy_of_vaporization,
    equilibration,
    estimate,
    heat_capacity_and_error,
    hydrogen_bonds,
    mass_densities,
    molecule_pairs,
    radial_distribution,
    radial_distributions,
    thermal_expansion,
    volumes,
)
from jaxff.solvent.models import water_model
from jaxff.solvent.parts import Copies, join, of_water

TRICLINIC = np.array([[11.0, 0.0, 0.0], [2.5, 12.0, 0.0], [-3.0, 4.0, 13.0]])
BOXES = {"orthorhombic": np.diag([11.0, 12.0, 13.0]), "triclinic": TRICLINIC}
KT = units.BOLTZMANN * 298.15


def waters(count: int, box: np.ndarray, seed: int):
    """Rigid water molecules at random places and orientations."""
    water, random = of_water(water_model("tip3p")), np.random.default_rng(seed)
    turns, _ = np.linalg.qr(random.normal(size=(count, 3, 3)))
    places = random.random((count, 1, 3)) @ box
    return join([Copies(water, water.positions @ turns + places)], box, "water")


def universe(system, frames: np.ndarray, boxes: np.ndarray):
    """The frames (F, N, 3) Å with boxes (F, 3, 3) Å as an MDAnalysis universe."""
    mda = pytest.importorskip("MDAnalysis")
    n = len(system)
    found = mda.Universe.empty(
        n, n_residues=len(system.residue_names), atom_resindex=system.residues, trajectory=True
    )
    found.add_TopologyAttr("name", list(system.symbols))
    found.add_TopologyAttr("type", list(system.symbols))
    found.add_TopologyAttr("charges", system.tables.charges)
    found.add_TopologyAttr("masses", system.masses)
    polar = [tuple(map(int, b)) for b in system.bonds if (system.numbers[b] > 1).any()]
    found.add_TopologyAttr("bonds", polar)
    sizes = [np.concatenate(cell.lengths_and_angles(box)) for box in boxes]
    found.load_new(frames.astype(np.float32), dimensions=np.array(sizes, np.float32))
    return found


@pytest.fixture(params=list(BOXES))
def boxed(request):
    """Water in an orthorhombic or triclinic box, with frames in boxes of several sizes."""
    box = BOXES[request.param]
    system = waters(40, box, 0)
    random = np.random.default_rng(1)
    boxes = box * random.uniform(0.98, 1.05, (4, 1, 1))
    frames = np.stack([waters(40, b, 10 + k).positions for k, b in enumerate(boxes)])
    return system, frames, boxes


@pytest.mark.parametrize("elements", [("O", None), ("O", "H")])
def test_g_of_r_with_the_box_of_each_frame_is_that_of_mdanalysis(boxed, elements):
    system, frames, boxes = boxed
    edges = np.linspace(0.5, 4.9, 23)
    pairs = molecule_pairs(system, *elements)
    ours = np.asarray(radial_distributions(frames, pairs, edges, boxes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rdf = pytest.importorskip("MDAnalysis.analysis.rdf")
        found = universe(system, frames, boxes)
        first = found.select_atoms(f"name {elements[0]}")
        second = found.select_atoms(f"name {elements[1] or elements[0]}")
        block = (1, 1) if elements[1] is None else (1, 2)
        for f in range(len(frames)):
            theirs = rdf.InterRDF(first, second, 22, (0.5, 4.9), exclusion_block=block)
            theirs.run(start=f, stop=f + 1)
            # MDAnalysis works in single precision, so that one pair may be in another bin.
            shells = 4.0 / 3.0 * np.pi * np.diff(edges**3) * len(pairs) / cell.volume(boxes[f])
            np.testing.assert_allclose(
                np.cumsum(ours[f] * shells), np.cumsum(theirs.results.rdf * shells), atol=1.01
            )
            assert np.isclose(ours[f], theirs.results.rdf, rtol=2e-5, atol=1e-5).sum() >= 20
    mean = radial_distribution(frames, pairs, edges, boxes)
    np.testing.assert_allclose(mean, ours.mean(axis=0), rtol=1e-12)


def test_g_of_r_of_an_ideal_gas_in_a_triclinic_box_of_varying_size_is_one():
    random = np.random.default_rng(2)
    boxes = TRICLINIC * random.uniform(0.9, 1.1, (200, 1, 1))
    R = random.random((200, 40, 3)) @ boxes
    i, j = np.triu_indices(40, 1)
    edges = np.linspace(1.0, 4.5, 8)
    g = radial_distribution(R, np.stack([i, j], axis=1), edges, boxes)
    expected = 200 * 780 * 4.19 * np.diff(edges**3) / np.linalg.det(TRICLINIC)  # pairs in a bin
    assert (np.abs(np.asarray(g) - 1.0) < 4.0 / np.sqrt(expected)).all()


def test_smooth_g_of_r_has_gradients_in_positions_boxes_and_weights():
    random = np.random.default_rng(3)
    boxes = TRICLINIC * random.uniform(0.95, 1.05, (3, 1, 1))
    R = random.random((3, 6, 3)) @ boxes
    pairs, w = np.array([[0, 1], [2, 3], [0, 5], [1, 4]]), np.array([0.2, 0.3, 0.5])
    target = random.normal(size=8)

    def loss(R, boxes, w):
        edges = np.linspace(0.5, 4.5, 9)
        return jnp.sum(target * radial_distribution(R, pairs, edges, boxes, 0.3, w))

    slopes = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(R, boxes, w)
    shift = random.normal(size=3)
    moves = random.normal(size=R.shape), random.normal(size=boxes.shape), shift - shift.mean()
    h = 1e-6
    for k, (slope, move) in enumerate(zip(slopes, moves, strict=True)):
        points = [[x + s * h * (k == n) * m for n, (x, m) in
                   enumerate(zip((R, boxes, w), moves, strict=True))] for s in (1, -1)]  # fmt: skip
        expected = (loss(*points[0]) - loss(*points[1])) / (2 * h)
        np.testing.assert_allclose(jnp.sum(slope * move), expected, rtol=1e-6, atol=1e-9)


def test_pairs_of_molecules_are_all_pairs_of_different_molecules_once():
    system = waters(7, TRICLINIC, 4)
    for first, second in (("O", None), ("O", "H"), ("H", "O"), ("H", "H"), (range(5), range(3, 9))):
        a, b = (np.flatnonzero(np.array(system.symbols) == x) if isinstance(x, str) else x
                for x in (first, first if second is None else second))  # fmt: skip
        expected = {
            frozenset((int(i), int(j))) for i in a for j in b
            if system.molecules[i] != system.molecules[j]
        }  # fmt: skip
        pairs = molecule_pairs(system, first, second)
        assert len(pairs) == len(expected)
        assert {frozenset(p) for p in pairs.tolist()} == expected
    inside = molecule_pairs(system, "O", "H", intramolecular=True)
    assert len(inside) == 7 * 14
    with pytest.raises(InputError, match="no atom 'C'; use H, O"):
        molecule_pairs(system, "C")
    with pytest.raises(InputError, match="no pairs"):
        molecule_pairs(system, [0], [1, 2])


@pytest.mark.parametrize(
    ("criterion", "theirs"),
    [
        ({"distance": 3.4, "angle": 40.0, "vertex": "hydrogen"}, (3.4, 140.0)),
        ({"distance": 4.0, "angle": 60.0, "vertex": "hydrogen"}, (4.0, 120.0)),
    ],
)
def test_hydrogen_bonds_are_those_of_mdanalysis(boxed, criterion, theirs):
    system, frames, boxes = boxed
    ours = hydrogen_bonds(system, frames, boxes, **criterion)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("MDAnalysis.analysis.hydrogenbonds.hbond_analysis")
        found = module.HydrogenBondAnalysis(
            universe(system, frames, boxes), hydrogens_sel="name H", acceptors_sel="name O",
            d_a_cutoff=theirs[0], d_h_a_angle_cutoff=theirs[1],
        ).run()  # fmt: skip
    assert list(ours) == ["O-H···O"]
    np.testing.assert_array_equal(ours["O-H···O"], found.count_by_time())
    assert ours["O-H···O"].sum() > 10


def test_the_criterion_of_luzar_and_chandler_is_the_angle_at_the_donor():
    water = of_water(water_model("tip3p"))
    o, h = water.positions[0], water.positions[1]
    axis = (h - o) / np.linalg.norm(h - o)
    normal = np.cross(axis, water.positions[2] - o)
    normal /= np.linalg.norm(normal)
    box = np.diag([20.0, 20.0, 20.0])
    for distance, degrees, count in ((3.4, 29.0, 1), (3.4, 31.0, 0), (3.6, 5.0, 0)):
        angle = np.radians(degrees)
        place = o + distance * (np.cos(angle) * axis + np.sin(angle) * normal)
        # The acceptor's hydrogens point away; the pair is divided by a face of the box.
        other = np.stack([place, place + 0.9 * axis, place + 0.9 * normal])
        R = np.concatenate([water.positions, other]) + np.array([19.0, 19.5, 0.2]) - o
        system = join([Copies(water, np.stack([R[:3], R[3:]]))], box, "water")
        R[3:] -= 20.0 * np.round(R[3] / 20.0)
        assert hydrogen_bonds(system, R[None], box[None])["O-H···O"].tolist() == [count]


def test_the_dielectric_constant_is_that_of_mdanalysis(boxed):
    system, frames, boxes = boxed
    dipoles = dipole_moments(frames, system.tables.charges, system.molecules)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("MDAnalysis.analysis.dielectric")
        atoms = universe(system, frames, boxes).atoms
        theirs = module.DielectricConstant(atoms, temperature=298.15, make_whole=True).run()
    ours = dielectric_constant(dipoles, boxes, 298.15)
    np.testing.assert_allclose(ours.mean, theirs.results.eps_mean, rtol=2e-4)


def test_the_dielectric_constant_of_independent_dipoles_is_the_closed_form():
    # N dipoles p without interactions: ⟨M²⟩ = N p².
    random = np.random.default_rng(5)
    n, p, frames = 50, 0.5, 4000
    p_vectors = random.normal(size=(frames, n, 3))
    p_vectors *= p / np.linalg.norm(p_vectors, axis=-1, keepdims=True)
    boxes = np.broadcast_to(np.diag([20.0, 21.0, 22.0]), (frames, 3, 3))
    ours = dielectric_constant(p_vectors.sum(axis=1), boxes, 298.15)
    exact = 1.0 + 4.0 * np.pi / 3.0 * units.COULOMB * n * p**2 / (20.0 * 21.0 * 22.0 * KT)
    assert abs(ours.mean - exact) < 4.0 * ours.error
    # χ² distribution with 3 F degrees of freedom
    np.testing.assert_allclose(ours.error, (exact - 1.0) * np.sqrt(2.0 / 3.0 / frames), rtol=0.2)


def test_the_dielectric_constant_has_gradients_in_positions_and_boxes(boxed):
    system, frames, boxes = boxed
    charges, molecules = system.tables.charges, system.molecules

    def value(R, boxes):
        return dielectric_constant(dipole_moments(R, charges, molecules), boxes, 298.15).mean

    random = np.random.default_rng(15)
    moves = random.normal(size=frames.shape), random.normal(size=boxes.shape)
    slopes = jax.grad(value, argnums=(0, 1))(frames, boxes)
    h = 1e-5
    expected = [
        (value(frames + h * moves[0], boxes) - value(frames - h * moves[0], boxes)) / (2 * h),
        (value(frames, boxes + h * moves[1]) - value(frames, boxes - h * moves[1])) / (2 * h),
    ]
    ours = [jnp.sum(slope * move) for slope, move in zip(slopes, moves, strict=True)]
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_dipole_moments_do_not_depend_on_images_and_need_neutral_molecules():
    system = waters(5, TRICLINIC, 6)
    steps = np.random.default_rng(7).integers(-2, 3, (5, 3)) @ TRICLINIC
    charges, molecules = system.tables.charges, system.molecules
    first = dipole_moments(system.positions, charges, molecules)
    second = dipole_moments(system.positions + steps[molecules], charges, molecules)
    np.testing.assert_allclose(first, second, atol=1e-9)
    with pytest.raises(InputError, match=r"molecule 4 has the charge \+1.000 e"):
        dipole_moments(system.positions, charges + (np.arange(15) == 13), molecules)


def sampled(frames: int = 40_000, seed: int = 8):
    """Correlated Gaussian volumes Å³ and energies kcal/mol with known fluctuations."""
    random, a = np.random.default_rng(seed), 0.8
    noise = random.normal(size=(frames, 2)) * np.sqrt(1 - a**2)
    x = np.zeros((frames, 2))
    for f in range(1, frames):
        x[f] = a * x[f - 1] + noise[f]
    V = 6500.0 + 80.0 * x[:, 0]
    U = -2000.0 + 15.0 * (0.6 * x[:, 0] + 0.8 * x[:, 1])
    return np.cbrt(V)[:, None, None] * np.eye(3), U


def test_fluctuations_of_volume_and_energy_give_the_closed_forms():
    boxes, energies = sampled()
    T, kT = 298.15, KT
    ours = compressibility(boxes, T)
    exact = units.BAR * 80.0**2 / (6500.0 * kT)
    assert abs(ours.mean - exact) < 4.0 * ours.error
    # The variance of the mean of squares of this process is that of F (1 − a²)/(1 + a²) frames.
    independent = len(boxes) * (1 - 0.8**2) / (1 + 0.8**2)
    np.testing.assert_allclose(ours.error, exact * np.sqrt(2.0 / independent), rtol=0.25)
    pressure = 1000.0
    heat = enthalpies(energies, boxes, pressure)
    pV = pressure * units.BAR
    ours = thermal_expansion(boxes, heat, T)
    exact = (80.0 * 15.0 * 0.6 + pV * 80.0**2) / (6500.0 * kT * T)
    assert abs(ours.mean - exact) < 4.0 * ours.error
    ours = heat_capacity_and_error(heat, T, 100)
    exact = 15.0**2 + (pV * 80.0) ** 2 + 2.0 * pV * 80.0 * 15.0 * 0.6
    exact = exact / (kT * T) + 50.0 * units.BOLTZMANN
    assert abs(ours.mean - exact) < 4.0 * ours.error


def test_fluctuations_are_precise_in_float32():
    boxes, energies = sampled(2000)
    exact = compressibility(boxes, 298.15).mean, thermal_expansion(boxes, energies, 298.15).mean
    with jax.enable_x64(False):
        ours = compressibility(boxes, 298.15).mean, thermal_expansion(boxes, energies, 298.15).mean
    np.testing.assert_allclose(ours, exact, rtol=2e-3)


def test_weights_are_those_of_repeated_frames_and_have_gradients():
    boxes, _ = sampled(400)
    counts = np.random.default_rng(9).integers(0, 4, 400)
    w = counts / counts.sum()
    ours = compressibility(boxes, 298.15, weights=w).mean
    expected = compressibility(np.repeat(boxes, counts, axis=0), 298.15).mean
    np.testing.assert_allclose(ours, expected, rtol=1e-10)
    move = np.random.default_rng(10).normal(size=400) * 1e-4
    move -= move.mean()
    slope = jax.grad(lambda w: compressibility(boxes, 298.15, weights=w).mean)(w) @ move
    values = [compressibility(boxes, 298.15, weights=w + s * 1e-3 * move).mean for s in (1, -1)]
    np.testing.assert_allclose(slope, (values[0] - values[1]) / 2e-3, rtol=1e-6)


def test_density_and_volume_are_those_of_the_system():
    system = waters(5, TRICLINIC, 11)
    np.testing.assert_allclose(volumes(TRICLINIC), np.linalg.det(TRICLINIC), rtol=1e-12)
    ours = mass_densities(np.stack([TRICLINIC, 2 * TRICLINIC]), system.masses)
    np.testing.assert_allclose(ours, [system.density, system.density / 8], rtol=1e-12)
    with pytest.raises(InputError, match="lattice vectors as rows"):
        volumes(np.ones(3))


def test_the_enthalpy_of_vaporization_is_the_closed_form():
    # Liquid: ten molecules, −40 kcal/mol ± 1/10; gas: 2 kcal/mol ± 1/20.
    random = np.random.default_rng(12)
    liquid, gas = -40.0 + random.normal(size=100), 2.0 + random.normal(size=400)
    ours = enthalpy_of_vaporization(liquid, 10, gas, 298.15)
    np.testing.assert_allclose(ours.mean, gas.mean() + KT - liquid.mean() / 10, rtol=1e-12)
    assert 0.03 < ours.error < 0.1
    rigid = enthalpy_of_vaporization(liquid, 10, [0.0, 0.0], 298.15)
    np.testing.assert_allclose(rigid.mean, KT - liquid.mean() / 10, rtol=1e-12)


def test_a_function_of_averages_has_the_error_of_many_repetitions():
    random = np.random.default_rng(13)
    x = random.normal(2.0, 0.5, (300, 400))
    y = x + random.normal(3.0, 0.5, (300, 400))
    found = [estimate(lambda a, b: a / b, *row) for row in zip(x, y, strict=True)]
    spread = np.std([float(e.mean) for e in found])
    # The errors of 300 repetitions; the correlation of x and y matters.
    np.testing.assert_allclose(np.mean([float(e.error) for e in found]), spread, rtol=0.15)


def test_equilibration_leaves_out_a_drift_at_the_start():
    random = np.random.default_rng(14)
    noise = random.normal(size=1000)
    assert equilibration(noise) <= 200
    drift = noise + 20.0 * np.exp(-np.arange(1000) / 60.0)
    assert 150 <= equilibration(drift) <= 400
