"""Trajectory files: what they hold, who reads them, and what the death of their writer leaves."""

import json
import os
import shutil
import struct
import subprocess
import sys
import warnings
from contextlib import closing
from pathlib import Path

import ase.io
import h5py
import numpy as np
import pytest

from jaxff import InputError, Molecule, units
from jaxff.md import h5md
from jaxff.md.trajectory import open_trajectory, read_trajectory, resume_trajectory

SUFFIXES = (".extxyz", ".h5", ".dcd")
HELD_BY_DCD = ("positions", "times", "steps")
UNWRITABLE = [f"{name}{suffix}" for name in ("missing/run", "folder") for suffix in SUFFIXES]


@pytest.fixture(scope="module")
def ethanol():
    return Molecule.from_smiles("CCO")


@pytest.fixture(scope="module")
def frames(ethanol):
    rng = np.random.default_rng(0)
    n, shape = 23, (23, ethanol.n_atoms, 3)
    steps = 30 + 10 * np.arange(n)
    return {
        "positions": rng.normal(scale=3.0, size=shape),
        "velocities": rng.normal(scale=0.02, size=shape),
        "forces": rng.normal(scale=20.0, size=shape),
        "potential_energies": rng.normal(scale=50.0, size=n),
        "kinetic_energies": rng.exponential(10.0, size=n),
        "temperatures": rng.exponential(300.0, size=n),
        "times": 0.25 * steps,
        "steps": steps,
    }


def part(frames, begin, end):
    return {key: array[begin:end] for key, array in frames.items()}


def written(path, molecule, frames, cuts=(1, 2, 9)):
    """The file of all frames, appended in pieces, and the mark after each piece."""
    writer, marks = open_trajectory(path, molecule), []
    for begin, end in zip((0, *cuts), (*cuts, len(frames["steps"])), strict=True):
        marks.append(writer.mark())
        writer.append(part(frames, begin, end))
    writer.close()
    return marks


def same_file(path, other):
    if path.suffix != ".h5":
        return path.read_bytes() == other.read_bytes()
    found, expected = read_trajectory(path), read_trajectory(other)
    return list(found) == list(expected) and all(
        np.array_equal(found[key], expected[key]) for key in expected
    )


def beside(path):
    return sorted(p.name for p in path.parent.iterdir() if p.name.startswith("."))


@pytest.fixture
def universe():
    mda = pytest.importorskip("MDAnalysis", exc_type=ImportError)

    def load(path, molecule, **options):
        topology = path.with_suffix(".pdb")
        molecule.to_ase().write(topology)
        return mda.Universe(str(topology), str(path), **options)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield load


# -- what the files hold -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "tolerance"), [(".extxyz", 6e-7), (".h5", 0.0), (".h5md", 0.0), (".dcd", 1e-5)]
)
def test_frames_read_back(ethanol, frames, tmp_path, suffix, tolerance):
    path = tmp_path / f"run{suffix}"
    written(path, ethanol, frames)
    found = read_trajectory(path, ethanol)
    assert list(found) == [k for k in frames if suffix != ".dcd" or k in HELD_BY_DCD]
    for key, array in found.items():
        np.testing.assert_allclose(array, frames[key], rtol=0.0, atol=tolerance)
    np.testing.assert_array_equal(found["steps"], frames["steps"])
    assert beside(path) == []


def test_ase_reads_the_extxyz(ethanol, frames, tmp_path):
    path = tmp_path / "run.xyz"
    written(path, ethanol, frames)
    images = ase.io.read(path, index=":", format="extxyz")
    assert len(images) == len(frames["steps"])
    for f, atoms in enumerate(images):
        np.testing.assert_array_equal(atoms.numbers, ethanol.numbers)
        np.testing.assert_allclose(atoms.positions, frames["positions"][f], atol=1e-9)
        np.testing.assert_allclose(atoms.arrays["velocities"], frames["velocities"][f], atol=1e-9)
        np.testing.assert_allclose(atoms.arrays["force"], frames["forces"][f], atol=1e-7)
        assert atoms.info["step"] == frames["steps"][f]
        assert atoms.info["time"] == pytest.approx(frames["times"][f])
        assert atoms.calc is None  # nothing that ASE would take for eV


