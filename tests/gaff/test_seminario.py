"""Force constants from Hessians: known ones come back, real ones are in the physical range."""

from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxff
from jaxff import units
from jaxff.errors import InputError
from jaxff.gaff import seminario
from jaxff.gaff.force_constants import modified_angle_constants
from jaxff.molecule import Molecule
from jaxff.potential import Placed, Potential
from jaxff.terms.angle import HarmonicAngle
from jaxff.terms.bond import HarmonicBond
from jaxff.terms.torsion import FourierTorsion

ETHANOL = Path(__file__).parents[1] / "data" / "mm" / "ethanol_gfn2_hessian.npz"


def size(R, atoms):
    if len(atoms) == 2:
        return np.linalg.norm(R[atoms[0]] - R[atoms[1]])
    u, v = (R[end] - R[atoms[1]] for end in (atoms[0], atoms[2]))
    return np.arctan2(np.linalg.norm(np.cross(u, v)), u @ v)


def valence(R, bonds, angles, k_bond, k_angle):
    """Harmonic bonds and angles at rest at R, one type each."""
    terms, params = [], {}
    for name, kind, atoms, k, column in (
        ("bond", HarmonicBond, bonds, k_bond, "length"),
        ("angle", HarmonicAngle, angles, k_angle, "angle"),
    ):
        rows = np.arange(len(atoms))
        terms.append(Placed(name, kind(len(R), np.array(atoms), rows, tuple(map(str, rows)))))
        params[name] = {"k": np.array(k), column: np.array([size(R, a) for a in atoms])}
    return Potential(terms, params)


@cache
def compiled(program):
    return jax.jit(jax.hessian(program.energy, argnums=1))


def hessian(potential, R):
    return np.asarray(compiled(potential.program)(potential.params, R))


def softened(potential):
    """The potential with constants that are not its own."""
    params = {name: dict(own) for name, own in potential.params.items()}
    for name in ("bond", "angle"):
        params[name]["k"] = 0.0 * params[name]["k"] + 7.0
    return potential.replace(params)


@pytest.fixture(scope="module")
def triatomic():
    """Bent, with different arms."""
    theta, r1, r2 = 1.9, 0.96, 1.42
    R = np.array([[r1, 0, 0], [0, 0, 0], [r2 * np.cos(theta), r2 * np.sin(theta), 0]])
    return valence(R, [(0, 1), (1, 2)], [(0, 1, 2)], [540.0, 310.0], [60.0]), R


@pytest.fixture(scope="module")
def tetrahedral():
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3.0)
    R = np.concatenate([np.zeros((1, 3)), 1.09 * corners])
    angles = [(i, 0, j) for i in range(1, 5) for j in range(i + 1, 5)]
    bonds = [(0, i) for i in range(1, 5)]
    rng = np.random.default_rng(0)
    return valence(R, bonds, angles, rng.uniform(250, 400, 4), rng.uniform(30, 70, 6)), R


@pytest.fixture(scope="module")
def ethanol():
    file = np.load(ETHANOL)
    molecule = Molecule.from_smiles("CCO")
    assert np.array_equal(molecule.numbers, file["numbers"])
    return molecule, file["positions"], file["hessian"]


def test_a_diatomic_gives_back_its_constant():
    R = np.array([[0.0, 0.1, 0.2], [0.9, 0.6, 0.1]])
    bond = HarmonicBond(2, np.array([[0, 1]]), np.array([0]), ("x",))
    length = np.array([size(R, (0, 1))])
    potential = Potential.of("bond", bond, {"k": np.array([400.0]), "length": length})
    start = potential.replace({"bond": {"k": np.array([1.0]), "length": np.array([2.0])}})
    H = hessian(potential, R)
    found = seminario(start, R, H, equilibrium=True).params["bond"]
    assert float(found["k"][0]) == pytest.approx(400.0, rel=1e-12)
    assert float(found["length"][0]) == pytest.approx(length[0], rel=1e-12)
    assert float(seminario(start, R, H.reshape(6, 6)).params["bond"]["length"][0]) == 2.0


