"""Stores: the state of unfinished work is continued by the same request, and by no other."""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxff import InputError
from jaxff.store import REQUEST, Rows, Store, check_request, claim, described, locked

REQUESTED = {"frames": np.arange(6.0).reshape(2, 3), "seed": 0, "options": {"sigma": 10.0}}


class Moving(NamedTuple):
    position: jax.Array
    key: jax.Array
    force: jax.Array | None = None


def test_a_state_comes_back_as_it_was(tmp_path):
    store = Store(tmp_path / "state.npz", REQUESTED, "training")
    assert store.load() is None
    moving = Moving(jnp.arange(3, dtype=jnp.float32) / 3, jax.random.key(7, impl="rbg"))
    state = {
        "step": np.int64(12),
        "marks": [{"file": "run.h5", "frames": 3}, None],
        "losses": [0.1, np.float64(1 / 3), np.inf, np.nan],
        "vector": np.array([1, 2], np.int8),
        "samples": [np.ones((2, 1)), np.zeros(0)],
        "empty": {},
        "generator": np.random.default_rng(3).bit_generator.state,
        "moving": (moving, jnp.float64(2.0)),
    }
    store.save(state)
    found = Store(tmp_path / "state.npz", REQUESTED, "training").load(like=state)
    assert list(found) == list(state)
    assert found["step"] == 12
    for name in ("marks", "empty", "generator"):
        assert found[name] == state[name]
    np.testing.assert_array_equal(found["losses"], state["losses"])
    for name in ("vector", "samples"):
        jax.tree.map(np.testing.assert_array_equal, found[name], state[name])
    same = found["moving"]
    assert jax.tree.structure(same) == jax.tree.structure(state["moving"])
    assert same[0].position.dtype == jnp.float32
    np.testing.assert_array_equal(same[0].position, moving.position)
    # The random numbers that follow are the same.
    np.testing.assert_array_equal(
        jax.random.normal(same[0].key, 5), jax.random.normal(moving.key, 5)
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "state.npz"]


def test_other_shapes_and_types_are_refused(tmp_path):
    store = Store(tmp_path / "state.npz", {}, "simulation")
    store.save({"moving": {"a": jnp.ones(3), "b": 1}})
    for other in ({"a": jnp.ones(4), "b": 1}, {"a": jnp.ones(3, jnp.float32), "b": 1}, {"a": 1}):
        with pytest.raises(InputError, match=r"state\.npz: the arrays 'moving' have other"):
            store.load(like={"moving": other})
    assert store.load(like={"moving": {"a": jnp.zeros(3), "b": 0}})["moving"]["b"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"other settings \(seed 0 → 1\)"),
        ({"options": {"sigma": 20.0}}, r"\(options\.sigma 10\.0 → 20\.0\)"),
        ({"frames": np.zeros((2, 3))}, r"\(frames\)"),
        ({"frames": REQUESTED["frames"].T.copy(), "more": "x"}, r'\(frames; more null → "x"\)'),
    ],
)
def test_the_state_of_another_request_is_refused(tmp_path, change, message):
    path = tmp_path / "state.npz"
    Store(path, REQUESTED, "training").save({"step": 1})
    other = {**REQUESTED, **change}
    with pytest.raises(InputError, match=message):
        Store(path, other, "training").load()
    with pytest.raises(InputError, match=f"delete {path} to start again"):
        Store(path, other, "training").load()
    with pytest.raises(InputError, match="not the state of a fit"):
        Store(path, REQUESTED, "fit").load()
    replacing = Store(path, other, "training", replace=True)
    assert replacing.load() is None
    replacing.save({"step": 2})
    assert Store(path, other, "training").load() == {"step": 2}


def test_damaged_and_foreign_files_are_named(tmp_path):
    path = tmp_path / "state.npz"
    store = Store(path, REQUESTED, "training")
    store.save({"vector": np.arange(1000.0)})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"state\.npz: not a readable state of a training"):
        store.load()
    for header in ("[]", "{", '{"format": "another", "request": {}, "state": {}}'):
        np.savez(path, header=np.array(header))
        with pytest.raises(InputError, match=r"not the state of a training .*delete the file"):
            store.load()
    store.save({"key": jax.random.key(0)})
    arrays = dict(np.load(path))
    for damaged in (arrays["array_0"].astype(float), np.zeros(3, np.uint32)):
        np.savez(path, **{**arrays, "array_0": damaged})
        with pytest.raises(InputError, match=r"'array_0' is not a key of random numbers: delete"):
            store.load()
    with pytest.raises(InputError, match="is a folder"):
        Store(tmp_path, REQUESTED)
    with pytest.raises(InputError, match="does not exist"):
        Store(tmp_path / "none" / "state.npz", REQUESTED)


def test_without_a_file_nothing_is_kept():
    store = Store(None, REQUESTED)
    store.save({"step": 1})
    assert store.load() is None
    store.remove()