def test_the_hdf5_file_is_h5md(ethanol, frames, tmp_path):
    path = tmp_path / "run.h5"
    written(path, ethanol, frames)
    with h5py.File(path) as file:
        assert file["h5md"].attrs["version"].tolist() == [1, 1]
        assert file["h5md/creator"].attrs["name"] == "jaxff"
        assert set(file["h5md/creator"].attrs) == {"name", "version"}
        assert "name" in file["h5md/author"].attrs
        assert file["h5md/modules/units"].attrs["version"].tolist() == [1, 0]
        group = file["particles/trajectory"]
        assert group["box"].attrs["dimension"] == 3
        assert list(group["box"].attrs["boundary"]) == ["none"] * 3
        assert "edges" not in group["box"]
        np.testing.assert_array_equal(group["species"], ethanol.numbers)
        np.testing.assert_array_equal(file["connectivity/bonds"], ethanol.bonds)
        assert file[file["connectivity/bonds"].attrs["particles_group"]] == group
        for name, key, unit in (
            ("particles/trajectory/position", "positions", "Angstrom"),
            ("particles/trajectory/velocity", "velocities", "Angstrom fs-1"),
            ("particles/trajectory/force", "forces", "kcal mol-1 Angstrom-1"),
            ("observables/potential_energy", "potential_energies", "kcal mol-1"),
            ("observables/kinetic_energy", "kinetic_energies", "kcal mol-1"),
            ("observables/temperature", "temperatures", "K"),
        ):
            element = file[name]
            assert set(element) == {"step", "time", "value"}
            np.testing.assert_array_equal(element["value"], frames[key])
            np.testing.assert_array_equal(element["step"], frames["steps"])
            np.testing.assert_array_equal(element["time"], frames["times"])
            assert element["value"].attrs["unit"] == unit
            assert element["time"].attrs["unit"] == "fs"
            assert element["value"].maxshape[0] is None
            assert element["value"].chunks[1:] == frames[key].shape[1:]


def test_hdf5_keeps_float32(ethanol, frames, tmp_path):
    path = tmp_path / "run.h5"
    single = {k: v.astype(np.float32) if k != "steps" else v for k, v in frames.items()}
    written(path, ethanol, single)
    found = read_trajectory(path)
    for key in ("positions", "forces", "potential_energies"):
        assert found[key].dtype == np.float32
        np.testing.assert_array_equal(found[key], single[key])


def test_the_dcd_byte_by_byte(ethanol, frames, tmp_path):
    path = tmp_path / "run.dcd"
    written(path, ethanol, frames)
    raw = path.read_bytes()
    counters = np.frombuffer(raw, "<i4", 20, offset=8)
    assert (raw[:8], raw[88:92]) == (struct.pack("<i", 84) + b"CORD", struct.pack("<i", 84))
    # frames, first step, steps between frames, last step; no fixed atoms, no cell; CHARMM 24
    assert counters[[0, 1, 2, 3, 8, 10, 19]].tolist() == [23, 30, 10, 250, 0, 0, 24]
    akma = 1e15 * np.sqrt(1.66053907e-27 * 1e-20 / (4184.0 / 6.02214076e23))
    assert np.frombuffer(raw, "<f4", 1, offset=44)[0] * akma == pytest.approx(0.25, rel=1e-6)
    offset, records = 92, []
    while offset < len(raw):
        (size,) = struct.unpack_from("<i", raw, offset)
        records.append(raw[offset + 4 : offset + 4 + size])
        assert struct.unpack_from("<i", raw, offset + 4 + size) == (size,)
        offset += size + 8
    title, atoms, *axes = records
    assert struct.unpack_from("<i", title) == (2,)
    assert len(title) == 4 + 2 * 80
    assert b"Angstrom" in title
    assert struct.unpack("<i", atoms) == (9,)
    xyz = np.array([np.frombuffer(axis, "<f4") for axis in axes]).reshape(23, 3, 9)
    expected = frames["positions"].astype(np.float32).transpose(0, 2, 1)
    np.testing.assert_array_equal(xyz, expected)


