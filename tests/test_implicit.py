"""Implicit solvents, compared with OpenMM and with finite differences."""

import json
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import openmm
import pytest
from openmm import app
from openmm.app.internal import customgbforces

import jaxff
from jaxff import InputError, Molecule, Potential
from jaxff.formats.amber import read_inpcrd, read_topology
from jaxff.formats.prmtop import Prmtop

MODELS = {
    "hct": customgbforces.GBSAHCTForce,
    "obc1": customgbforces.GBSAOBC1Force,
    "obc2": customgbforces.GBSAOBC2Force,
    "gbn2": customgbforces.GBSAGBn2Force,
}
# Constants of OpenMM: 138.935485 kJ/mol nm/e² and 28.3919551 kJ/mol/nm² for 4π γ.
COULOMB, TENSION = 1389.35485 / 4.184, 28.3919551 / (4.0 * np.pi) / 418.4
SMILES = ("CC(=O)[O-]", "CS(C)=O", "C[NH+](C)C", "OCC(F)Cl", "O=[N+]([O-])c1ccccc1", "CP(=O)(OC)OC")
KCAL, ANGSTROM = openmm.unit.kilocalorie_per_mole, openmm.unit.angstrom


def openmm_topology(molecule):
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    atoms = [
        topology.addAtom(f"{s}{k}", app.element.Element.getBySymbol(s), residue)
        for k, s in enumerate(molecule.symbols)
    ]
    for i, j in molecule.bonds.tolist():
        topology.addBond(atoms[i], atoms[j])
    return topology


def openmm_energy_and_forces(force, R):
    system = openmm.System()
    for _ in R:
        system.addParticle(1.0)
    system.addForce(force)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(1e-3), platform)
    context.setPositions(0.1 * R)
    state = context.getState(energy=True, forces=True)
    forces = state.getForces(asNumpy=True).value_in_unit(KCAL / ANGSTROM)
    return state.getPotentialEnergy().value_in_unit(KCAL), forces


def custom_force(model, molecule, charges, surface):
    force = MODELS[model](SA=surface and surface.upper())
    for charge, values in zip(
        charges, MODELS[model].getStandardParameters(openmm_topology(molecule)), strict=True
    ):
        force.addParticle([charge, *values])
    force.finalize()
    return force


def with_values(potential, **values):
    group = potential.params["gbsa"]
    group = group | {
        k: np.broadcast_to(float(v) if np.ndim(v) == 0 else v, group[k].shape)
        for k, v in values.items()
    }
    return Potential(potential.program, {"gbsa": group}, potential.molecule)


def charges_of(potential):
    term = potential.program.placed[0].term
    return np.asarray(potential.params["gbsa"]["charge"])[term.charge_rows]


def geometry(smiles, seed=0):
    molecule = Molecule.from_smiles(smiles)
    moves = np.random.default_rng(seed).normal(0.0, 0.05, molecule.positions.shape)
    return molecule, molecule.positions + moves


def check(potential, model, R, surface):
    potential = with_values(potential, coulomb_constant=COULOMB, surface_tension=TENSION)
    force = custom_force(model, potential.molecule, charges_of(potential), surface)
    energy, forces = openmm_energy_and_forces(force, R)
    assert float(potential(R)) == pytest.approx(energy, abs=1e-6)
    np.testing.assert_allclose(potential.forces(R), forces, atol=1e-6)


@pytest.mark.parametrize("smiles", SMILES)
def test_energies_and_forces_of_openmm(smiles):
    molecule, R = geometry(smiles)
    charges = np.asarray(jaxff.parametrize(molecule, charges="gasteiger").charges)
    for k, model in enumerate(MODELS):
        surface = ("ace", None)[k % 2]
        check(jaxff.gbsa(molecule, model, surface, charges), model, R, surface)