def test_values_that_cannot_be_kept_are_errors(tmp_path):
    with pytest.raises(TypeError, match="cannot contain a function"):
        described({"loss": lambda x: x})
    with pytest.raises(TypeError, match="cannot contain a object"):
        Store(tmp_path / "a.npz", {}).save({"x": object()})
    with pytest.raises(TypeError, match="arrays of objects"):
        Store(tmp_path / "a.npz", {}).save({"x": np.array([object()])})
    assert not list(tmp_path.iterdir())


WRITER = """
import sys
import numpy as np
from jaxff.store import Store
store = Store(sys.argv[1], {"seed": 0}, "training")
state = store.load() or {"step": 0}
print(state["step"], flush=True)
for step in range(state["step"] + 1, 10**6):
    store.save({"step": step, "vector": np.full(20000, float(step))})
"""


def test_a_kill_between_or_within_writes_leaves_a_complete_state(tmp_path):
    path, begun = tmp_path / "state.npz", []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True
        )
        begun.append(int(process.stdout.readline()))
        written = path.stat().st_mtime_ns if path.exists() else 0
        while not path.exists() or path.stat().st_mtime_ns == written:
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        state = Store(path, {"seed": 0}, "training").load()
        assert (state["vector"] == state["step"]).all()
    assert begun == sorted(set(begun))  # each went on from where the one before was killed


def test_a_reader_never_sees_a_state_that_is_half_written(tmp_path):
    store = Store(tmp_path / "state.npz", {}, "training")
    store.save({"step": 0, "vector": np.zeros(5000)})
    ended = threading.Event()

    def write():
        for step in range(100):
            store.save({"step": step, "vector": np.full(5000, float(step))})
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not ended.is_set():
        state = Store(store.path, {}, "training").load()
        assert (state["vector"] == state["step"]).all()
        reads += 1
    writer.join()
    assert reads


# -- folders -----------------------------------------------------------------------------------


def test_a_folder_belongs_to_one_request_as_soon_as_it_holds_work(tmp_path):
    folder = tmp_path / "a" / "work"
    assert not claim(folder, {"seed": 0}, "run")
    assert not claim(folder, {"seed": 1}, "run")  # nothing is lost
    (folder / "rows.bin").write_bytes(b"1")
    assert claim(folder, {"seed": 1}, "run")
    with pytest.raises(
        InputError, match=r"work belongs to another run with other settings \(seed 1 → 0\)"
    ):
        claim(folder, {"seed": 0}, "run")
    (folder / REQUEST).write_text("{")
    with pytest.raises(InputError, match=r"request\.json is damaged: delete"):
        claim(folder, {"seed": 1}, "run")
    with pytest.raises(InputError, match="is a file"):
        claim(folder / REQUEST, {}, "run")


def test_work_is_replaced_but_files_of_others_are_not(tmp_path):
    files = r"trial-\d+\.npz|rows"
    options = {"files": files, "replace": True}
    (tmp_path / ".request.json.x1").write_text("{")  # of a process that was killed
    claim(tmp_path, {"seed": 0}, "training", **options)
    (tmp_path / "trial-1.npz").write_text("1")
    (tmp_path / "rows").mkdir()
    assert claim(tmp_path, {"seed": 0}, "training", **options)
    assert not claim(tmp_path, {"seed": 1}, "training", **options)
    assert [path.name for path in tmp_path.iterdir()] == [REQUEST]
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"because it contains thesis\.tex"):
        claim(tmp_path, {"seed": 1}, "training", **options)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_pieces_that_lost_their_request_are_not_continued(tmp_path):
    claim(tmp_path, {"seed": 0}, "run", files="rows")
    (tmp_path / "rows").write_text("1")
    (tmp_path / REQUEST).unlink()
    assert not claim(tmp_path, {"seed": 0}, "run", files="rows")
    assert not (tmp_path / "rows").exists()


def test_two_runs_do_not_share_a_folder(tmp_path):
    pytest.importorskip("fcntl")
    with locked(tmp_path), pytest.raises(InputError, match="another run uses"):
        locked(tmp_path).__enter__()
    with locked(tmp_path):
        pass


def test_rows_half_written_do_not_count(tmp_path):
    rows = Rows(tmp_path / "rows.bin", 4, 2)
    rows.write(2, [1.0, 2.0])
    rows.write(0, [3.0, 4.0])
    with (tmp_path / "rows.bin").open("ab") as file:
        file.write(np.array([5.0, 6.0]).tobytes() + b"\0\0\0")  # row 3 without its number
    done, values = rows.read()
    assert done.tolist() == [True, False, True, False]
    np.testing.assert_array_equal(values, [[3.0, 4.0], [0.0, 0.0], [1.0, 2.0], [0.0, 0.0]])


def test_equal_requests_are_equal_whatever_holds_their_values():
    one = described({"a": (1, np.float64(2.0)), "b": jnp.arange(3.0), "c": float("nan")})
    other = described({"c": float("nan"), "b": np.arange(3.0), "a": [1, 2.0]})
    check_request("x", one, other, "run")
    assert described({"b": np.arange(3.0, dtype=np.float32)}) != described({"b": np.arange(3.0)})