def test_a_bent_triatomic(triatomic):
    """Bonds and the projected angle are exact; the modified angle has a closed form.

    In the axes (u, p) of a bond, minus the block of end and vertex is [[K, 0], [g, m]] with
    K = 2 k_bond, m = κ/r² − κ cos θ/(r r'), g = −κ sin θ/(r r'), κ = 2 k_angle.  Its eigenvectors
    are p with m, and u + c p with K, c = g/(K − m); hence Σ λ|p·ν| = m + K|c|/√(1 + c²).
    """
    potential, R = triatomic
    H = hessian(potential, R)
    exact = seminario(softened(potential), R, H, angles="projected")
    np.testing.assert_allclose(exact.params["bond"]["k"], [540.0, 310.0], rtol=1e-10)
    np.testing.assert_allclose(exact.params["angle"]["k"], [60.0], rtol=1e-10)

    found = seminario(softened(potential), R, H, angles="modified")
    np.testing.assert_allclose(found.params["bond"]["k"], [540.0, 310.0], rtol=1e-10)
    theta, kappa, flexibility = 1.9, 120.0, 0.0
    for r, other, K in ((0.96, 1.42, 1080.0), (1.42, 0.96, 620.0)):
        m = kappa / r**2 - kappa * np.cos(theta) / (r * other)
        c = -kappa * np.sin(theta) / (r * other) / (K - m)
        flexibility += 1.0 / (r**2 * (m + K * abs(c) / np.hypot(1.0, c)))
    k = float(found.params["angle"]["k"][0])
    assert k == pytest.approx(0.5 / flexibility, rel=1e-9)
    assert 1.0 < k / 60.0 < 1.3  # what the method makes of it


@pytest.mark.parametrize("angles", ["modified", "projected"])
def test_a_straight_angle_is_exact_and_at_rest_at_180_degrees(angles):
    axis = np.array([0.6, -0.48, 0.64])
    R = np.array([-1.16 * axis, 0.0 * axis, 1.46 * axis])
    potential = valence(R, [(0, 1), (1, 2)], [(0, 1, 2)], [900.0, 370.0], [40.0])
    H = hessian(potential, R)
    bent = R + 1e-4 * np.random.default_rng(0).normal(size=R.shape)  # as optimisers leave it
    for geometry, tolerance in ((R, 1e-8), (bent, 1e-3)):
        found = seminario(softened(potential), geometry, H, angles=angles, equilibrium=True)
        np.testing.assert_allclose(found.params["bond"]["k"], [900.0, 370.0], rtol=tolerance)
        np.testing.assert_allclose(found.params["angle"]["k"], [40.0], rtol=tolerance)
        assert float(found.params["angle"]["angle"][0]) == np.pi


def test_the_projected_constants_of_any_valence_force_field_are_exact(ethanol, tetrahedral):
    molecule, R, _ = ethanol
    terms = {p.name: p.term for p in jaxff.gaff(molecule, charges="gasteiger").program.placed}
    bonds, angles = terms["bond"].atoms, terms["angle"].atoms
    rng = np.random.default_rng(1)
    k = rng.uniform(250, 500, len(bonds)), rng.uniform(30, 80, len(angles))
    model = valence(R, bonds.tolist(), angles.tolist(), *k)
    quadruples = np.unique(terms["torsion"].atoms, axis=0)
    rows = np.arange(len(quadruples))
    torsion = FourierTorsion(9, quadruples, rows[:, None], (1,), tuple(map(str, rows)))
    phase = [float(jaxff.geometry.dihedral(*R[q])) - np.pi for q in quadruples]  # all at rest
    own = {"k": np.full(len(rows), 1.5), "phase": np.array(phase)}
    model = model + Potential.of("torsion", torsion, own)
    found = seminario(softened(model), R, hessian(model, R), angles="projected")
    np.testing.assert_allclose(found.params["bond"]["k"], k[0], rtol=1e-9)
    np.testing.assert_allclose(found.params["angle"]["k"], k[1], rtol=1e-9)

    potential, R = tetrahedral
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    for geometry in (R, R @ turn):
        H = hessian(potential, geometry)
        found = seminario(softened(potential), geometry, H, angles="projected")
        np.testing.assert_allclose(
            found.params["angle"]["k"], potential.params["angle"]["k"], rtol=1e-9
        )


