"""Regions of a box with another potential: `Potential.without` and `Potential.on`."""

from dataclasses import fields, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import openmm
import pytest
from openmm import app
from systems import evaluate, with_openmm_constant

import jaxff
from jaxff import InputError, Potential, System, analysis, gdml, md
from jaxff.reference.holes import find_holes
from jaxff.term import array_fields

DATA = Path(__file__).parent / "data" / "systems"
ETHANOL = Path(__file__).parent / "gdml" / "data"


def read(water, **options):
    return System.read(DATA / f"eth_{water}.prmtop", DATA / f"eth_{water}.rst7", **options)


def with_waters(system, places):
    """Atoms of the solute and of some water molecules."""
    waters = system.molecules[system.waters[places, 0]]
    return np.flatnonzero(np.isin(system.molecules, [0, *waters]))


def moved(system, seed=0, size=0.03):
    """Positions without any symmetry; virtual sites are misplaced too."""
    noise = np.random.default_rng(seed).normal(0.0, size, system.positions.shape)
    return system.positions + noise


def by_box(potential, system, R):
    """Derivative (3, 3) of the energy by the box, with fixed fractional coordinates."""
    fractions = R @ np.linalg.inv(system.box)
    pairs = potential.neighbors(R, system.box)

    @jax.jit
    @jax.grad
    def slopes(box):
        return potential.energy_fn(potential.params, fractions @ box, box, pairs)

    return slopes(jnp.asarray(system.box))


@pytest.mark.parametrize(
    ("water", "electrostatics"), [("tip3p", "pme"), ("opc", "pme"), ("tip3p", "cutoff")]
)
def test_the_solute_in_vacuum_restores_the_complete_system(water, electrostatics):
    system = read(water)
    mm = system.potential(cutoff=6.5, electrostatics=electrostatics)
    solute = system.atoms_in("LIG")
    vacuum = system.select(solute).replace(box=None).potential()
    if electrostatics == "cutoff":  # the reaction field acts within the solute
        inside = system.select(solute).replace(box=100.0 * np.eye(3))
        vacuum = inside.potential(6.5, electrostatics="cutoff", dispersion_correction=False)
    hybrid = mm.without(solute) + vacuum.on(solute)
    R = moved(system)
    expected, forces = mm.energy_and_forces(R, box=system.box)
    energy, own = hybrid.energy_and_forces(R, box=system.box)
    assert abs(float(mm.without(solute)(R, box=system.box) - expected)) > 0.1
    assert energy == pytest.approx(float(expected), abs=1e-8)
    np.testing.assert_allclose(own, forces, atol=1e-8)
    np.testing.assert_allclose(by_box(hybrid, system, R), by_box(mm, system, R), atol=1e-8)


@pytest.mark.parametrize("water", ["tip4pew", "opc"])
def test_nonbonded_energies_match_openmm_with_more_exclusions(water):
    system = read(water)
    atoms = with_waters(system, [3, 17])
    mm = with_openmm_constant(system.potential(cutoff=6.5).without(atoms).only("nonbonded"))
    R, term = moved(system), mm.program.placed[0].term
    topology = app.AmberPrmtopFile(str(DATA / f"eth_{water}.prmtop"))
    reference = topology.createSystem(nonbondedMethod=app.PME, rigidWater=False)
    force = next(f for f in reference.getForces() if isinstance(f, openmm.NonbondedForce))
    force.setCutoffDistance(0.65)
    force.setPMEParameters(10.0 * term.alpha, *term.grid)
    for i, j in zip(*np.triu_indices(len(atoms), 1), strict=True):
        force.addException(int(atoms[i]), int(atoms[j]), 0.0, 0.1, 0.0, True)
    # OpenMM needs whole clusters, because exceptions do not use the box.
    together = np.asarray(mm.program.regions[0].together(jnp.asarray(R), jnp.asarray(system.box)))
    expected, forces = evaluate(reference, force, together, system.box)
    energy, own = mm.energy_and_forces(R, box=system.box)
    assert energy == pytest.approx(expected, rel=1e-6)
    real = system.numbers > 0  # OpenMM also reports the forces on the sites
    np.testing.assert_allclose(own[real], forces[real], atol=2e-4 * np.abs(forces).max())


def test_images_of_molecules_of_a_region_do_not_matter():
    system = read("opc")
    atoms = with_waters(system, [3, 17])
    cluster = system.select(atoms).replace(box=None).potential()
    hybrid = system.potential(cutoff=6.5).without(atoms) + cluster.on(atoms)
    R = moved(system)
    energy, forces = hybrid.energy_and_forces(R, box=system.box)
    shifted = R.copy()
    for place, turns in ((3, (1, -2, 0)), (17, (0, 1, 3)), (20, (1, 1, 1))):
        water = system.molecules == system.molecules[system.waters[place, 0]]
        shifted[water] += np.array(turns) @ system.box
    same, own = hybrid.energy_and_forces(shifted, box=system.box)
    assert same == pytest.approx(float(energy), abs=1e-9)
    np.testing.assert_allclose(own, forces, atol=1e-8)
    virial = by_box(hybrid, system, R)
    for place in ((0, 0), (2, 1)):
        h, ends = 1e-4, []
        for sign in (1.0, -1.0):
            box = system.box.copy()
            box[place] += sign * h
            ends.append(float(hybrid(R @ np.linalg.inv(system.box) @ box, box=box)))
        slope = (ends[0] - ends[1]) / (2.0 * h)
        np.testing.assert_allclose(virial[place], slope, rtol=1e-4, atol=1e-4)


