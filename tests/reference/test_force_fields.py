"""Force fields of Open Babel and RDKit: right forces, one topology, beside any potential."""

import sys
from dataclasses import replace
from itertools import pairwise

import ase.io
import jax
import numpy as np
import pytest

import jaxff
from jaxff import Dataset, InputError, Molecule, units
from jaxff.reference import Labelling, calculator, label_frames, label_md
from jaxff.reference.calculators import KNOWN, Method
from jaxff.reference.force_fields import ForceField

BABEL = ("uff", "mmff94", "ghemical")
RDKIT = ("uff-rdkit", "mmff94-rdkit")
# Planar centres of every kind: there Open Babel's own gradients are wrong.
PLANAR = {
    "keto-malondialdehyde": "O=CCC=O",
    "acetamide": "CC(=O)N",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
}


@pytest.fixture(scope="module", autouse=True)
def _open_babel():
    pytest.importorskip("openbabel")


@pytest.fixture(scope="module")
def molecules():
    return {name: Molecule.from_smiles(smiles) for name, smiles in PLANAR.items()}


def distorted(molecule, width=0.08, seed=0):
    noise = np.random.default_rng(seed).normal(0.0, width, molecule.positions.shape)
    return molecule.positions + noise


def evaluated(calc, molecule, R):
    """Energy, kcal/mol, and forces, kcal/mol/Å."""
    atoms = molecule.with_positions(R).to_ase()
    atoms.calc = calc
    return atoms.get_potential_energy() * units.EV, atoms.get_forces() * units.EV


@pytest.mark.parametrize("name", [*BABEL, *RDKIT])
@pytest.mark.parametrize("which", PLANAR)
def test_forces_are_the_slope_of_the_energy(molecules, which, name):
    molecule = molecules[which]
    calc = calculator(name, molecule=molecule)
    for seed in range(2):
        R = distorted(molecule, seed=seed)
        _, forces = evaluated(calc, molecule, R)
        # Along random directions, by Richardson's extrapolation of two-point differences.
        direction = np.random.default_rng(seed + 9).normal(size=(2, *R.shape))
        for along in direction:
            slopes = [
                sum(s * evaluated(calc, molecule, R + s * h * along)[0] for s in (1, -1)) / (2 * h)
                for h in (1e-3, 5e-4)
            ]
            slope = (4.0 * slopes[1] - slopes[0]) / 3.0
            scale = np.linalg.norm(forces) * np.linalg.norm(along)
            assert -np.sum(forces * along) == pytest.approx(slope, abs=1e-7 * scale)
        torque = np.cross(R - R.mean(axis=0), forces).sum(axis=0)
        assert np.abs(forces.sum(axis=0)).max() < 1e-6
        assert np.abs(torque).max() < 1e-6


@pytest.mark.parametrize(
    "smiles", [*PLANAR.values(), "CC(=O)[O-]", "C[NH3+]", "Cn1ccnc1", "CS(C)=O"]
)
def test_two_programs_agree_on_mmff94(smiles):
    """Open Babel and RDKit, each from the MMFF94 papers, with constants of four to six digits."""
    molecule = Molecule.from_smiles(smiles)
    one, other = (calculator(n, molecule=molecule) for n in ("mmff94", "mmff94-rdkit"))
    for seed in range(2):
        R = distorted(molecule, seed=seed)
        (e, f), (e_other, f_other) = evaluated(one, molecule, R), evaluated(other, molecule, R)
        assert e == pytest.approx(e_other, rel=3e-4, abs=0.01)
        np.testing.assert_allclose(f, f_other, atol=3e-4 * np.abs(f).max())


