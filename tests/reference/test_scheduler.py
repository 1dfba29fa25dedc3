"""Labelling on Dask: the same numbers, nothing twice, nothing lost with a worker."""

import logging
import os
import signal
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from toy_calculators import Springs

from jaxff import Dataset, InputError, Molecule, units
from jaxff.reference import Labelling, label, label_frames, pools
from jaxff.reference.calculators import Method
from jaxff.store import Rows

distributed = pytest.importorskip("distributed")
TOY = "toy_calculators:Springs"


@pytest.fixture(scope="module")
def frames():
    water = Molecule.from_smiles("O")
    noise = np.random.default_rng(5).normal(0.0, 0.05, (40, 3, 3))
    return [water.with_positions(water.positions + step) for step in noise]


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield cluster


def test_a_lost_worker_costs_nothing_but_its_frames(frames, cluster, tmp_path):
    log = tmp_path / "log"
    how = Labelling(
        TOY, {"log": str(log), "delay": 0.02}, name="water", scheduler=cluster.scheduler_address
    )
    rows = Rows(tmp_path / "out.npz.part" / "rows.bin", len(frames), 10)
    before = {nanny.pid for nanny in cluster.workers.values()}
    at_kill = []

    def kill(*_):  # when the first labels have been written
        if not at_kill and rows.read()[0].any():
            os.kill(min(before), signal.SIGKILL)
            at_kill.extend([int(rows.read()[0].sum()), len(log.read_bytes())])

    label_frames(frames, tmp_path / "out.npz", how, progress=kill)
    written, computed = at_kill
    assert 0 < written < len(frames)
    data, calc = Dataset.load(tmp_path / "out.npz", check=False), Springs()
    for frame, molecule in enumerate(frames):
        atoms = molecule.to_ase()
        atoms.calc = calc
        assert data.energies[frame] == pytest.approx(atoms.get_potential_energy() * units.EV)
        np.testing.assert_allclose(data.forces[frame], atoms.get_forces() * units.EV, rtol=1e-12)
    # What was computed but not written may be computed again, and the frame that the worker was at;
    # nothing that was written.
    assert len(frames) <= len(log.read_bytes()) <= computed + (len(frames) - written) + 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "out.npz"]


def test_an_unfinished_run_is_continued_by_either_way(frames, cluster, tmp_path):
    moved = [f.with_positions(f.positions) for f in frames]
    moved[33] = moved[33].with_positions(moved[33].positions + 9.0)
    log, out = tmp_path / "log", tmp_path / "out.npz"
    how = Labelling(TOY, {"log": str(log), "fail_above": 8.0}, workers=1)
    with pytest.raises(InputError, match=r"frame 33: .*no convergence"):
        label_frames(moved, out, replace(how, scheduler=cluster.scheduler_address))
    done = int(Rows(tmp_path / "out.npz.part" / "rows.bin", 40, 10).read()[0].sum())
    assert done > 0
    wait_until_idle(cluster)
    log.unlink()
    result = label_frames(moved, out, replace(how, skip_failed=True))
    assert result.failed == (33,)
    assert len(log.read_bytes()) == 40 - done


def test_frames_that_kill_their_workers_end_the_run(frames, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    how = Labelling(
        "toy_calculators:Deadly", {"fail_above": -100.0}, scheduler=cluster.scheduler_address
    )
    with pytest.raises(InputError, match="several Dask workers died at the same frames"):
        label_frames(frames[:4], tmp_path / "out.npz", how)
    assert not (tmp_path / "out.npz").exists()


def wait_until_idle(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        while any(client.run(lambda dask_worker: dask_worker.state.executing_count).values()):
            time.sleep(0.05)


def test_a_cluster_made_here_labels_with_one_topology(tmp_path):
    """Frames that look bonded otherwise to each worker are typed as the first frame is."""
    start = Molecule.from_smiles("CC(=O)N")
    stretched = [start.positions.copy() for _ in range(8)]
    for i, R in enumerate(stretched):
        R[2] += 0.2 * i * (R[2] - R[1])  # the carbonyl's bond, up to 2.4 times its length
    frames = [start.with_positions(R).to_ase() for R in stretched]
    how = Labelling("mmff94-rdkit", scheduler="local", workers=2)
    label_frames(frames, tmp_path / "out.npz", how)
    data = Dataset.load(tmp_path / "out.npz", check=False)
    assert (np.diff(data.energies) > 0.0).all()
    with np.load(tmp_path / "out.npz") as file:
        assert str(file["topology"]) == "CC(N)=O (the frames')"


def test_what_is_missing_is_said(frames, cluster, tmp_path, monkeypatch):
    out = tmp_path / "out.npz"
    monkeypatch.setattr(pools, "PATIENCE", 0.3)
    monkeypatch.setattr(pools, "CONNECT", 2.0)
    with pytest.raises(InputError, match=r"no Dask scheduler responds at 'tcp://127\.0\.0\.1:9'"):
        label_frames(frames, out, Labelling(TOY, scheduler="tcp://127.0.0.1:9"))
    with pytest.raises(InputError, match="no Dask scheduler responds at 'nonsense'"):
        label_frames(frames, out, Labelling(TOY, scheduler="nonsense"))
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r'pip install "jaxff\[dask\]"'):
        label_frames(frames, out, Labelling(TOY, scheduler="local"))
    assert not out.exists()


def test_a_worker_with_another_version_is_refused(frames):
    R = np.zeros((1, 3, 3))
    block = label.Block(Method("emt"), "ase 0.0", frames[0], np.arange(1), R, None, True)
    with pytest.raises(InputError, match=r"has ase .* instead of ase 0\.0: install the same"):
        label._label_block(block)


def test_long_blocks_are_handed_over_in_parts(frames, monkeypatch):
    monkeypatch.setattr(label, "RETURN_AFTER", 0.0)
    method = Method(TOY)
    positions = np.array([f.positions for f in frames[:3]])
    rest = label.Block(method, method.version, frames[0], np.arange(3), positions, None, False)
    seen = []
    while rest is not None:
        (count, labels, failed), rest = label._label_block(rest)
        assert (count, failed) == (1, {})
        seen += labels
    assert seen == [0, 1, 2]
