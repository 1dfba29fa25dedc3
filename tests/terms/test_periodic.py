"""The nonbonded term of a box against OpenMM, NIST's SPC/E water and finite differences."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import openmm
import pytest
from openmm import unit

import jaxff
from jaxff import Potential
from jaxff.errors import InputError
from jaxff.neighbors import NeighborList
from jaxff.terms import ewald
from jaxff.terms.boys import boys, boys_numpy, smooth_coulomb
from jaxff.terms.pair_sum import intervals
from jaxff.terms.periodic import periodic

KJ = 4.184
COULOMB = 332.0637132991921  # OpenMM's constant, kcal/mol Å/e²
CUBE = 20.0 * np.eye(3)
# The Reference platform of OpenMM 8.6.1 loses pairs in some other triclinic boxes of this size.
TRICLINIC = np.array([[21.0, 0.0, 0.0], [6.0, 20.0, 0.0], [5.0, 8.0, 22.0]])


def mixture(box, seed=0, neutral=True):
    """Fields, parameters and positions of chains of five atoms, waters and ions in a box."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) / 4.0
    sizes = rng.choice([1, 3, 5], len(grid), p=[0.3, 0.5, 0.2])
    R, exclusions, pairs14, rows, types = [], [], [], [], []
    for centre, size in zip(grid, sizes, strict=True):
        start = len(R)
        x = centre @ box + rng.normal(0.0, 0.2, 3)
        for k in range(size):
            R.append(x)
            x = x + np.array([0.3 * (-1) ** k, 0.9, 0.0]) + rng.normal(0.0, 0.1, 3)
            types.append({1: 0, 3: 1 + min(k, 1), 5: 3 + k % 3}[size])
        for a in range(size):
            for b in range(a + 1, size):
                if b - a < 4:
                    exclusions.append((start + a, start + b))
                if b - a == 3:
                    pairs14.append((start + b, start + a))
                    rows.append(a)
    n = len(R)
    charges = rng.normal(0.0, 0.5, n)
    charges -= charges.mean() if neutral else -0.02
    fields = {
        "n_atoms": n,
        "lj_rows": np.array(types, np.int32),
        "charge_rows": np.arange(n, dtype=np.int32),
        "exclusions": np.array(exclusions, np.int32),
        "pairs14": np.array(pairs14, np.int32),
        "rows14": np.array(rows, np.int32),
        "overrides": np.zeros((0, 2), np.int32),
        "lj_labels": tuple("ABCDEF"),
    }
    params = {
        "sigma": np.array([2.5, 3.15, 1.0, 2.9, 2.2, 1.8]),
        "epsilon": np.array([0.1, 0.15, 0.0, 0.08, 0.02, 0.05]),
        "charge": charges,
        "lj14": np.array([0.5, 0.7]),
        "coulomb14": np.array([0.8, 0.6]),
        "coulomb_constant": np.array(COULOMB),
        "c12": np.zeros(0),
        "c6": np.zeros(0),
    }
    return fields, params, np.array(R)


def openmm_force(term, params):
    """OpenMM's NonbondedForce of a term."""
    force = openmm.NonbondedForce()
    sigma, epsilon = (params[k][term.lj_rows] for k in ("sigma", "epsilon"))
    charge = params["charge"][term.charge_rows]
    for q, s, e in zip(charge, sigma, epsilon, strict=True):
        force.addParticle(q, 0.1 * s, KJ * e)
    scaled = {tuple(sorted(p)): r for p, r in zip(term.pairs14.tolist(), term.rows14, strict=True)}
    for i, j in term.exclusions.tolist():
        row = scaled.get((min(i, j), max(i, j)))
        qq, lj = (0.0, 0.0) if row is None else (params["coulomb14"][row], params["lj14"][row])
        mean, depth = 0.5 * (sigma[i] + sigma[j]), np.sqrt(epsilon[i] * epsilon[j])
        force.addException(i, j, qq * charge[i] * charge[j], 0.1 * mean, KJ * lj * depth)
    force.setCutoffDistance(0.1 * term.cutoff)
    force.setUseDispersionCorrection(term.dispersion_correction)
    if term.switch is not None:
        force.setUseSwitchingFunction(True)
        force.setSwitchingDistance(0.1 * term.switch)
    if term.electrostatics == "pme":
        force.setNonbondedMethod(openmm.NonbondedForce.PME)
        force.setPMEParameters(10.0 * term.alpha, *term.grid)
    else:
        force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    return force