def test_openmm_writes_the_same_dcd(ethanol, frames, tmp_path):
    app = pytest.importorskip("openmm.app")
    import openmm.unit

    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    for symbol in ethanol.symbols:
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    with (tmp_path / "openmm.dcd").open("w+b") as file:
        dcd = app.DCDFile(file, topology, 0.25 * openmm.unit.femtosecond, 30, 10)
        for positions in frames["positions"]:
            dcd.writeModel(positions * openmm.unit.angstrom)
    written(tmp_path / "run.dcd", ethanol, frames)
    ours, theirs = ((tmp_path / name).read_bytes() for name in ("run.dcd", "openmm.dcd"))
    assert len(ours) == len(theirs)
    assert ours[:44] == theirs[:44]
    assert ours[48:100] == theirs[48:100]  # all but the time step, a float32, and the titles
    step = [np.frombuffer(raw, "<f4", 1, offset=44)[0] for raw in (ours, theirs)]
    assert step[0] == pytest.approx(step[1], rel=1e-6)
    assert ours[260:276] == theirs[260:276]
    xyz = [np.frombuffer(raw, "<f4", offset=276) for raw in (ours, theirs)]
    np.testing.assert_allclose(*xyz, rtol=1e-6, atol=1e-6)  # OpenMM computes in nm


def test_mdanalysis_reads_the_h5md(ethanol, frames, tmp_path, universe):
    path = tmp_path / "run.h5"
    written(path, ethanol, frames)
    trajectory = universe(path, ethanol, format="H5MD").trajectory
    assert len(trajectory) == 23
    for f, ts in enumerate(trajectory):
        np.testing.assert_allclose(ts.positions, frames["positions"][f], atol=1e-5)
        velocities = 1000.0 * frames["velocities"][f]  # Å/ps
        np.testing.assert_allclose(ts.velocities, velocities, rtol=1e-5)
        np.testing.assert_allclose(ts.forces, 4.184 * frames["forces"][f], rtol=1e-5)
        assert ts.time == pytest.approx(frames["times"][f] / 1000.0)
        assert ts.data["step"] == frames["steps"][f]
        assert ts.data["potential_energy"] == frames["potential_energies"][f]
        assert ts.dimensions is None


def test_mdanalysis_reads_the_dcd(ethanol, frames, tmp_path, universe):
    path = tmp_path / "run.dcd"
    written(path, ethanol, frames)
    trajectory = universe(path, ethanol).trajectory
    assert len(trajectory) == 23
    assert trajectory.dt == pytest.approx(2.5e-3, rel=1e-6)  # ps
    for f, ts in enumerate(trajectory):
        np.testing.assert_allclose(ts.positions, frames["positions"][f], atol=1e-5)
        assert ts.time == pytest.approx(frames["times"][f] / 1000.0, rel=1e-6)
        assert ts.dimensions is None


def test_a_dcd_count_is_right_after_every_append(ethanol, frames, tmp_path):
    path = tmp_path / "run.dcd"
    writer = open_trajectory(path, ethanol)
    for f in range(4):
        assert struct.unpack_from("<i", path.read_bytes(), 8) == (f,)
        writer.append(part(frames, f, f + 1))
    writer.close()
    assert struct.unpack_from("<4i", path.read_bytes(), 8) == (4, 30, 10, 60)
    assert read_trajectory(path)["times"] == pytest.approx(frames["times"][:4], rel=1e-6)


