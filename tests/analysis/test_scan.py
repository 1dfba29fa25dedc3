"""Scans against closed forms, ASE's geometry and ASE's constrained minimisation."""

import json

import ase.io
import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
from ase.constraints import FixInternals
from ase.optimize import BFGS

import jaxff
from jaxff import InputError, Molecule, md
from jaxff.analysis import Scan, difference, scan
from jaxff.ase import Calculator
from jaxff.cli import main

HYDROXYL = (0, 1, 2, 8)


@pytest.fixture(scope="module")
def ethanol():
    return Molecule.from_smiles("CCO")


@pytest.fixture(scope="module")
def gaff(ethanol):
    return jaxff.gaff(ethanol, charges="gasteiger")


def test_a_stretched_spring_has_its_energy(springs):
    molecule = Molecule([1, 9, 1], [[0, 0, 0], [1.1, 0, 0], [2.2, 0, 0]], [[0, 1], [1, 2]])
    potential = springs(3, k=200.0, length=1.1, molecule=molecule)
    a, b = np.linspace(0.8, 1.5, 4), np.linspace(1.0, 1.3, 3)
    found = scan(potential, molecule, [(0, 1), (1, 2)], [a, b])
    expected = 100.0 * ((a[:, None] - 1.1) ** 2 + (b - 1.1) ** 2)
    np.testing.assert_allclose(found.energies, expected, atol=1e-10)
    assert found.positions.shape == (4, 3, 3, 3)
    assert found.names == ("distance H1-F2", "distance F2-H3")


@pytest.mark.parametrize(
    ("smiles", "coordinates"),
    [
        ("CCO", [HYDROXYL, (3, 0, 1, 2)]),
        ("CC(=O)Nc1ccccc1", [(0, 1, 3, 4), (0, 1, 2)]),
        ("NCCO", [(0, 1, 2, 3), (1, 2)]),
    ],
)
def test_one_side_moves_as_a_rigid_body(smiles, coordinates):
    """The coordinates are those of ASE, and within each side no distance changes."""
    molecule = Molecule.from_smiles(smiles)
    rng = np.random.default_rng(0)
    values = [{4: rng.uniform(-3, 3, 3), 3: rng.uniform(1.5, 2.5, 2), 2: rng.uniform(1, 2, 2)}[
        len(c)] for c in coordinates]  # fmt: skip
    found = scan(lambda R: (R.sum(axis=(1, 2)), R), molecule, coordinates, values)
    for index in np.ndindex(*found.energies.shape):
        atoms = molecule.with_positions(found.positions[index]).to_ase()
        for c, axis, i in zip(coordinates, values, index, strict=True):
            measured = {2: atoms.get_distance, 3: atoms.get_angle, 4: atoms.get_dihedral}[len(c)]
            wanted = axis[i] if len(c) == 2 else np.degrees(axis[i]) % 360
            assert measured(*c) == pytest.approx(wanted, abs=1e-8)
        bonds = [b for b in molecule.bonds.tolist() if not any(set(b) <= set(c) for c in coordinates
                                                               if len(c) == 2)]  # fmt: skip
        before, after = (
            [np.linalg.norm(R[i] - R[j]) for i, j in bonds]
            for R in (molecule.positions, atoms.positions)
        )
        np.testing.assert_allclose(after, before, atol=1e-10)


def test_the_smaller_side_moves(ethanol, gaff):
    found = scan(gaff, ethanol, [(8, 2, 1, 0)], [[0.3, 2.0]])
    moved = np.abs(found.positions - ethanol.positions).max(axis=(0, 2)) > 1e-9
    assert np.flatnonzero(moved).tolist() == [8]


def constrained(molecule, potential, coordinates, values, start):
    """Energy kcal/mol of ASE's minimum with the coordinates held."""
    atoms = molecule.with_positions(start).to_ase()
    held = {2: "bonds", 3: "angles_deg", 4: "dihedrals_deg"}
    constraints = {}
    for c, v in zip(coordinates, values, strict=True):
        value = v if len(c) == 2 else np.degrees(v)
        constraints.setdefault(held[len(c)], []).append([value, list(c)])
    atoms.set_constraint(FixInternals(**constraints, epsilon=1e-9))
    atoms.calc = Calculator(potential)
    BFGS(atoms, logfile=None).run(fmax=1e-4, steps=500)
    return float(potential(atoms.positions))