def test_angles_at_one_bond_share_its_stiffness(tetrahedral):
    """By the mean of cos² of the angles between their planes: 1/4 at 120°, 1 in one plane."""
    potential, R = tetrahedral
    angles = potential.program.placed[1].term.atoms
    H = hessian(potential, R)
    alone = [modified_angle_constants(R, H, angles[k : k + 1])[0] for k in range(6)]
    np.testing.assert_allclose(modified_angle_constants(R, H, angles), np.array(alone) / 1.25)
    turns = np.radians([0.0, 120.0, 240.0])
    R = np.array([[0, 0, 0], *([1.3 * np.cos(t), 1.3 * np.sin(t), 0] for t in turns)])
    angles = np.array([(1, 0, 2), (1, 0, 3), (2, 0, 3)])
    flat = valence(R, [(0, 1), (0, 2), (0, 3)], angles, [400.0] * 3, [50.0] * 3)
    H = hessian(flat, R)
    alone = [modified_angle_constants(R, H, angles[k : k + 1])[0] for k in range(3)]
    np.testing.assert_allclose(modified_angle_constants(R, H, angles), np.array(alone) / 2.0)


def test_ethanol_has_physical_constants_in_every_form(ethanol):
    molecule, R, H = ethanol
    start = jaxff.gaff(molecule, charges="gasteiger")
    plain = seminario(start, R, H, equilibrium=True)
    bond, angle = (p.term for p in plain.program.placed[:2])
    of = dict(zip(bond.labels, np.asarray(plain.params["bond"]["k"]), strict=True))
    assert 250 < of["c3-hc"] < 450
    assert 250 < of["c3-h1"] < 450
    assert 400 < of["ho-oh"] < 650
    assert 150 < of["c3-c3"] < 350
    assert 200 < of["c3-oh"] < 400
    for how in ("modified", "projected"):
        found = seminario(plain, R, H, angles=how).params["angle"]["k"]
        assert (np.asarray(found) > 25).all()
        assert (np.asarray(found) < 100).all()
    length = dict(zip(bond.labels, np.asarray(plain.params["bond"]["length"]), strict=True))
    ch = [size(R, a) for a, row in zip(bond.atoms, bond.rows, strict=True) if row == 1]
    assert bond.labels[1] in ("c3-hc", "c3-h1")
    assert length[bond.labels[1]] == pytest.approx(np.mean(ch))

    morse = jaxff.gaff(molecule, charges="gasteiger", form="morse", fourier_terms=0)
    own = seminario(morse, R, H).params["bond"]
    np.testing.assert_allclose(own["depth"] * own["width"] ** 2, plain.params["bond"]["k"])
    np.testing.assert_array_equal(own["depth"], morse.params["bond"]["depth"])
    second = seminario(
        jaxff.gaff(molecule, charges="gasteiger", form="class2", fourier_terms=0), R, H
    )
    term, own = second.program.placed[0].term, second.params["class2"]
    np.testing.assert_allclose(own["depth"] * own["width"] ** 2, [of[x] for x in term.bond_labels])
    same = dict(zip(angle.labels, np.asarray(plain.params["angle"]["k"]), strict=True))
    np.testing.assert_allclose(own["k"], [same[x] for x in term.angle_labels])

    # What comes out is a better model of the Hessian than the start.
    wrong = [np.sqrt(np.mean((hessian(p, R).reshape(27, 27) - H) ** 2)) for p in (start, plain)]
    assert wrong[1] < 0.7 * wrong[0]