@pytest.mark.parametrize("name", ["mmff94", "ghemical", "uff"])
def test_straight_angles_are_not_taken_for_folded_ones(name):
    """Exactly straight, Open Babel alone is off by 162 kcal/mol (MMFF94) and more."""
    molecule = Molecule.from_smiles("C#C")
    line = np.array([0.0, 1.2, -1.06, 2.26])[:, None] * [0.36, 0.48, 0.8]
    calc = calculator(name, molecule=molecule)
    across = 1e-3 * np.array([0.8, -0.6, 0.0])
    nearly = line.copy()
    nearly[0] += across
    nearly[1] -= across
    energy, forces = evaluated(calc, molecule, line)
    assert energy == pytest.approx(evaluated(calc, molecule, nearly)[0], abs=0.05)
    assert np.abs(forces - np.outer(forces @ line[1], line[1]) / 1.44).max() < 1e-2
    if name == "mmff94":
        expected = evaluated(calculator("mmff94-rdkit", molecule=molecule), molecule, line)
        assert energy == pytest.approx(expected[0], abs=2e-3)
        np.testing.assert_allclose(forces, expected[1], atol=2e-2)


def test_mmff94_without_parameters_is_refused():
    """Carbon dioxide at MMFF94's own minimum: 57 kcal/mol from Open Babel, without a word."""
    with pytest.raises(InputError, match=r'Open Babel lacks MMFF94 parameters .*"mmff94-rdkit"'):
        calculator("mmff94", molecule=Molecule.from_smiles("O=C=O"))


def test_the_energies_are_the_packages_own(molecules):
    """Units: Open Babel's UFF and Ghemical are in kJ/mol, its MMFF94 in kcal/mol."""
    from openbabel import openbabel
    from rdkit import Chem

    from jaxff.gaff.lewis import lewis_structure

    molecule = molecules["acetamide"]
    block = Chem.MolToMolBlock(lewis_structure(molecule).to_rdkit(conformer=True))
    own, reader = openbabel.OBMol(), openbabel.OBConversion()
    reader.SetInFormat("mol")
    reader.ReadString(own, block)
    R = np.array([[f(own.GetAtom(i + 1)) for f in (_x, _y, _z)] for i in range(molecule.n_atoms)])
    for name, joule in (("uff", 4.184), ("mmff94", 1.0), ("ghemical", 4.184)):
        energy, _ = evaluated(calculator(name, molecule=molecule), molecule, R)
        field = openbabel.OBForceField.FindForceField(name)
        field.Setup(openbabel.OBMol())
        field.Setup(own)
        assert energy == pytest.approx(field.Energy(False) / joule, rel=1e-7)


def _x(atom):
    return atom.GetX()


def _y(atom):
    return atom.GetY()


def _z(atom):
    return atom.GetZ()


@pytest.mark.parametrize("name", [*BABEL, *RDKIT])
def test_isomers_taken_in_turn_do_not_mix(name):
    """Same atoms, neighbours and bond orders place by place: Open Babel takes them for the same."""
    pair = [Molecule.from_smiles(s) for s in ("Fc1c(Cl)cccc1", "Fc1cc(Cl)ccc1")]
    calcs = [calculator(name, molecule=m) for m in pair]
    energies = [
        [evaluated(c, m, distorted(m, seed=s))[0] for c, m in zip(calcs, pair, strict=True)]
        for s in (0, 1, 0)
    ]
    assert energies[0] == energies[2]
    alone = [evaluated(calculator(name, molecule=m), m, distorted(m))[0] for m in pair]
    assert energies[0] == alone


@pytest.mark.parametrize("name", [*BABEL, *RDKIT])
def test_no_geometry_changes_the_topology(molecules, name):
    """Enol or keto, double or single, bonded or not: the given bonds count, not the distances."""
    molecule = molecules["keto-malondialdehyde"]
    calc = calculator(name, molecule=molecule)
    R = molecule.positions
    far = R.copy()
    far[0] = R[1] + 2.2 * (R[0] - R[1])  # an oxygen pulled off its carbon
    near = R.copy()
    near[-1] = R[0] + np.array([0.0, 0.0, 1.0])  # an aldehyde's hydrogen at the other oxygen
    assert len(replace(molecule, positions=far).neighbours[0]) == 1
    for other in (far, near):
        perceived = Molecule.from_ase(molecule.with_positions(other).to_ase())
        assert not np.array_equal(perceived.bonds, molecule.bonds)
        # Set up at that geometry or elsewhere, before or after others: one energy.
        elsewhere = calculator(name, molecule=molecule.with_positions(other))
        expected = evaluated(calc, molecule, other)
        for again in (elsewhere, calc):
            energy, forces = evaluated(again, molecule, other)
            assert energy == pytest.approx(expected[0], rel=1e-12)
            np.testing.assert_allclose(forces, expected[1], rtol=1e-6, atol=1e-6)
        assert calc.topology == elsewhere.topology == "O=CCC=O"
    # The energy is continuous on the way, as it would not be if bonds were perceived anew.
    way = [evaluated(calc, molecule, R + t * (far - R)) for t in np.linspace(0.0, 1.0, 41)]
    work = [-0.5 * np.sum((a[1] + b[1]) * (far - R)) / 40 for a, b in pairwise(way)]
    np.testing.assert_allclose(np.diff([e for e, _ in way]), work, rtol=0.05, atol=0.5)