def test_derivatives_by_positions_and_parameters_match_finite_differences():
    system = read("tip3p")
    atoms = with_waters(system, [3])
    mm = system.potential(cutoff=6.5).without(atoms)
    R = moved(system)
    pairs, h = mm.neighbors(R, system.box), 1e-4

    def energy(params, R):
        return mm.energy_fn(params, R, jnp.asarray(system.box), pairs)

    slopes, gradient = jax.jit(jax.grad(energy, argnums=(0, 1)))(mm.params, jnp.asarray(R))
    value = jax.jit(energy)
    for atom in (0, int(atoms[-1]), 60):
        move = np.zeros_like(R)
        move[atom] = (h, 0.5 * h, -h)
        slope = value(mm.params, R + move) - value(mm.params, R - move)
        np.testing.assert_allclose(2.0 * (gradient * move).sum(), slope, rtol=1e-4, atol=1e-9)
    for column in ("charge", "sigma", "epsilon"):
        row = 0
        ends = []
        for sign in (1.0, -1.0):
            params = {name: dict(group) for name, group in mm.params.items()}
            array = params["nonbonded"][column]
            params["nonbonded"][column] = array.at[row].add(sign * 1e-5)
            ends.append(float(value(params, R)))
        slope = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(slopes["nonbonded"][column][row], slope, rtol=1e-5, atol=1e-6)


def test_regions_are_saved(tmp_path):
    system = read("opc")
    atoms = with_waters(system, [3, 17])
    hybrid = system.potential(cutoff=6.5).without(atoms)
    jaxff.save(tmp_path / "hybrid.npz", hybrid)
    again = jaxff.load(tmp_path / "hybrid.npz")
    R = moved(system)
    water = system.molecules == system.molecules[system.waters[3, 0]]
    R[water] += 2.0 * system.box[1]
    assert float(again(R, box=system.box)) == float(hybrid(R, box=system.box))


def test_single_precision_agrees():
    system = read("tip3p")
    solute = system.atoms_in("LIG")
    mm = system.potential(cutoff=6.5).without(solute)
    R = moved(system)
    energy, forces = mm.energy_and_forces(R, box=system.box)
    single, own = mm.astype(np.float32).energy_and_forces(R.astype(np.float32), box=system.box)
    assert own.dtype == np.float32
    assert single == pytest.approx(float(energy), rel=1e-5)
    np.testing.assert_allclose(own, forces, atol=1e-4 * np.abs(forces).max())


def test_molecules_in_vacuum_lose_the_energy_of_one_molecule():
    system = read("tip3p").replace(box=None)
    pair = system.select(with_waters(system, [3]))
    water = np.flatnonzero(pair.in_water)
    rest = np.flatnonzero(~pair.in_water)
    mm, R = pair.potential(), moved(pair)
    apart = [pair.select(atoms).potential() for atoms in (rest, water)]
    both = mm.without(rest).without(water)
    sums = both + apart[0].on(rest) + apart[1].on(water)
    assert float(sums(R)) == pytest.approx(float(mm(R)), abs=1e-9)
    assert set(both.params) == set(mm.params)


def test_class_two_terms_of_one_of_two_molecules_are_removed():
    methanol = jaxff.Molecule.from_smiles("CO")
    one = jaxff.gaff(methanol, charges="gasteiger", form="class2").only("class2")
    term, n = one.program.placed[0].term, one.n_atoms
    arrays = {}
    for field in fields(term):
        if field.name not in array_fields(term):
            continue
        array = np.asarray(getattr(term, field.name))
        counted = term.indices.get(field.name, ())
        sizes = [n if of == "atoms" else len(getattr(term, of)) for of in counted] or 0
        arrays[field.name] = np.concatenate([array, array + np.array(sizes, int)])
    double = Potential.of("class2", replace(term, n_atoms=2 * n, **arrays), one.params["class2"])
    rng = np.random.default_rng(0)
    R = np.concatenate([methanol.positions, methanol.positions + 5.0])
    R += rng.normal(0.0, 0.05, R.shape)
    assert float(double(R)) == pytest.approx(float(one(R[:n])) + float(one(R[n:])), rel=1e-9)
    for atoms, rest in ((np.arange(n), R[n:]), (np.arange(n, 2 * n), R[:n])):
        assert float(double.without(atoms)(R)) == pytest.approx(float(one(rest)), rel=1e-9)
    assert float(double.without(np.arange(2 * n))(R)) == pytest.approx(0.0, abs=1e-12)


