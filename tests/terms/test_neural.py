"""GAFF-NN: GAFF at the start, the symmetries of its networks, smoothness, and what a fit makes."""

import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxff
from jaxff import evaluate, fit, load, save
from jaxff.dataset import packaged_dataset
from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.space import Space
from jaxff.terms import neural, neural_tables

SMILES = ["CC#N", "NC=O"]  # a straight angle; an sp2 N and impropers
BONDED = ("bond", "angle", "torsion", "improper")


def made(molecule, **form):
    return jaxff.gaff(molecule, charges="gasteiger", **form)


def scrambled(potential, seed=0, size=1.0):
    """The potential with networks of random weights of order `size`."""
    rng = np.random.default_rng(seed)
    params = {name: dict(columns) for name, columns in potential.params.items()}
    for columns in params.values():
        if "network" in columns:
            columns["network"] = jax.tree.map(
                lambda v: v + size * rng.normal(size=v.shape).astype(v.dtype), columns["network"]
            )
    return potential.replace(params)


def shaken(molecule, seed=0, size=0.1):
    rng = np.random.default_rng(seed)
    return molecule.positions + size * rng.normal(size=(molecule.n_atoms, 3))


@pytest.fixture(scope="module", params=SMILES)
def molecule(request):
    return Molecule.from_smiles(request.param)


@pytest.fixture(scope="module")
def potential(molecule):
    return scrambled(made(molecule, form="nn"))


def check_start(mol, **charges):
    plain, neural_one = (jaxff.gaff(mol, **charges, **f) for f in ({}, {"form": "nn"}))
    R = shaken(mol)
    wanted, found = plain.terms(R), neural_one.terms(R)
    assert wanted.keys() == found.keys()
    for name, energy in wanted.items():
        assert float(found[name]) == pytest.approx(float(energy), abs=1e-10), name
    np.testing.assert_allclose(neural_one.forces(R), plain.forces(R), atol=1e-9)


def test_starts_as_gaff(molecule):
    check_start(molecule, charges="gasteiger")


def test_aspirin_starts_as_gaff():
    mol = packaged_dataset("aspirin").molecule
    check_start(mol.with_positions(packaged_dataset("aspirin").positions[0]))


def test_each_network_acts_and_only_on_its_term(molecule, potential):
    R = shaken(molecule)
    plain, changed = made(molecule).terms(R), potential.terms(R)
    for placed in potential.program.placed:
        name = placed.name
        if name in BONDED:
            acts = abs(float(changed[name]) - float(plain[name])) > 1e-3
            assert acts == bool(len(placed.term.atoms)), name
    assert float(changed["lj"]) == float(plain["lj"])


def test_forces_are_the_slope(molecule, potential):
    R = jnp.asarray(shaken(molecule))
    direction = np.random.default_rng(1).normal(size=R.shape)
    step = 1e-5
    slope = (potential(R + step * direction) - potential(R - step * direction)) / (2 * step)
    assert float(slope) == pytest.approx(-float(jnp.sum(potential.forces(R) * direction)), rel=1e-6)


def test_second_derivatives_are_the_slope_of_forces():
    molecule = Molecule.from_smiles("CC#N")
    potential = scrambled(made(molecule, form="nn"))
    R = jnp.asarray(shaken(molecule, size=0.05))
    direction = jnp.asarray(np.random.default_rng(2).normal(size=R.shape))
    _, along = jax.jvp(potential.forces, (R,), (direction,))
    step = 1e-5
    ahead, behind = (potential.forces(R + h * direction) for h in (step, -step))
    np.testing.assert_allclose(along, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-3)


def test_atom_order_and_mirror_images_do_not_count(molecule, potential):
    R = shaken(molecule)
    order = np.random.default_rng(3).permutation(molecule.n_atoms)
    topology = jaxff.parametrize(molecule, "gasteiger").topology.reorder(order)
    other = topology.potential(form="nn")
    own = {name: potential.params[name] for name in BONDED}
    np.testing.assert_array_equal(other.params["angle"]["lengths"], own["angle"]["lengths"])
    other = other.replace({**other.params, **own})  # tables are by type, whatever the order
    found, wanted = other.terms(R[order]), potential.terms(R)
    other_hand = R * np.array([1.0, 1.0, -1.0])
    mirrored = potential.terms(other_hand)
    gaff = [made(molecule).terms(r) for r in (R, other_hand)]
    for name in BONDED:
        assert float(found[name]) == pytest.approx(float(wanted[name]), abs=1e-9), name
        # The networks' part: AMBER's phase of 3.141594 makes GAFF's own differ.
        change = float(mirrored[name]) - float(wanted[name])
        assert change == pytest.approx(float(gaff[1][name]) - float(gaff[0][name]), abs=1e-9), name