def test_without_a_molecule_the_first_geometry_decides(molecules):
    molecule = molecules["acetamide"]
    atoms = molecule.to_ase()
    calc = calculator("mmff94-rdkit")
    assert calc.molecule is None
    atoms.calc = calc
    start = atoms.get_potential_energy()
    assert calc.topology == "CC(N)=O"
    np.testing.assert_array_equal(calc.molecule.bonds, molecule.bonds)
    atoms.positions[2] += 1.5 * (atoms.positions[2] - atoms.positions[1])
    assert atoms.get_potential_energy() > start + 50.0
    assert calc.topology == "CC(N)=O"
    other = Molecule.from_smiles("O").to_ase()
    other.calc = calc
    with pytest.raises(InputError, match="calculator is for C2H5NO"):
        other.get_potential_energy()


@pytest.mark.parametrize("name", ["mmff94", "mmff94-rdkit"])
def test_the_charge_belongs_to_the_topology(name):
    acetate = Molecule.from_smiles("CC(=O)[O-]")
    assert acetate.charge == -1
    given = calculator(name, molecule=acetate)
    assert given.topology == "CC(=O)[O-]"
    atoms = acetate.to_ase()
    atoms.info = {}
    atoms.calc = calculator(name, charge=-1)
    assert atoms.get_potential_energy() * units.EV == pytest.approx(
        evaluated(given, acetate, acetate.positions)[0], rel=1e-12
    )
    with pytest.raises(InputError, match=r"no closed-shell structure has the net charge \+0"):
        calculator(name, molecule=replace(acetate, charge=0))


def test_what_cannot_be_is_said(molecules, monkeypatch):
    with pytest.raises(InputError, match="write a model file with `jaxff parametrize`"):
        calculator("gaff")
    with pytest.raises(InputError, match="unknown force field 'gaff': use one of uff"):
        ForceField("gaff")
    with pytest.raises(InputError, match="MMFF94 lacks parameters"):
        calculator("mmff94", molecule=Molecule([6, 8], [[0, 0, 0], [0, 0, 1.13]], [[0, 1]]))
    monkeypatch.setitem(sys.modules, "openbabel", None)
    with pytest.raises(InputError, match=r'pip install "jaxff\[openbabel\]"'):
        calculator("uff")


def test_theories_tell_the_packages_apart():
    assert Method("uff").theory.startswith("UFF (openbabel-wheel ")
    assert Method("UFF-rdkit").theory.startswith("UFF (rdkit ")
    assert set(BABEL + RDKIT) < set(KNOWN)


# -- labelling -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scan(molecules):
    """Acetamide's carbonyl, stretched frame by frame up to 2.4 times its length."""
    start = molecules["acetamide"]
    frames = np.repeat(start.positions[None], 8, axis=0)
    frames[:, 2] += 0.2 * np.arange(8)[:, None] * (start.positions[2] - start.positions[1])
    return [start.with_positions(R).to_ase() for R in frames]


def test_workers_share_the_first_frame_s_topology(molecules, scan, tmp_path):
    out = tmp_path / "out.npz"
    label_frames(scan, out, Labelling("mmff94"))
    calc = calculator("mmff94", molecule=molecules["acetamide"])
    data = Dataset.load(out, check=False)
    for frame, atoms in enumerate(scan):
        energy, forces = evaluated(calc, molecules["acetamide"], atoms.positions)
        assert data.energies[frame] == pytest.approx(energy, rel=1e-9)
        np.testing.assert_allclose(data.forces[frame], forces, atol=1e-6)
    with np.load(out) as file:
        assert str(file["topology"]) == "CC(N)=O (the frames')"