def test_a_dcd_of_many_steps(ethanol, frames, tmp_path):
    path = tmp_path / "run.dcd"
    steps = 2**30 * np.arange(23)
    written(path, ethanol, {**frames, "steps": steps, "times": 0.5 * steps})
    assert struct.unpack_from("<4i", path.read_bytes(), 8) == (23, 0, 2**30, 0)
    found = read_trajectory(path)
    np.testing.assert_array_equal(found["steps"], steps)
    np.testing.assert_allclose(found["times"], 0.5 * steps, rtol=1e-6)


# -- continuing --------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_continued_from_any_mark_is_the_uninterrupted_one(ethanol, frames, tmp_path, suffix):
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"run{suffix}"
    for mark in written(whole, ethanol, frames):
        shutil.copy(whole, path)
        mark = json.loads(json.dumps(mark))
        writer = resume_trajectory(path, ethanol, mark)
        if mark["frames"]:
            alone = tmp_path / f"alone{suffix}"
            written(alone, ethanol, part(frames, 0, mark["frames"]), cuts=())
            assert same_file(path, alone)  # cut at once
        assert writer.mark() == mark
        writer.append(part(frames, mark["frames"], 15))
        writer.append(part(frames, 15, 15))
        writer.mark()
        writer.append(part(frames, 15, 23))
        writer.close()
        assert same_file(path, whole)
        assert beside(path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_is_extended_after_its_last_whole_frame(ethanol, frames, tmp_path, suffix):
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"run{suffix}"
    written(whole, ethanol, frames)
    written(path, ethanol, part(frames, 0, 12))
    if suffix != ".h5":
        with path.open("ab") as file:
            file.write(whole.read_bytes()[-100:])
    with closing(open_trajectory(path, ethanol, extend=True)) as writer:
        writer.append(part(frames, 12, 23))
    assert same_file(path, whole)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_killed_writers_lose_nothing_that_was_marked(tmp_path, suffix):
    script = Path(__file__).with_name("kill_writer.py")
    seed = str(np.random.default_rng(0).integers(2**31))
    command = [sys.executable, script, tmp_path, suffix, "10", seed]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"


def test_the_hdf5_file_is_whole_at_every_moment(ethanol, frames, tmp_path, monkeypatch):
    path, moments = tmp_path / "run.h5", []

    def look():
        if path.exists():
            copy = tmp_path / "moments" / str(len(moments))
            shutil.copytree(tmp_path, copy, ignore=lambda *_: ["moments"])
            moments.append((copy / path.name, marked))

    def watched(function):
        def call(*args):
            look()
            function(*args)
            look()

        return call

    marked = {"frames": 0}
    for name in ("link", "replace"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    writer = open_trajectory(path, ethanol)
    for f in range(0, 23, 4):
        before = path.read_bytes()
        for g in range(f, f + 4):
            writer.append(part(frames, g, g + 1))
            assert path.read_bytes() == before  # what dies here finds the last mark's file
        marked = writer.mark()
    writer.close()
    monkeypatch.undo()
    assert len(moments) > 30
    for copy, mark in moments:
        if copy.stat().st_size and mark["frames"]:
            there = read_trajectory(copy)
            assert len(there["steps"]) >= mark["frames"]
            np.testing.assert_array_equal(
                there["positions"], frames["positions"][: len(there["steps"])]
            )
        with closing(resume_trajectory(copy, ethanol, mark)) as rest:
            rest.append(part(frames, mark["frames"], 23))
        assert same_file(copy, path)
        assert beside(copy) == []


def test_hdf5_without_hard_links(ethanol, frames, tmp_path, monkeypatch):
    def link(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", link)
    path = tmp_path / "run.h5"
    written(path, ethanol, frames)
    np.testing.assert_array_equal(read_trajectory(path)["forces"], frames["forces"])
    assert beside(path) == []


def test_hdf5_may_be_read_while_it_is_written(ethanol, frames, tmp_path):
    path = tmp_path / "run.h5"
    writer = open_trajectory(path, ethanol)
    writer.append(part(frames, 0, 5))
    writer.mark()
    with h5py.File(path) as reader:  # holds HDF5's lock on the file of this moment
        for f in range(5, 23):
            writer.append(part(frames, f, f + 1))
            writer.mark()
        early = reader["particles/trajectory/position/value"][()]
    writer.close()
    np.testing.assert_array_equal(early, frames["positions"][:5])
    np.testing.assert_array_equal(read_trajectory(path)["positions"], frames["positions"])


# -- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".extxyz", ".dcd"])
def test_a_full_disk_is_named(ethanol, frames, tmp_path, suffix):
    path = tmp_path / f"run{suffix}"
    path.symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"cannot write .*run.* \(No space left on device"):  # noqa: SIM117
        with closing(open_trajectory(path, ethanol)) as writer:
            writer.append(frames)


def test_hdf5_keeps_the_last_mark_when_an_append_fails(ethanol, frames, tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    writer = open_trajectory(path, ethanol)
    writer.append(part(frames, 0, 5))
    writer.mark()
    writer.append(part(frames, 5, 6))
    calls = []

    def extend(dataset, begin, values):
        calls.append(dataset)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        dataset.resize(begin + len(values), axis=0)

    with monkeypatch.context() as patch:
        patch.setattr(h5md, "_extend", extend)
        with pytest.raises(InputError, match="No space left on device"):
            writer.append(part(frames, 6, 9))
    assert writer.mark() == {"frames": 5}
    writer.append(part(frames, 5, 23))
    writer.close()
    np.testing.assert_array_equal(read_trajectory(path)["positions"], frames["positions"])
    assert beside(path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_cannot_be_continued_are_refused_and_left_alone(
    ethanol, frames, tmp_path, suffix
):
    path, short = tmp_path / f"run{suffix}", tmp_path / f"short{suffix}"
    *_, mark = written(path, ethanol, frames)
    written(short, ethanol, part(frames, 0, 5), cuts=())
    order = [1, 0, 2, *range(3, 9)][::-1]
    other = ethanol.reorder(order)
    water = Molecule.from_smiles("O")
    with pytest.raises(InputError, match="does not exist"):
        resume_trajectory(tmp_path / f"none{suffix}", ethanol, mark)
    before = [p.read_bytes() for p in (path, short)]
    with pytest.raises(InputError, match=f"short{suffix}: frames are missing"):
        resume_trajectory(short, ethanol, mark)
    for molecule in (other, water):
        with pytest.raises(InputError, match="for this molecule"):
            resume_trajectory(path, molecule, mark)
        with pytest.raises(InputError, match="for this molecule"):
            open_trajectory(short, molecule, extend=True)
    with pytest.raises(InputError, match="atoms"):
        read_trajectory(path, water)
    assert [p.read_bytes() for p in (path, short)] == before
    path.write_bytes(b"something else\n" * 40)
    for call in (lambda: read_trajectory(path), lambda: resume_trajectory(path, ethanol, mark)):
        with pytest.raises(InputError, match=path.name):
            call()


def test_damaged_records_of_a_dcd_are_noticed(ethanol, frames, tmp_path):
    path = tmp_path / "run.dcd"
    written(path, ethanol, frames)
    raw = path.read_bytes()
    path.write_bytes(raw[:600] + bytes(20) + raw[600:])
    with pytest.raises(InputError, match="a frame is damaged"):
        read_trajectory(path)


@pytest.mark.parametrize("suffix", [".extxyz", ".dcd"])
def test_truncated_files_are_not_read(ethanol, frames, tmp_path, suffix):
    path = tmp_path / f"run{suffix}"
    written(path, ethanol, frames)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"incomplete|ends earlier"):
        read_trajectory(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.zeros((23, 3, 3))}, r"positions .* got \(23, 3, 3\)"),
        ({"times": np.zeros(5)}, "times of the frames must have shape"),
        ({"forces": np.full((23, 9, 3), np.nan)}, "forces of frame 0 are not finite"),
    ],
)
def test_frames_that_do_not_fit_are_not_written(ethanol, frames, tmp_path, suffix, change, message):
    path = tmp_path / f"run{suffix}"
    with closing(open_trajectory(path, ethanol)) as writer:
        before = path.read_bytes()
        with pytest.raises(InputError, match=message):
            writer.append({**frames, **change})
        with pytest.raises(InputError, match="lack the arrays steps"):
            writer.append({key: frames[key] for key in frames if key != "steps"})
    assert path.read_bytes() == before