@pytest.mark.parametrize(("smiles", "name"), [("CCO", "angle"), ("CCCC", "torsion")])
def test_interactions_have_no_direction(smiles, name):
    """Written backwards, an interaction has the same energy, and types alike at both ends too."""
    molecule = Molecule.from_smiles(smiles)
    types = jaxff.parametrize(molecule, "gasteiger").atom_types
    potential = scrambled(made(molecule, form="nn"))
    (term,) = (p.term for p in potential.program.placed if p.name == name)
    assert set(term.palindromic.tolist()) == {0, 1}
    forwards = neural_tables._oriented(types, term.atoms)
    backwards = neural_tables._oriented(types, term.atoms[:, ::-1])
    same = term.palindromic == 0
    np.testing.assert_array_equal(forwards[same], backwards[same])
    np.testing.assert_array_equal(forwards[~same], backwards[~same][:, ::-1])
    R, params = jnp.asarray(shaken(molecule)), potential.params[name]

    def energy(**changed):
        return float(jax.jit(replace(term, **changed).energies)(params, R, Space())[name])

    assert energy(atoms=backwards) == pytest.approx(energy(), abs=1e-10)
    naive = energy(atoms=term.atoms[:, ::-1], palindromic=0 * term.palindromic)
    assert abs(naive - energy()) > 1e-3  # the weights do tell directions apart


