"""Data sets: files of every kind, units, splits and faults."""

from dataclasses import replace

import ase
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from jaxff import Dataset, InputError, Molecule, units


@pytest.fixture(scope="module")
def data():
    """Water-like frames: harmonic O-H springs of 900 kcal/mol/Å² around 0.96 Å."""
    molecule = Molecule.from_smiles("O")
    rng = np.random.default_rng(0)
    R = molecule.positions + 0.05 * rng.normal(size=(60, 3, 3))
    forces, energies = np.zeros_like(R), np.zeros(60)
    for h in (1, 2):
        bond = R[:, h] - R[:, 0]
        length = np.linalg.norm(bond, axis=1)
        pull = -900.0 * (length - 0.96)[:, None] * bond / length[:, None]
        forces[:, h] += pull
        forces[:, 0] -= pull
        energies += 450.0 * (length - 0.96) ** 2
    return Dataset([8, 1, 1], R, forces, energies, name="water", theory="springs")


def test_round_trip_is_exact(tmp_path, data):
    noted = replace(data, notes={"command": "made here"})
    noted.save(tmp_path / "water.npz")
    read = Dataset.load(tmp_path / "water.npz")
    for key in ("numbers", "positions", "forces", "energies"):
        assert np.array_equal(getattr(read, key), getattr(data, key))
    assert (read.name, read.theory, read.notes["command"]) == ("water", "springs", "made here")
    with np.load(tmp_path / "water.npz") as raw:
        assert str(raw["md5"]) == data.fingerprint()
        assert raw["z"].dtype == np.uint8
        assert str(raw["r_unit"]) == "Ang"


def test_rmd17_layout(tmp_path, data):
    path = tmp_path / "rmd17.npz"
    np.savez(
        path,
        nuclear_charges=data.numbers,
        coords=data.positions,
        energies=data.energies,
        forces=data.forces,
        old_indices=np.arange(60),
    )
    read = Dataset.load(path)
    assert np.array_equal(read.forces, data.forces)
    assert read.name == "rmd17"