def openmm_energy_and_forces(force, R, box):
    system = openmm.System()
    for _ in R:
        system.addParticle(1.0)
    system.addForce(force)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPeriodicBoxVectors(*(0.1 * box))
    context.setPositions(0.1 * R)
    state = context.getState(getEnergy=True, getForces=True)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    return state.getPotentialEnergy().value_in_unit(
        unit.kilojoule_per_mole
    ) / KJ, forces / KJ / 10.0


def openmm_terms(term, params, R, box):
    """OpenMM's energies by term, from forces without the other terms."""

    def energy(particle_charges=0.0, particle_lj=0.0, pair_charges=0.0, pair_lj=0.0, tail=False):
        force = openmm_force(term, params)
        force.setUseDispersionCorrection(tail)
        for i in range(force.getNumParticles()):
            q, s, e = force.getParticleParameters(i)
            force.setParticleParameters(i, q * particle_charges, s, e * particle_lj)
        for i in range(force.getNumExceptions()):
            a, b, qq, s, e = force.getExceptionParameters(i)
            force.setExceptionParameters(i, a, b, qq * pair_charges, s, e * pair_lj)
        return openmm_energy_and_forces(force, R, box)[0]

    lj = energy(particle_lj=1.0)
    out = {"lj": lj, "lj14": energy(pair_lj=1.0)}
    if term.dispersion_correction:
        out["lj_tail"] = energy(particle_lj=1.0, tail=True) - lj
    return {**out, "coulomb": energy(particle_charges=1.0), "coulomb14": energy(pair_charges=1.0)}


