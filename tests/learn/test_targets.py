"""Targets of a fit: what they count, their derivatives, and what a fit can learn from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jaxff
from jaxff.errors import InputError
from jaxff.learn.targets import Dipole, Hessian, TorsionScan, point_charges
from jaxff.molecule import Molecule
from jaxff.parameters import FreeParameters


@pytest.fixture(scope="module")
def water():
    return jaxff.gaff(Molecule.from_smiles("O"), charges="gasteiger")


@pytest.fixture(scope="module")
def frames(water):
    rng = np.random.default_rng(0)
    return water.molecule.positions + 0.05 * rng.normal(size=(6, 3, 3))


@pytest.fixture(scope="module")
def targets(frames):
    """One of each kind, for water, of values that are not the potential's."""
    rng = np.random.default_rng(1)
    H = 300.0 * rng.normal(size=(9, 9))
    return (
        Hessian(frames[0], H + H.T),
        TorsionScan(frames, 5.0 * rng.normal(size=6), weight=0.7),
        Dipole(frames, rng.normal(size=(6, 3))),
    )


def objective(target, potential):
    return float(jnp.sum(target.residuals(potential.program, potential.params) ** 2))


def exact_hessian(potential, R):
    return np.asarray(jax.jit(jax.jacfwd(jax.grad(potential.energy_fn, 1), 1))(potential.params, R))


def test_a_target_counts_its_mean_square_error(water, frames, springs):
    pair, R = springs(2, k=300.0, length=1.0), np.array([[0.0, 0, 0], [1.0, 0, 0]])
    H = np.zeros((2, 3, 2, 3))
    H[:, 0, :, 0] = [[310.0, -310.0], [-310.0, 310.0]]  # E = k/2 (r − r0)²
    target = Hessian(R, H.reshape(6, 6), weight=0.02)
    assert objective(target, pair) == pytest.approx(0.02 * 4 * 10.0**2 / 36)
    assert objective(Hessian(R, H), springs(2, k=310.0, length=1.0)) == pytest.approx(0.0)

    energies, _ = water.predict(frames)
    assert objective(TorsionScan(frames, energies - 97_000.0), water) == pytest.approx(0, abs=1e-15)
    shift = np.array([0.3, -0.5, 1.0, 0.0, 0.2, -0.4])
    wrong = objective(TorsionScan(frames, energies + shift, weight=2.0), water)
    assert wrong == pytest.approx(2.0 * np.var(shift))

    charge = np.asarray(point_charges(water.program, water.params, 3))
    term = water.program.placed[-1].term
    assert charge[term.charge_rows == term.charge_rows[1]].std() == 0.0
    dipoles = (charge[:, None] * frames).sum(axis=1)
    assert objective(Dipole(frames, dipoles), water) == pytest.approx(0.0, abs=1e-20)
    assert objective(Dipole(frames, dipoles + 0.05), water) == pytest.approx(1.0)
    moved = Dipole(frames + np.array([3.0, -1.0, 2.0]), dipoles)  # neutral: wherever the origin is
    assert objective(moved, water) == pytest.approx(0.0, abs=1e-20)


def test_the_dipole_of_an_ion_is_counted_from_the_origin(water, frames):
    params = {**water.params, "nonbonded": {**water.params["nonbonded"]}}
    params["nonbonded"]["charge"] = water.params["nonbonded"]["charge"] - 1.0 / 3.0
    ion, shift = water.replace(params), np.array([1.0, 0.0, -2.0])
    charge = np.asarray(point_charges(ion.program, ion.params, 3))
    assert charge.sum() == pytest.approx(-1.0)
    dipoles = np.einsum("mna,n->ma", frames, charge)
    assert objective(Dipole(frames, dipoles), ion) == pytest.approx(0.0, abs=1e-20)
    assert objective(Dipole(frames + shift, dipoles - shift), ion) == pytest.approx(0.0, abs=1e-20)


def test_charges_follow_the_atoms_a_potential_is_placed_on(water, frames):
    order = [2, 0, 1]
    placed, R = water.on(order), frames[:, np.argsort(order)]
    charge = point_charges(water.program, water.params, 3)
    np.testing.assert_allclose(
        point_charges(placed.program, placed.params, 3)[np.array(order)], charge
    )
    target = Dipole(R, np.einsum("mna,n->ma", frames, charge))
    target.check(placed)
    assert objective(target, placed) == pytest.approx(0.0, abs=1e-20)


def test_gradients_are_those_of_finite_differences(water, targets):
    free = FreeParameters.of(water)
    start, unravel = ravel_pytree(free.no_moves())
    rng = np.random.default_rng(2)
    direction, step = rng.normal(size=start.shape), 1e-4

    @jax.jit
    def values(vector):
        residuals = [t.residuals(water.program, free.params(unravel(vector))) for t in targets]
        return jnp.stack([jnp.sum(r**2) for r in residuals]), residuals

    def sums(vector):
        return values(vector)[0]

    forwards, residuals = jax.jit(jax.jacfwd(values))(start)
    backwards, _ = jax.jit(jax.jacrev(values))(start)
    slope = (sums(start + step * direction) - sums(start - step * direction)) / (2.0 * step)
    np.testing.assert_allclose(forwards @ direction, slope, rtol=1e-5)
    np.testing.assert_allclose(backwards, forwards, rtol=1e-9, atol=1e-9)
    assert (np.abs(slope) > 1e-3).all()
    assert [r.shape for r in residuals] == [(81, len(start)), (6, len(start)), (18, len(start))]