def test_a_given_molecule_decides_in_any_order(molecules, scan, tmp_path):
    """The last frame first: its bonds alone would leave the oxygen on its own."""
    frames, how = scan[::-1][:3], Labelling("mmff94-rdkit", workers=1)
    with pytest.raises(InputError, match=r"2 separate molecules.*`jaxff label --molecule`"):
        label_frames(frames, tmp_path / "out.npz", how)
    given = molecules["acetamide"]
    label_frames(frames, tmp_path / "out.npz", how, molecule=given)
    calc = calculator("mmff94-rdkit", molecule=given)
    data = Dataset.load(tmp_path / "out.npz", check=False)
    assert data.energies[2] == pytest.approx(evaluated(calc, given, frames[2].positions)[0])
    shuffled = given.reorder(np.random.default_rng(3).permutation(given.n_atoms))
    label_frames(scan[:1], tmp_path / "two.npz", how, molecule=shuffled)
    data = Dataset.load(tmp_path / "two.npz", check=False)
    assert data.energies[0] == pytest.approx(evaluated(calc, given, scan[0].positions)[0])


def test_any_potential_labels_in_batches(molecules, tmp_path):
    molecule = molecules["acetamide"]
    potential = jaxff.gaff(molecule, charges="gasteiger")
    model = tmp_path / "gaff.npz"
    jaxff.save(model, potential)
    order = np.random.default_rng(2).permutation(molecule.n_atoms)
    frames = np.array([distorted(molecule, seed=s) for s in range(5)])
    ase.io.write(
        tmp_path / "frames.xyz",
        [molecule.with_positions(R).reorder(order).to_ase() for R in frames],
        format="extxyz",
    )
    how = Labelling(str(model), workers=1)
    result = label_frames(tmp_path / "frames.xyz", tmp_path / "out.npz", how)
    calc = jaxff.ase.Calculator(potential)  # finds the atoms at its first geometry, too
    for frame, R in enumerate(result.dataset.positions):
        energy, forces = evaluated(calc, molecule.reorder(order), R)
        assert result.dataset.energies[frame] == pytest.approx(energy, rel=1e-9)
        np.testing.assert_allclose(result.dataset.forces[frame], forces, atol=1e-8)
    assert result.dataset.theory.startswith("gaff (jaxff ")
    with pytest.raises(InputError, match="sample with `jaxff md`"):
        label_md(molecule, tmp_path / "md.npz", 10, how)
    with pytest.raises(InputError, match="cannot be evaluated on a cluster"):
        label_frames(
            tmp_path / "frames.xyz", tmp_path / "b.npz", Labelling(str(model), scheduler="local")
        )
    with pytest.raises(InputError, match=r"charge \+0, but the frames have charge \+1"):
        label_frames(tmp_path / "frames.xyz", tmp_path / "b.npz", how, charge=1)
    atoms = molecule.to_ase()
    atoms.calc = calculator(str(model))
    assert atoms.get_potential_energy() * units.EV == pytest.approx(
        float(potential(molecule.positions)), rel=1e-9
    )
    with jax.enable_x64(False), pytest.raises(InputError, match="labels need float64"):
        label_frames(tmp_path / "frames.xyz", tmp_path / "b.npz", how)


def test_the_command_line_takes_a_molecule(molecules, scan, tmp_path, capsys):
    from jaxff.cli import main

    frames, out = tmp_path / "frames.xyz", tmp_path / "out.npz"
    ase.io.write(frames, scan[:0:-1], format="extxyz")
    call = ["label", str(frames), "--calculator", "uff-rdkit", "--workers", "1", "-o", str(out)]
    assert main(call) == 1
    assert "`jaxff label --molecule`" in capsys.readouterr().err
    assert main([*call, "--molecule", PLANAR["acetamide"]]) == 0
    assert "topology of all frames: CC(N)=O (as given)" in capsys.readouterr().out
    assert main([*call, "--md", "--scheduler", "local"]) == 1
    assert "then label the frames with --scheduler" in capsys.readouterr().err