def test_relaxed_scans_of_ethanol_are_those_of_ase(ethanol, gaff):
    values = np.radians([-150.0, -60.0, 10.0])
    found = scan(gaff, ethanol, [HYDROXYL], [values], relax=True)
    assert found.converged.all()
    assert found.relaxed
    measured = jaxff.analysis.torsion_angles(found.positions, [HYDROXYL])[:, 0]
    np.testing.assert_allclose(measured, values, atol=1e-8)
    np.testing.assert_allclose(found.energies, gaff.predict(found.positions)[0], atol=1e-9)
    rigid = scan(gaff, ethanol, [HYDROXYL], [values])
    assert (found.energies < rigid.energies).all()
    expected = [constrained(ethanol, gaff, [HYDROXYL], [v], R)
                for v, R in zip(values, rigid.positions, strict=True)]  # fmt: skip
    np.testing.assert_allclose(found.energies, expected, atol=2e-5)


def test_relaxed_scans_over_two_coordinates_of_any_surface_are_those_of_ase():
    molecule = Molecule.from_smiles("CC(=O)N")
    potential = jaxff.gaff(molecule, charges="gasteiger")
    coordinates = [(0, 1, 3, 7), (0, 1, 2)]
    values = [np.radians([150.0, -60.0]), np.radians([128.0])]
    found = scan(Calculator(potential), molecule, coordinates, values, relax=True, sweeps=0)
    assert found.converged.all()
    rigid = scan(potential, molecule, coordinates, values)
    for i, j in np.ndindex(2, 1):
        pair = values[0][i], values[1][j]
        expected = constrained(molecule, potential, coordinates, pair, rigid.positions[i, j])
        assert found.energies[i, j] == pytest.approx(expected, abs=2e-5)


def test_sweeps_find_the_lower_branch():
    """On (u² − 1)² + x u the start u = −1 is the wrong well for x < 0, up to where it vanishes."""
    molecule = Molecule([6, 1, 1], [[0, 0, 0], [4, 0, 0], [0, 4, 0]], [[0, 1], [0, 2]])

    def energy(R):
        x = jnp.linalg.norm(R[1] - R[0]) - 5.0
        u = jnp.linalg.norm(R[2] - R[0]) - 5.0
        return (u**2 - 1.0) ** 2 + x * u

    both = jax.jit(jax.vmap(jax.value_and_grad(energy)))

    def surface(R):
        energies, slopes = both(R)
        return np.asarray(energies), -np.asarray(slopes)

    x = np.linspace(-2.0, 2.0, 9)
    u = np.linspace(-2.0, 2.0, 400_001)
    lowest = [((u**2 - 1.0) ** 2 + v * u).min() for v in x]
    options = {"relax": True, "descent": md.Descent(tolerance=1e-4)}
    once = scan(surface, molecule, [(0, 1)], [x + 5.0], sweeps=0, **options)
    assert once.energies[2] > lowest[2] + 0.5
    swept = scan(surface, molecule, [(0, 1)], [x + 5.0], sweeps=4, **options)
    np.testing.assert_allclose(swept.energies, lowest, atol=1e-6)


def test_a_ring_is_refused_rigid_and_relaxed_from_the_nearest_geometry(springs):
    molecule = Molecule.from_smiles("C1CC1")
    pair = molecule.bonds[0]
    with pytest.raises(InputError, match="in a ring"):
        scan(lambda R: (R.sum(axis=(1, 2)), R), molecule, [pair], [[1.5, 1.6]])

    def surface(R):
        return ((R - molecule.positions) ** 2).sum(axis=(1, 2)), -2.0 * (R - molecule.positions)

    found = scan(surface, molecule, [pair], [[1.5, 1.7]], relax=True)
    before = np.linalg.norm(np.subtract(*molecule.positions[pair]))
    # Both atoms share the stretch: 2 (Δ/2)².
    expected = 0.5 * (np.array([1.5, 1.7]) - before) ** 2
    np.testing.assert_allclose(found.energies, expected, atol=1e-7)


@pytest.mark.parametrize(
    ("coordinates", "values", "message"),
    [
        ([(0, 1, 2, 9)], [[0.0]], "must be 0 to 8"),
        ([(0, 1, 1, 2)], [[0.0]], "not an internal coordinate"),
        ([0, 1, 2, 8], [[0.0]], "list of tuples"),
        ([HYDROXYL], [[0.0], [1.0]], "1 coordinates and 2 arrays"),
        ([HYDROXYL], [[np.nan]], "finite"),
        ([(0, 1, 2)], [[4.0]], "below π"),
        ([(0, 5, 1, 2)], [[0.0]], "in a ring or missing"),
        ([HYDROXYL, (5, 1, 2, 8)], [[0.0, 1.0], [0.0, 1.0]], "choose independent coordinates"),
    ],
)
def test_bad_coordinates_are_named(ethanol, gaff, coordinates, values, message):
    with pytest.raises(InputError, match=message):
        scan(gaff, ethanol, coordinates, values)


def test_a_scan_without_any_energy_is_refused(ethanol):
    with pytest.raises(InputError, match="no point of the scan has a finite energy"):
        scan(lambda R: (np.full(len(R), np.nan), R), ethanol, [HYDROXYL], [[0.0, 1.0]])