def test_energies_of_freesolv(shared, tmp_path):
    """100 molecules with the radii of their topologies, against OpenMM's GBSAOBCForce."""
    with tarfile.open(shared / "data" / "freesolv" / "amber.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    paths = sorted(tmp_path.rglob("*.prmtop"))
    chosen = np.random.default_rng(7).choice(len(paths), 100, replace=False)
    solvated = [jaxff.gbsa(paths[k]) for k in chosen]
    frames = [read_inpcrd(paths[k].with_suffix(".inpcrd")) for k in chosen]
    energies, forces = jaxff.stack(solvated).energy_and_forces(frames)
    for k, number in enumerate(chosen):
        file = Prmtop(paths[number])
        radii, screening = (file.floats(x, file.n_atoms) for x in ("RADII", "SCREEN"))
        force = openmm.GBSAOBCForce()
        force.setSolventDielectric(78.5)
        force.setSurfaceAreaEnergy(418.4 * 0.0054)
        # OpenMM has the Coulomb constant of CODATA.
        ratio = np.sqrt(float(solvated[k].params["gbsa"]["coulomb_constant"]) / 332.0637128)
        for charge, radius, factor in zip(
            ratio * read_topology(paths[number]).charges, radii, screening, strict=True
        ):
            force.addParticle(charge, 0.1 * radius, factor)
        wanted, slope = openmm_energy_and_forces(force, frames[k])
        assert float(energies[k]) == pytest.approx(wanted, abs=1e-6)
        np.testing.assert_allclose(forces[k], slope, atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_gradients_of_parameters(model):
    molecule, R = geometry("CC(=O)N", seed=3)
    potential = jaxff.gbsa(molecule, model, charges="gasteiger")
    # The tables of gbn2 are interpolated linearly: the derivative jumps at multiples of 0.05 Å.
    potential = with_values(potential, radius=potential.params["gbsa"]["radius"] + 0.013)
    gradient = jax.grad(potential.energy_fn)(potential.params, R)["gbsa"]
    names = ["charge", "radius", "screening", "surface_tension", "solvent_dielectric"]
    names += ["alpha", "beta", "gamma"] if model != "hct" else []
    for name in names:
        values = np.atleast_1d(np.asarray(potential.params["gbsa"][name]))
        for row in range(len(values)):
            ends = []
            for step in (1e-5, -1e-5):
                moved = values.copy()
                moved[row] += step
                group = {**potential.params["gbsa"], name: moved.reshape(np.shape(gradient[name]))}
                ends.append(float(potential.energy_fn({"gbsa": group}, R)))
            slope = (ends[0] - ends[1]) / 2e-5
            assert np.ravel(gradient[name])[row] == pytest.approx(slope, rel=1e-6, abs=1e-6)


def test_float32():
    molecule, R = geometry("CC(=O)[O-]")
    potential = jaxff.gbsa(molecule, charges="gasteiger")
    single = potential.astype(jnp.float32)
    assert single(R.astype(np.float32)).dtype == jnp.float32
    assert float(single(R)) == pytest.approx(float(potential(R)), rel=2e-6)
    np.testing.assert_allclose(single.forces(R), potential.forces(R), atol=2e-4)


def test_composition_and_files(tmp_path):
    parametrization = jaxff.parametrize(Molecule.from_smiles("CCO"), charges="gasteiger")
    gaff, R = parametrization.potential(), parametrization.molecule.positions
    solvated = gaff + jaxff.gbsa(gaff)
    names = {"born", "surface", "lj", "coulomb"}
    assert names <= solvated.terms(R).keys()
    assert float(solvated(R)) == pytest.approx(
        float(gaff(R)) + float(jaxff.gbsa(parametrization)(R)), abs=1e-9
    )
    jaxff.save(tmp_path / "solvated.npz", solvated)
    again = jaxff.load(tmp_path / "solvated.npz")
    assert float(again(R)) == float(solvated(R))
    jaxff.write_force_field(tmp_path / "gas.prmtop", gaff)
    of_file = jaxff.gbsa(tmp_path / "gas.prmtop", "hct")
    assert float(of_file(R)) == pytest.approx(float(jaxff.gbsa(gaff, "hct")(R)), abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "obc3"}, "model must be one of hct, obc1"),
        ({"surface": "lcpo"}, 'surface must be "ace" or None'),
        ({"solute_dielectric": 0.5}, "dielectric constants must be at least 1"),
        ({"charges": [0.1, 0.2]}, "charges must be 9 finite numbers"),
    ],
)
def test_wrong_arguments(arguments, message):
    gaff = jaxff.gaff(Molecule.from_smiles("CCO"), charges="gasteiger")
    with pytest.raises(InputError, match=message):
        jaxff.gbsa(gaff, **arguments)


def test_radii_that_do_not_suit_the_model(tmp_path):
    gaff = jaxff.gaff(Molecule.from_smiles("CCO"), charges="gasteiger")
    jaxff.write_force_field(tmp_path / "ethanol.prmtop", gaff)
    with pytest.raises(InputError, match=r"radius of atom 8 \(H\) is 0.8 Å, but gbn2 needs 1 to 2"):
        jaxff.gbsa(tmp_path / "ethanol.prmtop", "gbn2")
    with pytest.raises(InputError, match="needs a Molecule, a Parametrization"):
        jaxff.gbsa(3)


def test_fitted_radii_are_those_of_the_classes_of_atoms():
    molecule, R = geometry("OCC(=O)NC")
    potential = jaxff.gbsa(molecule, charges="gasteiger", radii="hydration")
    term = potential.program.placed[0].term
    assert [term.labels[row] for row in term.atom_rows[:6]] == [
        "O hydroxyl", "C sp3", "C=O", "O=C", "N amide", "C sp3",
    ]  # fmt: skip
    tensions = np.asarray(potential.params["gbsa"]["surface_tension"])
    assert len(np.unique(tensions)) == len(tensions)
    published = jaxff.gbsa(molecule, charges="gasteiger")
    assert float(potential(R)) == pytest.approx(float(published(R)), abs=6.0)
    assert float(potential(R)) != pytest.approx(float(published(R)), abs=0.1)
    with pytest.raises(InputError, match="has no radius for H-P"):
        jaxff.gbsa(Molecule.from_smiles("CP"), charges="gasteiger", radii="hydration")
    with pytest.raises(InputError, match='needs model="obc2"'):
        jaxff.gbsa(molecule, "hct", charges="gasteiger", radii="hydration")


def test_fitted_radii_give_free_energies_of_hydration(shared, tmp_path):
    """The error of single geometries of half of FreeSolv."""
    folder = shared / "data" / "freesolv"
    experiments = json.loads((folder / "freesolv.json").read_text())
    with tarfile.open(folder / "amber.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    paths = sorted(tmp_path.rglob("*.prmtop"))[::8]
    found, wanted = [], []
    for path in paths:
        gaff = jaxff.read_force_field(path, path.with_suffix(".inpcrd"))
        solvent = jaxff.gbsa(gaff, radii="hydration")
        found.append(float(solvent(gaff.molecule.positions)))
        wanted.append(experiments[path.stem]["expt"])
    assert np.median(np.abs(np.subtract(found, wanted))) < 0.8
