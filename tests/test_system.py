"""Systems: reading and writing, virtual sites and constraints, compared with OpenMM."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import openmm
import pytest
from openmm import app
from scipy.io import netcdf_file
from systems import openmm_terms, with_openmm_constant

import jaxff
from jaxff import InputError, System, cell
from jaxff.cli import main

DATA = Path(__file__).parent / "data" / "systems"
WATERS = ("tip3p", "tip4pew", "opc")


def read(water, **options):
    return System.read(DATA / f"eth_{water}.prmtop", DATA / f"eth_{water}.rst7", **options)


def openmm_system(water, **options):
    options = {"nonbondedMethod": app.NoCutoff, "rigidWater": False, **options}
    topology = app.AmberPrmtopFile(str(DATA / f"eth_{water}.prmtop"))
    system = topology.createSystem(removeCMMotion=False, **options)
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            for k in range(force.getNumBonds()):
                i, j, length, _ = force.getBondParameters(k)
                if system.isVirtualSite(i) or system.isVirtualSite(j):
                    force.setBondParameters(k, i, j, length, 0.0)  # AMBER has no such energy
    return system


@pytest.mark.parametrize("water", WATERS)
def test_contents_of_an_amber_system(water):
    system = read(water, constraints="h-bonds")
    counts = {"tip3p": 61, "tip4pew": 58, "opc": 59}
    assert system.contents() == {
        "LIG (C2H6O)": 1,
        "Na+ (Na)": 1,
        "Cl- (Cl)": 1,
        "WAT (H2O)": counts[water],
    }
    inpcrd = app.AmberInpcrdFile(str(DATA / f"eth_{water}.rst7"))
    vectors = [v.value_in_unit(openmm.unit.angstrom) for v in inpcrd.boxVectors]
    np.testing.assert_allclose(np.abs(system.box), np.abs(np.array(vectors)), atol=2e-6)
    reference = openmm_system(water, constraints=app.HBonds, rigidWater=True)
    assert len(system.constraints) == reference.getNumConstraints()
    masses = [reference.getParticleMass(i)._value for i in range(reference.getNumParticles())]
    np.testing.assert_allclose(system.masses, masses, atol=1e-3)
    pairs, lengths = system.constraints.pairs()
    ours = {tuple(sorted(p)): d for p, d in zip(pairs.tolist(), lengths, strict=True)}
    for k in range(reference.getNumConstraints()):
        i, j, d = reference.getConstraintParameters(k)
        assert ours[min(i, j), max(i, j)] == pytest.approx(10.0 * d._value, rel=1e-7)


@pytest.mark.parametrize("water", WATERS)
def test_terms_and_forces_match_openmm(water):
    """Without a box; the forces on virtual sites are distributed to their atoms."""
    system = read(water).replace(box=None)
    potential = with_openmm_constant(system.potential())
    expected = openmm_terms(openmm_system(water), system.positions)
    terms = potential.terms(system.positions)
    for name, (energy, _) in expected.items():
        assert float(terms[name]) == pytest.approx(energy, rel=1e-6, abs=1e-6), name
    total = sum(forces for _, forces in expected.values())
    forces = np.array(potential.forces(system.positions))
    real = system.numbers > 0  # OpenMM also reports the forces on the sites
    np.testing.assert_allclose(forces[real], total[real], atol=1e-6 * np.abs(total).max())
    assert not forces[system.sites.atoms].any()
    moved = system.positions + (system.numbers == 0)[:, None]
    assert float(potential(moved)) == float(potential(system.positions))


def test_forces_with_out_of_plane_sites_are_the_gradient(tmp_path):
    system = read("tip4pew").replace(box=None)
    system = system.select(np.flatnonzero(np.isin(system.molecules, (0, 3, 4))))
    sites = system.sites
    tilted = type(sites)(sites.atoms, sites.parents, sites.weights, sites.cross + 0.3)
    system = system.replace(sites=tilted)
    potential, R = system.potential(), system.positions
    forces, step = np.array(potential.forces(R)), 1e-5
    for i, k in ((9, 0), (10, 1), (11, 2), (2, 0)):
        shift = np.zeros_like(R)
        shift[i, k] = step
        slope = (potential(R + shift) - potential(R - shift)) / (2.0 * step)
        assert float(slope) == pytest.approx(-forces[i, k], rel=1e-6, abs=1e-6)
    jaxff.save(tmp_path / "x.npz", potential)
    assert float(jaxff.load(tmp_path / "x.npz")(R)) == float(potential(R))
    energies = jax.vmap(potential)(np.stack([R, R + 1.0]))
    np.testing.assert_allclose(energies, float(potential(R)), rtol=1e-10)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # OpenMM leaves files of GROMACS open
@pytest.mark.parametrize("water", WATERS)
@pytest.mark.parametrize("suffix", ["prmtop", "xml", "top"])
def test_written_systems_have_the_same_terms_in_openmm(water, suffix, tmp_path):
    system = read(water, constraints="h-bonds")
    path, other = system.write(tmp_path / f"x.{suffix}")
    if suffix == "xml":
        written = openmm.XmlSerializer.deserialize(path.read_text())
        assert written.usesPeriodicBoundaryConditions()
        assert written.getNumConstraints() == len(system.constraints)
        assert app.PDBFile(str(other)).topology.getNumAtoms() == len(system)
        for force in written.getForces():
            if isinstance(force, openmm.NonbondedForce):
                force.setNonbondedMethod(openmm.NonbondedForce.NoCutoff)
    elif suffix == "top":
        topology = app.GromacsTopFile(str(path), defines={"FLEXIBLE": ""})
        written = topology.createSystem(rigidWater=False, removeCMMotion=False)
        gro = app.GromacsGroFile(str(other))
        vectors = np.array(gro.getPeriodicBoxVectors()._value) * 10.0
        np.testing.assert_allclose(vectors, system.box, atol=1e-6)
    else:
        topology = app.AmberPrmtopFile(str(path))
        written = topology.createSystem(rigidWater=False, removeCMMotion=False)
        R = app.AmberInpcrdFile(str(other)).getPositions(asNumpy=True)._value * 10.0
        np.testing.assert_allclose(R, system.positions, atol=1e-6)
    expected = openmm_terms(openmm_system(water), system.positions)
    found = openmm_terms(written, system.positions)
    for name, (energy, forces) in expected.items():
        assert found[name][0] == pytest.approx(energy, rel=1e-6, abs=1e-6), name
        np.testing.assert_allclose(found[name][1], forces, rtol=1e-5, atol=1e-5)
    again = System.read(path, other, constraints="h-bonds")
    np.testing.assert_allclose(again.box, system.box, atol=1e-5)
    np.testing.assert_allclose(again.positions, system.positions, atol=6e-4)
    assert list(again.contents().values()) == list(system.contents().values())
    assert len(again.constraints) == len(system.constraints)
    np.testing.assert_allclose(again.sites.weights, system.sites.weights, atol=1e-7)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # OpenMM leaves files of GROMACS open
def test_a_system_made_by_openmm(tmp_path):
    """Rigid water without bonded terms, a barostat, and a PDB file of OpenMM."""
    forcefield = app.ForceField("amber14/tip4pew.xml")
    modeller = app.Modeller(app.Topology(), [])
    edges = openmm.Vec3(1.4, 1.5, 1.6) * openmm.unit.nanometer
    molar = openmm.unit.molar
    modeller.addSolvent(forcefield, model="tip4pew", boxSize=edges, ionicStrength=0.5 * molar)
    options = {"nonbondedMethod": app.PME, "nonbondedCutoff": 0.6, "ewaldErrorTolerance": 1e-6}
    made = forcefield.createSystem(modeller.topology, **options)
    made.addForce(openmm.MonteCarloBarostat(1.0, 300.0))
    (tmp_path / "x.xml").write_text(openmm.XmlSerializer.serialize(made))
    with (tmp_path / "x.pdb").open("w") as file:
        app.PDBFile.writeFile(modeller.topology, modeller.positions, file)
    system = System.read(tmp_path / "x.xml")
    assert list(system.contents().values())[1:] == [1, 1]
    assert len(system.constraints) == made.getNumConstraints() == 3 * len(system.waters)
    assert len(system.sites) == len(system.waters)
    expected_lengths = np.tile([0.9572, 1.51390065], (len(system.waters), 1))
    for suffix in ("prmtop", "top"):
        again = System.read(*system.write(tmp_path / f"y.{suffix}"))
        assert len(again.constraints) == len(system.constraints)
        np.testing.assert_allclose(again.constraints.water_lengths, expected_lengths, 1e-7)
    made.removeForce(made.getNumForces() - 1)
    expected = openmm_terms(made, system.positions, system.box)
    potential = with_openmm_constant(system.potential(cutoff=6.0, ewald_tolerance=1e-6))
    terms = potential.terms(system.positions, box=system.box)
    assert float(terms["lj"] + terms["lj_tail"]) == pytest.approx(expected["lj"][0], rel=1e-9)
    assert float(terms["coulomb"]) == pytest.approx(expected["coulomb"][0], rel=1e-6)


def test_netcdf_restart_files(tmp_path):
    system = read("tip3p")
    path = tmp_path / "x.ncrst"
    with netcdf_file(path, "w") as file:
        for name, size in (("atom", len(system)), ("spatial", 3), ("cell", 3)):
            file.createDimension(name, size)
        file.createVariable("coordinates", "d", ("atom", "spatial"))[:] = system.positions
        lengths, angles = cell.amber_box(system.box)
        file.createVariable("cell_lengths", "d", ("cell",))[:] = lengths
        file.createVariable("cell_angles", "d", ("cell",))[:] = angles
    again = System.read(DATA / "eth_tip3p.prmtop", path)
    np.testing.assert_allclose(again.positions, system.positions, atol=1e-12)
    np.testing.assert_allclose(again.box, system.box, atol=2e-6)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="damaged or truncated"):
        System.read(DATA / "eth_tip3p.prmtop", path)


def test_molecules_divided_by_the_box_are_made_whole():
    system = read("tip3p")
    shifted = system.positions + np.array([3.0, -4.0, 5.0])
    inverse = np.linalg.inv(system.box)
    wrapped = shifted - np.floor(shifted @ inverse) @ system.box
    whole = system.replace(positions=wrapped)
    i, j = system.bonds.T
    lengths = np.linalg.norm(whole.positions[i] - whole.positions[j], axis=1)
    expected = np.linalg.norm(system.positions[i] - system.positions[j], axis=1)
    np.testing.assert_allclose(lengths, expected, atol=1e-9)
    offsets = (whole.positions - shifted) @ inverse
    np.testing.assert_allclose(offsets, np.round(offsets), atol=1e-9)


def test_a_part_of_a_system():
    system = read("tip4pew", constraints="h-bonds")
    solute = system.select(system.atoms_in("LIG"))
    assert (len(solute), solute.contents()) == (9, {"LIG (C2H6O)": 1})
    assert len(solute.constraints.bonds) == 6
    water = system.select(np.flatnonzero(system.in_water))
    assert len(water) == 4 * 58
    assert len(water.constraints.waters) == len(water.sites) == 58
    assert water.charge == pytest.approx(0.0, abs=1e-6)
    assert abs(float(solute.replace(box=None).potential()(solute.positions))) < 100.0
    with pytest.raises(InputError, match="select whole molecules"):
        system.select([0, 1])
    with pytest.raises(InputError, match="no residue has the name SOL; use Cl-, LIG, Na"):
        system.atoms_in("SOL")


def truncated(tmp_path):
    text = (DATA / "eth_tip3p.rst7").read_text().splitlines()
    (tmp_path / "x.rst7").write_text("\n".join(text[:60]) + "\n")
    return DATA / "eth_tip3p.prmtop", tmp_path / "x.rst7"


def reordered(tmp_path):
    system = read("tip3p")
    order = np.random.default_rng(0).permutation(len(system))
    lines = [f"{x:12.7f}{y:12.7f}{z:12.7f}" for x, y, z in system.positions[order]]
    if len(lines) % 2:
        lines.append("")
    rows = ["".join(pair) for pair in zip(lines[::2], lines[1::2], strict=True)]
    box = "".join(f"{x:12.7f}" for x in np.concatenate(cell.amber_box(system.box)))
    (tmp_path / "x.rst7").write_text("\n".join(["x", str(len(system)), *rows, box]) + "\n")
    return DATA / "eth_tip3p.prmtop", tmp_path / "x.rst7"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (truncated, "x.rst7 is truncated"),
        (reordered, "give the coordinates with the same order of atoms and with their box"),
        (
            lambda _: (DATA / "eth_tip3p.prmtop", DATA / "eth_opc.rst7"),
            "has 247 atoms, but .* has 194: give the coordinates of the same system",
        ),
        (
            lambda _: (DATA / "eth_opc.prmtop", DATA / "eth_tip3p.rst7"),
            r"has 194 atoms, but .* has 247 \(188 without virtual sites\)",
        ),
        (lambda _: (DATA / "eth_opc.rst7", DATA / "eth_opc.rst7"), "unknown force field suffix"),
    ],
)
def test_files_that_do_not_belong_together(files, message, tmp_path):
    with pytest.raises(InputError, match=message):
        System.read(*files(tmp_path))


def test_a_water_model_without_the_charge_of_its_site(tmp_path):
    system = read("opc")
    charges = np.where(system.numbers == 0, 0.0, system.tables.charges)
    system = system.replace(tables=dataclasses.replace(system.tables, charges=charges))
    with pytest.raises(InputError, match=r"has the charge \+1.358 e, so a virtual site"):
        System.read(*system.write(tmp_path / "x.prmtop"))


def test_coordinates_without_virtual_sites_are_completed(tmp_path):
    system = read("opc")
    real = system.numbers > 0
    numbers = system.positions[real].ravel().tolist()
    rows = ["".join(f"{x:12.7f}" for x in numbers[k : k + 6]) for k in range(0, len(numbers), 6)]
    box = "".join(f"{x:12.7f}" for x in np.concatenate(cell.amber_box(system.box)))
    path = tmp_path / "x.rst7"
    path.write_text("\n".join(["x", str(real.sum()), *rows, box]) + "\n")
    again = System.read(DATA / "eth_opc.prmtop", path)
    np.testing.assert_allclose(again.positions, system.positions, atol=1e-6)


@pytest.mark.parametrize("water", WATERS)
def test_terms_in_a_box_match_openmm(water):
    """PME, Lennard-Jones with its tail, and forces; the box of TIP3P is an octahedron.

    In octahedra, pairs are missing or double on the Reference platform of OpenMM 8.6: there the CPU
    platform, in single precision, is the oracle.
    """
    octahedron = water == "tip3p"
    platform, tolerance = ("CPU", 2e-5) if octahedron else ("Reference", 2e-6)
    system = read(water)
    cutoff = 0.49 * float(np.diag(system.box).min())
    potential = with_openmm_constant(system.potential(cutoff=cutoff, ewald_tolerance=1e-6))
    reference = openmm_system(
        water, nonbondedMethod=app.PME, nonbondedCutoff=cutoff / 10.0, ewaldErrorTolerance=1e-6
    )
    R, box = system.positions, system.box
    expected = openmm_terms(reference, R, box, platform)
    terms = {name: float(energy) for name, energy in potential.terms(R, box=box).items()}
    terms["lj"] += terms.pop("lj_tail")
    for name, (energy, _) in expected.items():
        assert terms[name] == pytest.approx(energy, rel=tolerance, abs=1e-6), name
    real = system.numbers > 0
    total = sum(forces for _, forces in expected.values())
    forces = np.array(potential.forces(R, box=box))
    np.testing.assert_allclose(
        forces[real], total[real], atol=10.0 * tolerance * np.abs(total).max()
    )


def test_pme_needs_a_box():
    with pytest.raises(InputError, match="electrostatics='pme' needs a box"):
        read("tip3p").replace(box=None).potential(electrostatics="pme")


@pytest.mark.parametrize("angles", [(90, 90, 90), (70, 80, 100), (60, 60, 90), (109.4712206,) * 3])
def test_boxes_are_reduced(angles):
    lengths = [30.0, 32.0, 35.0]
    box = cell.box_of([*lengths, *angles])
    assert cell.volume(box) == pytest.approx(
        np.prod(lengths) * _volume(np.radians(np.array(angles, float))), rel=1e-9
    )
    assert np.abs(box[1, 0]) <= 0.5 * box[0, 0] + 1e-4
    assert np.abs(box[2, 0]) <= 0.5 * box[0, 0] + 1e-4
    assert np.abs(box[2, 1]) <= 0.5 * box[1, 1] + 1e-4
    np.testing.assert_allclose(cell.box_of(box), box)


def _volume(angles):
    a, b, c = np.cos(angles)
    return np.sqrt(1.0 - a * a - b * b - c * c + 2.0 * a * b * c)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([10.0, 10.0], "a box must be"),
        ([10.0, 10.0, 0.0], "has no volume"),
        ([10.0, 10.0, 10.0, 10.0, 10.0, 170.0], "no box has the angles"),
        (np.eye(3)[::-1] * 20.0, "rotate the system"),
    ],
)
def test_wrong_boxes(box, message):
    with pytest.raises(InputError, match=message):
        cell.box_of(box)


def test_info_describes_a_system(capsys):
    assert main(["info", str(DATA / "eth_opc.prmtop")]) == 0
    out = capsys.readouterr().out
    assert "system" in out.splitlines()[0]
    assert "59" in next(line for line in out.splitlines() if "WAT" in line)
    assert "virtual sites" in out


def test_molecules_with_similar_residue_names_have_different_names_in_gromacs(tmp_path):
    water = read("tip3p")
    names = np.array(water.residue_names, object)
    assert names[0] == "LIG"
    names[:3] = "A_1", "A_1", "A_1"  # a molecule and two ions
    system = water.replace(residue_names=tuple(names))
    system.write(tmp_path / "x.top")
    again = System.read(tmp_path / "x.top")
    assert list(again.contents().values()) == list(system.contents().values())
    np.testing.assert_allclose(again.tables.charges, system.tables.charges, atol=1e-9)