def test_a_dcd_takes_evenly_spaced_frames_only(ethanol, frames, tmp_path):
    with closing(open_trajectory(tmp_path / "run.dcd", ethanol)) as writer:
        writer.append(part(frames, 0, 5))
        with pytest.raises(InputError, match="evenly spaced"):
            writer.append(part(frames, 6, 8))
        with pytest.raises(InputError, match="evenly spaced"):
            writer.append(part(frames, 4, 8))
        writer.append(part(frames, 5, 23))
    steps = frames["steps"] + 2**31
    with (
        closing(open_trajectory(tmp_path / "late.dcd", ethanol)) as writer,
        pytest.raises(InputError, match="too large for a DCD file"),
    ):
        writer.append({**frames, "steps": steps})


@pytest.mark.parametrize("name", ["run.txt", "run", *UNWRITABLE])
def test_paths_that_cannot_be_written_are_named(ethanol, tmp_path, name):
    if name.startswith("folder"):
        (tmp_path / name).mkdir()
    unknown = "run" in name and "missing" not in name
    message = r"use \.extxyz, \.xyz, \.h5, \.h5md, \.dcd" if unknown else name
    with pytest.raises(InputError, match=message):
        open_trajectory(tmp_path / name, ethanol)
    assert list(tmp_path.rglob(".*")) == []