def test_torsions_are_periodic_and_even():
    potential = scrambled(made(Molecule.from_smiles("CCO"), form="nn"))
    (placed,) = (p for p in potential.program.placed if p.name == "torsion")
    first = {key: getattr(placed.term, key)[:1] for key in ("rows", "type_rows", "palindromic")}
    term = replace(placed.term, n_atoms=4, atoms=np.arange(4).reshape(1, 4), **first)

    def energy(phi):
        last = jnp.array([jnp.cos(phi), jnp.sin(phi), 2.0])
        R = jnp.stack([jnp.array([1.0, 0.0, -0.4]), jnp.zeros(3), jnp.array([0, 0, 1.5]), last])
        return term.energies(potential.params["torsion"], R, Space())["torsion"]

    around = np.asarray(jax.vmap(energy)(np.linspace(-np.pi, np.pi, 9)))
    assert np.ptp(around) > 0.01
    assert around[0] == pytest.approx(around[-1], abs=1e-12)
    np.testing.assert_allclose(around, around[::-1], atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_finite_at_degenerate_geometries(dtype):
    molecule = Molecule.from_smiles("NC=O")
    one = scrambled(made(molecule, form="nn").only(*BONDED)).astype(dtype)
    direction = np.random.default_rng(0).normal(size=molecule.positions.shape).astype(dtype)

    @jax.jit
    def derivatives(R):
        forces = jax.grad(one.energy_fn, argnums=1)
        return one.energy_fn(one.params, R), *jax.jvp(
            lambda r: forces(one.params, r), (R,), (direction,)
        )

    line = np.arange(molecule.n_atoms)[:, None] * np.array([[0.0, 0.0, 1.1]])
    flat = molecule.positions * np.array([1.0, 1.0, 0.0])
    for R in (line, flat, np.zeros_like(line), 0.0 * line + line[:1], line + 1e-7 * flat):
        for value in derivatives(R.astype(dtype)):
            assert value.dtype == dtype
            assert np.isfinite(value).all()


def test_float32_agrees(molecule, potential):
    R = shaken(molecule)
    single = potential.astype(np.float32)
    energy, forces = single.energy_and_forces(R.astype(np.float32))
    assert forces.dtype == np.float32
    assert float(energy) == pytest.approx(float(potential(R)), rel=2e-5, abs=1e-3)
    np.testing.assert_allclose(forces, potential.forces(R), rtol=1e-3, atol=2e-2)


def test_straight_angles_have_no_kink():
    molecule = Molecule.from_smiles("CC#N")
    potential = scrambled(made(molecule, form="nn"))
    own = potential.params["angle"]
    angle = np.where(np.asarray(own["angle"]) > 3.0, np.pi, own["angle"])
    potential = potential.replace({**potential.params, "angle": {**own, "angle": angle}})
    R = jnp.asarray(molecule.positions)
    axis = R[2] - R[0]
    straight = R.at[1].set(R[0] + 0.55 * axis)
    across = jnp.cross(axis, jnp.array([1.0, 0.3, -0.2]))
    across = across / jnp.linalg.norm(across)

    def slope(h):
        return float(jnp.vdot(potential.forces(straight.at[1].add(h * across))[1], across))

    assert abs(slope(1e-5) - slope(-1e-5)) < 0.1
    # The second derivative at the straight line is that of the line's surroundings.
    _, along = jax.jvp(
        lambda h: potential.forces(straight.at[1].add(h * across))[1] @ across, (0.0,), (1.0,)
    )
    assert float(along) == pytest.approx((slope(1e-4) - slope(-1e-4)) / 2e-4, rel=1e-4)


def test_dihedral_networks_fade_where_atoms_come_into_line():
    """Continuous second derivatives across the straight angle and where fading sets in."""

    def energy(bend):
        far = jnp.array([jnp.sin(bend), 0.3 * jnp.sin(bend), -jnp.cos(bend)])
        points = far, jnp.zeros(3), jnp.array([0.0, 0.0, 1.4]), jnp.array([1.0, 0.7, 1.9])
        waves, fade = neural.dihedral_features(*points)
        return fade * jnp.sum(waves * jnp.array([0.7, -0.4]))

    curvature = jax.jit(jax.vmap(jax.grad(jax.grad(energy))))
    bends = np.linspace(-0.6, 0.6, 4001)
    values = np.asarray(curvature(bends))
    assert np.isfinite(values).all()
    assert np.abs(values).max() > 1.0
    assert np.abs(np.diff(values)).max() < 0.05 * np.abs(values).max()


def test_no_network_outgrows_bonds_and_angles():
    """With weights of order one the bonded energy has a floor and rises far out."""
    molecule = Molecule.from_smiles("CCO")
    plain = made(molecule, form="nn").only("bond", "angle", "torsion")
    own = [(p.name, p.term) for p in plain.program.placed]
    R = molecule.positions
    centre = R.mean(axis=0)
    sizes = np.array([0.3, 0.6, 0.9, 1.1, 1.5, 2.0, 4.0, 10.0])[:, None, None]
    strewn = R + np.random.default_rng(0).normal(size=(50, *R.shape))
    batch = np.concatenate([centre + sizes * (R - centre), strewn])
    terms = jax.jit(jax.vmap(plain.program.terms, (None, 0)))
    for seed in range(3):
        potential = scrambled(plain, seed, size=0.5)
        found = {
            name: np.asarray(energy) for name, energy in terms(potential.params, batch).items()
        }
        # A tanh is within ±1: so much lower can networks bring the angles and torsions.
        depth = {
            name: sum(
                2.0 * np.abs(potential.params[name]["network"]["energy"]["kernel"][row]).sum()
                + np.abs(potential.params[name]["k"]).sum() * (name == "torsion")
                for row in np.ravel(getattr(term, "type_rows", term.rows))
            )
            for name, term in own
            if name != "bond"
        }
        assert (found["bond"] >= 0.0).all()
        for name, least in depth.items():
            assert found[name].min() > -least, name
        assert found["bond"][7] > 100.0 * sum(depth.values())


def test_a_fit_lowers_the_error_and_files_keep_it(tmp_path):
    data = packaged_dataset("ethanol")
    split = data.split(30, 0, 64, seed=0)
    start = jaxff.gaff(data.molecule, form="nn")
    before = evaluate(start, split.test)["force_rmse"]
    outputs = ["*.stiffness.kernel", "*.energy.kernel"]  # nearly linear: few steps
    found = fit(start, split.train, trainable=outputs).potential
    assert evaluate(found, split.test)["force_rmse"] < 0.6 * before
    for name in BONDED[:3]:  # ethanol has no impropers
        weights = (jax.tree.leaves(p.params[name]["network"]) for p in (found, start))
        assert any(np.any(a != b) for a, b in zip(*weights, strict=True)), name
        for fixed in {"lengths", "angles", "phase"} & start.params[name].keys():
            np.testing.assert_array_equal(found.params[name][fixed], start.params[name][fixed])
    save(tmp_path / "m.npz", found)
    again = load(tmp_path / "m.npz")
    R = data.positions[:3]
    np.testing.assert_array_equal(again.predict(R)[1], found.predict(R)[1])
    for name in ("x.prmtop", "x.mol2", "x.xml"):
        with pytest.raises(InputError, match=r"cannot express the term 'bond' \(neural_bond\)"):
            jaxff.write_force_field(tmp_path / name, again)


def test_tables_and_columns_are_complete(potential):
    """Every float the energy reads is a column; every row of a table has a name."""
    for placed in potential.program.placed:
        if placed.name not in BONDED:
            continue
        term, own = placed.term, potential.params[placed.name]
        assert set(own) == set(term.columns)
        listed = [c for _, columns in term.tables.values() for c in columns]
        assert sorted(listed) == sorted(own)
        for labels, columns in term.tables.values():
            for column in columns:
                for array in jax.tree.leaves(own[column]):
                    assert len(array) == len(getattr(term, labels)), (placed.name, column)


def test_molecules_share_the_start():
    """Rows of one name start from the same values in any molecule."""
    first, second = (made(Molecule.from_smiles(s), form="nn") for s in ("CCO", "CCCO"))
    for name in ("bond", "angle", "torsion"):
        tables = []
        for potential in (first, second):
            (term,) = (p.term for p in potential.program.placed if p.name == name)
            labels = getattr(term, "type_labels", term.labels)
            own = potential.params[name]
            columns = {c: own[c] for c in ("lengths", "angles") if c in own}
            columns |= own["network"]["hidden"]
            for column, values in columns.items():
                table = np.asarray(values)
                tables.append({(column, k): v for k, v in zip(labels, table, strict=True)})
        half = len(tables) // 2
        common = [
            (a[key], b[key])
            for a, b in zip(tables[:half], tables[half:], strict=True)
            for key in a.keys() & b.keys()
        ]
        assert common
        for a, b in common:
            np.testing.assert_allclose(a, b, atol=1e-12)


def test_flax_comes_with_the_networks_only():
    code = "import sys, jaxff.gaff, jaxff.saved, jaxff.learn; sys.exit('flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