@pytest.mark.parametrize(
    ("box", "options"),
    [
        (CUBE, {}),
        (TRICLINIC, {"switch": 6.5}),
        (TRICLINIC, {"electrostatics": "cutoff", "dispersion_correction": False}),
        (CUBE, {"electrostatics": "cutoff", "switch": 5.0}),
        (CUBE, {"ewald_tolerance": 1e-5, "neutral": False}),
    ],
)
def test_terms_and_forces_match_openmm(box, options):
    fields, params, R = mixture(box, neutral=options.pop("neutral", True))
    term = periodic(fields, params, box, cutoff=8.0, **options)
    potential = Potential.of("box", term, params)
    expected = openmm_terms(term, params, R, box)
    energies = potential.terms(R, box=box)
    assert energies.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(energies[name], value, rtol=1e-6, atol=1e-9, err_msg=name)
    total, forces = openmm_energy_and_forces(openmm_force(term, params), R, box)
    energy, own = potential.energy_and_forces(R, box=box)
    np.testing.assert_allclose(energy, total, rtol=1e-6)
    np.testing.assert_allclose(own, forces, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(energy, sum(energies.values()), rtol=1e-12)


def test_settings_follow_openmms_rule():
    fields, params, R = mixture(TRICLINIC)
    term = periodic(fields, params, TRICLINIC, cutoff=8.0)
    force = openmm_force(replace(term, alpha=1e-9, grid=(1, 1, 1)), params)
    force.setPMEParameters(0.0, 0, 0, 0)
    system = openmm.System()
    for _ in R:
        system.addParticle(1.0)
    system.addForce(force)
    system.setDefaultPeriodicBoxVectors(*(0.1 * TRICLINIC))
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    alpha, *grid = force.getPMEParametersInContext(context)
    assert term.alpha == pytest.approx(0.1 * alpha, rel=1e-12)
    assert all(0 <= ours - theirs <= 3 for ours, theirs in zip(term.grid, grid, strict=True))


def nist_box(path):
    """Box, positions (oxygen first) and NIST's parameters of SPC/E water, energies in K."""
    lines = path.read_text().splitlines()
    header = [float(x) for x in lines[1].split()[1:]]
    box = np.diag(header[:3])
    if len(header) == 6:
        box[1, 0], box[2, 0], box[2, 1] = header[3:]
    rows = [line.split() for line in lines[2 : 2 + int(lines[0])]]
    R = np.array([[float(x) for x in row[1:4]] for row in rows])
    return box, R


def spce(n_waters, coulomb):
    """Fields and parameters of SPC/E water with energies in K."""
    o = 3 * np.arange(n_waters)
    bonds = [np.stack([o + a, o + b], axis=1) for a, b in ((0, 1), (0, 2), (1, 2))]
    types = np.tile(np.array([0, 1, 1], np.int32), n_waters)
    fields = {
        "n_atoms": 3 * n_waters,
        "lj_rows": types,
        "charge_rows": types,
        "exclusions": np.concatenate(bonds).astype(np.int32),
        "pairs14": np.zeros((0, 2), np.int32),
        "rows14": np.zeros(0, np.int32),
        "overrides": np.zeros((0, 2), np.int32),
        "lj_labels": ("O", "H"),
    }
    params = {
        "sigma": np.array([3.16555789, 1.0]),
        "epsilon": np.array([78.19743111, 0.0]),
        "charge": np.array([-0.84760, 0.42380]),
        "coulomb_constant": np.array(coulomb),
        **{key: np.zeros(0) for key in ("lj14", "coulomb14", "c12", "c6")},
    }
    return fields, params


def waves(box, longest):
    """One of each pair of opposite wave vectors up to a length, 1/Å, as integers (K, 3)."""
    most = np.ceil(longest * np.linalg.norm(box, axis=1)).astype(int)
    axes = [np.arange(-n, n + 1) for n in most]
    m = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    m = m[[tuple(x) > (0, 0, 0) for x in m]]
    return m[np.linalg.norm(m @ np.linalg.inv(box).T, axis=1) <= longest]


def test_spce_water_has_the_energies_of_nist(shared):
    box, R = nist_box(shared / "reference/nist_spce/spce_sample_config_periodic1.xyz")
    e, epsilon0, k = 1.602176565e-19, 8.854187817e-12, 1.3806488e-23
    fields, params = spce(100, 1e10 * e * e / (4.0 * np.pi * epsilon0 * k))
    alpha = 5.6 / 20.0
    fields |= {"alpha": alpha, "grid": (60, 60, 60), "order": 8}
    term = periodic(fields, params, box, cutoff=10.0)
    potential = Potential.of("water", term, params)
    energies = potential.terms(R, box=box)
    charges = potential._ready["water"]["charges"]
    m = waves(box, 6.0 / 20.0)
    fourier = ewald.plain_energy(R, charges, jnp.asarray(box), alpha, m[(m**2).sum(axis=1) < 27])
    own = ewald.constant_energy(charges, jnp.asarray(box), alpha)
    within = term._excluded_pairs(potential._ready["water"]).sum(jnp.asarray(R))
    mesh = ewald.mesh_energy(jnp.asarray(R), charges, jnp.asarray(box), alpha, (60, 60, 60), 8)
    np.testing.assert_allclose(energies["lj"], 9.95387e4, rtol=1e-5)
    np.testing.assert_allclose(fourier, 6.27009e3, rtol=1e-5)
    np.testing.assert_allclose(own, -2.84469e6, rtol=1e-5)
    np.testing.assert_allclose(-within, -2.80999e6, rtol=1e-5)
    np.testing.assert_allclose(energies["coulomb"] - own - within - mesh, -5.58889e5, rtol=1e-5)
    # NIST's mean over pairs does not include equal atoms.
    tail = energies["lj_tail"] * (300 * 301 * 100**2) / (300**2 * 100 * 101)
    np.testing.assert_allclose(tail, -8.23715e2, rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["spce_sample_config_periodic1.xyz", "spce_triclinic_sample_periodic1.xyz"]
)
def test_mesh_converges_to_the_plain_ewald_sum(shared, name):
    box, R = nist_box(shared / "reference/nist_spce" / name)
    fields, params = spce(len(R) // 3, 332.0637)
    box, R = jnp.asarray(box), jnp.asarray(R)
    charges = params["charge"][fields["charge_rows"]] * np.sqrt(332.0637)
    m = waves(np.asarray(box), 0.5)
    plain = jax.value_and_grad(ewald.plain_energy)(R, charges, box, 0.3, m)
    mesh = jax.value_and_grad(ewald.mesh_energy)(R, charges, box, 0.3, (64, 64, 64), 8)
    np.testing.assert_allclose(mesh[0], plain[0], rtol=1e-6)
    np.testing.assert_allclose(mesh[1], plain[1], atol=2e-6 * float(jnp.abs(plain[1]).max()))


def strained(potential, box, neighbor):
    """The energy as a function of parameters, positions, and a strain (3, 3)."""

    def energy(params, R, strain):
        F = jnp.eye(3) + strain
        return potential.energy_fn(params, R @ F, box @ F, neighbor)

    return energy


@pytest.mark.parametrize(
    "options", [{}, {"switch": 6.0, "electrostatics": "cutoff"}, {"combination": "geometric"}]
)
def test_gradients_match_finite_differences(options):
    box = jnp.asarray(TRICLINIC)
    fields, params, R = mixture(TRICLINIC)
    fields["overrides"] = np.array([[0, 3], [1, 1]], np.int32)
    fields["combination"] = options.pop("combination", "lorentz-berthelot")
    params |= {"c12": np.array([3e4, 4e5]), "c6": np.array([100.0, 500.0])}
    params["epsilon"][2] = 0.01  # √ε has no derivative at zero
    # Without the switching function, the energy jumps when a pair crosses the cutoff.
    term = periodic(fields, params, TRICLINIC, cutoff=8.0, **options)
    potential = Potential.of("box", term, params)
    params = potential.params
    function = strained(potential, box, potential.neighbors(R, box))
    energy, gradients = jax.jit(function), jax.jit(jax.grad(function, (0, 1, 2)))
    R, strain = jnp.asarray(R), jnp.zeros((3, 3))
    first = gradients(params, R, strain)
    rng = np.random.default_rng(5)
    for argument in range(3):
        values = (params, R, strain)

        def moved(h, direction):
            new = list(values)
            new[argument] = jax.tree.map(lambda x, d: x + h * d, values[argument], direction)
            return new

        leaves, structure = jax.tree.flatten(values[argument])
        direction = structure.unflatten([rng.normal(size=x.shape) for x in leaves])
        h = 1e-6
        slope = (energy(*moved(h, direction)) - energy(*moved(-h, direction))) / (2.0 * h)
        parts = jax.tree.map(lambda g, d: (g * d).sum(), first[argument], direction)
        np.testing.assert_allclose(sum(jax.tree.leaves(parts)), slope, rtol=1e-5)
    # Second derivatives: the change of all first derivatives along one direction.
    direction = rng.normal(size=R.shape)
    second = jax.jvp(lambda R: gradients(params, R, strain), (R,), (jnp.asarray(direction),))[1]
    ends = [gradients(params, R + h * direction, strain) for h in (1e-5, -1e-5)]
    slopes = jax.tree.map(lambda a, b: (a - b) / 2e-5, *ends)
    for a, b in zip(jax.tree.leaves(second), jax.tree.leaves(slopes), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max(initial=1e-6))


def test_derivatives_by_the_box_do_not_evaluate_the_pairs_again():
    fields, params, R = mixture(CUBE)
    potential = Potential.of("box", periodic(fields, params, CUBE, cutoff=8.0), params)
    function = strained(potential, jnp.asarray(CUBE), potential.neighbors(R, CUBE))
    made = jax.make_jaxpr(jax.grad(function, 2))(potential.params, R, jnp.zeros((3, 3)))
    assert str(made).count("scan[") == 1


def test_compiled_code_needs_a_list_and_any_list_gives_the_same_energy():
    fields, params, R = mixture(CUBE)
    term = periodic(fields, params, CUBE, cutoff=8.0)
    potential = Potential.of("box", term, params)
    expected = potential(R, box=CUBE)
    with pytest.raises(InputError, match=r"potential.neighbors\(R, box\)"):
        jax.jit(lambda R: potential(R, box=CUBE))(R)
    with pytest.raises(InputError, match="needs the box"):
        potential(R)
    found = potential.neighbors(R, CUBE, skin=0.3)
    np.testing.assert_allclose(
        jax.jit(lambda R, found: potential(R, box=CUBE, neighbor=found))(R, found), expected
    )
    pairs = np.stack(np.triu_indices(len(R), 1))[::-1]
    np.testing.assert_allclose(potential(R, box=CUBE, neighbor=pairs), expected, rtol=1e-12)
    images = R + np.random.default_rng(0).integers(-2, 3, (1, 3)) @ CUBE
    np.testing.assert_allclose(potential(images, box=CUBE), expected, rtol=1e-10)
    order = np.random.default_rng(1).permutation(len(R))
    placed = potential.on(order)
    shuffled = np.empty_like(R)
    shuffled[order] = R
    np.testing.assert_allclose(placed(shuffled, box=CUBE), expected, rtol=1e-10)
    energies, forces = potential.predict(np.stack([R, R + 0.01]), box=CUBE)
    np.testing.assert_allclose(energies, expected, rtol=1e-5)
    np.testing.assert_allclose(forces[0], potential.forces(R, box=CUBE), rtol=1e-9, atol=1e-9)


def test_single_precision_forces_are_close():
    fields, params, R = mixture(TRICLINIC)
    potential = Potential.of("box", periodic(fields, params, TRICLINIC, cutoff=8.0), params)
    energy, forces = potential.energy_and_forces(R, box=TRICLINIC)
    single = potential.astype(np.float32)
    low, f = single.energy_and_forces(R.astype(np.float32), box=TRICLINIC.astype(np.float32))
    assert f.dtype == np.float32
    np.testing.assert_allclose(low, energy, rtol=2e-5)
    np.testing.assert_allclose(f, forces, atol=1e-4 * np.abs(forces).max())


def test_without_atoms_their_pairs_are_excluded():
    fields, params, R = mixture(CUBE)
    term = periodic(fields, params, CUBE, cutoff=8.0)
    inside = np.flatnonzero(np.linalg.norm(R - 10.0, axis=1) < 5.5)
    less = term.without(np.isin(np.arange(len(R)), inside))
    energies = [Potential.of("box", t, params).terms(R, box=CUBE) for t in (term, less)]
    removed = openmm_terms(less, params, R, CUBE)
    for name, value in removed.items():
        np.testing.assert_allclose(energies[1][name], value, rtol=1e-6, atol=1e-9, err_msg=name)
    # The difference is the energy in vacuum, up to erfc(αr)/r beyond the cutoff.
    q = params["charge"][inside]
    i, j = np.triu_indices(len(inside), 1)
    full = ~np.isin(inside[i] * 1000 + inside[j], term.exclusions @ [1000, 1])
    r = np.linalg.norm(R[inside[j]] - R[inside[i]], axis=1)
    assert (full & (r < 8.0)).any()
    assert (full & (r > 8.0)).any()
    difference = energies[0]["coulomb"] - energies[1]["coulomb"]
    np.testing.assert_allclose(difference, COULOMB * (q[i] * q[j] / r)[full].sum(), rtol=1e-4)


def test_excluded_atoms_may_coincide():
    fields, params, R = mixture(CUBE)
    i, j = fields["exclusions"][0]
    R[j] = R[i]
    fields |= {"pairs14": np.zeros((0, 2), np.int32), "rows14": np.zeros(0, np.int32)}
    potential = Potential.of("box", periodic(fields, params, CUBE, cutoff=8.0), params)
    _, forces = potential.energy_and_forces(R, box=CUBE)
    assert np.isfinite(forces).all()


def test_smooth_coulomb_polynomials_are_exact():
    r = np.linspace(0.0, 9.0, 3001)
    for x, digits, error in ((2.6, 15, 1e-14), (5.0, 15, 2e-14), (2.6, 8, 2e-8)):
        alpha = x / 9.0
        energy, slope = smooth_coulomb(alpha, 9.0, digits)
        u = 2.0 * r**2 / 81.0 - 1.0
        exact = 2.0 * alpha / np.sqrt(np.pi) * boys_numpy(0, (alpha * r) ** 2)
        assert np.abs(np.polynomial.polynomial.polyval(u, energy) - exact).max() < error
        exact = -2.0 * alpha**3 / np.sqrt(np.pi) * boys_numpy(1, (alpha * r) ** 2)
        assert np.abs(np.polynomial.polynomial.polyval(u, slope) - exact).max() < error
    for order in range(3):
        t = np.linspace(0.0, 30.0, 1001)
        np.testing.assert_allclose(boys(order, t), boys_numpy(order, t), rtol=2e-13)


def test_intervals_contain_the_excluded_atoms():
    pairs = np.array([[0, 2], [0, 1], [5, 3], [1, 5]])
    found = intervals(pairs, 6)
    for a in range(6):
        inside = {b for low, high in found[a] for b in range(low, high + 1)}
        partners = {int(x) for pair in pairs for x in pair if a in pair}
        assert inside == partners | {a}


def test_wrong_settings_are_refused():
    fields, params, _ = mixture(CUBE)
    with pytest.raises(InputError, match="need a box"):
        periodic(fields, params, None)
    with pytest.raises(InputError, match="exceeds half"):
        periodic(fields, params, CUBE, cutoff=10.5)
    with pytest.raises(InputError, match="switch below it"):
        periodic(fields, params, CUBE, cutoff=8.0, switch=9.0)
    with pytest.raises(InputError, match='"auto", "pme"'):
        periodic(fields, params, CUBE, cutoff=8.0, electrostatics="ewald")
    neutral = dict(params, charge=np.zeros_like(params["charge"]))
    assert periodic(fields, neutral, CUBE, cutoff=8.0).electrostatics == "none"


def test_replicas_with_stacked_lists_have_the_energies_of_single_calls():
    fields, params, R = mixture(TRICLINIC)
    potential = Potential.of("box", periodic(fields, params, TRICLINIC, cutoff=8.0), params)
    frames = np.stack([R, R + np.random.default_rng(0).normal(0.0, 0.3, R.shape)])
    boxes = jnp.asarray(np.stack([TRICLINIC, 1.02 * TRICLINIC]))
    lists = [potential.neighbors(x, box) for x, box in zip(frames, boxes, strict=True)]
    capacity = max(found.capacity for found in lists)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(found.grown(capacity) for found in lists))
    evaluate = jax.vmap(potential.program.energy_and_forces, in_axes=(None, 0, 0, 0))
    energies, forces = jax.jit(evaluate)(potential.params, jnp.asarray(frames), boxes, stacked)
    for k in range(2):
        energy, force = potential.energy_and_forces(frames[k], box=boxes[k])
        np.testing.assert_allclose(energies[k], energy, rtol=1e-10)
        np.testing.assert_allclose(forces[k], force, rtol=1e-8, atol=1e-8)
    assert not jax.vmap(lambda found, R, box: found.stale(R, box))(stacked, frames, boxes).any()


def test_saved_potentials_have_the_same_energies(tmp_path):
    fields, params, R = mixture(CUBE)
    term = periodic(fields, params, CUBE, cutoff=8.0, switch=7.0)
    potential = Potential.of("box", term, params)
    jaxff.save(tmp_path / "box.npz", potential)
    loaded = jaxff.load(tmp_path / "box.npz")
    assert loaded(R, box=CUBE) == potential(R, box=CUBE)
    assert loaded.program.placed[0].term.grid == term.grid


def test_lists_that_lack_pairs_are_refused():
    fields, params, R = mixture(CUBE)
    potential = Potential.of("box", periodic(fields, params, CUBE, cutoff=8.0), params)
    found = potential.neighbors(R, CUBE)
    moved = R + np.random.default_rng(0).normal(0.0, 2.0, R.shape)
    short = NeighborList.of(R, CUBE, cutoff=4.0)
    for neighbor, X, box, message in (
        (found, moved, CUBE, "may lack pairs"),
        (found, 0.5 * R, 0.5 * CUBE, "may lack pairs"),
        (short, R, CUBE, "has the cutoff 4 Å, but the potential needs 8 Å"),
        (NeighborList.of(R[1:], CUBE, cutoff=8.0), R, CUBE, "is of"),
    ):
        with pytest.raises(InputError, match=message):
            potential(X, box=box, neighbor=neighbor)
    with pytest.raises(InputError, match="has the cutoff 4 Å"):
        jax.jit(lambda R: potential(R, box=CUBE, neighbor=short))(R)


def test_boxes_may_be_lists_of_whole_numbers():
    fields, params, R = mixture(CUBE)
    potential = Potential.of("box", periodic(fields, params, CUBE, cutoff=8.0), params)
    expected = potential(R, box=CUBE)
    for _ in range(2):  # the second call tests whether the list is stale
        assert potential(R, box=CUBE.astype(int).tolist()) == expected
    with pytest.raises(InputError, match="box has shape"):
        potential(R, box=[20.0] * 3)


def test_grids_do_not_depend_on_the_orientation_of_the_box():
    reduced = ewald.settings_of(TRICLINIC, 9.0, 5e-4)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    assert ewald.settings_of(TRICLINIC @ turn, 9.0, 5e-4) == reduced


def test_ions_alone_have_no_excluded_pairs():
    fields, params, _ = mixture(CUBE)
    fields = {key: value[:2] if np.ndim(value) else value for key, value in fields.items()}
    fields |= {"n_atoms": 2, "rows14": np.zeros(0, np.int32)}
    fields |= {key: np.zeros((0, 2), np.int32) for key in ("exclusions", "pairs14", "overrides")}
    fields["lj_labels"] = tuple("ABCDEF")
    term = periodic(fields, params, CUBE, cutoff=8.0, electrostatics="none")
    energy = Potential.of("box", term, params)(np.array([[0.0, 0.0, 0.0], [19.0, 0.0, 0.0]]), CUBE)
    assert np.isfinite(energy)