def test_files_hold_all_of_it(ethanol, gaff, tmp_path):
    axis = np.radians(np.arange(0.0, 360.0, 90.0))
    found = scan(gaff, ethanol, [HYDROXYL, (3, 0, 1)], [axis, [1.8, 1.9]])
    found.save(tmp_path / "s.npz")
    read = Scan.load(tmp_path / "s.npz")
    assert read.coordinates == found.coordinates
    assert read.periodic == (True, False)
    assert np.array_equal(read.positions, found.positions)
    np.testing.assert_array_equal(difference(read, found), 0.0)
    with pytest.raises(InputError, match="different coordinates or values"):
        difference(found, scan(gaff, ethanol, [HYDROXYL], [axis]))
    jaxff.save(tmp_path / "m.npz", gaff)
    with pytest.raises(InputError, match="this jaxff reads jaxff scan"):
        Scan.load(tmp_path / "m.npz")
    whole = (tmp_path / "s.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="truncated or damaged"):
        Scan.load(tmp_path / "half.npz")
    arrays = dict(np.load(tmp_path / "s.npz"))
    for key in ("converged", "energies", "positions", "values_0", "numbers"):
        np.savez(tmp_path / "twice.npz", **arrays | {key: np.concatenate([arrays[key]] * 2)})
        with pytest.raises(InputError, match="make the file again"):
            Scan.load(tmp_path / "twice.npz")
    np.savez(tmp_path / "type.npz", **arrays | {"converged": arrays["converged"] * 1.0})
    with pytest.raises(InputError, match="float64"):
        Scan.load(tmp_path / "type.npz")


@pytest.mark.parametrize("more", [[], ["--torsion", "3,0,1,2"]])
def test_the_command_writes_the_scan_its_frames_and_a_picture(ethanol, gaff, tmp_path, more):
    jaxff.save(tmp_path / "gaff.npz", gaff)
    ase.io.write(tmp_path / "start.xyz", ethanol.to_ase(), "extxyz")
    out, report = tmp_path / "out", tmp_path / "r.json"
    arguments = ["scan", tmp_path / "gaff.npz", tmp_path / "start.xyz", "--torsion", "0,1,2,8",
                 *more, "--points", "6", "--minus", "emt", "-o", out, "--json", report]  # fmt: skip
    assert main(list(map(str, arguments))) == 0
    found = Scan.load(out / "scan.npz")
    assert found.energies.shape == (6,) * (1 + len(more) // 2)
    frames = ase.io.read(out / "scan.xyz", ":")
    assert len(frames) == found.energies.size
    for frame, energy in zip(frames, found.energies.ravel(), strict=True):
        assert frame.info["energy_kcal_mol"] == pytest.approx(energy)
        assert frame.get_dihedral(0, 1, 2, 8) == pytest.approx(
            np.ravel(frame.info["coordinates"])[0] % 360, abs=1e-4
        )
    results = json.loads(report.read_text())
    off = difference(found, Scan.load(out / "minus.npz"))
    np.testing.assert_allclose(results["difference"], [off.min(), off.max()])
    assert matplotlib.image.imread(out / "scan.png").std() > 0.01


def test_the_command_says_what_is_missing(ethanol, gaff, tmp_path, capsys):
    jaxff.save(tmp_path / "gaff.npz", gaff)
    ase.io.write(tmp_path / "start.xyz", ethanol.to_ase(), "extxyz")
    common = ["scan", tmp_path / "gaff.npz", tmp_path / "start.xyz", "-o", tmp_path]
    for more, message in (
        ([], "give one or two coordinates"),
        (["--distance", "0,1"], "--distance 0,1 has no range"),
        (["--torsion", "0,1,2,8", "--minus", "nothing"], "unknown calculator 'nothing'"),
    ):
        assert main(list(map(str, [*common, *more]))) == 1
        assert message in capsys.readouterr().err


def test_one_failed_calculation_loses_its_geometry_only():
    from ase.calculators.lj import LennardJones

    from jaxff.analysis import as_surface

    class Fails(LennardJones):
        def calculate(self, atoms=None, *rest):
            if atoms.get_distance(0, 1) > 2.0:
                raise RuntimeError("no density")
            super().calculate(atoms, *rest)

    molecule = Molecule([18, 18], [[0.0, 0.0, 0.0], [1.2, 0.0, 0.0]], [[0, 1]])
    positions = molecule.positions * np.array([1.0, 2.5, 1.1])[:, None, None]
    with pytest.warns(UserWarning, match=r"left out \(RuntimeError: no density\)"):
        energies, forces = as_surface(Fails(rc=10.0), molecule)(positions)
    assert np.isfinite(energies).tolist() == [True, False, True]
    assert np.isfinite(forces).all(axis=(1, 2)).tolist() == [True, False, True]