def test_akma_units():
    # CHARMM's time unit
    np.testing.assert_allclose(units.TIME, 48.88821, rtol=1e-6)


def test_a_damaged_h5md_file_is_one_sentence(tmp_path, ethanol, frames):
    """Bytes of the file are overwritten at random: it is read or refused, without other errors."""
    path, rng, refused = tmp_path / "x.h5", np.random.default_rng(0), 0
    written(path, ethanol, frames)
    whole = path.read_bytes()
    for _ in range(60):
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), size=200):
            changed[place] = rng.integers(256)
        path.write_bytes(changed)
        try:
            read_trajectory(path, ethanol)
        except InputError:
            refused += 1
    assert refused > 5
    with h5py.File(path, "w") as file:  # a group in place of frames
        file.create_group(h5md.STEP)
        file.create_group(h5md.DATASETS["positions"]).attrs["unit"] = "Angstrom"
    with pytest.raises(InputError, match="is damaged"):
        read_trajectory(path)


def test_an_h5md_file_of_fixed_length_is_not_resumed(tmp_path, ethanol, frames):
    path = tmp_path / "x.h5"
    written(path, ethanol, frames)
    with h5py.File(path, "r+") as file:
        positions = file[h5md.DATASETS["positions"]][:]
        del file[h5md.DATASETS["positions"]]
        file[h5md.DATASETS["positions"]] = positions
    before = path.read_bytes()
    with pytest.raises(InputError, match="cannot be extended"):
        h5md.H5MDWriter.resume(path, ethanol, {"frames": 1})
    assert path.read_bytes() == before


@pytest.mark.parametrize("key", ["temperatures", "positions", "velocities"])
def test_arrays_of_wrong_shape_or_size_are_damage(tmp_path, ethanol, frames, key):
    path = tmp_path / "run.h5"
    written(path, ethanol, frames)
    name = h5md.DATASETS[key]
    with h5py.File(path, "r+") as file:
        if key == "positions":
            file[name][0, 0, 0] = -1e300
        elif key == "velocities":
            file[name][0, 0, 0] = np.nan
        else:
            del file[name]
            file[name] = 300.0
            file[name].attrs["unit"] = h5md.UNITS[key]
    with pytest.raises(InputError, match="the file is damaged, because"):
        read_trajectory(path)