def network(ethanol, cutoff):
    """A network that declares box and neighbour list."""

    def apply(weights, numbers, R, box=None, neighbor=None):
        i, j = jnp.minimum(neighbor, len(numbers) - 1)
        d = R[j] - R[i]
        real = (neighbor < len(numbers)).all(axis=0)
        square = jnp.where(real, (d**2).sum(axis=1), 1e4)
        near = real if cutoff is None else real & (square < cutoff**2)
        return weights["w"] * jnp.where(near, jnp.exp(-square / 4.0), 0.0).sum()

    weights = {"w": jnp.array(2.0)}
    return jaxff.network(apply, weights, ethanol, cutoff=cutoff, energy_unit="kcal/mol")


@pytest.mark.parametrize("cutoff", [None, 2.5])
def test_networks_see_the_pairs_of_their_region(cutoff):
    system = read("tip3p")
    solute = system.atoms_in("LIG")
    net = network(system.molecule(0), cutoff)
    mm = system.potential(cutoff=6.5).without(solute)
    R = moved(system)
    i, j = np.triu_indices(len(solute), 1)
    square = ((R[solute][i] - R[solute][j]) ** 2).sum(axis=1)
    expected = 2.0 * np.exp(-square / 4.0)[square < (cutoff or np.inf) ** 2].sum()
    hybrid = mm + net.on(solute)
    assert float(hybrid(R, box=system.box) - mm(R, box=system.box)) == pytest.approx(expected)


def test_wrong_regions_are_refused():
    system = read("opc")
    mm, solute = system.potential(cutoff=6.5), system.atoms_in("LIG")
    with pytest.raises(InputError, match="contains atom 0 but not atom"):
        mm.without(solute[:4])
    water = np.flatnonzero(system.molecules == system.molecules[system.waters[0, 0]])
    with pytest.raises(InputError, match="all atoms and virtual sites of each molecule"):
        mm.without(water[:3])
    for wrong in ([-1], [len(system)], [0.5], [], 3):
        with pytest.raises(InputError, match="needs a list of indices from 0 to"):
            mm.without(wrong)
    kernel = gdml.load(ETHANOL / "ethanol_model.npz")
    with pytest.raises(InputError, match="'gdml', whose energy is not a sum over groups of atoms"):
        kernel.without([0, 1])
    with pytest.raises(InputError, match="would remove all terms"):
        kernel.without(np.arange(9))
    pair = with_waters(system, [3])
    with pytest.raises(InputError, match="two different regions with a common atom"):
        mm.without(pair) + mm.without(with_waters(system, [3, 4]))
    assert len((mm.without(pair) + mm.without(pair)).program.regions) == 1


def test_learnt_terms_inside_a_region_are_removed_with_their_training_frames():
    kernel = gdml.load(ETHANOL / "ethanol_model.npz")
    system = read("tip3p")
    solute = system.atoms_in("LIG")
    mm = system.potential(cutoff=6.5)
    less = (mm + kernel.on(solute)).without(solute)
    assert set(less.params) == set(mm.params)
    assert not less.trained


def hybrid_of(system):
    """Ethanol of class II with an sGDML kernel, in the water of a system."""
    ethanol, solute = system.molecule(0), system.atoms_in("LIG")
    model = jaxff.gaff(ethanol, charges="gasteiger", form="class2")
    kernel = gdml.load(ETHANOL / "ethanol_model.npz").matched(ethanol)
    learnt = 0.5 * model + 0.5 * kernel
    mm = system.potential(cutoff=6.5, switch=5.0, ewald_tolerance=1e-6)
    return mm.without(solute) + learnt.on(solute)


@pytest.mark.slow
def test_energy_is_conserved_with_a_learnt_solute():
    system = read("tip3p")
    hybrid = hybrid_of(system)
    deviations = []
    for dt in (1.0, 0.5):
        ensemble, every = md.NVE(temperature=150.0, dt=dt), int(4 / dt)
        run = md.simulate(
            hybrid, system, ensemble, steps=int(80 / dt), output=md.Output(every=every)
        )
        total = run.potential_energies + run.kinetic_energies
        assert np.ptp(total) < 0.01 * run.kinetic_energies.mean()
        deviations.append(np.std(total))
    assert 2.5 < deviations[0] / deviations[1] < 6.0  # ∝ dt²


def test_scans_and_searches_for_holes_refuse_systems():
    system = read("tip3p")
    mm = system.potential(cutoff=6.5)
    with pytest.raises(InputError, match=r"start must be a jaxff\.Molecule, got System"):
        analysis.scan(mm, system, [(0, 1, 2, 8)], [np.linspace(-3.0, 3.0, 4)])
    with pytest.raises(InputError, match=r"molecule must be a jaxff\.Molecule, got System"):
        find_holes(mm, system, system.positions[None])
    with pytest.raises(InputError, match="stacks have no box"):
        jaxff.stack([mm, mm])