def test_atoms_may_be_placed_in_any_order_and_types_that_do_not_occur_keep_theirs(triatomic):
    potential, R = triatomic
    order = [2, 0, 1]
    place = np.argsort(order)
    H = hessian(potential, R)
    there = np.asarray(H)[np.ix_(place, range(3), place, range(3))]
    moved = seminario(softened(potential).on(order), R[place], there)
    for name in ("bond", "angle"):
        np.testing.assert_allclose(
            moved.params[name]["k"], seminario(potential, R, H).params[name]["k"]
        )
    bond = HarmonicBond(3, np.array([[0, 1], [1, 2]]), np.array([2, 2]), ("a", "b", "c"))
    table = {"k": np.array([1.0, 2.0, 3.0]), "length": np.full(3, 1.5)}
    found = seminario(Potential.of("bond", bond, table), R, H, equilibrium=True).params["bond"]
    np.testing.assert_allclose(found["k"], [1.0, 2.0, 425.0])
    np.testing.assert_allclose(found["length"], [1.5, 1.5, 1.19])


def test_bad_input_is_one_sentence(triatomic, ethanol, springs):
    potential, R = triatomic
    H = hessian(potential, R)
    bad = H.copy()
    bad[0, 0, 1, 0] += 100.0
    for hess, message in (
        (H[:2], r"the Hessian has shape \(2, 3, 3, 3\), expected \(3, 3, 3, 3\) or \(9, 9\)"),
        (bad, "not symmetric"),
        (np.full_like(H, np.nan), "not finite"),
        (H / 2240.9, "multiply the Hessian by 2240.9"),
        (H / 23.06, "expected 30 to 3500"),
        (-H, "no positive force constant for the bond of atoms 0, 1"),
    ):
        with pytest.raises(InputError, match=message):
            seminario(potential, R, hess)
    with pytest.raises(InputError, match="positions have 2 atoms; this potential needs 3"):
        seminario(potential, R[:2], H[:2, :, :2])
    for other in (R[:, [1, 2, 0]], R[[2, 1, 0]]):
        with pytest.raises(InputError, match="rigid motions of the molecule"):
            seminario(potential, other, H)
    with pytest.raises(InputError, match='"projected" or "modified"'):
        seminario(potential, R, H, angles="exact")
    with pytest.raises(InputError, match="bond is multiplied"):
        seminario(2.0 * potential, R, 2.0 * H)
    with pytest.raises(InputError, match="harmonic, Morse or class-II"):
        seminario(springs(3), R, H)
    ring = np.array([[0.0, 0, 0], [1.5, 0, 0], [0.75, 1.3, 0]])
    three = valence(ring, [(0, 1), (1, 2), (0, 2)], [(0, 1, 2)], [300.0] * 3, [50.0])
    with pytest.raises(InputError, match=r"the ends of angle of atoms 0, 1, 2 .* are bonded"):
        seminario(three, ring, hessian(three, ring), angles="projected")
    molecule, R, H = ethanol
    mm = jaxff.gaff(molecule, charges="gasteiger")
    with pytest.raises(InputError, match="expected 125 to 875"):
        seminario(mm, R, 4.184 * H)
    with pytest.raises(InputError, match=r"no positive force constant for the bond C1-C2"):
        seminario(mm, R, -H)


def test_the_stored_hessian_is_that_of_gfn2(ethanol):
    tblite = pytest.importorskip("tblite.ase")
    from ase import Atoms
    from ase.optimize import BFGS

    molecule, R, H = ethanol
    atoms = Atoms(molecule.numbers, R)
    atoms.calc = tblite.TBLite(method="GFN2-xTB", verbosity=0, accuracy=0.01)
    BFGS(atoms, logfile=None).run(fmax=1e-3, steps=50)
    start, columns = atoms.positions.copy(), []
    for k in range(27):
        forces = []
        for step in (0.005, -0.005):
            atoms.positions = start
            atoms.positions.flat[k] += step
            forces.append(atoms.get_forces().ravel() * units.EV)
        columns.append((forces[1] - forces[0]) / 0.01)
    np.testing.assert_allclose(np.array(columns), H, atol=2.0)
