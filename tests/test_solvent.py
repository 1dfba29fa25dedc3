"""Water models, ions, solvation and liquids, compared with OpenMM's own force-field files."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openmm
import pytest
from openmm import app
from systems import openmm_terms, with_openmm_constant

import jaxff
from jaxff import InputError, Molecule, cell
from jaxff.solvent import WATER_MODELS, liquid, solvate
from jaxff.solvent.models import CHARGES
from jaxff.solvent.packing import HEAVY, LIGHT, close_pairs
from jaxff.solvent.parts import of_ion, of_water

FILES = Path(app.__file__).parent / "data" / "amber14"
KJ = 4.184


@pytest.fixture(scope="module")
def ethanol():
    folder = Path(jaxff.__file__).parent / "data" / "gaff"
    return jaxff.parametrize(Molecule.read(folder / "ethanol.mol2"))


@pytest.fixture(scope="module")
def acetate():
    return jaxff.parametrize(Molecule.from_smiles("CC(=O)[O-]"), "gasteiger")


def number(value):
    return pytest.approx(float(value), rel=2e-7)


@pytest.mark.parametrize("name", WATER_MODELS)
def test_water_models_and_ions_are_those_of_openmm(name):
    root = ElementTree.parse(FILES / f"{name}.xml")
    model, water = WATER_MODELS[name], of_water(WATER_MODELS[name])
    residue = root.find("Residues/Residue[@name='HOH']")
    atoms = residue.findall("Atom")
    charges = [float(atom.attrib["charge"]) for atom in atoms]
    np.testing.assert_allclose(water.tables.charges, charges, atol=1e-9)
    by_type = {a.attrib["type"]: a.attrib for a in root.findall("NonbondedForce/Atom")}
    oxygen = by_type[atoms[0].attrib["type"]]
    assert 0.1 * model.sigma == number(oxygen["sigma"])
    assert KJ * model.epsilon == number(oxygen["epsilon"])
    assert 0.1 * model.length == number(root.find("HarmonicBondForce/Bond").attrib["length"])
    angle = root.find("HarmonicAngleForce/Angle").attrib["angle"]
    assert np.radians(model.angle) == number(angle)
    site = residue.find("VirtualSite")
    assert (site is not None) == bool(model.site) == bool(len(water.sites))
    if site is not None:
        weights = [float(site.attrib[f"weight{k}"]) for k in (1, 2, 3)]
        np.testing.assert_allclose(water.sites.weights[0], weights, rtol=2e-6)
    for element, charge in CHARGES.items():
        kind = next(k for k in by_type if k.endswith(f"-{element}{'+' if charge > 0 else '-'}"))
        values = of_ion(element, model).tables.lj.values
        assert 0.1 * values["sigma"][0] == number(by_type[kind]["sigma"])
        assert KJ * values["epsilon"][0] == number(by_type[kind]["epsilon"])


def distances(system, cutoff):
    """Elements (P, 2) and distances (P,) of atoms in different molecules."""
    real = np.flatnonzero(system.numbers > 0)
    R = system.positions[real]
    i, j, d = close_pairs(R, R, system.box, cutoff)
    apart = system.molecules[real[i]] != system.molecules[real[j]]
    return system.numbers[real[np.stack([i, j], axis=1)[apart]]], np.linalg.norm(d[apart], axis=1)


@pytest.mark.parametrize(
    ("water", "shape"), [("tip3p", "cube"), ("opc", "octahedron"), ("spce", "cube")]
)
def test_solvated_boxes(ethanol, water, shape):
    system = solvate(ethanol, water, padding=10.0, shape=shape, salt=0.3)
    waters = len(system.waters)
    contents = system.contents()
    assert contents["Na+ (Na)"] == contents["Cl- (Cl)"] == round(waters * 0.3 / 55.4, 0)
    assert contents["MOL (C2H6O)"] == 1
    assert contents["HOH (H2O)"] == waters == len(system.constraints.waters)
    assert system.charge == pytest.approx(0.0, abs=1e-9)
    assert 0.95 < system.density < 1.04
    elements, r = distances(system, 2.6)
    heavy = (elements > 1).all(axis=1)
    assert r[heavy].min() > 2.29
    assert r.min() > 1.49
    # The solute is 10 Å from the faces in each orientation.
    R = system.positions[system.atoms_in("MOL")]
    radius = np.linalg.norm(R - 0.5 * (R.min(axis=0) + R.max(axis=0)), axis=1).max()
    assert cell.widths(system.box).min() > (2.0 * radius + 20.0) * (0.8 if "o" in shape else 0.99)
    assert np.linalg.norm(system.box, axis=1).min() == pytest.approx(2.0 * radius + 20.0, rel=1e-6)
    assert cell.widths(system.box).min() >= 18.0
    again = solvate(ethanol, water, padding=10.0, shape=shape, salt=0.3)
    np.testing.assert_array_equal(again.positions, system.positions)


def test_ions_neutralise_several_solutes(acetate):
    moved = acetate.molecule.with_positions(acetate.molecule.positions + 6.0)
    other = jaxff.parametrize(moved, acetate.charges)
    system = solvate([acetate, other], "tip4pew", padding=6.0, salt=0.1, ions=("K", "Br"))
    contents = system.contents()
    assert contents["K+ (K)"] == contents.get("Br- (Br)", 0) + 2
    assert contents["MOL (C2H3O2)"] == 2
    assert system.charge == pytest.approx(0.0, abs=1e-6)
    assert len(system.sites) == len(system.waters)


@pytest.mark.parametrize("suffix", ["prmtop", "xml"])
@pytest.mark.parametrize("water", ["spce", "tip4pew"])
def test_openmm_reads_solvated_systems(ethanol, water, suffix, tmp_path):
    """Energies by term in OpenMM are those of jaxff."""
    system = solvate(ethanol, water, padding=3.0)
    path, _ = system.write(tmp_path / f"x.{suffix}")
    if suffix == "xml":
        written = openmm.XmlSerializer.deserialize(path.read_text())
        force = next(f for f in written.getForces() if isinstance(f, openmm.NonbondedForce))
        force.setNonbondedMethod(openmm.NonbondedForce.NoCutoff)
    else:
        topology = app.AmberPrmtopFile(str(path))
        written = topology.createSystem(rigidWater=False, removeCMMotion=False)
    potential = with_openmm_constant(system.replace(box=None).potential())
    terms = potential.terms(system.positions)
    for name, (energy, _) in openmm_terms(written, system.positions).items():
        assert float(terms[name]) == pytest.approx(energy, rel=1e-6, abs=1e-6), name


def test_liquids_have_their_density_and_no_overlaps(ethanol):
    system = liquid({ethanol: 40, "tip3p": 20}, density=0.85)
    assert system.contents() == {"MOL (C2H6O)": 40, "HOH (H2O)": 20}
    assert system.density == pytest.approx(0.85, rel=1e-9)
    elements, r = distances(system, HEAVY + 0.5)
    assert r[(elements > 1).all(axis=1)].min() >= HEAVY - 1e-6
    assert r.min() >= LIGHT - 1e-6
    R = system.positions[:9]
    i, j = np.triu_indices(9, 1)
    expected = np.linalg.norm(
        (ethanol.molecule.positions[i] - ethanol.molecule.positions[j]), axis=1
    )
    np.testing.assert_allclose(np.linalg.norm(R[i] - R[j], axis=1), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: solvate(m, "tip5p"), "unknown water model 'tip5p'; use tip3p"),
        (lambda m: solvate(m, shape="sphere"), "shape is 'sphere', but must be one of cube"),
        (lambda m: solvate(m, padding=-1.0), "padding is -1.0 Å, but must be a finite"),
        (lambda m: solvate(m, salt=0.1, ions=("Mg", "Cl")), "no parameters for the ion 'Mg'"),
        (lambda m: solvate(m, salt=0.1, ions=("Cl", "Na")), "a cation and an anion"),
        (lambda m: solvate(m, salt=9.0), "salt is 9.0 mol/L, but must be a finite number from 0"),
        (lambda m: solvate(m, padding="12"), "padding is '12' Å, but must be"),
        (lambda m: solvate(m, seed=-1), "seed is -1, but must be"),
        (lambda m: solvate([]), "there is no solute"),
        (lambda m: solvate("CCO"), r"or a System \(got 'CCO'\); make a Molecule by"),
        (lambda m: liquid({m: 0}, 0.8), "number of molecules is 0, but must be"),
        (lambda m: liquid({m: 5}, -1.0), "density is -1.0 g/cm³, but must be"),
        (lambda m: liquid(["tip3p"], 1.0), "must be a dict of molecules and their numbers"),
        (lambda m: liquid({m: 1}, 9.0), "give more molecules"),
        (lambda m: liquid({m: 30}, 3.0), "give a lower density"),
    ],
)
def test_wrong_requests(ethanol, make, message):
    with pytest.raises(InputError, match=message):
        make(ethanol)


def test_an_ion_needs_a_place(ethanol, monkeypatch):
    monkeypatch.setattr("jaxff.solvent.solvation.ION", 8.5)
    with pytest.raises(InputError, match=r"no place for 10 ions that are 8\.5 Å apart"):
        solvate(ethanol, padding=3.0, salt=1.5)
