"""Morse bonds and class-II couplings: derivatives, limits, and what a fit makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxff
from jaxff import Dataset, evaluate, fit, load, save
from jaxff.dataset import packaged_dataset
from jaxff.errors import InputError
from jaxff.learn import LeastSquares
from jaxff.molecule import Molecule

MOLECULES = ["CCO", "CC#N", "O"]


def scrambled(potential, seed=0):
    """The potential with couplings that are not zero."""
    rng = np.random.default_rng(seed)
    params = {
        name: {
            column: v + 0.2 * potential.columns[name][column].scale * rng.normal(size=v.shape)
            if name == "class2"
            else v
            for column, v in own.items()
        }
        for name, own in potential.params.items()
    }
    return potential.replace(params)


def changed(potential, **columns):
    own = potential.params
    return potential.replace({**own, "class2": {**own["class2"], **columns}})


@pytest.fixture(scope="module")
def split():
    return packaged_dataset("ethanol").split(50, 0, 300, seed=0)


@pytest.fixture(scope="module")
def found(split):
    """A fit with couplings."""
    start = jaxff.gaff(split.train.molecule, form="class2", fourier_terms=0)
    return fit(start, split.train)


@pytest.fixture(params=MOLECULES)
def molecule(request):
    return Molecule.from_smiles(request.param)


def test_forms_start_as_gaff(molecule):
    """At GAFF's own minimum lengths, with Morse's curvature and no couplings."""
    plain = jaxff.gaff(molecule, charges="gasteiger")
    R = molecule.positions
    for form in ({"form": "morse"}, {"form": "class2", "fourier_terms": 4}):
        other = jaxff.gaff(molecule, charges="gasteiger", **form).terms(R)
        for name, energy in plain.terms(R).items():
            if name == "bond":
                assert float(other[name]) == pytest.approx(float(energy), rel=0.3, abs=0.05)
            elif name != "angle":
                assert float(other[name]) == pytest.approx(float(energy), abs=1e-9), name
        assert float(other["angle"]) == pytest.approx(float(plain.terms(R)["angle"]), abs=1e-9)
        couplings = [k for k in other if k not in plain.terms(R)]
        assert all(abs(float(other[k])) < 1e-12 for k in couplings)


def test_forces_are_the_slope_and_atom_order_does_not_count(molecule):
    potential = scrambled(jaxff.gaff(molecule, charges="gasteiger", form="class2", fourier_terms=0))
    rng = np.random.default_rng(1)
    R = jnp.asarray(molecule.positions + 0.05 * rng.normal(size=(molecule.n_atoms, 3)))
    direction = rng.normal(size=R.shape)
    step = 1e-5
    slope = (potential(R + step * direction) - potential(R - step * direction)) / (2 * step)
    assert float(slope) == pytest.approx(-float(jnp.sum(potential.forces(R) * direction)), rel=1e-6)
    if molecule.n_atoms < 7:  # a linear angle among them
        hessian = jax.jit(jax.hessian(potential.energy_fn, argnums=1))(potential.params, R)
        assert np.isfinite(hessian).all()
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    assert float(potential(R @ turn)) == pytest.approx(float(potential(R)), abs=1e-8)
    order = rng.permutation(molecule.n_atoms)
    other = jaxff.gaff(molecule.reorder(order), charges="gasteiger", form="class2", fourier_terms=0)
    same = other.replace(
        {**other.params, "class2": potential.params["class2"]}
    )  # tables are by type, whatever the order
    assert float(same.terms(R[order])["bond_angle"]) == pytest.approx(
        float(potential.terms(R)["bond_angle"]), abs=1e-9
    )


def test_couplings_never_outgrow_bonds_and_angles(split, found):
    """Along stretched and bent coordinates the fitted energy of ethanol has no hole."""
    fitted = found.potential
    R = np.asarray(split.train.positions[0])
    least = fitted.predict(split.train.positions)[0].min()
    rng = np.random.default_rng(0)
    for stretch in (0.8, 0.9, 1.1, 1.3, 1.6):
        centre = R.mean(axis=0)
        assert float(fitted(centre + stretch * (R - centre))) > least - 1.0
    for _ in range(20):
        assert float(fitted(R + 0.25 * rng.normal(size=R.shape))) > least - 1.0


def test_class_two_fits_where_gaff_cannot(tmp_path, split, found):
    plain = fit(jaxff.gaff(split.train.molecule, form="morse"), split.train)
    assert plain.converged
    assert found.converged
    errors = [evaluate(f.potential, split.test)["force_rmse"] for f in (found, plain)]
    assert errors[0] < 0.6 * errors[1]
    assert found.changes[0].name == "class2.angle"
    assert all(c.error >= 0.0 and np.isfinite(c.fitted) for c in found.changes)
    save(tmp_path / "m.npz", found.potential)
    again = load(tmp_path / "m.npz")
    R = split.test.positions[:3]
    np.testing.assert_allclose(again.predict(R)[1], found.potential.predict(R)[1], atol=1e-10)
    with pytest.raises(InputError, match="cannot express the term 'class2'"):
        jaxff.write_force_field(tmp_path / "x.prmtop", again)


def test_least_squares_gives_known_parameters_back():
    data = packaged_dataset("ethanol")[:40]
    start = jaxff.gaff(data.molecule, form="morse", fourier_terms=0)
    rng = np.random.default_rng(3)
    own = start.params
    truth = start.replace(
        {
            **own,
            "bond": {**own["bond"], "length": own["bond"]["length"] + 0.01 * rng.normal(size=5)},
            "angle": {**own["angle"], "k": own["angle"]["k"] * 1.2},
        }
    )
    energies, forces = truth.predict(data.positions)
    made = Dataset(data.numbers, data.positions, forces, energies)
    found = fit(start, made, trainable=["bond.*", "angle.*"])
    np.testing.assert_allclose(
        found.potential.params["bond"]["length"], truth.params["bond"]["length"], atol=2e-3
    )
    assert evaluate(found.potential, made)["force_rmse"] < 0.05


def test_forces_are_continuous_where_couplings_fade():
    molecule = Molecule.from_smiles("CO")
    potential = scrambled(jaxff.gaff(molecule, charges="gasteiger", form="class2", fourier_terms=0))
    (a, b, c, _), *_ = potential.program.placed[0].term.dihedrals.tolist()
    R = np.asarray(molecule.positions)
    axis = np.cross(R[a] - R[b], R[c] - R[b])
    axis /= np.linalg.norm(axis)
    start = np.degrees(np.arccos(np.dot(R[a] - R[b], R[c] - R[b])
        / np.linalg.norm(R[a] - R[b]) / np.linalg.norm(R[c] - R[b])))  # fmt: skip
    forces = []
    for angle in np.radians(np.arange(130.0, 179.0, 0.1) - start):
        arm = R[a] - R[b]  # turned about the axis, which is at right angles to it
        moved = R.copy()
        moved[a] = R[b] + np.cos(angle) * arm - np.sin(angle) * np.cross(axis, arm)
        forces.append(moved)
    steps = np.linalg.norm(np.diff(potential.predict(np.array(forces))[1], axis=0), axis=(1, 2))
    assert steps.max() < 8.0 * np.median(steps)


def test_straight_angles_have_no_kink():
    molecule = Molecule.from_smiles("CC#N")
    potential = scrambled(jaxff.gaff(molecule, charges="gasteiger", form="class2", fourier_terms=0))
    own = potential.params["class2"]
    angle = np.where(np.asarray(own["angle"]) > 3.0, np.pi, own["angle"])
    potential = changed(potential, angle=angle)
    R = jnp.asarray(molecule.positions)
    axis = R[2] - R[0]
    straight = R.at[1].set(R[0] + 0.55 * axis)
    across = jnp.cross(axis, jnp.array([1.0, 0.3, -0.2]))
    across = across / jnp.linalg.norm(across)
    slopes = [
        float(jnp.vdot(potential.forces(straight.at[1].add(h * across))[1], across))
        for h in (-1e-5, 1e-5)
    ]
    assert abs(slopes[1] - slopes[0]) < 0.1


@pytest.mark.parametrize("form", [pytest.param("morse", marks=pytest.mark.slow), "class2"])
def test_fits_leave_torsions_about_straight_angles_alone(form):
    """A dihedral through a nitrile has no angle: energies stay single-valued on its line."""
    molecule = Molecule.from_smiles("CCC#N")
    start = jaxff.gaff(molecule, charges="gasteiger", form=form)
    rng = np.random.default_rng(0)
    R = molecule.positions + 0.05 * rng.standard_normal((40, molecule.n_atoms, 3))
    E, F = start.predict(R)
    data = Dataset(molecule.numbers, R, F + 5.0 * rng.standard_normal(F.shape), E)
    found = jaxff.fit(start, data, method=LeastSquares(steps=3, check_labels=False)).potential
    nitrogen = int(np.flatnonzero(molecule.numbers == 7)[0])
    carbon = next(int(j + i - nitrogen) for i, j in molecule.bonds if nitrogen in (i, j))
    first = next(
        int(j + i - carbon)
        for i, j in molecule.bonds
        if carbon in (i, j) and nitrogen not in (i, j)
    )
    axis = molecule.positions[carbon] - molecule.positions[first]
    axis /= np.linalg.norm(axis)
    side = np.cross(axis, rng.standard_normal(3))
    side /= np.linalg.norm(side)
    around = [side, -side, np.cross(axis, side), -np.cross(axis, side)]
    near = np.tile(molecule.positions, (4, 1, 1))
    near[:, nitrogen] = molecule.positions[carbon] + 1.15 * axis + 1e-4 * np.array(around)
    energies, forces = found.predict(near)
    assert np.ptp(energies) < 0.02
    assert np.abs(forces[:, nitrogen]).max() < 200.0
    torsion = next(p.term for p in found.program.placed if p.name == "torsion")
    moved = np.asarray(found.params["torsion"]["k"]) != np.asarray(start.params["torsion"]["k"])
    through = np.array(["c1" in label.split("-")[1:3] for label in torsion.labels])
    assert through.any()
    assert not moved[through].any()
    assert moved[~through].any()


def test_the_scale_of_all_torsions_is_one_number_about_straight_angles_too():
    from jaxff.parameters import FreeParameters

    potential = 2.0 * jaxff.gaff(Molecule.from_smiles("CCC#N"), charges="gasteiger")
    free = FreeParameters.of(potential, ["torsion.scale"])
    moved = free.params({("torsion", "scale"): jnp.ones(())})
    assert np.shape(moved["torsion"]["scale"]) == ()
    assert moved["torsion"]["scale"] != potential.params["torsion"]["scale"]