def test_a_straight_angle_has_finite_derivatives():
    axis = np.array([0.6, -0.48, 0.64])
    R = np.outer([-1.16, 0.0, 1.46], axis)
    molecule = Molecule([7, 6, 1], R, [(0, 1), (1, 2)])
    start = jaxff.gaff(molecule, charges=np.zeros(3))
    potential = start.replace(
        {**start.params, "angle": {**start.params["angle"], "angle": np.array([np.pi])}}
    )
    target = Hessian(R, 1000.0 * np.eye(9))
    target.check(potential)

    def both(params):
        return target.residuals(potential.program, params)

    for values in jax.tree.leaves(jax.jit(jax.jacfwd(both))(potential.params)):
        assert np.isfinite(values).all()
    bent = {**start.params, "angle": {**start.params["angle"], "angle": np.array([3.1])}}
    with pytest.raises(InputError, match="equilibrium value than 180°"):
        target.check(start.replace(bent))


def test_gauss_newton_recovers_constants_from_a_hessian(water):
    R = water.molecule.positions
    target = Hessian(R, exact_hessian(water, R))
    wrong = {name: dict(own) for name, own in water.params.items()}
    wrong["bond"]["k"] = 0.6 * wrong["bond"]["k"]
    wrong["angle"]["k"] = 1.5 * wrong["angle"]["k"]
    free = FreeParameters.of(water.replace(wrong), ["bond.k", "angle.k"])
    vector, unravel = ravel_pytree(free.no_moves())

    @jax.jit
    def step(vector):
        def residuals(vector):
            return target.residuals(water.program, free.params(unravel(vector)))

        move, *_ = jnp.linalg.lstsq(jax.jacfwd(residuals)(vector), residuals(vector))
        return vector - move

    for _ in range(3):
        vector = step(vector)
    found = free.params(unravel(vector))
    for name in ("bond", "angle"):
        np.testing.assert_allclose(found[name]["k"], water.params[name]["k"], rtol=1e-8)


def test_sound_targets_pass_and_other_units_do_not(water, frames):
    R = frames[0]
    H = exact_hessian(water, R)
    energies, _ = water.predict(frames)
    dipoles = np.einsum("mna,n->ma", frames, point_charges(water.program, water.params, 3))
    for sound in (
        Hessian(R, 1.4 * H),
        TorsionScan(frames, 2.0 * energies),
        Dipole(frames, dipoles),
    ):
        sound.check(water)
        sound.check(water.on([0, 1, 2]))
    for target, message in (
        (Hessian(R, H / 23.06), "eV/Å² taken for kcal/mol/Å²"),
        (Hessian(R, 4.3 * H), "4.3 times those of the potential.*kJ/mol/Å²"),
        (TorsionScan(frames, energies / 627.5), "Hartree taken for kcal/mol"),
        (Dipole(frames, dipoles / 0.208), "debye taken for e·Å"),
    ):
        with pytest.raises(InputError, match=message):
            target.check(water)


def test_bad_input_is_one_sentence(water, frames, springs):
    R, H = frames[0], np.eye(9) * 500.0
    skew = H.copy()
    skew[0, 5] = 90.0
    for make, message in (
        (lambda: Hessian(frames, H), r"positions have shape \(6, 3, 3\), expected \(N, 3\)"),
        (lambda: Hessian(R, H[:6]), r"the Hessian has shape \(6, 9\), expected \(3, 3, 3, 3\) or"),
        (lambda: Hessian(R, skew), "not symmetric"),
        (lambda: Hessian(R, H * np.nan), "not finite"),
        (lambda: Hessian(R, H / 2000.0), "multiply the Hessian by 2240.9 if it is in hartree"),
        (
            lambda: Hessian(R, H, weight=-1.0),
            "weight is -1.0, but must be a finite number",
        ),
        (
            lambda: TorsionScan(R, [0.0]),
            r"positions must have shape \(M, N, 3\) in Å, got \(3, 3\)",
        ),
        (
            lambda: TorsionScan(frames, [0.0]),
            r"energies must have shape \(6,\) in kcal/mol, got \(1,\)",
        ),
        (lambda: TorsionScan(frames[:1], [0.0]), "1 geometry; give at least 2"),
        (lambda: TorsionScan(frames, [np.inf] * 6), "energies must be finite"),
        (
            lambda: Dipole(frames, np.zeros(6)),
            r"dipoles must have shape \(6, 3\) in e·Å, got \(6,\)",
        ),
        (lambda: Dipole(np.nan * frames, np.zeros((6, 3))), "positions must be finite"),
        (lambda: Dipole(frames, np.zeros((6, 3)), weight=np.nan), "must be a finite number"),
    ):
        with pytest.raises(InputError, match=message):
            make()
    dipole = Dipole(frames, np.zeros((6, 3)))
    for target in (Hessian(R, H), TorsionScan(frames, np.zeros(6)), dipole):
        with pytest.raises(InputError, match=r"positions of 3 atoms, but the potential has 4"):
            target.check(springs(4))
    with pytest.raises(InputError, match=r"has no nonbonded term"):
        dipole.check(springs(3))
    for twice in (water + water, 2.0 * water):
        with pytest.raises(InputError, match=r"several nonbonded terms, or a nonbonded term"):
            dipole.check(twice)
    broken = water.replace(
        {**water.params, "bond": {"k": np.array([np.nan]), "length": np.ones(1)}}
    )
    with pytest.raises(InputError, match=r"the values of the potential are not finite"):
        TorsionScan(frames, np.arange(6.0)).check(broken)