def test_declared_units_are_converted(tmp_path, data):
    path = tmp_path / "atomic.npz"
    r, e = units.length_factor("Bohr"), units.energy_factor("Hartree")
    np.savez(
        path,
        z=data.numbers,
        R=data.positions / r,
        E=data.energies[:, None] / e,
        F=data.forces * r / e,
        r_unit="Bohr",
        e_unit="Hartree",
    )
    read = Dataset.load(path)
    np.testing.assert_allclose(read.positions, data.positions, rtol=1e-14)
    np.testing.assert_allclose(read.forces, data.forces, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(read.energies, data.energies, rtol=1e-12)


def test_extxyz_of_ase_is_in_electronvolts(tmp_path, data):
    frames = []
    for R, E, F in zip(data.positions, data.energies, data.forces, strict=True):
        atoms = ase.Atoms(data.numbers, R, info={"comment_of_a_user": 3})
        atoms.calc = SinglePointCalculator(atoms, energy=E / units.EV, forces=F / units.EV)
        frames.append(atoms)
    ase.io.write(tmp_path / "water.extxyz", frames)
    read = Dataset.load(tmp_path / "water.extxyz")
    np.testing.assert_allclose(read.forces, data.forces, atol=1e-5)
    np.testing.assert_allclose(read.energies, data.energies, atol=1e-5)


@pytest.mark.parametrize("unit", ["eV", "kJ/mol", "Hartree"])
def test_undeclared_energy_units_are_noticed(tmp_path, data, unit):
    factor = units.energy_factor(unit)
    path = tmp_path / "wrong.npz"
    replace(data, forces=data.forces / factor, energies=data.energies / factor).save(path)
    with pytest.raises(InputError, match=rf"wrong\.npz: forces seem to be in {unit}/Å"):
        Dataset.load(path)
    read = Dataset.load(path, energy_unit=unit)
    np.testing.assert_allclose(read.forces, data.forces, rtol=1e-12, atol=1e-12)


def write_extxyz(path, data, unit, energy="energy", forces="forces", **info):
    """Frames in `unit` and Å under other names than those of ASE's results."""
    factor = units.energy_factor(unit)
    frames = []
    for R, E, F in zip(data.positions, data.energies, data.forces, strict=True):
        atoms = ase.Atoms(data.numbers, R, info={energy: E / factor, **info})
        atoms.arrays[forces] = F / factor
        frames.append(atoms)
    ase.io.write(path, frames, "extxyz")


@pytest.mark.parametrize("unit", ["kcal/mol", "kJ/mol", "Hartree"])
def test_the_advice_about_units_of_extxyz_is_right(tmp_path, data, unit):
    path = tmp_path / "wrong.extxyz"
    write_extxyz(path, data, unit)
    message = (
        rf"forces seem to be in {unit}/Å, not eV/Å, ASE's default: .* \(--energy-unit {unit}\)"
    )
    with pytest.raises(InputError, match=message):
        Dataset.load(path)
    read = Dataset.load(path, energy_unit=unit)
    np.testing.assert_allclose(read.forces, data.forces, atol=1e-4)
    assert unit in read.notes.get("source_units", "kcal/mol")


def test_given_units_are_checked_too(tmp_path, data):
    path = tmp_path / "wrong.extxyz"
    write_extxyz(path, data, "eV")
    assert "eV and Ang (ASE's default" in Dataset.load(path).notes["source_units"]
    with pytest.raises(InputError, match="forces seem to be in eV/Å, not kJ/mol/Å"):
        Dataset.load(path, energy_unit="kJ/mol")
    with pytest.raises(InputError, match="positions seem to be in Ang, not Bohr"):
        Dataset.load(path, length_unit="Bohr")
    read = Dataset.load(path, energy_unit="kJ/mol", check=False)
    factor = units.KJ_MOL / units.EV
    np.testing.assert_allclose(read.forces, data.forces * factor, atol=1e-4)


def test_energies_and_forces_of_any_name(tmp_path, data):
    path = tmp_path / "mace.extxyz"
    write_extxyz(path, data, "eV", "REF_energy", "REF_forces")
    np.testing.assert_allclose(Dataset.load(path).forces, data.forces, atol=1e-4)
    write_extxyz(path, data, "eV", "dft_energy", "dft_forces")
    with pytest.raises(InputError, match=r"frame 0 has no forces .* dft_forces: .*--forces-key"):
        Dataset.load(path)
    with pytest.raises(InputError, match="no energy named dft_e; it has dft_energy"):
        Dataset.load(path, energy_key="dft_e", forces_key="dft_forces")
    read = Dataset.load(path, energy_key="dft_energy", forces_key="dft_forces")
    np.testing.assert_allclose(read.energies, data.energies, atol=1e-4)


def test_two_different_forces_are_ambiguous(tmp_path, data):
    frames = []
    for R, E, F in zip(data.positions, data.energies, data.forces, strict=True):
        atoms = ase.Atoms(data.numbers, R, info={"REF_energy": E / units.EV})
        atoms.calc = SinglePointCalculator(atoms, energy=E / units.EV, forces=0.9 * F / units.EV)
        atoms.arrays["REF_forces"] = F / units.EV
        frames.append(atoms)
    path = tmp_path / "both.extxyz"
    ase.io.write(path, frames)
    with pytest.raises(InputError, match="different forces values named forces and REF_forces"):
        Dataset.load(path)
    read = Dataset.load(path, forces_key="REF_forces")
    np.testing.assert_allclose(read.forces, data.forces, atol=1e-4)


def test_the_charge_is_kept(tmp_path, data):
    charged = replace(data, charge=-1)
    charged.save(tmp_path / "a.npz")
    write_extxyz(tmp_path / "a.extxyz", data, "eV", charge=-1)
    for suffix in ("npz", "extxyz"):
        read = Dataset.load(tmp_path / f"a.{suffix}")
        assert read.charge == read.molecule.charge == read[:3].charge == -1
    with pytest.raises(InputError, match=r"net charge must be a whole number of e .got 0\.5"):
        replace(data, charge=0.5)
    frames = [
        ase.Atoms("OH2", R, info={"charge": k, "energy": 0.0})
        for k, R in enumerate(data.positions[:2])
    ]
    for atoms in frames:
        atoms.arrays["force"] = np.zeros((3, 3))
    ase.io.write(tmp_path / "b.extxyz", frames)
    with pytest.raises(InputError, match="frame 1 has charge 1, but frame 0 has 0"):
        Dataset.load(tmp_path / "b.extxyz")


def test_undeclared_lengths_and_gradients_are_noticed(tmp_path, data):
    path = tmp_path / "bohr.npz"
    replace(data, positions=data.positions / units.BOHR).save(path)
    with pytest.raises(InputError, match="positions seem to be in Bohr"):
        Dataset.load(path)
    replace(data, forces=-data.forces).save(path)
    with pytest.raises(InputError, match="probably gradients"):
        Dataset.load(path)


def test_split_is_disjoint_reproducible_and_free_of_copies(data):
    doubled = replace(
        data,
        positions=np.concatenate([data.positions, data.positions]),
        forces=np.concatenate([data.forces, data.forces]),
        energies=np.concatenate([data.energies, data.energies]),
        index=None,
    )
    np.testing.assert_array_equal(doubled.distinct(), np.arange(60))
    split = doubled.split(20, 10, None, seed=3)
    assert [len(part) for part in split] == [20, 10, 30]
    seen = np.concatenate([part.positions for part in split])
    assert len(np.unique(seen, axis=0)) == 60
    again = doubled.split(20, 10, None, seed=3)
    assert np.array_equal(again.train.index, split.train.index)
    assert not np.array_equal(doubled.split(20, 10, seed=4).train.index, split.train.index)
    assert np.array_equal(doubled.positions[split.test.index], split.test.positions)


@pytest.mark.parametrize("wrong", [0.5, -1, "5", True, np.nan])
def test_sizes_of_parts_are_whole_numbers(data, wrong):
    for sizes in ((wrong, 2, 2), (2, wrong, 2), (2, 2, wrong)):
        with pytest.raises(InputError, match="but must be a whole number of at least 0"):
            data.split(*sizes)
    with pytest.raises(InputError, match="seed is"):
        data.split(2, seed=wrong)


def test_reorder_carries_positions_and_forces(data):
    other = data.reorder([1, 0, 2])
    assert other.numbers.tolist() == [1, 8, 1]
    assert np.array_equal(other.forces[:, 1], data.forces[:, 0])
    assert data.molecule.match(other.molecule).tolist() == [1, 0, 2]


def test_bad_files_are_one_sentence(tmp_path, data):
    path = tmp_path / "data.npz"
    with pytest.raises(InputError, match="no such file"):
        Dataset.load(path)
    data.save(path)
    whole = path.read_bytes()
    for cut in (10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"data\.npz: not a readable data set"):
            Dataset.load(path)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    path.write_bytes(bytes(damaged))
    with pytest.raises(InputError, match="not a readable data set"):
        Dataset.load(path)
    np.savez(path, a=1)
    with pytest.raises(InputError, match="needs the arrays z, R, F"):
        Dataset.load(path)
    np.savez(path, z=data.numbers, R=data.positions)
    with pytest.raises(InputError, match="'F' is missing"):
        Dataset.load(path)
    np.savez(path, z=data.numbers, R=data.positions, F=data.forces[:-1])
    with pytest.raises(InputError, match=r"forces have shape \(59, 3, 3\)"):
        Dataset.load(path)
    wrong = data.forces.copy()
    wrong[17, 2, 1] = np.nan
    np.savez(path, z=data.numbers, R=data.positions, F=wrong)
    with pytest.raises(InputError, match="frame 17 has a force that is not finite"):
        Dataset.load(path)
    np.savez(path, z=data.numbers, R=data.positions, F=data.forces, e_unit="erg")
    with pytest.raises(InputError, match="unknown energy unit 'erg'"):
        Dataset.load(path)
    np.savez(path, z=data.numbers, R=data.positions.astype(object), F=data.forces)
    with pytest.raises(InputError, match="'R' is pickled"):
        Dataset.load(path)
    whole = {"z": data.numbers, "R": data.positions, "F": data.forces, "E": data.energies}
    for key, value in {"E": whole["E"].astype(object), "charge": np.array([-1], object)}.items():
        np.savez(path, **whole | {key: value})
        with pytest.raises(InputError, match=f"'{key}' is pickled"):
            Dataset.load(path)
    np.savez(path, **whole, lattice=np.array("abc"))
    with pytest.raises(InputError, match="lattice must be numbers"):
        Dataset.load(path)
    np.savez(path, **whole | {"z": data.numbers + 0.4})
    with pytest.raises(InputError, match="whole numbers"):
        Dataset.load(path)


def test_cells_of_extxyz_files_are_read_or_refused(tmp_path, data):
    frames = []
    for R, F in zip(data.positions[:3], data.forces[:3], strict=True):
        frames.append(ase.Atoms(data.numbers, R, cell=[20.0, 21.0, 22.0], pbc=True))
        frames[-1].calc = SinglePointCalculator(frames[-1], energy=0.0, forces=F / units.EV)
    path = tmp_path / "box.extxyz"
    ase.io.write(path, frames)
    loaded = Dataset.load(path, check=False)
    np.testing.assert_allclose(loaded.lattice, np.diag([20.0, 21.0, 22.0]))
    frames[2].set_cell([20.0, 21.0, 23.0])
    ase.io.write(path, frames)
    with pytest.raises(InputError, match="frame 2 is periodic in some directions only, or its"):
        Dataset.load(path, check=False)
    for atoms in frames:
        atoms.pbc = False
    ase.io.write(path, frames)
    assert Dataset.load(path, check=False).lattice is None


def test_too_many_frames_asked_for(data):
    with pytest.raises(
        InputError, match="50 training, 20 validation and 0 test frames are requested"
    ):
        data.split(50, 20)


def test_a_failed_write_leaves_the_old_file(tmp_path, data, monkeypatch):
    with pytest.raises(InputError, match="cannot write"):
        data.save(tmp_path / "absent" / "x.npz")
    path = tmp_path / "x.npz"
    data.save(path)
    before = path.read_bytes()

    def fails(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fails)
    with pytest.raises(OSError, match="disk full"):
        data[:5].save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_md17_fingerprints_and_units(shared):
    for name, formula in (("ethanol", "C2H6O"), ("aspirin", "C9H8O4")):
        read = Dataset.load(shared / "data" / "md17" / f"{name}.npz")
        assert read.molecule.formula == formula


def test_stratified_draws_have_the_energies_of_the_whole():
    rng = np.random.default_rng(0)
    energies = np.concatenate([rng.normal(0.0, 1.0, 900), rng.normal(30.0, 1.0, 100)])
    R = rng.normal(size=(1000, 2, 3))
    data = Dataset([1, 1], R, np.zeros_like(R), energies)
    parts = data.split(50, 20, seed=1, stratify=True)
    assert [len(part) for part in parts] == [50, 20, 930]
    index = np.concatenate([part.index for part in parts])
    assert len(set(index.tolist())) == 1000
    for part in parts[:2]:
        assert abs(np.mean(part.energies > 15.0) - 0.1) <= 1.5 / len(part)
    assert np.array_equal(data.split(50, 20, seed=1, stratify=True).train.index, parts.train.index)
    assert not np.array_equal(data.split(50, seed=2, stratify=True).train.index, parts.train.index)
    without = Dataset([1, 1], R, np.zeros_like(R))
    assert len(without.split(50, 20, stratify=True).train) == 50


def test_orders_and_joined_sets_are_checked(data):
    for wrong in ([0, 0, *range(2, data.n_atoms)], [0, data.n_atoms], [-1, 0]):
        with pytest.raises(InputError, match="distinct atom indices"):
            data.reorder(wrong)
    order = [*range(1, data.n_atoms), 0]
    with pytest.raises(InputError, match="another order of atoms"):
        data.joined(data.reorder(order))


def test_joined_sets_have_all_frames_in_order(data):
    both = data[:3].joined(data[5:7])
    assert np.array_equal(both.positions, data.positions[[0, 1, 2, 5, 6]])
    assert np.array_equal(both.energies, data.energies[[0, 1, 2, 5, 6]])
    assert np.array_equal(both.forces, data.forces[[0, 1, 2, 5, 6]])
    assert np.array_equal(both.index, np.arange(5))
    assert data[:3].joined(replace(data[5:7], energies=None)).energies is None
